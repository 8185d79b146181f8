"""Data for training: inputs and targets by node, and how they are cut into batches.

Arrays become one `Dataset`, and an epoch is one compiled scan over its batches, all of one size. An
iterable becomes `Batches`, each of which is a `Dataset` of its own when its turn comes. Both have
the same methods: `parts` are the pieces of an epoch, `example` is the form of a sample, and by
`described` a checkpoint tells them from others.

Checks come before the first epoch, or where a batch is first seen. In the programs nothing is
checked any more.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from darnax import _text, checks
from darnax._arrays import on_device
from darnax.files.leaves import digest
from darnax.learning.rules import Rules
from darnax.states.graph import GraphState
from darnax.states.values import as_array, cast
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

# `Any`, since lists of numbers may be nested to any depth, and since by the rules of types a dict
# of str is no mapping from `Name`
Values: TypeAlias = Array | np.ndarray | Sequence[Any]
"""An array, or lists of numbers that can be read as one."""

Data: TypeAlias = Values | Mapping[Any, Values]
"""An array `(n, *shape)` for the only input or output, or a mapping from nodes to such arrays."""

Targets: TypeAlias = Mapping[Any, Array]
"""The states that nodes should be in: a mapping from nodes to arrays `(B, *shape)`."""

Argument: TypeAlias = Literal["x", "y"]
"""The argument that data came in: inputs or targets."""


class Dataset(eqx.Module):
    """Checked inputs and targets of all samples, by node."""

    # no plain dicts: JAX sorts the keys of these, and names of two types have no order
    x: OrderedDict[Name, Array]
    y: OrderedDict[Name, Array]

    @staticmethod
    def of(
        topology: Topology,
        x: object,
        y: object,
        rules: Rules | None = None,
    ) -> "Dataset":
        """The data that a user gave; `rules` are those that will learn from the targets, if any."""
        inputs = _by_node(topology, "x", x, topology.inputs)
        targets = _by_node(topology, "y", y, topology.outputs)
        if not inputs:
            raise ValueError("`x` is empty; give an array for at least one node")
        arrays = [*inputs.values(), *targets.values()]
        lengths = {len(array) for array in arrays}
        if len(lengths) > 1:
            came = _text.arrays(inputs | targets)
            raise ValueError(
                f"inputs and labels have one length, but got {came}; give one label a sample"
            )
        # an epoch over nothing would have scores of 0 / 0
        if lengths == {0}:
            raise ValueError("the data are empty; give at least one sample")
        _check_signs(topology, rules or {}, targets)
        return Dataset(inputs, targets)

    def __len__(self) -> int:
        # there is at least one input, but targets may be left out
        first = next(iter(self.x.values()))
        return len(first)

    def take(self, numbers: Int[Array | np.ndarray, " n"]) -> "Dataset":
        """Some of the samples, by their numbers; past the end it is the last one again."""

        def rows(array: Array) -> Array:
            # what fills a batch up is a sample like others, and no NaN that spreads
            return jnp.take(array, numbers, axis=0, mode="clip")

        return jax.tree.map(rows, self)

    def parts(self) -> Iterator["Dataset"]:
        """The pieces of an epoch: here the data as a whole."""
        yield self

    def example(self) -> "Dataset":
        """The shapes of two samples: what is computed for one does not depend on their number."""
        return eqx.filter_eval_shape(self.take, np.array([0, 0]))

    def described(self) -> str:
        """The data in one line, digest included."""
        names = _text.names([*self.x, *self.y])
        return f"{len(self)} samples for {names}, digest {digest(self)}"


class Batches(NamedTuple):
    """An iterable of batches `(x, y)`: each of them is checked when its turn comes."""

    topology: Topology
    rules: Rules
    given: Iterable[tuple[Data, Data]]

    def parts(self) -> Iterator[Dataset]:
        """The pieces of an epoch: here one batch after another."""
        for batch in self.given:
            x, y = pair("x", batch, "one array, or an iterable of batches")
            yield Dataset.of(self.topology, x, y, self.rules)

    def example(self) -> Dataset:
        """Two samples of zeros: no batch can be looked at before it is there."""
        topology = self.topology
        zeros = GraphState(topology, 2)
        # without inputs some other node must say how many samples there are
        inputs = topology.inputs or topology.nodes[:1]
        x = {node: zeros[node] for node in inputs}
        y = {node: zeros[node] for node in topology.outputs}
        return Dataset.of(topology, x, y)

    def described(self) -> str:
        """The data in one line."""
        return "an iterable of batches"


def _by_node(
    topology: Topology,
    argument: Argument,
    given: object,
    nodes: tuple[Name, ...],
) -> OrderedDict[Name, Array]:
    """Arrays by node; `nodes` are the inputs or the outputs."""
    by_node = _as_mapping(topology, argument, given, nodes)
    # names as the topology has them: that of a user may be equal, but of another type
    numbers = topology.indices(argument, by_node)
    arrays: OrderedDict[Name, Array] = OrderedDict()
    for i, values in zip(numbers, by_node.values(), strict=True):
        node = topology.nodes[i]
        arrays[node] = _array(topology, argument, node, values)
    return arrays


def _as_mapping(
    topology: Topology,
    argument: Argument,
    given: object,
    nodes: tuple[Name, ...],
) -> Mapping[Any, object]:
    """Values by node; those of the only one of `nodes` need no mapping."""
    if isinstance(given, Mapping):
        return given
    if given is None:
        # without outputs there is nothing that targets could be given for
        if argument == "y" and not nodes:
            return {}
        advice = "give an array by node"
        if len(nodes) == 1:
            advice = f"give an array `(n, *{topology.shape(nodes[0])})`"
        if argument == "y":
            advice += ", or `x` alone, as an iterable of batches (x, y)"
        raise TypeError(f"`{argument}` is missing; {advice}")
    if len(nodes) != 1:
        which = "inputs" if argument == "x" else "outputs"
        raise ValueError(
            f"the topology has {len(nodes)} {which}; give `{argument}` as a mapping from nodes "
            "to arrays"
        )
    return {nodes[0]: given}


def _array(topology: Topology, argument: Argument, node: Name, values: object) -> Array:
    """The values of a node in its shape and dtype."""
    what = f"`{argument}` for node {node!r}"
    if isinstance(values, Tracer):
        raise TypeError(
            f"{what} is traced, but training and evaluation are programs of their own; call them "
            "outside"
        )
    array = as_array(what, values)
    is_number = jnp.issubdtype(array.dtype, jnp.number)
    if not is_number and array.dtype != bool:
        raise TypeError(
            f"{what} is an array of numbers, but got {checks.came(values)}; give numbers"
        )
    shape = topology.shape(node)
    if array.ndim == 0 or array.shape[1:] != shape:
        advice = "give one number a unit"
        one_each = array.ndim == len(shape) == 1 and array.dtype.kind in "iu"
        if argument == "y" and one_each:
            advice = f"class indices become targets by dx.one_vs_all(y, {shape[0]})"
        raise ValueError(f"{what} has shape (n, *{shape}), but got {array.shape}; {advice}")
    dtype = topology.node_class(topology.index(node)).dtype
    return on_device(cast(what, array, dtype))


def _check_signs(topology: Topology, rules: Rules, targets: Targets):
    """Raise `ValueError` for targets of 0 of nodes that learn by a rule for ±1 units."""
    columns = topology.columns
    signed = [kind for kind, rule in rules.items() if getattr(rule, "signs", False)]
    for node, target in targets.items():
        # edges have their kinds by class, and of classes there are few
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
    # of traced numbers nobody can tell whether they are in range
    if isinstance(labels, Tracer):
        advice = "make the targets outside of jitted functions"
        checks.refuse("labels", "an array of whole numbers", labels, advice)
    array = as_array("`labels`", labels)
    numbered = array.ndim == 1 and array.dtype.kind in "iu"
    # a label out of range would silently become a target of -1 for every class
    if not numbered or (array < 0).any() or (array >= classes).any():
        raise _wrong_labels(array, classes)
    return 2 * jax.nn.one_hot(np.asarray(array), classes) - 1


def _wrong_labels(labels: Array | np.ndarray, classes: int) -> Exception:
    """The error for labels that are no class indices, with what they are."""
    numeric = labels.dtype.kind in "iuf"
    error = ValueError if numeric else TypeError
    came = str(labels.dtype)
    if labels.dtype.kind in "US":
        # the dtype of text is its length in a code of NumPy
        came = "text"
    came += f" of shape {labels.shape}"
    if numeric and labels.size:
        came += f" from {labels.min()} to {labels.max()}"
    return error(
        f"`labels` are whole numbers from 0 to {classes - 1}, one a sample, but got {came}; "
        "number the classes, as np.unique(labels, return_inverse=True)[1] does"
    )


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
    # a list cannot be told from lists of numbers here: `fit` asks only where `y` is missing
    is_data = isinstance(x, (Mapping, str, bytes)) or hasattr(x, "shape")
    return isinstance(x, Iterable) and not is_data


def pair(argument: str, value: object, holds: str) -> tuple[object, object]:
    """Inputs and targets, from a tuple or list of two."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        checks.refuse(argument, f"{holds} (x, y)", value, "give a tuple of two")
    return value[0], value[1]
