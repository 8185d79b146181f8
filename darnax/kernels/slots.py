"""Sums over an irregular graph: receivers of like in-degree together, slot after slot."""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from darnax._arrays import on_device
from darnax._lazy import Lazy
from darnax.kernels.sum import Ends, Sum, take, with_derivatives, with_derivatives_of_pairs

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

LARGEST, FEW, MANY = 32, 4096, 2**14


class Class(eqx.Module):
    """Receivers with up to so many edges: `edges[k]` and `senders[k]` are those of slot k.

    Where a receiver has fewer, its first edge stands in, and what it says there does not count.
    `full` tells which slots need not ask: most classes have receivers with fewer edges in their
    last slot alone.
    """

    senders: Int[Array, "slots receivers"]
    edges: Int[Array, "slots receivers"]
    real: Bool[Array, "slots receivers"] | None
    full: tuple[bool, ...] = eqx.field(static=True)


class Loops(eqx.Module):
    """All classes of a graph.

    **Fields:**

    - `classes`: of receivers and parts.
    - `place`: where among all classes the sum of a row is, after the last for rows that hear
      nobody.
    - `parts`: of rows that were cut, the places of parts and which of these rows each belongs to;
      None without any.
    """

    classes: tuple[Class, ...]
    place: Int[Array, " heard"]
    parts: Ends | None

    @classmethod
    def of(
        cls, senders: np.ndarray, receivers: np.ndarray, hearing: int, edges: np.ndarray
    ) -> "Loops":
        """For edges sorted by receiver; `edges` are their numbers."""
        degree = np.bincount(receivers, minlength=hearing)
        first = np.cumsum(degree) - degree
        # every receiver is cut into parts of at most LARGEST edges
        cuts = -(-degree // LARGEST)
        owner = np.repeat(np.arange(hearing), cuts)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
        start, size = (
            first[owner] + LARGEST * nth,
            np.minimum(degree[owner] - LARGEST * nth, LARGEST),
        )
        bound = _merged(np.where(size <= 2, size, -(-size // 2) * 2))
        order = np.argsort(bound, kind="stable")
        classes = tuple(
            _class(senders, edges, start[rows], size[rows], int(bound[rows[0]]))
            for rows in np.split(order, np.flatnonzero(np.diff(bound[order])) + 1)
        )
        place, parts = np.full(hearing, len(order)), None
        place[owner[order]] = np.arange(len(order))
        cut = np.flatnonzero(cuts > 1)
        if len(cut):
            row = np.searchsorted(cut, owner[order])
            pieces = np.flatnonzero(cuts[owner[order]] > 1)
            pieces = pieces[np.argsort(row[pieces], kind="stable")]
            place[cut] = len(order) + 1 + np.arange(len(cut))
            parts = Ends.of(pieces, row[pieces], len(cut), len(order))
        return cls(classes, on_device(place, jnp.int32), parts)

    def arrange(self, w: Float[Array, "edges item"]) -> list[Float[Array, "slots receivers item"]]:
        """The weights of every class, slot after slot."""
        slots = [(c.real, take(w, c.edges)) for c in self.classes]
        return [own if real is None else jnp.where(real[..., None], own, 0) for real, own in slots]

    def weighted(
        self, slots: list[Array], x: Shaped[Array, "rows units batch"]
    ) -> Float[Array, "heard units batch"]:
        """The weighted sums."""

        def term(i: int, k: int) -> Array:
            c = self.classes[i]
            found = slots[i][k][..., None] * take(x, c.senders[k]).astype(slots[i].dtype)
            # zero times infinity is no number
            return (
                found
                if c.full[k] or c.real is None
                else jnp.where(c.real[k][:, None, None], found, 0)
            )

        return self.total(term)

    def total(self, term: Callable[[int, int], Array]) -> Float[Array, "heard units batch"]:
        """The sums of what `term` gives for every class and slot, in the order of rows."""
        sums = []
        for i, c in enumerate(self.classes):
            terms = [term(i, k) for k in range(len(c.senders))]
            sums.append(sum(terms[1:], terms[0]))
        sums.append(jnp.zeros((1, *sums[0].shape[1:]), sums[0].dtype))
        if self.parts is not None:
            joined = jnp.concatenate(sums)
            pieces = take(joined, self.parts.senders)
            sums.append(
                jraph.segment_sum(
                    pieces, self.parts.receivers, self.parts.hearing, indices_are_sorted=True
                )
            )
        return take(jnp.concatenate(sums), self.place)


class Slots(Sum):
    """`y = w[0] x[s[0]] + w[1] x[s[1]] + ...`, written out for every class of in-degree.

    A gather that stands in an elementwise loop becomes vector code. What is padded are a few per
    cent. Nodes with more than 32 edges are cut into parts, which a short plain sum puts together.
    `back` are the loops of the reversed graph: they take derivatives from receivers to senders.
    """

    ends: Ends
    loops: Loops
    back: Loops

    @classmethod
    def of(cls, senders, receivers, ends, scalar):
        if len(senders) < FEW or jax.default_backend() != "cpu":
            return None
        order = np.argsort(senders, kind="stable")
        return cls(
            ends,
            Loops.of(senders, receivers, ends.hearing, np.arange(len(senders))),
            Loops.of(receivers[order], senders[order], ends.sending, order),
        )

    def arrange(self, w):
        return w, self.loops.arrange(jax.lax.stop_gradient(w))

    def __call__(self, arranged, x):
        w, slots = arranged
        y = self.loops.weighted(slots, jax.lax.stop_gradient(x))
        return with_derivatives(y, self.ends, w, x, self.back)

    def pairs(self, fn, p, q):
        still, own = jax.lax.stop_gradient((p, q))
        # all slots of a receiver hear the same of it
        heard = [take(own, take(self.ends.receivers, c.edges[0])) for c in self.loops.classes]

        def term(i: int, k: int) -> Array:
            c = self.loops.classes[i]
            found = fn(take(still, c.senders[k]) + heard[i])
            return (
                found
                if c.full[k] or c.real is None
                else jnp.where(c.real[k][:, None, None], found, 0)
            )

        return with_derivatives_of_pairs(fn, self.loops.total(term), self.ends, p, q)

    def __str__(self):
        return f"slots, {len(self.loops.classes)} classes of in-degree"

    def why(self):
        return "irregular"


def _merged(bound: np.ndarray) -> np.ndarray:
    """Bounds with classes raised to the next where that pads little: every class is a loop to start
    and to compile.
    """
    bounds, count = np.unique(bound, return_counts=True)
    little = bound.sum() * (0.02 if len(bound) < MANY else 0.01)
    for small, large in pairwise(range(len(bounds))):
        if count[small] * (bounds[large] - bounds[small]) <= little:
            bound = np.where(bound == bounds[small], bounds[large], bound)
            count[large] += count[small]
    return bound


def _class(
    senders: np.ndarray, edges: np.ndarray, start: np.ndarray, size: np.ndarray, bound: int
) -> Class:
    slot = np.arange(bound)[:, None]
    real = slot < size
    which = np.where(real, start + slot, start)
    return Class(
        on_device(senders[which], jnp.int32),
        on_device(edges[which], jnp.int32),
        None if real.all() else on_device(real),
        tuple(bool(row.all()) for row in real),
    )
