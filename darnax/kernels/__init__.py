"""Faster ways to run edges, chosen from the structure of the wiring."""

import numpy as np

from darnax.kernels.all_to_all import AllToAll as AllToAll
from darnax.kernels.diagonals import Diagonals as Diagonals
from darnax.kernels.graph import Graph as Graph
from darnax.kernels.kernel import Kernel as Kernel
from darnax.kernels.kernel import Site as Site
from darnax.kernels.library import NativeLibrary as NativeLibrary
from darnax.kernels.library import native_library as native_library
from darnax.kernels.native import Native as Native
from darnax.kernels.segments import Segments as Segments
from darnax.kernels.slots import Slots as Slots
from darnax.kernels.weighted_sum import WeightedSum as WeightedSum

# The special before the general: a dense graph or a lattice could run in the native library or in
# slots as well, only slower, and the plain sum takes every graph. Slots are for where there is no
# library.
SUMS: tuple[type[WeightedSum], ...] = (
    AllToAll,
    Diagonals,
    Native,
    Slots,
    Segments,
)
"""Ways to sum over edges that carry numbers, those that suit few graphs first."""
# Functions of both ends are not linear: of all sums only slots have a faster way for them.
SUMS_OF_PAIRS: tuple[type[WeightedSum], ...] = (
    Slots,
    Segments,
)
"""Those of them that sum functions of both ends as well."""


def choose_sum(
    senders: np.ndarray,
    receivers: np.ndarray,
    graph: Graph,
    scalar: bool,
    kinds: tuple[type[WeightedSum], ...] = SUMS,
) -> WeightedSum:
    """The first of `kinds` that suits a graph, its edges sorted by receiver.

    `graph` holds the same ends as arrays of JAX; `scalar` says that a node is a single unit.
    """
    for kind in kinds:
        chosen = kind.over(senders, receivers, graph, scalar)
        if chosen is not None:
            return chosen
    raise AssertionError("the last of `kinds` always suits")
