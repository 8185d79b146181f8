"""A table of networks on the awkward graphs of `darnax.testing`, and small things for several
tests."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import darnax as dx
from darnax.kernels import NativeLibrary, native_library
from darnax.testing import AWKWARD_GRAPHS, Reference, drawn, overlapping, rounded
from darnax.testing.networks import GRAIN

NO_LIBRARY = NativeLibrary(False, "switched off")
needs_library = pytest.mark.skipif(
    not native_library().loaded, reason=f"no native library: {native_library().reason}"
)


@dataclass(eq=False)
class Case:
    """A drawn graph and what a network on it is made of."""

    graph: Callable[[], nx.DiGraph]
    activations: Any = None
    biases: Any = None
    couplings: dict = field(default_factory=dict)

    @functools.cache  # noqa: B019 (a network is immutable, and tests share its compiled passes)
    def network(self) -> dx.Network:
        topology = dx.Topology(self.graph())
        couplings = {"edge": dx.dense(), "loop": dx.dense(self_coupling=0.75)} | self.couplings
        couplings = {
            kind: factory for kind, factory in couplings.items() if kind in topology.edge_kinds
        }
        activations = dx.sign if self.activations is None else self.activations
        network = dx.Network(
            topology, couplings, activations, biases=self.biases, key=jax.random.key(0)
        )
        return rounded(network)


def _both_ways():
    """Edges with their reverse: dense, convolutional, tied, not linear, and within a node."""
    nodes = {
        "x": 3, "v": {"shape": (2, 2, 2), "kind": "image"}, "w": {"shape": (1, 1, 3), "kind": "image"},
        "h": 4, "q": 4, "p": 3,
    }  # fmt: skip
    edges = [
        ("x", "h"), ("v", "v", {"kind": "lateral"}), ("h", "h", {"kind": "memory"}),
        ("v", "h", {"kind": "up"}), ("h", "v", {"kind": "down"}),
        ("q", "v", {"kind": "down"}), ("v", "q", {"kind": "up"}),
        ("v", "w", {"kind": "conv"}), ("w", "v", {"kind": "deconv"}),
        ("p", "q", {"kind": "unbend"}), ("p", "h", {"kind": "unbend"}),
        ("h", "p", {"kind": "bend", "tie": "t"}), ("q", "p", {"kind": "bend", "tie": "t"}),
    ]  # fmt: skip
    return drawn(nodes, edges, inputs=["x"])


CASES: dict[str, Case] = {
    "one node": Case(AWKWARD_GRAPHS["one node"]),
    "self-loop": Case(AWKWARD_GRAPHS["self-loop"]),
    "no edges": Case(AWKWARD_GRAPHS["no edges"]),
    "two components": Case(AWKWARD_GRAPHS["two components"]),
    "two shapes": Case(AWKWARD_GRAPHS["two shapes"]),
    "hub": Case(AWKWARD_GRAPHS["hub"], biases={"node": dx.bias(0.25)}),
    "views": Case(AWKWARD_GRAPHS["views"], biases={"node": dx.bias(jax.nn.initializers.normal())}),
    "windows": Case(
        AWKWARD_GRAPHS["windows"],
        activations={"patch": dx.sign, "feature": dx.sign},
        couplings={"back": dx.dense(gain=2.0)},
        biases={"patch": dx.bias(0.125), "feature": dx.bias(-0.25)},
    ),
    "any cells": Case(
        AWKWARD_GRAPHS["any cells"], biases={"node": dx.bias(jax.nn.initializers.normal())}
    ),
    "parallel": Case(AWKWARD_GRAPHS["parallel"], couplings={"other": dx.dense(gain=0.5)}),
    "tied": Case(AWKWARD_GRAPHS["tied"], couplings={"loop": dx.dense()}),
    "scalars": Case(AWKWARD_GRAPHS["scalars"], couplings={"synapse": dx.scale(weight="weight")}),
    "int8": Case(AWKWARD_GRAPHS["int8"]),
    "bfloat16": Case(AWKWARD_GRAPHS["bfloat16"]),
    "chain": Case(
        AWKWARD_GRAPHS["chain"],
        couplings={kind: dx.dense() for kind in ("forward", "backward")}
        | {"recurrent": dx.dense(self_coupling=1.0)},
    ),
    "both ends": Case(
        AWKWARD_GRAPHS["views"],
        couplings={"edge": dx.edge_mlp(3, jax.nn.relu), "loop": dx.dense(gain=0.5)},
        biases={"far": dx.bias(0.125)},
    ),
    "both ends, tied": Case(
        AWKWARD_GRAPHS["tied"],
        couplings={
            "edge": dx.edge_mlp(2, jax.nn.relu, gain=2.0),
            "loop": lambda s, r, key: Meeting(jnp.ones(())),
        },
    ),
    "parts": Case(
        AWKWARD_GRAPHS["parts"],
        activations={"soft": dx.softmax, "plain": dx.tanh},
        biases={"soft": dx.bias(0.5)},
    ),
    "both ways": Case(
        _both_ways,
        activations=dx.tanh,
        couplings={
            "up": dx.dense(),
            "down": dx.transpose("up"),
            "conv": dx.conv(kernel=2, padding="VALID"),
            "deconv": dx.transpose("conv"),
            "bend": lambda s, r, key: Bent(jax.random.normal(key, (*r, *s))),
            "unbend": dx.transpose("bend"),
            "lateral": dx.conv(kernel=1, symmetric=True, self_coupling=0.5),
            "memory": dx.dense(symmetric=True),
        },
    ),
    "mixed": Case(
        AWKWARD_GRAPHS["mixed"],
        activations={"image": dx.tanh, "hidden": dx.leaky(0.5, dx.tanh), "soft": dx.softmax},
        biases={"hidden": dx.bias(0.1)},
        couplings={
            "conv": dx.conv(kernel=2),
            "copy": dx.relay(),
            "linear": lambda s, r, key: eqx.nn.Linear(s[0], r[0], key=key),
        },
    ),
}


class Bent(eqx.Module):
    """The message `tanh(W x)`, of a sender flattened."""

    weight: jax.Array

    def __call__(self, x):
        return jnp.tanh(self.weight @ x.reshape(-1))


class Meeting(eqx.Module):
    """The message `strength * x * y`."""

    strength: jax.Array

    def __call__(self, x, receiver):
        return self.strength * x * receiver


def loop_order(network, schedule_name):
    """The same schedule for the library and for the loop."""
    topology = network.topology
    nodes = list(topology.nodes)
    reverse = nodes[::-1]
    whole = overlapping(topology)
    if schedule_name == "synchronous":
        return dx.synchronous(), [nodes], False
    if schedule_name == "node_by_node":
        return dx.node_by_node(), whole, False
    if schedule_name == "node_by_node in order":
        seen = sorted(whole, key=lambda block: min(reverse.index(node) for node in block))
        return dx.node_by_node(reverse), seen, False
    if schedule_name == "unit_by_unit":
        return dx.unit_by_unit(), whole, True
    if schedule_name == "groups":
        halves = [[node for block in part for node in block] for part in (whole[1::2], whole[0::2])]
        return dx.groups(halves), halves, False
    colouring = colour(topology, whole)
    used = sorted(set(colouring.values()))
    return dx.coloured(colouring), [[n for n in nodes if colouring[n] == c] for c in used], False


def colour(topology, whole):
    """A proper colouring of the blocks."""
    block = {node: i for i, members in enumerate(whole) for node in members}
    graph = nx.Graph(
        [(block[e[0]], block[e[1]]) for e in topology.edges if block[e[0]] != block[e[1]]]
    )
    graph.add_nodes_from(block.values())
    return {node: nx.greedy_color(graph)[b] for node, b in block.items()}


def assert_state(state: dx.GraphState, loop: Reference, exact: bool = True):
    """The state's arrays are those of the loop."""
    for name, array in state.arrays.items():
        ours = np.asarray(array, np.float32)
        if exact:
            np.testing.assert_array_equal(ours, loop.arrays[name], err_msg=name)
        else:
            np.testing.assert_allclose(ours, loop.arrays[name], atol=2e-6, err_msg=name)


def spins(n: int, batch: int, seed: int = 0) -> np.ndarray:
    """±1 samples."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(batch, n)).astype(np.float32)


def couplings_matrix(n: int, symmetric: bool, seed: int = 0) -> np.ndarray:
    """A random coupling matrix of multiples of 1/64 with zero diagonal."""
    rng = np.random.default_rng(seed)
    matrix = np.round(rng.normal(size=(n, n)) * GRAIN / math.sqrt(n)) / GRAIN
    if symmetric:
        matrix = np.triu(matrix, 1) + np.triu(matrix, 1).T
    np.fill_diagonal(matrix, 0)
    return matrix.astype(np.float32)


def population(
    matrix: np.ndarray, activation: Any = dx.sign, self_coupling: float | None = None
) -> dx.Network:
    """One node of n units that send to each other by `matrix[receiver, sender]`."""
    graph = nx.DiGraph()
    graph.add_node("units", shape=len(matrix))
    graph.add_edge("units", "units", kind="recurrent")
    coupling = dx.dense(self_coupling=self_coupling)
    network = dx.Network(
        dx.Topology(graph), {"recurrent": coupling}, activation, key=jax.random.key(0)
    )
    weight = jax.device_put(np.asarray(matrix[None], np.float32))
    return eqx.tree_at(lambda n: n.couplings["recurrent"][0].weight, network, weight)


def scalars(matrix: np.ndarray, activation: Any = dx.sign) -> dx.Network:
    """The same network as n scalar nodes."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(matrix)), shape=())
    graph.add_edges_from(
        (int(j), int(i), {"weight": float(matrix[i, j])})
        for i, j in zip(*np.nonzero(matrix), strict=True)
    )
    return dx.Network(
        dx.Topology(graph), {"edge": dx.scale(weight="weight")}, activation, key=jax.random.key(0)
    )


def start(network: dx.Network, values: np.ndarray) -> dx.GraphState:
    """`values: (B, n)` as the state of a population or of scalar nodes."""
    if "units" in network.topology:
        return dx.GraphState(network.topology).init({"units": values})
    return dx.GraphState(network.topology).init({i: values[:, i] for i in network.topology.nodes})


def read(state: dx.GraphState) -> np.ndarray:
    """The values `(B, n)` of a population or of scalar nodes."""
    if "units" in state:
        return np.asarray(state["units"])
    return np.stack([np.asarray(state[i]) for i in state], axis=1)


def values(state: dx.GraphState) -> dict:
    """The value of every node, batch first, read from the global arrays by NumPy."""
    arrays = {name: np.asarray(array) for name, array in state.arrays.items()}
    found = {}
    for node in state.topology.nodes:
        view = state.topology.view(node)
        found[node] = np.moveaxis(arrays[view.array][view.index], -1, 0)
    return found


def sample(tree: Any, i: int) -> Any:
    """One sample of a state, as a batch of one."""
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[..., i : i + 1]), tree)


_compiled = [0]
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: _compiled.__setitem__(
        0, _compiled[0] + event.endswith("backend_compile_duration")
    )
)


def compilations(call: Callable[[], Any]) -> int:
    """How many programs a call compiles."""
    before = _compiled[0]
    jax.block_until_ready(call())
    return _compiled[0] - before
