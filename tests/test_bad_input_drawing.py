"""Bad input to topologies, states and wirings: nothing is silent, raw or late.

A row of the table is an argument, a sort of error, the words that tell what is wrong and what to
do, and values that are refused. Every value is a test.
"""

import copy
import re

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse

import darnax as dx
from darnax import topologies
from darnax.states import Arrays
from darnax.topologies.wiring import read_wiring

VALUES = {
    "None": lambda: None,
    "text": lambda: "ab",
    "digit": lambda: "3",
    "bytes": lambda: b"ab",
    "negative": lambda: -1,
    "zero": lambda: 0,
    "one": lambda: 1,
    "huge": lambda: 2**70,
    "half": lambda: 2.5,
    "NaN": lambda: float("nan"),
    "True": lambda: True,
    "list": lambda: [1, 2],
    "nested": lambda: [[1], [2, 3]],
    "empty": lambda: [],
    "set": lambda: {1, 2},
    "dict": lambda: {"q": 1},
    "generator": lambda: (i for i in range(3)),
    "array": lambda: np.ones((2, 2)),
    "scalar array": lambda: np.array(2.5),
    "JAX": lambda: jnp.ones(3),
    "masked": lambda: np.ma.masked_array([[1.0, 2.0, 3.0]], mask=[[False, True, False]]),
    "objects": lambda: np.asarray([None, 1], object),
    "class": lambda: dict,
    "function": lambda: len,
    "object": object,
    "complex": lambda: 1j,
    "below": lambda: (-1, 2),
    "fractions": lambda: (1.5, 2),
    "axes": lambda: (1,) * 70,
    "cells": lambda: (2**16, 2**16),
    "graph": lambda: nx.path_graph(3),
}
ODD = [
    "None",
    "text",
    "NaN",
    "dict",
    "generator",
    "array",
    "class",
    "function",
    "object",
    "complex",
]
SHAPES = [
    *ODD,
    "digit",
    "bytes",
    "half",
    "True",
    "nested",
    "scalar array",
    "JAX",
    "masked",
    "fractions",
    "graph",
]
RANGES = ["negative", "zero", "below", "huge", "axes", "cells"]
FLAGS = [*ODD, "zero", "one", "digit", "list", "empty", "JAX"]


def drawing(node=None, edge=None, **attributes):
    graph = nx.DiGraph(**attributes)
    graph.add_node("a", **({"shape": 2} | (node or {})))
    graph.add_node("b", shape=2)
    graph.add_edge("a", "b", **(edge or {}))
    return graph


def compiled(**arguments):
    return dx.Topology(drawing(), **arguments)


def from_edges(**arguments):
    return dx.Topology.from_edges(**({"senders": [0, 1], "receivers": [1, 0]} | arguments))


def view(value):
    graph = drawing(arrays={"x": (4, 4)})
    graph.add_node("view", array="x", index=value)
    return dx.Topology(graph)


CHAIN = dx.Topology(topologies.sequential([3, 4, 2]))
STATE = dx.GraphState(CHAIN).init(np.ones((2, 3), np.float32))
LIST = dx.SequentialState([3, 4, 2]).init(np.ones((2, 3), np.float32))


def weighted(value):
    graph = nx.path_graph(3)
    graph.edges[0, 1]["weight"] = value
    return read_wiring("graph", graph)


def other_arrays(value):
    return STATE.replace(Arrays(tuple(STATE.arrays), (value, *list(STATE.arrays.values())[1:])))


def other_nodes(value):
    return STATE.from_graphs_tuple(
        "recurrent", STATE.graphs_tuple("recurrent")._replace(nodes=value)
    )


BOTH = (TypeError, ValueError)

ROWS = [
    # builders
    ("sequential sizes", topologies.sequential,
     BOTH, "`sizes` .*(give|add|write)", [*ODD, "half", "set", "bytes", "below"]),
    ("sequential recurrent", lambda v: topologies.sequential([2, 2], recurrent=v),
     TypeError, "`recurrent` is True or", FLAGS),
    ("sequential backward", lambda v: topologies.sequential([2, 2], backward=v),
     TypeError, "`backward` is True or", FLAGS),
    ("sequential skip", lambda v: topologies.sequential([2, 2, 2], skip=v),
     BOTH, "`skip` .*give", [*ODD, "list", "set", "half"]),
    ("sequential skip pair", lambda v: topologies.sequential([2] * 3, skip=[v]),
     ValueError, "`skip` .*give", [*ODD, "list", "one", "half"]),
    ("sequential skip end", lambda v: topologies.sequential([2] * 3, skip=[(0, v)]),
     ValueError, "`skip` .*give", [*ODD, "one", "huge"]),
    ("convolutional image", lambda v: topologies.convolutional(v, 2, features=1),
     ValueError, "`image` .*give", [*SHAPES, *RANGES, "one"]),
    ("convolutional window", lambda v: topologies.convolutional((4, 4, 1), v, features=1),
     BOTH, "`window` .*(give|make)", [*ODD, "zero", "half"]),
    ("convolutional stride", lambda v: topologies.convolutional((4, 4, 1), 2, v, features=1),
     BOTH, "`stride` .*give", [*ODD, "zero", "half"]),
    ("convolutional features", lambda v: topologies.convolutional((4, 4, 1), 2, features=v),
     BOTH, "`features` .*give", [*ODD, "zero", "empty", "huge"]),
    ("convolutional padding", lambda v: topologies.convolutional((4, 4, 1), 2, features=1, padding=v),
     ValueError, "`padding` .*give", [*ODD, "negative", "half", "below"]),
    ("convolutional backward", lambda v: topologies.convolutional((4, 4, 1), 2, features=1, backward=v),
     TypeError, "`backward` is True or", FLAGS),
    ("convolutional tied", lambda v: topologies.convolutional((4, 4, 1), 2, features=1, tied=v),
     TypeError, "`tied` is True or", FLAGS),
    ("graph_layer graph", lambda v: topologies.graph_layer(v, 2),
     TypeError, "`graph` is a networkx graph.*make", [*ODD, "list"]),
    ("graph_layer features", lambda v: topologies.graph_layer(nx.path_graph(3), v),
     ValueError, "`features` .*give", [*SHAPES, *RANGES]),
    ("graph_layer whole", lambda v: topologies.graph_layer(nx.path_graph(3), 2, whole=v),
     TypeError, "`whole` is True or", FLAGS),
    ("graph_layer tied", lambda v: topologies.graph_layer(nx.path_graph(3), 2, tied=v),
     TypeError, "`tied` is True or", FLAGS),
    ("lattice shape", topologies.lattice, ValueError, "`shape` .*give", [*SHAPES, *RANGES, "empty"]),
    ("lattice periodic", lambda v: topologies.lattice((3, 3), periodic=v),
     BOTH, "`periodic` is True or.*give", [*ODD, "one", "list", "set"]),
    ("lattice neighbours", lambda v: topologies.lattice((3, 3), neighbours=v),
     BOTH, "`neighbours` .*(give|make)", [*ODD, "zero", "half", "huge", "empty"]),
    ("lattice step", lambda v: topologies.lattice((3, 3), neighbours=[(1, v)]),
     ValueError, "`neighbours` .*give", [*ODD, "half", "huge", "True"]),
    ("lattice size", lambda v: topologies.lattice(3, size=v), ValueError, "`size` .*give", [*SHAPES, *RANGES]),
    ("random n", lambda v: topologies.random(v, degree=1),
     BOTH, "`n` .*give", [*ODD, "negative", "zero", "half", "huge", "True"]),
    ("random degree", lambda v: topologies.random(9, degree=v),
     BOTH, "`degree` .*give", [*ODD[1:], "negative", "half", "huge"]),
    ("random probability", lambda v: topologies.random(9, probability=v),
     BOTH, "`probability` .*give", [*ODD[1:], "negative", "half"]),
    ("random symmetric", lambda v: topologies.random(9, degree=2, symmetric=v),
     TypeError, "`symmetric` is True or", FLAGS),
    ("random size", lambda v: topologies.random(9, degree=2, size=v), ValueError, "`size` .*give", [*SHAPES, *RANGES]),
    ("random seed", lambda v: topologies.random(9, degree=2, seed=v),
     BOTH, "`seed` .*give", [*ODD, "negative", "half", "True", "JAX"]),
    ("small_world n", lambda v: topologies.small_world(v, 2, 0.1), BOTH, "`n` .*give", [*ODD, "zero", "half", "huge"]),
    ("small_world neighbours", lambda v: topologies.small_world(9, v, 0.1),
     BOTH, "`neighbours` .*give", [*ODD, "one", "huge"]),
    ("small_world rewire", lambda v: topologies.small_world(9, 2, v),
     BOTH, "`rewire` .*give", [*ODD, "negative", "half"]),
    ("small_world seed", lambda v: topologies.small_world(9, 2, 0.1, seed=v),
     BOTH, "`seed` .*give", [*ODD, "negative"]),
    ("scale_free n", lambda v: topologies.scale_free(v, 1), BOTH, "`n` .*give", [*ODD, "one", "huge"]),
    ("scale_free links", lambda v: topologies.scale_free(9, v), BOTH, "`links` .*give", [*ODD, "zero", "huge"]),
    ("scale_free seed", lambda v: topologies.scale_free(9, 2, seed=v), BOTH, "`seed` .*give", [*ODD, "negative"]),
    ("hopfield n", topologies.hopfield, ValueError, "`n` .*give", [*SHAPES, *RANGES]),
    ("bipartite visible", lambda v: topologies.bipartite(v, 2), ValueError, "`visible` .*give", [*SHAPES, *RANGES]),
    ("bipartite hidden", lambda v: topologies.bipartite(2, v), ValueError, "`hidden` .*give", [*SHAPES, *RANGES]),
    ("modular modules", lambda v: topologies.modular(v, 2), BOTH, "`modules` .*give", [*ODD, "zero", "half", "huge"]),
    ("modular units", lambda v: topologies.modular(2, v), ValueError, "`units` .*give", [*SHAPES, *RANGES]),
    # drawings
    ("graph", dx.Topology, TypeError, "`graph` is a networkx DiGraph.*draw", [*ODD, "list", "zero"]),
    ("graph undirected", dx.Topology, ValueError, "`graph` is undirected.*use", ["graph"]),
    ("inputs", lambda v: compiled(inputs=v),
     BOTH, "`inputs` .*(write|give)", [v for v in ODD if v != "None"] + ["list", "scalar array"]),
    ("outputs", lambda v: compiled(outputs=v),
     BOTH, "`outputs` .*(write|give)", [v for v in ODD if v != "None"] + ["list"]),
    ("held", lambda v: compiled(held=v), BOTH, "`held` .*(write|give)", [v for v in ODD if v != "None"] + ["list"]),
    ("arrays", lambda v: compiled(arrays=v), BOTH, "`arrays` .*give", ["text", "zero", "list", "generator", "class"]),
    ("shape of an array", lambda v: compiled(arrays={"x": v}), ValueError, "`arrays` 'x': .*give", [*SHAPES, *RANGES]),
    ("shape of a node", lambda v: dx.Topology(drawing({"shape": v})),
     ValueError, "node 'a': .*`shape` .*give", [*SHAPES, *RANGES]),
    ("kind of a node", lambda v: dx.Topology(drawing({"kind": v})),
     ValueError, "node 'a': `kind` is a str.*name", [v for v in ODD if v != "text"]),
    ("dtype of a node", lambda v: dx.Topology(drawing({"dtype": v})),
     ValueError, "node 'a': `dtype` .*give", [*ODD[:-1], "JAX", "zero"]),
    ("role of a node", lambda v: dx.Topology(drawing({"role": v})),
     ValueError, "node 'a': `role` .*write", [v for v in ODD if v != "None"] + ["one"]),
    ("array of a node", lambda v: dx.Topology(drawing({"array": v})),
     ValueError, "node 'a': .*(drop|declare)", [v for v in ODD if v != "None"]),
    ("index of a node", view,
     ValueError, "node 'view': `index` .*give",
     [*ODD, "half", "nested", "empty", "set", "JAX", "masked", "objects", "huge", "True", "fractions"]),
    ("kind of an edge", lambda v: dx.Topology(drawing(edge={"kind": v})),
     ValueError, r"edge \('a', 'b'\): `kind` is a str.*name", [v for v in ODD if v != "text"]),
    ("tie of an edge", lambda v: dx.Topology(drawing(edge={"tie": v})),
     ValueError, r"edge \('a', 'b'\): `tie` is a str.*name", [v for v in ODD if v not in ("None", "text")]),
    ("node_kinds", lambda v: dx.Topology(drawing(node_kinds=v)),
     TypeError, r"`graph.graph\['node_kinds'\]` .*give", [v for v in ODD if v != "dict"] + ["list"]),
    ("edge_kinds", lambda v: dx.Topology(drawing(edge_kinds=v)),
     TypeError, r"`graph.graph\['edge_kinds'\]` .*give", [v for v in ODD if v != "dict"] + ["list"]),
    ("inputs on the graph", lambda v: dx.Topology(drawing(inputs=v)),
     ValueError, r"`graph.graph\['inputs'\]` .*mark", [v for v in ODD if v != "None"] + ["list"]),
    # wiring that is already arrays
    ("senders", lambda v: from_edges(senders=v),
     BOTH, "`senders` .*(give|fill)", [*ODD, "half", "nested", "empty", "below", "masked"]),
    ("receivers", lambda v: from_edges(receivers=v), BOTH, "`receivers` .*(give|fill)", [*ODD, "huge", "masked"]),
    ("n", lambda v: from_edges(n=v), ValueError, "`n`.*give", [*ODD[1:], "zero", "negative", "half", "huge", "True"]),
    ("shape", lambda v: from_edges(shape=v), ValueError, "`shape` .*give", [*SHAPES, *RANGES]),
    ("kind", lambda v: from_edges(kind=v), ValueError, "`kind` .*give", [*[v for v in ODD if v != "text"], "set"]),
    ("dtype", lambda v: from_edges(dtype=v), ValueError, "`dtype` .*give", [*ODD[:-1], "JAX"]),
    ("edge_kind", lambda v: from_edges(edge_kind=v),
     ValueError, "`edge_kind` .*give", [*[v for v in ODD if v != "text"], "set"]),
    ("tie", lambda v: from_edges(tie=v), ValueError, "`tie` .*give", [v for v in ODD if v not in ("None", "text")]),
    ("attributes", lambda v: from_edges(attributes=v),
     BOTH, "`attributes` .*give", [*[v for v in ODD if v != "None"], "list"]),
    ("column", lambda v: from_edges(attributes={"w": v}),
     BOTH, "`attributes` 'w'.*(give|fill)", [*ODD, "nested", "half", "objects", "masked"]),
    ("keys", lambda v: from_edges(keys=v),
     BOTH, "keys` .*(give|rename)", [*[v for v in ODD if v != "None"], "nested", "set"]),
    ("from_edges inputs", lambda v: from_edges(inputs=v),
     BOTH, "`inputs` .*(write|give)", [v for v in ODD if v != "None"]),
    # reading
    ("from_json", dx.Topology.from_json, ValueError, "`text` .*give", [*ODD, "digit", "zero"]),
    ("index", CHAIN.index, KeyError, "no node .*the nodes are", [*ODD, "half", "True", "huge"]),
    ("shape of", CHAIN.shape, KeyError, "no node .*the nodes are", ODD),
    ("kind of", CHAIN.kind, KeyError, "no node .*the nodes are", ODD),
    ("view of", CHAIN.view, KeyError, "no node .*the nodes are", ODD),
    # states
    ("topology", dx.GraphState, TypeError, "`topology` is a darnax.Topology.*compile", [*ODD, "graph"]),
    ("batch_size", lambda v: dx.GraphState(CHAIN, v),
     BOTH, "`batch_size` .*give", [*ODD, "zero", "half", "True", "huge"]),
    ("state[node]", lambda v: STATE[v], KeyError, "no node .*the nodes are", [*ODD, "half", "True", "huge"]),
    ("layer", lambda v: LIST[v], KeyError, "no layer .*the layers are", [*ODD, "half", "True", "huge"]),
    ("array", lambda v: STATE.arrays[v], KeyError, "no array .*the arrays are", ODD),
    ("replace_val key", lambda v: STATE.replace_val(v, 1), KeyError, "no node .*the nodes are", ODD),
    ("layer to replace", lambda v: LIST.replace_val(v, 1), KeyError, "no layer .*the layers are", ODD),
    ("replace by arrays", other_arrays, BOTH, "`value.*(give|reshape|fill)", [*ODD, "masked", "one"]),
    ("graphs_tuple", STATE.graphs_tuple, BOTH, "`edge_kind` .*(give|the kinds that have some are)", ODD),
    ("graphs", lambda v: STATE.from_graphs_tuple("recurrent", v),
     TypeError, "`graphs` is a jraph.GraphsTuple.*give", ODD),
    ("graphs.nodes", other_nodes, BOTH, "`graphs.nodes` .*(give|reshape|fill)", [*ODD, "masked", "one"]),
    # the wiring of a population
    ("wiring", lambda v: read_wiring("graph", v),
     TypeError, "`graph` is a networkx graph.*make", [*ODD, "list", "one"]),
    ("weight", weighted, ValueError, "weight.*make", [v for v in ODD if v != "None"]),
]  # fmt: skip

# every sort of value, for all methods of both states
for name, state in (("graph", STATE), ("list", LIST)):
    for method, call in {
        "init x": lambda v, s=state: s.init(v),
        "init y": lambda v, s=state: s.init(np.ones((2, 3), np.float32), v),
        "init mapping": lambda v, s=state: s.init({0: v}),
        "replace list": lambda v, s=state: s.replace([v, v, v]),
        "replace mapping": lambda v, s=state: s.replace({0: v}),
        "replace_val": lambda v, s=state: s.replace_val(0, v),
        "replace": lambda v, s=state: s.replace(v),
    }.items():
        values = [
            *ODD,
            "digit",
            "bytes",
            "one",
            "nested",
            "empty",
            "set",
            "JAX",
            "masked",
            "objects",
            "scalar array",
        ]
        if method == "init y":
            values = [value for value in values if value not in ("None", "array")]
        words = "(`[xy]`|`value).*(give|reshape|fill|add|use|names|convert)"
        ROWS.append((f"{method} of a {name}", call, (*BOTH, KeyError), words, values))

CASES = [(call, error, words, value) for _, call, error, words, values in ROWS for value in values]
IDS = [f"{name}: {value}" for name, *_, values in ROWS for value in values]


@pytest.mark.parametrize(("call", "error", "words", "value"), CASES, ids=IDS)
def test_is_refused_by_name_and_with_the_next_move(call, error, words, value):
    with pytest.raises(error) as caught:
        call(VALUES[value]())
    said = str(caught.value)
    assert re.search(words, said), said
    assert "\n" not in said
    assert " object at 0x" not in said
    assert len(said) < 500


def test_the_table_is_as_long_as_it_should_be():
    assert len(CASES) > 500
    assert len(set(IDS)) == len(IDS)


ONE_BY_ONE = {
    "stacks of states": (
        lambda: STATE.replace_val(0, np.ones((3, 2, 3), np.float32)), ValueError, r"has shape \(2, 3\), batch first"),
    "a sparse matrix for a state": (
        lambda: STATE.init(scipy.sparse.eye_array(3)), ValueError, "`x` .*but got .*; give an array of numbers"),
    "dates": (lambda: STATE.init(np.zeros((2, 3), "datetime64[s]")), TypeError, "datetime64.*convert"),
    "a structured array": (lambda: STATE.init(np.zeros((2, 3), [("a", int)])), TypeError, "convert"),
    "deep names": (lambda: dx.Topology(deep(30)), TypeError, "at most 20 deep.*rename"),
    "very deep names": (lambda: dx.Topology(deep(100_000)), TypeError, "at most 20 deep.*rename"),
    "weights of NaN": (lambda: weighted(float("nan")), ValueError, "not finite.*make"),
    "weights of a matrix": (
        lambda: read_wiring("graph", scipy.sparse.coo_array(([np.inf], ([0], [0])), (1, 1))), ValueError, "not finite"),
    "an empty graph": (lambda: read_wiring("graph", nx.DiGraph()), ValueError, r"`graph` .*\(0, 0\).*give"),
    "a matrix of no rows": (
        lambda: read_wiring("graph", scipy.sparse.coo_array((0, 3))), ValueError, r"`graph` .*\(0, 3\).*give"),
    "both degree and probability": (
        lambda: topologies.random(9, degree=1, probability=0.5), ValueError, "give one of `degree` and `probability`"),
    "isolated vertices": (lambda: topologies.graph_layer(nx.empty_graph(2), 1), ValueError, "have no edge; remove"),
    "no vertices": (lambda: topologies.graph_layer(nx.Graph(), 1), ValueError, "`graph` has no vertices; add"),
    "no modules": (lambda: topologies.modular(nx.Graph(), 1), ValueError, "without vertices; give"),
}  # fmt: skip


def deep(depth):
    name = "x"
    for _ in range(depth):
        name = (name,)
    graph = nx.DiGraph()
    graph.add_node(("y", 1), shape=1)
    graph.add_node(Unseen(name), shape=1)
    return graph


class Unseen(tuple):
    """A tuple whose hash is cheap however deep it is."""

    __slots__ = ()

    def __hash__(self):
        return 0


@pytest.mark.parametrize("case", ONE_BY_ONE)
def test_is_refused(case):
    call, error, words = ONE_BY_ONE[case]
    with pytest.raises(error, match=words):
        call()


def test_vertices_and_keys_of_a_population_may_be_anything():
    graph = nx.MultiGraph()
    graph.add_nodes_from([frozenset("a"), 1.5])
    graph.add_edge(frozenset("a"), 1.5, key=0.5, weight=2)
    graph.add_edge(frozenset("a"), 1.5, key=("k", None))
    graph.add_edge(1.5, 1.5)
    wiring = read_wiring("graph", graph)
    assert wiring.shape == (2, 2)
    assert wiring.receivers.tolist() == [0, 0, 1, 1, 1]
    assert wiring.senders.tolist() == [1, 1, 0, 0, 1]
    assert wiring.weights is not None
    assert wiring.weights.tolist() == [2, 1, 2, 1, 1]


def test_nothing_was_changed_by_any_of_this():
    before = copy.deepcopy(STATE)
    assert dx.Topology(topologies.sequential([3, 4, 2])) == CHAIN
    np.testing.assert_array_equal(before[0], np.ones((2, 3)))
