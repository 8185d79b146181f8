"""Wiring that is already arrays as tables: what `Topology.from_edges` is given."""

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
    """The ends of edges as positions of nodes, and how many nodes there are.

    Without `n` the nodes are those that have edges, and all before the last of them.
    """
    senders = _positions("senders", senders)
    receivers = _positions("receivers", receivers)
    if len(senders) != len(receivers):
        raise ValueError(
            f"`senders` has {len(senders)} entries and `receivers` {len(receivers)}; give one each "
            "an edge"
        )
    # The ends themselves are checked last: an error about them names the nodes that there are.
    if n is None:
        n = 1 + int(max(senders.max(initial=-1), receivers.max(initial=-1)))
    if not is_integer(n) or n < 1:
        raise ValueError(
            f"`n`, the number of nodes, is an int of at least 1, but got {checks.came(n)}; give "
            "it, or some edges"
        )
    if n > MOST_CELLS:
        raise ValueError(f"`n` is at most {MOST_CELLS}, but got {n}; give a smaller one")
    problems = Problems("nodes")
    for argument, column in (("senders", senders), ("receivers", receivers)):
        outside = column[(column < 0) | (column >= n)]
        reason = f"`{argument}` are from 0 to {n - 1}; give a larger `n` or other numbers"
        for node in np.unique(outside).tolist():
            problems.add(reason, node)
    problems.check()
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
    classes = [(kind, tie) for kind in kinds]
    columns = read_numbers(attributes, count)
    names = None if keys is None else _read_keys(keys, count)
    ends = senders, receivers
    return edge_table(ends, n, classes, edge_class, names, columns)


def _as_column(argument: str, values: object) -> np.ndarray:
    """Values as an array; one without the mask that would be lost, and without ragged rows."""
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
    values = _as_column(f"`{argument}`", given)
    # NumPy makes an array of floats of a list without entries.
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        came = f"{values.dtype} of shape {values.shape}" if values.ndim else checks.came(given)
        raise ValueError(
            f"`{argument}` is a column of node numbers, but got {came}; give integers, one an edge"
        )
    # Numbers that only uint64 can hold would become negative.
    if values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise ValueError(
            f"`{argument}` holds {values.max()}, which is no node; give smaller numbers"
        )
    return values.astype(np.int64)


def _read_kinds(
    argument: str,
    kind: object,
    count: int,
) -> tuple[tuple[str, ...], np.ndarray]:
    """The different kinds, and of each of `count` nodes or edges the position of its own."""
    # One kind for all, the common case, needs no look at each.
    if isinstance(kind, str):
        return (kind,), np.zeros(count, np.int32)
    given: Any = kind.tolist() if isinstance(kind, np.ndarray) else kind
    # A set has no order, and so no entry for any one edge.
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
    """Columns of one number an edge by name; None is none."""
    if attributes is None:
        return {}
    problems = Problems("`attributes`")
    columns: dict[str, Column] = {}
    holds = "names to columns of numbers"
    for name, values in checks.mapping("attributes", attributes, holds).items():
        column = _as_column(f"`attributes` {name!r}", values)
        columns[name] = column, None
        # In a drawing these two would be words, and no numbers.
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
    holds = f"a list of keys, one an edge, {count} in all"
    given = checks.entries("keys", keys, holds, "give such, str or int")
    if len(given) != count:
        raise ValueError(
            f"`keys` holds one key an edge, {count} in all, but got {len(given)}; give one each"
        )
    return normalise(given, "edge keys")
