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
from darnax.kernels.graph import Arrangement, Graph, take, with_derivatives
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
        # A receiver has an edge at one offset at most, so that the maximum is that edge.
        edge = edges.max(axis=0)
        return cls(
            edges=on_device(np.maximum(edge, 0), jnp.int32),
            real=None if real.all() else on_device(real),
            offsets=tuple(offsets.tolist()),
            choice=tuple(on_device(own) for own in edges[1:] >= 0),
        )


class Shifts(Arrangement):
    """All edges of a graph, in diagonals."""

    diagonals: tuple[Diagonal, ...]

    @classmethod
    def of(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        rows: int,
    ) -> "Shifts | None":
        """None where a few diagonals do not hold all edges, or many are far from full."""
        # On a ring a distance behind is one ahead: a closed lattice needs fewer distances.
        ahead = (senders - receivers) % rows
        count = np.bincount(ahead, minlength=rows)
        distances = np.flatnonzero(count)
        if not 0 < len(distances) <= MOST:
            return None

        # `edges[d, r]` is the edge to row r from the distance d, or -1.
        edges = np.full((len(distances), rows), -1)
        distance = np.searchsorted(distances, ahead)
        edges[distance, receivers] = np.arange(len(senders))
        real = edges >= 0
        # Of parallel edges the table keeps only one.
        if real.sum() < len(senders):
            return None

        # A pass reads a copy for every distance and weights for every diagonal, full or not.
        frequent = np.argsort(-count[distances], kind="stable")
        merged = _merged(real, frequent)
        if len(senders) < len(merged) * rows / 2:
            return None
        if len(distances) > 3 * len(merged):
            return None
        # The shorter way round the ring: it keeps small what is copied at both ends.
        offsets = np.where(distances < rows / 2, distances, distances - rows)
        diagonals = []
        for these in merged:
            diagonals.append(Diagonal.of(edges[these], offsets[these]))
        return cls(tuple(diagonals))

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
        self,
        arranged: list[Array],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "rows units batch"]:
        """The weighted sums, in operations that have a transpose."""
        before, after = self.reach
        parts = [x]
        if before > 0:
            parts.insert(0, x[len(x) - before :])
        if after > 0:
            parts.append(x[:after])
        return self._total(arranged, jnp.concatenate(parts), jnp.where)

    def without_derivatives(
        self,
        arranged: list[Array],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "rows units batch"]:
        """The weighted sums in less time, in operations that have none."""
        before, after = self.reach
        # The ring cut open: at both ends stand the rows that come next on it.
        none = 0, 0, 0
        zero = jnp.zeros((), x.dtype)
        ring = jax.lax.pad(x, zero, [(before, after, 0), none, none])
        last = x[len(x) - before :]
        ring = jax.lax.dynamic_update_slice(ring, last, (0, 0, 0))
        first, end = x[:after], before + len(x)
        ring = jax.lax.dynamic_update_slice(ring, first, (end, 0, 0))
        return self._total(arranged, ring, _where)

    @property
    def reach(self) -> tuple[int, int]:
        """How many rows before the first and after the last are read."""
        offsets = [0]
        for own in self.diagonals:
            offsets.extend(own.offsets)
        return -min(offsets), max(offsets)

    def _total(
        self,
        arranged: list[Array],
        ring: Array,
        where: Callable[[Array, Array, Array], Array],
    ) -> Array:
        """The sums, from the rows with those that come before and after them on the ring."""
        # Without the barrier XLA would look up in every copy where the ring was cut.
        ring = jax.lax.optimization_barrier(ring)
        before, after = self.reach
        terms = []
        for own, w in zip(self.diagonals, arranged, strict=True):
            copies = []
            for offset in own.offsets:
                copy = ring[before + offset : len(ring) - after + offset]
                copies.append(copy.astype(w.dtype))
            senders, *others = copies
            # A zero weight is not enough: zero times infinity is NaN.
            if own.real is not None:
                real = own.real[:, None, None]
                senders = where(real, senders, jnp.zeros_like(senders))
            # At a border of the lattice the sender stands in another copy.
            for here, copy in zip(own.choice, others, strict=True):
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
    def over(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        graph: Graph,
        scalar: bool,
        own: bool = True,
    ) -> "Diagonals | None":
        rows = graph.receiving
        # Both ends are taken as one ring.
        if graph.sending != rows:
            return None
        # With fewer edges than rows no diagonal is full.
        if len(senders) < rows:
            return None
        shifts = Shifts.of(senders, receivers, rows)
        if shifts is None:
            return None
        back = Shifts.of(receivers, senders, rows)
        if back is None:
            return None
        return cls(graph=graph, shifts=shifts, back=back, own=own)

    def transposed(self) -> "Diagonals":
        return Diagonals(
            graph=self.graph.reversed(),
            shifts=self.back,
            back=self.shifts,
            own=self.own,
        )

    def arrange(
        self, w: Float[Array, "edges item"]
    ) -> tuple[Float[Array, "edges item"], list[Float[Array, "rows item"]]]:
        # The weights stay beside the diagonals: derivatives need them edge by edge.
        return w, self.shifts.arrange(jax.lax.stop_gradient(w))

    def sum(
        self,
        arranged: tuple[Array, list[Array]],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "rows units batch"]:
        w, diagonals = arranged
        # The loop has no derivatives: it runs on states that JAX does not follow.
        y = self.shifts.without_derivatives(diagonals, jax.lax.stop_gradient(x))
        return with_derivatives(y, self.graph, w, x, self.back)

    def describe(self) -> tuple[str, str]:
        return f"{len(self.shifts.diagonals)} diagonals", "neighbours at fixed distances"


def _merged(
    real: np.ndarray,
    order: np.ndarray,
) -> list[list[int]]:
    """Offsets that hold for different receivers joined into one diagonal, frequent ones first.

    `real` tells for every offset and receiver whether there is an edge.
    """
    merged: list[list[int]] = []
    for i in order.tolist():
        for others in merged:
            # Disjoint receivers: a diagonal has one edge of each receiver at most.
            taken = real[others].any(axis=0)
            if not (taken & real[i]).any():
                others.append(i)
                break
        else:
            merged.append([i])
    return merged


def _where(
    mask: Bool[Array, "rows 1 1"],
    a: Float[Array, "rows units batch"],
    b: Float[Array, "rows units batch"],
) -> Float[Array, "rows units batch"]:
    """`jnp.where` without derivatives, on bits where rows are too short to become vector code."""
    if not 1 < math.prod(a.shape[1:]) < VECTOR:
        return jnp.where(mask, a, b)
    bits = jnp.dtype(f"int{8 * a.dtype.itemsize}")
    one = jax.lax.bitcast_convert_type(a, bits)
    other = jax.lax.bitcast_convert_type(b, bits)
    # Minus one has all bits set, and zero none: the difference is taken whole, or not at all.
    difference = (one ^ other) & -mask.astype(bits)
    chosen = difference ^ other
    return jax.lax.bitcast_convert_type(chosen, a.dtype)
