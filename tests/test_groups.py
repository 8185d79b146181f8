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
    """The position of a node's array, and its shape."""
    return list(topology.arrays).index(topology.view(node).array), topology.shape(node)


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
        ends = group.sender_array, group.sender_shape, group.receiver_array, group.receiver_shape
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
        for end, index, array, rows in (
            (0, group.sender_index, group.sender_array, group.senders),
            (1, group.receiver_index, group.receiver_array, group.receivers),
        ):
            spec = topology.layout.arrays[array]
            if index is not None:
                meant = np.arange(spec.rows).reshape(spec.lead)[index]
                assert np.array_equal(meant[None] if spec.shared else meant, rows)
            if spec.shared:
                regular = is_regular(topology.view(topology.edge(int(group.edges[0]))[end]).index)
                assert (index is not None) == (len(group.edges) == 1 and regular)
        if (
            group.receiver_index is not None
            and not topology.layout.arrays[group.receiver_array].shared
        ):
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
def test_bundles_hold_every_edge_in_the_place_of_its_group(graph):
    topology = Topology(graph)
    assert len(topology.places) == len(topology.groups)
    held = [at for bundles in topology.bundles.values() for b in bundles for at in b.edges.tolist()]
    assert sorted(held) == list(range(len(topology.edges)))
    for group, where in zip(topology.groups, topology.places, strict=True):
        bundle = topology.bundles[group.kind][where.bundle]
        assert bundle.tie == group.tie
        assert where.size == len(bundle.edges)
        assert bundle.edges[where.start : where.stop].tolist() == group.edges.tolist()
    for kind, bundles in topology.bundles.items():
        labels = [topology.groups[b.groups[0]].bundle for b in bundles]
        assert len(set(labels)) == len(labels)
        assert all(
            topology.groups[i].bundle == label
            for b, label in zip(bundles, labels, strict=True)
            for i in b.groups
        )
        assert {b.kind for b in bundles} == {kind}


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
        kind: [len(b.edges) for b in bundles] for kind, bundles in topology.bundles.items()
    } == {
        "edge": [3, 1, 3],
        "more": [1],
    }
    assert [b.tie for b in topology.bundles["edge"]] == [None, None, "t"]


@given(st.lists(st.integers(0, 20), max_size=50), st.sampled_from([1, 2**40, 2**57]))
def test_stable_order_is_numpys(values, scale):
    column = np.asarray(values, np.int64) * scale
    assert stable_order(column).tolist() == np.argsort(column, kind="stable").tolist()
