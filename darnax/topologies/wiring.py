"""Wiring that is already arrays as columns, in the order in which networkx would list it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from darnax import _text, checks
from darnax.topologies.columns import (
    Columns,
    NodeClass,
    Problems,
    column,
    finish,
    if_needed,
    parse_dtype,
    parse_shape,
    stable_order,
)
from darnax.topologies.names import Name, normalise


def from_arrays(
    senders,
    receivers,
    *,
    n,
    shape,
    kind,
    dtype,
    edge_kind,
    tie,
    attributes,
    keys,
    inputs,
    outputs,
    held,
) -> Columns:
    """Columns of wiring that is already arrays: nodes `0 .. n - 1` of one shape."""
    senders, receivers = _ends("senders", senders), _ends("receivers", receivers)
    count = len(senders)
    if len(receivers) != count:
        raise ValueError(
            f"`senders` has {count} entries and `receivers` {len(receivers)}; give one each an edge"
        )
    top = int(max(senders.max(initial=-1), receivers.max(initial=-1)))
    n = top + 1 if n is None else n
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
        came = checks.came(n)
        raise ValueError(
            f"`n`, the number of nodes, is an int of at least 1, but got {came}; give it, or some "
            "edges"
        )
    n = int(n)
    if n > np.iinfo(np.int32).max:
        raise ValueError(
            f"`n` is at most {np.iinfo(np.int32).max}, but got {n}; give a smaller one"
        )
    problems = Problems("nodes")
    for argument, ends in (("senders", senders), ("receivers", receivers)):
        for wrong in np.unique(ends[(ends < 0) | (ends >= n)]).tolist():
            problems.add(
                f"`{argument}` are from 0 to {n - 1}; give a larger `n` or other numbers", wrong
            )
    problems.check()
    senders, receivers = senders.astype(np.int32), receivers.astype(np.int32)
    if not isinstance(tie, (str, type(None))):
        came = checks.came(tie)
        raise ValueError(
            f"`tie` is a str or None, but got {came}; give one name, which ties all edges of a kind"
        )
    node_kinds, node_class = _kinds("kind", kind, n)
    edge_kinds, edge_class = _kinds("edge_kind", edge_kind, count)
    shape, dtype = parse_shape(shape), parse_dtype(dtype)
    attributes = _number_columns({} if attributes is None else attributes, count)
    keys = _keys(keys, count)
    order = networkx_order(senders, receivers, n, keys)

    return finish(
        ("inputs", () if inputs is None else inputs),
        ("outputs", () if outputs is None else outputs),
        ("held", () if held is None else held),
        names=range(n),
        node_classes=[NodeClass(k, shape, dtype, None) for k in node_kinds],
        node_class=node_class,
        views={},
        arrays={},
        edge_classes=[(k, tie) for k in edge_kinds],
        edge_class=edge_class[order],
        senders=senders[order],
        receivers=receivers[order],
        keys=None if keys is None else tuple(keys[i] for i in order.tolist()),
        attributes={name: column(values[order]) for name, values in sorted(attributes.items())},
    )


def _keys(keys: Any, count: int) -> tuple[Name, ...] | None:
    if keys is None:
        return None
    holds, advice = f"a list of keys, one an edge, {count} in all", "give such, str or int"
    given = checks.entries("keys", keys, holds, advice)
    if len(given) != count:
        raise ValueError(
            f"`keys` holds one key an edge, {count} in all, but got {len(given)}; give one each"
        )
    return if_needed(normalise(given, "edge keys"))


def _column(argument: str, values: Any) -> np.ndarray:
    """Values as an array; a mask would be lost, and lists of lists of several lengths are none."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(
            f"{argument} is a column without a mask, but got a masked one; fill it or drop these "
            "edges"
        )
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{argument} is not an array: {error}; give one number an edge") from None


def _ends(argument: str, given: Any) -> np.ndarray:
    values = _column(f"`{argument}`", given)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        came = f"{values.dtype} of shape {values.shape}" if values.ndim else checks.came(given)
        raise ValueError(
            f"`{argument}` is a column of node numbers, but got {came}; give integers, one an edge"
        )
    if values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise ValueError(
            f"`{argument}` holds {values.max()}, which is no node; give smaller numbers"
        )
    return values.astype(np.int64)


def _kinds(argument: str, kind: Any, count: int) -> tuple[list[str], np.ndarray]:
    if isinstance(kind, str):
        return [kind], np.zeros(count, np.int32)
    given = kind.tolist() if isinstance(kind, np.ndarray) else kind
    ordered = isinstance(given, Iterable) and not isinstance(given, (set, frozenset))
    kinds: list[Any] = list(given) if ordered else [given]
    wrong = [k for k in kinds if not isinstance(k, str)]
    if wrong or len(kinds) != count:
        came = _text.listing(map(checks.came, wrong)) if wrong else f"{len(kinds)} of them"
        raise ValueError(
            f"`{argument}` is one str or a column of {count}, but got {came}; give one each or one "
            "for all"
        )
    classes: dict[str, int] = {}
    column = np.fromiter((classes.setdefault(k, len(classes)) for k in kinds), np.int32, count)
    return list(classes), column


def _number_columns(attributes: Any, count: int) -> dict[str, np.ndarray]:
    given = checks.mapping("attributes", attributes, "names to columns of numbers")
    columns = {name: _column(f"`attributes` {name!r}", values) for name, values in given.items()}
    problems = Problems("`attributes`")
    for name, values in columns.items():
        if not isinstance(name, str) or name in ("kind", "tie"):
            problems.add(
                "the name is a str, and not 'kind' or 'tie', which are arguments of their own; "
                "rename it",
                name,
            )
        if values.shape != (count,) or values.dtype.kind not in "biuf":
            came = f"{values.dtype} of shape {values.shape}"
            problems.add(
                f"one number an edge, {count} in all, but got {came}; give such a column", name
            )
    problems.check()
    return columns


def networkx_order(
    senders: np.ndarray, receivers: np.ndarray, n: int, keys: tuple[Name, ...] | None
) -> np.ndarray:
    """Edges as a networkx graph of them would list them: by sender, parallel ones side by side."""
    pair = senders.astype(np.int64) * n + receivers
    if keys is None:
        ordered = np.sort(pair)
        twice = [divmod(at, n) for at in ordered[1:][ordered[1:] == ordered[:-1]].tolist()]
        order = stable_order(senders)
    else:
        named = zip(senders.tolist(), receivers.tolist(), keys, strict=True)
        twice = [edge for edge, count in Counter(named).items() if count > 1]
        _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
        order = np.lexsort((first[inverse], senders))
    if twice:
        raise ValueError(
            f"edges {_text.names(dict.fromkeys(twice))} are given more than once, and only keys "
            "tell parallel edges apart; give `keys` that differ"
        )
    return order
