"""The plain sums over the edges of a graph, and derivatives for faster ways to the same sums."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int, Shaped

from darnax._arrays import any_rank, on_device
from darnax._lazy import Lazy

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

# Sizes at which one way of learning weights overtakes another, measured on two CPU cores.
BLOCK = 16
"""Samples that one step of the elementwise loop takes together."""
FEWEST = 8
"""Samples below which a product with ones does not pay."""
CACHE = 2**21
"""Numbers that fit into a cache: one for every edge and sample."""
LARGEST = 2**24
"""Entries of the largest matrix that is written out for its transpose."""


class Graph(eqx.Module):
    """The edges of a graph as rows of two arrays, sorted by receiver.

    `sending` and `receiving` are the numbers of rows that could be their ends.
    """

    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]
    receiving: int = eqx.field(static=True)
    sending: int = eqx.field(static=True)

    @classmethod
    def of(
        cls, senders: np.ndarray, receivers: np.ndarray, receiving: int, sending: int
    ) -> "Graph":
        return cls(
            on_device(senders, jnp.int32), on_device(receivers, jnp.int32), receiving, sending
        )

    def sum(
        self, w: Float[Array, "edges item *_"], x: Shaped[Array, "rows units *batch"]
    ) -> Float[Array, "..."]:
        """The sums, the plain way; weights may differ from sample to sample."""
        w = w.reshape(*w.shape, *[1] * (x.ndim - w.ndim))
        terms = w * take(x, self.senders).astype(w.dtype)
        return jraph.segment_sum(terms, self.receivers, self.receiving, indices_are_sorted=True)

    def pairs(
        self,
        fn: Callable[[Array], Array],
        p: Float[Array, "rows units batch"],
        q: Float[Array, "receiving units batch"],
    ) -> Float[Array, "receiving units batch"]:
        """`y[r] = Σ_e fn(p[s[e]] + q[r])`, the plain way."""
        terms = fn(take(p, self.senders) + take(q, self.receivers))
        return jraph.segment_sum(terms, self.receivers, self.receiving, indices_are_sorted=True)

    def matrix(self, w: Float[Array, "edges 1"]) -> Float[Array, "receiving rows"]:
        """The matrix whose product with `x` is the sum."""
        flat = jnp.zeros(self.receiving * self.sending, w.dtype)
        flat = flat.at[self.receivers * self.sending + self.senders].add(w[:, 0])
        return flat.reshape(self.receiving, self.sending)


def take(x: Shaped[Array, "rows ..."], index: Int[Array, "..."]) -> Shaped[Array, "..."]:
    """Rows by position; all of them must exist."""
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


@jax.custom_jvp
def with_derivatives(y: Array, graph: Graph, w: Array, x: Array, back: Any = None) -> Array:
    """`y`, which is `graph.sum(w, x)` found in another way, with the derivatives of the plain sum.

    Why: the derivatives of the gathers in a fast loop are slow to run and slow to compile. `back`
    can sum over the reversed graph, as `back.weighted(back.arrange(w), y)`; without it the way back
    from receivers to senders is that of the plain sum.
    """
    return y


@any_rank
def _tangent(primals, tangents):
    y, graph, w, x, back = primals
    _, _, dw, dx, _ = tangents
    change = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero) and dx.dtype == x.dtype:
        if back is None:
            change = change + graph.sum(w, dx)
        else:
            reverse = jax.linear_transpose(lambda y: back.weighted(back.arrange(w), y), y)
            change = change + reverse(dx.astype(y.dtype))[0]
    if not isinstance(dw, SymbolicZero):
        change = change + _change(graph, dw, x)
    return y, change


with_derivatives.defjvp(_tangent, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_derivatives_of_pairs(
    fn: Callable[[Array], Array], y: Array, graph: Graph, p: Array, q: Array
) -> Array:
    """`y`, which is `graph.pairs(fn, p, q)` found in another way, with its derivatives."""
    return y


@with_derivatives_of_pairs.defjvp
@any_rank
def _tangent_of_pairs(fn, primals, tangents):
    y, graph, p, q = primals
    _, _, dp, dq = tangents
    return y, jax.jvp(functools.partial(graph.pairs, fn), (p, q), (dp, dq))[1]


def _change(graph: Graph, dw: Array, x: Array) -> Array:
    """`graph.sum(dw, x)`, in a form whose transpose, what the weights learn, is fast.

    Where many of all pairs are edges, the transpose of a matrix product is fast: the edges pick
    their entries from it. Otherwise, if one number for every edge and sample fits into a cache, a
    product with ones adds up the samples; and if not, an elementwise loop goes through the samples,
    where gathers become vector code.
    """
    pairs = graph.receiving * graph.sending
    cached = FEWEST <= x.shape[-1] <= CACHE / max(dw.size, 1)
    dense = len(dw) >= (0.05 if cached else 0.004) * pairs
    if dw.shape[1] == 1 and dense and pairs <= LARGEST:
        return jnp.tensordot(graph.matrix(dw), x.astype(dw.dtype), 1)
    if cached:
        repeated = jnp.tensordot(dw[..., None], jnp.ones((1, x.shape[-1]), dw.dtype), 1)
        # without the barrier XLA would make the product a slow loop
        return graph.sum(jax.lax.optimization_barrier(repeated), x)
    return _sample_by_sample(graph, dw, x)


def _sample_by_sample(graph: Graph, dw: Array, x: Array) -> Array:
    """`graph.sum(dw, x)`, a block of samples after the other."""
    batch = x.shape[-1]

    def some(x: Array) -> Array:
        return jnp.concatenate(
            [graph.sum(dw, x[..., b])[..., None] for b in range(x.shape[-1])], axis=-1
        )

    blocks = batch // BLOCK
    if blocks < 2:
        return some(x)

    @jax.checkpoint  # or all that was gathered would be kept for the way back
    def block(start: Array) -> Array:
        return some(jax.lax.dynamic_slice_in_dim(x, start, BLOCK, axis=-1))

    found = jnp.moveaxis(jax.lax.map(block, BLOCK * jnp.arange(blocks)), 0, -2)
    found = found.reshape(*found.shape[:-2], blocks * BLOCK)
    if batch == blocks * BLOCK:
        return found
    return jnp.concatenate([found, some(x[..., blocks * BLOCK :])], axis=-1)
