"""Weighted sums over the edges of a graph, `y[r] = Σ_e w[e] x[s[e]]`."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from darnax.kernels.graph import Graph
from darnax.kernels.kernel import Kernel, Site


class WeightedSum(Kernel):
    """A way to sum over a graph whose edges carry numbers: a sparse matrix times the states.

    As a kernel it runs edge groups whose coupling is one number a unit, such as `dx.scale`. Kernels
    and couplings that need such a sum as a part of their own choose one by `choose_sum`.

    States are `(rows, units, B)`, weights `(E, units)`, or `(E, 1)` where one serves all units of a
    node.

    **Fields:**

    - `graph`: senders and receivers.
    - `own`: whether every edge has weights of its own, tied or not.
    """

    graph: eqx.AbstractVar[Graph]
    own: eqx.AbstractVar[bool]

    @classmethod
    @abc.abstractmethod
    def over(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        graph: Graph,
        scalar: bool,
        own: bool = True,
    ) -> "WeightedSum | None":
        """The sum over a graph, its edges sorted by receiver; None where it does not suit.

        `graph` holds the same ends as arrays of JAX; `scalar` says that a node is a single unit.
        """

    @abc.abstractmethod
    def arrange(self, w: Float[Array, "edges item"]) -> Any:
        """The weights in the order of the loop."""

    @abc.abstractmethod
    def sum(
        self, arranged: Any, x: Shaped[Array, "rows units batch"]
    ) -> Float[Array, "receiving units batch"]:
        """The sums, from arranged weights."""

    def pairs(
        self,
        fn: Callable[[Array], Array],
        p: Float[Array, "rows units batch"],
        q: Float[Array, "receiving units batch"],
    ) -> Float[Array, "receiving units batch"]:
        """The sums of an elementwise function of both ends, `y[r] = Σ_e fn(p[s[e]] + q[r])`."""
        return self.graph.pairs(fn, p, q)

    @classmethod
    def of(cls, site: Site) -> "WeightedSum | None":
        if site.graph is None or site.coupling.linear != "weights":
            return None
        shape = site.group.sender_shape
        own = site.coupling.unit_weights().ndim > len(shape)
        return cls.over(site.group.senders, site.landings, site.graph, shape == (), own)

    def prepare(self, coupling: Any) -> Any:
        weights, edges = coupling.unit_weights(), len(self.graph.senders)
        w = weights.reshape(edges if self.own else 1, -1)
        w = jnp.broadcast_to(w, (edges, w.shape[1]))
        # sums of coarse numbers are made in float32
        return self.arrange(w.astype(jnp.float64 if w.dtype == jnp.float64 else jnp.float32))

    def __call__(
        self,
        prepared: Any,
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "receiving *receiver batch"],
        dtype: Any,
    ) -> Float[Array, "receiving *receiver batch"]:
        found = self.sum(prepared, x.reshape(len(x), -1, x.shape[-1]))
        return found.reshape(len(found), *x.shape[1:]).astype(dtype)
