"""Event-driven passes come to the states of plain ones, to the last bit."""

import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import sample

import darnax as dx
from darnax.dynamics import events, following
from darnax.kernels import Native, NativeLibrary, native_library, table
from darnax.kernels import native as native_kernel

# `darnax.dynamics.relax` is the function.
relaxation = importlib.import_module("darnax.dynamics.relax")


@pytest.fixture(autouse=True, scope="module")
def follow_everything():
    """Small graphs are summed by the kernel that follows changes, library or not."""
    with pytest.MonkeyPatch.context() as patch:
        there = NativeLibrary(True, "for a test")
        patch.setattr(table, "KERNELS", [Native])
        patch.setattr(native_kernel, "FEWEST", 0)
        patch.setattr(native_kernel, "native_library", lambda: there)
        patch.setattr(following, "FEW", 100)
        patch.setattr(following, "native_library", lambda: there)
        for name in ("LEAST", "SOME", "LARGE"):
            patch.setattr(following, name, 0)
        yield


# of a module, so that the tests of either way share what they compile
@pytest.fixture(scope="module", params=["often", "seldom"])
def corrections(request, follow_everything):
    """Fields are corrected up to fifty times, or summed from scratch in every other pass."""
    often = request.param == "often"
    # programs know nothing of these numbers
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "MOST", 50 if often else 1)
        # of sums with matrices: never again after the first pass, and as it is
        if often:
            patch.setattr(following, "SHARE", 1.0)
            patch.setattr(following, "ROUNDED", 100)
        yield
    jax.clear_caches()


@pytest.fixture
def plain(monkeypatch):
    """A call that makes plain passes."""

    def relax(*given, **named):
        with monkeypatch.context() as patch:
            patch.setattr(relaxation, "followed_groups", lambda *_: ())
            return dx.relax(*given, **named)

    return relax


def assert_equal(ours, theirs):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


class Far(dx.Activation):
    """Units that answer to the sign of their field, and go further than any other."""

    elementwise = True
    differentiable = False
    by_sign = True

    def target(self, field, state, noise):
        return 1000 * jnp.sign(field)


def random_graph(nodes, edges, seed=0):
    pairs = np.random.default_rng(seed).choice(nodes**2, edges, replace=False)
    pairs = pairs[pairs // nodes != pairs % nodes]
    return pairs // nodes, pairs % nodes


# Weights by the random numbers of a standard normal
WEIGHTS = {
    "any": lambda normal: normal,
    # sums that cancel, but for rounding
    "tenths": lambda normal: 0.1 * np.sign(normal),
    "thirds, far apart": lambda normal: np.sign(normal) * np.where(abs(normal) < 1, 1 / 3, 3000.1),
    "exact": lambda normal: np.round(normal * 64) / 64,
    "one sign": lambda normal: 0.1 + 1e-4 * normal,
}


def network_of(weights, activation=dx.sign, dtype=None, bias=None):
    """Sixty units in a random graph, many of which hear themselves."""
    senders, receivers = random_graph(60, 600)
    topology = dx.Topology.from_edges(
        np.concatenate([senders, np.arange(60)]),
        np.concatenate([receivers, np.arange(60)]),
        n=60,
        **({} if dtype is None else {"dtype": dtype}),
    )
    biases = {} if bias is None else {"node": dx.bias(bias)}
    network = dx.Network(
        topology, {"edge": dx.scale(0.1)}, activation, biases=biases, key=jax.random.key(0)
    )
    rng = np.random.default_rng(1)
    for i, group in enumerate(topology.groups):
        numbers = WEIGHTS[weights](rng.standard_normal(len(group.senders)))
        if group.self_loop:
            numbers = np.abs(numbers) + np.sqrt(np.mean(numbers**2))
        old = network.couplings["edge"][i].strength
        new = jnp.asarray(numbers.reshape(old.shape), old.dtype)
        network = eqx.tree_at(lambda n, i=i: n.couplings["edge"][i].strength, network, new)
    return network


def start_of(network, batch, values=(-1, 1)):
    rng = np.random.default_rng(2)
    state = dx.GraphState(network.topology, batch)
    draw = lambda array: jnp.asarray(rng.choice(values, array.shape), array.dtype)  # noqa: E731
    return state.replace(jax.tree.map(draw, state.arrays))


def follows(network, **given):
    problem = relaxation.pose(
        network,
        dx.GraphState(network.topology),
        **{
            "schedule": dx.synchronous(),
            "clamp": (),
            "silence": (),
            "kinds": None,
            "drive": None,
            **given,
        },
    )
    return bool(events.followed_groups(problem, 1))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    ("activation", "batch"), [(dx.sign, 1), (dx.heaviside, 5)], ids=["sign", "heaviside"]
)
def test_solutions_are_those_of_plain_passes(weights, activation, batch, corrections, plain):
    network = network_of(weights, activation)
    assert follows(network)
    state = start_of(network, batch)
    whole = plain(network, state, max_steps=60)
    assert whole.steps.max() > 1
    assert_equal(whole, dx.relax(network, state, max_steps=60))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_clamps_drives_and_biases(dtype, corrections, plain):
    network = network_of("tenths", dtype=dtype, bias=0.1)
    rng = np.random.default_rng(4)
    state = start_of(network, 4, (-3, -1, 1, 2))
    given = {
        "clamp": {0: True, 1: True, 5: rng.random(4) < 0.5},
        "drive": {node: rng.standard_normal(4).astype(np.float32) for node in (7, 9)},
    }
    assert follows(network, clamp=(0, 1))
    assert_equal(plain(network, state, **given), dx.relax(network, state, **given))


def test_what_is_not_finite_stays_where_it_is(corrections, plain):
    network = network_of("any")
    state = start_of(network, 4)
    lost = lambda array: array.at[3, 1].set(jnp.nan).at[8, 2].set(jnp.inf)  # noqa: E731
    state = state.replace(jax.tree.map(lost, state.arrays))
    whole = plain(network, state)
    assert np.isnan(whole.residual[1:3]).all()
    assert_equal(whole, dx.relax(network, state))
    # a weight that is infinite, with a state that changes
    edge = network.couplings["edge"]
    strong = edge[0].strength.at[7].set(jnp.inf)
    network = eqx.tree_at(lambda n: n.couplings["edge"][0].strength, network, strong)
    state = start_of(network, 4)
    assert_equal(plain(network, state), dx.relax(network, state))


def test_sizes_beyond_one_widen_what_rounding_may_do(corrections, plain):
    network = network_of("tenths", dtype="int8")
    state = start_of(network, 2)
    # the lowest int8, whose size is no int8
    state = state.replace(jax.tree.map(lambda a: a.at[:2].set(-128), state.arrays))
    given = {"clamp": [0, 1]}
    problem = relaxation.pose(
        network, state, schedule=dx.synchronous(), silence=(), kinds=None, drive=None, **given
    )
    followed = events.followed_groups(problem, 2)
    _, kept = events.start_following(problem, problem.constants(state), state.rows(), followed, 2)
    np.testing.assert_array_equal(kept.largest, [128, 128])
    assert_equal(plain(network, state, **given), dx.relax(network, state, **given))


def test_float32_states_while_float64_is_on(corrections, plain):
    with jax.enable_x64(True):
        network = network_of("any", dtype="float32")
        state = start_of(network, 3)
        assert_equal(plain(network, state), dx.relax(network, state))


@pytest.mark.parametrize("wrapped", ["jit", "vmap", "double"])
def test_inside_of_other_programs(wrapped, corrections, plain):
    with jax.enable_x64(wrapped == "double"):
        network = network_of("any", dtype="float64" if wrapped == "double" else None)
        states = [start_of(network, 3), start_of(network, 3, (-1, 1, 1))]
        if wrapped == "vmap":
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            many = eqx.filter_vmap(lambda state: dx.relax(network, state))(stacked)
            found = [jax.tree.map(lambda leaf, i=i: leaf[i], many) for i in range(2)]
        else:
            relax = eqx.filter_jit(lambda *given: dx.relax(*given))
            found = [relax(network, state) for state in states]
        for state, one in zip(states, found, strict=True):
            assert_equal(plain(network, state), one)


def test_groups_that_do_not_follow_add_up_with_those_that_do(corrections, plain):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(20), kind="spin", shape=())
    graph.add_nodes_from(range(20, 24), kind="rate", shape=())
    senders, receivers = random_graph(20, 150)
    graph.add_edges_from(zip(senders.tolist(), receivers.tolist(), strict=True), kind="spins")
    graph.add_edges_from([(20 + i % 4, i) for i in range(20)], kind="rates")
    graph.add_edges_from([(i, 20 + i % 4) for i in range(20)], kind="rates")
    network = dx.Network(
        dx.Topology(graph),
        {"spins": dx.scale(0.7), "rates": dx.scale(0.3)},
        {"spin": dx.sign, "rate": dx.tanh},
        key=jax.random.key(0),
    )
    assert follows(network)
    state = start_of(network, 3)
    assert_equal(plain(network, state), dx.relax(network, state))


def test_where_fields_are_not_kept():
    network = network_of("any")
    assert follows(network)
    assert not follows(network, schedule=dx.node_by_node())
    assert not follows(network, schedule=dx.asynchronous(0.5))
    assert not follows(network, drive={3: dx.nudge(3, jnp.ones(()), 0.5)})
    assert not follows(network, silence=[3])
    assert not follows(network_of("any", dx.tanh))
    assert not follows(network_of("any", Far()))


@pytest.mark.parametrize("adjoint", [dx.implicit(), dx.unrolled()])
def test_derivatives_are_refused_by_name(adjoint):
    network = network_of("any")
    state = start_of(network, 1)

    def total(network):
        solution = dx.relax(network, state, adjoint=adjoint, max_steps=9)
        return sum(jnp.sum(array) for array in solution.state.arrays.values())

    with pytest.raises(TypeError, match=r"sign has no derivative"):
        eqx.filter_grad(total)(network)


def test_samples_do_not_see_each_other(corrections):
    network = network_of("tenths")
    state = start_of(network, 4)
    together = dx.relax(network, state)
    for i in range(4):
        alone = dx.relax(network, sample(state, i))
        np.testing.assert_array_equal(together.settled[i : i + 1], alone.settled)


# couplings with a matrix


def drawn(name):
    """A graph of dense couplings."""
    if name == "population":
        graph = nx.DiGraph([(0, 0)])
        nx.set_node_attributes(graph, 40, "shape")
        return graph, {"edge": dx.dense(self_coupling=0.5)}
    if name == "chain":
        graph = dx.topologies.sequential((10, 12, 12, 12, 4))
        return graph, {"forward": dx.dense(), "backward": dx.dense(0.5), "recurrent": dx.dense(0.5)}
    # several edges to a node, from a node and between two; most rows of the array hear few
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(range(12), shape=(3, 2))
    ends = [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0), (5, 5), (1, 5), (5, 6), (6, 1), (1, 2)]
    named = {"tie": "one"} if name == "tied" else {}
    graph.add_edges_from(ends, **named)
    graph.add_edges_from([(3, 3)], kind="self")
    return graph, {"edge": dx.dense(), "self": dx.dense()}


def dense_network(name, weights="any", activation=dx.sign, dtype=None, bias=None):
    graph, couplings = drawn(name)
    if dtype is not None:
        nx.set_node_attributes(graph, dtype, "dtype")
    kinds = {kind for _, kind in graph.nodes(data="kind", default="node")}
    network = dx.Network(
        dx.Topology(graph),
        couplings,
        activation,
        biases={} if bias is None else {kind: dx.bias(bias) for kind in kinds},
        key=jax.random.key(0),
    )
    rng = np.random.default_rng(1)

    def redrawn(leaf):
        return jnp.asarray(WEIGHTS[weights](rng.standard_normal(leaf.shape)), leaf.dtype)

    for kind, modules in network.couplings.items():
        for i in range(len(modules)):
            place = lambda n, kind=kind, i=i: n.couplings[kind][i].weight  # noqa: E731
            network = eqx.tree_at(place, network, redrawn(place(network)))
    return network


DENSE = "population", "chain", "rows", "tied"


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize(
    ("weights", "activation", "batch"),
    [("any", dx.sign, 17), ("exact", dx.heaviside, 5), ("any", dx.heaviside, 1)],
)
def test_solutions_with_matrices_are_those_of_plain_passes(
    name, weights, activation, batch, corrections, plain
):
    network = dense_network(name, weights, activation)
    assert follows(network)
    state = start_of(network, batch)
    whole = plain(network, state, max_steps=40)
    assert whole.steps.max() > 1
    assert_equal(whole, dx.relax(network, state, max_steps=40))


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_matrices_with_clamps_drives_and_biases(name, dtype, corrections, plain):
    network = dense_network(name, "exact", dtype=dtype, bias=0.25)
    state = start_of(network, 3, (-3, -1, 1, 2))
    node = list(network.topology.nodes)[-1]
    shape = network.topology.shape(node)
    rng = np.random.default_rng(4)
    given = {
        "clamp": {node: rng.random(shape) < 0.5},
        "drive": {node: rng.integers(-9, 9, (3, *shape)).astype(np.float32)},
    }
    assert follows(network, clamp=(node,)) or name == "population"
    assert_equal(plain(network, state, **given), dx.relax(network, state, **given))


@pytest.mark.parametrize("weights", ["tenths", "thirds, far apart"])
def test_no_sign_at_rest_depends_on_how_sums_round(weights, monkeypatch):
    # nothing is made from scratch after the first pass
    monkeypatch.setattr(following, "SHARE", 1.0)
    monkeypatch.setattr(following, "DOUBTFUL", 1.0)
    monkeypatch.setattr(following, "ROUNDED", 1000)
    jax.clear_caches()
    graph = nx.DiGraph([(0, 0)])
    nx.set_node_attributes(graph, 41, "shape")
    network = dx.Network(dx.Topology(graph), {"edge": dx.dense()}, dx.sign, key=jax.random.key(0))
    drawn = WEIGHTS[weights](np.random.default_rng(1).standard_normal((41, 41)))
    # Symmetric weights come to rest, if units hear themselves. An even number of terms may cancel.
    drawn = np.triu(drawn, 1) + np.triu(drawn, 1).T + 4 * np.abs(drawn).max() * np.eye(41)
    place = lambda n: n.couplings["edge"][0].weight  # noqa: E731
    network = eqx.tree_at(place, network, jnp.asarray(drawn[None], jnp.float32))
    solution = dx.relax(network, start_of(network, 200))
    moved = solution.settled & (solution.steps > 2)
    assert moved.sum() > 20
    states = np.asarray(solution.state[0], float)[moved]
    # the library adds up in float64; in plain JAX float32 decides
    if native_library().loaded:
        fields = states @ np.asarray(place(network)[0], float).T
        np.testing.assert_array_equal(np.where(fields >= 0, 1, -1), states)
    jax.clear_caches()


def test_many_doubtful_cells_are_summed_as_plain_passes_do(monkeypatch, plain):
    # so many are never too few: everything is doubtful, and made as in plain passes
    monkeypatch.setattr(following, "SHARE", 1.0)
    monkeypatch.setattr(following, "DOUBTFUL", -1.0)
    jax.clear_caches()
    network = dense_network("population", "tenths")
    state = start_of(network, 30)
    assert_equal(plain(network, state), dx.relax(network, state))
    jax.clear_caches()


def test_matrices_with_what_is_not_finite(corrections, plain):
    network = dense_network("rows")
    state = start_of(network, 4)
    lost = lambda array: array.at[1, 0, 0, 1].set(jnp.nan).at[5, 1, 1, 2].set(jnp.inf)  # noqa: E731
    state = state.replace(jax.tree.map(lost, state.arrays))
    whole = plain(network, state)
    assert np.isnan(whole.residual[1:3]).all()
    assert_equal(whole, dx.relax(network, state))


@pytest.mark.parametrize("wrapped", ["states", "networks", "double"])
def test_matrices_inside_of_other_programs(wrapped, corrections, plain):
    with jax.enable_x64(wrapped == "double"):
        dtype = "float64" if wrapped == "double" else None
        networks = [dense_network("rows", weights, dtype=dtype) for weights in ("any", "exact")]
        state = start_of(networks[0], 3)
        states = [state, start_of(networks[0], 3, (-1, 1, 1))]
        if wrapped == "networks":
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
            many = eqx.filter_vmap(lambda network: dx.relax(network, state))(stacked)
            pairs = [(network, state) for network in networks]
        elif wrapped == "states":
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            many = eqx.filter_vmap(lambda state: dx.relax(networks[0], state))(stacked)
            pairs = [(networks[0], state) for state in states]
        else:
            many = dx.relax(networks[0], state)
            assert_equal(plain(networks[0], state), many)
            return
        for i, (network, own) in enumerate(pairs):
            assert_equal(plain(network, own), jax.tree.map(lambda leaf, i=i: leaf[i], many))


def test_matrices_beside_groups_that_do_not_follow(corrections, plain):
    graph = nx.DiGraph()
    graph.add_nodes_from(["a", "b"], kind="spin", shape=8)
    graph.add_node("rate", kind="rate", shape=5)
    graph.add_edges_from([("a", "b"), ("b", "a"), ("a", "a")], kind="spins")
    graph.add_edges_from([("rate", "a"), ("a", "rate")], kind="rates")
    graph.add_edges_from([("b", "b")], kind="linear")
    linear = lambda sender, receiver, key: eqx.nn.Linear(sender[0], receiver[0], key=key)  # noqa: E731
    network = dx.Network(
        dx.Topology(graph),
        {"spins": dx.dense(), "rates": dx.dense(0.5), "linear": linear},
        {"spin": dx.sign, "rate": dx.tanh},
        key=jax.random.key(0),
    )
    assert follows(network)
    state = start_of(network, 6)
    assert_equal(plain(network, state), dx.relax(network, state))


def test_where_it_does_not_pay_matrices_are_not_followed(monkeypatch):
    network = dense_network("chain")
    assert follows(network)
    for name in ("LEAST", "SOME", "LARGE"):
        with monkeypatch.context() as patch:
            patch.setattr(following, name, 10**9)
            assert not follows(network)
    missing = NativeLibrary(False, "for a test")
    monkeypatch.setattr(following, "native_library", lambda: missing)
    assert not follows(network)
