"""Wiring that is already arrays as columns, in the order in which networkx would list it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from darnax import _text
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
    senders, receivers, *, n, shape, kind, dtype, edge_kind, tie, attributes, keys, inputs, outputs, held
) -> Columns:
    """Columns of wiring that is already arrays: nodes `0 .. n - 1` of one shape."""
    senders, receivers = _ends("senders", senders), _ends("receivers", receivers)
    count = len(senders)
    if len(receivers) != count:
        raise ValueError(f"`senders` has {count} entries and `receivers` {len(receivers)}; give one each an edge")
    top = int(max(senders.max(initial=-1), receivers.max(initial=-1)))
    n = top + 1 if n is None else n
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
        raise ValueError(f"`n`, the number of nodes, is an int of at least 1, but got {n!r}; give it, or some edges")
    n = int(n)
    if n > np.iinfo(np.int32).max:
        raise ValueError(f"`n` is at most {np.iinfo(np.int32).max}, but got {n}; give a smaller one")
    problems = Problems("nodes")
    for argument, ends in (("senders", senders), ("receivers", receivers)):
        for wrong in np.unique(ends[(ends < 0) | (ends >= n)]).tolist():
            problems.add(f"`{argument}` are from 0 to {n - 1}; give a larger `n` or other numbers", wrong)
    problems.check()
    senders, receivers = senders.astype(np.int32), receivers.astype(np.int32)
    if not isinstance(tie, (str, type(None))):
        raise ValueError(f"`tie` is a str or None, but got {tie!r}; one name ties all edges of a kind")
    node_kinds, node_class = _kinds("kind", kind, n)
    edge_kinds, edge_class = _kinds("edge_kind", edge_kind, count)
    shape, dtype = parse_shape(shape), parse_dtype(dtype)
    attributes = _number_columns({} if attributes is None else attributes, count)
    keys = None if keys is None else if_needed(normalise(list(keys), "edge keys"))
    if keys is not None and len(keys) != count:
        raise ValueError(f"`keys` holds one key an edge, {count} in all, but got {len(keys)}")
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


def _ends(argument: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise ValueError(
            f"`{argument}` is a column of node numbers, but got {values.dtype} of shape {values.shape}; "
            "give integers, one an edge"
        )
    return values.astype(np.int64)


def _kinds(argument: str, kind: Any, count: int) -> tuple[list[str], np.ndarray]:
    if isinstance(kind, str):
        return [kind], np.zeros(count, np.int32)
    if isinstance(kind, np.ndarray):
        kind = kind.tolist()
    kinds = list(kind) if isinstance(kind, Iterable) else [kind]
    wrong = [k for k in kinds if not isinstance(k, str)]
    if wrong or len(kinds) != count:
        came = _text.names(wrong) if wrong else f"{len(kinds)} of them"
        raise ValueError(
            f"`{argument}` is one str or a column of {count}, but got {came}; give one each or one for all"
        )
    classes: dict[str, int] = {}
    column = np.fromiter((classes.setdefault(k, len(classes)) for k in kinds), np.int32, count)
    return list(classes), column


def _number_columns(attributes: Any, count: int) -> dict[str, np.ndarray]:
    if not isinstance(attributes, Mapping):
        raise TypeError(f"`attributes` maps names to columns of numbers, but got {attributes!r}")
    columns = {name: np.asarray(values) for name, values in attributes.items()}
    problems = Problems("`attributes`")
    for name, values in columns.items():
        if not isinstance(name, str) or name in ("kind", "tie"):
            problems.add("the name is a str, and not 'kind' or 'tie', which are arguments of their own", name)
        if values.shape != (count,) or values.dtype.kind not in "biuf":
            problems.add(f"one number an edge, {count} in all, but got {values.dtype} of shape {values.shape}", name)
    problems.check()
    return columns


def networkx_order(senders: np.ndarray, receivers: np.ndarray, n: int, keys: tuple[Name, ...] | None) -> np.ndarray:
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
            f"edges {_text.names(dict.fromkeys(twice))} are given more than once, and only keys tell parallel "
            "edges apart; give `keys` that differ"
        )
    return order
