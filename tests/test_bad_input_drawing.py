"""Bad input to topologies, states and wirings: nothing is silent, raw or late.

A row of the table is an argument, a sort of error, the words that tell what is wrong and what to
do, and values that are refused. Every value is a test. What no such value shows stands one by one,
with pieces of its message, between which a `|` stands.
"""

import copy
import re

import jax
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


def predicting(*edges):
    """A network of predictive coding from edges, with their keys and kinds if they have any."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("ab")
    for u, v, *rest in edges:
        key, kind = (*rest, 0, "edge")[:2] if len(rest) != 1 else (*rest, "edge")
        graph.add_edge(u, v, key=key, kind=kind)
    nx.set_node_attributes(graph, 2, "shape")
    return topologies.predictive(graph)


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


def other_nodes(value, kind="recurrent"):
    return STATE.from_graphs_tuple(kind, STATE.graphs_tuple(kind)._replace(nodes=value))


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
    ("reciprocal graph", topologies.reciprocal, BOTH, "`graph` is a networkx.DiGraph.*draw", [*ODD, "list", "graph"]),
    ("reciprocal kind", lambda v: topologies.reciprocal(topologies.lattice(4), v),
     TypeError, "`kind` is the name of an edge kind.*give", [v for v in ODD if v != "text"]),
    ("reciprocal back", lambda v: topologies.reciprocal(topologies.lattice(4), back=v),
     TypeError, "`back` is the name of an edge kind.*give", [v for v in ODD if v != "text"]),
    ("predictive graph", topologies.predictive, BOTH, "`graph`.*(give|draw|add)", [*ODD, "zero", "empty", "set", "graph"]),
    ("modular modules", lambda v: topologies.modular(v, 2), BOTH, "`modules` .*give", [*ODD, "zero", "half", "huge"]),
    ("modular units", lambda v: topologies.modular(2, v), ValueError, "`units` .*give", [*SHAPES, *RANGES]),
    # drawings
    ("graph", dx.Topology, TypeError, "`graph` is a networkx DiGraph.*draw", [*ODD, "list", "zero"]),
    ("graph undirected", dx.Topology, ValueError, "`graph` is undirected.*use", ["graph"]),
    ("both_ways", lambda v: dx.Topology(nx.path_graph(2), both_ways=v), TypeError, "`both_ways` is True or False.*give", ODD),
    ("plain", lambda v: CHAIN.to_networkx(v), TypeError, "`plain` is True or False.*give", ODD),
    ("source", topologies.as_graph, TypeError, "`source` is .*give", [v for v in ODD if v != "array"] + ["list", "zero", "masked"]),
    ("nodes of a source", lambda v: topologies.as_graph(np.eye(2), nodes=v), TypeError, "`nodes` is .*give", [v for v in ODD if v not in ("None", "dict")] + ["list"]),
    ("shape of a source", lambda v: topologies.as_graph(np.eye(2), shape=v), ValueError, "`shape` .*give", [*[v for v in SHAPES if v != "None"], *RANGES]),
    ("kind of a source", lambda v: topologies.as_graph(np.eye(2), kind=v), TypeError, "`kind` .*give", [v for v in ODD if v not in ("None", "text")]),
    ("edge kind of a source", lambda v: topologies.as_graph(np.eye(2), edge_kind=v), TypeError, "`edge_kind` .*give", [v for v in ODD if v not in ("None", "text")]),
    ("weight of a source", lambda v: topologies.as_graph(np.eye(2), weight=v), TypeError, "`weight` .*give", [v for v in ODD if v != "text"]),
    ("inputs", lambda v: compiled(inputs=v),
     BOTH, "`inputs` .*(write|give)", [v for v in ODD if v != "None"] + ["list", "scalar array"]),
    ("outputs", lambda v: compiled(outputs=v),
     BOTH, "`outputs` .*(write|give)", [v for v in ODD if v != "None"] + ["list"]),
    ("held", lambda v: compiled(held=v), BOTH, "`held` .*(write|give)", [v for v in ODD if v != "None"] + ["list"]),
    ("arrays", lambda v: compiled(arrays=v), BOTH, "`arrays` .*give", ["text", "zero", "list", "generator", "class"]),
    ("shape of an array", lambda v: compiled(arrays={"x": v}), ValueError, "`arrays` 'x': .*give", [*SHAPES, *RANGES]),
    ("shape of a node", lambda v: dx.Topology(drawing({"shape": v})),
     ValueError, "node 'a': .*`shape` .*give", [*[v for v in SHAPES if v != "digit"], *RANGES]),
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
    ("topology", dx.GraphState, TypeError, "`topology` is a darnax.Topology.*compile", ODD),
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


def lone(arrays=None, **node):
    graph = nx.DiGraph()
    graph.add_node("a", **node)
    return dx.Topology(graph, arrays=arrays)


def viewed(index):
    return lone({"image": (4, 6)}, array="image", index=index)


def shared(inputs=(), **second):
    graph = drawing(arrays={"x": 4})
    graph.add_node("top", array="x")
    graph.add_node("part", array="x", **second)
    return dx.Topology(graph, inputs=inputs)


def renamed(name):
    return nx.relabel_nodes(drawing(), {"a": name})


def keyed(*edges):
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("ab", shape=2)
    graph.add_edges_from(edges)
    return dx.Topology(graph)


def random_graph(**arguments):
    return topologies.random(5, **arguments)


def convolved(**arguments):
    return topologies.convolutional(
        **({"image": (8, 8, 1), "window": 3, "features": 2} | arguments)
    )


GRID = dx.Topology(topologies.lattice((2, 2)))
PLAIN = dx.GraphState(dx.Topology(drawing()))
SEVERAL = dx.GraphState(compiled(inputs=["a", "b"], outputs=["a", "b"]))
VIEWS = dx.GraphState(shared())
BATCH = {size: np.ones((2, size), np.float32) for size in (2, 3, 4)}

ONE_BY_ONE = {
    # builders
    "one layer": (lambda: topologies.sequential([3]), ValueError, "`sizes` names at least two layers|[3]|add one"),
    "several wrong layers": (
        lambda: topologies.sequential([3, 0, 2, (1, -1)]), ValueError, "layer 1: |at least 1, but got 0|layer 3: |(1, -1)"),
    "a skip of one layer": (
        lambda: topologies.sequential([3, 2, 2], skip=[(0, 1), (0, 5), 3]), ValueError, "`skip` joins |(0, 1), (0, 5), 3"),
    "an image without channels": (
        lambda: convolved(image=8), ValueError, "`image` has the shape (*space, channels)|got (8,)|channel axis"),
    "a window larger than the image": (
        lambda: convolved(window=(3, 9)), ValueError, "`window` (3, 9) is larger than the image of (8, 8)|`padding`|along axes [1]"),
    "a window larger than the second image": (
        lambda: convolved(features=[4, 3], window=[5, 5]), ValueError, "`window` (5, 5)|image of (4, 4)"),
    "a window of three axes": (lambda: convolved(window=(3, 3, 3)), ValueError, "one for each of the 2 axes of space|(3, 3, 3)"),
    "padding as wide as the window": (
        lambda: convolved(padding=3), ValueError, "`padding` is at least 0 and smaller than the window (3, 3)|got 3|further out"),
    "padding of one axis": (lambda: convolved(padding=((1, 1),)), ValueError, "`padding` |((1, 1),)"),
    "padding of another name": (lambda: convolved(padding="REFLECT"), ValueError, "'REFLECT'|'SAME' or 'VALID'"),
    "lists of different lengths": (
        lambda: convolved(features=[4, 3], window=[3]), ValueError, "`features` makes 2 stages|{'window': 1}"),
    "no stages": (lambda: convolved(features=[]), ValueError, "`features` makes 0 stages"),
    "neighbours that are the site itself": (
        lambda: topologies.lattice((1, 4)), ValueError, "(-1, 0), (1, 0) of a lattice|`shape` (1, 4)|the site itself|make the axis longer"),
    "periods of one axis": (
        lambda: topologies.lattice((3, 3), periodic=(True,)), ValueError, "`periodic` is True or False, or a tuple of 2"),
    "neither degree nor probability": (
        lambda: random_graph(), ValueError, "give one of `degree` and `probability`|None and None"),
    "both degree and probability": (
        lambda: random_graph(degree=1, probability=0.5), ValueError, "give one of `degree` and `probability`"),
    "an odd number of ends": (
        lambda: random_graph(degree=3, symmetric=True), ValueError, "`degree` 3 for 5 units needs 15 ends|odd"),
    "an odd number of neighbours": (lambda: topologies.small_world(5, 3, 0.1), ValueError, "`neighbours` is even|got 3"),
    "isolated vertices": (lambda: topologies.graph_layer(nx.empty_graph(2), 1), ValueError, "have no edge; remove"),
    "no vertices": (lambda: topologies.graph_layer(nx.Graph(), 1), ValueError, "`graph` has no vertices; add"),
    "a reverse of the same kind": (
        lambda: topologies.reciprocal(topologies.lattice(4), back="lateral"), ValueError, "`back` is another kind|'lateral'|rename"),
    "reverse edges of no kind": (
        lambda: topologies.reciprocal(topologies.hopfield(4)), ValueError, "`kind` 'lateral' is that of no edge|'recurrent'"),
    "reverse edges with other numbers": (
        lambda: topologies.reciprocal(nx.DiGraph([("a", "b", {"weight": 1}), ("b", "a", {"weight": 2})]), "edge"),
        ValueError, "other numbers or ties than those the other way|make them alike"),
    "a reverse edge where another one is": (
        lambda: topologies.reciprocal(nx.DiGraph([("a", "b", {"kind": "x"}), ("b", "a", {"kind": "y"})]), "x"),
        ValueError, "('b', 'a') of another kind|draw a MultiDiGraph"),
    "nothing predicted": (
        lambda: topologies.predictive(nx.DiGraph({"a": {}})), ValueError, "node 'a': `shape` is missing"),
    "no predictions": (lambda: predicting(), ValueError, "`graph` has no edges|nothing is predicted; draw"),
    "one size": (lambda: topologies.predictive([3]), ValueError, "`graph` names at least two layers|got [3]"),
    "no sizes": (
        lambda: topologies.predictive(dx.Topology.from_edges([0], [1])), TypeError, "`graph` is a networkx.DiGraph, or a list|give"),
    "a size that is no shape": (lambda: topologies.predictive([3, 0]), ValueError, "`graph` at layer 1: "),
    "a node that is called as an error": (
        lambda: predicting(("a", "b"), ("b", "a"), ("b", ("error", "a")), ("a", ("error", "b"))), ValueError,
        "`graph` has nodes ('error', 'a'), ('error', 'b'), as the errors of 'a', 'b' are named; rename"),
    "nodes of the kind of errors": (
        lambda: topologies.predictive(drawing({"kind": "error"})), ValueError, "nodes of kind 'error'|another kind"),
    "a prediction of predictions": (
        lambda: topologies.predictive(topologies.predictive([3, 2])), ValueError, "nodes of kind 'error'"),
    "kinds of edges to errors": (
        lambda: predicting(("a", "b", 0, "error"), ("b", "a", 0, "x back"), ("a", "a", 0, "x"), ("b", "b", 0, "error back")), ValueError,
        "edges of kinds 'error', 'error back', 'x back'|give them other kinds"),
    "the key of edges to errors": (
        lambda: predicting(("a", "a", "error"), ("b", "b", "error"), ("a", "b", "error")), ValueError,
        "edges ('a', 'a', 'error'), ('b', 'b', 'error') with the key 'error'|other keys"),
    "no modules": (lambda: topologies.modular(nx.Graph(), 1), ValueError, "without vertices; give"),
    # drawings
    "no nodes": (lambda: dx.Topology(nx.DiGraph()), ValueError, "`graph` has no nodes|add_node"),
    "a list of edges": (lambda: dx.Topology([("a", "b")]), TypeError, "`graph`|DiGraph|got [('a', 'b')]|from_edges"),
    "a misspelt shape": (lambda: lone(shpae=3), ValueError, "`shape` is missing (is it 'shpae'?)|give one"),
    "a shape beside an array": (
        lambda: lone({"x": 2}, shape=2, array="x"), ValueError, "`shape` and `array` clash|drop `shape`"),
    "an index without an array": (lambda: lone(index=3), ValueError, "node 'a'|`index` is given without `array`|name"),
    "an array where there is none": (lambda: lone(array="x"), ValueError, "'x' is not declared; no array is|arrays="),
    "an array of another name": (lambda: lone({"y": 1}, array="x"), ValueError, "'x' is not declared; the arrays are 'y'"),
    "a number as the name of an array": (lambda: compiled(arrays={3: 2}), ValueError, "`arrays` 3|is a str"),
    "views of several types": (
        lambda: shared(dtype="int8"), ValueError, "array 'x'|clashing dtypes|'top' (float32)|'part' (int8)|all the same"),
    "a role in the plural": (
        lambda: lone(shape=1, role="inputs"), ValueError, "`role` is 'input', 'output' or 'held'|got 'inputs'|write one"),
    "half a place": (lambda: lone(shape=1, role={"input": 0.5}), ValueError, "`role` is |{'input': 0.5}"),
    "floats as names": (lambda: dx.Topology(renamed(1.5)), TypeError, "node names|1.5|rename"),
    "deep names": (lambda: dx.Topology(deep(30)), TypeError, "at most 20 deep|rename"),
    "very deep names": (lambda: dx.Topology(deep(100_000)), TypeError, "at most 20 deep|rename"),
    "floats as keys": (lambda: keyed(("a", "b", 0.5)), TypeError, "edge keys|0.5"),
    "numbers on some edges": (
        lambda: keyed(("a", "b", {"w": 1.0}), ("b", "a", {"w": "x"})), ValueError, "edge attribute 'w'|'x' on ('b', 'a'|all of them numbers"),
    "an input as the tuple of inputs": (
        lambda: dx.Topology(renamed(("a", 1)), inputs=("a", 1)), ValueError, "`inputs` names 'a', 1|write [('a', 1)]"),
    "an input as text": (lambda: compiled(inputs="a"), TypeError, "`inputs` is a sequence|write ['a']"),
    "an input twice": (lambda: compiled(inputs=["a", "b", "a"]), ValueError, "`inputs` names 'a' twice|once"),
    "an unknown output": (lambda: compiled(outputs=["q", "r"]), ValueError, "`outputs` names 'q', 'r'|'a', 'b'"),
    "inputs that overlap": (
        lambda: shared(["a", "part", "top"]), ValueError, "`inputs` |'part'|'top'|overlap on a shared array|one input"),
    "inputs that JSON made lists": (
        lambda: dx.Topology(GRID.to_networkx(), inputs=[[0, 1]]), ValueError, "a list is no name, for JSON turns tuples into lists|write (0, 1)"),
    "names that JSON made lists": (
        lambda: GRID.indices("clamp", [[0, 0], (1, 1)]), ValueError, "`clamp` names [0, 0]|a list is no name|write (0, 0)"),
    # indices
    "an int outside": (lambda: viewed((0, -7)), ValueError, "array 'image' of shape (4, 6)|-7 lies outside axis 1 of size 6|inside"),
    "a slice outside": (lambda: viewed(slice(2, 5)), ValueError, "slice(2, 5, None) reaches outside axis 0 of size 4"),
    "a step backwards": (lambda: viewed((0, slice(None, None, -1))), ValueError, "step of -1 on axis 1|positive"),
    "an empty slice": (lambda: viewed((0, slice(3, 3))), ValueError, "is empty on axis 1 of size 6"),
    "a slice of floats": (lambda: viewed(slice(0, 1.5)), ValueError, "are not ints"),
    "too many ints": (lambda: viewed((0, 0, 0)), ValueError, "3 entries for 2 axes"),
    "two sorts of dots": (lambda: viewed((..., ...)), ValueError, "more than one Ellipsis"),
    "text among lists": (lambda: viewed(([0, 1], "x")), ValueError, "'x' is neither"),
    "a list outside": (lambda: viewed([0, 4]), ValueError, "index 4 is out of bounds for axis 0 with size 4|give"),
    "a list far outside": (lambda: viewed([2**70]), ValueError, "holds neither ints nor a mask"),
    "too many lists": (lambda: viewed(([0], [0], [0])), ValueError, "too many indices"),
    "lists of different lengths in one index": (
        lambda: viewed(([0, 1], [0, 1, 2])), ValueError, "could not be broadcast together with shapes (2,) (3,)"),
    "cells twice": (
        lambda: viewed(([0, 3, -4], slice(0, 2))), ValueError, "cells (0, 0), (0, 1) are named more than once"),
    "a mask of another shape": (
        lambda: viewed(np.ones((4, 5), bool)), ValueError, "boolean index did not match|axis 1; size of axis is 6"),
    "a mask of no cell": (lambda: viewed(np.zeros((4, 6), bool)), ValueError, "names no cell"),
    "ints that are masked": (
        lambda: viewed(np.ma.masked_array([0, 1], [0, 1])), ValueError, "holds neither ints nor a mask"),
    # wiring that is already arrays
    "ends of different lengths": (
        lambda: from_edges(senders=[0]), ValueError, "`senders` has 1 entries and `receivers` 2|one each"),
    "ends outside": (
        lambda: from_edges(senders=[0, 7], receivers=[1, 9], n=4), ValueError, "nodes 7: `senders`|nodes 9: `receivers`|0 to 3|larger `n`"),
    "ends beyond int32": (lambda: from_edges(senders=[2**32, 0]), ValueError, "`n` is at most 2147483647"),
    "no nodes by number": (lambda: from_edges(senders=[], receivers=[]), ValueError, "`n`, the number of nodes|0"),
    "kinds of one node": (lambda: from_edges(kind=["a"]), ValueError, "`kind` is one str or a column of 2|got 1"),
    "a number among kinds": (lambda: from_edges(edge_kind=["a", 3]), ValueError, "`edge_kind`|got 3"),
    "parallel edges": (
        lambda: from_edges(senders=[0, 0, 1], receivers=[1] * 3), ValueError, "edges (0, 1) are given more than once|`keys`"),
    "equal keys": (
        lambda: from_edges(senders=[0, 0], receivers=[1, 1], keys=["x", "x"]), ValueError, "edges (0, 1, 'x')|`keys` that differ"),
    "too few keys": (lambda: from_edges(keys=["x"]), ValueError, "`keys` holds one key an edge, 2|got 1"),
    "a short column": (lambda: from_edges(attributes={"w": [1.0]}), ValueError, "`attributes` 'w'|2 in all|(1,)"),
    "a column of kinds": (
        lambda: from_edges(attributes={"kind": [1, 2]}), ValueError, "`attributes` 'kind'|arguments of their own"),
    # states of several inputs and outputs, and of none
    "x for several inputs": (
        lambda: SEVERAL.init(BATCH[2]), ValueError, "has the inputs 'a', 'b'|`x` as a mapping"),
    "y for several outputs": (
        lambda: SEVERAL.init({"a": BATCH[2]}, BATCH[2]), ValueError, "has the outputs 'a', 'b'|`y` as a mapping"),
    "x for no input": (lambda: PLAIN.init(BATCH[2]), ValueError, "has no inputs; give `x` as a mapping"),
    "y for no output": (lambda: PLAIN.init({"a": BATCH[2]}, BATCH[2]), ValueError, "has no outputs; give `y` as a mapping"),
    "the readout of no output": (lambda: PLAIN.readout, ValueError, "no `readout`|has no outputs|give Topology(..., outputs=[...])"),
    "values for views that overlap": (
        lambda: VIEWS.replace({"top": np.ones((1, 4)), "part": np.ones((1, 4))}), ValueError, "nodes 'top', 'part' overlap|replace_val"),
    "a list for nodes with names": (
        lambda: PLAIN.replace([1, 2]), TypeError, "`value` is what `.arrays` gives or a mapping|got [1, 2]|lists are for nodes 0 to L-1"),
    "arrays of another topology": (
        lambda: PLAIN.replace(STATE.arrays), ValueError, "`value` has the arrays |but the topology has 'node(2,)'|of this topology"),
    "arrays of several batches": (
        lambda: other_arrays(np.ones((1, 3, 5))), ValueError, "`value` has arrays of batch [2, 5]|last axis"),
    "arrays of another shape": (
        lambda: other_arrays(np.ones((1, 4, 2))), ValueError, "`value['input(3,)']` has shape (1, 3, 2)|got (1, 4, 2)"),
    "arrays of another type": (
        lambda: other_arrays(np.ones((1, 3, 2), complex)), TypeError, "`value['input(3,)']` has dtype float32|complex128"),
    "names of arrays for names of nodes": (
        lambda: STATE.replace(dict(STATE.arrays)), ValueError, "'input(3,)', |: an array, in `state.arrays`, and no node|`replace` takes all"),
    "an array for a node": (lambda: STATE["input(3,)"], KeyError, "'input(3,)': an array"),
    # states of layers
    "layers by their number": (lambda: dx.SequentialState(3), TypeError, "`sizes` is a list of one shape a layer"),
    "no layers": (lambda: dx.SequentialState([]), ValueError, "`sizes` names at least one layer"),
    "a layer of no units": (lambda: dx.SequentialState([3, 0]), ValueError, "`sizes` at layer 1: |at least 1"),
    "layers of no type": (lambda: dx.SequentialState([3, 4], dtype="x"), ValueError, "`dtype` is a numeric type"),
    "layers of 64 bits": (
        lambda: dx.SequentialState([3, 4], dtype="float64"), ValueError, "float64 needs 64-bit mode|jax_enable_x64"),
    # graphs
    "a kind of edges that has none": (
        lambda: dx.GraphState(dx.Topology(topologies.sequential([3, 2]))).graphs_tuple("recurrent"),
        ValueError, "`edge_kind` 'recurrent' has no edges; the kinds that have some are |'forward'"),
    "too few nodes of graphs": (lambda: other_nodes(np.ones((1, 4))), ValueError, "`graphs.nodes` has shape (2, 4)|1"),
    "nodes of another width": (lambda: other_nodes(np.ones((2, 3))), ValueError, "`graphs.nodes` has shape (2, 4)|(2, 3)"),
    "complex nodes of graphs": (
        lambda: other_nodes(np.ones((2, 4), complex)), TypeError, "`graphs.nodes` has dtype float32|complex128"),
    "nodes of one shape for several": (
        lambda: STATE.from_graphs_tuple("forward", STATE.graphs_tuple("recurrent")), ValueError,
        "`graphs.nodes` is a dict with the keys 'input(3,)', 'hidden(4,)', 'output(2,)'|an array of float32"),
    "nodes of too few shapes": (
        lambda: other_nodes({"input(3,)": np.ones((6, 3))}, "forward"), ValueError,
        "but got the keys 'input(3,)'; give features for each"),
    "nodes of several shapes, one of another width": (
        lambda: other_nodes({"input(3,)": np.ones((6, 3)), "hidden(4,)": np.ones((6, 4)), "output(2,)": np.ones((6, 4))}, "forward"),
        ValueError, "`graphs.nodes['output(2,)']` has shape (6, 2)|got (6, 4)"),
    # the wiring of a population
    "weights of NaN": (lambda: weighted(float("nan")), ValueError, "not finite|make"),
    "weights of a matrix": (
        lambda: read_wiring("graph", scipy.sparse.coo_array(([np.inf], ([0], [0])), (1, 1))), ValueError, "not finite"),
    "an empty graph": (lambda: read_wiring("graph", nx.DiGraph()), ValueError, "`graph` |(0, 0)|give"),
    "a matrix of no rows": (
        lambda: read_wiring("graph", scipy.sparse.coo_array((0, 3))), ValueError, "`graph` |(0, 3)|give"),
}  # fmt: skip

# of both states, which have layers of 3, 4 and 2 units and two samples
FOR_BOTH = {
    "no samples": (
        lambda s: s.init(np.ones((0, 3))), ValueError, "`x`|batch of 0|at least one"),
    "a sample without a batch": (
        lambda s: s.init(np.ones(3)), ValueError, "`x`|(B, 3)|got (3,)|value[None]"),
    "x of another width": (
        lambda s: s.init(np.ones((2, 5))), ValueError, "`x`|(B, 3)|got (2, 5)|reshape"),
    "y of another batch": (
        lambda s: s.init(BATCH[3], np.ones((1, 2))), ValueError, "`y`|(2, 2)|batch of 1|all one batch"),
    "a value of another batch": (
        lambda s: s.replace_val(-1, np.ones((3, 2))), ValueError, "`value` for |(2, 2)|batch of 3|init"),
    "values of several batches": (
        lambda s: s.replace([BATCH[3][:1], BATCH[4], BATCH[2]]), ValueError, "`value[1]`|batch of 2"),
    "too few values": (lambda s: s.replace([BATCH[3]]), ValueError, "`value`|3 in all|got 1"),
    "a value twice": (
        lambda s: s.replace({0: BATCH[3], -3: BATCH[3]}), ValueError, "set twice: |0; give each value once"),
    "a value in x and in y": (
        lambda s: s.init({0: BATCH[3]}, {0: BATCH[3]}), ValueError, "set twice: |0; give each value once"),
    "nothing in x": (lambda s: s.init({}), ValueError, "`x` is empty|give a value, or take a new state"),
    "unknown in x": (lambda s: s.init({7: 1, "q": 2}), ValueError, "`x` names 7, 'q'|does not have|0, 1, 2"),
    "a place before the first": (lambda s: s[-4], KeyError, "there is no |-4; the |s are 0"),
    "a slice of nodes": (lambda s: s[0:2], KeyError, "there is no |slice(0, 2, None)"),
    "stacks of states": (
        lambda s: s.replace_val(0, np.ones((3, 2, 3), np.float32)), ValueError, "has shape (2, 3), batch first"),
    "a sparse matrix": (
        lambda s: s.init(scipy.sparse.eye_array(3)), ValueError, "`x` |but got |; give an array of numbers"),
    "dates": (lambda s: s.init(np.zeros((2, 3), "datetime64[s]")), TypeError, "datetime64|convert"),
    "a structured array": (lambda s: s.init(np.zeros((2, 3), [("a", int)])), TypeError, "convert"),
    "complex numbers": (
        lambda s: s.init(BATCH[3] + 0j), TypeError, "`x`|float32|complex64|astype"),
    "random keys": (
        lambda s: s.init(jax.random.split(jax.random.key(0), (2, 3))), TypeError, "`x`|float32|key"),
    "ints that floats do not hold": (
        lambda s: s.replace_val(0, np.full((2, 3), 2**24 + 1)), TypeError, "`value`|float32, which cannot hold these|exactly"),
    "a mask that hides nothing": (
        lambda s: s.init(np.ma.masked_array(BATCH[3], mask=False)), TypeError, "without a mask|fill it, as in value.filled"),
    "a mask inside a list": (
        lambda s: s.init([BATCH[3][0], np.ma.masked_array(BATCH[3][0], mask=True)]), TypeError, "without a mask|fill it"),
    "one number that is masked": (
        lambda s: s.init([[1.0, np.ma.masked, 1.0]]), TypeError, "without a mask|fill it"),
}  # fmt: skip
for name, state in (("graph", STATE), ("list", LIST)):
    for what, (call, error, words) in FOR_BOTH.items():
        ONE_BY_ONE[f"{what}, {name}"] = (lambda call=call, s=state: call(s)), error, words


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
    with pytest.raises(error) as caught:
        call()
    said = str(caught.value)
    for word in words.split("|"):
        assert word in said, said


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
