"""Data for training: inputs and targets by node, and how they are cut into batches."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from darnax import checks
from darnax._arrays import on_device
from darnax.states.values import as_array, cast
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology


class Data(eqx.Module):
    """Inputs and targets by node, all of one length."""

    # names are static, and not keys of dicts that are pytrees: JAX sorts those, and names of two
    # types have no order
    nodes: tuple[tuple[Name, ...], tuple[Name, ...]] = eqx.field(static=True)
    arrays: tuple[tuple[Array, ...], tuple[Array, ...]]

    @property
    def x(self) -> dict[Name, Array]:
        """The inputs."""
        return dict(zip(self.nodes[0], self.arrays[0], strict=True))

    @property
    def y(self) -> dict[Name, Array]:
        """The targets."""
        return dict(zip(self.nodes[1], self.arrays[1], strict=True))

    def __len__(self) -> int:
        return len(self.arrays[0][0])

    def at(self, places: Any) -> "Data":
        """Those samples alone."""
        return jax.tree.map(lambda array: array[places], self)

    @staticmethod
    def of(topology: Topology, x: Any, y: Any) -> "Data":
        """Checked data; arrays are those of the only input and output."""
        given = {
            "x": _by_node(topology, "x", x, topology.inputs),
            "y": _by_node(topology, "y", y, topology.outputs),
        }
        _check_lengths(given)
        parts = []
        for argument, part in given.items():
            parts.append(
                tuple(_typed(topology, argument, node, value) for node, value in part.items())
            )
        return Data((tuple(given["x"]), tuple(given["y"])), (parts[0], parts[1]))


def _by_node(
    topology: Topology, argument: str, given: Any, nodes: tuple[Name, ...]
) -> dict[Name, Any]:
    """What is given as a mapping from nodes to arrays."""
    if given is None and (argument == "x" or nodes):
        advice = (
            f"give an array `(n, *{topology.shape(nodes[0])})`"
            if len(nodes) == 1
            else "give an array by node"
        )
        alone = "" if argument == "x" else ", or `x` alone, as an iterable of batches (x, y)"
        raise TypeError(f"`{argument}` is missing; {advice}{alone}")
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        if len(nodes) != 1:
            which = "inputs" if argument == "x" else "outputs"
            raise ValueError(
                f"the topology has {len(nodes)} {which}; give `{argument}` as a mapping from nodes "
                "to arrays"
            )
        given = {nodes[0]: given}
    places = topology.indices(argument, given)
    return {
        topology.nodes[at]: _array(f"`{argument}` for node {topology.nodes[at]!r}", value)
        for at, value in zip(places, given.values(), strict=True)
    }


def _array(what: str, value: Any) -> Any:
    """An array of numbers; text and the like are none."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"{what} is traced, but training and evaluation are programs of their own; call them "
            "outside"
        )
    array = as_array(what, value)
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise TypeError(
            f"{what} is an array of numbers, but got {checks.came(value)}; give numbers"
        )
    return array


def _check_lengths(given: dict[str, dict[Name, Any]]):
    shapes = {
        f"{argument}[{node!r}]": value.shape
        for argument, part in given.items()
        for node, value in part.items()
    }
    if not given["x"]:
        raise ValueError("`x` is empty; give an array for at least one node")
    lengths = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"inputs and labels have one length, but got {shapes}; give one label a sample"
        )
    if lengths == {0}:
        raise ValueError("the data are empty; give at least one sample")


def _typed(topology: Topology, argument: str, node: Name, value: Any) -> Array:
    """An array of the shape and dtype of its node."""
    what, shape = f"`{argument}` for node {node!r}", topology.shape(node)
    if value.shape[1:] != shape:
        advice = "give one number a unit"
        if argument == "y" and value.ndim == 1 and value.dtype.kind in "iu" and len(shape) == 1:
            advice = f"class indices become targets by dx.one_vs_all(y, {shape[0]})"
        raise ValueError(f"{what} has shape (n, *{shape}), but got {value.shape}; {advice}")
    return on_device(cast(what, value, jnp.dtype(topology.node_class(topology.index(node)).dtype)))


def one_vs_all(labels: Any, classes: Any) -> Float[Array, "n classes"]:
    """Class indices as targets of ±1: +1 for the class, -1 for the others.

    **Arguments:**

    - `labels`: whole numbers from 0 to `classes - 1`, `(n,)`.
    - `classes`: how many there are.

    Raises `TypeError` or `ValueError` for anything else.

    !!! example

        ```python
        dx.one_vs_all([2, 0], 3).tolist()  # [[-1, -1, 1], [1, -1, -1]]
        ```
    """
    classes = checks.count("classes", classes, 1)
    if isinstance(labels, Tracer):
        checks.refuse(
            "labels",
            "an array of whole numbers",
            labels,
            "make the targets outside of jitted functions",
        )
    array = as_array("`labels`", labels)
    good = (
        array.ndim == 1
        and array.dtype.kind in "iu"
        and bool(((array >= 0) & (array < classes)).all())
    )
    if not good:
        kind = "text" if array.dtype.kind in "US" else str(array.dtype)
        numbers = array.size > 0 and array.dtype.kind in "iuf"
        span = f" from {array.min()} to {array.max()}" if numbers else ""
        raise (ValueError if array.dtype.kind in "iuf" else TypeError)(
            f"`labels` are whole numbers from 0 to {classes - 1}, one a sample, but got {kind} of "
            f"shape {array.shape}{span}; number the classes, as np.unique(labels, "
            "return_inverse=True)[1] does"
        )
    return 2 * jax.nn.one_hot(np.asarray(array), classes) - 1


def in_order(
    n: int, size: int
) -> tuple[Int[np.ndarray, "batches size"], Bool[np.ndarray, "batches size"]]:
    """The places of samples batch by batch, and which of them are real: the last batch is filled
    up.
    """
    batches = math.ceil(n / size)
    places = np.arange(batches * size).reshape(batches, size)
    return places % n, places < n


def shuffled(
    n: int, size: int, key: Any
) -> tuple[Int[Array, "batches size"], Bool[np.ndarray, "batches size"]]:
    """The same in random order."""
    order, real = in_order(n, size)
    return jax.random.permutation(key, n)[order], real


def is_batches(x: Any) -> bool:
    """Whether `x` is an iterable of batches, and no data itself."""
    return (
        isinstance(x, Iterable)
        and not isinstance(x, (Mapping, str, bytes))
        and not hasattr(x, "shape")
    )


def pair(argument: str, value: Any, holds: str) -> tuple[Any, Any]:
    """Inputs and targets, as a tuple or list of two."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        checks.refuse(argument, f"{holds} (x, y)", value, "give a tuple of two")
    return value[0], value[1]


def batches_of(topology: Topology, batches: Any, epoch: int) -> Iterator[Data]:
    """The batches of an iterable."""
    count = 0
    for batch in batches:
        yield Data.of(topology, *pair("x", batch, "one array, or an iterable of batches"))
        count += 1
    if not count:
        raise ValueError(
            f"`x` gave no batches in epoch {epoch + 1}; give an iterable that starts anew every "
            "time, such as a list, and not a generator"
        )
