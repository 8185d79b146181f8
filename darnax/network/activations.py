"""The activations of a network by node kind, and what can be found wrong with them."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from darnax import _text, checks
from darnax.activations import Activation, as_activation, name
from darnax.topologies.topology import Topology


@checks.by_hand
def activations(
    topology: Topology, given: Callable[..., Any] | Mapping[str, Callable[..., Any]]
) -> dict[str, Activation]:
    """The activation of every node kind that has one; every kind that edges end at needs one."""
    receivers = _one_of_each_class(topology, topology.columns.receivers)
    needed = {topology.node_class(node).kind for node in receivers}
    if callable(given):
        checks.called("activations", given)
        given = dict.fromkeys(topology.node_kinds, given)
    advice = "an activation such as dx.sign"
    by_kind = checks.by_kind("activations", given, topology.node_kinds, needed, advice)
    found = {}
    for kind, activation in by_kind.items():
        holds = "a function of the field such as dx.sign"
        checks.function(f"activations[{kind!r}]", activation, holds, "give one")
        found[kind] = as_activation(activation)
    check_activations(topology, found, topology.columns.receivers)
    _check_overlaps(topology, found)
    return found


def check_activations(
    topology: Topology, activations: Mapping[str, Activation], nodes: np.ndarray
) -> None:
    """The activations of some nodes can be called, and the nodes' dtypes can hold the values."""
    for node in _one_of_each_class(topology, nodes):
        kind, shape, dtype, _ = topology.node_class(node)
        where = f"`activations[{kind!r}]` on node {topology.nodes[node]!r}"
        where = f"{where} of shape {shape} and dtype {dtype}"
        _check_activation(where, activations[kind], shape, jnp.dtype(dtype))


def _one_of_each_class(topology: Topology, nodes: np.ndarray) -> list[int]:
    """The first of some nodes of every class."""
    first = np.full(len(topology.columns.node_classes), -1)
    first[topology.columns.node_class[nodes][::-1]] = nodes[::-1]
    return first[first >= 0].tolist()


def _check_activation(
    where: str, activation: Activation, shape: tuple[int, ...], dtype: np.dtype
) -> None:
    field = jax.ShapeDtypeStruct(shape, jnp.float64 if dtype == jnp.float64 else jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    arrays, static = eqx.partition(activation, eqx.is_array)

    def value_of(arrays: Any, field: Any, key: Any) -> Any:
        whole = eqx.combine(arrays, static)
        return whole(field, state=field, key=key if whole.draws is not None else None)

    try:
        value = jax.eval_shape(value_of, arrays, field, key)
    except Exception as error:
        raise ValueError(
            f"{where} cannot be called: {error}; give a function of the field"
        ) from error
    if getattr(value, "shape", None) != shape:
        raise ValueError(f"{where} gives {value}; an activation keeps the shape of the field")
    if not fits(activation.integer, value.dtype, dtype):
        raise ValueError(
            f"{where}: {name(activation)} gives {value.dtype}, which {dtype} cannot hold; use sign "
            "or another activation of whole numbers, or a float dtype for the node"
        )


def fits(integer: bool, source: Any, dtype: Any) -> bool:
    """Whether values of an activation can be stored in a dtype."""
    if jnp.issubdtype(dtype, jnp.inexact):
        real = not jnp.issubdtype(source, jnp.complexfloating)
        return real or bool(jnp.issubdtype(dtype, jnp.complexfloating))
    signed = dtype != jnp.bool_ and not jnp.issubdtype(dtype, jnp.unsignedinteger)
    return (integer and signed) or bool(np.can_cast(source, dtype))


def _check_overlaps(topology: Topology, activations: Mapping[str, Activation]) -> None:
    """A cell that several nodes share answers once: so all of them answer alike, cell by cell."""
    receives = np.zeros(len(topology), bool)
    receives[topology.columns.receivers] = True
    for block in topology.layout.overlaps:
        if not receives[block].any():
            continue
        nodes = block.tolist()
        found = {topology.node_class(node).kind for node in nodes}
        kinds = sorted(found & set(activations))
        who = _text.listing((repr(topology.nodes[node]) for node in nodes), 12)
        by_node = [kind for kind in kinds if not activations[kind].elementwise]
        if by_node:
            raise ValueError(
                f"nodes {who} overlap on a shared array, but `activations` "
                f"{_text.names(by_node)} ({name(activations[by_node[0]])}) is not known to be "
                "elementwise; mark a function of your own with dx.elementwise, or keep views apart"
            )
        first, *others = kinds
        differing = [k for k in others if not _same(activations[k], activations[first])]
        if differing:
            raise ValueError(
                f"nodes {who} overlap on a shared array, but kinds "
                f"{_text.names([first, *differing])} have different activations; give them one "
                "and the same"
            )


def _same(one: Activation, other: Activation) -> bool:
    return one is other or bool(eqx.tree_equal(one, other))
