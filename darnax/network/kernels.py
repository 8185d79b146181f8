"""Which edge groups run faster than edge by edge, and how.

The plain way gathers the senders of all edges, applies the coupling, and adds up messages with `jraph.segment_sum`. A
kernel goes from the rows of the sending array to the field of the rows that hear, with the same result.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from darnax.couplings.coupling import Fixed, hears_receiver, value
from darnax.couplings.dense import Dense
from darnax.couplings.edge_mlp import EdgeMLP
from darnax.couplings.scale import Scale
from darnax.kernels import Ends, Sum, choose_sum
from darnax.kernels.segments import Segments
from darnax.kernels.sum import take
from darnax.topologies.groups import EdgeGroup

MANY, MOST_CLASSES = 64, 40


class Kernel(eqx.Module):
    """A way to run all edges of one group at once."""

    @abc.abstractmethod
    def prepare(self, coupling: Any) -> Any:
        """What follows from the parameters, worked out before a loop."""

    @abc.abstractmethod
    def __call__(
        self,
        prepared: Any,
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "heard *receiver batch"],
        dtype: Any,
    ) -> Float[Array, "heard *receiver batch"]:
        """The messages of all edges summed at their receivers, in `dtype`, from the states of both."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """What it is, for the summary of a network."""


class Strengths(Kernel):
    """Elementwise strengths: a weighted sum. `own` says that every edge has its own, tied or not."""

    sum: Sum
    own: bool = eqx.field(static=True)

    @classmethod
    def of(cls, group: EdgeGroup, coupling: Any, receivers: np.ndarray, ends: Ends):
        if not isinstance(coupling, Scale):
            return None
        way = choose_sum(group.senders, receivers, ends, scalar=group.sender_shape == ())
        own = group.tie is None or (isinstance(coupling.strength, Fixed) and coupling.strength.own)
        return None if isinstance(way, Segments) else cls(way, own)

    def prepare(self, coupling):
        strength, edges = value(coupling.strength), len(self.sum.ends.senders)
        w = strength.reshape(edges if self.own else 1, -1)
        w = jnp.broadcast_to(w, (edges, w.shape[1]))
        return self.sum.arrange(w.astype(jnp.float64 if w.dtype == jnp.float64 else jnp.float32))

    def __call__(self, prepared, x, y, dtype):
        found = self.sum(prepared, x.reshape(len(x), -1, x.shape[-1]))
        return found.reshape(len(found), *x.shape[1:]).astype(dtype)

    def __str__(self):
        return str(self.sum)


class SharedMessage(Kernel):
    """Tied edges on which a sender says the same to all: said once by every node, then summed."""

    sum: Sum
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, group: EdgeGroup, coupling: Any, receivers: np.ndarray, ends: Ends):
        own = [leaf for leaf in jax.tree.leaves(coupling, is_leaf=_is_fixed) if _is_fixed(leaf) and leaf.own]
        if group.tie is None or len(group.edges) <= ends.sending or (own and not isinstance(coupling, Dense)):
            return None
        if hears_receiver(coupling):
            return None
        return cls(choose_sum(group.senders, receivers, ends, scalar=False), group.receiver_shape)

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
        samples = jnp.moveaxis(x, -1, 1)
        said = jax.vmap(coupling)(samples.reshape(-1, *samples.shape[2:]))
        # without the barrier XLA would put in order what was said anew for every edge
        said = jax.lax.optimization_barrier(said.reshape(len(x), 1, -1).astype(dtype))
        found = self.sum(weights, said).astype(dtype)
        return jnp.moveaxis(found.reshape(len(found), x.shape[-1], *self.shape), 1, -1)

    def __str__(self):
        return f"nodes first, {self.sum}"


class BothEnds(Kernel):
    """Tied perceptrons of both ends: first layers of every node, the sum, then the last layer of receivers."""

    sum: Sum
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, group: EdgeGroup, coupling: Any, receivers: np.ndarray, ends: Ends):
        if (
            group.tie is None
            or not isinstance(coupling, EdgeMLP)
            or len(group.edges) <= max(ends.sending, ends.hearing)
        ):
            return None
        return cls(choose_sum(group.senders, receivers, ends, scalar=False), group.receiver_shape)

    def prepare(self, coupling):
        return coupling

    def __call__(self, prepared, x, y, dtype):
        c = prepared
        x, y = (state.reshape(len(state), -1, state.shape[-1]).astype(c.bias.dtype) for state in (x, y))
        sent, heard = (jnp.einsum("hk,nkb->nhb", w, of) for w, of in ((c.sender_weight, x), (c.receiver_weight, y)))
        # without the barrier XLA would work out first layers anew for every edge
        sent, heard = jax.lax.optimization_barrier((sent, heard + c.bias[:, None]))
        found = jnp.einsum("rh,nhb->nrb", c.weight, self.sum.pairs(c.activation, sent, heard))
        return found.astype(dtype).reshape(len(y), *self.shape, y.shape[-1])

    def __str__(self):
        return f"both ends first, {self.sum}"


class Matrices(Kernel):
    """A matrix for every edge: those of one receiver side by side, so that the product adds up its edges.

    **Fields:**

    - `order`: the edges, by in-degree of their receivers.
    - `senders`: for every in-degree, the senders of its receivers.
    - `place`: where among all of these a row is, after the last for rows that hear nobody.
    """

    order: Int[Array, " edges"]
    senders: tuple[Int[Array, "_ _"], ...]
    place: Int[Array, " heard"]
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, group: EdgeGroup, coupling: Any, receivers: np.ndarray, ends: Ends):
        linear = isinstance(coupling, eqx.nn.Linear) and len(group.receiver_shape) == 1
        if group.tie is not None or len(receivers) < MANY or not (linear or isinstance(coupling, Dense)):
            return None
        degree = np.bincount(receivers, minlength=ends.hearing)
        degrees = np.unique(degree[degree > 0])
        if len(degrees) > MOST_CLASSES:
            return None
        edges = [np.flatnonzero(degree[receivers] == d) for d in degrees]
        place = np.full(ends.hearing, len(np.unique(receivers)))
        heard = np.concatenate([receivers[own][:: int(d)] for own, d in zip(edges, degrees, strict=True)])
        place[heard] = np.arange(len(heard))
        return cls(
            order=jnp.asarray(np.concatenate(edges), jnp.int32),
            senders=tuple(
                jnp.asarray(group.senders[own].reshape(-1, d), jnp.int32) for own, d in zip(edges, degrees, strict=True)
            ),
            place=jnp.asarray(place, jnp.int32),
            shape=group.receiver_shape,
        )

    def prepare(self, coupling):
        weight, bias = coupling.weight, getattr(coupling, "bias", None)
        if getattr(coupling, "factor", None) is not None:
            weight = value(coupling.factor)[:, None, None] * weight
        starts = np.cumsum([senders.size for senders in self.senders])[:-1].tolist()
        blocks = []
        for senders, own in zip(self.senders, jnp.split(take(weight, self.order), starts), strict=True):
            own = own.reshape(*senders.shape, *own.shape[1:])
            blocks.append(jnp.moveaxis(own, 1, 2).reshape(len(senders), own.shape[2], -1))
        if bias is not None:
            parts = jnp.split(take(bias, self.order), starts)
            bias = [p.reshape(*s.shape, -1).sum(1) for s, p in zip(self.senders, parts, strict=True)]
        return blocks, bias

    def __call__(self, prepared, x, y, dtype):
        blocks, bias = prepared
        x = x.reshape(len(x), -1, x.shape[-1]).astype(blocks[0].dtype)
        found = []
        for i, (senders, block) in enumerate(zip(self.senders, blocks, strict=True)):
            heard = take(x, senders).reshape(len(senders), -1, x.shape[-1])
            field = jnp.einsum("nrk,nkb->nrb", block, heard, preferred_element_type=dtype)
            found.append((field if bias is None else field + bias[i][..., None]).astype(dtype))
        found.append(jnp.zeros((1, *found[0].shape[1:]), dtype))
        return take(jnp.concatenate(found), self.place).reshape(len(self.place), *self.shape, x.shape[-1])

    def __str__(self):
        return f"matrices side by side, {len(self.senders)} in-degrees"


KERNELS = (Strengths, SharedMessage, BothEnds, Matrices)


def choose(group: EdgeGroup, coupling: Any, receivers: np.ndarray, ends: Ends) -> Kernel | None:
    """The first of `KERNELS` that suits a group between stacked nodes; None for the plain way.

    `receivers` are counted from the first row that messages are summed over; `ends` has the same as arrays of JAX.
    """
    found = (kind.of(group, coupling, receivers, ends) for kind in KERNELS)
    return next((kernel for kernel in found if kernel is not None), None)


def _is_fixed(leaf: Any) -> bool:
    return isinstance(leaf, Fixed)
