"""Sums over a dense graph: a matrix."""

import jax
import jax.numpy as jnp

from darnax.kernels.sum import Ends, Sum, with_derivatives

DENSITY, SMALL, FEW = 0.15, 200, 64


class AllToAll(Sum):
    """A matrix product, zero where there is no edge.

    Zero times NaN is NaN and must not reach nodes that no edge takes it to: what is not finite is
    summed the plain way.
    """

    ends: Ends

    @classmethod
    def of(cls, senders, receivers, ends, scalar):
        dense = (
            len(senders) >= DENSITY * ends.sending * ends.hearing
            or max(ends.sending, ends.hearing) <= SMALL
        )
        return cls(ends) if scalar and dense and len(senders) >= FEW else None

    def arrange(self, w):
        return w, self.ends.matrix(jax.lax.stop_gradient(w))

    def __call__(self, arranged, x):
        w, matrix = arranged
        weights, still = jax.lax.stop_gradient((w, x))
        found = jax.lax.cond(
            jnp.all(jnp.isfinite(still)),
            lambda: jnp.tensordot(matrix, still.astype(matrix.dtype), 1),
            lambda: self.ends.sum(weights, still),
        )
        return with_derivatives(found, self.ends, w, x)

    def __str__(self):
        return "matrix"

    def why(self):
        pairs = self.ends.hearing * self.ends.sending
        return f"{len(self.ends.senders) / pairs:.0%} of all pairs"
