"""Coupling along the edges of a graph inside a population."""

import math
from collections import Counter
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from darnax import _text, checks
from darnax._arrays import on_device
from darnax.couplings.coupling import Coupling, Edges, Factory, Fixed, value
from darnax.couplings.dense import check_self_loop, mean_with
from darnax.couplings.draws import Draws
from darnax.kernels import Graph, WeightedSum, choose_sum
from darnax.kernels.graph import take
from darnax.topologies.wiring import GraphOrMatrix, Wiring, read_wiring


class Sparse(Coupling):
    """The message `y[r] = Σ weight[k] x[s]` over all entries k from s to r, both ends flattened.

    **Fields:**

    - `weight`: a number an entry, sorted by receiver.
    - `sum`: how the sums are found.
    - `self_coupling`: the fixed number by which every unit sends to itself, or None.
    - `mirror`: for a symmetric coupling, which entry is that of the other direction; else None. The
      number of an entry then is the mean of both, as that of a symmetric `Dense`.
    """

    weight: Float[Array, "*edges entries"]
    sum: WeightedSum
    receiver_shape: tuple[int, ...] = eqx.field(static=True)
    self_coupling: Fixed | None = None
    mirror: Int[Array, "*edges entries"] | None = None

    # The order of the sum differs from that of the edges, which is what users read and rules train:
    # a loop goes from one to the other once, by `prepared`.

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        return self.prepared()(x)

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        return self.prepared().batched(x)

    def prepared(self) -> "ArrangedSparse":
        """The same coupling with its weights in the order of the sum."""
        weight = self.weight
        if self.mirror is not None:
            weight = mean_with(weight, take(weight, self.mirror))
        # One number an entry: to a sum every unit is a node of one unit.
        arranged = self.sum.arrange(weight[:, None])
        return ArrangedSparse(arranged, self.sum, self.receiver_shape, self.self_coupling)

    @property
    def is_symmetric(self) -> bool:
        return self.mirror is not None

    def transposed(self, sender_shape: tuple[int, ...]) -> "Sparse":
        return Sparse(self.weight, self.sum.transposed(), sender_shape, self.self_coupling)

    def describe(self) -> tuple[str, str]:
        return self.sum.describe()


class ArrangedSparse(Coupling):
    """A `Sparse` with its weights in the order of the sum."""

    arranged: PyTree
    sum: WeightedSum
    receiver_shape: tuple[int, ...] = eqx.field(static=True)
    self_coupling: Fixed | None

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        # Sums have a batch, last: one sample is a batch of one.
        return self.batched(x[..., None])[..., 0]

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        batch = x.shape[-1]
        units = x.reshape(-1, 1, batch)
        message = self.sum.sum(self.arranged, units)
        if self.self_coupling is not None:
            message = message + value(self.self_coupling) * units
        return message.reshape(*self.receiver_shape, batch)


@checks.by_hand
def sparse(
    graph: GraphOrMatrix,
    gain: float | int | None = None,
    self_coupling: float | int | None = None,
    symmetric: bool = False,
) -> Factory:
    """Wiring between single units of one or two populations; only what is wired has a weight.

    **Arguments:**

    - `graph`: a networkx graph whose vertices, in its order, are the units, and in which `u -> v`
      says that u sends to v; or a scipy sparse matrix or `jax.experimental.sparse.BCOO`,
      `matrix[receiver, sender]`.
    - `gain`: None starts from the entries of the matrix or the `weight` of edges, 1 where there is
      none; a number draws from `N(0, gain² / entries a receiver)`, their mean number.
    - `self_coupling`: for self-loops, a fixed number by which every unit sends to itself, which
      nothing trains. The graph then wires no unit to itself.
    - `symmetric`: for self-loops, whether two units that are wired send to each other by the same
      number, to the last bit and after any update. The graph wires them both ways; what it wires
      from a unit to itself is free.

    Raises `TypeError` or `ValueError` for anything else, weights that are not finite, a number of
    units that is not that of the nodes, and a `symmetric` graph that is not symmetric.

    !!! example

        ```python
        wiring = nx.gnp_random_graph(1000, 0.01, directed=True)
        couplings = {"recurrent": dx.sparse(wiring, gain=0.9)}
        ```
    """
    wiring = read_wiring("graph", graph)
    if self_coupling is not None:
        self_coupling = checks.number("self_coupling", self_coupling)
        _check_diagonal(wiring)
    mirror = _mirror(wiring) if checks.flag("symmetric", symmetric) else None
    # The sum follows from the wiring alone: it is chosen once, and not for every edge of the kind.
    ends = Graph.of(wiring.senders, wiring.receivers, *wiring.shape)
    way = choose_sum(wiring.senders, wiring.receivers, ends, scalar=True)
    if gain is not None:
        gain = checks.number("gain", gain)
    return SparseFactory(gain, wiring, way, self_coupling, mirror)


def _check_diagonal(wiring: Wiring) -> None:
    """Refuse entries from a unit to itself beside a fixed number for all of them."""
    own = np.flatnonzero(wiring.senders == wiring.receivers)
    if len(own):
        units = _text.names(wiring.senders[own].tolist())
        raise ValueError(
            f"`self_coupling` is how every unit sends to itself, but `graph` wires units {units} "
            "to themselves; drop these entries, or the self-coupling"
        )


def _mirror(wiring: Wiring) -> np.ndarray:
    """For every entry the one of the other direction; `ValueError` where the wiring has none."""
    senders, receivers = wiring.senders, wiring.receivers
    # Sorted by both ends, and by both ends of the reversed graph: equal places are mirror images.
    # Sorting is stable, so that of parallel entries the k-th has the k-th of the other direction.
    there = np.lexsort((senders, receivers))
    back = np.lexsort((receivers, senders))
    mirror = np.empty(len(senders), np.int64)
    mirror[there] = back
    both_ways = (senders[mirror] == receivers) & (receivers[mirror] == senders)
    if wiring.shape[0] != wiring.shape[1] or not both_ways.all():
        entries = Counter(zip(senders.tolist(), receivers.tolist(), strict=True))
        alone = [(u, v) for u, v in sorted(entries) if entries[v, u] < entries[u, v]]
        raise ValueError(
            "`symmetric` wants a graph that wires units both ways, but some are wired one way, as "
            f"{_text.names(alone)}; add the others, as graph.to_undirected() or (A + A.T) does"
        )
    weights = wiring.weights
    if weights is not None:
        uneven = np.flatnonzero(weights != weights[mirror])[:3].tolist()
        if uneven:
            pairs = [(int(senders[k]), int(receivers[k])) for k in uneven]
            raise ValueError(
                "`symmetric` wants equal weights both ways, but they differ between units "
                f"{_text.names(pairs)}; give (A + A.T) / 2, or a `gain` to draw from"
            )
    return mirror


# Equal only to itself: arrays have no equality that says yes or no.
@dataclass(frozen=True, eq=False)
class SparseFactory(Factory):
    """See `sparse`."""

    gain: float | None
    wiring: Wiring
    sum: WeightedSum
    self_coupling: float | None
    mirror: np.ndarray | None

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Sparse:
        wiring = self.wiring
        check_self_loop(edges, self.self_coupling, self.mirror is not None)
        units = math.prod(receiver_shape), math.prod(sender_shape)
        if units != wiring.shape:
            raise ValueError(
                f"`graph` wires {wiring.shape[1]} units to {wiring.shape[0]}, but the sender has "
                f"{units[1]} and the receiver {units[0]}; give a matrix of shape {units}"
            )
        count = len(wiring.senders)
        if self.gain is not None:
            # The variance is one over the mean number of entries of a receiver.
            receivers_per_entry = units[0] / max(count, 1)
            scale = self.gain * math.sqrt(receivers_per_entry)
            weight = draws.normal((count,), scale)
            if self.mirror is not None:
                # Of both draws the first one stays; their mean would have half of the variance.
                weight = weight[..., np.minimum(self.mirror, np.arange(count))]
        else:
            given = wiring.weights
            if given is None:
                given = np.ones(count)
            given = given.astype(draws.dtype)
            weight = np.broadcast_to(given, (*draws.lead, count))
        fixed = None
        if self.self_coupling is not None:
            fixed = Fixed(on_device(draws.full((), self.self_coupling)))
        mirror = None
        if self.mirror is not None:
            mirror = draws.each(on_device(self.mirror, jnp.int32))
        return Sparse(
            weight=on_device(weight),
            sum=draws.each(self.sum),
            receiver_shape=receiver_shape,
            self_coupling=fixed,
            mirror=mirror,
        )
