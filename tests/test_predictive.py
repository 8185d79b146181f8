"""Predictive coding: passes go down the free energy, and what is learnt is its derivative."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import darnax as dx
from darnax import topologies
from darnax.testing import redrawn

KEY = jax.random.key(0)
COLOURED = dx.coloured()


def value(rate):
    return dx.leaky(rate, dx.integrator)


# drawings

DRAWN = {
    "chain": lambda: topologies.sequential([4, (2, 3), 2], backward=False, recurrent=False),
    "circle": lambda: topologies.bipartite(3, (2, 2)),
    "itself": lambda: topologies.sequential([4, 3, 2]),
    "windows": lambda: topologies.convolutional((6, 2), 3, features=2, padding=1),
    "windows that are predicted": lambda: topologies.convolutional((6, 2), 3, features=2).reverse(),
    "parallel": lambda: topologies.graph_layer(
        nx.MultiGraph([("a", "b"), ("a", "b"), ("b", "c"), ("c", "c")]), 2
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_edge_is_a_prediction_and_every_node_that_is_predicted_has_an_error(name):
    drawing = DRAWN[name]()
    before = dx.Topology(drawing)
    graph = topologies.predictive(drawing)
    topology = dx.Topology(graph)
    assert dx.Topology(drawing) == before
    assert nx.utils.graphs_equal(graph, topologies.predictive(drawing))

    # values are as drawn, and come first
    count = len(drawing)
    assert list(topology.nodes)[:count] == list(drawing)
    assert {node: graph.nodes[node] for node in drawing} == dict(drawing.nodes(data=True))
    predicted = [node for node in drawing if drawing.in_degree(node)]
    assert list(topology.nodes)[count:] == [("error", node) for node in predicted]
    for node in predicted:
        assert topology.shape(("error", node)) == before.shape(node)
        assert graph.nodes["error", node]["kind"] == "error"
    assert (topology.inputs, topology.outputs) == (before.inputs, before.outputs)

    # a prediction carries what its edge did, and everything goes both ways
    kinds = dict.fromkeys(graph.edges)
    for edge in graph.edges:
        kinds[edge] = graph.edges[edge]["kind"]
    assert len(kinds) == 2 * (drawing.number_of_edges() + len(predicted))
    for u, v, *key in drawing.edges:
        there = (u, ("error", v), *(key or [0] * graph.is_multigraph()))
        assert graph.edges[there] == drawing.edges[(u, v, *key)]
    for edge, kind in kinds.items():
        u, v, *key = edge
        if "back" not in kind:
            assert kinds[(v, u, *key)] == f"{kind} back"
    assert list(kinds.values()).count("error") == len(predicted)


def test_sizes_are_a_chain_of_predictions():
    graph = topologies.predictive([4, (2, 3), 2])
    same = topologies.sequential([4, (2, 3), 2], recurrent=False, backward=False)
    nx.set_node_attributes(same, "value", "kind")
    same.graph["node_kinds"] = ["value"]
    assert dx.Topology(graph) == dx.Topology(topologies.predictive(same))
    assert dx.Topology(graph).node_kinds == ("error", "value")
    assert dx.Topology(graph).outputs == (2,)


def test_errors_are_floats_as_wide_as_what_they_are_about():
    graph = nx.DiGraph()
    for node, dtype in {"a": "float32", "b": "int8", "c": "float64", "d": "bfloat16"}.items():
        graph.add_node(node, shape=2, dtype=dtype)
        if node != "a":
            graph.add_edge("a", node)
    drawn = topologies.predictive(graph)
    dtypes = [drawn.nodes["error", node]["dtype"] for node in "bcd"]
    assert dtypes == ["float32", "float64", "bfloat16"]


def test_a_drawing_from_a_file_is_read_as_it_was_drawn():
    drawing = topologies.graph_layer(nx.path_graph(3), 2)
    plain = dx.Topology(drawing).to_networkx(plain=True)
    found = dx.Topology(topologies.predictive(plain))
    assert found == dx.Topology(topologies.predictive(drawing))


# a linear network, and its closed form


@functools.cache
def linear():
    """Predictions in a circle, of a node by itself, side by side, and by a latent `d`."""
    graph = nx.MultiDiGraph()
    for node, shape in {"a": 3, "b": 4, "c": 2, "d": (1, 1)}.items():
        graph.add_node(node, shape=shape)
    graph.add_edges_from([("a", "b"), ("a", "b"), ("c", "b"), ("b", "c"), ("d", "c")], kind="up")
    graph.add_edge("b", "b", kind="own")
    graph.nodes["a"]["role"] = "input"
    couplings = dx.predictions({"up": dx.dense(gain=0.7), "own": dx.dense(gain=0.5)})
    return dx.Network(
        dx.Topology(topologies.predictive(graph)),
        couplings,
        {"node": value(0.1), "error": dx.negative},
        biases={"error": dx.bias(jax.nn.initializers.normal())},
        key=KEY,
    )


NODES = {"a": slice(0, 3), "b": slice(3, 7), "c": slice(7, 9), "d": slice(9, 10)}
"""Where the cells of the linear network are in one vector."""


def jacobian(network):
    """The derivatives of errors, of `b` and then of `c`, by all cells; and what is added to them."""
    rows = {"b": slice(0, 4), "c": slice(4, 6)}
    matrix = np.zeros((6, 10))
    for u, v, key in network.topology.edges:
        if v not in NODES:
            node = v[1]
            units = rows[node].stop - rows[node].start
            own = np.eye(units) if key == "error" else -np.asarray(network[u, v, key].weight)
            matrix[rows[node], NODES[u]] += own
    quiet = network.local_field(dx.GraphState(network.topology))
    offset = np.concatenate([-quiet["error", node][0] for node in rows])
    return matrix, offset


def with_rate(network, rate):
    return eqx.tree_at(lambda n: n.activations["node"].rate, network, jnp.float32(rate))


def at_rest(network, held, rate, schedule=COLOURED, max_steps=20000):
    rng = np.random.default_rng(0)
    start = {node: rng.normal(size=10)[NODES[node]].astype("f") for node in held}
    start = {node: x.reshape(1, *network.topology.shape(node)) for node, x in start.items()}
    state = dx.GraphState(network.topology).init(start)
    masks = {node: node in held for node in NODES}
    return dx.relax(
        with_rate(network, rate),
        state,
        clamp=masks,
        schedule=schedule,
        max_steps=max_steps,
        tol=1e-6,
    )


def parts(network, held):
    """The cells that are free, and the derivatives of errors by them."""
    free = np.ones(10, bool)
    for node in held:
        free[NODES[node]] = False
    matrix, offset = jacobian(network)
    return free, matrix, offset


@pytest.mark.parametrize("held", [("a",), ("a", "c"), ("c",)], ids=str)
def test_rest_is_the_closed_form_of_a_linear_network(held):
    network = linear()
    free, matrix, offset = parts(network, held)
    rate = 1 / np.linalg.eigvalsh(matrix[:, free].T @ matrix[:, free]).max()
    solution = at_rest(network, held, rate)
    assert solution.settled.all()
    cells = np.concatenate([np.ravel(solution.state[node]) for node in NODES])
    known = matrix[:, ~free] @ cells[~free] + offset
    # from zero the least of all solutions is reached, where there are several
    expected = np.linalg.pinv(matrix[:, free], rcond=1e-6) @ -known
    np.testing.assert_allclose(cells[free], expected, atol=2e-4)
    errors = np.concatenate([np.ravel(solution.state["error", node]) for node in "bc"])
    np.testing.assert_allclose(errors, matrix @ cells + offset, atol=1e-5)
    assert np.abs(expected).max() > 0.3
    assert held != ("a", "c") or np.abs(errors).max() > 0.01


@pytest.mark.parametrize(
    ("schedule", "bound"), [(COLOURED, 2.0), (dx.synchronous(), 1.0)], ids=["coloured", "at once"]
)
def test_the_largest_rate_is_set_by_the_largest_curvature(schedule, bound):
    network = linear()
    free, matrix, _ = parts(network, ("a", "c"))
    curvature = np.linalg.eigvalsh(matrix[:, free].T @ matrix[:, free]).max()
    below, above = (
        at_rest(network, ("a", "c"), factor * bound / curvature, schedule, 4000)
        for factor in (0.95, 1.05)
    )
    assert below.settled.all()
    assert not above.settled.any()


# a mixed network, and its free energy written down by itself


@functools.cache
def mixed(rate=0.05, turned=False):
    """A convolution, layers of rates, a ring that predicts itself, and windows that overlap."""
    graph = nx.DiGraph(arrays={"line": (7,)})
    for node, shape in {"x": (6, 6, 1), "map": (3, 3, 2), "deep": 4, "label": 3}.items():
        graph.add_node(node, shape=shape)
    graph.nodes["x"]["role"] = "input"
    graph.nodes["label"]["role"] = "output"
    graph.add_edge("x", "map", kind="conv")
    graph.add_edge("map", "deep", kind="rate")
    graph.add_edge("deep", "label", kind="rate")
    for i in range(3):
        graph.add_node(f"ring{i}", shape=2)
        for j in ((i + 1) % 3, (i - 1) % 3):
            graph.add_edge(f"ring{i}", f"ring{j}", kind="lateral", tie="ring", weight=0.5 + i)
        graph.add_node(f"see{i}", array="line", index=slice(2 * i, 2 * i + 3))
        graph.add_node(f"say{i}", shape=2)
        graph.add_edge(f"say{i}", f"see{i}", kind="draw", tie="draw")
        graph.add_edge("deep", f"say{i}", kind="rate")
    graph.add_edge("deep", "ring0", kind="rate")
    couplings = {
        "conv": dx.conv(3, stride=2),
        "rate": dx.after(dx.tanh, dx.dense()),
        "lateral": dx.dense(gain=0.5, factor="weight"),
        "draw": lambda s, r, key: eqx.nn.Linear(s[0], r[0], key=key),
    }
    return dx.Network(
        dx.Topology(topologies.predictive(redrawn(graph) if turned else graph)),
        dx.predictions(couplings),
        {"node": value(rate), "error": dx.negative},
        biases={"error": dx.bias(jax.nn.initializers.normal(0.3))},
        key=KEY,
    )


def errors(values, weights, biases):
    """The errors of one sample, by the formula."""
    image = jax.lax.conv_general_dilated(
        values["x"][None],
        weights["conv"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    found = {"map": values["map"] - image}
    deep = jnp.tanh(values["deep"])
    found["deep"] = values["deep"] - weights["deep"] @ jnp.tanh(values["map"].ravel())
    found["label"] = values["label"] - weights["label"] @ deep
    matrix, offset = weights["draw"]
    for i in range(3):
        say, ring = values[f"say{i}"], values[f"ring{i}"]
        found[f"say{i}"] = say - weights[f"say{i}"] @ deep
        found[f"see{i}"] = values["line"][2 * i : 2 * i + 3] - matrix @ say - offset
        found[f"ring{i}"] = ring
        for j in ((i + 1) % 3, (i - 1) % 3):
            found[f"ring{i}"] -= (0.5 + j) * weights["lateral"] @ values[f"ring{j}"]
    found["ring0"] -= weights["ring"] @ deep
    return {node: error - biases[node] for node, error in found.items()}


def free_energy(values, weights, biases):
    """Half of all errors squared, `(B,)`; values have a leading axis of samples."""

    def one(values):
        return 0.5 * sum(jnp.sum(e**2) for e in errors(values, weights, biases).values())

    return jax.vmap(one)(values)


def parameters(network):
    """The weights and the biases of the mixed network, for the formula."""
    rate = {"deep": ("map", "deep"), "label": ("deep", "label"), "ring": ("deep", "ring0")}
    rate |= {f"say{i}": ("deep", f"say{i}") for i in range(3)}
    weights = {node: network[u, ("error", v)].coupling.weight for node, (u, v) in rate.items()}
    weights["conv"] = network["x", ("error", "map")].weight
    weights["lateral"] = network["ring0", ("error", "ring1")].weight
    draw = network["say0", ("error", "see0")]
    weights["draw"] = draw.weight, draw.bias
    quiet = dx.GraphState(network.topology)
    without = eqx.tree_at(lambda n: n.biases, network, jax.tree.map(jnp.zeros_like, network.biases))
    # what errors hear of silence is their bias, and the offset of the layer
    fields, offsets = network.local_field(quiet), without.local_field(quiet)
    biases = {v[1]: fields[v][0] - offsets[v][0] for v in fields if v[0] == "error"}
    return weights, biases


def values_of(state):
    """The states of all values by node, those of the views as one line."""
    found = {v: state[v] for v in state if "error" not in v and "see" not in v}
    line = [state["see0"], state["see1"][:, 1:], state["see2"][:, 1:]]
    return found | {"line": jnp.concatenate(line, axis=1)}


def started(network, batch=3):
    """Random values, and no errors yet."""
    rng = np.random.default_rng(0)
    state = dx.GraphState(network.topology, batch)
    for node in sorted(state, key=str):
        if "error" not in node:
            state = state.replace_val(node, rng.normal(size=state[node].shape).astype("f"))
    return state


RELEASED = {"clamp": {"x": False, "label": True}, "schedule": COLOURED}
"""A call in which the input is free to be imagined, and the output is held."""


def test_passes_are_steps_down_the_free_energy():
    network = mixed()
    weights, biases = parameters(network)
    state = started(network)
    # the first pass tells errors of their values, and each of the others is a step
    found, _ = dx.rollout(network, state, 9, **RELEASED)

    @jax.jit
    def descend(values):
        slope = jax.grad(lambda values: free_energy(values, weights, biases).sum())(values)
        return {v: s if v == "label" else s - 0.05 * slope[v] for v, s in values.items()}

    expected = values_of(state)
    for _ in range(8):
        expected = descend(expected)
    for node, cells in values_of(found).items():
        np.testing.assert_allclose(cells, expected[node], atol=2e-5, err_msg=str(node))
    assert np.abs(expected["x"] - state["x"]).max() > 0.1
    wrong = jax.vmap(lambda values: errors(values, weights, biases))(expected)
    for node, error in wrong.items():
        np.testing.assert_allclose(found["error", node], error, atol=2e-5, err_msg=str(node))


def test_the_energy_of_the_network_is_the_free_energy_and_falls():
    network = mixed()
    weights, biases = parameters(network)

    def both(state):
        known = free_energy(values_of(state), weights, biases)
        return dx.energy(network, state, clamp=RELEASED["clamp"]), known

    _, (found, expected) = dx.rollout(network, started(network), 40, observe=both, **RELEASED)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (np.diff(found, axis=0) < 0).all()
    assert (found[-1] < 0.5 * found[0]).all()


@pytest.mark.parametrize("turned", [False, True], ids=["as drawn", "redrawn"])
def test_hebbian_learning_at_the_errors_is_the_derivative_of_the_free_energy(turned):
    network = mixed(turned=turned)
    kinds = ("conv", "rate", "lateral", "draw")
    state, _ = dx.rollout(network, started(network), 3, **RELEASED)
    updates = dx.local_updates(network, state, dict.fromkeys(kinds, dx.hebbian()))
    # read by the names of edges and nodes, as the parameters themselves
    found = parameters(eqx.combine(updates, network))
    weights, biases = parameters(network)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def slope(weights, biases):
        return free_energy(values_of(state), weights, biases).mean()

    expected = slope(weights, biases)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, (path, theirs) in zip(
        jax.tree.leaves(found), jax.tree.leaves_with_path(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=str(path))
        assert np.abs(theirs).max() > 1e-3


# learning


def test_digits_are_learnt_by_fit():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = (data.images[order, ..., None] / 8 - 1).astype(np.float32)
    y = dx.one_vs_all(data.target[order], 10)
    network = dx.Network(
        dx.Topology(topologies.predictive([(8, 8, 1), 64, 10])),
        dx.predictions({"forward": dx.after(dx.tanh, dx.dense())}),
        {"value": value(0.2), "error": dx.negative},
        biases={"error": dx.bias()},
        key=KEY,
    )
    learning = dx.DynamicalLearning(
        {"forward": dx.hebbian()},
        phases=[
            dx.Phase(
                "free", steps=100, kinds=["forward", "error", "error back"], schedule=COLOURED
            ),
            dx.Phase("taught", steps=15, settle=False, clamp=[2], schedule=COLOURED),
        ],
    )
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        _, history = dx.fit(
            network,
            learning,
            optax.adam(1e-2),
            x[:1400],
            y[:1400],
            epochs=4,
            key=KEY,
            validation=(x[1400:], y[1400:]),
            progress=False,
        )
    assert history["validation accuracy"][-1] > 0.92
    assert history["validation settled"][-1] == 1
