"""Rules one by one: their closed forms through a dense coupling, and what they are known for."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import darnax as dx

B, N, M = 5, 4, 3


@functools.cache
def pair(sender=N, receiver=M, tie=None, bias=0.0):
    graph = nx.DiGraph()
    graph.add_node("x", shape=sender, kind="in")
    graph.add_node("y", shape=receiver, kind="out")
    graph.add_edge("x", "y", kind="forward", **({} if tie is None else {"tie": tie}))
    topology = dx.Topology(graph, inputs=["x"], outputs=["y"])
    biases = {"out": dx.bias(bias)}
    return dx.Network(
        topology, {"forward": dx.dense()}, dx.identity, biases=biases, key=jax.random.key(0)
    )


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def learnt(network, x, y, rule, **arguments):
    """What the weights and the bias are told to do, as a direction to go, not to leave."""
    state = dx.GraphState(network.topology).init(x, y)
    updates = dx.local_updates(network, state, {"forward": rule}, **arguments)
    return -np.asarray(updates["x", "y"].weight), -np.asarray(updates.biases["out"]["out(3,)"][0])


def closed_form(name, field, y):
    """The direction of a unit's field, `(B, units)`; the weights' is its outer product with x, a
    mean over samples."""
    mean = y.mean(0)
    return {
        "hebbian": y,
        "anti_hebbian": -y,
        "perceptron": np.where(y * field <= 0.7, y, 0),
        "delta": (y - np.tanh(field)) * (1 - np.tanh(field) ** 2),
        "covariance": y - mean,
        "bcm": y * (y - (y**2).mean(0)),
    }[name]


RULES = {
    "hebbian": dx.hebbian(),
    "anti_hebbian": dx.anti_hebbian(),
    "perceptron": dx.perceptron(0.7),
    "delta": dx.delta(dx.tanh),
    "covariance": dx.covariance(),
    "bcm": dx.bcm(),
}
rules = pytest.mark.parametrize("name", RULES)


@rules
def test_dense_weights_follow_the_closed_form(name):
    network, x, y = pair(bias=0.25), numbers(B, N), numbers(B, M, seed=1)
    weight, bias = learnt(network, x, y, RULES[name])
    field = x @ np.asarray(network["x", "y"].weight).T + 0.25
    unit = closed_form(name, np.asarray(field), y)
    np.testing.assert_allclose(weight, unit.T @ x / B, atol=1e-5)
    np.testing.assert_allclose(bias, unit.mean(0), atol=1e-5)


@rules
def test_twice_the_batch_is_the_same_lesson_in_any_order(name):
    network, x, y = pair(), numbers(B, N), numbers(B, M, seed=1)
    once = learnt(network, x, y, RULES[name])
    order = np.random.default_rng(0).permutation(2 * B)
    twice = learnt(
        network, np.concatenate([x, x])[order], np.concatenate([y, y])[order], RULES[name]
    )
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def by_root(batch, fan_in):
    return (batch * fan_in) ** 0.5


@pytest.mark.parametrize("name", [*RULES, "oja"])
@pytest.mark.parametrize("worst", [0.0, np.nan, np.inf])
def test_samples_that_do_not_count_are_not_there(name, worst):
    rule = RULES.get(name, dx.oja())
    network, x, y = pair(), numbers(B, N), numbers(B, M, seed=1)
    counts = np.array([True, False, True, True, False])
    without = learnt(network, x[counts], y[counts], rule)
    x, y = np.where(counts[:, None], x, worst), np.where(counts[:, None], y, worst)
    masked = learnt(network, x, y, rule, samples=counts)
    for a, b in zip(without, masked, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    halved = learnt(network, x, y, rule, samples=counts, normalise=by_root)
    np.testing.assert_allclose(halved[0], masked[0] * 3 / np.sqrt(3 * N), atol=1e-5)
    nobody = learnt(network, x, y, rule, samples=np.zeros(B, bool))
    assert (nobody[0] == 0).all()


def test_oja_is_hebbian_less_what_is_explained():
    network, x, y = pair(), numbers(B, N), numbers(B, M, seed=1)
    weight, _ = learnt(network, x, y, dx.oja())
    w = np.asarray(network["x", "y"].weight)
    np.testing.assert_allclose(weight, y.T @ (x - y @ w) / B, atol=1e-5)


def test_oja_explains_windows_one_by_one():
    """Tied weights of overlapping windows: each window by itself is what its feature expects."""
    graph = dx.topologies.convolutional((5, 2), 3, features=2)
    network = dx.Network(
        dx.Topology(graph), {"forward": dx.dense()}, dx.identity, key=jax.random.key(0)
    )
    state = (
        dx.GraphState(network.topology)
        .init(numbers(B, 5, 2))
        .replace_val("features", numbers(B, 3, 2, seed=1))
    )
    ours = -dx.local_updates(network, state, {"forward": dx.oja()})["forward"].weight
    w, expected = np.asarray(network["forward"].weight), np.zeros((2, 6))
    for i in range(3):
        x, y = np.asarray(state["patch", i]).reshape(B, 6), np.asarray(state["feature", i])
        expected += y.T @ (x - y @ w) / B
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_oja_finds_the_first_principal_component():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(N, N)))[0]
    x = (rng.normal(size=(300, N)) * [2.0, 1.0, 0.5, 0.3] @ axes).astype(np.float32)
    x -= x.mean(0)
    network = pair(receiver=1)
    rule = {"forward": dx.oja()}
    params, rest = dx.partition(network, rule)
    state = dx.GraphState(network.topology).init(x)

    @jax.jit
    def lesson(params):
        net = eqx.combine(params, rest)
        updates = dx.local_updates(net, dx.step(net, state), rule)
        return jax.tree.map(lambda p, u: p - 0.05 * u, params, updates)

    for _ in range(200):
        params = lesson(params)
    weight = np.asarray(eqx.combine(params, rest)["x", "y"].weight[0])
    first = np.linalg.svd(x, full_matrices=False)[2][0]
    assert abs(weight @ first) > 0.9999
    np.testing.assert_allclose(np.linalg.norm(weight), 1, atol=1e-3)


def test_hebbian_storage_is_the_outer_product_formula():
    patterns = np.random.default_rng(0).choice(np.float32([-1, 1]), (B, 20))
    topology = dx.Topology(dx.topologies.hopfield(20))
    couplings = {"recurrent": dx.dense(gain=0.0, self_coupling=0.0)}
    network = dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))
    state = dx.GraphState(topology).init({"units": patterns})
    stored = -dx.local_updates(network, state, {"recurrent": dx.hebbian()})["units", "units"].weight
    expected = patterns.T @ patterns / B
    np.testing.assert_allclose(stored, expected - np.eye(20), atol=1e-6)


def test_bcm_makes_a_unit_selective():
    """Two inputs that are never on together: the unit ends up with one of them."""
    x = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    network = pair(sender=2, receiver=1)
    network = network.replace_val(
        ("x", "y"), eqx.tree_at(lambda c: c.weight, network["x", "y"], jnp.array([[0.6, 0.5]]))
    )
    rule = {"forward": dx.bcm()}
    params, rest = dx.partition(network, rule)
    state = dx.GraphState(network.topology).init(x)

    @jax.jit
    def lesson(params):
        net = eqx.combine(params, rest)
        updates = dx.local_updates(net, dx.step(net, state), rule)
        params = jax.tree.map(lambda p, u: p - 0.2 * u, params, updates)
        unbiased = jax.tree.map(jnp.zeros_like, params.biases)
        return eqx.tree_at(lambda p: p.biases, params, unbiased)

    for _ in range(400):
        params = lesson(params)
    weight = eqx.combine(params, rest)["x", "y"].weight[0]
    # the answer to the chosen input is the threshold: y = y²/2
    np.testing.assert_allclose(weight, [2, 0], atol=0.05)


def test_perceptron_updates_remove_the_violations():
    rng = np.random.default_rng(0)
    x, y = numbers(B, 20), rng.choice(np.float32([-1, 1]), (B, M))
    network, rule = pair(sender=20), {"forward": dx.perceptron(1.0)}
    params, rest = dx.partition(network, rule)
    state = dx.GraphState(network.topology).init(x, y)

    @jax.jit
    def lesson(params):
        net = eqx.combine(params, rest)
        updates = dx.local_updates(net, state, rule)
        field = net.local_field(state)["y"]
        return field, jax.tree.map(lambda p, u: p - 0.3 * u, params, updates)

    violations = []
    for _ in range(50):
        field, params = lesson(params)
        violations.append(int((y * np.asarray(field) <= 1).sum()))
    assert violations[0] > 3
    assert violations[-1] == 0


def test_rules_of_a_user_may_ask_for_means():
    def above(field, state, mean):
        return jnp.where(field > mean(field), -state, 0)

    network, x, y = pair(), numbers(B, N), numbers(B, M, seed=1)
    field = np.asarray(x @ np.asarray(network["x", "y"].weight).T)
    weight, _ = learnt(network, x, y, above)
    np.testing.assert_allclose(weight, np.where(field > field.mean(0), y, 0).T @ x / B, atol=1e-5)
