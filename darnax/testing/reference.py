"""The dynamics once more, as a plain loop that a reader can check by eye.

Everything that makes darnax fast is left out: no global arrays of rows, no groups, no kernels, no
programs. A pass is a loop over nodes and edges in NumPy, every coupling is called by itself, and
every cell is written where its node lives. It takes a thousand times as long, and small graphs are
all that a law needs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any, TypeAlias

import equinox as eqx
import jax
import networkx as nx
import numpy as np

from darnax import checks
from darnax.activations import Activation
from darnax.couplings.coupling import asks
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.schedules import ScheduleLike, as_schedule, synchronous
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

Arrays: TypeAlias = dict[str, np.ndarray]
"""The arrays of a state by name, batch last."""

Place: TypeAlias = tuple[int | slice | np.ndarray | EllipsisType, ...]


# Compiled because a test calls them for every edge; edges of the same shapes share the program.


@eqx.filter_jit
def _sent(coupling: Callable[..., jax.Array], *values: jax.Array) -> jax.Array:
    """The messages of every sample, batch last."""
    return jax.vmap(coupling, -1, -1)(*values)


@eqx.filter_jit
def _answered(activation: Activation, fields: jax.Array, states: jax.Array) -> jax.Array:
    """The new states of every sample, batch last."""

    def one(field: jax.Array, state: jax.Array) -> jax.Array:
        return activation(field, state=state)

    return jax.vmap(one, -1, -1)(fields, states)


class Reference:
    """A network and a state of it, passed through by a plain loop.

    **Arguments:** those of `dx.step`, without noise: couplings and activations that draw random
    numbers are refused, and a `drive` is an array.

    **Fields:**

    - `arrays`: the arrays of the state by name, `(*shape, B)`, as they are now.

    !!! example

        ```python
        from darnax.testing import Reference

        after = dx.step(network, state, schedule=dx.node_by_node())
        loop = Reference(network, state).step(dx.node_by_node())
        loop.difference(after) < 1e-5  # True
        ```
    """

    @checks.by_hand
    def __init__(
        self,
        network: Network,
        state: GraphState,
        *,
        clamp: Clamp = (),
        silence: Nodes = (),
        kinds: Kinds = None,
        drive: Drive = None,
    ):
        _refuse_noise(network)
        # `network[edge]` of NumPy arrays compiles nothing, and cannot be turned around.
        plain = network if network.reverses else jax.tree.map(np.asarray, network)
        self.network: Network = plain
        self.topology = network.topology
        self.batch = state.batch_size
        self.silence, self.kinds = set(silence), kinds
        self.drive: Mapping[Any, Any] = drive or {}
        self.arrays: Arrays = {}
        self._dtypes = {name: array.dtype for name, array in state.arrays.items()}
        for name, spec in self.topology.arrays.items():
            # As fields are: states may be int8, and weighted sums of them neither whole nor small.
            self.arrays[name] = np.array(state.arrays[name], spec.field_dtype)
        self._couplings: dict[tuple[Name, ...], Callable[..., jax.Array]] = {}
        self._places: dict[Name, tuple[str, Place]] = {}
        self._edges = list(self._speaking())
        self._held = self._held_cells(clamp)

    def _held_cells(self, clamp: Clamp) -> Arrays:
        """The cells that keep their value, whatever they hear."""
        held = {name: np.zeros(array.shape, bool) for name, array in self.arrays.items()}
        given: dict[Any, Any] = dict.fromkeys(self.topology.held, True)
        given |= clamp if isinstance(clamp, Mapping) else dict.fromkeys(clamp, True)
        for node, mask in given.items():
            shape = self.batch, *self.topology.shape(node)
            cells = np.moveaxis(np.broadcast_to(np.asarray(mask), shape), 0, -1)
            array, index = self._place(node)
            held[array][index] |= cells
        return held

    def _place(self, node: Name) -> tuple[str, Place]:
        """The array of a node and the index of its value there, batch last."""
        if node not in self._places:
            view = self.topology.view(node)
            self._places[node] = view.array, (*view.index, ..., slice(None))
        return self._places[node]

    def read(self, arrays: Arrays, node: Name) -> np.ndarray:
        """The part of some arrays that is the node, `(*shape, B)`."""
        array, index = self._place(node)
        return arrays[array][index]

    def _speaking(self) -> Iterator[tuple[Name, ...]]:
        """The edges that speak: `(u, v)`, or `(u, v, key)` where edges are parallel."""
        columns = self.topology.columns
        for edge, edge_class in zip(self.topology.edges, columns.edge_class, strict=True):
            kind, _ = columns.edge_classes[edge_class]
            if (self.kinds is None or kind in self.kinds) and edge[0] not in self.silence:
                yield edge

    def message(self, edge: tuple[Name, ...], arrays: Arrays) -> np.ndarray:
        """The message of an edge, `(*shape, B)`: its coupling called outside of any network."""
        if edge not in self._couplings:
            self._couplings[edge] = self.network[edge]
        coupling = self._couplings[edge]
        ends = edge[:2] if "receiver" in asks(coupling) else edge[:1]
        heard = [jax.device_put(self.read(arrays, end)) for end in ends]
        return np.asarray(_sent(coupling, *heard))

    def fields(self, nodes: Iterable[Name], arrays: Arrays) -> tuple[Arrays, Arrays]:
        """The local fields that nodes get, and masks of the cells that hear anything.

        A field lives on the cells of an array: messages to views that overlap add up there.
        """
        nodes = set(nodes)
        fields = {name: np.zeros(array.shape, array.dtype) for name, array in arrays.items()}
        heard = {name: np.zeros(array.shape, bool) for name, array in arrays.items()}
        for edge in self._edges:
            if edge[1] in nodes:
                self._add(fields, heard, edge[1], self.message(edge, arrays))
        for node in nodes & set(self.drive):
            shape = self.batch, *self.topology.shape(node)
            drive = np.broadcast_to(np.asarray(self.drive[node]), shape)
            self._add(fields, heard, node, np.moveaxis(drive, 0, -1))
        for by_array in self.network.biases.values():
            for name, bias in by_array.items():
                fields[name] += np.asarray(bias)[..., None]
        return fields, heard

    def _add(self, fields: Arrays, heard: Arrays, node: Name, what: np.ndarray) -> None:
        array, index = self._place(node)
        fields[array][index] += what
        heard[array][index] = True

    def visit(self, nodes: Iterable[Name], cells: Mapping[str, np.ndarray] | None = None) -> None:
        """Update nodes together, from one snapshot; `cells` are masks of those that may move."""
        nodes = list(nodes)
        old = {name: array.copy() for name, array in self.arrays.items()}
        fields, heard = self.fields(nodes, old)
        # All read the snapshot: what one of them writes is not heard by another.
        for node in nodes:
            activation = self.network.activations.get(self.topology.kind(node))
            if activation is None:
                continue
            field, now = jax.device_put((self.read(fields, node), self.read(old, node)))
            new = np.asarray(_answered(activation, field, now))
            free = self.read(heard, node) & ~self.read(self._held, node)
            if cells is not None:
                free = free & self.read(dict(cells), node)
            array, index = self._place(node)
            # Rounded to the type of the state, as a value that is written to it.
            kept = new.astype(self._dtypes[array]).astype(new.dtype)
            self.arrays[array][index] = np.where(free, kept, self.arrays[array][index])

    def sweep(self, visits: Iterable[Sequence[Name]], units: bool = False) -> "Reference":
        """One pass of several visits; with `units` every cell of them by itself, row by row."""
        for nodes in visits:
            if not units:
                self.visit(nodes)
                continue
            # Cells of arrays, and not of nodes: one that several views cover moves once.
            for name, cell in sorted(self._cells(nodes)):
                only = {other: np.zeros(array.shape, bool) for other, array in self.arrays.items()}
                only[name][cell] = True
                self.visit(nodes, only)
        return self

    def _cells(self, nodes: Iterable[Name]) -> set[tuple[str, tuple[int, ...]]]:
        """All cells of nodes, once each however many of them share it."""
        found: set[tuple[str, tuple[int, ...]]] = set()
        for node in nodes:
            for array, *cell in cells_of(self.topology, node):
                found.add((array, tuple(cell)))
        return found

    @checks.by_hand
    def step(self, schedule: ScheduleLike = synchronous()) -> "Reference":  # noqa: B008
        """One pass of a schedule, which visits a node once or more.

        Raises `ValueError` for schedules that draw which cells move.
        """
        given = as_schedule(schedule)
        if given.share is not None:
            raise ValueError(
                f"`schedule` {given!r} draws the cells that move; the loop has no random numbers: "
                "give one that does not"
            )
        visits = given.visits(self.topology, self.movable())
        names = self.topology.nodes
        if visits is None:
            return self.sweep([names], given.by_unit)
        return self.sweep([[names[int(node)] for node in visit] for visit in visits], given.by_unit)

    def movable(self) -> np.ndarray:
        """The nodes `(n,)` with a cell that hears somebody and is not held."""
        # Not asked of the network, which works it out in a cleverer way.
        _, heard = self.fields(self.topology.nodes, self.arrays)
        found: list[bool] = []
        for node in self.topology.nodes:
            free = self.read(heard, node) & ~self.read(self._held, node)
            found.append(bool(free.any()))
        return np.asarray(found)

    def difference(self, state: GraphState) -> float:
        """The largest difference of any cell to a state; infinite where one is not finite."""
        largest = 0.0
        for name, array in state.arrays.items():
            theirs = np.asarray(array).astype(self.arrays[name].dtype)
            same = np.isnan(theirs) & np.isnan(self.arrays[name])
            apart = abs(np.where(same, 0, theirs - self.arrays[name]))
            largest = max(
                largest, float(np.where(np.isfinite(apart), apart, np.inf).max(initial=0))
            )
        return largest


def _refuse_noise(network: Network) -> None:
    noisy = [kind for kind, activation in network.activations.items() if activation.draws]
    for kind, blocks in network.couplings.items():
        if any("key" in asks(block) for block in blocks if callable(block)):
            noisy.append(kind)
    if noisy:
        raise ValueError(
            f"`network` draws random numbers (kinds {noisy}), and the loop has none; give a "
            "network without noise"
        )


def cells_of(topology: Topology, node: Name) -> set[tuple[Any, ...]]:
    """The cells of a node, each as its array and its index there."""
    view = topology.view(node)
    mask = np.zeros(topology.arrays[view.array].shape, bool)
    mask[view.index] = True
    return {(view.array, *cell) for cell in np.argwhere(mask).tolist()}


def overlapping(topology: Topology) -> list[list[Name]]:
    """The nodes that share cells, directly or through others, by looking at every pair of them.

    Every node is in one part, most of them alone; parts and nodes in the order of drawing.
    """
    order = {node: i for i, node in enumerate(topology.nodes)}
    cells = {node: cells_of(topology, node) for node in order}
    graph: nx.Graph[Any] = nx.Graph()
    graph.add_nodes_from(order)
    for one in order:
        for other in order:
            if cells[one] & cells[other]:
                graph.add_edge(one, other)
    parts = [sorted(part, key=order.__getitem__) for part in nx.connected_components(graph)]
    return sorted(parts, key=lambda part: order[part[0]])
