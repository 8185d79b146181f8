"""The edges of one kind as jraph graphs: laws over every kind of every case."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import networkx as nx
import numpy as np
import pytest
from helpers import CASES, compilations, values

from darnax import GraphState, Topology


@functools.cache
def weighted(case: str) -> Topology:
    """The topology of a case with a number on every edge, exact in every float type."""
    graph = CASES[case].graph()
    rng = np.random.default_rng(0)
    for *_, data in graph.edges(data=True):
        data["weight"] = rng.integers(1, 9) / 4
    return Topology(graph)


KINDS = [
    pytest.param(case, kind, id=f"{case}: {kind}")
    for case in CASES
    for kind in sorted({kind for *_, kind in CASES[case].graph().edges(data="kind")})
]
every_kind = pytest.mark.parametrize(("case", "kind"), KINDS)


def random_state(topology, batch, seed=0):
    """Small integers in every cell, which every dtype holds."""
    rng = np.random.default_rng(seed)
    state = GraphState(topology, batch)
    return state.replace(
        jax.tree.map(lambda a: rng.integers(1, 9, a.shape).astype(a.dtype), state.arrays)
    )


class Drawn(NamedTuple):
    """What the graph of an edge kind is, read from the drawing node by node."""

    edges: list
    weights: list
    nodes: list
    leaf: dict
    overlap: bool


def drawn(topology, kind):
    graph = topology.to_networkx()
    keys = {"keys": True} if graph.is_multigraph() else {}
    data = [(edge, data) for *edge, data in graph.edges(data=True, **keys)]
    edges = [edge for edge, data in data if data["kind"] == kind]
    weights = [data.get("weight") for _, data in data if data["kind"] == kind]

    def place(node):
        return topology.view(node).array, topology.shape(node)

    places = list(dict.fromkeys(place(end) for edge in edges for end in edge[:2]))
    nodes = [node for node in topology.nodes if place(node) in places]
    arrays = [array for array, _ in places]
    leaf = {}
    covered = {name: np.zeros(spec.shape, int) for name, spec in topology.arrays.items()}
    for node in nodes:
        array, shape = place(node)
        leaf[node] = array if arrays.count(array) == 1 else f"{array}{shape}"
        covered[array][topology.view(node).index] += 1
    overlap = any((count > 1).any() for count in covered.values())
    return Drawn(edges, weights, nodes, leaf, overlap)


def leaves(graphs, it: Drawn) -> dict:
    """The features by leaf; a single one is no dict."""
    names = set(it.leaf.values())
    assert isinstance(graphs.nodes, dict) == (len(names) > 1)
    if len(names) == 1:
        return {names.pop(): graphs.nodes}
    assert set(graphs.nodes) == names
    return graphs.nodes


@functools.cache
def opened(case, kind):
    """A state of three samples, its nodes as arrays of NumPy, the graph that it gives, and the
    drawing."""
    state = random_state(weighted(case), 3)
    return state, values(state), state.graphs_tuple(kind), drawn(state.topology, kind)


@every_kind
def test_jraphs_own_index_finds_the_ends_of_every_edge(case, kind):
    state, held, graphs, it = opened(case, kind)
    count, edges = len(it.nodes), len(it.edges)
    assert graphs.n_node.tolist() == [count] * 3
    assert graphs.n_edge.tolist() == [edges] * 3
    assert graphs.globals is None
    assert {graphs.senders.dtype, graphs.receivers.dtype} == {jnp.dtype("int32")}
    assert it.edges == [list(edge) for edge in state.topology.edges if list(edge) in it.edges]
    for end, index in enumerate([graphs.senders, graphs.receivers]):
        for name, features in leaves(graphs, it).items():
            found = np.asarray(features)[np.asarray(index)]
            for sample in range(3):
                for i, edge in enumerate(it.edges):
                    node = edge[end]
                    expected = held[node][sample] if it.leaf[node] == name else 0
                    np.testing.assert_array_equal(found[sample * edges + i], expected)
    np.testing.assert_array_equal(graphs.edges["weight"], np.tile(it.weights, 3))


@every_kind
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_there_and_back_is_the_same_state(case, kind, jitted):
    state, _, _, it = opened(case, kind)

    def there_and_back(state):
        return state.from_graphs_tuple(kind, state.graphs_tuple(kind))

    run = jax.jit(there_and_back) if jitted else there_and_back
    if it.overlap:
        with pytest.raises(ValueError, match="overlap on a shared array"):
            run(state)
        return
    back = run(state)
    assert back.topology == state.topology
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)


@every_kind
def test_nodes_are_written_and_nothing_else(case, kind):
    state, _, graphs, it = opened(case, kind)
    if it.overlap:
        return
    # rows of nodes that live elsewhere are not zero here, and must not reach any array
    changed = jax.tree.map(lambda features: 9 - np.asarray(features), graphs.nodes)
    back = state.from_graphs_tuple(kind, graphs._replace(nodes=changed, edges=None))
    written = {name: np.array(array) for name, array in state.arrays.items()}
    for node in it.nodes:
        view = state.topology.view(node)
        written[view.array][view.index] = 9 - written[view.array][view.index]
    for name, array in written.items():
        np.testing.assert_array_equal(back.arrays[name], array)


def test_reading_and_writing_are_a_program_each_which_equal_arrays_share():
    def there_and_back(topology, batch):
        state, steps = random_floats(topology, batch), []
        steps.append(compilations(lambda: steps.append(state.graphs_tuple("look"))))
        graphs, _ = steps
        steps.append(compilations(lambda: state.from_graphs_tuple("look", graphs).arrays))
        return steps[1:]

    assert there_and_back(ring(7, 9), 3) == [1, 1]
    assert there_and_back(ring(7, 9), 3) == [0, 0]
    turned = ring(7, 9).to_networkx()
    turned.remove_edges_from([edge for edge in turned.edges if "eye" in edge])
    turned.add_edge(("v", 5), "eye", kind="look")
    assert there_and_back(Topology(turned), 3) == [0, 0]


def weighted_sum(graphs):
    """Senders' features times the drawn weight, added at the receivers by jraph."""

    def message(numbers, sent, received, shared):
        def times_weight(features):
            weight = numbers["weight"].reshape(-1, *[1] * (features.ndim - 1))
            return weight * features.astype(weight.dtype)

        return jax.tree.map(times_weight, sent)

    def node(nodes, sent, received, shared):
        return received

    return jraph.GraphNetwork(update_edge_fn=message, update_node_fn=node)(graphs).nodes


def loop(state, it: Drawn) -> dict:
    """The same as a loop over edges and samples, by leaf."""
    sums: dict[str, Any] = {}
    held = values(state)
    for node, name in it.leaf.items():
        shape = (state.batch_size, len(it.nodes), *state.topology.shape(node))
        sums[name] = np.zeros(shape, np.float32)
    for (u, v, *_), weight in zip(it.edges, it.weights, strict=True):
        for sample in range(state.batch_size):
            sent = held[u][sample].astype(np.float32)
            sums[it.leaf[u]][sample, it.nodes.index(v)] += weight * sent
    return sums


def transposed_loop(state, it: Drawn, slopes: dict) -> dict:
    """The gradient of `sum(slopes * loop(state))`, by array."""
    result = {name: np.zeros(array.shape, np.float32) for name, array in state.arrays.items()}
    for (u, v, *_), weight in zip(it.edges, it.weights, strict=True):
        view = state.topology.view(u)
        slope = slopes[it.leaf[u]][:, it.nodes.index(v)]
        result[view.array][(*view.index, ...)] += weight * np.moveaxis(slope, 0, -1)
    return result


@every_kind
def test_a_graph_network_is_the_loop_under_jit_vmap_and_grad(case, kind):
    topology = weighted(case)
    it, states = drawn(topology, kind), [random_state(topology, 2, seed) for seed in range(2)]
    integers = any(not jnp.issubdtype(a.dtype, jnp.inexact) for a in states[0].arrays.values())
    expected = [loop(state, it) for state in states]
    slopes = {
        name: np.random.default_rng(0).integers(-4, 4, sums.shape).astype(np.float32)
        for name, sums in expected[0].items()
    }

    def run(state):
        graphs = state.graphs_tuple(kind)
        features = leaves(graphs._replace(nodes=weighted_sum(graphs)), it)
        return {name: features[name].reshape(sums.shape) for name, sums in expected[0].items()}

    def cost(state):
        sums = run(state)
        return sum((slopes[name] * sums[name]).sum() for name in sums), sums

    def alone(state):
        return (None, run(state)) if integers else jax.grad(cost, has_aux=True)(state)

    together = jax.jit(jax.vmap(run))(jax.tree.map(lambda *a: np.stack(a), *states))
    together = jax.tree.map(np.asarray, together)
    one = jax.jit(alone)
    for i, state in enumerate(states):
        gradient, sums = one(state)
        for name in sums:
            np.testing.assert_allclose(sums[name], expected[i][name], rtol=1e-5)
            np.testing.assert_allclose(together[name][i], expected[i][name], rtol=1e-5)
        if integers:
            continue
        for name, array in transposed_loop(state, it, slopes).items():
            np.testing.assert_allclose(
                np.asarray(gradient.arrays[name], np.float32),
                array,
                rtol=1e-2 if case == "bfloat16" else 1e-5,
            )


# several arrays or shapes


def test_one_layer_of_a_network_as_a_jraph_model():
    """input -> hidden: the hidden rows receive what a matrix makes of the input's features."""
    graph = nx.DiGraph()
    graph.add_node("eye", shape=3)
    graph.add_node("ear", shape=3)
    graph.add_nodes_from(("h", "k"), shape=2, kind="hidden")
    graph.add_edges_from([("eye", "h"), ("ear", "h"), ("ear", "k")], kind="forward")
    state = random_state(Topology(graph), 4)
    weight = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)

    def message(numbers, sent, received, shared):
        return sent["node(3,)"] @ weight

    def node(nodes, sent, received, shared):
        return nodes | {"hidden(2,)": jnp.tanh(received)}

    layer = jraph.GraphNetwork(update_edge_fn=message, update_node_fn=node)
    moved = state.from_graphs_tuple("forward", jax.jit(layer)(state.graphs_tuple("forward")))
    ear, eye = np.asarray(state["ear"]), np.asarray(state["eye"])
    np.testing.assert_allclose(moved["h"], np.tanh((eye + ear) @ weight), rtol=1e-5)
    np.testing.assert_allclose(moved["k"], np.tanh(ear @ weight), rtol=1e-5)
    np.testing.assert_array_equal(moved["eye"], eye)


def test_a_graph_convolution_runs_on_every_leaf():
    state = random_floats(ring(), 2)
    convolution = jraph.GraphConvolution(lambda nodes: jax.tree.map(lambda x: 2 * x, nodes))
    with jax.numpy_dtype_promotion("standard"):  # jraph's normalisation mixes integers and floats
        graphs = jax.jit(convolution)(state.graphs_tuple("look"))
    assert {name: x.shape for name, x in graphs.nodes.items()} == {
        "eye(4,)": (12, 4),
        "vertex(4,)": (12, 4),
    }
    # node 0 is the eye and node 1 the vertex that it sends to
    received = np.asarray(graphs.nodes["eye(4,)"]).reshape(2, 6, 4)[:, 1]
    np.testing.assert_allclose(received, 2 * np.asarray(state["eye"]), rtol=1e-6)


def test_leaves_are_named_by_array_and_by_shape_where_it_has_several():
    graph = nx.DiGraph(arrays={"line": 9, "line(2,)": 3})
    graph.add_node("pair", array="line", index=slice(0, 2))
    graph.add_node("trio", array="line", index=slice(4, 7))
    graph.add_node("all", array="line(2,)")
    graph.add_edges_from([("pair", "trio"), ("all", "pair"), ("trio", "trio")])
    graph.add_edge("pair", "pair", kind="loop")
    state = random_state(Topology(graph), 2)
    graphs = state.graphs_tuple("edge")
    assert {name: x.shape for name, x in graphs.nodes.items()} == {
        "line(2,)": (6, 2),
        "line(3,)": (6, 3),
        "line(2,)'": (6, 3),
    }
    back = state.from_graphs_tuple("edge", graphs)
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
    assert state.graphs_tuple("loop").nodes.shape == (2, 2)


# numbers on edges


def numbered(dtype="float32", **numbers):
    """Three edges of one kind, and one of another; a column of numbers for each name."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(3), shape=2, dtype=dtype)
    for i, (u, v) in enumerate([(0, 1), (1, 2), (2, 0)]):
        data = {name: column[i] for name, column in numbers.items() if column[i] is not None}
        graph.add_edge(u, v, kind="lateral", **data)
    graph.add_edge(1, 0, kind="other")
    return GraphState(Topology(graph), 2)


def test_edges_carry_the_numbers_that_all_of_them_have():
    state = numbered(
        weight=[0.5, -1.0, np.inf], delay=[1, 2, 3], mark=[True, False, True], some=[1.0, None, 2.0]
    )
    edges = state.graphs_tuple("lateral").edges
    assert set(edges) == {"weight", "delay", "mark"}
    for name, column in {
        "weight": [0.5, -1.0, np.inf],
        "delay": [1, 2, 3],
        "mark": [1, 0, 1],
    }.items():
        assert edges[name].dtype == jnp.float32
        np.testing.assert_array_equal(edges[name], np.float32(column * 2))
    assert state.graphs_tuple("other").edges is None
    assert numbered().graphs_tuple("lateral").edges is None


def test_numbers_are_rounded_to_the_float_type_of_the_nodes():
    third, large = [1 / 3, 2 / 3, 1.0], [2**24 + 1, 2**53, 0]
    edges = numbered("bfloat16", third=third, large=large).graphs_tuple("lateral").edges
    for name, column in {"third": third, "large": large}.items():
        assert edges[name].dtype == jnp.float32
        np.testing.assert_array_equal(edges[name], np.float32(column * 2))
    with jax.enable_x64(True):
        assert numbered(third=third).graphs_tuple("lateral").edges["third"].dtype == jnp.float32
        wide = numbered("float64", third=third).graphs_tuple("lateral").edges["third"]
        assert wide.dtype == jnp.float64
        np.testing.assert_array_equal(wide, third * 2)


def test_numbers_that_would_become_infinite_are_refused():
    with pytest.raises(
        ValueError, match=r"edge attribute 'weight' holds 1e\+300, which is infinite as float32"
    ):
        numbered(weight=[1.0, 1e300, 2.0]).graphs_tuple("lateral")


# one array and one shape


def ring(n=5, shape=4, **attributes):
    """A kind of edges between the nodes of one array, and one from elsewhere."""
    graph = nx.DiGraph()
    graph.add_node("eye", shape=shape, kind="eye")
    graph.add_nodes_from((("v", i) for i in range(n)), shape=shape, kind="vertex", **attributes)
    graph.add_edges_from(
        [(("v", i), ("v", (i + 1) % n)) for i in range(n)] + [(("v", 0), ("v", 2))], kind="lateral"
    )
    graph.add_edge("eye", ("v", 0), kind="look")
    return Topology(graph)


def random_floats(topology, batch, seed=0):
    rng = np.random.default_rng(seed)
    state = GraphState(topology, batch)
    return state.replace(
        jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), state.arrays)
    )


@pytest.mark.parametrize("batch", [1, 4])
def test_graphs_tuple_is_an_ordinary_batch_of_graphs(batch):
    state = random_floats(ring(), batch)
    held, graphs = values(state), state.graphs_tuple("lateral")
    assert (graphs.edges, graphs.globals) == (None, None)
    assert graphs.n_node.tolist() == [5] * batch
    assert graphs.n_edge.tolist() == [6] * batch
    assert {graphs.n_node.dtype, graphs.senders.dtype, graphs.receivers.dtype} == {
        jnp.dtype("int32")
    }
    lateral = [(u[1], v[1]) for u, v in state.topology.edges if u != "eye"]
    for sample, graph in enumerate(jraph.unbatch_np(jax.tree.map(np.array, graphs))):
        assert list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)) == lateral
        for i in range(5):
            np.testing.assert_array_equal(graph.nodes[i], held["v", i][sample])


def convolved(state, weights, normalised):
    """A graph convolution written as a loop over samples, vertices and edges."""
    expected = {
        ("v", i): np.zeros((state.batch_size, weights.shape[1]), np.float32) for i in range(5)
    }
    held, edges = values(state), [edge for edge in state.topology.edges if edge[0] != "eye"]
    sent, heard = (
        [sum(edge[end] == node for edge in edges) for node in expected] for end in (0, 1)
    )
    for u, v in edges:
        scale = np.sqrt(max(sent[u[1]], 1) * max(heard[v[1]], 1)) if normalised else 1.0
        for sample in range(state.batch_size):
            expected[v][sample] += held[u][sample] @ weights / scale
    return expected


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("jitted", [False, True])
def test_users_graph_convolution_runs_on_it_unchanged(normalised, jitted):
    # as many samples as features: a mixed-up axis would fit, and show
    state = random_floats(ring(), batch=4)
    weights = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    layer = jraph.GraphConvolution(
        lambda nodes: nodes @ weights, symmetric_normalization=normalised
    )

    def run(state):
        return state.from_graphs_tuple("lateral", layer(state.graphs_tuple("lateral")))

    with jax.numpy_dtype_promotion(
        "standard"
    ):  # jraph's own normalisation mixes integers and floats
        result = jax.jit(run)(state) if jitted else run(state)
    for node, expected in convolved(state, weights, normalised).items():
        np.testing.assert_allclose(result[node], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result["eye"], state["eye"])


@pytest.mark.parametrize(
    "attributes", [{"shape": (4, 2), "dtype": "bfloat16"}, {"shape": ()}], ids=str
)
def test_graphs_tuple_there_and_back_is_the_same_state(attributes):
    state = random_floats(ring(**attributes), 3)
    back = jax.jit(lambda state: state.from_graphs_tuple("lateral", state.graphs_tuple("lateral")))(
        state
    )
    assert back.topology == state.topology
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(np.asarray(back.arrays[name]), np.asarray(array))


def patches(overlapping):
    graph = nx.DiGraph(arrays={"line": 9})
    for i in range(3):
        graph.add_node(i, array="line", index=slice(2 * i, 2 * i + 2 + overlapping))
    graph.add_node("wide", array="line")
    graph.add_edges_from([(0, 1), (1, 2), (2, 0)], kind="lateral")
    graph.add_edge("wide", 0, kind="down")
    return random_floats(Topology(graph), 2)


def test_views_of_one_shape_are_vertices_too():
    state = patches(overlapping=0)
    graphs = state.graphs_tuple("lateral")
    assert graphs.nodes.shape == (2 * 3, 2)
    np.testing.assert_array_equal(
        np.reshape(graphs.nodes, (2, 3, 2)), np.stack([state[i] for i in range(3)], 1)
    )
    doubled = state.from_graphs_tuple("lateral", graphs._replace(nodes=2 * np.array(graphs.nodes)))
    before, after = np.asarray(state["wide"]), np.asarray(doubled["wide"])
    np.testing.assert_array_equal(after[:, :6], 2 * before[:, :6])
    np.testing.assert_array_equal(after[:, 6:], before[:, 6:])


def test_overlapping_views_are_read_but_not_written_back():
    state = patches(overlapping=1)
    graphs = state.graphs_tuple("lateral")
    np.testing.assert_array_equal(
        np.reshape(graphs.nodes, (2, 3, 3)), np.stack([state[i] for i in range(3)], 1)
    )
    with pytest.raises(ValueError, match="nodes 0, 1, 2 overlap"):
        state.from_graphs_tuple("lateral", graphs)
