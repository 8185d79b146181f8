"""Schedules: the order in which the units of a network are updated within one pass.

A pass is a sequence of *visits*. The units of one visit are updated together, from the state that
the visits before it left. Updating everything at once is a pass of one visit.

A schedule is plain data, equal by content, so that equal ones made anew share compiled programs. A
schedule of your own is a subclass of `Schedule`, or simply a function
`(topology, movable) -> visits`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from darnax import _text, checks
from darnax._lazy import Lazy
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")

Visits: TypeAlias = Sequence[Sequence[int] | np.ndarray]
"""The nodes of each visit, as positions in `topology.nodes`."""
VisitFunction: TypeAlias = Callable[[Topology, np.ndarray], Visits | None]
"""`(topology, movable) -> visits`, as `Schedule.visits`."""


class Schedule(ABC):
    """The order of updates in one pass.

    A subclass writes `visits`, and must be hashable and equal by content, as
    `dataclass(frozen=True)` makes it.

    - `by_unit`: whether a visit is taken apart into its cells, one after another in row-major
      order.
    - `share`: the share of the cells that move in a visit, drawn anew for every sample and pass;
      None for all of them. A schedule with a share needs a key.

    !!! example

        ```python
        from dataclasses import dataclass


        @dataclass(frozen=True)
        class Backwards(dx.Schedule):
            def visits(self, topology, movable):
                return [[i] for i in reversed(range(len(topology))) if movable[i]]


        state = dx.step(network, state, schedule=Backwards())
        ```
    """

    by_unit: ClassVar[bool] = False

    @property
    def share(self) -> float | None:
        """The share of the cells that move in a visit; None for all of them."""
        return None

    @abstractmethod
    def visits(self, topology: Topology, movable: np.ndarray) -> Visits | None:
        """The nodes of each visit, as positions in `topology.nodes`; None for all at once.

        `movable` tells which nodes can change in this call. Every one of them is visited once, and
        nodes that overlap in one visit: `relax` and the others refuse a schedule that breaks this.
        """


@dataclass(frozen=True)
class Synchronous(Schedule):
    """See `synchronous`."""

    def visits(self, topology: Topology, movable: np.ndarray) -> None:
        return None


@dataclass(frozen=True)
class Asynchronous(Schedule):
    """See `asynchronous`."""

    fraction: float

    @property
    def share(self) -> float:
        """The fraction."""
        return self.fraction

    def visits(self, topology: Topology, movable: np.ndarray) -> None:
        return None


@dataclass(frozen=True)
class NodeByNode(Schedule):
    """See `node_by_node`."""

    order: tuple[Hashable, ...] | None

    def visits(self, topology: Topology, movable: np.ndarray) -> Visits:
        return _block_by_block(topology, movable, self.order)


@dataclass(frozen=True)
class UnitByUnit(Schedule):
    """See `unit_by_unit`."""

    order: tuple[Hashable, ...] | None
    by_unit = True

    def visits(self, topology: Topology, movable: np.ndarray) -> Visits:
        return _block_by_block(topology, movable, self.order)


@dataclass(frozen=True)
class Groups(Schedule):
    """See `groups`."""

    members: tuple[tuple[Hashable, ...], ...]

    def visits(self, topology: Topology, movable: np.ndarray) -> Visits:
        return [topology.indices("schedule", group) for group in self.members]


@dataclass(frozen=True)
class Coloured(Schedule):
    """See `coloured`."""

    colours: tuple[tuple[Hashable, int], ...] | None

    def visits(self, topology: Topology, movable: np.ndarray) -> Visits:
        if self.colours is None:
            return _found_colours(topology, movable)
        return _given_colours(topology, movable, dict(self.colours))


@dataclass(frozen=True)
class OfFunction(Schedule):
    """A function of the user as a schedule."""

    function: VisitFunction

    @checks.by_hand  # what it gives is checked by `checked_visits`
    def visits(self, topology: Topology, movable: np.ndarray) -> Visits | None:
        return self.function(topology, movable)


ScheduleLike: TypeAlias = Schedule | VisitFunction
"""What a call takes as its schedule."""


@checks.by_hand
def as_schedule(schedule: ScheduleLike) -> Schedule:
    """A schedule, or a function `(topology, movable) -> visits` as one."""
    if isinstance(schedule, Schedule):
        _check_hashable(schedule)
        return schedule
    checks.called("schedule", schedule)
    holds = "a schedule such as dx.synchronous(), or a function (topology, movable) -> visits"
    if not callable(schedule) or isinstance(schedule, type):
        checks.refuse("schedule", holds, schedule, "give one")
    checks.takes("schedule", schedule, 2, "(topology, movable)")
    return OfFunction(schedule)


def _check_hashable(schedule: Schedule) -> None:
    """Programs are kept by schedule, so that it must be equal by content."""
    try:
        hash(schedule)
    except TypeError:
        holds = "equal by content and hashable"
        advice = "freeze it, as dataclass(frozen=True) does"
        checks.refuse("schedule", holds, schedule, advice)


def checked_visits(
    topology: Topology,
    schedule: Schedule,
    movable: np.ndarray,
) -> list[np.ndarray] | None:
    """The visits of a schedule as arrays of positions; None for all at once.

    Raises `ValueError` if a node that can change is left out, one is visited twice, or nodes that
    overlap are visited apart, since a cell is updated once a pass.
    """
    given = schedule.visits(topology, movable)
    if given is None:
        return None
    holds = "a schedule of visits, each a list of positions in topology.nodes"
    advice = "give such a list, or None for all at once"
    entries = checks.entries("schedule", given, holds, advice)
    visits = [_positions(topology, visit) for visit in entries]
    # with an empty one, since NumPy does not join nothing
    nodes = np.concatenate([*visits, np.zeros(0, np.int64)])
    _check_complete(topology, movable, nodes)
    _check_blocks(topology, visits)
    return visits


def _positions(topology: Topology, visit: object) -> np.ndarray:
    """The nodes of a visit as an array."""
    advice = "give positions in topology.nodes, as topology.index(node) finds them"
    if isinstance(visit, np.ndarray):
        nodes = visit
    else:
        holds = "a list of visits, each a list of positions"
        entries = checks.entries("schedule", visit, holds, advice)
        # an empty list would be an array of floats
        nodes = np.asarray(entries or np.zeros(0, np.int64))
    whole = nodes.ndim == 1 and nodes.dtype.kind in "iu"
    if not whole or (nodes < 0).any() or (nodes >= len(topology)).any():
        holds = f"visits to positions from 0 to {len(topology) - 1}"
        checks.refuse("schedule", holds, visit, advice, ValueError)
    return nodes.astype(np.int64)


def _check_complete(
    topology: Topology,
    movable: np.ndarray,
    nodes: np.ndarray,
) -> None:
    """Every node that can change is named, and none twice."""
    count = np.bincount(nodes, minlength=len(topology))
    repeated = np.flatnonzero(count > 1)
    if len(repeated):
        raise ValueError(
            f"`schedule` repeats nodes {topology.named(repeated.tolist())}; name each once"
        )
    missing = np.flatnonzero(movable & (count == 0))
    if len(missing):
        raise ValueError(
            f"`schedule` leaves out nodes {topology.named(missing.tolist())}, which can change in "
            "this call; name every one of them"
        )


def _check_blocks(topology: Topology, visits: list[np.ndarray]) -> None:
    """Nodes that overlap are visited together; those that cannot change may be left out."""
    # -1 for nodes that are not visited
    visit_of = np.full(len(topology), -1)
    for i, nodes in enumerate(visits):
        visit_of[nodes] = i
    for block in topology.layout.overlaps:
        visits_of_block = set(visit_of[block].tolist()) - {-1}
        if len(visits_of_block) > 1:
            raise ValueError(
                f"`schedule` splits a block: nodes {topology.named(block.tolist())} overlap on "
                "a shared array, so put all of them in one group"
            )


def block_of(topology: Topology) -> np.ndarray:
    """For every node a number that it shares with the nodes it overlaps: the first of them."""
    block = np.arange(len(topology))
    for members in topology.layout.overlaps:
        block[members] = members[0]
    return block


def _block_by_block(
    topology: Topology,
    movable: np.ndarray,
    order: tuple[Hashable, ...] | None,
) -> list[np.ndarray]:
    """The blocks of overlapping nodes, in the order of the first node of each."""
    nodes = np.flatnonzero(movable)
    if order is not None:
        nodes = np.asarray(topology.indices("schedule", order), np.int64)
        _check_complete(topology, movable, nodes)
    if not topology.layout.overlaps:
        return list(nodes[:, None])
    # A block is visited when the first of its nodes is due, with all of its nodes.
    blocks = block_of(topology)[nodes]
    _, first = np.unique(blocks, return_index=True)
    members = {int(nodes[0]): nodes for nodes in topology.layout.overlaps}
    visits: list[np.ndarray] = []
    for block in blocks[np.sort(first)].tolist():
        visits.append(members.get(block, np.asarray([block])))
    return visits


def _found_colours(topology: Topology, movable: np.ndarray) -> list[np.ndarray]:
    """The nodes of each colour, of a colouring with few."""
    # Blocks are coloured, not nodes, since they are visited as a whole. Edges inside of a block do
    # not count, nor those from or to a node that cannot change.
    block, columns = block_of(topology), topology.columns
    senders, receivers = columns.senders, columns.receivers
    ends = np.stack([block[senders], block[receivers]], axis=1)
    both_move = movable[senders] & movable[receivers]
    between_blocks = ends[:, 0] != ends[:, 1]
    ends = ends[both_move & between_blocks]
    colour = _two_colours(ends, len(block))
    if colour is None:
        found = nx.greedy_color(nx.Graph(ends.tolist()), strategy="largest_first")
        # blocks without such edges go with the first colour
        colour = np.zeros(len(block), np.int64)
        for number, its_colour in found.items():
            colour[number] = its_colour
    colour = colour[block]
    count = int(colour[movable].max(initial=-1)) + 1
    return [np.flatnonzero(movable & (colour == c)) for c in range(count)]


def _given_colours(
    topology: Topology,
    movable: np.ndarray,
    colours: Mapping[Hashable, int],
) -> list[np.ndarray]:
    """The nodes of each colour, after a look that no edge joins two of one colour."""
    nodes = np.asarray(topology.indices("schedule", colours), np.int64)
    colour = np.full(len(topology), -1)
    given = list(colours.values())
    values, colour[nodes] = np.unique(given, return_inverse=True)
    block, columns = block_of(topology), topology.columns
    u, v = columns.senders, columns.receivers
    both_move = movable[u] & movable[v]
    clash = both_move & (colour[u] >= 0) & (colour[u] == colour[v])
    # nodes that overlap are visited together, and send to each other from one snapshot
    edges = np.flatnonzero(clash & (block[u] != block[v])).tolist()
    if edges:
        raise ValueError(
            f"`schedule` gives both ends of edges {_text.names(map(topology.edge, edges))} one "
            "colour; choose different ones"
        )
    return [nodes[colour[nodes] == c] for c in range(len(values))]


def _two_colours(ends: np.ndarray, count: int) -> np.ndarray | None:
    """Two colours of `count` nodes such that no edge joins two of one; None if two are too few.

    The colour is the distance from the first node of the component, even or odd.
    """
    # imported here: SciPy's graph routines take long to import, and few calls need them
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, dijkstra

    # before SciPy 1.15 the searches took positions of 32 bits alone
    ends = ends.astype(np.int32)
    edges = coo_array((np.ones(len(ends), bool), tuple(ends.T)), (count, count))
    _, component = connected_components(edges, directed=False)
    _, firsts = np.unique(component, return_index=True)
    # one more node, joined to the first of every component, reaches all of them in one search
    roots = np.stack([np.full(len(firsts), count), firsts], axis=1).astype(np.int32)
    rooted = np.concatenate([ends, roots])
    weights = np.ones(len(rooted))
    edges = coo_array((weights, tuple(rooted.T)), (count + 1, count + 1))
    depth = dijkstra(
        edges.tocsr(),
        directed=False,
        unweighted=True,
        indices=count,
    )
    # The extra node comes last, and the first of every component is one step away from it.
    colour = (depth[:-1].astype(np.int64) + 1) % 2
    alike = colour[ends[:, 0]] == colour[ends[:, 1]]
    return None if alike.any() else colour


def synchronous() -> Synchronous:
    """All units at once, from the same snapshot; a pass costs one message along every edge.

    Symmetric couplings then end at a fixed point or in a cycle of two (Goles and Olivos, Discrete
    Math. 30, 187, 1980).
    """
    return Synchronous()


@checks.by_hand
def asynchronous(fraction: float | int) -> Asynchronous:
    """A random share of the cells in each pass, drawn anew for every sample; it needs a key.

    Raises `ValueError` for a fraction outside (0, 1].
    """
    return Asynchronous(checks.number("fraction", fraction, above=0, most=1))


@checks.by_hand
def node_by_node(order: Iterable[Name] | None = None) -> NodeByNode:
    """One node after another, each from the state that those before it left.

    Nodes are visited in the order of drawing, or in `order`. Nodes whose views overlap form one
    block and are visited together.
    """
    return NodeByNode(None if order is None else checks.names("order", order))


@checks.by_hand
def unit_by_unit(order: Iterable[Name] | None = None) -> UnitByUnit:
    """One cell after another, inside nodes too: what physics calls asynchronous.

    With symmetric couplings and no negative self-coupling no update of a sign unit raises the
    energy, so that a network always settles (Hopfield, PNAS 79, 2554, 1982). Nodes in the order of
    drawing or in `order`, their cells in row-major order.
    """
    return UnitByUnit(None if order is None else checks.names("order", order))


@checks.by_hand
def groups(members: Iterable[Iterable[Name]]) -> Groups:
    """Group after group of nodes; the members of a group update together.

    Every node that can change is named once.
    """
    given = checks.several("members", members, "a sequence of groups of names")
    groups: list[tuple[Name, ...]] = []
    for i, group in enumerate(given):
        groups.append(checks.names(f"members[{i}]", group))
    return Groups(tuple(groups))


@checks.by_hand
def coloured(colours: Mapping[Name, int] | None = None) -> Coloured:
    """Groups of nodes that send nothing to each other.

    They are two where two are enough, else those of a greedy colouring; `colours` gives them by
    name instead. Updating a colour at once equals updating its nodes one by one. Raises
    `ValueError` in a call if `colours` gives both ends of an edge one colour, or leaves out a node
    that can change.
    """
    if colours is None:
        return Coloured(None)
    given = checks.mapping("colours", colours, "nodes to the numbers of their colours")
    # as pairs, since a dict has no hash
    pairs: list[tuple[Name, int]] = []
    for node, colour in given.items():
        pairs.append((node, checks.count(f"colours[{node!r}]", colour)))
    return Coloured(tuple(pairs))
