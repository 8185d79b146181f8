"""Tied edges on which a sender sends one message to all its receivers."""

import equinox as eqx
import jax
import jax.numpy as jnp

from darnax.couplings.coupling import asks, has_own_numbers, value
from darnax.couplings.dense import Dense
from darnax.kernels import WeightedSum, choose_sum
from darnax.kernels.kernel import Kernel


class SharedMessage(Kernel):
    """One message a sender, made once for every node and then summed over the edges."""

    sums: WeightedSum
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site):
        group, coupling, graph = site.group, site.coupling, site.graph
        if graph is None or group.tie is None or len(group.edges) <= graph.sending:
            return None
        if asks(coupling) or (has_own_numbers(coupling) and not isinstance(coupling, Dense)):
            return None
        sums = choose_sum(group.senders, site.landings, graph, scalar=False)
        return cls(sums, group.receiver_shape)

    def prepare(self, coupling):
        weights = jnp.ones(len(self.sums.graph.senders))  # float64 where there is any
        if isinstance(coupling, Dense) and coupling.factor is not None:
            weights = value(coupling.factor)
            coupling = Dense(coupling.weight, coupling.self_coupling, None, coupling.receiver_shape)
        return coupling, self.sums.arrange(weights[:, None])

    def __call__(self, prepared, x, y, dtype):
        coupling, weights = prepared
        leaves = jax.tree.leaves(eqx.filter(coupling, eqx.is_inexact_array))
        x = x.astype(leaves[0].dtype if leaves else dtype)
        samples = jnp.moveaxis(x, 0, -2)  # every node of every sample is one of a batch
        messages = coupling.batched(samples.reshape(*samples.shape[:-2], -1))
        messages = jnp.moveaxis(messages, -1, 0).reshape(len(x), 1, -1)
        # without the barrier XLA would transpose the messages anew for every edge
        messages = jax.lax.optimization_barrier(messages.astype(dtype))
        found = self.sums.sum(weights, messages).astype(dtype)
        return jnp.moveaxis(found.reshape(len(found), x.shape[-1], *self.shape), 1, -1)

    def describe(self):
        how, why = self.sums.describe()
        return f"nodes first, {how}", f"one message for all receivers of a node; {why}"
