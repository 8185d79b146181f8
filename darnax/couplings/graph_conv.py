"""Any jraph model as a coupling."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax._lazy import Lazy
from darnax.couplings.coupling import Coupling, Edges, Factory, Fixed, value
from darnax.couplings.draws import Draws
from darnax.topologies.wiring import GraphOrMatrix, Wiring, read_wiring

if TYPE_CHECKING:
    import jraph

    Net: TypeAlias = Callable[[jraph.GraphsTuple], jraph.GraphsTuple]
else:
    jraph = Lazy("jraph")
    # Without the types of jraph, which would be imported here.
    Net = Callable[..., tuple]


class GraphConv(Coupling):
    """The nodes that `net` makes of a graph whose nodes are the sender's rows.

    **Fields:**

    - `net`: a function of a `jraph.GraphsTuple`; its arrays are parameters.
    - `senders`, `receivers`: the edges of the graph, as rows.
    - `weights`: what the edges carry, `(E, 1)`, or None where the graph has no weights.
    """

    net: Net
    senders: Int[Array, "*edges entries"]
    receivers: Int[Array, "*edges entries"]
    weights: Fixed | None

    def __call__(self, x: Shaped[Array, "vertices *sender"]) -> Float[Array, "vertices *receiver"]:
        # One graph of one sample: `batched` maps over the samples from outside.
        graph = jraph.GraphsTuple(
            nodes=x,
            edges=None if self.weights is None else value(self.weights),
            senders=self.senders,
            receivers=self.receivers,
            globals=None,
            n_node=jnp.asarray([len(x)]),
            n_edge=jnp.asarray([len(self.senders)]),
        )
        # Any: a model is foreign code, and what it gives back may be no array at all.
        nodes: Any = self.net(graph).nodes
        if getattr(nodes, "shape", (None,))[0] != len(x):
            raise ValueError(
                f"`net` was given a graph of {len(x)} nodes and gave back nodes "
                f"{jnp.shape(nodes)}; a coupling keeps the vertices, and changes features alone"
            )
        return nodes


@checks.by_hand
def graph_conv(net: Net, graph: GraphOrMatrix) -> Factory:
    """A jraph model over the vertices of a graph layer; nodes are `(vertices, *features)`.

    The model sees one sample: a `jraph.GraphsTuple` of one graph, whose `nodes` are the sender's
    rows and whose `edges` are the weights `(E, 1)`, None where the graph has none. What it makes of
    the nodes is the message.

    **Arguments:**

    - `net`: a function from `GraphsTuple` to `GraphsTuple`, such as `jraph.GraphConvolution(...)`.
      Its parameters are trained if it is an Equinox module that holds them; those in a closure stay
      as they are. All edges of the kind start from these parameters, each with its own copy.
    - `graph`: what `dx.sparse` takes: a networkx graph whose vertices, in its order, are the rows,
      or a sparse `matrix[receiver, sender]`.

    Raises `ValueError` where the graph has another number of vertices than the nodes have rows, or
    the model changes the number of nodes.

    !!! example

        ```python
        class Convolution(eqx.Module):
            linear: eqx.nn.Linear

            def __call__(self, graphs):
                return jraph.GraphConvolution(jax.vmap(self.linear), add_self_edges=True)(graphs)


        club = nx.karate_club_graph()
        net = Convolution(eqx.nn.Linear(4, 4, key=jax.random.key(0)))
        couplings = {"lateral": dx.graph_conv(net, club)}
        topology = dx.Topology(dx.topologies.graph_layer(club, features=4, whole=True))
        network = dx.Network(topology, couplings, dx.tanh, key=jax.random.key(1))
        ```
    """
    checks.function("net", net, "a function of a jraph.GraphsTuple", "give a jraph model")
    wiring = read_wiring("graph", graph)
    receiving, sending = wiring.shape
    if receiving != sending:
        raise ValueError(
            f"`graph` has the shape {wiring.shape}, but the vertices of a graph make it square; "
            "reshape it"
        )
    return GraphConvFactory(net, wiring)


# Equal only to itself: arrays and models have no equality that says yes or no.
@dataclass(frozen=True, eq=False)
class GraphConvFactory(Factory):
    """See `graph_conv`."""

    net: Net
    wiring: Wiring

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> GraphConv:
        wiring = self.wiring
        vertices = wiring.shape[0]
        rows = sender_shape[:1], receiver_shape[:1]
        if rows != ((vertices,), (vertices,)):
            raise ValueError(
                f"`graph` has {vertices} vertices, but {sender_shape} sends to {receiver_shape}; "
                f"both nodes have the shape ({vertices}, *features), one row a vertex"
            )
        weights = None
        if wiring.weights is not None:
            # What edges carry belongs to the graph: rules train the model alone.
            column = wiring.weights[:, None].astype(draws.dtype)
            weights = Fixed(on_device(column))
        one = GraphConv(
            net=self.net,
            senders=on_device(wiring.senders),
            receivers=on_device(wiring.receivers),
            weights=weights,
        )
        # A model comes with its parameters: nothing is drawn, and every edge starts from a copy.
        return draws.each(one)
