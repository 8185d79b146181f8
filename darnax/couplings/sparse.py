"""Coupling along the edges of a graph inside a population."""

import math
from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax.couplings.coupling import Coupling, Edges, Factory
from darnax.couplings.draws import Draws
from darnax.kernels import Graph, WeightedSum, choose_sum
from darnax.topologies.wiring import GraphOrMatrix, Wiring, read_wiring


class Sparse(Coupling):
    """The message `y[r] = Σ weight[k] x[s]` over all entries k from s to r, both ends flattened.

    **Fields:**

    - `weight`: a number an entry, sorted by receiver.
    - `sum`: how the sums are found.
    """

    weight: Float[Array, "*edges entries"]
    sum: WeightedSum
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    # The order of the sum differs from that of the edges, which is what users read and rules train:
    # a loop goes from one to the other once, by `prepared`.

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        return self.prepared()(x)

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        return self.prepared().batched(x)

    def prepared(self) -> "ArrangedSparse":
        """The same coupling with its weights in the order of the sum."""
        # One number an entry: to a sum every unit is a node of one unit.
        arranged = self.sum.arrange(self.weight[:, None])
        return ArrangedSparse(arranged, self.sum, self.receiver_shape)

    def describe(self) -> tuple[str, str]:
        return self.sum.describe()


class ArrangedSparse(Coupling):
    """A `Sparse` with its weights in the order of the sum."""

    arranged: PyTree
    sum: WeightedSum
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        # Sums have a batch, last: one sample is a batch of one.
        return self.batched(x[..., None])[..., 0]

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        batch = x.shape[-1]
        units = x.reshape(-1, 1, batch)
        message = self.sum.sum(self.arranged, units)
        return message.reshape(*self.receiver_shape, batch)


@checks.by_hand
def sparse(
    graph: GraphOrMatrix,
    gain: float | int | None = None,
) -> Factory:
    """Wiring between single units of one or two populations; only what is wired has a weight.

    **Arguments:**

    - `graph`: a networkx graph whose vertices, in its order, are the units, and in which `u -> v`
      says that u sends to v; or a scipy sparse matrix or `jax.experimental.sparse.BCOO`,
      `matrix[receiver, sender]`.
    - `gain`: None starts from the entries of the matrix or the `weight` of edges, 1 where there is
      none; a number draws from `N(0, gain² / entries a receiver)`, their mean number.

    Raises `TypeError` or `ValueError` for anything else, weights that are not finite, or a number
    of units that is not that of the nodes.

    !!! example

        ```python
        wiring = nx.gnp_random_graph(1000, 0.01, directed=True)
        couplings = {"recurrent": dx.sparse(wiring, gain=0.9)}
        ```
    """
    wiring = read_wiring("graph", graph)
    # The sum follows from the wiring alone: it is chosen once, and not for every edge of the kind.
    ends = Graph.of(wiring.senders, wiring.receivers, *wiring.shape)
    way = choose_sum(wiring.senders, wiring.receivers, ends, scalar=True)
    if gain is not None:
        gain = checks.number("gain", gain)
    return SparseFactory(gain, wiring, way)


# Equal only to itself: arrays have no equality that says yes or no.
@dataclass(frozen=True, eq=False)
class SparseFactory(Factory):
    """See `sparse`."""

    gain: float | None
    wiring: Wiring
    sum: WeightedSum

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Sparse:
        wiring = self.wiring
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
        else:
            given = wiring.weights
            if given is None:
                given = np.ones(count)
            given = given.astype(draws.dtype)
            weight = np.broadcast_to(given, (*draws.lead, count))
        return Sparse(on_device(weight), draws.each(self.sum), receiver_shape)
