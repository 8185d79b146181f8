"""Where each node lives: arrays, rows, views and blocks.

The state of a network is a few global arrays. **A node is an address in one of them**, so that all
edges of a kind run as one operation on whole arrays, however many nodes there are.

    stacked array (3, 2, B)            shared array (6, B)

    row 0  a  [ . . . . . ]            row 0  [ . . . . . ] ┐
              [ . . . . . ]            row 1  [ . . . . . ] │ left
    row 1  b  [ . . . . . ]            row 2  [ . . . . . ] ┘ ┐
              [ . . . . . ]            row 3  [ . . . . . ]   │ right
    row 2  c  [ . . . . . ]            row 4  [ . . . . . ]   ┘
              [ . . . . . ]            row 5  [ . . . . . ]
                 batch                           batch

- **Rows.** An array is a sequence of rows. In a *stacked* array, `(n, *shape, B)`, a row is a node:
  all nodes of one kind, shape and dtype that were given no array. In a *shared* array,
  `(*shape, B)`, which the user declares, a row is a cell, and nodes are *views*: any cells of it.
  The address of a node is one row, or an array of rows in the shape of the view. Code that moves
  rows serves both.
- **The batch stands last.** A message-passing step gathers the rows of neighbours, and a row is
  then a contiguous piece of memory with all samples side by side. With the batch first every
  gather picks single numbers: measured, 2 to 20 times as slow, and transposing in every step costs
  four times as much.
- **Views may overlap.** A cell is one unit, whoever looks at it. Messages to all views that cover
  it are added on its row, and it is updated once.
- **Blocks.** Views that overlap, even through others, are one block ("left" and "right" above). A
  schedule never splits a block: a cell cannot move with one of its nodes and wait with another.

The order of rows is the library's own. Users see names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from darnax.topologies.tables import Columns, NodeClass, stable_order
from darnax.topologies.views import ViewIndex, first_cell, index_cells, index_to_json


@dataclass(frozen=True, eq=False)
class View:
    """Where a node lives: `state.arrays[view.array][view.index]` is its value, batch last.

    **Fields:**

    - `index`: ints and slices, or where the view was given by lists or masks one integer array an
      axis.
    - `shape`: of the node, without the batch.
    """

    array: str
    index: ViewIndex
    shape: tuple[int, ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, View) or self.array != other.array:
            return False
        return self.shape == other.shape and index_to_json(self.index) == index_to_json(other.index)

    def __hash__(self) -> int:
        return hash((self.array, self.shape))


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


class Layout:
    """The arrays of a topology, and the address of every node.

    **Fields:**

    - `arrays`: the declared ones first, then the stacked ones in the order of first use.
    - `members`: the nodes of every array, sorted.
    - `class_array`: the array of every node class, as a position in `arrays`.
    - `first_row`: of every node its row, or the first cell of a view in the view's own order.
    """

    def __init__(self, columns: Columns):
        self.columns = columns
        self.arrays = _shared_arrays(columns)
        self.class_array = np.zeros(len(columns.node_classes), np.int32)
        self.first_row = np.zeros(len(columns.names), np.int32)
        self.members: list[np.ndarray] = [np.zeros(0, np.int64)] * len(self.arrays)
        shared = {spec.name: i for i, spec in enumerate(self.arrays)}
        used_names = set(shared)
        for i, nodes in enumerate(_nodes_by_class(columns)):
            node_class = columns.node_classes[i]
            if node_class.array is not None:
                array = shared[node_class.array]
                self.members[array] = np.union1d(self.members[array], nodes)
                self.first_row[nodes] = [self._first_cell(node) for node in nodes.tolist()]
            else:
                array = len(self.arrays)
                name = _free_name(node_class, used_names)
                lead, item, dtype = (len(nodes),), node_class.shape, node_class.dtype
                self.arrays.append(ArraySpec(name, lead, item, dtype, shared=False))
                self.members.append(nodes)
                self.first_row[nodes] = np.arange(len(nodes))
            self.class_array[i] = array

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

    def _array_of(self, node: int | np.integer) -> ArraySpec:
        return self.arrays[self.node_array[node]]

    def _first_cell(self, node: int) -> int:
        node_class = self.columns.node_classes[self.columns.node_class[node]]
        assert node_class.array is not None
        return first_cell(self.columns.views[node], self.columns.arrays[node_class.array])

    def cells(self, node: int | np.integer) -> np.ndarray:
        """The cells of a view, in its shape, as rows of its shared array."""
        return index_cells(self.columns.views[int(node)], self._array_of(node).lead)

    def address(self, nodes: np.ndarray) -> np.ndarray:
        """The addresses `(len(nodes), *lead)` of nodes that agree in array and shape."""
        if len(nodes) and self._array_of(nodes[0]).shared:
            return np.stack([self.cells(node) for node in nodes])
        return self.first_row[nodes]

    def _cells_of_each(self, nodes: np.ndarray) -> list[np.ndarray]:
        return [self.cells(node).ravel() for node in nodes]

    def rows_of(self, nodes: np.ndarray) -> dict[int, np.ndarray]:
        """For every array that any of the nodes lives in, the rows they cover, sorted."""
        nodes = np.asarray(nodes, np.int64)
        rows = {}
        for array in np.unique(self.node_array[nodes]).tolist():
            here = nodes[self.node_array[nodes] == array]
            if self.arrays[array].shared:
                rows[array] = np.unique(np.concatenate(self._cells_of_each(here)))
            else:
                rows[array] = np.unique(self.first_row[here])
        return rows

    def covering(self, rows: dict[int, np.ndarray]) -> np.ndarray:
        """Which nodes, of all, cover any of some rows of some arrays."""
        result = np.zeros(len(self.columns.names), bool)
        for array, some in rows.items():
            spec = self.arrays[array]
            members = self.members[array]
            wanted = np.zeros(spec.rows, bool)
            wanted[some] = True
            if spec.shared:
                result[members] = [wanted[cells].any() for cells in self._cells_of_each(members)]
            else:
                result[members] = wanted[self.first_row[members]]
        return result

    @cached_property
    def blocks(self) -> list[np.ndarray]:
        """For every array the block of each row, numbered by first row; -1 where no node is.

        In a stacked array every row is a block of its own.
        """
        result = []
        for spec, members in zip(self.arrays, self.members, strict=True):
            if spec.shared:
                result.append(_connected(self._cells_of_each(members), spec.rows))
            else:
                result.append(np.arange(spec.rows))
        return result

    @cached_property
    def overlaps(self) -> list[np.ndarray]:
        """The nodes of every block that has more than one."""
        result = []
        for spec, members, blocks in zip(self.arrays, self.members, self.blocks, strict=True):
            if spec.shared:
                block = blocks[self.first_row[members]]
                ends = np.cumsum(np.bincount(block))
                parts = np.split(members[stable_order(block)], ends[:-1])
                result += [part for part in parts if len(part) > 1]
        return result

    def clashing(self, nodes: np.ndarray) -> list[int]:
        """Those of the nodes that share a cell with another of them."""
        result = []
        for array, spec in enumerate(self.arrays):
            here = nodes[self.node_array[nodes] == array]
            if not spec.shared or len(here) < 2:
                continue
            cells = self._cells_of_each(here)
            users = np.bincount(np.concatenate(cells))
            for node, own in zip(here.tolist(), cells, strict=True):
                if users[own].max() > 1:
                    result.append(node)
        return result


def _shared_arrays(columns: Columns) -> list[ArraySpec]:
    dtypes = {node_class.array: node_class.dtype for node_class in columns.node_classes}
    specs = []
    for name, shape in columns.arrays.items():
        specs.append(ArraySpec(name, shape, (), dtypes.get(name, "float32"), shared=True))
    return specs


def _nodes_by_class(columns: Columns) -> list[np.ndarray]:
    """The nodes of every class, sorted."""
    ends = np.cumsum(np.bincount(columns.node_class))
    return np.split(stable_order(columns.node_class), ends[:-1])


def _free_name(node_class: NodeClass, used: set[str]) -> str:
    name = f"{node_class.kind}{node_class.shape}"
    if node_class.dtype != "float32":
        name += node_class.dtype
    while name in used:
        name += "'"
    used.add(name)
    return name


def _connected(cells: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """The block of each row of a shared array, given the cells of its views."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    blocks = np.full(rows, -1)
    if not cells:
        return blocks
    # A graph with a vertex a row and one a view, and a link from each view to each of its cells:
    # its connected components are the blocks.
    ends = np.concatenate(cells)
    views = np.repeat(np.arange(len(cells)), [len(own) for own in cells])
    size = rows + len(cells)
    links = coo_matrix((np.ones(len(ends), np.int8), (ends, rows + views)), shape=(size, size))
    component = connected_components(links, directed=False)[1]
    covered = np.unique(ends)
    _, first, inverse = np.unique(component[covered], return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))  # components by their first row
    blocks[covered] = number[inverse]
    return blocks
