"""Tied edges on which a sender says the same to all."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from darnax.couplings.coupling import Fixed, hears_receiver, over_batch, value
from darnax.couplings.dense import Dense
from darnax.kernels import Sum, choose_sum
from darnax.network.kernels.kernel import Kernel


class SharedMessage(Kernel):
    """Tied edges on which a sender says the same to all: said once by every node, then summed."""

    sum: Sum
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site):
        group, coupling, ends = site.group, site.coupling, site.ends
        if (
            ends is None
            or group.tie is None
            or len(group.edges) <= ends.sending
            or hears_receiver(coupling)
        ):
            return None
        own = [
            leaf
            for leaf in jax.tree.leaves(coupling, is_leaf=_is_fixed)
            if _is_fixed(leaf) and leaf.own
        ]
        if own and not isinstance(coupling, Dense):
            return None
        return cls(
            choose_sum(group.senders, site.receivers, ends, scalar=False), group.receiver_shape
        )

    def prepare(self, coupling):
        weights = jnp.ones(len(self.sum.ends.senders))  # float64 where there is any
        if isinstance(coupling, Dense) and coupling.factor is not None:
            weights = value(coupling.factor)
            coupling = Dense(coupling.weight, coupling.self_coupling, None, coupling.receiver_shape)
        return coupling, self.sum.arrange(weights[:, None])

    def __call__(self, prepared, x, y, dtype):
        coupling, weights = prepared
        leaves = [leaf for leaf in jax.tree.leaves(coupling) if eqx.is_inexact_array(leaf)]
        x = x.astype(leaves[0].dtype if leaves else dtype)
        samples = jnp.moveaxis(x, 0, -2)  # every node of every sample is one of a batch
        said = over_batch(coupling, samples.reshape(*samples.shape[:-2], -1))
        # without the barrier XLA would put in order what was said anew for every edge
        said = jnp.moveaxis(said, -1, 0).reshape(len(x), 1, -1)
        said = jax.lax.optimization_barrier(said.astype(dtype))
        found = self.sum(weights, said).astype(dtype)
        return jnp.moveaxis(found.reshape(len(found), x.shape[-1], *self.shape), 1, -1)

    def __str__(self):
        return f"nodes first, {self.sum}"

    def why(self):
        return f"one message for all who hear a node; {self.sum.why()}"


def _is_fixed(leaf: Any) -> bool:
    return isinstance(leaf, Fixed)
