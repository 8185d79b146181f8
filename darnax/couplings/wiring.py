"""The wiring inside a population: who hears whom, as arrays, however the user has it."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from darnax import _text, checks
from darnax._lazy import Lazy

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")


class Wiring(NamedTuple):
    """Directed edges between the units of two populations, or of one.

    **Fields:**

    - `shape`: how many units hear and how many send.
    - `senders`, `receivers`: positions of units, one an edge, sorted by receiver.
    - `weights`: a number an edge, or None where the graph has none.
    """

    shape: tuple[int, int]
    senders: np.ndarray
    receivers: np.ndarray
    weights: np.ndarray | None


def read_wiring(argument: str, graph: Any) -> Wiring:
    """A networkx graph (`u -> v`: u sends to v), a scipy sparse matrix or a BCOO
    (`matrix[receiver, sender]`).

    The vertices of a graph are counted in its own order; undirected edges go both ways; an edge
    without `weight` has weight 1 if another has one. Raises `TypeError` or `ValueError` naming the
    argument.
    """
    from jax.experimental.sparse import BCOO
    from scipy.sparse import coo_array, issparse

    if isinstance(graph, nx.Graph):
        shape, senders, receivers, weights = _of_graph(graph)
    elif issparse(graph) and graph.ndim == 2:
        entries = coo_array(graph)
        shape, senders, receivers, weights = entries.shape, entries.col, entries.row, entries.data
    elif isinstance(graph, BCOO) and graph.ndim == graph.n_sparse == 2:
        places, weights = np.asarray(graph.indices), np.asarray(graph.data)
        filled = (places < np.asarray(graph.shape)).all(axis=1)  # JAX pads with places outside
        shape, weights = graph.shape, weights[filled]
        receivers, senders = places[filled].T
    else:
        checks.refuse(
            argument,
            "a networkx graph, a scipy sparse matrix or a BCOO with two sparse axes",
            graph,
            "give one: of a matrix[receiver, sender] make a scipy.sparse.coo_array",
        )
    heard, sending = map(int, shape or ())
    if not heard or not sending:
        raise ValueError(
            f"`{argument}` has the shape {shape}; give it at least one unit on either side"
        )
    if weights is not None and (
        weights.dtype.kind not in "biuf" or not np.isfinite(weights.astype(float)).all()
    ):
        raise ValueError(f"`{argument}` has weights that are not finite real numbers; make them so")
    order = np.lexsort((senders, receivers))
    senders, receivers = (ends[order].astype(np.int32) for ends in (senders, receivers))
    return Wiring((heard, sending), senders, receivers, None if weights is None else weights[order])


def _of_graph(graph: "nx.Graph"):
    position = {vertex: i for i, vertex in enumerate(graph)}
    drawn = list(
        (graph if graph.is_directed() else graph.to_directed(as_view=True)).edges(data="weight")
    )
    ends = np.asarray([(position[u], position[v]) for u, v, _ in drawn], np.int32).reshape(-1, 2)
    weights = None
    if any(weight is not None for *_, weight in drawn):
        strange = [
            (u, v)
            for u, v, weight in drawn
            if not isinstance(weight, (int, float, np.number, type(None)))
        ]
        if strange:
            raise ValueError(
                f"`weight` is a number, but not on edges {_text.names(strange)}; make it one"
            )
        weights = np.asarray([1 if weight is None else weight for *_, weight in drawn])
    return (len(position), len(position)), *ends.T, weights
