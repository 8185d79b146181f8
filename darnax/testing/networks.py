"""Networks and states whose sums are exact, so that tests may ask for equality."""

from collections.abc import Mapping
from typing import TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Key

from darnax import checks
from darnax.activations import sign
from darnax.couplings.dense import dense
from darnax.network.activations import Activations
from darnax.network.bias import BiasFactory
from darnax.network.network import Network
from darnax.network.parameters import Factories
from darnax.states.graph import GraphState
from darnax.topologies.topology import Topology

GRAIN = 64.0
"""Rounded weights are multiples of one part in so many."""

T = TypeVar("T")


@checks.by_hand
def random_state(topology: Topology, batch: int = 3, seed: int = 0) -> GraphState:
    """A state with ±1 in every cell, drawn in NumPy.

    !!! example

        ```python
        from darnax.testing import random_state

        random_state(topology, batch=4).batch_size  # 4
        ```
    """
    rng = np.random.default_rng(seed)
    state = GraphState(topology, batch)
    arrays: list[np.ndarray] = []
    for array in state.arrays.values():
        arrays.append(rng.choice([-1.0, 1.0], size=array.shape).astype(array.dtype))
    structure = jax.tree.structure(state.arrays)
    return state.replace(jax.tree.unflatten(structure, jax.device_put(arrays)))


def rounded(tree: T) -> T:
    """Every weight rounded to a multiple of 1/64.

    Sums of ±1 states are then exact in any order, so that a fast kernel and a plain loop agree to
    the bit. Of a network only couplings and biases are rounded.
    """
    if isinstance(tree, Network):
        parts = tree.couplings, tree.biases
        return eqx.tree_at(_weights, tree, jax.tree.map(_rounded, parts))
    return jax.tree.map(_rounded, tree)


def _weights(network: Network) -> tuple[object, object]:
    return network.couplings, network.biases


def _rounded(leaf: object) -> object:
    if not eqx.is_inexact_array(leaf):
        return leaf
    return jax.device_put(np.round(np.asarray(leaf) * GRAIN) / GRAIN)


def small_network(
    topology: Topology,
    couplings: Factories | None = None,
    activations: Activations = sign,
    *,
    biases: Mapping[str, BiasFactory] | None = None,
    key: Key[Array, ""] | None = None,
) -> Network:
    """A network with rounded weights: `dx.dense()` for edges of any kind without a coupling.

    !!! example

        ```python
        from darnax.testing import small_network

        network = small_network(topology, {"recurrent": dx.dense(self_coupling=1.0)})
        ```
    """
    given = {} if couplings is None else couplings
    factories = {kind: given.get(kind, dense()) for kind in topology.edge_kinds}
    key = jax.random.key(0) if key is None else key
    return rounded(Network(topology, factories, activations, biases=biases, key=key))
