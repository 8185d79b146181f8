"""Schedules: in which order the units of a network are updated within one pass.

A schedule says which nodes are visited together, one visit after another; every visit reads the
state that the visits before it left. Nodes whose views overlap form one block and are visited
together. Schedules are plain data, equal by content, so that freshly built equal ones compile once.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from darnax import _text, checks
from darnax._lazy import Lazy
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")


class Schedule(ABC):
    """The order of updates in one pass."""

    @abstractmethod
    def visits(self, topology: Topology, movable: np.ndarray) -> list[np.ndarray] | None:
        """The nodes of every visit, as positions; None where everything is visited at once.

        `movable` says which nodes can change in this call. Raises `ValueError` if one of them is
        left out.
        """


@dataclass(frozen=True)
class Synchronous(Schedule):
    """See `synchronous`."""

    def visits(self, topology: Topology, movable: np.ndarray) -> None:
        """Everything at once."""
        return


@dataclass(frozen=True)
class Asynchronous(Schedule):
    """See `asynchronous`."""

    fraction: float

    def visits(self, topology: Topology, movable: np.ndarray) -> None:
        """Everything at once, of which a random share moves."""
        return


@dataclass(frozen=True)
class NodeByNode(Schedule):
    """See `node_by_node`."""

    order: tuple[Hashable, ...] | None

    def visits(self, topology: Topology, movable: np.ndarray) -> list[np.ndarray]:
        """One block a visit."""
        return one_by_one(topology, movable, self.order)


@dataclass(frozen=True)
class UnitByUnit(Schedule):
    """See `unit_by_unit`."""

    order: tuple[Hashable, ...] | None

    def visits(self, topology: Topology, movable: np.ndarray) -> list[np.ndarray]:
        """One block a visit, which the sweep takes apart into its cells."""
        return one_by_one(topology, movable, self.order)


@dataclass(frozen=True)
class Groups(Schedule):
    """See `groups`."""

    members: tuple[tuple[Hashable, ...], ...]

    def visits(self, topology: Topology, movable: np.ndarray) -> list[np.ndarray]:
        """One group a visit."""
        ids = [np.asarray(topology.indices("schedule", group), np.int64) for group in self.members]
        check_complete(topology, movable, np.concatenate([*ids, np.zeros(0, np.int64)]))
        place = dict(
            zip(
                np.concatenate(ids).tolist(),
                np.repeat(np.arange(len(ids)), list(map(len, ids))),
                strict=True,
            )
        )
        for block in topology.layout.overlaps:
            parts = {place[at] for at in block.tolist() if at in place}
            if len(parts) > 1 or (parts and not all(at in place for at in block.tolist())):
                raise ValueError(
                    f"`schedule` splits a block: nodes {topology.named(block.tolist())} overlap on "
                    "a shared array, so put all of them in one group"
                )
        return ids


@dataclass(frozen=True)
class Coloured(Schedule):
    """See `coloured`."""

    colours: tuple[tuple[Hashable, int], ...] | None

    def visits(self, topology: Topology, movable: np.ndarray) -> list[np.ndarray]:
        """One colour a visit."""
        block = block_of(topology)
        columns = topology.columns
        ends = np.stack([block[columns.senders], block[columns.receivers]], axis=1)
        ends = ends[
            movable[columns.senders] & movable[columns.receivers] & (ends[:, 0] != ends[:, 1])
        ]
        if self.colours is None:
            colour = two_colours(ends, len(block))
            if colour is None:
                colouring = nx.greedy_color(nx.Graph(ends.tolist()), strategy="largest_first")
                colour = np.asarray([colouring.get(b, 0) for b in range(len(block))])
            colour = colour[block]
            return [
                np.flatnonzero(movable & (colour == c))
                for c in range(colour[movable].max(initial=-1) + 1)
            ]
        given = dict(
            zip(
                topology.indices("schedule", [node for node, _ in self.colours]),
                [c for _, c in self.colours],
                strict=True,
            )
        )
        clash = [
            topology.edge(i)
            for i, (u, v) in enumerate(
                zip(columns.senders.tolist(), columns.receivers.tolist(), strict=True)
            )
            if u != v
            and movable[u]
            and movable[v]
            and u in given
            and given.get(u) == given.get(v)
            and block[u] != block[v]
        ]
        if clash:
            raise ValueError(
                f"`schedule` gives both ends of edges {_text.names(clash)} one colour; choose "
                "different ones"
            )
        names = topology.nodes
        used = sorted(set(given.values()))
        return Groups(
            tuple(tuple(names[at] for at, c in given.items() if c == u) for u in used)
        ).visits(topology, movable)


def two_colours(ends: np.ndarray, count: int) -> np.ndarray | None:
    """A colour for each of so many nodes such that no edge joins two of one colour; None where two
    are too few.

    It is how far a node is from one of its component, even or odd.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, dijkstra

    edges = coo_array((np.ones(len(ends), bool), tuple(ends.T)), (count, count))
    _, component = connected_components(edges, directed=False)
    _, firsts = np.unique(component, return_index=True)
    rooted = np.concatenate([ends, np.stack([np.full(len(firsts), count), firsts], axis=1)])
    edges = coo_array((np.ones(len(rooted)), tuple(rooted.T)), (count + 1, count + 1))
    depth = dijkstra(edges.tocsr(), directed=False, unweighted=True, indices=count)
    colour = (depth[:-1].astype(np.int64) + 1) % 2
    return None if (colour[ends[:, 0]] == colour[ends[:, 1]]).any() else colour


def block_of(topology: Topology) -> np.ndarray:
    """For every node a number that it shares with the nodes it overlaps."""
    block = np.arange(len(topology))
    for members in topology.layout.overlaps:
        block[members] = members[0]
    return block


def one_by_one(
    topology: Topology, movable: np.ndarray, order: tuple[Hashable, ...] | None
) -> list[np.ndarray]:
    """The blocks in the order of their first node."""
    ids = np.flatnonzero(movable)
    if order is not None:
        ids = np.asarray(topology.indices("schedule", order), np.int64)
        check_complete(topology, movable, ids)
    if not topology.layout.overlaps:
        return list(ids[:, None])
    block = block_of(topology)
    members = {int(nodes[0]): nodes for nodes in topology.layout.overlaps}
    _, first = np.unique(block[ids], return_index=True)
    return [members.get(int(b), np.asarray([b])) for b in block[ids][np.sort(first)]]


def check_complete(topology: Topology, movable: np.ndarray, ids: np.ndarray):
    """Every node that can change is named, and none twice."""
    count = np.bincount(ids, minlength=len(topology))
    repeated, missing = np.flatnonzero(count > 1), np.flatnonzero(movable & (count == 0))
    if len(repeated):
        raise ValueError(
            f"`schedule` repeats nodes {topology.named(repeated.tolist())}; name each once"
        )
    if len(missing):
        raise ValueError(
            f"`schedule` leaves out nodes {topology.named(missing.tolist())}, which can change in "
            "this call; name every one of them"
        )


def synchronous() -> Synchronous:
    """All units at once, from the same snapshot; one pass costs one message along every edge.

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
def node_by_node(order: Iterable[Hashable] | None = None) -> NodeByNode:
    """One node after another, each seeing those before it; in the order of drawing, or in
    `order`.
    """
    return NodeByNode(None if order is None else checks.names("order", order))


@checks.by_hand
def unit_by_unit(order: Iterable[Hashable] | None = None) -> UnitByUnit:
    """One cell after another, inside nodes too: what physics calls asynchronous.

    With symmetric couplings and no negative self-coupling no update of a sign unit raises the
    energy, so that a network always settles (Hopfield, PNAS 79, 2554, 1982). Nodes in the order of
    drawing or in `order`, their cells in row-major order.
    """
    return UnitByUnit(None if order is None else checks.names("order", order))


@checks.by_hand
def groups(members: Iterable[Iterable[Hashable]]) -> Groups:
    """Group after group of nodes; the members of a group update together. Every node that can
    change is named once.
    """
    groups = checks.several("members", members, "a sequence of groups of names")
    return Groups(tuple(checks.names(f"members[{i}]", group) for i, group in enumerate(groups)))


@checks.by_hand
def coloured(colours: Mapping[Hashable, int] | None = None) -> Coloured:
    """Groups of nodes that send nothing to each other: two where two are enough, else those of a
    greedy colouring.

    `colours` gives them by name instead. Updating a colour at once then equals updating its nodes
    one by one. Raises `ValueError` in a call if `colours` gives both ends of an edge one colour, or
    leaves out a node that can change.
    """
    if colours is None:
        return Coloured(None)
    given = checks.mapping("colours", colours, "nodes to the numbers of their colours")
    return Coloured(
        tuple((node, checks.count(f"colours[{node!r}]", colour)) for node, colour in given.items())
    )
