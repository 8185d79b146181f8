"""Topologies: equality, the ways out and back, and what they read."""

import copy
import gc
import json
import math
import os
import pickle
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import CASES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import darnax as dx
from darnax import Topology
from darnax.testing import mark, redrawn
from darnax.topologies import serial
from darnax.topologies.memory import remembered
from darnax.topologies.names import hashes

QUICK = settings(max_examples=60, deadline=None)


def drawn(nodes, edges=(), multi=False, inputs=(), outputs=(), **attributes):
    """A graph from `{name: attributes or shape}` and `(u, v, attributes)` or
    `(u, v, key, attributes)`."""
    graph = nx.MultiDiGraph(**attributes) if multi else nx.DiGraph(**attributes)
    for name, given_ in nodes.items():
        graph.add_node(name, **(given_ if isinstance(given_, dict) else {"shape": given_}))
    graph.add_edges_from(edges)
    return mark(graph, inputs=inputs, outputs=outputs)


def _names():
    nodes = {"a": 2, 7: 2, -1: (), ("a", 1): 2, ("a", ("b", 0)): 2, 2**70: 1, "": 1, "é\n": 1}
    names = list(nodes)
    return drawn(
        nodes,
        [(u, v, {}) for u in names[:4] for v in names[2:]],
        inputs=[("a", 1)],
        outputs=[2**70, "a"],
    )


def _attributes():
    edges = [
        (0, 1, {"weight": 1, "delay": 2}), (0, 2, {"weight": 0.5}), (1, 1, {"colour": "red"}), (2, 0, {"delay": None}),
        (2, 1, {"weight": float("inf"), "key": 3, "u_of_edge": 4}), (2, 2, {"kind": "k", "tie": "t", "on": True}),
    ]  # fmt: skip
    return drawn(dict.fromkeys(range(3), 2), edges)


def _keys():
    edges = [
        ("a", "b", "x", {"weight": 1.0}), ("b", "a", 0, {}), ("a", "b", ("y", 1), {"kind": "other", "tie": "t"}),
        ("a", "a", 0, {}), ("a", "a", 1, {"weight": 2.0}), ("a", "b", 5, {}),
    ]  # fmt: skip
    return drawn({"a": 2, "b": 3}, edges, multi=True)


def _strided():
    nodes = {
        "whole": {"array": "image"},
        "odd": {"array": "image", "index": (slice(None, None, 2), slice(1, None, 3))},
        "row": {"array": "image", "index": -1},
        "dot": {"array": "image", "index": (2, 3), "kind": "dot"},
        "last": {"array": "other", "index": (..., 0)},
        "scalar": {"array": "one", "dtype": "int8"},
    }
    arrays = {"image": (5, 7), "other": (2, 3, 4), "one": (), "nobody": 3}
    return drawn(
        nodes, [("odd", "row", {}), ("dot", "dot", {}), ("last", "scalar", {})], arrays=arrays
    )


GRAPHS = {name: case.graph for name, case in CASES.items()} | {
    "names": _names,
    "attributes": _attributes,
    "keys": _keys,
    "strided": _strided,
    "no kind of edge": lambda: dx.topologies.sequential([2, 3], recurrent=False),
}
graphs = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())


# equality, and the ways out and back


@graphs
def test_equal_drawings_are_equal(graph):
    one, two = Topology(graph()), Topology(graph())
    assert one is not two
    assert one == two
    assert hash(one) == hash(two)
    assert one.to_json() == two.to_json()
    assert one != "another thing"


@graphs
@pytest.mark.parametrize(
    "there_and_back", [pickle.dumps, Topology.to_json, copy.deepcopy, copy.copy]
)
def test_copies_are_the_very_object(graph, there_and_back):
    topology = Topology(graph())
    back = {pickle.dumps: pickle.loads, Topology.to_json: Topology.from_json}.get(
        there_and_back, lambda same: same
    )
    assert back(there_and_back(topology)) is topology


@graphs
def test_networkx_gives_an_equal_topology(graph):
    topology = Topology(graph())
    again = topology.to_networkx()
    assert Topology(again) == topology
    assert topology.to_networkx() is not again
    assert list(again) == list(topology.nodes) == list(graph())


def test_copies_outlive_the_original():
    for there, back in ((pickle.dumps, pickle.loads), (Topology.to_json, Topology.from_json)):
        topology = Topology(_keys())
        kept, edges, alive = there(topology), topology.edges, weakref.ref(topology)
        del topology
        gc.collect()
        assert alive() is None, "interning must not keep a topology alive"
        assert back(kept).edges == edges
        assert back(kept) == Topology(_keys())


def test_graph_is_not_kept():
    graph = _keys()
    topology = Topology(graph)
    graph.add_edge("b", "b")
    graph.nodes["a"]["shape"] = 9
    topology.to_networkx().add_node("c", shape=1)
    assert topology == Topology(_keys())
    assert topology.shape("a") == (2,)


def test_columns_are_read_only():
    topology = Topology(_attributes())
    for column in topology.columns.long():
        with pytest.raises(ValueError, match="read-only"):
            column[...] = 0


def test_from_edges_leaves_the_callers_arrays_alone():
    senders, receivers = np.asarray([0, 1], np.int32), np.asarray([1, 0], np.int32)
    topology = Topology.from_edges(senders, receivers)
    senders[0] = 1
    assert topology.edges == [(0, 1), (1, 0)]


CHANGES = {
    "shape": lambda g: g.nodes["b"].update(shape=(3, 1)),
    "kind": lambda g: g.nodes["b"].update(kind="other"),
    "dtype": lambda g: g.nodes["b"].update(dtype="int8"),
    "node": lambda g: g.add_node("c", shape=1),
    "edge": lambda g: g.add_edge("b", "b"),
    "edge kind": lambda g: g.edges["a", "b"].update(kind="other"),
    "tie": lambda g: g.edges["a", "b"].update(tie="t"),
    "weight": lambda g: g.edges["a", "b"].update(weight=0.25),
    "integer weights": lambda g: [
        d.update(weight=int(d["weight"])) for *_, d in g.edges(data=True)
    ],
    "no weight": lambda g: g.edges["a", "b"].pop("weight"),
    "name of the weight": lambda g: g.edges["a", "b"].update(width=g.edges["a", "b"].pop("weight")),
    "inputs": lambda g: g.nodes["a"].update(role="input"),
    "outputs": lambda g: g.nodes["a"].update(role="output"),
    "held": lambda g: g.nodes["a"].update(role="held"),
    "declared array": lambda g: g.graph.update(arrays={"image": 3}),
    "index": lambda g: g.nodes["v"].update(index=slice(1, 3)),
    "known kinds": lambda g: g.graph.update(edge_kinds=["edge", "another"]),
}


def _plain():
    nodes = {"a": 2, "b": 3, "v": {"array": "image", "index": slice(0, 2)}}
    return drawn(
        nodes, [("a", "b", {"weight": 1.0}), ("b", "a", {"weight": 2.0})], arrays={"image": 4}
    )


@pytest.mark.parametrize("change", CHANGES)
def test_every_difference_counts(change):
    graph = _plain()
    CHANGES[change](graph)
    assert Topology(graph) != Topology(_plain())


@graphs
def test_another_order_of_drawing_is_another_topology_with_the_same_hashes(graph):
    original = graph()
    one, two = Topology(original), Topology(redrawn(original))
    assert len(one) == 1 or one != two
    assert dict(zip(one.nodes, one.node_hashes, strict=True)) == dict(
        zip(two.nodes, two.node_hashes, strict=True)
    )
    assert dict(zip(one.edges, one.edge_hashes, strict=True)) == dict(
        zip(two.edges, two.edge_hashes, strict=True)
    )
    assert [g.parameters for g in one.groups] == [g.parameters for g in two.groups]


@graphs
def test_hashes_tell_nodes_and_edges_apart(graph):
    topology = Topology(graph())
    assert len(set(topology.node_hashes.tolist())) == len(topology)
    assert len(set(topology.edge_hashes.tolist())) == len(topology.edges)


def test_names_that_look_alike_have_hashes_of_their_own():
    names = [
        "a",
        ("a",),
        (("a",),),
        ("a", "b"),
        (("a",), "b"),
        ("a", ("b",)),
        ("b", "a"),
        (),
        ((),),
        "",
        1,
        (1,),
        "1",
    ]
    names += [
        ("1",),
        -1,
        2**63,
        -(2**63),
        (0,),
        0,
        ((), ()),
        ("a", 0),
        (0, "a"),
        ((1,),),
        2**64 + 1,
    ]
    ours = hashes(names)
    assert len(set(ours.tolist())) == len(names)
    # and each is what it is by itself, whatever stands beside it
    assert [int(hashes([name])[0]) for name in names] == ours.tolist()


def layout_of_a_drawing():
    """Everything that could depend on the order of a set or on Python's hash."""
    names = ["ni", "x", ("x", 1), "in", 5]
    nodes = {name: {"shape": 2, "kind": str(name)} for name in names}
    edges = [(u, v, {"kind": str(u), "tie": str(v)}) for u in names for v in names]
    topology = Topology(drawn(nodes, edges), inputs={"in", "ni"})
    groups = [[group.kind, group.tie, group.edges.tolist()] for group in topology.groups]
    return json.dumps(
        [topology.to_json(), topology.edge_hashes.tolist(), list(topology.arrays), groups]
    )


def test_another_process_finds_the_same_layout_and_hashes():
    here = os.path.dirname(__file__)
    script = "import test_topology; print(test_topology.layout_of_a_drawing())"
    path = os.pathsep.join([here, os.path.dirname(os.path.dirname(dx.__file__))])
    other = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == layout_of_a_drawing()


# wiring that is already arrays


@st.composite
def wirings(draw):
    n = draw(st.integers(1, 6))
    pairs = [(u, v) for u in range(n) for v in range(n)]
    multi = draw(st.booleans())
    edges = draw(st.lists(st.sampled_from(pairs), max_size=15, unique=not multi))
    keys = (
        [draw(st.sampled_from([0, i + 1, f"k{i}"])) for i in range(len(edges))] if multi else None
    )
    if keys is not None:  # networkx would merge equal ones
        kept = list(dict.fromkeys(zip(edges, keys, strict=True)))
        edges, keys = [edge for edge, _ in kept], [key for _, key in kept]
    kinds = draw(st.lists(st.sampled_from("abc"), min_size=len(edges), max_size=len(edges)))
    weights = draw(st.lists(st.integers(-3, 3), min_size=len(edges), max_size=len(edges)))
    node_kinds = draw(st.lists(st.sampled_from("pq"), min_size=n, max_size=n))
    return n, edges, keys, kinds, weights, node_kinds


@QUICK
@given(wirings())
def test_from_edges_equals_the_drawing(wiring):
    n, edges, keys, kinds, weights, node_kinds = wiring
    graph = nx.DiGraph() if keys is None else nx.MultiDiGraph()
    graph.add_nodes_from((i, {"shape": (2, 3), "kind": kind}) for i, kind in enumerate(node_kinds))
    attributes = [
        {"kind": kind, "weight": weight} for kind, weight in zip(kinds, weights, strict=True)
    ]
    named = [] if keys is None else [keys]
    graph.add_edges_from(
        zip(*(zip(*edges, strict=True) if edges else ((), ())), *named, attributes, strict=True)
    )
    senders, receivers = np.asarray(edges, np.uint8).reshape(-1, 2).T
    given_ = {"weight": np.asarray(weights)} if weights else {}
    topology = Topology.from_edges(
        senders, receivers, n=n, shape=(2, 3), kind=np.asarray(node_kinds), edge_kind=kinds, keys=keys,
        attributes=given_, inputs=[0], outputs=[n - 1],
    )  # fmt: skip
    assert topology == Topology(graph, inputs=[0], outputs=[n - 1])
    assert isinstance(topology.nodes, range)


def test_from_edges_takes_the_number_of_nodes_from_the_edges():
    topology = Topology.from_edges([2, 0], [0, 4])
    assert topology.nodes == range(5)
    assert topology.edges == [(0, 4), (2, 0)]
    assert Topology.from_edges([], [], n=3) == Topology(drawn(dict.fromkeys(range(3), ())))


def test_from_edges_of_many_nodes_draws_no_graph():
    rng = np.random.default_rng(0)
    pairs = rng.permutation(np.unique(rng.integers(0, 10**8, 60_000)))
    wiring = pairs // 10**4, pairs % 10**4
    one, two = (Topology.from_edges(*wiring, n=10**4, inputs=range(10**4)) for _ in range(2))
    assert one == two
    assert 10**4 not in one
    assert sum(len(group.edges) for group in one.groups) == len(pairs)


# what it reads


def test_reads():
    graph = _strided()
    graph.add_node("hidden", shape=4, kind="hidden", dtype=jnp.bfloat16)
    topology = Topology(graph, inputs=["row"], outputs=["hidden", "scalar"])
    assert list(topology.nodes) == list(graph)
    assert topology.edges == [("odd", "row"), ("dot", "dot"), ("last", "scalar")]
    assert (topology.inputs, topology.outputs) == (("row",), ("hidden", "scalar"))
    assert topology.shape("odd") == (3, 2)
    assert topology.shape("row") == (7,)
    assert topology.shape("dot") == topology.shape("scalar") == ()
    assert topology.kind("dot") == "dot"
    assert topology.node_kinds == ("dot", "hidden", "node")
    assert topology.edge_kinds == ("edge",)
    assert list(topology.arrays) == ["image", "other", "one", "nobody", "hidden(4,)bfloat16"]
    assert topology.arrays["one"].dtype == "int8"
    assert topology.view("dot").index == (2, 3)
    assert topology.view("hidden").array == "hidden(4,)bfloat16"
    assert len(topology) == 7
    assert "hidden" in topology
    assert "nobody" not in topology
    assert ["a list"] not in topology
    with pytest.raises(TypeError):
        topology.arrays["one"] = 0


def test_keys_appear_where_they_are_needed():
    keyed, plain = nx.MultiDiGraph(), nx.DiGraph()
    for graph in (keyed, plain):
        graph.add_nodes_from("ab", shape=2)
        graph.add_edge("a", "b")
    assert Topology(keyed) == Topology(plain)
    keyed.add_edge("a", "b", key="x")
    assert Topology(keyed).edges == [("a", "b", 0), ("a", "b", "x")]


def test_numbers_of_every_sort_are_columns():
    values = {
        "numpy": np.float32(0.5),
        "jax": jnp.float32(0.5),
        "int": np.int8(3),
        "bool": True,
        "big": 2**64,
        "word": "x",
    }
    graph = drawn({"a": 1, "b": 1}, [("a", "b", values), ("b", "a", {"numpy": 2})])
    attributes = Topology(graph).columns.attributes
    assert {name: column[0].tolist() for name, column in attributes.items()} == {
        "numpy": [0.5, 2.0], "jax": [0.5, 0.0], "int": [3, 0], "bool": [1, 0], "big": [2.0**64, 0.0],
    }  # fmt: skip
    assert attributes["numpy"][1] is None
    assert attributes["jax"][1].tolist() == [True, False]


def test_numpy_integers_are_names():
    graph = drawn({np.int64(0): 1, np.uint8(1): 1, ("a", np.int16(2)): 1}, outputs=[np.int32(0)])
    topology = Topology(graph, inputs=[np.int32(1)])
    assert [type(name) for name in topology.nodes[:2]] == [int, int]
    assert topology == Topology.from_json(topology.to_json())
    assert (topology.inputs, topology.outputs) == ((1,), (0,))
    assert ("a", 2) in topology


def test_arguments_go_before_what_is_marked():
    graph = drawn({"a": 1, "b": {"array": "x"}}, inputs=["a"], outputs=["a"], arrays={"x": 2})
    topology = Topology(graph, inputs=["b"], outputs=[], arrays={"x": 3})
    assert (topology.inputs, topology.outputs, topology.shape("b")) == (("b",), (), (3,))
    assert Topology(graph).inputs == ("a",)


def test_sets_are_read_in_the_order_of_drawing():
    graph = drawn(dict.fromkeys(["z", "a", "m"], 1))
    assert Topology(graph, inputs={"a", "m", "z"}).inputs == ("z", "a", "m")
    assert Topology(graph, inputs=["m", "z"]).inputs == ("m", "z")


def test_summary_tells_nodes_arrays_overlaps_and_edges():
    nodes = {i: {"shape": 5, "kind": "hidden"} for i in range(8)}
    nodes |= {
        f"p{i}": {"array": "image", "index": slice(i, i + 2), "kind": "patch"} for i in range(3)
    }
    nodes |= {"far": {"array": "image", "index": 7, "dtype": "float32"}}
    edges = [
        (0, 1, {"kind": "lateral"}),
        (2, 2, {"kind": "lateral"}),
        ("p0", 3, {"kind": "look", "tie": "eye"}),
    ]
    topology = Topology(drawn(nodes, edges, arrays={"image": 8}), inputs=[2, "far"], outputs=[2, 7])
    lines = topology.summary().splitlines()
    rows = {tuple(part.strip() for part in line.split("  ") if part.strip()) for line in lines}
    assert lines[0] == "Topology(12 nodes, 3 edges, 2 arrays)"
    assert {
        ("0, 1, 3, 4, 5 and 1 more", "6", "hidden", "(5,)", "float32", "hidden(5,)"),
        ("2", "1", "hidden", "(5,)", "float32", "hidden(5,)", "input, output"),
        ("7", "1", "hidden", "(5,)", "float32", "hidden(5,)", "output"),
        ("'p0', 'p1', 'p2'", "3", "patch", "(2,)", "float32", "image"),
        ("'far'", "1", "node", "()", "float32", "image", "input"),
        ("image", "3", "'p0', 'p1', 'p2'"),
        ("lateral", "1", "(5,) -> (5,)", "hidden(5,)", "hidden(5,)"),
        ("lateral", "1", "(5,) -> (5,)", "hidden(5,)", "hidden(5,)", "yes"),
        ("look", "eye", "1", "(2,) -> (5,)", "image", "hidden(5,)"),
    } <= rows


@graphs
def test_summary_of_anything(graph):
    topology = Topology(graph())
    text = topology.summary()
    assert repr(topology) in text
    assert all(array in text for group in topology.groups for array in [group.sender.name])
    assert max(map(len, text.splitlines())) < 200


# names are found alike in every topology


@pytest.mark.parametrize(
    "name",
    [1.0, True, np.True_, np.float64(1), "2", None, [1], {1}, slice(1), float("nan"), 1 + 0j],
)
@pytest.mark.parametrize("names", [range(3), [5, 1, 0], [1, "1"], ["a", 1], [(1, 2), 1]], ids=str)
def test_what_is_no_name_is_found_nowhere(names, name):
    topology = Topology(drawn(dict.fromkeys(names, 1)))
    assert name not in topology
    assert (1, 2.0) not in topology
    assert (True, 2) not in topology
    assert all(np.int8(i) in topology for i in names if isinstance(i, int))
    with pytest.raises(KeyError, match="there is no node"):
        topology.index(name)
    with pytest.raises(ValueError, match="`clamp` names"):
        topology.indices("clamp", [name])


def test_negative_numbers_count_from_the_end_where_nodes_are_numbers():
    chain = Topology.from_edges([0, 1], [1, 2], inputs=[-3], outputs=[-1])
    assert (chain.inputs, chain.outputs) == ((0,), (2,))
    assert chain.index(-1) == chain.index(np.int64(2)) == 2
    assert chain.indices("clamp", [-1, 0]) == (2, 0)
    assert chain.indices("clamp", {-1, -3}) == (0, 2)
    assert chain.view(-2) == chain.view(1)
    assert (
        Topology(dx.topologies.sequential([1, 2, 3], skip=[(0, -1)])).edges
        == Topology(dx.topologies.sequential([1, 2, 3], skip=[(0, 2)])).edges
    )
    assert -4 not in chain
    assert 3 not in chain
    named = Topology(drawn(dict.fromkeys([0, -1, 5], 1)))
    assert named.index(-1) == 1
    assert -2 not in named


# roles ride on nodes, and follow them through networkx


@graphs
def test_roles_follow_nodes_that_are_renamed(graph):
    drawing = Topology(graph()).to_networkx()
    topology, names = Topology(drawing), list(drawing)
    turned = dict(
        zip(names, names[1:] + names[:1], strict=True)
    )  # every name is taken from another node
    for renamed, new in (
        (nx.relabel_nodes(drawing, turned), turned),
        (nx.convert_node_labels_to_integers(drawing), {name: i for i, name in enumerate(names)}),
        (
            nx.relabel_nodes(drawing, lambda name: ("part", name)),
            {name: ("part", name) for name in names},
        ),
    ):
        other = Topology(renamed)
        for ours, theirs in ((topology.inputs, other.inputs), (topology.outputs, other.outputs)):
            assert tuple(new[name] for name in ours) == theirs
        assert {new[name] for name in topology.held} == set(other.held)


@pytest.mark.parametrize(
    "join", [nx.union, nx.compose, lambda a, b: nx.disjoint_union(b, nx.DiGraph(a))]
)
def test_inputs_of_both_parts_remain(join):
    left = nx.relabel_nodes(dx.topologies.sequential([2, 3, 4]), lambda i: ("left", i))
    right = nx.relabel_nodes(dx.topologies.sequential([5, 6]), lambda i: ("right", i))
    topology = Topology(join(left, right))
    assert sorted(topology.shape(node) for node in topology.inputs) == [(2,), (5,)]
    assert sorted(topology.shape(node) for node in topology.outputs) == [(4,), (6,)]


def test_a_part_keeps_its_roles():
    graph = dx.topologies.sequential([2, 3, 4])
    assert Topology(graph.subgraph([0, 1])).inputs == (0,)
    assert Topology(graph.subgraph([0, 1])).outputs == ()
    assert Topology(graph.reverse()).outputs == (2,)
    assert Topology(graph.copy(), inputs=[], outputs=[1]).outputs == (1,)


def test_roles_travel_through_json_of_networkx():
    graph = drawn(dict.fromkeys([("a", 1), "a", 7, 2**70], 2))
    topology = Topology(graph, inputs=["a", ("a", 1), 7], outputs=[2**70, 7, "a"])
    data = json.loads(json.dumps(nx.node_link_data(topology.to_networkx(), edges="edges")))
    for node in data["nodes"]:
        node["shape"] = tuple(node["shape"])
    back = Topology(nx.node_link_graph(data, directed=True, edges="edges"))
    assert (back.inputs, back.outputs) == (topology.inputs, topology.outputs)


ROLES = {
    "one": ({"a": "input", "b": "output"}, (("a",), ("b",), ("a",))),
    "both": ({"a": "input, output"}, (("a",), ("a",), ("a",))),
    "a tuple": ({"b": ("output", "held")}, ((), ("b",), ("b",))),
    "a set": ({"b": {"output", "held"}}, ((), ("b",), ("b",))),
    "drawn order": ({"c": "input", "a": "input"}, (("a", "c"), (), ("a", "c"))),
    "places": (
        {"a": {"input": 2}, "b": {"input": -1, "output": 0}, "c": "input"},
        (("b", "c", "a"), ("b",), ("a", "b", "c")),
    ),
    "none": ({"a": None, "b": (), "c": []}, ((), (), ())),
}  # fmt: skip


@pytest.mark.parametrize(("marks", "expected"), ROLES.values(), ids=ROLES.keys())
def test_roles_are_read_from_nodes(marks, expected):
    graph = drawn(dict.fromkeys("abc", 1))
    nx.set_node_attributes(graph, marks, "role")
    topology = Topology(graph)
    assert (topology.inputs, topology.outputs, topology.held) == expected
    again = Topology(topology.to_networkx())
    assert again == topology
    assert (again.inputs, again.outputs, again.held) == expected


def test_names_on_a_graph_are_refused_unless_they_say_what_the_marks_say():
    graph = nx.DiGraph(inputs=[2], held=[])
    graph.add_nodes_from([2, 1, 0], shape=4)
    for changed in (graph, nx.convert_node_labels_to_integers(graph)):
        with pytest.raises(
            ValueError,
            match=r"`graph.graph\['inputs'\]` is \[2\], .*\['role'\] = 'input'.*inputs=\[",
        ):
            Topology(changed)
        assert Topology(changed, inputs=[2]).inputs == (2,)
    graph.nodes[2]["role"] = "input"
    assert Topology(graph).inputs == (2,)
    with pytest.raises(ValueError, match="do not follow nodes"):
        Topology(nx.convert_node_labels_to_integers(graph))


# what follows from a topology lives as long as it does


def test_results_are_remembered_on_the_topology_and_freed_with_it():
    calls = []

    @remembered
    def wide(topology, *nodes):
        """The widths of nodes."""
        calls.append(nodes)
        return np.asarray([topology.shape(node)[0] for node in nodes])

    assert wide.__doc__ == "The widths of nodes."
    topology, other = Topology(drawn({"a": 1, "b": 2})), Topology(drawn({"a": 3}))
    first = wide(topology, "a", "b")
    assert wide(topology, "a", "b") is first
    assert wide(other, "a").tolist() == [3]
    assert wide(topology, "b").tolist() == [2]
    assert calls == [("a", "b"), ("a",), ("b",)]
    with pytest.raises(KeyError):
        wide(topology, "q")
    for i in range(300):
        wide(topology, *"ab" * i)
    assert wide(topology, "a", "b") is not first, "the number of results is bounded"
    alive, kept = weakref.ref(topology), weakref.ref(first)
    gc.disable()  # without circles, nothing waits for the garbage collector
    try:
        del topology, first
        assert alive() is None
        assert kept() is None
    finally:
        gc.enable()


def test_a_topology_that_states_used_is_freed():
    topology = Topology.from_edges([0, 1], [1, 0], inputs=[0])
    state = dx.GraphState(topology).init(np.ones(3)).replace_val(1, np.ones(3))
    state = state.replace({0: state[1]}).replace(state.arrays)
    alive = weakref.ref(topology)
    del topology, state
    gc.collect()
    assert alive() is None


# files say anything, and are checked as drawings are


def sound(topology):
    """What a drawing gives is equal to what was loaded."""
    assert Topology(topology.to_networkx()) == topology
    assert topology.summary()
    if sum(math.prod(spec.shape) for spec in topology.arrays.values()) > 10**6:
        return
    state = dx.GraphState(topology)
    assert all(state[node].shape == (1, *topology.shape(node)) for node in list(topology.nodes)[:3])


def with_digest_of_its_own(data):
    """The text of changed data, whose digest says what its author wants it to say."""
    try:
        data["digest"] = serial.digest(serial._columns(data)).hex()
    except Exception:
        data["digest"] = ""
    return json.dumps(data)


SMALL = {name: graph for name, graph in GRAPHS.items() if len(graph()) < 13}
ODD = st.one_of(
    st.integers(-2, 12), st.sampled_from([2**31 - 1, 2**31, 2**63, -(2**31), 10**30, 1.5, float("nan"), float("inf")]),
    st.sampled_from([None, True, False, "", "a", "image", "node", "float32", "object", "x" * 50]),
    st.sampled_from([[], {}, [0], [[0]], [1, 2], [[[]]], {"0": [0]}, {"a": 1}, [None], ["a", "b"], [0, 1, 1]]),
)  # fmt: skip


def places(data, path=()):
    """Every place in nested data, as the keys that lead there."""
    yield path
    inside = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, part in inside:
        yield from places(part, (*path, key))


def changed(data, path, draw):
    """Another value, one entry less or twice, or two exchanged, at some place."""
    inside = data
    for key in path[:-1]:
        inside = inside[key]
    how = draw(st.sampled_from(["replace", "drop", "double", "swap", "nudge"]))
    here = inside[path[-1]]
    if how == "drop":
        del inside[path[-1]]
    elif how == "double" and isinstance(inside, list):
        inside.insert(path[-1], copy.deepcopy(here))
    elif how == "swap" and isinstance(here, list) and len(here) > 1:
        i, j = draw(st.lists(st.integers(0, len(here) - 1), min_size=2, max_size=2, unique=True))
        here[i], here[j] = here[j], here[i]
    elif how == "nudge" and isinstance(here, int):
        inside[path[-1]] = here + draw(st.sampled_from([-1, 1]))
    else:
        inside[path[-1]] = copy.deepcopy(draw(ODD))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(SMALL)), st.data())
def test_whatever_a_file_says_is_a_sound_topology_or_refused(name, data):
    content = json.loads(Topology(SMALL[name]()).to_json())
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(
            st.sampled_from([path for path in places(content) if path and path[0] != "digest"])
        )
        changed(content, path, data.draw)
    text = with_digest_of_its_own(content)
    try:
        topology = Topology.from_json(text)
    except ValueError:
        return
    sound(topology)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        '{"format": ' * 50_000,
        "null",
        "1" * 10_000,
        b"\xff",
        '{"format": "darnax topology 1"}',
    ],
    ids=lambda text: str(text)[:20],
)
def test_texts_of_any_sort_and_depth_are_refused(text):
    with pytest.raises(ValueError, match=r"`text` .*; (give|change)"):
        Topology.from_json(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", 10**12), ("names", [[[["a"] * 3] * 3] * 3] * 3), ("arrays", {"image": [2**31, 2**31]}),
        ("arrays", {"image": [1] * 100}), ("inputs", [-1]), ("inputs", [0, 0]), ("held", [9]), ("edge_kinds", []),
        ("columns", [[0, 0, 0], [0, -1], [1, 0], [0, 0], [1.0, 2.0]]), ("columns", [[0, 1, 2], [0, 9], [1, 0], [0, 0]]),
        ("views", {"0": [0]}), ("views", {}), ("keys", [0, 0]),
        ("views", {"2": [[0, 2, True]]}), ("attributes", [["weight", "object", True]]),
        ("views", {"2": [{"cells": [0, 0]}]}), ("views", {"2": [{"cells": [0, 4]}]}), ("views", {"2": [{"cells": []}]}),
        ("views", {"2": [{"cells": [0.0, 1.0]}]}), ("views", {"2": [{"cells": [[0], [1]]}]}), ("views", {"2": [{}]}),
    ],
    ids=str,
)  # fmt: skip
def test_files_that_reach_outside_are_refused_before_memory_is_taken(key, value):
    content = json.loads(Topology(_plain()).to_json())
    content[key] = value
    with pytest.raises(ValueError, match="`text` was changed"):
        Topology.from_json(with_digest_of_its_own(content))


@pytest.mark.parametrize(("table", "column"), [("node_classes", 0), ("edge_classes", 3)])
def test_a_class_that_stands_twice_in_a_file_is_refused(table, column):
    content = json.loads(Topology.from_edges([0, 1], [1, 0]).to_json())
    content[table] *= 2
    content["columns"][column] = [0, 1]
    with pytest.raises(ValueError, match="`text` was changed"):
        Topology.from_json(with_digest_of_its_own(content))


OLD = """
{"format": "darnax topology 1", "names": ["a", ["b", 1], 7, 1180591620717411303424], "node_classes":
[["node", [3, 2], "float32", "image"], ["node", [5], "float32", "image"], ["k", [3], "float32", null]],
"views": {"0": [[0, 3, 1], [1, 4, 2]], "1": [2, [0, 5, 1]]}, "arrays": {"image": [4, 5]}, "edge_classes":
[["edge", null], ["e", "t"]], "keys": ["x", ["y", 2], 0], "attributes": [["weight", "float64", false]],
"inputs": [0], "outputs": [3, 2], "held": [0, 3], "node_kinds": ["extra", "k", "node"], "edge_kinds":
["e", "edge"], "columns": [[0, 1, 2, 2], [0, 0, 2], [2, 2, 3], [0, 1, 0], [0.5, 0.0, 1.0],
[true, false, true]], "digest": "40a45142c8e58f1ab5329958ae691d23"}
"""


def test_files_of_the_first_version_load():
    topology = Topology.from_json(OLD)
    assert topology.edges == [("a", 7, "x"), ("a", 7, ("y", 2)), (7, 2**70, 0)]
    assert topology.view("a").index == (slice(0, 3, 1), slice(1, 4, 2))
    assert topology.outputs == (2**70, 7)
    assert json.loads(topology.to_json()) == json.loads(OLD)


def test_an_attribute_that_no_edge_has_is_none():
    graph = drawn({0: 1, 1: 1}, [(0, 1, {"delay": None})])
    assert Topology(graph).columns.attributes == {}
    assert Topology(Topology(graph).to_networkx()) == Topology(graph)
    topology = Topology.from_edges([], [], n=2, attributes={"weight": []})
    assert topology == Topology.from_edges([], [], n=2)


def test_a_large_view_costs_no_memory():
    graph = drawn(
        {
            "all": {"array": "x", "role": "input"},
            "half": {"array": "x", "index": slice(10**9)},
            "two": {"array": "x", "index": [-1, 7]},
        },
        arrays={"x": 2**31 - 1},
    )
    topology = Topology.from_json(Topology(graph).to_json())
    assert topology.shape("half") == (10**9,)
    assert topology.view("two").index[0].tolist() == [2**31 - 2, 7]


def test_what_was_pickled_is_checked_too():
    topology = Topology(_plain())
    restore, state = topology.__reduce__()
    for i in range(len(state)):
        for odd in (
            None,
            (),
            {},
            -1,
            np.asarray([5, 5, 5], np.int32),
            ("a", "a", "a"),
            {"image": (-1,)},
        ):
            try:
                other = restore(*state[:i], odd, *state[i + 1 :])
            except ValueError:
                continue
            sound(other)


# attributes that nobody reads


@pytest.mark.parametrize(
    "slip",
    [
        {"Kind": "a"},
        {"knid": "a"},
        {"kinds": "a"},
        {"dytpe": "int8"},
        {"roles": "input"},
        {"arry": "x"},
    ],
)
def test_slips_of_node_attributes_are_spoken_about(slip):
    with pytest.warns(
        UserWarning,
        match=rf"node attribute {next(iter(slip))!r} \('a'\) is read by nobody; did you mean",
    ):
        Topology(drawn({"a": {"shape": 1} | slip, "b": 1}))


@pytest.mark.parametrize("slip", [{"Kind": "a"}, {"kidn": "a"}, {"Tie": "a"}, {"ties": "a"}])
def test_slips_of_edge_attributes_are_spoken_about(slip):
    with pytest.warns(
        UserWarning,
        match=rf"edge attribute {next(iter(slip))!r} \('a' on \('a', 'b'\)\) is read by nobody",
    ):
        Topology(drawn({"a": 1, "b": 1}, [("a", "b", slip)]))


def test_the_users_own_attributes_are_left_alone():
    own = {
        "pos": (0, 1),
        "label": "A",
        "color": "red",
        "type": "x",
        "rule": "z",
        "weight": 3,
        "colour": None,
    }
    graph = drawn(
        {"a": {"shape": 1} | own, "b": 1}, [("a", "b", {"label": "f", "style": "dotted", 3: 4})]
    )
    graph.nodes["b"][3] = "y"
    assert Topology(graph).columns.left_out == {
        "label": "'f' on ('a', 'b')",
        "style": "'dotted' on ('a', 'b')",
    }


def test_what_is_left_out_makes_no_difference():
    graph, other = _plain(), _plain()
    nx.set_edge_attributes(other, "late", "delay")
    one, two = Topology(graph), Topology(other)
    assert one == two
    assert two.columns.left_out == {"delay": "'late' on ('a', 'b'), ('b', 'a')"}
    assert pickle.loads(pickle.dumps(two)) == one


@pytest.mark.parametrize("use", ["step", "relax", "sweep", "updates", "vmap", "grad"])
def test_a_topology_that_was_used_is_freed(use):
    """JAX keeps a structure for every program that it compiled; a topology is none of them."""

    def run():
        topology = Topology.from_edges([0, 1, 2], [1, 2, 0], shape=2)
        network = dx.Network(topology, {"edge": dx.dense()}, dx.tanh, key=jax.random.key(0))
        state = dx.GraphState(topology, 2)
        calls = {
            "step": lambda: dx.step(network, state),
            "relax": lambda: dx.relax(network, state),
            "sweep": lambda: dx.step(network, state, schedule=dx.node_by_node()),
            "updates": lambda: dx.local_updates(network, state, {"edge": dx.hebbian()}),
            "vmap": lambda: jax.vmap(lambda s: dx.step(network, s))(
                jax.tree.map(lambda a: a[None], state)
            ),
            "grad": lambda: jax.grad(lambda s: dx.relax(network, s).state[0].sum())(state),
        }
        calls[use]()
        return weakref.ref(topology)

    alive = run()
    gc.collect()
    assert alive() is None


def test_the_structure_of_a_state_finds_its_topology_as_long_as_it_is_there():
    state = dx.GraphState(Topology.from_edges([0], [1], shape=2))
    leaves, structure = jax.tree.flatten(state)
    assert jax.tree.unflatten(structure, leaves).topology is state.topology
    del state
    gc.collect()
    with pytest.raises(ValueError, match="the `topology` of this tree is no longer there; keep it"):
        jax.tree.unflatten(structure, leaves)


def test_of_equal_topologies_any_may_go_first():
    topology = Topology.from_edges([0], [1], shape=2)
    state, other = dx.GraphState(topology), Topology.from_edges([0], [1], shape=2)
    leaves, structure = jax.tree.flatten(state)
    del other
    gc.collect()
    assert jax.tree.unflatten(structure, leaves).topology is topology
    other = Topology.from_edges([0], [1], shape=2)
    del topology, state
    gc.collect()
    assert jax.tree.unflatten(structure, leaves).topology is other
