"""A table of small awkward networks, and the dynamics once more as a plain loop that a reader can
check by eye."""

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

import darnax as dx
from darnax.couplings.coupling import asks

SIXTYFOUR = 64.0


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
        return coarse(network)


def coarse(tree: Any) -> Any:
    """Every weight rounded to a multiple of 1/64, so that sums of ±1 states are exact in any
    order."""

    def rounded(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        return jax.device_put(np.round(np.asarray(leaf) * SIXTYFOUR) / SIXTYFOUR)

    if not isinstance(tree, dx.Network):
        return jax.tree.map(rounded, tree)
    parts = tree.couplings, tree.biases
    return eqx.tree_at(lambda n: (n.couplings, n.biases), tree, jax.tree.map(rounded, parts))


def random_state(topology: dx.Topology, batch: int, seed: int = 0) -> dx.GraphState:
    """±1 in every cell."""
    rng = np.random.default_rng(seed)
    state = dx.GraphState(topology, batch)
    arrays = [
        rng.choice([-1.0, 1.0], size=array.shape).astype(array.dtype)
        for array in state.arrays.values()
    ]
    return state.replace(
        jax.tree.unflatten(jax.tree.structure(state.arrays), jax.device_put(arrays))
    )


def marked(graph: nx.DiGraph, **roles: Any) -> nx.DiGraph:
    """The graph with the roles of nodes on the nodes, `inputs=[...]`, `outputs=[...]`,
    `held=[...]`."""
    for role, nodes in zip(
        ["input", "output", "held"], map(roles.get, ["inputs", "outputs", "held"]), strict=True
    ):
        for place, node in enumerate(nodes or ()):
            graph.nodes[node].setdefault("role", {})[role] = place
    return graph


def _graph(
    nodes: dict, edges: list, multi: bool = False, arrays: Any = None, **roles: Any
) -> nx.DiGraph:
    graph = nx.MultiDiGraph() if multi else nx.DiGraph()
    graph.graph.update({} if arrays is None else {"arrays": arrays})
    for name, given in nodes.items():
        graph.add_node(name, **(given if isinstance(given, dict) else {"shape": given}))
    marked(graph, **roles)
    for u, v, *rest in edges:
        graph.add_edge(u, v, **({"kind": "loop" if u == v else "edge"} | (rest[0] if rest else {})))
    return graph


def _hub():
    leaves = dict.fromkeys(range(1, 8), 2)
    edges = [(i, 0) for i in leaves] + [(0, i) for i in (2, 5)] + [(3, 4), (0, 0), (6, 6)]
    return _graph({0: 2} | leaves, edges, inputs=[1])


def _views():
    nodes = {
        "left": {"array": "image", "index": (slice(0, 3), slice(0, 3))},
        "right": {"array": "image", "index": (slice(0, 3), slice(2, 5))},
        "odd": {"array": "image", "index": (slice(3, 5), slice(0, 5, 2))},
        "dot": {"array": "image", "index": (3, 1)},
        "far": {"shape": (3, 3), "kind": "far"},
        "gate": {"shape": (), "kind": "far"},
    }
    edges = [
        ("left", "right"), ("right", "left"), ("far", "left"), ("odd", "far"), ("dot", "far"), ("left", "dot"),
        ("far", "gate"), ("gate", "odd"), ("left", "left"), ("far", "far"),
    ]  # fmt: skip
    return _graph(nodes, edges, arrays={"image": (5, 5)}, inputs=["odd"])


def _windows():
    nodes: dict = {
        ("patch", i): {"array": "line", "index": slice(i, i + 3), "kind": "patch"} for i in range(5)
    }
    nodes["eye"] = {"array": "line", "index": slice(0, 2), "kind": "eye"}
    nodes |= {("feature", i): {"shape": 2, "kind": "feature"} for i in range(5)}
    edges: list = [(("patch", i), ("feature", i), {"tie": "look"}) for i in range(5)]
    edges += [(("feature", i), ("patch", i), {"kind": "back", "tie": "draw"}) for i in range(1, 4)]
    return _graph(nodes, edges, arrays={"line": 8}, inputs=["eye"])


def _any_cells():
    """Views of any cells: lists, masks and np.ix_, which overlap each other and a sliced view."""
    eye = np.arange(20).reshape(4, 5) % 6 == 1
    views = {
        "box": np.ix_([0, 2], [3, 1, 4]), "marked": eye, "rows": [3, 1], "slice": (slice(1, 3), slice(0, 2)),
        "mixed": ([2, 0, 3], slice(2, 5, 2)), "pairs": ([0, 3, 1], [0, 4, 2]), "free": ([3], [0, 3, 2]),
    }  # fmt: skip
    nodes: dict = {name: {"array": "image", "index": index} for name, index in views.items()}
    nodes |= {f"turned{i}": {"array": "line", "index": [i, i + 2, i + 1]} for i in (0, 3)}
    nodes |= {
        name: {"shape": shape, "kind": "far"}
        for name, shape in (("far", (2, 2)), ("near", 3), ("next", 3))
    }
    edges: list = [
        ("box", "marked"), ("marked", "box"), ("rows", "slice"), ("slice", "mixed"), ("mixed", "far"),
        ("far", "pairs"), ("pairs", "pairs"), ("pairs", "rows"), ("near", "pairs"), ("free", "near"), ("box", "box"),
        ("turned0", "near", {"tie": "t"}), ("turned3", "next", {"tie": "t"}), ("pairs", "turned3"), ("turned0", "turned0"),
    ]  # fmt: skip
    arrays = {"image": (4, 5), "line": 6}
    return _graph(nodes, edges, arrays=arrays, inputs=["free"])


def _parallel():
    edges = [
        ("a", "b", {"key": "x"}),
        ("a", "b", {"key": "y"}),
        ("b", "a", {"key": 0, "kind": "other"}),
        ("b", "a", {"key": 1}),
    ]
    return _graph({"a": 2, "b": 3, "c": 2}, [*edges, ("c", "a"), ("c", "c")], multi=True)


def _tied():
    edges = [
        ("a", "b", {"tie": "t"}),
        ("b", "c", {"tie": "t"}),
        ("c", "a"),
        ("a", "c", {"tie": "t"}),
        ("b", "b"),
        ("c", "c", {"tie": "s"}),
    ]
    return _graph(dict.fromkeys("abc", 3), edges)


def _scalars():
    wiring = nx.gnp_random_graph(12, 0.3, seed=1, directed=True)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(12), shape=())
    marked(graph, inputs=[0, 3])
    rng = np.random.default_rng(0)
    graph.add_edges_from(
        (u, v, {"kind": "synapse", "weight": rng.integers(-64, 64) / 64}) for u, v in wiring.edges
    )
    return graph


def _small(dtype: str):
    nodes = {
        "a": {"shape": 4, "dtype": dtype},
        "b": {"shape": (2, 2), "dtype": dtype},
        "c": {"shape": 3},
    }
    return _graph(nodes, [("a", "b"), ("b", "a"), ("b", "b"), ("c", "a"), ("a", "c")], inputs=["c"])


def _mixed():
    nodes = {
        "x": {"shape": 3, "kind": "in"}, "z": {"shape": (2, 2, 1), "kind": "in"},
        "v": {"shape": (2, 2, 2), "kind": "image"}, "h": {"shape": 4, "kind": "hidden"},
        "p": {"shape": 3, "kind": "soft"}, "q": {"shape": 4, "kind": "hidden"},
    }  # fmt: skip
    edges = [
        ("x", "h"), ("z", "v", {"kind": "conv"}), ("v", "v", {"kind": "conv"}), ("v", "h"), ("h", "h"),
        ("h", "q", {"kind": "copy"}), ("q", "h", {"kind": "linear"}), ("q", "p"), ("p", "q"), ("h", "p"),
    ]  # fmt: skip
    return _graph(nodes, edges, inputs=["x", "z"], outputs=["p", "q"])


def _parts():
    """Views that answer as a whole, side by side on one array with one that does not."""
    nodes: dict = {
        "p": {"array": "row", "index": slice(0, 3), "kind": "soft"},
        "q": {"array": "row", "index": slice(4, 7), "kind": "soft"},
        "r": {"array": "row", "index": slice(7, 9), "kind": "plain"},
        "x": {"shape": 3, "kind": "plain"},
    }
    edges = [("x", "p"), ("p", "q"), ("q", "p"), ("q", "r"), ("r", "x"), ("p", "p"), ("r", "r")]
    return _graph(nodes, edges, arrays={"row": 10})


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
    return _graph(nodes, edges, inputs=["x"])


CASES: dict[str, Case] = {
    "one node": Case(lambda: _graph({"a": 3}, [])),
    "self-loop": Case(lambda: _graph({"a": 3}, [("a", "a")])),
    "no edges": Case(lambda: _graph({"a": 3, "b": (2, 2)}, [])),
    "two components": Case(
        lambda: _graph(dict.fromkeys("abcd", 2), [("a", "b"), ("b", "a"), ("c", "d")], inputs=["c"])
    ),
    "two shapes": Case(
        lambda: _graph(
            {"a": 2, "b": (2, 2), "c": 2}, [("a", "b"), ("b", "c"), ("c", "c"), ("c", "b")]
        )
    ),
    "hub": Case(_hub, biases={"node": dx.bias(0.25)}),
    "views": Case(_views, biases={"node": dx.bias(jax.nn.initializers.normal())}),
    "windows": Case(
        _windows,
        activations={"patch": dx.sign, "feature": dx.sign},
        couplings={"back": dx.dense(gain=2.0)},
        biases={"patch": dx.bias(0.125), "feature": dx.bias(-0.25)},
    ),
    "any cells": Case(_any_cells, biases={"node": dx.bias(jax.nn.initializers.normal())}),
    "parallel": Case(_parallel, couplings={"other": dx.dense(gain=0.5)}),
    "tied": Case(_tied, couplings={"loop": dx.dense()}),
    "scalars": Case(_scalars, couplings={"synapse": dx.scale(weight="weight")}),
    "int8": Case(lambda: _small("int8")),
    "bfloat16": Case(lambda: _small("bfloat16")),
    "chain": Case(
        lambda: dx.topologies.sequential([3, 4, 4, 4, 2]),
        couplings={kind: dx.dense() for kind in ("forward", "backward")}
        | {"recurrent": dx.dense(self_coupling=1.0)},
    ),
    "both ends": Case(
        _views,
        couplings={"edge": dx.edge_mlp(3, jax.nn.relu), "loop": dx.dense(gain=0.5)},
        biases={"far": dx.bias(0.125)},
    ),
    "both ends, tied": Case(
        _tied,
        couplings={
            "edge": dx.edge_mlp(2, jax.nn.relu, gain=2.0),
            "loop": lambda s, r, key: Meeting(jnp.ones(())),
        },
    ),
    "parts": Case(
        _parts, activations={"soft": dx.softmax, "plain": dx.tanh}, biases={"soft": dx.bias(0.5)}
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
        _mixed,
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
    """The message `tanh(W x)`."""

    weight: jax.Array

    def __call__(self, x):
        return jnp.tanh(self.weight @ x)


class Meeting(eqx.Module):
    """The message `strength * x * y`."""

    strength: jax.Array

    def __call__(self, x, receiver):
        return self.strength * x * receiver


@eqx.filter_jit
def sent(coupling, *values):
    """The messages of every sample, batch last; edges of the same shapes share the program."""
    return jax.vmap(coupling, -1, -1)(*values)


@eqx.filter_jit
def answered(activation, fields, states):
    """The new states of every sample, batch last."""
    one = lambda field, state: activation(field, state=state)  # noqa: E731
    return jax.vmap(one, -1, -1)(fields, states)


class Loop:
    """The dynamics as a loop over nodes and edges, every sample by itself."""

    def __init__(self, network, state, clamp=(), silence=(), kinds=None, drive=None):
        # `network[edge]` of NumPy arrays compiles nothing, and cannot be turned around
        plain = network if network.reverses else jax.tree.map(np.asarray, network)
        self.network, self.topology = plain, network.topology
        self.couplings, self.views = {}, {}
        self.arrays = {name: np.array(array, np.float32) for name, array in state.arrays.items()}
        self.batch, self.silence, self.kinds, self.drive = (
            state.batch_size,
            silence,
            kinds,
            drive or {},
        )
        self.held = {name: np.zeros(array.shape, bool) for name, array in self.arrays.items()}
        clamp = clamp if isinstance(clamp, dict) else dict.fromkeys(clamp, True)
        for node, mask in (dict.fromkeys(self.topology.held, True) | clamp).items():
            mask = np.broadcast_to(np.asarray(mask), (self.batch, *self.topology.shape(node)))
            array, index = self.place(node)
            self.held[array][index] |= np.moveaxis(mask, 0, -1)

    def place(self, node):
        """The array of a node and the index of its value there, batch last."""
        if node not in self.views:
            self.views[node] = self.topology.view(node)
        view = self.views[node]
        return view.array, (*view.index, ..., slice(None))

    def view(self, arrays, node):
        array, index = self.place(node)
        return arrays[array][index]

    def edges(self):
        for *ends, data in self.topology.to_networkx().edges(data=True, **self._keys()):
            speaks = self.kinds is None or data["kind"] in self.kinds
            if speaks and ends[0] not in self.silence:
                yield tuple(ends)

    def _keys(self):
        return {"keys": True} if self.topology.columns.keys is not None else {}

    def visit(self, nodes, cells=None):
        """Update `nodes` together; `cells` limits it to some cells of the arrays."""
        old = {name: array.copy() for name, array in self.arrays.items()}
        fields, heard = self.local_fields(nodes, old)
        for node in nodes:
            kind = self.topology.kind(node)
            if kind not in self.network.activations:
                continue
            activation = self.network.activations[kind]
            new = np.asarray(answered(activation, self.view(fields, node), self.view(old, node)))
            free = self.view(heard, node) & ~self.view(self.held, node)
            if cells is not None:
                free = free & self.view(cells, node)
            array, index = self.place(node)
            self.arrays[array][index] = np.where(free, new, self.arrays[array][index])

    def local_fields(self, nodes, old):
        """The fields of all arrays from messages and drives to `nodes`, and the cells that get one."""
        fields = {name: np.zeros(array.shape, np.float32) for name, array in old.items()}
        heard = {name: np.zeros(array.shape, bool) for name, array in old.items()}
        for edge in self.edges():
            if edge[1] not in nodes:
                continue
            array, index = self.place(edge[1])
            fields[array][index] += self.messages(edge, old)
            heard[array][index] = True
        for node in nodes:
            if node in self.drive:
                shape = (self.batch, *self.topology.shape(node))
                array, index = self.place(node)
                drive = np.broadcast_to(np.asarray(self.drive[node]), shape)
                fields[array][index] += np.moveaxis(drive, 0, -1)
                heard[array][index] = True
        for by_array in self.network.biases.values():
            for name, bias in by_array.items():
                fields[name] += np.asarray(bias)[..., None]
        return fields, heard

    def messages(self, edge, old):
        """What the coupling makes of every sample, by itself and outside of any network."""
        if edge not in self.couplings:
            self.couplings[edge] = self.network[edge]
        coupling = self.couplings[edge]
        ends = edge[:2] if "receiver" in asks(coupling) else edge[:1]
        return np.asarray(sent(coupling, *[self.view(old, end) for end in ends]))

    def sweep(self, visits, units=False):
        """One pass of several visits; with `units` every cell of them by itself."""
        for nodes in visits:
            if not units:
                self.visit(nodes)
                continue
            done = {name: np.zeros(array.shape[:-1], bool) for name, array in self.arrays.items()}
            order = sorted(self.cells_of(nodes))
            for name, cell in order:
                only = {other: np.zeros(array.shape, bool) for other, array in self.arrays.items()}
                only[name][cell] = True
                assert not done[name][cell]
                done[name][cell] = True
                self.visit(nodes, only)
        return self

    def cells_of(self, nodes):
        found = set()
        for node in nodes:
            mask = {name: np.zeros(array.shape[:-1], bool) for name, array in self.arrays.items()}
            place = self.topology.view(node)
            mask[place.array][place.index] = True
            found |= {
                (place.array, tuple(map(int, cell))) for cell in np.argwhere(mask[place.array])
            }
        return found


def blocks(topology: dx.Topology) -> list[list]:
    """Nodes that overlap, directly or through others, by brute force; in the order of drawing."""
    cells = {}
    for node in topology.nodes:
        place = topology.view(node)
        mask = np.zeros(topology.arrays[place.array].shape, bool)
        mask[place.index] = True
        cells[node] = {(place.array, *map(int, cell)) for cell in np.argwhere(mask)}
    graph = nx.Graph()
    graph.add_nodes_from(topology.nodes)
    graph.add_edges_from((a, b) for a in cells for b in cells if cells[a] & cells[b])
    return sorted(
        (sorted(c, key=list(topology.nodes).index) for c in nx.connected_components(graph)),
        key=lambda c: list(topology.nodes).index(c[0]),
    )


def loop_order(network, schedule_name):
    """The same schedule for the library and for the loop."""
    topology = network.topology
    nodes = list(topology.nodes)
    reverse = nodes[::-1]
    whole = blocks(topology)
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


def assert_state(state: dx.GraphState, loop: Loop, exact: bool = True):
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
    matrix = np.round(rng.normal(size=(n, n)) * SIXTYFOUR / math.sqrt(n)) / SIXTYFOUR
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
