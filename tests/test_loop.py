"""The loop of a relaxation: with fewer and fewer samples it comes to the same ends."""

import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CASES, couplings_matrix, loop_order, population, sample, spins, start

import darnax as dx
from darnax.dynamics.loop import Iteration, begin, iterate_with_fewer
from darnax.testing import random_state

# `darnax.dynamics.relax` is the function.
relaxation = importlib.import_module("darnax.dynamics.relax")

SAMPLES = 21


@pytest.fixture
def fewer(monkeypatch):
    """Small relaxations go on with fewer samples too, down to a single one."""

    def on():
        monkeypatch.setattr(relaxation, "MANY", 0)
        monkeypatch.setattr(relaxation, "FEWEST", 1)

    return on


def assert_equal(ours, theirs):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


def both_ways(fewer, relax):
    """A relaxation of all samples together, and of those that go on alone."""
    whole = relax()
    fewer()
    return whole, relax()


@pytest.mark.parametrize("widths", [(), (8,), (10, 4, 1)])
def test_a_loop_ends_with_its_last_sample(widths):
    # the state is its own residual, halved in every pass: each sample knows when it has to stop
    size = 2.0 ** np.random.default_rng(0).permutation(np.arange(SAMPLES) // 3)
    # one that is frozen from the start would take long
    lost = np.arange(SAMPLES) == 0
    size[0] = 2.0**60
    halved = Iteration(
        step=lambda y, memory, args, t: (y / 2, memory + 1, y),
        back=None,
        args=(),
        tol=jnp.asarray(1.0),
        max_steps=jnp.asarray(100),
    )
    y = jnp.asarray(size)
    end = iterate_with_fewer(
        halved, begin(y, jnp.asarray(0), jnp.asarray(~lost), y.dtype), widths
    ).now
    passes = np.log2(size).astype(int) + 1
    np.testing.assert_array_equal(end.steps, np.where(lost, 1, passes))
    np.testing.assert_array_equal(end.y, np.where(lost, size, size / 2.0**passes))
    # what fills an array up makes no passes of its own
    assert end.t == end.memory == passes[1:].max()


@pytest.mark.parametrize(
    ("case", "schedule"),
    [
        ("chain", "synchronous"),
        ("windows", "synchronous"),
        ("hub", "node_by_node"),
        ("int8", "groups"),
        ("scalars", "coloured"),
        ("chain", "unit_by_unit"),
    ],
)
def test_fewer_samples_come_to_the_same_ends(case, schedule, fewer):
    network = CASES[case].network()
    state = random_state(network.topology, SAMPLES)
    ours, _, _ = loop_order(network, schedule)
    whole, part = both_ways(fewer, lambda: dx.relax(network, state, schedule=ours, max_steps=40))
    assert_equal(whole, part)
    assert len(set(whole.steps.tolist())) > 1


def test_noise_masks_and_drives_stay_with_their_samples(fewer):
    network = CASES["chain"].network()
    topology = network.topology
    state = random_state(topology, SAMPLES)
    rng = np.random.default_rng(3)
    given = {
        "clamp": {1: rng.random((SAMPLES, 4)) < 0.3, 3: rng.random(4) < 0.3},
        "drive": {2: rng.standard_normal((SAMPLES, 4)), 4: rng.standard_normal(2)},
        "silence": [3],
        "max_steps": 40,
    }
    whole, part = both_ways(fewer, lambda: dx.relax(network, state, **given))
    assert_equal(whole, part)
    keys = jax.random.split(jax.random.key(4), SAMPLES)
    given |= {"schedule": dx.asynchronous(0.5), "key": keys}
    assert_equal(dx.relax(network, state, **given), noisy_alone(network, state, given))


def test_nudges_stay_with_their_samples(fewer):
    """They are functions of the state, with numbers for every sample or for all of them."""
    network = CASES["chain"].network()
    state = random_state(network.topology, SAMPLES)
    target = np.random.default_rng(3).standard_normal((SAMPLES, 4)).astype("f")
    drive = {2: dx.nudge(2, target, 0.7), 4: dx.nudge(4, np.ones(2, "f"), -0.3)}

    def relax(drive=drive):
        return dx.relax(network, state, drive=drive, max_steps=40)

    whole, part = both_ways(fewer, relax)
    assert_equal(whole, part)
    assert len(set(whole.steps.tolist())) > 1
    # it did go on with fewer: a function of the user's is given all samples, and sees how many
    seen = set()

    def counting(state):
        seen.add(state.batch_size)
        return jnp.zeros((SAMPLES, 4))

    relax({2: counting})
    assert seen == {SAMPLES}
    counting.of_samples = lambda samples, shape: (
        lambda state: seen.add(len(samples)) or 0 * state[2]
    )
    relax({2: counting})
    assert len(seen) > 1


def noisy_alone(network, state, given):
    """Every sample relaxed by itself, put together again."""
    solutions = []
    for i in range(SAMPLES):
        own = {name: of_sample(value, i) for name, value in given.items()}
        solutions.append(dx.relax(network, sample(state, i), **own))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *solutions)


def of_sample(value, i):
    if isinstance(value, dict):
        return {node: of_sample(one, i) for node, one in value.items()}
    return value[i : i + 1] if getattr(value, "shape", ())[:1] == (SAMPLES,) else value


def test_samples_that_cycle_are_lost_or_run_out_of_time_do_so_all_the_same(fewer):
    network = population(couplings_matrix(8, symmetric=False) * 3, dx.elementwise(jnp.arctan))
    values = spins(8, SAMPLES)
    values[4] = np.nan
    values[7] = np.inf
    values[9] = 1e30

    def relax(max_steps):
        return dx.relax(network, start(network, values), max_steps=max_steps)

    plain = [relax(steps) for steps in (1, 2, 9, 100)]
    fewer()
    for steps, whole in zip((1, 2, 9, 100), plain, strict=True):
        assert_equal(whole, relax(steps))
    cycling = population(couplings_matrix(8, symmetric=True), dx.sign)
    whole = dx.relax(cycling, start(cycling, spins(8, SAMPLES)))
    assert {1, 2} <= set(whole.period.tolist())


@pytest.mark.parametrize("wrapped", ["jit", "vmap", "double"])
def test_inside_of_other_programs(wrapped, fewer):
    with jax.enable_x64(wrapped == "double"):
        network = CASES["chain"].network()
        states = [random_state(network.topology, SAMPLES, seed) for seed in range(3)]
        relax = eqx.filter_jit(dx.relax)
        alone = [relax(network, state) for state in states]
        fewer()
        if wrapped == "vmap":
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            many = eqx.filter_vmap(lambda state: dx.relax(network, state))(stacked)
            found = [jax.tree.map(lambda leaf: leaf[i], many) for i in range(3)]  # noqa: B023
        else:
            relax = eqx.filter_jit(lambda *given: dx.relax(*given))
            found = [relax(network, state) for state in states]
        for one, other in zip(alone, found, strict=True):
            assert_equal(one, other)


def test_derivatives_of_a_relaxation_with_fewer_samples(fewer):
    network = population(couplings_matrix(6, symmetric=False) * 0.3, dx.tanh)
    state = start(network, spins(6, SAMPLES))

    def loss(network):
        return sum(jnp.sum(a**2) for a in dx.relax(network, state).state.arrays.values())

    gradient = eqx.filter_grad(loss)
    whole, part = both_ways(fewer, lambda: gradient(network))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
