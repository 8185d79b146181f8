"""States: the contract that both kinds keep, and what a state of any topology does beyond it."""

import copy
import pickle
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

import darnax as dx
from darnax import GraphState, Topology, topologies
from darnax.states import Arrays, cells
from darnax.states.sequential import SequentialState
from darnax.testing import random_state

SIZES = [(4,), (2, 3, 1), 5, 5, (3,)]
SHAPES = [(4,), (2, 3, 1), (5,), (5,), (3,)]


def chain_state(sizes=SIZES, dtype="float32"):
    graph = topologies.sequential(sizes)
    nx.set_node_attributes(graph, dtype, "dtype")
    return GraphState(Topology(graph))


MAKERS = {
    "sequential": lambda sizes=SIZES, dtype="float32": SequentialState(sizes, dtype=dtype),
    "graph": chain_state,
}
both = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def filled(make, batch=6, seed=0, **arguments):
    """A state of random numbers, and these as NumPy arrays."""
    rng = np.random.default_rng(seed)
    buffers = [rng.normal(size=(batch, *shape)).astype(np.float32) for shape in SHAPES]
    return make(**arguments).replace(buffers), buffers


def assert_buffers(state, buffers):
    for i, buffer in enumerate(buffers):
        np.testing.assert_array_equal(np.asarray(state[i], buffer.dtype), buffer)


# the contract, for both


@both
def test_starts_with_zeros_in_a_batch_of_one(make):
    state = make()
    assert len(state) == 5
    assert list(state) == [0, 1, 2, 3, 4]
    assert state.batch_size == 1
    assert_buffers(state, [np.zeros((1, *shape), np.float32) for shape in SHAPES])


@both
@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "bool"])
def test_dtype_is_kept(make, dtype):
    state = make([2, 2], dtype).init(np.ones((2, 2), bool)).replace_val(1, np.ones((2, 2), bool))
    assert {state[i].dtype for i in state} == {jnp.dtype(dtype)}
    assert np.asarray(state[1], np.float32).sum() == 4


@both
def test_init_sets_input_and_output_clears_the_rest_and_resizes(make):
    state, _ = filled(make)
    x, y = np.arange(12.0).reshape(3, 4), np.arange(9.0).reshape(3, 3)
    for target in (None, y):
        fresh = state.init(x) if target is None else state.init(x, target)
        assert fresh.batch_size == 3
        zeros = [np.zeros((3, *shape), np.float32) for shape in SHAPES[1:-1]]
        assert_buffers(fresh, [x, *zeros, np.zeros((3, 3)) if target is None else y])
    assert state.init(jnp.asarray(x, jnp.float32)).init(x[:1]).batch_size == 1


@both
def test_keys_count_from_the_end_too(make):
    state, buffers = filled(make)
    for key in range(-5, 5):
        np.testing.assert_array_equal(state[key], buffers[key])
        np.testing.assert_array_equal(state[np.int64(key)], buffers[key])
        assert key in state
        np.testing.assert_array_equal(
            state.replace_val(key, 2 * buffers[key])[key], 2 * buffers[key]
        )
    np.testing.assert_array_equal(state.readout, state[-1])
    assert not any(key in state for key in (5, -6, "0", None, 1.0, True, [0], slice(0, 2)))


@both
def test_every_method_returns_a_new_state(make):
    state, buffers = filled(make)
    state.init(np.ones((2, 4)))
    state.replace_val(0, np.ones((6, 4)))
    state.replace([2 * buffer for buffer in buffers])
    assert_buffers(state, buffers)
    with pytest.raises(AttributeError):
        state.topology = None
    with pytest.raises(AttributeError):
        state.states = None


@both
def test_what_the_user_does_to_an_array_afterwards_is_not_seen(make):
    x = np.ones((2, 4), np.float32)
    state = make().init(x)
    other = state.replace_val(0, x)
    x[:] = 7
    assert np.asarray(state[0]).max() == np.asarray(other[0]).max() == 1


@both
def test_replace_takes_all_buffers_and_may_bring_another_batch(make):
    state, buffers = filled(make)
    other = state.replace([buffer[:2] for buffer in buffers])
    assert other.batch_size == 2
    assert_buffers(other, [buffer[:2] for buffer in buffers])
    assert_buffers(state.replace(state[i] for i in state), buffers)


@both
def test_replace_val_changes_one_buffer(make):
    state, buffers = filled(make)
    for key in range(5):
        expected = [*buffers]
        expected[key] = -buffers[key]
        assert_buffers(state.replace_val(key, -buffers[key]), expected)


def test_a_single_layer_is_input_and_output():
    state = SequentialState([3]).init(np.ones((2, 3)))
    np.testing.assert_array_equal(state.readout, state[0])


# dtypes

bad_dtypes = {
    "float64": np.ones((2, 4)),
    "weak float": jnp.full((2, 4), 1.0),
    "bfloat16": jnp.ones((2, 4), jnp.bfloat16),
    "too large": np.full((2, 4), 200),
    "too large, JAX": jnp.full((2, 4), 200, jnp.int32),
    "unsigned": np.full((2, 4), 255, np.uint8),
}
good_dtypes = {
    "int8": np.full((2, 4), -3, np.int8),
    "int64": np.full((2, 4), -3),
    "JAX int32": jnp.full((2, 4), -3),
    "list": [[-3] * 4] * 2,
    "bool": np.ones((2, 4), bool),
    "unsigned": np.full((2, 4), 127, np.uint8),
}


@both
@pytest.mark.parametrize("value", bad_dtypes)
def test_an_int8_state_refuses(make, value):
    state = make(dtype="int8").init(np.ones((2, 4), np.int8))
    for call in (state.init, lambda value: state.replace_val(0, value)):
        with pytest.raises(
            TypeError, match=r"has dtype int8, .*; convert .*as in value\.astype\('int8'\)"
        ):
            call(bad_dtypes[value])


@both
@pytest.mark.parametrize("value", good_dtypes)
def test_an_int8_state_takes(make, value):
    state = make(dtype="int8").init(good_dtypes[value])
    assert state[0].dtype == jnp.int8
    np.testing.assert_array_equal(
        np.asarray(state[0], np.int64), np.asarray(good_dtypes[value], np.int64)
    )


@both
def test_floats_are_rounded_as_jax_does(make):
    value = np.asarray([[1 / 3, np.inf, -1e-300, np.nan]])
    np.testing.assert_array_equal(make().init(value)[0], value.astype(np.float32))
    assert make().init(np.full((1, 4), 1.0 + 0.5j).real)[0].dtype == jnp.float32
    half = make(dtype="bfloat16").init(np.full((1, 4), 1 / 3, np.float32))[0]
    np.testing.assert_array_equal(half, jnp.full((1, 4), 1 / 3, jnp.bfloat16))


@both
def test_integers_go_into_floats_exactly_or_not_at_all(make):
    exact = {
        "float32": [2**24, -(2**24), 2**30, 0],
        "bfloat16": [256, -256, 2**30, 3],
        "float16": [2048, -2048, 4096, 1],
    }
    inexact = {"float32": 2**24 + 1, "bfloat16": 257, "float16": 70_000}
    for dtype, values in exact.items():
        np.testing.assert_array_equal(
            np.asarray(make(dtype=dtype).init([values])[0], np.float64), [values]
        )
        for kind in (np.int64, np.int32):
            with pytest.raises(
                TypeError, match=f"has dtype {dtype}, which cannot hold these .* values exactly"
            ):
                make(dtype=dtype).init(np.full((1, 4), inexact[dtype], kind))
    with pytest.raises(TypeError, match="exactly"):
        make().init(np.full((1, 4), 2**63 - 1))
    assert complex(make(dtype="complex64").init(np.full((1, 4), 2**30))[0][0, 0]) == 2.0**30
    # infinite in float16, which NumPy takes back as the least integer of the type
    for kind in (np.int64, np.int32):
        with pytest.raises(TypeError, match="exactly"):
            make(dtype="float16").init(np.full((1, 4), np.iinfo(kind).min))
    assert float(make().init(np.full((1, 4), 2**62))[0][0, 0]) == 2.0**62


@both
def test_inside_jit_a_type_must_say_that_integers_fit(make):
    init = jax.jit(lambda state, x: state.init(x))
    assert init(make(), jnp.ones((2, 4), jnp.int32))[0].dtype == jnp.float32
    assert init(make(dtype="int32"), jnp.ones((2, 4), jnp.int8))[0].dtype == jnp.int32
    with pytest.raises(TypeError, match="has dtype int8"):
        init(make(dtype="int8"), jnp.ones((2, 4), jnp.int32))


@both
def test_buffers_are_never_weakly_typed(make):
    weak = jnp.full((2, 4), 1.0)
    assert weak.weak_type
    state = make().init(weak)
    for other in (state, state.replace_val(0, weak), make(sizes=[4, 4]).init(weak, weak)):
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(other))


@both
def test_64_bits_work_where_jax_has_them(make):
    with jax.enable_x64(True):
        state = make(dtype="float64").init(np.full((1, 4), 1 / 3))
        assert state[0].dtype == jnp.float64
        assert float(state[0][0, 0]) == 1 / 3
    with pytest.raises(ValueError, match="float64 needs 64-bit mode"):
        make(dtype="float64")


@both
@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", 1e300), ("float16", 1e5), ("bfloat16", 3.4e38), ("float32", -1e39)],
    ids=str,
)
def test_finite_numbers_never_become_infinite(make, dtype, value):
    state = make(dtype=dtype)
    for given_ in (np.full((1, 4), value), [[value] * 4], np.full((1, 4), np.longdouble(value))):
        for call in (
            state.init,
            lambda x: state.replace_val(0, x),
            lambda x: state.replace({0: x}),
        ):
            with pytest.raises(ValueError, match=f"holds .*, which is infinite as {dtype}; scale"):
                call(given_)
    infinite = state.init(np.full((1, 4), np.inf))
    assert np.isinf(np.asarray(infinite[0], np.float32)).all()
    small = np.full((1, 4), float(jnp.finfo(dtype).max))
    assert np.isfinite(np.asarray(state.init(small)[0], np.float64)).all()


@both
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_whatever_holds_numbers_is_read(make):
    expected = np.asarray([[1.0, 2.0, 3.0, 4.0]], np.float32)
    given_ = [
        expected,
        expected.tolist(),
        [tuple(expected[0])],
        [expected[0]],
        [jnp.asarray(expected)[0]],
    ]
    given_ += [
        np.asmatrix(expected),
        expected.astype(">f8"),
        expected.astype(np.longdouble),
        memoryview(expected),
    ]
    given_ += [expected[:, ::-1][:, ::-1]]
    for value in given_:
        np.testing.assert_array_equal(make().init(value)[0], expected)
    traced = jax.jit(lambda x: make().init([[x, 2 * x, 3 * x, 4 * x]])[0])(1.0)
    np.testing.assert_array_equal(traced, expected)


@both
def test_mappings_are_taken_by_every_method(make):
    state, buffers = filled(make)
    fresh = state.init({0: buffers[0], -2: buffers[3]}, {-1: buffers[4]})
    assert_buffers(fresh, [buffers[0], 0 * buffers[1], 0 * buffers[2], buffers[3], buffers[4]])
    other = state.replace({np.int64(-1): 2 * buffers[4], 2: 3 * buffers[2]})
    assert_buffers(other, [buffers[0], buffers[1], 3 * buffers[2], buffers[3], 2 * buffers[4]])
    assert eqx.tree_equal(state.replace({}), state)


# what a person looks at


def shown(state):
    """The words for a state, which fit a screen of 80 columns and 24 lines."""
    words = repr(state)
    assert sum(1 + len(line) // 80 for line in words.splitlines()) <= 24
    return words


def test_a_state_is_shown_by_its_shapes():
    state, _ = filled(chain_state, batch=64)
    assert shown(state) == (
        "GraphState(5 nodes in 4 arrays, 'input(4,)': float32[1, 4, 64], "
        "'hidden(2, 3, 1)': float32[1, 2, 3, 1, 64], 'hidden(5,)': float32[2, 5, 64], "
        "'output(3,)': float32[1, 3, 64])"
    )
    state = SequentialState([4, (2, 3)], dtype="int8")
    assert shown(state) == "SequentialState(0: int8[1, 4], 1: int8[1, 2, 3])"


@both
def test_a_state_of_any_size_fits_a_screen_wherever_it_is_shown(make):
    long = make(sizes=list(range(1, 300)))
    assert "and 287 more" in shown(long)
    state, stack = filled(make, batch=64)[0], stacked(make, 2)[1]
    seen = []
    jax.jit(lambda state: seen.append(shown(state)))(state)
    jax.vmap(lambda state: seen.append(shown(state)))(stack)
    assert seen == [shown(state), shown(unstacked(stack, 0))]
    assert "float32[2, " in shown(stack)
    assert "NoneType" in shown(jax.tree.map(lambda leaf: None, state))
    assert shown(jax.eval_shape(lambda: state)) == shown(state)


@both
def test_keys_values_and_items_are_those_of_a_mapping(make):
    state, buffers = filled(make)
    for _ in range(2):  # each may be gone through more than once
        assert list(state.keys()) == list(state) == [0, 1, 2, 3, 4]
        for value, buffer in zip(state.values(), buffers, strict=True):
            np.testing.assert_array_equal(value, buffer)
        for i, (key, value) in enumerate(state.items()):
            assert key == i
            np.testing.assert_array_equal(value, buffers[i])
    assert len(state.keys()) == len(state.values()) == len(state.items()) == 5
    assert -1 in state.keys()  # noqa: SIM118
    assert {*state.keys(), 7} == {0, 1, 2, 3, 4, 7}
    assert dict(state).keys() == {0, 1, 2, 3, 4}
    assert eqx.tree_equal(make().init(dict(state)), state)
    assert state._ipython_key_completions_() == [0, 1, 2, 3, 4]


def test_keys_of_a_graph_state_are_names_of_nodes():
    state = GraphState(views(), 2)
    names = ["top", "patch", "dot", "all", "own", "small"]
    assert list(state.keys()) == [name for name, _ in state.items()] == names
    assert state._ipython_key_completions_() == names
    assert [value.shape for value in state.values()] == [state[name].shape for name in names]


# states as pytrees


@both
def test_leaves_are_the_buffers_and_nothing_else(make):
    state, buffers = filled(make)
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert sum(leaf.size for leaf in leaves) == sum(buffer.size for buffer in buffers)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    doubled = jax.jit(lambda state: jax.tree.map(lambda leaf: 2 * leaf, state))(state)
    assert type(doubled) is type(state)
    assert_buffers(doubled, [2 * buffer for buffer in buffers])


@both
def test_states_travel_through_pickle_and_copy(make):
    state, buffers = filled(make)
    for other in (
        pickle.loads(pickle.dumps(state)),
        copy.deepcopy(state),
        jax.tree.unflatten(*jax.tree.flatten(state)[::-1]),
    ):
        assert_buffers(other, buffers)
        assert jax.tree.structure(other) == jax.tree.structure(state)


@both
def test_equal_states_freshly_made_compile_once(make):
    traces = []

    @jax.jit
    def double(state):
        traces.append(None)
        return state.replace_val(1, state[1] * 2)

    for seed in range(3):
        state, buffers = filled(make, seed=seed)
        np.testing.assert_array_equal(double(state)[1], 2 * buffers[1])
    double(pickle.loads(pickle.dumps(state)))
    double(state.init(np.ones((6, 4))))
    double(state.init(jnp.full((6, 4), 1.0)))
    assert len(traces) == 1
    double(state.init(np.ones((7, 4))))
    assert len(traces) == 2


def loss(state):
    return sum(jnp.sum(jnp.sin(state[i]) * (i + 1)) for i in state) + jnp.sum(state.readout**3)


def change(state):
    state = state.replace_val(2, jnp.tanh(state[3]) + state[2])
    return state.init(state[0] * 2, state[-1]).replace([2 * state[i] for i in state])


@both
def test_jit_equals_eager(make):
    state, _ = filled(make)
    eager, jitted = change(state), jax.jit(change)(state)
    for i in state:
        np.testing.assert_allclose(jitted[i], eager[i], rtol=1e-6)


@both
def test_grad_has_the_form_of_the_state(make):
    state, buffers = filled(make)
    gradient = jax.jit(jax.grad(loss))(state)
    assert type(gradient) is type(state)
    for i in state:
        expected = np.cos(buffers[i]) * (i + 1) + (3 * buffers[i] ** 2 if i == 4 else 0)
        np.testing.assert_allclose(gradient[i], expected, rtol=1e-4, atol=1e-5)


def stacked(make, count):
    states = [filled(make, seed=seed)[0] for seed in range(count)]
    return states, jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves)), *states)


def unstacked(tree, i):
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[i]), tree)


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


MAPS = {
    "vmap": lambda function: jax.jit(jax.vmap(function)),
    "pmap": jax.pmap,
    "map": lambda function: lambda stack: jax.lax.map(function, stack),
}


@both
@pytest.mark.parametrize("mapped", MAPS.values(), ids=MAPS.keys())
def test_maps_over_stacked_states_equal_the_loop(make, mapped):
    states, stack = stacked(make, min(2, jax.local_device_count()))

    def everything(state):
        return change(state), jax.grad(loss)(state), {"readout": state.readout}

    result, reference = mapped(everything)(stack), jax.jit(everything)
    for i, state in enumerate(states):
        assert_close(unstacked(result, i), reference(state))


@both
def test_scan_carries_and_stacks_states(make):
    state, _ = filled(make)

    def body(carry, factor):
        carry = carry.replace_val(1, carry[1] * factor)
        return carry, carry

    last, frames = jax.lax.scan(body, state, jnp.asarray([2.0, 3.0]))
    np.testing.assert_allclose(last[1], 6 * np.asarray(state[1]), rtol=1e-6)
    np.testing.assert_allclose(unstacked(frames, 0)[1], 2 * np.asarray(state[1]), rtol=1e-6)
    np.testing.assert_array_equal(unstacked(frames, 1)[3], state[3])


@both
def test_grad_through_a_scan_over_stacked_states(make):
    _, stack = stacked(make, 2)

    def total(stack):
        return jax.lax.scan(lambda carry, state: (carry + loss(change(state)), None), 0.0, stack)[0]

    gradient = jax.jit(jax.grad(total))(stack)
    reference = jax.jit(jax.grad(lambda state: loss(change(state))))
    for i in range(2):
        assert_close(unstacked(gradient, i), reference(unstacked(stack, i)))


@both
def test_filters_of_equinox_see_the_buffers(make):
    state, _ = filled(make)
    arrays, rest = eqx.partition(state, eqx.is_inexact_array)
    assert not jax.tree.leaves(rest)
    assert eqx.tree_equal(eqx.combine(arrays, rest), state)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_graph_state_of_a_chain_answers_as_a_sequential_state(data):
    """Random calls, one after another, to both."""
    # few shapes, each of which XLA compiles for
    sizes = data.draw(st.lists(st.sampled_from([2, (), (2,), (2, 1)]), min_size=2, max_size=4))
    dtype = data.draw(st.sampled_from(["float32", "int8", "bfloat16"]))
    pair = SequentialState(sizes, dtype=dtype), chain_state(sizes, dtype)
    shapes = [buffer.shape[1:] for buffer in pair[0].states]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))

    def random(i, batch):
        return rng.integers(-9, 9, (batch, *shapes[i])).astype(
            data.draw(st.sampled_from(["int8", "float32"]))
        )

    for _ in range(3):
        batch = data.draw(st.sampled_from([1, 3]))
        key = data.draw(st.integers(-len(sizes) - 1, len(sizes)))
        x, y, buffers = (
            random(0, batch),
            random(-1, batch),
            [random(i, batch) for i in range(len(sizes))],
        )
        value = random(key % len(sizes), batch)
        call = data.draw(
            st.sampled_from(
                [
                    lambda s, x=x: s.init(x),
                    lambda s, x=x, y=y: s.init(x, y),
                    lambda s, b=buffers: s.replace(b),
                    lambda s, k=key, v=value: s.replace_val(k, v),
                ]
            )
        )
        answers = [answer(call, state) for state in pair]
        assert answers[0][1] == answers[1][1]
        if answers[0][1] is None:
            pair = answers[0][0], answers[1][0]
        for i in range(-len(sizes), len(sizes)):
            one, other = pair[0][i], pair[1][i]
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_array_equal(
                np.asarray(one, np.float32), np.asarray(other, np.float32)
            )
        assert pair[0].batch_size == pair[1].batch_size


def answer(call, state):
    try:
        return call(state), None
    except (ValueError, TypeError, KeyError) as error:
        return None, type(error)


# beyond the contract: a state of any topology


def views():
    graph = nx.DiGraph(arrays={"image": (4, 6)})
    graph.add_node("top", array="image", index=(slice(0, 2), slice(0, 6, 2)), role="input")
    graph.add_node("patch", array="image", index=(slice(1, 4), slice(2, 5)), role="output")
    graph.add_node("dot", array="image", index=(-1, -1), role="output")
    graph.add_node("all", array="image")
    graph.add_node("own", shape=2, role="input")
    graph.add_node("small", shape=(2,), dtype="int8")
    return Topology(graph)


@pytest.mark.parametrize("case", CASES)
def test_nodes_are_views_of_the_global_arrays(case):
    state = random_state(Topology(CASES[case].graph()), 3)
    assert list(state) == list(state.topology.nodes)
    assert len(state) == len(state.topology)
    for node in state:
        view = state.topology.view(node)
        expected = np.moveaxis(np.asarray(state.arrays[view.array])[view.index], -1, 0)
        np.testing.assert_array_equal(state[node], expected)
        assert state[node].shape == (3, *state.topology.shape(node))
    for name, spec in state.topology.arrays.items():
        assert state.arrays[name].shape == (*spec.shape, 3)
        assert state.arrays[name].dtype == spec.dtype


@pytest.mark.parametrize("case", ["views", "windows", "bfloat16", "scalars"])
def test_writing_a_node_writes_its_cells_and_no_others(case):
    state = random_state(Topology(CASES[case].graph()), 2)
    for node in state:
        value = np.asarray(-state[node])
        expected = {name: np.array(array) for name, array in state.arrays.items()}
        view = state.topology.view(node)
        expected[view.array][(*view.index, ...)] = np.moveaxis(value, 0, -1)
        for written in (state.replace_val(node, value), state.replace({node: value})):
            for name, array in written.arrays.items():
                np.testing.assert_array_equal(array, expected[name])


def test_overlapping_views_see_each_others_writes():
    state = GraphState(views(), 2)
    state = state.replace_val("all", np.arange(48.0).reshape(2, 4, 6))
    image = np.arange(48.0).reshape(2, 4, 6)
    np.testing.assert_array_equal(state["top"], image[:, 0:2, 0:6:2])
    np.testing.assert_array_equal(state["patch"], image[:, 1:4, 2:5])
    np.testing.assert_array_equal(state["dot"], image[:, -1, -1])
    state = state.replace_val("patch", -np.ones((2, 3, 3)))
    image[:, 1:4, 2:5] = -1
    np.testing.assert_array_equal(state["all"], image)
    np.testing.assert_array_equal(state["top"], image[:, 0:2, 0:6:2])


def test_init_with_several_inputs_and_any_node():
    state = GraphState(views(), 5)
    fresh = state.init(
        {"top": np.ones((2, 2, 3)), "own": np.full((2, 2), 2.0), "small": np.full((2, 2), 3)},
        {"dot": [4.0, 5.0]},
    )
    assert fresh.batch_size == 2
    image = np.zeros((2, 4, 6))
    image[:, 0:2, 0:6:2], image[:, -1, -1] = 1, [4, 5]
    np.testing.assert_array_equal(fresh["all"], image)
    np.testing.assert_array_equal(fresh["own"], np.full((2, 2), 2.0))
    np.testing.assert_array_equal(fresh["small"], np.full((2, 2), 3, np.int8))
    assert (
        GraphState(Topology(CASES["no edges"].graph())).init({"a": np.ones((4, 3))}).batch_size == 4
    )


def test_readout_of_one_and_several():
    graph = CASES["two shapes"].graph()
    several = GraphState(Topology(graph, outputs=["c", "a"]), 3).readout
    assert list(several) == ["c", "a"]
    assert several["a"].shape == (3, 2)
    assert GraphState(Topology(graph, outputs=["b"])).readout.shape == (1, 2, 2)


def test_replace_takes_what_arrays_gives():
    state = GraphState(views(), 2).init({"top": np.ones((2, 2, 3))})
    doubled = state.replace(jax.tree.map(lambda array: np.asarray(array) * 2, state.arrays))
    np.testing.assert_array_equal(doubled["top"], np.full((2, 2, 3), 2.0))
    longer = state.replace(jax.tree.map(lambda a: np.concatenate([a, a], axis=-1), state.arrays))
    assert longer.batch_size == 4
    np.testing.assert_array_equal(np.asarray(longer["all"])[2:], state["all"])
    assert eqx.tree_equal(state.replace(state.arrays), state)


def test_replace_by_a_mapping_changes_these_nodes():
    state, buffers = filled(chain_state)
    other = state.replace({-1: 2 * buffers[4], 2: 3 * buffers[2]})
    assert_buffers(other, [buffers[0], buffers[1], 3 * buffers[2], buffers[3], 2 * buffers[4]])
    both_rows = state.replace({3: buffers[2], 2: buffers[3]})
    assert_buffers(both_rows, [buffers[0], buffers[1], buffers[3], buffers[2], buffers[4]])
    assert eqx.tree_equal(state.replace({}), state)


def test_arrays_are_a_mapping_and_a_pytree():
    state = GraphState(views(), 2)
    names = list(state.topology.arrays)
    assert list(state.arrays) == names
    assert len(state.arrays) == len(names) == 3
    assert "image" in state.arrays
    assert isinstance(jax.tree.map(lambda leaf: leaf + 1, state.arrays), Arrays)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert paths == [f".arrays[{name!r}]" for name in names]
    assert repr(state.arrays).startswith("Arrays({")
    with pytest.raises(TypeError):
        state.arrays["image"] = 0


FORMS = {
    "rows in a run": [("row", i) for i in range(3, 14)],
    "a few in a run": [("row", i) for i in range(3, 7)],
    "all rows, backwards": [("row", i) for i in range(20)][::-1],
    "few rows": [("row", 2), ("row", 5), ("row", 11)],
    "many rows": [("row", i) for i in range(0, 20, 2)],
    "views of several forms": ["wide", ("cell", 0), ("cell", 1), "strided"],
    "many cells": [("cell", i) for i in range(12)],
    "both": [("cell", 3), ("row", 1), "wide", ("row", 0)],
}


def many_forms():
    graph = nx.DiGraph(arrays={"image": (6, 12)})
    for i in range(20):
        graph.add_node(("row", i), shape=3)
    for i in range(12):
        graph.add_node(("cell", i), array="image", index=(0, i))
    graph.add_node("wide", array="image", index=slice(1, 3))
    graph.add_node("strided", array="image", index=(slice(3, 6, 2), slice(1, 12, 3)))
    return Topology(graph)


def values_of(nodes):
    """A value for each node, and the state that they make of zeros, written by NumPy."""
    topology = many_forms()
    rng = np.random.default_rng(0)
    values = {}
    expected = jax.tree.map(np.array, GraphState(topology, 2))
    for node in nodes:
        values[node] = rng.normal(size=(2, *topology.shape(node))).astype(np.float32)
        view = topology.view(node)
        expected.arrays[view.array][(*view.index, ...)] = np.moveaxis(values[node], 0, -1)
    return topology, values, jax.device_put(expected)


@pytest.mark.parametrize("nodes", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("kind", [np.asarray, jax.device_put], ids=["numpy", "jax"])
def test_many_values_written_at_once_are_those_written_one_by_one(nodes, kind):
    topology, values, expected = values_of(nodes)
    values = {node: kind(value) for node, value in values.items()}
    start = one_by_one = GraphState(topology, 2)
    for node, value in values.items():
        one_by_one = one_by_one.replace_val(node, value)
    for written in (one_by_one, start.init(values), start.replace(values)):
        assert eqx.tree_equal(written, expected)


@pytest.mark.parametrize("nodes", FORMS.values(), ids=FORMS.keys())
def test_many_values_are_written_under_jit_vmap_and_grad(nodes):
    topology, values, expected = values_of(nodes)
    start, buffers = GraphState(topology, 2), list(values.values())

    def init(buffers):
        return start.init(dict(zip(values, buffers, strict=True)))

    def energy(buffers):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(init(buffers)))

    @jax.jit
    def everything(buffers, stack):
        return init(buffers), jax.vmap(init)(stack), jax.grad(energy)(buffers)

    stack = [np.stack([value, 2 * value]) for value in buffers]
    written, mapped, slope = everything(buffers, stack)
    assert eqx.tree_equal(written, expected)
    twice = jax.tree.map(lambda leaf: jax.device_put(2 * np.asarray(leaf)), expected)
    assert eqx.tree_equal(unstacked(mapped, 0), expected)
    assert eqx.tree_equal(unstacked(mapped, 1), twice)
    for one, value in zip(slope, buffers, strict=True):
        np.testing.assert_allclose(one, 2 * value, rtol=1e-6)


def test_many_values_are_written_under_vmap_outside_of_a_program():
    topology, values, expected = values_of(FORMS["both"])
    start = GraphState(topology, 2)
    stack = {node: np.stack([value, value]) for node, value in values.items()}
    mapped = jax.vmap(lambda *buffers: start.init(dict(zip(stack, buffers, strict=True))))
    assert eqx.tree_equal(unstacked(mapped(*stack.values()), 1), expected)


@pytest.mark.parametrize("nodes", FORMS.values(), ids=FORMS.keys())
def test_many_values_are_written_under_64_bits_too(nodes):
    topology = many_forms()
    values = {node: np.full((2, *topology.shape(node)), i + 1.0) for i, node in enumerate(nodes)}
    plain = GraphState(topology, 2).init(values)
    with jax.enable_x64(True):
        state = GraphState(topology, 2).init(values)
        for node in topology.nodes:
            assert state[node].dtype == jnp.float32
            np.testing.assert_array_equal(state[node], plain[node])


def test_nodes_of_one_form_share_their_programs():
    topology = Topology(topologies.convolutional((12, 12, 1), window=5, features=2))
    state = GraphState(topology).init(np.ones((1, 12, 12, 1)))
    patches = [("patch", i, j) for i in range(8) for j in range(8)]
    state.replace_val(patches[0], 2 * np.asarray(state[patches[0]]))
    before = cells._read_program._cache_size(), cells._write_program._cache_size()
    for patch in patches:
        state = state.replace_val(patch, 2 * np.asarray(state[patch]))
    assert (cells._read_program._cache_size(), cells._write_program._cache_size()) == before


def test_init_of_many_nodes_takes_linear_time():
    n = 8000
    topology = Topology.from_edges(np.arange(n), (np.arange(n) + 1) % n, n=n)
    for kind in (np, jnp):
        one = kind.ones(2)
        start = time.process_time()
        jax.block_until_ready(
            jax.tree.leaves(GraphState(topology).init(dict.fromkeys(range(n), one)))
        )
        assert time.process_time() - start < 5


def test_zeros_are_no_constants_of_the_program_that_makes_them():
    topology = Topology(topologies.sequential([4, 500, 3]))

    def run(make, x):
        return jax.lax.fori_loop(
            0, 3, lambda i, state: jax.tree.map(lambda a: 2 * a + 1, state), make(x)
        )

    for make in (
        GraphState(topology).init,
        SequentialState([4, 500, 3]).init,
        lambda x: GraphState(topology, 2),
    ):
        text = jax.jit(lambda x, make=make: run(make, x)).lower(jnp.ones((2, 4))).as_text()
        assert "optimization_barrier" in text


def test_a_stack_of_states_is_told_from_a_state():
    states = jax.tree.map(
        lambda leaf: jax.device_put(np.stack([leaf, leaf])), GraphState(views(), 3)
    )
    for call in (
        lambda: states["top"],
        lambda: states.readout,
        lambda: states.batch_size,
        lambda: states.replace_val("own", np.ones((3, 2))),
    ):
        with pytest.raises(
            ValueError,
            match=r"is a stack of states.*jax\.tree\.map\(lambda leaf: leaf\[0\], states\)",
        ):
            call()
    assert jax.vmap(lambda state: state["own"])(states).shape == (2, 3, 2)


def test_equal_copies_of_a_topology_share_one_compilation():
    traces = []

    @jax.jit
    def double(state):
        traces.append(None)
        return state.replace_val("own", state["own"] * 2)

    first = views()
    for topology in (
        first,
        Topology(first.to_networkx()),
        views(),
        pickle.loads(pickle.dumps(first)),
    ):
        double(GraphState(topology, 2))
    assert len(traces) == 1
    last = views()
    state = pickle.loads(pickle.dumps(GraphState(last, 2)))
    assert state.topology is last
    double(state)
    assert len(traces) == 1


def test_many_nodes_in_a_few_arrays():
    count = 20_000
    state = GraphState(Topology.from_edges(np.arange(count), np.roll(np.arange(count), 1)))
    assert len(jax.tree.leaves(state)) == 1
    assert (
        state.init({i: np.full(4, float(i)) for i in (3, count - 1)})[-1].tolist()
        == [count - 1.0] * 4
    )
    with pytest.raises(
        KeyError, match=f"no node {count}; the nodes are 0, 1, .* and {count - 12} more"
    ):
        state[count]


def test_public_names():
    assert dx.GraphState is GraphState
    assert issubclass(dx.SequentialState, dx.State)
    assert dx.states.graph.GraphState is GraphState
