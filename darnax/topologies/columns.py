"""What a topology remembers: names and integer columns, read once from a drawn graph or given as arrays.

A graph kept alive would cost more memory than everything else together, and its attribute dictionaries could be
written to; the columns are a few read-only NumPy arrays.
"""

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax.numpy as jnp
import networkx as nx
import numpy as np

from darnax import _text
from darnax.topologies.names import Name, normalise
from darnax.topologies.views import Index, index_shape, resolve_index

Column = tuple[np.ndarray, np.ndarray | None]
"""Numbers on edges, and on which edges they are given (None: on all)."""


class NodeClass(NamedTuple):
    """What nodes of one sort have in common; `array` names the shared array of views, and is None for the others."""

    kind: str
    shape: tuple[int, ...]
    dtype: str
    array: str | None


@dataclass(frozen=True, eq=False)
class Columns:
    """Nodes and edges as columns; `node_class` and `edge_class` index the tables beside them."""

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
    node_kinds: tuple[str, ...]
    edge_kinds: tuple[str, ...]

    def __post_init__(self):
        for array in (self.node_class, self.edge_class, self.senders, self.receivers):
            array.flags.writeable = False

    def state(self) -> tuple:
        """The fields in order, as `Columns(*state)` takes them."""
        return tuple(getattr(self, field.name) for field in fields(self))


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
            lines = [f"{self.what} {_text.names(names)}: {reason}" for reason, names in self.found.items()]
            raise ValueError("; ".join(lines))


def read_graph(graph: Any, inputs: Any, outputs: Any, arrays: Any) -> Columns:
    """The columns of an annotated networkx graph; explicit arguments go before what rides on `graph.graph`."""
    if not isinstance(graph, nx.Graph):
        raise TypeError(
            f"`graph` is a networkx DiGraph or MultiDiGraph, but got {type(graph).__name__}; "
            "wiring that is already arrays goes through Topology.from_edges"
        )
    if not graph.is_directed():
        raise ValueError(
            "`graph` is undirected, and u -> v means that u sends to v; "
            "use graph.to_directed() where both ends send to each other"
        )
    if not len(graph):
        raise ValueError("`graph` has no nodes; add some with graph.add_node(name, shape=...)")
    extra = graph.graph
    declared = _declared(extra.get("arrays", {}) if arrays is None else arrays)
    names, position = _index(list(graph))
    classes, node_class, views = _read_nodes(graph, names, declared)
    edges = _read_edges(graph, position)
    return finish(
        names=names,
        position=lambda name: position.get(name),
        node_classes=classes,
        node_class=node_class,
        views=views,
        arrays=declared,
        inputs=extra.get("inputs", ()) if inputs is None else inputs,
        outputs=extra.get("outputs", ()) if outputs is None else outputs,
        node_kinds=extra.get("node_kinds", ()),
        edge_kinds=extra.get("edge_kinds", ()),
        **edges,
    )


def finish(*, position: Callable[[Any], int | None], inputs, outputs, node_kinds, edge_kinds, **columns) -> Columns:
    """Columns with inputs and outputs resolved to positions, tables in order of first use and all kinds known."""
    for kind in ("node_class", "edge_class"):
        table = "node_classes" if kind == "node_class" else "edge_classes"
        columns[table], columns[kind] = _by_first_use(columns[table], columns[kind])
    classes, edge_classes = columns["node_classes"], columns["edge_classes"]
    return Columns(
        **columns,
        inputs=_positions("inputs", inputs, position),
        outputs=_positions("outputs", outputs, position),
        node_kinds=tuple(sorted({*node_kinds, *(c.kind for c in classes)})),
        edge_kinds=tuple(sorted({*edge_kinds, *(kind for kind, _ in edge_classes)})),
    )


def _by_first_use(table: Sequence, column: np.ndarray) -> tuple[tuple, np.ndarray]:
    if len(table) < 2:
        return tuple(table), column
    used, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return tuple(table[used[i]] for i in order), np.argsort(order).astype(np.int32)[inverse]


def _index(labels: list) -> tuple[Sequence[Name], dict[Name, int]]:
    names = normalise(labels)
    position = {name: i for i, name in enumerate(names)}
    if len(position) < len(names):
        raise ValueError("node names are equal once NumPy integers are read as int; rename one of them")
    if all(type(name) is int for name in names) and names == tuple(range(len(names))):
        return range(len(names)), position
    return names, position


def _positions(argument: str, names: Any, position: Callable[[Any], int | None]) -> tuple[int, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"`{argument}` is a sequence of node names, but got {names!r}; write [{names!r}]")
    names = list(names)
    found = [position(name) for name in names]
    unknown = [name for name, at in zip(names, found, strict=True) if at is None]
    if unknown:
        raise ValueError(f"`{argument}` names {_text.names(unknown)}, which the graph does not have")
    if len(set(found)) < len(found):
        raise ValueError(f"`{argument}` names a node twice: {_text.names(names)}")
    return tuple(at for at in found if at is not None)


def _declared(arrays: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(arrays, Mapping):
        raise TypeError(f"`arrays` maps names to shapes, but got {arrays!r}")
    problems, result = Problems("`arrays`"), {}
    for name, shape in arrays.items():
        try:
            result[name] = parse_shape(shape)
        except ValueError as error:
            problems.add(str(error), name)
        if not isinstance(name, str):
            problems.add("the name of an array is a str", name)
    problems.check()
    return result


def parse_shape(shape: Any) -> tuple[int, ...]:
    """A shape as a tuple; `ValueError` says what is wrong with it."""
    parts = shape if isinstance(shape, (tuple, list)) else (shape,)
    if not all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in parts):
        raise ValueError(f"`shape` is an int or a tuple of ints, but got {shape!r}")
    if any(part < 1 for part in parts):
        raise ValueError(f"every axis of `shape` is at least 1, but got {shape!r}")
    return tuple(map(int, parts))


def parse_dtype(dtype: Any) -> str:
    """A dtype by its name; `ValueError` says what is wrong with it."""
    try:
        result = jnp.dtype(dtype)
        if jnp.issubdtype(result, jnp.number) or result == bool:
            return result.name
    except TypeError:
        pass
    raise ValueError(f"`dtype` is a numeric type such as 'float32' or 'int8', but got {dtype!r}")


def _read_nodes(graph, names, declared):
    problems = Problems("node")
    classes: dict[NodeClass, int] = {}
    seen: dict[tuple, int] = {}  # attributes as written -> class: most nodes are like another
    node_class = np.zeros(len(names), np.int32)
    views = {}
    for i, attributes in enumerate(graph.nodes.values()):
        plain = "array" not in attributes and "index" not in attributes
        raw = (attributes.get("shape"), attributes.get("kind", "node"), attributes.get("dtype", "float32"))
        try:
            if plain:
                node_class[i] = seen[raw]
                continue
        except (KeyError, TypeError):  # not seen yet, or written with a list
            pass
        try:
            cls, index = _read_node(attributes, declared)
        except (ValueError, TypeError) as error:
            problems.add(str(error), names[i])
            continue
        if index is not None:
            views[i] = index
        node_class[i] = classes.setdefault(cls, len(classes))
        if plain and isinstance(raw[0], (int, tuple)):
            seen[raw] = int(node_class[i])
    problems.check()
    table = tuple(classes)
    _check_array_dtypes(table, names, node_class)
    return table, node_class, views


def _read_node(attributes: dict, declared) -> tuple[NodeClass, Index | None]:
    kind = attributes.get("kind", "node")
    if not isinstance(kind, str):
        raise ValueError(f"`kind` is a str, but got {kind!r}")
    dtype = parse_dtype(attributes.get("dtype", "float32"))
    array = attributes.get("array")
    if array is None:
        if "index" in attributes:
            raise ValueError("`index` is given without `array`; name the shared array it indexes")
        if attributes.get("shape") is None:
            raise ValueError("`shape` is missing; give one, such as shape=(64,), or a view with array= and index=")
        return NodeClass(kind, parse_shape(attributes["shape"]), dtype, None), None
    if "shape" in attributes:
        raise ValueError("`shape` and `array` clash: a view takes its shape from `index`; drop `shape`")
    if array not in declared:
        raise ValueError(f"`array` {array!r} is not declared; declare it, as in arrays={{{array!r}: (28, 28, 1)}}")
    try:
        index = resolve_index(attributes.get("index", ...), declared[array])
    except (ValueError, TypeError) as error:
        raise ValueError(f"`index` into array {array!r} {error}") from None
    return NodeClass(kind, index_shape(index), dtype, array), index


def _check_array_dtypes(classes, names, node_class):
    by_array: dict[str, dict[str, int]] = {}
    for i, cls in enumerate(classes):
        if cls.array is not None:
            by_array.setdefault(cls.array, {}).setdefault(cls.dtype, i)
    for array, dtypes in by_array.items():
        if len(dtypes) > 1:
            who = [f"{names[int(np.argmax(node_class == i))]!r} ({dtype})" for dtype, i in dtypes.items()]
            raise ValueError(f"views of array {array!r} have clashing dtypes: {_text.listing(who)}; give all the same")


def _read_edges(graph, position) -> dict:
    multi = graph.is_multigraph()
    rows = [nbrs for _, nbrs in graph.adjacency()]
    if multi:
        parallel = [keyed for nbrs in rows for keyed in nbrs.values()]
        counts = [sum(map(len, nbrs.values())) for nbrs in rows]
        targets = np.repeat(
            np.fromiter((position[v] for nbrs in rows for v in nbrs), np.int32, len(parallel)),
            [len(keyed) for keyed in parallel],
        )
        keys = [key for keyed in parallel for key in keyed]
        attributes = [d for keyed in parallel for d in keyed.values()]
    else:
        counts = [len(nbrs) for nbrs in rows]
        targets = np.fromiter((position[v] for nbrs in rows for v in nbrs), np.int32, sum(counts))
        keys = []
        attributes = [d for nbrs in rows for d in nbrs.values()]
    senders = np.repeat(np.arange(len(rows), dtype=np.int32), counts)

    def edge(i):
        ends = (labels[senders[i]], labels[targets[i]])
        return (*ends, keys[i]) if multi else ends

    labels = list(position)
    try:
        keys = normalise(keys)
    except TypeError as error:
        raise TypeError(str(error).replace("node names", "edge keys")) from None
    classes: dict[tuple[str, str | None], int] = {}
    raw = [(d.get("kind", "edge"), d.get("tie")) for d in attributes]
    edge_class = np.fromiter((classes.setdefault(c, len(classes)) for c in raw), np.int32, len(raw))
    problems = Problems("edge")
    for (kind, tie), i in classes.items():
        if not isinstance(kind, str):
            problems.add(f"`kind` is a str, but got {kind!r}", edge(int(np.argmax(edge_class == i))))
        if not isinstance(tie, (str, type(None))):
            problems.add(f"`tie` is a str, but got {tie!r}", edge(int(np.argmax(edge_class == i))))
    problems.check()
    return dict(
        edge_classes=tuple(classes),
        edge_class=edge_class,
        senders=senders,
        receivers=targets,
        keys=keys if any(key != 0 for key in keys) else None,
        attributes=_read_numbers(attributes, edge),
    )


def _read_numbers(attributes: list[dict], edge) -> dict[str, Column]:
    """Every attribute that holds numbers, as a column; what couplings cannot read (colours, positions) is left."""
    result = {}
    for name in sorted(map(str, set().union(*attributes) - {"kind", "tie"})):
        values = [d.get(name) for d in attributes]
        given = np.asarray([value is not None for value in values])
        numeric = np.asarray([isinstance(value, numbers.Real) for value in values])
        if not numeric.any():
            continue
        if (given & ~numeric).any():
            i = int(np.argmax(given & ~numeric))
            raise ValueError(
                f"edge attribute {name!r} is a number on some edges but {values[i]!r} on {edge(i)}; make all numbers"
            )
        result[name] = column(np.asarray([0 if value is None else value for value in values]), given)
    return result


def column(values: np.ndarray, given: np.ndarray | None = None) -> Column:
    """A column of int64 or float64, and where it is given."""
    values = values.astype(np.int64 if values.dtype.kind in "biu" else np.float64)
    return values, None if given is None or given.all() else given


def from_arrays(
    senders, receivers, *, n, shape, kind, dtype, edge_kind, tie, attributes, keys, inputs, outputs
) -> Columns:
    """Columns of wiring that is already arrays: nodes `0 .. n - 1` of one shape."""
    senders, receivers = _ends("senders", senders), _ends("receivers", receivers)
    if len(senders) != len(receivers):
        raise ValueError(f"`senders` has {len(senders)} entries and `receivers` {len(receivers)}; give one each an edge")
    top = int(max(senders.max(initial=-1), receivers.max(initial=-1)))
    n = top + 1 if n is None else n
    if n < 1:
        raise ValueError("there are no nodes; give `n`, the number of nodes, or at least one edge")
    if top >= n or min(senders.min(initial=0), receivers.min(initial=0)) < 0:
        raise ValueError(f"`senders` and `receivers` are node numbers from 0 to {n - 1}, but reach outside")
    shape, dtype = parse_shape(shape), parse_dtype(dtype)
    node_kinds, node_class = _kinds("kind", kind, n)
    edge_kinds, edge_class = _kinds("edge_kind", edge_kind, len(senders))
    order = _networkx_order(senders, receivers, n, keys is not None)
    attributes = {name: np.asarray(values) for name, values in (attributes or {}).items()}
    wrong = [name for name, values in attributes.items() if values.shape != senders.shape]
    if wrong:
        raise ValueError(f"`attributes` {_text.names(wrong)}: one number an edge, {len(senders)} in all, is needed")
    return finish(
        names=range(n),
        position=lambda name: name if isinstance(name, (int, np.integer)) and 0 <= name < n else None,
        node_classes=tuple(NodeClass(k, shape, dtype, None) for k in node_kinds),
        node_class=node_class,
        views={},
        arrays={},
        edge_classes=tuple((k, tie) for k in edge_kinds),
        edge_class=edge_class[order],
        senders=senders[order],
        receivers=receivers[order],
        keys=None if keys is None else tuple(normalise(list(keys))[i] for i in order),
        attributes={name: column(values[order]) for name, values in sorted(attributes.items())},
        inputs=inputs,
        outputs=outputs,
        node_kinds=(),
        edge_kinds=(),
    )


def _ends(argument: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise ValueError(f"`{argument}` is a column of node numbers, but got {values.dtype} of shape {values.shape}")
    return values.astype(np.int32)


def _kinds(argument: str, kind: Any, count: int) -> tuple[list[str], np.ndarray]:
    if isinstance(kind, str):
        return [kind], np.zeros(count, np.int32)
    kinds, inverse = np.unique(np.asarray(kind, str), return_inverse=True)
    if len(inverse) != count:
        raise ValueError(f"`{argument}` is one str or a column of {count}, but got {len(inverse)}")
    return [str(k) for k in kinds], inverse.astype(np.int32)


def _networkx_order(senders, receivers, n: int, keyed: bool) -> np.ndarray:
    """Edges as a networkx graph of them would list them: by sender, parallel ones side by side."""
    pair = senders.astype(np.int64) * n + receivers
    if not keyed:
        if len(np.unique(pair)) < len(pair):
            raise ValueError("some edges are parallel, so that only a key can tell them apart; give `keys`")
        return np.argsort(senders, kind="stable")
    _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    return np.lexsort((first[inverse], senders))


