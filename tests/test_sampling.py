"""Sampling: temperatures by sample, annealing, replica exchange and Boltzmann machines, beside exact
enumeration."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from helpers import couplings_matrix, population, scalars, spins, start

import darnax as dx
from darnax.testing import redrawn

KEY = jax.random.key(0)
SCHEDULES = [dx.synchronous(), dx.unit_by_unit(), dx.coloured()]


def glass(seed=2):
    """Spins on a 3 by 4 lattice with couplings of ±1, and the energy of each of their states.

    Some plaquettes are frustrated: no state satisfies all their couplings.
    """
    lattice = nx.grid_2d_graph(3, 4)
    names = {node: i for i, node in enumerate(lattice.nodes)}
    matrix = np.zeros((12, 12))
    rng = np.random.default_rng(seed)
    for u, v in lattice.edges:
        matrix[names[u], names[v]] = matrix[names[v], names[u]] = rng.choice([-1, 1])
    states = np.array(list(itertools.product([-1, 1], repeat=12)), float)
    return matrix, states, -0.5 * np.einsum("si,ij,sj->s", states, matrix, states)


def energy_of(network, drive=None):
    """`-½ Σ s h`, less `Σ s drive`: the function that replica exchange is given."""

    def energy(state):
        field = network.local_field(state)
        pairs = sum(state[node] * field[node] for node in network.topology.nodes)
        pushed = sum(state[node] * push for node, push in (drive or {}).items())
        return -0.5 * pairs - pushed

    return energy


def number(state):
    """The position of every sample in the list of all states."""
    nodes = list(state.topology.nodes)
    bits = [(state[node] > 0).astype(jnp.int32) << (11 - i) for i, node in enumerate(nodes)]
    return sum(bits)


def boltzmann(energies, temperature):
    weights = np.exp(-(energies - energies.min()) / temperature)
    return weights / weights.sum()


# temperatures


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_each_sample_runs_at_its_own_temperature(schedule):
    matrix = couplings_matrix(6, symmetric=True)
    temperatures = np.array([0.0, 0.7, 3.0], np.float32)
    keys = jax.random.split(KEY, 3)
    make = scalars if schedule == dx.coloured() else population
    network = make(matrix, dx.glauber(temperatures))
    state = start(network, spins(6, 3))
    many, _ = dx.rollout(network, state, 20, schedule=schedule, key=keys)
    for i, temperature in enumerate(temperatures):
        alone = make(matrix, dx.glauber(float(temperature)))
        one = jax.tree.map(lambda a, i=i: a[..., i : i + 1], state)
        one, _ = dx.rollout(alone, one, 20, schedule=schedule, key=keys[i : i + 1])
        for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
            np.testing.assert_array_equal(a[..., i : i + 1], b)


def test_at_temperature_replaces_that_of_all_units():
    g = nx.DiGraph()
    g.add_node("fast", shape=3, kind="fast")
    g.add_node("slow", shape=3, kind="slow")
    g.add_node("plain", shape=3, kind="plain")
    g.add_edges_from([("fast", "slow"), ("slow", "plain"), ("plain", "fast")])
    units = {"fast": dx.glauber(1.0), "slow": dx.leaky(0.5, dx.glauber(1.0)), "plain": dx.tanh}
    topology = dx.Topology(g)
    network = dx.Network(topology, {"edge": dx.dense()}, units, key=KEY)
    for temperature in (0.3, jnp.array([0.3, 5.0])):
        ours = dx.at_temperature(network, temperature)
        assert ours.activations["plain"] == network.activations["plain"]
        np.testing.assert_allclose(ours.activations["fast"].temperature, temperature)
        np.testing.assert_allclose(ours.activations["slow"].fn.temperature, temperature)
        assert ours.activations["slow"].rate == 0.5
    built = dx.Network(
        topology, {"edge": dx.dense()}, units | {"fast": dx.glauber([0.3, 5.0])}, key=KEY
    )
    state = dx.GraphState(topology, 2)
    with_ladder = eqx.tree_at(lambda n: n.activations["slow"], ours, units["slow"])
    for a, b in zip(
        jax.tree.leaves(dx.step(built, state, key=KEY)),
        jax.tree.leaves(dx.step(with_ladder, state, key=KEY)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_temperatures_may_be_traced():
    network = population(couplings_matrix(6, symmetric=True), dx.glauber(1.0))
    state = start(network, spins(6, 3))

    @jax.jit
    def mean(temperatures):
        hot = dx.at_temperature(network, temperatures)
        return dx.rollout(hot, state, 5, key=KEY)[0]["units"].sum()

    ladder = jnp.array([0.1, 1.0, 2.0])
    plain, _ = dx.rollout(dx.at_temperature(network, ladder), state, 5, key=KEY)
    assert mean(ladder) == plain["units"].sum()


# annealing


def test_annealing_at_one_temperature_is_a_rollout():
    network = population(couplings_matrix(6, symmetric=True), dx.glauber(1.0))
    state = start(network, spins(6, 3))
    given = {"schedule": dx.unit_by_unit(), "key": KEY, "observe": lambda s: s["units"].sum(1)}
    for temperature in (0.8, np.array([0.1, 0.8, 3.0])):
        hot = dx.at_temperature(network, temperature)
        expected, seen = dx.rollout(hot, state, 15, **given)
        course = np.broadcast_to(temperature, (15, *np.shape(temperature)))
        ours, frames = dx.anneal(network, state, course, **given)
        np.testing.assert_array_equal(ours["units"], expected["units"])
        np.testing.assert_array_equal(frames, seen)


def test_annealing_finds_the_ground_states_of_a_frustrated_lattice():
    matrix, _, energies = glass()
    network = scalars(matrix, dx.glauber(1.0))
    energy = energy_of(network)
    hot = start(network, spins(12, 64))
    cooling = np.geomspace(3, 0.05, 200)
    cold, _ = dx.anneal(network, hot, cooling, schedule=dx.coloured(), key=KEY)
    found = np.asarray(energy(cold))
    assert found.min() == energies.min()
    assert (found == energies.min()).mean() > 0.6
    # at once cold, many stay in the first valley
    quenched, _ = dx.anneal(network, hot, np.zeros(200), schedule=dx.coloured(), key=KEY)
    assert np.asarray(energy(quenched)).mean() > found.mean() + 0.3


# replica exchange


def test_exchange_moves_states_and_keeps_detailed_balance():
    topology = dx.Topology(dx.topologies.hopfield(2))
    many = 3000
    temperatures = np.tile([0.5, 1.0, 2.0, 4.0], many).astype(np.float32)
    energies = np.tile([-1.0, -1.4, -1.2, 0.3], many).astype(np.float32)
    labels = np.arange(4 * many, dtype=np.float32)
    state = dx.GraphState(topology).init({"units": np.stack([labels, -labels], 1)})
    for odd in (False, True):
        after, exchanged = dx.exchange(state, energies, temperatures, KEY, odd=odd)
        exchanged = np.asarray(exchanged)
        assert not exchanged[1 - odd :: 2].any()
        expected = labels.copy()
        for i in np.flatnonzero(exchanged):
            expected[[i, i + 1]] = expected[[i + 1, i]]
        np.testing.assert_array_equal(after["units"], np.stack([expected, -expected], 1))
        # the pairs 0-1, 2-3 or 1-2, 3-0 of each ladder
        for first in (1, 3) if odd else (0, 2):
            second = (first + 1) % 4
            cold = 1 / temperatures[first] - 1 / temperatures[second]
            chance = min(1, np.exp(cold * (energies[first] - energies[second])))
            share = exchanged[first::4].mean()
            assert abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / many) + 1e-6
    lost = np.where(labels % 8 == 1, np.nan, energies)
    _, exchanged = dx.exchange(state, lost, temperatures, KEY)
    assert not exchanged[::8].any()


@pytest.mark.parametrize("held", [False, True], ids=["free", "held and driven"])
def test_tempering_samples_the_boltzmann_distribution_of_each_temperature(held):
    matrix, states, energies = glass()
    network = scalars(matrix, dx.glauber(1.0))
    drive = {5: np.float32(0.7)} if held else {}
    energies = energies - 0.7 * states[:, 5] * held
    allowed = (states[:, 0] == 1) | (not held)
    ladder = np.geomspace(0.4, 3, 6).astype(np.float32)
    begin = start(network, np.ones((6, 12)))
    rounds = 12000
    found = dx.temper(
        network,
        begin,
        ladder,
        rounds,
        energy=energy_of(network, drive),
        schedule=dx.coloured(),
        clamp=[0] if held else [],
        drive=drive,
        key=KEY,
        observe=number,
    )
    frames = np.asarray(found.frames)
    assert frames.shape == (rounds, 6)
    np.testing.assert_array_equal(number(found.state), frames[-1])
    exact = [boltzmann(np.where(allowed, energies, np.inf), t) for t in ladder]
    for sample, p in enumerate(exact):
        seen = frames[100:, sample]
        assert p[seen].all()
        mean = (p * np.where(allowed, energies, 0)).sum()
        assert abs(energies[seen].mean() - mean) < 0.15
        # by energy, of which there are few: as many as states would need too many draws
        for level in np.unique(energies[allowed].round(4)):
            at = np.abs(energies - level) < 1e-3
            assert abs(at[seen].mean() - p[at].sum()) < 0.04
    # replicas are independent of each other at equal time: acceptance is a double sum
    for i in range(5):
        gain = 1 / ladder[i] - 1 / ladder[i + 1]
        chance = 0.0
        levels = np.unique(energies[allowed].round(4))
        one, other = (
            np.array([p[np.abs(energies - level) < 1e-3].sum() for level in levels])
            for p in exact[i : i + 2]
        )
        gains = gain * (levels[:, None] - levels)
        chance = (one[:, None] * other * np.exp(np.minimum(0, gains))).sum()
        assert abs(found.accepted[i] - chance) < 0.03


def test_tempering_knows_the_energy_of_connections_both_ways():
    topology = dx.Topology(dx.topologies.hopfield(6))
    couplings = {"recurrent": dx.dense(symmetric=True, self_coupling=0.0)}
    network = dx.Network(topology, couplings, dx.glauber(1.0), key=KEY)
    drive = {"units": np.linspace(-1, 1, 6).astype(np.float32)}
    given = {"drive": drive, "clamp": {"units": np.arange(6) == 2}}
    state = dx.GraphState(topology, 5).replace_val("units", np.ones((5, 6)))

    def energy(state):
        return dx.energy(network, state, **given)

    ladder = np.geomspace(0.5, 3, 5)
    ways = [
        dx.temper(network, state, ladder, 30, energy=e, key=KEY, **given) for e in (None, energy)
    ]
    for ours, theirs in zip(*map(jax.tree.leaves, ways), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert 0 < ways[0].accepted.min() < 1
    # the network may have a ladder already
    tall = dx.at_temperature(network, np.ones(5, np.float32))
    found = dx.temper(tall, state, ladder, 30, key=KEY, **given)
    np.testing.assert_array_equal(found.accepted, ways[0].accepted)
    # a generator can be read once, and both passes and energy ask for it
    once = {"drive": drive, "clamp": {"units": np.arange(6) == 2}, "kinds": iter(["recurrent"])}
    again = dx.temper(network, state, ladder, 30, key=KEY, **once)
    np.testing.assert_array_equal(again.accepted, ways[0].accepted)
    one_way = dx.Network(topology, {"recurrent": dx.dense()}, dx.glauber(1.0), key=KEY)
    with pytest.raises(ValueError, match=r"dx\.transpose|symmetric"):
        dx.temper(one_way, state, ladder, 2, key=KEY)


def test_tempering_does_not_depend_on_the_order_of_drawing():
    """Noise goes by the names of nodes, and what is exchanged by energies."""
    graph = dx.topologies.reciprocal(dx.topologies.lattice((4, 4)))
    couplings = {"lateral": dx.scale(0.5), "back": dx.transpose("lateral")}
    ends = []
    for drawn in (graph, redrawn(graph)):
        network = dx.Network(dx.Topology(drawn), couplings, dx.glauber(1.0), key=KEY)
        begin = jax.tree.map(jnp.ones_like, dx.GraphState(network.topology, 4))
        colours = {site: sum(site) % 2 for site in drawn}
        given = {"schedule": dx.coloured(colours), "key": KEY}
        ends.append(dx.temper(network, begin, np.geomspace(0.5, 3, 4), 30, **given))
    for site in graph:
        np.testing.assert_array_equal(*(end.state[site] for end in ends))
    np.testing.assert_array_equal(ends[0].accepted, ends[1].accepted)
    assert ends[0].accepted.min() > 0


def test_tempering_crosses_hills_that_cold_samples_do_not():
    """A ferromagnet: in the cold it keeps the sign that it began with."""
    topology = dx.Topology(dx.topologies.lattice((4, 4)))
    magnet = dx.Network(topology, {"lateral": dx.scale(1.0, fixed=True)}, dx.glauber(1.0), key=KEY)
    begin = jax.tree.map(jnp.ones_like, dx.GraphState(topology, 8))
    ladder = np.geomspace(1.0, 4.0, 8)

    def mean(state):
        (values,) = state.arrays.values()
        return values.mean(0)

    given = {"schedule": dx.coloured(), "key": KEY, "observe": mean}
    _, alone = dx.rollout(dx.at_temperature(magnet, ladder), begin, 2000, **given)
    found = dx.temper(magnet, begin, ladder, 1000, energy=energy_of(magnet), passes=2, **given)
    assert np.asarray(alone)[:, 0].min() > 0.5
    coldest = np.asarray(found.frames)[:, 0]
    assert np.abs(coldest).mean() > 0.9
    assert 0.2 < (coldest > 0).mean() < 0.8


def test_tempering_makes_its_passes_and_draws_as_a_rollout():
    """Without exchanges, at equal energies of unequal sign, nothing but passes is left."""
    network = population(couplings_matrix(6, symmetric=True), dx.glauber(1.0))
    state = start(network, spins(6, 2))
    ladder = np.array([0.5, 2.0], np.float32)
    never = lambda state: jnp.array([-1e6, 1e6])  # noqa: E731
    found = dx.temper(network, state, ladder, 4, energy=never, passes=3, key=KEY)
    given = {"schedule": dx.unit_by_unit(), "key": KEY}
    expected, _ = dx.rollout(dx.at_temperature(network, ladder), state, 12, **given)
    np.testing.assert_array_equal(found.state["units"], expected["units"])
    np.testing.assert_array_equal(found.accepted, [0])
    assert found.frames is None
    always = lambda state: jnp.array([1e6, -1e6])  # noqa: E731
    swapped = dx.temper(network, state, ladder, 1, energy=always, key=KEY)
    once, _ = dx.rollout(dx.at_temperature(network, ladder), state, 1, **given)
    np.testing.assert_array_equal(swapped.state["units"], once["units"][::-1])
    np.testing.assert_array_equal(swapped.accepted, [1])


# Boltzmann machines


def machine(visible, hidden, lateral):
    """A network of visible and hidden units whose couplings both ways begin equal."""
    g = nx.DiGraph()
    g.add_node("visible", shape=visible, kind="visible")
    g.add_node("hidden", shape=hidden, kind="hidden")
    g.add_edge("visible", "hidden", kind="up")
    g.add_edge("hidden", "visible", kind="down")
    couplings = {"up": dx.dense(gain=0.1), "down": dx.dense()}
    if lateral:
        g.add_edge("visible", "visible", kind="lateral")
        couplings["lateral"] = dx.dense(gain=0.0, self_coupling=0.0)
    network = dx.Network(
        dx.Topology(g),
        couplings,
        dx.glauber(1.0),
        biases={"visible": dx.bias(), "hidden": dx.bias()},
        key=KEY,
    )
    up = network["visible", "hidden"].weight
    down = eqx.tree_at(lambda c: c.weight, network["hidden", "visible"], up.T)
    return network.replace_val(("hidden", "visible"), down)


def exact_visible(network):
    """All states of the visible units, and the probability of each, hidden ones summed over."""
    up = np.asarray(network["visible", "hidden"].weight, float)
    (a,), (b,) = (list(network.biases[kind].values()) for kind in ("visible", "hidden"))
    a, b = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    states = np.array(list(itertools.product([-1, 1], repeat=up.shape[1])), float)
    field = states @ up.T + b
    minus = states @ a + np.logaddexp(field, -field).sum(1)
    if "lateral" in network.couplings:
        weight = np.asarray(network["visible", "visible"].weight, float)
        np.fill_diagonal(weight, 0)
        np.testing.assert_allclose(weight, weight.T, atol=1e-5)
        minus += 0.5 * np.einsum("si,ij,sj->s", states, weight, states)
    np.testing.assert_allclose(up.T, network["hidden", "visible"].weight, atol=1e-5)
    return states, boltzmann(-minus, 1)


def likelihood(network, data):
    """The mean logarithm of the probability of samples."""
    _, p = exact_visible(network)
    place = (data > 0) @ 2 ** np.arange(data.shape[1])[::-1]
    return np.log(p[place]).mean()


def examples(count=400):
    """Three prototypes of five units, with some units turned around."""
    rng = np.random.default_rng(0)
    kinds = rng.choice([-1.0, 1.0], size=(3, 5))[rng.integers(0, 3, count)]
    return (kinds * rng.choice([-1, 1], p=[0.07, 0.93], size=kinds.shape)).astype(np.float32)


def test_restricted_machines_learn_by_contrastive_divergence_in_fit():
    network, data = machine(5, 2, lateral=False), examples()
    rules = dict.fromkeys(["up", "down"], dx.hebbian())
    turns = dx.groups([["hidden"], ["visible"]])
    learning = dx.ContrastiveLearning(
        rules,
        free=dx.Phase("dream", steps=3, settle=False, schedule=turns),
        taught=dx.Phase("data", steps=1, settle=False, clamp=["visible"]),
    )
    x = {"visible": data}
    trained, _ = dx.fit(
        network, learning, optax.sgd(0.05), x, x, epochs=40, batch_size=40, key=KEY, progress=False
    )
    _, counts = np.unique(data, axis=0, return_counts=True)
    best = (counts / len(data) * np.log(counts / len(data))).sum()
    before, after = likelihood(network, data), likelihood(trained, data)
    assert before < best - 0.9
    assert best - 0.2 < after < best


@pytest.mark.parametrize("lateral", [False, True], ids=["restricted", "general"])
def test_persistent_chains_follow_the_enumerated_distribution_and_teach_it_the_data(lateral):
    network, data = machine(5, 3, lateral), examples()
    rules = dict.fromkeys(network.topology.edge_kinds, dx.hebbian())
    turns = dx.unit_by_unit() if lateral else dx.groups([["hidden"], ["visible"]])
    params, rest = dx.partition(network, rules)
    optimiser = optax.sgd(optax.linear_schedule(0.1, 0.0, 400))
    chains = dx.GraphState(network.topology, 500).replace({"visible": spins(5, 500)})
    clamped = dx.GraphState(network.topology).init({"visible": data})

    @jax.jit
    def update(params, memory, chains, key):
        network = eqx.combine(params, rest)
        one, other = jax.random.split(key)
        awake = dx.step(network, clamped, clamp=["visible"], key=one)
        chains, _ = dx.rollout(network, chains, 2, schedule=turns, key=other)
        here, there = (dx.local_updates(network, state, rules) for state in (awake, chains))
        updates = jax.tree.map(jnp.subtract, here, there)
        steps, memory = optimiser.update(updates, memory, params)
        return optax.apply_updates(params, steps), memory, chains

    memory = optimiser.init(params)
    for t in range(400):
        params, memory, chains = update(params, memory, chains, jax.random.fold_in(KEY, t))
    trained = eqx.combine(params, rest)
    states, p = exact_visible(trained)
    # what the chains are at, with the last, slowest steps: the distribution of the model
    place = (np.asarray(chains["visible"]) > 0) @ 2 ** np.arange(5)[::-1]
    seen = np.bincount(place, minlength=32) / len(place)
    assert 0.5 * np.abs(seen - p).sum() < 0.12
    # at the maximum of the likelihood its means are those of the data
    np.testing.assert_allclose(p @ states, data.mean(0), atol=0.1)
    np.testing.assert_allclose(
        np.einsum("s,si,sj->ij", p, states, states), data.T @ data / len(data), atol=0.15
    )
