"""Weighted sums over the edges of a graph, `y[r] = Σ_e w[e] x[s[e]]`."""

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

COLUMNS, FEWEST, CACHE, LARGEST = 16, 8, 2**21, 2**24


class Ends(eqx.Module):
    """Who sends and who hears, of every edge, sorted by receiver; and how many could."""

    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]
    hearing: int = eqx.field(static=True)
    sending: int = eqx.field(static=True)

    @classmethod
    def of(cls, senders: np.ndarray, receivers: np.ndarray, hearing: int, sending: int) -> "Ends":
        return cls(on_device(senders, jnp.int32), on_device(receivers, jnp.int32), hearing, sending)

    def sum(
        self, w: Float[Array, "edges item *_"], x: Shaped[Array, "rows units *batch"]
    ) -> Float[Array, "..."]:
        """The sums, the plain way; weights may differ from sample to sample."""
        w = w.reshape(*w.shape, *[1] * (x.ndim - w.ndim))
        terms = w * take(x, self.senders).astype(w.dtype)
        return jraph.segment_sum(terms, self.receivers, self.hearing, indices_are_sorted=True)

    def pairs(
        self,
        fn: Callable[[Array], Array],
        p: Float[Array, "rows units batch"],
        q: Float[Array, "heard units batch"],
    ) -> Float[Array, "heard units batch"]:
        """`y[r] = Σ_e fn(p[s[e]] + q[r])`, the plain way."""
        terms = fn(take(p, self.senders) + take(q, self.receivers))
        return jraph.segment_sum(terms, self.receivers, self.hearing, indices_are_sorted=True)

    def matrix(self, w: Float[Array, "edges 1"]) -> Float[Array, "heard rows"]:
        """The matrix whose product with `x` is the sum."""
        flat = jnp.zeros(self.hearing * self.sending, w.dtype)
        return (
            flat.at[self.receivers * self.sending + self.senders]
            .add(w[:, 0])
            .reshape(self.hearing, self.sending)
        )


class Sum(eqx.Module):
    """A way to sum over one graph, with its index arrays.

    What is sent is `(rows, units, B)`, weights are `(E, units)`, or `(E, 1)` where one serves all
    units of a node.
    """

    ends: eqx.AbstractVar[Ends]

    @classmethod
    @abc.abstractmethod
    def of(
        cls, senders: np.ndarray, receivers: np.ndarray, ends: Ends, scalar: bool
    ) -> "Sum | None":
        """A sum over this graph, its edges sorted by receiver; None where it does not suit."""

    @abc.abstractmethod
    def arrange(self, w: Float[Array, "edges item"]) -> Any:
        """The weights in the order of the loop."""

    @abc.abstractmethod
    def __call__(
        self, arranged: Any, x: Shaped[Array, "rows units batch"]
    ) -> Float[Array, "heard units batch"]:
        """The sums."""

    def pairs(
        self,
        fn: Callable[[Array], Array],
        p: Float[Array, "rows units batch"],
        q: Float[Array, "heard units batch"],
    ) -> Float[Array, "heard units batch"]:
        """The sums of an elementwise function of both ends, as `Ends.pairs`."""
        return self.ends.pairs(fn, p, q)

    @abc.abstractmethod
    def __str__(self) -> str:
        """What it is, for the summary of a network."""

    @abc.abstractmethod
    def why(self) -> str:
        """What about the graph it was chosen for."""


def take(x: Shaped[Array, "rows ..."], index: Int[Array, "..."]) -> Shaped[Array, "..."]:
    """Rows by position; all of them must exist."""
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


@jax.custom_jvp
def with_derivatives(y: Array, ends: Ends, w: Array, x: Array, back: Any = None) -> Array:
    """`y`, which is `ends.sum(w, x)` found in some other way, with the derivatives that the plain
    way has.

    Those of gathers in a fast loop are slow, and slow to compile. `back` can sum over the reversed
    graph, as `back.weighted(back.arrange(w), y)`; without it the way back from receivers to senders
    is that of the plain sum.
    """
    return y


@any_rank
def _tangent(primals, tangents):
    y, ends, w, x, back = primals
    _, _, dw, dx, _ = tangents
    change = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero) and dx.dtype == x.dtype:
        if back is None:
            change = change + ends.sum(w, dx)
        else:
            reverse = jax.linear_transpose(lambda y: back.weighted(back.arrange(w), y), y)
            change = change + reverse(dx.astype(y.dtype))[0]
    if not isinstance(dw, SymbolicZero):
        change = change + _change(ends, dw, x)
    return y, change


with_derivatives.defjvp(_tangent, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_derivatives_of_pairs(
    fn: Callable[[Array], Array], y: Array, ends: Ends, p: Array, q: Array
) -> Array:
    """`y`, which is `ends.pairs(fn, p, q)` found in some other way, with the derivatives that the
    plain way has.
    """
    return y


@with_derivatives_of_pairs.defjvp
@any_rank
def _tangent_of_pairs(fn, primals, tangents):
    y, ends, p, q = primals
    _, _, dp, dq = tangents
    return y, jax.jvp(functools.partial(ends.pairs, fn), (p, q), (dp, dq))[1]


def _change(ends: Ends, dw: Array, x: Array) -> Array:
    """`ends.sum(dw, x)`, so that its transpose, what weights learn, is fast.

    Where many of all pairs are edges, the transpose of a matrix product is, of which the edges pick
    their entries. Otherwise, if one number for every edge and sample fits into a cache, a product
    with ones adds up the samples; and if not, it goes sample by sample in an elementwise loop,
    where gathers become vector code.
    """
    pairs, batch = ends.hearing * ends.sending, x.shape[-1]
    cached = FEWEST <= batch <= CACHE / max(dw.size, 1)
    dense = len(dw) >= (0.05 if cached else 0.004) * pairs
    if dw.shape[1] == 1 and dense and pairs <= LARGEST:
        return jnp.tensordot(ends.matrix(dw), x.astype(dw.dtype), 1)
    if cached:
        # without the barrier XLA would make the product a slow loop
        return ends.sum(
            jax.lax.optimization_barrier(
                jnp.tensordot(dw[..., None], jnp.ones((1, batch), dw.dtype), 1)
            ),
            x,
        )

    def some(x: Array) -> list[Array]:
        return [ends.sum(dw, x[..., b])[..., None] for b in range(x.shape[-1])]

    blocks = batch // COLUMNS
    if blocks < 2:
        return jnp.concatenate(some(x), axis=-1)

    @jax.checkpoint  # or all that was gathered would be kept for the way back
    def block(start: Array) -> Array:
        return jnp.concatenate(
            some(jax.lax.dynamic_slice_in_dim(x, start, COLUMNS, axis=-1)), axis=-1
        )

    found = jax.lax.map(block, COLUMNS * jnp.arange(blocks))
    found = jnp.moveaxis(found, 0, -2)
    parts = [found.reshape(*found.shape[:-2], blocks * COLUMNS), *some(x[..., blocks * COLUMNS :])]
    return jnp.concatenate(parts, axis=-1)
