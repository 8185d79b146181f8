"""The plain sum."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Shaped

from darnax.kernels.graph import Graph
from darnax.kernels.weighted_sum import WeightedSum


class Segments(WeightedSum):
    """Gather, multiply, `jraph.segment_sum`: the slowest loop of all, and the quickest to compile.

    It always suits, and is what an edge group without a kernel does: so it is in `SUMS` alone.
    """

    graph: Graph
    own: bool = eqx.field(static=True, default=True)

    @classmethod
    def over(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        graph: Graph,
        scalar: bool,
        own: bool = True,
    ) -> "Segments":
        return cls(graph, own)

    def transposed(self) -> "Segments":
        return Segments(self.graph.reversed(), self.own)

    def arrange(self, w: Float[Array, "edges item"]) -> Float[Array, "edges item"]:
        return w

    # No `with_derivatives` here: these are the operations whose derivatives it gives.
    def sum(
        self,
        arranged: Float[Array, "edges item"],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        return self.graph.sum(arranged, x)

    def describe(self) -> tuple[str, str]:
        return "segment sum", f"{len(self.graph.senders)} edges, no better way"
