"""The state of any topology: a few global arrays, and nodes as views of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax._lazy import Lazy
from darnax.states import cells
from darnax.states.state import State, check_width
from darnax.states.subgraph import Subgraph, subgraph
from darnax.states.values import as_array, cast, checked, layers
from darnax.topologies.names import Name
from darnax.topologies.tables import parse_number
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")


@jax.tree_util.register_pytree_with_keys_class
class Arrays(Mapping):
    """The global arrays of a state by name, batch last; an immutable mapping and a pytree."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], values: tuple):
        self._names, self._values = names, values

    def __getitem__(self, name: Any) -> Any:
        if not isinstance(name, str) or name not in self._names:
            raise KeyError(
                f"there is no array {checks.came(name)}; the arrays are {_text.names(self._names)}"
            )
        return self._values[self._names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Arrays({{{_text.arrays(self)}}})"

    def tree_flatten_with_keys(self):
        """For JAX."""
        keys = map(jax.tree_util.DictKey, self._names)
        return tuple(zip(keys, self._values, strict=True)), self._names

    def tree_flatten(self):
        """For JAX."""
        return self._values, self._names

    @classmethod
    def tree_unflatten(cls, names, values):
        """For JAX."""
        return cls(names, tuple(values))


class GraphState(State):
    """The state of a whole topology in a few global arrays; keys are node names.

    An array is `(n, *shape, B)` for n nodes of equal kind, shape and dtype, and `(*shape, B)` for a
    declared shared one; `state[node]` hands out `(B, *shape)`. Where views overlap, writing one
    writes what the others see. On a `topologies.sequential` it answers every call as
    `SequentialState` does.

    **Arguments:**

    - `topology`: a `Topology`.
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

    def __init__(self, topology: Any, batch_size: Any = 1):
        advice = "compile a graph as Topology(graph)"
        self.topology = checks.instance("topology", topology, Topology, "a darnax.Topology", advice)
        batch_size = parse_number("batch_size", batch_size)
        check_width(topology.layout.dtypes)
        zeros = cells.zeros_program(topology.layout.sizes, batch_size)
        self.arrays = Arrays(tuple(topology.arrays), tuple(zeros[name] for name in topology.arrays))

    @property
    def batch_size(self) -> int:
        """How many samples are held."""
        return _array(self, next(iter(self.topology.arrays))).shape[-1]

    def __getitem__(self, key: Any) -> Shaped[Array, "batch *shape"]:
        view = self.topology.view(key)
        return cells.read(_array(self, view.array), view.index)

    def __iter__(self) -> Iterator[Name]:
        return iter(self.topology.nodes)

    def __len__(self) -> int:
        return len(self.topology)

    def __contains__(self, key: object) -> bool:
        return key in self.topology

    @property
    def readout(self) -> Any:
        """The output's buffer; with several outputs a mapping from their names to their buffers."""
        outputs = self.topology.outputs
        if not outputs:
            raise ValueError(
                "there is no `readout`: the topology has no outputs; give Topology(..., "
                "outputs=[...])"
            )
        return self[outputs[0]] if len(outputs) == 1 else {name: self[name] for name in outputs}

    def init(self, x: Any, y: Any = None) -> "GraphState":
        """Inputs set to `x`, outputs to `y` if given, zeros elsewhere, all in the batch of `x`.

        `x` and `y` are arrays `(B, *shape)` for the only input and output, or mappings from any
        nodes to such. Raises `ValueError` or `TypeError` if a name, shape, dtype or batch is wrong
        or two values meet on a cell.
        """
        values = _named(self.topology, "x", x, self.topology.inputs)
        values += [] if y is None else _named(self.topology, "y", y, self.topology.outputs)
        if not values:
            raise ValueError(
                "`x` is empty and gives no batch; give a value, or use GraphState(topology, "
                "batch_size)"
            )
        return _fresh(self, _all_checked(self.topology, values, None))

    def replace(self, value: Any) -> "GraphState":
        """Buffers replaced: all by what `.arrays` gives, or some by a mapping from nodes to
        `(B, *shape)`.

        A topology whose nodes are the numbers 0 to L-1 also takes a list of L buffers, as
        `SequentialState` does. A mapping keeps the batch of the state; the other two may bring
        another.
        """
        if isinstance(value, Arrays):
            return _from_arrays(self, value)
        if isinstance(value, Mapping):
            return _write(
                self,
                _all_checked(self.topology, _named(self.topology, "value", value), self.batch_size),
            )
        if not isinstance(self.topology.nodes, range):
            raise TypeError(
                "`value` is what `.arrays` gives or a mapping from nodes to arrays, but got "
                f"{checks.came(value)}; lists are for nodes 0 to L-1"
            )
        values = [(f"`value[{i}]`", i, buffer) for i, buffer in enumerate(layers(value, len(self)))]
        return _fresh(self, _all_checked(self.topology, values, None))

    def replace_val(self, key: Any, value: Any) -> "GraphState":
        """The buffer of one node replaced by `value: (B, *shape)`, of the same batch."""
        at = self.topology.index(key)
        what = f"`value` for node {self.topology.nodes[at]!r}"
        return _write(self, _all_checked(self.topology, [(what, at, value)], self.batch_size))

    @any_rank
    def graphs_tuple(self, edge_kind: Any) -> "jraph.GraphsTuple":
        """The edges of one kind as a batch of B jraph graphs, one a sample.

        `nodes` is `(B * N, *shape)`: all N nodes of the array in which the edges begin and end, in
        the order of drawing, sample after sample. Edges stand in the order of `topology.edges`;
        `edges` and `globals` are None. Raises `ValueError` if there is no such kind or if its ends
        lie in several arrays.

        !!! example

            ```python
            graphs = state.graphs_tuple("lateral")
            graphs = jraph.GraphConvolution(lambda nodes: nodes @ weights)(graphs)
            state = state.from_graphs_tuple("lateral", graphs)
            ```
        """
        graph, batch = subgraph(self.topology, edge_kind), self.batch_size
        nodes = jnp.moveaxis(_rows(self, graph)[graph.rows], -1, 0)
        offset = len(graph.nodes) * jnp.arange(batch, dtype=jnp.int32)[:, None]
        return jraph.GraphsTuple(
            nodes=nodes.reshape(-1, *graph.shape),
            edges=None,
            receivers=(offset + graph.receivers).ravel(),
            senders=(offset + graph.senders).ravel(),
            globals=None,
            n_node=jnp.full(batch, len(graph.nodes), jnp.int32),
            n_edge=jnp.full(batch, len(graph.senders), jnp.int32),
        )

    @any_rank
    def from_graphs_tuple(self, edge_kind: Any, graphs: Any) -> "GraphState":
        """The state with the `nodes` of `graphs`, which came from `graphs_tuple(edge_kind)`,
        written back.

        Raises `ValueError` or `TypeError` if their number, shape or dtype is another, or if views
        overlap.
        """
        graph, batch = subgraph(self.topology, edge_kind), self.batch_size
        if graph.shared:
            _refuse_overlaps(self.topology, graph.nodes.tolist())
        advice = "give what graphs_tuple gives, with other nodes"
        graphs = checks.instance("graphs", graphs, jraph.GraphsTuple, "a jraph.GraphsTuple", advice)
        nodes = checked(
            "`graphs.nodes`", graphs.nodes, graph.shape, graph.dtype, batch * len(graph.nodes)
        )
        nodes = jnp.moveaxis(nodes.reshape(batch, len(graph.nodes), *graph.shape), 0, -1)
        rows = _rows(self, graph).at[graph.rows].set(nodes)
        return _with(
            self, {**self.arrays, graph.array: rows.reshape(self.arrays[graph.array].shape)}
        )


def _rows(state: GraphState, graph: Subgraph):
    item = state.topology.arrays[graph.array].item
    return _array(state, graph.array).reshape(-1, *item, state.batch_size)


def _array(state: GraphState, name: str) -> Any:
    """An array of the state; one with more axes, as `vmap` gives it, is of no state but of a stack
    of them.
    """
    array, axes = state.arrays[name], 1 + len(state.topology.arrays[name].shape)
    if array.ndim != axes:
        raise ValueError(
            f"the state is a stack of states: its array {name!r} has {array.ndim} axes where one "
            f"state has {axes}; take one, as in jax.tree.map(lambda leaf: leaf[0], states), or "
            "work inside jax.vmap"
        )
    return array


def _named(
    topology: Topology, argument: str, value: Any, default: tuple = ()
) -> list[tuple[str, int, Any]]:
    """What to call each value in an error, the position of its node, and the value."""
    nodes = topology.nodes
    if isinstance(value, Mapping):
        places = zip(topology.indices(argument, value), value.values(), strict=True)
        return [(f"`{argument}` for node {nodes[at]!r}", at, given) for at, given in places]
    if len(default) != 1:
        which = {"x": "inputs", "y": "outputs"}[argument]
        have = f"the {which} {_text.names(default)}" if default else f"no {which}"
        raise ValueError(
            f"the topology has {have}; give `{argument}` as a mapping from nodes to arrays, "
            f"but got {checks.came(value)}"
        )
    return [(f"`{argument}` for node {default[0]!r}", topology.index(default[0]), value)]


def _all_checked(
    topology: Topology, values: list[tuple[str, int, Any]], batch: int | None
) -> dict[int, Any]:
    """Buffers of one batch by the position of their node, no two of them on one cell."""
    _refuse_overlaps(topology, [at for _, at, _ in values])
    buffers = {}
    for what, at, value in values:
        cls = topology.node_class(at)
        buffers[at] = checked(what, value, cls.shape, cls.dtype, batch)
        batch = len(buffers[at])
    return buffers


def _refuse_overlaps(topology: Topology, nodes: list[int]):
    """Two values for one cell: only one could be kept."""
    if len(nodes) == 1:
        return
    if len(set(nodes)) < len(nodes):
        twice = [at for at, count in Counter(nodes).items() if count > 1]
        raise ValueError(f"some nodes are set twice: {topology.named(twice)}; give each value once")
    clash = topology.layout.clashing(np.asarray(nodes, np.int64))
    if clash:
        raise ValueError(
            f"nodes {topology.named(clash)} overlap on a shared array, so that one value would "
            "overwrite another; set one of them, or write one after another with replace_val"
        )


def _fresh(state: GraphState, buffers: dict[int, Any]) -> GraphState:
    """A state of the batch of some buffers, with zeros elsewhere."""
    layout, batch = state.topology.layout, len(next(iter(buffers.values())))
    check_width(layout.dtypes)
    return _with(state, cells.fresh(layout.sizes, batch, _writes(state.topology, buffers)))


def _write(state: GraphState, buffers: dict[int, Any]) -> GraphState:
    return _with(state, cells.write(dict(state.arrays), _writes(state.topology, buffers)))


def _writes(topology: Topology, buffers: dict[int, Any]) -> list[cells.Write]:
    """Buffers by array and form of view, so that many are written by one operation."""
    groups: dict[tuple[str, cells.Form], list] = {}
    for at, value in buffers.items():
        view = topology.view_at(at)
        place, form = cells.place_and_form(view.index)
        groups.setdefault((view.array, form), []).append((place, value))
    writes = []
    for (array, form), pairs in groups.items():
        writes += cells.joined(array, form, pairs)
    return writes


def _from_arrays(state: GraphState, value: Arrays) -> GraphState:
    specs = state.topology.arrays
    if tuple(value) != tuple(specs):
        raise ValueError(
            f"`value` has the arrays {_text.names(value)}, but the topology has "
            f"{_text.names(specs)}; give the arrays of a state of this topology"
        )
    given = {name: as_array(f"`value[{name!r}]`", array) for name, array in value.items()}
    batches = sorted({array.shape[-1] if array.ndim else 0 for array in given.values()})
    if len(batches) > 1 or not batches[0]:
        raise ValueError(
            f"`value` has arrays of batch {batches}; give all one batch of at least 1, as the last "
            "axis"
        )
    for name, array in given.items():
        if array.shape[:-1] != specs[name].shape:
            expected = (*specs[name].shape, batches[0])
            raise ValueError(
                f"`value[{name!r}]` has shape {expected}, batch last, but got {array.shape}; "
                "reshape it"
            )
    fresh = {
        name: cast(f"`value[{name!r}]`", array, specs[name].dtype) for name, array in given.items()
    }
    return _with(state, {name: jnp.asarray(array) for name, array in fresh.items()})


def _with(state: GraphState, arrays: Mapping[str, Any]) -> GraphState:
    return jax.tree.unflatten(
        jax.tree.structure(state), [arrays[name] for name in state.topology.arrays]
    )
