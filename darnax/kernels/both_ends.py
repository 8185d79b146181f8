"""Tied perceptrons of both ends."""

import equinox as eqx
import jax
import jax.numpy as jnp

from darnax.couplings.edge_mlp import EdgeMLP
from darnax.kernels import WeightedSum, choose_sum
from darnax.kernels.kernel import Kernel


class BothEnds(Kernel):
    """Tied perceptrons of both ends: first layers node by node, the sum, then the last layer.

    The first layer is linear in either end, and the last one in the sum over edges: so both are
    applied once to every node, and an edge costs no more than its activation.
    """

    sums: WeightedSum
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site):
        group, graph = site.group, site.graph
        if graph is None or group.tie is None or not isinstance(site.coupling, EdgeMLP):
            return None
        if len(group.edges) <= max(graph.sending, graph.receiving):
            return None
        sums = choose_sum(group.senders, site.landings, graph, scalar=False)
        return cls(sums, group.receiver_shape)

    def prepare(self, coupling):
        return coupling

    def __call__(self, prepared, x, y, dtype):
        x = x.reshape(len(x), -1, x.shape[-1]).astype(prepared.bias.dtype)
        y = y.reshape(len(y), -1, y.shape[-1]).astype(prepared.bias.dtype)
        sent = jnp.einsum("hk,nkb->nhb", prepared.sender_weight, x)
        received = jnp.einsum("hk,nkb->nhb", prepared.receiver_weight, y)
        # without the barrier XLA would work out first layers anew for every edge
        sent, received = jax.lax.optimization_barrier((sent, received + prepared.bias[:, None]))
        hidden = self.sums.pairs(prepared.activation, sent, received)
        found = jnp.einsum("rh,nhb->nrb", prepared.weight, hidden)
        return found.astype(dtype).reshape(len(y), *self.shape, y.shape[-1])

    def describe(self):
        how, why = self.sums.describe()
        return f"both ends first, {how}", f"one first layer for all edges of a node; {why}"
