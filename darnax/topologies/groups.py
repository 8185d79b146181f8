"""Edge groups: the edges that can run as one batched operation.

Edges belong together if they agree in kind, tie, the arrays and shapes at both ends, and in being a
self-loop or not. Inside a group they are sorted by receiver and then by their hash, so that
messages to one receiver are added in an order that does not depend on how the graph was drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darnax.topologies.layout import Layout
from darnax.topologies.tables import stable_order
from darnax.topologies.views import Index, is_regular


@dataclass(frozen=True, eq=False)
class EdgeGroup:
    """Edges of one sort, sorted by receiver.

    **Fields:**

    - `sender_array`, `receiver_array`: positions among the arrays of the layout.
    - `edges`: positions among the edges of the topology, `(E,)`.
    - `senders`, `receivers`: addresses, `(E, *lead)`: one row for a stacked node, one row a cell
      for a view.
    - `sender_index`, `receiver_index`: the same as one static index where it is regular, else None:
      a slice of rows (of step 1 for receivers), or the view itself where one edge is the whole
      group.
    """

    kind: str
    tie: str | None
    sender_array: int
    receiver_array: int
    sender_shape: tuple[int, ...]
    receiver_shape: tuple[int, ...]
    self_loop: bool
    edges: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    sender_index: Index | None
    receiver_index: Index | None

    @property
    def bundle(self) -> tuple:
        """What the edges share one set of leaves by: a tie, or else kind, shapes and being a
        self-loop.
        """
        if self.tie is not None:
            return self.kind, self.tie
        return self.kind, None, self.sender_shape, self.receiver_shape, self.self_loop


def edge_groups(layout: Layout, hashes: np.ndarray) -> tuple[EdgeGroup, ...]:
    """All groups, in an order that depends on what they are and not on the drawing."""
    columns = layout.columns
    if not len(columns.senders):
        return ()
    # nodes of two kinds may share an array and a shape: what counts is the place
    places: dict[tuple, int] = {}
    place_of_class = np.asarray(
        [
            places.setdefault((int(array), cls.shape), len(places))
            for array, cls in zip(layout.class_array, columns.node_classes, strict=True)
        ]
    )
    place = place_of_class[columns.node_class]
    loop = columns.senders == columns.receivers
    label = (columns.edge_class.astype(np.int64) * len(places) + place[columns.senders]) * len(
        places
    )
    label = (label + place[columns.receivers]) * 2 + loop
    by_hash = np.argsort(hashes)
    row = layout.first_row[columns.receivers]
    order = by_hash[stable_order((label * (int(row.max()) + 1) + row)[by_hash])]
    table = list(places)
    groups = []
    for edges in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        senders, receivers = columns.senders[edges], columns.receivers[edges]
        kind, tie = columns.edge_classes[columns.edge_class[edges[0]]]
        (sender_array, sender_shape), (receiver_array, receiver_shape) = (
            table[place[ends[0]]] for ends in (senders, receivers)
        )
        groups.append(
            EdgeGroup(
                kind=kind,
                tie=tie,
                sender_array=sender_array,
                receiver_array=receiver_array,
                sender_shape=sender_shape,
                receiver_shape=receiver_shape,
                self_loop=bool(loop[edges[0]]),
                edges=edges.astype(np.int32),
                senders=layout.address(senders),
                receivers=layout.address(receivers),
                sender_index=_static_index(layout, senders),
                receiver_index=_static_index(layout, receivers, steps=(1,)),
            )
        )
    return tuple(sorted(groups, key=lambda group: _order(group, layout)))


def _static_index(
    layout: Layout, nodes: np.ndarray, steps: tuple[int, ...] | None = None
) -> Index | None:
    if layout.arrays[layout.node_array[nodes[0]]].shared:
        view = layout.columns.views[int(nodes[0])]
        return view if len(nodes) == 1 and is_regular(view) else None
    rows = layout.first_row[nodes]
    gaps = np.diff(rows)
    step = int(gaps[0]) if len(gaps) else 1
    if step < 1 or (steps is not None and step not in steps) or (gaps != step).any():
        return None
    return (slice(int(rows[0]), int(rows[-1]) + 1, step),)


def _order(group: EdgeGroup, layout: Layout) -> tuple:
    ends = layout.arrays[group.sender_array].name, layout.arrays[group.receiver_array].name
    return (
        group.kind,
        group.tie or "",
        group.sender_shape,
        group.receiver_shape,
        group.self_loop,
        ends,
    )


@dataclass(frozen=True, eq=False)
class Bundle:
    """The edges that keep their parameters in one set of leaves, as the groups that run them.

    Without a tie the leaves have a leading axis of `size` edges, group after group; with one they
    have none.
    """

    kind: str
    tie: str | None
    groups: tuple[int, ...]
    edges: np.ndarray


@dataclass(frozen=True)
class Place:
    """Where a group finds its parameters: bundle `bundle` of its kind, rows `start` to `stop` of
    `size`.
    """

    bundle: int
    start: int
    stop: int
    size: int


def bundles(groups: Sequence[EdgeGroup]) -> tuple[dict[str, tuple[Bundle, ...]], tuple[Place, ...]]:
    """The bundles of every kind, and the place of every group in them."""
    members: dict[tuple, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group.bundle, []).append(i)
    table: dict[str, list[Bundle]] = {}
    places: list[Place] = [Place(0, 0, 0, 0)] * len(groups)
    for ids in members.values():
        first = groups[ids[0]]
        here = table.setdefault(first.kind, [])
        edges = np.concatenate([groups[i].edges for i in ids])
        stops = np.cumsum([len(groups[i].edges) for i in ids]).tolist()
        for i, stop in zip(ids, stops, strict=True):
            places[i] = Place(len(here), stop - len(groups[i].edges), stop, len(edges))
        here.append(Bundle(first.kind, first.tie, tuple(ids), edges))
    return {kind: tuple(here) for kind, here in table.items()}, tuple(places)
