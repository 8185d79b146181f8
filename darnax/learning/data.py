"""Data for training: inputs and targets by node, and how they are cut into batches."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from darnax.topologies.topology import Topology


class Data(eqx.Module):
    """Inputs and targets by node, all of one length."""

    x: dict[Any, Array]
    y: dict[Any, Array]

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))

    @staticmethod
    def of(topology: Topology, x: Any, y: Any) -> "Data":
        """Checked data; arrays are those of the only input and output."""
        named = {}
        for argument, given, nodes in (("x", x, topology.inputs), ("y", y, topology.outputs)):
            if not isinstance(given, Mapping):
                if len(nodes) != 1:
                    which = "inputs" if argument == "x" else "outputs"
                    raise ValueError(
                        f"the topology has {len(nodes)} {which}; give `{argument}` as a mapping from nodes to arrays"
                    )
                given = {nodes[0]: given}
            topology.indices(argument, given)
            named[argument] = {node: np.asarray(value) for node, value in given.items()}
        lengths = {len(value) if value.ndim else 0 for part in named.values() for value in part.values()}
        if len(lengths) != 1:
            said = {
                f"{argument}[{node!r}]": value.shape for argument, part in named.items() for node, value in part.items()
            }
            raise ValueError(f"inputs and labels have one length, but got {said}; give one label a sample")
        if lengths == {0}:
            raise ValueError("the data are empty; give at least one sample")
        for argument, part in named.items():
            for node, value in part.items():
                shape = topology.shape(node)
                if value.shape[1:] == shape:
                    continue
                advice = "give one number a unit"
                if argument == "y" and value.ndim == 1 and value.dtype.kind in "iu" and len(shape) == 1:
                    advice = f"class indices become targets by dx.one_vs_all(y, {shape[0]})"
                raise ValueError(
                    f"`{argument}` for node {node!r} has shape (n, *{shape}), but got {value.shape}; {advice}"
                )
        return Data(*({node: jnp.asarray(value) for node, value in part.items()} for part in named.values()))


def one_vs_all(labels: Any, classes: int) -> Float[Array, "n classes"]:
    """Class indices as targets of ±1: +1 for the class, -1 for the others. Raises `ValueError` for other labels."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels < 0).any() or (labels >= classes).any():
        raise ValueError(
            f"`labels` are whole numbers from 0 to {classes - 1}, one a sample, but got {labels.dtype} of shape "
            f"{labels.shape}" + (f" from {labels.min()} to {labels.max()}" if labels.size else "")
        )
    return 2 * jax.nn.one_hot(labels, classes) - 1


def in_order(n: int, size: int) -> tuple[Int[np.ndarray, "batches size"], Bool[np.ndarray, "batches size"]]:
    """The places of samples batch by batch, and which of them are real: the last batch is filled up."""
    batches = math.ceil(n / size)
    places = np.arange(batches * size).reshape(batches, size)
    return places % n, places < n


def shuffled(n: int, size: int, key: Any) -> tuple[Int[Array, "batches size"], Bool[np.ndarray, "batches size"]]:
    """The same in random order."""
    order, real = in_order(n, size)
    return jax.random.permutation(key, n)[order], real


def is_batches(x: Any) -> bool:
    """Whether `x` is an iterable of batches, and no data itself."""
    return isinstance(x, Iterable) and not isinstance(x, Mapping) and not hasattr(x, "shape")


def batches_of(topology: Topology, batches: Any, epoch: int) -> Iterator[Data]:
    """The batches of an iterable."""
    count = 0
    for x, y in batches:
        yield Data.of(topology, x, y)
        count += 1
    if not count:
        raise ValueError(
            f"`x` gave no batches in epoch {epoch + 1}; give an iterable that starts anew every time, such as a list, "
            "and not a generator"
        )
