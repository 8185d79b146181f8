"""Faster ways to run edges, chosen from the structure of the wiring."""

import numpy as np

from darnax.kernels.all_to_all import AllToAll as AllToAll
from darnax.kernels.diagonals import Diagonals as Diagonals
from darnax.kernels.graph import Graph as Graph
from darnax.kernels.segments import Segments as Segments
from darnax.kernels.slots import Slots as Slots
from darnax.kernels.weighted_sum import WeightedSum as WeightedSum

# The special before the general: a dense graph or a lattice could run in slots as well, only
# slower, and the plain sum takes every graph.
SUMS: tuple[type[WeightedSum], ...] = (
    AllToAll,
    Diagonals,
    Slots,
    Segments,
)


def choose_sum(
    senders: np.ndarray,
    receivers: np.ndarray,
    graph: Graph,
    scalar: bool,
) -> WeightedSum:
    """The first of `SUMS` that suits a graph, its edges sorted by receiver.

    `graph` holds the same ends as arrays of JAX; `scalar` says that a node is a single unit.
    """
    for kind in SUMS:
        chosen = kind.over(senders, receivers, graph, scalar)
        if chosen is not None:
            return chosen
    raise AssertionError("the last of `SUMS` always suits")
