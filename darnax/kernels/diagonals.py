"""Sums over a lattice: senders lie at a few distances from their receivers."""

import functools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from darnax._arrays import on_device
from darnax.kernels.sum import Ends, Sum, take, with_derivatives

MOST, VECTOR = 64, 16


class Diagonal(eqx.Module):
    """One edge of every receiver, or none.

    **Fields:**

    - `edges`: which one, any where there is none.
    - `real`: which receivers have one; None for all.
    - `offsets`: how far ahead on the ring of rows the sender may be.
    - `choice`: for every offset but the first, the receivers that it holds for.
    """

    edges: Int[Array, " rows"]
    real: Bool[Array, " rows"] | None
    offsets: tuple[int, ...] = eqx.field(static=True)
    choice: tuple[Bool[Array, " rows"], ...]


class Shifts(eqx.Module):
    """All edges of a graph, in diagonals."""

    diagonals: tuple[Diagonal, ...]

    @classmethod
    def of(cls, senders: np.ndarray, receivers: np.ndarray, rows: int) -> "Shifts | None":
        """None where few diagonals do not hold all edges, or many are far from full."""
        ahead = (senders - receivers) % rows
        count = np.bincount(ahead, minlength=rows)
        found = np.flatnonzero(count)
        if not 0 < len(found) <= MOST:
            return None
        edges = np.full((len(found), rows), -1)
        edges[np.searchsorted(found, ahead), receivers] = np.arange(len(senders))
        real = edges >= 0
        if real.sum() < len(senders):  # some are parallel
            return None
        merged: list[list[int]] = []  # offsets of different receivers, the frequent ones first
        for i in np.argsort(-count[found], kind="stable").tolist():
            free = (others for others in merged if not (real[others].any(axis=0) & real[i]).any())
            fitting = next(free, None)
            if fitting is None:
                merged.append([i])
            else:
                fitting.append(i)
        if len(senders) < len(merged) * rows / 2 or len(found) > 3 * len(merged):
            return None
        offsets = np.where(found < rows / 2, found, found - rows)
        return cls(tuple(_diagonal(edges[these], offsets[these]) for these in merged))

    def arrange(self, w: Float[Array, "edges item"]) -> list[Float[Array, "rows item"]]:
        """The weights of every diagonal, zero where it has no edge."""
        return [
            take(w, own.edges)
            if own.real is None
            else jnp.where(own.real[:, None], take(w, own.edges), 0)
            for own in self.diagonals
        ]

    def weighted(
        self, arranged: list[Array], x: Shaped[Array, "rows units batch"]
    ) -> Float[Array, "rows units batch"]:
        """The weighted sums, of what can be transposed."""
        before, after = self.reach
        parts = [x[len(x) - before :]] * (before > 0) + [x] + [x[:after]] * (after > 0)
        return self.total(arranged, jnp.concatenate(parts), jnp.where)

    def without_derivatives(
        self, arranged: list[Array], x: Shaped[Array, "rows units batch"]
    ) -> Float[Array, "rows units batch"]:
        """The same in less time, of what cannot."""
        before, after = self.reach
        ring = jax.lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0), (0, 0, 0), (0, 0, 0)])
        ring = jax.lax.dynamic_update_slice(ring, x[len(x) - before :], (0, 0, 0))
        ring = jax.lax.dynamic_update_slice(ring, x[:after], (before + len(x), 0, 0))
        return self.total(arranged, ring, _where)

    @property
    def reach(self) -> tuple[int, int]:
        """How many rows before the first and after the last are heard."""
        offsets = [offset for own in self.diagonals for offset in own.offsets]
        return max(0, -min(offsets)), max(0, max(offsets))

    def total(self, arranged: list[Array], ring: Array, where: Callable[..., Array]) -> Array:
        """The sums over copies of the rows, given these with what comes before and after."""
        # without the barrier XLA would look up in every copy where the ring was cut
        ring = jax.lax.optimization_barrier(ring)
        before, after = self.reach
        terms = []
        for own, w in zip(self.diagonals, arranged, strict=True):
            copies = [
                ring[before + offset : len(ring) - after + offset].astype(w.dtype)
                for offset in own.offsets
            ]
            heard = copies[0]
            if own.real is not None:
                heard = where(own.real[:, None, None], heard, jnp.zeros_like(heard))
            for here, copy in zip(own.choice, copies[1:], strict=True):
                heard = where(here[:, None, None], copy, heard)
            terms.append(w[..., None] * heard)
        return functools.reduce(jnp.add, terms)


class Diagonals(Sum):
    """Shifted copies of all rows, weighted and added; nothing is gathered.

    Rows are taken as a ring. Where a lattice ends or closes, a receiver has its sender at another
    distance than most, or none: of every copy it takes the row that it hears. `back` are the shifts
    of the reversed graph.
    """

    ends: Ends
    shifts: Shifts
    back: Shifts

    @classmethod
    def of(cls, senders, receivers, ends, scalar):
        if ends.sending != ends.hearing or len(senders) < ends.hearing:
            return None
        shifts = Shifts.of(senders, receivers, ends.hearing)
        back = shifts and Shifts.of(receivers, senders, ends.hearing)
        return None if shifts is None or back is None else cls(ends, shifts, back)

    def arrange(self, w):
        return w, self.shifts.arrange(jax.lax.stop_gradient(w))

    def __call__(self, arranged, x):
        w, diagonals = arranged
        y = self.shifts.without_derivatives(diagonals, jax.lax.stop_gradient(x))
        return with_derivatives(y, self.ends, w, x, self.back)

    def __str__(self):
        return f"{len(self.shifts.diagonals)} diagonals"

    def why(self):
        return "neighbours at fixed distances"


def _diagonal(edges: np.ndarray, offsets: np.ndarray) -> Diagonal:
    """From the edges of every offset by receiver, -1 where there is none."""
    real = (edges >= 0).any(axis=0)
    return Diagonal(
        edges=on_device(np.maximum(edges.max(axis=0), 0), jnp.int32),
        real=None if real.all() else on_device(real),
        offsets=tuple(offsets.tolist()),
        choice=tuple(on_device(own) for own in edges[1:] >= 0),
    )


def _where(
    mask: Bool[Array, "rows 1 1"], a: Float[Array, "rows units batch"], b: Float[Array, "..."]
) -> Array:
    """`jnp.where` without derivatives; rows shorter than a vector become vector code too, by
    masking bits.
    """
    if not 1 < math.prod(a.shape[1:]) < VECTOR:
        return jnp.where(mask, a, b)
    bits = jnp.dtype(f"int{8 * a.dtype.itemsize}")
    one, other = (jax.lax.bitcast_convert_type(x, bits) for x in (a, b))
    return jax.lax.bitcast_convert_type(((one ^ other) & -mask.astype(bits)) ^ other, a.dtype)
