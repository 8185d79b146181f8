"""Sums over a dense graph: a matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

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
    def over(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        graph: Graph,
        scalar: bool,
        own: bool = True,
    ) -> "AllToAll | None":
        # Nodes of several units may have a weight for each, which one matrix cannot hold.
        if not scalar or len(senders) < FEWEST:
            return None
        dense = len(senders) >= DENSITY * graph.sending * graph.receiving
        small = max(graph.sending, graph.receiving) <= SMALL
        return cls(graph, own) if dense or small else None

    def transposed(self) -> "AllToAll":
        return AllToAll(self.graph.reversed(), self.own)

    def arrange(
        self, w: Float[Array, "edges 1"]
    ) -> tuple[Float[Array, "edges 1"], Float[Array, "receiving sending"]]:
        # The weights stay beside the matrix: derivatives and the plain sum need them edge by edge.
        return w, self.graph.matrix(jax.lax.stop_gradient(w))

    def sum(
        self,
        arranged: tuple[Array, Array],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        w, matrix = arranged
        # `with_derivatives` has its own rule, so that JAX need not follow either branch.
        weights, states = jax.lax.stop_gradient((w, x))
        field = jax.lax.cond(
            jnp.all(jnp.isfinite(states)),
            lambda: jnp.tensordot(matrix, states.astype(matrix.dtype), 1),
            lambda: self.graph.sum(weights, states),
        )
        return with_derivatives(field, self.graph, w, x)

    def describe(self) -> tuple[str, str]:
        pairs = self.graph.receiving * self.graph.sending
        return "matrix", f"{len(self.graph.senders) / pairs:.0%} of all pairs"
