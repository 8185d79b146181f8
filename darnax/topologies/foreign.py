"""Graphs that other libraries hold, as drawings of networkx.

Most of these have no shapes, kinds or names of nodes: arguments say what all of their nodes have in
common, and the drawing that comes out can be changed before it is compiled. No library is imported
for that: an object is known by what it has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxGraph, nx
from darnax.topologies.plain import given
from darnax.topologies.tables import Shape, parse_shape, repeated

Rows: TypeAlias = dict[str, list[Any]]
"""Columns of attributes by name, one entry an edge."""

Ends: TypeAlias = np.ndarray | list[int]
"""Positions of nodes, one an edge."""


class Options(NamedTuple):
    """What readers are told.

    **Fields:**

    - `weight`: the attribute that numbers without a name become.
    - `features`: whether features give nodes their shape.
    """

    weight: str
    features: bool


Read: TypeAlias = Callable[[Any, Options], NxGraph]
"""A reader of one kind of source."""


@checks.by_hand
def as_graph(
    source: object,
    *,
    nodes: object = None,
    shape: Shape | None = None,
    kind: str | None = None,
    edge_kind: str | None = None,
    weight: str = "weight",
) -> NxGraph:
    """A drawing of a graph that another library holds, to be changed and compiled.

    `source` is one of

    - a graph of networkx;
    - a graph of igraph: vertices are called by their `name`, where all have one of their own;
    - a sparse matrix of SciPy or a square array, whose entry in row u and column v is the number on
      the edge u -> v, as in networkx. `dx.sparse` takes matrices the other way, with receivers as
      rows, since weights multiply states;
    - a table of pandas with columns `source` and `target`, a row an edge, or a square one that has
      one name for every row and its column, and is read as a matrix;
    - `Data` of PyG: nodes 0 to n-1, edges with `edge_weight`, or an `edge_attr` of one number;
    - `HeteroData` of PyG: nodes `(type, i)` of their type as kind, edges of their relation as kind
      and key;
    - a `GraphsTuple` of jraph: nodes 0 to n-1, several graphs side by side.

    **Arguments:**

    - `source`: the graph.
    - `nodes`: attributes of nodes: a table of pandas with their names as index, or a mapping from
      names to mappings. Nodes come in its order.
    - `shape`: of the nodes that have none; by default that of the features of a node, where
      `source` has some (`x` of PyG, `nodes` of jraph).
    - `kind`, `edge_kind`: of the nodes and edges that have none.
    - `weight`: the attribute that the numbers of a matrix, of `edge_weight` and of `edges` become.

    **Returns:** a new graph of networkx. It is undirected where `source` is a graph without
    directions: compile that by `Topology(graph, both_ways=True)`.

    Raises `TypeError` for anything else, and `ValueError` for what is no graph.

    !!! example

        ```python
        ring = np.roll(np.eye(5), 1, axis=1)
        topology = dx.Topology(dx.topologies.as_graph(ring, shape=8))
        topology.edges[0]  # (0, 1)
        ```
    """
    weight = checks.text("weight", weight, "the name of an edge attribute")
    common: dict[str, Any] = {}
    if shape is not None:
        common["shape"] = parse_shape(shape)
    if kind is not None:
        common["kind"] = checks.text("kind", kind, "the name of a kind")
    if edge_kind is not None:
        edge_kind = checks.text("edge_kind", edge_kind, "the name of a kind")
    options = Options(weight, features=shape is None)
    graph = _merged(_reader(source)(source, options), {} if nodes is None else _rows_of(nodes))
    _fill(graph, common, edge_kind)
    return graph


def _fill(graph: NxGraph, common: Mapping[str, Any], edge_kind: str | None):
    """Give the nodes and edges that have no shape and kind those that all have in common."""
    for attributes in graph.nodes.values():
        for name, value in common.items():
            # a view has the shape of its index
            if not (name == "shape" and "array" in attributes):
                attributes.setdefault(name, value)
    if edge_kind is not None:
        for *_, attributes in graph.edges(data=True):
            attributes.setdefault("kind", edge_kind)


def _merged(read: NxGraph, nodes: Mapping[Any, Mapping[str, Any]]) -> NxGraph:
    """A graph with the attributes of nodes, and none that only fills an empty cell of a table."""
    graph = read.__class__()
    graph.graph.update(read.graph)
    for name, attributes in [*nodes.items(), *read.nodes.items()]:
        graph.add_node(name)
        graph.nodes[name].update(given(attributes))
    for *edge, attributes in _edges(read):
        graph.add_edges_from([(*edge, given(attributes))])
    return graph


def _reader(source: object) -> Read:
    """The reader of a source, by what it has; `TypeError` for what nobody reads."""
    if isinstance(source, nx.Graph):
        return _same
    readers: dict[Read, Sequence[str]] = {
        _of_igraph: ("to_networkx", "vs", "es"),
        _of_pandas: ("columns", "index", "to_dict"),
        _of_jraph: ("senders", "receivers", "n_node"),
        _of_hetero_data: ("node_types", "edge_types"),
        _of_data: ("edge_index", "num_nodes"),
        _of_sparse: ("tocoo",),
    }
    # a class has the names of its objects as well
    if not isinstance(source, type):
        for read, names in readers.items():
            if all(hasattr(source, name) for name in names):
                return read
        if isinstance(source, (np.ndarray, jax.Array)):
            return _of_matrix
    checks.refuse(
        "source",
        "a graph of networkx, igraph, PyG or jraph, a square matrix, or a table of pandas",
        source,
        "give one, or arrays of ends to Topology.from_edges",
    )


def _edges(graph: Any) -> Iterable[tuple[Any, ...]]:
    """All edges with their keys and attributes, as `add_edges_from` takes them."""
    if graph.is_multigraph():
        return graph.edges(keys=True, data=True)
    return graph.edges(data=True)


def _rows_of(nodes: Any) -> Mapping[Any, Mapping[str, Any]]:
    """The attributes of every node by name."""
    rows = nodes.to_dict("index") if hasattr(nodes, "to_dict") else nodes
    if isinstance(rows, Mapping) and all(isinstance(row, Mapping) for row in rows.values()):
        return rows
    checks.refuse(
        "nodes",
        "a table of pandas, or a mapping from names to mappings",
        nodes,
        "give one, such as {'a': {'shape': 3}}",
    )


# readers


def _same(source: NxGraph, options: Options) -> NxGraph:
    return source


def _of_igraph(source: Any, options: Options) -> NxGraph:
    graph = source.to_networkx()
    for attributes in graph.nodes.values():
        attributes.pop("_igraph_index", None)
    for *_, attributes in graph.edges(data=True):
        attributes.pop("_igraph_index", None)
    names = dict(graph.nodes(data="name"))
    # vertices of a graph that came from networkx have their names already
    unnamed = list(graph) == list(range(len(graph))) and None not in names.values()
    return nx.relabel_nodes(graph, names) if unnamed and not repeated(names.values()) else graph


def _of_sparse(source: Any, options: Options) -> NxGraph:
    # a copy, for entries that come twice, which are meant to be added, are added up in place
    entries = source.tocoo(copy=True)
    if entries.ndim != 2:
        _refuse_shape(entries.shape)
    entries.sum_duplicates()
    return _of_entries(entries.shape, entries.row, entries.col, entries.data, options.weight)


def _of_matrix(source: Any, options: Options) -> NxGraph:
    if isinstance(source, np.ma.MaskedArray):
        raise TypeError("`source` is a matrix without a mask, but got a masked one; give it filled")
    matrix = np.asarray(source)
    if matrix.ndim != 2:
        _refuse_shape(matrix.shape)
    rows, columns = np.nonzero(matrix)
    return _of_entries(matrix.shape, rows, columns, matrix[rows, columns], options.weight)


def _of_entries(
    shape: Sequence[int], rows: np.ndarray, columns: np.ndarray, values: np.ndarray, weight: str
) -> NxGraph:
    """The graph of a matrix with some entries."""
    if shape[0] != shape[1]:
        _refuse_shape(shape)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"`source` is a matrix of real numbers, but got {values.dtype}; give such")
    return _drawn(range(shape[0]), rows, columns, {weight: values.tolist()})


def _refuse_shape(shape: Sequence[int]):
    raise ValueError(
        f"`source` is a square matrix, one row and one column a node, but got one of shape "
        f"{tuple(shape)}; give the senders as rows and the receivers as columns"
    )


def _of_pandas(source: Any, options: Options) -> NxGraph:
    names = list(source.columns)
    if {"source", "target"} <= set(names):
        return _of_edge_table(source)
    index = source.index.tolist()
    # names that are numbers are text in the first line of a file
    if list(map(str, names)) != list(map(str, index)):
        raise ValueError(
            "`source` is a table with columns 'source' and 'target', or a square one with the same "
            f"names for rows and columns, but got the columns {_text.names(names[:12])}; name them "
            "so, and give index_col=0 where the names of rows are a column of a file"
        )
    twice = repeated(index)
    if twice:
        raise ValueError(f"`source` names {_text.names(twice)} more than once; rename one of them")
    matrix = source.to_numpy(dtype=float)
    # a cell that is empty is no edge; what is infinite stays so
    matrix = np.where(np.isnan(matrix), 0, matrix)
    graph = _of_matrix(matrix, options)
    return nx.relabel_nodes(graph, dict(enumerate(index)))


def _of_edge_table(source: Any) -> NxGraph:
    """A table with a row for every edge."""
    senders, receivers = source["source"].tolist(), source["target"].tolist()
    place: dict[Any, int] = {}
    for edge in zip(senders, receivers, strict=True):
        for end in edge:
            place.setdefault(end, len(place))
    columns: Rows = {}
    for name in source.columns:
        if name not in ("source", "target"):
            columns[name] = source[name].tolist()
    ends = [place[node] for node in senders], [place[node] for node in receivers]
    return _drawn(list(place), *ends, columns)


def _of_jraph(source: Any, options: Options) -> NxGraph:
    n = int(_array(source.n_node).sum())
    columns = _columns(source.edges, len(_array(source.senders)), options.weight)
    graph = _drawn(range(n), _array(source.senders), _array(source.receivers), columns)
    # features of several arrays, as a dict, tell no one shape
    _give_shape(graph, source.nodes, options)
    return graph


def _of_data(source: Any, options: Options) -> NxGraph:
    senders, receivers = _ends(source)
    columns = _numbers_of(source, options.weight)
    graph = _drawn(range(int(source.num_nodes)), senders, receivers, columns)
    _give_shape(graph, getattr(source, "x", None), options)
    return graph


def _of_hetero_data(source: Any, options: Options) -> NxGraph:
    # the stubs of networkx know no edge with a key in `add_edges_from`
    graph: Any = nx.MultiDiGraph()
    for kind in source.node_types:
        store = source[kind]
        part = nx.DiGraph()
        part.add_nodes_from(((kind, i) for i in range(int(store.num_nodes))), kind=kind)
        _give_shape(part, getattr(store, "x", None), options)
        graph.add_nodes_from(part.nodes(data=True))
    for edge_type in source.edge_types:
        sender, relation, receiver = edge_type
        store = source[edge_type]
        ends = _ends(store).T.tolist()
        rows = _by_row(_numbers_of(store, options.weight), len(ends))
        keys: dict[tuple[int, int], int] = {}
        for (u, v), attributes in zip(ends, rows, strict=True):
            # a relation may hold twice between two nodes
            times = keys[u, v] = keys.get((u, v), -1) + 1
            key = (relation, times) if times else relation
            edge = (sender, u), (receiver, v), key
            graph.add_edges_from([(*edge, attributes | {"kind": relation})])
    return graph


def _ends(store: Any) -> np.ndarray:
    """The ends of the edges of a store of PyG, `(2, E)`; it may have none yet."""
    ends = getattr(store, "edge_index", None)
    return np.zeros((2, 0), np.int64) if ends is None else _array(ends)


def _numbers_of(store: Any, weight: str) -> Rows:
    """The numbers on the edges of a store of PyG."""
    count = _ends(store).shape[1]
    for name in ("edge_weight", "edge_attr"):
        values = getattr(store, name, None)
        columns = _columns(values, count, weight)
        if columns:
            return columns
    return {}


def _columns(values: Any, count: int, weight: str) -> Rows:
    """Features of edges that are one number each, by name of attribute; others have no name."""
    if values is None:
        return {}
    named = values if isinstance(values, Mapping) else {weight: values}
    columns: Rows = {}
    for name, value in named.items():
        column = _array(value)
        if column.shape in ((count,), (count, 1)) and column.dtype.kind in "biuf":
            columns[str(name)] = column.reshape(count).tolist()
    return columns


def _array(values: Any) -> np.ndarray:
    """An array of any library on the host."""
    if hasattr(values, "detach"):
        # tensors of torch may be on a device, or wait for a derivative
        values = values.detach().cpu()
    return np.asarray(values)


def _give_shape(graph: NxGraph, features: Any, options: Options):
    """Give the nodes the shape of their features, where these are one array with a row a node."""
    shape = getattr(features, "shape", None)
    if options.features and shape is not None and len(shape) and shape[0] == len(graph):
        item = tuple(map(int, shape[1:]))
        for attributes in graph.nodes.values():
            attributes["shape"] = item


def _drawn(nodes: Sequence[Any], senders: Ends, receivers: Ends, columns: Rows) -> NxGraph:
    """A graph of nodes in order, and of edges between their positions; parallel ones are kept."""
    ends = list(zip(np.asarray(senders).tolist(), np.asarray(receivers).tolist(), strict=True))
    outside = {end for edge in ends for end in edge if not 0 <= end < len(nodes)}
    if outside:
        raise ValueError(
            f"`source` has edges of the nodes {_text.names(sorted(outside))}, and nodes 0 to "
            f"{len(nodes) - 1}; give the number of all nodes"
        )
    graph = nx.MultiDiGraph() if repeated(ends) else nx.DiGraph()
    graph.add_nodes_from(nodes)
    rows = _by_row(columns, len(ends))
    named = ((nodes[u], nodes[v]) for u, v in ends)
    graph.add_edges_from((*edge, row) for edge, row in zip(named, rows, strict=True))
    return graph


def _by_row(columns: Rows, count: int) -> list[dict[str, Any]]:
    """The attributes of every edge."""
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows
