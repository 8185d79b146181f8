"""jraph is the definition: what a network passes on is what a model of jraph computes."""

import functools

import jax
import jax.numpy as jnp
import jraph
import networkx as nx
import numpy as np
import pytest
from helpers import CASES

import darnax as dx
from darnax.testing import random_state

KINDS = [(case, kind) for case in CASES for kind in CASES[case].network().couplings]


@functools.cache
def answers(case):
    """What jraph and the network make of a state of three samples, by one program: the graph of
    every kind behind the model, the messages, and the local field."""
    network = CASES[case].network()
    state = random_state(network.topology, 3)
    messages, field = {}, {}

    # names of nodes are no keys of a pytree: JAX would sort them
    @jax.jit
    def run(network, state):
        graphs = [network.as_jraph(kind)(state.graphs_tuple(kind)) for kind in network.couplings]
        messages.update(network.messages(state))
        field.update(network.local_field(state))
        return graphs, list(messages.values()), list(field.values())

    graphs, sent, received = jax.tree.map(np.asarray, run(network, state))
    graphs = dict(zip(network.couplings, graphs, strict=True))
    messages, field = (
        dict(zip(names, values, strict=True))
        for names, values in ((messages, sent), (field, received))
    )
    return network, state, graphs, messages, field


def leaves(topology, features, nodes):
    """The features of every node, from those of a graph."""
    if not isinstance(features, dict):
        return {node: features[i] for i, node in enumerate(nodes)}
    found = {}
    for i, node in enumerate(nodes):
        array, shape = topology.view(node).array, topology.shape(node)
        name = array if array in features else f"{array}{shape}"
        found[node] = features[name][i]
    return found


def nodes_of(topology, kind):
    """The nodes of the graph of a kind, as `graphs_tuple` says: of all arrays and shapes at ends."""
    edges = [
        edge for edge, name in zip(topology.edges, kinds_of(topology), strict=True) if name == kind
    ]
    places = {(topology.view(v).array, topology.shape(v)) for edge in edges for v in edge[:2]}
    return edges, [
        v for v in topology.nodes if (topology.view(v).array, topology.shape(v)) in places
    ]


def kinds_of(topology):
    return [topology.columns.edge_classes[i][0] for i in topology.columns.edge_class]


@pytest.mark.parametrize("case", CASES)
def test_the_local_field_is_what_jraph_computes(case):
    """Sums of messages over all kinds, added up on the cells, and biases."""
    network, state, graphs, _, found = answers(case)
    topology = network.topology
    field = {name: np.zeros(a.shape, np.float32) for name, a in state.arrays.items()}
    for kind in network.couplings:
        _, nodes = nodes_of(topology, kind)
        for b in range(3):
            own = slice(b * len(nodes), (b + 1) * len(nodes))
            sample = jax.tree.map(lambda x, own=own: x[own], graphs[kind].nodes)
            for node, value in leaves(topology, sample, nodes).items():
                view = topology.view(node)
                field[view.array][(*view.index, ..., b)] += value
    for by_array in network.biases.values():
        for name, bias in by_array.items():
            field[name] += np.asarray(bias)[..., None]
    for node, value in found.items():
        view = topology.view(node)
        expected = np.moveaxis(field[view.array][view.index], -1, 0)
        np.testing.assert_allclose(value, expected, atol=2e-5)


@pytest.mark.parametrize(("case", "kind"), KINDS)
def test_messages_are_the_edges_of_the_model(case, kind):
    network, _, graphs, messages, _ = answers(case)
    edges, _ = nodes_of(network.topology, kind)
    for j, edge in enumerate(edges):
        for b in range(3):
            i = b * len(edges) + j
            own = jax.tree.map(lambda x, i=i: x[i : i + 1], graphs[kind].edges)
            (value,) = leaves(network.topology, own, [edge[1]]).values()
            np.testing.assert_allclose(value, messages[edge][b], atol=2e-6)


def test_outside_of_a_program_it_is_a_model_of_jraph_with_the_same_answers():
    network, state, graphs, messages, field = answers("scalars")
    found = network.as_jraph("synapse")(state.graphs_tuple("synapse"))
    assert isinstance(found, jraph.GraphsTuple)
    jax.tree.map(np.testing.assert_allclose, found, graphs["synapse"])
    for expected, eager in (messages, network.messages(state)), (field, network.local_field(state)):
        assert eager.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(eager[name], expected[name], atol=2e-6)
    moved = state.from_graphs_tuple("synapse", found)
    assert moved.topology == state.topology


def test_kernels_compute_what_jraph_computes():
    """On wirings that have kernels, where the small graphs of the table have none."""
    lattice = dx.Topology(dx.topologies.lattice((20, 20), periodic=True))
    dense = nx.gnp_random_graph(40, 0.3, seed=0, directed=True)
    nx.set_node_attributes(dense, 4, "shape")
    for topology, coupling in (lattice, dx.scale(0.5)), (dx.Topology(dense), dx.dense()):
        (kind,) = topology.parameter_blocks
        network = dx.Network(topology, {kind: coupling}, dx.tanh, key=jax.random.key(0))
        assert network.message_passing[0].kernel is not None
        state = random_state(topology, 2)

        @jax.jit
        def both(network, state, kind=kind, topology=topology):
            graphs = network.as_jraph(kind)(state.graphs_tuple(kind))
            field = network.local_field(state)
            return graphs.nodes, jnp.stack([field[node] for node in topology.nodes], axis=1)

        nodes, found = both(network, state)
        np.testing.assert_allclose(np.reshape(nodes, found.shape), found, atol=2e-5)


def test_the_model_goes_through_jit_and_grad():
    network = CASES["chain"].network()
    state = random_state(network.topology, 2)

    def total(network, state):
        graphs = network.as_jraph("forward")(state.graphs_tuple("forward"))
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(graphs.nodes))

    change = jax.jit(jax.grad(total, allow_int=True))(network, state)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(change.couplings))


def test_an_unknown_kind_is_named():
    network = CASES["chain"].network()
    with pytest.raises(ValueError, match="`edge_kind` 'sideways' has no edges"):
        network.as_jraph("sideways")
