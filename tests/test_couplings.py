"""Couplings one by one: what they compute, and how they start."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from helpers import values
from jax.experimental.sparse import BCOO

import darnax as dx


def network(coupling, sender, receiver=None, activation=dx.identity, seed=0):
    """Node "a" that sends to "b", or to itself."""
    graph = nx.DiGraph()
    graph.add_node("a", shape=sender)
    if receiver is not None:
        graph.add_node("b", shape=receiver)
    graph.add_edge("a", "a" if receiver is None else "b")
    return dx.Network(dx.Topology(graph), {"edge": coupling}, activation, key=jax.random.key(seed))


@jax.jit
def message(network, x):
    """What the one edge says of `x: (B, *sender)`."""
    (said,) = network.messages(dx.GraphState(network.topology).init({"a": x})).values()
    return said


def numbers(shape, seed=0):
    return np.random.default_rng(seed).integers(-8, 8, shape).astype(np.float32) / 8


# both ends


def test_edge_mlp_hears_both_ends():
    made = network(dx.edge_mlp(5, jnp.tanh, gain=0.5), (2, 2), 3)
    module = made["a", "b"]
    assert [w.shape for w in jax.tree.leaves(module)] == [(5, 4), (5, 3), (5,), (3, 5)]
    x, y = numbers((6, 2, 2)), numbers((6, 3), seed=1)
    (said,) = made.messages(dx.GraphState(made.topology).init({"a": x, "b": y})).values()
    module = jax.tree.map(np.asarray, module)
    hidden = np.tanh(x.reshape(6, 4) @ module.sender_weight.T + y @ module.receiver_weight.T)
    np.testing.assert_allclose(said, hidden @ module.weight.T, atol=1e-5)


def test_edge_mlp_starts_at_the_scale_of_its_sums():
    module = network(dx.edge_mlp(400, gain=0.5), 300, 100)["a", "b"]
    module = jax.tree.map(np.asarray, module)
    first = np.concatenate([module.sender_weight, module.receiver_weight], axis=1)
    np.testing.assert_allclose(
        [first.std(), module.weight.std()], [1 / 400**0.5, 0.5 / 400**0.5], rtol=0.02
    )
    assert not np.any(module.bias)


def test_what_hears_its_receiver_learns_by_its_own_derivative():
    made = network(dx.edge_mlp(4, jnp.tanh), 3, 2, activation=dx.tanh)
    x, y, signal = numbers((5, 3)), numbers((5, 2), seed=1), numbers((5, 2), seed=2)

    @jax.jit
    def learnt(made, x, y, signal):
        state = dx.GraphState(made.topology).init({"a": x, "b": y})
        rule = {"edge": lambda field, state: state}
        updates = dx.local_updates(made, state, rule, target=state.replace({"b": signal}))
        return updates.couplings["edge"][0]

    @jax.jit
    @jax.grad
    def expected(module):
        return jnp.mean(jnp.sum(jax.vmap(module)(x, y) * signal, axis=-1))

    found = jax.tree.leaves(learnt(made, x, y, signal))
    for ours, theirs in zip(found, jax.tree.leaves(expected(made["a", "b"])), strict=True):
        np.testing.assert_allclose(np.asarray(ours)[0], theirs, atol=1e-6)


# after a function


@pytest.mark.parametrize("fn", [dx.tanh, jax.nn.softmax], ids=["tanh", "softmax"])
def test_a_coupling_after_a_function_hears_what_it_gives(fn):
    made, plain = network(dx.after(fn, dx.dense()), (2, 3), 4), network(dx.dense(), (2, 3), 4)
    x = numbers((5, 2, 3))
    np.testing.assert_array_equal(made["a", "b"].coupling.weight, plain["a", "b"].weight)
    np.testing.assert_allclose(message(made, x), message(plain, jax.vmap(fn)(x)), atol=1e-6)


def test_many_couplings_after_a_function_have_each_their_own_parameters():
    graph = nx.complete_graph(4, nx.DiGraph)
    nx.set_node_attributes(graph, 3, "shape")
    nx.set_edge_attributes(graph, {(0, 1): "t", (2, 3): "t"}, "tie")
    factories = {
        "ours": dx.after(jnp.tanh, dx.dense()),
        "user's": dx.after(jnp.tanh, lambda s, r, key: eqx.nn.Linear(s[0], r[0], key=key)),
        "plain": dx.after(jnp.tanh, lambda s, r: eqx.nn.Identity()),
    }
    x = numbers((4, 2, 3))
    for factory in factories.values():
        made = dx.Network(dx.Topology(graph), {"edge": factory}, dx.tanh, key=jax.random.key(0))
        state = dx.GraphState(made.topology).init(dict(enumerate(x)))
        for (u, v), said in made.messages(state).items():
            inside = made[u, v].coupling
            np.testing.assert_allclose(said, jax.vmap(inside)(np.tanh(x[u])), atol=1e-6)


def test_factories_after_a_function_are_equal_when_made_anew():
    assert dx.after(dx.tanh, dx.dense(0.5)) == dx.after(dx.tanh, dx.dense(0.5))
    assert dx.after(dx.tanh, dx.dense(0.5)) != dx.after(dx.relu, dx.dense(0.5))


def test_what_has_no_derivative_has_no_way_back_but_learns():
    refused = r"`fn` of dx\.after cannot be differentiated: sign has no derivative"
    graph = nx.DiGraph()
    graph.add_nodes_from("ab", shape=3)
    graph.add_edge("a", "b", kind="there")
    # one that is turned around by itself, and one whose derivative is taken as a whole
    for coupling in (dx.dense(), dx.edge_mlp(3, jnp.tanh)):
        there = {"there": dx.after(dx.sign, coupling)}
        made = dx.Network(dx.Topology(graph), there, dx.tanh, key=jax.random.key(0))
        state = dx.GraphState(made.topology).init({"a": numbers((4, 3)), "b": numbers((4, 3))})
        # by its weights it has a derivative
        updates = dx.local_updates(made, state, {"there": dx.hebbian()})
        assert any(np.any(leaf) for leaf in jax.tree.leaves(updates))
        with pytest.raises(TypeError, match=refused):
            jax.grad(lambda state: dx.step(made, state)["b"].sum())(state)  # noqa: B023
        both = dx.Topology(dx.topologies.reciprocal(graph, "there"))
        with pytest.raises(TypeError, match=rf"on edge \('b', 'a'\), .*{refused}"):
            dx.Network(
                both, there | {"back": dx.transpose("there")}, dx.tanh, key=jax.random.key(0)
            )


def test_functions_before_a_coupling_keep_the_shape():
    with pytest.raises(
        ValueError, match=r"`fn` of dx\.after keeps the shape, but gave \(\) for \(3,\)"
    ):
        network(dx.after(jnp.sum, dx.relay()), 3, 3)


# layers of Equinox


@pytest.mark.parametrize(
    ("space", "options"),
    [
        ((6, 7), {"padding": 1, "stride": (2, 1)}),
        ((9,), {"padding": "SAME", "use_bias": False}),
        ((4, 5, 3), {}),
        ((6, 7), {"dilation": 2}),
        ((6, 7), {"padding": 1, "padding_mode": "CIRCULAR"}),
        ((6, 7), {"groups": 2}),
    ],
    ids=str,
)
def test_convolutions_of_equinox_are_run_as_ours(space, options):
    layer = eqx.nn.Conv(len(space), 2, 4, 2, **options, key=jax.random.key(1))
    x = numbers((3, 2, *space))
    receiver = jax.eval_shape(layer, x[0]).shape
    made = network(lambda s, r, key: layer, (2, *space), receiver)
    ours = set(options) <= {"padding", "stride", "use_bias"}
    assert ("shifted copies" in made.summary()) == ours

    @jax.jit
    def found(made, x):
        state = dx.GraphState(made.topology).init({"a": x})
        updates = dx.local_updates(made, state, {"edge": lambda field, state: field})
        return dx.step(made, state)["b"], updates.couplings["edge"][0]

    @eqx.filter_jit
    def expected(layer, x):
        said, pull = eqx.filter_vjp(lambda layer: jax.vmap(layer)(x), layer)
        return said, pull(said / 3)[0]

    (said, learnt), (wanted_said, wanted) = found(made, x), expected(layer, x)
    np.testing.assert_allclose(said, wanted_said, atol=1e-6)
    for ours, theirs in zip(*map(jax.tree.leaves, (learnt, wanted)), strict=True):
        np.testing.assert_allclose(np.asarray(ours)[0], theirs, rtol=1e-5, atol=1e-4)


def test_a_layer_that_calls_itself_otherwise_is_left_alone():
    class Louder(eqx.nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    graph = nx.complete_graph(10, nx.DiGraph)
    nx.set_node_attributes(graph, 3, "shape")
    made = dx.Network(
        dx.Topology(graph),
        {"edge": lambda s, r, key: Louder(3, 3, key=key)},
        dx.tanh,
        key=jax.random.key(0),
    )
    assert "side by side" not in made.summary()


# sparse


as_bcoo = jax.jit(BCOO.fromdense, static_argnames="nse")


def wiring(n=9, m=6):
    rng = np.random.default_rng(1)
    return np.where(rng.random((m, n)) < 0.3, rng.integers(1, 9, (m, n)) / 8, 0).astype(np.float32)


@pytest.mark.parametrize(
    "given",
    [
        lambda dense: scipy.sparse.csr_array(dense),
        lambda dense: scipy.sparse.coo_matrix(dense),
        lambda dense: as_bcoo(dense, nse=(dense != 0).sum()),
        lambda dense: as_bcoo(dense, nse=50),
    ],
    ids=["csr", "coo", "bcoo", "padded bcoo"],
)
def test_sparse_is_the_dense_matrix_with_the_same_entries(given):
    dense = wiring()
    made = network(dx.sparse(given(dense)), (3, 3), 6)
    x = numbers((4, 3, 3))
    np.testing.assert_allclose(message(made, x), x.reshape(4, 9) @ dense.T, atol=1e-6)
    assert made["a", "b"].weight.shape == ((dense != 0).sum(),)


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_sparse_of_a_graph(directed, weights):
    graph = nx.gnp_random_graph(8, 0.4, seed=2, directed=directed)
    graph.add_edge(3, 3)
    if weights:
        for i, (u, v) in enumerate(graph.edges):
            graph[u][v]["weight"] = i / 8
        del graph[3][3]["weight"]
    graph = nx.relabel_nodes(graph, {i: f"v{7 - i}" for i in range(8)})
    made = network(dx.sparse(graph), 8)
    x = numbers((4, 8))
    expected = x @ nx.to_numpy_array(graph, weight="weight").astype(np.float32)
    np.testing.assert_allclose(message(made, x), expected, atol=1e-5)


def test_sparse_learns_its_entries_alone():
    dense = wiring(6, 6)
    sparse, full = network(dx.sparse(scipy.sparse.coo_array(dense)), 6), network(dx.dense(), 6)
    full = full.replace_val(
        ("a", "a"), eqx.tree_at(lambda c: c.weight, full["a", "a"], jnp.asarray(dense))
    )
    rules, x = {"edge": dx.perceptron(0.5)}, np.sign(numbers((5, 6)) + 0.01)
    ours, theirs = (
        dx.local_updates(net, dx.GraphState(net.topology).init({"a": x}), rules)["a", "a"].weight
        for net in (sparse, full)
    )
    rows, columns = np.nonzero(dense)
    np.testing.assert_allclose(ours, np.asarray(theirs)[rows, columns], atol=1e-6)
    params, _ = dx.partition(sparse, rules)
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(1, len(rows))]


def test_sparse_draws_weights_by_gain():
    wide = nx.fast_gnp_random_graph(400, 0.1, seed=0, directed=True)
    drawn, other = (
        np.asarray(network(dx.sparse(wide, gain=2.0), 400, seed=seed)["a", "a"].weight)
        for seed in (0, 1)
    )
    degree = wide.number_of_edges() / 400
    np.testing.assert_allclose(drawn.std(), 2 / math.sqrt(degree), rtol=0.02)
    assert abs(float(drawn.mean())) < 0.01
    assert (other != drawn).all()


def test_sparse_without_entries_says_nothing():
    empty = network(dx.sparse(nx.empty_graph(4), gain=1.0), 4)
    assert not np.any(message(empty, numbers((2, 4))))


# conv_transpose


@pytest.mark.parametrize(
    ("image", "kernel", "stride", "padding"),
    [
        ((7, 6), (3, 2), (2, 1), ((1, 0), (0, 1))),
        ((8, 8), 5, 1, "SAME"),
        ((9, 8), 3, 2, "SAME"),
        ((9,), 4, 3, "VALID"),
        ((4, 3, 4), 2, 1, 1),
    ],
)
def test_conv_transpose_is_the_transpose_of_conv(image, kernel, stride, padding):
    forward_shape = (*image, 2)
    x = numbers((3, *forward_shape))
    axes = len(image)
    window, steps = ((v,) * axes if isinstance(v, int) else v for v in (kernel, stride))
    pads = [(padding,) * 2] * axes if isinstance(padding, int) else padding
    space = "DHW"[-axes:]
    weight = jax.device_put(numbers((*window, 2, 4), seed=1))

    def plain(image):
        spec = (f"N{space}C", f"{space}IO", f"N{space}C")
        return jax.lax.conv_general_dilated(image, weight, steps, pads, dimension_numbers=spec)

    y = jax.eval_shape(plain, x)
    made = network(dx.conv_transpose(kernel, stride, padding), y.shape[1:], forward_shape)
    assert made["a", "b"].weight.shape == weight.shape
    made = made.replace_val(("a", "b"), eqx.tree_at(lambda c: c.weight, made["a", "b"], weight))
    f = numbers(y.shape, seed=2)
    (expected,) = jax.jit(lambda x, f: jax.vjp(plain, x)[1](f))(x, f)
    np.testing.assert_allclose(message(made, f), expected, atol=1e-5)


def test_conv_transpose_starts_at_the_scale_of_its_sums():
    made = network(dx.conv_transpose(5, 2, gain=2.0), (16, 16, 32), (32, 32, 3))
    weight = np.asarray(made["a", "b"].weight)
    np.testing.assert_allclose(weight.std(), 2 / math.sqrt(25 * 32 / 4), rtol=0.05)
    field = np.asarray(message(made, np.sign(numbers((4, 16, 16, 32)) + 0.01)))[:, 4:-4, 4:-4]
    np.testing.assert_allclose(field.std(), 2, rtol=0.1)


# pool and upsample


@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [((6, 4, 2), 2, None), ((7, 5, 3), (3, 2), (2, 1)), ((9, 1), 3, 3), ((4, 4, 4, 2), 2, 1)],
)
@pytest.mark.parametrize(
    ("reduce", "plain"), [(jnp.mean, np.mean), (jnp.max, np.max)], ids=["mean", "max"]
)
def test_pool_is_a_window_reduction(shape, window, stride, reduce, plain):
    axes = len(shape) - 1
    size = (window,) * axes if isinstance(window, int) else window
    step = size if stride is None else (stride,) * axes if isinstance(stride, int) else stride
    x = numbers((3, *shape))
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=tuple(range(1, axes + 1)))
    windows = windows[(slice(None), *(slice(None, None, every) for every in step))]
    expected = plain(windows, axis=tuple(range(-axes, 0)))
    made = network(dx.pool(window, stride, reduce), shape, expected.shape[1:])
    np.testing.assert_allclose(message(made, x), expected, atol=1e-6)
    assert not jax.tree.leaves(made.couplings)


def test_upsample_repeats_units():
    made = network(dx.upsample((2, 3)), (2, 2, 2), (4, 6, 2))
    x = numbers((3, 2, 2, 2))
    np.testing.assert_array_equal(message(made, x), np.kron(x, np.ones((1, 2, 3, 1))))


# dense with a factor


def test_tied_edges_keep_factors_of_their_own():
    """One matrix for all edges, a number of its own for each, whichever groups they run in."""
    graph = nx.DiGraph()
    graph.add_nodes_from("abc", shape=3)
    graph.add_node("d", shape=3, dtype="bfloat16")  # another array, and so another group
    for i, edge in enumerate(
        [("a", "b"), ("b", "a"), ("c", "a"), ("a", "a"), ("d", "c"), ("b", "c")]
    ):
        graph.add_edge(*edge, tie="one", strength=(i + 1) / 4)
    topology = dx.Topology(graph)
    assert len(topology.groups) > 2
    made = dx.Network(
        topology, {"edge": dx.dense(factor="strength")}, dx.identity, key=jax.random.key(0)
    )
    state = dx.GraphState(topology).init(
        {node: np.sign(numbers((2, 3), i) + 0.01) for i, node in enumerate("abcd")}
    )
    weight = np.asarray(made["one"].weight)
    held = {node: value.astype(np.float32) for node, value in values(state).items()}
    for (u, v), said in made.messages(state).items():
        strength = graph[u][v]["strength"]
        np.testing.assert_allclose(said, strength * held[u] @ weight.T, atol=1e-6)
        assert float(made[u, v].factor.value) == strength
    for schedule in (dx.synchronous(), dx.node_by_node(["c", "b", "a", "d"])):
        moved = dx.step(made, state, schedule=schedule)
        terms = {"c": [("d", 1.25), ("b", 1.5)]}
        expected = sum(strength * held[u] @ weight.T for u, strength in terms["c"])
        np.testing.assert_allclose(moved["c"], expected, atol=1e-5)
    params, _ = dx.partition(made, {"edge": dx.hebbian()})
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(3, 3)]
    updates = dx.local_updates(made, state, {"edge": dx.hebbian()})["one"].weight
    expected = -sum(
        data["strength"] * np.einsum("bi,bj->ij", held[v], held[u]) / 2
        for u, v, data in graph.edges(data=True)
    )
    np.testing.assert_allclose(updates, expected, atol=1e-5)


def test_a_factor_of_untied_edges():
    graph = nx.DiGraph()
    graph.add_nodes_from("abc", shape=2)
    graph.add_edge("a", "b", strength=2.0)
    graph.add_edge("a", "c", strength=3.0)
    made = dx.Network(
        dx.Topology(graph), {"edge": dx.dense(factor="strength")}, dx.tanh, key=jax.random.key(0)
    )
    x = numbers((2, 2))
    for (u, v), said in made.messages(dx.GraphState(made.topology).init({"a": x})).items():
        np.testing.assert_allclose(
            said, graph[u][v]["strength"] * x @ np.asarray(made[u, v].weight).T, atol=1e-6
        )


def test_a_coupling_without_arrays_may_prepare_itself():
    class Negative(dx.Coupling):
        def __call__(self, x):
            return -x

        def prepared(self):
            return Negative()

    graph = nx.DiGraph([("a", "b")])
    nx.set_node_attributes(graph, 2, "shape")
    coupling = lambda sender, receiver: Negative()  # noqa: E731
    made = dx.Network(dx.Topology(graph), {"edge": coupling}, dx.identity, key=jax.random.key(0))
    state = dx.GraphState(made.topology).init({"a": numbers((3, 2))})
    np.testing.assert_array_equal(dx.step(made, state)["b"], -np.asarray(state["a"]))
