"""Reverse edges of a topology: which edge each of them belongs to.

What an edge v -> u of a reverse kind sends is made of the parameters of an edge u -> v of another
kind, its *owner*. Edges of both kinds are sorted by their receivers, each in its own way: so a
reverse group takes the parameters of its owners, puts them into the order of its own edges and
turns the coupling around. From there on it is an edge group like any other, and its kernel is
chosen by its own wiring: nothing is slower the other way.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from darnax import _text
from darnax._arrays import on_device
from darnax.couplings.coupling import Coupling, per_edge, pick
from darnax.couplings.reverse import Transpose, reversed_coupling
from darnax.topologies.memory import remembered
from darnax.topologies.topology import Topology

Reverses: TypeAlias = tuple[tuple[str, str], ...]
"""Pairs of a reverse kind and the kind that has its parameters, sorted."""


class Part(eqx.Module):
    """The owners of some edges of a reverse group that are of one group.

    **Fields:**

    - `group`: the position of that group.
    - `rows`: which of its edges; None for all from `start` to `stop`.
    """

    group: int = eqx.field(static=True)
    rows: Int[Array, " edges"] | None
    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)

    @classmethod
    def of(cls, group: int, rows: np.ndarray) -> "Part":
        start, stop = int(rows[0]), int(rows[-1]) + 1
        # A range is a slice in the program, where a gather would copy the parameters.
        in_turn = np.array_equal(rows, np.arange(start, stop))
        return cls(
            group=group,
            rows=None if in_turn else on_device(rows, jnp.int32),
            start=start,
            stop=stop,
        )

    @property
    def count(self) -> int:
        """The number of edges."""
        return self.stop - self.start if self.rows is None else len(self.rows)

    def take(self, coupling: Coupling, tied: bool) -> Coupling:
        """The coupling of these edges, from that of all edges of the group."""
        if self.rows is None:
            return pick(coupling, tied, slice(self.start, self.stop))
        return pick(coupling, tied, self.rows)


class Owners(eqx.Module):
    """The edges that have the parameters of a reverse group.

    **Fields:**

    - `parts`: these edges, by their groups; those of several groups differ in their ties.
    - `place`: for each edge of the reverse group where it is among all parts; None for one part.
    - `linear`: whether the coupling is linear in the state of its sender; see `is_linear`.
    """

    parts: tuple[Part, ...]
    place: Int[Array, " edges"] | None
    linear: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        topology: Topology,
        edges: np.ndarray,
        linear: Callable[[int], bool],
    ) -> "Owners":
        """From the owner of every edge of a reverse group; `linear(i)` tells it of a group."""
        group_of, place_of = _places(topology)
        groups = np.unique(group_of[edges]).tolist()
        parts: list[Part] = []
        order: list[np.ndarray] = []
        for group in groups:
            mine = np.flatnonzero(group_of[edges] == group)
            order.append(mine)
            parts.append(Part.of(group, place_of[edges[mine]]))
        place = None
        if len(parts) > 1:
            place = on_device(np.argsort(np.concatenate(order)), jnp.int32)
        # They agree in kind, arrays and shapes, and so in what their coupling is.
        return cls(tuple(parts), place, linear(groups[0]))

    def tied(self, topology: Topology) -> bool:
        """Whether all edges share their parameters."""
        return self.place is None and self.uses_tie(topology)

    def uses_tie(self, topology: Topology) -> bool:
        """Whether the first of the groups of the owners has a tie."""
        return topology.groups[self.parts[0].group].tie is not None

    def coupling(
        self,
        topology: Topology,
        stacked: Callable[[int], Coupling],
    ) -> Coupling:
        """The coupling of the reverse edges; `stacked(i)` is that of the edges of group i."""
        taken: list[Coupling] = []
        for part in self.parts:
            tied = topology.groups[part.group].tie is not None
            own = part.take(stacked(part.group), tied)
            if self.place is not None:
                own = _written_out(own, tied, part.count)
            taken.append(own)
        whole = taken[0]
        if self.place is not None:
            arrays = [eqx.filter(own, eqx.is_array) for own in taken]
            joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[self.place], *arrays)
            whole = eqx.combine(joined, whole)
        return self.turned(topology, whole)

    def turned(self, topology: Topology, coupling: Coupling) -> Coupling:
        """A coupling of the owners turned around; it serves stacked ones as well."""
        owner = topology.groups[self.parts[0].group]
        return reversed_coupling(coupling, owner.sender_shape, self.linear)


def _written_out(coupling: Coupling, tied: bool, count: int) -> Coupling:
    """The coupling of `count` edges with parameters for each of them."""

    def of_leaf(own: bool, leaf: Array) -> Array:
        return leaf if own else jnp.broadcast_to(leaf, (count, *leaf.shape))

    arrays, static = eqx.partition(coupling, eqx.is_array)
    written = jax.tree.map(of_leaf, per_edge(arrays, tied), arrays)
    return eqx.combine(written, static)


def read_reverses(topology: Topology, factories: Mapping[str, object]) -> Reverses:
    """The reverse kinds among factories by edge kind, and the kinds that they are the reverse of.

    Raises `ValueError` for an owner that is not there, or has no parameters of its own.
    """
    reverses: dict[str, str] = {}
    for kind, factory in factories.items():
        if isinstance(factory, Transpose):
            reverses[kind] = factory.kind
    for kind, owner in reverses.items():
        where = f"`couplings[{kind!r}]` is the transpose of {owner!r}"
        if owner == kind:
            raise ValueError(
                f"{where}, of itself; name the kind of the edges that go the other way, or use "
                "`symmetric` within a node"
            )
        if owner not in factories:
            raise ValueError(
                f"{where}, which `couplings` lacks; the kinds are {_text.names(sorted(factories))}"
            )
        if owner in reverses:
            raise ValueError(
                f"{where}, which is a transpose itself, of {reverses[owner]!r}; give one of both "
                "parameters of its own, such as dx.dense()"
            )
    return tuple(sorted(reverses.items()))


@remembered
def owner_edges(topology: Topology, reverses: Reverses) -> np.ndarray:
    """For every edge the one whose parameters it uses, `(E,)`; most edges use their own.

    Raises `ValueError` that lists the edges of a reverse kind to which no edge belongs, or several.
    """
    owners = np.arange(len(topology.columns.senders))
    for kind, owner in reverses:
        mine, theirs = _edges_of(topology, kind), _edges_of(topology, owner)
        owners[mine] = _paired(topology, kind, owner, mine, theirs)
    return owners


def _edges_of(topology: Topology, kind: str) -> np.ndarray:
    """The edges of a kind."""
    columns = topology.columns
    of_kind = np.asarray([own == kind for own, _ in columns.edge_classes], bool)
    return np.flatnonzero(of_kind[columns.edge_class])


def _paired(
    topology: Topology,
    kind: str,
    owner: str,
    mine: np.ndarray,
    theirs: np.ndarray,
) -> np.ndarray:
    """For every edge of a reverse kind its owner among the edges of the other kind."""
    columns = topology.columns
    # Both ends are one number: equal ones are edges between the same nodes, one of both turned.
    senders, receivers = columns.senders.astype(np.int64), columns.receivers.astype(np.int64)
    turned = receivers[mine] * len(topology) + senders[mine]
    ends = senders[theirs] * len(topology) + receivers[theirs]
    by_ends = theirs[np.argsort(ends, kind="stable")]
    ends = np.sort(ends)
    first = np.searchsorted(ends, turned, "left")
    count = np.searchsorted(ends, turned, "right") - first
    _, inverse, twins = np.unique(turned, return_inverse=True, return_counts=True)
    alone = (count == 1) & (twins[inverse] == 1)

    owners = np.full(len(mine), -1)
    owners[alone] = by_ends[first[alone]]
    unclear: list[int] = []
    # Parallel edges are few: those on either side are told apart by their keys.
    for i in np.flatnonzero(~alone & (count > 0)).tolist():
        found: list[int] = []
        for edge in by_ends[first[i] : first[i] + count[i]].tolist():
            if topology.edge(edge)[2:] == topology.edge(int(mine[i]))[2:]:
                found.append(edge)
        if len(found) == 1:
            owners[i] = found[0]
        else:
            unclear.append(int(mine[i]))

    missing = mine[count == 0].tolist()
    where = f"`couplings[{kind!r}]` is the transpose of {owner!r}, but"
    if missing:
        raise ValueError(
            f"{where} no edge of kind {owner!r} goes the other way of "
            f"{_text.names(map(topology.edge, missing))}; draw one for each, or give these edges "
            "another kind"
        )
    if unclear:
        raise ValueError(
            f"{where} of several parallel edges it is not clear which one belongs to "
            f"{_text.names(map(topology.edge, unclear))}; give each edge the key of the one that "
            f"it reverses, as in graph.add_edge(v, u, key=..., kind={kind!r})"
        )
    return owners


@remembered
def _places(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
    """For every edge the group that it is of, and its place there."""
    count = len(topology.columns.senders)
    group_of, place_of = np.empty(count, np.int64), np.empty(count, np.int64)
    for i, group in enumerate(topology.groups):
        group_of[group.edges] = i
        place_of[group.edges] = np.arange(len(group.edges))
    return group_of, place_of
