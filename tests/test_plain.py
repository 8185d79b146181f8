"""Graphs in and out: through the formats of files and the objects of other libraries."""

import importlib
import io
import json
from types import SimpleNamespace

import jax.numpy as jnp
import jraph
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from test_topology import GRAPHS

import darnax as dx
from darnax import Topology
from darnax.testing import mark
from darnax.topologies import as_graph
from darnax.topologies.plain import as_index, index_text
from darnax.topologies.views import resolve_index

# the formats of files


def graphml(graph, path):
    nx.write_graphml(graph, path)
    return nx.read_graphml(path)


def gexf(graph, path):
    nx.write_gexf(graph, path)
    return nx.read_gexf(path)


def gml(graph, path):
    nx.write_gml(graph, path)
    return nx.read_gml(path)


def node_link(graph, path):
    path.write_text(json.dumps(nx.node_link_data(graph, edges="edges")))
    return nx.node_link_graph(json.loads(path.read_text()), edges="edges")


def relabelled(graph, path):
    return nx.relabel_nodes(nx.relabel_nodes(graph, lambda name: ("x", name)), lambda name: name[1])


def tables(graph, path):
    """Two tables of pandas, as they are in memory."""
    pandas = importlib.import_module("pandas")
    nodes = pandas.DataFrame.from_dict(dict(graph.nodes(data=True)), orient="index")
    return as_graph(nx.to_pandas_edgelist(graph), nodes=nodes)


def csv(graph, path):
    """Two tables of comma-separated values."""
    pandas = importlib.import_module("pandas")
    nodes, edges = io.StringIO(), io.StringIO()
    pandas.DataFrame.from_dict(dict(graph.nodes(data=True)), orient="index").to_csv(
        nodes, index_label="node"
    )
    nx.to_pandas_edgelist(graph).to_csv(edges, index=False)
    edges.seek(0), nodes.seek(0)
    as_text = {"dtype": str, "keep_default_na": False, "na_values": [""]}
    edges = pandas.read_csv(edges, **as_text)
    return as_graph(edges, nodes=pandas.read_csv(nodes, **as_text).set_index("node"))


def igraph(graph, path):
    return as_graph(importlib.import_module("igraph").Graph.from_networkx(graph))


FORMATS = {
    function.__name__: function
    for function in (graphml, gexf, gml, node_link, relabelled, tables, csv, igraph)
}


def attributes():
    """Numbers of several types, on some edges alone."""
    graph = GRAPHS["attributes"]()
    for *_, data in graph.edges(data=True):
        # networkx has no other use for these names when it reads a file
        data.pop("key", None), data.pop("u_of_edge", None)
    return graph


def words():
    """Names that look like other names."""
    graph = nx.DiGraph()
    names = [
        "3",
        3,
        "(1, 2)",
        (1, 2),
        "'a'",
        "a",
        "-1",
        -1,
        "1.0",
        "nothing",
        ("a", ("b", 0)),
        "x y",
        '"',
        "é",
        "NA",
        "nan",
        "",
        "True",
        "<NA>",
    ]
    graph.add_nodes_from(names, shape=2)
    nx.add_cycle(graph, names)
    graph.add_node("a kind", shape=2, kind="NA")
    graph.add_edge("a kind", "a kind", kind="null")
    return mark(graph, inputs=[(1, 2), "3"], outputs=[3], held=["a"])


def whole():
    """Weights that are integers on some edges, and two arrays that no node is a view of."""
    graph = nx.DiGraph(
        arrays={"image": (4, 4), "nobody": 3}, node_kinds=["more"], edge_kinds=["no edge"]
    )
    graph.add_node("a", array="image", index=(slice(0, 4, 2), 1))
    graph.add_node("b", shape=(2, 1), dtype="int8", kind="b")
    graph.add_edge("a", "b", weight=3, delay=2**40)
    graph.add_edge("b", "a", weight=-1)
    graph.add_edge("a", "a")
    return graph


DRAWN = GRAPHS | {"attributes": attributes, "words": words, "whole": whole}


@pytest.mark.parametrize("graph", DRAWN.values(), ids=DRAWN.keys())
@pytest.mark.parametrize("there_and_back", FORMATS.values(), ids=FORMATS)
def test_formats_give_an_equal_topology(tmp_path, there_and_back, graph):
    topology = Topology(graph())
    if there_and_back in (tables, csv) and not topology.edges:
        pytest.skip("networkx writes no table without edges")
    back = there_and_back(topology.to_networkx(plain=True), tmp_path / "file")
    assert Topology(back) == topology


@pytest.mark.parametrize("graph", DRAWN.values(), ids=DRAWN.keys())
def test_plain_drawings_are_text_and_numbers(graph):
    plain = Topology(graph()).to_networkx(plain=True)
    assert plain.graph == {}
    assert set(map(type, plain)) == {str}
    found = [data for _, data in plain.nodes(data=True)]
    found += [data for *_, data in plain.edges(data=True)]
    assert {type(value) for data in found for value in data.values()} <= {str, int, float}


def test_igraph_takes_any_drawing():
    igraph = importlib.import_module("igraph")
    for graph in DRAWN.values():
        topology = Topology(graph())
        there = igraph.Graph.from_networkx(topology.to_networkx())
        assert Topology(as_graph(there)) == topology
    named = igraph.Graph(3, [(0, 1), (1, 2)], vertex_attrs={"name": ["p", "q", "r"]})
    drawing = as_graph(named, shape=4, edge_kind="lateral")
    assert not drawing.is_directed()
    assert Topology(drawing, both_ways=True).edges == [
        ("p", "q"),
        ("q", "p"),
        ("q", "r"),
        ("r", "q"),
    ]
    assert as_graph(igraph.Graph(2, [(0, 1)], vertex_attrs={"name": ["p", "p"]})).edges == {(0, 1)}


# drawings that are changed after they were read


def read(graph):
    return nx.read_gml(io.BytesIO("\n".join(nx.generate_gml(graph)).encode()))


def test_what_was_read_may_be_changed_like_any_drawing():
    """Roles, names and arrays follow nodes, and nothing is left of what they were called before."""
    chain = read(Topology(dx.topologies.sequential([2, 3, 4])).to_networkx(plain=True))
    assert Topology(nx.relabel_nodes(chain, {"0": "5"})).inputs == (5,)
    with pytest.raises(
        ValueError, match=r"nodes? 'eye': `name_type` is 'int', which the name is not; drop it"
    ):
        Topology(nx.relabel_nodes(chain, {"0": "eye"}))
    renamed = nx.relabel_nodes(chain, {"0": "eye"})
    del renamed.nodes["eye"]["name_type"]
    assert Topology(renamed).inputs == ("eye",)
    numbered = Topology(nx.convert_node_labels_to_integers(chain, first_label=4))
    assert (numbered.inputs, numbered.outputs) == ((4,), (6,))
    moved = nx.relabel_nodes(chain, lambda name: ("left", name))
    assert Topology(moved).inputs == (("left", "0"),)
    views = read(Topology(GRAPHS["windows"]()).to_networkx(plain=True))
    both = Topology(nx.compose(chain, views))
    assert set(both.nodes) == {*Topology(chain).nodes, *Topology(views).nodes}
    assert set(both.inputs) == {0, "eye"}
    assert set(both.edge_kinds) == {*Topology(chain).edge_kinds, *Topology(views).edge_kinds}
    assert both.arrays["line"].shape == (8,)
    part = Topology(views.subgraph([node for node in views if node != "eye"]))
    assert part.inputs == ()


def test_a_drawing_and_one_that_was_read_share_an_array():
    drawn = nx.DiGraph(arrays={"line": 3})
    drawn.add_node("b", array="line", index=slice(1, 3))
    first = nx.DiGraph(arrays={"line": (3,)}, edge_kinds=["late"])
    first.add_node("a", array="line", index=slice(0, 2))
    both = Topology(nx.compose(read(Topology(first).to_networkx(plain=True)), drawn))
    assert both.arrays["line"].shape == (3,)
    assert both.edge_kinds == ("late",)
    drawn.graph["edge_kinds"] = "late"
    with pytest.raises(TypeError, match=r"`graph.graph\['edge_kinds'\]` is a list of kinds"):
        Topology(nx.compose(read(Topology(first).to_networkx(plain=True)), drawn))


def test_arrays_of_two_drawings_that_differ_are_told():
    def drawing(name, size):
        graph = nx.DiGraph(arrays={"line": size})
        graph.add_node(name, array="line", index=slice(0, 2))
        return read(Topology(graph).to_networkx(plain=True))

    assert Topology(nx.compose(drawing("a", 3), drawing("b", 3))).arrays["line"].shape == (3,)
    with pytest.raises(
        ValueError, match=r"node 'b': array 'line' is declared with two shapes; rename one"
    ):
        Topology(nx.compose(drawing("a", 3), drawing("b", 4)))


def change(graph, nodes=None, edges=None):
    for name, value in (nodes or {}).items():
        nx.set_node_attributes(graph, {"a": value}, name)
    for name, value in (edges or {}).items():
        nx.set_edge_attributes(graph, value, name)
    return graph


STALE = {
    "type": (lambda g: change(g, {"name_type": "float"}), r"node 'a': `name_type` is 'float', which the name is not"),
    "declares": (lambda g: change(g, {"declares": "{"}), r"node 'a': `declares` is '\{', which no drawing has said; drop it"),
    "declares less": (lambda g: change(g, {"declares": '{"arrays": {}}'}), r"`declares` is .* which no drawing has said"),
    "declares more": (lambda g: change(g, {"declares": '{"arrays": {}, "node_kinds": [3], "edge_kinds": [], "integers": []}'}), r"`declares` is .* which no drawing has said"),
    "key": (lambda g: change(g, edges={"edge_key": "open('x')"}), r"\('a', 'b'\).*: `edge_key` is no str, int or tuple"),
    "long key": (lambda g: change(g, edges={"edge_key": "(" * 10**6}), r"`edge_key` is no str, int or tuple"),
    "one key": (lambda g: change(g, edges={"edge_key": "1"}), r"edges \('a', 'b', 1\).* are drawn more than once; give each an `edge_key`"),
    "one name": (lambda g: nx.relabel_nodes(change(g, {"name_type": "str"}), {"a": "'b'"}), r"two nodes have one name"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), STALE.values(), ids=STALE)
def test_words_that_say_nothing_are_refused(spoil, words):
    with pytest.raises(ValueError, match=words):
        Topology(spoil(Topology(GRAPHS["keys"]()).to_networkx(plain=True)))


# attributes as text and floats


@pytest.mark.parametrize(
    ("written", "shape"),
    [
        ("(8, 8)", (8, 8)), ("8", (8,)), (8.0, (8,)), ("8.0", (8,)), ("[8, 8]", (8, 8)), ("8, 8", (8, 8)), ("(8,)", (8,)),
        ("()", ()), ("[]", ()), ([8.0, 4.0], (8, 4)), (np.float64(3), (3,)), (" ( 8 ,4 ) ", (8, 4)),
    ],
    ids=repr,
)  # fmt: skip
def test_shapes_that_came_as_text_or_floats_are_understood(written, shape):
    graph = nx.DiGraph()
    graph.add_node("a", shape=written)
    assert Topology(graph).shape("a") == shape


@pytest.mark.parametrize(
    "written",
    [
        "",
        "eight",
        "(8, x)",
        "8;8",
        "(8, 8",
        "8.5",
        8.5,
        "8x8",
        "1e3",
        "(8,,8)",
        "__import__('os')",
        ",",
        [8.5],
    ],
)
def test_shapes_that_are_none_are_refused_by_name(written):
    graph = nx.DiGraph()
    graph.add_node("a", shape=written)
    with pytest.raises(ValueError, match=r"node 'a': `shape` is an int or a tuple of ints"):
        Topology(graph)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("(0:3, 1)", (slice(0, 3), 1)), ("0:3,1", (slice(0, 3), 1)), ("...", ...), ("..., -1", (..., -1)), (":", slice(None)),
        ("::2", slice(None, None, 2)), ("[1:3]", slice(1, 3)), ("2", 2), ("()", ()), ("[[0, 2], [3, 1]]", ([0, 2], [3, 1])),
        ("[0, 2]", [0, 2]), ("[3]", [3]),
        ("[[[0], [2]], [[3, 1]]]", np.ix_([0, 2], [3, 1])), ("1:-1, :", (slice(1, -1), slice(None))),
    ],
    ids=repr,
)  # fmt: skip
def test_indices_that_came_as_text_are_understood(written, meant):
    shape = (4, 5)
    ours, theirs = resolve_index(as_index(written), shape), resolve_index(meant, shape)
    assert index_text(ours) == index_text(theirs)
    again = resolve_index(as_index(index_text(ours)), shape)
    np.testing.assert_array_equal(np.ones(shape)[again].shape, np.ones(shape)[theirs].shape)
    cells = np.arange(20).reshape(shape)
    np.testing.assert_array_equal(cells[again], cells[theirs])


@pytest.mark.parametrize(
    "written",
    [
        "1 2",
        "9" * 5000,
        "a",
        "0:3:1:1",
        "0:x",
        "[[0, 2]",
        "[[0], [[1, 2], 3]]",
        "1.5",
        "(0:2",
        "0::, ,",
        "exit()",
        "[[{}]]",
        "[[" * 10**5,
    ],
)
def test_indices_that_are_none_are_refused_by_name(written):
    graph = nx.DiGraph(arrays={"image": (4, 5)})
    graph.add_node("a", array="image", index=written)
    with pytest.raises(ValueError, match=r"node 'a': `index` into array 'image' of shape \(4, 5\)"):
        Topology(graph)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("0.5", 0.5),
        ("-3", -3),
        ("1e-3", 1e-3),
        (" 2. ", 2.0),
        (".5", 0.5),
        ("inf", np.inf),
        ("-INF", -np.inf),
        ("9" * 20, 1e20),
    ],
)
def test_numbers_that_came_as_text_are_understood(written, number):
    assert Topology(_edge(written)) == Topology(_edge(number))


def _edge(weight, **attributes):
    graph = nx.DiGraph()
    graph.add_nodes_from([0, 1], shape=())
    graph.add_edge(0, 1, weight=weight, **attributes)
    graph.add_edge(1, 0, weight=1.0)
    return graph


@pytest.mark.parametrize("written", ["half", "1,5", "0x10", "1_000", "nan", "", "1 2"])
def test_words_among_numbers_are_refused_by_name(written):
    with pytest.raises(
        ValueError, match=r"edge attribute 'weight': a number on some edges, but .*\(0, 1\)"
    ):
        Topology(_edge(written))


def test_what_files_call_edges_is_no_number():
    graph = _edge(1.0)
    nx.set_edge_attributes(graph, {(0, 1): "0", (1, 0): "1"}, "id")
    assert Topology(graph) == Topology(_edge(1.0))


def test_roles_that_came_as_text_keep_their_places():
    graph = nx.DiGraph()
    graph.add_node("a", shape=1, role="input: 1, output")
    graph.add_node("b", shape=1, role="input:0,output: 3")
    topology = Topology(graph)
    assert (topology.inputs, topology.outputs) == (("b", "a"), ("a", "b"))
    for role in ("input: first", "input:", "inlet: 1", "input: -1"):
        graph.nodes["a"]["role"] = role
        with pytest.raises(ValueError, match=r"node 'a': `role` is 'input', 'output' or 'held'"):
            Topology(graph)


# undirected graphs


def test_undirected_edges_go_both_ways():
    club = nx.karate_club_graph()
    nx.set_node_attributes(club, 3, "shape")
    club.add_edge(4, 4)
    assert Topology(club, both_ways=True) == Topology(club.to_directed())
    assert (4, 4) in Topology(club, both_ways=True).edges
    multi = nx.MultiGraph([("a", "b"), ("a", "b")])
    nx.set_node_attributes(multi, 3, "shape")
    assert Topology(multi, both_ways=True) == Topology(multi.to_directed())
    with pytest.raises(
        ValueError, match=r"`graph` is undirected.*Topology\(graph, both_ways=True\)"
    ):
        Topology(club)
    with pytest.raises(
        ValueError, match=r"`both_ways` is for undirected graphs, and this one says who"
    ):
        Topology(club.to_directed(), both_ways=True)


def test_a_state_of_a_drawing_is_one_of_its_topology():
    drawing = dx.topologies.sequential([2, 3])
    state = dx.GraphState(drawing, 4)
    assert state.topology == Topology(drawing)
    assert state[1].shape == (4, 3)
    with pytest.raises(ValueError, match="`graph` is undirected"):
        dx.GraphState(nx.path_graph(3))


# objects of other libraries

ENDS = np.asarray([[0, 1, 2, 2], [1, 2, 0, 2]])
NUMBERS = np.asarray([0.5, -1.0, 2.0, 3.0], np.float32)


def expected(n=4, shape=(), weight="weight", **common):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n), shape=shape, **common)
    for u, v, number in zip(*ENDS.tolist(), NUMBERS.tolist(), strict=True):
        graph.add_edge(u, v, **{weight: number})
    return graph


def matrix():
    dense = np.zeros((4, 4), np.float32)
    dense[tuple(ENDS)] = NUMBERS
    return dense


class Tensor:
    """What a tensor of torch that waits for a derivative gives, and what it refuses."""

    def __init__(self, values, attached=True):
        self.values, self.shape, self._attached = np.asarray(values), np.shape(values), attached

    def detach(self):
        return Tensor(self.values, attached=False)

    def cpu(self):
        return self

    def __array__(self, *arguments, **named):
        assert not self._attached, "call detach first"
        return self.values


class Hetero(dict):
    """What `HeteroData` of PyG has, as far as it is read."""

    node_types = ("paper", "author")
    edge_types = (
        ("author", "writes", "paper"),
        ("paper", "cites", "paper"),
        ("author", "likes", "paper"),
    )


@pytest.mark.parametrize(
    "source",
    [
        matrix,
        lambda: jnp.asarray(matrix()),
        lambda: scipy.sparse.csr_array(matrix()),
        lambda: scipy.sparse.coo_matrix(matrix()),
        # entries that come twice add up
        lambda: scipy.sparse.coo_array((np.tile(NUMBERS / 2, 2), np.tile(ENDS, 2)), shape=(4, 4)),
        lambda: nx.from_numpy_array(matrix(), create_using=nx.DiGraph),
        lambda: SimpleNamespace(edge_index=Tensor(ENDS), num_nodes=4, edge_attr=Tensor(NUMBERS[:, None])),
        lambda: SimpleNamespace(edge_index=ENDS, num_nodes=4, edge_weight=NUMBERS, edge_attr=np.ones((4, 7))),
        lambda: jraph.GraphsTuple(None, NUMBERS, ENDS[1], ENDS[0], None, np.asarray([4]), np.asarray([4])),
    ],
    ids=["array", "jax", "csr", "coo", "twice", "networkx", "pyg", "pyg weight", "jraph"],
)  # fmt: skip
def test_graphs_of_other_libraries_are_drawn(source):
    drawing = as_graph(source(), shape=2, kind="unit", edge_kind="synapse")
    wanted = expected(shape=2, kind="unit")
    nx.set_edge_attributes(wanted, "synapse", "kind")
    assert Topology(drawing) == Topology(wanted)


def test_a_matrix_that_is_given_is_not_changed():
    twice = scipy.sparse.coo_array((np.tile(NUMBERS, 2), np.tile(ENDS, 2)), shape=(4, 4))
    as_graph(twice)
    assert twice.nnz == 8


def test_files_of_sparse_matrices_go_there_and_back(tmp_path):
    topology = Topology(expected())
    there = nx.to_scipy_sparse_array(topology.to_networkx())
    scipy.sparse.save_npz(tmp_path / "wiring.npz", there)
    back = scipy.sparse.load_npz(tmp_path / "wiring.npz")
    assert Topology(as_graph(back, shape=())) == topology
    # the couplings of `dx.sparse` are the transpose
    assert (there.T != back.T).nnz == 0


def test_keys_of_a_drawing_that_is_composed_with_a_plain_one_stay():
    first, second = nx.MultiDiGraph(), nx.MultiDiGraph()
    first.add_nodes_from("ab", shape=2)
    first.add_edge("a", "b")
    second.add_node("b", shape=2)
    second.add_edge("b", "b", key="y")
    plain = nx.MultiDiGraph(Topology(first).to_networkx(plain=True))
    assert ("b", "b", "y") in Topology(nx.compose(plain, second)).edges


def test_square_tables_say_what_is_twice_and_keep_what_is_infinite():
    pandas = importlib.import_module("pandas")
    table = pandas.DataFrame([[0, np.inf], [np.nan, 0]], index=["a", "b"], columns=["a", "b"])
    ((*_, weight),) = as_graph(table, shape=()).edges(data="weight")
    assert weight == np.inf
    twice = pandas.DataFrame(np.ones((3, 3)), index=list("aab"), columns=list("aab"))
    with pytest.raises(ValueError, match="names 'a' more than once"):
        as_graph(twice, shape=())


def test_adjacency_tables_go_there_and_back():
    pandas = importlib.import_module("pandas")
    graph = nx.relabel_nodes(expected(), dict(enumerate("abcd")))
    text = nx.to_pandas_adjacency(graph).to_csv()
    back = pandas.read_csv(io.StringIO(text), index_col=0)
    assert Topology(as_graph(back, shape=())) == Topology(graph)
    numbered = pandas.read_csv(
        io.StringIO(nx.to_pandas_adjacency(expected()).to_csv()), index_col=0
    )
    assert Topology(as_graph(numbered, shape=())) == Topology(expected())
    with pytest.raises(
        ValueError, match=r"`source` is a table with columns 'source' and 'target', or a square one"
    ):
        as_graph(pandas.read_csv(io.StringIO(text)))
    rows = pandas.DataFrame(
        {"source": ["a", "a", "b"], "target": ["b", "b", "a"], "weight": [1.0, 2.0, None]}
    )
    drawing = as_graph(rows, nodes={"c": {"shape": 3}, "b": {"shape": 2}}, shape=1)
    topology = Topology(drawing)
    assert list(topology.nodes) == ["c", "b", "a"]
    assert [topology.shape(node) for node in topology.nodes] == [(3,), (2,), (1,)]
    assert topology.edges == [("b", "a", 0), ("a", "b", 0), ("a", "b", 1)]
    assert "weight" not in drawing.edges["b", "a", 0]


def test_features_give_nodes_their_shape():
    data = SimpleNamespace(edge_index=ENDS, num_nodes=4, x=Tensor(np.ones((4, 7))), edge_attr=None)
    assert Topology(as_graph(data)).shape(3) == (7,)
    assert Topology(as_graph(data, shape=2)).shape(3) == (2,)
    ring = nx.cycle_graph(5).to_directed()
    nx.set_node_attributes(ring, (2, 3), "shape")
    nx.set_edge_attributes(ring, 0.5, "weight")
    graphs = dx.GraphState(Topology(ring), 2).graphs_tuple("edge")
    back = Topology(as_graph(graphs))
    assert back == Topology(nx.disjoint_union(ring, ring))
    with pytest.raises(ValueError, match="`shape` is missing"):
        Topology(as_graph(SimpleNamespace(edge_index=ENDS, num_nodes=4)))


def test_data_without_edges_has_none():
    topology = Topology(as_graph(SimpleNamespace(edge_index=None, num_nodes=3), shape=2))
    assert (len(topology), topology.edges) == (3, [])


def test_several_types_of_nodes_and_relations_are_kinds():
    stores = {
        "paper": SimpleNamespace(num_nodes=3, x=np.ones((3, 5))),
        "author": SimpleNamespace(num_nodes=2),
        ("author", "writes", "paper"): SimpleNamespace(edge_index=np.asarray([[0, 1], [2, 0]])),
        ("paper", "cites", "paper"): SimpleNamespace(
            edge_index=np.asarray([[0], [1]]), edge_weight=np.asarray([0.5])
        ),
        ("author", "likes", "paper"): SimpleNamespace(edge_index=np.asarray([[0, 0], [2, 2]])),
    }
    drawing = as_graph(Hetero(stores))
    for i in range(2):
        drawing.nodes["author", i]["shape"] = 4
    topology = Topology(drawing)
    assert [(topology.kind(node), topology.shape(node)) for node in topology.nodes] == [
        *[("paper", (5,))] * 3, *[("author", (4,))] * 2,
    ]  # fmt: skip
    assert set(topology.edges) == {
        (("author", 0), ("paper", 2), "writes"), (("author", 1), ("paper", 0), "writes"),
        (("paper", 0), ("paper", 1), "cites"), (("author", 0), ("paper", 2), "likes"),
        (("author", 0), ("paper", 2), ("likes", 1)),
    }  # fmt: skip
    assert topology.edge_kinds == ("cites", "likes", "writes")


def test_edges_that_come_twice_are_both_there():
    twice = SimpleNamespace(edge_index=np.asarray([[0, 0], [1, 1]]), num_nodes=2)
    assert Topology(as_graph(twice, shape=1)).edges == [(0, 1, 0), (0, 1, 1)]


def test_a_drawing_that_is_given_is_not_changed():
    graph = nx.DiGraph([(0, 1)])
    assert as_graph(graph, shape=3, edge_kind="k").nodes[0] == {"shape": (3,)}
    assert graph.nodes[0] == {}
    assert graph.edges[0, 1] == {}
    views = GRAPHS["views"]()
    assert Topology(as_graph(views, shape=3)) == Topology(views)


REFUSED = {
    "oblong": (np.ones((2, 3)), r"`source` is a square matrix.*got one of shape \(2, 3\)"),
    "oblong sparse": (scipy.sparse.eye_array(2, 3), r"`source` is a square matrix.*got one of shape \(2, 3\)"),
    "vector": (np.ones(3), r"`source` is a square matrix.*got one of shape \(3,\)"),
    "complex": (1j * np.eye(2), r"`source` is a matrix of real numbers, but got complex128"),
    "outside": (SimpleNamespace(edge_index=ENDS, num_nodes=2), r"`source` has edges of the nodes 2, and nodes 0 to 1"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_graph_is_refused(source, words):
    with pytest.raises(ValueError, match=words):
        as_graph(source)
