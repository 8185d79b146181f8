"""Tied perceptrons of both ends."""

import equinox as eqx
import jax
import jax.numpy as jnp

from darnax.couplings.edge_mlp import EdgeMLP
from darnax.kernels import Sum, choose_sum
from darnax.network.kernels.kernel import Kernel


class BothEnds(Kernel):
    """Tied perceptrons of both ends: first layers of every node, the sum, then the last layer of
    receivers.
    """

    sum: Sum
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site):
        group, ends = site.group, site.ends
        if ends is None or group.tie is None or not isinstance(site.coupling, EdgeMLP):
            return None
        if len(group.edges) <= max(ends.sending, ends.hearing):
            return None
        return cls(
            choose_sum(group.senders, site.receivers, ends, scalar=False), group.receiver_shape
        )

    def prepare(self, coupling):
        return coupling

    def __call__(self, prepared, x, y, dtype):
        c = prepared
        x, y = (
            state.reshape(len(state), -1, state.shape[-1]).astype(c.bias.dtype) for state in (x, y)
        )
        sent, heard = (
            jnp.einsum("hk,nkb->nhb", w, of)
            for w, of in ((c.sender_weight, x), (c.receiver_weight, y))
        )
        # without the barrier XLA would work out first layers anew for every edge
        sent, heard = jax.lax.optimization_barrier((sent, heard + c.bias[:, None]))
        found = jnp.einsum("rh,nhb->nrb", c.weight, self.sum.pairs(c.activation, sent, heard))
        return found.astype(dtype).reshape(len(y), *self.shape, y.shape[-1])

    def __str__(self):
        return f"both ends first, {self.sum}"

    def why(self):
        return f"one first layer for all edges of a node; {self.sum.why()}"
