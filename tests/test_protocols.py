"""Units, couplings and schedules of a user have the same rights as those of the library."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import CASES, compilations

import darnax as dx
from darnax.testing import random_state

KEY = jax.random.key(0)


class Slow(dx.Activation):
    """What `dx.leaky(0.3, dx.tanh)` does."""

    rate: jax.Array
    elementwise = True

    def target(self, field, state, noise):
        return jnp.tanh(field)

    def move(self, state, target):
        return state + self.rate * (target - state)


class Bath(dx.Activation):
    """What `dx.glauber(0.7)` does."""

    elementwise = True
    draws = "unit"
    integer = True
    differentiable = False
    bounded = True

    def target(self, field, state, noise):
        up = jax.nn.sigmoid(2 * field / jnp.asarray(0.7, field.dtype))
        return jnp.where(noise < up, 1, -1).astype(field.dtype)


PAIRS = {
    "leaky": (Slow(jnp.asarray(0.3, jnp.float32)), dx.leaky(0.3, dx.tanh)),
    "glauber": (Bath(), dx.glauber(0.7)),
}
SCHEDULES = [dx.synchronous(), dx.node_by_node(), dx.unit_by_unit(), dx.asynchronous(0.5)]


def chain(activation):
    topology = dx.Topology(dx.topologies.sequential([3, 4, 4, 2]))
    return dx.Network(topology, dict.fromkeys(topology.edge_kinds, dx.dense()), activation, key=KEY)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("pair", PAIRS)
def test_units_of_a_user_do_what_ours_do(pair, schedule):
    own, ours = map(chain, PAIRS[pair])
    state = random_state(own.topology, 3)
    a, b = (dx.rollout(n, state, 4, schedule=schedule, key=KEY)[0] for n in (own, ours))
    for one, other in zip(a.arrays.values(), b.arrays.values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_units_with_memory_rest_where_their_target_says():
    own, ours = map(chain, PAIRS["leaky"])
    start = random_state(own.topology, 3)
    found, expected = (dx.relax(n, start, max_steps=300) for n in (own, ours))
    np.testing.assert_array_equal(found.steps, expected.steps)
    np.testing.assert_array_equal(found.residual, expected.residual)


def test_noisy_units_of_a_user_never_rest_and_need_a_key():
    network = chain(Bath())
    state = dx.GraphState(network.topology)
    with pytest.raises(ValueError, match=r"nodes of kind .* are random \(bath\) and never rest"):
        dx.relax(network, state, key=KEY)
    with pytest.raises(ValueError, match="`key` is missing: nodes of kind"):
        dx.step(network, state)


class Noisy(eqx.Module):
    """A message with noise of its own."""

    def __call__(self, x, *, key):
        return x + jax.random.normal(key, x.shape, x.dtype)


def ring(coupling=lambda sender, receiver, key=None: Noisy(), n=4, batch_kind="edge"):
    graph = nx.cycle_graph(n, create_using=nx.DiGraph)
    nx.set_node_attributes(graph, 5, "shape")
    return dx.Network(dx.Topology(graph), {batch_kind: coupling}, dx.identity, key=KEY)


def test_noise_of_edges_differs_by_edge_sample_and_pass_and_by_nothing_else():
    network = ring()
    state = dx.GraphState(network.topology, 3)
    messages = network.messages(state, key=KEY)
    values = np.stack([np.asarray(messages[e][b]) for e in messages for b in range(3)])
    assert len(np.unique(values.round(6), axis=0)) == len(values)
    alone = network.messages(dx.GraphState(network.topology, 1), key=KEY)
    np.testing.assert_array_equal(alone[0, 1][0], messages[0, 1][0])
    _, frames = dx.rollout(network, state, 3, key=KEY, observe=lambda s: s[1])
    steps = np.diff(np.asarray(frames), axis=0)
    assert (np.abs(steps) > 1e-3).any(axis=(1, 2)).all()


def test_noise_of_edges_does_not_depend_on_the_order_of_drawing():
    network = ring()
    graph = nx.DiGraph()
    graph.add_nodes_from([3, 1, 0, 2], shape=5)
    graph.add_edges_from([(2, 3), (0, 1), (3, 0), (1, 2)])
    make = lambda sender, receiver, key=None: Noisy()  # noqa: E731
    other = dx.Network(dx.Topology(graph), {"edge": make}, dx.identity, key=KEY)
    one, two = (n.messages(dx.GraphState(n.topology, 2), key=KEY) for n in (network, other))
    for edge, message in one.items():
        np.testing.assert_array_equal(message, two[edge])


@pytest.mark.parametrize(
    "schedule", [dx.synchronous(), dx.node_by_node(), dx.unit_by_unit()], ids=str
)
def test_noise_of_edges_is_one_draw_a_pass_under_every_schedule(schedule):
    """Each node hears the noise that `messages` shows, whenever it is visited."""
    network = ring()
    state = dx.GraphState(network.topology, 2)
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(2))
    first_pass = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)
    noise = network.messages(state, key=first_pass)
    moved = dx.step(network, state, schedule=schedule, key=KEY)
    if schedule == dx.synchronous():
        expected = noise[3, 0]
    else:
        # 0 hears 3, which has not moved; 1 hears 0, which has
        np.testing.assert_allclose(moved[1], moved[0] + noise[0, 1], rtol=1e-6, atol=1e-6)
        expected = noise[3, 0]
    np.testing.assert_allclose(moved[0], expected, rtol=1e-6)


def test_noisy_edges_are_refused_where_they_cannot_be_served():
    network = ring()
    state = dx.GraphState(network.topology)
    with pytest.raises(ValueError, match=r"edges of kind 'edge' are random \(noisy\) and never"):
        dx.relax(network, state, key=KEY)
    for call in (network.messages, network.local_field, lambda s: dx.step(network, s)):
        with pytest.raises(ValueError, match="`key` is missing: edges of kind 'edge' are random"):
            call(state)
    quiet = dx.relax(network, state, silence=list(network.topology.nodes))
    assert quiet.settled.all()


def test_noisy_edges_learn_from_the_messages_that_they_sent():
    class Lossy(eqx.Module):
        weight: jax.Array

        def __call__(self, x, *, key):
            return self.weight * jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)

    network = ring(lambda sender, receiver, key: Lossy(jnp.ones(sender)))
    state = random_state(network.topology, 64)
    rules = {"edge": dx.hebbian()}
    with pytest.raises(ValueError, match="`key` is missing"):
        dx.local_updates(network, state, rules)
    updates = dx.local_updates(network, state, rules, key=KEY)
    messages = network.messages(state, key=KEY)
    expected = -np.mean(np.asarray(messages[0, 1]) * np.asarray(state[1]), axis=0)
    np.testing.assert_allclose(updates[0, 1].weight, expected, rtol=1e-4, atol=1e-6)


class Doubled(dx.Coupling):
    """A coupling of a user that works on whole batches."""

    weight: jax.Array

    def __call__(self, x):
        return 2 * self.weight * x

    def batched(self, x):
        return 2 * self.weight[..., None] * x


def test_a_coupling_of_a_user_may_work_on_batches():
    network = ring(lambda sender, receiver, key: Doubled(jnp.ones(sender)))
    state = random_state(network.topology, 3)
    np.testing.assert_allclose(network.messages(state)[0, 1], 2 * state[0], rtol=1e-6)


def test_a_bias_is_a_coupling_that_ignores_its_sender():
    """Drawn as self-loops it gives the states, and learns what, `biases=` gives and learns."""
    plain = nx.DiGraph()
    plain.add_node("x", shape=3, role="input")
    plain.add_node("y", shape=4, kind="out")
    plain.add_edge("x", "y")
    looped = plain.copy()
    looped.add_edge("y", "y", kind="bias")
    sugar = dx.Network(
        dx.Topology(plain), {"edge": dx.dense()}, dx.tanh, biases={"out": dx.bias(0.5)}, key=KEY
    )
    drawn = dx.Network(
        dx.Topology(looped), {"edge": dx.dense(), "bias": dx.bias(0.5)}, dx.tanh, key=KEY
    )
    x = jax.random.normal(KEY, (6, 3))
    states = [dx.step(n, dx.GraphState(n.topology).init(x)) for n in (sugar, drawn)]
    np.testing.assert_allclose(states[0]["y"], states[1]["y"], rtol=1e-6)
    rule = dx.delta(dx.tanh)
    target = [s.replace_val("y", jnp.ones((6, 4))) for s in states]
    one = dx.local_updates(sugar, states[0], {"edge": rule}, target=target[0])
    two = dx.local_updates(drawn, states[1], {"edge": rule, "bias": rule}, target=target[1])
    (bias,) = one.biases["out"].values()
    np.testing.assert_allclose(bias[0], two["y", "y"].value, rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Backwards(dx.Schedule):
    def visits(self, topology, movable):
        return [[i] for i in reversed(range(len(topology))) if movable[i]]


def as_function(topology, movable):
    return Backwards().visits(topology, movable)


@pytest.mark.parametrize("schedule", [Backwards(), as_function])
def test_schedules_of_a_user(schedule):
    network = CASES["chain"].network()
    state = random_state(network.topology, 3)
    order = list(network.topology.nodes)[:0:-1]
    found = dx.step(network, state, schedule=schedule)
    expected = dx.step(network, state, schedule=dx.node_by_node(order))
    for one, other in zip(found.arrays.values(), expected.arrays.values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("call", [dx.step, dx.relax])
def test_other_nodes_of_a_kind_share_the_program(call):
    """Who is held and who is silent are data, so that a study of lesions compiles once."""
    network = ring(lambda sender, receiver, key: Doubled(jnp.ones(sender)), n=6)
    state = random_state(network.topology, 2)
    call(network, state, clamp=[1], silence=[2])
    assert compilations(lambda: call(network, state, clamp=[3], silence=[4])) == 0
