"""Analysis: spectra, fixed points, Lyapunov exponents and overlaps, beside closed forms, dense
Jacobians and enumeration."""

import importlib
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import CASES, couplings_matrix, population, scalars, spins, start, values

import darnax as dx
from darnax.testing import random_state, redrawn

# modules of these names, which functions of the same names hide
search = importlib.import_module("darnax.analysis.fixed_points")
spectra = importlib.import_module("darnax.analysis.spectrum")
KEY = jax.random.key(0)


def smooth(case):
    """The network of a case with tanh units where it has others."""
    network = CASES[case].network()
    activations = network.activations
    if not all(activation.differentiable for activation in activations.values()):
        activations = dict.fromkeys(activations, dx.tanh)
    return eqx.tree_at(lambda n: n.activations, network, activations)


def flat(state):
    """All cells of a state as one vector a sample."""
    return np.concatenate(
        [np.asarray(a, np.float64).reshape(-1, state.batch_size) for a in state.arrays.values()]
    ).T


def dense(network, state, sample, **given):
    """The eigenvalues of the Jacobian of `step`, written down over all cells of a sample.

    A cell that is not free has a row of the unit matrix, and gives an eigenvalue of 1 that is no
    one's: cells that a pass changes are told by what it does to another state.
    """
    leaves, structure = jax.tree.flatten(state.arrays)
    shapes = [leaf.shape[:-1] for leaf in leaves]
    sizes = np.cumsum([0, *map(np.prod, shapes)])

    def image(vector):
        parts = [
            leaf.at[..., sample].set(vector[i:j].reshape(shape).astype(leaf.dtype))
            for leaf, shape, i, j in zip(leaves, shapes, sizes, sizes[1:], strict=False)
        ]
        after = dx.step(network, state.replace(jax.tree.unflatten(structure, parts)), **given)
        return jnp.concatenate(
            [leaf[..., sample].reshape(-1) for leaf in jax.tree.leaves(after.arrays)]
        )

    vector = jnp.asarray(flat(state)[sample], jnp.float32)
    jacobian = np.asarray(jax.jit(jax.jacfwd(image))(vector), np.float64)
    other = vector + 0.37
    free = np.asarray(image(other) != other)
    return ordered(np.linalg.eigvals(jacobian[np.ix_(free, free)]))


def ordered(values):
    return values[np.lexsort((-values.imag, -values.real, -np.abs(values)))]


def assert_spectrum(ours, theirs, **tolerance):
    """Conjugates, and others of equal modulus, may change places: sorted by their parts."""
    ours = np.asarray(ours)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), **tolerance)
    np.testing.assert_allclose(
        np.sort_complex(ours.round(4)), np.sort_complex(theirs.round(4)), atol=3e-4
    )


# the spectrum


@pytest.mark.parametrize("case", ["mixed", "views", "parts", "both ends", "hub"])
def test_spectrum_equals_that_of_the_dense_jacobian(case):
    network = smooth(case)
    state = random_state(network.topology, 2)
    theirs = dense(network, state, 1)
    ours = dx.spectrum(network, state, len(theirs))
    assert ours.dtype == jnp.complex64
    assert_spectrum(ours[1], theirs, atol=2e-4)
    np.testing.assert_array_equal(dx.spectrum(network, state, 3), ours[:, :3])


@pytest.mark.parametrize("schedule", [dx.node_by_node(), dx.unit_by_unit()], ids=["nodes", "units"])
def test_spectrum_is_that_of_a_pass_of_the_schedule_with_its_arguments(schedule):
    network = smooth("chain")
    state = random_state(network.topology, 2)
    mask = np.array([[True, False, False, True], [False, False, True, False]])
    drive = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)

    def pull(state):
        return 0.5 * (drive - state[2])

    given = {
        "schedule": schedule, "clamp": {1: mask}, "silence": [4], "kinds": ["forward", "recurrent", "backward"],
        "drive": {2: pull, 3: drive[0]},
    }  # fmt: skip
    for sample in range(2):
        theirs = dense(network, state, sample, **given)
        ours = dx.spectrum(network, state, 5, **given)[sample]
        assert_spectrum(ours, theirs[:5], atol=2e-4)
    plain = dx.spectrum(network, state, 5)
    assert np.abs(np.abs(plain[1]) - np.abs(ours)).max() > 1e-2


def test_spectrum_by_products_alone():
    """Beyond 128 cells: random networks, whose eigenvalues fill a disc, and a lattice, which has
    several that are equal."""
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(400, 400)) / 20).astype(np.float32)
    network = population(matrix, dx.tanh)
    state = start(network, rng.normal(size=(2, 400)) / 3)
    ours = dx.spectrum(network, state, 6)
    for sample, s in enumerate(np.asarray(state["units"], np.float64)):
        theirs = np.linalg.eigvals((1 - np.tanh(matrix @ s) ** 2)[:, None] * matrix)
        assert_spectrum(ours[sample], ordered(theirs)[:6], rtol=1e-5)
    assert (np.imag(ours[:, 0]) > 0.01).any()
    np.testing.assert_allclose(dx.spectrum(network, state), ours[:, :1], rtol=1e-5)

    lattice = nx.grid_2d_graph(12, 12, periodic=True)
    matrix = nx.to_numpy_array(lattice).astype(np.float32) / 5
    matrix[0, 0] = 0.1
    network = scalars(matrix, dx.identity)
    ours = dx.spectrum(network, dx.GraphState(network.topology), 8)[0]
    theirs = ordered(np.linalg.eigvals(matrix.astype(np.float64)) + 0j)[:8]
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-5)


def test_where_arpack_does_not_converge_the_jacobian_is_written_down(monkeypatch):
    """A Jacobian of zeros, which leaves ARPACK without a vector to go on with."""
    network = population(np.zeros((150, 150)), dx.identity)
    state = start(network, np.ones((1, 150)))
    np.testing.assert_array_equal(dx.spectrum(network, state, 3), 0)
    monkeypatch.setattr(spectra, "DENSE", 100)
    with pytest.raises(RuntimeError, match=r"ARPACK did not find .* sample 0, with 150 free cells"):
        dx.spectrum(network, state, 3)


def test_spectrum_of_a_sample_does_not_depend_on_its_companions():
    network = smooth("mixed")
    state = random_state(network.topology, 3)
    many = dx.spectrum(network, state, 4)
    for i in range(3):
        alone = dx.spectrum(network, jax.tree.map(lambda a, i=i: a[..., i : i + 1], state), 4)
        assert_spectrum(many[i], np.asarray(alone[0]), atol=1e-6)


def test_analysis_does_not_depend_on_the_order_of_drawing():
    network = smooth("chain")
    graph = redrawn(network.topology.to_networkx())
    couplings = {kind: dx.dense() for kind in ("forward", "backward")}
    couplings["recurrent"] = dx.dense(self_coupling=1.0)
    made = [
        dx.Network(dx.Topology(drawn), couplings, dx.tanh, key=KEY)
        for drawn in (network.topology.to_networkx(), graph)
    ]
    assert made[0].topology != made[1].topology
    states = random_state(made[0].topology, 2)
    same = dx.GraphState(made[1].topology, 2)
    for node, value in values(states).items():
        same = same.replace_val(node, value)
    one, other = (
        (dx.spectrum(net, state, 4), dx.lyapunov(net, state, 300, 2, transient=100), dx.stable(net, state))
        for net, state in zip(made, (states, same), strict=True)
    )  # fmt: skip
    assert_spectrum(one[0][0], np.asarray(other[0][0]), atol=1e-5)
    np.testing.assert_allclose(one[1], other[1], atol=0.02)
    np.testing.assert_array_equal(one[2], other[2])


def test_lost_samples_have_no_eigenvalues():
    network = smooth("hub")
    state = random_state(network.topology, 3)
    state = state.replace_val(2, state[2].at[1].set(jnp.nan)).replace_val(
        1, state[1].at[2].set(jnp.inf)
    )
    lost = np.isnan(np.asarray(dx.spectrum(network, state)).ravel())
    np.testing.assert_array_equal(lost, [False, True, True])
    np.testing.assert_array_equal(dx.stable(network, state)[1:], False)


# stability


def test_stability_of_a_pitchfork():
    """One unit that hears itself, s = tanh(w s): the origin is stable until w is 1."""
    for weight, expected in ((0.9, True), (1.1, False), (-0.9, True), (-1.1, False)):
        network = population(np.array([[weight]]), dx.tanh)
        state = start(network, np.zeros((1, 1)))
        assert dx.stable(network, state).item() is expected
    # in turns, each unit sees the other where it is now: the same point becomes stable
    pair = population(np.array([[0, 1.1], [-0.8, 0]]) * 1.05, dx.tanh)
    state = start(pair, np.zeros((1, 2)))
    assert dx.stable(pair, state).item()
    mutual = population(np.array([[-0.6, -0.6], [-0.6, -0.6]]), dx.tanh)
    state = start(mutual, np.zeros((1, 2)))
    assert not dx.stable(mutual, state).item()
    assert dx.stable(mutual, state, schedule=dx.unit_by_unit()).item()


def test_units_that_jump_are_stable_unless_their_field_is_zero():
    matrix = np.array([[0, 1, -1], [1, 0, 1], [-1, 1, 0]], np.float32)
    network = population(matrix, dx.sign)
    state = start(network, np.array([[1, 1, 1], [1, 1, -1]], np.float32))
    # the fields of all ones are 0, 2, 0
    np.testing.assert_array_equal(dx.stable(network, state), [False, False])
    state = state.replace_val("units", jnp.array([[1.0, 1, 1], [-1, -1, 1]]))
    np.testing.assert_array_equal(dx.stable(network, state), [False, False])
    pushed = {"units": np.full(3, 0.5, np.float32)}
    np.testing.assert_array_equal(dx.stable(network, state, drive=pushed), [True, True])
    held = {"units": np.array([True, False, True])}
    assert dx.stable(network, state, clamp=held)[0]
    # asynchronous passes are random, and have the same fixed points
    assert dx.stable(network, state, clamp=held, schedule=dx.asynchronous(0.5))[0]


def test_a_network_of_both_is_as_stable_as_its_smooth_part():
    g = nx.DiGraph()
    g.add_node("smooth", shape=(), kind="smooth")
    g.add_node("jump", shape=(), kind="jump")
    g.add_edges_from(
        [("smooth", "smooth"), ("smooth", "jump"), ("jump", "smooth"), ("jump", "jump")]
    )
    topology = dx.Topology(g)
    for weight, expected in ((0.9, True), (1.1, False)):
        network = dx.Network(
            topology,
            {"edge": dx.scale(weight)},
            {"smooth": dx.identity, "jump": dx.sign},
            key=KEY,
        )
        state = dx.GraphState(topology).init({"smooth": jnp.ones(1), "jump": jnp.ones(1)})
        assert dx.stable(network, state).item() is expected
        assert dx.stable(network, state, drive={"jump": jnp.ones(())}).item() is expected
        with pytest.raises(TypeError, match="nodes of kind 'jump' have no derivative"):
            dx.spectrum(network, state)
        alone = dx.spectrum(network, state, clamp=["jump"])
        np.testing.assert_allclose(alone, weight, rtol=1e-6)


def test_nodes_that_jump_may_go_by_another_name():
    """-1 is the last of nodes 0 to L-1, here a sign unit that is driven."""
    topology = dx.Topology(dx.topologies.sequential([2, 2, 2]))
    kinds = dict.fromkeys(topology.edge_kinds, dx.dense(gain=0.3))
    units = {"hidden": dx.tanh, "output": dx.sign}
    network = dx.Network(topology, kinds, units, key=KEY)
    state = random_state(topology, 1)
    drive = {-1: np.ones(2, np.float32)}
    assert dx.stable(network, state, drive=drive).item()
    assert dx.stable(
        network, state, clamp={-1: np.array([True, False])}, drive={1: np.ones(2)}
    ).item()


# fixed points


def enumerated(matrix, low=-1):
    """All fixed points of sign units, or of units that are 1 or `low`, by trying every state."""
    states = np.array(list(itertools.product([low, 1], repeat=len(matrix))), np.float32)
    after = np.where(states @ matrix.T >= 0, 1, low)
    return states, {tuple(state) for state in states[(after == states).all(1)]}


@pytest.mark.parametrize("units", [dx.sign, dx.heaviside], ids=["sign", "heaviside"])
def test_fixed_points_equal_enumeration(units):
    matrix = couplings_matrix(12, symmetric=True)
    states, expected = enumerated(matrix, 0 if units is dx.heaviside else -1)
    network = population(matrix, units)
    points = dx.fixed_points(network, start(network, states), schedule=dx.unit_by_unit())
    found = np.asarray(points.states["units"])
    assert {tuple(point) for point in found} == expected
    assert len(points) == len(found) == len(expected) > 1
    # unit by unit symmetric couplings always come to rest
    counts = np.asarray(points.counts)
    assert counts.sum() == 4096
    assert list(counts) == sorted(counts, reverse=True)
    np.testing.assert_array_equal(points.residual, 0)
    np.testing.assert_array_equal(counts, np.bincount(points.reached))
    # every point is in its own basin
    for i, point in enumerate(found):
        (own,) = np.flatnonzero((states == point).all(1))
        assert points.reached[own] == i
    # all at once many starts end in cycles of two, and lead to no point
    at_once = dx.fixed_points(network, start(network, states))
    assert {tuple(point) for point in np.asarray(at_once.states["units"])} == expected
    lost = np.asarray(at_once.reached) == -1
    assert lost.sum() + at_once.counts.sum() == 4096


def test_fixed_points_do_not_depend_on_the_order_of_drawing():
    matrix = couplings_matrix(10, symmetric=True, seed=3)
    order = np.random.default_rng(0).permutation(10)
    states, _ = enumerated(matrix)
    one, other = scalars(matrix), scalars(matrix[np.ix_(order, order)])
    values = {i: states[:, i] for i in range(10)}
    moved = {i: states[:, j] for i, j in enumerate(order)}
    a = dx.fixed_points(one, dx.GraphState(one.topology).init(values))
    b = dx.fixed_points(other, dx.GraphState(other.topology).init(moved))
    np.testing.assert_array_equal(a.reached, b.reached)
    np.testing.assert_array_equal(a.counts, b.counts)
    for i, j in enumerate(order):
        np.testing.assert_array_equal(a.states[j], b.states[i])


def test_fixed_points_have_the_energy_of_their_states():
    topology = dx.Topology(dx.topologies.hopfield(8))
    couplings = {"recurrent": dx.dense(symmetric=True, self_coupling=0.5)}
    network = dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))
    given = {"drive": {"units": np.linspace(-1, 1, 8).astype(np.float32)}}
    starts = dx.GraphState(topology).init({"units": spins(8, 50)})
    points = dx.fixed_points(network, starts, schedule=dx.unit_by_unit(), **given)
    assert len(points) > 1
    energies = dx.energy(network, points.states, **given)
    np.testing.assert_allclose(points.energy, energies, rtol=1e-6)
    one_way = dx.Network(topology, {"recurrent": dx.dense()}, dx.sign, key=jax.random.key(0))
    assert dx.fixed_points(one_way, starts).energy is None


def test_the_point_of_a_start_does_not_depend_on_other_starts():
    network = population(couplings_matrix(10, symmetric=True), dx.sign)
    starts = start(network, spins(10, 4))
    given = {"schedule": dx.unit_by_unit()}
    many = dx.fixed_points(network, starts, **given)
    for i, reached in enumerate(np.asarray(many.reached)):
        one = jax.tree.map(lambda a, i=i: a[..., i : i + 1], starts)
        alone = dx.fixed_points(network, one, **given)
        for ours, theirs in (
            (alone.states["units"][0], many.states["units"][reached]),
            (alone.residual[0], many.residual[reached]),
            (alone.stable[0], many.stable[reached]),
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_no_fixed_point_is_no_error():
    """Two units that want to differ and to agree go round for ever."""
    network = population(np.array([[0, 1], [-1, 0]]), dx.sign)
    points = dx.fixed_points(network, start(network, spins(2, 3)))
    assert len(points) == 0
    assert points.states["units"].shape == (0, 2)
    np.testing.assert_array_equal(points.reached, -1)
    for field in (points.counts, points.residual, points.stable):
        assert field.shape == (0,)


def test_points_that_differ_by_less_than_apart_are_one():
    network = population(np.array([[1.0, 0], [0, 1]]), dx.identity)
    values = np.array([[0, 0], [0, 4e-4], [0, 2e-3], [500, 500], [500, 500.4], [500, 501]])
    points = dx.fixed_points(network, start(network, values))
    np.testing.assert_array_equal(points.counts, [2, 2, 1, 1])
    np.testing.assert_array_equal(points.reached, [0, 0, 2, 1, 1, 3])
    # every state is at rest: neither grows nor shrinks what disturbs it
    np.testing.assert_array_equal(points.stable, False)
    points = dx.fixed_points(network, start(network, values), apart=0.0)
    np.testing.assert_array_equal(points.counts, np.ones(6))


def test_starts_with_other_inputs_lead_to_other_points():
    network = smooth("hub")
    state = random_state(network.topology, 1)
    starts = jax.tree.map(lambda a: jnp.repeat(a, 4, -1), state)
    starts = starts.replace_val(1, jnp.array([[1.0, 1], [1, 1], [-1, -1], [-1, -1]]))
    points = dx.fixed_points(network, starts, max_steps=300)
    np.testing.assert_array_equal(points.reached, [0, 0, 1, 1])
    expected = dx.relax(network, starts, max_steps=300)
    np.testing.assert_array_equal(points.residual, expected.residual[jnp.array([0, 2])])
    # what differs by sample comes along to where the points are looked at
    mask = np.array([[False, False], [False, False], [True, False], [True, False]])
    held = dx.fixed_points(network, starts, clamp={0: mask}, max_steps=300)
    np.testing.assert_array_equal(
        held.stable, dx.stable(network, expected.state, clamp={0: mask})[::2]
    )


def test_newton_finds_the_unstable_points_of_a_pitchfork():
    """s = tanh(2 s), once for each of two units: nine points, of which relaxing finds four."""
    network = population(np.diag([2.0, 2.0]), dx.tanh)
    grid = np.array(list(itertools.product([-0.9, 0.05, 0.9], repeat=2)))
    starts = start(network, grid)
    s = 1.0
    for _ in range(100):
        s = np.tanh(2 * s)
    expected = {tuple(point) for point in itertools.product([-s, 0, s], repeat=2)}
    points = dx.fixed_points(network, starts, newton=True)
    found = np.asarray(points.states["units"])
    assert len(points) == 9
    for point in found:
        assert min(np.abs(np.array(other) - point).max() for other in expected) < 1e-4
    np.testing.assert_array_equal(points.stable, np.abs(found).min(1) > 0.5)
    assert (np.asarray(points.residual) < 1e-5).all()
    relaxed = dx.fixed_points(network, starts)
    assert len(relaxed) == 4
    assert relaxed.stable.all()


def test_newton_keeps_what_is_held_and_takes_every_argument():
    network = smooth("chain")
    # weaker, so that no start is led to where Newton's method is stuck
    half = jax.tree.map(lambda leaf: leaf / 2, network.couplings)
    network = eqx.tree_at(lambda n: n.couplings, network, half)
    starts = random_state(network.topology, 3)
    mask = np.array([[True, False, False, True]] * 2 + [[False, True, False, False]])
    target = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    given = {"clamp": {1: mask}, "silence": [4], "drive": {2: dx.nudge(2, target, 0.3)}}
    points = dx.fixed_points(network, starts, newton=True, tol=1e-5, **given)
    assert len(points) == 3
    place = np.asarray(points.reached)
    held = np.asarray(points.states[1])[place]
    np.testing.assert_array_equal(held[mask], np.asarray(starts[1])[mask])
    np.testing.assert_array_equal(np.asarray(points.states[0])[place], starts[0])
    # in the order of the starts again, they stay where they are in a pass with the same arguments
    ends = jax.tree.map(lambda a: a[..., place], points.states)
    after = dx.step(network, ends, **given)
    for one, other in zip(jax.tree.leaves(ends), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


def test_newton_without_optimistix_says_what_to_install(monkeypatch):
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    network = smooth("hub")
    with pytest.raises(ImportError, match=r"pip install 'darnax\[analysis\]'"):
        dx.fixed_points(network, random_state(network.topology, 1), newton=True)


# Lyapunov exponents


def test_exponents_of_known_maps():
    """The logistic map at 4 has ln 2; those of a linear map are the logarithms of its moduli."""
    g = nx.DiGraph()
    g.add_node("s", shape=())
    g.add_edge("s", "s")
    network = dx.Network(
        dx.Topology(g), {"edge": dx.relay()}, lambda field: 4 * field * (1 - field), key=KEY
    )
    state = dx.GraphState(network.topology).init({"s": np.array([0.3, 0.4123])})
    found = dx.lyapunov(network, state, 4000, transient=100)
    assert found.shape == (2, 1)
    np.testing.assert_allclose(found, np.log(2), atol=5e-3)

    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    angle = np.array([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]])
    matrix = np.zeros((4, 4))
    matrix[:2, :2], matrix[2, 2], matrix[3, 3] = 1.2 * angle, -0.9, 0.5
    network = population(turn @ matrix @ turn.T, dx.identity)
    state = start(network, np.zeros((2, 4)))
    found = dx.lyapunov(network, state, 200, 4, transient=100)
    np.testing.assert_allclose(found, np.log([[1.2, 1.2, 0.9, 0.5]] * 2), atol=5e-3)
    # the sum over all is the logarithm of how volumes grow, in every pass
    one = dx.lyapunov(network, state, 1, 4)
    np.testing.assert_allclose(one.sum(1), np.log(abs(np.linalg.det(matrix))), rtol=1e-5)


def test_exponents_at_a_stable_point_are_those_of_its_spectrum():
    network = smooth("mixed")
    rest = dx.relax(network, random_state(network.topology, 2), max_steps=500, tol=1e-6)
    assert rest.settled.all()
    moduli = np.abs(dx.spectrum(network, rest.state, 2))
    found = dx.lyapunov(network, rest.state, 300, 2, transient=100)
    np.testing.assert_allclose(found, np.log(moduli), atol=2e-2)
    # held cells have no exponents of their own
    inner = {name for name in "vhpq" if name != "h"}
    held = dx.lyapunov(network, rest.state, 300, 1, transient=100, clamp=inner)
    alone = np.abs(dx.spectrum(network, rest.state, 1, clamp=inner))
    np.testing.assert_allclose(held, np.log(alone), atol=2e-2)


def test_exponents_of_sign_units():
    ring = np.roll(np.eye(20), 1, axis=0)  # each unit copies the one before it
    network = population(ring)
    state = start(network, spins(20, 3))
    np.testing.assert_allclose(dx.lyapunov(network, state, 50, key=KEY), 0, atol=1e-6)
    deaf = population(np.zeros((20, 20)) + 1e-3)
    state = start(deaf, np.ones((2, 20)))
    np.testing.assert_array_equal(dx.lyapunov(deaf, state, 50, key=KEY), -np.inf)
    # two units hear every unit of the first half: one flip in two passes on, and two in their place
    doubled = np.zeros((20, 20))
    doubled[np.arange(20), np.arange(20) // 2] = 1
    network = population(doubled)
    found = dx.lyapunov(network, start(network, spins(20, 4)), 2000, key=KEY)
    np.testing.assert_allclose(found, 0, atol=0.15)
    only = {"units": np.arange(20) < 5}
    found = dx.lyapunov(network, start(network, spins(20, 4)), 2000, key=KEY, clamp=only)
    # of fifteen free units five are heard by two free ones
    np.testing.assert_allclose(found, np.log(10 / 15), atol=0.15)


@pytest.mark.parametrize("transient", [0, 5])
def test_disturbances_that_die_do_not_come_back_as_those_of_held_cells(transient):
    chain = np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]])
    network = population(chain, dx.tanh)
    state = start(network, np.full((2, 3), 0.5))
    found = dx.lyapunov(network, state, 20, transient=transient, clamp={"units": np.arange(3) == 0})
    np.testing.assert_array_equal(found, -np.inf)


def test_exponents_of_random_sign_units_have_their_mean_field_value():
    """A flip of one of n units changes the field of each by 2/√n of its width."""
    n = 200
    matrix = np.random.default_rng(0).normal(size=(n, n)) / np.sqrt(n)
    expected = np.log(2 * np.sqrt(n) / np.pi)
    for units in (dx.sign, dx.glauber(0.0)):
        network = population(matrix, units)
        found = dx.lyapunov(network, start(network, spins(n, 4)), 400, transient=10, key=KEY)
        np.testing.assert_allclose(found, expected, atol=0.1)
    # in the heat noise decides, the same for both copies
    hot = population(matrix, dx.glauber(1e6))
    found = dx.lyapunov(hot, start(hot, spins(n, 2)), 100, key=KEY)
    assert (np.asarray(found) < -3).all()


def test_exponents_of_a_sample_do_not_depend_on_its_companions():
    matrix = couplings_matrix(12, symmetric=False)
    for units, k in ((dx.tanh, 2), (dx.sign, 1)):
        network = population(2 * matrix, units)
        state = start(network, spins(12, 3))
        keys = jax.random.split(KEY, 3)
        many = dx.lyapunov(network, state, 60, k, key=keys)
        alone = jax.tree.map(lambda a: a[..., 2:], state)
        one = dx.lyapunov(network, alone, 60, k, key=keys[2:])
        np.testing.assert_allclose(one[0], many[2], rtol=1e-4)


def test_exponents_of_passes_that_draw():
    """A unit that is halved in every second pass or so, by a coin of each pass."""
    network = population(np.array([[0.5]]), dx.identity)
    state = start(network, np.ones((8, 1)))
    found = dx.lyapunov(network, state, 1000, schedule=dx.asynchronous(0.5), key=KEY)
    np.testing.assert_allclose(found, np.log(0.5) / 2, atol=0.05)


def test_exponents_inside_of_programs():
    """An ensemble of strengths, as one program."""
    matrix = couplings_matrix(12, symmetric=False)
    network = population(matrix, dx.tanh)
    state = start(network, spins(12, 2))
    weight = network.couplings["recurrent"][0].weight

    @jax.jit
    @jax.vmap
    def of(gain):
        own = eqx.tree_at(lambda n: n.couplings["recurrent"][0].weight, network, gain * weight)
        return dx.lyapunov(own, state, 100, transient=50)

    gains = jnp.array([0.5, 3.0])
    found = of(gains)
    assert found.shape == (2, 2, 1)
    assert (found[0] < 0).all()
    strong = population(3 * matrix, dx.tanh)
    np.testing.assert_allclose(found[1], dx.lyapunov(strong, state, 100, transient=50), atol=0.05)


def test_a_lost_sample_has_no_exponent():
    for units in (dx.tanh, dx.sign):
        network = population(couplings_matrix(6, symmetric=False), units)
        state = start(network, np.array([[1, 1, -1, 1, 1, -1], [np.nan, 1, 1, 1, 1, 1]]))
        found = dx.lyapunov(network, state, 20, key=KEY)
        np.testing.assert_array_equal(np.isnan(found.ravel()), [False, True])


# overlaps


def test_overlaps_are_the_mean_of_products():
    topology = CASES["views"].network().topology
    state, stored = random_state(topology, 3), random_state(topology, 4, seed=1)
    names = {"left": stored["left"], "far": stored["far"]}
    found = dx.overlaps(state, names)
    products = np.einsum("bij,pij->bp", state["left"], stored["left"])
    products += np.einsum("bij,pij->bp", state["far"], stored["far"])
    np.testing.assert_allclose(found, products / 18, rtol=1e-6)
    # all cells, each once, though views share some
    np.testing.assert_allclose(
        dx.overlaps(state, stored), flat(state) @ flat(stored).T / 35, rtol=1e-5
    )
    np.testing.assert_array_equal(jnp.diagonal(dx.overlaps(state, state)), 1)
    jitted = jax.jit(dx.overlaps)(state, names)
    np.testing.assert_array_equal(jitted, found)
    # products of whole numbers do not overflow
    small = random_state(CASES["int8"].network().topology, 2)
    np.testing.assert_array_equal(jnp.diagonal(dx.overlaps(small, small)), 1)
