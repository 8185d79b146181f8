"""The laws of couplings.

A coupling is written for one edge and one sample. The library runs it for many at once: stacked,
batched, as a matrix, through a kernel, and its derivative as what is learnt. Every such way is
compared here with the coupling itself, called by hand.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

from darnax import checks
from darnax._arrays import any_rank
from darnax.activations import identity
from darnax.couplings.coupling import asks, trainable
from darnax.dynamics.step import step
from darnax.learning.updates import local_updates
from darnax.network.network import Network, partition
from darnax.states.graph import GraphState
from darnax.testing.awkward import drawn, redrawn
from darnax.testing.laws import Law, other_companions
from darnax.testing.reference import Reference
from darnax.topologies.lazy_networkx import NxDiGraph
from darnax.topologies.tables import Shape, parse_shape
from darnax.topologies.topology import Topology

BATCH = 3

MANY = "many edges", "many tied edges"
"""The graphs with so many edges that kernels are chosen; their edges are not all called alone."""

REDRAWN = "fan", "tied fan", "parallel edges"
"""The graphs that are drawn the other way round as well."""

Factory: TypeAlias = Callable[..., Callable[..., Any]]
"""A factory of couplings, `(sender_shape, receiver_shape, key) -> coupling`."""

Graphs: TypeAlias = dict[str, NxDiGraph]


@any_rank
@checks.by_hand
def check_coupling(
    factory: Factory,
    sender: Shape = 3,
    receiver: Shape = 3,
    *,
    attributes: Mapping[str, float] | None = None,
    tied: bool = True,
) -> None:
    """Run the laws of couplings on small graphs whose edges it is on.

    - *a batch is its samples one by one*: what a network sends for a batch is what the coupling,
      taken from it, says of each sample by itself, outside of any program.
    - *a sample does not hear its companions*: alone it gets the same messages.
    - *the order of drawing is nothing*: the graph drawn the other way round sends the same.
    - *a fast kernel is the plain loop*: a pass equals that of `Reference`.
    - *derivatives are the limit of differences*, by state and by parameters.
    - *learning is the derivative of the message*: `dx.local_updates` gives the mean derivative of
      messages by the parameters that rules train.

    Couplings that ask for a `key` are noisy: of them the second and the third are asked, with one
    key.

    **Arguments:**

    - `factory`: as a network takes it.
    - `sender`, `receiver`: the shapes of the nodes at both ends; self-loops are drawn where they
      are equal.
    - `attributes`: numbers on every edge, which the factory reads.
    - `tied`: whether the coupling may be tied.

    Raises `LawBroken` with the law and the graph.

    !!! example

        ```python
        from darnax.testing import check_coupling

        check_coupling(lambda s, r, key: eqx.nn.Linear(s[0], r[0], key=key), sender=4, receiver=2)
        ```
    """
    shapes = parse_shape(sender, "sender"), parse_shape(receiver, "receiver")
    checks.function("factory", factory, "a factory (sender_shape, receiver_shape, key)", "give one")
    numbers = {} if attributes is None else dict(attributes)
    # From the single edge to the many: what breaks first is said of a small graph.
    for name, graph in _graphs(*shapes, numbers, tied).items():
        network = _network(graph, factory)
        state = _state(network.topology)
        noisy = bool(_noise(network))
        _check_companions(name, network, state)
        if name in REDRAWN:
            _check_order(name, graph, factory, network, state)
        if noisy:
            continue
        # Eager calls of a hundred edges would take most of the time, and say nothing new.
        if name not in MANY:
            _check_batch(name, network, state)
        _check_loop(name, network, state)
        _check_learning(name, network, state)
        if name == "one edge":
            _check_derivatives(name, network, state)


def _graphs(
    sender: tuple[int, ...],
    receiver: tuple[int, ...],
    attributes: Mapping[str, float],
    tied: bool,
) -> Graphs:
    """The graphs that edges of these shapes can be on."""
    ends: dict[Any, Any] = {"a": sender, "b": receiver, "c": sender, "d": receiver}
    edge = {"kind": "edge", **attributes}
    fan = [(u, v, edge) for u in "ac" for v in "bd"]
    graphs = {
        "one edge": drawn({"a": sender, "b": receiver}, [("a", "b", edge)]),
        "fan": drawn(ends, fan),
        "parallel edges": drawn(
            {"a": sender, "b": receiver},
            [("a", "b", {**edge, "key": "x"}), ("a", "b", {**edge, "key": "y"})],
            multi=True,
        ),
    }
    graphs["many edges"] = _many(sender, receiver, edge)
    if tied:
        tie = {**edge, "tie": "t"}
        graphs["tied fan"] = drawn(ends, [(u, v, tie) for u, v, _ in fan])
        graphs["many tied edges"] = _many(sender, receiver, tie)
    if sender:
        graphs["views that overlap"] = _views(sender, receiver, edge)
    if sender == receiver:
        ring = nx.cycle_graph("abcd", create_using=nx.DiGraph)
        graphs["ring"] = drawn(dict.fromkeys("abcd", sender), [(u, v, edge) for u, v in ring.edges])
        graphs["self-loops"] = drawn(ends, [("a", "a", edge), ("d", "d", edge)])
    return graphs


def _many(
    sender: tuple[int, ...],
    receiver: tuple[int, ...],
    edge: Mapping[str, Any],
) -> NxDiGraph:
    """An irregular graph of more edges than the fewest for which a kernel is chosen."""
    # About 86 edges; senders and receivers are apart, so that their shapes may differ.
    there = np.random.default_rng(1).random((12, 12)) < 0.6
    nodes: dict[Any, Any] = {("out", i): sender for i in range(12)}
    nodes |= {("in", i): receiver for i in range(12)}
    edges = [(("out", i), ("in", j), edge) for i, j in np.argwhere(there).tolist()]
    return drawn(nodes, edges)


def _views(
    sender: tuple[int, ...],
    receiver: tuple[int, ...],
    edge: Mapping[str, Any],
) -> NxDiGraph:
    """Two senders that are views of one array, a row apart, and the same the other way round."""
    first, *rest = sender
    nodes: dict[Any, Any] = {"out": receiver}
    for start, name in enumerate(("left", "right")):
        nodes[name] = {"array": "shared", "index": slice(start, start + first)}
    edges = [("left", "out", edge), ("right", "out", edge)]
    if sender == receiver:
        edges.append(("out", "left", edge))
    return drawn(nodes, edges, arrays={"shared": (first + 1, *rest)})


def _network(graph: NxDiGraph, factory: Factory) -> Network:
    return Network(Topology(graph), {"edge": factory}, identity, key=jax.random.key(3))


def _state(topology: Topology) -> GraphState:
    """A state of random numbers, drawn in NumPy."""
    rng = np.random.default_rng(5)
    state = GraphState(topology, BATCH)
    arrays: list[np.ndarray] = []
    for array in state.arrays.values():
        arrays.append(rng.normal(size=array.shape).astype(array.dtype))
    structure = jax.tree.structure(state.arrays)
    return state.replace(jax.tree.unflatten(structure, jax.device_put(arrays)))


def _noise(network: Network) -> dict[str, Any]:
    """The key that a call needs, as an argument by name; none for couplings that draw nothing."""
    edge = network.topology.edges[0]
    return {"key": jax.random.key(7)} if "key" in asks(network[edge]) else {}


def _messages(network: Network, state: GraphState) -> Mapping[tuple[Any, ...], np.ndarray]:
    messages = network.messages(state, **_noise(network))
    return {edge: np.asarray(message) for edge, message in messages.items()}


def _check_batch(graph: str, network: Network, state: GraphState) -> None:
    law = Law("a batch is its samples one by one", graph)
    messages = _messages(network, state)
    values = {node: np.asarray(state[node]) for node in state}
    for edge, message in messages.items():
        coupling = network[edge]
        for i in range(BATCH):
            x, y = jax.device_put((values[edge[0]][i], values[edge[1]][i]))
            alone = _said(coupling, x, y)
            law.equal(f"the message of {edge!r} for sample {i}", message[i], alone)


def _check_companions(graph: str, network: Network, state: GraphState) -> None:
    law = Law("a sample does not hear its companions", graph)
    others = _messages(network, other_companions(state))
    for edge, message in _messages(network, state).items():
        law.equal(f"the message of {edge!r}", others[edge][0], message[0])


def _check_order(
    name: str,
    graph: NxDiGraph,
    factory: Factory,
    network: Network,
    state: GraphState,
) -> None:
    law = Law("the order of drawing is nothing", name)
    other = _network(redrawn(graph), factory)
    again = GraphState(other.topology, BATCH).replace({node: state[node] for node in state})
    law.states(_messages(other, again), _messages(network, state))


def _check_loop(graph: str, network: Network, state: GraphState) -> None:
    law = Law("a fast kernel is the plain loop", graph)
    law.states(step(network, state).arrays, Reference(network, state).step().arrays)


def _check_learning(graph: str, network: Network, state: GraphState) -> None:
    """Updates against the derivative of each coupling by itself; of tied edges, against the sum."""
    law = Law("learning is the derivative of the message", graph, tol=1e-3)
    rules = {"edge": _the_state}
    params, _ = partition(network, rules)
    if not jax.tree.leaves(params):
        return
    updates = local_updates(network, state, rules)
    expected: dict[Any, Any] = {}
    for edge in network.topology.edges:
        derivative = _derivative(network[edge], state[edge[0]], state[edge[1]])
        # Tied edges have one module under all of their names.
        tied = network.topology.groups[0].tie is not None
        place = "all" if tied else edge
        if place in expected:
            derivative = jax.tree.map(jnp.add, expected[place], derivative)
        expected[place] = derivative
    for place, derivative in expected.items():
        edge = network.topology.edges[0] if place == "all" else place
        law.same(f"the update of {place!r}", updates[edge], derivative)


def _the_state(field: jax.Array, state: jax.Array) -> jax.Array:
    """The signal of the rule: the state of the receiver, which is any number."""
    return state


@eqx.filter_jit
def _derivative(coupling: Any, x: jax.Array, y: jax.Array) -> Any:
    """The derivative of the mean of `message · receiver's state` by what rules train."""
    params, rest = eqx.partition(coupling, trainable(coupling))

    def mean(params: object) -> jax.Array:
        whole = eqx.combine(params, rest)
        messages = jax.vmap(lambda x, y: _said(whole, x, y))(x, y)
        return jnp.sum(messages * y) / BATCH

    return jax.grad(mean)(params)


def _said(coupling: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The message of one sample; `y` is the state of the receiver, for couplings that ask."""
    return coupling(x, receiver=y) if "receiver" in asks(coupling) else coupling(x)


def _check_derivatives(graph: str, network: Network, state: GraphState) -> None:
    """A directional derivative against a central difference."""
    law = Law("derivatives are the limit of differences", graph, tol=1e-2)
    (edge,) = network.topology.edges
    # In 64 bits a small difference keeps enough digits to be compared.
    with jax.enable_x64(True):
        coupling = jax.tree.map(_wide, network[edge])
        x, y = (_wide(np.asarray(state[node][0])) for node in edge[:2])
        found, expected = _slopes(coupling, x, y)
        law.equal("the slope of the message along a random way", found, expected)


@eqx.filter_jit
def _slopes(coupling: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The slope of a random part of the message along a random way, and a difference for it."""
    rng = np.random.default_rng(11)
    params, rest = eqx.partition(coupling, trainable(coupling))
    point = params, x, y
    part = jnp.asarray(rng.normal(size=y.shape))
    way = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), point)

    def along(by: float | jax.Array) -> jax.Array:
        params, x, y = jax.tree.map(lambda leaf, way: leaf + by * way, point, way)
        return jnp.sum(_said(eqx.combine(params, rest), x, y) * part)

    size = 1e-4
    return jax.grad(along)(jnp.zeros(())), (along(size) - along(-size)) / (2 * size)


def _wide(leaf: Any) -> Any:
    """A number in 64 bits."""
    if not eqx.is_inexact_array(leaf) and not isinstance(leaf, np.ndarray):
        return leaf
    return jnp.asarray(np.asarray(leaf), jnp.float64)
