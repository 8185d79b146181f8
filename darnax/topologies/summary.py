"""A topology as tables to read: its nodes, the views that overlap, and its edge groups."""

from collections.abc import Sequence

from darnax import _text
from darnax._text import Table
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.layout import Layout
from darnax.topologies.names import some
from darnax.topologies.roles import role_places

Row = dict[str, object]
"""The cells of a row, by the words above them."""


def summary(layout: Layout, groups: Sequence[EdgeGroup]) -> str:
    """The tables of a topology as text."""
    return "\n\n".join(_text.table(*table) for table in tables(layout, groups))


def tables(layout: Layout, groups: Sequence[EdgeGroup]) -> list[Table]:
    """The tables of a topology; one without rows is left out."""
    found: list[Table] = []
    for rows in (_nodes(layout), _overlaps(layout), _edges(groups)):
        if rows:
            # All rows have the same keys.
            found.append(Table(list(rows[0]), [list(row.values()) for row in rows]))
    return found


def _nodes(layout: Layout) -> list[Row]:
    """A row for all nodes that agree in kind, shape, dtype, array and role."""
    columns = layout.columns
    # Roles are no part of a class: an input may be of the class of nodes that are none.
    roles = role_places(columns)
    # A dictionary keeps the order of first use: rows stand in the order of drawing.
    alike: dict[tuple[int, str], list[int]] = {}
    for node, node_class in enumerate(columns.node_class.tolist()):
        role = ", ".join(roles.get(node, ()))
        alike.setdefault((node_class, role), []).append(node)
    rows: list[Row] = []
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
    return rows


def _overlaps(layout: Layout) -> list[Row]:
    """A row for every block of views that overlap, even through others."""
    rows: list[Row] = []
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
    return rows


def _edges(groups: Sequence[EdgeGroup]) -> list[Row]:
    """A row for every edge group."""
    rows: list[Row] = []
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
    return rows


def _listed(
    layout: Layout,
    nodes: Sequence[int],
    limit: int = 5,
) -> str:
    """The first names, and how many more there are."""
    names = [layout.columns.names[node] for node in nodes]
    return some(names, limit)
