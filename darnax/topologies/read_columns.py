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
from darnax.topologies.views import ViewIndex, index_shape, resolve_index


def read_columns(columns: Columns) -> Columns:
    """The columns of a drawing of the same nodes and edges.

    Raises one of `serial.MALFORMED` if there is none.
    """
    nodes = _read_nodes(columns)
    n = len(nodes.names)
    # Columns name nodes by position, and a range is found by its own numbers.
    find = Finder(range(n))
    return assemble(
        nodes,
        _read_edges(columns, n),
        find_roles(find, columns.inputs, columns.outputs, columns.held),
        read_kinds("node_kinds", columns.node_kinds),
        read_kinds("edge_kinds", columns.edge_kinds),
    )


def _hold(holds: bool, what: str):
    if not holds:
        raise ValueError(f"{what} are not those of a topology")


def _check_positions(column: np.ndarray, count: int, what: str):
    # Before anything is looked up by a position: a negative one would count from the end.
    _hold(column.dtype == np.int32 and column.ndim == 1, what)
    if len(column):
        _hold(int(column.min()) >= 0, what)
        _hold(int(column.max()) < count, what)


def _read_nodes(columns: Columns) -> NodeTable:
    arrays = read_array_shapes(columns.arrays)
    classes = []
    for kind, shape, dtype, array in columns.node_classes:
        _hold(isinstance(kind, str), "its kinds of nodes")
        _hold(array is None or array in arrays, "its arrays")
        shape = parse_shape(shape)
        classes.append(NodeClass(kind, shape, parse_dtype(dtype), array))
    node_class = columns.node_class
    _check_positions(node_class, len(classes), "its nodes")
    # The number of names comes first: a range of billions costs nothing until it is gone through.
    _hold(0 < len(node_class) == len(columns.names), "its names")
    names = columns.names
    if not isinstance(names, range):
        names = node_names(names)
    views = _read_views(columns, classes, arrays)
    table, node_class = by_first_use(classes, node_class)
    nodes = NodeTable(names, table, node_class, views, arrays)
    check_array_dtypes(nodes)
    return nodes


def _read_views(
    columns: Columns,
    classes: list[NodeClass],
    arrays: dict[str, tuple[int, ...]],
) -> dict[int, ViewIndex]:
    views = {}
    for node, index in columns.views.items():
        shared = classes[columns.node_class[node]]
        views[node] = resolve_index(index, arrays[shared.array])
        _hold(index_shape(views[node]) == shared.shape, "its views")
    shared = np.asarray([node_class.array is not None for node_class in classes])
    expected = np.flatnonzero(shared[columns.node_class])
    _hold(sorted(views) == expected.tolist(), "its views")
    return views


def _read_edges(columns: Columns, n: int) -> EdgeTable:
    senders, receivers, edge_class = columns.senders, columns.receivers, columns.edge_class
    count = len(senders)
    _hold(count == len(receivers) == len(edge_class), "its edges")
    _check_positions(senders, n, "the ends of its edges")
    _check_positions(receivers, n, "the ends of its edges")
    _check_positions(edge_class, len(columns.edge_classes), "its edges")
    for kind, tie in columns.edge_classes:
        _hold(isinstance(kind, str), "its kinds of edges")
        _hold(tie is None or isinstance(tie, str), "its kinds of edges")
    keys = columns.keys
    if keys is not None:
        keys = normalise(keys, "edge keys")
        _hold(len(keys) == count, "its edge keys")
    attributes: dict[str, Column] = {}
    for name, (values, given) in columns.attributes.items():
        read_numbers({name: values}, count)
        if given is not None:
            _hold(given.dtype == bool and given.shape == (count,), "its attributes")
            # What stands where no number is given is seen by nobody, but is part of the digest.
            values = np.where(given, values, 0)
        attributes[name] = (values, given)
    ends = senders, receivers
    return edge_table(ends, n, columns.edge_classes, edge_class, keys, attributes)
