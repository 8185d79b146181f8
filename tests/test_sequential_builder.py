"""The chain: counts of nodes and edges."""

import networkx as nx
import numpy as np
import pytest

from darnax import Topology, topologies

sizes = pytest.mark.parametrize("sizes", [[3, 2], [(3,), 4, (2, 2, 1)], [2, 2, 2, 2], [1] * 9])


@sizes
@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("backward", [True, False])
def test_counts(sizes, recurrent, backward):
    graph = topologies.sequential(sizes, recurrent=recurrent, backward=backward)
    count, hidden = len(sizes), len(sizes) - 2
    kinds = [kind for *_, kind in graph.edges(data="kind")]
    assert list(graph) == list(range(count))
    assert kinds.count("forward") == count - 1
    assert kinds.count("recurrent") == hidden * recurrent
    assert kinds.count("backward") == hidden * backward
    assert nx.number_of_selfloops(graph) == hidden * recurrent
    assert [kind for _, kind in graph.nodes(data="kind")] == [
        "input",
        *["hidden"] * hidden,
        "output",
    ]


@sizes
def test_edges_join_neighbours(sizes):
    graph = topologies.sequential(sizes)
    last = len(sizes) - 1
    drawn = {(u, v): kind for u, v, kind in graph.edges(data="kind")}
    assert drawn == (
        {(i, i + 1): "forward" for i in range(last)}
        | {(i + 1, i): "backward" for i in range(1, last)}
        | {(i, i): "recurrent" for i in range(1, last)}
    )


def test_compiles_to_inputs_outputs_and_shapes():
    topology = Topology(topologies.sequential([(4, 4, 1), 8, (np.int64(3),)]))
    assert (topology.inputs, topology.outputs) == ((0,), (2,))
    assert [topology.shape(node) for node in topology.nodes] == [(4, 4, 1), (8,), (3,)]
    assert topology.nodes == range(3)


def test_kinds_are_known_where_a_short_chain_has_no_such_edge():
    topology = Topology(topologies.sequential([3, 2]))
    assert topology.edge_kinds == ("backward", "forward", "recurrent")
    assert topology.node_kinds == ("hidden", "input", "output")
    assert Topology(topologies.sequential([3, 2], recurrent=False)).edge_kinds == (
        "backward",
        "forward",
    )
    assert Topology(topologies.sequential([3, 2], backward=False)).edge_kinds == (
        "forward",
        "recurrent",
    )


def test_a_user_edits_it_before_compiling():
    graph = topologies.sequential([3, 5, 5, 2])
    graph.add_edge(0, 3, kind="skip")
    graph.add_node("teacher", shape=2, kind="teacher", role="input")
    topology = Topology(graph)
    assert (0, 3) in topology.edges
    assert "skip" in topology.edge_kinds
    assert topology.inputs == (0, "teacher")


def test_equal_to_the_wiring_given_as_arrays():
    graph = topologies.sequential([4, 4, 4])
    ends = np.asarray(graph.edges).T
    kinds = [kind for *_, kind in graph.edges(data="kind")]
    topology = Topology.from_edges(
        *ends, shape=4, kind=["input", "hidden", "output"], edge_kind=kinds, inputs=[0], outputs=[2]
    )
    assert topology == Topology(graph)
