"""The sums of the native library are those of plain JAX, and no call of it can do harm."""

import functools
import pickle

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import NO_LIBRARY, needs_library
from jax.sharding import Mesh, PartitionSpec

import darnax as dx
from darnax import kernels
from darnax.kernels import Graph, Native, Segments, native_call, native_library, native_sums
from darnax.kernels import native as native_kernel
from darnax.kernels.native_sums import Incidence, corrected, resummed


def random_ends(sending, receiving, edges, hub=None):
    rng = np.random.default_rng(0)
    senders, receivers = rng.integers(0, sending, edges), rng.integers(0, receiving, edges)
    if hub is not None:
        receivers[::2] = hub
    return senders, receivers, sending, receiving


GRAPHS = {
    "one edge": ([0], [0], 1, 1),
    "no edges": ([], [], 3, 4),
    "one row hears": ([0, 1, 2, 2], [2, 2, 2, 2], 3, 5),
    "empty rows around": ([1, 0, 1], [1, 3, 3], 2, 6),
    "parallel edges and a loop": ([0, 0, 0, 1, 1], [0, 1, 1, 1, 1], 2, 2),
    "random": random_ends(40, 30, 200),
    "hub of three blocks": random_ends(50, 60, 50_000, hub=59),
    "more rows than 16 bits": random_ends(70_000, 20, 300),
    "edges that end with a block": random_ends(100, 90, 2 * 8192),
}


def made(name):
    senders, receivers, sending, receiving = GRAPHS[name]
    receivers = np.asarray(receivers, int)
    order = np.argsort(receivers, kind="stable")
    senders, receivers = np.asarray(senders, int)[order], receivers[order]
    graph = Graph.of(senders, receivers, receiving, sending)
    edges = Incidence.of(senders, receivers, receiving, sending)
    return Native(graph=graph, edges=edges), Segments(graph)


def numbers(graph, units, items, batch, dtype=np.float32):
    """Weights, states of senders, and numbers of receivers."""
    rng = np.random.default_rng(1)
    shapes = (
        (len(graph.senders), items),
        (graph.sending, units, batch),
        (graph.receiving, units, batch),
    )
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def by_loop(graph, w, x):
    """The sums in NumPy."""
    y = np.zeros((graph.receiving, *x.shape[1:]), x.dtype)
    np.add.at(y, np.asarray(graph.receivers), w[..., None] * x[np.asarray(graph.senders)])
    return y


def close(a, b, scale=1e-5):
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        bound = scale * (1 + np.abs(np.nan_to_num(two)).max(initial=0))
        np.testing.assert_allclose(one, two, rtol=10 * scale, atol=bound)


def summed(kernel, w, x):
    return kernel.sum(kernel.arrange(jnp.asarray(w)), jnp.asarray(x))


# every width that the loops of C++ fall into, and their remainders
WIDTHS = [1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 64, 70, 127]


@pytest.mark.parametrize("name", GRAPHS)
def test_sums_are_those_of_a_loop(way, name):
    native, _ = made(name)
    # in plain JAX every width is the same to us
    every = name == "random" and way == "library"
    for batch in WIDTHS if every else [1, 5]:
        for units, items in ((1, 1), (3, 1), (3, 3)):
            w, x, _ = numbers(native.graph, units, items, batch)
            close(jax.jit(summed)(native, w, x), by_loop(native.graph, w, x))


@pytest.mark.parametrize("units", [1, 9, 40])
def test_a_weight_for_every_unit_of_one_sample(way, units):
    native, _ = made("random")
    w, x, _ = numbers(native.graph, units, units, 1)
    close(summed(native, w, x), by_loop(native.graph, w, x))


@pytest.mark.parametrize(
    ("name", "units", "items", "batch"),
    [("random", 1, 1, 1), ("random", 3, 1, 5), ("random", 3, 3, 1)]
    + [(name, 3, 3, 21) for name in GRAPHS],
)
def test_derivatives_are_those_of_the_plain_sum(way, name, units, items, batch):
    native, plain = made(name)
    w, x, signal = numbers(native.graph, units, items, batch)

    @jax.jit
    def derivatives(kernel):
        sums = functools.partial(summed, kernel)
        y, pull = jax.vjp(sums, w, x)
        return y, pull(signal), jax.jvp(sums, (w, x), (jnp.cos(w), jnp.cos(x)))

    close(derivatives(native), derivatives(plain))


@pytest.mark.parametrize(("units", "items", "batch"), [(1, 1, 1), (2, 1, 3), (2, 2, 3)])
def test_derivatives_of_higher_orders(way, units, items, batch):
    native, plain = made("parallel edges and a loop")
    w, x, _ = numbers(native.graph, units, items, batch)

    def energy(kernel, w, x):
        y = jnp.sin(summed(kernel, w, x))
        return jnp.sum(summed(kernel, w * w, y) ** 2)

    for outer, inner in (
        (jax.jacfwd, jax.jacrev),
        (jax.jacrev, jax.jacrev),
        (jax.jacrev, jax.jacfwd),
    ):
        second = outer(inner(energy, argnums=(1, 2)), argnums=(1, 2))
        close(jax.jit(second)(native, w, x), jax.jit(second)(plain, w, x), scale=1e-4)
    third = jax.jacfwd(jax.hessian(functools.partial(energy, native, w)))
    expected = jax.jacfwd(jax.hessian(functools.partial(energy, plain, w)))
    close(jax.jit(third)(x), jax.jit(expected)(x), scale=1e-4)


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0), (1, 2)])
@pytest.mark.parametrize("items", [1, 3])
def test_under_vmap(way, axes, items):
    native, plain = made("random")
    w, x, signal = numbers(native.graph, 3, items, 2)

    def several(a, axis):
        return a if axis is None else np.stack([a, np.sin(a), 2 * a], axis)

    w, x = several(w, axes[0]), several(x, axes[1])

    def gradients(kernel, w, x):
        y, pull = jax.vjp(functools.partial(summed, kernel), w, x)
        return y, pull(signal)

    each = jax.vmap(gradients, in_axes=(None, *axes))
    close(each(native, w, x), each(plain, w, x))

    # derivatives of all at once, where what is shared hears from all
    def total(kernel, w, x):
        return jnp.sum(jnp.sin(jax.vmap(summed, in_axes=(None, *axes))(kernel, w, x)))

    slopes = jax.grad(total, argnums=(1, 2))
    close(slopes(native, w, x), slopes(plain, w, x))


def test_under_vmap_of_graphs_and_of_vmap(way):
    """Couplings that are stacked bring a graph each; ensembles of them stack once more."""
    (one, plain), (w, x, _) = made("random"), numbers(made("random")[0].graph, 1, 1, 2)
    other = Incidence.of(
        np.asarray(one.graph.senders)[::-1], np.asarray(one.graph.receivers), 30, 40
    )
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), one.edges, other)
    each = jax.vmap(native_sums.weighted_sum, in_axes=(0, None, None))
    w, x = jnp.asarray(w), jnp.asarray(x)
    found = each(both, w, x)
    close(found[0], by_loop(one.graph, w, x))
    reverse = Graph(one.graph.senders[::-1], one.graph.receivers, 30, 40)
    close(found[1], by_loop(reverse, w, x))

    stacks = np.stack([w, -w, 2 * w]), np.stack([x, np.cos(x)])
    inner = jax.vmap(lambda kernel, w, x: summed(kernel, w, x), in_axes=(None, 0, None))
    nested = jax.vmap(inner, in_axes=(None, None, 0))
    close(nested(one, *stacks), nested(plain, *stacks))
    learning = jax.grad(lambda k, w: jnp.sum(jnp.sin(nested(k, w, stacks[1]))), argnums=1)
    close(learning(one, stacks[0]), learning(plain, stacks[0]))
    graphs = jax.vmap(lambda e, w: jax.vmap(each, (None, 0, None))(e, w, x), in_axes=(None, 0))
    wide = graphs(both, np.stack([stacks[0], stacks[0]]))
    assert wide.shape == (2, 3, 2, 30, 1, 2)
    close(wide[1, 2, 0], by_loop(one.graph, 2 * w, x))


def test_inside_of_loops(way):
    senders, receivers, *_ = random_ends(30, 30, 200)
    receivers = np.sort(receivers)
    graph = Graph.of(senders, receivers, 30, 30)
    native = Native(graph=graph, edges=Incidence.of(senders, receivers, 30, 30))
    w, x, _ = numbers(graph, 1, 1, 2)
    w = 0.1 * w

    def passes(kernel, w, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(summed(kernel, w, x)), None), x, length=5)[0]

    def until(kernel, w, x):
        def body(now):
            count, x = now
            return count + 1, jnp.tanh(summed(kernel, w, x))

        return jax.lax.while_loop(lambda now: now[0] < 5, body, (0, x))[1]

    expected = jax.jit(passes)(Segments(graph), w, x)
    close(jax.jit(passes)(native, w, x), expected)
    close(jax.jit(until)(native, w, x), expected)

    def loss(kernel, w, x):
        return jnp.sum(passes(kernel, w, x) ** 2)

    slopes = jax.jit(jax.grad(loss, argnums=(1, 2)))
    close(slopes(native, w, x), slopes(Segments(graph), w, x))


def test_over_several_devices(way):
    native, plain = made("random")
    w, x, _ = numbers(native.graph, 1, 1, 4)
    mesh = Mesh(np.asarray(jax.devices("cpu")[:2]), ("samples",))
    samples, all_of_it = PartitionSpec(None, None, "samples"), PartitionSpec()

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(all_of_it, all_of_it, samples), out_specs=samples
    )
    def spread(kernel, w, x):
        return summed(kernel, w, x)

    def loss(way, kernel, w, x):
        return jnp.sum(jnp.sin(way(kernel, w, x)))

    close(jax.jit(spread)(native, w, x), by_loop(native.graph, w, x))
    slopes = jax.jit(jax.grad(functools.partial(loss, spread), argnums=(1, 2)))(native, w, x)
    close(slopes, jax.grad(functools.partial(loss, summed), argnums=(1, 2))(plain, w, x))


def test_sums_of_float64_keep_its_digits(way):
    with jax.enable_x64(True):
        native, plain = made("random")
        for units, items, batch in ((1, 1, 1), (1, 1, 7), (3, 3, 5), (3, 3, 1), (2, 1, 40)):
            w, x, signal = numbers(native.graph, units, items, batch, np.float64)

            def gradients(kernel, w=w, x=x, signal=signal):
                y, pull = jax.vjp(functools.partial(summed, kernel), w, x)
                return y, pull(signal)

            found = gradients(native)
            assert all(a.dtype == np.float64 for a in jax.tree.leaves(found))
            close(found, gradients(plain), scale=1e-13)


@pytest.mark.parametrize("dtype", ["int8", "float16", "bfloat16", "bool"])
def test_states_of_other_dtypes(way, dtype):
    native, plain = made("random")
    w, x, _ = numbers(native.graph, 1, 1, 3)
    coarse = jnp.asarray(np.sign(x)).astype(dtype)
    close(summed(native, w, coarse), summed(plain, w, coarse))
    half = jnp.asarray(w).astype(jnp.bfloat16)
    assert summed(native, half, coarse).dtype == jnp.bfloat16


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_reaches_those_who_hear_it(way, value, batch):
    native, plain = made("random")
    w, x, _ = numbers(native.graph, 1, 1, batch)
    x[7, 0, 0] = value
    found, expected = summed(native, w, x), summed(plain, w, x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
    assert not np.isfinite(expected).all()


# corrections


def shapes(name):
    """Units, weights of an edge and samples: all that C++ tells apart, on one graph."""
    if name == "random":
        return (1, 1, 1), (1, 1, 3), (1, 1, 64), (3, 3, 1), (3, 3, 16), (2, 1, 9)
    return (1, 1, 1), (2, 2, 9)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 1.0])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_corrected_field_is_the_whole_sum(way, name, share):
    native, _ = made(name)
    rng = np.random.default_rng(2)
    for units, items, batch in shapes(name):
        w, before, _ = numbers(native.graph, units, items, batch)
        change = rng.random(before.shape) < share
        after = np.where(change, np.sign(before), before)
        field, weights = summed(native, w, before), jnp.asarray(w)
        found = jax.jit(corrected)(native.edges, field, weights, before, after, np.bool_(False))
        close(found, by_loop(native.graph, w, after))
        if share == 0:
            np.testing.assert_array_equal(found, field)
        anew = jax.jit(corrected)(
            native.edges, 0 * field, weights, 0 * before, after, np.bool_(True)
        )
        np.testing.assert_array_equal(anew, jax.jit(summed)(native, w, after))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("name", GRAPHS)
def test_single_cells_are_summed_to_the_last_bit(way, name, share):
    native, _ = made(name)
    rng = np.random.default_rng(2)
    for units, items, batch in shapes(name):
        w, x, field = numbers(native.graph, units, items, batch)
        cells = rng.random(field.shape) < share
        found = jax.jit(resummed)(native.edges, field, jnp.asarray(w), x, cells)
        whole = np.asarray(jax.jit(summed)(native, w, x))
        np.testing.assert_array_equal(found[cells], whole[cells])
        # others are left alone, or summed as well where that costs less
        others = np.asarray(found)[~cells]
        assert ((others == field[~cells]) | (others == whole[~cells])).all()
        if share == 0:
            np.testing.assert_array_equal(found, field)


# axes of field, weights, and two more
AXES = [(0, None, 0, 0), (None, None, None, 0), (None, 0, None, 2)]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("change", [corrected, resummed])
def test_changes_of_a_field_under_vmap(way, axes, change):
    native, _ = made("random")
    w, before, _ = numbers(native.graph, 2, 2, 3)
    field = np.asarray(summed(native, w, before))
    after = np.where(before > 1, 1, before).astype(np.float32)
    given = [field, w, before, after if change is corrected else field > 0]
    if change is corrected:
        given.append(np.bool_(False))
        axes = *axes, None
    several = [
        a if axis is None else np.stack([a, a[::-1]], axis)
        for a, axis in zip(given, axes, strict=True)
    ]
    of_one = functools.partial(change, native.edges)
    each = jax.vmap(of_one, in_axes=axes)(*map(jnp.asarray, several))
    for i in range(2):
        own = [
            jnp.asarray(a if axis is None else np.take(a, i, axis))
            for a, axis in zip(several, axes, strict=True)
        ]
        # of single cells, only those that are asked for are promised
        promised = own[-1] if change is resummed else True
        close(np.where(promised, each[i], 0), np.where(promised, of_one(*own), 0))


def test_corrections_in_a_loop_leave_what_they_were_given(way):
    native, _ = made("random")
    w, x, _ = numbers(native.graph, 1, 1, 2)
    weights, field = jnp.asarray(w), summed(native, w, x)
    kept = np.array(field)
    states = jnp.asarray(np.stack([x, np.cos(x), np.sin(x), x]))

    @jax.jit
    def through(field):
        def one(field, pair):
            return corrected(native.edges, field, weights, *pair, jnp.bool_(False)), field

        return jax.lax.scan(one, field, (states[:-1], states[1:]))

    last, fields = through(field)
    np.testing.assert_array_equal(field, kept)
    close(last, kept)
    close(fields[1], by_loop(native.graph, w, np.cos(x)))


# calls that nobody should make


def raw(name, result, *operands):
    return jax.jit(jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(*result)))(*operands)


def whole_call():
    """Arrays that fit: starts, ends, weights, states, and the shape of the sums."""
    return {
        "starts": np.asarray([[0, 2, 2, 5]], np.int32),
        "ends": np.asarray([[0, 1, 0, 1, 1]], np.int32),
        "w": np.ones((1, 5, 1, 1), np.float32),
        "x": np.ones((1, 2, 3, 4), np.float32),
        "y": np.ones((1, 3, 3, 4), np.float32),
    }


BAD = {
    "starts that fall": {"starts": np.asarray([[0, 4, 2, 5]], np.int32)},
    "starts beyond the edges": {"starts": np.asarray([[0, 9, 9, 5]], np.int32)},
    "starts below zero": {"starts": np.asarray([[0, -3, 2, 5]], np.int32)},
    "starts that begin late": {"starts": np.asarray([[1, 2, 2, 5]], np.int32)},
    "starts that end early": {"starts": np.asarray([[0, 2, 2, 4]], np.int32)},
    "too many starts": {"starts": np.asarray([[0, 2, 2, 5, 5]], np.int32)},
    "starts without an axis": {"starts": np.asarray([0, 2, 2, 5], np.int32)},
    "starts of another dtype": {"starts": np.asarray([[0, 2, 2, 5]], np.uint32)},
    "ends beyond the states": {"ends": np.asarray([[0, 1, 0, 1, 2]], np.int32)},
    "narrow ends beyond the states": {"ends": np.asarray([[0, 1, 0, 1, 2]], np.uint16)},
    "ends below zero": {"ends": np.asarray([[0, 1, -1, 1, 1]], np.int32)},
    "ends of another dtype": {"ends": np.asarray([[0, 1, 0, 1, 1]], np.int8)},
    "too few ends": {"ends": np.asarray([[0, 1, 0, 1]], np.int32)},
    "ends of a stack of two": {"ends": np.zeros((2, 5), np.int32)},
    "too few weights": {"w": np.ones((1, 4, 1, 1), np.float32)},
    "two weights for three units": {"w": np.ones((1, 5, 2, 1), np.float32)},
    "weights of samples": {"w": np.ones((1, 5, 1, 4), np.float32)},
    "weights without an axis": {"w": np.ones((5, 1, 1), np.float32)},
    "weights of a stack of two": {"w": np.ones((2, 5, 1, 1), np.float32)},
    "weights of another dtype": {"w": np.ones((1, 5, 1, 1), np.float16)},
    "all of another dtype": {
        "w": np.ones((1, 5, 1, 1), np.float16),
        "x": np.ones((1, 2, 3, 4), np.float16),
        "y": np.ones((1, 3, 3, 4), np.float16),
    },
    "states of more units": {"x": np.ones((1, 2, 5, 4), np.float32)},
    "states of more samples": {"x": np.ones((1, 2, 3, 9), np.float32)},
    "states without an axis": {"x": np.ones((2, 3, 4), np.float32)},
    "states of an axis more": {"x": np.ones((1, 1, 2, 3, 4), np.float32)},
    "states of another dtype": {"x": np.ones((1, 2, 3, 4), np.int8)},
    "no states": {"x": np.ones((1, 0, 3, 4), np.float32)},
    "sums of more rows": {"y": np.ones((1, 4, 3, 4), np.float32)},
    "sums of more samples": {"y": np.ones((1, 3, 3, 40), np.float32)},
    "sums without an axis": {"y": np.ones((3, 3, 4), np.float32)},
    "sums of another dtype": {"y": np.ones((1, 3, 3, 4), np.float16)},
}


@needs_library
@pytest.mark.parametrize("name", BAD)
def test_bad_calls_are_refused(name):
    given = whole_call() | BAD[name]
    starts, ends, w, x, y = given.values()
    result = y.shape, y.dtype
    with pytest.raises(jax.errors.JaxRuntimeError, match="darnax:"):
        jax.block_until_ready(raw("darnax_sum", result, starts, ends, w, x))
    if name == "weights of a stack of two":
        # as products they are right: one a state
        return
    with pytest.raises(jax.errors.JaxRuntimeError, match="darnax:"):
        jax.block_until_ready(raw("darnax_products", (w.shape, w.dtype), starts, ends, x, y))


@needs_library
def test_good_calls_are_not_refused():
    starts, ends, w, x, y = whole_call().values()
    found = raw("darnax_sum", (y.shape, y.dtype), starts, ends, w, x)
    np.testing.assert_array_equal(found[0, :, 0, 0], [2, 0, 3])
    found = raw("darnax_products", (w.shape, w.dtype), starts, ends, x, y)
    np.testing.assert_array_equal(found, np.full(w.shape, 12))


def corrections():
    """Arrays that fit: 3 senders and 2 receivers, and their edges from both ends.

    The last sender changes in one column, and has so few of the edges that they are corrected.
    """
    after = np.zeros((1, 3, 3, 4), np.float32)
    after[:, -1, 0, 0] = 1
    return {
        "back starts": np.asarray([[0, 43, 45]], np.int32),
        "back ends": np.asarray([[0] * 42 + [2] * 3], np.int32),
        "starts": np.asarray([[0, 42, 42, 45]], np.int32),
        "ends": np.asarray([[0] * 43 + [1] * 2], np.int32),
        "order": np.arange(45, dtype=np.int32)[None],
        "w": np.ones((1, 45, 1, 1), np.float32),
        "anew": np.asarray([False]),
        "before": np.zeros((1, 3, 3, 4), np.float32),
        "after": after,
        "y": np.ones((1, 2, 3, 4), np.float32),
    }


def ending(last, dtype):
    """Numbers of 45 edges, of which the last is another."""
    return np.asarray([[0] * 44 + [last]]).astype(dtype)


BAD_CORRECTIONS = {
    "starts that fall": {"starts": np.asarray([[0, 42, 46, 45]], np.int32)},
    "starts that begin late": {"starts": np.asarray([[1, 42, 42, 45]], np.int32)},
    "starts that end early": {"starts": np.asarray([[0, 42, 42, 44]], np.int32)},
    "too many starts": {"starts": np.asarray([[0, 42, 42, 45, 45]], np.int32)},
    "starts of another dtype": {"starts": np.asarray([[0, 42, 42, 45]], np.uint32)},
    "ends beyond the field": {"ends": ending(2, np.int32)},
    "narrow ends beyond the field": {"ends": ending(2, np.uint16)},
    "ends below zero": {"ends": ending(-1, np.int32)},
    "ends of another dtype": {"ends": ending(1, np.int8)},
    "too few ends": {"ends": np.zeros((1, 44), np.int32)},
    "too few weights": {"w": np.ones((1, 44, 1, 1), np.float32)},
    "two weights for three units": {"w": np.ones((1, 45, 2, 1), np.float32)},
    "weights of another dtype": {"w": np.ones((1, 45, 1, 1), np.float16)},
    "an order beyond the weights": {"order": ending(45, np.int32)},
    "an order below zero": {"order": ending(-1, np.int32)},
    "an order of too few": {"order": np.zeros((1, 44), np.int32)},
    "an order of another dtype": {"order": ending(4, np.uint16)},
    "anew of another dtype": {"anew": np.asarray([0], np.uint8)},
    "anew for two": {"anew": np.asarray([False, False])},
    "anew with starts that fall": {
        "anew": np.asarray([True]),
        "back starts": np.asarray([[0, 50, 45]], np.int32),
    },
    "anew with ends beyond the states": {
        "anew": np.asarray([True]),
        "back ends": ending(3, np.int32),
    },
    "other states after": {"after": np.ones((1, 2, 3, 4), np.float32)},
    "states after of another dtype": {"after": np.ones((1, 3, 3, 4), np.int8)},
    "states before without an axis": {"before": np.ones((3, 3, 4), np.float32)},
    "more units": {"before": np.ones((1, 3, 4, 4), np.float32)},
    "a field of more samples": {"y": np.ones((1, 2, 3, 40), np.float32)},
    "a field for a stack of two": {
        "before": np.ones((2, 3, 3, 4), np.float32),
        "after": np.ones((2, 3, 3, 4), np.float32),
    },
    "one field for two": {"y": np.ones((2, 2, 3, 4), np.float32), "field": True},
}


ONE_COLUMN = BAD_CORRECTIONS.keys() - {
    "more units",
    "a field of more samples",
    "two weights for three units",
}


@needs_library
@pytest.mark.parametrize(
    ("name", "columns"),
    [(name, (3, 4)) for name in BAD_CORRECTIONS] + [(name, (1, 1)) for name in sorted(ONE_COLUMN)],
)
def test_bad_corrections_are_refused(name, columns):
    given = corrections() | BAD_CORRECTIONS[name]
    one_field = given.pop("field", False)
    if columns == (1, 1):
        given = {
            k: a[..., :1, :1] if k in ("before", "after", "y") else a for k, a in given.items()
        }
    *operands, y = given.values()
    field = y[:1] if one_field else y
    with pytest.raises(jax.errors.JaxRuntimeError, match="darnax:"):
        jax.block_until_ready(raw("darnax_correct", (y.shape, y.dtype), *operands, field))


BAD_CELLS = BAD | {
    "cells of more rows": {"cells": np.ones((1, 4, 3, 4), bool)},
    "cells of more samples": {"cells": np.ones((1, 3, 3, 5), bool)},
    "cells without an axis": {"cells": np.ones((3, 3, 4), bool)},
    "cells of another dtype": {"cells": np.ones((1, 3, 3, 4), np.int8)},
    "cells of a stack of two": {"cells": np.ones((2, 3, 3, 4), bool)},
}


@needs_library
@pytest.mark.parametrize("name", BAD_CELLS)
@pytest.mark.parametrize("share", ["one", "all"])
def test_bad_sums_of_single_cells_are_refused(name, share):
    given = whole_call() | {"cells": np.zeros((1, 3, 3, 4), bool)} | BAD_CELLS[name]
    y, cells = given.pop("y"), given.pop("cells")
    cells[:] = share == "all"
    # the last row has the edges that are wrong
    cells[..., -1, -1, -1] = True
    if share == "one" and name.startswith("starts"):
        # the rows that are not read may be wrong
        cells[:] = True
    operands = *given.values(), cells, y
    with pytest.raises(jax.errors.JaxRuntimeError, match="darnax:"):
        jax.block_until_ready(raw("darnax_resum", (y.shape, y.dtype), *operands))


# which sum is chosen, and what is said about it


def irregular(nodes=300, degree=9):
    g = nx.gnp_random_graph(nodes, degree / nodes, seed=1, directed=True)
    nx.set_node_attributes(g, (), "shape")
    return dx.Topology(g)


def network():
    return dx.Network(irregular(), {"edge": dx.scale(0.5)}, dx.tanh, key=jax.random.key(0))


@needs_library
def test_the_summary_says_that_sums_are_native():
    assert "native sum" in network().summary()


def test_without_the_library_the_summary_says_why(monkeypatch):
    monkeypatch.setattr(native_kernel, "native_library", lambda: NO_LIBRARY)
    monkeypatch.setattr("darnax.kernels.slots.native_library", lambda: NO_LIBRARY)
    large = dx.Network(irregular(700), {"edge": dx.scale(0.5)}, dx.tanh, key=jax.random.key(0))
    assert "irregular; switched off" in large.summary()
    assert "native" not in network().summary()


@needs_library
def test_a_network_of_another_machine_runs_without_the_library(monkeypatch):
    ours = network()
    state = dx.GraphState(ours.topology, 2)
    state = state.replace(
        jax.tree.map(
            lambda a: np.cos(np.arange(a.size)).reshape(a.shape).astype(np.float32), state.arrays
        )
    )
    expected = dx.step(ours, state).arrays
    monkeypatch.setattr(native_kernel, "native_library", lambda: NO_LIBRARY)
    monkeypatch.setattr(native_call, "native_library", lambda: NO_LIBRARY)
    jax.clear_caches()
    theirs = pickle.loads(pickle.dumps(ours))
    assert "switched off" in theirs.summary()
    close(dx.step(theirs, state).arrays, expected)
    jax.clear_caches()


@needs_library
def test_networks_with_stacked_sparse_couplings():
    """Two couplings of one kind, each with its own wiring, are one stack."""
    wiring = nx.gnp_random_graph(60, 0.12, seed=0, directed=True)
    g = nx.DiGraph([("a", "b"), ("b", "a")])
    nx.set_node_attributes(g, (60,), "shape")
    network = dx.Network(
        dx.Topology(g), {"edge": dx.sparse(wiring, gain=0.9)}, dx.tanh, key=jax.random.key(0)
    )
    assert isinstance(network["a", "b"].sum, kernels.WeightedSum)
    state = dx.GraphState(network.topology, 3)
    state = state.replace(
        {v: np.cos(np.arange(180.0)).reshape(3, 60).astype(np.float32) for v in g}
    )
    field = network.local_field(state)
    matrix = np.zeros((60, 60), np.float32)
    coupling = network["a", "b"]
    np.add.at(
        matrix,
        (np.asarray(coupling.sum.graph.receivers), np.asarray(coupling.sum.graph.senders)),
        np.asarray(coupling.weight),
    )
    close(field["b"], np.asarray(state["a"]) @ matrix.T)


# the library itself


def test_the_environment_turns_the_library_off(monkeypatch):
    monkeypatch.setenv("DARNAX_NATIVE", "0")
    assert native_library.__wrapped__() == (False, "DARNAX_NATIVE is 0")


def test_a_library_that_is_missing_or_broken_is_said(monkeypatch, tmp_path):
    module = "darnax.kernels.library.FOLDER"
    monkeypatch.delenv("DARNAX_NATIVE", raising=False)
    monkeypatch.setattr(module, tmp_path)
    assert "no compiler" in native_library.__wrapped__().reason
    for suffix in (".so", ".dylib", ".dll"):
        (tmp_path / f"libdarnax{suffix}").write_text("no library")
    loaded, reason = native_library.__wrapped__()
    assert not loaded
    assert "does not load" in reason
