"""Teachers side by side: the true gradient, and what phases of the dynamics say of it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import darnax as dx
from darnax.learning import squared_error

KEY = jax.random.key(0)
FREE = dx.Phase("free", steps=400, tol=1e-6)
KINDS = ["in", "up", "memory"]
RULES = {"in": dx.hebbian(), "up": dx.hebbian()}


@functools.cache
def chain(dtype="float32", activation=dx.tanh):
    """An input, a recurrent layer, and an output that it hears by the same weights."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=4, dtype=dtype)
    graph.add_node("h", shape=6, kind="hidden", dtype=dtype)
    graph.add_node("y", shape=3, kind="output", dtype=dtype)
    graph.add_edge("x", "h", kind="in")
    graph.add_edge("h", "h", kind="memory")
    graph.add_edge("h", "y", kind="up")
    graph.add_edge("y", "h", kind="down")
    couplings = {
        "in": dx.dense(),
        "memory": dx.dense(gain=0.4, symmetric=True, self_coupling=0.1),
        "up": dx.dense(gain=0.6),
        "down": dx.transpose("up"),
    }
    topology = dx.Topology(graph, inputs=["x"], outputs=["y"])
    biases = {"hidden": dx.bias(jax.nn.initializers.normal(0.3))}
    activations = {"hidden": activation, "output": dx.identity}
    return dx.Network(topology, couplings, activations, biases=biases, key=KEY)


def data(batch=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, 4)).astype("f")
    return x, {"y": jnp.asarray(rng.uniform(-0.5, 0.5, (batch, 3)).astype("f"))}


@eqx.filter_jit
def updates_of(learning, network, x, y, samples):
    return learning.updates(network, x, y, samples)


def learnt(learning, x, y, samples=None, network=None):
    """Updates, answer and scores of a batch, in which all samples count unless it is said."""
    samples = np.ones(len(x), bool) if samples is None else np.asarray(samples)
    network = chain() if network is None else network
    return updates_of(learning, network, jnp.asarray(x), y, jnp.asarray(samples))


def assert_close(one, other, atol=2e-5):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=atol)


# the true gradient


def test_it_is_the_gradient_through_all_passes():
    """Of both directions of shared weights, and in the structure of `params`."""
    network = chain()
    x, y = data()
    params, rest = dx.partition(network, KINDS)

    @jax.jit
    @jax.grad
    def gradient(params):
        start = dx.GraphState(network.topology).init(x)
        state = dx.relax(
            eqx.combine(params, rest), start, max_steps=100, tol=1e-6, adjoint=dx.unrolled()
        ).state
        return jnp.mean(((state["y"] - y["y"]) ** 2).sum(1)) / 2

    learning = dx.BackpropLearning(KINDS, FREE)
    updates, answer, scores = learnt(learning, x, y)
    assert_close(updates, gradient(params))
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert np.abs(updates["h", "y"].weight).max() > 0.05
    np.testing.assert_array_equal(answer.state["y"], learning.infer(network, x).state["y"])
    np.testing.assert_allclose(scores["loss"], squared_error(answer.state, y), rtol=1e-6)


def test_it_is_the_limit_of_differences():
    """In 64 bits, along random directions in the space of all that is trained, for a loss of the
    user's."""
    with jax.enable_x64(True):
        network = chain("float64")
        x, y = data()
        x, y = x.astype(float), {"y": jnp.asarray(y["y"], float)}
        free = dx.Phase("free", steps=1000, tol=1e-13)

        def loss(state, targets):
            return (jnp.cosh(state["y"] - targets["y"]).sum(1) + state["h"].sum(1)) ** 2

        learning = dx.BackpropLearning(KINDS, free, loss)
        params, rest = dx.partition(network, KINDS)

        @jax.jit
        def mean_loss(params):
            answer = learning.infer(eqx.combine(params, rest), x)
            return loss(answer.state, y).mean()

        slope, _, _ = learnt(learning, x, y, network=network)
        rng = np.random.default_rng(1)
        for _ in range(3):
            along = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
            ahead, behind = (
                mean_loss(jax.tree.map(lambda p, a, s=step: p + s * a, params, along))
                for step in (1e-5, -1e-5)
            )
            products = jax.tree.map(lambda a, b: jnp.vdot(a, b), slope, along)
            expected = sum(jax.tree.leaves(products))
            np.testing.assert_allclose((ahead - behind) / 2e-5, expected, rtol=1e-5)


def test_samples_that_do_not_count_or_are_lost_teach_nothing():
    """Whatever is in them: the updates are those of a batch without them."""
    x, y = data(7)
    samples = np.array([True, False, True, True, False, True, True])
    bad = x.copy()
    bad[2], bad[4] = np.nan, np.inf
    target = np.array(y["y"])
    target[5, 1] = np.nan
    left = [0, 3, 6]
    learning = dx.BackpropLearning(KINDS, FREE)
    updates, answer, scores = learnt(learning, bad, {"y": jnp.asarray(target)}, samples)
    expected, _, _ = learnt(learning, x[left], {"y": y["y"][np.array(left)]})
    assert_close(updates, expected)
    np.testing.assert_array_equal(scores["lost"], [0, 1, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(answer.settled, [1, 1, 0, 1, 0, 1, 1])
    assert np.isfinite(scores["loss"]).all()
    nobody, _, _ = learnt(learning, x, y, np.zeros(7, bool))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nobody))


def test_what_does_not_settle_has_no_gradient():
    x, y = data()
    short = dx.BackpropLearning(KINDS, dx.Phase("free", steps=2))
    updates, answer, scores = learnt(short, x, y)
    assert not answer.settled.any()
    assert (scores["loss"] > 0).all()
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))


def test_a_loss_may_hold_arrays():
    class Weighted(eqx.Module):
        weight: jax.Array

        def __call__(self, state, targets):
            return ((state["y"] - targets["y"]) ** 2) @ self.weight

    x, y = data()
    halves = dx.BackpropLearning(KINDS, FREE, Weighted(jnp.full(3, 0.5)))
    assert_close(learnt(halves, x, y)[0], learnt(dx.BackpropLearning(KINDS, FREE), x, y)[0])


def test_a_loss_in_half_precision_is_averaged_in_more():
    """Epochs add losses up, and 65504 is the largest number of float16."""

    def half(state, targets):
        return ((state["y"] - targets["y"]) ** 2).sum(1).astype("float16") / 2

    x, y = data()
    updates, _, scores = learnt(dx.BackpropLearning(KINDS, FREE, half), x, y)
    assert_close(updates, learnt(dx.BackpropLearning(KINDS, FREE), x, y)[0], atol=1e-3)
    assert scores["loss"].dtype == jnp.float32


def test_only_what_is_named_is_trained():
    """And what shares its parameters, with the biases that it reaches."""
    x, y = data()
    everything, _, _ = learnt(dx.BackpropLearning(KINDS, FREE), x, y)
    for kinds, names in (
        (["in"], [("x", "h")]),
        (["down"], [("h", "y")]),
        (["memory", "up"], [("h", "h"), ("h", "y")]),
    ):
        updates, _, _ = learnt(dx.BackpropLearning(kinds, FREE), x, y)
        expected, _ = dx.partition(everything, kinds)
        assert_close(updates, expected)
        found = [edge for edge in [("x", "h"), ("h", "h"), ("h", "y")] if leaves(updates[edge])]
        assert found == names
    only_up, _, _ = learnt(dx.BackpropLearning(["up"], FREE), x, y)
    assert not leaves(only_up.biases)


def leaves(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))


def test_units_without_a_derivative_are_refused_by_name():
    x, y = data()
    with pytest.raises(TypeError, match=r"'hidden' \(sign\) have no derivative.*dx.tanh.*local"):
        learnt(dx.BackpropLearning(KINDS, FREE), x, y, network=chain(activation=dx.sign))
    # where they are held, nothing goes through them
    held = dx.BackpropLearning(["up"], dx.Phase("free", clamp=["h"]))
    updates, _, _ = learnt(held, x, y, network=chain(activation=dx.sign))
    assert (updates["h", "y"].weight == 0).all()


# differences of phases


def test_symmetric_learning_is_the_difference_of_both_nudges():
    """Each of them from where the free phase led, divided by twice the nudge; whichever sign it is
    given."""
    network = chain()
    x, y = data()
    both = {}
    for beta in (0.3, -0.3):
        nudged = dx.Phase("nudged", nudge=beta, steps=7)
        learning = dx.ContrastiveLearning(RULES, dx.Phase("free"), nudged, symmetric=True)
        both[beta], answer, scores = learning.updates(network, x, y, jnp.ones(5, bool))
    assert_close(both[0.3], both[-0.3], atol=1e-6)
    free = dx.relax(network, dx.GraphState(network.topology).init(x)).state
    np.testing.assert_array_equal(answer.state["h"], free["h"])
    ends = {}
    for beta in (0.3, -0.3):
        drive = {"y": dx.nudge("y", y["y"], beta)}
        state = dx.relax(network, free, drive=drive, max_steps=7).state
        ends[beta] = {node: np.asarray(state[node]) for node in state}
    for u, v in (("x", "h"), ("h", "y")):
        away, to = (ends[beta][v].T @ ends[beta][u] for beta in (-0.3, 0.3))
        np.testing.assert_allclose(both[0.3][u, v].weight, (away - to) / 5 / 0.6, atol=1e-5)
    cosine = (ends[-0.3]["h"] * np.asarray(free["h"])).sum(1) / (
        np.linalg.norm(ends[-0.3]["h"], axis=1) * np.linalg.norm(free["h"], axis=1)
    )
    np.testing.assert_allclose(scores["overlap"], cosine, atol=1e-5)


def test_both_nudges_have_the_same_noise():
    """So the difference is a derivative, where chance decides who is updated: it does not grow as
    the nudge falls."""
    x, y = data()
    given = {"steps": 3, "settle": False, "schedule": dx.asynchronous(0.5)}
    found = {}
    for beta in (0.01, 0.02):
        nudged = dx.Phase("nudged", nudge=beta, **given)
        learning = dx.ContrastiveLearning(RULES, dx.Phase("free", **given), nudged, symmetric=True)
        updates, _, _ = learning.updates(chain(), x, y, jnp.ones(5, bool), KEY)
        found[beta] = jax.tree.leaves(updates)
    for near, far in zip(*found.values(), strict=True):
        assert np.abs(near).max() > 1e-3
        assert np.abs(near - far).max() < 0.1 * np.abs(far).max()


def test_a_sample_that_one_of_the_nudges_loses_teaches_nothing():
    """Driven away from its target it runs away, if it has nothing else to hold it; drawn to it, it
    comes to rest."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=2)
    graph.add_node("y", shape=2)
    graph.add_edge("x", "y", kind="in")
    topology = dx.Topology(graph, inputs=["x"], outputs=["y"])
    slow = dx.leaky(0.25, dx.identity)
    network = dx.Network(topology, {"in": dx.dense()}, slow, key=KEY)
    # a pass multiplies the distance from rest by 1 - 0.25 (1 + nudge): a sample at its target has
    # none
    x = np.array([[0, 0], [1, 2]], "f")
    y = {"y": jnp.zeros((2, 2))}
    for nudge, symmetric, lost in ((2.0, False, 0), (2.0, True, 1), (-2.0, True, 1)):
        nudged = dx.Phase("nudged", nudge=nudge, steps=500)
        learning = dx.ContrastiveLearning(
            {"in": dx.hebbian()}, dx.Phase("free"), nudged, symmetric=symmetric
        )
        updates, _, scores = learning.updates(network, x, y, jnp.ones(2, bool))
        np.testing.assert_array_equal(scores["lost"], [0, lost])
        assert np.isfinite(updates["x", "y"].weight).all()
        # the other sample is at rest at zero, and has nothing to teach
        assert np.any(updates["x", "y"].weight) != bool(lost)


def test_nudges_suit_nodes_of_every_dtype():
    """Their distance is in the dtype of fields: whole numbers do not overflow, 64 bits are kept."""
    graph = nx.DiGraph()
    graph.add_node("spins", shape=2, dtype="int8")
    topology = dx.Topology(graph)
    state = dx.GraphState(topology).init({"spins": np.array([[100, -1]], "int8")})
    drive = dx.nudge("spins", np.array([-100, 1], "int8"), 0.5)
    np.testing.assert_array_equal(drive(state), [[-100, 1]])
    np.testing.assert_array_equal(drive.energy(state), [0.25 * (200**2 + 2**2)])
    with jax.enable_x64(True):
        network = chain("float64")
        x, y = data()
        state = dx.GraphState(network.topology).init(x.astype(float))
        drive = dx.nudge("y", y["y"], 0.1)
        expected = 0.1 * np.asarray(y["y"], float)
        np.testing.assert_allclose(drive(state), expected, rtol=1e-15)
        after = dx.step(network, state, drive={"y": drive})
        np.testing.assert_allclose(after["y"], expected, rtol=1e-15)
        energy = 0.05 * (np.asarray(y["y"], float) ** 2).sum(1)
        np.testing.assert_allclose(drive.energy(state), energy, rtol=1e-14)


def test_contrastive_learning_keeps_64_bits():
    """Where JAX promotes nothing as well; each number of the symmetric coupling is held twice."""
    with jax.enable_x64(True):
        settle = {"steps": 1000, "tol": 1e-12}
        free = dx.Phase("free", **settle)
        nudged = dx.Phase("nudged", nudge=1e-3, **settle)
        rules = dict.fromkeys(KINDS, dx.hebbian())
        learning = dx.ContrastiveLearning(rules, free, nudged, symmetric=True)
        x, y = data()
        given = x.astype(float), {"y": jnp.asarray(y["y"], float)}
        network = chain("float64")
        updates, _, _ = learnt(learning, *given, network=network)
        true, _, _ = learnt(dx.BackpropLearning(KINDS, free), *given, network=network)
        for edge, factor in ((("x", "h"), 1), (("h", "y"), 1), (("h", "h"), 2)):
            ours, theirs = updates[edge].weight, true[edge].weight
            assert ours.dtype == jnp.float64
            np.testing.assert_allclose(ours, factor * theirs, atol=1e-5 * np.abs(ours).max())


# all of them


NUDGED = dx.Phase("nudged", steps=400, tol=1e-6, nudge=0.3)
TEACHERS = {
    "contrastive Hebbian": dx.ContrastiveLearning(RULES, FREE, dx.Phase("clamped", clamp=["y"])),
    "one-sided": dx.ContrastiveLearning(RULES, FREE, NUDGED),
    "symmetric": dx.ContrastiveLearning(RULES, FREE, NUDGED, symmetric=True),
    "gradient": dx.BackpropLearning(RULES, FREE),
}


@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_teacher_trains_the_same_network(teacher):
    """Noisy prototypes of three classes."""
    rng = np.random.default_rng(0)
    prototypes, labels = np.random.default_rng(7).normal(size=(3, 4)), rng.integers(0, 3, 120)
    x = (prototypes[labels] + 0.4 * rng.normal(size=(120, 4))).astype("f")
    y = dx.one_vs_all(labels, 3)
    learning = TEACHERS[teacher]
    given = {"epochs": 15, "batch_size": 20, "key": KEY, "progress": False}
    trained, history = dx.fit(chain(), learning, optax.sgd(0.1), x, y, **given)
    assert dx.evaluate(trained, learning, x, y)["accuracy"] > 0.85
    assert history["accuracy"][0] < 0.7
    assert (history["lost"] == 0).all()
    if teacher == "gradient":
        assert history["loss"][-1] < 0.5 * history["loss"][0]


def test_a_checkpoint_knows_its_teacher(tmp_path):
    x, y = data(20)

    def fit(teacher, epochs):
        return dx.fit(
            chain(),
            TEACHERS[teacher],
            optax.sgd(0.1),
            x,
            y,
            epochs=epochs,
            key=KEY,
            checkpoint=tmp_path / "run",
            progress=False,
        )

    fit("gradient", 1)
    _, rows = fit("gradient", 2)
    assert len(rows) == 2
    with pytest.raises(ValueError, match=r"learning \(the rules \{'in': 'BackpropLearning'.* here"):
        fit("symmetric", 2)
