"""The plain sum."""

import equinox as eqx

from darnax.kernels.graph import Graph
from darnax.kernels.weighted_sum import WeightedSum


class Segments(WeightedSum):
    """Gather, multiply, `jraph.segment_sum`: the slowest loop of all, and the quickest to compile.

    It always suits, and is what an edge group without a kernel does: so it is in `SUMS` alone.
    """

    graph: Graph
    own: bool = eqx.field(static=True, default=True)

    @classmethod
    def over(cls, senders, receivers, graph, scalar, own=True):
        return cls(graph, own)

    def arrange(self, w):
        return w

    def sum(self, arranged, x):
        return self.graph.sum(arranged, x)

    def describe(self):
        return "segment sum", f"{len(self.graph.senders)} edges, no better way"
