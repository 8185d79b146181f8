"""A topology as JSON and as a networkx graph. Nothing here runs code from a file."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from darnax import checks
from darnax._lazy import Lazy
from darnax.topologies import names as naming
from darnax.topologies.columns import Column, Columns, NodeClass
from darnax.topologies.roles import marks
from darnax.topologies.verify import verify

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")

FORMAT = "darnax topology 1"


def header(columns: Columns) -> dict:
    """Everything but the long columns, as JSON takes it."""
    names = (
        len(columns.names)
        if isinstance(columns.names, range)
        else [naming.to_json(n) for n in columns.names]
    )
    return {
        "format": FORMAT,
        "names": names,
        "node_classes": [list(cls) for cls in columns.node_classes],
        "views": {
            str(node): [_to_json(part) for part in index]
            for node, index in sorted(columns.views.items())
        },
        "arrays": {name: list(shape) for name, shape in columns.arrays.items()},
        "edge_classes": [list(cls) for cls in columns.edge_classes],
        "keys": None if columns.keys is None else [naming.to_json(key) for key in columns.keys],
        "attributes": [
            [name, str(v.dtype), given is None] for name, (v, given) in columns.attributes.items()
        ],
        "inputs": list(columns.inputs),
        "outputs": list(columns.outputs),
        "held": list(columns.held),
        "node_kinds": list(columns.node_kinds),
        "edge_kinds": list(columns.edge_kinds),
    }


def digest(columns: Columns) -> bytes:
    """Sixteen bytes that tell topologies apart: the same in every process."""
    result = hashlib.blake2b(json.dumps(header(columns)).encode(), digest_size=16)
    for array in columns.long():
        result.update(array.tobytes())
    return result.digest()


def _to_json(part: int | slice):
    return [part.start, part.stop, part.step] if isinstance(part, slice) else part


def to_json(columns: Columns) -> str:
    """The whole as JSON text."""
    long = [column.tolist() for column in columns.long()]
    return json.dumps(header(columns) | {"columns": long, "digest": digest(columns).hex()})


def from_json(text: Any) -> Columns:
    """The inverse of `to_json`; `ValueError` if the text is something else, or no topology could
    have given it.
    """
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
        columns = _columns(data)
        verify(columns)
        if digest(columns).hex() != data.get("digest"):
            raise ValueError("its digest is another")
    except MALFORMED as error:
        advice = "change the graph and write it anew"
        raise ValueError(
            f"`text` was changed after Topology.to_json wrote it: {error}; {advice}"
        ) from None
    return columns


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


def _positions(values: list) -> np.ndarray:
    """Whole numbers as a column of int32; no others are made to fit."""
    column = np.asarray(values)
    if column.size and (
        column.dtype.kind != "i" or column.max() > np.iinfo(np.int32).max or column.min() < 0
    ):
        raise ValueError("its columns are not those of a topology")
    return column.astype(np.int32)


def _columns(data: dict) -> Columns:
    node_class, senders, receivers, edge_class = map(_positions, data["columns"][:4])
    rest = iter(data["columns"][4:])
    attributes: dict[str, Column] = {}
    for name, dtype, everywhere in data["attributes"]:
        if dtype not in ("int64", "float64"):
            raise ValueError("its attributes are not those of a topology")
        values = np.asarray(next(rest), dtype)
        attributes[name] = (values, None if everywhere else np.asarray(next(rest), bool))
    if isinstance(data["names"], int) and data["names"] != len(node_class):
        raise ValueError("its names are not those of a topology")
    names, keys = data["names"], data["keys"]
    return Columns(
        names=range(names) if isinstance(names, int) else tuple(map(naming.from_json, names)),
        node_classes=tuple(
            NodeClass(kind, tuple(shape), dtype, array)
            for kind, shape, dtype, array in data["node_classes"]
        ),
        node_class=node_class,
        views={
            int(node): tuple(slice(*part) if isinstance(part, list) else part for part in index)
            for node, index in data["views"].items()
        },
        arrays={name: tuple(shape) for name, shape in data["arrays"].items()},
        edge_classes=tuple((kind, tie) for kind, tie in data["edge_classes"]),
        edge_class=edge_class,
        senders=senders,
        receivers=receivers,
        keys=None if keys is None else tuple(map(naming.from_json, keys)),
        attributes=attributes,
        inputs=tuple(data["inputs"]),
        outputs=tuple(data["outputs"]),
        held=tuple(data["held"]),
        node_kinds=tuple(data["node_kinds"]),
        edge_kinds=tuple(data["edge_kinds"]),
    )


def to_networkx(columns: Columns) -> "nx.DiGraph":
    """A fresh annotated graph with everything that the columns know."""
    graph = nx.DiGraph() if columns.keys is None else nx.MultiDiGraph()
    names = columns.names
    graph.graph.update(
        arrays=dict(columns.arrays), node_kinds=columns.node_kinds, edge_kinds=columns.edge_kinds
    )
    roles = marks(columns.inputs, columns.outputs, columns.held)
    for i, name in enumerate(names):
        kind, shape, dtype, array = columns.node_classes[columns.node_class[i]]
        place = {"shape": shape} if array is None else {"array": array, "index": columns.views[i]}
        role = {"role": roles[i]} if i in roles else {}
        graph.add_node(name, kind=kind, dtype=dtype, **place, **role)
    classes = [
        {"kind": kind} | ({} if tie is None else {"tie": tie}) for kind, tie in columns.edge_classes
    ]
    attributes = [dict(classes[i]) for i in columns.edge_class.tolist()]
    for name, (values, given) in columns.attributes.items():
        where = np.arange(len(values)) if given is None else np.flatnonzero(given)
        for i, value in zip(where.tolist(), values[where].tolist(), strict=True):
            attributes[i][name] = value
    ends = [[names[i] for i in column.tolist()] for column in (columns.senders, columns.receivers)]
    keys = [] if columns.keys is None else [columns.keys]
    graph.add_edges_from(zip(*ends, *keys, attributes, strict=True))
    return graph
