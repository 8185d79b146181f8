"""networkx graphs as tables; what is wrong with a drawing is told with the names it has."""

import numbers
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxGraph, nx
from darnax.topologies.names import Finder, Name, Names, node_names, normalise
from darnax.topologies.roles import read_roles
from darnax.topologies.tables import (
    Column,
    Columns,
    EdgeTable,
    NodeClass,
    NodeTable,
    Problems,
    Shape,
    assemble,
    if_needed,
    number_column,
    parse_dtype,
    parse_shape,
    table_of,
)
from darnax.topologies.views import ViewIndex, index_shape, resolve_index

Attributes = dict[str, Any]
"""What networkx keeps for one node or edge: anything, under any name."""

Shapes = dict[str, tuple[int, ...]]
"""The shapes of shared arrays by name."""

NODE_ATTRIBUTES = ("shape", "kind", "dtype", "role", "array", "index")
EDGE_ATTRIBUTES = ("kind", "tie")


@checks.by_hand
def read_graph(
    graph: NxGraph,
    *,
    inputs: Names | None,
    outputs: Names | None,
    held: Names | None,
    arrays: Mapping[str, Shape] | None,
) -> Columns:
    """The columns of an annotated graph; arguments go before what the graph has of its own."""
    advice = "draw one, or give wiring that is already arrays to Topology.from_edges"
    checks.instance("graph", graph, nx.Graph, "a networkx DiGraph or MultiDiGraph", advice)
    # An undirected edge may mean one message or two: the user has to say which.
    if not graph.is_directed():
        raise ValueError(
            "`graph` is undirected, and u -> v means that u sends to v; "
            "use graph.to_directed() where both ends send to each other"
        )
    if not len(graph):
        raise ValueError("`graph` has no nodes; add some with graph.add_node(name, shape=...)")
    # Builders leave what they know on the graph, so that a drawing is all that Topology needs.
    own = graph.graph
    names = node_names(list(graph))
    shapes = read_array_shapes(own.get("arrays", {}) if arrays is None else arrays)
    roles = {"inputs": inputs, "outputs": outputs, "held": held}
    return assemble(
        _read_nodes(graph, names, shapes),
        _read_edges(drawn_edges(graph, names)),
        read_roles(graph, roles, Finder(names)),
        read_kinds("graph.graph['node_kinds']", own.get("node_kinds", ())),
        read_kinds("graph.graph['edge_kinds']", own.get("edge_kinds", ())),
    )


def read_kinds(argument: str, kinds: object) -> list[str]:
    """The kinds that a builder knows, whether or not any node or edge is of them."""
    holds = "a list of kinds, each a str"
    entries = checks.entries(argument, kinds, holds, "give such")
    if not all(isinstance(kind, str) for kind in entries):
        checks.refuse(argument, holds, entries, "give such")
    return entries


# nodes


def read_array_shapes(arrays: object) -> Shapes:
    """The shapes of shared arrays by name."""
    problems = Problems("`arrays`")
    shapes: Shapes = {}
    holds = "names to shapes, such as (28, 28, 1)"
    for name, shape in checks.mapping("arrays", arrays, holds).items():
        try:
            shapes[name] = parse_shape(shape)
        except ValueError as error:
            problems.add(str(error), name)
        if not isinstance(name, str):
            problems.add("the name of an array is a str; rename it", name)
    problems.check()
    return shapes


def _read_nodes(
    graph: NxGraph,
    names: Sequence[Name],
    shapes: Shapes,
) -> NodeTable:
    problems = Problems("node")
    classes: dict[NodeClass, int] = {}
    # Most nodes are written like another one. Then the class of that one is theirs.
    seen: dict[tuple[Any, ...] | None, int] = {}
    node_class = np.zeros(len(names), np.int32)
    views: dict[int, ViewIndex] = {}
    for i, attributes in enumerate(graph.nodes.values()):
        written = _as_written(attributes)
        if written in seen:
            node_class[i] = seen[written]
            continue
        try:
            read, index = _read_node(attributes, shapes)
        except ValueError as error:
            problems.add(str(error), names[i])
            continue
        node_class[i] = classes.setdefault(read, len(classes))
        if index is not None:
            views[i] = index
        if written is not None:
            seen[written] = classes[read]
    problems.check()
    nodes = NodeTable(names, tuple(classes), node_class, views, shapes)
    check_array_dtypes(nodes)
    _warn_of_slips_on_nodes(graph)
    return nodes


def _as_written(attributes: Attributes) -> tuple[Any, ...] | None:
    """The attributes of a node with cells of its own, where equal ones mean the same, else None."""
    if "array" in attributes or "index" in attributes:
        return None
    shape = attributes.get("shape")
    kind = attributes.get("kind", "node")
    dtype = attributes.get("dtype", "float32")
    sizes = shape if type(shape) is tuple else (shape,)
    # Exact types, because 1 is equal to True and to 1.0.
    if set(map(type, sizes)) <= {int} and type(kind) is str and type(dtype) is str:
        return shape, kind, dtype
    return None


def _read_node(
    attributes: Attributes,
    shapes: Shapes,
) -> tuple[NodeClass, ViewIndex | None]:
    kind = attributes.get("kind", "node")
    if not isinstance(kind, str):
        raise ValueError(f"`kind` is a str, but got {checks.came(kind)}; name the kind")
    dtype = parse_dtype(attributes.get("dtype", "float32"))
    array = attributes.get("array")
    if array is None:
        return NodeClass(kind, _read_shape(attributes), dtype, None), None
    index = _read_index(array, attributes, shapes)
    return NodeClass(kind, index_shape(index), dtype, array), index


def _read_shape(attributes: Attributes) -> tuple[int, ...]:
    if "index" in attributes:
        raise ValueError("`index` is given without `array`; name the shared array it indexes")
    if attributes.get("shape") is None:
        # A slip of the pen is the likeliest reason.
        slips = [repr(name) for name in attributes if _text.meant(str(name), ["shape"])]
        hint = f" (is it {slips[0]}?)" if slips else ""
        raise ValueError(
            f"`shape` is missing{hint}; give one, such as shape=(64,), or a view with array= "
            "and index="
        )
    return parse_shape(attributes["shape"])


def _read_index(
    array: object,
    attributes: Attributes,
    shapes: Shapes,
) -> ViewIndex:
    if "shape" in attributes:
        raise ValueError(
            "`shape` and `array` clash: a view takes its shape from `index`; drop `shape`"
        )
    if not isinstance(array, str) or array not in shapes:
        have = f"the arrays are {_text.names(shapes)}" if shapes else "no array is"
        raise ValueError(
            f"`array` {checks.came(array)} is not declared; {have}; declare it, as in "
            "arrays={'x': (28, 28, 1)}"
        )
    try:
        return resolve_index(attributes.get("index", ...), shapes[array])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`index` into array {array!r} of shape {shapes[array]}: {error}; give ints, slices of "
            "positive step, lists of ints or masks inside it"
        ) from None


def check_array_dtypes(nodes: NodeTable) -> None:
    """Refuse views of one array that differ in dtype: it has one for all of its cells."""
    # A class is enough to look at: all of its nodes have its array and its dtype.
    classes: dict[str, dict[str, int]] = {}
    for i, node_class in enumerate(nodes.node_classes):
        if node_class.array is not None:
            classes.setdefault(node_class.array, {}).setdefault(node_class.dtype, i)
    for array, by_dtype in classes.items():
        if len(by_dtype) > 1:
            examples = []
            for dtype, i in by_dtype.items():
                first = int(np.argmax(nodes.node_class == i))
                examples.append(f"{nodes.names[first]!r} ({dtype})")
            raise ValueError(
                f"views of array {array!r} have clashing dtypes: {_text.listing(examples)}; give "
                "all the same"
            )


# edges


class DrawnEdges(NamedTuple):
    """The edges of a graph in networkx's order: by sender, parallel ones side by side.

    An undirected edge goes both ways, a self-loop once.

    **Fields:**

    - `names`: of the nodes.
    - `senders`, `receivers`: positions of nodes, one an edge.
    - `keys`: networkx's keys, of any type, where edges may be parallel, else None.
    - `attributes`: what networkx keeps for each edge.
    """

    names: Sequence[Name]
    senders: np.ndarray
    receivers: np.ndarray
    keys: list[Any] | None
    attributes: list[Attributes]

    def name(self, i: int) -> tuple[Name, ...]:
        """The name of edge `i`: its ends, and its key if it has one."""
        ends = self.names[self.senders[i]], self.names[self.receivers[i]]
        return ends if self.keys is None else (*ends, self.keys[i])


def drawn_edges(graph: NxGraph, names: Sequence[Name]) -> DrawnEdges:
    """The edges of a graph whose nodes, in its order, are called `names`."""
    # networkx lists neighbours in one dictionary a node. Going through all of these at once takes
    # half the time of `graph.edges`.
    rows = [neighbours for _, neighbours in graph.adjacency()]
    position = {node: i for i, node in enumerate(graph)}
    senders = np.arange(len(rows), dtype=np.int32)
    senders = np.repeat(senders, [len(row) for row in rows])
    receivers = map(position.__getitem__, chain.from_iterable(rows))
    receivers = np.fromiter(receivers, np.int32, len(senders))
    found = list(chain.from_iterable(row.values() for row in rows))
    if not graph.is_multigraph():
        return DrawnEdges(names, senders, receivers, None, found)
    # In a multigraph each of these is a dictionary of parallel edges by key.
    counts = [len(parallel) for parallel in found]
    return DrawnEdges(
        names,
        np.repeat(senders, counts),
        np.repeat(receivers, counts),
        list(chain.from_iterable(found)),
        list(chain.from_iterable(parallel.values() for parallel in found)),
    )


def _read_edges(edges: DrawnEdges) -> EdgeTable:
    problems = Problems("edge")
    kinds = _read_words("kind", "edge", edges, problems)
    ties = _read_words("tie", None, edges, problems)
    problems.check()
    classes, edge_class = table_of(zip(kinds, ties, strict=True), len(kinds))
    keys = None if edges.keys is None else normalise(edges.keys, "edge keys")
    attributes, left_out = _read_numbers(edges)
    return EdgeTable(
        classes,
        edge_class,
        edges.senders,
        edges.receivers,
        if_needed(keys),
        attributes,
        left_out,
    )


def _read_words(
    name: str,
    default: str | None,
    edges: DrawnEdges,
    problems: Problems,
) -> list[Any]:
    """An attribute that is a str on every edge, and the default where it is not given."""
    values = [attributes.get(name, default) for attributes in edges.attributes]
    allowed = (str, type(default))
    # Types first: a look at every value takes longer than all the rest.
    if all(issubclass(found, allowed) for found in set(map(type, values))):
        return values
    for i, value in enumerate(values):
        if not isinstance(value, allowed):
            reason = f"`{name}` is a str, but got {checks.came(value)}; name the {name}"
            problems.add(reason, edges.name(i))
    return values


class Numbers(NamedTuple):
    """One attribute of all edges.

    **Fields:**

    - `values`: one number an edge, 0 where there is none.
    - `given`: the edges that have the attribute.
    - `strange`: the edges on which it is no number.
    """

    values: np.ndarray
    given: np.ndarray
    strange: list[int]


def numbers_on(edges: DrawnEdges, name: str) -> Numbers:
    """The numbers that edges carry under a name."""
    values = [attributes.get(name) for attributes in edges.attributes]
    # Most values are numbers of Python, and their types tell so: only the others are looked at.
    given = np.ones(len(values), bool)
    strange = []
    plain = {found for found in set(map(type, values)) if issubclass(found, numbers.Real)}
    for i, value in enumerate(values):
        if type(value) in plain:
            continue
        given[i] = value is not None
        values[i] = number = _scalar(value)
        if number is None:
            values[i] = 0
            if given[i]:
                strange.append(i)
    return Numbers(np.asarray(values), given, strange)


def _scalar(value: object) -> float | int | None:
    """The number in a scalar of NumPy or JAX, None if it is no such scalar."""
    if getattr(value, "shape", None) != ():
        return None
    scalar = np.asarray(value)
    return scalar.item() if scalar.dtype.kind in "biuf" else None


def _read_numbers(edges: DrawnEdges) -> tuple[dict[str, Column], dict[str, str]]:
    """Every attribute that holds numbers as a column, and an example of each that does not."""
    columns, left_out = {}, {}
    problems = Problems("edge attribute")
    names = set().union(*edges.attributes).difference(EDGE_ATTRIBUTES)
    for name in sorted(name for name in names if isinstance(name, str)):
        values, given, strange = numbers_on(edges, name)
        if not strange:
            # None on every edge is no attribute, as to networkx's own functions.
            if given.any():
                columns[name] = number_column(values, given)
            continue
        came = checks.came(edges.attributes[strange[0]][name])
        example = f"{came} on {_text.listing(map(edges.name, strange), 3)}"
        # Words on all edges are the user's own. Words among numbers are a mistake.
        if len(strange) < given.sum():
            reason = f"a number on some edges, but {example}; make all of them numbers"
            problems.add(reason, name)
        else:
            left_out[name] = example
            _warn_of_slip("edge", name, example, EDGE_ATTRIBUTES)
    problems.check()
    return columns, left_out


# slips


def _warn_of_slips_on_nodes(graph: NxGraph):
    names = set().union(*graph.nodes.values()).difference(NODE_ATTRIBUTES)
    for name in sorted(name for name in names if isinstance(name, str)):
        example = next(node for node, attributes in graph.nodes.items() if name in attributes)
        _warn_of_slip("node", name, repr(example), NODE_ATTRIBUTES)


def _warn_of_slip(
    what: str,
    name: str,
    where: str,
    known: Sequence[str],
):
    """Warn of an attribute that nothing reads and that looks like one which is read.

    All other attributes are the user's own.
    """
    right = _text.meant(name, known)
    if right is not None:
        text = f"{what} attribute {name!r} ({where}) is read by nobody; did you mean {right!r}?"
        warnings.warn(text, stacklevel=6)
