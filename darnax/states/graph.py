"""The state of any topology: a few global arrays, and nodes as views of them."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, Shaped
from numpy.typing import ArrayLike

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax._lazy import Lazy
from darnax.states import cells
from darnax.states.arrays import Arrays, checked_arrays
from darnax.states.buffers import Buffers, ByName, Checked
from darnax.states.graphs_tuple import from_jraph, kind_graph, to_jraph
from darnax.states.state import State, check_width
from darnax.states.summary import state_html
from darnax.topologies.lazy_networkx import NxGraph, nx
from darnax.topologies.names import Name
from darnax.topologies.tables import parse_number
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")


class GraphState(State):
    """The state of a whole topology in a few global arrays; keys are node names.

    An array is `(n, *shape, B)` for n nodes of equal kind, shape and dtype, and `(*shape, B)` for a
    declared shared one. A node is an address in one of them, `topology.view(node)`:

        state["a"]        (B, 4)        arrays["hidden(4,)"][0]
        state["b"]        (B, 4)        arrays["hidden(4,)"][1]
        state["patch"]    (B, 3, 3)     arrays["image"][2:5, 2:5]

    The arrays are global because time and compilation are paid for each operation: a thousand nodes
    of one array are updated by one operation, where a thousand buffers would need a thousand. It is
    also what lets views share cells: where views overlap, what is written through one is read
    through the others.

    On a `topologies.sequential` it answers every call as `SequentialState` does.

    **Arguments:**

    - `topology`: a `Topology`, or an annotated graph that is compiled to one.
    - `batch_size`: of the zeros it starts with.

    !!! example

        ```python
        state = dx.GraphState(topology).init(x)
        state = state.replace_val("cortex", jnp.ones((len(x), 100)))
        state["cortex"].shape  # (B, 100)
        ```
    """

    arrays: Arrays
    topology: Topology

    @checks.by_hand
    def __init__(self, topology: Topology | NxGraph, batch_size: int = 1):
        # networkx is imported for a look at what is no topology alone
        if not isinstance(topology, Topology) and isinstance(topology, nx.Graph):
            topology = Topology(topology)
        advice = "compile a graph as Topology(graph)"
        self.topology = checks.instance("topology", topology, Topology, "a darnax.Topology", advice)
        batch_size = parse_number("batch_size", batch_size)
        check_width(topology.layout.dtypes)
        # The program is kept by its arguments: all topologies of these sizes share one compilation.
        zeros = cells.zeros_program(topology.layout.sizes, batch_size)
        names = tuple(topology.arrays)
        self.arrays = Arrays(names, tuple(zeros[name] for name in names))

    @property
    def batch_size(self) -> int:
        """How many samples the state holds."""
        first, *_ = self.topology.arrays
        return _array(self, first).shape[-1]

    @checks.by_hand
    def __getitem__(self, key: Name) -> Shaped[Array, "batch *shape"]:
        view = self.topology.view(key)
        return cells.read(_array(self, view.array), view.index)

    def __iter__(self) -> Iterator[Name]:
        return iter(self.topology.nodes)

    def __len__(self) -> int:
        return len(self.topology)

    def __contains__(self, key: object) -> bool:
        return key in self.topology

    def __repr__(self) -> str:
        nodes, arrays = len(self.topology), len(self.arrays)
        return f"GraphState({nodes} nodes in {arrays} arrays, {_text.arrays(self.arrays)})"

    def _repr_html_(self) -> str:
        """The arrays, who lives in them and what they hold, for notebooks."""
        return state_html(self)

    @property
    def readout(self) -> Array | dict[Name, Array]:
        """The buffer of the output; with several outputs a dict from names to buffers."""
        outputs = self.topology.outputs
        if not outputs:
            raise ValueError(
                "there is no `readout`: the topology has no outputs; give Topology(..., "
                "outputs=[...])"
            )
        if len(outputs) == 1:
            return self[outputs[0]]
        return OrderedDict((name, self[name]) for name in outputs)

    @checks.by_hand
    def init(self, x: ArrayLike | ByName, y: ArrayLike | ByName | None = None) -> "GraphState":
        """Inputs set to `x`, outputs to `y` if given, zeros elsewhere, all in the batch of `x`.

        `x` and `y` are arrays `(B, *shape)` for the only input and output, or mappings from any
        nodes to such. Raises `ValueError` or `TypeError` if a name, shape, dtype or batch is wrong
        or two values meet on a cell.
        """
        topology = self.topology
        inputs, outputs = topology.inputs, topology.outputs
        buffers = _buffers(topology).start(x, y, inputs, outputs)
        return _fresh(self, buffers)

    @checks.by_hand
    def replace(self, value: Arrays | ByName | Iterable[ArrayLike]) -> "GraphState":
        """Buffers replaced: all by what `.arrays` gives, or some by a mapping from nodes.

        The mapping holds arrays `(B, *shape)`, and keeps the batch of the state. A topology whose
        nodes are the numbers 0 to L-1 also takes a list of L buffers, as `SequentialState` does. A
        list, and what `.arrays` gives, may bring another batch.
        """
        topology = self.topology
        buffers = _buffers(topology)
        # `Arrays` is a mapping as well, but from names of arrays, with the batch last.
        if isinstance(value, Arrays):
            return _with(self, checked_arrays(value, topology.arrays))
        if isinstance(value, Mapping):
            return _write(self, buffers.some(value, self.batch_size))
        # A list has no names, and means all nodes in order. So nothing is left of the old arrays,
        # whose batch may be another.
        if isinstance(topology.nodes, range):
            return _fresh(self, buffers.every(value))
        raise TypeError(
            "`value` is what `.arrays` gives or a mapping from nodes to arrays, but got "
            f"{checks.came(value)}; lists are for nodes 0 to L-1"
        )

    @checks.by_hand
    def replace_val(self, key: Name, value: ArrayLike) -> "GraphState":
        """The buffer of node `key` replaced by `value`, of the batch that the state has."""
        node = self.topology.index(key)
        buffers = _buffers(self.topology).one(node, value, self.batch_size)
        return _write(self, buffers)

    def rows(self) -> dict[str, Shaped[Array, "..."]]:
        """Every array as its rows: nodes of a stacked array, cells of a shared one."""
        rows = {}
        for name, spec in self.topology.arrays.items():
            rows[name] = spec.as_rows(self.arrays[name])
        return rows

    @classmethod
    def of_rows(
        cls,
        topology: Topology,
        rows: Mapping[str, Shaped[Array, "..."]],
    ) -> "GraphState":
        """The state of arrays that are given as their rows, all of the topology."""
        arrays: list[Array] = []
        for name, spec in topology.arrays.items():
            batch = rows[name].shape[-1]
            arrays.append(rows[name].reshape(*spec.shape, batch))
        # The constructor would make zeros only to be replaced. States are frozen, so that fields
        # are set past their class.
        state = object.__new__(cls)
        object.__setattr__(state, "topology", topology)
        object.__setattr__(state, "arrays", Arrays(tuple(topology.arrays), tuple(arrays)))
        return state

    def with_rows(self, rows: Mapping[str, Shaped[Array, "..."]]) -> "GraphState":
        """The state with some arrays replaced, given as their rows."""
        return self.of_rows(self.topology, self.rows() | dict(rows))

    @any_rank
    @checks.by_hand
    def graphs_tuple(self, edge_kind: str) -> "jraph.GraphsTuple":
        """The edges of one kind as a batch of B jraph graphs, one a sample.

        The graph has N nodes, in the order of drawing: all nodes of the arrays and shapes in which
        the edges begin and end. Where that is one array and one shape, `nodes` is an array
        `(B * N, *shape)`, sample after sample. Else it is a dict with one such array for each, by
        the name of the array, or by name and shape where views of one array have several shapes;
        rows of nodes that live elsewhere are zero. jraph takes any pytree of features whose leaves
        share the leading axis, so that its models run on such a dict as well; the functions given
        to a model see the dict.

        Edges stand in the order of `topology.edges`. `edges` is a dict of the numbers that all of
        them are drawn with, `(B * E,)` by the name of the attribute, or None if there are none: in
        float32, or in float64 where one of the nodes is. `globals` is None.

        **Arguments:**

        - `edge_kind`: a kind of edges; `ValueError` if no edge is of this kind.

        !!! example

            ```python
            graphs = state.graphs_tuple("lateral")
            graphs = jraph.GraphConvolution(lambda nodes: nodes @ weights)(graphs)
            state = state.from_graphs_tuple("lateral", graphs)
            ```
        """
        graph = kind_graph(self.topology, edge_kind)
        return to_jraph(graph, self.arrays, self.batch_size)

    @any_rank
    @checks.by_hand
    def from_graphs_tuple(self, edge_kind: str, graphs: "jraph.GraphsTuple") -> "GraphState":
        """The state with the `nodes` of `graphs` written back; the inverse of `graphs_tuple`.

        Nothing else of `graphs` is read: edges are no part of a state, nor are the rows of nodes
        that live in another array or shape.

        **Arguments:**

        - `edge_kind`: the kind that `graphs` came from.
        - `graphs`: what `graphs_tuple(edge_kind)` gives, with other nodes.

        Raises `ValueError` or `TypeError` if the number, shape or dtype of nodes is another, or if
        views overlap.
        """
        graph = kind_graph(self.topology, edge_kind)
        _refuse_overlaps(self.topology, graph.nodes)
        arrays = from_jraph(graph, self.arrays, self.batch_size, graphs)
        return _with(self, arrays)


# Functions and no methods: a method of an Equinox module is made into a pytree for each call.


def _buffers(topology: Topology) -> Buffers:
    return Buffers("node", topology.nodes, topology.indices, topology.node_class)


def _array(state: GraphState, name: str) -> Array:
    """An array of the state; a stack of states, as `vmap` returns one, is refused."""
    array = state.arrays[name]
    axes = len(state.topology.arrays[name].shape) + 1
    if array.ndim != axes:
        raise ValueError(
            f"the state is a stack of states: its array {name!r} has {array.ndim} axes where one "
            f"state has {axes}; take one, as in jax.tree.map(lambda leaf: leaf[0], states), or "
            "work inside jax.vmap"
        )
    return array


def _fresh(state: GraphState, buffers: Checked) -> GraphState:
    """A state of the batch of some buffers, with zeros elsewhere."""
    layout = state.topology.layout
    # Once more, for 64-bit mode may have been left since the state was made.
    check_width(layout.dtypes)
    # All buffers have one batch: any of them tells it.
    batch = len(next(iter(buffers.values())))
    writes = _writes(state.topology, buffers)
    return _with(state, cells.fresh(layout.sizes, batch, writes))


def _write(state: GraphState, buffers: Checked) -> GraphState:
    """The state with some buffers written into its arrays."""
    writes = _writes(state.topology, buffers)
    return _with(state, cells.write(dict(state.arrays), writes))


def _with(state: GraphState, arrays: Mapping[str, Array]) -> GraphState:
    """The state with all of its arrays replaced."""
    # Compiled programs give dicts back sorted by name, and a state keeps the order of the topology.
    leaves = [arrays[name] for name in state.topology.arrays]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def _writes(topology: Topology, buffers: Checked) -> list[cells.Write]:
    """Buffers by array and form of view, so that many are written by one operation."""
    _refuse_overlaps(topology, list(buffers))
    groups: dict[tuple[str, cells.Form], list[cells.Placed]] = {}
    for node, buffer in buffers.items():
        view = topology.view_at(node)
        place, form = cells.place_and_form(view.index)
        pairs = groups.setdefault((view.array, form), [])
        pairs.append((place, buffer))
    # Views do not overlap here, so that the order of the writes makes no difference.
    writes: list[cells.Write] = []
    for (array, form), pairs in groups.items():
        writes += cells.joined(array, form, pairs)
    return writes


def _refuse_overlaps(topology: Topology, nodes: Sequence[int] | np.ndarray):
    """Refuse two values for one cell: only one could be kept."""
    # A view names no cell twice, and `replace_val` is given one node in every call.
    if len(nodes) == 1:
        return
    clash = topology.layout.clashing(np.asarray(nodes, np.int64))
    if clash:
        raise ValueError(
            f"nodes {topology.named(clash)} overlap on a shared array, so that one value would "
            "overwrite another; set one of them, or write one after another with replace_val"
        )
