"""Columns that come from a file, checked as a drawing is: they may say anything, their own digest
included.

Columns are sound if they are what a drawing would have given. So everything that follows from
something else is worked out anew and compared, and every position is in range before anything is
looked up by it.
"""

from typing import Any

import numpy as np

from darnax.topologies.columns import (
    Columns,
    NodeClass,
    by_first_use,
    if_needed,
    parse_dtype,
    parse_shape,
)
from darnax.topologies.names import normalise
from darnax.topologies.views import index_shape, resolve_index
from darnax.topologies.wiring import networkx_order


def verify(columns: Columns):
    """Raise `ValueError` or `TypeError` unless a drawing could have given these columns."""
    _tables(columns)
    _nodes(columns)
    _edges(columns)
    _attributes(columns)
    _views(columns)
    _roles(columns)


def _hold(holds: bool, what: str):
    if not holds:
        raise ValueError(f"{what} are not those of a topology")


def _tables(columns: Columns):
    """What nodes and edges have in common, before anything is looked up in it."""
    for name, shape in columns.arrays.items():
        _hold(isinstance(name, str) and parse_shape(shape) == shape, "its arrays")
    for cls in columns.node_classes:
        array = cls.array is None or (isinstance(cls.array, str) and cls.array in columns.arrays)
        _hold(
            isinstance(cls, NodeClass) and isinstance(cls.kind, str) and array, "its kinds of nodes"
        )
        _hold(
            parse_shape(cls.shape) == cls.shape and parse_dtype(cls.dtype) == cls.dtype,
            "its shapes and dtypes",
        )
    for kind, tie in columns.edge_classes:
        _hold(isinstance(kind, str) and isinstance(tie, (str, type(None))), "its kinds of edges")
    for kinds, used in (
        (columns.node_kinds, {cls.kind for cls in columns.node_classes}),
        (columns.edge_kinds, {kind for kind, _ in columns.edge_classes}),
    ):
        _hold(all(isinstance(kind, str) for kind in kinds), "its kinds")
        _hold(kinds == tuple(sorted({*kinds, *used})), "its kinds")
    dtypes = {(cls.array, cls.dtype) for cls in columns.node_classes if cls.array is not None}
    _hold(len({array for array, _ in dtypes}) == len(dtypes), "the dtypes of its arrays")


def _indexes(column: Any, table: tuple, count: int) -> bool:
    """Whether a column holds positions in a table, all of them, first used in their order, and none
    is there twice.
    """
    if not _within(column, count, len(table)) or len(set(table)) < len(table):
        return False
    return by_first_use(table, column)[0] == table


def _within(column: Any, count: int, most: int) -> bool:
    good = isinstance(column, np.ndarray) and column.dtype == np.int32 and column.shape == (count,)
    return good and (not count or 0 <= int(column.min()) <= int(column.max()) < most)


def _nodes(columns: Columns):
    names, count = columns.names, len(columns.node_class)
    _hold(
        0 < count == len(names) and _indexes(columns.node_class, columns.node_classes, count),
        "its nodes",
    )
    if isinstance(names, range):
        _hold(names == range(count), "its names")
    else:
        _hold(normalise(names) == names and len(set(names)) == count, "its names")
        numbers = set(map(type, names)) == {int} and names == tuple(range(count))
        _hold(not numbers, "its names")  # a drawing would have given a range


def _edges(columns: Columns):
    n, count, keys = len(columns.names), len(columns.senders), columns.keys
    ends = columns.senders, columns.receivers
    _hold(all(_within(column, count, n) for column in ends), "the ends of its edges")
    _hold(_indexes(columns.edge_class, columns.edge_classes, count), "its edges")
    if keys is not None:
        _hold(
            len(keys) == count and normalise(keys) == keys and if_needed(keys) == keys,
            "its edge keys",
        )
    _hold(
        bool((networkx_order(*ends, n, keys) == np.arange(count)).all()), "the order of its edges"
    )


def _attributes(columns: Columns):
    count = len(columns.senders)
    _hold(
        list(columns.attributes) == sorted({*columns.attributes} - {"kind", "tie"}),
        "the names of its attributes",
    )
    for name, (values, given) in columns.attributes.items():
        _hold(isinstance(name, str) and values.dtype in (np.int64, np.float64), "its attributes")
        _hold(values.shape == (count,) and count > 0, "its attributes")
        if given is not None:
            _hold(
                given.dtype == bool and given.shape == (count,) and not given.all(),
                "its attributes",
            )
            _hold(not values[~given].any(), "its attributes")


def _views(columns: Columns):
    shared = np.asarray([cls.array is not None for cls in columns.node_classes])
    _hold(sorted(columns.views) == np.flatnonzero(shared[columns.node_class]).tolist(), "its views")
    for at, index in columns.views.items():
        cls = columns.node_classes[columns.node_class[at]]
        explicit = resolve_index(index, columns.arrays[str(cls.array)])
        _hold(
            repr(explicit) == repr(index), "its views"
        )  # True is equal to 1, and written otherwise
        _hold(index_shape(index) == cls.shape, "its views")


def _roles(columns: Columns):
    count = len(columns.names)
    for nodes in (columns.inputs, columns.outputs, columns.held):
        _hold(all(type(at) is int and 0 <= at < count for at in nodes), "its inputs and outputs")
        _hold(len(set(nodes)) == len(nodes), "its inputs and outputs")
    _hold(columns.held == tuple(sorted({*columns.held, *columns.inputs})), "its held nodes")
