"""Sums over an irregular graph by the native library."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from darnax.kernels.graph import Graph
from darnax.kernels.library import native_library
from darnax.kernels.native_sums import Incidence, reversed_sum, weighted_sum
from darnax.kernels.weighted_sum import WeightedSum

FEWEST = 256
"""Edges below which the plain sum takes less time, compilation included."""


class Native(WeightedSum):
    """Row after row in C++: every weight is read once, and nothing is written but the sums.

    Weights stay in the order of the edges, so that a call of one pass arranges nothing. It compiles
    in a fraction of the time of slots, as there is no loop for XLA to write. Large calls are spread
    over the threads of XLA, whole rows each: sums do not depend on how many there are.

    `edges` are the edges of every receiver and, for derivatives and corrections, of every sender.
    A sum that is `backward` is the transpose of the one that they were made for: the library goes
    through the same edges sender by sender, and weights stay in their order.
    """

    graph: Graph
    edges: Incidence
    own: bool = eqx.field(static=True, default=True)
    backward: bool = eqx.field(static=True, default=False)

    @classmethod
    def over(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        graph: Graph,
        scalar: bool,
        own: bool = True,
    ) -> "Native | None":
        if len(senders) < FEWEST:
            return None
        if jax.default_backend() != "cpu" or not native_library().loaded:
            return None
        edges = Incidence.of(senders, receivers, graph.receiving, graph.sending)
        return cls(graph=graph, edges=edges, own=own)

    def transposed(self) -> "Native":
        return replace(self, graph=self.graph.reversed(), backward=not self.backward)

    def arrange(self, w: Float[Array, "edges item"]) -> Float[Array, "edges item"]:
        return w

    def sum(
        self,
        arranged: Float[Array, "edges item"],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        # The library knows two dtypes: what is coarser is summed in float32.
        dtype = jnp.float64 if arranged.dtype == jnp.float64 else jnp.float32
        summed = reversed_sum if self.backward else weighted_sum
        y = summed(self.edges, arranged.astype(dtype), x.astype(dtype))
        return y.astype(arranged.dtype)

    def describe(self) -> tuple[str, str]:
        if not native_library().loaded:
            # It was chosen on another machine, and came here by pickle.
            return "segment sum", f"no native library: {native_library().reason}"
        return "native sum", "irregular, library loaded"
