"""Builders of lattices, random graphs and populations: what networkx says of them."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import compilations

import darnax as dx
from darnax import Topology, topologies

CLUB = nx.karate_club_graph()
BUILT = {
    "chain with skips": lambda: topologies.sequential([4, 3, 3, 2], skip=[(0, 2), (3, 1)]),
    "ring": lambda: topologies.lattice(7),
    "torus": lambda: topologies.lattice((4, 3, 3), size=2),
    "open grid": lambda: topologies.lattice((4, 5), periodic=(True, False)),
    "arrows": lambda: topologies.lattice((3, 3), periodic=False, neighbours=[(0, 1), (1, 1)]),
    "degree": lambda: topologies.random(9, degree=3),
    "regular": lambda: topologies.random(10, degree=3, symmetric=True, size=(2, 2)),
    "probability": lambda: topologies.random(9, probability=0.3),
    "nobody": lambda: topologies.random(4, probability=0.0),
    "small world": lambda: topologies.small_world(12, 4, 0.2),
    "scale-free": lambda: topologies.scale_free(12, 2),
    "hopfield": lambda: topologies.hopfield((3, 4)),
    "bipartite": lambda: topologies.bipartite((4, 4, 1), 5),
    "modules": lambda: topologies.modular(3, 4),
    "modules of a graph": lambda: topologies.modular(nx.star_graph(["hub", "a", "b"]), (2, 2)),
    "convolution": lambda: topologies.convolutional(
        (5, 6, 2), 3, features=4, padding=1, backward=True
    ),
    "stages": lambda: topologies.convolutional(
        (9, 2), [3, 2], [2, 1], features=[4, 3], padding=[1, 0], tied=False
    ),
    "club": lambda: topologies.graph_layer(CLUB, 2),
    "whole club": lambda: topologies.graph_layer(CLUB, 2, whole=True),
    "parallel": lambda: topologies.graph_layer(
        nx.MultiGraph([("a", "b"), ("a", "b"), ("b", "c"), ("c", "c")]), ()
    ),
    "predictive": lambda: topologies.predictive([4, (2, 3), 2]),
    "predictive of itself": lambda: topologies.predictive(topologies.sequential([4, 3, 2])),
    "predictive windows": lambda: topologies.predictive(
        topologies.convolutional((5, 2), 3, features=2, padding=1)
    ),
}


@pytest.mark.parametrize("name", BUILT)
def test_survives_json_and_networkx(name):
    graph = BUILT[name]()
    topology = Topology(graph)
    again = Topology.from_json(topology.to_json())
    drawn = Topology(topology.to_networkx())
    for other in again, drawn:
        assert other == topology
        assert (other.inputs, other.outputs, other.held) == (
            topology.inputs,
            topology.outputs,
            topology.held,
        )
        assert (list(other.nodes), other.edges) == (list(topology.nodes), topology.edges)
    assert list(topology.nodes) == list(graph)
    assert sorted(topology.edges, key=str) == sorted(graph.edges, key=str)


@pytest.mark.parametrize("name", BUILT)
def test_runs(name):
    """Every builder's graph makes a network that takes a step with the coupling its docstring
    names."""
    topology = Topology(BUILT[name]())
    made = {"lateral": dx.dense(), "between": dx.scale(0.5, fixed=True)}
    if name == "club":
        made["lateral"] = dx.dense(factor="weight")
    if name == "whole club":
        made["lateral"] = dx.graph_conv(lambda graphs: graphs, CLUB)
    couplings = {kind: made.get(kind, dx.dense()) for kind in topology.edge_kinds}
    network = dx.Network(topology, couplings, dx.tanh, key=jax.random.key(0))
    state = jax.tree.map(jnp.ones_like, dx.GraphState(topology, 2))
    moved = dx.step(network, state, clamp=dict.fromkeys(topology.inputs, False))
    hears = {edge[1] for edge in topology.edges}
    assert all((moved[node] != 1).any() for node in hears)


# lattices


@pytest.mark.parametrize("shape", [6, (5,), (4, 5), (3, 4, 3), (1, 4), (2, 3)])
@pytest.mark.parametrize("periodic", [True, False])
def test_nearest_neighbours_are_those_of_networkx(shape, periodic):
    sizes = (shape,) if isinstance(shape, int) else shape
    if periodic and 1 in sizes:
        with pytest.raises(
            ValueError,
            match=r"\(-1, 0\), \(1, 0\) of a lattice of `shape` \(1, 4\).*the site itself",
        ):
            topologies.lattice(shape)
        return
    graph = topologies.lattice(shape, periodic=periodic)
    # networkx counts axes from the last
    expected = nx.grid_graph(sizes[::-1], periodic=periodic)
    assert set(graph) == set(expected)
    assert set(graph.edges) == set(expected.to_directed().edges)
    if periodic and min(sizes) > 2:
        assert {degree for _, degree in graph.out_degree} == {2 * len(sizes)}


def test_neighbours_at_a_distance_and_by_offsets():
    two = topologies.lattice((7, 7), neighbours=2)
    assert {degree for _, degree in two.out_degree} == {12}
    assert set(two.successors((0, 0))) == {
        (i % 7, j % 7) for i in range(-2, 3) for j in range(-2, 3) if 0 < abs(i) + abs(j) <= 2
    }
    moore = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    assert set(topologies.lattice((5, 5), neighbours=moore).successors((2, 2))) == {
        (2 + i, 2 + j) for i, j in moore
    }
    down = topologies.lattice((3, 4), periodic=(True, False), neighbours=[(1, 1), (1, 1)])
    assert set(down.edges) == {((i, j), ((i + 1) % 3, j + 1)) for i in range(3) for j in range(3)}
    ring = topologies.lattice(5, neighbours=[1])
    assert set(ring.edges) == {(i, (i + 1) % 5) for i in range(5)}


# random graphs


def test_every_unit_hears_as_many_as_asked_for():
    graph = topologies.random(50, degree=7)
    assert {degree for _, degree in graph.in_degree} == {7}
    assert len({degree for _, degree in graph.out_degree}) > 3
    assert nx.number_of_selfloops(graph) == 0
    everybody = topologies.random(6, degree=5)
    assert set(everybody.edges) == set(itertools.permutations(range(6), 2))
    both = topologies.random(50, degree=7, symmetric=True)
    assert {degree for _, degree in both.in_degree} == {7}
    assert set(both.edges) == {(v, u) for u, v in both.edges}


def test_senders_are_drawn_evenly():
    counts = np.zeros((6, 6))
    for seed in range(400):
        for u, v in topologies.random(6, degree=2, seed=seed).edges:
            counts[u, v] += 1
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(6, dtype=bool)]
    assert abs(off - 160).max() < 5 * math.sqrt(400 * 0.4 * 0.6)


def test_seeds_tell_graphs_apart():
    for build in (
        lambda seed: topologies.random(20, degree=3, seed=seed),
        lambda seed: topologies.random(20, probability=0.2, seed=seed),
        lambda seed: topologies.small_world(20, 4, 0.5, seed=seed),
        lambda seed: topologies.scale_free(20, 2, seed=seed),
    ):
        assert set(build(1).edges) == set(build(1).edges)
        assert set(build(1).edges) != set(build(2).edges)
        rng = np.random.default_rng(1)
        assert set(build(rng).edges) == set(build(1).edges)


def test_random_families_are_those_of_networkx():
    share = np.mean(
        [topologies.random(40, probability=0.1, seed=seed).number_of_edges() for seed in range(40)]
    )
    assert abs(share - 156) < 5 * math.sqrt(1560 * 0.09 / 40)
    assert topologies.random(5, probability=1.0).number_of_edges() == 20
    both = topologies.random(30, probability=0.2, symmetric=True)
    assert set(both.edges) == {(v, u) for u, v in both.edges}
    ring = topologies.small_world(12, 4, 0.0)
    assert nx.is_isomorphic(ring, nx.circulant_graph(12, [1, 2]).to_directed())
    rewired = topologies.small_world(12, 4, 0.5)
    assert rewired.number_of_edges() == 48
    assert not nx.is_isomorphic(ring, rewired)
    hubs = topologies.scale_free(200, 2)
    assert hubs.number_of_edges() == 2 * 2 * 198
    degrees = sorted(degree for _, degree in hubs.out_degree)
    assert degrees[0] == 2
    assert degrees[-1] > 20


# populations


def test_modules_are_linked_as_drawn():
    chain = topologies.modular(4, 3)
    kinds = {
        kind: {(u, v) for u, v, k in chain.edges(data="kind") if k == kind}
        for kind in ("recurrent", "between")
    }
    assert kinds["recurrent"] == {(i, i) for i in range(4)}
    assert kinds["between"] == {(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)}
    one_way = topologies.modular(nx.DiGraph([("a", "b")]), 3)
    assert set(one_way.edges) == {("a", "b"), ("a", "a"), ("b", "b")}
    assert topologies.modular(1, 3).number_of_edges() == 1
    assert Topology(topologies.modular(1, 3)).edge_kinds == ("between", "recurrent")


def boltzmann(weights, bias, temperature):
    """The distribution of all states (v, h), from their energies."""
    states = np.asarray(list(itertools.product((-1, 1), repeat=sum(weights.shape))))
    hidden, visible = states[:, weights.shape[1] :], states[:, : weights.shape[1]]
    energy = -np.einsum("si,ij,sj->s", hidden, weights, visible) - visible @ bias
    heights = np.exp(-(energy - energy.min()) / temperature)
    return heights / heights.sum()


def test_a_boltzmann_wiring_samples_the_enumerated_distribution():
    rng = np.random.default_rng(0)
    weights, bias = (
        rng.normal(size=(2, 3)).astype(np.float32),
        rng.normal(size=3).astype(np.float32),
    )
    topology = Topology(topologies.bipartite(3, 2))
    network = dx.Network(
        topology,
        {"forward": dx.dense(), "backward": dx.dense()},
        dx.glauber(1.5),
        biases={"visible": dx.bias(lambda key, shape, dtype: jnp.asarray(bias).reshape(shape))},
        key=jax.random.key(0),
    )
    for edge, matrix in {("visible", "hidden"): weights, ("hidden", "visible"): weights.T}.items():
        coupling = eqx.tree_at(lambda c: c.weight, network[edge], jnp.asarray(matrix))
        network = network.replace_val(edge, coupling)
    chains = 400
    start = jax.tree.map(jnp.ones_like, dx.GraphState(topology, chains))

    def seen(state):
        return jnp.concatenate([state["visible"], state["hidden"]], axis=1)

    _, frames = dx.rollout(
        network, start, 120, schedule=dx.node_by_node(), observe=seen, key=jax.random.key(1)
    )
    places = (np.asarray(frames[20:]) > 0) @ (2 ** np.arange(5)[::-1])
    frequencies = np.bincount(places.ravel(), minlength=32) / places.size
    expected = boltzmann(weights, bias, 1.5)
    # 40,000 correlated samples: by this much a chance deviation is out of reach, and a wrong
    # distribution is not
    assert abs(frequencies - expected).max() < 0.01
    assert abs(frequencies - boltzmann(-weights, bias, 1.5)).max() > 0.05


def test_large_ones_compile_to_one_group():
    topology = Topology(topologies.lattice((40, 40)))
    assert len(topology.groups) == 1
    small, large = (
        dx.Network(
            Topology(topologies.lattice((n, n))),
            {"lateral": dx.scale()},
            dx.sign,
            key=jax.random.key(0),
        )
        for n in (20, 40)
    )
    counts = [
        compilations(lambda n=n: dx.step(n, dx.GraphState(n.topology))) for n in (small, large)
    ]
    assert counts[0] == counts[1]


# both ways


@pytest.mark.parametrize(
    "drawn",
    [
        lambda: topologies.lattice((3, 4)),
        lambda: topologies.lattice((3, 4), neighbours=[(0, 1), (1, 0)]),
        lambda: topologies.random(12, degree=4, symmetric=True),
        lambda: BUILT["parallel"](),
    ],
    ids=["lattice", "one way", "random", "parallel"],
)
def test_reciprocal_edges_are_pairs_of_two_kinds(drawn):
    graph = drawn()
    both = topologies.reciprocal(graph)
    topology = Topology(both)
    kinds = dict.fromkeys(topology.edges)
    keys = {"keys": True} if both.is_multigraph() else {}
    for *edge, kind in both.edges(data="kind", **keys):
        kinds[tuple(edge)] = kind
    there = [edge for edge, kind in kinds.items() if kind == "lateral" and edge[0] != edge[1]]
    back = [edge for edge, kind in kinds.items() if kind == "back"]
    assert sorted((v, u, *key) for u, v, *key in there) == sorted(back)
    undirected = {
        (frozenset(edge[:2]), *edge[2:]) for edge in Topology(graph).edges if edge[0] != edge[1]
    }
    assert {(frozenset(edge[:2]), *edge[2:]) for edge in there} == undirected
    # which of both is the reverse is no matter of drawing
    redrawn = type(graph)(**graph.graph)
    redrawn.add_nodes_from(reversed(list(graph.nodes(data=True))))
    redrawn.add_edges_from(reversed(list(graph.edges(data=True, **keys))))
    again = topologies.reciprocal(redrawn)
    assert {tuple(e): kind for *e, kind in again.edges(data="kind", **keys)} == kinds
    couplings = {"lateral": dx.scale(0.5), "back": dx.transpose("lateral")}
    dx.Network(topology, couplings, dx.tanh, key=jax.random.key(0))


def test_built_networks_share_their_weights_both_ways():
    chain = {"forward": dx.dense(), "backward": dx.transpose("forward"), "recurrent": dx.dense()}
    windows = {"forward": dx.dense(), "backward": dx.transpose("forward")}
    made = {
        # a short chain has no edge of the kind that it names
        topologies.sequential([3, 2]): chain,
        topologies.sequential([4, 3, 3, 2]): chain,
        topologies.convolutional((6, 6, 1), 3, features=2, backward=True): windows,
        topologies.bipartite(4, 3): windows,
    }
    for graph, couplings in made.items():
        topology = Topology(graph)
        network = dx.Network(topology, couplings, dx.tanh, key=jax.random.key(0))
        state = dx.GraphState(topology, 2)
        state = state.replace(
            jax.tree.map(
                lambda a: np.cos(np.arange(a.size).reshape(a.shape)).astype("f"), state.arrays
            )
        )
        messages = network.messages(state)
        for u, v, kind in graph.edges(data="kind"):
            if kind == "backward":
                said = np.asarray(state[u]).reshape(2, -1) @ np.asarray(network[v, u].weight)
                np.testing.assert_allclose(messages[u, v].reshape(2, -1), said, atol=1e-5)
