"""Overlaps: how much of stored patterns there is in a state."""

from typing import TypeAlias

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax.states.buffers import ByName
from darnax.states.graph import GraphState
from darnax.states.values import checked

Pair: TypeAlias = tuple[Float[Array, "batch units"], Float[Array, "patterns units"]]
"""Some units of all samples, and of all patterns."""


@checks.by_hand
def overlaps(
    state: GraphState,
    patterns: ByName | GraphState,
) -> Float[Array, "batch patterns"]:
    """The overlap of every sample with every pattern, `m = Σᵢ ξᵢ sᵢ / n`, `(B, P)`.

    The sum is over all n units of the nodes that the patterns name. For units and patterns of ±1 it
    is 1 where all agree, 0 where half of them do, and -1 where none does.

    **Arguments:**

    - `patterns`: a mapping from nodes to arrays `(P, *shape)`, or a state of the same topology
      whose samples are the patterns, which compares all nodes.

    Raises `ValueError` or `TypeError` naming the node for patterns of another shape, another number
    than those of the first node, or another topology.

    Source: J. J. Hopfield, Proc. Natl. Acad. Sci. 79, 2554 (1982).

    !!! example

        ```python
        patterns = {"cortex": jax.random.rademacher(jax.random.key(2), (3, 100), float)}
        dx.overlaps(state, patterns).shape  # (B, 3)
        ```
    """
    advice = "make one of a topology"
    state = checks.instance("state", state, GraphState, "a darnax.GraphState", advice)
    pairs = (
        _arrays(state, patterns) if isinstance(patterns, GraphState) else _nodes(state, patterns)
    )
    units = 0
    total: Array | float = 0.0
    for values, pattern in pairs:
        total = total + values @ pattern.T
        units += values.shape[1]
    return jnp.asarray(total) / units


def _arrays(state: GraphState, patterns: GraphState) -> list[Pair]:
    """The cells of all arrays, so that one which several nodes share counts once."""
    if patterns.topology != state.topology:
        raise ValueError(
            f"`patterns` belong to another topology: {patterns.topology!r}, but the state to "
            f"{state.topology!r}; make them with GraphState(state.topology)"
        )
    pairs: list[Pair] = []
    for name, spec in state.topology.arrays.items():
        values = jnp.moveaxis(state.arrays[name], -1, 0)
        pattern = jnp.moveaxis(patterns.arrays[name], -1, 0)
        pairs.append(_pair(values, pattern, spec.field_dtype))
    return pairs


@checks.by_hand
def _nodes(state: GraphState, patterns: ByName) -> list[Pair]:
    """The units of the nodes that a mapping names."""
    topology = state.topology
    checks.mapping("patterns", patterns, "nodes to arrays (P, *shape)")
    if not patterns:
        raise ValueError("`patterns` is empty; give at least one node")
    nodes = topology.indices("patterns", patterns)
    pairs: list[Pair] = []
    count: int | None = None
    for node, given in zip(nodes, patterns.values(), strict=True):
        name = topology.nodes[node]
        # patterns of any numbers, for nodes of whole ones as well
        dtype = topology.array_of(node).field_dtype
        shape = topology.node_class(node).shape
        pattern = checked(f"`patterns` for node {name!r}", given, shape, dtype, count)
        count = len(pattern)
        pairs.append(_pair(state[name], on_device(pattern), dtype))
    return pairs


def _pair(
    values: Shaped[Array, "batch ..."],
    pattern: Shaped[Array, "patterns ..."],
    dtype: DTypeLike,
) -> Pair:
    """Values and patterns as vectors, in a dtype in which products do not overflow."""
    flat = [array.reshape(len(array), -1).astype(dtype) for array in (values, pattern)]
    return flat[0], flat[1]
