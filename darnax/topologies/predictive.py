"""Predictive coding: networks in which every prediction has a node for its error.

An edge u -> v of the drawing is a prediction, of what v will be by what u is. For every node v that
is predicted, this draws an *error node* beside it,

    e_v = s_v - Σ_u C_uv(s_u),

and turns the edge into one from u to the error node. Nodes of the drawing, the *value nodes*, then
go down the free energy F = ½ Σ ‖e_v‖²: its slope, turned around,

    -∂F/∂s_u = -e_u + Σ_v C_uvᵀ e_v,

is what the edges back from errors to values say, each of them the transpose of an edge forward.

There is one minus in the errors and one in the slope, and all of it has to come from couplings that
learn as they are, a convolution or a layer of a user. So the minus sits at the units: an error unit
answers with its field turned around (`dx.negative`). Predictions then arrive with a plus, as their
transposes do, and between a value and its error both directions are a relay of -1. The way back of
every edge is so its transpose, without a sign of its own, and that makes the network reciprocal: it
has an energy (`dx.energy`), which is F wherever the errors have heard the values. And since the
field of an error node is minus its state, a local rule that strengthens what agrees with the state
(`dx.hebbian`) goes down F: it is the derivative of F by the weights of the prediction.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxDiGraph, NxGraph, nx
from darnax.topologies.names import Name
from darnax.topologies.plain import from_plain
from darnax.topologies.sequential import parse_sizes, sequential
from darnax.topologies.tables import Shape
from darnax.topologies.topology import Topology

ERROR = "error"
"""The kind of error nodes, and of the edges to them from the values that they are about."""


Prediction: TypeAlias = tuple[Name, Name, Name, dict[str, Any]]
"""An edge of a drawing: its ends, its key (0 where the drawing has none), and what it carries."""


def back(kind: str) -> str:
    """The kind of the edges that go the other way of those of a kind."""
    return f"{kind} back"


@checks.by_hand
def predictive(graph: NxDiGraph | Sequence[Shape]) -> NxDiGraph:
    """A network of predictive coding, in which every edge of a drawing is a prediction.

    Nodes of the drawing stay as they are. A node v that edges end at gets an error node
    `("error", v)` of its shape and of kind `error`, `e_v = s_v - Σ_u C_uv(s_u)`; a cell that
    several such nodes cover has an error in each. An edge `u -> v` becomes `u -> ("error", v)`, of
    the same kind and with all that it carries, and an edge of kind `error` goes from v to its error
    node. Each has a reverse edge, of its kind and the word back: `"forward back"`, `"error back"`.
    `dx.predictions` gives the couplings of all of them.

    With `dx.leaky(rate, dx.integrator)` for the nodes of the drawing and `dx.negative` for errors,
    a pass of `dx.coloured()` is a step down `F = ½ Σ ‖e‖²`: it moves values by the rate times
    `-∂F/∂s`, and then errors follow. It goes down while the rate is below 2 over the largest
    curvature of F. Where values and errors change at once (`dx.synchronous()`) F may rise on the
    way, and passes come to rest while the rate is below 1 over that curvature. `dx.hebbian` on the
    kinds of predictions is `∂F/∂W`. Where outputs are clamped, this is supervised learning.

    Predictions may go round in circles, and a node may predict itself: F is the same sum. Edges of
    a MultiDiGraph keep their keys. Where a node predicts itself a DiGraph becomes a MultiDiGraph,
    with predictions of key 0. There, edges of kind `error` and their reverse have the key
    `"error"`.

    Sources: R. P. N. Rao and D. H. Ballard, Nat. Neurosci. 2, 79 (1999); J. C. R. Whittington and
    R. Bogacz, Neural Comput. 29, 1229 (2017).

    **Arguments:**

    - `graph`: an annotated `networkx.DiGraph` or `MultiDiGraph`, as the builders return it. Or a
      list of sizes, an int or a shape for each layer, at least two: then nodes are the numbers 0 to
      L-1, of kind `value`, and each predicts the next by an edge `forward`. The first is the input,
      the last the output.

    Raises `TypeError` or `ValueError` for a drawing that is wrong, one without edges, and names,
    kinds and keys that those of errors would meet.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.predictive([64, 128, 10]))
        network = dx.Network(
            topology,
            couplings=dx.predictions({"forward": dx.after(dx.tanh, dx.dense())}),
            activations={"value": dx.leaky(0.1, dx.integrator), "error": dx.negative},
            key=jax.random.key(0),
        )
        ```
    """
    if isinstance(graph, nx.Graph):
        advice = "draw one, or call a builder of dx.topologies"
        checks.instance("graph", graph, nx.DiGraph, "a networkx.DiGraph", advice)
        drawing = from_plain(graph)
    else:
        drawing = _chain(graph)
    # Compiled for shapes and kinds, and for the errors that any drawing can have.
    topology = Topology(drawing)
    predictions = _predictions(drawing)
    predicted = _predicted(drawing, predictions)
    _check_nodes(topology, predicted)
    _check_edges(topology, predictions)

    itself = [v for u, v, *_ in predictions if u == v]
    result = nx.MultiDiGraph() if drawing.is_multigraph() or itself else nx.DiGraph()
    result.graph.update(drawing.graph)
    # Values before errors: visited in this order, a pass is a step down F that leaves no error
    # behind the values that it is about.
    result.add_nodes_from(drawing.nodes(data=True))
    for node in predicted:
        result.add_node((ERROR, node), kind=ERROR, **_like(topology, node))
    for u, v, key, data in predictions:
        _add_both_ways(result, u, v, key, data)
    for node in predicted:
        _add_both_ways(result, node, node, ERROR, {"kind": ERROR})

    kinds = (*topology.edge_kinds, ERROR)
    result.graph["edge_kinds"] = (*kinds, *map(back, kinds))
    result.graph["node_kinds"] = (*topology.node_kinds, ERROR)
    return result


@checks.by_hand
def _chain(sizes: Sequence[Shape]) -> NxDiGraph:
    """Layers of which each predicts the next."""
    holds = "a networkx.DiGraph, or a list of one shape a layer"
    shapes = parse_sizes(sizes, "graph", holds)
    if len(shapes) < 2:
        raise ValueError(
            f"`graph` names at least two layers, one that predicts and one that is predicted, but "
            f"got {sizes!r}; add one"
        )
    graph = sequential(shapes, recurrent=False, backward=False)
    # Inferred in one way, wherever they stand in the chain.
    for attributes in graph.nodes.values():
        attributes["kind"] = "value"
    graph.graph["node_kinds"] = ("value",)
    return graph


def _predictions(drawing: NxGraph) -> list[Prediction]:
    """The edges of a drawing, of which there must be one at least."""
    edges: Any = drawing.edges
    found: list[Prediction] = []
    if drawing.is_multigraph():
        found.extend(edges(keys=True, data=True))
    else:
        for u, v, data in edges(data=True):
            found.append((u, v, 0, data))
    if not found:
        raise ValueError(
            "`graph` has no edges, so that nothing is predicted; draw one from each node that "
            "predicts to the node that it predicts"
        )
    return found


def _predicted(drawing: NxGraph, predictions: Sequence[Prediction]) -> list[Name]:
    """The nodes that are predicted, in the order of drawing."""
    receivers = {v for _, v, *_ in predictions}
    return [node for node in drawing if node in receivers]


def _like(topology: Topology, node: Name) -> dict[str, Any]:
    """The shape of a node, and its dtype where errors can be of it."""
    position = topology.index(node)
    own = topology.node_class(position)
    # Whole numbers differ from their predictions by fractions.
    dtype = own.dtype if np.dtype(own.dtype).kind not in "iub" else "float32"
    return {"shape": topology.shape(node), "dtype": dtype}


def _add_both_ways(
    graph: NxDiGraph,
    sender: Name,
    node: Name,
    key: Name,
    data: dict[str, Any],
) -> None:
    """An edge from a value to the error of a node, and its reverse."""
    error = ERROR, node
    # The reverse has no numbers and no tie of its own.
    reverse = {"kind": back(data.get("kind", "edge"))}
    keys = (key,) if graph.is_multigraph() else ()
    # Any, as edges with keys and without are tuples of different lengths.
    edges: list[Any] = [(sender, error, *keys, data), (error, sender, *keys, reverse)]
    graph.add_edges_from(edges)


def _check_nodes(topology: Topology, predicted: Sequence[Name]) -> None:
    """Refuse nodes that are called as error nodes are."""
    if ERROR in topology.node_kinds:
        raise ValueError(
            f"`graph` has nodes of kind {ERROR!r}, which is that of error nodes; give them another "
            "kind"
        )
    nodes = [node for node in predicted if (ERROR, node) in topology]
    if nodes:
        names = [(ERROR, node) for node in nodes]
        raise ValueError(
            f"`graph` has nodes {_text.names(names)}, as the errors of {_text.names(nodes)} are "
            "named; rename them"
        )


def _check_edges(topology: Topology, predictions: Sequence[Prediction]) -> None:
    """Refuse edges of the kinds of those that are added, or with their key."""
    known = topology.edge_kinds
    added = {ERROR, back(ERROR), *map(back, known)}
    kinds = [kind for kind in known if kind in added]
    if kinds:
        raise ValueError(
            f"`graph` has edges of kinds {_text.names(kinds)}, which are those of edges between "
            "values and errors; give them other kinds"
        )
    edges = [(u, v, key) for u, v, key, _ in predictions if u == v and key == ERROR]
    if edges:
        raise ValueError(
            f"`graph` has edges {_text.names(edges)} with the key {ERROR!r}, which is that of the "
            "edge from a value to its error; give them other keys"
        )
