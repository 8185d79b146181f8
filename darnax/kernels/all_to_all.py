"""Sums over a dense graph: a matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp

from darnax.kernels.graph import Graph, with_derivatives
from darnax.kernels.weighted_sum import WeightedSum

DENSITY = 0.15
"""The share of all pairs that must be edges."""
SMALL = 200
"""Rows up to which any density will do: the matrix stays in a cache."""
FEWEST = 64
"""Edges below which the plain sum is as fast."""


class AllToAll(WeightedSum):
    """A matrix product, with zeros where there is no edge.

    Zero times NaN is NaN, and must not reach nodes that no edge takes it to. Where a state is not
    finite the sum is therefore made the plain way.
    """

    graph: Graph
    own: bool = eqx.field(static=True, default=True)

    @classmethod
    def over(cls, senders, receivers, graph, scalar, own=True):
        dense = len(senders) >= DENSITY * graph.sending * graph.receiving
        small = max(graph.sending, graph.receiving) <= SMALL
        suits = scalar and (dense or small) and len(senders) >= FEWEST
        return cls(graph, own) if suits else None

    def arrange(self, w):
        return w, self.graph.matrix(jax.lax.stop_gradient(w))

    def sum(self, arranged, x):
        w, matrix = arranged
        weights, states = jax.lax.stop_gradient((w, x))
        found = jax.lax.cond(
            jnp.all(jnp.isfinite(states)),
            lambda: jnp.tensordot(matrix, states.astype(matrix.dtype), 1),
            lambda: self.graph.sum(weights, states),
        )
        return with_derivatives(found, self.graph, w, x)

    def describe(self):
        pairs = self.graph.receiving * self.graph.sending
        return "matrix", f"{len(self.graph.senders) / pairs:.0%} of all pairs"
