"""The wiring inside a population: which unit sends to which, from a graph or a sparse matrix."""

from typing import TYPE_CHECKING, Any, ForwardRef, NamedTuple, TypeAlias

import numpy as np

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxGraph, nx
from darnax.topologies.read_networkx import drawn_edges, numbers_on
from darnax.topologies.tables import number_column

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO
    from scipy.sparse import sparray, spmatrix
else:
    # Named by text: both modules take long to import, and most networks have no sparse coupling.
    BCOO = ForwardRef("BCOO", module="jax.experimental.sparse")
    sparray = ForwardRef("sparray", module="scipy.sparse")
    spmatrix = ForwardRef("spmatrix", module="scipy.sparse")

GraphOrMatrix: TypeAlias = NxGraph | sparray | spmatrix | BCOO
"""Who sends to whom: `u -> v` in a graph of networkx, or a `matrix[receiver, sender]`."""


class Wiring(NamedTuple):
    """Directed edges between the units of two populations, or of one.

    **Fields:**

    - `shape`: how many units receive and how many send.
    - `senders`, `receivers`: positions of units, one an edge, sorted by receiver.
    - `weights`: a number an edge, or None where the graph has none.
    """

    shape: tuple[int, int]
    senders: np.ndarray
    receivers: np.ndarray
    weights: np.ndarray | None


@checks.by_hand
def read_wiring(argument: str, graph: GraphOrMatrix) -> Wiring:
    """A networkx graph, where `u -> v` says that u sends to v, or a `matrix[receiver, sender]`.

    Matrices are those of scipy.sparse, or a BCOO. The vertices of a graph are counted in its own
    order; undirected edges go both ways; an edge without `weight` has weight 1 if another has one.
    Raises `TypeError` or `ValueError` naming the argument.
    """
    # Both take long to import, and most networks have no sparse coupling.
    from jax.experimental.sparse import BCOO
    from scipy.sparse import coo_array, issparse

    if isinstance(graph, nx.Graph):
        return _checked(argument, _of_graph(graph))
    if issparse(graph):
        entries = coo_array(graph)
        if entries.ndim == 2:
            shape: Any = entries.shape
            wiring = Wiring(shape, entries.col, entries.row, entries.data)
            return _checked(argument, wiring)
    if isinstance(graph, BCOO) and graph.ndim == graph.n_sparse == 2:
        return _checked(argument, _of_bcoo(graph))
    checks.refuse(
        argument,
        "a networkx graph, a scipy sparse matrix or a BCOO with two sparse axes",
        graph,
        "give one: of a matrix[receiver, sender] make a scipy.sparse.coo_array",
    )


def _of_graph(graph: NxGraph) -> Wiring:
    edges = drawn_edges(graph, list(graph))
    shape = len(graph), len(graph)
    weights, given, strange = numbers_on(edges, "weight")
    if strange:
        raise ValueError(
            f"`weight` is a number, but not on edges {_text.names(map(edges.name, strange))}; "
            "make it one"
        )
    if not given.any():
        return Wiring(shape, edges.senders, edges.receivers, None)
    # An edge without a weight among others that have one counts once, as in networkx.
    weights, _ = number_column(np.where(given, weights, 1), given)
    return Wiring(shape, edges.senders, edges.receivers, weights)


def _of_bcoo(matrix: "BCOO") -> Wiring:
    shape = matrix.shape
    places = np.asarray(matrix.indices)
    # JAX pads a BCOO with entries that lie outside of the matrix.
    inside = (places < np.asarray(shape)).all(axis=1)
    receivers, senders = places[inside].T
    return Wiring((shape[0], shape[1]), senders, receivers, np.asarray(matrix.data)[inside])


def _checked(argument: str, wiring: Wiring) -> Wiring:
    """Wiring with units at both ends and finite weights, sorted by receiver."""
    shape, senders, receivers, weights = wiring
    if 0 in shape:
        raise ValueError(
            f"`{argument}` has the shape {shape}; give it at least one unit on either side"
        )
    if weights is not None:
        real = weights.dtype.kind in "biuf"
        if not real or not np.isfinite(weights.astype(float)).all():
            raise ValueError(
                f"`{argument}` has weights that are not finite real numbers; make them so"
            )
    # Weights stand in the order of receivers, in which sums run through memory once.
    order = np.lexsort((senders, receivers))
    return Wiring(
        shape=(int(shape[0]), int(shape[1])),
        senders=senders[order].astype(np.int32),
        receivers=receivers[order].astype(np.int32),
        weights=None if weights is None else weights[order],
    )
