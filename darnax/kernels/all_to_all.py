"""Sums over a dense graph: a matrix."""

import jax
import jax.numpy as jnp

from darnax.kernels.sum import Ends, Sum

DENSITY, SMALL = 0.1, 200


class AllToAll(Sum):
    """A matrix product, zero where there is no edge.

    Zero times NaN is NaN and must not reach nodes that no edge takes it to: what is not finite is summed the plain way.
    """

    ends: Ends

    @classmethod
    def of(cls, senders, receivers, ends, scalar):
        dense = len(senders) >= DENSITY * ends.sending * ends.hearing or max(ends.sending, ends.hearing) <= SMALL
        return cls(ends) if scalar and dense else None

    def arrange(self, w):
        return w, self.ends.matrix(w)

    def __call__(self, arranged, x):
        w, matrix = arranged
        return jax.lax.cond(
            jnp.all(jnp.isfinite(x)),
            lambda: jnp.tensordot(matrix, x.astype(matrix.dtype), 1),
            lambda: self.ends.sum(w, x),
        )

    def __str__(self):
        return "matrix"
