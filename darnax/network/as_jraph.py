"""The message passing of one edge kind as a model of jraph, which defines what it computes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from darnax._lazy import Lazy
from darnax.network.message_passing import Ends
from darnax.noise import named_keys, sample_keys
from darnax.states.graphs_tuple import KindGraph, kind_graph

if TYPE_CHECKING:
    import jraph

    from darnax.network.network import Network
else:
    jraph = Lazy("jraph")

Model = Callable[["jraph.GraphsTuple"], "jraph.GraphsTuple"]


def as_jraph(network: "Network", edge_kind: str, key: Key[Array, "..."] | None) -> Model:
    """See `Network.as_jraph`."""
    graph = kind_graph(network.topology, edge_kind)

    def messages(edges: Any, senders: Any, receivers: Any, context: Any) -> Any:
        return _messages(network, edge_kind, graph, senders, receivers, key)

    def fields(nodes: Any, sent: Any, received: Any, context: Any) -> Any:
        return received

    return jraph.GraphNetwork(messages, fields)


def _messages(
    network: "Network",
    kind: str,
    graph: KindGraph,
    senders: Any,
    receivers: Any,
    key: Key[Array, "..."] | None,
) -> Any:
    """The messages of all edges, in a leaf for each array and shape of receivers.

    Like the features of nodes, they are one array where there is one leaf. Every leaf has a row for
    each edge, which is zero where the edge ends in another.
    """
    senders, receivers = (_by_leaf(graph, features) for features in (senders, receivers))
    count = len(graph.senders)
    batch = len(next(iter(senders.values()))) // count
    found = {}
    for name, leaf in graph.leaves.items():
        found[name] = jnp.zeros((batch, count, *leaf.shape), leaf.array.field_dtype)
    for i, passing in enumerate(network.message_passing):
        group = passing.group
        if group.kind != kind:
            continue
        places = np.searchsorted(graph.edges, group.edges)
        sender = _leaf_of(graph, group.sender.name, group.sender_shape)
        receiver = _leaf_of(graph, group.receiver.name, group.receiver_shape)
        asked: dict[str, Array] = {}
        if "receiver" in passing.asks:
            asked["receiver"] = _edges_first(receivers[receiver], count, places)
        if passing.words is not None:
            keys = sample_keys(key, batch, f"edges of kind {kind!r} are random")
            assert keys is not None
            asked["key"] = named_keys(passing.words, keys)
        ends = Ends(_edges_first(senders[sender], count, places), asked)
        ready = passing.prepare(network.stacked_coupling(i), None)
        sent = jnp.moveaxis(passing.send(ready, ends), -1, 0)
        found[receiver] = found[receiver].at[:, places].set(sent)
    leaves = {name: values.reshape(-1, *values.shape[2:]) for name, values in found.items()}
    return leaves if len(leaves) > 1 else leaves.popitem()[1]


def _by_leaf(graph: KindGraph, features: Any) -> dict[str, Array]:
    """The features of edges' ends by leaf."""
    if len(graph.leaves) > 1:
        return features
    (only,) = graph.leaves
    return {only: features}


def _leaf_of(graph: KindGraph, array: str, shape: tuple[int, ...]) -> str:
    """The leaf of the nodes of an array and shape."""
    for name, leaf in graph.leaves.items():
        if leaf.array.name == array and leaf.shape == shape:
            return name
    raise AssertionError("every end of an edge lies in a leaf")


def _edges_first(features: Array, count: int, places: np.ndarray) -> Array:
    """The features of some edges, `(E, *shape, B)`, from those of all, `(B * E, *shape)`."""
    by_sample = features.reshape(-1, count, *features.shape[1:])
    return jnp.moveaxis(by_sample[:, places], 0, -1)
