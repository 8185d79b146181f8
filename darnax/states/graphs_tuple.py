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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from darnax import _text, checks
from darnax._lazy import Lazy
from darnax.states.values import cast, checked
from darnax.topologies.columns import Columns
from darnax.topologies.layout import ArraySpec, Layout
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")


class Leaf(NamedTuple):
    """Where the nodes of one array and shape are, among the N nodes of a graph.

    **Fields:**

    - `array`: the array that they live in.
    - `shape`: their shape.
    - `rows`: the addresses of all N nodes in the array, `(N, *lead)`. Those of nodes that live in
      another leaf lie past the end of the array, where JAX reads zeros and writes nothing.
    """

    array: ArraySpec
    shape: tuple[int, ...]
    rows: np.ndarray


class KindGraph(NamedTuple):
    """The edges of one kind and the nodes of all arrays and shapes in which they have ends.

    **Fields:**

    - `nodes`: positions among the nodes of the topology, `(N,)`.
    - `leaves`: the leaves of the features by name.
    - `senders`, `receivers`: positions in `nodes`, `(E,)`, in the order of the topology's edges.
    - `numbers`: the numbers drawn on edges by name, `(E,)`, where every edge has one.
    """

    nodes: np.ndarray
    leaves: dict[str, Leaf]
    senders: np.ndarray
    receivers: np.ndarray
    numbers: dict[str, np.ndarray]


@checks.by_hand
def kind_graph(topology: Topology, edge_kind: str) -> KindGraph:
    """The graph of an edge kind; `ValueError` if no edge is of this kind."""
    checks.text("edge_kind", edge_kind, "a kind of edges")
    layout, columns = topology.layout, topology.columns
    edges = _edges_of(columns, edge_kind)
    senders, receivers = columns.senders[edges], columns.receivers[edges]

    # Leaves are told apart by array and shape, not by node class: nodes of two kinds may be views
    # of one array and have one shape.
    places: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
    for i in np.unique(columns.node_class[np.concatenate([senders, receivers])]):
        place = int(layout.class_array[i]), columns.node_classes[i].shape
        places[place] = _members(layout, *place)
    nodes = np.sort(np.concatenate(list(places.values())))

    names = _leaf_names([(layout.arrays[array].name, shape) for array, shape in places])
    leaves = {}
    for name, ((array, shape), members) in zip(names, places.items(), strict=True):
        spec, address = layout.arrays[array], layout.address(members)
        rows = np.full((len(nodes), *address.shape[1:]), spec.rows, np.int32)
        rows[np.searchsorted(nodes, members)] = address
        leaves[name] = Leaf(spec, shape, rows)
    wide = any(leaf.array.dtype == "float64" for leaf in leaves.values())
    return KindGraph(
        nodes=nodes,
        leaves=leaves,
        senders=np.searchsorted(nodes, senders).astype(np.int32),
        receivers=np.searchsorted(nodes, receivers).astype(np.int32),
        numbers=_numbers(columns, edges, "float64" if wide else "float32"),
    )


def _edges_of(columns: Columns, kind: str) -> np.ndarray:
    """The positions of all edges of a kind."""
    kinds = [name for name, _ in columns.edge_classes]
    if kind not in kinds:
        raise ValueError(
            f"`edge_kind` {kind!r} has no edges; the kinds that have some are "
            f"{_text.names(sorted(set(kinds))) or 'none'}"
        )
    of_kind = np.asarray([name == kind for name in kinds])
    return np.flatnonzero(of_kind[columns.edge_class])


def _members(layout: Layout, array: int, shape: tuple[int, ...]) -> np.ndarray:
    """The nodes of one shape that live in an array."""
    nodes, columns = layout.members[array], layout.columns
    fits = np.asarray([node_class.shape == shape for node_class in columns.node_classes])
    return nodes[fits[columns.node_class[nodes]]]


def _leaf_names(places: Sequence[tuple[str, tuple[int, ...]]]) -> list[str]:
    """A name for each array and shape: that of the array, with the shape where it has several."""
    arrays = [array for array, _ in places]
    names: list[str] = []
    for array, shape in places:
        name = array if arrays.count(array) == 1 else f"{array}{shape}"
        while name in names:  # an array may be called what another one with a shape is
            name += "'"
        names.append(name)
    return names


def _numbers(columns: Columns, edges: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """The numbers that all of some edges have, by name."""
    numbers = {}
    for name, (values, given) in columns.attributes.items():
        if given is None or given[edges].all():
            exact = values[edges].astype(np.float64)
            numbers[name] = np.asarray(cast(f"edge attribute {name!r}", exact, dtype))
    return numbers


def to_jraph(graph: KindGraph, arrays: Mapping[str, Array], batch: int) -> "jraph.GraphsTuple":
    """The arrays of a state as a batch of graphs, one a sample."""
    leaves = {}
    for name, leaf in graph.leaves.items():
        nodes = _as_rows(arrays, leaf).at[leaf.rows].get(mode="fill", fill_value=0)
        leaves[name] = jnp.moveaxis(nodes, -1, 0).reshape(-1, *leaf.shape)
    # jraph numbers the nodes of a batch through: those of a sample follow those of the one before
    count = len(graph.nodes)
    first = count * jnp.arange(batch, dtype=jnp.int32)[:, None]
    numbers = {name: jnp.tile(values, batch) for name, values in graph.numbers.items()}
    return jraph.GraphsTuple(
        nodes=leaves if len(leaves) > 1 else leaves.popitem()[1],
        edges=numbers or None,
        receivers=(first + graph.receivers).ravel(),
        senders=(first + graph.senders).ravel(),
        globals=None,
        n_node=jnp.full(batch, count, jnp.int32),
        n_edge=jnp.full(batch, len(graph.senders), jnp.int32),
    )


@checks.by_hand
def from_jraph(
    graph: KindGraph, arrays: Mapping[str, Array], batch: int, graphs: "jraph.GraphsTuple"
) -> dict[str, Array]:
    """The arrays of a state with the nodes of a batch of graphs written into them."""
    advice = "give what graphs_tuple gives, with other nodes"
    graphs = checks.instance("graphs", graphs, jraph.GraphsTuple, "a jraph.GraphsTuple", advice)
    written, count = dict(arrays), len(graph.nodes)
    for name, (what, given) in _features(graph, graphs.nodes).items():
        leaf = graph.leaves[name]
        nodes = checked(what, given, leaf.shape, leaf.array.dtype, batch * count)
        nodes = jnp.moveaxis(nodes.reshape(batch, count, *leaf.shape), 0, -1)
        rows = _as_rows(written, leaf).at[leaf.rows].set(nodes, mode="drop")
        array = leaf.array.name
        written[array] = rows.reshape(written[array].shape)
    return written


def _features(graph: KindGraph, nodes: Any) -> dict[str, tuple[str, Any]]:
    """By leaf, the words for it in an error and what was given for it."""
    names = list(graph.leaves)
    if len(names) == 1:
        return {names[0]: ("`graphs.nodes`", nodes)}
    if not isinstance(nodes, Mapping) or set(nodes) != set(names):
        came = f"keys {_text.names(nodes)}" if isinstance(nodes, Mapping) else checks.came(nodes)
        raise ValueError(
            f"`graphs.nodes` is a dict with the keys {_text.names(names)}, but got {came}; give "
            "features for each, as graphs_tuple does"
        )
    return {name: (f"`graphs.nodes[{name!r}]`", nodes[name]) for name in names}


def _as_rows(arrays: Mapping[str, Array], leaf: Leaf) -> Array:
    """The array of a leaf as a sequence of rows, `(rows, *item, B)`."""
    array = arrays[leaf.array.name]
    return array.reshape(leaf.array.rows, *leaf.array.item, array.shape[-1])
