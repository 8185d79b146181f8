"""A drawn networkx graph as columns; what is wrong with it is said here, with the names of nodes
and edges.
"""

import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from darnax import _text, checks
from darnax._lazy import Lazy
from darnax.topologies.columns import (
    Column,
    Columns,
    NodeClass,
    Problems,
    column,
    finish,
    if_needed,
    parse_dtype,
    parse_shape,
)
from darnax.topologies.names import normalise
from darnax.topologies.roles import check_names, read_roles
from darnax.topologies.views import Index, index_shape, resolve_index

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")


def read_graph(graph: Any, inputs: Any, outputs: Any, held: Any, arrays: Any) -> Columns:
    """The columns of an annotated networkx graph; arguments go before what rides on
    `graph.graph`.
    """
    advice = "draw one, or give wiring that is already arrays to Topology.from_edges"
    checks.instance("graph", graph, nx.Graph, "a networkx DiGraph or MultiDiGraph", advice)
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
    _warn_of_slips_on_nodes(graph)

    roles = read_roles(graph)
    return finish(
        _given("inputs", inputs, roles["input"], graph),
        _given("outputs", outputs, roles["output"], graph),
        _given("held", held, roles["held"], graph),
        names=names,
        node_classes=classes,
        node_class=node_class,
        views=views,
        arrays=declared,
        node_kinds=_known_kinds(graph, "node_kinds"),
        edge_kinds=_known_kinds(graph, "edge_kinds"),
        **_read_edges(graph, names, position),
    )


def _given(argument: str, nodes: Any, marked: list[Any], graph: "nx.Graph") -> tuple[str, Any]:
    """The nodes that an argument names, or else those that are marked, and what to call them in an
    error.
    """
    if nodes is not None:
        return argument, nodes
    check_names(argument, marked, graph)
    return f"the `role` of {argument}", marked


def _known_kinds(graph: "nx.Graph", key: str) -> list[str]:
    """The kinds that a builder knows, whether or not any node or edge is of them."""
    argument, holds, advice = f"graph.graph[{key!r}]", "a list of kinds, each a str", "give such"
    kinds = checks.entries(argument, graph.graph.get(key, ()), holds, advice)
    if not all(isinstance(kind, str) for kind in kinds):
        checks.refuse(argument, holds, kinds, advice)
    return kinds


def _declared(arrays: Any) -> dict[str, tuple[int, ...]]:
    problems, result = Problems("`arrays`"), {}
    for name, shape in checks.mapping(
        "arrays", arrays, "names to shapes, such as (28, 28, 1)"
    ).items():
        try:
            result[name] = parse_shape(shape)
        except ValueError as error:
            problems.add(str(error), name)
        if not isinstance(name, str):
            problems.add("the name of an array is a str; rename it", name)
    problems.check()
    return result


def _read_nodes(graph, names, declared):
    problems = Problems("node")
    classes: dict[NodeClass, int] = {}
    seen: dict[tuple, int] = {}  # attributes as written -> class: most nodes are like another
    node_class = np.zeros(len(names), np.int32)
    views = {}
    for i, attributes in enumerate(graph.nodes.values()):
        raw = (
            attributes.get("shape"),
            attributes.get("kind", "node"),
            attributes.get("dtype", "float32"),
        )
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
        raise ValueError(f"`kind` is a str, but got {checks.came(kind)}; name the kind")
    dtype = parse_dtype(attributes.get("dtype", "float32"))
    array = attributes.get("array")
    if array is None:
        if "index" in attributes:
            raise ValueError("`index` is given without `array`; name the shared array it indexes")
        if attributes.get("shape") is None:
            slip = next(
                (repr(name) for name in attributes if _text.meant(str(name), ["shape"])), ""
            )
            hint = f" (is it {slip}?)" if slip else ""
            raise ValueError(
                f"`shape` is missing{hint}; give one, such as shape=(64,), or a view with array= "
                "and index="
            )
        return NodeClass(kind, parse_shape(attributes["shape"]), dtype, None), None
    if "shape" in attributes:
        raise ValueError(
            "`shape` and `array` clash: a view takes its shape from `index`; drop `shape`"
        )
    if not isinstance(array, str) or array not in declared:
        have = f"the arrays are {_text.names(declared)}" if declared else "no array is"
        raise ValueError(
            f"`array` {checks.came(array)} is not declared; {have}; declare it, as in "
            "arrays={'x': (28, 28, 1)}"
        )
    try:
        index = resolve_index(attributes.get("index", ...), declared[array])
    except (ValueError, TypeError) as error:
        place = f"`index` into array {array!r} of shape {declared[array]}"
        raise ValueError(
            f"{place}: {error}; give ints and slices of positive step inside it"
        ) from None
    return NodeClass(kind, index_shape(index), dtype, array), index


def _check_array_dtypes(classes, names, node_class):
    by_array: dict[str, dict[str, int]] = {}
    for i, cls in enumerate(classes):
        if cls.array is not None:
            by_array.setdefault(cls.array, {}).setdefault(cls.dtype, i)
    for array, dtypes in by_array.items():
        if len(dtypes) > 1:
            who = [
                f"{names[int(np.argmax(node_class == i))]!r} ({dtype})"
                for dtype, i in dtypes.items()
            ]
            raise ValueError(
                f"views of array {array!r} have clashing dtypes: {_text.listing(who)}; give all "
                "the same"
            )


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
                    problems.add(
                        f"`{what}` is a str, but got {checks.came(value)}; name the {what}", edge(i)
                    )
    problems.check()
    classes: dict[tuple[str, str | None], int] = {}
    pairs = zip(kinds, ties, strict=True)
    edge_class = np.fromiter(
        (classes.setdefault(c, len(classes)) for c in pairs), np.int32, len(kinds)
    )
    columns, left_out = _read_numbers(attributes, edge)
    return {
        "edge_classes": tuple(classes),
        "edge_class": edge_class,
        "senders": senders,
        "receivers": receivers,
        "keys": if_needed(keys),
        "attributes": columns,
        "left_out": left_out,
    }


def _read_numbers(
    attributes: list[dict], edge: Callable[[int], tuple]
) -> tuple[dict[str, Column], dict[str, str]]:
    """Every attribute that holds numbers, as a column; an example of each that is left out, for it
    holds none.
    """
    result, left_out, problems = {}, {}, Problems("edge attribute")
    names = set().union(*attributes) - {"kind", "tie"}
    for name in sorted(name for name in names if isinstance(name, str)):
        values = [d.get(name) for d in attributes]
        odd = {sort for sort in set(map(type, values)) if not issubclass(sort, numbers.Real)}
        if odd:
            values = [_number(value) if type(value) in odd else value for value in values]
        given = np.asarray([value is not None for value in values])
        strange = [i for i, value in enumerate(values) if value is _NOT_A_NUMBER] if odd else []
        if not strange:
            result[name] = column(
                np.asarray([0 if value is None else value for value in values]), given
            )
            continue
        example = (
            f"{checks.came(attributes[strange[0]][name])} on {_text.listing(map(edge, strange), 3)}"
        )
        if len(strange) < given.sum():
            problems.add(f"a number on some edges, but {example}; make all of them numbers", name)
            continue
        left_out[name] = example
        _warn_of_slip("edge", name, example, ("kind", "tie"))
    problems.check()
    return result, left_out


def _warn_of_slips_on_nodes(graph: "nx.Graph"):
    attributes = set().union(*graph.nodes.values()) - {*NODE_ATTRIBUTES}
    for attribute in sorted(attribute for attribute in attributes if isinstance(attribute, str)):
        example = next(node for node, data in graph.nodes.items() if attribute in data)
        _warn_of_slip("node", attribute, repr(example), NODE_ATTRIBUTES)


def _warn_of_slip(what: str, attribute: str, where: str, known: Sequence[str]):
    """Speak about an attribute that nobody reads and that looks like one which is read; others are
    the user's own.
    """
    right = _text.meant(attribute, known)
    if right is not None:
        text = (
            f"{what} attribute {attribute!r} ({where}) is read by nobody; did you mean {right!r}?"
        )
        warnings.warn(text, stacklevel=5)


NODE_ATTRIBUTES = ("shape", "kind", "dtype", "role", "array", "index")

_NOT_A_NUMBER = object()


def _number(value: Any) -> Any:
    """The number that a NumPy or JAX scalar holds; None stays."""
    if value is None:
        return None
    if getattr(value, "shape", None) == () and np.asarray(value).dtype.kind in "biuf":
        return np.asarray(value).item()
    return _NOT_A_NUMBER
