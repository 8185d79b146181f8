"""Local updates equal their closed forms, and touch nothing else."""

import equinox as eqx
import jax
import jraph
import networkx as nx
import numpy as np
import optax
import pytest
from helpers import CASES

import darnax as dx
from darnax.testing import random_state

BATCH = 4


def signal(rule, field, state):
    """Signals of a batch in NumPy."""
    if rule == dx.hebbian():
        return -state
    if rule == dx.covariance():
        return state.mean(0) - state
    if rule == dx.bcm():
        return -state * (state - (state**2).mean(0))
    if rule == dx.delta(dx.tanh):
        return (np.tanh(field) - state) * (1 - np.tanh(field) ** 2)
    return np.where(state * field <= rule.margin, -state, 0)


def triangle():
    graph = nx.DiGraph()
    graph.add_node("x", shape=(2, 2))
    graph.add_node("h", shape=5, kind="hidden")
    graph.add_node("y", shape=3, kind="output")
    graph.add_edge("x", "h", kind="forward")
    graph.add_edge("h", "h", kind="recurrent")
    graph.add_edge("h", "y", kind="forward")
    graph.add_edge("y", "h", kind="back")
    couplings = {
        "forward": dx.dense(),
        "recurrent": dx.dense(self_coupling=0.5),
        "back": dx.dense(),
    }
    biases = {"hidden": dx.bias(0.3), "output": dx.bias(-0.2)}
    return dx.Network(
        dx.Topology(graph, inputs=["x"]), couplings, dx.sign, biases=biases, key=jax.random.key(0)
    )


@pytest.mark.parametrize("rule", [dx.hebbian(), dx.perceptron(0.7)])
@pytest.mark.parametrize("with_target", [False, True])
@pytest.mark.parametrize("normalise", [None, lambda batch, fan_in: (batch * fan_in) ** 0.5])
def test_dense_updates_equal_the_outer_product(rule, with_target, normalise):
    network = triangle()
    state = random_state(network.topology, BATCH, seed=1)
    target = random_state(network.topology, BATCH, seed=2) if with_target else None
    rules = {"forward": rule, "recurrent": rule}
    arguments = {"target": target, "silence": ["y"], "normalise": normalise}
    updates = dx.local_updates(network, state, rules, **arguments)
    s = {n: np.asarray(state[n]).reshape(BATCH, -1) for n in state}
    goal = {n: np.asarray((target or state)[n]).reshape(BATCH, -1) for n in state}
    weight = {edge: np.array(network[edge].weight) for edge in network.topology.edges}
    np.fill_diagonal(weight["h", "h"], 0.5)
    field = {
        "h": s["x"] @ weight["x", "h"].T + s["h"] @ weight["h", "h"].T + 0.3,
        "y": s["h"] @ weight["h", "y"].T - 0.2,
    }
    divide = (lambda batch, fan_in: batch) if normalise is None else normalise
    for u, v in [("x", "h"), ("h", "y"), ("h", "h")]:
        expected = signal(rule, field[v], goal[v]).T @ s[u] / divide(BATCH, s[u].shape[1])
        if u == v:
            np.fill_diagonal(expected, 0)
        np.testing.assert_allclose(updates[u, v].weight, expected, atol=1e-6)
    for kind, node in (("hidden", "h"), ("output", "y")):
        (bias,) = updates.biases[kind].values()
        np.testing.assert_allclose(
            bias[0], signal(rule, field[node], goal[node]).sum(0) / divide(BATCH, 1), atol=1e-6
        )


def test_the_structure_is_that_of_params():
    network = triangle()
    rules = {"recurrent": dx.hebbian()}
    params, _ = dx.partition(network, rules)
    updates = dx.local_updates(network, random_state(network.topology, BATCH), rules)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert updates["h", "y"].weight is None
    assert updates.biases["output"] == dict.fromkeys(updates.biases["output"])


def test_what_does_not_speak_does_not_learn():
    network = triangle()
    state = random_state(network.topology, BATCH)
    rules = dict.fromkeys(("forward", "recurrent", "back"), dx.hebbian())
    quiet = dx.local_updates(network, state, rules, silence=["y", "h"])
    assert (quiet["y", "h"].weight == 0).all()
    assert (quiet["h", "y"].weight == 0).all()
    assert (quiet["x", "h"].weight != 0).any()
    some = dx.local_updates(network, state, rules, kinds=["recurrent"])
    assert (some["x", "h"].weight == 0).all()
    assert (some["h", "h"].weight != 0).any()
    field = dx.local_updates(network, state, {"forward": dx.perceptron(0.1)}, kinds=["forward"])
    apart = dx.local_updates(network, state, {"forward": dx.perceptron(0.1)})
    assert (field["x", "h"].weight != apart["x", "h"].weight).any()


def club():
    """A graph layer in one node, and a graph network that learns a matrix."""

    class Mix(eqx.Module):
        matrix: jax.Array

        def __call__(self, graph):
            gather = jraph.GraphConvolution(
                lambda nodes: nodes @ self.matrix, symmetric_normalization=False
            )
            return gather(graph)

    ring = nx.cycle_graph(5, create_using=nx.DiGraph)
    topology = dx.Topology(dx.topologies.graph_layer(ring, 3, whole=True))
    mix = Mix(jax.random.normal(jax.random.key(0), (3, 3)))
    return dx.Network(
        topology, {"lateral": dx.graph_conv(mix, ring)}, dx.sign, key=jax.random.key(0)
    )


def image():
    """A convolution and its way back."""
    graph = nx.DiGraph()
    graph.add_node("image", shape=(4, 4, 2))
    graph.add_node("map", shape=(2, 2, 3))
    graph.add_edge("image", "map", kind="conv")
    graph.add_edge("map", "image", kind="back")
    kinds = {"conv": dx.conv(3, 2), "back": dx.conv_transpose(3, 2)}
    return dx.Network(dx.Topology(graph), kinds, dx.sign, key=jax.random.key(0))


USES = {
    name: CASES[name].network
    for name in ("tied", "windows", "parallel", "hub", "scalars", "any cells")
}


def local_fields(network, state):
    """The fields of all receivers, as one program; JAX cannot sort names of several types."""
    receivers = list(dict.fromkeys(edge[1] for edge in network.topology.edges))

    @jax.jit
    def fields(network, state):
        found = network.local_field(state)
        assert set(found) == set(receivers)
        return [found[node] for node in receivers]

    return dict(zip(receivers, map(np.asarray, fields(network, state)), strict=True))


@eqx.filter_jit
def own_products(coupling, senders, signals):
    """What each sample asks of the numbers of one edge, `(d message / d numbers)^T signal`."""
    numbers, rest = eqx.partition(coupling, eqx.is_inexact_array)

    def product(sender, signal):
        _, pull = jax.vjp(lambda numbers: eqx.combine(numbers, rest)(sender), numbers)
        return pull(signal)[0]

    return jax.vmap(product)(senders, signals)


@pytest.mark.parametrize("case", [*USES, "club", "image"])
@pytest.mark.parametrize(
    "rule",
    [dx.perceptron(1.5), dx.covariance(), dx.bcm(), dx.delta(dx.tanh)],
    ids=lambda rule: type(rule).__name__,
)
def test_updates_sum_over_the_uses_of_a_parameter(case, rule):
    """Whatever the sharing: the sum over edges and samples of each edge's own product, divided by
    the batch."""
    network = (USES | {"club": club, "image": image})[case]()
    topology = network.topology
    state = random_state(topology, BATCH)
    if rule == dx.bcm():  # of ±1 units every answer is at the threshold or minus it
        graded = lambda a: jax.device_put(np.asarray(a) * np.arange(1, BATCH + 1, dtype=a.dtype))  # noqa: E731
        state = jax.tree.map(graded, state)
    fields = local_fields(network, state)
    in_numpy = jax.tree.map(np.asarray, network)
    updates = dx.local_updates(network, state, dict.fromkeys(topology.edge_kinds, rule))
    expected = {}
    for edge in topology.edges:
        u, v = edge[:2]
        signals = signal(rule, fields[v], np.asarray(state[v], np.float32)).astype(np.float32)
        products = own_products(in_numpy[edge], np.asarray(state[u], np.float32), signals)
        total = jax.tree.map(lambda product: np.asarray(product).mean(0), products)
        kind, bundle, row = network._find(edge)
        name = (kind, bundle, row if topology.parameter_blocks[kind][bundle].tie is None else None)
        expected[name] = jax.tree.map(np.add, expected[name], total) if name in expected else total
    for (kind, bundle, row), total in expected.items():
        ours = updates.couplings[kind][bundle]
        leaf = jax.tree.leaves(ours)[0]
        np.testing.assert_allclose(
            leaf if row is None else np.asarray(leaf)[row], jax.tree.leaves(total)[0], atol=1e-5
        )


def test_a_convolution_learns_from_all_its_places():
    graph = nx.DiGraph()
    graph.add_node("image", shape=(5, 5, 2))
    graph.add_node("map", shape=(5, 5, 3), kind="map")
    graph.add_edge("image", "map", kind="conv")
    network = dx.Network(
        dx.Topology(graph), {"conv": dx.conv(kernel=3)}, dx.sign, key=jax.random.key(0)
    )
    state = random_state(network.topology, BATCH)
    updates = dx.local_updates(network, state, {"conv": dx.hebbian()})
    padded = np.pad(np.asarray(state["image"]), ((0, 0), (1, 1), (1, 1), (0, 0)))
    goal = np.asarray(state["map"])
    expected = np.zeros((3, 3, 2, 3), np.float32)
    for i in range(3):
        for j in range(3):
            expected[i, j] = (
                -np.einsum("bhwi,bhwo->io", padded[:, i : i + 5, j : j + 5], goal) / BATCH
            )
    np.testing.assert_allclose(updates["image", "map"].weight, expected, atol=1e-5)


def test_an_equinox_layer_learns_by_its_own_product():
    graph = nx.DiGraph()
    graph.add_nodes_from("ab", shape=3)
    graph.add_edge("a", "b", kind="layer")
    topology = dx.Topology(graph)
    network = dx.Network(
        topology,
        {"layer": lambda s, r, key: eqx.nn.Linear(3, 3, key=key)},
        dx.sign,
        key=jax.random.key(0),
    )
    state = random_state(topology, BATCH)
    updates = dx.local_updates(network, state, {"layer": dx.hebbian()})
    np.testing.assert_allclose(
        updates["a", "b"].weight,
        -np.asarray(state["b"]).T @ np.asarray(state["a"]) / BATCH,
        atol=1e-6,
    )
    np.testing.assert_allclose(updates["a", "b"].bias, -np.asarray(state["b"]).mean(0), atol=1e-6)


def test_a_users_rule_sees_one_node_of_one_sample():
    seen = []

    def rule(field, state):
        seen.append((field.shape, state.shape))
        return (field - field.mean()) * state

    network = triangle()
    state = random_state(network.topology, BATCH)
    updates = dx.local_updates(network, state, {"back": rule})
    assert set(seen) == {((5,), (5,))}
    field = np.asarray(network.local_field(state)["h"])
    signal = (field - field.mean(1, keepdims=True)) * np.asarray(state["h"])
    np.testing.assert_allclose(
        updates["y", "h"].weight, signal.T @ np.asarray(state["y"]) / BATCH, atol=1e-5
    )


def centred(field, state):
    """A rule that no unit can work out for itself."""
    return (field - field.mean()) * state


def strip(biases=None, apart=3):
    """Four views of three cells, each with a feature that sends to it by tied edges."""
    graph = nx.DiGraph(arrays={"line": (12,)})
    for i in range(4):
        index = slice(apart * i, apart * i + 3)
        graph.add_node(("patch", i), array="line", index=index, kind="patch")
        graph.add_node(("feature", i), shape=2, kind="feature")
        graph.add_edge(("feature", i), ("patch", i), kind="back", tie="draw")
    couplings, topology = {"back": dx.dense()}, dx.Topology(graph)
    return dx.Network(topology, couplings, dx.tanh, biases=biases, key=jax.random.key(1))


@pytest.mark.parametrize("apart", [2, 3])
def test_a_rule_of_whole_nodes_is_given_views_as_a_whole(apart):
    network = strip(apart=apart)
    state = random_state(network.topology, BATCH)
    fields = network.local_field(state)
    expected = np.zeros((3, 2))
    for i in range(4):
        field = np.asarray(fields["patch", i])
        signal = (field - field.mean(1, keepdims=True)) * np.asarray(state["patch", i])
        expected += signal.T @ np.asarray(state["feature", i]) / BATCH
    updates = dx.local_updates(network, state, {"back": centred})
    found = updates[("feature", 0), ("patch", 0)].weight
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_biases_of_views_learn_by_a_rule_of_whole_nodes():
    network = strip({"patch": dx.bias(0.1)})
    state = random_state(network.topology, BATCH)
    fields = network.local_field(state)
    expected = []
    for i in range(4):
        field = np.asarray(fields["patch", i])
        signal = (field - field.mean(1, keepdims=True)) * np.asarray(state["patch", i])
        expected.append(signal.mean(0))
    updates = dx.local_updates(network, state, {"back": centred})
    np.testing.assert_allclose(updates.biases["patch"]["line"], np.concatenate(expected), atol=1e-6)


def test_overlapping_biases_refuse_a_rule_of_whole_nodes():
    network = strip({"patch": dx.bias(0.1)}, apart=2)
    state = random_state(network.topology, BATCH)
    with pytest.raises(ValueError, match="overlap on a shared array and have biases"):
        dx.local_updates(network, state, {"back": centred})
    marked = lambda field, state: -state  # noqa: E731
    marked.elementwise = True
    ours = dx.local_updates(network, state, {"back": dx.hebbian()})
    theirs = dx.local_updates(network, state, {"back": marked})
    assert all(map(np.array_equal, jax.tree.leaves(theirs), jax.tree.leaves(ours)))


def test_different_rules_add_up_in_the_bias():
    network = triangle()
    state = random_state(network.topology, BATCH)
    one = dx.local_updates(network, state, {"forward": dx.hebbian()}).biases["hidden"]
    two = dx.local_updates(network, state, {"back": dx.perceptron(0.3)}).biases["hidden"]
    both = dx.local_updates(
        network, state, {"forward": dx.hebbian(), "back": dx.perceptron(0.3)}
    ).biases["hidden"]
    same = dx.local_updates(network, state, {"forward": dx.hebbian(), "back": dx.hebbian()}).biases[
        "hidden"
    ]
    for name in both:
        np.testing.assert_allclose(both[name], one[name] + two[name], atol=1e-6)
        np.testing.assert_array_equal(same[name], one[name])


def test_biases_on_a_shared_array_learn_where_their_kind_is():
    network = CASES["windows"].network()
    state = random_state(network.topology, BATCH)
    updates = dx.local_updates(network, state, {"back": dx.hebbian()})
    bias = updates.biases["patch"]["line"]
    heard = np.zeros(8, bool)
    heard[1:6] = True  # patches 1 to 3 hear, windows of three from there
    expected = np.where(heard, -np.asarray(state.arrays["line"]).mean(-1), 0)
    np.testing.assert_allclose(bias, expected, atol=1e-6)


def test_the_update_is_a_descent_direction():
    """Repeating it on one batch removes the violations of the margin."""
    network = triangle()
    state = random_state(network.topology, 3)
    rules = {"forward": dx.perceptron(0.5)}

    @jax.jit
    def lesson(network):
        field = network.local_field(state)["y"]
        params, rest = dx.partition(network, rules)
        updates = dx.local_updates(network, state, rules)
        return field, eqx.combine(jax.tree.map(lambda p, u: p - 0.3 * u, params, updates), rest)

    violations = []
    for _ in range(60):
        field, network = lesson(network)
        violations.append(int((np.asarray(field) * np.asarray(state["y"]) <= 0.5).sum()))
    assert violations[0] > 0
    assert violations[-1] == 0


def test_optimisers_leave_alone_what_has_no_rule():
    network = triangle()
    rules = {"recurrent": dx.perceptron(0.5)}
    params, rest = dx.partition(network, rules)
    optimiser = optax.adamw(0.1, weight_decay=0.5)
    state = random_state(network.topology, BATCH)
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers

        @jax.jit
        def lesson(params, memory):
            updates = dx.local_updates(eqx.combine(params, rest), state, rules)
            steps, memory = optimiser.update(updates, memory, params)
            return optax.apply_updates(params, steps), memory

        memory = jax.jit(optimiser.init)(params)
        for _ in range(3):
            params, memory = lesson(params, memory)
    after = eqx.combine(params, rest)
    for edge in [("x", "h"), ("h", "y"), ("y", "h")]:
        np.testing.assert_array_equal(after[edge].weight, network[edge].weight)
    assert float(after["h", "h"].self_coupling.value) == 0.5
    slope = jax.jit(jax.jacobian(after["h", "h"]))(np.zeros(5, np.float32))
    assert (np.diag(slope) == 0.5).all()
    moved = np.asarray(after["h", "h"].weight) - np.asarray(network["h", "h"].weight)
    assert (moved[~np.eye(5, dtype=bool)] != 0).all()
    (frozen,) = after.biases["output"].values()
    assert (frozen == -0.2).all() or np.allclose(frozen, -0.2)


def test_duplicating_a_batch_changes_nothing():
    network = triangle()
    state = random_state(network.topology, BATCH)
    doubled = lambda leaf: jax.device_put(np.concatenate([leaf, leaf], axis=-1))  # noqa: E731
    twice = jax.tree.map(doubled, state)
    rules = dict.fromkeys(network.topology.edge_kinds, dx.perceptron(0.4))
    one, two = dx.local_updates(network, state, rules), dx.local_updates(network, twice, rules)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
