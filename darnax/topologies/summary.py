"""A topology as tables that a person reads."""

from typing import TYPE_CHECKING

import numpy as np

from darnax import _text
from darnax.topologies.names import some

if TYPE_CHECKING:
    from darnax.topologies.topology import Topology


def summary(topology: "Topology") -> str:
    """The nodes of every sort, who overlaps whom on shared arrays, and the edge groups."""
    parts = [repr(topology), _nodes(topology)]
    if topology.layout.overlaps:
        parts.append(_overlaps(topology))
    if topology.groups:
        parts.append(_edges(topology))
    return "\n\n".join(parts)


def _nodes(topology: "Topology") -> str:
    """One row for the nodes that agree in kind, shape, dtype, array and role."""
    columns, layout = topology.columns, topology.layout
    role = np.zeros(len(topology), np.int64)
    role[list(columns.inputs)] += 1
    role[list(columns.outputs)] += 2
    sort = columns.node_class * 4 + role
    rows = []
    for label, first in sorted(
        zip(*np.unique(sort, return_index=True), strict=True), key=lambda pair: pair[1]
    ):
        members = np.flatnonzero(sort == label)
        array = layout.arrays[layout.node_array[first]].name
        kind, shape, dtype, _ = topology.node_class(first)
        who = _listed(topology, members)
        rows.append(
            (
                who,
                len(members),
                kind,
                shape,
                dtype,
                array,
                ("", "input", "output", "input, output")[label % 4],
            )
        )
    return _text.table(("nodes", "count", "kind", "shape", "dtype", "array", "role"), rows)


def _overlaps(topology: "Topology") -> str:
    layout = topology.layout
    rows = [
        (layout.arrays[layout.node_array[block[0]]].name, len(block), _listed(topology, block))
        for block in layout.overlaps
    ]
    return _text.table(("shared array", "views", "overlapping"), rows)


def _edges(topology: "Topology") -> str:
    arrays = topology.layout.arrays
    rows = []
    for group in topology.groups:
        shapes = f"{group.sender_shape} -> {group.receiver_shape}"
        ends = arrays[group.sender_array].name, arrays[group.receiver_array].name
        self_loop = "yes" if group.self_loop else ""
        rows.append((group.kind, group.tie or "", len(group.edges), shapes, *ends, self_loop))
    return _text.table(("edges", "tie", "count", "shapes", "from", "to", "self-loops"), rows)


def _listed(topology: "Topology", at: np.ndarray, limit: int = 5) -> str:
    """The first names and how many more there are."""
    more = f" and {len(at) - limit} more" if len(at) > limit else ""
    return some([topology.nodes[i] for i in at[:limit].tolist()], limit) + more
