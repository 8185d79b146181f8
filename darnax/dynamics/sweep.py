"""A pass of several visits, as index arrays.

A few visits to large parts of arrays are made one by one, each like an update at once. Otherwise
visits that need arrays of like size share one compiled branch, and a scan goes through them, so
that compile time follows the number of sizes and not of nodes. A visit then touches its own
incoming edges only; sizes are rounded up and the rest is masked.
"""

import math
from collections.abc import Container, Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Int

from darnax.network.messages import SILENT, Speakers, concrete
from darnax.topologies.topology import Topology

MAX_BRANCHES, MAX_IN_TURN, FEW_ROWS = 4, 4, 64


class Listing(eqx.Module):
    """Concatenated lists of positions, of which visit `v` reads `count[v]` from `offset[v]` on."""

    positions: Int[Array, " total"]
    offset: Int[Array, " visits"]
    count: Int[Array, " visits"]


class Sweep(eqx.Module):
    """The visits of one pass.

    **Fields:**

    - `edges`: for every group that takes part, which of its edges end at the visited rows.
    - `rows`: for every array that takes part, the visited rows.
    - `slots`: for every such array, the place of each row in its visit.
    - `cell`: for `unit_by_unit`, which of the cells of its rows the visit updates; else None.
    - `stepped`: for `unit_by_unit`, arrays whose nodes are visited once, their units swept inside;
      see `units.py`.
    - `branch`: which of the `sizes` each visit needs.
    - `most`: for arrays of which all visits change about as many rows, or few, how many at most.
    - `sizes`: pairs of `(group, edges)` and `(array, rows)`, rounded up.
    """

    edges: dict[int, Listing]
    rows: dict[int, Listing]
    slots: dict[int, Int[Array, " rows"]]
    cell: Int[Array, " visits"] | None
    stepped: tuple[int, ...] = eqx.field(static=True)
    branch: Int[Array, " visits"]
    most: tuple[tuple[int, int], ...] = eqx.field(static=True)
    sizes: tuple[tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]], ...] = eqx.field(
        static=True
    )


class InTurn(eqx.Module):
    """A few visits, each of whole arrays (None) or of some of their rows.

    Fields and random numbers are worked out for all rows of an array: to pick some takes longer
    than it saves.
    """

    visits: tuple[dict[int, Bool[Array, " _"] | None], ...]


def in_turn(topology: Topology, visits: Sequence[np.ndarray]) -> InTurn | None:
    """The visits of a pass, if they are few and leave little out of the arrays that they touch."""
    if not 0 < len(visits) <= MAX_IN_TURN:
        return None
    specs, rows = topology.layout.arrays, [topology.layout.rows_of(nodes) for nodes in visits]
    touched = sum(specs[at].rows for visit in rows for at in visit)
    if touched > 2 * sum(len(found) for visit in rows for found in visit.values()):
        return None
    return InTurn(
        tuple({at: _mask(found, specs[at].rows) for at, found in visit.items()} for visit in rows)
    )


def _mask(found: np.ndarray, rows: int) -> Array | None:
    mask = np.zeros(rows, bool)
    mask[found] = True
    return None if mask.all() else concrete(mask)


def sweep(
    topology: Topology,
    visits: Sequence[np.ndarray],
    speakers: Speakers,
    changing: Container[int],
    units: bool,
    whole: Container[int],
    stepped: tuple[int, ...],
) -> Sweep | None:
    """The index arrays of a sequence of visits to nodes; with `units` each is taken apart into its
    cells.

    Groups that are not `changing` say the same at every visit and are left out. `whole` names the
    shared arrays on which the field of a node must be known as a whole to update one of its cells.
    None where there is nothing to visit.
    """
    specs = topology.layout.arrays
    rows = [topology.layout.rows_of(nodes) for nodes in visits]
    if units:
        rows = [
            {at: part}
            for visit in rows
            for at, found in visit.items()
            for part in ([found] if at in whole else found[:, None])
        ]
    if not rows:
        return None
    arrays = sorted(set().union(*rows))
    empty = np.zeros(0, np.int64)
    row_lists = {at: [visit.get(at, empty) for visit in rows] for at in arrays}
    visit_of_row = {at: np.full(specs[at].rows, -1) for at in arrays}
    slots = {at: np.zeros(specs[at].rows, np.int32) for at in arrays}
    for at, lists in row_lists.items():
        joined = np.concatenate(lists)
        counts = np.asarray([len(part) for part in lists])
        visit_of_row[at][joined] = np.repeat(np.arange(len(lists)), counts)
        slots[at][joined] = np.arange(len(joined)) - np.repeat(np.cumsum(counts) - counts, counts)
    edge_lists = {}
    for i, group in enumerate(topology.groups):
        if speakers.modes[i] != SILENT and group.receiver_array in arrays and i in changing:
            edge_lists[i] = _edges_of_visits(
                group.receivers, visit_of_row[group.receiver_array], len(rows)
            )
    # rows of several cells are visited once for each of them, with the same edges
    repeats, cell = np.arange(len(rows)), None
    if units:
        cells = [1 if at in stepped else math.prod(spec.item) for at, spec in enumerate(specs)]
        sizes = [len(part) * cells[at] for visit in rows for at, part in visit.items()]
        repeats = np.repeat(np.arange(len(rows)), sizes)
        cell = concrete(np.concatenate([np.arange(size) for size in sizes]).astype(np.int32))
    edges = {i: _listing(positions, count, repeats) for i, (positions, count) in edge_lists.items()}
    listed = {
        at: _listing(np.concatenate(ls), np.asarray([len(p) for p in ls]), repeats)
        for at, ls in row_lists.items()
    }
    counts = np.stack(
        [np.asarray(part.count) for part in [*edges.values(), *listed.values()]], axis=1
    )
    padded, branch = _round_up(counts)
    sizes = tuple(
        (
            tuple(
                (i, size) for i, size in zip(edges, row[: len(edges)].tolist(), strict=True) if size
            ),
            tuple(
                (at, size)
                for at, size in zip(listed, row[len(edges) :].tolist(), strict=True)
                if size
            ),
        )
        for row in padded
    )
    return Sweep(
        edges=edges,
        rows=listed,
        slots={at: concrete(slot) for at, slot in slots.items()},
        cell=cell,
        stepped=stepped,
        branch=concrete(branch.astype(np.int32)),
        most=tuple(
            (at, int(rows.max()))
            for at, rows in zip(listed, counts.T[len(edges) :], strict=True)
            if rows.max() <= max(FEW_ROWS, 4 * rows.mean())
        ),
        sizes=sizes,
    )


def _edges_of_visits(
    receivers: np.ndarray, visit_of_row: np.ndarray, visits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Edges sorted by the visit that one of their receiver rows belongs to, and how many each visit
    has.
    """
    flat = visit_of_row[receivers.reshape(len(receivers), -1)]
    visit, edge = flat.ravel(), np.repeat(np.arange(len(receivers)), flat.shape[1])
    pairs = np.unique(np.stack([visit, edge], axis=1)[visit >= 0], axis=0)
    return pairs[:, 1], np.bincount(pairs[:, 0], minlength=visits)


def _listing(positions: np.ndarray, counts: np.ndarray, repeats: np.ndarray) -> Listing:
    offset = (np.cumsum(counts) - counts)[repeats]
    # the last visits may read beyond the end, up to the largest size
    positions = np.concatenate([positions, np.zeros(counts.max(initial=0), positions.dtype)])
    return Listing(
        concrete(positions.astype(np.int32)),
        concrete(offset.astype(np.int32)),
        concrete(counts[repeats].astype(np.int32)),
    )


def _round_up(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of sizes that cover `counts`, few enough to compile, and which of them each
    visit needs.
    """
    base = 1.0
    while True:
        padded = (
            counts
            if base == 1
            else np.where(
                counts > 1, base ** np.ceil(np.log(np.maximum(counts, 1)) / np.log(base)), counts
            )
        )
        padded = np.minimum(padded, counts.max(axis=0)).astype(np.int64)
        distinct, branch = np.unique(padded, axis=0, return_inverse=True)
        if len(distinct) <= MAX_BRANCHES:
            return distinct, branch.ravel()
        if base > 1e6:
            return counts.max(axis=0)[None], np.zeros(len(counts), np.int64)
        base = 2.0 if base == 1 else base**2
