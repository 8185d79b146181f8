"""Edge groups: the edges that one gather, one call of the coupling and one sum can serve.

Edges are one group if they agree in kind, tie, the arrays and shapes at both ends, and in being
self-loops or not. They then differ in nothing but addresses and parameters, and run as one batched
operation. Self-loops stand apart because couplings may treat them otherwise, as `dx.dense` does
with its `self_coupling`. A topology has few groups, whatever the number of its edges.

Inside a group the edges are sorted by receiver, as the sums of kernels need it. Edges to one
receiver are sorted by their hash: a floating-point sum depends on the order of its terms, and must
not depend on the order in which the graph was drawn.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from darnax.topologies.layout import ArraySpec, Layout
from darnax.topologies.tables import stable_order
from darnax.topologies.views import Index, is_regular


class ParameterSlice(NamedTuple):
    """The place of a group in its parameter block: edges `start` to `stop` of `size`.

    **Fields:**

    - `block`: the position among the parameter blocks of the group's kind.
    """

    block: int
    start: int
    stop: int
    size: int


@dataclass(frozen=True, eq=False)
class EdgeGroup:
    """The edges of one group, sorted by receiver. NumPy alone; `MessagePassing` runs it.

    **Fields:**

    - `kind`, `tie`, `self_loop`: what the edges have in common.
    - `sender`, `receiver`: the global arrays at both ends.
    - `sender_shape`, `receiver_shape`: the shapes of the nodes at both ends.
    - `edges`: positions among the edges of the topology, `(E,)`.
    - `senders`, `receivers`: addresses `(E, *lead)`: one row for a stacked node, and for a view one
      row a cell.
    - `sender_index`, `receiver_index`: the same addresses as one static index, where they are
      regular, else None. It is a slice of rows (of step 1 for receivers), or the view itself where
      the group has one edge. XLA then reads a slice where it would gather.
    - `parameters`: the place of the group's parameters in the leaves of its kind.
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

    Groups of one kind share a block if they share a tie. Without one they share it if they agree in
    shapes and in being self-loops. The leaves have a leading axis of edges, or none where the edges
    are tied.

    **Fields:**

    - `groups`: positions among the groups of the topology.
    - `edges`: positions among its edges.
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
    # Edges are sorted by hash, then stably by group and receiver: edges to one receiver remain in
    # the order of their hashes. Group and receiver are one number, so that one sort does for both.
    label = _group_labels(layout)
    row = layout.first_row[columns.receivers]
    key = label * (int(row.max()) + 1) + row
    by_hash = np.argsort(hashes)
    order = by_hash[stable_order(key[by_hash])]
    starts = np.flatnonzero(np.diff(label[order])) + 1
    groups: list[EdgeGroup] = []
    for edges in np.split(order, starts):
        groups.append(_group(layout, edges.astype(np.int32)))
    # Labels count kinds and nodes as drawn: groups are sorted anew by names and shapes.
    return _with_parameters(sorted(groups, key=_order))


def _group_labels(layout: Layout) -> np.ndarray:
    """A number for each edge, which is equal for the edges of one group."""
    columns = layout.columns
    # Nodes of two kinds may share an array and a shape: what counts is where they live.
    ends: dict[tuple[int, tuple[int, ...]], int] = {}
    end_of_class: list[int] = []
    arrays = layout.class_array.tolist()
    for array, node_class in zip(arrays, columns.node_classes, strict=True):
        end = array, node_class.shape
        end_of_class.append(ends.setdefault(end, len(ends)))
    end_of_node = np.asarray(end_of_class)[columns.node_class]
    # The parts of a label are the digits of one number.
    label = columns.edge_class.astype(np.int64)
    label = label * len(ends) + end_of_node[columns.senders]
    label = label * len(ends) + end_of_node[columns.receivers]
    return label * 2 + (columns.senders == columns.receivers)


def _group(layout: Layout, edges: np.ndarray) -> EdgeGroup:
    """The group of some edges, which hold the only parameters of their kind for the moment."""
    columns = layout.columns
    senders = columns.senders[edges]
    receivers = columns.receivers[edges]
    # The first edge tells what all have in common.
    kind, tie = columns.edge_classes[columns.edge_class[edges[0]]]
    sender_class = columns.node_class[senders[0]]
    receiver_class = columns.node_class[receivers[0]]
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
        # With rows in one piece, messages are the field of these rows, and nothing is scattered.
        receiver_index=_static_index(layout, receivers, step=1),
        parameters=ParameterSlice(0, 0, len(edges), len(edges)),
    )


def _static_index(
    layout: Layout,
    nodes: np.ndarray,
    step: int | None = None,
) -> Index | None:
    """The addresses of nodes as one slice, of this step if one is given, or as one view."""
    if layout.arrays[layout.node_array[nodes[0]]].shared:
        view = layout.columns.views[int(nodes[0])]
        return view if len(nodes) == 1 and is_regular(view) else None
    rows = layout.first_row[nodes]
    gaps = np.diff(rows)
    found = int(gaps[0]) if len(gaps) else 1
    uneven = (gaps != found).any()
    # Rows that come twice, or run backwards, are no slice.
    if uneven or found < 1 or step not in (None, found):
        return None
    start = int(rows[0])
    stop = int(rows[-1]) + 1
    return (slice(start, stop, found),)


def _order(group: EdgeGroup) -> tuple[str | bool | tuple[int, ...], ...]:
    """What groups are sorted by."""
    shapes = group.sender_shape, group.receiver_shape
    names = group.sender.name, group.receiver.name
    return group.kind, group.tie or "", *shapes, group.self_loop, *names


class _BlockLabel(NamedTuple):
    """What the groups of one parameter block have in common."""

    kind: str
    tie: str | None
    ends: tuple[tuple[int, ...], tuple[int, ...], bool] | None


def _block_label(group: EdgeGroup) -> _BlockLabel:
    # Tied edges have one set of parameters wherever they are, and so one block.
    if group.tie is not None:
        return _BlockLabel(group.kind, group.tie, None)
    # The leaves of other edges are stacked, so that their shapes agree; arrays may differ.
    ends = group.sender_shape, group.receiver_shape, group.self_loop
    return _BlockLabel(group.kind, None, ends)


def _with_parameters(groups: Sequence[EdgeGroup]) -> tuple[EdgeGroup, ...]:
    """The groups, each with its place in a parameter block."""
    sizes: Counter[_BlockLabel] = Counter()
    for group in groups:
        sizes[_block_label(group)] += len(group.edges)
    # Blocks of a kind are counted in the order of their first groups.
    number: dict[_BlockLabel, int] = {}
    blocks_of_kind: Counter[str] = Counter()
    for label in sizes:
        number[label] = blocks_of_kind[label.kind]
        blocks_of_kind[label.kind] += 1
    # The groups of a block lie one behind the other.
    result: list[EdgeGroup] = []
    filled: Counter[_BlockLabel] = Counter()
    for group in groups:
        label = _block_label(group)
        start = filled[label]
        filled[label] += len(group.edges)
        place = ParameterSlice(
            block=number[label],
            start=start,
            stop=filled[label],
            size=sizes[label],
        )
        result.append(replace(group, parameters=place))
    return tuple(result)


def parameter_blocks(groups: Sequence[EdgeGroup]) -> dict[str, tuple[ParameterBlock, ...]]:
    """The parameter blocks of every edge kind."""
    members: dict[tuple[str, int], list[int]] = {}
    for i, group in enumerate(groups):
        label = group.kind, group.parameters.block
        members.setdefault(label, []).append(i)
    table: dict[str, list[ParameterBlock]] = {}
    for (kind, _), positions in members.items():
        block = ParameterBlock(
            kind=kind,
            tie=groups[positions[0]].tie,
            groups=tuple(positions),
            edges=np.concatenate([groups[i].edges for i in positions]),
        )
        table.setdefault(kind, []).append(block)
    return {kind: tuple(blocks) for kind, blocks in table.items()}
