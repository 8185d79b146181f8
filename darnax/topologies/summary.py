"""A topology as tables that a person reads."""

from collections.abc import Sequence

from darnax import _text
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.layout import Layout
from darnax.topologies.names import some
from darnax.topologies.roles import role_places


def summary(layout: Layout, groups: Sequence[EdgeGroup]) -> str:
    """The nodes, who overlaps whom on shared arrays, and the edge groups."""
    tables = [_nodes(layout), _overlaps(layout), _edges(groups)]
    return "\n\n".join(table for table in tables if table)


def _nodes(layout: Layout) -> str:
    """One row for all nodes that agree in kind, shape, dtype, array and role."""
    columns = layout.columns
    roles = role_places(columns)
    # A dictionary keeps the order of first use, so that rows stand as their nodes were drawn.
    alike: dict[tuple[int, str], list[int]] = {}
    for node, node_class in enumerate(columns.node_class.tolist()):
        label = node_class, ", ".join(roles.get(node, ()))
        alike.setdefault(label, []).append(node)
    rows = []
    for (i, role), nodes in alike.items():
        kind, shape, dtype, _ = columns.node_classes[i]
        array = layout.arrays[layout.class_array[i]].name
        names = _listed(layout, nodes)
        rows.append((names, len(nodes), kind, shape, dtype, array, role))
    header = ("nodes", "count", "kind", "shape", "dtype", "array", "role")
    return _text.table(header, rows)


def _overlaps(layout: Layout) -> str:
    rows = []
    for block in layout.overlaps:
        array = layout.arrays[layout.node_array[block[0]]].name
        names = _listed(layout, block.tolist())
        rows.append((array, len(block), names))
    header = ("shared array", "views", "overlapping")
    return _text.table(header, rows) if rows else ""


def _edges(groups: Sequence[EdgeGroup]) -> str:
    rows = []
    for group in groups:
        shapes = f"{group.sender_shape} -> {group.receiver_shape}"
        ends = group.sender.name, group.receiver.name
        loops = "yes" if group.self_loop else ""
        rows.append((group.kind, group.tie or "", len(group.edges), shapes, *ends, loops))
    header = ("edges", "tie", "count", "shapes", "from", "to", "self-loops")
    return _text.table(header, rows) if rows else ""


def _listed(
    layout: Layout,
    nodes: list[int],
    limit: int = 5,
) -> str:
    """The first names and how many more there are."""
    names = [layout.columns.names[node] for node in nodes]
    return some(names, limit)
