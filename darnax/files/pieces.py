"""Pytrees as pieces that have names: what lets a file of one network be read into another.

JAX knows a leaf by its path, and the couplings of a kind are one leaf with a row for every edge.
Which row is which edge's is the library's to choose, and changes when an edge is drawn or taken
away. Files are read into networks that have grown, so they know numbers by what they belong to:

- a *piece* is what belongs together: the couplings of an edge kind, the biases of a node kind, the
  buffers of a state, or a leaf on its own;
- a piece has *stacks*: leaves with one row for each of some edges, nodes or cells, which are named;
- the *wiring* of a piece is the topology that has these names.

Wherever a network or a state stands in a tree it is taken apart like this, so in the memory of an
optimiser, which holds networks of its own. What follows from the topology, such as the index arrays
of message passing, is in no piece: it is made anew with every network.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jax.tree_util import keystr

from darnax.couplings.coupling import per_edge
from darnax.files import leaves
from darnax.network.bias import covered_cells
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.topologies.names import Name
from darnax.topologies.tables import Columns
from darnax.topologies.topology import Topology

Path: TypeAlias = tuple[Any, ...]
"""The keys that lead from the top of a tree to a node of it, of the classes that JAX has."""

Things = Literal["edges", "nodes", "cells"]
"""What the rows of a piece belong to."""


class Wiring(Protocol):
    """The names of nodes and edges that rows belong to."""

    @property
    def digest(self) -> str:
        """A text that tells topologies apart."""
        ...

    @property
    def columns(self) -> Columns:
        """The columns of the topology."""
        ...


class TopologyWiring(NamedTuple):
    """The wiring of a topology that is alive."""

    digest: str
    columns: Columns


class Leaf(NamedTuple):
    """One leaf, described without its numbers.

    **Fields:**

    - `name`: its path in the tree, one of a kind.
    - `dtype`, `shape`: of what it holds; `()` for a number of Python and for a text.
    - `axis`: the axis of rows; None for a leaf without rows.
    - `read`: gives its numbers as an array of NumPy, or a number or text as JSON has it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: int | None
    read: Callable[[], Any]

    @property
    def form(self) -> tuple[str, tuple[int, ...]]:
        """What two leaves have in common where a row of one fits into the other."""
        shape = list(self.shape)
        if self.axis is not None:
            shape[self.axis] = -1
        return self.dtype, tuple(shape)


class Stack(NamedTuple):
    """Leaves whose rows are those of the same edges, nodes or cells.

    **Fields:**

    - `rows`: positions among all edges, nodes or cells, one a row; None for leaves without rows.
    - `leaves`: by their path inside of the stack.
    """

    rows: np.ndarray | None
    leaves: dict[str, Leaf]


class Piece(NamedTuple):
    """What belongs together under one name.

    **Fields:**

    - `of`: what its rows belong to; None for leaves without rows.
    - `shape`: how many edges or nodes there are; for cells the shape of their array.
    - `wiring`: where their names are; None for cells, which need none, and for leaves.
    - `stacks`: by their path inside of the piece.
    """

    name: str
    of: Things | None
    shape: tuple[int, ...]
    wiring: Wiring | None
    stacks: dict[str, Stack]

    def names_alone(self) -> "Piece":
        """The piece without its leaves, but with the names of what its rows are of."""
        wiring = self.wiring
        if wiring is not None:
            wiring = TopologyWiring(wiring.digest, wiring.columns)
        return self._replace(wiring=wiring, stacks={})


class Place(NamedTuple):
    """The place of a leaf: its piece, the stack there, and the path inside of the stack.

    **Fields:**

    - `rows`: None for a leaf without rows.
    """

    piece: str
    stack: str
    inside: str
    of: Things | None = None
    shape: tuple[int, ...] = ()
    wiring: Wiring | None = None
    rows: np.ndarray | None = None
    axis: int | None = None


class Tree:
    """A pytree as pieces, whose leaves can be replaced.

    **Arguments:**

    - `argument`, `tree`: a pytree, and what to call it in errors.

    Raises `TypeError` for leaves that are traced, or that hold no numbers.
    """

    def __init__(self, argument: str, tree: object):
        self.pieces: dict[str, Piece] = {}
        entries, self._structure = jax.tree_util.tree_flatten_with_path(tree)
        self._leaves: list[Any] = [leaf for _, leaf in entries]
        self._position: dict[str, int] = {}
        self._cells: dict[str, np.ndarray] = {}
        owners = _owners(tree)
        # For every leaf whether tied edges have it each for itself; a mark above the leaf tells so.
        own = jax.tree.leaves(per_edge(tree, tied=True))
        for i, (path, leaf) in enumerate(entries):
            place = _place(path, leaf, owners, own[i])
            name = keystr(path)
            leaves.check_leaf(argument, name, leaf)
            if place is not None and (leaves.is_array(leaf) or leaves.is_value(leaf)):
                self._position[name] = i
                self._add(name, leaf, place)

    def _add(self, name: str, leaf: Any, place: Place):
        """Put a leaf into its piece, which is made for the first of its leaves."""
        fresh = Piece(place.piece, place.of, place.shape, place.wiring, {})
        piece = self.pieces.setdefault(place.piece, fresh)
        stack = piece.stacks.setdefault(place.stack, Stack(place.rows, {}))
        stack.leaves[place.inside] = _described(name, leaf, place)
        if place.of == "cells" and place.rows is not None:
            self._cells[name] = place.rows

    def like(self, name: str) -> Any:
        """The leaf of a name, as it is now."""
        return self._leaves[self._position[name]]

    def put(self, name: str, value: object):
        """Replace a leaf by an array of NumPy of its dtype, or by what JSON has."""
        like = self.like(name)
        if not leaves.is_array(like):
            new = leaves.value_from_json(value, like)
        else:
            numbers = np.asarray(value)
            if name in self._cells:
                # these are the numbers of some cells of the array
                whole = leaves.plain(like).copy()
                whole.ravel()[self._cells[name]] = numbers
                numbers = whole
            new = leaves.array_like(numbers, like)
        self._leaves[self._position[name]] = new

    def tree(self) -> Any:
        """The pytree with the leaves as they are now."""
        return jax.tree.unflatten(self._structure, self._leaves)


def _described(name: str, leaf: Any, place: Place) -> Leaf:
    dtype = leaves.type_name(leaf)
    if not leaves.is_array(leaf):
        return Leaf(name, dtype, (), None, lambda: leaves.value_to_json(leaf))
    # cells of a shared array are rows only one by one, and those that no node covers hold nothing
    if place.of == "cells":
        rows = place.rows
        assert rows is not None
        return Leaf(name, dtype, (len(rows),), 0, lambda: leaves.plain(leaf).ravel()[rows])
    return Leaf(name, dtype, leaves.shape(leaf), place.axis, lambda: leaves.plain(leaf))


# places


def _owners(tree: object) -> dict[Path, Network | GraphState]:
    """The networks and states of a tree by path."""

    def is_owner(node: object) -> bool:
        return isinstance(node, (Network, GraphState))

    entries = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_owner)
    owners: dict[Path, Network | GraphState] = {}
    for path, node in entries:
        if isinstance(node, (Network, GraphState)):
            owners[path] = node
    return owners


def _place(
    path: Path, leaf: Any, owners: Mapping[Path, Network | GraphState], own: bool
) -> Place | None:
    """The place of a leaf; None for one that follows from a topology, and is in no piece."""
    alone = Place(keystr(path), "", "")
    for depth in range(len(path)):
        owner = owners.get(path[:depth])
        if owner is None:
            continue
        if isinstance(owner, GraphState):
            return _place_in_state(owner, path, depth, leaf) or alone
        field = getattr(path[depth], "name", None)
        if field == "couplings":
            return _place_of_coupling(owner, path, depth, leaf, own) or alone
        if field == "biases":
            return _place_of_bias(owner, path, depth, leaf) or alone
        return alone if field == "activations" else None
    return alone


def _place_in_state(state: GraphState, path: Path, depth: int, leaf: Any) -> Place | None:
    """The place of a buffer: a row for each node, or a shared array as a whole."""
    topology = state.topology
    _, array = _keys(path[depth:], 2)
    if array not in topology.arrays or not leaves.is_array(leaf):
        return None
    spec = topology.arrays[array]
    # a stack of states, as `vmap` gives one, has more axes before those of a state
    axis = leaf.ndim - len(spec.shape) - 1
    if spec.shared or axis < 0:
        return None
    place = Place(keystr(path[: depth + 1]), array, "")
    return _rows(topology, "nodes", place, leaf, topology.layout.members_of(array), axis)


def _place_of_coupling(
    network: Network, path: Path, depth: int, leaf: Any, own: bool
) -> Place | None:
    """The place of a coupling's leaf: a row for each edge, or one leaf for a tie."""
    topology = network.topology
    _, kind, number = _keys(path[depth:], 3)
    blocks = topology.parameter_blocks.get(kind, ()) if isinstance(kind, str) else ()
    if not isinstance(number, int) or number >= len(blocks) or not leaves.is_array(leaf):
        return None
    block = blocks[number]
    piece, inside = keystr(path[: depth + 2]), keystr(path[depth + 3 :])
    if block.tie is not None:
        piece = f"{piece} tied as {block.tie!r}"
        if not own:
            return Place(piece, "", inside)
        piece = f"{piece}, edge by edge"
    place = Place(piece, str(number), inside)
    return _rows(topology, "edges", place, leaf, block.edges, _stacked_axes(network))


def _place_of_bias(network: Network, path: Path, depth: int, leaf: Any) -> Place | None:
    """The place of a bias: a row for each node, or for each cell of a shared array."""
    topology = network.topology
    _, kind, array = _keys(path[depth:], 3)
    if array not in topology.arrays or not leaves.is_array(leaf):
        return None
    spec = topology.arrays[array]
    if not spec.shared:
        place = Place(keystr(path[: depth + 2]), array, "")
        members = topology.layout.members_of(array)
        return _rows(topology, "nodes", place, leaf, members, _stacked_axes(network))
    if leaf.shape != spec.shape:
        return None
    cells = np.flatnonzero(covered_cells(topology, array, kind))
    return Place(keystr(path[: depth + 3]), "", "", "cells", spec.shape, None, cells, 0)


def _rows(
    topology: Topology, of: Things, place: Place, leaf: Any, rows: np.ndarray, axis: int
) -> Place | None:
    """A place with rows; None if the leaf has no such axis, as a stack of networks may not."""
    shape = leaf.shape
    if len(shape) <= axis or shape[axis] != len(rows):
        return None
    count = len(topology.columns.senders) if of == "edges" else len(topology)
    wiring = TopologyWiring(topology.digest.hex(), topology.columns)
    return place._replace(of=of, shape=(count,), wiring=wiring, rows=rows, axis=axis)


def _stacked_axes(network: Network) -> int:
    """How many axes an ensemble of networks has before those of one network; 0 for one network.

    A part of a network, as the memory of an optimiser holds it, is taken for that of one.
    """
    parameters = jax.tree.leaves((network.couplings, network.biases))
    now = [leaf.ndim for leaf in parameters if eqx.is_array(leaf)]
    if len(now) != len(network.axes) or not now:
        return 0
    return max(0, now[0] - network.axes[0])


def _keys(path: Path, count: int) -> tuple[Any, ...]:
    """The first keys of a path, as names or numbers; None for those that it does not have."""
    keys: list[Any] = []
    for entry in path[:count]:
        keys.append(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", None))))
    return tuple(keys + [None] * (count - len(keys)))


# names


def thing_names(piece: Piece, positions: Iterable[int]) -> tuple[Name, ...]:
    """The names of edges, nodes or cells at some positions."""
    if piece.of == "cells":
        axes = np.unravel_index(np.asarray(positions, np.int64), piece.shape)
        return tuple(zip(*(axis.tolist() for axis in axes), strict=True))
    assert piece.wiring is not None
    columns = piece.wiring.columns
    if piece.of == "nodes":
        return tuple(columns.names[i] for i in positions)
    return tuple(edge_name(columns, i) for i in positions)


def edge_name(columns: Columns, edge: int) -> tuple[Name, ...]:
    """The name of an edge: its ends, and its key where edges have keys."""
    ends = columns.names[columns.senders[edge]], columns.names[columns.receivers[edge]]
    return ends if columns.keys is None else (*ends, columns.keys[edge])
