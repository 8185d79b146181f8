"""What a topology remembers: names and integer columns.

A graph kept alive would cost more memory than everything else together, and its attribute
dictionaries could be written to; the columns are a few read-only NumPy arrays.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from darnax import _text, checks
from darnax.topologies.names import Finder, Name, positions
from darnax.topologies.views import Index

MOST_AXES, MOST_CELLS = 60, np.iinfo(np.int32).max
"""The largest shapes: NumPy has 64 axes, of which a state adds some, and places are 32-bit
numbers."""

Shape = int | Sequence[int]
"""A shape as users give it: 64 is (64,), and () is one scalar unit."""

Column = tuple[np.ndarray, np.ndarray | None]
"""Numbers on edges, and on which edges they are given (None: on all)."""


class NodeClass(NamedTuple):
    """What nodes of one sort have in common; `array` is the shared array that views live in, else
    None.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    array: str | None


@dataclass(frozen=True, eq=False)
class Columns:
    """Nodes and edges as columns; `node_class` and `edge_class` index the tables beside them.

    `held` are the nodes that keep their state unless they are let go, the inputs among them.
    `left_out` has an example of each edge attribute that holds no numbers; it serves errors alone,
    and is no part of what makes topologies equal.
    """

    names: Sequence[Name]
    node_classes: tuple[NodeClass, ...]
    node_class: np.ndarray
    views: dict[int, Index]
    arrays: dict[str, tuple[int, ...]]
    edge_classes: tuple[tuple[str, str | None], ...]
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
        for array in self.long():
            array.flags.writeable = False

    def long(self) -> list[np.ndarray]:
        """The columns with one entry a node or an edge, in a fixed order."""
        attributes = [
            part for column in self.attributes.values() for part in column if part is not None
        ]
        return [self.node_class, self.senders, self.receivers, self.edge_class, *attributes]

    def state(self) -> tuple:
        """The fields in order, as `Columns(*state)` takes them."""
        return tuple(
            getattr(self, field.name) for field in fields(self) if field.name != "left_out"
        )


class Problems:
    """Collects what is wrong, so that one error lists every offender."""

    def __init__(self, what: str):
        self.what, self.found = what, {}

    def add(self, reason: str, name: object):
        """Note that `name` suffers from `reason`."""
        self.found.setdefault(reason, []).append(name)

    def check(self):
        """Raise `ValueError` if anything was noted."""
        if self.found:
            lines = [
                f"{self.what} {_text.names(names)}: {reason}"
                for reason, names in self.found.items()
            ]
            raise ValueError("; ".join(lines))


def finish(
    inputs: tuple[str, Any],
    outputs: tuple[str, Any],
    held: tuple[str, Any],
    *,
    names: Sequence[Name],
    node_kinds: Iterable[str] = (),
    edge_kinds: Iterable[str] = (),
    **columns: Any,
) -> Columns:
    """Columns with inputs and outputs as positions, tables in order of first use and all kinds
    known.
    """
    for table, column in (("node_classes", "node_class"), ("edge_classes", "edge_class")):
        columns[table], columns[column] = by_first_use(columns[table], columns[column])
    find = Finder(names)
    heads = _distinct(*inputs, find)
    return Columns(
        names=names,
        inputs=heads,
        outputs=_distinct(*outputs, find),
        held=tuple(sorted({*heads, *_distinct(*held, find)})),
        node_kinds=tuple(sorted({*node_kinds, *(cls.kind for cls in columns["node_classes"])})),
        edge_kinds=tuple(sorted({*edge_kinds, *(kind for kind, _ in columns["edge_classes"])})),
        **columns,
    )


def by_first_use(table: Sequence, column: np.ndarray) -> tuple[tuple, np.ndarray]:
    """The used entries of a table in the order in which a column first uses them, and the column of
    their places.
    """
    first = np.full(len(table), len(column))
    first[column[::-1]] = np.arange(len(column))[
        ::-1
    ]  # where an entry is set twice, the last one counts
    order = np.argsort(first)
    used = [table[i] for i in order if first[i] < len(column)]
    return tuple(used), np.argsort(order).astype(np.int32)[column]


def _distinct(argument: str, nodes: Any, find: Finder) -> tuple[int, ...]:
    found = positions(argument, nodes, find)
    twice = [find.names[at] for at, count in Counter(found).items() if count > 1]
    if twice:
        raise ValueError(f"`{argument}` names {_text.names(twice)} twice; name every node once")
    return found


def parse_shape(shape: Any, argument: str = "shape") -> tuple[int, ...]:
    """A shape as a tuple; `ValueError` says what is wrong with it."""
    listed = isinstance(shape, np.ndarray) and shape.ndim == 1
    parts = shape if isinstance(shape, (tuple, list)) or listed else (shape,)
    if not all(
        isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in parts
    ):
        raise ValueError(
            f"`{argument}` is an int or a tuple of ints, such as (28, 28, 1), but got "
            f"{checks.came(shape)}; give such, and write what a file has as text as numbers"
        )
    if any(part < 1 for part in parts):
        raise ValueError(
            f"every axis of `{argument}` is at least 1, but got {checks.came(shape)}; give larger "
            "ones, or () for a single unit"
        )
    sizes = tuple(map(int, parts))
    if len(sizes) > MOST_AXES or math.prod(sizes) > MOST_CELLS:
        raise ValueError(
            f"`{argument}` has at most {MOST_AXES} axes and {MOST_CELLS} cells, "
            f"but got {checks.came(shape)}; give fewer"
        )
    return sizes


def parse_number(argument: str, value: Any, least: int = 1) -> int:
    """How many nodes, units or features; so many that no array could hold them are refused before
    they are drawn.
    """
    result = checks.count(argument, value, least)
    if result > MOST_CELLS:
        checks.refuse(argument, f"at most {MOST_CELLS}", value, "give a smaller number", ValueError)
    return result


def parse_dtype(dtype: Any) -> str:
    """A dtype by its name; `ValueError` says what is wrong with it."""
    try:
        if dtype is None or isinstance(
            dtype, (np.ndarray, jax.Array)
        ):  # of which NumPy makes a dtype, too
            raise TypeError
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy warns of names that it is about to forget
            result = jnp.dtype(dtype)
        numeric = jnp.issubdtype(result, jnp.number) or result.kind == "b"
        if numeric and jnp.dtype(result.name) == result:
            jax.dtypes.canonicalize_dtype(result)  # refuses what JAX does not have
            return result.name
    except (TypeError, ValueError, Warning):
        pass
    raise ValueError(
        "`dtype` is a numeric type of JAX such as 'float32' or 'int8', but got "
        f"{checks.came(dtype)}; give one"
    )


def if_needed(keys: tuple[Name, ...]) -> tuple[Name, ...] | None:
    """The keys of edges, or None if all are networkx's first key, 0."""
    return keys if any(key != 0 for key in keys) else None


def column(values: np.ndarray, given: np.ndarray | None = None) -> Column:
    """A column of int64 or float64, and where it is given."""
    large = values.dtype == np.uint64 and values.max(initial=0) >= 2**63
    integers = values.dtype.kind in "biu" and not large
    values = values.astype(np.int64 if integers else np.float64)
    return values, None if given is None or given.all() else given


def stable_order(values: np.ndarray) -> np.ndarray:
    """`np.argsort(values, kind="stable")` of non-negative integers, in a fifth of the time.

    Value and position are packed into one number, and numbers are sorted faster than places.
    """
    n = len(values)
    if not n or int(values.max()) >= np.iinfo(np.int64).max // n:
        return np.argsort(values, kind="stable")
    return np.sort(values.astype(np.int64) * n + np.arange(n)) % n
