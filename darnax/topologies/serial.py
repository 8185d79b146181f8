"""A topology as JSON text and as a networkx graph, and the digest that tells topologies apart.

A text may come from anywhere. It is read as plain data, no code in it is run, and its columns pass
the same checks as a drawing.
"""

import hashlib
import json
from typing import Any

import numpy as np

from darnax import checks
from darnax.topologies import names as naming
from darnax.topologies.lazy_networkx import NxDiGraph, nx
from darnax.topologies.read_columns import read_columns
from darnax.topologies.roles import role_places
from darnax.topologies.tables import Column, Columns, NodeClass
from darnax.topologies.views import ViewIndex, index_to_json

FORMAT = "darnax topology 1"

MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    StopIteration,
    OverflowError,
    RecursionError,
)
"""The errors of data whose parts are of other types, sizes or depths than `to_json` gives them."""


def header(columns: Columns) -> dict[str, object]:
    """Everything but the long columns, as JSON takes it; tuples become lists."""
    # The long columns of attributes are bare numbers: their types and gaps are told here.
    attributes: list[object] = []
    for name, (values, given) in columns.attributes.items():
        attributes.append([name, str(values.dtype), given is None])
    # Sorted, because a digest must not depend on the order in which views were found.
    views: dict[str, object] = {}
    for node, index in sorted(columns.views.items()):
        views[str(node)] = index_to_json(index)
    # Nodes that are the numbers 0 to n-1 are written as n.
    numbered = isinstance(columns.names, range)
    return {
        "format": FORMAT,
        "names": len(columns.names) if numbered else columns.names,
        "node_classes": columns.node_classes,
        "views": views,
        "arrays": columns.arrays,
        "edge_classes": columns.edge_classes,
        "keys": columns.keys,
        "attributes": attributes,
        "inputs": columns.inputs,
        "outputs": columns.outputs,
        "held": columns.held,
        "node_kinds": columns.node_kinds,
        "edge_kinds": columns.edge_kinds,
    }


def digest(columns: Columns) -> bytes:
    """Sixteen bytes that tell topologies apart, the same in every process."""
    # The header is small, and its JSON tells types apart: true from 1, "1" from 1. The long columns
    # go in as bytes, which is far faster.
    text = json.dumps(header(columns))
    result = hashlib.blake2b(text.encode(), digest_size=16)
    for array in columns.long():
        result.update(array.tobytes())
    return result.digest()


def to_json(columns: Columns) -> str:
    """All columns as JSON text."""
    content = header(columns)
    content["columns"] = [column.tolist() for column in columns.long()]
    content["digest"] = digest(columns).hex()
    return json.dumps(content)


@checks.by_hand
def from_json(text: str) -> Columns:
    """The inverse of `to_json`; `ValueError` where no topology could have given the text."""
    try:
        data = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        data = None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(
            f"`text` is not what Topology.to_json writes (format {FORMAT!r}), but "
            f"{checks.came(text)}; give that text, whole"
        )
    try:
        return _checked(data)
    except MALFORMED as error:
        advice = "change the graph and write it anew"
        raise ValueError(
            f"`text` was changed after Topology.to_json wrote it: {error}; {advice}"
        ) from None


def to_parts(columns: Columns) -> tuple[dict[str, object], list[np.ndarray]]:
    """What `to_json` writes, without its long columns; and these, for files that hold arrays."""
    return header(columns) | {"digest": digest(columns).hex()}, columns.long()


def from_parts(head: dict[str, Any], long: list[np.ndarray]) -> Columns:
    """The inverse of `to_parts`; one of `MALFORMED` where no topology could have given them."""
    if head["format"] != FORMAT:
        raise ValueError(f"the topology has another format than {FORMAT!r}")
    return _checked(head | {"columns": long})


def _checked(data: dict[str, Any]) -> Columns:
    """Columns from a file, read as a drawing would be."""
    # Whoever changes a file can change its digest as well, so a digest that fits proves nothing.
    columns = read_columns(_columns(data))
    if digest(columns).hex() != data.get("digest"):
        raise ValueError("its digest is another")
    return columns


def _columns(data: dict[str, Any]) -> Columns:
    """The columns that a text describes; they need not be those of any topology."""
    # The order of `Columns.long`: four columns of positions, then those of attributes.
    long = data["columns"]
    node_class, senders, receivers, edge_class = map(_positions, long[:4])
    rest = {key: naming.from_json(data[key]) for key in data if key != "columns"}
    names = rest["names"]
    views: dict[int, ViewIndex] = {}
    for node, parts in rest["views"].items():
        views[int(node)] = _index(parts)
    arrays: dict[str, tuple[int, ...]] = {}
    for name, shape in rest["arrays"].items():
        arrays[name] = naming.from_json(shape)
    return Columns(
        names=names if isinstance(names, tuple) else range(names),
        node_classes=tuple(NodeClass(*given) for given in rest["node_classes"]),
        node_class=node_class,
        views=views,
        arrays=arrays,
        edge_classes=rest["edge_classes"],
        edge_class=edge_class,
        senders=senders,
        receivers=receivers,
        keys=rest["keys"],
        attributes=_attributes(data["attributes"], long[4:]),
        inputs=rest["inputs"],
        outputs=rest["outputs"],
        held=rest["held"],
        node_kinds=rest["node_kinds"],
        edge_kinds=rest["edge_kinds"],
    )


def _positions(values: list[Any] | np.ndarray) -> np.ndarray:
    """Positions as an array of int32."""
    # NumPy would wrap numbers that are too large, and cut off the fractions of floats.
    column = np.asarray(values)
    most = np.iinfo(np.int32).max
    if column.size:
        integers = column.dtype.kind == "i"
        if not integers or column.min() < 0 or column.max() > most:
            raise ValueError("its columns are not those of a topology")
    return column.astype(np.int32)


def _index(parts: list[Any]) -> ViewIndex:
    """The inverse of `index_to_json`."""
    index: list[Any] = []
    for part in parts:
        if isinstance(part, list):
            part = slice(*part)
        elif isinstance(part, dict):
            part = _positions(part["cells"])
        index.append(part)
    return tuple(index)


def _attributes(
    described: list[Any],
    long: list[Any],
) -> dict[str, Column]:
    """The columns of numbers on edges, from their descriptions in the header."""
    columns = iter(long)
    attributes: dict[str, Column] = {}
    for name, dtype, everywhere in described:
        # A text may name any dtype of NumPy, and an array of objects holds anything.
        if dtype not in ("int64", "float64"):
            raise ValueError("its attributes are not those of a topology")
        values = np.asarray(next(columns), dtype)
        given = None if everywhere else np.asarray(next(columns), bool)
        attributes[name] = (values, given)
    return attributes


def to_networkx(columns: Columns) -> NxDiGraph:
    """A fresh annotated graph with everything that the columns know."""
    # Only a multigraph has keys. Columns without keys need none.
    graph = nx.DiGraph() if columns.keys is None else nx.MultiDiGraph()
    graph.graph["arrays"] = dict(columns.arrays)
    graph.graph["node_kinds"] = columns.node_kinds
    graph.graph["edge_kinds"] = columns.edge_kinds
    _draw_nodes(graph, columns)
    _draw_edges(graph, columns)
    return graph


def _draw_nodes(graph: NxDiGraph, columns: Columns) -> None:
    roles = role_places(columns)
    for i, name in enumerate(columns.names):
        node_class = columns.node_classes[columns.node_class[i]]
        kind, shape, dtype, array = node_class
        attributes: dict[str, Any] = {"kind": kind, "dtype": dtype}
        if array is None:
            attributes["shape"] = shape
        else:
            attributes["array"] = array
            attributes["index"] = columns.views[i]
        if i in roles:
            # Names of roles are enough where nodes have them in the order of drawing.
            places = roles[i]
            attributes["role"] = ", ".join(places)
            if any(places.values()):
                attributes["role"] = places
        graph.add_node(name, **attributes)


def _draw_edges(graph: NxDiGraph, columns: Columns) -> None:
    # The attributes of all edges come first: networkx takes edges many at a time.
    attributes: list[dict[str, Any]] = []
    for i in columns.edge_class.tolist():
        kind, tie = columns.edge_classes[i]
        attributes.append({"kind": kind})
        if tie is not None:
            attributes[-1]["tie"] = tie
    for name, (values, given) in columns.attributes.items():
        edges = range(len(values))
        # An edge that was drawn without the attribute gets none.
        if given is not None:
            edges = np.flatnonzero(given).tolist()
            values = values[given]
        for i, value in zip(edges, values.tolist(), strict=True):
            attributes[i][name] = value
    names = columns.names
    senders = [names[node] for node in columns.senders.tolist()]
    receivers = [names[node] for node in columns.receivers.tolist()]
    keys = [] if columns.keys is None else [columns.keys]
    graph.add_edges_from(zip(senders, receivers, *keys, attributes, strict=True))
