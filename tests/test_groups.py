"""Edge groups: every edge once, at the right addresses, sorted by receiver, whatever the
drawing."""

import networkx as nx
import numpy as np
import pytest
from helpers import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

from darnax import Topology
from darnax.topologies.tables import stable_order
from darnax.topologies.views import is_regular

QUICK = settings(max_examples=60, deadline=None)
cases = pytest.mark.parametrize("case", CASES)


def place(topology, node):
    """The name of a node's array, and its shape."""
    return topology.view(node).array, topology.shape(node)


def address(topology, node):
    """The rows of a node, from what the topology tells a user."""
    view = topology.view(node)
    spec = topology.arrays[view.array]
    return np.arange(spec.rows).reshape(spec.lead)[view.index]


def check_groups(topology):
    drawn = dict(_edges(topology))
    found = [topology.edge(at) for group in topology.groups for at in group.edges.tolist()]
    assert sorted(map(repr, found)) == sorted(map(repr, topology.edges))
    seen = set()
    for group in topology.groups:
        ends = group.sender.name, group.sender_shape, group.receiver.name, group.receiver_shape
        label = (group.kind, group.tie, *ends, group.self_loop)
        assert label not in seen
        seen.add(label)
        previous = (-1, -1)
        for at, sender, receiver in zip(
            group.edges.tolist(), group.senders, group.receivers, strict=True
        ):
            u, v, *_ = edge = topology.edge(at)
            assert drawn[edge] == (group.kind, group.tie)
            assert group.self_loop == (u == v)
            assert ends == (*place(topology, u), *place(topology, v))
            assert np.array_equal(sender, address(topology, u))
            assert np.array_equal(receiver, address(topology, v))
            here = int(topology.layout.first_row[topology.index(v)]), int(topology.edge_hashes[at])
            assert previous < here
            previous = here
        for end, index, spec, rows in (
            (0, group.sender_index, group.sender, group.senders),
            (1, group.receiver_index, group.receiver, group.receivers),
        ):
            if index is not None:
                meant = np.arange(spec.rows).reshape(spec.lead)[index]
                assert np.array_equal(meant[None] if spec.shared else meant, rows)
            if spec.shared:
                regular = is_regular(topology.view(topology.edge(int(group.edges[0]))[end]).index)
                assert (index is not None) == (len(group.edges) == 1 and regular)
        if group.receiver_index is not None and not group.receiver.shared:
            assert group.receiver_index[0].step == 1


def _edges(topology):
    graph = topology.to_networkx()
    keys = {"keys": True} if graph.is_multigraph() else {}
    for *edge, data in graph.edges(data=True, **keys):
        yield tuple(edge), (data["kind"], data.get("tie"))


@cases
def test_groups_of_the_table(case):
    check_groups(Topology(CASES[case].graph()))


@st.composite
def graphs(draw):
    """Nodes of two shapes and kinds and views of a shared array, edges of two kinds, some of them
    tied."""
    graph = nx.MultiDiGraph(arrays={"line": 6})
    sorts = [{"shape": 2}, {"shape": 3}, {"shape": 2, "kind": "k"}]
    sorts += [
        {"array": "line", "index": i, "kind": kind}
        for i in (slice(0, 3), slice(2, 4), 5, [4, 0, 1], [3, 2])
        for kind in "pq"
    ]
    names = list(range(draw(st.integers(1, 7))))
    for name in names:
        graph.add_node(name, **draw(st.sampled_from(sorts)))
    for i in range(draw(st.integers(0, 12))):
        tie = draw(st.sampled_from([{}, {}, {"tie": "t"}]))
        ends = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        graph.add_edge(*ends, key=i, kind=draw(st.sampled_from("ab")), **tie)
    return graph


@QUICK
@given(graphs())
def test_groups_of_random_graphs(graph):
    check_groups(Topology(graph))


@QUICK
@given(graphs(), st.randoms())
def test_groups_do_not_depend_on_the_order_of_the_edges(graph, random):
    edges = list(graph.edges(keys=True, data=True))
    random.shuffle(edges)
    other = nx.MultiDiGraph(**graph.graph)
    other.add_nodes_from(graph.nodes(data=True))
    other.add_edges_from(edges)
    one, two = (
        [[t.edge(at) for at in g.edges.tolist()] for g in t.groups]
        for t in map(Topology, (graph, other))
    )
    assert one == two


@QUICK
@given(graphs())
def test_parameter_blocks_hold_every_edge_in_the_slice_of_its_group(graph):
    topology = Topology(graph)
    blocks_by_kind = topology.parameter_blocks
    held = [edge for bs in blocks_by_kind.values() for b in bs for edge in b.edges.tolist()]
    assert sorted(held) == list(range(len(topology.edges)))
    for group in topology.groups:
        where = group.parameters
        block = blocks_by_kind[group.kind][where.block]
        assert block.tie == group.tie
        assert where.size == len(block.edges)
        assert block.edges[where.start : where.stop].tolist() == group.edges.tolist()
    for kind, blocks in blocks_by_kind.items():
        labels = [{shared_by(topology.groups[i]) for i in block.groups} for block in blocks]
        assert all(len(label) == 1 for label in labels)
        assert len(set(map(frozenset, labels))) == len(labels)
        assert {block.kind for block in blocks} == {kind}


def shared_by(group):
    """What the edges of a parameter block have in common."""
    if group.tie is not None:
        return group.kind, group.tie
    return group.kind, None, group.sender_shape, group.receiver_shape, group.self_loop


def chain(n, step=1, **attributes):
    """n pairs of nodes; every `step`-th sender."""
    graph = nx.DiGraph()
    graph.add_nodes_from((("u", i) for i in range(n * step)), shape=2, kind="u")
    graph.add_nodes_from((("v", i) for i in range(n)), shape=2, kind="v")
    graph.add_edges_from(((("u", i * step), ("v", i)) for i in range(n)), **attributes)
    return Topology(graph)


def test_regular_addresses_are_slices():
    (group,) = chain(5).groups
    assert (group.sender_index, group.receiver_index) == ((slice(0, 5, 1),), (slice(0, 5, 1),))
    (group,) = chain(5, step=3).groups
    assert (group.sender_index, group.receiver_index) == ((slice(0, 13, 3),), (slice(0, 5, 1),))


def test_irregular_addresses_are_not():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(6), shape=())
    graph.add_edges_from([(0, 1), (1, 3), (5, 5), (4, 0), (2, 1)])
    loops = {group.self_loop: group for group in Topology(graph).groups}
    assert loops[False].receiver_index is None
    assert loops[False].sender_index is None
    assert loops[True].sender_index == loops[True].receiver_index == (slice(5, 6, 1),)


def test_a_hub_is_heard_by_all_and_hears_all():
    graph = nx.star_graph(6).to_directed()
    for node in graph:
        graph.nodes[node]["shape"] = 3
    (group,) = Topology(graph).groups
    assert group.receivers.tolist() == [0] * 6 + list(range(1, 7))
    assert sorted(group.senders.tolist()[:6]) == list(range(1, 7))
    assert group.senders.tolist()[6:] == [0] * 6


def test_self_loops_ties_and_kinds_part_groups_and_ties_join_bundles():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(3), shape=2)
    graph.add_nodes_from(range(3, 6), shape=2, kind="other")
    graph.add_edges_from([(0, 1), (1, 2), (0, 0), (3, 4)])
    graph.add_edges_from([(1, 0), (4, 3), (2, 2)], tie="t")
    graph.add_edge(0, 2, kind="more")
    topology = Topology(graph)
    assert len(topology.groups) == 3 + 3 + 1
    assert {
        kind: [len(b.edges) for b in bundles] for kind, bundles in topology.parameter_blocks.items()
    } == {
        "edge": [3, 1, 3],
        "more": [1],
    }
    assert [b.tie for b in topology.parameter_blocks["edge"]] == [None, None, "t"]


@given(st.lists(st.integers(0, 20), max_size=50), st.sampled_from([1, 2**40, 2**57]))
def test_stable_order_is_numpys(values, scale):
    column = np.asarray(values, np.int64) * scale
    assert stable_order(column).tolist() == np.argsort(column, kind="stable").tolist()
