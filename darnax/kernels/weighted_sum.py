"""Weighted sums over the edges of a graph, `y[r] = Σ_e w[e] x[s[e]]`."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from darnax.couplings.coupling import Coupling
from darnax.kernels.graph import Graph, by_unit
from darnax.kernels.kernel import Kernel, Prepared, Site


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

    # Senders and receivers come in NumPy as well: a choice reads them, and arrays of JAX would have
    # to be copied back from the device.
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
    def transposed(self) -> "WeightedSum":
        """The sum over the reversed graph, of the same weights in the same order.

        It is made of the same index arrays, and works nothing out: so it can be asked for in a
        program, and of the sums of several edges that are stacked.
        """

    @abc.abstractmethod
    def arrange(self, w: Float[Array, "edges item"]) -> Prepared:
        """The weights in the order of the loop."""

    @abc.abstractmethod
    def sum(
        self,
        arranged: Prepared,
        x: Shaped[Array, "rows units batch"],
    ) -> Float[Array, "receiving units batch"]:
        """The sums, from arranged weights."""

    def pairs(
        self,
        fn: Callable[[Array], Array],
        p: Float[Array, "rows units batch"],
        q: Float[Array, "receiving units batch"],
    ) -> Float[Array, "receiving units batch"]:
        """The sums of an elementwise function of both ends, `y[r] = Σ_e fn(p[s[e]] + q[r])`."""
        # A matrix is of no use, as `fn` is not linear; of all sums only slots have a faster way.
        return self.graph.pairs(fn, p, q)

    # As a kernel

    @classmethod
    def of(cls, site: Site) -> "WeightedSum | None":
        group = site.group
        if site.graph is None or site.coupling.linear != "weights":
            return None
        # Weights of the sender's shape are shared by all edges; an axis more is that of edges.
        own = site.coupling.unit_weights().ndim > len(group.sender_shape)
        scalar = group.sender_shape == ()
        return cls.over(
            senders=group.senders,
            receivers=site.landings,
            graph=site.graph,
            scalar=scalar,
            own=own,
        )

    def prepare(self, coupling: Coupling) -> Prepared:
        edges = len(self.graph.senders)
        weights = coupling.unit_weights()
        # Every sum expects a row of weights an edge, also where all edges share one row.
        rows = edges if self.own else 1
        w = weights.reshape(rows, -1)
        w = jnp.broadcast_to(w, (edges, w.shape[1]))
        # Coarse weights, such as those of bfloat16, are summed in float32.
        dtype = jnp.float64 if w.dtype == jnp.float64 else jnp.float32
        return self.arrange(w.astype(dtype))

    def __call__(
        self,
        prepared: Prepared,
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "receiving *receiver batch"],
        dtype: DTypeLike,
    ) -> Float[Array, "receiving *receiver batch"]:
        field = self.sum(prepared, by_unit(x))
        field = field.reshape(len(field), *x.shape[1:])
        return field.astype(dtype)
