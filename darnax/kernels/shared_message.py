"""Tied edges on which a sender sends one message to all its receivers."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from darnax.couplings.coupling import Coupling, asks, has_own_numbers, value
from darnax.couplings.dense import Dense, is_factored
from darnax.kernels import WeightedSum, choose_sum
from darnax.kernels.kernel import Kernel, Prepared, Site


class SharedMessage(Kernel):
    """One message a sender, made once for every node and then summed over the edges."""

    sums: WeightedSum
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site: Site) -> "SharedMessage | None":
        group, coupling, graph = site.group, site.coupling, site.graph
        if graph is None or not site.tied:
            return None
        # Messages are made for all rows of the sending array: that pays where edges outnumber them.
        if len(group.edges) <= graph.sending:
            return None
        # What asks for its receiver, or for noise of its edge, differs from edge to edge.
        if asks(coupling):
            return None
        # A number of the edge makes its message another one. That of `Dense` is a mere factor, and
        # becomes a weight of the sum.
        if has_own_numbers(coupling) and not is_factored(coupling):
            return None
        sums = choose_sum(group.senders, site.landings, graph, scalar=False)
        return cls(sums, group.receiver_shape)

    def prepare(self, coupling: Coupling) -> tuple[Coupling, Prepared]:
        # The default dtype: ones of float32 would round messages of float64.
        weights = jnp.ones(len(self.sums.graph.senders))
        if isinstance(coupling, Dense) and coupling.factor is not None:
            weights = value(coupling.factor)
            coupling = Dense(
                weight=coupling.weight,
                self_coupling=coupling.self_coupling,
                factor=None,
                receiver_shape=coupling.receiver_shape,
            )
        return coupling, self.sums.arrange(weights[:, None])

    def __call__(
        self,
        prepared: tuple[Coupling, Prepared],
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "receiving *receiver batch"],
        dtype: DTypeLike,
    ) -> Float[Array, "receiving *receiver batch"]:
        coupling, weights = prepared
        rows, batch = len(x), x.shape[-1]
        leaves = jax.tree.leaves(eqx.filter(coupling, eqx.is_inexact_array))
        x = x.astype(leaves[0].dtype if leaves else dtype)

        # One call of the coupling for all nodes: `(*sender, rows * B)`, each node of each sample
        # a sample of its own.
        samples = jnp.moveaxis(x, 0, -2)
        samples = samples.reshape(*samples.shape[:-2], rows * batch)
        messages = coupling.batched(samples)

        # Back to `(rows, 1, B * units)`: an edge has one weight for all samples and units.
        messages = jnp.moveaxis(messages, -1, 0)
        messages = messages.reshape(rows, 1, -1)
        # Without the barrier XLA would transpose the messages anew for every edge.
        messages = jax.lax.optimization_barrier(messages.astype(dtype))
        field = self.sums.sum(weights, messages).astype(dtype)
        field = field.reshape(len(field), batch, *self.shape)
        return jnp.moveaxis(field, 1, -1)

    def describe(self) -> tuple[str, str]:
        how, why = self.sums.describe()
        return f"nodes first, {how}", f"one message for all receivers of a node; {why}"
