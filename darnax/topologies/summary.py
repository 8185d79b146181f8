"""A topology as tables that a person reads."""

from collections.abc import Sequence

from darnax import _text
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.layout import Layout
from darnax.topologies.names import some
from darnax.topologies.tables import Columns


def summary(layout: Layout, groups: Sequence[EdgeGroup]) -> str:
    """The nodes, who overlaps whom on shared arrays, and the edge groups."""
    tables = [_nodes(layout), _overlaps(layout), _edges(layout, groups)]
    return "\n\n".join(table for table in tables if table)


def _nodes(layout: Layout) -> str:
    """One row for all nodes that agree in kind, shape, dtype, array and role."""
    columns = layout.columns
    roles = _roles(columns)
    alike: dict[tuple[int, str], list[int]] = {}
    for node, node_class in enumerate(columns.node_class.tolist()):
        alike.setdefault((node_class, roles.get(node, "")), []).append(node)
    rows = []
    for (i, role), nodes in alike.items():
        kind, shape, dtype, _ = columns.node_classes[i]
        array = layout.arrays[layout.class_array[i]].name
        rows.append((_listed(layout, nodes), len(nodes), kind, shape, dtype, array, role))
    return _text.table(("nodes", "count", "kind", "shape", "dtype", "array", "role"), rows)


def _roles(columns: Columns) -> dict[int, str]:
    """The roles of nodes that have any; that inputs are held goes without saying."""
    roles: dict[int, str] = {}
    only_held = set(columns.held) - set(columns.inputs)
    for role, nodes in (
        ("input", columns.inputs),
        ("output", columns.outputs),
        ("held", only_held),
    ):
        for node in nodes:
            roles[node] = f"{roles[node]}, {role}" if node in roles else role
    return roles


def _overlaps(layout: Layout) -> str:
    rows = []
    for block in layout.overlaps:
        array = layout.arrays[layout.node_array[block[0]]].name
        rows.append((array, len(block), _listed(layout, block.tolist())))
    return _text.table(("shared array", "views", "overlapping"), rows) if rows else ""


def _edges(layout: Layout, groups: Sequence[EdgeGroup]) -> str:
    rows = []
    for group in groups:
        shapes = f"{group.sender_shape} -> {group.receiver_shape}"
        sender = layout.arrays[group.sender_array].name
        receiver = layout.arrays[group.receiver_array].name
        loops = "yes" if group.self_loop else ""
        count = len(group.edges)
        rows.append((group.kind, group.tie or "", count, shapes, sender, receiver, loops))
    header = ("edges", "tie", "count", "shapes", "from", "to", "self-loops")
    return _text.table(header, rows) if rows else ""


def _listed(layout: Layout, nodes: list[int], limit: int = 5) -> str:
    """The first names and how many more there are."""
    return some([layout.columns.names[node] for node in nodes], limit)
