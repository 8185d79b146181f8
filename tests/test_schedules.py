"""Schedules, and the arguments of a call: who is visited, held, silent, driven."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import CASES, couplings_matrix, population, read, scalars, spins, start

import darnax as dx
from darnax.dynamics.schedules import block_of
from darnax.testing import overlapping, random_state


def movable(network):
    """Nodes that can change in a plain call: they hear somebody or overlap one that does, and are
    no inputs."""
    topology = network.topology
    hears = {edge[1] for edge in topology.edges}
    return np.asarray(
        [
            any(m in hears for m in block) and node not in topology.inputs
            for node in topology.nodes
            for block in overlapping(topology)
            if node in block
        ]
    )


@pytest.mark.parametrize("case", CASES)
def test_a_colouring_is_proper_and_complete(case):
    network = CASES[case].network()
    topology, free = network.topology, movable(network)
    visits = dx.coloured().visits(topology, free)
    assert sorted(at for visit in visits for at in visit.tolist()) == np.flatnonzero(free).tolist()
    colour = {at: i for i, visit in enumerate(visits) for at in visit.tolist()}
    block = block_of(topology)
    for u, v in zip(
        topology.columns.senders.tolist(), topology.columns.receivers.tolist(), strict=True
    ):
        if u in colour and v in colour and block[u] != block[v]:
            assert colour[u] != colour[v]


@pytest.mark.parametrize(("sides", "colours"), [((4, 6), 2), ((5, 6), 3)])
def test_two_colours_are_used_where_they_are_enough(sides, colours):
    """A torus has odd cycles where a side is odd; a second one, and nodes alone, make no
    difference."""
    torus = nx.grid_graph(sides, periodic=True)
    graph = nx.disjoint_union(torus, torus).to_directed()
    graph.add_node("alone")
    graph.add_edge("alone", "alone")
    nx.set_node_attributes(graph, (), "shape")
    topology = dx.Topology(graph)
    visits = dx.coloured().visits(topology, np.ones(len(topology), bool))
    assert len(visits) == colours if colours == 2 else len(visits) >= colours
    assert sorted(np.concatenate(visits).tolist()) == list(range(len(topology)))


@pytest.mark.parametrize("case", ["hub", "views", "scalars"])
def test_coloured_equals_its_nodes_one_by_one(case):
    network = CASES[case].network()
    state = random_state(network.topology, 3)
    visits = dx.coloured().visits(network.topology, movable(network))
    order = [network.topology.nodes[at] for visit in visits for at in visit.tolist()]
    together = dx.step(network, state, schedule=dx.coloured())
    apart = dx.step(network, state, schedule=dx.node_by_node(order))
    for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("case", ["chain", "windows"])
def test_asynchronous_updates_a_share_of_the_cells(case):
    network = CASES[case].network()
    state = random_state(network.topology, 40)
    whole = dx.step(network, state)
    all_of_it = dx.step(network, state, schedule=dx.asynchronous(1.0), key=jax.random.key(0))
    part = dx.step(network, state, schedule=dx.asynchronous(0.25), key=jax.random.key(0))
    moved = could = 0
    for name, old in state.arrays.items():
        np.testing.assert_array_equal(all_of_it.arrays[name], whole.arrays[name])
        old, new, some = map(np.asarray, (old, whole.arrays[name], part.arrays[name]))
        assert ((some == old) | (some == new)).all()
        could += (new != old).sum()
        moved += (some != old).sum()
    assert 0.15 < moved / could < 0.35
    other = dx.step(network, state, schedule=dx.asynchronous(0.25), key=jax.random.key(1))
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(other), strict=True)
    )


def test_equal_schedules_are_equal():
    assert dx.groups([["a"], ["b", "c"]]) == dx.groups((("a",), ("b", "c")))
    assert dx.node_by_node([1, 2]) == dx.node_by_node((1, 2)) != dx.unit_by_unit([1, 2])
    assert hash(dx.coloured({"a": 1})) == hash(dx.coloured({"a": 1}))


def test_rollout_is_that_many_steps():
    network = CASES["mixed"].network()
    state = random_state(network.topology, 3)
    after, frames = dx.rollout(network, state, 3, observe=lambda s: {"h": s["h"]})
    assert frames["h"].shape == (3, 3, 4)
    for t in range(3):
        state = dx.step(network, state)
        np.testing.assert_allclose(frames["h"][t], state["h"], atol=1e-6)
    np.testing.assert_allclose(after["h"], state["h"], atol=1e-6)
    same, nothing = dx.rollout(network, state, 0)
    assert nothing is None
    np.testing.assert_array_equal(same["h"], state["h"])
    one, frame = dx.rollout(network, state, 1, observe=lambda s: s["h"])
    np.testing.assert_array_equal(frame[0], one["h"])


def test_noise_of_a_pass_depends_on_sample_and_pass():
    network = population(np.zeros((50, 50), np.float32), dx.glauber(1.0))
    state = start(network, spins(50, 3))
    _, frames = dx.rollout(network, state, 3, key=jax.random.key(0), observe=read_units)
    flat = np.asarray(frames).reshape(9, 50)
    assert len({tuple(row) for row in flat}) == 9
    np.testing.assert_array_equal(read(dx.step(network, state, key=jax.random.key(0))), frames[0])


def read_units(state):
    return state["units"]


def test_glauber_units_sample_the_boltzmann_distribution():
    """Unit by unit with symmetric couplings: 2^n states against their enumerated weights."""
    matrix = couplings_matrix(4, symmetric=True, seed=3)
    temperature = 1.5
    network = population(matrix, dx.glauber(temperature))
    state = start(network, spins(4, 2000))
    _, frames = dx.rollout(
        network, state, 60, schedule=dx.unit_by_unit(), key=jax.random.key(1), observe=read_units
    )
    samples = np.asarray(frames[20:]).reshape(-1, 4)
    configurations = np.array(np.meshgrid(*[[-1, 1]] * 4, indexing="ij")).reshape(4, -1).T
    weights = np.exp(
        0.5 * np.einsum("si,ij,sj->s", configurations, matrix, configurations) / temperature
    )
    counts = np.array([(samples == c).all(1).sum() for c in configurations]) / len(samples)
    np.testing.assert_allclose(counts, weights / weights.sum(), atol=0.012)


def test_temperature_zero_is_the_sign():
    matrix = couplings_matrix(8, symmetric=True)
    cold, plain = population(matrix, dx.glauber(0.0)), population(matrix)
    state = start(plain, spins(8, 5))
    np.testing.assert_array_equal(
        read(dx.step(cold, state, key=jax.random.key(0))), read(dx.step(plain, state))
    )


@pytest.mark.parametrize("schedule", [dx.synchronous(), dx.node_by_node(), dx.unit_by_unit()])
def test_held_cells_keep_their_bits(schedule):
    """-0.0, NaN and the rest of the bits, whatever view they are reached through."""
    graph = nx.DiGraph(arrays={"line": 6})
    graph.add_node("l", array="line", index=slice(0, 4))
    graph.add_node("r", array="line", index=slice(2, 6))
    graph.add_node("x", shape=4)
    graph.add_edges_from([("x", "l"), ("x", "r")])
    network = dx.Network(dx.Topology(graph), {"edge": dx.dense()}, dx.tanh, key=jax.random.key(0))
    bits = np.array(
        [0x80000000, 0x7FC01234, 0x00000001, 0x3F800000, 0x80000000, 0x40490FDB], np.uint32
    ).view(np.float32)
    state = dx.GraphState(network.topology).init({"x": np.ones((1, 4))})
    state = state.replace(
        jax.tree.map(lambda a: jnp.asarray(bits)[:, None] if a.shape == (6, 1) else a, state.arrays)
    )
    after = dx.step(
        network,
        state,
        schedule=schedule,
        clamp={"l": True, "r": np.array([False, False, False, True])},
    )
    same = np.asarray(after.arrays["line"])[:, 0].view(np.uint32) == bits.view(np.uint32)
    assert same.tolist() == [True, True, True, True, False, True]


def test_a_node_that_hears_nobody_keeps_its_state():
    network = CASES["two components"].network()
    state = random_state(network.topology, 3)
    for arguments in ({"silence": ["c", "a"]}, {"kinds": []}):
        after = dx.step(network, state, **arguments)
        np.testing.assert_array_equal(after["d"], state["d"])
        np.testing.assert_array_equal(after["b"], state["b"])
    with_bias = CASES["hub"].network()
    state = random_state(with_bias.topology, 3)
    after = dx.step(with_bias, state, silence=list(with_bias.topology.nodes))
    for node in state:
        np.testing.assert_array_equal(after[node], state[node])


def test_inputs_are_held_until_let_go():
    network = CASES["two components"].network()
    graph = network.topology.to_networkx()
    graph.add_edge("d", "c", kind="edge")
    network = dx.Network(dx.Topology(graph), {"edge": dx.dense()}, dx.tanh, key=jax.random.key(0))
    state = random_state(network.topology, 3)
    np.testing.assert_array_equal(dx.step(network, state)["c"], state["c"])
    assert (dx.step(network, state, clamp={"c": False})["c"] != state["c"]).all()
    half = dx.step(network, state, clamp={"c": np.array([True, False])})["c"]
    np.testing.assert_array_equal(half[:, 0], state["c"][:, 0])
    assert (half[:, 1] != state["c"][:, 1]).all()


def test_drive_is_added_to_the_field():
    network = CASES["mixed"].network()
    state = random_state(network.topology, 3)
    field = np.asarray(jax.jit(lambda state: network.local_field(state)["v"])(state))
    drive = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 2, 2)
    for given in (drive, lambda s: jnp.asarray(drive) * jnp.ones((3, 1, 1, 1)) + 0 * s["v"]):
        np.testing.assert_allclose(
            dx.step(network, state, drive={"v": given})["v"], np.tanh(field + drive), atol=1e-6
        )
    for schedule in (dx.synchronous(), dx.node_by_node()):
        still, _ = dx.rollout(
            network, state, 2, drive={"v": lambda s: s["v"] * 2.0}, kinds=[], schedule=schedule
        )
        twice = np.tanh(2 * np.tanh(2 * np.asarray(state["v"])))
        np.testing.assert_allclose(still["v"], twice, atol=1e-6)
        np.testing.assert_array_equal(still["h"], state["h"])


def test_an_integer_state_driven_by_what_it_cannot_hold():
    graph = nx.DiGraph()
    graph.add_node("a", shape=2, dtype="int8")
    network = dx.Network(dx.Topology(graph), {}, dx.tanh, key=jax.random.key(0))
    with pytest.raises(ValueError, match="tanh gives float32, which int8 cannot hold"):
        dx.step(network, dx.GraphState(network.topology), drive={"a": np.ones(2)})


NETWORK = {}


def chain():
    if not NETWORK:
        NETWORK["chain"] = CASES["chain"].network()
    return NETWORK["chain"]


def test_groups_may_leave_out_what_cannot_change():
    network = chain()
    state = random_state(network.topology, 2)
    dx.step(network, state, schedule=dx.groups([[4, 3], [2]]), clamp=[1])
    dx.step(network, state, schedule=dx.groups([[4, 3, 0], [2, 1]]), clamp=[1])


@pytest.mark.parametrize("large", [8, 80])
def test_groups_of_any_size_see_those_before_them(large):
    """Whether all groups are of about one size, or one is much larger than the others."""
    matrix = couplings_matrix(large + 12, symmetric=False)
    network, values = scalars(matrix), spins(large + 12, batch=3)
    visits = (
        [[i] for i in range(6)]
        + [list(range(6, 6 + large))]
        + [[i] for i in range(6 + large, large + 12)]
    )
    found = dx.step(network, start(network, values), schedule=dx.groups(visits))
    for nodes in visits:
        values[:, nodes] = np.where(values @ matrix[nodes].T >= 0, 1, -1)
    np.testing.assert_array_equal(read(found), values)


@pytest.mark.parametrize("units", [37, 70])
def test_units_of_a_large_node_see_those_before_them(units):
    """As when the field of every unit is worked out anew; 37 is prime, 70 is not."""
    g = nx.MultiDiGraph()
    g.add_node("a", shape=(units,), kind="slow")
    g.add_node("b", shape=(3,), kind="quick")
    g.add_edge("a", "a", kind="dense", tie="t")
    g.add_edge("a", "a", kind="scale")
    g.add_edge("a", "a", kind="other")
    g.add_edge("b", "a", kind="up")
    g.add_edge("a", "b", kind="up")
    network = dx.Network(
        dx.Topology(g),
        {
            "dense": dx.dense(self_coupling=0.5),
            "scale": dx.scale(-0.3),
            "other": dx.dense(0.2),
            "up": dx.dense(),
        },
        {"slow": dx.leaky(0.6, dx.tanh), "quick": dx.tanh},
        biases={"slow": dx.bias(jax.random.normal)},
        key=jax.random.key(0),
    )
    state = random_state(network.topology, 2)
    held = np.arange(units) % 5 == 2
    found = dx.step(
        network,
        state,
        schedule=dx.unit_by_unit(["a", "b"]),
        clamp={"a": held},
        kinds=["dense", "scale", "up"],
    )
    quiet = dx.step(network, state, schedule=dx.unit_by_unit(["a", "b"]), silence=["a"])

    @jax.jit
    def with_unit(state, j):
        moved = dx.step(network, state, clamp={"a": held}, kinds=["dense", "scale", "up"])["a"]
        return state.replace_val("a", state["a"].at[:, j].set(moved[:, j]))

    now = state
    for j in np.flatnonzero(~held):
        now = with_unit(now, j)
    np.testing.assert_allclose(found["a"], now["a"], atol=1e-5)
    alone = dx.step(network, state, silence=["a"])  # nobody in the node hears another
    np.testing.assert_allclose(quiet["a"], alone["a"], atol=1e-6)


def test_units_that_hear_no_other_draw_the_same_under_any_schedule():
    g = nx.DiGraph()
    g.add_node("a", shape=(40,))
    g.add_node("b", shape=(40,))
    g.add_edge("a", "a")
    g.add_edge("b", "b")
    network = dx.Network(
        dx.Topology(g), {"edge": dx.dense(gain=0.0)}, dx.glauber(1.0), key=jax.random.key(0)
    )
    schedules = dx.synchronous(), dx.unit_by_unit(), dx.node_by_node(), dx.coloured()
    draws = [
        dx.step(
            network, dx.GraphState(network.topology, 3), schedule=s, key=jax.random.key(0)
        ).arrays
        for s in schedules
    ]
    (first, *others) = [next(iter(arrays.values())) for arrays in draws]
    assert abs(float(first.mean())) < 0.3
    for other in others:
        np.testing.assert_array_equal(first, other)


FEATURES = ["features", *(("feature", i, j) for i in range(2) for j in range(2))]


@pytest.mark.parametrize(
    "schedule",
    [dx.synchronous(), dx.node_by_node(), dx.unit_by_unit(), dx.coloured(), dx.groups([FEATURES])],
    ids=lambda schedule: type(schedule).__name__,
)
def test_free_views_inside_a_held_one_are_not_visited(schedule):
    """Windows of an image that is the input cannot move, and a schedule need not name them;
    features can."""
    graph = dx.topologies.convolutional((5, 5, 1), window=3, stride=2, features=4, backward=True)
    topology = dx.Topology(graph)
    network = dx.Network(
        topology, {"forward": dx.dense(), "backward": dx.dense()}, dx.tanh, key=jax.random.key(0)
    )
    state = dx.GraphState(topology).init(jnp.ones((2, 5, 5, 1)))
    solution = dx.relax(network, state, schedule=schedule)
    assert solution.settled.all()
    np.testing.assert_array_equal(solution.state["image"], state["image"])
    np.testing.assert_allclose(
        solution.state["features"], dx.step(network, state)["features"], atol=1e-6
    )


def test_views_that_overlap_a_held_one_move_where_they_stand_free():
    """Half of a free view lies inside a held one."""
    graph = nx.DiGraph(arrays={"line": 6})
    graph.add_node("held", array="line", index=slice(0, 4))
    graph.add_node("free", array="line", index=slice(2, 6))
    graph.add_edge("held", "free")
    topology = dx.Topology(graph, inputs=["held"])
    network = dx.Network(topology, {"edge": dx.relay()}, dx.identity, key=jax.random.key(0))
    state = dx.GraphState(topology).init(jnp.arange(1.0, 5.0)[None])
    for schedule in (
        dx.synchronous(),
        dx.node_by_node(),
        dx.unit_by_unit(),
        dx.coloured(),
        dx.groups([["held", "free"]]),
    ):
        after = dx.step(network, state, schedule=schedule)
        assert after["held"][0].tolist() == [1, 2, 3, 4]
        assert after["free"][0].tolist() == [3, 4, 3, 4]
