"""The order of a pass: from a schedule to its visits, in NumPy and once for all equal calls.

A schedule names nodes. What a program needs are rows of arrays, the edges that end there, and how
many of them each visit has. Three forms come out: one visit to everything, a few visits to ranges
of rows, or a sweep of many.
"""

import math
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from darnax.dynamics.schedules import Schedule, block_of, checked_visits
from darnax.dynamics.visits import Column, InTurn, RangeVisit, Sizes, Sweep
from darnax.network.active import active_edges, concrete, moving_rows
from darnax.network.selection import Range
from darnax.topologies.layout import Layout
from darnax.topologies.memory import remembered
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

MOST_IN_TURN = 4
"""Visits of a pass up to which each may be a part of the program, over whole arrays."""
MOST_SIZES = 4
"""Sizes of the visits of a sweep: each is a branch to compile."""


class Names(NamedTuple):
    """The arguments of a call that are names: what moves and what sends follow from them alone."""

    held: tuple[int, ...]
    silence: tuple[Name, ...]
    kinds: tuple[str, ...] | None
    driven: tuple[int, ...]


@remembered
def order_of(
    topology: Topology,
    schedule: Schedule,
    names: Names,
    changing: frozenset[int],
    by_node: frozenset[str],
    stepped: frozenset[str],
) -> InTurn | Sweep:
    """The visits of a pass.

    `changing` are the groups whose messages can change within a call: a sweep lists their edges
    alone. `by_node` are the shared arrays on which the field of a whole node must be known to
    update one of its cells, `stepped` those whose nodes are visited once, their units swept inside.
    """
    layout = topology.layout
    moves = moving_rows(topology, *names)
    visits = _visits_that_move(topology, schedule, moves)
    if visits is None:
        return everything(topology, names)
    # nothing can move
    if not visits:
        return InTurn(())
    if not schedule.by_unit:
        in_turn = _in_turn(layout, visits, moves)
        if in_turn is not None:
            return in_turn
    # A sweep: the rows of every visit, then the edges that end at them.
    rows: dict[str, Visited] = {}
    for name, found in _visited_rows(layout, visits).items():
        if name in moves:
            rows[name] = found
    repeats = None
    if schedule.by_unit:
        rows, repeats = _taken_apart(layout, rows, by_node, stepped)
    active = active_edges(topology, names.silence, names.kinds)
    edges = _moving_edges(topology, rows, active, changing)
    return _sweep(topology, rows, repeats, edges, stepped)


@remembered
def everything(topology: Topology, names: Names) -> InTurn:
    """A pass of one visit to all that can move."""
    moves = moving_rows(topology, *names)
    visit = _range_visit(topology.layout, moves, all_that_move=True)
    return InTurn((visit,))


def _visits_that_move(
    topology: Topology,
    schedule: Schedule,
    moves: Mapping[str, np.ndarray],
) -> list[np.ndarray] | None:
    """The visits of a schedule without nodes that cannot change; None for all at once.

    Nodes that are held stay where they overlap one that can change: a block is never split.
    """
    layout = topology.layout
    rows: dict[int, np.ndarray] = {}
    for i, spec in enumerate(layout.arrays):
        if spec.name in moves:
            rows[i] = np.flatnonzero(moves[spec.name])
    # the nodes that cover one of these rows
    movable = layout.covering(rows)
    visits = checked_visits(topology, schedule, movable)
    if visits is None:
        return None
    block = block_of(topology)
    moving_blocks = np.unique(block[movable])
    kept: list[np.ndarray] = []
    for nodes in visits:
        moving = nodes[np.isin(block[nodes], moving_blocks)]
        if len(moving):
            kept.append(moving)
    return kept


def _range_visit(
    layout: Layout,
    masks: Mapping[str, np.ndarray],
    all_that_move: bool = False,
) -> RangeVisit:
    """One visit to the masked rows of some arrays, which may be all that can move."""
    specs = {spec.name: spec for spec in layout.arrays}
    rows: dict[str, Range] = {}
    members: dict[str, Array | None] = {}
    for name, mask in masks.items():
        found = np.flatnonzero(mask)
        start = int(found[0])
        stop = int(found[-1]) + 1
        # A range that is a little short of all rows costs a copy, and saves nothing.
        if specs[name].shared or 4 * (stop - start) > len(mask):
            start, stop = 0, len(mask)
        rows[name] = Range(start, stop)
        mask = mask[start:stop]
        # Rows that cannot move are left out of every visit by `Problem.moves`, and need no mask.
        whole = all_that_move or mask.all()
        members[name] = None if whole else concrete(mask)
    return RangeVisit(rows, members)


def _in_turn(
    layout: Layout,
    visits: Sequence[np.ndarray],
    moves: Mapping[str, np.ndarray],
) -> InTurn | None:
    """The visits of a pass as ranges, if they are few and leave little out of what they touch.

    Fields and random numbers are then worked out for all rows of an array: to pick some of them
    takes longer than it saves.
    """
    if not 0 < len(visits) <= MOST_IN_TURN:
        return None
    # rows that are worked out, and rows among them that are visited
    touched = used = 0
    result: list[RangeVisit] = []
    for nodes in visits:
        masks: dict[str, np.ndarray] = {}
        for i, found in layout.rows_of(nodes).items():
            spec = layout.arrays[i]
            touched += spec.rows
            used += len(found)
            mask = np.zeros(spec.rows, bool)
            if spec.name in moves:
                mask[found] = moves[spec.name][found]
            if mask.any():
                masks[spec.name] = mask
        result.append(_range_visit(layout, masks))
    # More than half of the work would be for rows that the visit leaves as they are.
    if touched > 2 * used:
        return None
    return InTurn(tuple(result))


class Visited(NamedTuple):
    """The visited rows of an array, sorted by visit, and the visit of each."""

    rows: np.ndarray
    visits: np.ndarray


def _visited_rows(
    layout: Layout,
    visits: Sequence[np.ndarray],
) -> dict[str, Visited]:
    """The rows of the nodes of all visits, by array."""
    nodes = np.concatenate(visits)
    sizes = [len(visit) for visit in visits]
    numbers = np.repeat(np.arange(len(visits)), sizes)
    result: dict[str, Visited] = {}
    for i, spec in enumerate(layout.arrays):
        here = layout.node_array[nodes] == i
        if not here.any():
            continue
        rows = layout.first_row[nodes[here]]
        visit_of = numbers[here]
        if spec.shared:
            # rows are cells, of which a node covers several and several nodes may cover one
            cells = [layout.cells(node).ravel() for node in nodes[here].tolist()]
            rows = np.concatenate(cells)
            visit_of = np.repeat(visit_of, [len(part) for part in cells])
        # A pair of visit and row as one number: `unique` sorts by visit, and drops what is double.
        pairs = np.unique(visit_of.astype(np.int64) * spec.rows + rows)
        result[spec.name] = Visited(
            rows=pairs % spec.rows,
            visits=pairs // spec.rows,
        )
    return result


def _taken_apart(
    layout: Layout,
    rows: Mapping[str, Visited],
    by_node: Container[str],
    stepped: Container[str],
) -> tuple[dict[str, Visited], np.ndarray]:
    """The same rows, visited one by one, and the number of cells that each visit has.

    A visit to one row is repeated for every cell of it. Where the field of a node must be known as
    a whole, all rows of a visit stay together, and the visit is repeated for every one of them.
    """
    positions = {spec.name: i for i, spec in enumerate(layout.arrays)}
    # For every visited row of all arrays: the label of its new visit, the place of its array in
    # `rows`, and the cells by which it lets the visit be repeated.
    labels: list[np.ndarray] = []
    places: list[np.ndarray] = []
    cells: list[np.ndarray] = []
    for place, (name, found) in enumerate(rows.items()):
        position = positions[name]
        count = len(found.rows)
        together = name in by_node
        row = np.zeros_like(found.rows) if together else found.rows
        # Sorted, labels keep the order of the old visits, then of arrays, then of rows.
        array = np.full(count, position)
        labels.append(np.stack([found.visits, array, row], axis=1))
        places.append(np.full(count, place))
        size = math.prod(layout.arrays[position].item)
        if together or name in stepped:
            size = 1
        cells.append(np.full(count, size))
    distinct, new = np.unique(np.concatenate(labels), axis=0, return_inverse=True)
    new = new.ravel()
    # Rows that stay together are cells of a shared array, and count as one each.
    repeats = np.bincount(new, np.concatenate(cells), len(distinct)).astype(np.int64)
    place_of = np.concatenate(places)
    result: dict[str, Visited] = {}
    for place, (name, found) in enumerate(rows.items()):
        result[name] = Visited(found.rows, new[place_of == place])
    return result, repeats


class MovingEdges(NamedTuple):
    """The edges of a group that a sweep goes along.

    **Fields:**

    - `places`: the place among all visited rows of every cell of a message, `(E, cells)`, -1 for
      none.
    - `visits`: the visit of that row; -1 for none, and for edges that do not send.
    """

    places: np.ndarray
    visits: np.ndarray


def _moving_edges(
    topology: Topology,
    rows: Mapping[str, Visited],
    active: Sequence[np.ndarray | None],
    changing: Container[int],
) -> dict[int, MovingEdges]:
    """The edges of all groups that end at visited rows and whose messages can change."""
    result: dict[int, MovingEdges] = {}
    for i, group in enumerate(topology.groups):
        sends = active[i]
        array = group.receiver
        if sends is None or i not in changing or array.name not in rows:
            continue
        found = rows[array.name]
        # from rows of the array to places among the visited rows, and to visits
        place = np.full(array.rows, -1)
        place[found.rows] = np.arange(len(found.rows))
        visit = np.full(array.rows, -1)
        visit[found.rows] = found.visits
        landings = group.receivers.reshape(len(group.edges), -1)  # (E, cells)
        visits = np.where(sends[:, None], visit[landings], -1)
        result[i] = MovingEdges(place[landings], visits)
    return result


def _sweep(
    topology: Topology,
    rows: Mapping[str, Visited],
    repeats: np.ndarray | None,
    moving_edges: Mapping[int, MovingEdges],
    stepped: frozenset[str],
) -> Sweep:
    """The columns of all visits; `repeats` is how often each is made, cell after cell."""
    # columns of rows and edges
    last = max(int(found.visits[-1]) for found in rows.values())
    count = last + 1
    made = np.ones(count, np.int64) if repeats is None else repeats
    columns: dict[str, Column] = {}
    for name, found in rows.items():
        rows_of_visit = np.bincount(found.visits, minlength=count)
        columns[name] = _column(found.rows, rows_of_visit, made)
    edges: dict[int, Column] = {}
    places: dict[int, Array] = {}
    for i, group in moving_edges.items():
        edges[i] = _edges_of_visits(group.visits, made)
        places[i] = concrete(group.places.astype(np.int32))
    # the sizes of visits: one line of counts a visit, one column an array or group
    counts: list[np.ndarray] = []
    for column in (*columns.values(), *edges.values()):
        counts.append(np.asarray(column.count))
    padded, size_of = _rounded_up(np.stack(counts, axis=1))
    sizes: list[Sizes] = []
    for line in padded.tolist():
        sizes.append(_sizes(list(columns), list(edges), line))
    # where visits are repeated, the number of the repetition
    cell = None
    if repeats is not None:
        first = np.repeat(np.cumsum(repeats) - repeats, repeats)
        cell = np.arange(repeats.sum()) - first
        cell = concrete(cell.astype(np.int32))
    return Sweep(
        topology=topology,
        rows=columns,
        edges=edges,
        places=places,
        cell=cell,
        size_of=concrete(size_of.astype(np.int32)),
        sizes=tuple(sizes),
        stepped=stepped & frozenset(rows),
    )


def _sizes(
    arrays: list[str],
    groups: list[int],
    counts: list[int],
) -> Sizes:
    """The sizes of a line of counts, first those of arrays and then those of groups."""
    rows = zip(arrays, counts[: len(arrays)], strict=True)
    edges = zip(groups, counts[len(arrays) :], strict=True)
    return Sizes(
        rows=tuple(part for part in rows if part[1]),
        edges=tuple(part for part in edges if part[1]),
    )


def _edges_of_visits(visits: np.ndarray, made: np.ndarray) -> Column:
    """The edges of a group by visit, from the visit of every cell of their messages.

    Where cells are visited one by one, an edge to a view is part of several visits.
    """
    edges, cells = visits.shape
    edge = np.repeat(np.arange(edges), cells)
    visit = visits.ravel()
    lands = visit >= 0
    # As for rows: sorted by visit, and an edge once a visit, however many of its cells land there.
    pairs = visit[lands].astype(np.int64) * edges + edge[lands]
    pairs = np.unique(pairs)
    count = np.bincount(pairs // edges, minlength=len(made))
    return _column(pairs % edges, count, made)


def _column(
    positions: np.ndarray,
    count: np.ndarray,
    made: np.ndarray,
) -> Column:
    """Lists of positions, each of which is read `made` times in a row."""
    offset = np.cumsum(count) - count
    # The last visits read beyond their end, up to the largest size: a slice that would go beyond
    # the column is moved back by JAX, and would be another one.
    filling = np.zeros(count.max(initial=0), positions.dtype)
    filled = np.concatenate([positions, filling])
    # a visit that is repeated reads the same list every time
    offset = np.repeat(offset, made)
    count = np.repeat(count, made)
    return Column(
        positions=concrete(filled.astype(np.int32)),
        offset=concrete(offset.astype(np.int32)),
        count=concrete(count.astype(np.int32)),
    )


def _rounded_up(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct lines of sizes that cover `counts`, few enough to compile, and which each visit has.

    Counts are rounded up to powers of 2, then of 4, 16 and so on, until few distinct lines are
    left.
    """
    base = 1.0
    most = counts.max(axis=0)
    while True:
        padded = counts
        if base > 1:
            logarithm = np.log(np.maximum(counts, 1)) / np.log(base)
            power = base ** np.ceil(logarithm)
            padded = np.where(counts > 1, power, counts)
        # no visit reads more than the largest has
        padded = np.minimum(padded, most).astype(np.int64)
        distinct, size_of = np.unique(padded, axis=0, return_inverse=True)
        if len(distinct) <= MOST_SIZES:
            return distinct, size_of.ravel()
        # Counts of 0 and 1 are kept apart by every base: if they alone make too many lines, one
        # size serves all visits.
        if base > 1e6:
            return most[None], np.zeros(len(counts), np.int64)
        # By squares a few rounds are enough, whatever the counts.
        base = 2.0 if base == 1 else base**2
