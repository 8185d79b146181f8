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
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Array, Shaped

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
        return isinstance(other, View) and self._content() == other._content()

    def _content(self) -> tuple[object, ...]:
        return self.array, self.shape, index_to_json(self.index)

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

    - `arrays`: the declared ones first, then the stacked ones in the order of first use.
    - `members`: the nodes of every array, sorted.
    - `class_array`: the array of every node class, as a position in `arrays`.
    - `first_row`: of every node its row, or the first cell of a view in the view's own order.
    """

    def __init__(self, columns: Columns):
        self.columns = columns
        self.arrays = _shared_arrays(columns)
        self.members = [np.zeros(0, np.int64) for _ in self.arrays]
        self.class_array = np.zeros(len(columns.node_classes), np.int32)
        self.first_row = np.zeros(len(columns.names), np.int32)
        position = {spec.name: i for i, spec in enumerate(self.arrays)}
        nodes_by_class = _split(np.arange(len(columns.names)), columns.node_class)
        for i, nodes in enumerate(nodes_by_class):
            node_class = columns.node_classes[i]
            if node_class.array is None:
                # All nodes of a class are rows of one array, whatever their number: this is why
                # the time to compile does not grow with it.
                array = len(self.arrays)
                name = _free_name(node_class, position)
                position[name] = array
                self.arrays.append(
                    ArraySpec(
                        name=name,
                        lead=(len(nodes),),
                        item=node_class.shape,
                        dtype=node_class.dtype,
                        shared=False,
                    )
                )
                self.members.append(nodes)
                self.first_row[nodes] = np.arange(len(nodes))
            else:
                array = position[node_class.array]
                shape = self.arrays[array].lead
                self.members[array] = np.union1d(self.members[array], nodes)
                for node in nodes.tolist():
                    self.first_row[node] = first_cell(columns.views[node], shape)
            self.class_array[i] = array

    @cached_property
    def node_array(self) -> np.ndarray:
        """The array of every node, as a position in `arrays`."""
        return self.class_array[self.columns.node_class]

    @cached_property
    def sizes(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Name, shape and dtype of every array."""
        sizes = [(spec.name, spec.shape, spec.dtype) for spec in self.arrays]
        return tuple(sizes)

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that arrays have, each once."""
        return tuple(dict.fromkeys(spec.dtype for spec in self.arrays))

    def _array_of(self, node: int | np.integer) -> ArraySpec:
        return self.arrays[self.node_array[node]]

    def cells(self, node: int | np.integer) -> np.ndarray:
        """The cells of a view, in its shape, as rows of its shared array."""
        index = self.columns.views[int(node)]
        return index_cells(index, self._array_of(node).lead)

    def address(self, nodes: np.ndarray) -> np.ndarray:
        """The addresses `(len(nodes), *lead)` of nodes that agree in array and shape."""
        # Stacked rows are known without a loop; views are few.
        if len(nodes) and self._array_of(nodes[0]).shared:
            return np.stack([self.cells(node) for node in nodes])
        return self.first_row[nodes]

    def _rows_by_node(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows that nodes of one array cover, and which of the nodes covers each of them."""
        # Each node of a stacked array covers one row, its own.
        if not len(nodes) or not self._array_of(nodes[0]).shared:
            return self.first_row[nodes], np.arange(len(nodes))
        cells = [self.cells(node).ravel() for node in nodes]
        counts = [len(own) for own in cells]
        return np.concatenate(cells), np.repeat(np.arange(len(nodes)), counts)

    def rows_of(self, nodes: np.ndarray) -> dict[int, np.ndarray]:
        """For every array that any of the nodes lives in, the rows they cover, sorted."""
        nodes = np.asarray(nodes, np.int64)
        result = {}
        for array in np.unique(self.node_array[nodes]).tolist():
            here = nodes[self.node_array[nodes] == array]
            rows, _ = self._rows_by_node(here)
            result[array] = np.unique(rows)
        return result

    def covering(self, rows: dict[int, np.ndarray]) -> np.ndarray:
        """Which nodes, of all, cover any of some rows of some arrays."""
        result = np.zeros(len(self.columns.names), bool)
        for array, some in rows.items():
            # A mask over rows, because looking up a million rows in it takes one pass.
            wanted = np.zeros(self.arrays[array].rows, bool)
            wanted[some] = True
            members = self.members[array]
            covered, owner = self._rows_by_node(members)
            result[members[owner[wanted[covered]]]] = True
        return result

    @cached_property
    def blocks(self) -> list[np.ndarray]:
        """For every array the block of each row, numbered by first row; -1 where no node is.

        In a stacked array every row is a block of its own.
        """
        result = []
        for spec, members in zip(self.arrays, self.members, strict=True):
            if spec.shared:
                rows, owner = self._rows_by_node(members)
                result.append(_connected(rows, owner, spec.rows))
            else:
                result.append(np.arange(spec.rows))
        return result

    @cached_property
    def overlaps(self) -> list[np.ndarray]:
        """The nodes of every block that has more than one."""
        result = []
        for array, spec in enumerate(self.arrays):
            if spec.shared:
                members = self.members[array]
                block = self.blocks[array][self.first_row[members]]
                result += [nodes for nodes in _split(members, block) if len(nodes) > 1]
        return result

    def clashing(self, nodes: np.ndarray) -> list[int]:
        """Those of the nodes that share a cell with another of them."""
        result = []
        for array, spec in enumerate(self.arrays):
            if not spec.shared:
                continue
            here = nodes[self.node_array[nodes] == array]
            # One node alone cannot clash, and its cells may be billions.
            if len(here) > 1:
                rows, owner = self._rows_by_node(here)
                users = np.bincount(rows)
                clash = np.unique(owner[users[rows] > 1])
                result += here[clash].tolist()
        return result


def _shared_arrays(columns: Columns) -> list[ArraySpec]:
    dtypes = {node_class.array: node_class.dtype for node_class in columns.node_classes}
    specs = []
    for name, shape in columns.arrays.items():
        dtype = dtypes.get(name, "float32")
        specs.append(ArraySpec(name, lead=shape, item=(), dtype=dtype, shared=True))
    return specs


def _split(
    nodes: np.ndarray,
    label: np.ndarray,
) -> list[np.ndarray]:
    """The nodes of every label 0, 1, ..., in their order."""
    ends = np.cumsum(np.bincount(label))
    return np.split(nodes[stable_order(label)], ends[:-1])


def _free_name(node_class: NodeClass, used: Container[str]) -> str:
    name = f"{node_class.kind}{node_class.shape}"
    if node_class.dtype != "float32":
        name += node_class.dtype
    # Users may have declared an array of this name.
    while name in used:
        name += "'"
    return name


def _connected(
    rows: np.ndarray,
    views: np.ndarray,
    size: int,
) -> np.ndarray:
    """The block of each of `size` rows; view `views[i]` covers row `rows[i]`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    blocks = np.full(size, -1)
    if not len(rows):
        return blocks
    # A graph with a vertex a row and one a view, and a link from each view to each of its rows:
    # its connected components are the blocks.
    ends = rows, size + views
    vertices = size + int(views.max()) + 1
    links = coo_matrix((np.ones(len(rows), np.int8), ends), shape=(vertices, vertices))
    component = connected_components(links, directed=False)[1]
    covered = np.unique(rows)
    _, first, inverse = np.unique(component[covered], return_index=True, return_inverse=True)
    # Numbers of SciPy's own would depend on its version: blocks are counted by their first row.
    number = np.argsort(np.argsort(first))
    blocks[covered] = number[inverse]
    return blocks
