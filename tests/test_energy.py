"""Energy: its derivatives are those of the local field, and passes go down it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import Bent, couplings_matrix, spins, values

import darnax as dx
from darnax.testing import random_state, redrawn

KEY = jax.random.key(0)


class Steep(dx.Activation):
    """Units of a node whose last axis is the steeper the further: they need a whole node."""

    def target(self, field, state, noise):
        return jnp.tanh(steepness(field) * field)

    def potential(self, state):
        return dx.tanh.potential(state) / steepness(state)


def steepness(units):
    return jnp.arange(1, units.shape[-1] + 1, dtype=units.dtype)


LADDER = np.asarray([0.5, 1.0, 2.0], np.float32)
ACTIVATIONS = {
    # units, the field that leads to a state, and the bounds of states
    "tanh": (dx.tanh, jnp.arctanh, -0.9, 0.9),
    "identity": (dx.identity, lambda s: s, -2.0, 2.0),
    "relu": (dx.relu, lambda s: s, 0.1, 2.0),
    "sigmoid": (dx.sigmoid, jax.scipy.special.logit, 0.1, 0.9),
    "leaky": (dx.leaky(0.05, dx.tanh), jnp.arctanh, -0.9, 0.9),
    "negative": (dx.negative, lambda s: -s, -2.0, 2.0),
    "integrator": (dx.leaky(0.05, dx.integrator), jnp.zeros_like, -2.0, 2.0),
    "given": (
        dx.elementwise(jnp.arctan, potential=lambda s: -jnp.log(jnp.cos(s))), jnp.tan, -1.4, 1.4,
    ),
    "given by node": (Steep(), lambda s: jnp.arctanh(s) / steepness(s), -0.9, 0.9),
    # up to a constant for each node
    "softmax": (dx.softmax, lambda s: 1 + jnp.log(s), 0.1, 0.9),
    "slow softmax": (dx.leaky(0.05, dx.softmax), lambda s: 1 + jnp.log(s), 0.1, 0.9),
    # means of units of two states
    "sign": (dx.sign, jnp.zeros_like, -0.9, 0.9),
    "heaviside": (dx.heaviside, jnp.zeros_like, 0.1, 0.9),
    "heat bath": (dx.glauber(0.7), lambda s: 0.7 * jnp.arctanh(s), -0.9, 0.9),
    "ladder": (dx.glauber(LADDER), lambda s: (LADDER * jnp.arctanh(s).T).T, -0.9, 0.9),
}  # fmt: skip


@functools.cache
def mixed(name="tanh", loops=True, turned=False):
    """Dense, convolutional, tied and bent connections, on nodes, windows and a graph of units."""
    graph = nx.MultiDiGraph(arrays={"line": (7,)})
    nodes = {"x": 3, "v": (4, 4, 2), "w": (2, 2, 3), "h": 5, "p": 4, "q": 4, "y": 2}
    for node, shape in nodes.items():
        graph.add_node(node, shape=shape)
    for i in range(3):
        graph.add_node(("see", i), array="line", index=slice(2 * i, 2 * i + 3))
        graph.add_node(("say", i), shape=2)
        graph.add_edge(("see", i), ("say", i), kind="look", tie="look")
        graph.add_edge(("say", i), ("see", i), kind="draw")
    pairs = [
        ("v", "w", "conv"), ("v", "h", "up"), ("w", "h", "up"), ("h", "p", "up"), ("h", "y", "up"),
        ("h", "q", "bend"), ("p", "q", "copy"), (("say", 1), "h", "up"),
    ]  # fmt: skip
    for u, v, kind in pairs:
        graph.add_edge(u, v, kind=kind)
        graph.add_edge(v, u, kind="copy" if kind == "copy" else kind + " back")
    graph.add_edge("x", "h", kind="in")
    graph.add_edge("x", "v", kind="in")
    if loops:
        graph.add_edge("v", "v", kind="lateral")
        graph.add_edge("h", "h", kind="memory")
        graph.add_edge("p", "p", kind="self")
        graph.add_edge("q", "q", kind="wired")
    couplings = {
        "in": dx.dense(gain=0.5),
        "conv": dx.conv(3, stride=2),
        "up": dx.dense(gain=0.6),
        "bend": lambda s, r, key: Bent(0.4 * jax.random.normal(key, (*r, *s))),
        "copy": dx.relay(),
        "look": lambda s, r, key: eqx.nn.Linear(s[0], r[0], key=key),
        "draw": dx.transpose("look"),
    }
    couplings |= {f"{kind} back": dx.transpose(kind) for kind in ("conv", "up", "bend")}
    if loops:
        couplings |= {
            "lateral": dx.conv(3, symmetric=True, gain=0.5),
            "memory": dx.dense(symmetric=True, gain=0.5, self_coupling=0.25),
            "self": dx.scale(0.3),
            "wired": dx.sparse(nx.cycle_graph(4), gain=0.5, symmetric=True),
        }
    graph = redrawn(graph) if turned else graph
    topology = dx.Topology(graph, inputs=["x"], outputs=["y"])
    biases = {"node": dx.bias(jax.nn.initializers.normal(0.3))}
    return dx.Network(topology, couplings, ACTIVATIONS[name][0], biases=biases, key=KEY)


WINDOWS = [slice(0, 2), (slice(None), slice(1, 3)), 3, (slice(1, 4), slice(0, 2), 0)]
LOOPS = ["memory", "self", "wired"]
BOTH_WAYS = [["up", "up back"], ["conv", "conv back"], ["bend", "bend back"], ["copy"]]


@functools.cache
def any_network(seed, name):
    """Connections of every sort at random, between nodes and windows of an image that overlap."""
    rng = np.random.default_rng(seed)
    graph = nx.MultiDiGraph(arrays={"image": (4, 4, 2)})
    whole = np.zeros((4, 4, 2))
    shapes = {"x": (2,), "map": (2, 4, 3), "p": (3,), "q": (3,), "r": (4,), "s": (), "t": (2, 2)}
    for i, cells in enumerate(WINDOWS):
        graph.add_node(i, array="image", index=cells)
    for node, shape in shapes.items():
        graph.add_node(node, shape=shape)
    shapes |= {i: whole[cells].shape for i, cells in enumerate(WINDOWS)}

    def pair(u, v, kind, **attributes):
        graph.add_edge(u, v, key=len(graph.edges), kind=kind, **attributes)
        graph.add_edge(v, u, key=len(graph.edges) - 1, kind=kind + " back")

    pair(0, "map", "conv")
    own = [*"pqrst", "map"]
    for u, v in rng.permutation([(u, v) for u in range(9) for v in range(5)])[:9]:
        sender, receiver = [0, 1, 2, 3, *"pqrst"][u], own[v]
        if sender == receiver:
            continue
        tie = {"tie": f"{shapes[sender]} {shapes[receiver]}"} if rng.random() < 0.4 else {}
        bends = len(shapes[receiver]) == 1 and rng.random() < 0.3
        pair(sender, receiver, "bend" if bends else "up", **tie)
    for u, v in (("p", "q"), ("q", "p")):
        graph.add_edge(u, v, kind="copy")
    for node, kind in (
        ("p", "memory"),
        ("t", "memory"),
        (1, "self"),
        ("s", "self"),
        ("r", "wired"),
    ):
        graph.add_edge(node, node, kind=kind)
    for i in rng.permutation(len(own))[:2]:
        graph.add_edge("x", own[i], kind="in")

    def bent(sender, receiver, key):
        fan_in = int(np.prod(sender))
        weight = jax.random.normal(key, (*receiver, fan_in)) / fan_in**0.5
        return Bent(weight)

    couplings = {
        "in": dx.dense(), "conv": dx.conv(3), "up": dx.dense(0.7), "bend": bent, "copy": dx.relay(),
        "memory": dx.dense(0.7, symmetric=True, self_coupling=0.25), "self": dx.scale(0.3),
        "wired": dx.sparse(nx.cycle_graph(4), gain=0.5, symmetric=True),
    }  # fmt: skip
    couplings |= {f"{kind} back": dx.transpose(kind) for kind in ("conv", "up", "bend")}
    topology = dx.Topology(graph, inputs=["x"])
    couplings = {kind: couplings[kind] for kind in topology.edge_kinds}
    biases = {"node": dx.bias(jax.nn.initializers.normal(0.3))}
    return dx.Network(topology, couplings, ACTIVATIONS[name][0], biases=biases, key=KEY)


def without(network, *left_out):
    return [kind for kind in network.topology.edge_kinds if kind not in left_out]


def inside(network, low=-0.9, high=0.9, batch=3, seed=0):
    """A state with all numbers between two bounds."""
    rng = np.random.default_rng(seed)
    state = dx.GraphState(network.topology, batch)
    return state.replace(
        jax.tree.map(lambda a: rng.uniform(low, high, a.shape).astype("f"), state.arrays)
    )


def check_derivative(network, inverse, state, drive):
    """`∂E/∂s = f⁻¹(s) - field` in every node."""
    slope = jax.jit(jax.grad(lambda state: dx.energy(network, state, drive=drive).sum()))(state)
    for node, field in network.local_field(state).items():
        expected = inverse(state[node]) - field
        if node in drive:
            given = drive[node]
            expected = expected - (given(state) if callable(given) else given)
        np.testing.assert_allclose(slope[node], expected, atol=2e-5, err_msg=str(node))


def test_its_derivative_is_what_units_lack_of_their_field():
    network = mixed()
    drive = {"h": np.linspace(-1, 1, 5, dtype="f"), "y": dx.nudge("y", jnp.ones(2), 0.3)}
    check_derivative(network, jnp.arctanh, inside(network), drive)


def pair(activation):
    """Two populations with biases."""
    topology = dx.Topology(dx.topologies.bipartite((2, 3), 4))
    couplings = {"forward": dx.dense(), "backward": dx.transpose("forward")}
    biases = {"hidden": dx.bias(0.3)}
    return dx.Network(topology, couplings, activation, biases=biases, key=KEY)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_potentials_are_integrals_of_the_field_that_leads_to_a_state(name):
    activation, inverse, low, high = ACTIVATIONS[name]
    network = pair(activation)
    check_derivative(network, inverse, inside(network, low, high), {})


def test_potentials_by_node_are_called_for_the_nodes_of_a_shared_array():
    """With as many samples as units, where whole arrays would fit as well."""
    graph = nx.DiGraph(arrays={"line": (9,)})
    for i in range(3):
        graph.add_node(i, array="line", index=slice(3 * i, 3 * i + 3))
    graph.add_edges_from([(0, 1), (1, 2)], kind="there")
    graph.add_edges_from([(1, 0), (2, 1)], kind="back")
    couplings = {"there": dx.dense(), "back": dx.transpose("there")}
    network = dx.Network(dx.Topology(graph), couplings, Steep(), key=KEY)
    check_derivative(network, ACTIVATIONS["given by node"][1], inside(network), {})


def test_calls_that_hold_and_silence_have_the_energy_of_what_is_heard():
    network = mixed()
    # what is held costs nothing, be it a state that no field leads to
    state = inside(network).replace(
        {"x": np.full((3, 3), 1.1, "f"), "w": np.full((3, 2, 2, 3), -1.1, "f")}
    )
    topology = network.topology
    mask = np.random.default_rng(1).random((3, 5)) < 0.5
    given = {
        "clamp": {"v": True, "w": True, "h": mask, "y": True, ("say", 0): True, ("say", 1): True},
        # what `v` says is dropped, and `v` is held, so that nobody has to hear it both ways
        "silence": ["v", ("say", 1)],
        "kinds": [
            kind for kind in topology.edge_kinds if kind not in ("look", "draw", "copy", "self")
        ],
    }
    # `h` hears of `y`, which is held, by an edge back alone
    free = {"h": ~mask, "p": True, "q": True}

    @jax.jit
    def slopes(network, state):
        slope = jax.grad(lambda state: dx.energy(network, state, **given).sum())(state)
        return slope, dx.step(network, state, **given)

    assert np.isfinite(dx.energy(network, state, **given)).all()
    assert np.isinf(dx.energy(network, state)).all()
    slope, after = slopes(network, state)
    for node, cells in free.items():
        # after a step, units are where their field leads to
        expected = np.arctanh(state[node]) - np.arctanh(np.asarray(after[node]))
        found = np.where(cells, slope[node] - expected, 0)
        np.testing.assert_allclose(found, 0, atol=2e-5, err_msg=str(node))


@pytest.mark.parametrize("seed", range(3))
def test_any_call_of_any_network_has_the_energy_of_what_is_heard(seed):
    """Units that are what they hear, so that their derivative is the change by a pass."""
    network = any_network(seed, "identity")
    rng = np.random.default_rng(seed)
    state = inside(network, seed=seed)
    *nodes, masked, driven = rng.permutation(np.asarray([0, 1, 2, 3, *"pqrst", "map"], object))
    kinds = ["in", *LOOPS]
    for both in BOTH_WAYS:
        kinds += both if rng.random() < 0.8 else []
    given = {
        "clamp": {nodes[0]: True, nodes[1]: True, masked: rng.random((3, *state[masked].shape[1:])) < 0.5},
        "silence": nodes[:1],
        "kinds": [kind for kind in kinds if kind in network.topology.edge_kinds],
        "drive": {driven: rng.normal(size=state[driven].shape).astype("f")},
    }  # fmt: skip

    @jax.jit
    def slopes(network, state):
        slope = jax.grad(lambda state: dx.energy(network, state, **given).sum())(state)
        return slope.arrays, dx.step(network, state, **given).arrays

    slope, after = slopes(network, state)
    moved = 0
    for name, before in state.arrays.items():
        change = np.asarray(before) - np.asarray(after[name])
        free = change != 0
        moved += free.sum()
        np.testing.assert_allclose(np.where(free, slope[name], 0), change, atol=3e-5)
    assert moved > 20


def test_it_is_zero_to_first_order_at_rest():
    network = pair(dx.tanh)
    rest = dx.relax(network, inside(network), max_steps=400, tol=1e-6)
    assert rest.settled.all()
    slope = jax.jit(jax.grad(lambda state: dx.energy(network, state).sum()))(rest.state)
    for node in network.topology.nodes:
        np.testing.assert_allclose(slope[node], 0, atol=2e-5)


# the formula


def test_sign_units_have_the_energy_of_hopfield():
    matrix = couplings_matrix(20, symmetric=True)
    graph = dx.topologies.hopfield(20)
    coupling = dx.dense(symmetric=True, self_coupling=0.0)
    network = dx.Network(dx.Topology(graph), {"recurrent": coupling}, dx.sign, key=KEY)
    network = eqx.tree_at(lambda n: n.couplings["recurrent"][0].weight, network, matrix[None])
    x = spins(20, 6)
    expected = -0.5 * np.einsum("bi,ij,bj->b", x, matrix, x)
    found = dx.energy(network, dx.GraphState(network.topology).init({"units": x}))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_magnets_have_the_energy_of_ising():
    """On a lattice, once for every bond; tied and drawn both ways, or as a reverse kind."""
    lattice = dx.topologies.lattice((4, 5))
    tied = lattice.copy()
    nx.set_edge_attributes(tied, "bond", "tie")
    paired = dx.topologies.reciprocal(lattice)
    x = spins(20, 6).reshape(6, 4, 5)
    expected = -0.7 * sum((x * np.roll(x, 1, axis)).sum((1, 2)) for axis in (1, 2))
    for graph, back in ((tied, {}), (paired, {"back": dx.transpose("lateral")})):
        couplings = {"lateral": dx.scale(0.7)} | back
        network = dx.Network(dx.Topology(graph), couplings, dx.glauber(1.0), key=KEY)
        values = {site: x[:, *site] for site in network.topology.nodes}
        state = dx.GraphState(network.topology).init(values)
        np.testing.assert_allclose(dx.energy(network, state), expected, rtol=1e-5, atol=1e-5)


def test_a_heat_bath_has_the_free_energy_of_its_means():
    """Of independent units it is least at tanh(field / T), and -T log(2 cosh(field / T)) there."""
    graph = nx.DiGraph()
    graph.add_node("units", shape=5)
    graph.add_edge("units", "units", kind="none")
    field = np.linspace(-1, 1, 5, dtype="f")
    network = dx.Network(dx.Topology(graph), {"none": dx.relay()}, dx.glauber(0.7), key=KEY)
    state = dx.GraphState(network.topology).init({"units": np.tanh(field / 0.7)[None]})
    found = dx.energy(network, state, kinds=[], drive={"units": field})
    np.testing.assert_allclose(found, -0.7 * np.log(2 * np.cosh(field / 0.7)).sum(), rtol=1e-5)


def test_a_heat_bath_visits_states_as_boltzmann_says():
    """Both ends of shared weights, one after the other: every state comes with its own weight."""
    topology = dx.Topology(dx.topologies.bipartite(3, 2))
    couplings = {"forward": dx.dense(), "backward": dx.transpose("forward")}
    biases = {kind: dx.bias(0.2) for kind in ("visible", "hidden")}
    network = dx.Network(topology, couplings, dx.glauber(0.8), biases=biases, key=KEY)
    states = 2.0 * ((np.arange(32)[:, None] >> np.arange(5)) & 1).astype("f") - 1
    every = dx.GraphState(topology).init({"visible": states[:, :3], "hidden": states[:, 3:]})
    weights = np.exp(-np.asarray(dx.energy(network, every)) / 0.8)
    expected = weights / weights.sum()

    chains = dx.GraphState(topology, 8000)
    chains, _ = dx.rollout(network, chains, 40, schedule=dx.node_by_node(), key=KEY)
    seen = np.concatenate([chains["visible"], chains["hidden"]], axis=1) > 0
    number = (seen << np.arange(5)).sum(axis=1)
    share = np.bincount(number, minlength=32) / 8000
    # chains are independent: a share is off by its standard error, a few times at most
    error = np.sqrt(expected / 8000)
    assert (np.abs(share - expected) < 4.5 * error).all()
    assert np.abs(expected - 1 / 32).max() > 20 * error.max()


def test_softmax_units_have_minus_their_entropy():
    graph = nx.DiGraph()
    graph.add_node("units", shape=(2, 3))
    graph.add_edge("units", "units", kind="none")
    network = dx.Network(dx.Topology(graph), {"none": dx.relay()}, dx.softmax, key=KEY)
    p = np.asarray([[[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]], np.float32)
    state = dx.GraphState(network.topology).init({"units": p})
    found = dx.energy(network, state, kinds=[], drive={"units": np.zeros((2, 3), "f")})
    np.testing.assert_allclose(found, (p[0, 0] * np.log(p[0, 0])).sum(), rtol=1e-5)
    # a part of them answers as if the others were free: no sum has its answer for a minimum
    with pytest.raises(ValueError, match=r"`clamp` has masks for nodes 'units', whose units"):
        dx.energy(network, state, clamp={"units": p[0] > 0.4})


@pytest.mark.parametrize(
    ("activation", "value", "expected"),
    [
        (dx.tanh, 1.0, np.log(2)), (dx.tanh, 1.1, np.inf), (dx.sign, 0.0, 0.0), (dx.sign, -1.5, np.inf),
        (dx.heaviside, 1.0, 0.0), (dx.heaviside, -1.0, np.inf), (dx.relu, -0.1, np.inf),
        (dx.sigmoid, 0.0, 0.0), (dx.softmax, 0.0, 0.0), (dx.glauber(2.0), -1.0, 0.0), (dx.tanh, np.nan, np.nan),
        (dx.sign, np.nan, np.nan),
    ],
)  # fmt: skip
def test_states_that_no_field_leads_to_cost_infinitely_much(activation, value, expected):
    found = activation.potential(jnp.asarray(value, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# what passes do to it


def falls(network, state, passes, slack, schedule=dx.synchronous(), **given):  # noqa: B008
    """The energies of a rollout, which never rise by more than rounding."""
    energies = [dx.energy(network, state, **given)]
    for _ in range(passes):
        state = dx.step(network, state, schedule=schedule, **given)
        energies.append(dx.energy(network, state, **given))
    energies = np.asarray(energies)
    assert np.isfinite(energies).all()
    rises = np.diff(energies, axis=0)
    assert rises.max() <= slack * np.abs(energies).max()
    assert (energies[-1] < energies[0]).all()


@pytest.mark.parametrize("seed", range(2))
def test_units_one_by_one_never_raise_it(seed):
    network = any_network(seed, "sign")
    # "bend" is not linear: what a unit hears of it changes with the unit itself
    kinds = without(network, "bend", "bend back")
    state = random_state(network.topology, 8)
    falls(network, state, 5, 1e-6, schedule=dx.unit_by_unit(), kinds=kinds)


@pytest.mark.parametrize("seed", range(2))
def test_nodes_one_by_one_never_raise_it_without_loops(seed):
    network = any_network(seed, "tanh")
    kinds = without(network, "bend", "bend back", *LOOPS)
    falls(network, inside(network), 6, 1e-6, schedule=dx.node_by_node(), kinds=kinds)


@pytest.mark.parametrize("seed", range(2))
def test_slow_units_never_raise_it(seed):
    """Whichever pairs speak, and whoever is held."""
    network = any_network(seed, "leaky")
    rng = np.random.default_rng(seed)
    out = BOTH_WAYS[rng.integers(4)]
    held = rng.permutation(np.asarray([0, 2, *"pqrst"], object))[:2].tolist()
    state = inside(network, seed=seed)
    falls(network, state, 15, 1e-6, kinds=without(network, *out), clamp=held)


# parts, batches, transformations


def test_its_terms_add_up_kind_by_kind():
    network = mixed()
    state = inside(network)
    terms = dx.energy_terms(network, state)
    total = sum([*terms.edges.values(), *terms.nodes.values()])
    np.testing.assert_allclose(total, dx.energy(network, state), rtol=1e-5)
    kinds = {"in", "conv", "up", "bend", "copy", "look", "lateral", "memory", "self", "wired"}
    assert set(terms.edges) == kinds
    assert set(terms.nodes) == {"node"}
    said = network.messages(state)["v", "w"]
    agreed = -(np.asarray(said) * np.asarray(state["w"])).sum((1, 2, 3))
    np.testing.assert_allclose(terms.edges["conv"], agreed, rtol=1e-4)


def test_samples_and_ensembles_have_each_their_own():
    network = mixed()
    state = inside(network)
    whole = dx.energy(network, state)
    for i in range(3):
        alone = jax.tree.map(lambda leaf, i=i: leaf[..., i : i + 1], state)
        np.testing.assert_allclose(dx.energy(network, alone)[0], whole[i], rtol=1e-5)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), state, inside(network, seed=1))
    found = eqx.filter_jit(jax.vmap(lambda s: dx.energy(network, s)))(stacked)
    np.testing.assert_allclose(found[0], whole, rtol=1e-5)
    # NaN of one sample is its own
    broken = state.replace_val("h", state["h"].at[1, 0].set(jnp.nan))
    np.testing.assert_array_equal(np.isnan(dx.energy(network, broken)), [False, True, False])


def test_it_does_not_depend_on_the_order_of_drawing():
    network, turned = mixed(), mixed(turned=True)
    assert network.topology != turned.topology
    state = inside(network)
    same = dx.GraphState(turned.topology, 3)
    for node, value in values(state).items():
        same = same.replace_val(node, value)
    np.testing.assert_allclose(dx.energy(turned, same), dx.energy(network, state), rtol=1e-5)


def test_it_does_not_depend_on_names():
    """Pairs, mutual edges, loops and what is held, all told apart by the places of nodes."""
    rng = np.random.default_rng(0)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(9), shape=())
    for u, v in nx.gnp_random_graph(9, 0.5, seed=1).edges:
        weight = rng.normal()
        if rng.random() < 0.5:
            graph.add_edge(u, v, kind="up", weight=weight)
            graph.add_edge(v, u, kind="down")
        else:
            graph.add_edges_from([(u, v), (v, u)], kind="bond", tie="bond")
    for v in range(0, 9, 2):
        graph.add_edge(v, v, kind="self", weight=rng.normal())
    couplings = {"up": dx.scale(weight="weight"), "down": dx.transpose("up")}
    couplings |= {"bond": dx.scale(0.7), "self": dx.scale(weight="weight")}
    cells = rng.uniform(-0.9, 0.9, (9, 4)).astype("f")

    def terms(graph, names):
        network = dx.Network(dx.Topology(graph), couplings, dx.tanh, key=KEY)
        state = dx.GraphState(network.topology).init({names[i]: cells[i] for i in range(9)})
        given = {"clamp": [names[3]], "silence": [names[3]], "drive": {names[5]: 0.3}}
        return [dx.energy_terms(network, state), dx.energy_terms(network, state, **given)]

    before = terms(graph, range(9))
    names = ["b", 4, ("x", 1), 0, "a", 8, "c", ("x", 0), 2]
    turned = redrawn(nx.relabel_nodes(graph, dict(enumerate(names))))
    after = terms(turned, names)
    assert set(before[0].edges) == {"up", "bond", "self"}
    for ours, theirs in zip(*map(jax.tree.leaves, (after, before)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert np.abs(theirs).max() > 0.1


def test_it_is_seen_along_a_rollout():
    network = mixed("leaky")
    _, seen = dx.rollout(network, inside(network), 5, observe=lambda s: dx.energy(network, s))
    assert seen.shape == (5, 3)
    assert (np.diff(seen, axis=0) < 0).all()


# what teachers may rely on


def test_equilibrium_propagation_goes_to_the_gradient_on_a_mixed_network():
    """The difference of two phases by Hebb's rule, one rule for each pair, is the gradient of the
    loss at rest; its error falls as the nudge, and as its square where nudges of both signs are
    taken. No weights are paired by hand, and both teachers give one structure."""
    network = mixed()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3)).astype("f")
    y = {"y": jnp.asarray(rng.uniform(-0.5, 0.5, (4, 2)).astype("f"))}
    everyone = jnp.ones(4, bool)
    # a symmetric coupling holds each number twice: what is learnt is the derivative by both
    kinds = ["in", "conv", "up", "bend", "look", "memory", "lateral", "wired"]
    rules = dict.fromkeys(kinds, dx.hebbian())
    settle = {"schedule": dx.node_by_node(), "steps": 400, "tol": 3e-6}
    free = dx.Phase("free", **settle)
    true, answer, _ = dx.BackpropLearning(rules, free).updates(network, x, y, everyone)
    assert answer.settled.all()

    def errors(beta, symmetric):
        """By kind how far updates are from the gradient, relative to its largest number."""
        nudged = dx.Phase("nudged", nudge=beta, **settle)
        learning = dx.ContrastiveLearning(rules, free, nudged, symmetric=symmetric)
        # not within one program: relaxations are compiled once for all nudges
        updates, _, _ = learning.updates(network, x, y, everyone)
        assert jax.tree.structure(updates) == jax.tree.structure(true)
        found = []
        for kind in kinds:
            factor = 0.5 if kind in ("memory", "lateral", "wired") else 1.0
            (ours, *_), (theirs, *_) = (
                jax.tree.leaves(tree.couplings[kind]) for tree in (updates, true)
            )
            found.append(np.abs(factor * ours - theirs).max() / np.abs(theirs).max())
        biases = (jax.tree.leaves(tree.biases) for tree in (updates, true))
        for ours, theirs in zip(*biases, strict=True):
            found.append(np.abs(ours - theirs).max() / np.abs(theirs).max())
        return np.asarray(found)

    far, near = errors(0.4, symmetric=False), errors(0.1, symmetric=False)
    assert (near < 0.12).all()
    assert (near < 0.45 * far).all()
    far, near = errors(0.4, symmetric=True), errors(0.1, symmetric=True)
    assert (near < 0.03).all()
    assert (near < 0.15 * far).all()


def test_it_is_as_precise_as_the_fields():
    graph = nx.DiGraph()
    graph.add_node("units", shape=20, dtype="int8")
    graph.add_edge("units", "units", kind="recurrent")
    couplings = {"recurrent": dx.dense(symmetric=True)}
    x = spins(20, 3)
    coarse = dx.Network(dx.Topology(graph), couplings, dx.sign, key=KEY)
    found = dx.energy(coarse, dx.GraphState(coarse.topology).init({"units": x.astype("int8")}))
    weight = np.asarray(coarse["units", "units"].weight, np.float64)
    expected = -0.5 * np.einsum("bi,ij,bj->b", x, weight, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with jax.enable_x64(True):
        graph.nodes["units"]["dtype"] = "float64"
        fine = dx.Network(dx.Topology(graph), couplings, dx.tanh, key=KEY)
        found = dx.energy(fine, dx.GraphState(fine.topology).init({"units": 0.5 * x}))
        weight = np.asarray(fine["units", "units"].weight)
        cost = 20 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
        expected = -0.125 * np.einsum("bi,ij,bj->b", x, weight, x) + cost
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected, rtol=1e-13)
