"""The plain sums over the edges of a graph, and derivatives for faster ways to the same sums.

A faster way computes the sums alone. Its derivatives are given here once for all of them, because
those that JAX would find by following a fast loop are slow.
"""

import abc
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
DENSE = 0.004
"""The share of all pairs from which a matrix is faster than the elementwise loop."""
DENSE_IN_CACHE = 0.05
"""The same share where a product with ones would do instead, which is faster than the loop."""


class Graph(eqx.Module):
    """The edges of a graph as rows of two arrays, sorted by receiver.

    `sending` and `receiving` are the numbers of rows that could be their ends. A `reversed` graph
    keeps the order of its edges, and so is not sorted.
    """

    senders: Int[Array, "*stack edges"]
    receivers: Int[Array, "*stack edges"]
    receiving: int = eqx.field(static=True)
    sending: int = eqx.field(static=True)
    is_sorted: bool = eqx.field(static=True, default=True)

    @classmethod
    def of(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        receiving: int,
        sending: int,
    ) -> "Graph":
        return cls(
            senders=on_device(senders, jnp.int32),
            receivers=on_device(receivers, jnp.int32),
            receiving=receiving,
            sending=sending,
        )

    def reversed(self) -> "Graph":
        """The graph with every edge turned around, in the same order."""
        return Graph(
            senders=self.receivers,
            receivers=self.senders,
            receiving=self.sending,
            sending=self.receiving,
            is_sorted=False,
        )

    def sum(
        self,
        w: Float[Array, "edges item *_"],
        x: Shaped[Array, "rows units *batch"],
    ) -> Float[Array, "..."]:
        """The sums, the plain way; weights may differ from sample to sample."""
        missing = x.ndim - w.ndim
        w = w.reshape(*w.shape, *[1] * missing)
        # States are gathered in their own dtype, and cast in the loop that multiplies: int8 spins
        # then are a quarter of what is read.
        terms = w * take(x, self.senders).astype(w.dtype)
        return self._at_receivers(terms)

    def pairs(
        self,
        fn: Callable[[Array], Array],
        p: Float[Array, "rows units batch"],
        q: Float[Array, "receiving units batch"],
    ) -> Float[Array, "receiving units batch"]:
        """`y[r] = Σ_e fn(p[s[e]] + q[r])`, the plain way."""
        of_sender = take(p, self.senders)
        of_receiver = take(q, self.receivers)
        terms = fn(of_sender + of_receiver)
        return self._at_receivers(terms)

    def _at_receivers(self, terms: Float[Array, "edges ..."]) -> Float[Array, "receiving ..."]:
        """The sum of the terms of edges at every receiver."""
        return jraph.segment_sum(
            terms,
            self.receivers,
            self.receiving,
            indices_are_sorted=self.is_sorted,
        )

    def matrix(self, w: Float[Array, "edges 1"]) -> Float[Array, "receiving rows"]:
        """The matrix whose product with `x` is the sum."""
        flat = jnp.zeros(self.receiving * self.sending, w.dtype)
        entries = self.receivers * self.sending + self.senders
        # Added and not set: parallel edges share an entry.
        flat = flat.at[entries].add(w[:, 0])
        return flat.reshape(self.receiving, self.sending)


class Arrangement(eqx.Module):
    """The edges of a graph in the order of a fast loop, for sums that have a transpose."""

    @abc.abstractmethod
    def arrange(self, w: Float[Array, "edges item"]) -> list[Float[Array, "..."]]:
        """The weights in the order of the loop."""

    @abc.abstractmethod
    def weighted(
        self,
        arranged: list[Array],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        """The weighted sums, in operations that have a transpose."""


def by_unit(x: Shaped[Array, "rows *item batch"]) -> Shaped[Array, "rows units batch"]:
    """Rows with the units of a node along one axis, whatever its shape."""
    return x.reshape(len(x), -1, x.shape[-1])


def take(
    x: Shaped[Array, "rows ..."],
    index: Int[Array, "..."],
) -> Shaped[Array, "..."]:
    """Rows by position; all of them must exist."""
    # Positions come from the topology and are right: nothing is clamped or wrapped at run time.
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


@jax.custom_jvp
def with_derivatives(
    y: Array,
    graph: Graph,
    w: Array,
    x: Array,
    back: Arrangement | None = None,
) -> Array:
    """`y`, which is `graph.sum(w, x)` found in another way, with the derivatives of the plain sum.

    Why: the derivatives of the gathers in a fast loop are slow to run and slow to compile. `back`
    arranges the reversed graph, over which derivatives go from receivers to senders; without it
    they take the way of the plain sum.
    """
    return y


# A rule of forward mode serves both modes: JAX transposes it for gradients. It has to be linear in
# the tangents, and fast once it is transposed.
@any_rank
def _tangent(
    primals: tuple[Array, Graph, Array, Array, Arrangement | None],
    tangents: tuple[Any, Any, Array | SymbolicZero, Array | SymbolicZero, Any],
) -> tuple[Array, Array]:
    y, graph, w, x, back = primals
    # The tangent of `y` itself is left out: w and x have all of it.
    _, _, dw, dx, _ = tangents
    change = jnp.zeros_like(y)
    # A symbolic zero is what nobody differentiates. Integer states have tangents of dtype float0,
    # which are zero as well.
    if not isinstance(dx, SymbolicZero) and dx.dtype == x.dtype:
        if back is None:
            change = change + graph.sum(w, dx)
        else:
            change = change + _sum_by_reverse(back, w, y, dx)
    if not isinstance(dw, SymbolicZero):
        change = change + _change(graph, dw, x)
    # Not `y` itself, which has no derivatives: those of higher orders ask for them.
    return with_derivatives(y, graph, w, x, back), change


with_derivatives.defjvp(_tangent, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_derivatives_of_pairs(
    fn: Callable[[Array], Array],
    y: Array,
    graph: Graph,
    p: Array,
    q: Array,
) -> Array:
    """`y`, which is `graph.pairs(fn, p, q)` found in another way, with its derivatives."""
    return y


@with_derivatives_of_pairs.defjvp
@any_rank
def _tangent_of_pairs(
    fn: Callable[[Array], Array],
    primals: tuple[Array, Graph, Array, Array],
    tangents: tuple[Any, Any, Array, Array],
) -> tuple[Array, Array]:
    y, graph, p, q = primals
    _, _, dp, dq = tangents
    plain = functools.partial(graph.pairs, fn)
    _, change = jax.jvp(plain, (p, q), (dp, dq))
    return with_derivatives_of_pairs(fn, y, graph, p, q), change


def _sum_by_reverse(
    back: Arrangement,
    w: Array,
    y: Array,
    dx: Array,
) -> Array:
    """The sums of `dx`, as the transpose of the weighted sum over the reversed graph.

    A gradient transposes it once more, and then runs that sum itself, in its fast loop.
    """

    def reversed_sum(y: Array) -> Array:
        return back.weighted(back.arrange(w), y)

    transpose = jax.linear_transpose(reversed_sum, y)
    (sums,) = transpose(dx.astype(y.dtype))
    return sums


def _change(
    graph: Graph,
    dw: Array,
    x: Array,
) -> Array:
    """`graph.sum(dw, x)`, in a form whose transpose, what the weights learn, is fast.

    Where many of all pairs are edges, the transpose of a matrix product is fast: the edges pick
    their entries from it. Otherwise, if one number for every edge and sample fits into a cache, a
    product with ones adds up the samples; and if not, an elementwise loop goes through the samples,
    where gathers become vector code.
    """
    pairs = graph.receiving * graph.sending
    batch = x.shape[-1]
    cached = FEWEST <= batch <= CACHE / max(dw.size, 1)
    dense = len(dw) >= (DENSE_IN_CACHE if cached else DENSE) * pairs
    if dw.shape[1] == 1 and dense and pairs <= LARGEST:
        matrix = graph.matrix(dw)
        return jnp.tensordot(matrix, x.astype(dw.dtype), 1)
    if cached:
        # A product repeats the weights, so that its transpose adds up samples as a product.
        ones = jnp.ones((1, batch), dw.dtype)
        repeated = jnp.tensordot(dw[..., None], ones, 1)
        # Without the barrier XLA would make the product a slow loop.
        return graph.sum(jax.lax.optimization_barrier(repeated), x)
    return _sample_by_sample(graph, dw, x)


def _sample_by_sample(graph: Graph, dw: Array, x: Array) -> Array:
    """`graph.sum(dw, x)`, a block of samples after the other."""
    batch = x.shape[-1]

    def written_out(x: Array) -> Array:
        sums = []
        for sample in range(x.shape[-1]):
            one = graph.sum(dw, x[..., sample])
            sums.append(one[..., None])
        return jnp.concatenate(sums, axis=-1)

    # A loop over blocks keeps the program small: written out, it would grow with the batch.
    blocks = batch // BLOCK
    if blocks < 2:
        return written_out(x)

    # Without the checkpoint all that was gathered would be kept for the way back.
    @jax.checkpoint
    def block(start: Array) -> Array:
        samples = jax.lax.dynamic_slice_in_dim(x, start, BLOCK, axis=-1)
        return written_out(samples)

    sums = jax.lax.map(block, BLOCK * jnp.arange(blocks))
    # (blocks, rows, units, BLOCK) -> (rows, units, samples)
    sums = jnp.moveaxis(sums, 0, -2)
    sums = sums.reshape(*sums.shape[:-2], blocks * BLOCK)
    if batch == blocks * BLOCK:
        return sums
    rest = written_out(x[..., blocks * BLOCK :])
    return jnp.concatenate([sums, rest], axis=-1)
