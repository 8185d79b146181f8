"""Numbers that are carried over from one pytree to another, by the names of what they belong to.

The rows of an edge are carried if the other tree has an edge of the same ends, key and kind whose
leaves agree in types and shapes, and the rows of a node if it has a node of the same name, type and
shape. All leaves of an edge are carried, or none: half of the parameters of a coupling would be
a coupling that nobody has learnt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from darnax import _text, checks
from darnax.files.pieces import Leaf, Piece, Stack, Tree, edge_name, thing_names
from darnax.topologies.names import Name
from darnax.topologies.tables import Columns, repeated

Renamed = Mapping[Name, Name]
"""The new name of every node that has another one than before."""


class Outcome(NamedTuple):
    """What became of the rows of a piece, as positions; or of a leaf without rows, as 0 alone.

    **Fields:**

    - `here`, `there`: the piece that is carried into and the one it comes from; None for none.
    - `carried`, `new`: positions in `here`.
    - `dropped`: positions in `there`.
    """

    here: Piece | None
    there: Piece | None
    carried: np.ndarray
    new: np.ndarray
    dropped: np.ndarray

    @property
    def name(self) -> str:
        """The name of the piece."""
        piece = self.here or self.there
        assert piece is not None
        return piece.name

    def without_numbers(self) -> "Outcome":
        """The same outcome, which keeps neither the trees alive nor a file open."""
        here, there = self.here, self.there
        if here is not None:
            here = here.names_alone()
        if there is not None:
            # names of what was there are read from a file only where they are told
            there = there.names_alone() if len(self.dropped) else there._replace(stacks={})
        return self._replace(here=here, there=there)

    def names(self, what: str) -> tuple[Name, ...]:
        """The names of the edges, nodes or cells in a field; none for leaves without rows."""
        piece = self.there if what == "dropped" else self.here
        positions = getattr(self, what).tolist()
        # columns of a file are read where there is something to name
        if piece is None or piece.of is None or not positions:
            return ()
        return thing_names(piece, positions)


@dataclass(frozen=True, eq=False)
class Carryover:
    """What was carried over from one tree to another, what is new and what was dropped.

    Each is a mapping from parts of the tree to names: of edges for the couplings of a kind, of
    nodes for buffers and biases, of cells for the biases of a shared array. A part without rows,
    such as a counter, has no names, and is in the mapping if it was carried, is new or was dropped.
    An edge or node that has another shape than before is new, and what it was is dropped.
    `print` shows a table.
    """

    outcomes: tuple[Outcome, ...]

    @cached_property
    def carried(self) -> dict[str, tuple[Name, ...]]:
        """The names of what has the numbers that it had."""
        return self._by_part("carried")

    @cached_property
    def new(self) -> dict[str, tuple[Name, ...]]:
        """The names of what was not there before, or had another shape: it starts as it is."""
        return self._by_part("new")

    @cached_property
    def dropped(self) -> dict[str, tuple[Name, ...]]:
        """The names of what is not there any more, or has another shape."""
        return self._by_part("dropped")

    def without_numbers(self) -> "Carryover":
        """The same report, which keeps neither the trees alive nor a file open."""
        return Carryover(tuple(outcome.without_numbers() for outcome in self.outcomes))

    def _by_part(self, what: str) -> dict[str, tuple[Name, ...]]:
        found: dict[str, tuple[Name, ...]] = {}
        for outcome in self.outcomes:
            if len(getattr(outcome, what)):
                found[outcome.name] = outcome.names(what)
        return found

    def __repr__(self) -> str:
        counts: list[str] = []
        for what in ("carried", "new", "dropped"):
            count = sum(len(getattr(outcome, what)) for outcome in self.outcomes)
            counts.append(f"{count} {what}")
        return f"Carryover({', '.join(counts)})"

    def __str__(self) -> str:
        rows: list[list[str]] = []
        for outcome in self.outcomes:
            words = [_in_words(outcome, what) for what in ("carried", "new", "dropped")]
            rows.append([outcome.name or "the tree itself", *words])
        return _text.table(["part", "carried over", "new", "dropped"], rows)


def _in_words(outcome: Outcome, what: str) -> str:
    """How many were carried over, or which are new or were dropped."""
    count = len(getattr(outcome, what))
    piece = outcome.there if what == "dropped" else outcome.here
    if not count or piece is None:
        return ""
    if piece.of is None:
        return "yes"
    things = piece.of if count > 1 else piece.of.removesuffix("s")
    if what == "carried":
        return f"{count} {things}"
    return f"{things} {_text.listing(map(repr, outcome.names(what)), 3)}"


class Copy(NamedTuple):
    """What goes from a leaf into another.

    **Fields:**

    - `into`, `here`: the leaf now, and its rows; None for the leaf as a whole.
    - `leaf`, `there`: the leaf before, and as many of its rows.
    """

    into: Leaf
    here: np.ndarray | None
    leaf: Leaf
    there: np.ndarray | None


class Plan(NamedTuple):
    """All that there is to copy, and what becomes of every piece; no number was read yet."""

    carryover: Carryover
    copies: list[Copy]

    def carry_out(self, tree: Tree):
        """Copy the numbers into the tree that the plan was made for."""
        by_leaf: dict[str, list[Copy]] = {}
        for copy in self.copies:
            by_leaf.setdefault(copy.into.name, []).append(copy)
        for name, copies in by_leaf.items():
            tree.put(name, _copied(copies))


@checks.by_hand
def plan(pieces: Mapping[str, Piece], old: Mapping[str, Piece], renamed: Renamed | None) -> Plan:
    """The plan to put all that has a place in `pieces` from `old` there.

    `renamed` gives the names now of nodes that have others in `old`.
    """
    planner = _Planner(_check_renamed(pieces, old, renamed))
    for name, piece in pieces.items():
        there = old.get(name)
        if there is None or piece.of != there.of:
            planner.nothing(piece, None)
            if there is not None:
                planner.nothing(None, there)
        elif piece.of is None:
            planner.whole(piece, there)
        else:
            planner.rows(piece, there)
    for name, there in old.items():
        if name not in pieces:
            planner.nothing(None, there)
    return Plan(Carryover(tuple(planner.outcomes)), planner.copies)


def _copied(copies: list[Copy]) -> Any:
    """The numbers of a leaf after all copies into it."""
    into, here, leaf, _ = copies[0]
    if here is None:
        return leaf.read()
    fresh = np.array(into.read())
    for into, here, leaf, there in copies:
        assert into.axis is not None
        np.moveaxis(fresh, into.axis, 0)[here] = np.moveaxis(leaf.read(), into.axis, 0)[there]
    return fresh


NOTHING = np.zeros(0, np.int64)
"""No positions."""


class _Planner:
    """A plan in the making."""

    def __init__(self, renamed: Renamed):
        self.outcomes: list[Outcome] = []
        self.copies: list[Copy] = []
        self._renamed = renamed
        # by two digests and what is moved: many pieces have the same wiring
        self._moves: dict[tuple[str, str, str], np.ndarray] = {}

    def nothing(self, piece: Piece | None, there: Piece | None):
        """Note that nothing of a piece is carried."""
        new = NOTHING if piece is None else _positions(piece)
        dropped = NOTHING if there is None else _positions(there)
        self.outcomes.append(Outcome(piece, there, NOTHING, new, dropped))

    def whole(self, piece: Piece, there: Piece):
        """Carry leaves without rows: all of them, if all of them fit."""
        fits = set(piece.stacks) == set(there.stacks)
        if not (fits and all(_alike(piece.stacks[key], there.stacks[key]) for key in piece.stacks)):
            self.nothing(piece, there)
            return
        for key, stack in piece.stacks.items():
            for inside, leaf in stack.leaves.items():
                self.copies.append(Copy(leaf, None, there.stacks[key].leaves[inside], None))
        self.outcomes.append(Outcome(piece, there, _positions(piece), NOTHING, NOTHING))

    def rows(self, piece: Piece, there: Piece):
        """Carry the rows of edges, nodes or cells that are there on both sides, and fit."""
        moves = self._where_before(piece, there)
        found: list[np.ndarray] = [NOTHING]
        for stack in piece.stacks.values():
            for other in there.stacks.values():
                if _alike(stack, other):
                    found.append(self._between(stack, other, moves))
        carried = np.sort(np.concatenate(found))
        new = np.setdiff1d(_positions(piece), carried, assume_unique=True)
        dropped = np.setdiff1d(_positions(there), moves[carried], assume_unique=True)
        self.outcomes.append(Outcome(piece, there, carried, new, dropped))

    def _between(self, stack: Stack, other: Stack, moves: np.ndarray) -> np.ndarray:
        """Carry the rows that two stacks have in common; their positions now."""
        assert stack.rows is not None
        assert other.rows is not None
        if not len(other.rows):
            return NOTHING
        before = moves[stack.rows]
        order = np.argsort(other.rows)
        # what is not there is sought behind the last, and not found at the first
        place = np.searchsorted(other.rows, before, sorter=order) % len(order)
        at = order[place]
        here = np.flatnonzero(other.rows[at] == before)
        if len(here):
            for inside, leaf in stack.leaves.items():
                self.copies.append(Copy(leaf, here, other.leaves[inside], at[here]))
        return stack.rows[here]

    def _where_before(self, piece: Piece, there: Piece) -> np.ndarray:
        """For every edge, node or cell of a piece its position in another one, -1 for nowhere."""
        count = int(np.prod(piece.shape))
        if piece.of == "cells":
            # a cell has no name but its position in the array
            return np.arange(count) if piece.shape == there.shape else np.full(count, -1)
        assert piece.wiring is not None
        assert there.wiring is not None
        if piece.wiring.digest == there.wiring.digest and not self._renamed:
            return np.arange(count)
        key = piece.wiring.digest, there.wiring.digest, str(piece.of)
        if key not in self._moves:
            of = _nodes_by_name if piece.of == "nodes" else _edges_by_name
            old = of(there.wiring.columns, self._renamed)
            new = of(piece.wiring.columns, {})
            self._moves[key] = np.asarray([old.get(name, -1) for name in new], np.int64)
        return self._moves[key]


def _positions(piece: Piece) -> np.ndarray:
    """The positions of all rows of a piece, sorted; 0 for a leaf without rows."""
    found: list[np.ndarray] = [NOTHING]
    for stack in piece.stacks.values():
        found.append(np.zeros(1, np.int64) if stack.rows is None else stack.rows)
    # every edge, node or cell is in one stack; leaves without rows have one position for all
    positions = np.sort(np.concatenate(found))
    return positions if piece.of is not None else positions[:1]


def _alike(one: Stack, other: Stack) -> bool:
    """Whether the rows of one stack fit into the other."""
    if set(one.leaves) != set(other.leaves):
        return False
    return all(one.leaves[inside].form == other.leaves[inside].form for inside in one.leaves)


# names


def _nodes_by_name(columns: Columns, renamed: Renamed) -> dict[Name, int]:
    return {renamed.get(name, name): i for i, name in enumerate(columns.names)}


def _edges_by_name(columns: Columns, renamed: Renamed) -> dict[Name, int]:
    """Positions by ends and key: networkx's first key, 0, where edges have none."""
    found: dict[Name, int] = {}
    for i in range(len(columns.senders)):
        u, v, *key = edge_name(columns, i)
        found[renamed.get(u, u), renamed.get(v, v), *(key or [0])] = i
    return found


def _check_renamed(pieces: Mapping[str, Piece], old: Mapping[str, Piece], renamed: Any) -> Renamed:
    """New names by old ones; `ValueError` for nodes that are not there, or not before."""
    if renamed is None:
        return {}
    holds = "the names of nodes before to their names now"
    new = dict(checks.mapping("renamed", renamed, holds))
    for names, where, when in ((list(new), old, "before"), (list(new.values()), pieces, "now")):
        known = _known_names(where)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(
                f"`renamed` names {_text.names(unknown)}, which no topology has {when}; give names "
                "before and now, as in {'old': 'new'}"
            )
    stay = _known_names(old) - set(new)
    twice = repeated([*new.values(), *(stay & set(new.values()))])
    if twice:
        raise ValueError(
            f"`renamed` makes one node of several: {_text.names(twice)}; give every node a name of "
            "its own"
        )
    return new


def _known_names(pieces: Mapping[str, Piece]) -> set[Name]:
    found: set[Name] = set()
    looked_at: set[str] = set()
    for piece in pieces.values():
        if piece.wiring is not None and piece.wiring.digest not in looked_at:
            looked_at.add(piece.wiring.digest)
            found.update(piece.wiring.columns.names)
    return found
