"""Relaxation: the report of every sample is the one that the definition gives, whatever its
companions do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import (
    CASES,
    couplings_matrix,
    loop_order,
    population,
    read,
    sample,
    scalars,
    spins,
    start,
)

import darnax as dx
from darnax.testing import Reference, random_state


def report_by_hand(network, state, visits, units, max_steps, tol=1e-5):
    """`(settled, steps, residual, period)` of a single sample, by the definition, for ±1 states."""
    loop = Reference(network, state)
    anchor, anchored = None, 0
    for t in range(1, max_steps + 1):
        before = {name: array.copy() for name, array in loop.arrays.items()}
        loop.sweep(visits, units)
        residual = max(np.abs(loop.arrays[name] - before[name]).max() for name in before)
        if residual <= tol:
            return True, t, residual, 1
        if anchor is not None and all(
            np.abs(loop.arrays[name] - anchor[name]).max() <= tol for name in anchor
        ):
            return False, t, residual, t - anchored
        if t & (t - 1) == 0:
            anchor, anchored = {name: array.copy() for name, array in loop.arrays.items()}, t
    return False, max_steps, residual, 0


@pytest.mark.parametrize("schedule", ["synchronous", "node_by_node"])
@pytest.mark.parametrize("case", ["self-loop", "hub", "windows", "scalars", "int8", "chain"])
def test_report_follows_the_definition(case, schedule):
    network = CASES[case].network()
    state = random_state(network.topology, 6)
    ours, visits, units = loop_order(network, schedule)
    solution = dx.relax(network, state, schedule=ours, max_steps=12)
    for i in range(6):
        settled, steps, residual, period = report_by_hand(
            network, sample(state, i), visits, units, 12
        )
        assert (bool(solution.settled[i]), int(solution.steps[i])) == (settled, steps)
        assert int(solution.period[i]) == period
        assert float(solution.residual[i]) == residual


@pytest.mark.parametrize(
    "schedule", [dx.synchronous(), dx.node_by_node(), dx.unit_by_unit(), dx.asynchronous(0.5)]
)
@pytest.mark.parametrize("case", ["chain", "windows", "scalars"])
def test_batch_equals_sample_by_sample(case, schedule):
    network = CASES[case].network()
    state = random_state(network.topology, 5)
    keys = jax.random.split(jax.random.key(3), 5)
    whole = dx.relax(network, state, schedule=schedule, max_steps=30, key=keys)
    for i in range(5):
        single = dx.relax(
            network, sample(state, i), schedule=schedule, max_steps=30, key=keys[i : i + 1]
        )
        for ours, theirs in zip(
            jax.tree.leaves(sample(whole, i)), jax.tree.leaves(single), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_batch_equals_sample_by_sample_for_floats():
    network = population(couplings_matrix(8, symmetric=False) * 0.5, dx.tanh)
    values = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32) * np.array(
        [[0.01], [1], [3], [10]], np.float32
    )
    whole = dx.relax(network, start(network, values), max_steps=200)
    assert whole.settled.all()
    assert len(set(whole.steps.tolist())) > 1
    for i in range(4):
        single = dx.relax(network, start(network, values[i : i + 1]), max_steps=200)
        np.testing.assert_allclose(read(whole.state)[i], read(single.state)[0], atol=1e-6)
        assert abs(int(single.steps[0]) - int(whole.steps[i])) <= 1


def test_one_key_gives_sample_i_the_key_folded_with_i():
    network = population(couplings_matrix(8, symmetric=False), dx.glauber(1.0))
    state, key = start(network, spins(8, 3)), jax.random.key(5)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(3))
    one, _ = dx.rollout(network, state, 4, key=key)
    many, _ = dx.rollout(network, state, 4, key=keys)
    np.testing.assert_array_equal(read(one), read(many))
    alone, _ = dx.rollout(network, sample(state, 1), 4, key=keys[1:2])
    np.testing.assert_array_equal(read(alone)[0], read(one)[1])
    assert (read(one)[0] != read(one)[1]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["start", "input", "later"])
def test_a_value_that_is_not_finite_stops_its_sample_alone(where, bad):
    graph = dx.topologies.sequential([3, 4, 4, 2])
    activations = {"hidden": dx.sign if where == "start" else dx.relu, "output": dx.identity}
    network = dx.Network(
        dx.Topology(graph),
        {
            "forward": dx.dense(gain=6.0),
            "backward": dx.dense(gain=0.02),
            "recurrent": dx.dense(gain=0.2),
        },
        activations,
        key=jax.random.key(0),
    )
    state = dx.GraphState(network.topology).init(
        np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    )
    good = dx.relax(network, state, max_steps=80)
    node = 1 if where == "start" else 0
    value = np.array(state[node])
    value[1] = 3.3e38 if where == "later" else bad
    state = state.replace_val(node, value)
    solution = dx.relax(network, state, max_steps=80)
    assert solution.settled.tolist() == [bool(good.settled[0]), False, bool(good.settled[2])]
    assert np.isnan(solution.residual[1])
    assert int(solution.period[1]) == 0
    if where == "later":
        assert int(solution.steps[1]) < 80
    else:
        assert int(solution.steps[1]) == 1
        for ours, theirs in zip(
            jax.tree.leaves(solution.state), jax.tree.leaves(state), strict=True
        ):
            np.testing.assert_array_equal(ours[..., 1], theirs[..., 1])
    for i in (0, 2):
        for ours, theirs in zip(
            jax.tree.leaves(sample(solution, i)), jax.tree.leaves(sample(good, i)), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_growth_stops_at_the_first_infinity():
    g = nx.DiGraph()
    g.add_node("a", shape=())
    g.add_edge("a", "a", weight=10.0)
    network = dx.Network(
        dx.Topology(g), {"edge": dx.scale(weight="weight")}, dx.identity, key=jax.random.key(0)
    )
    solution = dx.relax(
        network, dx.GraphState(network.topology).replace_val("a", jnp.ones(1)), max_steps=80
    )
    assert (
        int(solution.steps[0]) == 39
    )  # 10^39 is the first power of ten that float32 does not hold
    assert np.isinf(solution.state["a"][0])
    assert np.isnan(solution.residual[0])
    assert int(solution.period[0]) == 0


def contraction(moduli, angles, rng):
    """A matrix with these eigenvalues, each with its conjugate, in directions at random."""
    n = 2 * len(moduli)
    matrix = np.zeros((n, n))
    for i, (modulus, angle) in enumerate(zip(moduli, angles, strict=True)):
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = modulus * np.asarray(turn)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return basis @ matrix @ basis.T


def linear_pass(matrix, schedule, rate):
    """What a pass of leaky linear units makes of every direction."""
    step = rate * matrix + (1 - rate) * np.eye(len(matrix))
    if schedule != dx.unit_by_unit():
        return step
    result = np.eye(len(matrix))
    for i, row in enumerate(step):
        result[i] = row @ result
    return result


@pytest.mark.parametrize(
    "activation",
    [dx.identity, dx.tanh, dx.leaky(0.4, dx.identity)],
    ids=["linear", "tanh", "leaky"],
)
@pytest.mark.parametrize(
    "schedule", [dx.synchronous(), dx.node_by_node(), dx.unit_by_unit()], ids=str
)
def test_a_slow_approach_is_no_cycle(activation, schedule):
    """Contracting maps come to rest, however they alternate or spiral on their way."""
    rng = np.random.default_rng(0)
    network = population(np.zeros((4, 4)), activation)
    rate = 0.4 if activation.needed else 1.0
    for angle in [
        np.pi,
        np.pi / 2,
        *(2 * np.pi / period for period in (3, 5, 7, 8)),
        *rng.uniform(0, np.pi, 6),
    ]:
        matrix = contraction(1 - 10 ** rng.uniform(-3, -1, 2), [angle, rng.uniform(0, np.pi)], rng)
        while np.abs(np.linalg.eigvals(linear_pass(matrix, schedule, rate))).max() > 0.9991:
            matrix = matrix * 0.98
        weight = jnp.asarray(matrix, jnp.float32)[None]
        network = eqx.tree_at(lambda n: n.couplings["recurrent"][0].weight, network, weight)
        values = 0.1 * rng.normal(size=(8, 4))
        drive = {"units": 0.01 * rng.normal(size=(8, 4)).astype(np.float32)}
        solution = dx.relax(
            network, start(network, values), schedule=schedule, drive=drive, max_steps=20000
        )
        assert solution.settled.all()
        assert (solution.period == 1).all()


@pytest.mark.parametrize("weight", [-0.8, -0.95, -0.98])
@pytest.mark.parametrize(
    "schedule", [dx.synchronous(), dx.node_by_node(), dx.unit_by_unit(), dx.coloured()], ids=str
)
def test_a_slow_alternating_unit_settles(weight, schedule):
    network = scalars(np.full((1, 1), weight), dx.tanh)
    state = start(network, np.linspace(0, 1, 50)[:, None])
    solution = dx.relax(
        network, state, schedule=schedule, drive={0: jnp.linspace(0, 0.3, 50)}, max_steps=5000
    )
    assert solution.settled.all()
    assert (solution.period == 1).all()


@pytest.mark.parametrize("period", [2, 3, 4, 5, 7])
def test_true_cycles_are_found_at_the_first_copy_that_allows_it(period):
    """What goes round a ring is back after as many passes as the ring has units."""
    network = population(np.roll(np.eye(period), 1, axis=0), dx.identity)
    solution = dx.relax(
        network, start(network, np.random.default_rng(0).normal(size=(3, period))), max_steps=200
    )
    copy = 2 ** int(np.ceil(np.log2(period)))
    assert solution.period.tolist() == [period] * 3
    assert solution.steps.tolist() == [copy + period] * 3


@pytest.mark.parametrize("weight", [-1.1, -1.5, -3.0])
def test_a_cycle_that_is_drawn_near_to_is_one(weight):
    """Beyond -1 the fixed point of tanh is left for a cycle of two."""
    network = scalars(np.full((1, 1), weight), dx.tanh)
    solution = dx.relax(network, start(network, np.linspace(0.1, 1, 5)[:, None]), max_steps=300)
    assert solution.period.tolist() == [2] * 5
    assert not solution.settled.any()


def energy(matrix, values):
    return -0.5 * np.einsum("bi,ij,bj->b", values, matrix, values)


@pytest.mark.parametrize("make", [population, scalars])
def test_symmetric_couplings_settle_unit_by_unit(make):
    matrix = couplings_matrix(16, symmetric=True)
    network, values = make(matrix), spins(16, 12)
    solution = dx.relax(network, start(network, values), schedule=dx.unit_by_unit(), max_steps=100)
    assert solution.settled.all()
    state, before = start(network, values), energy(matrix, values)
    for _ in range(int(solution.steps.max())):
        state = dx.step(network, state, schedule=dx.unit_by_unit())
        after = energy(matrix, read(state))
        assert (after <= before).all()
        before = after
    np.testing.assert_array_equal(read(state), read(solution.state))
    fields = read(solution.state) @ matrix.T
    np.testing.assert_array_equal(np.where(fields >= 0, 1, -1), read(solution.state))


@pytest.mark.parametrize("make", [population, scalars])
def test_symmetric_couplings_at_once_end_in_period_one_or_two(make):
    network, values = make(couplings_matrix(16, symmetric=True)), spins(16, 12)
    solution = dx.relax(network, start(network, values), max_steps=300)
    assert set(solution.period.tolist()) <= {1, 2}
    assert 2 in solution.period.tolist()
    np.testing.assert_array_equal(np.asarray(solution.settled), np.asarray(solution.period) == 1)
    later, _ = dx.rollout(network, solution.state, 2)
    np.testing.assert_array_equal(read(later), read(solution.state))
    once = dx.step(network, solution.state)
    still = (read(once) == read(solution.state)).all(axis=1)
    np.testing.assert_array_equal(still, np.asarray(solution.settled))


def test_asymmetric_couplings_mostly_do_not_settle():
    network = population(couplings_matrix(64, symmetric=False))
    solution = dx.relax(
        network, start(network, spins(64, 20)), schedule=dx.node_by_node(), max_steps=100
    )
    assert solution.settled.mean() < 0.2


@pytest.mark.parametrize("schedule", [dx.synchronous(), dx.asynchronous(0.3), dx.unit_by_unit()])
def test_what_is_settled_is_a_fixed_point(schedule):
    network = population(couplings_matrix(24, symmetric=False, seed=2), self_coupling=1.0)
    solution = dx.relax(
        network,
        start(network, spins(24, 40)),
        schedule=schedule,
        max_steps=60,
        key=jax.random.key(0),
    )
    settled = np.asarray(solution.settled)
    assert settled.sum() > 0
    after = dx.step(network, solution.state)
    np.testing.assert_array_equal(read(after)[settled], read(solution.state)[settled])
    assert (solution.residual[settled] == 0).all()
    moved = (read(dx.step(network, solution.state)) != read(solution.state)).any(axis=1)
    assert moved[~settled].all()


def test_asynchronous_finds_no_cycles():
    network = population(couplings_matrix(16, symmetric=True))
    solution = dx.relax(
        network,
        start(network, spins(16, 12)),
        schedule=dx.asynchronous(1.0),
        max_steps=20,
        key=jax.random.key(0),
    )
    assert set(solution.period.tolist()) <= {0, 1}


def test_a_start_at_rest_takes_one_pass():
    network = population(couplings_matrix(16, symmetric=True))
    rest = dx.relax(network, start(network, spins(16, 4)), schedule=dx.unit_by_unit()).state
    solution = dx.relax(network, rest, schedule=dx.unit_by_unit())
    assert solution.steps.tolist() == [1] * 4
    assert solution.settled.all()
    nothing = dx.relax(
        CASES["no edges"].network(), dx.GraphState(CASES["no edges"].network().topology, 2)
    )
    assert nothing.settled.tolist() == [True, True]
    assert nothing.steps.tolist() == [1, 1]


def test_a_finished_sample_is_frozen():
    """A start at rest stays bit for bit while its companion goes on."""
    network = population(couplings_matrix(8, symmetric=False) * 0.5, dx.tanh)
    values = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    loose = dx.relax(network, start(network, values[:1]), tol=1e-2)
    values[0] = read(loose.state)[0]
    both = dx.relax(network, start(network, values), tol=1e-2)
    assert int(both.steps[0]) == 1 < int(both.steps[1])
    np.testing.assert_allclose(
        read(both.state)[0], read(dx.step(network, start(network, values)))[0], atol=1e-7
    )


@pytest.mark.parametrize("rate", [0.5, 1e-3])
def test_leaky_units_rest_where_the_map_does(rate):
    """A slow unit moves less than the tolerance in a pass; that is neither rest nor a cycle."""
    matrix = couplings_matrix(6, symmetric=False) * 0.5
    values = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    network = population(matrix, dx.leaky(rate, dx.tanh))
    solution = dx.relax(network, start(network, values), max_steps=40, tol=1e-3)
    distance = np.abs(np.tanh(values @ matrix.T) - values).max(axis=1)
    if rate == 1e-3:
        assert not solution.settled.any()
        assert solution.period.tolist() == [0, 0, 0]
        assert (np.asarray(solution.residual) > 0.2 * np.minimum(distance, 1)).all()
        return
    assert solution.settled.all()
    rest = dx.relax(
        population(matrix, dx.tanh), start(network, values), tol=1e-6, max_steps=300
    ).state
    np.testing.assert_allclose(read(solution.state), read(rest), atol=1e-2)


def test_the_residual_is_relative_to_the_block():
    """|F(s) - s| / max(1, max|s|), node by node, for states far from one."""
    graph = nx.DiGraph(arrays={"line": 4})
    graph.add_node("a", shape=2, kind="free")
    graph.add_node("l", array="line", index=slice(0, 2), kind="free")
    graph.add_node("r", array="line", index=slice(1, 3), kind="free")
    graph.add_node("s", array="line", index=3, kind="free")
    graph.add_edges_from((n, n) for n in graph.nodes)
    network = dx.Network(
        dx.Topology(graph), {"edge": dx.scale(0.5)}, dx.identity, key=jax.random.key(0)
    )
    state = dx.GraphState(network.topology).init({"a": [[100.0, 1.0]], "s": [[4.0][0]]})
    state = state.replace_val("r", np.array([[8.0, 40.0]]))
    # a halves: 50 / 100; r: its first cell gets both views' messages and stays, its second moves by
    # 20 / 40; s: 2 / 4
    for passes in (1, 2, 3):
        solution = dx.relax(network, state, max_steps=passes)
        assert float(solution.residual[0]) == pytest.approx(0.5)
        assert int(solution.period[0]) == 0


@pytest.mark.parametrize("symmetric", [True, False])
def test_unrolled_reports_the_same(symmetric):
    network = population(couplings_matrix(12, symmetric))
    state = start(network, spins(12, 20))
    ours, theirs = (
        dx.relax(network, state, max_steps=40, adjoint=adjoint)
        for adjoint in (dx.implicit(), dx.unrolled())
    )
    assert len(set(ours.period.tolist())) > 1
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_agree_with_each_other_and_leave_out_what_did_not_settle():
    topology = dx.Topology(dx.topologies.sequential([3, 4, 4, 2]))
    kinds = dict.fromkeys(topology.edge_kinds, dx.dense(gain=0.4))
    network = dx.Network(
        topology, kinds, dx.tanh, biases={"hidden": dx.bias(0.1)}, key=jax.random.key(1)
    )
    rules = dict.fromkeys(topology.edge_kinds, dx.hebbian())
    params, rest = dx.partition(network, rules)
    x = jax.random.normal(jax.random.key(2), (3, 3))

    def loss(params, x, adjoint, schedule, max_steps=100, tol=1e-6):
        state = dx.GraphState(topology).init(x)
        drive = {2: jnp.ones(4) * 0.3}
        solution = dx.relax(
            eqx.combine(params, rest),
            state,
            adjoint=adjoint,
            schedule=schedule,
            max_steps=max_steps,
            tol=tol,
            drive=drive,
        )
        return jnp.sum(solution.state.readout**2) + jnp.sum(solution.state[1])

    slope = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=(2, 3, 4, 5))
    exact = slope(params, x, dx.unrolled(), dx.synchronous())
    for schedule in (dx.synchronous(), dx.node_by_node()):
        implicit = slope(params, x, dx.implicit(), schedule)
        for ours, theirs in zip(jax.tree.leaves(implicit), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=3e-5, rtol=1e-4)
    unsettled = slope(params, x, dx.implicit(), dx.synchronous(), 2, 0.0)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(unsettled))


def test_gradients_where_only_passes_of_single_nodes_settle():
    """Mutual inhibition of three: at once they swing ever further, one after another they come to
    rest."""
    matrix = (-0.8 * (1 - np.eye(3))).astype(np.float32)

    def rest(drive, adjoint, schedule):
        network = scalars(matrix, dx.tanh)
        state = start(network, np.zeros((1, 3), np.float32))
        drive = {i: drive[i] for i in range(3)}
        return dx.relax(
            network, state, schedule=schedule, drive=drive, adjoint=adjoint, max_steps=200
        )

    drive = jnp.asarray([0.1, 0.12, 0.08])
    assert not rest(drive, dx.implicit(), dx.synchronous()).settled.any()
    assert rest(drive, dx.implicit(), dx.node_by_node()).settled.all()
    slope = jax.jit(
        jax.grad(lambda drive, adjoint: rest(drive, adjoint, dx.node_by_node()).state[0].sum()),
        static_argnums=1,
    )
    slopes = [slope(drive, adjoint) for adjoint in (dx.implicit(), dx.unrolled())]
    np.testing.assert_allclose(*slopes, rtol=1e-3)


@pytest.mark.parametrize("adjoint", [dx.implicit(), dx.unrolled()])
@pytest.mark.parametrize(
    ("activation", "reason"),
    [(dx.sign, "sign has no derivative"), (dx.leaky(0.5, dx.sign), "no derivative")],
)
def test_gradients_through_what_has_none_are_refused(activation, reason, adjoint):
    def loss(matrix):
        network = population(np.zeros((3, 3)), activation)
        network = eqx.tree_at(lambda n: n.couplings["recurrent"][0].weight, network, matrix[None])
        return dx.relax(network, start(network, spins(3, 2)), adjoint=adjoint).state["units"].sum()

    with pytest.raises(TypeError, match=f"kind 'node' cannot be differentiated: .*{reason}"):
        jax.grad(loss)(jnp.eye(3))


def test_stacked_states_equal_the_loop_over_them():
    network = CASES["chain"].network()
    states = [random_state(network.topology, 3, seed=i) for i in range(2)]
    stacked = jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves)), *states)

    def run(state):
        return dx.relax(network, state, max_steps=20, schedule=dx.node_by_node())

    for mapped in (jax.jit(jax.vmap(run))(stacked), jax.pmap(run)(stacked)):
        for i, state in enumerate(states):
            alone = run(state)
            for ours, theirs in zip(jax.tree.leaves(mapped), jax.tree.leaves(alone), strict=True):
                np.testing.assert_array_equal(np.asarray(ours)[i], theirs)


@pytest.mark.parametrize(
    "schedule",
    [dx.synchronous(), dx.node_by_node(), dx.unit_by_unit(), dx.coloured()],
    ids=lambda s: type(s).__name__,
)
def test_samples_spread_over_devices_settle_as_they_do_alone(schedule):
    """Inside `shard_map` every device goes on until its own samples are at rest."""
    network = CASES["chain"].network()
    state = random_state(network.topology, 4)
    rows = jax.tree.map(lambda array: jax.P(*[None] * (array.ndim - 1), "samples"), state)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("samples",))

    def run(state):
        solution = dx.relax(network, state, schedule=schedule, max_steps=20)
        return solution.state, solution.steps

    spread = jax.shard_map(run, mesh=mesh, in_specs=(rows,), out_specs=(rows, jax.P("samples")))
    if schedule != dx.synchronous():  # called as it is, every operation is a program
        spread = jax.jit(spread)
    for ours, theirs in zip(
        jax.tree.leaves(spread(state)), jax.tree.leaves(run(state)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_units_that_rounding_holds_still_are_no_cycle():
    """A unit so slow that float32 cannot move it is not at rest, and goes round in nothing."""
    network = population(couplings_matrix(8, symmetric=True), dx.leaky(1e-9, dx.tanh))
    solution = dx.relax(network, start(network, spins(8, 4)), max_steps=40)
    assert not solution.settled.any()
    assert (solution.residual > 0.1).all()
    assert (solution.period == 0).all()
