"""Where each node lives: rows of stacked arrays, views of shared ones.

Every array is a sequence of *rows*. In a stacked array a row is one node, `(n, *shape)`; in a
declared shared array, `(*shape)`, a row is one cell. A node's *address* is the array of its rows: a
single number in the first case, an array of the node's own shape in the second. Whatever is done
with rows serves both.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Array, Shaped

from darnax.topologies.columns import Columns, NodeClass, stable_order
from darnax.topologies.views import Index


@dataclass(frozen=True)
class View:
    """Where a node lives: `state.arrays[view.array][view.index]` is its value, batch last."""

    array: str
    index: Index
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ArraySpec:
    """One global array. `shape` is without the batch, which stands last in the state.

    **Fields:**

    - `lead`: the axes that count rows: `(n,)` for `n` stacked nodes, the declared shape for a
      shared array.
    - `item`: the shape of one row: the nodes' shape in a stacked array, `()` in a shared one.
    - `shared`: whether it was declared, so that nodes are views of it.
    """

    name: str
    lead: tuple[int, ...]
    item: tuple[int, ...]
    dtype: str
    shared: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape without the batch."""
        return self.lead + self.item

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return math.prod(self.lead)

    @property
    def field_dtype(self) -> str:
        """Messages and fields are float32 whatever the state is, and float64 where the state is."""
        return "float64" if self.dtype == "float64" else "float32"

    def as_rows(self, array: Shaped[Array, "..."]) -> Shaped[Array, "rows ..."]:
        """The array as its rows, `(rows, *item, B)`."""
        return array.reshape(self.rows, *array.shape[len(self.lead) :])


class Layout:
    """The arrays of a topology, and the address of every node.

    **Fields:**

    - `arrays`: the declared ones first, then the stacked ones in the order in which they are first
      needed.
    - `class_array`: the array of every node class.
    - `first_row`: of every node, its row or the first of its cells.
    """

    def __init__(self, columns: Columns):
        self.columns = columns
        classes, used = columns.node_classes, set(columns.arrays)
        dtypes = {cls.array: cls.dtype for cls in classes}
        self.arrays = [
            ArraySpec(name, shape, (), dtypes.get(name, "float32"), True)
            for name, shape in columns.arrays.items()
        ]
        declared = {name: i for i, name in enumerate(columns.arrays)}
        self.class_array = np.zeros(len(classes), np.int32)
        self.first_row = np.zeros(len(columns.names), np.int32)
        self.members: list[np.ndarray] = [np.zeros(0, np.int64)] * len(declared)
        starts = np.cumsum(np.bincount(columns.node_class))[:-1]
        for i, nodes in enumerate(np.split(stable_order(columns.node_class), starts)):
            cls = classes[i]
            if cls.array is not None:
                self.class_array[i] = at = declared[cls.array]
                self.members[at] = np.union1d(self.members[at], nodes)
                self.first_row[nodes] = [self._first_cell(node) for node in nodes.tolist()]
                continue
            self.class_array[i] = len(self.arrays)
            name = _free_name(cls, used)
            self.arrays.append(ArraySpec(name, (len(nodes),), cls.shape, cls.dtype, False))
            self.members.append(nodes)
            self.first_row[nodes] = np.arange(len(nodes))

    @cached_property
    def node_array(self) -> np.ndarray:
        """The array of every node, as a position in `arrays`."""
        return self.class_array[self.columns.node_class]

    @cached_property
    def sizes(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Name, shape and dtype of every array."""
        return tuple((spec.name, spec.shape, spec.dtype) for spec in self.arrays)

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that arrays have, each once."""
        return tuple(dict.fromkeys(spec.dtype for spec in self.arrays))

    def _first_cell(self, node: int) -> int:
        """The first cell of a view, without a look at the others: there may be millions."""
        cls = self.columns.node_classes[self.columns.node_class[node]]
        starts = [
            part if isinstance(part, int) else part.start for part in self.columns.views[node]
        ]
        return (
            int(np.ravel_multi_index(starts, self.columns.arrays[str(cls.array)])) if starts else 0
        )

    def cells(self, node: int | np.integer) -> np.ndarray:
        """The cells of a view, in its shape, as rows of its shared array."""
        cls = self.columns.node_classes[self.columns.node_class[node]]
        shape, rows = self.columns.arrays[str(cls.array)], np.zeros((), np.int32)
        for axis, part in enumerate(self.columns.views[int(node)]):
            along = (
                part
                if isinstance(part, int)
                else np.arange(part.start, part.stop, part.step, dtype=np.int32)
            )
            rows = (rows if isinstance(part, int) else rows[..., None]) + along * math.prod(
                shape[axis + 1 :]
            )
        return np.asarray(rows, np.int32)

    def address(self, nodes: np.ndarray) -> np.ndarray:
        """The addresses `(len(nodes), *lead)` of nodes that agree in array and shape."""
        if len(nodes) and self.arrays[self.node_array[nodes[0]]].shared:
            return np.stack([self.cells(node) for node in nodes])
        return self.first_row[nodes]

    def rows_of(self, nodes: np.ndarray) -> dict[int, np.ndarray]:
        """For every array that any of the nodes lives in, the rows they cover, sorted."""
        nodes = np.asarray(nodes, np.int64)
        result = {}
        for at in np.unique(self.node_array[nodes]).tolist():
            here = nodes[self.node_array[nodes] == at]
            parts = (
                [self.cells(node).ravel() for node in here]
                if self.arrays[at].shared
                else [self.first_row[here]]
            )
            result[at] = np.unique(np.concatenate(parts))
        return result

    def covering(self, rows: dict[int, np.ndarray]) -> np.ndarray:
        """Which nodes, of all, cover any of some rows of some arrays."""
        result = np.zeros(len(self.columns.names), bool)
        for at, some in rows.items():
            spec, members = self.arrays[at], self.members[at]
            wanted = np.zeros(spec.rows, bool)
            wanted[some] = True
            if spec.shared:
                result[members] = [wanted[self.cells(node)].any() for node in members.tolist()]
            else:
                result[members] = wanted[self.first_row[members]]
        return result

    @cached_property
    def blocks(self) -> list[np.ndarray]:
        """For every array the block of each row: views that overlap, even through others, are one
        block.

        Blocks are numbered by their first row; -1 marks cells that no node covers. In a stacked
        array every row is a block of its own.
        """
        result = []
        for spec, members in zip(self.arrays, self.members, strict=True):
            if not spec.shared or not len(members):
                result.append(np.arange(spec.rows) if not spec.shared else np.full(spec.rows, -1))
                continue
            cells = [self.cells(node).ravel() for node in members]
            owner = np.repeat(np.arange(len(members)), [len(part) for part in cells])
            result.append(_connected(np.concatenate(cells), owner, spec.rows, len(members)))
        return result

    @cached_property
    def overlaps(self) -> list[np.ndarray]:
        """The nodes of every block that has more than one."""
        result = []
        for at, (spec, members) in enumerate(zip(self.arrays, self.members, strict=True)):
            if spec.shared and len(members):
                block = self.blocks[at][self.first_row[members]]
                parts = np.split(members[stable_order(block)], np.cumsum(np.bincount(block))[:-1])
                result += [part for part in parts if len(part) > 1]
        return result

    def clashing(self, nodes: np.ndarray) -> list[int]:
        """Those of the nodes that share a cell with another of them."""
        result = []
        for at, spec in enumerate(self.arrays):
            here = nodes[self.node_array[nodes] == at] if spec.shared else nodes[:0]
            if len(here) > 1:
                cells = [self.cells(node).ravel() for node in here.tolist()]
                users = np.bincount(np.concatenate(cells))
                result += [
                    node
                    for node, part in zip(here.tolist(), cells, strict=True)
                    if users[part].max() > 1
                ]
        return result


def _free_name(cls: NodeClass, used: set[str]) -> str:
    name = f"{cls.kind}{cls.shape}" + ("" if cls.dtype == "float32" else cls.dtype)
    while name in used:
        name += "'"
    used.add(name)
    return name


def _connected(rows: np.ndarray, nodes: np.ndarray, n_rows: int, n_nodes: int) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix(
        (np.ones(len(rows), np.int8), (rows, n_rows + nodes)), shape=(n_rows + n_nodes,) * 2
    )
    label = connected_components(links, directed=False)[1][:n_rows]
    covered = np.unique(rows)
    _, first, inverse = np.unique(label[covered], return_index=True, return_inverse=True)
    result = np.full(n_rows, -1)
    result[covered] = np.argsort(np.argsort(first))[inverse]
    return result
