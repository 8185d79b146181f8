"""Arrays of ends, kinds and numbers, read into tables: the arguments of `Topology.from_edges`.

The tables are equal to those of the same wiring drawn in networkx, but there is no graph in
between: columns are checked and sorted as a whole, which takes a second for millions of edges.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from darnax import _text, checks
from darnax.topologies.names import Name, is_integer, normalise
from darnax.topologies.tables import (
    MOST_CELLS,
    Column,
    EdgeTable,
    NodeClass,
    NodeTable,
    Problems,
    Shape,
    edge_table,
    parse_dtype,
    parse_shape,
    table_of,
)

Kinds = str | Sequence[str] | np.ndarray
"""One kind for all, or a column of them."""


@checks.by_hand
def read_ends(
    senders: ArrayLike,
    receivers: ArrayLike,
    n: int | None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The ends of edges as positions of nodes, and the number of nodes.

    Without `n` the last node is the last one that has an edge.
    """
    senders = _positions("senders", senders)
    receivers = _positions("receivers", receivers)
    if len(senders) != len(receivers):
        raise ValueError(
            f"`senders` has {len(senders)} entries and `receivers` {len(receivers)}; give one each "
            "an edge"
        )
    if n is None:
        n = 1 + int(max(senders.max(initial=-1), receivers.max(initial=-1)))
    if not is_integer(n) or n < 1:
        raise ValueError(
            f"`n`, the number of nodes, is an int of at least 1, but got {checks.came(n)}; give "
            "it, or some edges"
        )
    if n > MOST_CELLS:
        raise ValueError(f"`n` is at most {MOST_CELLS}, but got {n}; give a smaller one")
    # The ends themselves are checked last, since the nodes they may name depend on `n`.
    problems = Problems("nodes")
    for argument, column in (("senders", senders), ("receivers", receivers)):
        outside = column[(column < 0) | (column >= n)]
        reason = f"`{argument}` are from 0 to {n - 1}; give a larger `n` or other numbers"
        for node in np.unique(outside).tolist():
            problems.add(reason, node)
    problems.check()
    # Positions are below `n` now, and so fit into the 32 bits that columns have.
    return senders.astype(np.int32), receivers.astype(np.int32), int(n)


@checks.by_hand
def read_nodes(
    n: int,
    shape: Shape,
    kind: Kinds,
    dtype: DTypeLike,
) -> NodeTable:
    """A table of nodes `0 .. n - 1` of one shape and dtype."""
    kinds, node_class = _read_kinds("kind", kind, n)
    shape = parse_shape(shape)
    dtype = parse_dtype(dtype)
    # Nodes differ in kind alone, so that kinds and classes are the same table.
    classes = tuple(NodeClass(kind, shape, dtype, None) for kind in kinds)
    return NodeTable(range(n), classes, node_class, views={}, arrays={})


@checks.by_hand
def read_edges(
    senders: np.ndarray,
    receivers: np.ndarray,
    n: int,
    *,
    kind: Kinds,
    tie: str | None,
    attributes: Mapping[str, ArrayLike] | None,
    keys: Iterable[Name] | None,
) -> EdgeTable:
    """A table of edges between nodes `0 .. n - 1`, in the order in which networkx lists them."""
    count = len(senders)
    if not isinstance(tie, (str, type(None))):
        came = checks.came(tie)
        raise ValueError(
            f"`tie` is a str or None, but got {came}; give one name, which ties all edges of a kind"
        )
    kinds, edge_class = _read_kinds("edge_kind", kind, count)
    columns = read_numbers(attributes, count)
    return edge_table(
        ends=(senders, receivers),
        n=n,
        classes=[(kind, tie) for kind in kinds],
        edge_class=edge_class,
        keys=None if keys is None else _read_keys(keys, count),
        attributes=columns,
    )


def _as_column(argument: str, values: object) -> np.ndarray:
    """Values as an array; ragged ones are refused, and masked ones, whose mask would be lost."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(
            f"{argument} is a column without a mask, but got a masked one; fill it or drop these "
            "edges"
        )
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{argument} is not an array: {error}; give one number an edge") from None


def _positions(argument: str, given: object) -> np.ndarray:
    """Node numbers of any integer type as int64; whether there are such nodes is not checked."""
    values = _as_column(f"`{argument}`", given)
    # Of an empty list NumPy makes an array of floats.
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        came = f"{values.dtype} of shape {values.shape}" if values.ndim else checks.came(given)
        raise ValueError(
            f"`{argument}` is a column of node numbers, but got {came}; give integers, one an edge"
        )
    # A number that only uint64 holds would become negative.
    largest = values.max(initial=0)
    if largest > np.iinfo(np.int64).max:
        raise ValueError(f"`{argument}` holds {largest}, which is no node; give smaller numbers")
    return values.astype(np.int64)


def _read_kinds(
    argument: str,
    kind: object,
    count: int,
) -> tuple[tuple[str, ...], np.ndarray]:
    """The table of kinds, and for each of `count` nodes or edges its position in the table."""
    # One kind for all is the common case, and needs no loop.
    if isinstance(kind, str):
        return (kind,), np.zeros(count, np.int32)
    given: Any = kind.tolist() if isinstance(kind, np.ndarray) else kind
    # A set has no order, so nothing would tell which entry belongs to which edge.
    ordered = isinstance(given, Iterable) and not isinstance(given, (set, frozenset))
    kinds: list[Any] = list(given) if ordered else [given]
    wrong = [kind for kind in kinds if not isinstance(kind, str)]
    if wrong or len(kinds) != count:
        came = _text.listing(map(checks.came, wrong)) if wrong else f"{len(kinds)} of them"
        raise ValueError(
            f"`{argument}` is one str or a column of {count}, but got {came}; give one each or one "
            "for all"
        )
    return table_of(kinds, count)


@checks.by_hand
def read_numbers(
    attributes: Mapping[str, ArrayLike] | None,
    count: int,
) -> dict[str, Column]:
    """Columns of one number an edge, by name; None stands for no column."""
    if attributes is None:
        return {}
    problems = Problems("`attributes`")
    columns: dict[str, Column] = {}
    holds = "names to columns of numbers"
    for name, values in checks.mapping("attributes", attributes, holds).items():
        column = _as_column(f"`attributes` {name!r}", values)
        columns[name] = (column, None)
        # In a drawing these two attributes are words.
        if not isinstance(name, str) or name in ("kind", "tie"):
            reason = (
                "the name is a str, and not 'kind' or 'tie', which are arguments of their own; "
                "rename it"
            )
            problems.add(reason, name)
        if column.shape != (count,) or column.dtype.kind not in "biuf":
            came = f"{column.dtype} of shape {column.shape}"
            reason = f"one number an edge, {count} in all, but got {came}; give such a column"
            problems.add(reason, name)
    problems.check()
    return columns


def _read_keys(keys: object, count: int) -> tuple[Name, ...]:
    """The keys of parallel edges, one an edge; they follow the rules of names."""
    holds = f"a list of keys, one an edge, {count} in all"
    given = checks.entries("keys", keys, holds, "give such, str or int")
    if len(given) != count:
        raise ValueError(
            f"`keys` holds one key an edge, {count} in all, but got {len(given)}; give one each"
        )
    return normalise(given, "edge keys")
