"""Every fast way gives what the plain one gives: values, derivatives, under vmap, with NaN and
infinity."""

import equinox as eqx
import jax
import jax.extend
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import marked

import darnax as dx
from darnax import noise, topologies
from darnax.couplings.conv import Conv
from darnax.kernels import SUMS, AllToAll, Diagonals, Graph, Segments, Slots, choose_sum
from darnax.topologies import Topology

KEY = jax.random.key(0)


def shifts(sides, periodic):
    """Neighbours on a square lattice, senders and receivers."""
    rows = np.arange(sides * sides)
    x, y = rows // sides, rows % sides
    ends = []
    for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        inside = (
            np.full(len(rows), True)
            if periodic
            else ((x + a) // sides == 0) & ((y + b) // sides == 0)
        )
        ends.append(np.stack([((x + a) % sides * sides + (y + b) % sides)[inside], rows[inside]]))
    return (*np.concatenate(ends, axis=1), sides * sides, sides * sides)


def drawn_lattice(graph, share=1.0):
    """The edges of an undirected drawing in the order of its nodes, both ways, and that share of
    all."""
    edges = np.asarray(nx.convert_node_labels_to_integers(graph).to_directed().edges)
    kept = edges[np.random.default_rng(0).random(len(edges)) < share].T
    return (*kept, len(graph), len(graph))


def drawn(sending, receiving, edges, hub=None):
    """A random graph in which the last tenth of nodes hear nobody, with parallel edges; half of
    them lead to `hub`."""
    rng = np.random.default_rng(0)
    senders, receivers = (
        rng.integers(0, sending, edges),
        rng.integers(0, receiving - receiving // 10, edges),
    )
    if hub is not None:
        receivers[::2] = hub
    return senders, receivers, sending, receiving


GRAPHS = {
    "irregular": (drawn(500, 400, 6000), Slots),
    "hub": (drawn(300, 300, 5000, hub=7), Slots),
    "two hundred thousand": (drawn(30_000, 30_000, 210_000), Slots),
    "torus": (shifts(20, periodic=True), Diagonals),
    "open lattice": (shifts(20, periodic=False), Diagonals),
    "cube": (drawn_lattice(nx.grid_graph([5, 6, 8], periodic=True)), Diagonals),
    "hexagons": (drawn_lattice(nx.hexagonal_lattice_graph(10, 12)), Diagonals),
    "diluted": (drawn_lattice(nx.grid_graph([20, 20], periodic=True), 0.8), Diagonals),
    "next one": ((np.r_[1:300, 0], np.arange(300), 300, 300), Diagonals),
    "two to the next": ((np.r_[1:5000, 0, 1:5000, 0], np.r_[:5000, :5000], 5000, 5000), Slots),
    "dense": (drawn(250, 220, 12_000), AllToAll),
    "small": (drawn(9, 30, 70), AllToAll),
    "few": (drawn(1000, 1000, 300), Segments),
    "none": (drawn(300, 300, 0), Segments),
}


def sorted_ends(senders, receivers, sending, receiving):
    order = np.argsort(receivers, kind="stable")
    senders, receivers = senders[order], receivers[order]
    return senders, receivers, Graph.of(senders, receivers, receiving, sending)


def both(name):
    """The way chosen for a graph and the plain one, as functions of weights and states."""
    graph, kind = GRAPHS[name]
    senders, receivers, ends = sorted_ends(*graph)
    fast = choose_sum(senders, receivers, ends, scalar=True)
    assert type(fast) is kind
    return ends, lambda w, x: fast.sum(fast.arrange(w), x), ends.sum


def numbers(ends, batch, units=1):
    keys = jax.random.split(KEY, 2)
    w = jax.random.normal(keys[0], (len(ends.senders), units))
    return w, jax.random.normal(keys[1], (ends.sending, units, batch))


def close(a, b, scale=1e-5):
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(
            one, two, rtol=1e-4, atol=scale * (1 + np.abs(np.nan_to_num(two)).max(initial=0))
        )


@pytest.mark.parametrize("name", GRAPHS)
def test_sums_and_derivatives_are_those_of_the_plain_way(name):
    ends, fast, plain = both(name)
    w, x = numbers(ends, 3)
    signal = jnp.sin(plain(w, x))

    def derivatives(way):
        y, pull = jax.vjp(way, w, x)
        return y, pull(signal), jax.jvp(way, (w, x), (jnp.cos(w), jnp.cos(x)))

    close(*(jax.jit(lambda way=way: derivatives(way))() for way in (fast, plain)))


@pytest.mark.parametrize("batch", [1, 16, 35])
@pytest.mark.parametrize("name", ["irregular", "torus", "cube", "two hundred thousand"])
def test_sums_and_what_weights_learn_are_the_same_for_any_batch(name, batch):
    ends, fast, plain = both(name)
    w, x = numbers(ends, batch)
    signal = jnp.sin(plain(w, x))
    found, expected = (
        jax.jit(lambda w, x, way=way: (way(w, x), jax.vjp(lambda w: way(w, x), w)[1](signal)))
        for way in (fast, plain)
    )
    close(found(w, x), expected(w, x))


@pytest.mark.parametrize("name", ["irregular", "hub", "torus"])
def test_a_weight_for_every_unit(name):
    graph, kind = GRAPHS[name]
    senders, receivers, ends = sorted_ends(*graph)
    fast = choose_sum(senders, receivers, ends, scalar=False)
    assert type(fast) is kind
    w, x = numbers(ends, 2, units=3)

    def derivatives(way):
        y, pull = jax.vjp(way, w, x)
        return y, pull(y)

    ways = (lambda w, x: fast.sum(fast.arrange(w), x)), ends.sum
    close(*(jax.jit(lambda way=way: derivatives(way))() for way in ways))


@pytest.mark.parametrize(("value", "batch"), [(jnp.nan, 2), (jnp.inf, 2), (jnp.nan, 16)])
@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "none"])
def test_what_is_not_finite_reaches_those_who_hear_it_and_nobody_else(name, value, batch):
    ends, fast, plain = both(name)
    w, x = numbers(ends, batch)
    x = x.at[int(ends.senders[3]), 0, 1].set(value)
    found, expected = (np.isfinite(way(w, x)) for way in (fast, plain))
    np.testing.assert_array_equal(found, expected)
    assert not expected[:, 0, 1].all()
    assert expected[:, 0, 0].all()


@pytest.mark.parametrize("name", ["irregular", "torus", "dense"])
def test_under_vmap_and_in_other_dtypes(name):
    ends, fast, plain = both(name)
    w, x = numbers(ends, 2)
    stacked = jnp.stack([w, 2 * w]), jnp.stack([x, jnp.sin(x)])
    close(jax.vmap(fast)(*stacked), jax.vmap(plain)(*stacked))
    spins = jnp.where(x > 0, 1, -1).astype(jnp.int8)
    close(fast(w, spins), plain(w, spins))
    half = w.astype(jnp.bfloat16)
    assert fast(half, x).dtype == jnp.bfloat16
    close(fast(half, x).astype(jnp.float32), plain(half.astype(jnp.float32), x), scale=0.1)


@pytest.mark.parametrize("name", ["irregular", "hub", "two hundred thousand"])
def test_sums_over_pairs_are_those_of_the_plain_way(name):
    graph, kind = GRAPHS[name]
    senders, receivers, ends = sorted_ends(*graph)
    fast = choose_sum(senders, receivers, ends, scalar=False)
    assert type(fast) is kind
    p, q = (jax.random.normal(KEY, (rows, 2, 3)) for rows in (ends.sending, ends.receiving))
    found, pull = jax.vjp(lambda p, q: fast.pairs(jnp.cos, p, q), p, q)
    expected, pull_plain = jax.vjp(lambda p, q: ends.pairs(jnp.cos, p, q), p, q)
    close(found, expected)
    close(pull(expected), pull_plain(expected))
    lost = p.at[int(ends.senders[3]), 0, 1].set(jnp.nan)
    np.testing.assert_array_equal(
        np.isnan(fast.pairs(jnp.cos, lost, q)), np.isnan(ends.pairs(jnp.cos, lost, q))
    )


def test_the_table_ends_with_a_way_that_always_fits():
    assert SUMS[-1] is Segments


def in_plain_way(network):
    """The network with its kernels taken out."""
    return eqx.tree_at(
        lambda n: [passing.kernel for passing in n.message_passing],
        network,
        replace=[None] * len(network.message_passing),
        is_leaf=lambda leaf: leaf is None,
    )


def gnp(nodes, degree, **attributes):
    g = nx.gnp_random_graph(nodes, degree / nodes, seed=1, directed=True)
    nx.set_node_attributes(g, {v: {"shape": attributes.get("shape", ())} for v in g})
    for u, v in g.edges:
        g.edges[u, v].update(weight=float(np.cos(3 * u + v)), **attributes.get("edge", {}))
    return marked(g, inputs=attributes.get("inputs", ()))


def windows(back=False, **arguments):
    """Windows on an image and features; with `back`, only what features say to windows."""
    g = topologies.convolutional((6, 7, 2), (3, 2), backward=True, **arguments)
    g.remove_edges_from([e for e in g.edges if (g.edges[e]["kind"] == "backward") != back])
    del g.nodes["image"]["role"]
    g.graph.update(edge_kinds=())
    return g


def row_of_windows():
    """Stacked nodes that see windows of a row, every second cell."""
    g = nx.DiGraph(arrays={"row": (20,)})
    for i in range(8):
        g.add_node(("see", i), array="row", index=slice(2 * i + 1, 2 * i + 4))
        g.add_node(("say", i), shape=(2,))
        g.add_edge(("see", i), ("say", i), tie="t")
    return g


def linear(sender, receiver, key):
    return eqx.nn.Linear(sender[0], receiver[0], key=key)


NETWORKS = {
    "strengths": (gnp(700, 9), dx.scale(weight="weight"), "slots"),
    "fixed strengths": (gnp(700, 9), dx.scale(weight="weight", fixed=True), "slots"),
    "strengths of units": (gnp(700, 9, shape=(3,)), dx.scale(0.5), "slots"),
    "tied strengths": (gnp(700, 9, edge={"tie": "t"}), dx.scale(0.5), "slots"),
    "tied, own strengths": (
        gnp(700, 9, edge={"tie": "t"}),
        dx.scale(weight="weight", fixed=True),
        "slots",
    ),
    "lattice": (topologies.lattice((20, 20), periodic=True), dx.scale(0.5), "4 diagonals"),
    "small": (gnp(40, 5), dx.scale(weight="weight"), "matrix"),
    "matrices": (gnp(60, 5, shape=(4,)), dx.dense(), "side by side"),
    "matrices with factors": (gnp(60, 5, shape=(4,)), dx.dense(factor="weight"), "side by side"),
    "linear": (gnp(60, 5, shape=(4,)), linear, "side by side"),
    "one matrix": (gnp(60, 5, shape=(4,), edge={"tie": "t"}), dx.dense(), "nodes first"),
    "one matrix with factors": (
        gnp(700, 9, shape=(2,), edge={"tie": "t"}),
        dx.dense(factor="weight"),
        "nodes first",
    ),
    "both ends": (
        gnp(60, 5, shape=(4,), edge={"tie": "t"}),
        dx.edge_mlp(3, jnp.tanh),
        "both ends first",
    ),
    "both ends of many": (
        gnp(700, 9, shape=(2,), edge={"tie": "t"}),
        dx.edge_mlp(3, jnp.tanh),
        "ends first, slots",
    ),
    "one linear": (gnp(60, 5, shape=(4,), edge={"tie": "t"}), linear, "nodes first"),
    "windows": (windows(features=3), dx.dense(), "  convolution"),
    "windows apart": (
        windows(features=3, stride=(2, 1), padding=((1, 0), (0, 1))),
        dx.dense(),
        "  convolution",
    ),
    "windows back": (windows(features=3, back=True), dx.dense(), "transposed convolution"),
    "windows apart, back": (
        windows(features=3, stride=(1, 2), padding=1, back=True),
        dx.dense(),
        "transposed",
    ),
    "one feature": (windows(features=1), dx.dense(), "  convolution"),
    "a row of windows": (row_of_windows(), linear, "  convolution"),
    "a row of windows, back": (row_of_windows().reverse(), linear, "transposed convolution"),
    "inputs": (gnp(60, 5, shape=(4,), inputs=(0, 3)), dx.dense(), "side by side"),
}


def compiled(graph, coupling):
    """The topology of a graph, its weights left out where the coupling does not read them."""
    if "weight" not in (getattr(coupling, "weight", None), getattr(coupling, "factor", None)):
        graph = graph.copy()
        for *_, numbers in graph.edges(data=True):
            numbers.pop("weight", None)
    return Topology(graph)


@pytest.fixture(params=NETWORKS)
def network(request):
    graph, coupling, kernel = NETWORKS[request.param]
    topology = compiled(graph, coupling)
    (kind,) = topology.edge_kinds
    network = dx.Network(topology, {kind: coupling}, dx.tanh, key=KEY)
    assert kernel in network.summary()
    return network


def test_networks_step_and_learn_as_edge_by_edge(network):
    plain, (kind,) = in_plain_way(network), network.topology.edge_kinds
    state = dx.GraphState(network.topology, 2)
    state = state.replace(jax.tree.map(lambda a: jax.random.normal(KEY, a.shape), state.arrays))
    close(dx.step(network, state).arrays, dx.step(plain, state).arrays)
    quiet = {"silence": network.topology.nodes[:5]}
    close(dx.step(network, state, **quiet).arrays, dx.step(plain, state, **quiet).arrays)
    rules = {kind: dx.hebbian()}
    if jax.tree.leaves(dx.partition(network, rules)[0]):
        close(*(dx.local_updates(n, state, rules).couplings for n in (network, plain)))


@pytest.mark.parametrize("change", ["missing", "shifted", "swapped", "untied", "factor"])
def test_windows_that_are_no_convolution_are_left_alone(change):
    g, coupling = row_of_windows(), dx.dense()
    if change == "missing":
        g.remove_node(("see", 3))
    if change == "shifted":
        g.nodes["see", 3]["index"] = slice(8, 11)
    if change == "swapped":
        g.remove_edges_from([(("see", i), ("say", i)) for i in (2, 3)])
        g.add_edges_from([(("see", 2), ("say", 3)), (("see", 3), ("say", 2))], tie="t")
    if change == "untied":
        nx.set_edge_attributes(g, None, "tie")
    if change == "factor":
        nx.set_edge_attributes(g, 2.0, "weight")
        coupling = dx.dense(factor="weight")
    network = dx.Network(Topology(g), {"edge": coupling}, dx.tanh, key=KEY)
    assert "convolution" not in network.summary()


def test_shared_messages_keep_the_digits_of_float64():
    with jax.enable_x64(True):
        graph = gnp(60, 5, shape=(2,), edge={"tie": "t"})
        nx.set_node_attributes(graph, "float64", "dtype")
        network = dx.Network(
            compiled(graph, dx.relay()), {"edge": dx.relay()}, dx.identity, key=jax.random.key(0)
        )
        assert "nodes first" in network.summary()
        state = dx.GraphState(network.topology).replace(
            {v: np.full((1, 2), 1 + 1e-12) for v in graph}
        )
        (found,), (expected,) = (
            dx.step(n, state).arrays.values() for n in (network, in_plain_way(network))
        )
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize("name", ["strengths", "lattice", "small", "matrices"])
def test_coarse_weights_are_summed_in_full(name):
    """Messages are as coarse as the weights, fields are not."""
    graph, coupling, _ = NETWORKS[name]
    topology = compiled(graph, coupling)
    (kind,) = topology.edge_kinds
    drawn = dx.Network(topology, {kind: coupling}, dx.identity, key=KEY)

    def coarse(dtype):
        weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16).astype(dtype), drawn.couplings)
        return eqx.tree_at(lambda n: n.couplings, drawn, weights)

    network, fine = coarse(jnp.bfloat16), coarse(jnp.float32)
    state = dx.GraphState(topology, 2)
    state = state.replace(
        jax.tree.map(lambda a: jnp.round(8 * jax.random.normal(KEY, a.shape)) / 8, state.arrays)
    )
    (found,), (expected,) = (dx.step(n, state).arrays.values() for n in (network, fine))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_through_rest_are_those_of_the_plain_way():
    topology = compiled(gnp(60, 3, shape=(2,), inputs=(0,)), dx.dense())
    network = dx.Network(topology, {"edge": dx.dense(gain=0.3)}, dx.tanh, key=KEY)

    def loss(network, x):
        return jnp.sum(
            dx.relax(network, dx.GraphState(network.topology).init(x), max_steps=200).state.arrays[
                "node(2,)"
            ]
            ** 2
        )

    x = jnp.ones((1, 2))
    found, expected = (eqx.filter_grad(loss)(n, x) for n in (network, in_plain_way(network)))
    close(found.couplings, expected.couplings, scale=1e-4)


@pytest.mark.parametrize(
    ("stride", "padding", "channels"),
    [((1, 1), "SAME", 1), ((2, 1), "VALID", 2), ((1, 2), ((1, 0), (2, 2)), 3)],
)
def test_small_convolutions_are_those_of_the_library(stride, padding, channels):
    weight = jax.random.normal(KEY, (3, 2, channels, 4))
    conv, x = Conv(weight, stride, padding), jax.random.normal(KEY, (7, 6, channels, 5))

    def plain(conv, x):
        return jax.vmap(conv, in_axes=-1, out_axes=-1)(x)

    found, pull = jax.vjp(lambda conv, x: conv.batched(x), conv, x)
    expected, pull_plain = jax.vjp(plain, conv, x)
    close(found, expected)
    close(pull(expected), pull_plain(expected))


def test_noise_is_threefry(monkeypatch):
    """With the 20 rounds of JAX it gives what JAX gives, and any two units draw apart."""
    monkeypatch.setattr(noise, "ROUNDS", 20)
    ids = jnp.asarray([[3, 9], [2**31, 7]], jnp.uint32)
    found = noise.uniform(ids, KEY[None], (2,))
    words = jax.random.key_data(KEY)
    for node in range(2):
        counts = jnp.stack([ids[node, 0], ids[node, 0], ids[node, 1], ids[node, 1] + jnp.uint32(1)])
        bits = jax.extend.random.threefry_2x32((words[0], words[1]), counts)[:2]
        np.testing.assert_array_equal(
            found[node, :, 0], (bits >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2**-24)
        )


def test_noise_is_even_and_apart():
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 2**32, (500, 2)), jnp.uint32)
    keys = jax.random.split(KEY, 20)
    draws = np.asarray(noise.uniform(ids, keys, (3,)))
    assert draws.shape == (500, 3, 20)
    assert abs(draws.mean() - 0.5) < 4 * (1 / 12 / draws.size) ** 0.5
    flat = draws.reshape(-1, 20) - 0.5
    correlation = np.corrcoef(flat.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / len(flat) ** 0.5
    np.testing.assert_array_equal(
        draws[[4, 2]], noise.uniform(ids[jnp.asarray([4, 2])], keys, (3,))
    )


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    "name", ["strengths", "tied strengths", "lattice", "small", "one matrix", "matrices"]
)
def test_a_sender_that_is_not_finite_says_the_same_in_every_way(name, value):
    """An infinite message is infinite at its receivers, and is heard by nobody else."""
    graph, coupling, _ = NETWORKS[name]
    topology = compiled(graph, coupling)
    network = dx.Network(topology, {topology.edge_kinds[0]: coupling}, dx.identity, key=KEY)
    state = dx.GraphState(topology, 2)
    state = state.replace(jax.tree.map(lambda a: jax.random.normal(KEY, a.shape), state.arrays))
    some = topology.nodes[: len(topology) // 10]
    state = state.replace({node: jnp.full_like(state[node], value) for node in some})
    ours, plain = (n.local_field(state) for n in (network, in_plain_way(network)))
    for receiver in ours:
        np.testing.assert_allclose(ours[receiver], plain[receiver], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "coupling", [dx.sparse(nx.cycle_graph(4), gain=1.0), dx.dense(), dx.scale(0.5), dx.relay()]
)
def test_tied_couplings_of_every_sort_on_more_edges_than_nodes(coupling):
    """What a node says to all is said once, whatever the coupling is."""
    graph = nx.complete_graph(5, create_using=nx.DiGraph)
    nx.set_edge_attributes(graph, "one", "tie")
    nx.set_node_attributes(graph, 4, "shape")
    topology = Topology(graph)
    network = dx.Network(topology, {"edge": coupling}, dx.identity, key=KEY)
    state = dx.GraphState(topology).init(
        {i: jax.random.normal(jax.random.key(i), (3, 4)) for i in range(5)}
    )
    ours, plain = (n.local_field(state) for n in (network, in_plain_way(network)))
    one = network["one"]
    for node in range(5):
        expected = sum(jax.vmap(one)(state[sender]) for sender in range(5) if sender != node)
        np.testing.assert_allclose(ours[node], expected, atol=1e-5)
        np.testing.assert_allclose(plain[node], expected, atol=1e-5)
