"""The message passing of one edge kind as a model of jraph, which defines what it computes."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Shaped

from darnax._lazy import Lazy
from darnax.network.message_passing import Ends
from darnax.noise import named_keys, sample_keys
from darnax.states.graphs_tuple import KindGraph, kind_graph

if TYPE_CHECKING:
    import jraph

    from darnax.network.network import Network
else:
    jraph = Lazy("jraph")

Model: TypeAlias = Callable[["jraph.GraphsTuple"], "jraph.GraphsTuple"]
"""A model of jraph: from a graph to a graph of the same edges."""

Features: TypeAlias = Array | Mapping[str, Array]
"""Features of nodes or edges, `(B * n, *shape)`: one array, or one for each of several leaves."""


def as_jraph(
    network: "Network",
    edge_kind: str,
    key: Key[Array, "..."] | None,
) -> Model:
    """See `Network.as_jraph`."""
    graph = kind_graph(network.topology, edge_kind)

    def messages(
        edges: object,
        senders: Features,
        receivers: Features,
        context: object,
    ) -> Features:
        return _messages(network, edge_kind, graph, senders, receivers, key)

    def fields(
        nodes: Features,
        sent: Features,
        received: Features,
        context: object,
    ) -> Features:
        # jraph has added up the messages that each node received: this sum is its field.
        return received

    # jraph allows for any tree of arrays; the features of this graph have one of two forms.
    return jraph.GraphNetwork(messages, fields)  # pyright: ignore[reportArgumentType]


def _messages(
    network: "Network",
    kind: str,
    graph: KindGraph,
    senders: Features,
    receivers: Features,
    key: Key[Array, "..."] | None,
) -> Features:
    """The messages of all edges, in a leaf for each array and shape of receivers.

    Like the features of nodes, they are one array where there is one leaf. Every leaf has a row for
    each edge, which is zero where the edge ends in another.
    """
    senders = _by_leaf(graph, senders)
    receivers = _by_leaf(graph, receivers)
    # Features have a row for each sample and edge: all edges of a sample, and then the next sample.
    count = len(graph.senders)
    batch = len(next(iter(senders.values()))) // count
    messages = {}
    for name, leaf in graph.leaves.items():
        shape = batch, count, *leaf.shape
        messages[name] = jnp.zeros(shape, leaf.array.field_dtype)
    for i, passing in enumerate(network.message_passing):
        group = passing.group
        if group.kind != kind:
            continue
        # The graph has the edges in the order of the topology, a group has them by receiver.
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
        ends = Ends(
            senders=_edges_first(senders[sender], count, places),
            asked=asked,
        )
        # No kernel: each message is a feature of its edge.
        ready = passing.prepare(network.stacked_coupling(i), None)
        sent = jnp.moveaxis(passing.send(ready, ends), -1, 0)
        messages[receiver] = messages[receiver].at[:, places].set(sent)
    leaves: dict[str, Array] = {}
    for name, values in messages.items():
        leaves[name] = values.reshape(-1, *values.shape[2:])
    return leaves if len(leaves) > 1 else leaves.popitem()[1]


def _by_leaf(graph: KindGraph, features: Features) -> Mapping[str, Array]:
    """The features of edges' ends by leaf."""
    if isinstance(features, Mapping):
        return features
    (only,) = graph.leaves
    return {only: features}


def _leaf_of(graph: KindGraph, array: str, shape: tuple[int, ...]) -> str:
    """The leaf of the nodes of an array and shape."""
    for name, leaf in graph.leaves.items():
        if leaf.array.name == array and leaf.shape == shape:
            return name
    raise AssertionError("every end of an edge lies in a leaf")


def _edges_first(
    features: Shaped[Array, "all_edges *shape"],
    count: int,
    places: np.ndarray,
) -> Shaped[Array, "edges *shape batch"]:
    """The features of some edges, `(E, *shape, B)`, from those of all, `(B * E, *shape)`."""
    by_sample = features.reshape(-1, count, *features.shape[1:])
    return jnp.moveaxis(by_sample[:, places], 0, -1)
