"""Every fast way gives what the plain one gives: values, derivatives, under vmap, with NaN and
infinity."""

import functools

import equinox as eqx
import jax
import jax.extend
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import darnax as dx
from darnax import noise, topologies
from darnax.couplings.conv import Conv
from darnax.kernels import (
    SUMS,
    AllToAll,
    Diagonals,
    Graph,
    Native,
    NativeLibrary,
    Segments,
    Slots,
    choose_sum,
    native_library,
)
from darnax.testing import mark
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


# What runs in the library on this machine runs in slots, or in the plain way, where there is none:
# both are tested everywhere, the second under a name of its own.
PURE = tuple(kind for kind in SUMS if kind is not Native)
IRREGULAR = {
    "irregular": (drawn(500, 400, 6000), Slots),
    "hub": (drawn(300, 300, 5000, hub=7), Slots),
    "two hundred thousand": (drawn(30_000, 30_000, 210_000), Slots),
    "two to the next": ((np.r_[1:5000, 0, 1:5000, 0], np.r_[:5000, :5000], 5000, 5000), Slots),
    "few": (drawn(1000, 1000, 300), Segments),
}
GRAPHS = {
    **{name: (graph, Native) for name, (graph, _) in IRREGULAR.items()},
    **{f"{name}, pure": pure for name, pure in IRREGULAR.items()},
    "torus": (shifts(20, periodic=True), Diagonals),
    "open lattice": (shifts(20, periodic=False), Diagonals),
    "cube": (drawn_lattice(nx.grid_graph([5, 6, 8], periodic=True)), Diagonals),
    "hexagons": (drawn_lattice(nx.hexagonal_lattice_graph(10, 12)), Diagonals),
    "diluted": (drawn_lattice(nx.grid_graph([20, 20], periodic=True), 0.8), Diagonals),
    "next one": ((np.r_[1:300, 0], np.arange(300), 300, 300), Diagonals),
    "dense": (drawn(250, 220, 12_000), AllToAll),
    "small": (drawn(9, 30, 70), AllToAll),
    "none": (drawn(300, 300, 0), Segments),
}


def sorted_ends(senders, receivers, sending, receiving):
    order = np.argsort(receivers, kind="stable")
    senders, receivers = senders[order], receivers[order]
    return senders, receivers, Graph.of(senders, receivers, receiving, sending)


def needs_library():
    library = native_library()
    if not library.loaded:
        pytest.skip(f"no native library: {library.reason}")


@functools.cache
def both(name, scalar=True):
    """The way chosen for a graph and the plain one."""
    graph, kind = GRAPHS[name]
    senders, receivers, ends = sorted_ends(*graph)
    kinds = PURE
    if kind is Native:
        needs_library()
        kinds = SUMS
    fast = choose_sum(senders, receivers, ends, scalar=scalar, kinds=kinds)
    assert type(fast) is kind
    return fast, Segments(ends)


def numbers(ends, batch, units=1):
    """Weights, states, and as many numbers as there are sums."""
    rng = np.random.default_rng(0)
    shapes = (
        (len(ends.senders), units),
        (ends.sending, units, batch),
        (ends.receiving, units, batch),
    )
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


# ways are arguments of programs, as in networks: as constants they cost seconds of compile time
@jax.jit
def summed(way, w, x):
    return way.sum(way.arrange(w), x)


@jax.jit
def gradients(way, w, x, signal):
    y, pull = jax.vjp(functools.partial(summed, way), w, x)
    return y, pull(signal)


@jax.jit
def derivatives(way, w, x, signal):
    change = jax.jvp(functools.partial(summed, way), (w, x), (jnp.cos(w), jnp.cos(x)))
    return gradients(way, w, x, signal), change


@jax.jit
def learnt(way, w, x, signal):
    y, pull = jax.vjp(lambda w: summed(way, w, x), w)
    return y, pull(signal)


@jax.jit
def paired(way, p, q, signal):
    y, pull = jax.vjp(functools.partial(way.pairs, jnp.cos), p, q)
    return y, pull(signal)


def close(a, b, scale=1e-5):
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(
            one, two, rtol=1e-4, atol=scale * (1 + np.abs(np.nan_to_num(two)).max(initial=0))
        )


@pytest.mark.parametrize("name", GRAPHS)
def test_sums_and_derivatives_are_those_of_the_plain_way(name):
    fast, plain = both(name)
    given = numbers(fast.graph, 3)
    close(derivatives(fast, *given), derivatives(plain, *given))


def second(function, *given):
    """How the gradients of a sum of cubes change where what they are of does."""
    numbers = range(len(given))
    gradient = jax.grad(lambda *given: jnp.sum(function(*given) ** 3), argnums=tuple(numbers))
    return jax.jvp(gradient, given, jax.tree.map(jnp.cos, given))[1]


@jax.jit
def second_of_sums(way, w, x):
    return second(functools.partial(summed, way), w, x)


@jax.jit
def second_of_pairs(way, p, q):
    return second(functools.partial(way.pairs, jnp.cos), p, q)


@pytest.mark.parametrize("name", ["irregular", "irregular, pure", "hub, pure", "torus", "dense"])
def test_derivatives_of_second_order_are_those_of_the_plain_way(name):
    fast, plain = both(name)
    w, x, q = numbers(fast.graph, 2)
    close(second_of_sums(fast, w, x), second_of_sums(plain, w, x))
    close(second_of_pairs(fast, x, q), second_of_pairs(plain, x, q))


@pytest.mark.parametrize("batch", [1, 16, 35])
@pytest.mark.parametrize(
    "name", ["irregular", "irregular, pure", "torus", "cube", "two hundred thousand, pure"]
)
def test_sums_and_what_weights_learn_are_the_same_for_any_batch(name, batch):
    fast, plain = both(name)
    given = numbers(fast.graph, batch)
    close(learnt(fast, *given), learnt(plain, *given))


@pytest.mark.parametrize("name", ["irregular", "irregular, pure", "hub", "hub, pure", "torus"])
def test_a_weight_for_every_unit(name):
    fast, plain = both(name, scalar=False)
    given = numbers(fast.graph, 2, units=3)
    close(gradients(fast, *given), gradients(plain, *given))


@pytest.mark.parametrize(("value", "batch"), [(np.nan, 2), (np.inf, 2), (np.nan, 16)])
@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "none"])
def test_what_is_not_finite_reaches_those_who_hear_it_and_nobody_else(name, value, batch):
    fast, plain = both(name)
    w, x, _ = numbers(fast.graph, batch)
    x[int(fast.graph.senders[3]), 0, 1] = value
    found, expected = (np.isfinite(summed(way, w, x)) for way in (fast, plain))
    np.testing.assert_array_equal(found, expected)
    assert not expected[:, 0, 1].all()
    assert expected[:, 0, 0].all()


@pytest.mark.parametrize("name", ["irregular", "irregular, pure", "torus", "dense"])
def test_under_vmap_and_in_other_dtypes(name):
    fast, plain = both(name)
    w, x, _ = numbers(fast.graph, 2)
    stacked = np.stack([w, 2 * w]), np.stack([x, np.sin(x)])
    each = jax.jit(jax.vmap(summed, in_axes=(None, 0, 0)))
    close(each(fast, *stacked), each(plain, *stacked))
    spins = np.where(x > 0, 1, -1).astype(np.int8)
    close(summed(fast, w, spins), summed(plain, w, spins))
    half = w.astype(jnp.bfloat16)
    coarse = summed(fast, half, x)
    assert coarse.dtype == jnp.bfloat16
    fine = summed(plain, half.astype(np.float32), x)
    close(np.asarray(coarse).astype(np.float32), fine, scale=0.1)


def test_outside_of_a_program_sums_are_the_same():
    fast, plain = both("small")
    w, x, _ = map(jnp.asarray, numbers(fast.graph, 2))
    close(fast.sum(fast.arrange(w), x), plain.sum(plain.arrange(w), x))


@pytest.mark.parametrize("name", ["irregular, pure", "hub, pure", "two hundred thousand, pure"])
def test_sums_over_pairs_are_those_of_the_plain_way(name):
    fast, plain = both(name, scalar=False)
    rng, graph = np.random.default_rng(0), fast.graph
    p, q, signal = (
        rng.normal(size=(rows, 2, 3)).astype(np.float32)
        for rows in (graph.sending, graph.receiving, graph.receiving)
    )
    close(paired(fast, p, q, signal), paired(plain, p, q, signal))
    p[int(graph.senders[3]), 0, 1] = np.nan
    found, expected = (np.isnan(paired(way, p, q, signal)[0]) for way in (fast, plain))
    assert expected.any()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_transpose_is_the_sum_over_the_reversed_graph(name):
    way, plain = both(name)
    w, x, q = numbers(plain.graph, 2)
    senders, receivers = np.asarray(plain.graph.senders), np.asarray(plain.graph.receivers)
    expected = np.zeros(x.shape)
    np.add.at(expected, senders, w[..., None].astype(float) * q[receivers])
    back = way.transposed()
    found = summed(back, w, q)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # its derivatives, and its transpose, which is the sum itself
    ways = (gradients(each, w, q, x) for each in (back, plain.transposed()))
    for ours, theirs in zip(*map(jax.tree.leaves, ways), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        summed(back.transposed(), w, x), summed(way, w, x), rtol=1e-4, atol=1e-4
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
    return mark(g, inputs=attributes.get("inputs", ()))


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


def of_slots(graph, coupling, kernel):
    """The same row where there is no library."""
    return graph, coupling, kernel.replace("native sum", "slots")


IRREGULAR_NETWORKS = {
    "strengths": (gnp(700, 9), dx.scale(weight="weight"), "  native sum"),
    "fixed strengths": (gnp(700, 9), dx.scale(weight="weight", fixed=True), "  native sum"),
    "strengths of units": (gnp(700, 9, shape=(3,)), dx.scale(0.5), "  native sum"),
    "tied strengths": (gnp(700, 9, edge={"tie": "t"}), dx.scale(0.5), "  native sum"),
    "tied, own strengths": (
        gnp(700, 9, edge={"tie": "t"}),
        dx.scale(weight="weight", fixed=True),
        "  native sum",
    ),
    "one matrix with factors": (
        gnp(700, 9, shape=(2,), edge={"tie": "t"}),
        dx.dense(factor="weight"),
        "nodes first, native sum",
    ),
}
NETWORKS = {
    **IRREGULAR_NETWORKS,
    **{f"{name}, pure": of_slots(*row) for name, row in IRREGULAR_NETWORKS.items()},
    "lattice": (topologies.lattice((20, 20), periodic=True), dx.scale(0.5), "4 diagonals"),
    "small": (gnp(40, 5), dx.scale(weight="weight"), "matrix"),
    "matrices": (gnp(60, 5, shape=(4,)), dx.dense(), "side by side"),
    "matrices with factors": (gnp(60, 5, shape=(4,)), dx.dense(factor="weight"), "side by side"),
    "linear": (gnp(60, 5, shape=(4,)), linear, "side by side"),
    "one matrix": (gnp(60, 5, shape=(4,), edge={"tie": "t"}), dx.dense(), "nodes first"),
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


@functools.cache
def network_of(name):
    """The network of a row of the table, of units that are linear."""
    graph, coupling, kernel = NETWORKS[name]
    topology = compiled(graph, coupling)
    (kind,) = topology.edge_kinds
    if "native" in kernel:
        needs_library()
    with pytest.MonkeyPatch.context() as patch:
        if name.endswith(", pure"):
            nowhere = NativeLibrary(False, "switched off")
            patch.setattr("darnax.kernels.native.native_library", lambda: nowhere)
        network = dx.Network(topology, {kind: coupling}, dx.identity, key=KEY)
    assert kernel in network.summary()
    return network


def normal_state(topology, batch=2):
    rng = np.random.default_rng(0)
    state = dx.GraphState(topology, batch)
    return state.replace(
        jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), state.arrays)
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_step_and_learn_as_edge_by_edge(name):
    network = network_of(name)
    (kind,) = network.topology.edge_kinds
    state, rules = normal_state(network.topology), {kind: dx.hebbian()}
    learns = bool(jax.tree.leaves(dx.partition(network, rules)[0]))

    @eqx.filter_jit
    def answers(network, state):
        moved = dx.step(network, state)
        quiet = dx.step(network, state, silence=network.topology.nodes[:5])
        changes = dx.local_updates(network, state, rules).couplings if learns else None
        return moved.arrays, quiet.arrays, changes

    close(answers(network, state), answers(in_plain_way(network), state))


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


@pytest.mark.parametrize("name", ["strengths", "strengths, pure", "lattice", "small", "matrices"])
def test_coarse_weights_are_summed_in_full(name):
    """Messages are as coarse as the weights, fields are not."""
    drawn = network_of(name)

    def coarse(dtype):
        weights = jax.tree.map(
            lambda w: jnp.asarray(np.asarray(w).astype(jnp.bfloat16).astype(dtype)), drawn.couplings
        )
        return eqx.tree_at(lambda n: n.couplings, drawn, weights)

    network, fine = coarse(jnp.bfloat16), coarse(np.float32)
    state = normal_state(drawn.topology)
    state = state.replace(jax.tree.map(lambda a: np.round(8 * np.asarray(a)) / 8, state.arrays))
    (found,), (expected,) = (dx.step(n, state).arrays.values() for n in (network, fine))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_through_rest_are_those_of_the_plain_way():
    topology = compiled(gnp(60, 3, shape=(2,), inputs=(0,)), dx.dense())
    network = dx.Network(topology, {"edge": dx.dense(gain=0.3)}, dx.tanh, key=KEY)

    @eqx.filter_jit
    @eqx.filter_grad
    def slope(network, x):
        start = dx.GraphState(network.topology).init(x)
        rest = dx.relax(network, start, max_steps=200).state
        return jnp.sum(rest.arrays["node(2,)"] ** 2)

    found, expected = (slope(n, np.ones((1, 2))) for n in (network, in_plain_way(network)))
    close(found.couplings, expected.couplings, scale=1e-4)


@pytest.mark.parametrize(
    ("stride", "padding", "channels"),
    [((1, 1), "SAME", 1), ((2, 1), "VALID", 2), ((1, 2), ((1, 0), (2, 2)), 3)],
)
def test_small_convolutions_are_those_of_the_library(stride, padding, channels):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 2, channels, 4)).astype(np.float32)
    x = rng.normal(size=(7, 6, channels, 5)).astype(np.float32)
    conv = Conv(jnp.asarray(weight), stride, padding)

    def library(conv, x):
        return jax.vmap(conv, in_axes=-1, out_axes=-1)(x)

    @functools.partial(jax.jit, static_argnums=0)
    def answers(way, conv, x):
        y, pull = jax.vjp(way, conv, x)
        return y, pull(jnp.sin(y))

    close(answers(Conv.batched, conv, x), answers(library, conv, x))
    curvature = [second(way, conv, jnp.asarray(x)) for way in (Conv.batched, library)]
    close(*curvature)


def test_noise_is_threefry(monkeypatch):
    """With the 20 rounds of JAX it gives what JAX gives, and any two units draw apart."""
    monkeypatch.setattr(noise, "ROUNDS", 20)
    ids = np.asarray([[3, 9], [2**31, 7]], np.uint32)
    found = np.asarray(jax.jit(lambda ids: noise.uniform(ids, KEY[None], (2,)))(ids))
    words = np.asarray(jax.random.key_data(KEY))
    for node in range(2):
        first, second = ids[node]
        counts = np.stack([first, first, second, second + np.uint32(1)])
        bits = jax.extend.random.threefry_2x32((words[0], words[1]), counts)[:2]
        expected = (np.asarray(bits) >> 8).astype(np.float32) * np.float32(2**-24)
        np.testing.assert_array_equal(found[node, :, 0], expected)


def test_noise_is_even_and_apart():
    ids = np.random.default_rng(0).integers(0, 2**32, (500, 2)).astype(np.uint32)
    keys = jax.random.split(KEY, 20)
    draw = jax.jit(lambda ids: noise.uniform(ids, keys, (3,)))
    draws = np.asarray(draw(ids))
    assert draws.shape == (500, 3, 20)
    assert abs(draws.mean() - 0.5) < 4 * (1 / 12 / draws.size) ** 0.5
    flat = draws.reshape(-1, 20) - 0.5
    correlation = np.corrcoef(flat.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / len(flat) ** 0.5
    np.testing.assert_array_equal(draws[[4, 2]], draw(ids[[4, 2]]))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    "name",
    [
        "strengths",
        "strengths, pure",
        "tied strengths",
        "tied strengths, pure",
        "lattice",
        "small",
        "one matrix",
        "matrices",
    ],
)
def test_a_sender_that_is_not_finite_says_the_same_in_every_way(name, value):
    """An infinite message is infinite at its receivers, and is heard by nobody else."""
    network = network_of(name)
    topology = network.topology
    (array,) = (np.array(a) for a in normal_state(topology).arrays.values())
    array[: len(topology) // 10] = value
    state = dx.GraphState(topology, 2)
    state = state.replace(jax.tree.map(lambda _: array, state.arrays))
    # fields are what a pass of linear units writes
    ours, plain = (dx.step(n, state).arrays for n in (network, in_plain_way(network)))
    (ours,), (plain,) = ours.values(), plain.values()
    assert not np.isfinite(plain).all()
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)


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
    state = normal_state(topology, 3)
    ours, plain = (n.local_field(state) for n in (network, in_plain_way(network)))
    said = jax.jit(jax.vmap(lambda x: jax.vmap(network["one"])(x), in_axes=-1, out_axes=-1))
    said = np.asarray(said(*state.arrays.values()))
    for node in range(5):
        expected = np.delete(said, node, axis=0).sum(axis=0).T
        np.testing.assert_allclose(ours[node], expected, atol=1e-5)
        np.testing.assert_allclose(plain[node], expected, atol=1e-5)
