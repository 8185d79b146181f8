"""Columns that come from a file, read once more: it may say anything, its own digest included.

They go through the functions that read drawings and arrays. What comes out could have been drawn,
whatever went in, and a file is as it was written if the digest of what comes out is its own.
"""

import numpy as np

from darnax.topologies.names import Finder, node_names, normalise
from darnax.topologies.read_arrays import read_numbers
from darnax.topologies.read_networkx import check_array_dtypes, read_array_shapes, read_kinds
from darnax.topologies.tables import (
    Column,
    Columns,
    EdgeTable,
    NodeClass,
    NodeTable,
    assemble,
    by_first_use,
    edge_table,
    find_roles,
    parse_dtype,
    parse_shape,
)
from darnax.topologies.views import index_shape, resolve_index


def read_columns(columns: Columns) -> Columns:
    """The columns of a drawing of the same nodes and edges.

    Raises one of `serial.MALFORMED` if there is none.
    """
    nodes = _read_nodes(columns)
    n = len(nodes.names)
    return assemble(
        nodes,
        _read_edges(columns, n),
        find_roles(Finder(range(n)), columns.inputs, columns.outputs, columns.held),
        read_kinds("node_kinds", columns.node_kinds),
        read_kinds("edge_kinds", columns.edge_kinds),
    )


def _hold(holds: bool, what: str):
    if not holds:
        raise ValueError(f"{what} are not those of a topology")


def _check_positions(column: np.ndarray, count: int, what: str):
    """Refuse columns that reach outside of a table, before anything is looked up in it."""
    _hold(column.dtype == np.int32 and column.ndim == 1, what)
    _hold(not len(column) or 0 <= int(column.min()) <= int(column.max()) < count, what)


def _read_nodes(columns: Columns) -> NodeTable:
    arrays = read_array_shapes(columns.arrays)
    classes = []
    for kind, shape, dtype, array in columns.node_classes:
        _hold(isinstance(kind, str) and (array is None or array in arrays), "its kinds of nodes")
        classes.append(NodeClass(kind, parse_shape(shape), parse_dtype(dtype), array))
    node_class = columns.node_class
    _check_positions(node_class, len(classes), "its nodes")
    _hold(0 < len(node_class) == len(columns.names), "its names")
    views = {}
    for node, index in columns.views.items():
        shared = classes[node_class[node]]
        views[node] = resolve_index(index, arrays[shared.array])
        _hold(index_shape(views[node]) == shared.shape, "its views")
    expected = np.asarray([shared.array is not None for shared in classes])[node_class]
    _hold(sorted(views) == np.flatnonzero(expected).tolist(), "its views")
    names = columns.names
    if not isinstance(names, range):
        names = node_names(names)
    table, node_class = by_first_use(classes, node_class)
    nodes = NodeTable(names, table, node_class, views, arrays)
    check_array_dtypes(nodes)
    return nodes


def _read_edges(columns: Columns, n: int) -> EdgeTable:
    senders, receivers, keys = columns.senders, columns.receivers, columns.keys
    count = len(senders)
    _check_positions(senders, n, "the ends of its edges")
    _check_positions(receivers, n, "the ends of its edges")
    _check_positions(columns.edge_class, len(columns.edge_classes), "its edges")
    _hold(count == len(receivers) == len(columns.edge_class), "its edges")
    for kind, tie in columns.edge_classes:
        _hold(isinstance(kind, str) and isinstance(tie, (str, type(None))), "its kinds of edges")
    if keys is not None:
        keys = normalise(keys, "edge keys")
        _hold(len(keys) == count, "its edge keys")
    attributes: dict[str, Column] = {}
    for name, (values, given) in columns.attributes.items():
        read_numbers({name: values}, count)
        if given is not None:
            _hold(given.dtype == bool and given.shape == (count,), "its attributes")
            values = np.where(given, values, 0)
        attributes[name] = (values, given)
    classes = columns.edge_classes
    return edge_table((senders, receivers), n, classes, columns.edge_class, keys, attributes)
