"""Sums over an irregular graph by the native library."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
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
    """

    graph: Graph
    edges: Incidence
    own: bool = eqx.field(static=True, default=True)

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

    def transposed(self) -> "NativeReversed":
        return NativeReversed(graph=self.graph.reversed(), edges=self.edges, own=self.own)

    def arrange(self, w: Float[Array, "edges item"]) -> Float[Array, "edges item"]:
        return w

    def sum(
        self,
        arranged: Float[Array, "edges item"],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        dtype = _summed_in(arranged.dtype)
        y = weighted_sum(self.edges, arranged.astype(dtype), x.astype(dtype))
        return y.astype(arranged.dtype)

    def describe(self) -> tuple[str, str]:
        return _described()


class NativeReversed(WeightedSum):
    """The transpose of a `Native` sum: the library goes through the same edges sender by sender.

    Weights stay in the order of the sum that it is the transpose of.
    """

    graph: Graph
    edges: Incidence
    own: bool = eqx.field(static=True, default=True)

    @classmethod
    def over(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        graph: Graph,
        scalar: bool,
        own: bool = True,
    ) -> None:
        # Never chosen: a graph whose edges can be sorted has a plain `Native` sum.
        return None

    def transposed(self) -> Native:
        return Native(graph=self.graph.reversed(), edges=self.edges, own=self.own)

    def arrange(self, w: Float[Array, "edges item"]) -> Float[Array, "edges item"]:
        return w

    def sum(
        self,
        arranged: Float[Array, "edges item"],
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        dtype = _summed_in(arranged.dtype)
        y = reversed_sum(self.edges, arranged.astype(dtype), x.astype(dtype))
        return y.astype(arranged.dtype)

    def describe(self) -> tuple[str, str]:
        return _described()


def _summed_in(dtype: DTypeLike) -> DTypeLike:
    """The dtype of a sum: the library knows two, and what is coarser is summed in float32."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def _described() -> tuple[str, str]:
    if not native_library().loaded:
        # It was chosen on another machine, and came here by pickle.
        return "segment sum", f"no native library: {native_library().reason}"
    return "native sum", "irregular, library loaded"
