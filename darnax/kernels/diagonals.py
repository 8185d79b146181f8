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
from darnax.kernels.graph import Graph, take, with_derivatives
from darnax.kernels.weighted_sum import WeightedSum

MOST = 64
"""Distances between senders and receivers."""
VECTOR = 16
"""Numbers of a vector register: shorter rows need bit masks to become vector code."""


class Diagonal(eqx.Module):
    """One edge of every receiver, or none.

    **Fields:**

    - `edges`: which edge, and any where there is none.
    - `real`: which receivers have one; None for all.
    - `offsets`: how many rows ahead the sender may be.
    - `choice`: for every offset but the first, the receivers whose sender is that far ahead.
    """

    edges: Int[Array, " rows"]
    real: Bool[Array, " rows"] | None
    offsets: tuple[int, ...] = eqx.field(static=True)
    choice: tuple[Bool[Array, " rows"], ...]

    @classmethod
    def of(cls, edges: np.ndarray, offsets: np.ndarray) -> "Diagonal":
        """The diagonal of `edges`, `(offsets, rows)`, which are -1 where there is none."""
        real = (edges >= 0).any(axis=0)
        return cls(
            edges=on_device(np.maximum(edges.max(axis=0), 0), jnp.int32),
            real=None if real.all() else on_device(real),
            offsets=tuple(offsets.tolist()),
            choice=tuple(on_device(own) for own in edges[1:] >= 0),
        )


class Shifts(eqx.Module):
    """All edges of a graph, in diagonals."""

    diagonals: tuple[Diagonal, ...]

    @classmethod
    def of(cls, senders: np.ndarray, receivers: np.ndarray, rows: int) -> "Shifts | None":
        """None where a few diagonals do not hold all edges, or many are far from full."""
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
        merged = _merged(real, np.argsort(-count[found], kind="stable"))
        if len(senders) < len(merged) * rows / 2 or len(found) > 3 * len(merged):
            return None
        offsets = np.where(found < rows / 2, found, found - rows)
        return cls(tuple(Diagonal.of(edges[these], offsets[these]) for these in merged))

    def arrange(self, w: Float[Array, "edges item"]) -> list[Float[Array, "rows item"]]:
        """The weights of every diagonal, zero where it has no edge."""
        arranged = []
        for own in self.diagonals:
            weights = take(w, own.edges)
            if own.real is not None:
                weights = jnp.where(own.real[:, None], weights, 0)
            arranged.append(weights)
        return arranged

    def weighted(
        self, arranged: list[Array], x: Shaped[Array, "rows units batch"]
    ) -> Float[Array, "rows units batch"]:
        """The weighted sums, in operations that have a transpose."""
        before, after = self.reach
        parts = [x[len(x) - before :]] * (before > 0) + [x] + [x[:after]] * (after > 0)
        return self._total(arranged, jnp.concatenate(parts), jnp.where)

    def without_derivatives(
        self, arranged: list[Array], x: Shaped[Array, "rows units batch"]
    ) -> Float[Array, "rows units batch"]:
        """The weighted sums in less time, in operations that have none."""
        before, after = self.reach
        ring = jax.lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0), (0, 0, 0), (0, 0, 0)])
        ring = jax.lax.dynamic_update_slice(ring, x[len(x) - before :], (0, 0, 0))
        ring = jax.lax.dynamic_update_slice(ring, x[:after], (before + len(x), 0, 0))
        return self._total(arranged, ring, _where)

    @property
    def reach(self) -> tuple[int, int]:
        """How many rows before the first and after the last are read."""
        offsets = [offset for own in self.diagonals for offset in own.offsets]
        return max(0, -min(offsets)), max(0, max(offsets))

    def _total(self, arranged: list[Array], ring: Array, where: Callable[..., Array]) -> Array:
        """The sums, from the rows with those that come before and after them on the ring."""
        # without the barrier XLA would look up in every copy where the ring was cut
        ring = jax.lax.optimization_barrier(ring)
        before, after = self.reach
        terms = []
        for own, w in zip(self.diagonals, arranged, strict=True):
            copies = []
            for offset in own.offsets:
                copies.append(ring[before + offset : len(ring) - after + offset].astype(w.dtype))
            senders = copies[0]
            if own.real is not None:
                senders = where(own.real[:, None, None], senders, jnp.zeros_like(senders))
            for here, copy in zip(own.choice, copies[1:], strict=True):
                senders = where(here[:, None, None], copy, senders)
            terms.append(w[..., None] * senders)
        return functools.reduce(jnp.add, terms)


class Diagonals(WeightedSum):
    """Shifted copies of all rows, weighted and added; nothing is gathered.

    Rows are taken as a ring. Where a lattice ends or closes, a receiver has its sender at another
    distance than most, or none: there it takes another copy. `back` are the shifts of the reversed
    graph, for derivatives.
    """

    graph: Graph
    shifts: Shifts
    back: Shifts
    own: bool = eqx.field(static=True, default=True)

    @classmethod
    def over(cls, senders, receivers, graph, scalar, own=True):
        rows = graph.receiving
        if graph.sending != rows or len(senders) < rows:
            return None
        shifts = Shifts.of(senders, receivers, rows)
        if shifts is None:
            return None
        back = Shifts.of(receivers, senders, rows)
        return None if back is None else cls(graph=graph, shifts=shifts, back=back, own=own)

    def arrange(self, w):
        return w, self.shifts.arrange(jax.lax.stop_gradient(w))

    def sum(self, arranged, x):
        w, diagonals = arranged
        y = self.shifts.without_derivatives(diagonals, jax.lax.stop_gradient(x))
        return with_derivatives(y, self.graph, w, x, self.back)

    def describe(self):
        return f"{len(self.shifts.diagonals)} diagonals", "neighbours at fixed distances"


def _merged(real: np.ndarray, order: np.ndarray) -> list[list[int]]:
    """Offsets that hold for different receivers joined into one diagonal, frequent ones first.

    `real` tells for every offset and receiver whether there is an edge.
    """
    merged: list[list[int]] = []
    for i in order.tolist():
        for others in merged:
            if not (real[others].any(axis=0) & real[i]).any():
                others.append(i)
                break
        else:
            merged.append([i])
    return merged


def _where(
    mask: Bool[Array, "rows 1 1"],
    a: Float[Array, "rows units batch"],
    b: Float[Array, "rows units batch"],
) -> Array:
    """`jnp.where` without derivatives, on bits where rows are too short to become vector code."""
    if not 1 < math.prod(a.shape[1:]) < VECTOR:
        return jnp.where(mask, a, b)
    bits = jnp.dtype(f"int{8 * a.dtype.itemsize}")
    one, other = (jax.lax.bitcast_convert_type(x, bits) for x in (a, b))
    return jax.lax.bitcast_convert_type(((one ^ other) & -mask.astype(bits)) ^ other, a.dtype)
