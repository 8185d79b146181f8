"""Columns from a file, checked as if they were drawn anew.

A file may hold anything, even a digest that fits what someone has changed. So its columns are
trusted in nothing: they go through the functions that read drawings and arrays, and the result is
a topology that could have been drawn, whatever the file holds. A file is as it was written if the
digest of this result is the digest in the file.
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
    Shapes,
    assemble,
    by_first_use,
    edge_table,
    find_roles,
    parse_dtype,
    parse_shape,
)
from darnax.topologies.views import ViewIndex, index_shape, resolve_index


def read_columns(columns: Columns) -> Columns:
    """The same columns, as reading a drawing would have made them.

    Raises one of `serial.MALFORMED` if no drawing could have made them.
    """
    nodes = _read_nodes(columns)
    n = len(nodes.names)
    # Columns name nodes by position: a finder in a range takes these for names.
    find = Finder(range(n))
    return assemble(
        nodes,
        _read_edges(columns, n),
        find_roles(find, columns.inputs, columns.outputs, columns.held),
        read_kinds("node_kinds", columns.node_kinds),
        read_kinds("edge_kinds", columns.edge_kinds),
    )


def _require(condition: bool, what: str):
    if not condition:
        raise ValueError(f"{what} are not those of a topology")


def _check_positions(column: np.ndarray, count: int, what: str):
    # A negative position would count from the end when it is looked up.
    _require(column.dtype == np.int32 and column.ndim == 1, what)
    if len(column):
        _require(int(column.min()) >= 0, what)
        _require(int(column.max()) < count, what)


def _read_nodes(columns: Columns) -> NodeTable:
    arrays = read_array_shapes(columns.arrays)
    classes: list[NodeClass] = []
    for kind, shape, dtype, array in columns.node_classes:
        _require(isinstance(kind, str), "its kinds of nodes")
        _require(array is None or array in arrays, "its arrays")
        shape = parse_shape(shape)
        classes.append(NodeClass(kind, shape, parse_dtype(dtype), array))
    node_class = columns.node_class
    _check_positions(node_class, len(classes), "its nodes")
    # Numbers of entries come first: `names` may be a range of billions, which must not become a
    # list before that is known to be right.
    _require(0 < len(node_class) == len(columns.names), "its names")
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
    arrays: Shapes,
) -> dict[int, ViewIndex]:
    views: dict[int, ViewIndex] = {}
    for node, index in columns.views.items():
        # `arrays` has no entry None: an index of a node with cells of its own is a KeyError.
        node_class = classes[columns.node_class[node]]
        views[node] = resolve_index(index, arrays[node_class.array])
        _require(index_shape(views[node]) == node_class.shape, "its views")
    # Every node whose class names a shared array has an index, and no other node.
    shared = [node_class.array is not None for node_class in classes]
    expected = np.flatnonzero(np.asarray(shared)[columns.node_class])
    _require(sorted(views) == expected.tolist(), "its views")
    return views


def _read_edges(columns: Columns, n: int) -> EdgeTable:
    senders = columns.senders
    receivers = columns.receivers
    edge_class = columns.edge_class
    count = len(senders)
    _require(count == len(receivers) == len(edge_class), "its edges")
    _check_positions(senders, n, "the ends of its edges")
    _check_positions(receivers, n, "the ends of its edges")
    _check_positions(edge_class, len(columns.edge_classes), "its edges")
    for kind, tie in columns.edge_classes:
        _require(isinstance(kind, str), "its kinds of edges")
        _require(tie is None or isinstance(tie, str), "its kinds of edges")
    keys = columns.keys
    if keys is not None:
        keys = normalise(keys, "edge keys")
        _require(len(keys) == count, "its edge keys")
    attributes: dict[str, Column] = {}
    for name, (values, given) in columns.attributes.items():
        read_numbers({name: values}, count)
        if given is not None:
            _require(given.dtype == bool and given.shape == (count,), "its attributes")
            # Values of edges without the attribute are never read, but they are in the digest.
            values = np.where(given, values, 0)
        attributes[name] = (values, given)
    return edge_table(
        ends=(senders, receivers),
        n=n,
        classes=columns.edge_classes,
        edge_class=edge_class,
        keys=keys,
        attributes=attributes,
    )
