"""The edges of one kind as a graph over the nodes of one array, which is how jraph sees them."""

from typing import Any, NamedTuple

import numpy as np

from darnax import _text, checks
from darnax.topologies.topology import Topology


class Subgraph(NamedTuple):
    """N nodes of one array and shape, and the edges of one kind between them.

    **Fields:**

    - `nodes`: positions among the nodes of the topology, `(N,)`.
    - `rows`: their addresses in the array, `(N, *lead)`.
    - `senders`, `receivers`: positions in `nodes`, one an edge, in the order of the topology's
      edges.
    """

    array: str
    shared: bool
    shape: tuple[int, ...]
    dtype: str
    nodes: np.ndarray
    rows: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray


def subgraph(topology: Topology, edge_kind: Any) -> Subgraph:
    """The edges of a kind and the nodes of the one array at their ends; `ValueError` if there are
    several.
    """
    layout, columns = topology.layout, topology.columns
    checks.text("edge_kind", edge_kind, "a kind of edges")
    groups = [group for group in topology.groups if group.kind == edge_kind]
    if not groups:
        kinds = _text.names(sorted({group.kind for group in topology.groups})) or "none"
        raise ValueError(
            f"`edge_kind` {edge_kind!r} has no edges; the kinds that have some are {kinds}"
        )
    arrays = list(topology.arrays)
    ends = {(arrays.index(g.sender.name), g.sender_shape): None for g in groups}
    ends |= {(arrays.index(g.receiver.name), g.receiver_shape): None for g in groups}
    if len(ends) > 1:
        where = _text.listing(f"{layout.arrays[at].name!r} (shape {shape})" for at, shape in ends)
        raise ValueError(
            f"edges of kind {edge_kind!r} have ends in several arrays: {where}; a jraph graph has "
            "nodes of one array, so give these edges kinds of their own"
        )
    ((at, shape),) = ends
    members = layout.members[at]
    fits = np.asarray([cls.shape == shape for cls in columns.node_classes])
    nodes = members[fits[columns.node_class[members]]]
    edges = np.sort(np.concatenate([group.edges for group in groups]))
    spec = layout.arrays[at]
    return Subgraph(
        array=spec.name,
        shared=spec.shared,
        shape=shape,
        dtype=spec.dtype,
        nodes=nodes,
        rows=layout.address(nodes),
        senders=np.searchsorted(nodes, columns.senders[edges]).astype(np.int32),
        receivers=np.searchsorted(nodes, columns.receivers[edges]).astype(np.int32),
    )
