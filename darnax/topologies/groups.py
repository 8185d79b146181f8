"""Edge groups: the edges that one gather, one call of the coupling and one sum can serve.

Edges belong together if they agree in kind, tie, the arrays and shapes at both ends, and in being
self-loops or not: then they differ in nothing but addresses and parameters, and run as one batched
operation. A topology has few groups, however many edges it has.

Inside a group the edges are sorted by receiver and then by their hash. Messages to one receiver are
therefore added in an order that does not depend on how the graph was drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from darnax.topologies.layout import ArraySpec, Layout
from darnax.topologies.tables import stable_order
from darnax.topologies.views import Index, is_regular


class ParameterSlice(NamedTuple):
    """Where the parameters of a group lie: rows `start` to `stop` of the `size` rows of a block.

    `block` counts the parameter blocks of the group's kind.
    """

    block: int
    start: int
    stop: int
    size: int


@dataclass(frozen=True, eq=False)
class EdgeGroup:
    """The edges of one group, sorted by receiver. NumPy alone; `Edges` of a network run it.

    **Fields:**

    - `kind`, `tie`, `self_loop`: what the edges have in common.
    - `sender`, `receiver`: the global arrays at both ends.
    - `sender_shape`, `receiver_shape`: the shapes of the nodes at both ends.
    - `edges`: positions among the edges of the topology, `(E,)`.
    - `senders`, `receivers`: addresses `(E, *lead)`: one row for a stacked node, and for a view one
      row a cell.
    - `sender_index`, `receiver_index`: the same as one static index where it is regular, else None:
      a slice of rows (of step 1 for receivers), or the view itself where one edge is the group.
      XLA then reads a slice where it would gather.
    - `parameters`: where in the leaves of its kind the group's parameters lie.
    """

    kind: str
    tie: str | None
    self_loop: bool
    sender: ArraySpec
    receiver: ArraySpec
    sender_shape: tuple[int, ...]
    receiver_shape: tuple[int, ...]
    edges: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    sender_index: Index | None
    receiver_index: Index | None
    parameters: ParameterSlice


@dataclass(frozen=True, eq=False)
class ParameterBlock:
    """The edges whose parameters are one set of leaves, group after group.

    Groups of one kind share a block if they share a tie, or else shapes and being self-loops. The
    leaves have a leading axis of edges, or none where the edges are tied.
    """

    kind: str
    tie: str | None
    groups: tuple[int, ...]
    edges: np.ndarray


def edge_groups(layout: Layout, hashes: np.ndarray) -> tuple[EdgeGroup, ...]:
    """All groups, in an order that depends on what they are and not on the drawing."""
    columns = layout.columns
    if not len(columns.senders):
        return ()
    # nodes of two kinds may share an array and a shape: what counts is where they live
    ends: dict[tuple[int, tuple[int, ...]], int] = {}
    end_of_class = []
    for array, node_class in zip(layout.class_array.tolist(), columns.node_classes, strict=True):
        end_of_class.append(ends.setdefault((array, node_class.shape), len(ends)))
    end = np.asarray(end_of_class)[columns.node_class]
    loop = columns.senders == columns.receivers
    label = columns.edge_class.astype(np.int64) * len(ends) + end[columns.senders]
    label = (label * len(ends) + end[columns.receivers]) * 2 + loop
    by_hash = np.argsort(hashes)
    row = layout.first_row[columns.receivers]
    order = by_hash[stable_order((label * (int(row.max()) + 1) + row)[by_hash])]
    parts = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    groups = [_group(layout, edges.astype(np.int32)) for edges in parts]
    return _with_parameters(sorted(groups, key=_order))


def _group(layout: Layout, edges: np.ndarray) -> EdgeGroup:
    columns = layout.columns
    senders, receivers = columns.senders[edges], columns.receivers[edges]
    kind, tie = columns.edge_classes[columns.edge_class[edges[0]]]
    sender_class, receiver_class = (columns.node_class[nodes[0]] for nodes in (senders, receivers))
    return EdgeGroup(
        kind=kind,
        tie=tie,
        self_loop=bool(senders[0] == receivers[0]),
        sender=layout.arrays[layout.class_array[sender_class]],
        receiver=layout.arrays[layout.class_array[receiver_class]],
        sender_shape=columns.node_classes[sender_class].shape,
        receiver_shape=columns.node_classes[receiver_class].shape,
        edges=edges,
        senders=layout.address(senders),
        receivers=layout.address(receivers),
        sender_index=_static_index(layout, senders),
        receiver_index=_static_index(layout, receivers, step=1),
        parameters=ParameterSlice(0, 0, len(edges), len(edges)),
    )


def _static_index(layout: Layout, nodes: np.ndarray, step: int | None = None) -> Index | None:
    """The addresses of nodes as one slice, of this step if one is given, or as one view."""
    if layout.arrays[layout.node_array[nodes[0]]].shared:
        view = layout.columns.views[int(nodes[0])]
        return view if len(nodes) == 1 and is_regular(view) else None
    rows = layout.first_row[nodes]
    gaps = np.diff(rows)
    found = int(gaps[0]) if len(gaps) else 1
    if found < 1 or step not in (None, found) or (gaps != found).any():
        return None
    return (slice(int(rows[0]), int(rows[-1]) + 1, found),)


def _order(group: EdgeGroup) -> tuple:
    shapes = group.sender_shape, group.receiver_shape
    names = group.sender.name, group.receiver.name
    return group.kind, group.tie or "", *shapes, group.self_loop, *names


def _with_parameters(groups: Sequence[EdgeGroup]) -> tuple[EdgeGroup, ...]:
    """The groups, each with the slice of its parameters."""
    blocks: dict[tuple, int] = {}
    sizes: dict[tuple, int] = {}
    blocks_of_kind: dict[str, int] = {}
    starts = []
    for group in groups:
        label = group.kind, group.tie
        if group.tie is None:
            label = *label, group.sender_shape, group.receiver_shape, group.self_loop
        if label not in blocks:
            blocks[label] = blocks_of_kind.get(group.kind, 0)
            blocks_of_kind[group.kind] = blocks[label] + 1
        start = sizes.get(label, 0)
        starts.append((label, start))
        sizes[label] = start + len(group.edges)
    result = []
    for group, (label, start) in zip(groups, starts, strict=True):
        where = ParameterSlice(blocks[label], start, start + len(group.edges), sizes[label])
        result.append(replace(group, parameters=where))
    return tuple(result)


def parameter_blocks(groups: Sequence[EdgeGroup]) -> dict[str, tuple[ParameterBlock, ...]]:
    """The parameter blocks of every edge kind."""
    members: dict[tuple[str, int], list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault((group.kind, group.parameters.block), []).append(i)
    table: dict[str, list[ParameterBlock]] = {}
    for (kind, _), positions in members.items():
        edges = np.concatenate([groups[i].edges for i in positions])
        block = ParameterBlock(kind, groups[positions[0]].tie, tuple(positions), edges)
        table.setdefault(kind, []).append(block)
    return {kind: tuple(blocks) for kind, blocks in table.items()}
