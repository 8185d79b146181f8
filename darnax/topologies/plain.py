"""Plain drawings: graphs whose names and attributes are text and numbers, as files of graphs hold.

GraphML, GEXF, GML and tables know neither tuples nor slices, and most of them no names but text. A
plain drawing says the same in words that all of them keep:

    shape        (8, 8)                     "(8, 8)"
    index        (slice(0, 3), 1)           "(0:3, 1)"
    index        (array([0, 2]), ...)       "[[0, 2], ...]", one list an axis
    role         {"input": 1}               "input: 1"
    name         ("a", 1)                   "('a', 1)", and `name_type="tuple"` beside it
    key          ("y", 1)                   `edge_key="('y', 1)"` on the edge

Shared arrays and kinds that nobody uses stand on the graph, which not all formats keep. A plain
drawing has them on its first node, as JSON in `declares`. Everything is on the nodes and edges that
it is about and nothing is in a list of names, so that it is right after every function of networkx.
"""

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxDiGraph, NxGraph, nx
from darnax.topologies.names import Name, is_name
from darnax.topologies.tables import Columns, Problems, parse_shape, repeated
from darnax.topologies.views import ViewIndex, is_regular

PLAIN_ATTRIBUTES = ("name_type", "declares")
"""The attributes of nodes that only plain drawings have."""

# Texts come from files. No pattern here can match a text in two ways, which would take long to
# rule out, and integers have as many digits as 64 bits hold.
INTEGER = re.compile(r"[+-]?\d{1,18}")
WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?inf", re.IGNORECASE)

WORDS = ("na", "n/a", "nan", "none", "null", "inf", "infinity", "true", "false")
"""The words that readers of tables take for no text."""

LONGEST = 10_000
"""The most letters of a name: Python's parser takes memory for every one of them."""


# texts


def is_missing(value: object) -> bool:
    """Whether a value stands for none: None, or what tables have in an empty cell."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those that a table has on every row, and that stand for none."""
    return {name: value for name, value in attributes.items() if not is_missing(value)}


def as_number(value: str) -> int | float | None:
    """The number in a text, None if it is none."""
    value = value.strip()
    if INTEGER.fullmatch(value):
        return int(value)
    return float(value) if NUMBER.fullmatch(value) else None


def as_sizes(value: object) -> Any:
    """A shape in which whole numbers may be text or floats; anything else as it came."""
    if isinstance(value, str):
        parts = _parts(value)
        # "()" has no parts either, and is a shape
        if not value.strip() or not all(map(WHOLE.fullmatch, parts)):
            return value
        return tuple(int(part.partition(".")[0]) for part in parts)
    if isinstance(value, (tuple, list)):
        return tuple(map(_whole, value))
    return _whole(value)


def _parts(text: str) -> list[str]:
    """What stands between commas, with or without brackets around all of it."""
    text = text.strip()
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    parts = [part.strip() for part in text.split(",")]
    # nothing follows the last comma of "(8,)"
    return parts if parts[-1] else parts[:-1]


def _whole(value: object) -> object:
    """A float that is a whole number as an int."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return value


def as_index(value: object) -> object:
    """An index that may be text, as NumPy writes it: "(0:3, 1)", "...", "[[0, 2], [3, 1]]"."""
    if not isinstance(value, str):
        return value
    # A list is an index of cells, as it is to NumPy; brackets around slices say nothing.
    if value.lstrip().startswith("[") and ":" not in value:
        lists = _lists(value)
        if not any(isinstance(part, list) for part in lists):
            lists = [lists]
        return tuple(np.asarray(part) for part in lists)
    try:
        return tuple(map(_index_part, _parts(value)))
    except ValueError:
        raise ValueError(
            f"{checks.came(value)} is no index: write it as NumPy does, 0:3, 1"
        ) from None


def _lists(value: str) -> list[Any]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ValueError(f"{checks.came(value)} is no index: a list an axis, as [[0, 2], [3, 1]]")
    return found


def _index_part(part: str) -> object:
    """The entry of an index for one axis: "...", "2" or "0:3:2"."""
    if part == "...":
        return ...
    bounds = [bound.strip() for bound in part.split(":")]
    if bounds == [""] or len(bounds) > 3:
        raise ValueError
    numbers = list(map(_bound, bounds))
    return slice(*numbers) if len(numbers) > 1 else numbers[0]


def _bound(text: str) -> int | None:
    if text and not INTEGER.fullmatch(text):
        raise ValueError
    return int(text) if text else None


def index_text(index: ViewIndex) -> str:
    """The text of an index."""
    if not is_regular(index):
        return json.dumps([np.asarray(part).tolist() for part in index])
    words: list[str] = []
    for part in index:
        if isinstance(part, slice):
            part = f"{part.start}:{part.stop}:{part.step}"
        words.append(str(part))
    return f"({', '.join(words)})"


def as_roles(role: str) -> dict[object, object]:
    """Roles in a text, each with its place: "input", "input, output", "input: 1"."""
    roles: dict[object, object] = {}
    for part in role.split(","):
        word, colon, place = part.partition(":")
        place = place.strip()
        if not colon:
            roles[word.strip()] = 0
        else:
            # who reads the roles refuses a place that is no number
            roles[word.strip()] = int(place) if re.fullmatch(r"\d{1,9}", place) else place
    return roles


# to plain


def to_plain(graph: NxDiGraph, columns: Columns) -> NxDiGraph:
    """A plain drawing of what `to_networkx` has drawn from some columns."""
    # the stubs of networkx do not know edges with keys
    drawn: Any = graph
    plain: Any = nx.MultiDiGraph() if graph.is_multigraph() else nx.DiGraph()
    for i, (name, attributes) in enumerate(graph.nodes(data=True)):
        declared = {} if i else _declared(columns)
        plain.add_node(_name_text(name), **_plain_node(name, attributes), **declared)
    if not graph.is_multigraph():
        plain.add_edges_from(
            (_name_text(u), _name_text(v), said) for u, v, said in drawn.edges(data=True)
        )
        return plain
    for u, v, key, said in drawn.edges(keys=True, data=True):
        edge = _name_text(u), _name_text(v), repr(key)
        plain.add_edges_from([(*edge, said | {"edge_key": repr(key)})])
    return plain


def _name_text(name: Name) -> str:
    # quotes keep "3" from 3, and "('a', 1)" from a tuple
    return name if isinstance(name, str) and not _looks_typed(name) else repr(name)


def _looks_typed(name: str) -> bool:
    """Whether a reader could take a name for the text of something else."""
    return not (name[:1].isalpha() or name[:1] == "_") or name.lower() in WORDS


def _plain_node(name: Name, attributes: Mapping[str, Any]) -> dict[str, str]:
    said: dict[str, str] = {"name_type": "text"}
    if _name_text(name) != name:
        said["name_type"] = type(name).__name__
    for attribute, value in attributes.items():
        if attribute == "index":
            value = index_text(value)
        elif isinstance(value, Mapping):
            value = ", ".join(f"{role}: {place}" for role, place in value.items())
        said[attribute] = str(value)
    return said


def _declared(columns: Columns) -> dict[str, str]:
    """What is said of the whole graph."""
    integers: list[str] = []
    for name, (values, _) in columns.attributes.items():
        if values.dtype.kind == "i":
            integers.append(name)
    said = {
        "arrays": columns.arrays,
        "node_kinds": columns.node_kinds,
        "edge_kinds": columns.edge_kinds,
        "integers": integers,
    }
    return {"declares": json.dumps(said)}


# from plain


def from_plain(graph: NxGraph) -> NxGraph:
    """A drawing with the names, keys and declarations that a plain one has in words.

    Other drawings are given back as they are.
    """
    if not any("name_type" in attributes for attributes in graph.nodes.values()):
        return graph
    names = _names(graph)
    drawn = _empty_like(graph)
    for node, attributes in graph.nodes.items():
        own = {name: attributes[name] for name in attributes if name not in PLAIN_ATTRIBUTES}
        drawn.add_node(names[node])
        drawn.nodes[names[node]].update(given(own))
    if len(drawn) < len(graph):
        raise ValueError(
            f"two nodes have one name, {_text.names(repeated(names.values()))}, by `name_type`; "
            "rename one"
        )
    integers = _declare(drawn, graph)
    _draw_edges(drawn, graph, names, integers)
    return drawn


def _empty_like(graph: NxGraph) -> NxGraph:
    """A graph without nodes: with parallel edges, if edges say their keys."""
    keys = graph.is_multigraph() or any("edge_key" in data for *_, data in graph.edges(data=True))
    if graph.is_directed():
        drawn = nx.MultiDiGraph() if keys else nx.DiGraph()
    else:
        drawn = nx.MultiGraph() if keys else nx.Graph()
    drawn.graph.update(graph.graph)
    return drawn


def _names(graph: NxGraph) -> dict[Any, Any]:
    """The names of all nodes; `ValueError` lists those whose text is of another type."""
    problems = Problems("node")
    names: dict[Any, Any] = {}
    for node, attributes in graph.nodes.items():
        kind = attributes.get("name_type", "text")
        try:
            names[node] = _name(node, kind)
        except ValueError as error:
            problems.add(str(error), node)
    problems.check()
    return names


def _name(node: object, kind: object) -> object:
    """The name of a node whose attribute `name_type` says `kind`."""
    # what is no text says its own type, whether a table has read it so or somebody renamed it
    if kind == "text" or is_missing(kind) or not isinstance(node, str):
        return node
    name = _literal(node)
    if kind not in ("int", "tuple", "str") or type(name).__name__ != kind or not is_name(name):
        raise ValueError(
            f"`name_type` is {checks.came(kind)}, which the name is not; drop it where nodes are "
            "renamed"
        )
    return name


def _literal(text: str) -> object:
    """The str, int or tuple that a text writes as Python does; None for anything else."""
    if len(text) > LONGEST:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _declare(drawn: NxGraph, graph: NxGraph) -> set[str]:
    """Write on a graph what its nodes declare; the names of attributes that are integers."""
    problems = Problems("node")
    integers: set[str] = set()
    kinds: dict[str, set[str]] = {"node_kinds": set(), "edge_kinds": set()}
    holds = "names to shapes, such as (28, 28, 1)"
    arrays = dict(checks.mapping("graph.graph['arrays']", graph.graph.get("arrays", {}), holds))
    for node, text in graph.nodes(data="declares"):
        if is_missing(text):
            continue
        try:
            said = _said(text)
            _add_arrays(arrays, said["arrays"])
        except ValueError as error:
            problems.add(str(error), node)
            continue
        integers.update(said["integers"])
        for name in kinds:
            kinds[name].update(said[name])
    problems.check()
    drawn.graph["arrays"] = arrays
    for name, found in kinds.items():
        # kinds that others have written there are checked with those of any drawing
        written = drawn.graph.setdefault(name, [])
        if isinstance(written, (list, tuple)):
            drawn.graph[name] = [*written, *sorted(found)]
    return integers


def _add_arrays(arrays: dict[str, Any], declared: Mapping[str, Any]):
    """Add declared arrays to those that are there already."""
    for name, shape in declared.items():
        if parse_shape(arrays.setdefault(name, shape)) != parse_shape(shape):
            raise ValueError(f"array {name!r} is declared with two shapes; rename one")


def _said(text: object) -> dict[str, Any]:
    """What the JSON of `declares` says, checked as far as it is read here."""
    try:
        said = json.loads(str(text))
        names = [*said["node_kinds"], *said["edge_kinds"], *said["integers"], *said["arrays"]]
        if isinstance(said["arrays"], dict) and all(isinstance(name, str) for name in names):
            return said
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise ValueError(f"`declares` is {checks.came(text)}, which no drawing has said; drop it")


def _draw_edges(drawn: NxGraph, graph: NxGraph, names: Mapping[Any, Any], integers: set[str]):
    problems = Problems("edge")
    edges: list[tuple[Any, ...]] = []
    for u, v, *drawn_key, attributes in _edges(graph):
        ends = names[u], names[v]
        try:
            keys = _keys(attributes.get("edge_key"), drawn_key)
        except ValueError as error:
            problems.add(str(error), ends)
            continue
        edges.append((*ends, *keys, _edge_attributes(attributes, integers)))
    problems.check()
    twice = repeated(edge[:3] for edge in edges if len(edge) == 4)
    if twice:
        raise ValueError(
            f"edges {_text.names(twice)} are drawn more than once; give each an `edge_key` of its "
            "own"
        )
    drawn.add_edges_from(edges)


def _edges(graph: NxGraph) -> Iterable[tuple[Any, ...]]:
    """`(u, v, attributes)`, or `(u, v, key, attributes)` where edges may be parallel."""
    if graph.is_multigraph():
        return graph.edges(data=True, keys=True)  # pyright: ignore[reportCallIssue] (a multigraph)
    return graph.edges(data=True)


def _keys(written: object, drawn: list[Any]) -> list[Any]:
    """The key of an edge, if it has one: as a plain drawing writes it, or as it was drawn."""
    if is_missing(written):
        # A drawing that is not plain may have come in with keys of its own; 0 is no one's.
        return [key for key in drawn if key != 0]
    key = _literal(written) if isinstance(written, str) else written
    if not is_name(key):
        raise ValueError(
            "`edge_key` is no str, int or tuple of these as Python writes them; drop it"
        )
    return [key]


def _edge_attributes(attributes: Mapping[str, Any], integers: set[str]) -> dict[str, Any]:
    """What an edge carries besides its key."""
    own = given(attributes)
    own.pop("edge_key", None)
    for name in integers & set(own):
        own[name] = _as_integer(own[name])
    return own


def _as_integer(value: object) -> object:
    """The integer of a column of integers, which a format may have made a float or a text."""
    if isinstance(value, str):
        value = as_number(value)
    return _whole(value)
