"""Data for training: inputs and targets by node, and how they are cut into batches.

Arrays become one `Dataset`, and an epoch is one compiled scan over its batches, all of one size. An
iterable becomes `Batches`, each of which is a `Dataset` of its own when its turn comes. Both answer
the same questions: what the parts of an epoch are, what a sample looks like, and how a checkpoint
tells them from others.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from darnax import _text, checks, files
from darnax._arrays import on_device
from darnax.learning.rules import Rules
from darnax.states.graph import GraphState
from darnax.states.values import as_array, cast
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

Values: TypeAlias = Array | np.ndarray | Sequence[Any]
"""An array, or lists of numbers that can be read as one."""

Data: TypeAlias = Values | Mapping[Any, Values]
"""An array `(n, *shape)` for the only input or output, or a mapping from nodes to such arrays."""

Targets: TypeAlias = Mapping[Any, Array]
"""The states that nodes should be in: a mapping from nodes to arrays `(B, *shape)`."""


class Dataset(eqx.Module):
    """Checked inputs and targets of all samples, by node."""

    # no plain dicts: JAX sorts the keys of those, and names of two types have no order
    x: OrderedDict[Name, Array]
    y: OrderedDict[Name, Array]

    @staticmethod
    def of(topology: Topology, x: object, y: object, rules: Rules | None = None) -> "Dataset":
        """Data as users give them; `rules` are those that are to learn from the targets, if any."""
        inputs = _by_node(topology, "x", x, topology.inputs)
        targets = _by_node(topology, "y", y, topology.outputs)
        if not inputs:
            raise ValueError("`x` is empty; give an array for at least one node")
        lengths = {len(array) for array in [*inputs.values(), *targets.values()]}
        if len(lengths) > 1:
            came = _text.arrays(inputs | targets)
            raise ValueError(
                f"inputs and labels have one length, but got {came}; give one label a sample"
            )
        if lengths == {0}:
            raise ValueError("the data are empty; give at least one sample")
        _check_signs(topology, rules or {}, targets)
        return Dataset(inputs, targets)

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))

    def take(self, numbers: Int[Array | np.ndarray, " n"]) -> "Dataset":
        """Some of the samples, by their numbers; past the end it is the last one again."""

        def rows(array: Array) -> Array:
            return jnp.take(array, numbers, axis=0, mode="clip")

        return jax.tree.map(rows, self)

    def parts(self) -> Iterator["Dataset"]:
        """The pieces in which an epoch gets to see the data: here all of them at once."""
        yield self

    def example(self) -> "Dataset":
        """The shapes of two samples: what is computed for one does not depend on their number."""
        return eqx.filter_eval_shape(self.take, np.array([0, 0]))

    def described(self) -> str:
        """The data in one line, digest included."""
        names = _text.names([*self.x, *self.y])
        return f"{len(self)} samples for {names}, digest {files.digest(self)}"


class Batches(NamedTuple):
    """An iterable of batches `(x, y)`: each of them is checked when its turn comes."""

    topology: Topology
    rules: Rules
    given: Iterable[tuple[Data, Data]]

    def parts(self) -> Iterator[Dataset]:
        """The pieces in which an epoch gets to see the data: here one batch after another."""
        for batch in self.given:
            x, y = pair("x", batch, "one array, or an iterable of batches")
            yield Dataset.of(self.topology, x, y, self.rules)

    def example(self) -> Dataset:
        """Two samples of zeros: no batch can be looked at before it is there."""
        zeros, topology = GraphState(self.topology, 2), self.topology
        # without inputs some other node must say how many samples there are
        x = {node: zeros[node] for node in topology.inputs or topology.nodes[:1]}
        y = {node: zeros[node] for node in topology.outputs}
        return Dataset.of(topology, x, y)

    def described(self) -> str:
        """The data in one line."""
        return "an iterable of batches"


def _by_node(
    topology: Topology,
    argument: str,
    given: Any,
    nodes: tuple[Name, ...],
) -> OrderedDict[Name, Array]:
    """Arrays by node; `nodes` are the inputs or the outputs."""
    arrays = OrderedDict()
    if given is None and argument == "y" and not nodes:
        return arrays
    if given is None:
        advice = "give an array by node"
        if len(nodes) == 1:
            advice = f"give an array `(n, *{topology.shape(nodes[0])})`"
        if argument == "y":
            advice += ", or `x` alone, as an iterable of batches (x, y)"
        raise TypeError(f"`{argument}` is missing; {advice}")
    if not isinstance(given, Mapping):
        if len(nodes) != 1:
            which = {"x": "inputs", "y": "outputs"}[argument]
            raise ValueError(
                f"the topology has {len(nodes)} {which}; give `{argument}` as a mapping from nodes "
                "to arrays"
            )
        given = {nodes[0]: given}
    for i, values in zip(topology.indices(argument, given), given.values(), strict=True):
        node = topology.nodes[i]
        arrays[node] = _array(topology, argument, node, values)
    return arrays


def _array(topology: Topology, argument: str, node: Name, values: Any) -> Array:
    """The values of a node in its shape and dtype."""
    what = f"`{argument}` for node {node!r}"
    if isinstance(values, Tracer):
        raise TypeError(
            f"{what} is traced, but training and evaluation are programs of their own; call them "
            "outside"
        )
    array = as_array(what, values)
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise TypeError(
            f"{what} is an array of numbers, but got {checks.came(values)}; give numbers"
        )
    shape = topology.shape(node)
    if array.ndim == 0 or array.shape[1:] != shape:
        advice = "give one number a unit"
        if argument == "y" and array.ndim == len(shape) == 1 and array.dtype.kind in "iu":
            advice = f"class indices become targets by dx.one_vs_all(y, {shape[0]})"
        raise ValueError(f"{what} has shape (n, *{shape}), but got {array.shape}; {advice}")
    dtype = topology.node_class(topology.index(node)).dtype
    return on_device(cast(what, array, dtype))


def _check_signs(topology: Topology, rules: Rules, targets: Targets):
    """Targets of nodes that learn by a rule for ±1 units are ±1: at 0 its signal is 0."""
    columns = topology.columns
    signed = [kind for kind, rule in rules.items() if getattr(rule, "signs", False)]
    for node, target in targets.items():
        incoming = columns.receivers == topology.index(node)
        classes = np.unique(columns.edge_class[incoming])
        kinds = {columns.edge_classes[i][0] for i in classes.tolist()}
        here = sorted(kinds.intersection(signed))
        # the data are looked at only where it matters: they may be large, and on a device
        if here and np.asarray(target == 0).any():
            raise ValueError(
                f"`y` for node {node!r} holds zeros, and the rule of {here[0]!r} is for targets of "
                "±1: a target of 0 teaches nothing; give 2 * y - 1 in place of 0 and 1"
            )


@checks.by_hand
def one_vs_all(labels: Values, classes: int) -> Float[Array, "n classes"]:
    """Targets of ±1 from class indices: +1 for the class, -1 for the others.

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
    # whether they are in range cannot be told of traced numbers
    if isinstance(labels, Tracer):
        advice = "make the targets outside of jitted functions"
        checks.refuse("labels", "an array of whole numbers", labels, advice)
    array = as_array("`labels`", labels)
    good = array.ndim == 1 and array.dtype.kind in "iu"
    if not good or bool(((array < 0) | (array >= classes)).any()):
        numeric = array.dtype.kind in "iuf"
        kind = "text" if array.dtype.kind in "US" else str(array.dtype)
        span = f" from {array.min()} to {array.max()}" if numeric and array.size else ""
        error = ValueError if numeric else TypeError
        raise error(
            f"`labels` are whole numbers from 0 to {classes - 1}, one a sample, but got {kind} of "
            f"shape {array.shape}{span}; number the classes, as np.unique(labels, "
            "return_inverse=True)[1] does"
        )
    return 2 * jax.nn.one_hot(np.asarray(array), classes) - 1


def in_batches(
    order: Int[np.ndarray, " n"],
    size: int,
) -> Int[np.ndarray, "batches size"]:
    """The numbers of samples batch by batch, in an order of all n samples.

    All batches are of one size, so that one program serves them all: the last one is filled up with
    numbers of at least n, which are no samples.
    """
    n = len(order)
    missing = -n % size
    filled = np.concatenate([order, np.arange(n, n + missing)])
    return filled.reshape(-1, size)


def is_batches(x: object) -> TypeGuard[Iterable[tuple[Data, Data]]]:
    """Whether `x` is an iterable of batches, and no data itself."""
    is_data = isinstance(x, (Mapping, str, bytes)) or hasattr(x, "shape")
    return isinstance(x, Iterable) and not is_data


def pair(argument: str, value: object, holds: str) -> tuple[object, object]:
    """Inputs and targets, from a tuple or list of two."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        checks.refuse(argument, f"{holds} (x, y)", value, "give a tuple of two")
    return value[0], value[1]
