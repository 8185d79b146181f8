"""The layout: which rows of which global array each node owns.

A state is a few global arrays, and **a node is an address in one of them**. The plain alternative,
an array for every node, needs an operation for every edge, and a thousand edges took 1.4 s to
compile. With addresses all edges of one group are one gather, one batched coupling and one sum,
which took 0.3 s, and a program does not grow with the number of nodes.

    a, b, c: nodes of shape (2,)         left, right: views of an array "line" of 6 cells

    stacked array (3, 2, B)              shared array (6, B)                  block

    row 0   a   [ . . . . . ]            row 0   [ . . . . . ] ┐                0
                [ . . . . . ]            row 1   [ . . . . . ] │ left           0
    row 1   b   [ . . . . . ]            row 2   [ . . . . . ] ┘ ┐              0
                [ . . . . . ]            row 3   [ . . . . . ]   │ right        0
    row 2   c   [ . . . . . ]            row 4   [ . . . . . ]   ┘              0
                [ . . . . . ]            row 5   [ . . . . . ]     no node     -1
                 batch of 5                       batch of 5

    addresses   a: 0   b: 1   c: 2       left: [0 1 2]   right: [2 3 4]

    edges of one group, c -> a and a -> b:

    array[[2, 0]]  --coupling-->  2 messages (2, B)  --added on-->  field[[0, 1]]

- **Row.** An array is a sequence of rows. In a *stacked* array, `(n, *shape, B)`, a row is a node:
  all nodes of one kind, shape and dtype that are no views. In a *shared* array, `(*shape, B)`,
  which the user declares, a row is one cell.
- **Address.** A stacked node has one row; a view has an array of rows in the shape of the view.
  Code that gathers and adds up rows serves both.
- **View.** A node on a shared array: any of its cells. Views may overlap, and a cell remains one
  unit, whatever the number of views that cover it. Messages to any of them are added on its row,
  and it is updated once.
- **Block.** Views that overlap, directly or through others, are one block, as "left" and "right"
  are. A schedule never splits a block: a cell cannot move with one of its nodes and wait with
  another. In a stacked array every row is a block of its own.

**The batch is the last axis.** A pass gathers the rows of neighbours. With the batch last a row is
one contiguous piece of memory, all samples side by side, and the gather copies pieces. With the
batch first it picks single numbers, which was measured to take 2 to 20 times as long. To transpose
before and after every pass took 4 times as long.

The order of rows is the library's to choose. Users see names.
"""

import math
from collections.abc import Container, Mapping
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

    - `array`: the name of a global array.
    - `index`: ints and slices. For a view that was given by lists or masks, one integer array an
      axis.
    - `shape`: of the node, without the batch.
    """

    array: str
    index: ViewIndex
    shape: tuple[int, ...]

    # An index may hold arrays, whose `==` is no bool: its JSON form stands for it.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self._content() == other._content()

    def _content(self) -> tuple[object, ...]:
        return self.array, self.shape, index_to_json(self.index)

    # The index is left out: slices have no hash in Python 3.11, and equal views still hash alike.
    def __hash__(self) -> int:
        return hash((self.array, self.shape))


@dataclass(frozen=True)
class ArraySpec:
    """One global array of a state, described without its batch.

    **Fields:**

    - `lead`: the axes that count rows: `(n,)` for `n` stacked nodes, the declared shape for a
      shared array.
    - `item`: the shape of one row: the nodes' shape in a stacked array, `()` in a shared one.
    - `shared`: whether the user declared it, so that nodes are views of it.
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
        """The number of rows."""
        return math.prod(self.lead)

    @property
    def field_dtype(self) -> str:
        """The dtype of messages and fields: float64 for states of float64, else float32."""
        # States may be spins in int8, and their weighted sums neither whole nor small.
        return "float64" if self.dtype == "float64" else "float32"

    def as_rows(self, array: Shaped[Array, "..."]) -> Shaped[Array, "rows ..."]:
        """The array as its rows, `(rows, *item, B)`."""
        return array.reshape(self.rows, *array.shape[len(self.lead) :])


class Layout:
    """The global arrays of a topology, and the address of every node in them.

    **Fields:**

    - `arrays`: the shared ones as declared, then the stacked ones in the order of first use.
    - `members`: for every array its nodes, sorted.
    - `class_array`: for every node class its array, as a position in `arrays`.
    - `first_row`: for every node its row; for a view the row of its first cell, in the view's own
      order.

    !!! example

        ```python
        graph = nx.DiGraph(arrays={"line": 6})
        graph.add_nodes_from("abc", shape=2)
        graph.add_node("left", array="line", index=slice(0, 3))
        graph.add_node("right", array="line", index=slice(2, 5))
        layout = dx.Topology(graph).layout
        layout.address(np.asarray([0, 2]))  # [0, 2]
        layout.address(np.asarray([3, 4]))  # [[0, 1, 2], [2, 3, 4]]
        layout.blocks[0]  # [0, 0, 0, 0, 0, -1]
        ```
    """

    def __init__(self, columns: Columns):
        self.columns = columns
        self.arrays = _shared_arrays(columns)
        self.members = [np.zeros(0, np.int64) for _ in self.arrays]
        self.class_array = np.zeros(len(columns.node_classes), np.int32)
        self.first_row = np.zeros(len(columns.names), np.int32)
        position = {spec.name: i for i, spec in enumerate(self.arrays)}
        all_nodes = np.arange(len(columns.names))
        for i, nodes in enumerate(_split(all_nodes, columns.node_class)):
            node_class = columns.node_classes[i]
            if node_class.array is None:
                # One array for a whole class of nodes: the time to compile does not grow with
                # their number.
                name = _free_name(node_class, position)
                array = position[name] = self._add_stacked(name, node_class, nodes)
            else:
                array = position[node_class.array]
                self._add_views(array, nodes)
            self.class_array[i] = array

    def _add_stacked(
        self,
        name: str,
        node_class: NodeClass,
        nodes: np.ndarray,
    ) -> int:
        """Append a stacked array of these nodes; its position."""
        spec = ArraySpec(
            name=name,
            lead=(len(nodes),),
            item=node_class.shape,
            dtype=node_class.dtype,
            shared=False,
        )
        self.arrays.append(spec)
        self.members.append(nodes)
        self.first_row[nodes] = np.arange(len(nodes))
        return len(self.arrays) - 1

    def _add_views(self, array: int, nodes: np.ndarray) -> None:
        """Add views to the members of their shared array, which may have views of other classes."""
        shape = self.arrays[array].lead
        self.members[array] = np.union1d(self.members[array], nodes)
        for node in nodes.tolist():
            self.first_row[node] = first_cell(self.columns.views[node], shape)

    def members_of(self, array: str) -> np.ndarray:
        """The nodes of the array of a name, sorted."""
        names = [spec.name for spec in self.arrays]
        return self.members[names.index(array)]

    @cached_property
    def node_array(self) -> np.ndarray:
        """The array of every node, as a position in `arrays`."""
        return self.class_array[self.columns.node_class]

    @cached_property
    def sizes(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Name, shape and dtype of every array."""
        # A tuple, since programs that make arrays of zeros are looked up by it.
        sizes = [(spec.name, spec.shape, spec.dtype) for spec in self.arrays]
        return tuple(sizes)

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of the arrays, each once."""
        return tuple(dict.fromkeys(spec.dtype for spec in self.arrays))

    def _array_of(self, node: int | np.integer) -> ArraySpec:
        return self.arrays[self.node_array[node]]

    # from nodes to rows

    def cells(self, node: int | np.integer) -> np.ndarray:
        """The cells of a view, in its shape, as rows of its shared array."""
        index = self.columns.views[int(node)]
        return index_cells(index, self._array_of(node).lead)

    def address(self, nodes: np.ndarray) -> np.ndarray:
        """The addresses `(len(nodes), *lead)` of nodes that agree in array and shape."""
        # Views are few. Stacked nodes may be millions, and their rows are known without a loop.
        if len(nodes) and self._array_of(nodes[0]).shared:
            return np.stack([self.cells(node) for node in nodes])
        return self.first_row[nodes]

    def _rows_by_node(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All rows that nodes of one array cover, and for each the position in `nodes` of its node.

        A row comes once for every view that covers it.
        """
        if not len(nodes) or not self._array_of(nodes[0]).shared:
            return self.first_row[nodes], np.arange(len(nodes))
        cells = [self.cells(node).ravel() for node in nodes]
        counts = [len(own) for own in cells]
        rows = np.concatenate(cells)
        owner = np.repeat(np.arange(len(nodes)), counts)
        return rows, owner

    def rows_of(self, nodes: np.ndarray) -> dict[int, np.ndarray]:
        """The rows that nodes cover, sorted, by the position of their array."""
        nodes = np.asarray(nodes, np.int64)
        result: dict[int, np.ndarray] = {}
        for array in np.unique(self.node_array[nodes]).tolist():
            here = nodes[self.node_array[nodes] == array]
            rows, _ = self._rows_by_node(here)
            result[array] = np.unique(rows)
        return result

    # from rows to nodes

    def covering(self, rows: Mapping[int, np.ndarray]) -> np.ndarray:
        """A mask over all nodes: those that cover any of the given rows."""
        result = np.zeros(len(self.columns.names), bool)
        for array, given in rows.items():
            # A mask over rows, because looking up a million rows in it takes one pass.
            wanted = np.zeros(self.arrays[array].rows, bool)
            wanted[given] = True
            members = self.members[array]
            covered, owner = self._rows_by_node(members)
            found = owner[wanted[covered]]
            result[members[found]] = True
        return result

    # views that overlap

    @cached_property
    def blocks(self) -> list[np.ndarray]:
        """For every array the block of each row; -1 for a row that belongs to no node.

        Blocks are numbered in the order of their first rows.
        """
        result: list[np.ndarray] = []
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
        result: list[np.ndarray] = []
        for array, spec in enumerate(self.arrays):
            if spec.shared:
                members = self.members[array]
                # All cells of a view are in one block, so the first one tells which.
                block = self.blocks[array][self.first_row[members]]
                for nodes in _split(members, block):
                    if len(nodes) > 1:
                        result.append(nodes)
        return result

    def clashing(self, nodes: np.ndarray) -> list[int]:
        """Those of the given nodes that share a cell with another of them."""
        result: list[int] = []
        for array, spec in enumerate(self.arrays):
            if not spec.shared:
                continue
            here = nodes[self.node_array[nodes] == array]
            # A single node cannot clash, and to list the cells of a large view takes memory.
            if len(here) > 1:
                # A view names each of its cells once: a row that comes twice has two owners.
                rows, owner = self._rows_by_node(here)
                users = np.bincount(rows)
                clash = np.unique(owner[users[rows] > 1])
                result += here[clash].tolist()
        return result


def _shared_arrays(columns: Columns) -> list[ArraySpec]:
    # Views of one array agree in dtype, which was checked when they were read.
    dtypes = {node_class.array: node_class.dtype for node_class in columns.node_classes}
    specs: list[ArraySpec] = []
    for name, shape in columns.arrays.items():
        # An array without views has a place in the state all the same.
        dtype = dtypes.get(name, "float32")
        spec = ArraySpec(
            name=name,
            lead=shape,
            item=(),
            dtype=dtype,
            shared=True,
        )
        specs.append(spec)
    return specs


def _split(
    nodes: np.ndarray,
    label: np.ndarray,
) -> list[np.ndarray]:
    """The nodes of every label 0, 1, ..., in their order."""
    ends = np.cumsum(np.bincount(label))
    return np.split(nodes[stable_order(label)], ends[:-1])


def _free_name(node_class: NodeClass, used: Container[str]) -> str:
    """A name for a stacked array that no other array has."""
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
    # SciPy takes long to import, and topologies without views never need it.
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    blocks = np.full(size, -1)
    if not len(rows):
        return blocks
    # A graph with a vertex a row and one a view, and a link from each view to each of its rows:
    # its connected components are the blocks.
    ends = rows, size + views
    vertices = size + int(views.max()) + 1
    ones = np.ones(len(rows), np.int8)
    links = coo_matrix((ones, ends), shape=(vertices, vertices))
    _, component = connected_components(links, directed=False)
    # Rows that no view covers are components of their own, and no blocks.
    covered = np.unique(rows)
    _, first, inverse = np.unique(
        component[covered],
        return_index=True,
        return_inverse=True,
    )
    # SciPy promises no order of its numbers: blocks are counted by their first row instead.
    number = np.argsort(np.argsort(first))
    blocks[covered] = number[inverse]
    return blocks
