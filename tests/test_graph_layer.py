"""A graph as a layer, in both grains, and jraph models as couplings."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from helpers import values

import darnax as dx
from darnax import Topology, topologies

F = B = 3  # as many samples as features, so that a mixed-up axis shows


def weighted(directed: bool) -> nx.Graph:
    graph = nx.gnp_random_graph(7, 0.4, seed=3, directed=directed)
    rng = np.random.default_rng(0)
    nx.set_edge_attributes(graph, {edge: rng.integers(1, 9) / 8 for edge in graph.edges}, "weight")
    graph.add_edge(2, 2, weight=0.5)
    return nx.relabel_nodes(graph, {0: "a", 1: ("b", 1)})


GRAPHS = {
    "directed": weighted(True),
    "undirected": weighted(False),
    "unweighted": nx.cycle_graph(5),
    "club": nx.karate_club_graph(),
}
graphs = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


def matrix(graph: nx.Graph) -> np.ndarray:
    """`A[receiver, sender]`."""
    return nx.to_numpy_array(graph, weight="weight").T.astype(np.float32)


def features(graph, seed=0):
    return np.random.default_rng(seed).integers(-8, 8, (B, len(graph), F)).astype(np.float32) / 8


class Weighted(eqx.Module):
    """The sum of the neighbours' features times the edges' weights, through one matrix."""

    matrix: jax.Array

    def __call__(self, graph):
        def message(edges, sent, received, shared):
            return sent if edges is None else edges * sent

        def node(nodes, sent, received, shared):
            return received @ self.matrix

        return jraph.GraphNetwork(update_edge_fn=message, update_node_fn=node)(graph)


@jax.jit
def answers(network, state):
    """The state after a step, and what the network learns before it."""
    learnt = dx.local_updates(network, state, {"lateral": dx.hebbian()})
    return dx.step(network, state), learnt


@graphs
def test_both_grains_are_the_dense_product(graph):
    x = features(graph)
    weight = np.random.default_rng(1).normal(size=(F, F)).astype(np.float32)
    expected = matrix(graph) @ x @ weight

    fine = Topology(topologies.graph_layer(graph, F))
    assert fine.edge_kinds == ("lateral",)
    network = dx.Network(
        fine, {"lateral": dx.dense(factor="weight")}, dx.identity, key=jax.random.key(0)
    )
    coupling = eqx.tree_at(lambda c: c.weight, network["lateral"], jax.device_put(weight.T))
    network = network.replace_val("lateral", coupling)
    state = dx.GraphState(fine).init({vertex: x[:, i] for i, vertex in enumerate(graph)})
    moved, one = answers(network, state)
    moved = values(moved)
    ours = np.stack([moved[vertex] for vertex in graph], axis=1)
    hears = matrix(graph).any(axis=1)
    np.testing.assert_allclose(ours[:, hears], expected[:, hears], atol=1e-5)

    coarse = Topology(topologies.graph_layer(graph, F, whole=True))
    layer = dx.Network(
        coarse,
        {"lateral": dx.graph_conv(Weighted(jax.device_put(weight)), graph)},
        dx.identity,
        key=jax.random.key(0),
    )
    moved, two = answers(layer, dx.GraphState(coarse).init({"layer": x}))
    np.testing.assert_allclose(moved["layer"], expected, atol=1e-5)

    # and both learn the same
    learnt = np.asarray(two["layer", "layer"].net.matrix).T
    np.testing.assert_allclose(one["lateral"].weight, learnt, atol=1e-4)


@graphs
def test_vertices_edges_and_weights_are_those_of_the_graph(graph):
    drawn = topologies.graph_layer(graph, (2, 2))
    assert list(drawn) == list(graph)
    both = graph if graph.is_directed() else graph.to_directed()
    assert set(drawn.edges) == set(both.edges)
    for u, v, data in both.edges(data=True):
        assert drawn[u][v]["weight"] == data.get("weight", 1.0)
    assert topologies.graph_layer(nx.karate_club_graph(), 2).nodes[33]["club"] == "Officer"


def test_scalar_vertices_take_the_weights_of_the_graph():
    graph = GRAPHS["directed"]
    x = features(graph)[..., 0]
    expected, hears = x @ matrix(graph).T, matrix(graph).any(axis=1)
    for tied in (True, False):
        topology = Topology(topologies.graph_layer(graph, (), tied=tied))
        for fixed in (True, False)[: 1 if tied else 2]:
            couplings = {"lateral": dx.scale(weight="weight", fixed=fixed)}
            network = dx.Network(topology, couplings, dx.identity, key=jax.random.key(0))
            state = dx.GraphState(topology).init(
                {vertex: x[:, i] for i, vertex in enumerate(graph)}
            )
            moved = values(dx.step(network, state))
            ours = np.stack([moved[vertex] for vertex in graph], axis=1)
            np.testing.assert_allclose(ours[:, hears], expected[:, hears], atol=1e-6)


def test_parallel_edges_speak_each_for_themselves():
    graph = nx.MultiDiGraph()
    graph.add_edge("a", "b", weight=0.5)
    graph.add_edge("a", "b", weight=0.25)
    topology = Topology(topologies.graph_layer(graph, ()))
    network = dx.Network(
        topology, {"lateral": dx.dense(factor="weight")}, dx.identity, key=jax.random.key(0)
    )
    state = dx.GraphState(topology).init({"a": np.ones(1, np.float32)})
    weight = np.asarray(network["lateral"].weight)[0, 0]
    np.testing.assert_allclose(dx.step(network, state)["b"], 0.75 * weight, rtol=1e-6)
    assert network["a", "b", 1].factor.value == 0.25


MODELS = {
    "convolution": lambda: jraph.GraphConvolution(
        lambda nodes: nodes @ jnp.eye(F, k=1), add_self_edges=True
    ),
    "plain sum": lambda: jraph.GraphConvolution(
        lambda nodes: 2 * nodes, symmetric_normalization=False
    ),
    "attention": lambda: jraph.GAT(
        attention_query_fn=lambda nodes: nodes @ jnp.eye(F, k=1),
        attention_logit_fn=lambda sent, received, edges: (sent * received).sum(-1, keepdims=True),
        node_update_fn=lambda nodes: nodes,
    ),
    "network": lambda: jraph.GraphNetwork(
        update_edge_fn=lambda edges, sent, received, shared: jnp.tanh(sent - 0.5 * received),
        update_node_fn=lambda nodes, sent, received, shared: received + 0.25 * nodes,
    ),
}


def by_hand(model, graph, x):
    """The model on one sample, the graph written out anew."""
    position = {vertex: i for i, vertex in enumerate(graph)}
    ends = np.asarray(
        [(position[u], position[v]) for u, v in graph.to_directed().edges], np.int32
    ).T
    return model(
        jraph.GraphsTuple(
            nodes=x,
            edges=None,
            senders=ends[0],
            receivers=ends[1],
            globals=None,
            n_node=np.asarray([len(x)], np.int32),
            n_edge=np.asarray([ends.shape[1]], np.int32),
        )
    ).nodes


@pytest.mark.parametrize("model", MODELS)
def test_jraph_models_give_what_they_give_by_hand(model):
    """As a coupling, and on the batch of graphs that a state hands out: sample by sample the
    same."""
    net, graph = MODELS[model](), nx.cycle_graph(F + 2, create_using=nx.DiGraph)
    run = jax.jit(net)
    graph.add_edge(0, 2)
    x = features(graph)
    with jax.numpy_dtype_promotion("standard"):  # jraph's normalisation mixes dtypes
        expected = np.stack([by_hand(run, graph, sample) for sample in x])
        coarse = Topology(topologies.graph_layer(graph, F, whole=True))
        network = dx.Network(
            coarse, {"lateral": dx.graph_conv(net, graph)}, dx.identity, key=jax.random.key(0)
        )
        moved = dx.step(network, dx.GraphState(coarse).init({"layer": x}))
        np.testing.assert_allclose(moved["layer"], expected, atol=1e-6)

        fine = Topology(topologies.graph_layer(graph, F))
        state = dx.GraphState(fine).init({vertex: x[:, i] for i, vertex in enumerate(graph)})
        batch = state.graphs_tuple("lateral")
        assert batch.nodes.shape == (B * len(graph), F)
        back = state.from_graphs_tuple("lateral", run(batch))
        back = values(back)
        for i, vertex in enumerate(graph):
            np.testing.assert_allclose(back[vertex], expected[:, i], atol=1e-6)


def test_a_model_of_a_sparse_matrix():
    entries = scipy.sparse.coo_array(matrix(GRAPHS["directed"]))
    x = features(GRAPHS["directed"])
    topology = Topology(topologies.graph_layer(GRAPHS["directed"], F, whole=True))
    network = dx.Network(
        topology,
        {"lateral": dx.graph_conv(Weighted(jnp.eye(F)), entries)},
        dx.identity,
        key=jax.random.key(0),
    )
    moved = dx.step(network, dx.GraphState(topology).init({"layer": x}))
    np.testing.assert_allclose(moved["layer"], entries.toarray() @ x, atol=1e-5)


def test_only_the_arrays_of_the_model_learn():
    graph = GRAPHS["directed"]
    topology = Topology(topologies.graph_layer(graph, F, whole=True))
    network = dx.Network(
        topology,
        {"lateral": dx.graph_conv(Weighted(jnp.eye(F)), graph)},
        dx.tanh,
        key=jax.random.key(0),
    )
    params, rest = dx.partition(network, {"lateral": dx.hebbian()})
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(1, F, F)]
    assert rest["layer", "layer"].weights.value.shape == (graph.number_of_edges(), 1)


def whole(net, graph=GRAPHS["club"]):
    topology = Topology(topologies.graph_layer(GRAPHS["club"], F, whole=True))
    return dx.Network(
        topology, {"lateral": dx.graph_conv(net, graph)}, dx.tanh, key=jax.random.key(0)
    )


def test_refuses_models_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"lateral.*was given a graph of 34 nodes and gave back nodes \(33, 3\)"
    ):
        whole(lambda graph: graph._replace(nodes=graph.nodes[1:]))
    with pytest.raises(
        ValueError, match=r"takes a real message of shape \(34, 3\), but the coupling gives .*34, 2"
    ):
        whole(lambda graph: graph._replace(nodes=graph.nodes[:, 1:]))
    with pytest.raises(
        ValueError, match=r"`graph` has 5 vertices, but \(34, 3\) sends to \(34, 3\)"
    ):
        whole(lambda graph: graph, nx.cycle_graph(5))
