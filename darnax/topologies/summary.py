"""A topology as tables that a person reads."""

from collections.abc import Sequence

import numpy as np

from darnax import _text
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.layout import Layout
from darnax.topologies.names import some

ROLES = ("", "input", "output", "input, output", "held", "", "output, held", "")


def summary(layout: Layout, groups: Sequence[EdgeGroup]) -> str:
    """The nodes of every sort, who overlaps whom on shared arrays, and the edge groups."""
    tables = [_nodes(layout), _overlaps(layout), _edges(groups)]
    return "\n\n".join(table for table in tables if table)


def _nodes(layout: Layout) -> str:
    """One row for all nodes that agree in kind, shape, dtype, array and role."""
    columns = layout.columns
    role = np.zeros(len(columns.names), np.int64)
    role[list(columns.inputs)] += 1
    role[list(columns.outputs)] += 2
    role[list({*columns.held} - {*columns.inputs})] += 4
    sort = columns.node_class * len(ROLES) + role
    labels, first = np.unique(sort, return_index=True)
    rows = []
    for label in labels[np.argsort(first)].tolist():
        members = np.flatnonzero(sort == label)
        at, role = divmod(label, len(ROLES))
        kind, shape, dtype, _ = columns.node_classes[at]
        array = layout.arrays[layout.class_array[at]].name
        rows.append(
            (_listed(layout, members), len(members), kind, shape, dtype, array, ROLES[role])
        )
    return _text.table(("nodes", "count", "kind", "shape", "dtype", "array", "role"), rows)


def _overlaps(layout: Layout) -> str:
    rows = [
        (layout.arrays[layout.node_array[block[0]]].name, len(block), _listed(layout, block))
        for block in layout.overlaps
    ]
    return _text.table(("shared array", "views", "overlapping"), rows) if rows else ""


def _edges(groups: Sequence[EdgeGroup]) -> str:
    rows = []
    for group in groups:
        shapes = f"{group.sender_shape} -> {group.receiver_shape}"
        ends = group.sender.name, group.receiver.name
        loops = "yes" if group.self_loop else ""
        rows.append((group.kind, group.tie or "", len(group.edges), shapes, *ends, loops))
    header = ("edges", "tie", "count", "shapes", "from", "to", "self-loops")
    return _text.table(header, rows) if rows else ""


def _listed(layout: Layout, nodes: np.ndarray, limit: int = 5) -> str:
    """The first names and how many more there are."""
    more = f" and {len(nodes) - limit} more" if len(nodes) > limit else ""
    return some([layout.columns.names[i] for i in nodes[:limit].tolist()], limit) + more
