"""The topology: which nodes there are, where each of them lives, and which sends to which.

It is worked out once, in NumPy. Everything above (states, networks, passes) reads it and never
writes to it, so results that follow from a topology can be kept on it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

import jax
import numpy as np
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from darnax import _html, _text, checks
from darnax.topologies import names as naming
from darnax.topologies import serial
from darnax.topologies.groups import EdgeGroup, ParameterBlock, edge_groups, parameter_blocks
from darnax.topologies.layout import ArraySpec, Layout, View
from darnax.topologies.lazy_networkx import NxDiGraph, NxGraph
from darnax.topologies.names import Finder, Name, Names
from darnax.topologies.plain import to_plain
from darnax.topologies.read_arrays import Kinds, read_edges, read_ends, read_nodes
from darnax.topologies.read_columns import read_columns
from darnax.topologies.read_networkx import read_graph
from darnax.topologies.summary import summary, tables
from darnax.topologies.tables import Columns, NodeClass, Shape, assemble, find_roles

# Topologies that are alive, by digest. Equal ones share one dictionary, and each of them holds it:
# it stays as long as any of them, whichever is dropped first, and keeps none of them alive.
_Equals = WeakValueDictionary[int, "Topology"]
_alive: "WeakValueDictionary[bytes, _Equals]" = WeakValueDictionary()


def _living(digest: bytes) -> "Topology | None":
    """The latest topology of this digest, if one is alive."""
    equals = list(_alive.get(digest, {}).values())
    return equals[-1] if equals else None


class Topology:
    """The wiring of a network, compiled once from an annotated networkx graph.

    It is static and immutable: names and integer columns, no graph and no JAX arrays. Two
    topologies are equal if they have the same nodes and edges in the same order; equality compares
    a digest, and loading or unpickling gives the very object if it is alive.

    **Arguments:**

    - `graph`: a `networkx.DiGraph` or `MultiDiGraph`; `u -> v` means that u sends to v, a self-loop
      is a recurrent coupling. Nodes carry `shape` (an int or a tuple; `()` is one scalar unit),
      `kind` (default `"node"`), `dtype` (default float32) and `role`: `"input"`, `"output"` or
      `"held"`, or several of them (`"input, output"`). A node that is a view of a shared array
      carries `array` and `index` instead of `shape`: any cells of the array, each once, as NumPy
      takes them (ints, slices of positive step, lists of ints, masks, `np.ix_`, and mixtures).
      Edges carry `kind` (default `"edge"`), `tie` (all edges of this kind and tie use the same
      parameters) and any numbers that couplings read; attributes that are not numbers are left out.
    - `inputs`, `outputs`: node names; by default the nodes with this `role`, in the order of
      drawing.
    - `held`: nodes that keep their state as inputs do, but that `init` leaves at zero, such as the
      border of an image; by default the nodes with this `role`.
    - `arrays`: shapes of the shared arrays by name; by default what `graph.graph` says, else none.
    - `both_ways`: for an undirected graph, whose edges become two each, one each way; a self-loop
      stays one.

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

    @checks.by_hand
    def __init__(
        self,
        graph: NxGraph,
        *,
        inputs: Names | None = None,
        outputs: Names | None = None,
        held: Names | None = None,
        arrays: Mapping[str, Shape] | None = None,
        both_ways: bool = False,
    ):
        columns = read_graph(
            graph,
            inputs=inputs,
            outputs=outputs,
            held=held,
            arrays=arrays,
            both_ways=both_ways,
        )
        self._compile(columns)

    @classmethod
    @checks.by_hand
    def from_edges(
        cls,
        senders: ArrayLike,
        receivers: ArrayLike,
        *,
        n: int | None = None,
        shape: Shape = (),
        kind: Kinds = "node",
        dtype: DTypeLike = "float32",
        edge_kind: Kinds = "edge",
        tie: str | None = None,
        attributes: Mapping[str, ArrayLike] | None = None,
        keys: Iterable[Name] | None = None,
        inputs: Names | None = None,
        outputs: Names | None = None,
        held: Names | None = None,
    ) -> "Topology":
        """A topology of nodes `0 .. n - 1` of one shape, from arrays of the ends of its edges.

        Edge `i` goes from node `senders[i]` to node `receivers[i]`. The topology is equal to that
        of the same networkx graph, which is never drawn.

        **Arguments:**

        - `senders`, `receivers`: node numbers, one an edge.
        - `n`: how many nodes there are; by default as many as the edges need.
        - `shape`, `dtype`: of every node.
        - `kind`, `edge_kind`: one name for all nodes or edges, or a column of names.
        - `tie`: ties all edges of a kind.
        - `attributes`: columns of numbers by name, one number an edge.
        - `keys`: what tells parallel edges apart, one an edge.
        - `inputs`, `outputs`, `held`: node numbers; none by default.

        Raises `TypeError` or `ValueError` listing all that is wrong in an argument.

        !!! example

            ```python
            ring = np.arange(1000)
            topology = dx.Topology.from_edges(ring, (ring + 1) % 1000, inputs=[0])
            ```
        """
        # Whole columns give the same tables as a drawing, without a loop over edges.
        senders, receivers, n = read_ends(senders, receivers, n)
        nodes = read_nodes(n, shape, kind, dtype)
        edges = read_edges(
            senders,
            receivers,
            n,
            kind=edge_kind,
            tie=tie,
            attributes=attributes,
            keys=keys,
        )
        roles = find_roles(Finder(nodes.names), inputs, outputs, held)
        return cls._new(assemble(nodes, edges, roles))

    @classmethod
    def from_columns(cls, columns: Columns) -> "Topology":
        """The topology of sound columns: the very object, if it is alive."""
        # A state that is loaded then lies on the same object as the states in use.
        return _living(serial.digest(columns)) or cls._new(columns)

    @classmethod
    def _new(cls, columns: Columns) -> "Topology":
        self = cls.__new__(cls)
        self._compile(columns)
        return self

    def _compile(self, columns: Columns) -> None:
        # Four fields that the rest of the library reads: names and columns, arrays and addresses,
        # what makes topologies equal, and results that `remembered` functions have worked out.
        self.columns = columns
        self.layout = Layout(columns)
        self.digest = serial.digest(columns)
        self.memory: dict[Callable[..., Any], Callable[..., Any]] = {}
        # `init` writes all inputs at once, in no order.
        inputs = np.asarray(columns.inputs, np.int64)
        clash = self.layout.clashing(inputs)
        if clash:
            raise ValueError(
                f"`inputs` {self.named(clash)} overlap on a shared array, so that one would "
                "overwrite another; make one input of them, or give each an array of its own"
            )
        self._equals: _Equals = _alive.setdefault(self.digest, WeakValueDictionary())
        self._equals[id(self)] = self

    # what users read

    @property
    def nodes(self) -> Sequence[Name]:
        """All names, in the order of drawing."""
        return self.columns.names

    @property
    def edges(self) -> list[tuple[Name, ...]]:
        """All edges in networkx's order: `(u, v)`, or `(u, v, key)` where edges have keys."""
        columns = self.columns
        senders = self._names_at(columns.senders.tolist())
        receivers = self._names_at(columns.receivers.tolist())
        if columns.keys is None:
            return list(zip(senders, receivers, strict=True))
        return list(zip(senders, receivers, columns.keys, strict=True))

    @property
    def inputs(self) -> tuple[Name, ...]:
        """The nodes that `init` sets and that are held unless released."""
        return self._names_at(self.columns.inputs)

    @property
    def held(self) -> tuple[Name, ...]:
        """The nodes that keep their state unless released, inputs included."""
        return self._names_at(self.columns.held)

    @property
    def outputs(self) -> tuple[Name, ...]:
        """The nodes that `readout` reads."""
        return self._names_at(self.columns.outputs)

    @cached_property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """The global arrays by name, in the order in which a state holds them."""
        return MappingProxyType({spec.name: spec for spec in self.layout.arrays})

    @property
    def node_kinds(self) -> tuple[str, ...]:
        """All node kinds, those a builder knows but did not need included."""
        return self.columns.node_kinds

    @property
    def edge_kinds(self) -> tuple[str, ...]:
        """All edge kinds, those a builder knows but did not need included."""
        return self.columns.edge_kinds

    @checks.by_hand
    def shape(self, node: Name) -> tuple[int, ...]:
        """The shape of a node, without the batch."""
        return self.node_class(self.index(node)).shape

    @checks.by_hand
    def kind(self, node: Name) -> str:
        """The kind of a node."""
        return self.node_class(self.index(node)).kind

    @checks.by_hand
    def view(self, node: Name) -> View:
        """Where a node lives: an array, and an index into it."""
        return self.view_at(self.index(node))

    def view_at(self, node: int) -> View:
        """Where the node at a position lives."""
        spec = self.array_of(node)
        row = int(self.layout.first_row[node])
        index = self.columns.views[node] if spec.shared else (row,)
        return View(spec.name, index, self.node_class(node).shape)

    def __contains__(self, node: object) -> bool:
        return self._find(node) is not None

    def __len__(self) -> int:
        return len(self.nodes)

    def __eq__(self, other: object) -> bool:
        # The topologies of a state and a network are compared in every call: a digest is cheap.
        return self is other or (isinstance(other, Topology) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        edges = len(self.columns.senders)
        return f"Topology({len(self.nodes)} nodes, {edges} edges, {len(self.arrays)} arrays)"

    # what the rest of the library reads

    @cached_property
    def _find(self) -> Finder:
        return Finder(self.nodes)

    @checks.by_hand
    def index(self, node: Name) -> int:
        """The position of a node; `UnknownNode`, a `KeyError`, says what there is if not this."""
        position = self._find(node)
        if position is None:
            raise UnknownNode(
                f"there is no node {checks.came(node)}; the nodes are "
                f"{naming.some(self.nodes)}{self._if_array([node])}"
            )
        return position

    @checks.by_hand
    def indices(
        self,
        argument: str,
        nodes: Names,
    ) -> tuple[int, ...]:
        """Positions of several nodes; the error names the argument and everything unknown in it."""
        try:
            return naming.positions(argument, nodes, self._find)
        except ValueError as error:
            raise ValueError(f"{error}{self._if_array(nodes)}") from None

    def _if_array(self, nodes: Iterable[object]) -> str:
        """Advice for names of arrays that were given where nodes are wanted."""
        words = [node for node in nodes if isinstance(node, str)]
        strays = [word for word in words if word in self.arrays and word not in self]
        if not strays:
            return ""
        return (
            f" ({_text.names(strays)}: an array, in `state.arrays`, and no node; `replace` takes "
            "all of `.arrays`)"
        )

    def node_class(self, node: int) -> NodeClass:
        """Kind, shape, dtype and shared array of the node at a position."""
        return self.columns.node_classes[self.columns.node_class[node]]

    def array_of(self, node: int) -> ArraySpec:
        """The array that the node at a position lives in."""
        return self.layout.arrays[self.layout.node_array[node]]

    def _names_at(self, nodes: Iterable[int]) -> tuple[Name, ...]:
        names = self.nodes
        return tuple(names[node] for node in nodes)

    def named(self, nodes: Iterable[int]) -> str:
        """The names of nodes at some positions, in one line, for errors."""
        return _text.names(self._names_at(nodes))

    def edge(self, edge: int) -> tuple[Name, ...]:
        """The name of the edge at a position."""
        columns = self.columns
        ends = self.nodes[columns.senders[edge]], self.nodes[columns.receivers[edge]]
        return ends if columns.keys is None else (*ends, columns.keys[edge])

    def _key(self, edge: int) -> Name:
        """The key of the edge at a position, networkx's first key where edges have none."""
        keys = self.columns.keys
        return 0 if keys is None else keys[edge]

    def edge_position(self, key: tuple[object, ...]) -> int:
        """The position of the edge `(u, v)`, or `(u, v, key)` where edges are parallel."""
        if len(key) not in (2, 3):
            raise KeyError(
                "`key`: an edge is network[u, v], or network[u, v, key] where edges are parallel, "
                f"but got {checks.came(key)}; name both ends"
            )
        u = self.index(key[0])
        v = self.index(key[1])
        joins = (self.columns.senders == u) & (self.columns.receivers == v)
        between = np.flatnonzero(joins).tolist()
        keys = {edge: self._key(edge) for edge in between}
        found = list(keys)
        if len(key) == 3:
            found = [edge for edge in keys if keys[edge] == key[2]]
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

    @cached_property
    def groups(self) -> tuple[EdgeGroup, ...]:
        """The edge groups, each of which runs as one operation."""
        # Not worked out with the topology: a state alone needs no edges.
        return edge_groups(self.layout, self.edge_hashes)

    @cached_property
    def parameter_blocks(self) -> dict[str, tuple[ParameterBlock, ...]]:
        """By edge kind, the edges that share one set of parameter leaves."""
        return parameter_blocks(self.groups)

    @cached_property
    def node_hashes(self) -> np.ndarray:
        """A 64-bit number for every node, `(n,)`, which depends on its name alone."""
        return naming.hashes(self.nodes)

    def edge_words(self) -> np.ndarray:
        """The hash of every edge, `(E, 2)`, as JAX folds it into a key."""
        return naming.words(self.edge_hashes)

    @cached_property
    def edge_hashes(self) -> np.ndarray:
        """A 64-bit number for every edge, `(E,)`, from its kind, ends and key alone."""
        columns = self.columns
        # A tie is left out: parameters of tied edges are drawn by the tie, and noise by the edge.
        kinds = naming.hashes([kind for kind, _ in columns.edge_classes])
        # Without keys one hash, of networkx's first key, is broadcast to all edges.
        keys = naming.hashes([0] if columns.keys is None else columns.keys)
        return naming.combine(
            kinds[columns.edge_class],
            self.node_hashes[columns.senders],
            self.node_hashes[columns.receivers],
            keys,
        )

    # to and from elsewhere

    @checks.by_hand
    def to_networkx(self, plain: bool = False) -> NxDiGraph:
        """A fresh annotated graph, which `Topology` turns back into an equal topology.

        **Arguments:**

        - `plain`: whether names and attributes are text and numbers alone, as the formats of files
          hold them: GraphML, GEXF, GML, JSON, tables. `Topology` reads them back.

        !!! example

            ```python
            path = tempfile.mkdtemp() + "/wiring.graphml"
            nx.write_graphml(topology.to_networkx(plain=True), path)
            dx.Topology(nx.read_graphml(path)) == topology  # True
            ```
        """
        graph = serial.to_networkx(self.columns)
        return to_plain(graph, self.columns) if checks.flag("plain", plain) else graph

    def to_json(self) -> str:
        """The topology as JSON text."""
        return serial.to_json(self.columns)

    @classmethod
    @checks.by_hand
    def from_json(cls, text: str) -> "Topology":
        """The topology that `to_json` wrote; the very object, if it is alive.

        Raises `ValueError` if the text is something else or was changed. Nothing in it is run.
        """
        return cls.from_columns(serial.from_json(text))

    # A topology never changes, so it is its own copy.
    def __copy__(self) -> "Topology":
        return self

    def __deepcopy__(self, memo: object) -> "Topology":
        return self

    # Columns are pickled, and read anew as a file would be; the rest follows from them.
    def __reduce__(self) -> tuple[Callable[..., "Topology"], tuple[object, ...]]:
        return _restore, self.columns.state()

    def summary(self) -> str:
        """Nodes, arrays, overlaps and edge groups as a table."""
        return f"{self!r}\n\n{summary(self.layout, self.groups)}"

    def _repr_html_(self) -> str:
        """The summary with a diagram, for notebooks."""
        # Diagrams are above topologies, and no program without a notebook needs them.
        from darnax.diagrams import drawn

        parts = [_html.table(table) for table in tables(self.layout, self.groups)]
        return _html.page(repr(self), [drawn(self), *parts])


class UnknownNode(KeyError, IndexError):
    """The error for a name that is not in the topology.

    A state is read like a mapping, and the state of a chain like a list: the error is of both
    kinds.
    """

    # `KeyError` shows its message as a repr, within quotes.
    def __str__(self) -> str:
        return str(self.args[0])


def _restore(*state: Any) -> Topology:
    try:
        return Topology.from_columns(read_columns(Columns(*state)))
    except serial.MALFORMED as error:
        raise ValueError(
            f"what was pickled is no topology: {error}; build it anew from its graph"
        ) from None


def _found(digest: bytes, leaves: object) -> Topology:
    """The topology of a pytree's structure, which holds the digest alone."""
    topology = _living(digest)
    if topology is None:
        raise ValueError(
            "the `topology` of this tree is no longer there; keep it, or a state or network on "
            "it, until then"
        )
    return topology


# A topology is a pytree without leaves, and the structure of the trees that hold it has its digest
# alone. JAX keeps the structures of every program that it ever compiled, and would keep all
# topologies with them.
jax.tree_util.register_pytree_node(Topology, lambda topology: ((), topology.digest), _found)
