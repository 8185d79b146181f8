"""Edges that go both ways, in two kinds: one that has parameters, and its reverse."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from darnax import _text, checks
from darnax.topologies import names as naming
from darnax.topologies.lazy_networkx import NxDiGraph, nx
from darnax.topologies.names import Name

Edge: TypeAlias = tuple[Name, ...]
"""`(u, v)`, or `(u, v, key)` in a multigraph."""


@checks.by_hand
def reciprocal(graph: NxDiGraph, kind: str = "lateral", back: str = "back") -> NxDiGraph:
    """The graph with every edge of a kind in two directions, those of one direction of kind `back`.

    It is made for `couplings={kind: ..., back: dx.transpose(kind)}`, by which the two directions
    share their weights. Where both are drawn, as on a lattice, one of them becomes `back`: that to
    the node whose name has the lower hash, so that the order of drawing decides nothing. Where one
    is drawn, the other is added. Edges from a node to itself stay as they are.

    **Arguments:**

    - `graph`: an annotated `networkx.DiGraph` or `MultiDiGraph`, as the builders return it.
    - `kind`: of the edges that keep their parameters.
    - `back`: of their reverse edges, which carry no numbers and no ties.

    Raises `ValueError` where there is no edge of this kind, where the two directions differ in what
    they carry, or where an edge of another kind stands in the way.

    !!! example

        ```python
        graph = dx.topologies.reciprocal(dx.topologies.lattice((16, 16)))
        couplings = {"lateral": dx.scale(), "back": dx.transpose("lateral")}
        network = dx.Network(dx.Topology(graph), couplings, dx.glauber(2.3), key=jax.random.key(0))
        ```
    """
    advice = "draw one, or call a builder of dx.topologies"
    checks.instance("graph", graph, nx.DiGraph, "a networkx.DiGraph", advice)
    kind = checks.text("kind", kind, "the name of an edge kind")
    back = checks.text("back", back, "the name of an edge kind")
    if kind == back:
        raise ValueError(f"`back` is another kind than `kind`, but both are {kind!r}; rename one")
    result = graph.copy()
    drawn = _of_kind(result, kind)
    pairs = [edge for edge in drawn if edge[0] != edge[1]]
    _check_pairs(result, drawn, pairs)
    for edge in pairs:
        if _reverse(edge) not in drawn:
            result.add_edge(*_reverse(edge), kind=back)
        elif _goes_back(edge):
            # What it carries, its pair carries as well.
            drawn[edge].clear()
            drawn[edge]["kind"] = back
    known = result.graph.get("edge_kinds")
    if known is not None and back not in known:
        result.graph["edge_kinds"] = (*known, back)
    return result


def _of_kind(graph: NxDiGraph, kind: str) -> dict[Edge, dict[str, Any]]:
    """The edges of a kind, and what they carry: the very dictionaries of the graph."""
    edges: Any = graph.edges
    edges = edges(keys=True, data=True) if graph.is_multigraph() else edges(data=True)
    found: dict[Edge, dict[str, Any]] = {}
    kinds: set[str] = set()
    for *edge, data in edges:
        own = data.get("kind", "edge")
        kinds.add(own)
        if own == kind:
            found[tuple(edge)] = data
    if not found:
        raise ValueError(
            f"`kind` {kind!r} is that of no edge; the kinds are "
            f"{_text.names(sorted(kinds)) or 'none'}"
        )
    return found


def _reverse(edge: Edge) -> Edge:
    u, v, *key = edge
    return v, u, *key


def _goes_back(edge: Edge) -> bool:
    """Whether of two edges both ways this is the one to the node of the lower hash."""
    sender, receiver = naming.hashes([edge[0], edge[1]])
    return bool(receiver < sender)


def _check_pairs(graph: NxDiGraph, drawn: Mapping[Edge, dict[str, Any]], pairs: list[Edge]) -> None:
    """Refuse pairs that are not alike, and edges of other kinds in the place of a reverse edge."""
    differing: list[Edge] = []
    taken: list[Edge] = []
    for edge in pairs:
        reverse = _reverse(edge)
        if reverse in drawn:
            if drawn[edge] != drawn[reverse] and _goes_back(edge):
                differing.append(edge)
        elif graph.has_edge(*reverse):
            taken.append(reverse)
    if differing:
        raise ValueError(
            f"`graph` has edges {_text.names(differing)} that carry other numbers or ties than "
            "those the other way, with which they would share their weights; make them alike"
        )
    if taken:
        raise ValueError(
            f"`graph` has edges {_text.names(taken)} of another kind, in the place of reverse "
            "edges; drop them, or draw a MultiDiGraph and give edges keys"
        )
