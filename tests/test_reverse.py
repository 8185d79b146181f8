"""Reverse edges send the transpose of what their owners send, at the same speed, and learn with
them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import networkx as nx
import numpy as np
import optax
import pytest
import scipy.sparse
from helpers import CASES, Bent
from test_kernels import NETWORKS, compiled, in_plain_way, needs_library, normal_state

import darnax as dx
from darnax.kernels import NativeLibrary
from darnax.testing import random_state, rounded

KEY = jax.random.key(0)


def two_ways(coupling, sender, receiver, **tie):
    """Nodes "a" and "b" that send to each other by one coupling, with a bit of their own noise."""
    graph = nx.DiGraph()
    graph.add_node("a", shape=sender)
    graph.add_node("b", shape=receiver)
    graph.add_edge("a", "b", kind="there", **tie)
    graph.add_edge("b", "a", kind="back")
    couplings = {"there": coupling, "back": dx.transpose("there")}
    return dx.Network(dx.Topology(graph), couplings, dx.tanh, key=KEY)


@jax.jit
def said(network, x, y):
    """What both edges say, `(there, back)`."""
    messages = network.messages(dx.GraphState(network.topology).init({"a": x, "b": y}))
    return messages["a", "b"], messages["b", "a"]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def matrix_of(network, sender, receiver):
    """The matrices there and back, from the messages of unit vectors and of nothing."""
    m, n = int(np.prod(sender)), int(np.prod(receiver))
    x = np.concatenate([np.eye(m), np.zeros((n + 1, m))]).reshape(-1, *sender)
    y = np.concatenate([np.zeros((m, n)), np.eye(n), np.zeros((1, n))]).reshape(-1, *receiver)
    there, back = said(network, x.astype(np.float32), y.astype(np.float32))
    there = np.asarray(there).reshape(m + n + 1, n)
    back = np.asarray(back).reshape(m + n + 1, m)
    return (there[:m] - there[-1]).T, back[m:-1].T


def linear(s, r, key):
    return eqx.nn.Linear(s[0], r[0], key=key)


class Function(eqx.Module):
    """A linear function of a user that has no matrix to show."""

    weight: jax.Array

    def __call__(self, x):
        return jax.lax.scan(lambda total, row: (total + row @ x, total), 0.0, self.weight)[1]


class Shifted(eqx.Module):
    weight: jax.Array
    shift: jax.Array

    def __call__(self, x):
        return self.shift - 2 * self.weight @ (x + 1)


WIRING = scipy.sparse.random_array((30, 40), density=0.4, rng=0, dtype=np.float32)
RING = nx.cycle_graph(5)
LINEAR = {
    "dense": (dx.dense(), (2, 3), (4,)),
    "scalars": (dx.dense(), (), ()),
    "equinox": (linear, (4,), (3,)),
    "function": (lambda s, r, key: Function(jax.random.normal(key, (3, 4))), (4,), (3,)),
    "affine function": (
        lambda s, r, key: Shifted(jax.random.normal(key, (3, 4)), jnp.ones(3)), (4,), (3,),
    ),
    "sparse": (dx.sparse(WIRING), (4, 10), (30,)),
    "sparse, drawn": (dx.sparse(nx.gnp_random_graph(20, 0.3, seed=0, directed=True), 1.0), (20,), (20,)),
    "conv": (dx.conv(3, stride=(2, 1)), (5, 4, 2), (3, 4, 3)),
    "conv of many": (dx.conv((3, 2), padding=((1, 0), (2, 1))), (4, 5, 7), (3, 7, 6)),
    "conv_transpose": (dx.conv_transpose(3, stride=2), (3, 2), (6, 1)),
    "conv of equinox": (
        lambda s, r, key: eqx.nn.Conv2d(2, 3, 3, stride=2, padding=1, key=key), (2, 5, 4), (3, 3, 2),
    ),
    "dilated": (lambda s, r, key: eqx.nn.Conv1d(2, 3, 2, dilation=2, key=key), (2, 6), (3, 4)),
    "pool": (dx.pool(2), (4, 6, 2), (2, 3, 2)),
    "upsample": (dx.upsample((2, 1)), (2, 3, 1), (4, 3, 1)),
    "relay": (dx.relay(), (2, 3), (2, 3)),
    "scale": (dx.scale(0.5), (3,), (3,)),
    "graph": (
        dx.graph_conv(jraph.GraphConvolution(lambda nodes: 2 * nodes, symmetric_normalization=False), RING),
        (5, 2), (5, 2),
    ),
    "bias": (dx.bias(0.5), (3,), (2,)),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_the_way_back_is_the_transpose(name):
    coupling, sender, receiver = LINEAR[name]
    network = two_ways(coupling, sender, receiver)
    there, back = matrix_of(network, sender, receiver)
    np.testing.assert_allclose(back, there.T, atol=2e-6)
    assert np.any(there) or name == "bias"
    # it is known to be linear, so that it does not ask for its receiver
    assert not any(passing.asks for passing in network.message_passing)
    # no parameters of its own
    assert not jax.tree.leaves(network.couplings["back"])
    # an edge by itself says the same
    y = np.eye(back.shape[1], dtype="f").reshape(-1, *receiver)
    alone = jax.jit(jax.vmap(network["b", "a"]))(y)
    np.testing.assert_allclose(np.reshape(alone, (len(y), -1)), back.T, atol=2e-6)


NONLINEAR = {
    "bent": (lambda s, r, key: Bent(jax.random.normal(key, (3, 4))), (4,), (3,)),
    "pool": (dx.pool(2, reduce=jnp.max), (4, 2, 1), (2, 1, 1)),
    "both ends": (dx.edge_mlp(5, jnp.tanh), (4,), (3,)),
    "after": (dx.after(dx.tanh, dx.dense()), (2, 2), (3,)),
    "after, of a convolution": (dx.after(dx.tanh, dx.conv(3, stride=2)), (5, 4, 2), (3, 2, 3)),
    "after, of both ends": (dx.after(jnp.sin, dx.edge_mlp(5, jnp.tanh)), (4,), (3,)),
    "after, of equinox": (dx.after(dx.softmax, linear), (4,), (3,)),
    "jraph": (
        dx.graph_conv(jraph.GraphConvolution(jax.nn.relu, symmetric_normalization=False), RING), (5, 2), (5, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NONLINEAR)
def test_the_way_back_of_what_is_not_linear_is_its_derivative_at_the_present_state(name):
    coupling, sender, receiver = NONLINEAR[name]
    network = two_ways(coupling, sender, receiver)
    x, y = numbers(4, *sender), numbers(4, *receiver, seed=1)
    module = network["a", "b"]

    @jax.jit
    @jax.vmap
    def expected(x, y):
        there = (lambda x: module(x, receiver=y)) if "both ends" in name else module
        return jax.vjp(there, x)[1](y)[0]

    _, back = said(network, x, y)
    np.testing.assert_allclose(back, expected(x, y), atol=2e-6)
    assert "vector-Jacobian product" in network.summary()


# edge groups


def turned(graph, coupling):
    """The graph with the reverse of every edge, in another order and without ties."""
    graph = compiled(graph, coupling).to_networkx()
    for u, v in reversed(list(graph.edges)):
        graph.add_edge(v, u, kind="back")
    graph.graph["edge_kinds"] = ()
    return graph


def of_one_kind_each(graph):
    """The graph without edges both ways, which only a multigraph could hold with their reverse."""
    graph = graph.copy()
    for u, v in list(graph.edges):
        if graph.has_edge(v, u) and u != v:
            graph.remove_edge(u, v)
    return graph


@functools.cache
def both_ways(name):
    graph, coupling, kernel = NETWORKS[name]
    if "native" in kernel:
        needs_library()
    graph = turned(of_one_kind_each(graph), coupling)
    kinds = {data["kind"] for *_, data in graph.edges(data=True)} - {"back"}
    with pytest.MonkeyPatch.context() as patch:
        if name.endswith(", pure"):
            nowhere = NativeLibrary(False, "switched off")
            patch.setattr("darnax.kernels.native.native_library", lambda: nowhere)
        (kind,) = kinds
        couplings = {kind: coupling, "back": dx.transpose(kind)}
        return dx.Network(dx.Topology(graph), couplings, dx.identity, key=KEY)


# one or two for each kernel
GROUPS = [
    "strengths", "strengths, pure", "tied, own strengths", "one matrix with factors", "lattice", "small",
    "matrices", "linear", "both ends", "windows apart", "windows apart, back", "a row of windows",
]  # fmt: skip


@pytest.mark.parametrize("name", GROUPS)
def test_reverse_groups_step_and_learn_as_edge_by_edge(name):
    network = both_ways(name)
    kernels = {p.group.kind: p.kernel for p in network.message_passing}
    # the way back has a kernel wherever the way forward has one; both ends are not linear
    assert (kernels["back"] is None) == (name.startswith("both ends"))
    state = normal_state(network.topology)
    rules = {"back": dx.hebbian()}
    learns = bool(jax.tree.leaves(dx.partition(network, rules)[0]))

    @eqx.filter_jit
    def answers(network, state):
        moved = dx.step(network, state, kinds=["back"])
        quiet = dx.step(network, state, silence=network.topology.nodes[:5])
        changes = dx.local_updates(network, state, rules).couplings if learns else None
        return moved.arrays, quiet.arrays, changes

    found, expected = answers(network, state), answers(in_plain_way(network), state)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@eqx.filter_jit
def passed(network, state, kind):
    """A state after a pass by one kind of edges, and that less what comes of nothing."""
    nothing = jax.tree.map(jnp.zeros_like, state)
    after, offset = (dx.step(network, s, kinds=[kind]).arrays for s in (state, nothing))
    return after, jax.tree.map(jnp.subtract, after, offset)


@pytest.mark.parametrize("name", [n for n in NETWORKS if not n.startswith("both ends")])
def test_a_product_with_what_is_said_is_one_with_what_is_said_back(name):
    """⟨y, C x⟩ = ⟨Cᵀ y, x⟩ over all edges of a group at once, as its kernel runs them."""
    network = both_ways(name)
    (there,) = {*network.topology.edge_kinds} - {"back"}
    state = normal_state(network.topology)

    def where_heard(kind):
        """Random numbers in the cells that a pass by a kind moves, and zeros elsewhere."""
        after, _ = passed(network, state, kind)
        cells = jax.tree.map(lambda a, b: jnp.where(a != b, a, 0), state.arrays, after)
        return state.replace(cells)

    x, y = where_heard("back"), where_heard(there)
    products = []
    for speaks, hears, kind in ((x, y, there), (y, x, "back")):
        _, said = passed(network, speaks, kind)
        total = 0.0
        for array, values in said.items():
            product = np.asarray(values, np.float64) * hears.arrays[array]
            total = total + product.reshape(-1, 2).sum(0)
        products.append(total)
    assert (np.abs(products[0]) > 0.01).all()
    np.testing.assert_allclose(*products, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["strengths", "matrices", "both ends"])
def test_every_reverse_edge_of_a_group_belongs_to_its_own_edge(name):
    network = both_ways(name)
    state = normal_state(network.topology)
    messages = jax.tree.map(np.asarray, network.messages(state))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def pulled(module, x, y):
        there = (lambda x: module(x, y)) if name == "both ends" else module
        return jax.vjp(there, x)[1](y)[0]

    graph = network.topology.to_networkx()
    back = [edge for *edge, kind in graph.edges(data="kind") if kind == "back"]
    for v, u in back[:: len(back) // 7]:
        expected = pulled(network[u, v], state[u], state[v])
        np.testing.assert_allclose(messages[v, u], expected, atol=1e-5)


def test_reverse_edges_of_edges_with_several_ties_take_each_their_own():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(6), shape=2)
    ties = {(0, 1): "s", (1, 2): "t", (3, 4): "s", (2, 3): None, (4, 5): "t", (5, 1): None}
    for (u, v), tie in ties.items():
        graph.add_edge(u, v, kind="there", weight=u + 1.0, **({"tie": tie} if tie else {}))
        graph.add_edge(v, u, kind="back")
    couplings = {"there": dx.dense(factor="weight"), "back": dx.transpose("there")}
    network = dx.Network(dx.Topology(graph), couplings, dx.tanh, key=KEY)
    x = numbers(6, 3, 2)
    state = dx.GraphState(network.topology).init(dict(enumerate(x)))
    messages = jax.jit(lambda network, state: network.messages(state))(network, state)
    for u, v in ties:
        there = network[u, v]
        matrix = np.asarray(there.weight) * float(there.factor.value)
        np.testing.assert_allclose(messages[v, u], x[v] @ matrix, atol=2e-6)
        np.testing.assert_allclose(jax.vmap(network[v, u])(x[v]), x[v] @ matrix, atol=2e-6)


def parallel(edges):
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("ab", shape=3)
    for u, v, key, kind in edges:
        graph.add_edge(u, v, key=key, kind=kind)
    couplings = {"there": dx.dense(), "back": dx.transpose("there")}
    return dx.Network(dx.Topology(graph), couplings, dx.tanh, key=KEY)


def test_parallel_edges_belong_together_by_their_keys():
    pairs = [("a", "b", key, "there") for key in "xyz"]
    pairs += [("b", "a", key, "back") for key in ("z", "x")]
    network = parallel(pairs)
    for key in "xz":
        there, back = network["a", "b", key], network["b", "a", key]
        np.testing.assert_array_equal(back.weight, np.asarray(there.weight).T)
    # where nothing is parallel, keys that networkx gave by itself may differ
    network = parallel([("a", "b", 3, "there"), ("b", "a", 0, "back"), ("b", "b", 0, "there")])
    np.testing.assert_array_equal(network["b", "a"].weight, np.asarray(network["a", "b"].weight).T)


def test_noise_is_that_of_the_message_the_other_way():
    class Lossy(eqx.Module):
        def __call__(self, x, *, key):
            return jnp.where(jax.random.bernoulli(key, shape=x.shape), x, 0)

    network = two_ways(lambda s, r, key=None: Lossy(), (20,), (20,))
    ones = np.ones((4, 20), np.float32)
    state = dx.GraphState(network.topology).init({"a": ones, "b": ones})
    messages = network.messages(state, key=KEY)
    there, back = messages["a", "b"], messages["b", "a"]
    np.testing.assert_array_equal(there, back)
    assert 0 < np.mean(there) < 1


# what learns


def test_a_rule_on_either_kind_trains_the_shared_weights_and_both_add_up():
    network = CASES["both ways"].network()
    state = random_state(network.topology, 4)
    state = state.replace(jax.tree.map(lambda a: 0.5 * a, state.arrays))

    @functools.partial(jax.jit, static_argnums=2)
    def learnt(network, state, kinds):
        return dx.local_updates(network, state, dict.fromkeys(kinds, dx.delta(dx.tanh))).couplings

    alone = [learnt(network, state, (kind,)) for kind in ("up", "down")]
    both = learnt(network, state, ("up", "down"))
    for kind, part in both.items():
        parts = [jax.tree.leaves(updates[kind]) for updates in alone]
        for there, back, together in zip(*parts, jax.tree.leaves(part), strict=True):
            np.testing.assert_allclose(together, there + back, atol=1e-6)
            assert np.any(there)
            assert np.any(back)
        assert bool(parts[0]) == (kind == "up")


def test_what_a_reverse_edge_learns_is_the_outer_product_of_its_ends():
    network = two_ways(dx.dense(), (4,), (3,))
    x, y = numbers(6, 4), numbers(6, 3, seed=1)
    state = dx.GraphState(network.topology).init({"a": x, "b": y})
    updates = dx.local_updates(network, state, {"back": dx.hebbian()})
    (update,) = jax.tree.leaves(updates)
    np.testing.assert_allclose(update[0], -np.einsum("br,bs->rs", y, x) / 6, atol=1e-6)


def test_one_owner_is_known_to_everything(tmp_path):
    network = CASES["both ways"].network()
    rules = {"down": dx.hebbian(), "unbend": dx.hebbian()}
    params, rest = dx.partition(network, rules)
    trained = {kind for kind, part in params.couplings.items() if jax.tree.leaves(part)}
    assert trained == {"up", "bend"}
    assert set(jax.tree.leaves(params.labels())) == {"up", "bend"}
    assert network.couplings["down"] == network.couplings["unbend"] == ()

    # an update of the owner is one of both
    optimiser = optax.sgd(0.1, momentum=0.9)
    state = random_state(network.topology, 2)
    updates = dx.local_updates(network, state, rules)
    steps, _ = optimiser.update(updates, optimiser.init(params), params)
    after = eqx.combine(optax.apply_updates(params, steps), rest)
    assert np.any(after["v", "h"].weight != network["v", "h"].weight)
    np.testing.assert_array_equal(after["h", "v"].weight, np.asarray(after["v", "h"].weight).T)

    # as is another module in its place
    doubled = eqx.tree_at(lambda m: m.weight, network["v", "h"], replace_fn=lambda w: 2 * w)
    after = network.replace_val(("v", "h"), doubled)
    np.testing.assert_array_equal(after["h", "v"].weight, np.asarray(doubled.weight).T)
    with pytest.raises(ValueError, match=r"\('h', 'v'\) has no .* transpose of \('v', 'h'\)"):
        network.replace_val(("h", "v"), doubled)

    # files hold it once
    dx.save(tmp_path / "network", after)
    again = dx.load(tmp_path / "network", like=network)
    np.testing.assert_array_equal(again["h", "v"].weight, np.asarray(doubled.weight).T)
    assert len(jax.tree.leaves(again.couplings)) == 7

    rows = [line.split() for line in network.summary().splitlines() if "transpose of" in line]
    assert {row[0] for row in rows} == {"down", "deconv", "unbend"}
    assert "'down': 'transpose of up'" in repr(network)


def test_gradients_of_rest_are_those_of_both_uses():
    """Weights that both directions have each for themselves get the two parts of the gradient."""
    shared = two_ways(dx.dense(gain=0.4), (4,), (3,))
    graph = shared.topology.to_networkx()
    parted = dx.Network(
        dx.Topology(graph), {"there": dx.dense(), "back": dx.dense()}, dx.tanh, key=KEY
    )
    parted = parted.replace_val(("a", "b"), shared["a", "b"])
    parted = parted.replace_val(("b", "a"), shared["b", "a"])
    start = dx.GraphState(shared.topology).init({"a": numbers(2, 4), "b": numbers(2, 3, seed=1)})
    bias = {"a": numbers(2, 4, seed=2), "b": numbers(2, 3, seed=3)}

    @eqx.filter_jit
    @eqx.filter_grad
    def slope(network):
        state = dx.relax(network, start, drive=bias, max_steps=300, tol=1e-6).state
        return jnp.sum(state["a"] ** 2) + jnp.sum(state["b"])

    whole, parts = slope(shared), slope(parted)
    there, back = parts.couplings["there"][0].weight[0], parts.couplings["back"][0].weight[0]
    np.testing.assert_allclose(whole.couplings["there"][0].weight[0], there + back.T, atol=1e-5)
    assert min(np.abs(there).max(), np.abs(back).max()) > 0.01


def test_ensembles_and_stacked_states_go_both_ways():
    network = two_ways(dx.dense(), (4,), (3,))
    topology = network.topology
    couplings = {"there": dx.dense(), "back": dx.transpose("there")}
    make = lambda key: dx.Network(topology, couplings, dx.tanh, key=key)  # noqa: E731
    keys = jax.random.split(KEY, 3)
    states = [
        dx.GraphState(topology).init({"a": numbers(2, 4, seed=i), "b": numbers(2, 3)})
        for i in range(3)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    step = eqx.filter_jit(lambda network, state: dx.rollout(network, state, 2)[0])
    found = eqx.filter_jit(eqx.filter_vmap(step))(eqx.filter_vmap(make)(keys), stacked)
    for i, state in enumerate(states):
        alone = step(make(keys[i]), state)
        for ours, theirs in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
            np.testing.assert_allclose(ours[i], theirs, atol=1e-6)


def test_units_one_by_one_hear_both_ways_within_a_node():
    """A node's coupling to itself and its transpose: a sweep of units goes along both."""
    graph = nx.MultiDiGraph()
    graph.add_node("a", shape=40)
    for key, kind in enumerate(("there", "back")):
        graph.add_edge("a", "a", key=key, kind=kind)
    couplings = {"there": dx.dense(self_coupling=0.0), "back": dx.transpose("there")}
    network = rounded(dx.Network(dx.Topology(graph), couplings, dx.sign, key=KEY))
    there, back = network["a", "a", 0], network["a", "a", 1]
    whole = np.asarray(there.prepared().weight) + np.asarray(back.weight)
    np.testing.assert_array_equal(whole, whole.T)
    state = random_state(network.topology, 3)
    expected = np.array(state["a"])
    for unit in range(40):
        expected[:, unit] = np.where(expected @ whole[unit] >= 0, 1, -1)
    np.testing.assert_array_equal(
        dx.step(network, state, schedule=dx.unit_by_unit())["a"], expected
    )
