"""Visits: the parts of a pass, each a set of rows that are updated together from one snapshot.

Two forms of visit serve all schedules, and one `update` serves both.

- `RangeVisit` covers a range of rows of each array, and all edges that end there. Its addresses are
  static, so that nothing is gathered and whole groups run by their kernels. Everything at once is
  one such visit; a few colours are a few, each with a mask.
- `ListedVisit` lists its rows and the edges that end at them, and costs what it touches. A pass of
  many visits is a `Sweep`: columns of rows and edges of which a scan makes visit after visit, so
  that compile time does not grow with the number of nodes.
"""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

from darnax.couplings.coupling import pick
from darnax.dynamics.unit_sweep import answer_one_by_one
from darnax.network.message_passing import MessagePassing, Rows, fitted
from darnax.network.network import Network
from darnax.network.units import Answer
from darnax.topologies.topology import Topology

Changes = dict[str, tuple[Any, Shaped[Array, "..."]]]
"""The rows of each array that a visit changed, and their new states."""


class Range(eqx.Module):
    """Neighbouring rows of an array, known when a program is compiled."""

    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)

    def take(self, rows: Shaped[Array, "rows ..."]) -> Shaped[Array, "some ..."]:
        """These rows of all."""
        return rows[self.start : self.stop]

    def put(
        self, rows: Shaped[Array, "rows ..."], new: Shaped[Array, "some ..."]
    ) -> Shaped[Array, "rows ..."]:
        """All rows, with these replaced."""
        return new if len(new) == len(rows) else rows.at[self.start : self.stop].set(new)


class Listed(eqx.Module):
    """Rows of an array by position.

    A position that is out of range fills a visit up, and is not written.
    """

    positions: Int[Array, " some"]

    def take(self, rows: Shaped[Array, "rows ..."]) -> Shaped[Array, "some ..."]:
        """These rows of all."""
        return rows[self.positions]

    def put(
        self, rows: Shaped[Array, "rows ..."], new: Shaped[Array, "some ..."]
    ) -> Shaped[Array, "rows ..."]:
        """All rows, with these replaced."""
        return rows.at[self.positions].set(new, mode="drop")


class Entries(eqx.Module):
    """Some edges of a group, and the place of everything that they send among a visit's rows.

    **Fields:**

    - `edges`: positions in the group, or None for its one edge.
    - `real`: which of them are no filling.
    - `slots`: the row of the visit that each cell of a message lands on, `(E, cells)`; out of range
      where it lands on none.
    """

    edges: Int[Array, " some"] | None
    real: Bool[Array, " some"]
    slots: UInt32[Array, "some cells"]


class Visit(eqx.Module):
    """Rows that are updated together.

    **Fields:**

    - `rows`: for every array that takes part, which of its rows.
    - `members`: for each of these arrays, which of the rows are visited; None for all.
    """

    rows: eqx.AbstractVar[dict[str, Any]]
    members: eqx.AbstractVar[dict[str, Bool[Array, " some"] | None]]

    @abc.abstractmethod
    def add_messages(
        self,
        total: Float[Array, "some *item batch"],
        passing: MessagePassing,
        ready: Any,
        arrays: Rows,
        active: Bool[Array, " edges"] | None,
        keys: Any,
    ) -> Float[Array, "some *item batch"]:
        """A field of the visited rows, with the messages of a group added."""

    def answer(
        self,
        network: Network,
        ready: dict[int, Any],
        array: str,
        old: Shaped[Array, "some *item batch"],
        field: Float[Array, "some *item batch"],
        free: Bool[Array, "..."] | None,
        keys: Any,
    ) -> Answer:
        """The answers of the visited rows of an array to their fields."""
        return network.units[array].answer(network.activations, self.rows[array], old, field, keys)

    def chosen_cell(self, array: str, old: Array) -> Bool[Array, "some *item 1"] | None:
        """The cells of the visited rows that are updated; None for all of them."""
        return None


class RangeVisit(Visit):
    """A visit of ranges of rows, and of all edges that end there."""

    rows: dict[str, Range]
    members: dict[str, Bool[Array, " some"] | None]

    def add_messages(self, total, passing, ready, arrays, active, keys):
        rows = self.rows[passing.group.receiver.name]
        field = passing.field(ready, arrays, active, keys)
        return total + fitted(field, passing.start, rows.start, rows.stop)


class ListedVisit(Visit):
    """A visit of listed rows, and of the edges that end at them.

    **Fields:**

    - `entries`: for every group of which edges end at the rows, these edges.
    - `cell`: the one cell of the rows that is updated, in row-major order; None for all of them.
    - `stepped`: arrays of which the visit updates all cells of its row, one after another.
    """

    rows: dict[str, Listed]
    members: dict[str, Bool[Array, " some"] | None]
    entries: dict[int, Entries]
    cell: Int[Array, ""] | None
    stepped: frozenset[str] = eqx.field(static=True)

    def add_messages(self, total, passing, ready, arrays, active, keys):
        entries = self.entries.get(passing.position)
        if entries is None:
            return total
        edges = entries.edges
        coupling = ready if edges is None else pick(ready, passing.tied, edges)
        messages = passing.send(coupling, passing.gather(arrays, keys, edges))
        messages = messages.reshape(entries.slots.size, *total.shape[1:])
        return total.at[entries.slots.ravel()].add(messages, mode="drop")

    def answer(self, network, ready, array, old, field, free, keys):
        if array not in self.stepped:
            return super().answer(network, ready, array, old, field, free, keys)
        units, loops = network.units[array], []
        for i, entries in self.entries.items():
            group = network.topology.groups[i]
            if group.self_loop and group.receiver.name == array:
                loops += _loops(ready[i], group.tie is not None, entries)
        (kind,) = units.kinds
        ids, activation = self.rows[array].take(units.ids), network.activations[kind]
        return answer_one_by_one(kind, activation, ids, old, field, loops, free, keys)

    def chosen_cell(self, array, old):
        if self.cell is None or array in self.stepped:
            return None
        cells = jnp.arange(math.prod(old.shape[:-1])).reshape(*old.shape[:-1], 1)
        return cells == self.cell


def _loops(coupling: Any, tied: bool, entries: Entries) -> list[tuple[Array, Array]]:
    """The matrices of self-loops, and whether each of them sends in this visit."""
    edges = [0] if entries.edges is None else list(entries.edges)
    matrices = [pick(coupling, tied, edge).matrix() for edge in edges]
    return list(zip(matrices, entries.real, strict=True))


class InTurn(eqx.Module):
    """A pass of a few visits, each a part of the program."""

    lists_edges: ClassVar[bool] = False
    visits: tuple[RangeVisit, ...]

    def run(self, update: Callable[..., Any], arrays: Rows, residual: Any) -> tuple[Rows, Any]:
        """The arrays after the pass; `update(arrays, residual, visit)` makes one visit."""
        for visit in self.visits:
            changes, residual = update(arrays, residual, visit)
            arrays = written(arrays, changes)
        return arrays, residual


def written(arrays: Rows, changes: Changes) -> Rows:
    """The arrays after a visit."""
    return arrays | {name: rows.put(arrays[name], new) for name, (rows, new) in changes.items()}


class Column(eqx.Module):
    """Concatenated lists of positions; visit v reads the `count[v]` ones from `offset[v]` on."""

    positions: Int[Array, " total"]
    offset: Int[Array, " visits"]
    count: Int[Array, " visits"]

    def read(self, visit: Array, size: int) -> tuple[Int[Array, " size"], Bool[Array, " size"]]:
        """The positions of a visit, filled up to `size`, and which of them are no filling."""
        positions = jax.lax.dynamic_slice(self.positions, (self.offset[visit],), (size,))
        return positions, jnp.arange(size) < self.count[visit]


class Sizes(eqx.Module):
    """How many entries visits of one size have: rows by array, edges by group. None is zero."""

    rows: tuple[tuple[str, int], ...] = eqx.field(static=True)
    edges: tuple[tuple[int, int], ...] = eqx.field(static=True)


class Sweep(eqx.Module):
    """The many visits of a pass as columns, of which a scan makes visit after visit.

    Lists are ragged and not padded to the longest: a hub of degree d among n visits would cost
    n * d. Visits are rounded up to a few sizes, each a compiled branch; what is filled up lies out
    of range. A branch gives back rows and new states, and the arrays are written outside of it: a
    branch that gave back arrays would copy them.

    **Fields:**

    - `rows`: for every array the visited rows, in the order of visits.
    - `edges`: for every group the edges that end at them.
    - `places`: for every group the place, among all visited rows, that each cell of a message lands
      on, `(E, cells)`. Less the offset of a visit it is the row of this visit.
    - `cell`: where cells are visited one by one, which cell of its rows each visit updates.
    - `size_of`: which of the `sizes` each visit needs.
    - `stepped`: arrays of which a visit updates all cells of its row, one after another.
    """

    lists_edges: ClassVar[bool] = True
    topology: Topology
    rows: dict[str, Column]
    edges: dict[int, Column]
    places: dict[int, Int[Array, "edges cells"]]
    cell: Int[Array, " visits"] | None
    size_of: Int[Array, " visits"]
    sizes: tuple[Sizes, ...]
    stepped: frozenset[str] = eqx.field(static=True)

    def visit(self, number: Array, sizes: Sizes, arrays: Rows) -> ListedVisit:
        """The visit of a number, which has one of the `sizes`."""
        rows, members, entries = {}, {}, {}
        for name, size in sizes.rows:
            positions, real = self.rows[name].read(number, size)
            rows[name] = Listed(jnp.where(real, positions, len(arrays[name])))
            members[name] = real
        for i, size in sizes.edges:
            edges, real = self.edges[i].read(number, size)
            name = self.topology.groups[i].receiver.name
            places = self.places[i][edges] - self.rows[name].offset[number]
            # unsigned, a place before this visit is far out of range, and not counted from the end
            slots = jnp.where(real[:, None], places, -1).astype(jnp.uint32)
            alone = len(self.places[i]) == 1
            entries[i] = Entries(None if alone else edges, real, slots)
        cell = None if self.cell is None else self.cell[number]
        return ListedVisit(rows, members, entries, cell, self.stepped)

    def run(self, update: Callable[..., Any], arrays: Rows, residual: Any) -> tuple[Rows, Any]:
        """The arrays after the pass; `update(arrays, residual, visit)` makes one visit."""
        moving = {name: arrays[name] for name in self.rows}
        largest = {name: max(dict(s.rows).get(name, 0) for s in self.sizes) for name in self.rows}

        def branch(sizes: Sizes) -> Callable[..., Any]:
            def run(moving: Rows, residual: Any, number: Array) -> tuple[Changes, Any]:
                visit = self.visit(number, sizes, moving)
                changes, residual = update(arrays | moving, residual, visit)
                return _filled_up(changes, moving, largest), residual

            return run

        branches = [branch(sizes) for sizes in self.sizes]

        def body(carry: tuple[Rows, Any], number: Array) -> tuple[tuple[Rows, Any], None]:
            if len(branches) == 1:
                changes, residual = branches[0](*carry, number)
            else:
                changes, residual = jax.lax.switch(self.size_of[number], branches, *carry, number)
            return (written(carry[0], changes), residual), None

        numbers = jnp.arange(len(self.size_of))
        (moving, residual), _ = jax.lax.scan(body, (moving, residual), numbers)
        return arrays | moving, residual


def _filled_up(changes: Changes, arrays: Rows, sizes: dict[str, int]) -> Changes:
    """Changes of so many rows of every array, as all branches must give them back."""
    result: Changes = {}
    for name, size in sizes.items():
        array = arrays[name]
        positions = jnp.full(size, len(array))
        values = jnp.zeros_like(array, shape=(size, *array.shape[1:]))
        if name in changes:
            rows, new = changes[name]
            positions = positions.at[: len(new)].set(rows.positions)
            values = values.at[: len(new)].set(new)
        result[name] = Listed(positions), values
    return result
