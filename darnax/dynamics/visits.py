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
from typing import ClassVar, Generic, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from darnax.couplings.coupling import pick
from darnax.dynamics.unit_sweep import Loops
from darnax.network.message_passing import MessagePassing, Ready, Rows, fitted
from darnax.network.network import Network
from darnax.network.selection import Listed, Range, Selection
from darnax.topologies.topology import Topology

Keys: TypeAlias = Key[Array, " batch"] | None
"""One key a sample; None where nothing is random."""
Residual: TypeAlias = Float[Array, " batch"] | None
"""The largest change of every sample so far; None where nobody asks for it."""


Selected = TypeVar("Selected", Range, Listed)
Changes: TypeAlias = dict[str, tuple[Selection, Shaped[Array, "..."]]]
"""The rows of each array that a visit changed, and their new states."""


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


class Visit(eqx.Module, Generic[Selected]):
    """Rows that are updated together.

    **Fields:**

    - `rows`: for every array that takes part, which of its rows.
    - `members`: for each of these arrays, which of the rows are visited; None for all.
    - `stepped`: arrays of which the visit updates all cells of its row, one after another.
    """

    rows: eqx.AbstractVar[dict[str, Selected]]
    members: eqx.AbstractVar[dict[str, Bool[Array, " some"] | None]]
    stepped: eqx.AbstractVar[frozenset[str]]

    @abc.abstractmethod
    def add_messages(
        self,
        total: Float[Array, "some *item batch"],
        passing: MessagePassing,
        ready: Ready,
        arrays: Rows,
        active: Bool[Array, " edges"] | None,
        keys: Keys,
    ) -> Float[Array, "some *item batch"]:
        """A field of the visited rows, with the messages of a group added."""

    def loops(
        self,
        network: Network,
        ready: dict[int, Ready],
        array: str,
    ) -> Loops:
        """The matrices by which units of the visited row of a stepped array send to each other."""
        return []

    def chosen_cell(
        self,
        array: str,
        old: Shaped[Array, "some *item batch"],
    ) -> Bool[Array, "some *item 1"] | None:
        """The cells of the visited rows that are updated; None for all of them."""
        return None


class RangeVisit(Visit[Range]):
    """A visit of ranges of rows, and of all edges that end there."""

    rows: dict[str, Range]
    members: dict[str, Bool[Array, " some"] | None]

    stepped: frozenset[str] = eqx.field(static=True, default=frozenset())

    def add_messages(
        self,
        total: Float[Array, "some *item batch"],
        passing: MessagePassing,
        ready: Ready,
        arrays: Rows,
        active: Bool[Array, " edges"] | None,
        keys: Keys,
    ) -> Float[Array, "some *item batch"]:
        rows = self.rows[passing.group.receiver.name]
        # All edges of the group at once, by its kernel. Their field spans the rows that they end
        # at, and is cut or padded with zeros to those of the visit.
        field = passing.field(ready, arrays, active, keys)
        return total + fitted(field, passing.start, rows.start, rows.stop)


class ListedVisit(Visit[Listed]):
    """A visit of listed rows, and of the edges that end at them.

    **Fields:**

    - `entries`: for every group of which edges end at the rows, these edges.
    - `cell`: the one cell of the rows that is updated, in row-major order; None for all of them.
    """

    rows: dict[str, Listed]
    members: dict[str, Bool[Array, " some"] | None]
    entries: dict[int, Entries]
    cell: Int[Array, ""] | None
    stepped: frozenset[str] = eqx.field(static=True)

    def add_messages(
        self,
        total: Float[Array, "some *item batch"],
        passing: MessagePassing,
        ready: Ready,
        arrays: Rows,
        active: Bool[Array, " edges"] | None,
        keys: Keys,
    ) -> Float[Array, "some *item batch"]:
        entries = self.entries.get(passing.position)
        if entries is None:
            return total
        edges = entries.edges
        coupling = ready if edges is None else pick(ready, passing.tied, edges)
        messages = passing.send(coupling, passing.gather(arrays, keys, edges))
        # One row for every cell of every message. Edges that do not send are not listed, so that
        # `active` is not asked, and those that fill the visit up land out of range.
        cells = messages.reshape(entries.slots.size, *total.shape[1:])
        return total.at[entries.slots.ravel()].add(cells, mode="drop")

    def loops(
        self,
        network: Network,
        ready: dict[int, Ready],
        array: str,
    ) -> Loops:
        found: list[tuple[Array, Array]] = []
        for i, entries in self.entries.items():
            group = network.topology.groups[i]
            if not group.self_loop or group.receiver.name != array:
                continue
            # one node is visited, so that these are its parallel self-loops: few
            edges = [0] if entries.edges is None else list(entries.edges)
            tied = network.message_passing[i].tied
            matrices = [pick(ready[i], tied, edge).matrix() for edge in edges]
            found += zip(matrices, entries.real, strict=True)
        return found

    def chosen_cell(
        self,
        array: str,
        old: Shaped[Array, "some *item batch"],
    ) -> Bool[Array, "some *item 1"] | None:
        if self.cell is None or array in self.stepped:
            return None
        shape = old.shape[:-1]
        cells = jnp.arange(math.prod(shape)).reshape(*shape, 1)
        return cells == self.cell


AnyVisit: TypeAlias = RangeVisit | ListedVisit
Update: TypeAlias = Callable[[Rows, Residual, AnyVisit], tuple[Changes, Residual]]
"""`(arrays, residual, visit) -> (changes, residual)`: makes one visit, and writes nothing."""


class InTurn(eqx.Module):
    """A pass of a few visits, each a part of the program."""

    # Whole groups send at once, so that their kernels are prepared.
    lists_edges: ClassVar[bool] = False
    visits: tuple[RangeVisit, ...]

    def run(
        self,
        update: Update,
        arrays: Rows,
        residual: Residual,
    ) -> tuple[Rows, Residual]:
        """The arrays and the residual after the pass."""
        for visit in self.visits:
            changes, residual = update(arrays, residual, visit)
            arrays = written(arrays, changes)
        return arrays, residual


def written(arrays: Rows, changes: Changes) -> Rows:
    """The arrays after a visit."""
    result = dict(arrays)
    for name, (rows, new) in changes.items():
        result[name] = rows.put(arrays[name], new)
    return result


class Column(eqx.Module):
    """Concatenated lists of positions; visit v reads the `count[v]` ones from `offset[v]` on."""

    positions: Int[Array, " total"]
    offset: Int[Array, " visits"]
    count: Int[Array, " visits"]

    def read(
        self,
        visit: Array,
        size: int,
    ) -> tuple[Int[Array, " size"], Bool[Array, " size"]]:
        """The positions of a visit, filled up to `size`, and which of them are no filling."""
        start = self.offset[visit]
        positions = jax.lax.dynamic_slice(self.positions, (start,), (size,))
        real = jnp.arange(size) < self.count[visit]
        return positions, real


class Sizes(eqx.Module):
    """How many entries visits of one size have: rows by array, edges by group. None is zero."""

    rows: tuple[tuple[str, int], ...] = eqx.field(static=True)
    edges: tuple[tuple[int, int], ...] = eqx.field(static=True)


Branch: TypeAlias = Callable[[Rows, Residual, Array], tuple[Changes, Residual]]
"""`(visited arrays, residual, number) -> (changes, residual)`: the visit of a number."""


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

    # A few edges of a group send at a time, which no kernel does.
    lists_edges: ClassVar[bool] = True
    topology: Topology
    rows: dict[str, Column]
    edges: dict[int, Column]
    places: dict[int, Int[Array, "edges cells"]]
    cell: Int[Array, " visits"] | None
    size_of: Int[Array, " visits"]
    sizes: tuple[Sizes, ...]
    stepped: frozenset[str] = eqx.field(static=True)

    def visit(
        self,
        number: Array,
        sizes: Sizes,
        arrays: Rows,
    ) -> ListedVisit:
        """The visit of a number, which has one of the `sizes`."""
        rows: dict[str, Listed] = {}
        members: dict[str, Array | None] = {}
        for name, size in sizes.rows:
            # Whatever filling reads there is not written.
            positions, real = self.rows[name].read(number, size)
            out_of_range = len(arrays[name])
            rows[name] = Listed(jnp.where(real, positions, out_of_range))
            members[name] = real
        entries: dict[int, Entries] = {}
        for i, size in sizes.edges:
            edges, real = self.edges[i].read(number, size)
            name = self.topology.groups[i].receiver.name
            # from places among the rows of all visits to rows of this one
            places = self.places[i][edges] - self.rows[name].offset[number]
            # Unsigned, a place before this visit is far out of range, and not counted from the end.
            slots = jnp.where(real[:, None], places, -1).astype(jnp.uint32)
            # A group of one edge has nothing to pick: a static address then gathers its sender.
            alone = len(self.places[i]) == 1
            entries[i] = Entries(None if alone else edges, real, slots)
        cell = None if self.cell is None else self.cell[number]
        return ListedVisit(
            rows=rows,
            members=members,
            entries=entries,
            cell=cell,
            stepped=self.stepped,
        )

    def run(
        self,
        update: Update,
        arrays: Rows,
        residual: Residual,
    ) -> tuple[Rows, Residual]:
        """The arrays and the residual after the pass."""
        # The scan carries what is visited, and reads all other arrays as they were before it.
        visited: Rows = {}
        for name in self.rows:
            visited[name] = arrays[name]
        largest = self._largest_sizes()

        def branch(sizes: Sizes) -> Branch:
            """The part of the program that makes the visits of one size."""

            def run(
                visited: Rows,
                residual: Residual,
                number: Array,
            ) -> tuple[Changes, Residual]:
                visit = self.visit(number, sizes, visited)
                changes, residual = update(arrays | visited, residual, visit)
                return _filled_up(changes, visited, largest), residual

            return run

        branches = [branch(sizes) for sizes in self.sizes]

        def body(
            carry: tuple[Rows, Residual],
            number: Int[Array, ""],
        ) -> tuple[tuple[Rows, Residual], None]:
            visited, residual = carry
            if len(branches) == 1:
                changes, residual = branches[0](visited, residual, number)
            else:
                size = self.size_of[number]
                changes, residual = jax.lax.switch(size, branches, visited, residual, number)
            return (written(visited, changes), residual), None

        numbers = jnp.arange(len(self.size_of))
        (visited, residual), _ = jax.lax.scan(body, (visited, residual), numbers)
        return arrays | visited, residual

    def _largest_sizes(self) -> dict[str, int]:
        """The most rows of every array that any visit has."""
        largest = dict.fromkeys(self.rows, 0)
        for sizes in self.sizes:
            for name, size in sizes.rows:
                largest[name] = max(largest[name], size)
        return largest


def _filled_up(
    changes: Changes,
    arrays: Rows,
    sizes: dict[str, int],
) -> Changes:
    """Changes of so many rows of every array, as all branches must give them back."""
    result: Changes = {}
    for name, size in sizes.items():
        array = arrays[name]
        # positions past the end are not written
        positions = jnp.full(size, len(array))
        values = jnp.zeros_like(array, shape=(size, *array.shape[1:]))
        if name in changes:
            rows, new = changes[name]
            assert isinstance(rows, Listed)  # as all rows of a sweep
            positions = positions.at[: len(new)].set(rows.positions)
            values = values.at[: len(new)].set(new)
        result[name] = Listed(positions), values
    return result
