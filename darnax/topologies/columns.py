"""What a topology remembers: names and integer columns, read once from a drawn graph or given as arrays.

A graph kept alive would cost more memory than everything else together, and its attribute dictionaries
could be written to; the columns are a few read-only NumPy arrays.
"""

import numbers
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax.numpy as jnp
import networkx as nx
import numpy as np

from darnax import _text
from darnax.topologies.names import Name, normalise, positions
from darnax.topologies.views import Index, index_shape, resolve_index

Column = tuple[np.ndarray, np.ndarray | None]
"""Numbers on edges, and on which edges they are given (None: on all)."""


class NodeClass(NamedTuple):
    """What nodes of one sort have in common; `array` is the shared array that views live in, else None."""

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
        for array in self.long():
            array.flags.writeable = False

    def long(self) -> list[np.ndarray]:
        """The columns with one entry a node or an edge, in a fixed order."""
        attributes = [part for column in self.attributes.values() for part in column if part is not None]
        return [self.node_class, self.senders, self.receivers, self.edge_class, *attributes]

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
    """The columns of an annotated networkx graph; arguments go before what rides on `graph.graph`."""
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
    declared = _declared(graph.graph.get("arrays", {}) if arrays is None else arrays)
    names = normalise(list(graph))
    position = {name: i for i, name in enumerate(names)}
    assert len(position) == len(names), "names that networkx told apart are equal"
    if set(map(type, names)) == {int} and names == tuple(range(len(names))):
        names = range(len(names))
    classes, node_class, views = _read_nodes(graph, names, declared)

    def find(name: Any) -> int | None:
        try:
            return position.get(name)
        except TypeError:  # a list, say, which can be no name
            return None

    return finish(
        find,
        _given("inputs", inputs, graph),
        _given("outputs", outputs, graph),
        names=names,
        node_classes=classes,
        node_class=node_class,
        views=views,
        arrays=declared,
        node_kinds=graph.graph.get("node_kinds", ()),
        edge_kinds=graph.graph.get("edge_kinds", ()),
        **_read_edges(graph, names, position),
    )


def _given(argument: str, nodes: Any, graph: nx.Graph) -> tuple[str, Any]:
    """What was given and what to call it in an error."""
    if nodes is not None:
        return argument, nodes
    return f"graph.graph[{argument!r}]", graph.graph.get(argument, ())


def finish(
    find: Callable[[Any], int | None],
    inputs: tuple[str, Any],
    outputs: tuple[str, Any],
    *,
    names: Sequence[Name],
    node_kinds: Iterable[str] = (),
    edge_kinds: Iterable[str] = (),
    **columns: Any,
) -> Columns:
    """Columns with inputs and outputs as positions, tables in order of first use and all kinds known."""
    for table, column in (("node_classes", "node_class"), ("edge_classes", "edge_class")):
        columns[table], columns[column] = _by_first_use(columns[table], columns[column])
    return Columns(
        names=names,
        inputs=_distinct(*inputs, find, names),
        outputs=_distinct(*outputs, find, names),
        node_kinds=tuple(sorted({*node_kinds, *(cls.kind for cls in columns["node_classes"])})),
        edge_kinds=tuple(sorted({*edge_kinds, *(kind for kind, _ in columns["edge_classes"])})),
        **columns,
    )


def _by_first_use(table: Sequence, column: np.ndarray) -> tuple[tuple, np.ndarray]:
    first = np.full(len(table), len(column))
    first[column[::-1]] = np.arange(len(column))[::-1]  # where an entry is set twice, the last one counts
    order = np.argsort(first)
    used = [table[i] for i in order if first[i] < len(column)]
    return tuple(used), np.argsort(order).astype(np.int32)[column]


def _distinct(argument: str, nodes: Any, find: Callable[[Any], int | None], names: Sequence[Name]) -> tuple[int, ...]:
    found = positions(argument, nodes, find, names)
    twice = [names[at] for at, count in Counter(found).items() if count > 1]
    if twice:
        raise ValueError(f"`{argument}` names {_text.names(twice)} twice; name every node once")
    return found


def _declared(arrays: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(arrays, Mapping):
        raise TypeError(f"`arrays` maps names to shapes, as in {{'image': (28, 28, 1)}}, but got {arrays!r}")
    problems, result = Problems("`arrays`"), {}
    for name, shape in arrays.items():
        try:
            result[name] = parse_shape(shape)
        except ValueError as error:
            problems.add(str(error), name)
        if not isinstance(name, str):
            problems.add("the name of an array is a str; rename it", name)
    problems.check()
    return result


def parse_shape(shape: Any) -> tuple[int, ...]:
    """A shape as a tuple; `ValueError` says what is wrong with it."""
    parts = shape if isinstance(shape, (tuple, list)) else (shape,)
    if not all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in parts):
        raise ValueError(f"`shape` is an int or a tuple of ints, such as (28, 28, 1), but got {shape!r}")
    if any(part < 1 for part in parts):
        raise ValueError(f"every axis of `shape` is at least 1, but got {shape!r}; a single unit has shape ()")
    return tuple(map(int, parts))


def parse_dtype(dtype: Any) -> str:
    """A dtype by its name; `ValueError` says what is wrong with it."""
    try:
        result = jnp.dtype(dtype)
        if dtype is not None and (jnp.issubdtype(result, jnp.number) or result.kind == "b"):
            return result.name
    except (TypeError, ValueError):
        pass
    raise ValueError(f"`dtype` is a numeric type such as 'float32' or 'int8', but got {dtype!r}")


def _read_nodes(graph, names, declared):
    problems = Problems("node")
    classes: dict[NodeClass, int] = {}
    seen: dict[tuple, int] = {}  # attributes as written -> class: most nodes are like another
    node_class = np.zeros(len(names), np.int32)
    views = {}
    for i, attributes in enumerate(graph.nodes.values()):
        raw = (attributes.get("shape"), attributes.get("kind", "node"), attributes.get("dtype", "float32"))
        plain = _is_plain(*raw) and "array" not in attributes and "index" not in attributes
        if plain and raw in seen:
            node_class[i] = seen[raw]
            continue
        try:
            cls, index = _read_node(attributes, declared)
        except ValueError as error:
            problems.add(str(error), names[i])
            continue
        node_class[i] = at = classes.setdefault(cls, len(classes))
        if index is not None:
            views[i] = index
        if plain:
            seen[raw] = at
    problems.check()
    table = tuple(classes)
    _check_array_dtypes(table, names, node_class)
    return table, node_class, views


def _is_plain(shape, kind, dtype) -> bool:
    """Written so that equal means the same (1 is equal to True and to 1.0)."""
    sizes = shape if type(shape) is tuple else (shape,)
    return set(map(type, sizes)) <= {int} and type(kind) is str and type(dtype) is str


def _read_node(attributes: dict, declared) -> tuple[NodeClass, Index | None]:
    kind = attributes.get("kind", "node")
    if not isinstance(kind, str):
        raise ValueError(f"`kind` is a str, but got {kind!r}; name the kind")
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
    if not isinstance(array, str) or array not in declared:
        have = f"the arrays are {_text.names(declared)}" if declared else "no array is"
        raise ValueError(
            f"`array` {array!r} is not declared; {have}; declare it, as in arrays={{{array!r}: (28, 28, 1)}}"
        )
    try:
        index = resolve_index(attributes.get("index", ...), declared[array])
    except (ValueError, TypeError) as error:
        place = f"`index` into array {array!r} of shape {declared[array]}"
        raise ValueError(f"{place}: {error}; give ints and slices of positive step inside it") from None
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


def _read_edges(graph, names, position) -> dict:
    """Every edge in networkx's order: by sender, parallel ones side by side."""
    rows = [nbrs for _, nbrs in graph.adjacency()]
    senders = np.repeat(np.arange(len(rows), dtype=np.int32), [len(nbrs) for nbrs in rows])
    receivers = np.fromiter((position[v] for nbrs in rows for v in nbrs), np.int32, len(senders))
    attributes = [edge for nbrs in rows for edge in nbrs.values()]
    keys = ()
    if graph.is_multigraph():
        counts = [len(keyed) for keyed in attributes]
        senders, receivers = np.repeat(senders, counts), np.repeat(receivers, counts)
        keys = normalise([key for keyed in attributes for key in keyed], "edge keys")
        attributes = [edge for keyed in attributes for edge in keyed.values()]

    def edge(i: int) -> tuple:
        ends = names[senders[i]], names[receivers[i]]
        return (*ends, keys[i]) if keys else ends

    kinds, ties = [d.get("kind", "edge") for d in attributes], [d.get("tie") for d in attributes]
    problems = Problems("edge")
    for what, values, allowed in (("kind", kinds, str), ("tie", ties, (str, type(None)))):
        if not all(issubclass(found, allowed) for found in set(map(type, values))):
            for i, value in enumerate(values):
                if not isinstance(value, allowed):
                    problems.add(f"`{what}` is a str, but got {value!r}; name the {what}", edge(i))
    problems.check()
    classes: dict[tuple[str, str | None], int] = {}
    pairs = zip(kinds, ties, strict=True)
    edge_class = np.fromiter((classes.setdefault(c, len(classes)) for c in pairs), np.int32, len(kinds))
    return {
        "edge_classes": tuple(classes),
        "edge_class": edge_class,
        "senders": senders,
        "receivers": receivers,
        "keys": _if_needed(keys),
        "attributes": _read_numbers(attributes, edge),
    }


def _if_needed(keys: tuple[Name, ...]) -> tuple[Name, ...] | None:
    return keys if any(key != 0 for key in keys) else None


def _read_numbers(attributes: list[dict], edge: Callable[[int], tuple]) -> dict[str, Column]:
    """Every attribute that holds numbers, as a column; what couplings cannot read (colours) is left."""
    result, problems = {}, Problems("edge attribute")
    names = set().union(*attributes) - {"kind", "tie"}
    for name in sorted(name for name in names if isinstance(name, str)):
        values = [d.get(name) for d in attributes]
        odd = {sort for sort in set(map(type, values)) if not issubclass(sort, numbers.Real)}
        if odd:
            values = [_number(value) if type(value) in odd else value for value in values]
        given = np.asarray([value is not None for value in values])
        strange = [i for i, value in enumerate(values) if value is _NOT_A_NUMBER] if odd else []
        if not strange:
            result[name] = column(np.asarray([0 if value is None else value for value in values]), given)
        elif len(strange) < given.sum():
            who = f"{attributes[strange[0]][name]!r} on {_text.listing(edge(i) for i in strange)}"
            problems.add(f"a number on some edges, but {who}; make all of them numbers", name)
    problems.check()
    return result


_NOT_A_NUMBER = object()


def _number(value: Any) -> Any:
    """The number that a NumPy or JAX scalar holds; None stays."""
    if value is None:
        return None
    if getattr(value, "shape", None) == () and np.asarray(value).dtype.kind in "biuf":
        return np.asarray(value).item()
    return _NOT_A_NUMBER


def column(values: np.ndarray, given: np.ndarray | None = None) -> Column:
    """A column of int64 or float64, and where it is given."""
    large = values.dtype == np.uint64 and values.max(initial=0) >= 2**63
    integers = values.dtype.kind in "biu" and not large
    values = values.astype(np.int64 if integers else np.float64)
    return values, None if given is None or given.all() else given


def from_arrays(
    senders, receivers, *, n, shape, kind, dtype, edge_kind, tie, attributes, keys, inputs, outputs
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
    keys = None if keys is None else _if_needed(normalise(list(keys), "edge keys"))
    if keys is not None and len(keys) != count:
        raise ValueError(f"`keys` holds one key an edge, {count} in all, but got {len(keys)}")
    order = _networkx_order(senders, receivers, n, keys)

    def find(name: Any) -> int | None:
        integer = isinstance(name, (int, np.integer)) and not isinstance(name, bool)
        return int(name) if integer and 0 <= name < n else None

    return finish(
        find,
        ("inputs", () if inputs is None else inputs),
        ("outputs", () if outputs is None else outputs),
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


def _networkx_order(senders: np.ndarray, receivers: np.ndarray, n: int, keys: tuple[Name, ...] | None) -> np.ndarray:
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


def stable_order(values: np.ndarray) -> np.ndarray:
    """`np.argsort(values, kind="stable")` of non-negative integers, in a fifth of the time.

    Value and position are packed into one number, and numbers are sorted faster than places.
    """
    n = len(values)
    if not n or int(values.max()) >= np.iinfo(np.int64).max // n:
        return np.argsort(values, kind="stable")
    return np.sort(values.astype(np.int64) * n + np.arange(n)) % n
