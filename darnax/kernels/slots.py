"""Sums over an irregular graph: receivers of like in-degree together, slot after slot."""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from darnax._arrays import on_device
from darnax._lazy import Lazy
from darnax.kernels.graph import (
    Arrangement,
    Graph,
    take,
    with_derivatives,
    with_derivatives_of_pairs,
)
from darnax.kernels.library import native_library
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
        # Any edge that exists would do for what is masked.
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
        real = self.real[slot][:, None, None]
        return jnp.where(real, term, 0)


class RowParts(NamedTuple):
    """Rows of a graph, each cut into parts of at most `LARGEST` edges; the parts of a row in turn.

    **Fields:**

    - `row`: the row that a part is of.
    - `first`: the first of its edges, which stand one after another.
    - `size`: how many edges it has.
    - `cuts`: for every row, how many parts it has; a row without edges has none.
    """

    row: np.ndarray
    first: np.ndarray
    size: np.ndarray
    cuts: np.ndarray

    @classmethod
    def of(cls, receivers: np.ndarray, receiving: int) -> "RowParts":
        """The parts of all rows, from the receivers of edges sorted by receiver."""
        degree = np.bincount(receivers, minlength=receiving)
        first = np.cumsum(degree) - degree
        cuts = -(-degree // LARGEST)
        row = np.repeat(np.arange(receiving), cuts)
        # Which part of its row each is, counted from zero
        first_part = np.cumsum(cuts) - cuts
        nth = np.arange(len(row)) - np.repeat(first_part, cuts)
        return cls(
            row=row,
            first=first[row] + LARGEST * nth,
            size=np.minimum(degree[row] - LARGEST * nth, LARGEST),
            cuts=cuts,
        )


class Loops(Arrangement):
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
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        receiving: int,
        edges: np.ndarray,
    ) -> "Loops":
        """The loops over edges sorted by receiver; `edges` are their numbers."""
        row, first, size, cuts = RowParts.of(receivers, receiving)

        # Classes in steps of two slots pad little and are half as many as in steps of one.
        even = -(-size // 2) * 2
        slots = _merged(np.where(size <= 2, size, even))
        order = np.argsort(slots, kind="stable")
        ends = np.flatnonzero(np.diff(slots[order])) + 1
        classes = []
        for part in np.split(order, ends):
            own = DegreeClass.of(
                senders=senders,
                edges=edges,
                first=first[part],
                degree=size[part],
                slots=int(slots[part[0]]),
            )
            classes.append(own)

        # Results come class after class; behind them stand the zero, and then sums of parts.
        place = np.full(receiving, len(order))
        place[row[order]] = np.arange(len(order))
        cut = np.flatnonzero(cuts > 1)
        if not len(cut):
            return cls(tuple(classes), on_device(place, jnp.int32), None)
        behind = len(order) + 1
        place[cut] = behind + np.arange(len(cut))

        # The parts of cut rows are themselves a graph, from results to rows, sorted by receiver.
        owner = np.searchsorted(cut, row[order])
        of_cut_row = cuts[row[order]] > 1
        pieces = np.flatnonzero(of_cut_row)
        by_owner = np.argsort(owner[pieces], kind="stable")
        pieces = pieces[by_owner]
        parts = Graph.of(
            senders=pieces,
            receivers=owner[pieces],
            receiving=len(cut),
            sending=len(order),
        )
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
        self,
        arranged: list[Array],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        """The weighted sums."""

        def term(i: int, slot: int) -> Array:
            own, weights = self.classes[i], arranged[i]
            factors = weights[slot][..., None]
            states = take(x, own.senders[slot]).astype(weights.dtype)
            return own.masked(slot, factors * states)

        return self.total(term)

    def total(self, term: Callable[[int, int], Array]) -> Float[Array, "receiving units batch"]:
        """The sums of `term(class, slot)` over all slots, in the order of rows."""
        sums = []
        for i, own in enumerate(self.classes):
            # A loop of Python and no sum over an axis: XLA then makes one elementwise loop of it,
            # in which gathers are vector code. Inside of a reduction they are one number at a time.
            first, *others = [term(i, slot) for slot in range(len(own.senders))]
            sums.append(sum(others, first))
        # The zero that rows without edges take
        shape = 1, *sums[0].shape[1:]
        sums.append(jnp.zeros(shape, sums[0].dtype))
        if self.parts is not None:
            pieces = take(jnp.concatenate(sums), self.parts.senders)
            whole = jraph.segment_sum(
                pieces,
                self.parts.receivers,
                self.parts.receiving,
                indices_are_sorted=True,
            )
            sums.append(whole)
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
    def over(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        graph: Graph,
        scalar: bool,
        own: bool = True,
    ) -> "Slots | None":
        if len(senders) < FEWEST:
            return None
        # What XLA makes vector code of was measured on CPUs; elsewhere the plain sum stays.
        if jax.default_backend() != "cpu":
            return None
        edges = np.arange(len(senders))
        loops = Loops.of(senders, receivers, graph.receiving, edges)
        # The reversed graph has its own order of edges; `order` finds their weights in that of w.
        order = np.argsort(senders, kind="stable")
        back = Loops.of(receivers[order], senders[order], graph.sending, order)
        return cls(graph=graph, loops=loops, back=back, own=own)

    def arrange(
        self, w: Float[Array, "edges item"]
    ) -> tuple[Float[Array, "edges item"], list[Float[Array, "slots receivers item"]]]:
        # The weights stay beside the slots: derivatives need them edge by edge.
        return w, self.loops.arrange(jax.lax.stop_gradient(w))

    def transposed(self) -> "Slots":
        return Slots(
            graph=self.graph.reversed(),
            loops=self.back,
            back=self.loops,
            own=self.own,
        )

    def sum(
        self,
        arranged: tuple[Array, list[Array]],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        w, slots = arranged
        y = self.loops.weighted(slots, jax.lax.stop_gradient(x))
        return with_derivatives(y, self.graph, w, x, self.back)

    def pairs(
        self,
        fn: Callable[[Array], Array],
        p: Float[Array, "rows units batch"],
        q: Float[Array, "receiving units batch"],
    ) -> Float[Array, "receiving units batch"]:
        sent, received = jax.lax.stop_gradient((p, q))
        # The receiver's part is the same in all of its slots, and gathered once for each class.
        rows = [take(self.graph.receivers, own.edges[0]) for own in self.loops.classes]
        of_receiver = [take(received, row) for row in rows]

        def term(i: int, slot: int) -> Array:
            own = self.loops.classes[i]
            of_sender = take(sent, own.senders[slot])
            return own.masked(slot, fn(of_sender + of_receiver[i]))

        y = self.loops.total(term)
        return with_derivatives_of_pairs(fn, y, self.graph, p, q)

    def describe(self) -> tuple[str, str]:
        library = native_library()
        why = "irregular" if library.loaded else f"irregular; {library.reason}"
        return f"slots, {len(self.loops.classes)} classes of in-degree", why


def _merged(slots: np.ndarray) -> np.ndarray:
    """The number of slots of every part, raised to that of the next class where this pads little.

    Every class is a loop to start and to compile.
    """
    sizes, count = np.unique(slots, return_counts=True)
    share = 0.02 if len(slots) < LARGE else 0.01
    most = share * slots.sum()
    for small, large in pairwise(range(len(sizes))):
        padding = count[small] * (sizes[large] - sizes[small])
        if padding <= most:
            slots = np.where(slots == sizes[small], sizes[large], slots)
            # What moved up counts there: it may move on, together with the next class.
            count[large] += count[small]
    return slots
