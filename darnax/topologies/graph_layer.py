"""A graph as one layer of a network, in two grains.

With a node for each vertex, edges can learn and carry attributes of their own. With one node for
all, a coupling holds the graph, and the topology does not grow with it.
"""

from typing import Any

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxDiGraph, NxGraph, nx
from darnax.topologies.tables import Shape, parse_shape


@checks.by_hand
def graph_layer(
    graph: NxGraph,
    features: Shape,
    whole: bool = False,
    tied: bool = True,
) -> NxDiGraph:
    """Any networkx graph as a layer, whose units are its vertices.

    In the fine grain every vertex is a node, under its own name, of kind `unit` and shape
    `features`; every edge of the graph is an edge `lateral` with its `weight` (1 where the graph
    has none), and undirected edges go both ways. `dx.dense(factor="weight")`, tied, gives the field
    `A X W`, with `A[v, u]` the weight from u to v.

    In the coarse grain, `whole`, the layer is one node `"layer"` of shape `(vertices, *features)`,
    rows in the order of the graph, with one edge `lateral` to itself: made for `dx.graph_conv` or,
    with scalar features, `dx.sparse`, which take the same graph. Nothing but `layer` is then in the
    topology, so that it may have millions of vertices.

    There is no input: couple the layer to others, or set vertices and clamp them.

    **Arguments:**

    - `graph`: a networkx graph, directed or not, with parallel edges or not.
    - `features`: the shape of every vertex, an int or a tuple; `()` is a scalar unit.
    - `whole`: whether the layer is one node.
    - `tied`: whether all edges between vertices use the same weights; False to learn one for each.

    Raises `TypeError` for anything but a graph, and `ValueError` for one without vertices or with
    vertices that have no edge: they would neither send nor receive a message.

    !!! example

        ```python
        club = nx.karate_club_graph()
        topology = dx.Topology(dx.topologies.graph_layer(club, features=2))
        couplings = {"lateral": dx.dense(factor="weight")}
        network = dx.Network(topology, couplings, dx.tanh, key=jax.random.key(0))
        ```
    """
    checks.instance("graph", graph, nx.Graph, "a networkx graph", "make one of it")
    whole = checks.flag("whole", whole)
    tied = checks.flag("tied", tied)
    if not len(graph):
        raise ValueError("`graph` has no vertices; add at least one, with an edge")
    shape = parse_shape(features, "features")
    alone = list(nx.isolates(graph))
    if alone:
        raise ValueError(
            f"vertices {_text.names(alone)} of `graph` have no edge; remove them, or give each an "
            "edge to itself"
        )
    return _as_one_node(len(graph), shape) if whole else _as_nodes(graph, shape, tied)


def _as_one_node(vertices: int, shape: tuple[int, ...]) -> NxDiGraph:
    """The layer as one node; the edges of the graph are left to its coupling."""
    drawn = nx.DiGraph(
        node_kinds=("unit",),
        edge_kinds=("lateral",),
    )
    drawn.add_node("layer", shape=(vertices, *shape), kind="unit")
    drawn.add_edge("layer", "layer", kind="lateral")
    return drawn


def _as_nodes(
    graph: NxGraph,
    shape: tuple[int, ...],
    tied: bool,
) -> NxDiGraph:
    """The layer as one node a vertex, with every edge of the graph, undirected ones both ways."""
    multi = graph.is_multigraph()
    drawn = nx.MultiDiGraph() if multi else nx.DiGraph()
    drawn.graph.update(
        node_kinds=("unit",),
        edge_kinds=("lateral",),
    )
    # The graph's own attributes stay, except for shape and kind.
    drawn.add_nodes_from(graph.nodes(data=True))
    drawn.add_nodes_from(graph, shape=shape, kind="unit")
    # A view of it, for a directed copy would take the memory of the graph once more.
    links: Any = graph.to_directed(as_view=True)
    keys = {"keys": True} if multi else {}
    # Each edge is `(u, v, data)`, or `(u, v, key, data)` in a multigraph.
    for *edge, data in links.edges(data=True, **keys):
        attributes = {"weight": 1.0} | data | {"kind": "lateral"}
        if tied:
            attributes["tie"] = "lateral"
        drawn.add_edge(*edge, **attributes)
    return drawn
