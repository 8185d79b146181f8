"""The state of any topology: a few global arrays, and nodes as views of them."""

from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Shaped

from darnax import _text
from darnax.states.state import State, allocate, as_array, cast, checked, layers
from darnax.states.subgraph import Subgraph, subgraph
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology


@jax.tree_util.register_pytree_with_keys_class
class Arrays(Mapping):
    """The global arrays of a state by name, batch last; an immutable mapping and a pytree."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], values: tuple):
        self._names, self._values = names, values

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(f"there is no array {name!r}; the arrays are {_text.names(self._names)}")
        return self._values[self._names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Arrays({dict(self)!r})"

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

    An array is `(n, *shape, B)` for n nodes of equal kind, shape and dtype, and `(*shape, B)` for a declared
    shared one; `state[node]` hands out `(B, *shape)`. Where views overlap, writing one writes what the others
    see. On a `topologies.sequential` it answers every call as `SequentialState` does.

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
    topology: Topology = eqx.field(static=True)

    def __init__(self, topology: Any, batch_size: Any = 1):
        if not isinstance(topology, Topology):
            came = type(topology).__name__
            raise TypeError(f"`topology` is a darnax.Topology, but got {came}; compile a graph as Topology(graph)")
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueError(f"`batch_size` is an int of at least 1, but got {batch_size!r}; give one")
        self.topology = topology
        zeros = [allocate((*spec.shape, int(batch_size)), spec.dtype) for spec in topology.arrays.values()]
        self.arrays = Arrays(tuple(topology.arrays), tuple(zeros))

    @property
    def batch_size(self) -> int:
        """How many samples are held."""
        return jax.tree.leaves(self.arrays)[0].shape[-1]

    def __getitem__(self, key: Any) -> Shaped[Array, "batch *shape"]:
        view = self.topology.view(self._node(key))
        return jnp.moveaxis(self.arrays[view.array][view.index], -1, 0)

    def __iter__(self) -> Iterator[Name]:
        return iter(self.topology.nodes)

    def __len__(self) -> int:
        return len(self.topology)

    def __contains__(self, key: object) -> bool:
        return self._node(key) in self.topology

    @property
    def readout(self) -> Any:
        """The output's buffer; with several outputs a mapping from their names to their buffers."""
        outputs = self.topology.outputs
        if not outputs:
            raise ValueError("there is no `readout`: the topology has no outputs; give Topology(..., outputs=[...])")
        return self[outputs[0]] if len(outputs) == 1 else {name: self[name] for name in outputs}

    def init(self, x: Any, y: Any = None) -> "GraphState":
        """Inputs set to `x`, outputs to `y` if given, zeros elsewhere, all in the batch of `x`.

        `x` and `y` are arrays `(B, *shape)` for the only input and output, or mappings from any nodes to
        such. Raises `ValueError` or `TypeError` if a name, shape, dtype or batch is wrong or two values
        meet on a cell.
        """
        values = self._named("x", x, self.topology.inputs)
        values += [] if y is None else self._named("y", y, self.topology.outputs)
        if not values:
            raise ValueError("`x` is empty and gives no batch; give a value, or use GraphState(topology, batch_size)")
        fresh = self._all_checked(values, None)
        return GraphState(self.topology, len(next(iter(fresh.values()))))._write(fresh)

    def replace(self, value: Any) -> "GraphState":
        """Buffers replaced: all by what `.arrays` gives, or some by a mapping from nodes to `(B, *shape)`.

        A topology whose nodes are the numbers 0 to L-1 also takes a list of L buffers, as `SequentialState`
        does. A mapping keeps the batch of the state; the other two may bring another.
        """
        if isinstance(value, Arrays):
            return self._from_arrays(value)
        if isinstance(value, Mapping):
            return self._write(self._all_checked(self._named("value", value), self.batch_size))
        if not isinstance(self.topology.nodes, range):
            raise TypeError(
                "`value` is what `.arrays` gives or a mapping from nodes to arrays, but got "
                f"{type(value).__name__}; lists are for nodes 0 to L-1"
            )
        fresh = self._all_checked([(f"`value[{i}]`", i, v) for i, v in enumerate(layers(value, len(self)))], None)
        return GraphState(self.topology, len(fresh[0]))._write(fresh)

    def replace_val(self, key: Any, value: Any) -> "GraphState":
        """The buffer of one node replaced by `value: (B, *shape)`, of the same batch."""
        node = self._node(key)
        self.topology.index(node)
        return self._write(self._all_checked([(f"`value` for node {node!r}", node, value)], self.batch_size))

    def graphs_tuple(self, edge_kind: Any) -> jraph.GraphsTuple:
        """The edges of one kind as a batch of B jraph graphs, one a sample.

        `nodes` is `(B * N, *shape)`: all N nodes of the array in which the edges begin and end, in the
        order of drawing, sample after sample. Edges stand in the order of `topology.edges`; `edges` and
        `globals` are None. Raises `ValueError` if there is no such kind or if its ends lie in several
        arrays.

        !!! example

            ```python
            graphs = state.graphs_tuple("lateral")
            graphs = jraph.GraphConvolution(lambda nodes: nodes @ weights)(graphs)
            state = state.from_graphs_tuple("lateral", graphs)
            ```
        """
        graph, batch = subgraph(self.topology, edge_kind), self.batch_size
        nodes = jnp.moveaxis(self._rows(graph)[graph.rows], -1, 0)
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

    def from_graphs_tuple(self, edge_kind: Any, graphs: Any) -> "GraphState":
        """The state with the `nodes` of `graphs`, which came from `graphs_tuple(edge_kind)`, written back.

        Raises `ValueError` or `TypeError` if their number, shape or dtype is another, or if views overlap.
        """
        graph, batch = subgraph(self.topology, edge_kind), self.batch_size
        self._refuse_overlaps([self.topology.nodes[i] for i in graph.nodes] if graph.shared else [])
        nodes = checked("`graphs.nodes`", graphs.nodes, graph.shape, graph.dtype, batch * len(graph.nodes))
        nodes = jnp.moveaxis(nodes.reshape(batch, len(graph.nodes), *graph.shape), 0, -1)
        rows = self._rows(graph).at[graph.rows].set(nodes)
        return self._with({**self.arrays, graph.array: rows.reshape(self.arrays[graph.array].shape)})

    def _rows(self, graph: Subgraph):
        item = self.topology.arrays[graph.array].item
        return self.arrays[graph.array].reshape(-1, *item, self.batch_size)

    def _node(self, key: Any) -> Any:
        nodes = self.topology.nodes
        negative = isinstance(nodes, range) and isinstance(key, (int, np.integer)) and -len(nodes) <= key < 0
        return int(key) + len(nodes) if negative else key

    def _named(self, argument: str, value: Any, default: tuple = ()) -> list[tuple[str, Name, Any]]:
        """What to call each value in an error, its node, and the value."""
        if isinstance(value, Mapping):
            nodes = [self._node(key) for key in value]
            self.topology.indices(argument, nodes)
            return [(f"`{argument}` for node {n!r}", n, v) for n, v in zip(nodes, value.values(), strict=True)]
        if len(default) != 1:
            which = {"x": "inputs", "y": "outputs"}[argument]
            have = f"the {which} {_text.names(default)}" if default else f"no {which}"
            raise ValueError(f"the topology has {have}; give `{argument}` as a mapping from nodes to arrays")
        return [(f"`{argument}` for node {default[0]!r}", default[0], value)]

    def _all_checked(self, values: list[tuple[str, Name, Any]], batch: int | None) -> dict:
        """Buffers of one batch by node, no two of them on one cell."""
        self._refuse_overlaps([node for _, node, _ in values])
        fresh = {}
        for what, node, value in values:
            cls = self.topology.node_class(self.topology.index(node))
            fresh[node] = checked(what, value, cls.shape, cls.dtype, batch)
            batch = len(fresh[node])
        return fresh

    def _refuse_overlaps(self, nodes: list):
        """Two values for one cell: only one could be kept."""
        if len(set(nodes)) < len(nodes):
            raise ValueError(f"some node is set twice: {_text.names(nodes)}; give each value once")
        clash = self.topology.layout.clashing(np.asarray([self.topology.index(node) for node in nodes], np.int64))
        if clash:
            who = _text.names(self.topology.nodes[i] for i in clash)
            raise ValueError(
                f"nodes {who} overlap on a shared array, so that one value would overwrite another; "
                "set one of them, or write one after another with replace_val"
            )

    def _write(self, values: dict) -> "GraphState":
        """Buffers that were checked, written into their arrays; many rows of one array in one operation."""
        arrays = dict(self.arrays)
        rows: dict[str, list] = {}
        for node, value in values.items():
            view = self.topology.view(node)
            if self.topology.arrays[view.array].shared:
                arrays[view.array] = arrays[view.array].at[view.index].set(jnp.moveaxis(value, 0, -1))
            else:
                rows.setdefault(view.array, []).append((view.index[0], value))
        for name, pairs in rows.items():
            pairs.sort(key=lambda pair: pair[0])
            at = np.asarray([row for row, _ in pairs], np.int32)
            stacked = jnp.moveaxis(jnp.stack([value for _, value in pairs]), 1, -1)
            whole = len(at) == self.topology.arrays[name].rows
            arrays[name] = stacked if whole else arrays[name].at[at].set(stacked)
        return self._with(arrays)

    def _from_arrays(self, value: Arrays) -> "GraphState":
        specs = self.topology.arrays
        if tuple(value) != tuple(specs):
            raise ValueError(
                f"`value` has the arrays {_text.names(value)}, but the topology has {_text.names(specs)}; "
                "give the arrays of a state of this topology"
            )
        given = {name: as_array(f"`value[{name!r}]`", array) for name, array in value.items()}
        batches = sorted({array.shape[-1] if array.ndim else 0 for array in given.values()})
        if len(batches) > 1 or not batches[0]:
            raise ValueError(
                f"`value` has arrays of batch {batches}; give all one batch of at least 1, as the last axis"
            )
        for name, array in given.items():
            if array.shape[:-1] != specs[name].shape:
                expected = (*specs[name].shape, batches[0])
                raise ValueError(
                    f"`value[{name!r}]` has shape {expected}, batch last, but got {array.shape}; reshape it"
                )
        return self._with({n: cast(f"`value[{n!r}]`", a, jnp.dtype(specs[n].dtype)) for n, a in given.items()})

    def _with(self, arrays: Mapping[str, Any]) -> "GraphState":
        return jax.tree.unflatten(jax.tree.structure(self), [arrays[name] for name in self.topology.arrays])
