"""Coupling along the edges of a graph inside a population."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from darnax.couplings.coupling import Edges, Factory
from darnax.couplings.wiring import read_wiring


class Sparse(eqx.Module):
    """The message `y[receivers[k]] += weight[k] x[senders[k]]` over all entries k, both ends flattened."""

    weight: Float[Array, "*edges entries"]
    senders: Int[Array, "*edges entries"]
    receivers: Int[Array, "*edges entries"]
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        terms = self.weight * x.reshape(-1)[self.senders]
        units = math.prod(self.receiver_shape)
        return jraph.segment_sum(terms, self.receivers, units, indices_are_sorted=True).reshape(self.receiver_shape)


def sparse(graph: Any, gain: float | int | None = None) -> Factory:
    """Wiring between single units of one or two populations; only what is wired has a weight.

    **Arguments:**

    - `graph`: a networkx graph whose vertices, in its order, are the units, and in which `u -> v` says that u sends to
      v; or a scipy sparse matrix or `jax.experimental.sparse.BCOO`, `matrix[receiver, sender]`.
    - `gain`: None starts from the entries of the matrix or the `weight` of edges, 1 where there is none; a number draws
      from `N(0, gain² / entries a receiver)`, their mean number.

    Raises `TypeError` or `ValueError` for anything else, weights that are not finite, or a number of units that is not
    that of the nodes.

    !!! example

        ```python
        wiring = nx.gnp_random_graph(1000, 0.01, directed=True)
        couplings = {"recurrent": dx.sparse(wiring, gain=0.9)}
        ```
    """
    wiring = read_wiring("graph", graph)

    def make(sender_shape: tuple[int, ...], receiver_shape: tuple[int, ...], key: Key[Array, ""], *, edges: Edges):
        units = math.prod(receiver_shape), math.prod(sender_shape)
        if units != wiring.shape:
            raise ValueError(
                f"`graph` wires {wiring.shape[1]} units to {wiring.shape[0]}, but the sender has {units[1]} and the "
                f"receiver {units[0]}; give a matrix of shape {units}"
            )
        count = len(wiring.senders)
        if gain is not None:
            weight = jax.random.normal(key, (count,), edges.dtype) * (gain * math.sqrt(units[0] / max(count, 1)))
        else:
            weight = jnp.asarray(np.ones(count) if wiring.weights is None else wiring.weights, edges.dtype)
        return Sparse(weight, jnp.asarray(wiring.senders), jnp.asarray(wiring.receivers), receiver_shape)

    return make
