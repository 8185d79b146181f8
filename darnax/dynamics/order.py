"""From a schedule to the visits of a pass, in NumPy and once for all equal calls."""

import math
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from darnax.dynamics.schedules import Schedule, block_of, checked_visits
from darnax.dynamics.visits import Column, InTurn, Range, RangeVisit, Sizes, Sweep
from darnax.network.active import active_edges, concrete, moving_rows
from darnax.topologies.layout import Layout
from darnax.topologies.memory import remembered
from darnax.topologies.topology import Topology

MOST_IN_TURN = 4
"""Visits of a pass up to which each may be a part of the program, over whole arrays."""
MOST_SIZES = 4
"""Sizes of the visits of a sweep: each is a branch to compile."""


class Names(NamedTuple):
    """The arguments of a call that are names: what moves and what sends follow from them alone."""

    held: tuple[int, ...]
    silence: tuple
    kinds: tuple | None
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
    layout, moves = topology.layout, moving_rows(topology, *names)
    visits = _visits_that_move(topology, schedule, moves)
    if visits is None:
        return everything(topology, names)
    if not visits:
        return InTurn(())
    if not schedule.by_unit:
        in_turn = _in_turn(layout, visits, moves)
        if in_turn is not None:
            return in_turn
    rows = _visited_rows(layout, visits)
    rows = {name: found for name, found in rows.items() if name in moves}
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
    return InTurn((_range_visit(topology.layout, moves, all_that_move=True),))


def _visits_that_move(
    topology: Topology, schedule: Schedule, moves: Mapping[str, np.ndarray]
) -> list[np.ndarray] | None:
    """The visits of a schedule without nodes that cannot change; None for all at once.

    Nodes that are held stay where they overlap one that can change: a block is never split.
    """
    layout = topology.layout
    rows = {}
    for i, spec in enumerate(layout.arrays):
        if spec.name in moves:
            rows[i] = np.flatnonzero(moves[spec.name])
    movable = layout.covering(rows)
    visits = checked_visits(topology, schedule, movable)
    if visits is None:
        return None
    block = block_of(topology)
    moving_blocks = np.unique(block[movable])
    kept = [nodes[np.isin(block[nodes], moving_blocks)] for nodes in visits]
    return [nodes for nodes in kept if len(nodes)]


def _range_visit(
    layout: Layout, masks: Mapping[str, np.ndarray], all_that_move: bool = False
) -> RangeVisit:
    """One visit to the masked rows of some arrays, which may be all that can move."""
    specs = {spec.name: spec for spec in layout.arrays}
    rows, members = {}, {}
    for name, mask in masks.items():
        found = np.flatnonzero(mask)
        start, stop = int(found[0]), int(found[-1]) + 1
        # a range that is a little short of all rows costs a copy, and saves nothing
        if specs[name].shared or 4 * (stop - start) > len(mask):
            start, stop = 0, len(mask)
        rows[name] = Range(start, stop)
        whole = all_that_move or mask[start:stop].all()
        members[name] = None if whole else concrete(mask[start:stop])
    return RangeVisit(rows, members)


def _in_turn(
    layout: Layout, visits: Sequence[np.ndarray], moves: Mapping[str, np.ndarray]
) -> InTurn | None:
    """The visits of a pass as ranges, if they are few and leave little out of what they touch.

    Fields and random numbers are then worked out for all rows of an array: to pick some of them
    takes longer than it saves.
    """
    if not 0 < len(visits) <= MOST_IN_TURN:
        return None
    touched = used = 0
    result = []
    for nodes in visits:
        masks = {}
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
    return None if touched > 2 * used else InTurn(tuple(result))


class Visited(NamedTuple):
    """The visited rows of an array, sorted by visit, and the visit of each."""

    rows: np.ndarray
    visits: np.ndarray


def _visited_rows(layout: Layout, visits: Sequence[np.ndarray]) -> dict[str, Visited]:
    """The rows of the nodes of all visits, by array."""
    nodes = np.concatenate(visits)
    numbers = np.repeat(np.arange(len(visits)), [len(visit) for visit in visits])
    result = {}
    for i, spec in enumerate(layout.arrays):
        here = layout.node_array[nodes] == i
        if not here.any():
            continue
        rows, visit_of = layout.first_row[nodes[here]], numbers[here]
        if spec.shared:
            cells = [layout.cells(node).ravel() for node in nodes[here].tolist()]
            rows = np.concatenate(cells)
            visit_of = np.repeat(visit_of, [len(part) for part in cells])
        pairs = np.unique(visit_of.astype(np.int64) * spec.rows + rows)
        result[spec.name] = Visited(pairs % spec.rows, pairs // spec.rows)
    return result


def _taken_apart(
    layout: Layout, rows: Mapping[str, Visited], by_node: Container[str], stepped: Container[str]
) -> tuple[dict[str, Visited], np.ndarray]:
    """The same rows, visited one by one, and the number of cells that each visit has.

    A visit to one row is repeated for every cell of it. Where the field of a node must be known as
    a whole, all rows of a visit stay together, and the visit is repeated for every one of them.
    """
    specs = {spec.name: (i, spec) for i, spec in enumerate(layout.arrays)}
    labels, names, cells = [], [], []
    for name, found in rows.items():
        i, spec = specs[name]
        together = name in by_node
        row = np.zeros_like(found.rows) if together else found.rows
        labels.append(np.stack([found.visits, np.full(len(row), i), row], axis=1))
        names.append(np.full(len(row), len(names)))
        cells.append(1 if together or name in stepped else math.prod(spec.item))
    distinct, new = np.unique(np.concatenate(labels), axis=0, return_inverse=True)
    name_of, new = np.concatenate(names), new.ravel()
    repeats = np.bincount(new, np.asarray(cells)[name_of], len(distinct)).astype(np.int64)
    result = {}
    for i, (name, found) in enumerate(rows.items()):
        result[name] = Visited(found.rows, new[name_of == i])
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
    result = {}
    for i, group in enumerate(topology.groups):
        sends = active[i]
        if sends is None or i not in changing or group.receiver.name not in rows:
            continue
        found = rows[group.receiver.name]
        landings = group.receivers.reshape(len(group.edges), -1)
        place = np.full(group.receiver.rows, -1)
        place[found.rows] = np.arange(len(found.rows))
        visit = np.full(group.receiver.rows, -1)
        visit[found.rows] = found.visits
        result[i] = MovingEdges(place[landings], np.where(sends[:, None], visit[landings], -1))
    return result


def _sweep(
    topology: Topology,
    rows: Mapping[str, Visited],
    repeats: np.ndarray | None,
    moving_edges: Mapping[int, MovingEdges],
    stepped: frozenset[str],
) -> Sweep:
    """The columns of all visits; `repeats` is how often each is made, cell after cell."""
    count = 1 + max(int(found.visits[-1]) for found in rows.values())
    made = np.ones(count, np.int64) if repeats is None else repeats
    columns = {}
    for name, found in rows.items():
        columns[name] = _column(found.rows, np.bincount(found.visits, minlength=count), made)
    edges, places = {}, {}
    for i, group in moving_edges.items():
        edges[i] = _edges_of_visits(group.visits, made)
        places[i] = concrete(group.places.astype(np.int32))
    counts = [np.asarray(column.count) for column in (*columns.values(), *edges.values())]
    padded, size_of = _rounded_up(np.stack(counts, axis=1))
    cell = None
    if repeats is not None:
        cell = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        cell = concrete(cell.astype(np.int32))
    return Sweep(
        topology=topology,
        rows=columns,
        edges=edges,
        places=places,
        cell=cell,
        size_of=concrete(size_of.astype(np.int32)),
        sizes=tuple(_sizes(list(columns), list(edges), line.tolist()) for line in padded),
        stepped=stepped & frozenset(rows),
    )


def _sizes(arrays: list[str], groups: list[int], counts: list[int]) -> Sizes:
    rows = zip(arrays, counts[: len(arrays)], strict=True)
    edges = zip(groups, counts[len(arrays) :], strict=True)
    return Sizes(tuple(part for part in rows if part[1]), tuple(part for part in edges if part[1]))


def _edges_of_visits(visits: np.ndarray, made: np.ndarray) -> Column:
    """The edges of a group by visit, from the visit of every cell of their messages.

    Where cells are visited one by one, an edge to a view is part of several visits.
    """
    edge = np.repeat(np.arange(len(visits)), visits.shape[1])
    visit = visits.ravel()
    pairs = np.unique(visit[visit >= 0].astype(np.int64) * len(visits) + edge[visit >= 0])
    count = np.bincount(pairs // len(visits), minlength=len(made))
    return _column(pairs % len(visits), count, made)


def _column(positions: np.ndarray, count: np.ndarray, made: np.ndarray) -> Column:
    """Lists of positions, each of which is read `made` times in a row."""
    offset = np.cumsum(count) - count
    # the last visits read beyond the end, up to the largest size
    filled = np.concatenate([positions, np.zeros(count.max(initial=0), positions.dtype)])
    return Column(
        concrete(filled.astype(np.int32)),
        concrete(np.repeat(offset, made).astype(np.int32)),
        concrete(np.repeat(count, made).astype(np.int32)),
    )


def _rounded_up(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct lines of sizes that cover `counts`, few enough to compile, and which each visit has.

    Counts are rounded up to powers of 2, then of 4, 16 and so on, until few distinct lines are
    left.
    """
    base, most = 1.0, counts.max(axis=0)
    while True:
        padded = counts
        if base > 1:
            exponent = np.ceil(np.log(np.maximum(counts, 1)) / np.log(base))
            padded = np.where(counts > 1, base**exponent, counts)
        padded = np.minimum(padded, most).astype(np.int64)
        distinct, size_of = np.unique(padded, axis=0, return_inverse=True)
        if len(distinct) <= MOST_SIZES:
            return distinct, size_of.ravel()
        if base > 1e6:
            return most[None], np.zeros(len(counts), np.int64)
        base = 2.0 if base == 1 else base**2
