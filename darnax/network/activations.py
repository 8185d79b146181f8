"""The activations of a network by node kind, and the checks that they suit their nodes."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Key

from darnax import _text, checks
from darnax.activations import Activation, as_activation, name
from darnax.topologies.topology import Topology

ActivationFunction: TypeAlias = Callable[..., ArrayLike]
"""An activation as users give it, `(field) -> state`; see `darnax.activations`."""

Activations: TypeAlias = ActivationFunction | Mapping[str, ActivationFunction]
"""One activation for all nodes, or one for each node kind."""


@checks.by_hand
def activations(topology: Topology, given: Activations) -> dict[str, Activation]:
    """The activation of every node kind that has one; every kind that edges end at needs one."""
    receivers = _one_of_each_class(topology, topology.columns.receivers)
    needed = {topology.node_class(node).kind for node in receivers}
    if callable(given):
        checks.called("activations", given)
        given = dict.fromkeys(topology.node_kinds, given)
    advice = "an activation such as dx.sign"
    by_kind = checks.by_kind("activations", given, topology.node_kinds, needed, advice)
    found: dict[str, Activation] = {}
    for kind, activation in by_kind.items():
        holds = "a function of the field such as dx.sign"
        checks.function(f"activations[{kind!r}]", activation, holds, "give one")
        found[kind] = as_activation(activation)
    # Nodes that no edge ends at move only where they are driven, and that call checks theirs.
    check_activations(topology, found, topology.columns.receivers)
    _check_overlaps(topology, found)
    return found


def check_activations(
    topology: Topology,
    activations: Mapping[str, Activation],
    nodes: np.ndarray,
) -> None:
    """The activations of some nodes can be called, and the nodes' dtypes can hold the values."""
    for node in _one_of_each_class(topology, nodes):
        kind, shape, dtype, _ = topology.node_class(node)
        where = (
            f"`activations[{kind!r}]` on node {topology.nodes[node]!r} "
            f"of shape {shape} and dtype {dtype}"
        )
        _check_activation(where, activations[kind], shape, jnp.dtype(dtype))


def _one_of_each_class(topology: Topology, nodes: np.ndarray) -> list[int]:
    """The first of some nodes of every class."""
    columns = topology.columns
    node_class = columns.node_class[nodes]
    first = np.full(len(columns.node_classes), -1)
    # Written from the last node to the first: of nodes of one class the first one stays.
    first[node_class[::-1]] = nodes[::-1]
    return first[first >= 0].tolist()


def _check_activation(
    where: str,
    activation: Activation,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> None:
    """An activation takes a field of some shape, and a state of some dtype can hold its values."""
    # One that holds a number for each sample is called for all of them, as passes do.
    if activation.samples is not None:
        shape = (*shape, activation.samples)
    # Fields are float32 whatever the state is, and float64 where the state is.
    field_dtype = jnp.float64 if dtype == jnp.float64 else jnp.float32
    field = jax.ShapeDtypeStruct(shape, field_dtype)
    # To trace a key takes as long as to trace most activations.
    key = None if activation.draws is None else jax.eval_shape(lambda: jax.random.key(0))
    arrays, static = eqx.partition(activation, eqx.is_array)

    def value_of(
        arrays: Activation,
        field: Array,
        key: Key[Array, ""] | None,
    ) -> ArrayLike:
        whole = eqx.combine(arrays, static)
        # A pass gives the state in the dtype of the field as well.
        return whole(field, state=field, key=key)

    # Shapes and dtypes are found by tracing: nothing is computed, nor compiled.
    try:
        value = jax.eval_shape(value_of, arrays, field, key)
    except Exception as error:
        raise ValueError(
            f"{where} cannot be called: {error}; give a function of the field"
        ) from error
    if getattr(value, "shape", None) != shape:
        raise ValueError(f"{where} gives {value}; an activation keeps the shape of the field")
    if not _fits(activation.integer, value.dtype, dtype):
        raise ValueError(
            f"{where}: {name(activation)} gives {value.dtype}, which {dtype} cannot hold; use sign "
            "or another activation of whole numbers, or a float dtype for the node"
        )


def _fits(
    integer: bool,
    source: DTypeLike,
    dtype: np.dtype,
) -> bool:
    """Whether values of an activation can be stored in a dtype."""
    if jnp.issubdtype(dtype, jnp.inexact):
        # Floats are rounded to the float type of the state, but an imaginary part would be lost.
        real = not jnp.issubdtype(source, jnp.complexfloating)
        return real or bool(jnp.issubdtype(dtype, jnp.complexfloating))
    # Whole numbers such as ±1 come as floats, like every field; an int holds them if it has a sign.
    signed = dtype != jnp.bool_ and not jnp.issubdtype(dtype, jnp.unsignedinteger)
    return (integer and signed) or bool(np.can_cast(source, dtype))


def _check_overlaps(topology: Topology, activations: Mapping[str, Activation]) -> None:
    """Nodes that share cells have one activation, and it is elementwise.

    A cell that several nodes share is updated once, so all of them must answer alike, cell by cell.
    """
    receives = np.zeros(len(topology), bool)
    receives[topology.columns.receivers] = True
    for block in topology.layout.overlaps:
        # A block that no edge ends at never moves.
        if receives[block].any():
            _check_block(topology, activations, block.tolist())


def _check_block(
    topology: Topology,
    activations: Mapping[str, Activation],
    nodes: list[int],
) -> None:
    """The nodes of one block have one and the same elementwise activation."""
    found = {topology.node_class(node).kind for node in nodes}
    kinds = sorted(found & set(activations))
    names = [repr(topology.nodes[node]) for node in nodes]
    who = _text.listing(names, 12)
    by_node = [kind for kind in kinds if not activations[kind].elementwise]
    if by_node:
        raise ValueError(
            f"nodes {who} overlap on a shared array, but `activations` "
            f"{_text.names(by_node)} ({name(activations[by_node[0]])}) is not known to be "
            "elementwise; mark a function of your own with dx.elementwise, or keep views apart"
        )
    first, *others = kinds
    differing = [kind for kind in others if not _same(activations[kind], activations[first])]
    if differing:
        raise ValueError(
            f"nodes {who} overlap on a shared array, but kinds "
            f"{_text.names([first, *differing])} have different activations; give them one "
            "and the same"
        )


def _same(one: Activation, other: Activation) -> bool:
    return one is other or bool(eqx.tree_equal(one, other))
