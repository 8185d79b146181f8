"""Weights on edges: a weighted sum."""

import equinox as eqx
import jax.numpy as jnp

from darnax.couplings.coupling import Fixed, value
from darnax.couplings.scale import Scale
from darnax.kernels import Segments, Sum, choose_sum
from darnax.network.kernels.kernel import Kernel


class Strengths(Kernel):
    """Elementwise strengths: a weighted sum. `own` says that every edge has its own, tied or
    not.
    """

    sum: Sum
    own: bool = eqx.field(static=True)

    @classmethod
    def of(cls, site):
        if site.ends is None or not isinstance(site.coupling, Scale):
            return None
        strength, scalar = site.coupling.strength, site.group.sender_shape == ()
        way = choose_sum(site.group.senders, site.receivers, site.ends, scalar)
        own = site.group.tie is None or (isinstance(strength, Fixed) and strength.own)
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

    def why(self):
        return self.sum.why()
