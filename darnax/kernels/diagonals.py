"""Sums over a lattice: every edge leads a fixed number of rows ahead or back."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from darnax.kernels.sum import Ends, Sum, take, with_derivatives

MOST = 64


class Diagonals(Sum):
    """Shifted copies of all rows, weighted and added; nothing is gathered.

    Rows are taken as a ring. The few that have another wiring than most, such as those at the border of a lattice, are
    summed the plain way.

    **Fields:**

    - `offsets`: how far ahead in the ring the sender is, a number a diagonal.
    - `edges`: which edge a row has on each diagonal, any for rows that are others.
    - `others`: rows that do not have just these edges; theirs, and where among `others` they end.
    """

    ends: Ends
    edges: Int[Array, "diagonals rows"]
    others: tuple[Int[Array, " others"], Int[Array, " their"], Ends]
    offsets: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, senders, receivers, ends, scalar):
        hearing = ends.hearing
        if ends.sending != hearing or len(senders) < hearing:
            return None
        ahead = (senders - receivers) % hearing
        long = np.flatnonzero(2 * np.bincount(ahead, minlength=hearing) >= hearing)
        if not 0 < len(long) <= MOST:
            return None
        number = np.full(hearing, len(long))
        number[long] = np.arange(len(long))
        edges = np.full((len(long) + 1, hearing), -1, np.int32)
        edges[number[ahead], receivers] = np.arange(len(senders))
        edges = edges[: len(long)]
        degree = np.bincount(receivers, minlength=hearing)
        other = (edges < 0).any(axis=0) | (degree != len(long))
        if other.sum() > hearing / 4:
            return None
        rows, theirs = np.flatnonzero(other), np.flatnonzero(other[receivers])
        others = Ends.of(senders[theirs], np.searchsorted(rows, receivers[theirs]), len(rows), hearing)
        return cls(
            ends=ends,
            edges=jnp.asarray(np.maximum(edges, 0)),
            others=(jnp.asarray(rows, jnp.int32), jnp.asarray(theirs, jnp.int32), others),
            offsets=tuple(np.where(long < hearing / 2, long, long - hearing).tolist()),
        )

    def arrange(self, w):
        still = jax.lax.stop_gradient(w)
        return w, [take(still, edges) for edges in self.edges], take(still, self.others[1])

    def __call__(self, arranged, x):
        w, diagonals, theirs = arranged
        rows, _, ends = self.others
        still = jax.lax.stop_gradient(x)
        before, after = max(0, -min(self.offsets)), max(0, max(self.offsets))
        ring = [still[len(x) - before :]] * (before > 0) + [still] + [still[:after]] * (after > 0)
        # without the barrier XLA would look up in every shift where the ring was cut
        ring = jax.lax.optimization_barrier(jnp.concatenate(ring))
        shifts = [ring[before + offset : before + offset + len(x)].astype(w.dtype) for offset in self.offsets]
        terms = [own[..., None] * shift for own, shift in zip(diagonals, shifts, strict=True)]
        total = functools.reduce(jnp.add, terms)
        if len(rows):
            total = total.at[rows].set(ends.sum(theirs, still), unique_indices=True)
        return with_derivatives(total, self.ends, w, x)

    def __str__(self):
        return f"{len(self.offsets)} diagonals"

    def why(self):
        return "neighbours at fixed distances"
