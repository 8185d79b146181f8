"""A topology as tables to read: its nodes, the views that overlap, and its edge groups."""

from collections.abc import Sequence

from darnax import _text
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.layout import Layout
from darnax.topologies.names import some
from darnax.topologies.roles import role_places


def summary(layout: Layout, groups: Sequence[EdgeGroup]) -> str:
    """The tables of a topology; one without rows is left out."""
    tables = [_nodes(layout), _overlaps(layout), _edges(groups)]
    return "\n\n".join(table for table in tables if table)


def _nodes(layout: Layout) -> str:
    """A row for all nodes that agree in kind, shape, dtype, array and role."""
    columns = layout.columns
    # Roles are no part of a class: an input may be of the class of nodes that are none.
    roles = role_places(columns)
    # A dictionary keeps the order of first use: rows stand in the order of drawing.
    alike: dict[tuple[int, str], list[int]] = {}
    for node, node_class in enumerate(columns.node_class.tolist()):
        role = ", ".join(roles.get(node, ()))
        alike.setdefault((node_class, role), []).append(node)
    rows: list[dict[str, object]] = []
    for (i, role), nodes in alike.items():
        node_class = columns.node_classes[i]
        rows.append(
            {
                "nodes": _listed(layout, nodes),
                "count": len(nodes),
                "kind": node_class.kind,
                "shape": node_class.shape,
                "dtype": node_class.dtype,
                "array": layout.arrays[layout.class_array[i]].name,
                "role": role,
            }
        )
    return _table(rows)


def _overlaps(layout: Layout) -> str:
    """A row for every block of views that overlap, even through others."""
    rows: list[dict[str, object]] = []
    for block in layout.overlaps:
        # Views that overlap are views of one array: any of them tells which.
        array = layout.node_array[block[0]]
        rows.append(
            {
                "shared array": layout.arrays[array].name,
                "views": len(block),
                "overlapping": _listed(layout, block.tolist()),
            }
        )
    return _table(rows)


def _edges(groups: Sequence[EdgeGroup]) -> str:
    """A row for every edge group."""
    rows: list[dict[str, object]] = []
    for group in groups:
        rows.append(
            {
                "edges": group.kind,
                "tie": group.tie or "",
                "count": len(group.edges),
                "shapes": f"{group.sender_shape} -> {group.receiver_shape}",
                "from": group.sender.name,
                "to": group.receiver.name,
                "self-loops": "yes" if group.self_loop else "",
            }
        )
    return _table(rows)


def _table(rows: Sequence[dict[str, object]]) -> str:
    """A table of rows that have the same keys, which are its header; "" for no rows."""
    if not rows:
        return ""
    return _text.table(list(rows[0]), [list(row.values()) for row in rows])


def _listed(
    layout: Layout,
    nodes: Sequence[int],
    limit: int = 5,
) -> str:
    """The first names, and how many more there are."""
    names = [layout.columns.names[node] for node in nodes]
    return some(names, limit)
