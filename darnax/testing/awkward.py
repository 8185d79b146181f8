"""Small awkward graphs: whatever breaks on a graph breaks on one of these.

One node, none but loops, two components, several shapes, a hub, views that overlap and views of any
cells, parallel and tied edges, scalar nodes, types that are not float32. A law that holds on all of
them has met every way in which nodes can live and edges can run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import networkx as nx
import numpy as np

from darnax.topologies.lazy_networkx import NxDiGraph
from darnax.topologies.names import Name
from darnax.topologies.sequential import sequential

Attributes: TypeAlias = Mapping[str, Any]
"""The attributes of a node or an edge by name; a node's may be its shape alone."""

Edge: TypeAlias = tuple[Any, ...]
"""`(u, v)`, or `(u, v, attributes)`."""


def drawn(
    nodes: Mapping[Any, Attributes | int | tuple[int, ...]],
    edges: Sequence[Edge],
    *,
    multi: bool = False,
    arrays: Mapping[str, int | tuple[int, ...]] | None = None,
    inputs: Sequence[Name] = (),
    outputs: Sequence[Name] = (),
    held: Sequence[Name] = (),
) -> NxDiGraph:
    """A graph from nodes and edges; the kind of an edge is `edge`, of a self-loop `loop`.

    !!! example

        ```python
        from darnax.testing import drawn

        graph = drawn({"a": 2, "b": (3, 3)}, [("a", "b"), ("b", "b")], inputs=["a"])
        ```
    """
    graph: NxDiGraph = nx.MultiDiGraph() if multi else nx.DiGraph()
    if arrays is not None:
        graph.graph["arrays"] = dict(arrays)
    for name, given in nodes.items():
        graph.add_node(name, **(given if isinstance(given, Mapping) else {"shape": given}))
    mark(graph, inputs=inputs, outputs=outputs, held=held)
    for u, v, *rest in edges:
        kind = "loop" if u == v else "edge"
        graph.add_edge(u, v, **{"kind": kind, **(rest[0] if rest else {})})
    return graph


def mark(
    graph: NxDiGraph,
    *,
    inputs: Sequence[Name] = (),
    outputs: Sequence[Name] = (),
    held: Sequence[Name] = (),
) -> NxDiGraph:
    """The graph, with roles marked on its nodes in the order in which they are named."""
    for role, nodes in {"input": inputs, "output": outputs, "held": held}.items():
        for place, node in enumerate(nodes):
            graph.nodes[node].setdefault("role", {})[role] = place
    return graph


def redrawn(graph: NxDiGraph) -> NxDiGraph:
    """The same graph with its nodes and edges drawn in the opposite order."""
    other = type(graph)(**graph.graph)
    other.add_nodes_from(reversed(list(graph.nodes(data=True))))
    # `(u, v, attributes)`, or `(u, v, key, attributes)` where edges may be parallel.
    keys: dict[str, Any] = {"keys": True} if graph.is_multigraph() else {}
    other.add_edges_from(reversed(list(graph.edges(data=True, **keys))))
    return other


def _components() -> NxDiGraph:
    edges: list[Edge] = [("a", "b"), ("b", "a"), ("c", "d")]
    return drawn(dict.fromkeys("abcd", 2), edges, inputs=["c"])


def _shapes() -> NxDiGraph:
    edges: list[Edge] = [("a", "b"), ("b", "c"), ("c", "c"), ("c", "b")]
    return drawn({"a": 2, "b": (2, 2), "c": 2}, edges)


def _hub() -> NxDiGraph:
    leaves = dict.fromkeys(range(1, 8), 2)
    edges: list[Edge] = (
        [(i, 0) for i in leaves] + [(0, i) for i in (2, 5)] + [(3, 4), (0, 0), (6, 6)]
    )
    return drawn({0: 2} | leaves, edges, inputs=[1])


def _views() -> NxDiGraph:
    nodes = {
        "left": {"array": "image", "index": (slice(0, 3), slice(0, 3))},
        "right": {"array": "image", "index": (slice(0, 3), slice(2, 5))},
        "odd": {"array": "image", "index": (slice(3, 5), slice(0, 5, 2))},
        "dot": {"array": "image", "index": (3, 1)},
        "far": {"shape": (3, 3), "kind": "far"},
        "gate": {"shape": (), "kind": "far"},
    }
    edges: list[Edge] = [
        ("left", "right"),
        ("right", "left"),
        ("far", "left"),
        ("odd", "far"),
        ("dot", "far"),
        ("left", "dot"),
        ("far", "gate"),
        ("gate", "odd"),
        ("left", "left"),
        ("far", "far"),
    ]
    return drawn(nodes, edges, arrays={"image": (5, 5)}, inputs=["odd"])


def _windows() -> NxDiGraph:
    nodes: dict[Any, Any] = {
        ("patch", i): {"array": "line", "index": slice(i, i + 3), "kind": "patch"} for i in range(5)
    }
    nodes["eye"] = {"array": "line", "index": slice(0, 2), "kind": "eye"}
    nodes |= {("feature", i): {"shape": 2, "kind": "feature"} for i in range(5)}
    edges: list[Edge] = [(("patch", i), ("feature", i), {"tie": "look"}) for i in range(5)]
    edges += [(("feature", i), ("patch", i), {"kind": "back", "tie": "draw"}) for i in range(1, 4)]
    return drawn(nodes, edges, arrays={"line": 8}, inputs=["eye"])


def _any_cells() -> NxDiGraph:
    """Views of any cells: lists, masks and np.ix_, which overlap each other and a sliced view."""
    eye = np.arange(20).reshape(4, 5) % 6 == 1
    views = {
        "box": np.ix_([0, 2], [3, 1, 4]),
        "marked": eye,
        "rows": [3, 1],
        "slice": (slice(1, 3), slice(0, 2)),
        "mixed": ([2, 0, 3], slice(2, 5, 2)),
        "pairs": ([0, 3, 1], [0, 4, 2]),
        "free": ([3], [0, 3, 2]),
    }
    nodes: dict[Any, Any] = {
        name: {"array": "image", "index": index} for name, index in views.items()
    }
    nodes |= {f"turned{i}": {"array": "line", "index": [i, i + 2, i + 1]} for i in (0, 3)}
    nodes |= {
        name: {"shape": shape, "kind": "far"}
        for name, shape in (("far", (2, 2)), ("near", 3), ("next", 3))
    }
    edges: list[Edge] = [
        ("box", "marked"),
        ("marked", "box"),
        ("rows", "slice"),
        ("slice", "mixed"),
        ("mixed", "far"),
        ("far", "pairs"),
        ("pairs", "pairs"),
        ("pairs", "rows"),
        ("near", "pairs"),
        ("free", "near"),
        ("box", "box"),
        ("turned0", "near", {"tie": "t"}),
        ("turned3", "next", {"tie": "t"}),
        ("pairs", "turned3"),
        ("turned0", "turned0"),
    ]
    arrays = {"image": (4, 5), "line": 6}
    return drawn(nodes, edges, arrays=arrays, inputs=["free"])


def _parallel() -> NxDiGraph:
    edges: list[Edge] = [
        ("a", "b", {"key": "x"}),
        ("a", "b", {"key": "y"}),
        ("b", "a", {"key": 0, "kind": "other"}),
        ("b", "a", {"key": 1}),
    ]
    return drawn({"a": 2, "b": 3, "c": 2}, [*edges, ("c", "a"), ("c", "c")], multi=True)


def _tied() -> NxDiGraph:
    edges: list[Edge] = [
        ("a", "b", {"tie": "t"}),
        ("b", "c", {"tie": "t"}),
        ("c", "a"),
        ("a", "c", {"tie": "t"}),
        ("b", "b"),
        ("c", "c", {"tie": "s"}),
    ]
    return drawn(dict.fromkeys("abc", 3), edges)


def _scalars() -> NxDiGraph:
    wiring = nx.gnp_random_graph(12, 0.3, seed=1, directed=True)
    graph: NxDiGraph = nx.DiGraph()
    graph.add_nodes_from(range(12), shape=())
    mark(graph, inputs=[0, 3])
    rng = np.random.default_rng(0)
    graph.add_edges_from(
        (u, v, {"kind": "synapse", "weight": rng.integers(-64, 64) / 64}) for u, v in wiring.edges
    )
    return graph


def _small(dtype: str) -> NxDiGraph:
    nodes = {
        "a": {"shape": 4, "dtype": dtype},
        "b": {"shape": (2, 2), "dtype": dtype},
        "c": {"shape": 3},
    }
    return drawn(nodes, [("a", "b"), ("b", "a"), ("b", "b"), ("c", "a"), ("a", "c")], inputs=["c"])


def _mixed() -> NxDiGraph:
    nodes = {
        "x": {"shape": 3, "kind": "in"},
        "z": {"shape": (2, 2, 1), "kind": "in"},
        "v": {"shape": (2, 2, 2), "kind": "image"},
        "h": {"shape": 4, "kind": "hidden"},
        "p": {"shape": 3, "kind": "soft"},
        "q": {"shape": 4, "kind": "hidden"},
    }
    edges: list[Edge] = [
        ("x", "h"),
        ("z", "v", {"kind": "conv"}),
        ("v", "v", {"kind": "conv"}),
        ("v", "h"),
        ("h", "h"),
        ("h", "q", {"kind": "copy"}),
        ("q", "h", {"kind": "linear"}),
        ("q", "p"),
        ("p", "q"),
        ("h", "p"),
    ]
    return drawn(nodes, edges, inputs=["x", "z"], outputs=["p", "q"])


def _parts() -> NxDiGraph:
    """Views that answer as a whole, side by side on one array with one that does not."""
    nodes: dict[Any, Any] = {
        "p": {"array": "row", "index": slice(0, 3), "kind": "soft"},
        "q": {"array": "row", "index": slice(4, 7), "kind": "soft"},
        "r": {"array": "row", "index": slice(7, 9), "kind": "plain"},
        "x": {"shape": 3, "kind": "plain"},
    }
    edges: list[Edge] = [
        ("x", "p"),
        ("p", "q"),
        ("q", "p"),
        ("q", "r"),
        ("r", "x"),
        ("p", "p"),
        ("r", "r"),
    ]
    return drawn(nodes, edges, arrays={"row": 10})


AWKWARD_GRAPHS: dict[str, Callable[[], NxDiGraph]] = {
    "one node": lambda: drawn({"a": 3}, []),
    "self-loop": lambda: drawn({"a": 3}, [("a", "a")]),
    "no edges": lambda: drawn({"a": 3, "b": (2, 2)}, []),
    "two components": _components,
    "two shapes": _shapes,
    "hub": _hub,
    "views": _views,
    "windows": _windows,
    "any cells": _any_cells,
    "parallel": _parallel,
    "tied": _tied,
    "scalars": _scalars,
    "int8": lambda: _small("int8"),
    "bfloat16": lambda: _small("bfloat16"),
    "chain": lambda: sequential([3, 4, 4, 4, 2]),
    "mixed": _mixed,
    "parts": _parts,
}
"""Functions that draw the graphs, by name."""
