"""Networks: parameters belong to edges by name, and what does not fit is found when the network is
built."""

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from helpers import CASES, compilations, values

import darnax as dx
from darnax.testing import random_state, redrawn, rounded


@pytest.mark.parametrize(
    "case", ["hub", "windows", "parallel", "tied", "scalars", "mixed", "both ways"]
)
def test_order_of_drawing_changes_no_number(case):
    drawn = CASES[case]
    network = drawn.network()
    other = type(drawn)(
        lambda: redrawn(drawn.graph()), drawn.activations, drawn.biases, drawn.couplings
    ).network()
    assert other.topology != network.topology
    edges = network.topology.edges
    modules = jax.jit(lambda network: [network[edge] for edge in edges])
    for ours, theirs in zip(*(jax.tree.leaves(modules(n)) for n in (network, other)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    state = random_state(network.topology, 3)
    same = dx.GraphState(other.topology, 3)
    for node, value in values(state).items():
        same = same.replace_val(node, value)
    for _ in range(2):
        state, same = dx.step(network, state), dx.step(other, same)
        found = values(same)
        for node, value in values(state).items():
            np.testing.assert_array_equal(value, found[node])


def test_order_of_drawing_changes_no_noise():
    def drawn(names):
        graph = nx.DiGraph()
        graph.add_nodes_from(names, shape=3)
        graph.add_edges_from((n, n) for n in names)
        topology = dx.Topology(graph)
        network = dx.Network(
            topology, {"edge": dx.dense(gain=0)}, dx.glauber(1.0), key=jax.random.key(0)
        )
        state = dx.GraphState(topology, 4)
        once = dx.step(network, state, key=jax.random.key(1))
        part = dx.step(network, once, key=jax.random.key(2), schedule=dx.asynchronous(0.5))
        once, part = values(once), values(part)
        return {n: np.stack([once[n], part[n]]) for n in names}

    ours, theirs = drawn(["a", "b", "c"]), drawn(["c", "a", "b"])
    for node, drawn_values in ours.items():
        np.testing.assert_array_equal(drawn_values, theirs[node])
    assert (ours["a"] != ours["b"]).any()


def test_relabelling_relabels_the_result():
    case = CASES["hub"]
    names = {i: ("unit", str(i)) for i in range(8)}
    graph = case.graph()
    other = type(case)(
        lambda: nx.relabel_nodes(graph, names), case.activations, case.biases, case.couplings
    ).network()
    network = case.network()
    for edge in network.topology.edges:
        other = other.replace_val(tuple(names[n] for n in edge), network[edge])
    state = random_state(network.topology, 3)
    renamed = {names[node]: value for node, value in values(state).items()}
    same = dx.GraphState(other.topology, 3).replace(renamed)
    state, same = values(dx.step(network, state)), values(dx.step(other, same))
    for node, value in state.items():
        np.testing.assert_array_equal(value, same[names[node]])


def test_messages_and_fields_are_what_the_couplings_say():
    network = CASES["views"].network()
    state = random_state(network.topology, 3)

    @jax.jit
    def answers(network, state):
        said = {(u, v): jax.vmap(network[u, v])(state[u]) for u, v in network.topology.edges}
        return network.messages(state), network.local_field(state), said

    sent, fields, said = jax.tree.map(np.asarray, answers(network, state))
    assert set(sent) == set(network.topology.edges)
    for edge, message in sent.items():
        np.testing.assert_array_equal(message, said[edge], err_msg=str(edge))
    assert set(fields) == {v for _, v in network.topology.edges}
    arrived = np.zeros((5, 5, 3), np.float32)
    for (_, v), message in sent.items():
        if network.topology.view(v).array == "image":
            arrived[(*network.topology.view(v).index, ...)] += np.moveaxis(
                np.asarray(message), 0, -1
            )
    arrived += np.asarray(network.biases["node"]["image"])[..., None]
    for node in ("left", "right", "odd", "dot"):
        np.testing.assert_array_equal(
            fields[node], np.moveaxis(arrived[(*network.topology.view(node).index, ...)], -1, 0)
        )


def test_what_is_returned_by_name_leaves_a_jit_whatever_the_names_are():
    """JAX sorts the keys of a plain dict, and names of two types have no order."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["eye", (0, 0), 3], shape=2)
    graph.add_edges_from([("eye", (0, 0)), ((0, 0), 3), (3, "eye")])
    topology = dx.Topology(graph, outputs=["eye", 3, (0, 0)])
    network = dx.Network(topology, {"edge": dx.scale(2.0)}, dx.identity, key=jax.random.key(0))
    state = random_state(topology, 2)
    for found in (network.messages, network.local_field, lambda state: state.readout):
        eager, jitted = found(state), eqx.filter_jit(found)(state)
        assert list(eager) == list(jitted)
        for name in eager:
            np.testing.assert_array_equal(eager[name], jitted[name])
    assert list(jitted) == ["eye", 3, (0, 0)]


def test_two_hundred_int8_messages_add_up():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(200), shape=(), dtype="int8")
    graph.add_node("sum", shape=())
    graph.add_edges_from((i, "sum") for i in range(200))
    network = dx.Network(
        dx.Topology(graph), {"edge": dx.relay()}, dx.identity, key=jax.random.key(0)
    )
    state = dx.GraphState(network.topology, 2).replace({i: np.ones(2, np.int8) for i in range(200)})
    assert dx.step(network, state)["sum"].tolist() == [200.0, 200.0]


def test_parameters_are_stacked_by_kind_tie_shapes_and_loop():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(5), shape=3)
    graph.add_nodes_from("ab", shape=2, kind="other")
    nx.add_path(graph, range(5), kind="path")
    graph.add_edges_from([(0, "a"), ("a", 0), ("b", 0)], kind="path")
    graph.add_edges_from([(i, i) for i in range(5)], kind="path")
    graph.add_edges_from([("a", "b"), ("b", "a")], kind="path", tie="same")
    network = dx.Network(dx.Topology(graph), {"path": dx.dense()}, dx.sign, key=jax.random.key(0))
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(network.couplings))
    assert shapes == sorted([(4, 3, 3), (1, 2, 3), (2, 3, 2), (5, 3, 3), (2, 2)])
    assert np.array_equal(network["a", "b"].weight, network["b", "a"].weight)
    assert np.array_equal(network["same"].weight, network["a", "b"].weight)
    assert not np.array_equal(network[0, 1].weight, network[1, 2].weight)


def test_a_tie_may_span_images_of_different_sizes():
    graph = nx.DiGraph()
    for name, size in (("a", 4), ("b", 6)):
        graph.add_node(name, shape=(size, size, 1))
        graph.add_node(name + "2", shape=(size, size, 2))
        graph.add_edge(name, name + "2", kind="conv", tie="filter")
    network = dx.Network(
        dx.Topology(graph), {"conv": dx.conv(kernel=3)}, dx.identity, key=jax.random.key(0)
    )
    assert [leaf.shape for leaf in jax.tree.leaves(network.couplings)] == [(3, 3, 1, 2)]
    state = random_state(network.topology, 2)

    @jax.jit
    def answers(network, state):
        said = {name + "2": jax.vmap(network["filter"])(state[name]) for name in "ab"}
        return network.local_field(state), said

    fields, said = answers(network, state)
    for name, expected in said.items():
        np.testing.assert_allclose(fields[name], expected, atol=1e-6)


def test_couplings_are_the_formulas_they_say():
    """Own couplings against NumPy, and Equinox's layers as they are."""
    key, x = (
        jax.random.key(0),
        np.random.default_rng(0).normal(size=(2, 5, 6, 2)).astype(np.float32),
    )
    graph = nx.DiGraph()
    graph.add_node("image", shape=(5, 6, 2))
    graph.add_node("out", shape=(3, 2, 4))
    graph.add_node("flat", shape=7)
    graph.add_edge("image", "out", kind="conv")
    graph.add_edge("image", "flat", kind="dense")
    graph.add_edge("flat", "flat", kind="loop")
    graph.add_edge("flat", "flat2", kind="layer")
    graph.add_node("flat2", shape=3)
    couplings = {
        "conv": dx.conv(kernel=(3, 4), stride=(2, 3), padding=((1, 1), (1, 1)), gain=2.0),
        "dense": dx.dense(gain=0.5),
        "loop": dx.dense(gain=0.3, self_coupling=-0.7),
        "layer": lambda s, r, key: eqx.nn.MLP(s[0], r[0], 4, 1, key=key),
    }
    network = dx.Network(dx.Topology(graph), couplings, dx.tanh, key=key)
    state = dx.GraphState(network.topology).init(
        {"image": x, "flat": x[:, 0, :, 0] @ np.ones((6, 7), np.float32)}
    )

    @jax.jit
    def answers(network, state):
        layer = jax.vmap(network["flat", "flat2"])(state["flat"])
        return network.messages(state), layer

    sent, layer = jax.tree.map(np.asarray, answers(network, state))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    weight = np.asarray(network["image", "out"].weight)
    for i in range(3):
        for j in range(2):
            window = padded[:, 2 * i : 2 * i + 3, 3 * j : 3 * j + 4]
            np.testing.assert_allclose(
                sent["image", "out"][:, i, j], np.einsum("bhwc,hwco->bo", window, weight), atol=1e-4
            )
    np.testing.assert_allclose(
        sent["image", "flat"],
        x.reshape(2, -1) @ np.asarray(network["image", "flat"].weight).T,
        atol=1e-4,
    )
    loop = np.array(network["flat", "flat"].weight)
    np.fill_diagonal(loop, -0.7)
    np.testing.assert_allclose(sent["flat", "flat"], np.asarray(state["flat"]) @ loop.T, atol=1e-4)
    np.testing.assert_allclose(sent["flat", "flat2"], layer, atol=1e-5)


def test_gain_scales_the_initial_weights():
    graph = dx.topologies.sequential([400, 300, 3])
    topology = dx.Topology(graph)
    network = dx.Network(
        topology,
        dict.fromkeys(topology.edge_kinds, dx.dense(gain=0.5)),
        dx.tanh,
        key=jax.random.key(0),
    )
    first, second = (np.asarray(network[edge].weight) for edge in ((0, 1), (1, 1)))
    assert first.std() * np.sqrt(400) == pytest.approx(0.5, rel=0.02)
    assert not np.array_equal(first[:3, :3], second[:3, :3])


def test_dtypes_of_messages_and_states():
    """bfloat16 parameters take bfloat16 senders; fields are float32, the state its own."""

    def half(s, r, key):
        return eqx.nn.Linear(s[0], r[0], key=key, dtype=jnp.bfloat16)

    graph = nx.DiGraph()
    graph.add_node("a", shape=3, dtype="int8")
    graph.add_node("b", shape=2, dtype="bfloat16")
    graph.add_edge("a", "b", kind="half")
    network = dx.Network(dx.Topology(graph), {"half": half}, dx.identity, key=jax.random.key(0))
    state = dx.GraphState(network.topology).init({"a": np.array([[1, -1, 1]])})
    assert network["a", "b"].weight.dtype == jnp.bfloat16
    assert network.messages(state)["a", "b"].dtype == jnp.float32
    assert dx.step(network, state)["b"].dtype == jnp.bfloat16


def test_replace_val_changes_one_edge():
    network = CASES["parallel"].network()
    half = np.full((3, 2), 0.5, np.float32)
    module = eqx.tree_at(lambda m: m.weight, network["a", "b", "x"], jax.device_put(half))
    changed = network.replace_val(("a", "b", "x"), module)
    assert np.array_equal(changed["a", "b", "x"].weight, half)
    for edge in network.topology.edges:
        if edge != ("a", "b", "x"):
            assert np.array_equal(changed[edge].weight, network[edge].weight)
    tied = CASES["tied"].network()
    one = eqx.tree_at(lambda m: m.weight, tied["t"], jnp.ones((3, 3)))
    assert np.all(np.asarray(tied.replace_val("t", one)["b", "c"].weight) == 1)


def test_partition_holds_just_what_rules_train():
    network = CASES["mixed"].network()
    params, rest = dx.partition(network, {"edge": dx.hebbian(), "linear": dx.hebbian()})
    kinds = {
        jax.tree_util.keystr(path).split("'")[1]
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    assert kinds == {"edge", "linear", "hidden"}
    assert jax.tree.structure(eqx.combine(params, rest)) == jax.tree.structure(network)
    assert "loop" in {
        jax.tree_util.keystr(path).split("'")[1]
        for path, _ in jax.tree_util.tree_leaves_with_path(rest.couplings)
    }
    only, _ = dx.partition(network, {"loop": dx.hebbian()})
    values = [leaf.shape for leaf in jax.tree.leaves(only.couplings)]
    assert values == [(1, 4, 4)]  # the weights, not the fixed diagonal
    labels = params.labels()
    assert sorted(set(jax.tree.leaves(labels))) == ["edge", "hidden", "linear"]
    rates = {"edge": optax.sgd(1.0), "linear": optax.sgd(2.0), "hidden": optax.sgd(3.0)}
    optimiser = optax.multi_transform(rates, labels)

    @jax.jit
    def first_steps(params):
        ones = jax.tree.map(jnp.ones_like, params)
        return optimiser.update(ones, optimiser.init(params), params)[0]

    steps = jax.tree.map(np.asarray, first_steps(params))
    assert {float(s.ravel()[0]) for s in jax.tree.leaves(steps.couplings["linear"])} == {-2.0}
    assert {float(s.ravel()[0]) for s in jax.tree.leaves(steps.biases)} == {-3.0}


def test_a_fixed_strength_is_never_trained():
    graph = nx.DiGraph()
    graph.add_nodes_from("ab", shape=2)
    graph.add_edge("a", "b", kind="fixed")
    graph.add_edge("b", "a", kind="free")
    couplings = {"fixed": dx.scale(2.0, fixed=True), "free": dx.scale(3.0)}
    network = dx.Network(
        dx.Topology(graph), couplings, dx.leaky(0.5, dx.tanh), key=jax.random.key(0)
    )
    params, _ = dx.partition(network, {"free": dx.hebbian()})
    assert [float(leaf[0, 0]) for leaf in jax.tree.leaves(params)] == [3.0]
    swept = eqx.tree_at(lambda n: n.activations["node"].rate, network, jnp.float32(0.25))
    state = random_state(network.topology, 2)
    dx.step(network, state)
    assert compilations(lambda: dx.step(swept, state)) == 0


def test_an_ensemble_maps_over_params_and_shares_the_rest():
    network = CASES["chain"].network()
    params, rest = dx.partition(network, dict.fromkeys(network.topology.edge_kinds, dx.hebbian()))
    members = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf) * (1 + i), params) for i in range(3)]
    members = jax.device_put(members)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    state = random_state(network.topology, 2)
    step = jax.vmap(lambda p: dx.step(eqx.combine(p, rest), state).arrays)
    together = jax.tree.map(np.asarray, jax.jit(step)(stacked))
    for i, member in enumerate(members):
        alone = dx.step(eqx.combine(member, rest), state).arrays
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(ours[i], theirs)


def test_equal_arguments_compile_once():
    def fresh():
        case = CASES["windows"]
        network = type(case)(case.graph, case.activations, case.biases, case.couplings).network()
        return network, random_state(network.topology, 3)

    def call(network, state):
        clamp = {("feature", 1): np.array([True, False])}
        return dx.relax(
            network,
            state,
            schedule=dx.groups([list(network.topology.nodes)]),
            clamp=clamp,
            silence=[("feature", 2)],
            max_steps=5,
        )

    one, two = fresh(), fresh()
    assert one[0].topology is not two[0].topology
    assert compilations(lambda: call(*one)) > 0
    assert compilations(lambda: call(*two)) == 0


def constants(text):
    """The largest constant of a lowered program, in elements."""
    import re

    shapes = re.findall(
        r"stablehlo.constant dense<(?!-?[\d.eE+]+>|true>|false>)[^>]*> : tensor<([\dx]*)x?[a-z]+\d*>",
        text,
    )
    return max(
        (int(np.prod([int(n) for n in shape.split("x") if n] or [1])) for shape in shapes),
        default=0,
    )


def test_the_default_step_holds_no_large_constant():
    n = 3000
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, n, (4 * n, 2)), axis=0)
    topology = dx.Topology.from_edges(pairs[:, 0], pairs[:, 1], n=n, inputs=range(0, n, 3))
    network = dx.Network(topology, {"edge": dx.scale()}, dx.sign, key=jax.random.key(0))
    state = dx.GraphState(topology, 2)
    for silence in ([], [1, 5, 7]):
        step = eqx.filter_jit(
            lambda network, state, silence=silence: dx.step(network, state, silence=silence)
        )
        text = step.lower(network, state).as_text()
        assert constants(text) * 4 <= 1024
    assert constants("%c = stablehlo.constant dense<[1, 2, 3]> : tensor<3xi32>") == 3


def test_couplings_of_equal_kind_are_made_in_one_call():
    calls = []

    def factory(s, r, key):
        calls.append((s, r))
        return eqx.nn.Linear(s[0], r[0], key=key)

    topology = dx.Topology(dx.topologies.sequential([3, 3, 3, 3, 3]))
    network = dx.Network(
        topology, dict.fromkeys(topology.edge_kinds, factory), dx.sign, key=jax.random.key(0)
    )
    assert len(calls) == 3
    assert network[0, 1].weight.shape == (3, 3)


def test_a_factory_that_draws_nothing_is_called_without_a_key(monkeypatch):
    def refuse(*_):
        raise AssertionError("a key was drawn")

    monkeypatch.setattr("darnax.network.parameters.derived", refuse)
    keys = []

    def factory(s, r, key=None, *, edges):
        keys.append(key)
        return eqx.tree_at(
            lambda m: m.weight,
            eqx.nn.Linear(2, 2, key=jax.random.key(1)),
            edges["weight"] * jnp.eye(2),
        )

    g = nx.DiGraph()
    g.add_nodes_from("abc", shape=2)
    g.add_edge("a", "b", kind="own", weight=2.0)
    g.add_edge("b", "c", kind="own", weight=3.0)
    g.add_edge("c", "a", kind="tied", tie="t", weight=4.0)
    network = dx.Network(
        dx.Topology(g),
        {"own": factory, "tied": factory},
        dx.identity,
        biases={"node": dx.bias(0.5)},
        key=jax.random.key(0),
    )
    assert keys == [None, None]
    ones = {v: np.ones((1, 2), np.float32) for v in "abc"}
    state = values(dx.step(network, dx.GraphState(network.topology).replace(ones)))
    bias = [np.asarray(network[v, w].bias) for v, w in ("ab", "bc", "ca")]
    for v, weight, own in zip("bca", (2, 3, 4), bias, strict=True):
        np.testing.assert_allclose(state[v][0], weight + own + 0.5, rtol=1e-6)


def test_summary_tells_parameters_and_activations():
    text = CASES["mixed"].network().summary()
    for word in ("conv", "linear", "relay", "dense", "leaky", "softmax", "hidden"):
        assert word in text


def test_a_factory_of_any_arguments_is_given_a_key():
    network = built(couplings={"go": lambda *given: eqx.nn.Linear(3, 4, key=given[2])})
    assert network["a", "b"].weight.shape == (4, 3)


def built(graph=None, couplings=None, activations=dx.sign, **rest):
    if graph is None:
        graph = nx.DiGraph()
        graph.add_node("a", shape=3)
        graph.add_node("b", shape=4, kind="other")
        graph.add_edge("a", "b", kind="go")
    couplings = {"go": dx.dense()} if couplings is None else couplings
    return dx.Network(dx.Topology(graph), couplings, activations, key=jax.random.key(0), **rest)


@pytest.mark.parametrize(
    "activation", [dx.tanh, dx.identity, dx.leaky(0.5, dx.sign), lambda field: field]
)
def test_values_that_a_dtype_cannot_hold(activation):
    graph = nx.DiGraph()
    graph.add_node("a", shape=3, dtype="int8")
    graph.add_edge("a", "a", kind="go")
    with pytest.raises(
        ValueError, match=r"on node 'a' of shape \(3,\) and dtype int8: .* which int8 cannot hold"
    ):
        built(graph, activations=activation)
    for fine in (
        dx.sign,
        dx.glauber(1.0),
        lambda field: jnp.where(field > 0, 1, -1).astype(jnp.int8),
    ):
        built(graph, activations=fine)


def test_overlapping_views_answer_alike():
    graph = nx.DiGraph(arrays={"line": 4})
    graph.add_node("l", array="line", index=slice(0, 3), kind="left")
    graph.add_node("r", array="line", index=slice(2, 4), kind="right")
    graph.add_edges_from([("l", "l"), ("r", "r")], kind="go")
    with pytest.raises(
        ValueError,
        match=r"nodes 'l', 'r' overlap .* 'left', 'right' \(softmax\) is not known to be elementwise",
    ):
        built(graph, activations=dx.softmax)
    with pytest.raises(
        ValueError,
        match=r"not known to be elementwise; mark a function of your own with dx.elementwise",
    ):
        built(graph, activations=lambda field: field)
    with pytest.raises(ValueError, match="kinds 'left', 'right' have different activations"):
        built(graph, activations={"left": dx.sign, "right": dx.tanh})
    built(graph, activations=dx.elementwise(lambda field: field))
    graph.nodes["r"]["index"] = slice(3, 4)
    network = built(graph, activations={"left": dx.softmax, "right": dx.tanh})
    state = random_state(network.topology, 3)
    field = jax.tree.map(np.asarray, network.local_field(state))
    after = values(dx.step(network, state))
    grown = np.exp(field["l"])
    np.testing.assert_allclose(after["l"], grown / grown.sum(axis=-1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(after["r"], np.tanh(field["r"]), atol=1e-6)
    one = dx.step(network, state, schedule=dx.node_by_node())
    np.testing.assert_allclose(values(one)["l"], after["l"], atol=1e-6)


def test_a_raw_key_is_taken():
    topology = dx.Topology(dx.topologies.sequential([2, 2]))
    couplings = dict.fromkeys(topology.edge_kinds, dx.dense())
    raw = dx.Network(topology, couplings, dx.sign, key=jax.random.PRNGKey(0))
    assert np.array_equal(
        raw[0, 1].weight,
        dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))[0, 1].weight,
    )


def test_weights_of_the_helpers_are_coarse():
    for leaf in jax.tree.leaves(rounded(CASES["hub"].network()).couplings):
        assert (np.asarray(leaf) * 64 == np.round(np.asarray(leaf) * 64)).all()


def test_biases_of_kinds_that_share_cells_add_up_and_learn_apart():
    """A cell that nodes of two kinds cover hears the biases of both."""
    graph = nx.DiGraph(arrays={"line": 5})
    graph.add_node("left", array="line", index=slice(0, 3), kind="one")
    graph.add_node("right", array="line", index=slice(2, 5), kind="two")
    graph.add_edge("left", "left")
    graph.add_edge("right", "right")
    topology = dx.Topology(graph)
    biases = {"one": dx.bias(1.0), "two": dx.bias(10.0)}
    network = dx.Network(
        topology, {"edge": dx.scale(0.0)}, dx.tanh, biases=biases, key=jax.random.key(0)
    )
    state = dx.GraphState(topology).init({"left": jnp.full((1, 3), 0.5)})
    field = jax.tree.map(np.asarray, network.local_field(state))
    assert field["left"][0].tolist() == [1, 1, 11]
    assert field["right"][0].tolist() == [11, 10, 10]
    for schedule in (dx.synchronous(), dx.node_by_node(), dx.unit_by_unit()):
        moved = dx.step(network, state, schedule=schedule)
        found = values(moved)
        np.testing.assert_allclose(found["left"][0], np.tanh([1, 1, 11]), atol=1e-6)
        np.testing.assert_allclose(found["right"][0], np.tanh([11, 10, 10]), atol=1e-6)
    updates = dx.local_updates(network, moved, {"edge": dx.hebbian()}).biases
    np.testing.assert_allclose(updates["one"]["line"], -np.tanh([1, 1, 11, 0, 0]), atol=1e-6)
    np.testing.assert_allclose(updates["two"]["line"], -np.tanh([0, 0, 11, 10, 10]), atol=1e-6)
