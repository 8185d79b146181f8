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
from darnax.kernels.graph import Graph, take, with_derivatives, with_derivatives_of_pairs
from darnax.kernels.weighted_sum import WeightedSum

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

LARGEST = 32
"""Slots of a class: a row with more edges is cut into parts."""
FEWEST = 4096
"""Edges below which the plain sum takes less time, compilation included."""
LARGE = 2**14
"""Rows from which padding costs more than another class."""


class DegreeClass(eqx.Module):
    """Receivers with up to K edges each: `edges[k]` and `senders[k]` fill slot k of all of them.

    Where a receiver has fewer edges, its first edge fills the slot and `real` masks the term.
    `full` tells the slots that need no mask, which are most: the receivers of a class differ by one
    edge or two.
    """

    senders: Int[Array, "slots receivers"]
    edges: Int[Array, "slots receivers"]
    real: Bool[Array, "slots receivers"] | None
    full: tuple[bool, ...] = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        senders: np.ndarray,
        edges: np.ndarray,
        first: np.ndarray,
        degree: np.ndarray,
        slots: int,
    ) -> "DegreeClass":
        """The class of receivers whose edges are the `degree` ones from `first` on."""
        slot = np.arange(slots)[:, None]
        real = slot < degree
        edge = np.where(real, first + slot, first)
        return cls(
            senders=on_device(senders[edge], jnp.int32),
            edges=on_device(edges[edge], jnp.int32),
            real=None if real.all() else on_device(real),
            full=tuple(bool(line.all()) for line in real),
        )

    def masked(self, slot: int, term: Array) -> Array:
        """The term without what only fills the slot: zero times infinity would be NaN."""
        if self.full[slot] or self.real is None:
            return term
        return jnp.where(self.real[slot][:, None, None], term, 0)


class Loops(eqx.Module):
    """All degree classes of a graph.

    **Fields:**

    - `classes`: the classes of whole rows and of parts of rows.
    - `place`: where in the results of all classes the sum of each row is. The entry behind the last
      result is zero, for rows without edges.
    - `parts`: of rows that were cut, which results are their parts; None without any.
    """

    classes: tuple[DegreeClass, ...]
    place: Int[Array, " receiving"]
    parts: Graph | None

    @classmethod
    def of(
        cls, senders: np.ndarray, receivers: np.ndarray, receiving: int, edges: np.ndarray
    ) -> "Loops":
        """The loops over edges sorted by receiver; `edges` are their numbers."""
        degree = np.bincount(receivers, minlength=receiving)
        first = np.cumsum(degree) - degree
        cuts = -(-degree // LARGEST)
        row = np.repeat(np.arange(receiving), cuts)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
        start = first[row] + LARGEST * nth
        size = np.minimum(degree[row] - LARGEST * nth, LARGEST)
        slots = _merged(np.where(size <= 2, size, -(-size // 2) * 2))
        order = np.argsort(slots, kind="stable")
        classes = []
        for part in np.split(order, np.flatnonzero(np.diff(slots[order])) + 1):
            own = DegreeClass.of(senders, edges, start[part], size[part], int(slots[part[0]]))
            classes.append(own)
        place = np.full(receiving, len(order))
        place[row[order]] = np.arange(len(order))
        cut = np.flatnonzero(cuts > 1)
        parts = None
        if len(cut):
            owner = np.searchsorted(cut, row[order])
            pieces = np.flatnonzero(cuts[row[order]] > 1)
            pieces = pieces[np.argsort(owner[pieces], kind="stable")]
            place[cut] = len(order) + 1 + np.arange(len(cut))
            parts = Graph.of(pieces, owner[pieces], len(cut), len(order))
        return cls(tuple(classes), on_device(place, jnp.int32), parts)

    def arrange(self, w: Float[Array, "edges item"]) -> list[Float[Array, "slots receivers item"]]:
        """The weights of every class, slot after slot."""
        arranged = []
        for own in self.classes:
            weights = take(w, own.edges)
            if own.real is not None:
                weights = jnp.where(own.real[..., None], weights, 0)
            arranged.append(weights)
        return arranged

    def weighted(
        self, arranged: list[Array], x: Shaped[Array, "rows units batch"]
    ) -> Float[Array, "receiving units batch"]:
        """The weighted sums."""

        def term(i: int, slot: int) -> Array:
            own, weights = self.classes[i], arranged[i]
            product = weights[slot][..., None] * take(x, own.senders[slot]).astype(weights.dtype)
            return own.masked(slot, product)

        return self.total(term)

    def total(self, term: Callable[[int, int], Array]) -> Float[Array, "receiving units batch"]:
        """The sums of `term(class, slot)` over all slots, in the order of rows."""
        sums = []
        for i, own in enumerate(self.classes):
            terms = [term(i, slot) for slot in range(len(own.senders))]
            sums.append(sum(terms[1:], terms[0]))
        sums.append(jnp.zeros((1, *sums[0].shape[1:]), sums[0].dtype))
        if self.parts is not None:
            ends = self.parts.receivers, self.parts.receiving
            pieces = take(jnp.concatenate(sums), self.parts.senders)
            sums.append(jraph.segment_sum(pieces, *ends, indices_are_sorted=True))
        return take(jnp.concatenate(sums), self.place)


class Slots(WeightedSum):
    """`y = w[0] x[s[0]] + w[1] x[s[1]] + ...`, written out for every class of in-degree.

    A gather inside an elementwise loop becomes vector code, where a segment sum goes edge by edge.
    Padding is a few per cent. Rows of more than 32 edges are cut into parts, which a short plain
    sum puts together. `back` are the loops of the reversed graph: they take derivatives from
    receivers to senders.
    """

    graph: Graph
    loops: Loops
    back: Loops
    own: bool = eqx.field(static=True, default=True)

    @classmethod
    def over(cls, senders, receivers, graph, scalar, own=True):
        if len(senders) < FEWEST or jax.default_backend() != "cpu":
            return None
        order = np.argsort(senders, kind="stable")
        edges = np.arange(len(senders))
        return cls(
            graph=graph,
            loops=Loops.of(senders, receivers, graph.receiving, edges),
            back=Loops.of(receivers[order], senders[order], graph.sending, order),
            own=own,
        )

    def arrange(self, w):
        return w, self.loops.arrange(jax.lax.stop_gradient(w))

    def sum(self, arranged, x):
        w, slots = arranged
        y = self.loops.weighted(slots, jax.lax.stop_gradient(x))
        return with_derivatives(y, self.graph, w, x, self.back)

    def pairs(self, fn, p, q):
        sent, received = jax.lax.stop_gradient((p, q))
        rows = [take(self.graph.receivers, own.edges[0]) for own in self.loops.classes]
        # the receiver's part is the same in all of its slots
        of_receiver = [take(received, row) for row in rows]

        def term(i: int, slot: int) -> Array:
            own = self.loops.classes[i]
            return own.masked(slot, fn(take(sent, own.senders[slot]) + of_receiver[i]))

        return with_derivatives_of_pairs(fn, self.loops.total(term), self.graph, p, q)

    def describe(self):
        return f"slots, {len(self.loops.classes)} classes of in-degree", "irregular"


def _merged(slots: np.ndarray) -> np.ndarray:
    """The number of slots of every part, raised to that of the next class where this pads little.

    Every class is a loop to start and to compile.
    """
    sizes, count = np.unique(slots, return_counts=True)
    little = slots.sum() * (0.02 if len(slots) < LARGE else 0.01)
    for small, large in pairwise(range(len(sizes))):
        if count[small] * (sizes[large] - sizes[small]) <= little:
            slots = np.where(slots == sizes[small], sizes[large], slots)
            count[large] += count[small]
    return slots
