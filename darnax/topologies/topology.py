"""The topology: who exists, where each node lives in which array, and who talks to whom."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import jax
import numpy as np

from darnax import _text, checks
from darnax._lazy import Lazy
from darnax.topologies import names as naming
from darnax.topologies import serial
from darnax.topologies.columns import Columns
from darnax.topologies.drawing import read_graph
from darnax.topologies.groups import EdgeGroup, ParameterBlock, edge_groups, parameter_blocks
from darnax.topologies.layout import ArraySpec, Layout, View
from darnax.topologies.names import Name
from darnax.topologies.summary import summary
from darnax.topologies.verify import verify
from darnax.topologies.wiring import from_arrays

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")

_alive: dict[bytes, dict[int, "ref[Topology]"]] = {}
"""The topologies that are there, by digest; of equal ones any may go first."""


def _remember(topology: "Topology"):
    digest, which = topology.digest, id(topology)

    def forget(_: Any):
        same = _alive.get(digest, {})
        same.pop(which, None)
        if not same:
            _alive.pop(digest, None)

    _alive.setdefault(digest, {})[which] = ref(topology, forget)


def _living(digest: bytes) -> "Topology | None":
    """The latest topology of this digest, if one is there."""
    found = (kept() for kept in reversed(list(_alive.get(digest, {}).values())))
    return next((topology for topology in found if topology is not None), None)


class Topology:
    """The wiring of a network, compiled once from an annotated networkx graph.

    It is static and immutable: names and integer columns, no graph and no JAX arrays. Two
    topologies are equal if they have the same nodes and edges in the same order; equality compares
    a digest, and loading or unpickling gives the very object if it is alive.

    **Arguments:**

    - `graph`: a `networkx.DiGraph` or `MultiDiGraph`; `u -> v` means that u sends to v, a self-loop
      is a recurrent coupling. Nodes carry `shape` (an int or a tuple; `()` is one scalar unit),
      `kind` (default `"node"`), `dtype` (default float32) and `role`: `"input"`, `"output"` or
      `"held"`, or several of them (`"input, output"`); a node that lives in a shared array carries
      `array` and `index` (ints and slices of positive step) instead of `shape`. Edges carry `kind`
      (default `"edge"`), `tie` (all edges of this kind and tie use the same parameters) and any
      numbers that couplings read; attributes that are not numbers are left out.
    - `inputs`, `outputs`: node names; by default the nodes with this `role`, in the order of
      drawing.
    - `held`: nodes that keep their state as inputs do, but that `init` leaves at zero, such as the
      border of an image; by default the nodes with this `role`.
    - `arrays`: shapes of the shared arrays by name; by default what `graph.graph` says, else none.

    Raises `TypeError` or `ValueError` listing every node or edge that is wrong.

    !!! example

        ```python
        graph = nx.DiGraph()
        graph.add_node("eye", shape=(8, 8, 1))
        graph.add_node("cortex", shape=100, kind="hidden")
        graph.add_edge("eye", "cortex", kind="forward")
        graph.add_edge("cortex", "cortex", kind="recurrent")
        topology = dx.Topology(graph, inputs=["eye"])
        ```
    """

    def __init__(
        self,
        graph: Any,
        *,
        inputs: Any = None,
        outputs: Any = None,
        held: Any = None,
        arrays: Any = None,
    ):
        self._compile(read_graph(graph, inputs, outputs, held, arrays))

    @classmethod
    def from_edges(
        cls,
        senders: Any,
        receivers: Any,
        *,
        n: Any = None,
        shape: Any = (),
        kind: Any = "node",
        dtype: Any = "float32",
        edge_kind: Any = "edge",
        tie: Any = None,
        attributes: Any = None,
        keys: Any = None,
        inputs: Any = None,
        outputs: Any = None,
        held: Any = None,
    ) -> "Topology":
        """Wiring that is already arrays: nodes `0 .. n - 1` of one shape, edges
        `senders[i] -> receivers[i]`.

        `kind` and `edge_kind` are one name or a column of names, `attributes` columns of numbers,
        one an edge; `keys` tells parallel edges apart. Equal to the topology of the same networkx
        graph, without drawing it.
        """
        return cls._of(
            from_arrays(
                senders,
                receivers,
                n=n,
                shape=shape,
                kind=kind,
                dtype=dtype,
                edge_kind=edge_kind,
                tie=tie,
                attributes=attributes,
                keys=keys,
                inputs=inputs,
                outputs=outputs,
                held=held,
            )
        )

    @classmethod
    def _of(cls, columns: Columns) -> "Topology":
        self = cls.__new__(cls)
        self._compile(columns)
        return self

    @classmethod
    def _loaded(cls, columns: Columns) -> "Topology":
        """The topology of sound columns: the one that is alive, if there is one."""
        return _living(serial.digest(columns)) or cls._of(columns)

    def _compile(self, columns: Columns):
        self._columns = columns
        self.memory: dict[Any, Any] = {}
        self._layout = Layout(columns)
        self._check_inputs()
        self._digest = serial.digest(columns)
        _remember(self)

    def _check_inputs(self):
        clash = self._layout.clashing(np.asarray(self._columns.inputs, np.int64))
        if clash:
            who = _text.names(self.nodes[i] for i in clash)
            raise ValueError(
                f"`inputs` {who} overlap on a shared array, so that one would overwrite another; "
                "make one input of them, or give each an array of its own"
            )

    # what users read

    @property
    def nodes(self) -> Sequence[Name]:
        """All names, in the order of drawing."""
        return self._columns.names

    @property
    def edges(self) -> list[tuple]:
        """All edges in networkx's order: `(u, v)`, or `(u, v, key)` where edges have keys."""
        names, columns = self.nodes, self._columns
        ends = [
            (names[u], names[v])
            for u, v in zip(columns.senders.tolist(), columns.receivers.tolist(), strict=True)
        ]
        return (
            ends
            if columns.keys is None
            else [(*e, k) for e, k in zip(ends, columns.keys, strict=True)]
        )

    @property
    def inputs(self) -> tuple[Name, ...]:
        """The nodes that `init` sets and that are held unless released."""
        return tuple(self.nodes[i] for i in self._columns.inputs)

    @property
    def held(self) -> tuple[Name, ...]:
        """The nodes that keep their state unless released, inputs included."""
        return tuple(self.nodes[i] for i in self._columns.held)

    @property
    def outputs(self) -> tuple[Name, ...]:
        """The nodes that `readout` reads."""
        return tuple(self.nodes[i] for i in self._columns.outputs)

    @cached_property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """The global arrays by name, in the order in which a state holds them."""
        return MappingProxyType({spec.name: spec for spec in self._layout.arrays})

    @property
    def node_kinds(self) -> tuple[str, ...]:
        """All node kinds, those a builder knows but did not need included."""
        return self._columns.node_kinds

    @property
    def edge_kinds(self) -> tuple[str, ...]:
        """All edge kinds, those a builder knows but did not need included."""
        return self._columns.edge_kinds

    def shape(self, node: Any) -> tuple[int, ...]:
        """The shape of a node, without the batch."""
        return self.node_class(self.index(node)).shape

    def kind(self, node: Any) -> str:
        """The kind of a node."""
        return self.node_class(self.index(node)).kind

    def view(self, node: Any) -> View:
        """Where a node lives: an array, and an index into it."""
        return self.view_at(self.index(node))

    def view_at(self, at: int) -> View:
        """Where the node at a position lives."""
        spec = self.array_of(at)
        index = self._columns.views[at] if spec.shared else (int(self._layout.first_row[at]),)
        return View(spec.name, index, self.node_class(at).shape)

    def __contains__(self, node: object) -> bool:
        return self._find(node) is not None

    def __len__(self) -> int:
        return len(self.nodes)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Topology) and self._digest == other._digest)

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        edges = len(self._columns.senders)
        return f"Topology({len(self.nodes)} nodes, {edges} edges, {len(self.arrays)} arrays)"

    # what the rest of the library reads

    @property
    def digest(self) -> bytes:
        """Sixteen bytes that tell topologies apart, the same in every process."""
        return self._digest

    @cached_property
    def _find(self) -> naming.Finder:
        return naming.Finder(self.nodes)

    def index(self, node: Any) -> int:
        """The position of a node; `UnknownNode`, a `KeyError`, says what there is if not this."""
        at = self._find(node)
        if at is None:
            raise UnknownNode(
                f"there is no node {checks.came(node)}; the nodes are "
                f"{naming.some(self.nodes)}{self._if_array([node])}"
            )
        return at

    def indices(self, argument: str, nodes: Any) -> tuple[int, ...]:
        """Positions of several nodes; the error names the argument and everything unknown in it."""
        try:
            return naming.positions(argument, nodes, self._find)
        except ValueError as error:
            raise ValueError(f"{error}{self._if_array(nodes)}") from None

    def _if_array(self, nodes: Iterable[Any]) -> str:
        """The advice for who gives names of arrays where nodes are wanted."""
        strays = [
            node
            for node in nodes
            if isinstance(node, str) and node in self.arrays and node not in self
        ]
        if not strays:
            return ""
        return (
            f" ({_text.names(strays)}: an array, in `state.arrays`, and no node; `replace` takes "
            "all of `.arrays`)"
        )

    def node_class(self, at: int):
        """Kind, shape, dtype and shared array of the node at a position."""
        return self._columns.node_classes[self._columns.node_class[at]]

    def array_of(self, at: int) -> ArraySpec:
        """The array that the node at a position lives in."""
        return self._layout.arrays[self._layout.node_array[at]]

    def named(self, nodes: Iterable[int]) -> str:
        """The names of nodes at some positions, in one line, for errors."""
        return _text.names(self.nodes[at] for at in nodes)

    def edge(self, at: int) -> tuple:
        """The name of the edge at a position."""
        ends = self.nodes[self._columns.senders[at]], self.nodes[self._columns.receivers[at]]
        return ends if self._columns.keys is None else (*ends, self._columns.keys[at])

    def edge_position(self, key: tuple) -> int:
        """The position of the edge `(u, v)`, or `(u, v, key)` where edges are parallel."""
        if len(key) not in (2, 3):
            raise KeyError(
                "`key`: an edge is network[u, v], or network[u, v, key] where edges are parallel, "
                f"but got {checks.came(key)}; name both ends"
            )
        columns = self._columns
        u, v = self.index(key[0]), self.index(key[1])
        between = np.flatnonzero((columns.senders == u) & (columns.receivers == v)).tolist()
        keys = {edge: 0 if columns.keys is None else columns.keys[edge] for edge in between}
        found = [edge for edge in between if len(key) == 2 or keys[edge] == key[2]]
        if not found:
            others = ""
            if keys:
                others = f"; between these nodes there are the keys {_text.names(keys.values())}"
            raise KeyError(f"there is no edge {key!r}{others}")
        if len(found) > 1:
            raise KeyError(
                f"edge {key!r} is ambiguous: there are parallel ones with the keys "
                f"{_text.names(keys.values())}; name one, as in network[u, v, key]"
            )
        return found[0]

    @property
    def layout(self) -> Layout:
        """Arrays, addresses and blocks."""
        return self._layout

    @property
    def columns(self) -> Columns:
        """Names and integer columns."""
        return self._columns

    @cached_property
    def groups(self) -> tuple[EdgeGroup, ...]:
        """The edges as groups that run as one operation each."""
        return edge_groups(self._layout, self.edge_hashes)

    @cached_property
    def parameter_blocks(self) -> dict[str, tuple[ParameterBlock, ...]]:
        """By edge kind, the edges that share one set of parameter leaves."""
        return parameter_blocks(self.groups)

    @cached_property
    def node_hashes(self) -> np.ndarray:
        """A 64-bit number for every node, which depends on its name alone."""
        return naming.hashes(self.nodes)

    def edge_words(self) -> np.ndarray:
        """The hash of every edge, `(E, 2)`, as JAX folds it into a key."""
        return naming.words(self.edge_hashes)

    @cached_property
    def edge_hashes(self) -> np.ndarray:
        """A 64-bit number for every edge, which depends on its kind, ends and key alone."""
        columns = self._columns
        kind = naming.hashes([kind for kind, _ in columns.edge_classes])[columns.edge_class]
        key = naming.hashes([0] if columns.keys is None else columns.keys)
        ends = self.node_hashes[columns.senders], self.node_hashes[columns.receivers]
        return naming.combine(kind, *ends, key)

    # to and from elsewhere

    def to_networkx(self) -> "nx.DiGraph":
        """A fresh annotated graph, which `Topology` turns back into an equal topology."""
        return serial.to_networkx(self._columns)

    def to_json(self) -> str:
        """Everything as JSON text."""
        return serial.to_json(self._columns)

    @classmethod
    def from_json(cls, text: Any) -> "Topology":
        """The topology that `to_json` wrote; the very object, if it is alive.

        Raises `ValueError` if the text is something else or was changed. Nothing in it is run.
        """
        return cls._loaded(serial.from_json(text))

    def __copy__(self) -> "Topology":
        return self

    def __deepcopy__(self, memo: Any) -> "Topology":
        return self

    def __reduce__(self):
        return _restore, self._columns.state()

    def summary(self) -> str:
        """Nodes, arrays, overlaps and edge groups as a table."""
        return f"{self!r}\n\n{summary(self._layout, self.groups)}"


class UnknownNode(KeyError, IndexError):
    """A name that is not in the topology."""

    def __str__(self) -> str:
        return str(self.args[0])


def _restore(*state: Any) -> Topology:
    try:
        columns = Columns(*state)
        verify(columns)
        return Topology._loaded(columns)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"what was pickled is no topology: {error}; build it anew from its graph"
        ) from None


class _Kept(NamedTuple):
    """What structures of pytrees keep of a topology."""

    digest: bytes


def _found(kept: _Kept, _: Any) -> Topology:
    topology = _living(kept.digest)
    if topology is None:
        raise ValueError(
            "the `topology` of this tree is no longer there; keep it, or a state or network on "
            "it, until then"
        )
    return topology


# States and networks hold their topology, the structures of their pytrees its digest alone: JAX
# keeps a structure for every program that it ever compiled, and would keep all topologies with
# them.
jax.tree_util.register_pytree_node(Topology, lambda topology: ((), _Kept(topology.digest)), _found)
