"""Annotated networkx graphs, read into tables.

A drawing may hold anything under any name, so every attribute is checked here. Problems are
collected and raised together, with the names that nodes and edges have in the drawing. A graph may
have millions of edges: values are read a whole attribute at a time, and a single one is looked at
only where its type asks for it.
"""

import numbers
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxGraph, nx
from darnax.topologies.names import Finder, Name, Names, node_names, normalise
from darnax.topologies.plain import as_index, as_number, as_sizes, from_plain
from darnax.topologies.roles import read_roles
from darnax.topologies.tables import (
    Column,
    Columns,
    EdgeTable,
    NodeClass,
    NodeTable,
    Problems,
    Shape,
    Shapes,
    assemble,
    needed_keys,
    number_column,
    parse_dtype,
    parse_shape,
    table_of,
)
from darnax.topologies.views import ViewIndex, index_shape, resolve_index

Attributes = dict[str, Any]
"""What networkx keeps for one node or edge: anything, under any name."""

NODE_ATTRIBUTES = ("shape", "kind", "dtype", "role", "array", "index")
"""The attributes of nodes that are read; all others are the user's own."""

EDGE_ATTRIBUTES = ("kind", "tie")
"""The attributes of edges that are words; those that hold numbers are read as well."""

FILE_ATTRIBUTES = ("id", "key", "label")
"""The attributes in which files of graphs name edges; text in them is never read as a number."""


@checks.by_hand
def read_graph(
    graph: NxGraph,
    *,
    inputs: Names | None,
    outputs: Names | None,
    held: Names | None,
    arrays: Mapping[str, Shape] | None,
    both_ways: bool = False,
) -> Columns:
    """The columns of an annotated graph; arguments replace what is written on the graph."""
    both_ways = checks.flag("both_ways", both_ways)
    advice = "draw one, or give wiring that is already arrays to Topology.from_edges"
    checks.instance("graph", graph, nx.Graph, "a networkx DiGraph or MultiDiGraph", advice)
    # An undirected edge may mean one message or two: the user has to say which.
    if not graph.is_directed() and not both_ways:
        raise ValueError(
            "`graph` is undirected, and u -> v means that u sends to v; use "
            "Topology(graph, both_ways=True) where both ends send to each other"
        )
    if graph.is_directed() and both_ways:
        raise ValueError(
            "`both_ways` is for undirected graphs, and this one says who sends to whom; draw the "
            "edges back, or give graph.to_undirected()"
        )
    if not len(graph):
        raise ValueError("`graph` has no nodes; add some with graph.add_node(name, shape=...)")
    graph = from_plain(graph)
    # Builders write arrays and kinds on the graph, so that a drawing is all that Topology needs.
    written = graph.graph
    if arrays is None:
        arrays = written.get("arrays", {})
    names = node_names(list(graph))
    shapes = read_array_shapes(arrays)
    roles = {"inputs": inputs, "outputs": outputs, "held": held}
    return assemble(
        _read_nodes(graph, names, shapes),
        _read_edges(drawn_edges(graph, names)),
        read_roles(graph, roles, Finder(names)),
        read_kinds("graph.graph['node_kinds']", written.get("node_kinds", ())),
        read_kinds("graph.graph['edge_kinds']", written.get("edge_kinds", ())),
    )


def read_kinds(argument: str, kinds: object) -> list[str]:
    """The kinds that a builder declares, whether or not a node or edge is of them."""
    holds = "a list of kinds, each a str"
    entries = checks.entries(argument, kinds, holds, "give such")
    if not all(isinstance(kind, str) for kind in entries):
        checks.refuse(argument, holds, entries, "give such")
    return entries


# nodes


def read_array_shapes(arrays: object) -> Shapes:
    """The shapes of shared arrays by name, checked."""
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
    """The table of all nodes; a warning for attributes that look like a slip."""
    problems = Problems("node")
    classes: dict[NodeClass, int] = {}
    # Most nodes are written like an earlier one, and have its class without a second look.
    seen: dict[tuple[Any, ...] | None, int] = {}
    node_class = np.zeros(len(names), np.int32)
    views: dict[int, ViewIndex] = {}
    for i, attributes in enumerate(graph.nodes.values()):
        # None is never among the seen.
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
    """The attributes that decide the class of a node, as they are written.

    None for views, and for values that can be equal without meaning the same, such as 1 and True.
    """
    if "array" in attributes or "index" in attributes:
        return None
    shape = attributes.get("shape")
    kind = attributes.get("kind", "node")
    dtype = attributes.get("dtype", "float32")
    sizes = shape if type(shape) is tuple else (shape,)
    # Exact types: 1, True and 1.0 are equal, and the last two are no sizes.
    if set(map(type, sizes)) <= {int} and type(kind) is str and type(dtype) is str:
        return shape, kind, dtype
    return None


def _read_node(
    attributes: Attributes,
    shapes: Shapes,
) -> tuple[NodeClass, ViewIndex | None]:
    """The class of a node, and its index if it is a view."""
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
    """The shape of a node with cells of its own."""
    if "index" in attributes:
        raise ValueError("`index` is given without `array`; name the shared array it indexes")
    if attributes.get("shape") is None:
        # A slip of the pen is the likeliest reason, and a guess at it saves a search.
        slips = [repr(name) for name in attributes if _text.meant(str(name), ["shape"])]
        hint = f" (is it {slips[0]}?)" if slips else ""
        raise ValueError(
            f"`shape` is missing{hint}; give one, such as shape=(64,), or a view with array= "
            "and index="
        )
    return parse_shape(as_sizes(attributes["shape"]))


def _read_index(
    array: object,
    attributes: Attributes,
    shapes: Shapes,
) -> ViewIndex:
    """The index of a view into its shared array."""
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
        return resolve_index(as_index(attributes.get("index", ...)), shapes[array])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`index` into array {array!r} of shape {shapes[array]}: {error}; give ints, slices of "
            "positive step, lists of ints or masks inside it"
        ) from None


def check_array_dtypes(nodes: NodeTable) -> None:
    """Refuse views of one array that differ in dtype: an array has one dtype for all cells."""
    # Classes are enough to look at: all nodes of a class have its array and its dtype.
    classes: dict[str, dict[str, int]] = {}
    for i, node_class in enumerate(nodes.node_classes):
        if node_class.array is not None:
            by_dtype = classes.setdefault(node_class.array, {})
            by_dtype.setdefault(node_class.dtype, i)
    for array, by_dtype in classes.items():
        if len(by_dtype) == 1:
            continue
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

    An undirected edge is two edges here, one each way, but an undirected self-loop is one.

    **Fields:**

    - `names`: of the nodes.
    - `senders`, `receivers`: positions of nodes, one an edge.
    - `keys`: networkx's keys, of any type, in a multigraph, else None.
    - `attributes`: the attribute dictionary of every edge; it is networkx's own, and only read.
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
    # networkx keeps a dictionary of receivers for every sender. Going through these at once takes
    # half the time of `graph.edges`.
    rows = [row for _, row in graph.adjacency()]
    position = {node: i for i, node in enumerate(graph)}
    senders = np.arange(len(rows), dtype=np.int32)
    senders = np.repeat(senders, list(map(len, rows)))
    receivers = map(position.__getitem__, chain.from_iterable(rows))
    receivers = np.fromiter(receivers, np.int32, len(senders))
    values = list(chain.from_iterable(row.values() for row in rows))
    if not graph.is_multigraph():
        return DrawnEdges(names, senders, receivers, keys=None, attributes=values)
    # In a multigraph each of these values is a dictionary of parallel edges by key.
    counts = list(map(len, values))
    attributes = chain.from_iterable(parallel.values() for parallel in values)
    return DrawnEdges(
        names,
        np.repeat(senders, counts),
        np.repeat(receivers, counts),
        keys=list(chain.from_iterable(values)),
        attributes=list(attributes),
    )


def _read_edges(edges: DrawnEdges) -> EdgeTable:
    """The table of all edges; drawn edges have the order of a topology already."""
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
        needed_keys(keys),
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
    # Few types, however many edges: a look at every value takes longer than all the rest.
    types = set(map(type, values))
    if all(issubclass(found, allowed) for found in types):
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
    - `invalid`: positions of the edges on which it is no number.
    """

    values: np.ndarray
    given: np.ndarray
    invalid: list[int]


def numbers_on(edges: DrawnEdges, name: str) -> Numbers:
    """The attribute of a name as numbers, one an edge."""
    values = [attributes.get(name) for attributes in edges.attributes]
    given = np.ones(len(values), bool)
    invalid = []
    # Most values are numbers of Python, and a set of their types tells so: only others are read.
    types = set(map(type, values))
    plain = {found for found in types if issubclass(found, numbers.Real)}
    for i, value in enumerate(values):
        if type(value) in plain:
            continue
        number = _scalar(value, name)
        values[i] = 0 if number is None else number
        given[i] = value is not None
        if number is None and value is not None:
            invalid.append(i)
    return Numbers(np.asarray(values), given, invalid)


def _scalar(value: object, name: str) -> float | int | None:
    """The number in a scalar of NumPy or JAX, or in a text; None for anything else."""
    if isinstance(value, str) and name not in FILE_ATTRIBUTES:
        return as_number(value)
    if getattr(value, "shape", None) != ():
        return None
    scalar = np.asarray(value)
    return scalar.item() if scalar.dtype.kind in "biuf" else None


def _read_numbers(edges: DrawnEdges) -> tuple[dict[str, Column], dict[str, str]]:
    """Every attribute that holds numbers as a column, and an example of each that does not."""
    columns: dict[str, Column] = {}
    left_out: dict[str, str] = {}
    problems = Problems("edge attribute")
    for name in _other_names(edges.attributes, EDGE_ATTRIBUTES):
        values, given, invalid = numbers_on(edges, name)
        if not invalid:
            # None on every edge is no attribute, as to networkx's own functions.
            if given.any():
                columns[name] = number_column(values, given)
            continue
        came = checks.came(edges.attributes[invalid[0]][name])
        example = f"{came} on {_text.listing(map(edges.name, invalid), 3)}"
        # Words on all edges are the user's own. Words among numbers are a mistake.
        if len(invalid) < given.sum():
            reason = f"a number on some edges, but {example}; make all of them numbers"
            problems.add(reason, name)
        else:
            left_out[name] = example
            _warn_of_slip("edge", name, example, EDGE_ATTRIBUTES)
    problems.check()
    return columns, left_out


# slips


def _other_names(attributes: Iterable[Attributes], known: Sequence[str]) -> list[str]:
    """The names of attributes that are not among the known ones, sorted."""
    names = set().union(*attributes).difference(known)
    # Names that are no str are legal in networkx, and certainly the user's own.
    return sorted(name for name in names if isinstance(name, str))


def _warn_of_slips_on_nodes(graph: NxGraph):
    for name in _other_names(graph.nodes.values(), NODE_ATTRIBUTES):
        example = next(node for node, attributes in graph.nodes.items() if name in attributes)
        _warn_of_slip("node", name, repr(example), NODE_ATTRIBUTES)


def _warn_of_slip(
    what: str,
    name: str,
    where: str,
    known: Sequence[str],
):
    """Warn of an attribute that is not read, if its name is a slip of one that is."""
    right = _text.meant(name, known)
    if right is not None:
        text = f"{what} attribute {name!r} ({where}) is read by nobody; did you mean {right!r}?"
        # Six calls up, from nodes as from edges, stands the user's line that makes the topology.
        warnings.warn(text, stacklevel=6)
