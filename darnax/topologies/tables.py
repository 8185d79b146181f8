"""The tables of a topology: nodes and edges as columns, and the steps that all readers share.

Every reader ends here: networkx graphs (`read_networkx`), arrays of ends (`read_arrays`) and files
(`read_columns`); the wiring inside a population (`wiring`) uses the same steps. No graph is kept:
it would take more memory than everything else together, and anyone could change its attribute
dictionaries. The tables are a few read-only NumPy arrays.
"""

import math
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from darnax import _text, checks
from darnax.topologies.names import Finder, Name, Names, is_integer, positions
from darnax.topologies.views import ViewIndex

MOST_AXES = 60
"""The most axes of a shape: NumPy has 64, of which a state adds some."""

MOST_CELLS = np.iinfo(np.int32).max
"""The most cells of a shape: positions are 32-bit numbers."""

T = TypeVar("T", bound=Hashable)

Shape = int | Sequence[int]
"""A shape as users give it: 64 is (64,), and () is one scalar unit."""

Shapes = dict[str, tuple[int, ...]]
"""The shapes of shared arrays by name."""

Column = tuple[np.ndarray, np.ndarray | None]
"""One number an edge, and a mask of the edges that have one (None: all have)."""

EdgeClass = tuple[str, str | None]
"""The facts that edges of one class share: a kind, and a tie or None."""


class NodeClass(NamedTuple):
    """The facts that nodes of one class share.

    **Fields:**

    - `array`: the shared array that the nodes are views of, None for nodes with cells of their own.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    array: str | None


class NodeTable(NamedTuple):
    """The columns of nodes; see `Columns`."""

    names: Sequence[Name]
    node_classes: tuple[NodeClass, ...]
    node_class: np.ndarray
    views: dict[int, ViewIndex]
    arrays: Shapes


class EdgeTable(NamedTuple):
    """The columns of edges; see `Columns`."""

    edge_classes: tuple[EdgeClass, ...]
    edge_class: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    keys: tuple[Name, ...] | None
    attributes: dict[str, Column]
    left_out: dict[str, str]


class Roles(NamedTuple):
    """The nodes that have a role, as positions."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    held: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Columns:
    """All facts of a topology: one entry a node or an edge, in the order of drawing.

    Many nodes are alike. A node therefore has one integer, the position of its class, and the class
    has the facts that they share; so it is with edges.

    **Fields:**

    - `names`: of the nodes; a `range` where they are the numbers 0 to n-1.
    - `node_classes`, `node_class`: the classes, and the position of every node's class, `(n,)`.
    - `views`: the index of every node that is a view of a shared array, by position of node.
    - `arrays`: the shapes of the shared arrays by name.
    - `edge_classes`, `edge_class`: kinds with ties, and the position of every edge's class, `(E,)`.
    - `senders`, `receivers`: the ends of edges as positions of nodes, `(E,)`.
    - `keys`: one key an edge, which tells parallel edges apart, or None where no edge needs one.
    - `attributes`: numbers on edges by name of attribute.
    - `inputs`, `outputs`: positions of nodes, in the order in which they were named.
    - `held`: the nodes that keep their state unless they are released, inputs included, sorted.
    - `node_kinds`, `edge_kinds`: all known kinds, even those of no node or edge, sorted.
    - `left_out`: an example of each edge attribute that holds no numbers. It serves errors alone:
      two topologies that differ in it are equal.
    """

    names: Sequence[Name]
    node_classes: tuple[NodeClass, ...]
    node_class: np.ndarray
    views: dict[int, ViewIndex]
    arrays: Shapes
    edge_classes: tuple[EdgeClass, ...]
    edge_class: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    keys: tuple[Name, ...] | None
    attributes: dict[str, Column]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    held: tuple[int, ...]
    node_kinds: tuple[str, ...]
    edge_kinds: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        # Topologies are compared by a digest that is computed once: nothing may change after that.
        arrays = self.long()
        for index in self.views.values():
            arrays.extend(part for part in index if isinstance(part, np.ndarray))
        for array in arrays:
            array.flags.writeable = False

    def long(self) -> list[np.ndarray]:
        """The columns with one entry a node or an edge, in the order of the digest and of files."""
        columns = [self.node_class, self.senders, self.receivers, self.edge_class]
        for values, given in self.attributes.values():
            columns.append(values)
            if given is not None:
                columns.append(given)
        return columns

    def state(self) -> tuple[Any, ...]:
        """The fields in order, as `Columns(*state)` takes them."""
        # A copy makes the same networks without `left_out`, which serves errors alone.
        names = [field.name for field in fields(self) if field.name != "left_out"]
        return tuple(getattr(self, name) for name in names)


def assemble(
    nodes: NodeTable,
    edges: EdgeTable,
    roles: Roles,
    node_kinds: Iterable[str] = (),
    edge_kinds: Iterable[str] = (),
) -> Columns:
    """The columns of a topology; inputs become held, and kinds in use become known."""
    # A known kind may have no nodes or edges, so that a chain of one layer takes the factories that
    # a long chain needs.
    node_kinds = {*node_kinds, *(node_class.kind for node_class in nodes.node_classes)}
    edge_kinds = {*edge_kinds, *(kind for kind, _ in edges.edge_classes)}
    return Columns(
        **nodes._asdict(),
        **edges._asdict(),
        inputs=roles.inputs,
        outputs=roles.outputs,
        held=tuple(sorted({*roles.held, *roles.inputs})),
        node_kinds=tuple(sorted(node_kinds)),
        edge_kinds=tuple(sorted(edge_kinds)),
    )


@checks.by_hand
def find_roles(
    find: Finder,
    inputs: Names | None,
    outputs: Names | None,
    held: Names | None,
) -> Roles:
    """The positions of the nodes that three arguments name; None stands for no node."""
    return Roles(
        inputs=_find_once("inputs", inputs, find),
        outputs=_find_once("outputs", outputs, find),
        held=_find_once("held", held, find),
    )


@checks.by_hand
def _find_once(
    argument: str,
    nodes: Names | None,
    find: Finder,
) -> tuple[int, ...]:
    if nodes is None:
        return ()
    found = positions(argument, nodes, find)
    # A node that is an input twice would be given two values.
    twice = [find.names[node] for node in repeated(found)]
    if twice:
        raise ValueError(f"`{argument}` names {_text.names(twice)} twice; name every node once")
    return found


class Problems:
    """A collection of faults, so that one error lists every offender."""

    def __init__(self, what: str):
        self.what = what
        # By reason: a thousand nodes with the same fault make one sentence.
        self.found: dict[str, list[object]] = {}

    def add(self, reason: str, name: object) -> None:
        """Note a fault of the node or edge `name`."""
        self.found.setdefault(reason, []).append(name)

    def check(self) -> None:
        """Raise `ValueError` if any fault was noted."""
        lines = []
        for reason, names in self.found.items():
            lines.append(f"{self.what} {_text.names(names)}: {reason}")
        if lines:
            raise ValueError("; ".join(lines))


def table_of(
    values: Iterable[T],
    count: int,
) -> tuple[tuple[T, ...], np.ndarray]:
    """The different values, and the position of each of `count` values among them.

    The order is that of first use, so that equal topologies have equal tables.
    """
    table: dict[T, int] = {}
    found = (table.setdefault(value, len(table)) for value in values)
    column = np.fromiter(found, np.int32, count)
    return tuple(table), column


def by_first_use(
    table: Sequence[T],
    column: np.ndarray,
) -> tuple[tuple[T, ...], np.ndarray]:
    """The same table and column in the order of first use, without entries that are not used.

    It is `table_of` for values that are a column of positions already, without a loop over them.
    """
    # Equal entries of the table become one.
    table, place = table_of(table, len(table))
    column = place[column]
    # The first use of every entry, `len(column)` if there is none. NumPy keeps the last of several
    # values for one position, and that is the first use if the column runs backwards.
    first = np.full(len(table), len(column))
    first[column[::-1]] = np.arange(len(column))[::-1]
    order = np.argsort(first)
    used = order[first[order] < len(column)]
    rank = np.argsort(order).astype(np.int32)
    return tuple(table[i] for i in used), rank[column]


def number_column(values: np.ndarray, given: np.ndarray) -> Column:
    """A column of int64 or float64, and a mask of the edges that have a number."""
    # Files and digests know these two types alone. Integers from 2**63 on are rounded.
    large = values.dtype == np.uint64 and values.max(initial=0) >= 2**63
    integers = values.dtype.kind in "biu" and not large
    values = values.astype(np.int64 if integers else np.float64)
    return values, None if given.all() else given


def needed_keys(keys: Sequence[Name] | None) -> tuple[Name, ...] | None:
    """The keys of edges, or None if every edge has networkx's first key, 0."""
    # Without keys, a MultiDiGraph that has no parallel edges equals the DiGraph of its edges.
    if keys is None or all(key == 0 for key in keys):
        return None
    return tuple(keys)


def edge_table(
    ends: tuple[np.ndarray, np.ndarray],
    n: int,
    classes: Sequence[EdgeClass],
    edge_class: np.ndarray,
    keys: Sequence[Name] | None,
    attributes: Mapping[str, Column],
) -> EdgeTable:
    """The table of edges between n nodes, sorted as networkx would list them.

    The same wiring is then the same topology, with the same digest, whether or not it was drawn.
    Raises `ValueError` listing edges that are given more than once.
    """
    keys = needed_keys(keys)
    order = _networkx_order(ends, n, keys)
    used, edge_class = by_first_use(classes, edge_class[order])
    columns: dict[str, Column] = {}
    for name in sorted(attributes):
        values, given = attributes[name]
        if given is None:
            given = np.ones(len(order), bool)
        # A drawing has no attribute that is on no edge.
        if given.any():
            columns[name] = number_column(values[order], given[order])
    if keys is not None:
        keys = tuple(keys[i] for i in order.tolist())
    senders, receivers = ends
    return EdgeTable(
        edge_classes=used,
        edge_class=edge_class,
        senders=senders[order],
        receivers=receivers[order],
        keys=keys,
        attributes=columns,
        left_out={},
    )


def _networkx_order(
    ends: tuple[np.ndarray, np.ndarray],
    n: int,
    keys: tuple[Name, ...] | None,
) -> np.ndarray:
    """Positions of edges as networkx would list them: by sender, parallel ones side by side."""
    senders, receivers = ends
    # Both ends in one number, so that edges can be sorted and compared at once.
    pair = senders.astype(np.int64) * n + receivers
    if keys is None:
        ordered = np.sort(pair)
        again = ordered[1:] == ordered[:-1]
        twice = [divmod(edge, n) for edge in ordered[1:][again].tolist()]
        # Edges of one sender stay in their order, as in a dictionary of receivers.
        order = stable_order(senders)
    else:
        edges = zip(senders.tolist(), receivers.tolist(), keys, strict=True)
        twice = repeated(edges)
        # Parallel edges stand where the first of them was drawn.
        _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
        order = np.lexsort((first[inverse], senders))
    if twice:
        raise ValueError(
            f"edges {_text.names(dict.fromkeys(twice))} are given more than once, and only keys "
            "tell parallel edges apart; give `keys` that differ"
        )
    return order


def repeated(values: Iterable[T]) -> list[T]:
    """The values that come more than once."""
    counts = Counter(values)
    return [value for value in counts if counts[value] > 1]


def stable_order(values: np.ndarray) -> np.ndarray:
    """`np.argsort(values, kind="stable")` of non-negative integers, in a fifth of the time."""
    n = len(values)
    most = np.iinfo(np.int64).max
    # The packed numbers below have to fit into 64 bits.
    if not n or int(values.max()) >= most // n:
        return np.argsort(values, kind="stable")
    # Value and position in one number. NumPy sorts numbers faster than it sorts positions by them.
    packed = values.astype(np.int64) * n + np.arange(n)
    return np.sort(packed) % n


@checks.by_hand
def parse_shape(
    shape: Shape,
    argument: str = "shape",
) -> tuple[int, ...]:
    """A shape as a tuple; `ValueError` says what is wrong with it."""
    # Shapes that were computed are often arrays themselves.
    if isinstance(shape, np.ndarray) and shape.ndim == 1:
        shape = shape.tolist()
    parts: Sequence[object] = shape if isinstance(shape, (tuple, list)) else (shape,)
    sizes: list[int] = []
    for part in parts:
        if not is_integer(part):
            raise ValueError(
                f"`{argument}` is an int or a tuple of ints, such as (28, 28, 1), but got "
                f"{checks.came(shape)}; give such, and write what a file has as text as numbers"
            )
        sizes.append(int(part))
    if min(sizes, default=1) < 1:
        raise ValueError(
            f"every axis of `{argument}` is at least 1, but got {checks.came(shape)}; give larger "
            "ones, or () for a single unit"
        )
    if len(sizes) > MOST_AXES or math.prod(sizes) > MOST_CELLS:
        raise ValueError(
            f"`{argument}` has at most {MOST_AXES} axes and {MOST_CELLS} cells, "
            f"but got {checks.came(shape)}; give fewer"
        )
    return tuple(sizes)


@checks.by_hand
def parse_number(
    argument: str,
    value: int,
    least: int = 1,
) -> int:
    """A number of nodes, units or features; more than an array can hold are refused."""
    # Builders draw node by node, and would fill the memory before an array is too large.
    result = checks.count(argument, value, least)
    if result > MOST_CELLS:
        checks.refuse(argument, f"at most {MOST_CELLS}", value, "give a smaller number", ValueError)
    return result


@checks.by_hand
def parse_dtype(dtype: DTypeLike) -> str:
    """The name of a dtype; `ValueError` says what is wrong with it."""
    name = _dtype_name(dtype)
    if name is None:
        raise ValueError(
            "`dtype` is a numeric type of JAX such as 'float32' or 'int8', but got "
            f"{checks.came(dtype)}; give one"
        )
    return name


def _dtype_name(dtype: Any) -> str | None:
    """The name of a numeric dtype of JAX, None for anything else."""
    # NumPy reads None as float64, and an array of JAX as the dtype that it has.
    if dtype is None or isinstance(dtype, (np.ndarray, jax.Array)):
        return None
    try:
        with warnings.catch_warnings():
            # NumPy warns of names that a later version refuses.
            warnings.simplefilter("error")
            result = jnp.dtype(dtype)
        # Raises for dtypes that JAX does not have.
        jax.dtypes.canonicalize_dtype(result)
    except (TypeError, ValueError, Warning):
        return None
    numeric = jnp.issubdtype(result, jnp.number) or result.kind == "b"
    # A dtype of another byte order has the name of the native one.
    if numeric and jnp.dtype(result.name) == result:
        return result.name
    return None
