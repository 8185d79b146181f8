"""The state of any topology: a few global arrays, and nodes as views of them."""

from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from darnax import _text
from darnax.states.state import State, allocate, checked
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

    An array is `(n, *shape, B)` for n nodes of equal kind, shape and dtype, and `(*shape, B)` for a declared shared one;
    `state[node]` hands out `(B, *shape)`. Where views overlap, writing one writes what the others see. On a
    `topologies.sequential` it answers every call as `SequentialState` does.

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

    def __init__(self, topology: Topology, batch_size: int = 1):
        if not isinstance(topology, Topology):
            raise TypeError(f"`topology` is a darnax.Topology, but got {type(topology).__name__}; compile a graph with it")
        if batch_size < 1:
            raise ValueError(f"`batch_size` is at least 1, but got {batch_size}")
        self.topology = topology
        specs = topology.arrays
        self.arrays = Arrays(tuple(specs), tuple(allocate((*s.shape, batch_size), s.dtype) for s in specs.values()))

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
            raise ValueError("there is no readout: the topology names no outputs; give Topology(..., outputs=[...])")
        return self[outputs[0]] if len(outputs) == 1 else {name: self[name] for name in outputs}

    def init(self, x: Any, y: Any = None) -> "GraphState":
        """Inputs set to `x`, outputs to `y` if given, zeros elsewhere, all in the batch of `x`.

        `x` and `y` are arrays `(B, *shape)` for the only input and output, or mappings from any node names to such.
        Raises `ValueError` or `TypeError` if a name, shape, dtype or batch is wrong, or two values fall on one cell.
        """
        values = self._named("x", x, self.topology.inputs)
        targets = {} if y is None else self._named("y", y, self.topology.outputs)
        if not values:
            raise ValueError("`x` is empty, so that there is no batch to take; GraphState(topology, batch_size) gives zeros")
        self._refuse_overlaps([*values, *targets])
        batch = None
        fresh = {}
        for argument, mapping in (("x", values), ("y", targets)):
            for node, value in mapping.items():
                fresh[node] = self._checked(f"`{argument}` for node {node!r}", node, value, batch)
                batch = len(fresh[node])
        return GraphState(self.topology, batch or 1)._write(fresh)

    def replace(self, value: Any) -> "GraphState":
        """Buffers replaced: all of them by what `.arrays` gives, or some by a mapping from nodes to `(B, *shape)`.

        A topology whose nodes are the numbers 0 to L-1 also takes a list of L buffers, as `SequentialState` does. A
        mapping keeps the batch of the state; the other two may bring another.
        """
        if isinstance(value, Arrays):
            return self._from_arrays(value)
        if isinstance(value, Mapping):
            nodes = [self._node(key) for key in value]
            self.topology.indices("value", nodes)
            self._refuse_overlaps(nodes)
            return self._write(
                {n: self._checked(f"`value` for node {n!r}", n, v, self.batch_size) for n, v in zip(nodes, value.values(), strict=True)}
            )
        value = list(value)
        if not isinstance(self.topology.nodes, range):
            raise TypeError("`value` is what `.arrays` gives or a mapping from nodes to arrays; lists are for nodes 0 to L-1")
        if len(value) != len(self):
            raise ValueError(f"`value` holds one array a layer, {len(self)} in all, but got {len(value)}")
        self._refuse_overlaps(list(self))
        fresh = {0: self._checked("`value[0]`", 0, value[0], None)}
        batch = len(fresh[0])
        fresh |= {i: self._checked(f"`value[{i}]`", i, value[i], batch) for i in range(1, len(self))}
        return GraphState(self.topology, batch)._write(fresh)

    def replace_val(self, key: Any, value: Any) -> "GraphState":
        """The buffer of one node replaced by `value: (B, *shape)`, of the same batch."""
        node = self._node(key)
        self.topology.index(node)
        return self._write({node: self._checked(f"`value` for node {node!r}", node, value, self.batch_size)})

    def _node(self, key: Any) -> Any:
        nodes = self.topology.nodes
        negative = isinstance(nodes, range) and isinstance(key, (int, np.integer)) and -len(nodes) <= key < 0
        return int(key) + len(nodes) if negative else key

    def _named(self, argument: str, value: Any, default: tuple) -> dict:
        if isinstance(value, Mapping):
            nodes = [self._node(key) for key in value]
            self.topology.indices(argument, nodes)
            return dict(zip(nodes, value.values(), strict=True))
        if len(default) != 1:
            which = {"x": "inputs", "y": "outputs"}[argument]
            have = f"the topology has the {which} {_text.names(default)}" if default else f"the topology has no {which}"
            raise ValueError(f"`{argument}` is a mapping from nodes to arrays where there is not one of them: {have}")
        return {default[0]: value}

    def _refuse_overlaps(self, nodes: list):
        """Two values for one cell: only one could be kept."""
        at = [self.topology.index(node) for node in nodes]
        if len(set(at)) < len(at):
            raise ValueError(f"some node is set twice: {_text.names(nodes)}; give each value once")
        at = [i for i in at if self.topology.array_of(i).shared]
        layout = self.topology.layout
        for block in layout.overlaps if at else ():
            members = [i for i in at if i in set(block.tolist())]
            cells = [layout.cells(i) for i in members]
            if sum(part.size for part in cells) > len(set().union(*(part.ravel().tolist() for part in cells))):
                raise ValueError(
                    f"nodes {_text.names(self.topology.nodes[i] for i in members)} overlap on a shared array, so that one "
                    "value would overwrite another; set one of them, or write one after another with replace_val"
                )

    def _checked(self, what: str, node: Any, value: Any, batch: int | None):
        cls = self.topology.node_class(self.topology.index(node))
        return checked(what, value, cls.shape, cls.dtype, batch)

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
            stacked = jnp.stack([jnp.moveaxis(value, 0, -1) for _, value in pairs])
            at = np.asarray([row for row, _ in pairs], np.int32)
            whole = len(at) == self.topology.arrays[name].rows
            arrays[name] = stacked[np.argsort(at)] if whole else arrays[name].at[at].set(stacked)
        return self._with(arrays)

    def _from_arrays(self, value: Arrays) -> "GraphState":
        specs = self.topology.arrays
        if tuple(value) != tuple(specs):
            raise ValueError(f"`value` holds the arrays {_text.names(value)}, but this topology has {_text.names(specs)}")
        sizes = {array.shape[-1] if array.ndim else 0 for array in value.values()}
        if len(sizes) > 1 or 0 in sizes:
            raise ValueError(f"`value` holds arrays of different batch sizes {sorted(sizes)}, or of 0; the batch stands last")
        fresh = {}
        for name, array in value.items():
            shape = specs[name].shape
            if array.shape[:-1] != shape:
                raise ValueError(f"`value[{name!r}]` has shape {(*shape, *sizes)}, batch last, but got {array.shape}")
            fresh[name] = checked(f"`value[{name!r}]`", jnp.moveaxis(jnp.asarray(array), -1, 0), shape, specs[name].dtype, None)
            fresh[name] = jnp.moveaxis(fresh[name], 0, -1)
        return self._with(fresh)

    def _with(self, arrays: Mapping[str, Any]) -> "GraphState":
        return jax.tree.unflatten(jax.tree.structure(self), [arrays[name] for name in self.topology.arrays])
