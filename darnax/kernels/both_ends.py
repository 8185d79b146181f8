"""Tied perceptrons of both ends."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from darnax.couplings.coupling import Coupling
from darnax.couplings.edge_mlp import EdgeMLP
from darnax.kernels import SUMS_OF_PAIRS, WeightedSum, choose_sum
from darnax.kernels.graph import by_unit
from darnax.kernels.kernel import Kernel, Site


class BothEnds(Kernel):
    """Tied perceptrons of both ends: first layers node by node, the sum, then the last layer.

    The first layer is linear in either end, and the last one in the sum over edges: so both are
    applied once to every node, and an edge costs no more than its activation.
    """

    sums: WeightedSum
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site: Site) -> "BothEnds | None":
        group, graph = site.group, site.graph
        if graph is None or not site.tied:
            return None
        if not isinstance(site.coupling, EdgeMLP):
            return None
        # Layers are applied to all rows of both arrays: that pays where edges outnumber the rows.
        if len(group.edges) <= max(graph.sending, graph.receiving):
            return None
        sums = choose_sum(
            senders=group.senders,
            receivers=site.landings,
            graph=graph,
            scalar=False,
            kinds=SUMS_OF_PAIRS,
        )
        return cls(sums, group.receiver_shape)

    def prepare(self, coupling: Coupling) -> Coupling:
        return coupling

    def __call__(
        self,
        prepared: EdgeMLP,
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "receiving *receiver batch"],
        dtype: DTypeLike,
    ) -> Float[Array, "receiving *receiver batch"]:
        # Indices: n rows, k units of a node, h hidden units, r units of the receiver, b samples.
        bias = prepared.bias
        senders = by_unit(x).astype(bias.dtype)
        receivers = by_unit(y).astype(bias.dtype)

        # The first layer, once for every node in each of its two parts
        of_sender = jnp.einsum("hk,nkb->nhb", prepared.sender_weight, senders)
        of_receiver = jnp.einsum("hk,nkb->nhb", prepared.receiver_weight, receivers)
        # Without the barrier XLA would work out first layers anew for every edge.
        parts = of_sender, of_receiver + bias[:, None]
        of_sender, of_receiver = jax.lax.optimization_barrier(parts)

        # The activation for every edge, and the last layer once for every sum
        hidden = self.sums.pairs(prepared.activation, of_sender, of_receiver)
        field = jnp.einsum("rh,nhb->nrb", prepared.weight, hidden)
        field = field.astype(dtype)
        rows, _, batch = field.shape
        return field.reshape(rows, *self.shape, batch)

    def describe(self) -> tuple[str, str]:
        how, why = self.sums.describe()
        return f"both ends first, {how}", f"one first layer for all edges of a node; {why}"
