"""The edges of one kind as jraph sees them: a graph for each sample, with features on its nodes.

jraph knows one set of N nodes, numbered from 0; a state knows arrays, in which nodes are rows or
views. Where all ends of the edges live in one array and have one shape, the features of the nodes
are one array, as jraph's examples have it. Else there is a *leaf* for each array and shape, and the
features are a dict of leaves: jraph takes any pytree whose leaves agree in the leading axis, and
numbers nodes by that axis alone. So every leaf has a row for each of the N nodes, and the rows of
nodes that live in another leaf are zero:

    input -> hidden, N = 3          "input(2,)"    "hidden(4,)"
    node 0  "eye", of shape (2,)    x x            0 0 0 0
    node 1  "h1",  of shape (4,)    0 0            x x x x
    node 2  "h2",  of shape (4,)    0 0            x x x x
"""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from darnax import _text, checks
from darnax._arrays import on_device
from darnax._lazy import Lazy
from darnax.states.values import AnyArray, cast, checked
from darnax.topologies.layout import ArraySpec, Layout
from darnax.topologies.tables import Columns
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")


Home = tuple[int, tuple[int, ...]]
"""An array, by its position in the layout, and the shape of nodes in it."""


class Leaf(NamedTuple):
    """The nodes of one array and shape, among the N nodes of a graph.

    **Fields:**

    - `array`: the array that they live in.
    - `shape`: their shape.
    - `rows`: the addresses of all N nodes in the array, `(N, *lead)`. Those of nodes that live in
      another leaf lie past the end of the array, where JAX reads zeros and writes nothing.
    """

    array: ArraySpec
    shape: tuple[int, ...]
    rows: np.ndarray


class Form(NamedTuple):
    """What of a leaf decides the shape of a program: its array, and the shape of its nodes."""

    array: ArraySpec
    shape: tuple[int, ...]


class KindGraph(NamedTuple):
    """The edges of one kind and the nodes of all arrays and shapes in which they have ends.

    **Fields:**

    - `edges`: positions among the edges of the topology, `(E,)`, in order.
    - `nodes`: positions among the nodes of the topology, `(N,)`.
    - `leaves`: the leaves of the features by name.
    - `senders`, `receivers`: positions in `nodes`, `(E,)`, in the order of the topology's edges.
    - `numbers`: the numbers drawn on edges by name, `(E,)`, where every edge has one.
    """

    edges: np.ndarray
    nodes: np.ndarray
    leaves: dict[str, Leaf]
    senders: np.ndarray
    receivers: np.ndarray
    numbers: dict[str, np.ndarray]


@checks.by_hand
def kind_graph(topology: Topology, edge_kind: str) -> KindGraph:
    """The graph of an edge kind; `ValueError` if no edge is of this kind."""
    checks.text("edge_kind", edge_kind, "a kind of edges")
    columns = topology.columns
    edges = _edges_of(columns, edge_kind)
    senders = columns.senders[edges]
    receivers = columns.receivers[edges]
    # Whole arrays take part, and not the ends of these edges alone: a graph of one array has the
    # nodes of this array, whatever is drawn on it.
    ends = np.concatenate([senders, receivers])
    members = _members(topology.layout, ends)
    # Sorted positions are in the order of drawing, and can be searched in.
    nodes = np.sort(np.concatenate(list(members.values())))
    leaves = _leaves(topology.layout, nodes, members)
    wide = any(leaf.array.dtype == "float64" for leaf in leaves.values())
    numbers = _numbers(columns, edges, "float64" if wide else "float32")
    return KindGraph(
        edges=edges,
        nodes=nodes,
        leaves=leaves,
        senders=np.searchsorted(nodes, senders).astype(np.int32),
        receivers=np.searchsorted(nodes, receivers).astype(np.int32),
        numbers=numbers,
    )


def _edges_of(columns: Columns, kind: str) -> np.ndarray:
    """The positions of all edges of a kind."""
    # Kinds are compared class by class, of which there are few, and not edge by edge.
    of_kind = [name == kind for name, _ in columns.edge_classes]
    if not any(of_kind):
        kinds = sorted({name for name, _ in columns.edge_classes})
        raise ValueError(
            f"`edge_kind` {kind!r} has no edges; the kinds that have some are "
            f"{_text.names(kinds) or 'none'}"
        )
    return np.flatnonzero(np.asarray(of_kind)[columns.edge_class])


def _members(layout: Layout, ends: np.ndarray) -> dict[Home, np.ndarray]:
    """All nodes of every home in which some of the nodes `ends` live."""
    columns = layout.columns
    shapes = [node_class.shape for node_class in columns.node_classes]
    members: dict[Home, np.ndarray] = {}
    for i in np.unique(columns.node_class[ends]):
        # Nodes of other classes may have the same array and shape: views of other kinds.
        of_shape = np.asarray([shape == shapes[i] for shape in shapes], bool)
        array = int(layout.class_array[i])
        nodes = layout.members[array]
        fits = of_shape[columns.node_class[nodes]]
        members[array, shapes[i]] = nodes[fits]
    return members


def _leaves(
    layout: Layout,
    nodes: np.ndarray,
    members: dict[Home, np.ndarray],
) -> dict[str, Leaf]:
    """A leaf for each home, by the name of the array, or by name and shape if it has several."""
    arrays = [array for array, _ in members]
    leaves: dict[str, Leaf] = {}
    for (array, shape), here in members.items():
        spec = layout.arrays[array]
        # A row for each node of a stacked array, `(n,)`; for views the rows of their cells,
        # `(n, *shape)`.
        address = layout.address(here)
        # Nodes of other homes get a row past the end, which is read as zero and never written.
        rows = np.full((len(nodes), *address.shape[1:]), spec.rows, np.int32)
        rows[np.searchsorted(nodes, here)] = address
        several = arrays.count(array) > 1
        name = f"{spec.name}{shape}" if several else spec.name
        # Another array may have this very name.
        while name in leaves:
            name += "'"
        leaves[name] = Leaf(spec, shape, rows)
    return leaves


def _numbers(
    columns: Columns,
    edges: np.ndarray,
    dtype: str,
) -> dict[str, np.ndarray]:
    """The numbers that all of some edges have, by name."""
    numbers: dict[str, np.ndarray] = {}
    for name, (values, given) in columns.attributes.items():
        # A number that some edges lack cannot be a column, and zero would be a number like others.
        if given is not None and not given[edges].all():
            continue
        # Integers are rounded as floats are. They may be labels that no model reads, which must not
        # keep the others from being read.
        exact = values[edges].astype(np.float64)
        column = cast(f"edge attribute {name!r}", exact, dtype)
        numbers[name] = np.asarray(column)
    return numbers


def to_jraph(
    graph: KindGraph,
    arrays: Mapping[str, Array],
    batch: int,
) -> "jraph.GraphsTuple":
    """The arrays of a state as a batch of graphs, one a sample."""
    values = _read(_touched(graph, arrays), _rows(graph), _forms(graph))
    leaves = dict(zip(graph.leaves, values, strict=True))
    # All samples have the same edges, and so the same numbers on them.
    numbers: dict[str, Array] = {}
    for name, values in graph.numbers.items():
        numbers[name] = on_device(np.tile(values, batch))
    # jraph numbers the nodes of a batch through: those of a sample follow those of the one before.
    count = len(graph.nodes)
    first = count * np.arange(batch, dtype=np.int32)[:, None]
    # A plain array where it can be, for most models are written for it.
    nodes = leaves if len(leaves) > 1 else leaves.popitem()[1]
    return jraph.GraphsTuple(
        nodes=nodes,
        edges=numbers or None,
        receivers=on_device((first + graph.receivers).ravel()),
        senders=on_device((first + graph.senders).ravel()),
        globals=None,
        n_node=on_device(np.full(batch, count, np.int32)),
        n_edge=on_device(np.full(batch, len(graph.senders), np.int32)),
    )


@checks.by_hand
def from_jraph(
    graph: KindGraph,
    arrays: Mapping[str, Array],
    batch: int,
    graphs: "jraph.GraphsTuple",
) -> dict[str, Array]:
    """The arrays of a state with the nodes of a batch of graphs written into them."""
    advice = "give what graphs_tuple gives, with other nodes"
    graphs = checks.instance("graphs", graphs, jraph.GraphsTuple, "a jraph.GraphsTuple", advice)
    count = len(graph.nodes)
    values: list[AnyArray] = []
    for name, (what, given) in _features(graph, graphs.nodes).items():
        leaf = graph.leaves[name]
        values.append(checked(what, given, leaf.shape, leaf.array.dtype, batch * count))
    written = _write(_touched(graph, arrays), values, _rows(graph), _forms(graph))
    return {**arrays, **written}


def _features(graph: KindGraph, nodes: object) -> dict[str, tuple[str, object]]:
    """The features that a model gives, by leaf, each behind the words for it in an error."""
    names = list(graph.leaves)
    if len(names) == 1:
        return {names[0]: ("`graphs.nodes`", nodes)}
    given = nodes if isinstance(nodes, Mapping) else {}
    if set(given) != set(names):
        came = f"the keys {_text.names(given)}" if given else checks.came(nodes)
        raise ValueError(
            f"`graphs.nodes` is a dict with the keys {_text.names(names)}, but got {came}; give "
            "features for each, as graphs_tuple does"
        )
    features: dict[str, tuple[str, object]] = {}
    for name in names:
        features[name] = f"`graphs.nodes[{name!r}]`", given[name]
    return features


def _touched(graph: KindGraph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays that the leaves live in."""
    return {leaf.array.name: arrays[leaf.array.name] for leaf in graph.leaves.values()}


def _rows(graph: KindGraph) -> list[np.ndarray]:
    """The addresses of all leaves."""
    return [leaf.rows for leaf in graph.leaves.values()]


def _forms(graph: KindGraph) -> tuple[Form, ...]:
    """The forms of all leaves."""
    return tuple(Form(leaf.array, leaf.shape) for leaf in graph.leaves.values())


# Reading is one program, and so is writing: by themselves, the operations below would be compiled
# one by one. Addresses are arguments, so that topologies with equal arrays share the programs.


@functools.partial(jax.jit, static_argnames="forms")
def _read(
    arrays: dict[str, Array],
    rows: list[AnyArray],
    forms: tuple[Form, ...],
) -> list[Array]:
    """The features of all leaves, `(B * N, *shape)`."""
    leaves: list[Array] = []
    for (spec, shape), row in zip(forms, rows, strict=True):
        array = spec.as_rows(arrays[spec.name])
        # (N, *shape, B), with zeros for rows past the end, then (B * N, *shape)
        nodes = array.at[row].get(mode="fill", fill_value=0)
        nodes = jnp.moveaxis(nodes, -1, 0)
        leaves.append(nodes.reshape(-1, *shape))
    return leaves


@functools.partial(jax.jit, static_argnames="forms")
def _write(
    arrays: dict[str, Array],
    leaves: list[AnyArray],
    rows: list[AnyArray],
    forms: tuple[Form, ...],
) -> dict[str, Array]:
    """The arrays with the features of all leaves, `(B * N, *shape)`, written into them."""
    # Views of several shapes may lie in one array: each leaf writes into what the last one wrote.
    written = dict(arrays)
    for (spec, shape), row, nodes in zip(forms, rows, leaves, strict=True):
        array = written[spec.name]
        nodes = nodes.reshape(array.shape[-1], -1, *shape)
        nodes = jnp.moveaxis(nodes, 0, -1)
        # Rows past the end are those of other leaves, and are dropped.
        changed = spec.as_rows(array).at[row].set(nodes, mode="drop")
        written[spec.name] = changed.reshape(array.shape)
    return written
