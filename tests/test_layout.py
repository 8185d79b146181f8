"""Where nodes live: views against NumPy's own indexing, blocks and overlaps against brute force."""

import contextlib
import math
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import CASES, compilations
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import darnax as dx
from darnax import GraphState, Topology
from darnax.testing import random_state
from darnax.topologies.layout import ArraySpec
from darnax.topologies.views import (
    first_cell,
    index_cells,
    index_shape,
    index_to_json,
    is_regular,
    resolve_index,
)

QUICK = settings(max_examples=150, deadline=None)
FEW = settings(max_examples=40, deadline=None)
cases = pytest.mark.parametrize("case", CASES)

shapes = st.lists(st.integers(1, 5), max_size=3).map(tuple)


def bounds(size):
    return st.none() | st.integers(-size - 2, size + 2)


@st.composite
def indices(draw, shape, sensible=False):
    """NumPy basic indexing into `shape`; unless sensible it may reach outside or be empty."""
    axes = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        if sensible:
            start = draw(st.integers(0, size - 1))
            stop = draw(st.none() | st.integers(start + 1, size))
            part = draw(
                st.sampled_from([start, start - size, slice(start, stop, draw(st.integers(1, 3)))])
            )
        else:
            steps = st.sampled_from([None, 1, 2, 3, 0, -1])
            part = draw(
                st.integers(-size - 1, size) | st.builds(slice, bounds(size), bounds(size), steps)
            )
        axes.append(part)
    if draw(st.booleans()):
        axes.insert(draw(st.integers(0, len(axes))) if len(axes) == len(shape) else len(axes), ...)
    return axes[0] if len(axes) == 1 and draw(st.booleans()) else tuple(axes)


@st.composite
def indexings(draw):
    shape = draw(shapes)
    return shape, draw(indices(shape))


def lists(size, low=0):
    return st.lists(st.integers(low, size - 1), min_size=1, max_size=3)


@st.composite
def scattered(draw, shape, sensible=False):
    """Lists, integer arrays and masks into `shape`, mixed with ints and slices.

    Unless sensible they may reach outside, repeat cells, or not go together.
    """
    axes = []
    while len(axes) < len(shape):
        axis = len(axes)
        size = shape[axis]
        kind = draw(st.sampled_from(["int", "slice", "list", "array", "mask", "mask of the rest"]))
        if kind == "int":
            axes.append(draw(st.integers(-size, size - 1)))
        elif kind == "slice":
            axes.append(draw(st.sampled_from([slice(None), slice(None, None, 2), slice(0, 1)])))
        elif kind == "list":
            axes.append(draw(lists(size, 0 if sensible else -size - 1)))
        elif kind == "array":
            rows = draw(st.integers(1, 2))
            axes.append(np.asarray([draw(lists(size)) for _ in range(rows)][:1] * rows))
        elif kind == "mask":
            axes.append(np.asarray(draw(st.lists(st.booleans(), min_size=size, max_size=size))))
        else:
            rest = shape[axis:]
            mask = draw(st.lists(st.booleans(), min_size=math.prod(rest), max_size=math.prod(rest)))
            return (*axes, np.asarray(mask).reshape(rest))
    if len(axes) > 1 and draw(st.booleans()):
        axes[draw(st.integers(0, len(axes) - 1))] = ...
    return tuple(axes)


def taken_once(index, shape):
    """The cells that NumPy takes; None if there are none, or one comes twice, or NumPy refuses."""
    try:
        cells = np.arange(math.prod(shape)).reshape(shape)[index]
    except IndexError:
        return None
    return cells if cells.size and len(np.unique(cells)) == cells.size else None


@QUICK
@given(shapes.flatmap(lambda shape: st.tuples(st.just(shape), scattered(shape))))
def test_a_scattered_index_means_what_numpy_means(indexing):
    shape, index = indexing
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    expected = taken_once(index, shape)
    if expected is None:
        with pytest.raises((ValueError, TypeError)):
            resolve_index(index, shape)
        return
    ours = resolve_index(index, shape)
    assert np.array_equal(array[ours], expected)
    assert index_shape(ours) == expected.shape
    assert np.array_equal(index_cells(ours, shape), expected)
    assert first_cell(ours, shape) == np.ravel(expected)[0]
    assert len(ours) == len(shape)
    if not is_regular(ours):
        assert {(part.shape, part.dtype.name) for part in ours} == {(expected.shape, "int32")}
    assert index_to_json(resolve_index(ours, shape)) == index_to_json(ours)


@pytest.mark.parametrize(
    ("index", "same"),
    [
        ([0, 2], slice(0, 3, 2)),
        (np.asarray([True, False, True]), [0, 2]),
        (np.ix_([0, 2], [1]), (slice(0, 3, 2), slice(1, 2))),
        ([-1], [2]),
        (jnp.asarray([0, 2]), [0, 2]),
        (range(2), [0, 1]),
        ((1, [0, 2]), (1, slice(0, 3, 2))),
        (np.asarray(1), 1),
    ],
    ids=str,
)
def test_other_ways_to_name_the_same_cells(index, same):
    shape = (3, 4)
    one, two = (index_cells(resolve_index(given, shape), shape) for given in (index, same))
    assert np.array_equal(one, two)


@QUICK
@given(indexings())
def test_index_means_what_numpy_means(indexing):
    shape, index = indexing
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    try:
        ours = resolve_index(index, shape)
    except (ValueError, TypeError):
        refused_by_numpy_or_odd(array, index)
        return
    view = array[index]
    assert np.array_equal(array[ours], view)
    assert index_shape(ours) == view.shape
    assert resolve_index(ours, shape) == ours
    assert len(ours) == len(shape)
    for part in ours:
        assert type(part) is int or (
            part.start >= 0 and part.step > 0 and (part.stop - part.start - 1) % part.step == 0
        )


def refused_by_numpy_or_odd(array, index):
    """NumPy refuses it too, or it gives nothing, runs backwards or is quietly clipped."""
    parts = index if isinstance(index, tuple) else (index,)
    ends = [
        end
        for part in parts
        if isinstance(part, slice)
        for end in (part.start, part.stop)
        if end is not None
    ]
    odd = any(abs(end) > min(array.shape) for end in ends) or any(
        isinstance(p, slice) and (p.step or 1) < 0 for p in parts
    )
    with contextlib.suppress(IndexError, ValueError):
        assert odd or array[index].size == 0


def test_numpy_integers_become_plain_ones():
    index = resolve_index((np.int64(-1), slice(np.int8(0), np.int64(3), np.uint8(2))), (4, 5))
    assert index == (3, slice(0, 3, 2))
    assert {type(part) for part in (index[0], index[1].start, index[1].stop, index[1].step)} == {
        int
    }


# views in a topology


@st.composite
def viewed(draw):
    """A graph of views of any cells of one or two shared arrays, and of some nodes of their own."""
    arrays = {name: draw(shapes) for name in draw(st.sampled_from([["x"], ["x", "y"]]))}
    graph = nx.DiGraph(arrays=arrays)
    for i in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(sorted(arrays)))
        kind = draw(st.sampled_from(["p", "q"]))
        index = draw(indices(arrays[name], sensible=True))
        if draw(st.booleans()):
            index = draw(scattered(arrays[name], sensible=True))
            assume(taken_once(index, arrays[name]) is not None)
        graph.add_node(i, array=name, index=index, kind=kind)
    graph.add_nodes_from((("own", i) for i in range(draw(st.integers(0, 3)))), shape=2)
    return graph


def covers(topology):
    """For every node the set of its (array, cell or row) pairs, from NumPy alone."""
    result = {}
    for node, attributes in topology.to_networkx().nodes(data=True):
        if "array" in attributes:
            shape = topology.arrays[attributes["array"]].shape
            rows = np.arange(np.prod(shape, dtype=int)).reshape(shape)[attributes["index"]]
        else:
            rows = np.asarray(topology.view(node).index[0])
        result[node] = {(topology.view(node).array, row) for row in rows.ravel().tolist()}
    return result


def brute_blocks(topology):
    """Groups of nodes joined by shared cells."""
    cells = covers(topology)
    links = nx.Graph()
    links.add_nodes_from(cells)
    links.add_edges_from((u, v) for u in cells for v in cells if cells[u] & cells[v])
    return [set(part) for part in nx.connected_components(links)]


def check_layout(topology):
    layout, cells = topology.layout, covers(topology)
    names = [spec.name for spec in layout.arrays]
    rows = [
        {row for part in cells.values() for array, row in part if array == name} for name in names
    ]
    assert names == list(topology.arrays)
    for at, spec in enumerate(layout.arrays):
        block = layout.blocks[at]
        assert len(block) == spec.rows
        covered = np.flatnonzero(block >= 0)
        assert covered.tolist() == sorted(rows[at])
        first = [np.flatnonzero(block == b)[0] for b in range(block.max(initial=-1) + 1)]
        assert first == sorted(first)
        assert sorted(layout.members[at].tolist()) == [
            i for i, n in enumerate(topology.nodes) if topology.view(n).array == spec.name
        ]
    blocks = brute_blocks(topology)
    for members in blocks:
        ids = {
            (at, int(layout.blocks[at][row]))
            for n in members
            for at in [layout.node_array[topology.index(n)]]
            for _, row in cells[n]
        }
        assert len(ids) == 1
    overlapping = {frozenset(members) for members in blocks if len(members) > 1}
    assert {
        frozenset(topology.nodes[i] for i in part.tolist()) for part in layout.overlaps
    } == overlapping
    shared = [
        i
        for i, n in enumerate(topology.nodes)
        if any(cells[n] & cells[m] for m in topology.nodes if m != n)
    ]
    assert sorted(layout.clashing(np.arange(len(topology)))) == shared
    found = {
        (names[at], row)
        for at, here in layout.rows_of(np.arange(len(topology))).items()
        for row in here.tolist()
    }
    assert found == set().union(*cells.values())
    for i, node in enumerate(topology.nodes):
        address = layout.address(np.asarray([i]))[0]
        assert {(topology.view(node).array, row) for row in np.ravel(address).tolist()} == cells[
            node
        ]
        assert layout.first_row[i] == np.ravel(address)[0]


@FEW
@given(viewed())
def test_layout_of_random_views(graph):
    check_layout(Topology(graph))


@cases
def test_layout_of_the_table(case):
    check_layout(Topology(CASES[case].graph()))


@FEW
@given(viewed())
def test_cells_have_the_shape_of_the_view(graph):
    topology = Topology(graph)
    for i, node in enumerate(topology.nodes):
        view = topology.view(node)
        spec = topology.arrays[view.array]
        assert view.shape == topology.shape(node)
        if spec.shared:
            values = np.arange(spec.rows).reshape(spec.shape)
            assert np.array_equal(topology.layout.cells(i), values[view.index])
            assert topology.layout.cells(i).shape == view.shape


@FEW
@given(viewed(), st.data())
def test_overlapping_inputs_are_refused_and_others_are_not(graph, data):
    topology = Topology(graph)
    cells = covers(topology)
    inputs = data.draw(st.lists(st.sampled_from(list(topology.nodes)), unique=True))
    clash = [n for n in inputs if any(cells[n] & cells[m] for m in inputs if m != n)]
    if not clash:
        assert Topology(graph, inputs=inputs).inputs == tuple(inputs)
        return
    with pytest.raises(ValueError, match="overlap on a shared array") as caught:
        Topology(graph, inputs=inputs)
    assert all(repr(node) in str(caught.value) for node in clash)


def test_views_joined_through_others_are_one_block():
    graph = nx.DiGraph(arrays={"line": 12})
    for name, start in (("a", 0), ("c", 4), ("b", 2), ("far", 9)):
        graph.add_node(name, array="line", index=slice(start, start + 3))
    layout = Topology(graph).layout
    assert layout.blocks[0].tolist() == [0] * 7 + [-1, -1] + [1] * 3
    assert [part.tolist() for part in layout.overlaps] == [[0, 1, 2]]
    assert layout.clashing(np.asarray([0, 1])) == []
    assert layout.clashing(np.asarray([0, 1, 2])) == [0, 1, 2]


def test_interleaved_views_do_not_overlap():
    graph = nx.DiGraph(arrays={"board": (4, 4)})
    for i in range(2):
        graph.add_node(i, array="board", index=(slice(i, None, 2), slice(i, None, 2)))
    layout = Topology(graph).layout
    assert layout.overlaps == []
    assert layout.blocks[0].reshape(4, 4).tolist() == [[0, -1, 0, -1], [-1, 1, -1, 1]] * 2


def test_nodes_of_one_sort_are_rows_of_one_array():
    graph = nx.DiGraph(arrays={"hidden(2,)": 3, "unused": (2, 2)})
    sorts = [
        (2, "hidden", "float32"),
        (3, "hidden", "float32"),
        (2, "hidden", "int8"),
        (2, "other", "float32"),
    ]
    for i in range(8):
        shape, kind, dtype = sorts[i % 4]
        graph.add_node(i, shape=shape, kind=kind, dtype=dtype)
    graph.add_node("v", array="hidden(2,)")
    topology = Topology(graph)
    assert list(topology.arrays.values()) == [
        ArraySpec("hidden(2,)", (3,), (), "float32", True),
        ArraySpec("unused", (2, 2), (), "float32", True),
        ArraySpec("hidden(2,)'", (2,), (2,), "float32", False),
        ArraySpec("hidden(3,)", (2,), (3,), "float32", False),
        ArraySpec("hidden(2,)int8", (2,), (2,), "int8", False),
        ArraySpec("other(2,)", (2,), (2,), "float32", False),
    ]
    assert [topology.view(i).index for i in range(8)] == [(0,)] * 4 + [(1,)] * 4
    assert topology.arrays["hidden(3,)"].shape == (2, 3)


def test_many_small_views_of_a_large_array_are_cheap():
    graph = nx.DiGraph(arrays={"image": (1000, 1000)})
    graph.add_nodes_from((i, {"array": "image", "index": (i, slice(i, i + 2))}) for i in range(500))
    topology = Topology(graph, inputs=range(500))
    assert topology.layout.cells(499).tolist() == [499_499, 499_500]


@FEW
@given(viewed())
def test_topologies_of_views_come_back(graph):
    topology = Topology(graph)
    assume(topology.layout.overlaps)
    assert Topology.from_json(topology.to_json()) is topology
    assert Topology(topology.to_networkx()) == topology
    kept = pickle.dumps(topology)
    text = topology.to_json()
    views = [topology.view(node) for node in topology.nodes]
    del topology
    for again in (pickle.loads(kept), Topology.from_json(text)):
        assert [again.view(node) for node in again.nodes] == views
        assert again == Topology(graph)


def test_views_are_equal_by_content():
    def view(index):
        graph = nx.DiGraph(arrays={"x": (4, 5)})
        graph.add_node("a", array="x", index=index)
        return Topology(graph).view("a")

    assert view([0, 2]) == view(np.asarray([0, -2])) != view([2, 0])
    assert view([0, 2]) != view(slice(0, 3, 2))  # the same cells, in another form
    assert view(np.eye(4, 5) > 0) == view((range(4), range(4)))
    assert hash(view([0, 2])) == hash(view([0, -2]))
    with pytest.raises(ValueError, match="read-only"):
        view([0, 2]).index[0][...] = 1


# views in a state


def numbered_state(topology, batch):
    """Another number in every cell, without a program that makes zeros first."""
    rows = {}
    for i, (name, spec) in enumerate(topology.arrays.items()):
        numbers = 1000 * i + np.arange(math.prod(spec.shape) * batch, dtype=np.float32)
        rows[name] = jax.device_put(numbers.reshape(spec.rows, *spec.item, batch))
    return GraphState.of_rows(topology, rows)


@FEW
@given(viewed(), st.integers(1, 3))
def test_a_view_is_what_numpy_takes_of_each_sample(graph, batch):
    topology = Topology(graph)
    state = numbered_state(topology, batch)
    arrays = {name: np.asarray(array) for name, array in state.arrays.items()}
    compiled = jax.jit(lambda state: [state[node] for node in state])(state)
    for (node, attributes), inside in zip(graph.nodes.items(), compiled, strict=True):
        if "array" not in attributes:
            continue
        samples = np.moveaxis(arrays[attributes["array"]], -1, 0)
        expected = np.stack([sample[attributes["index"]] for sample in samples])
        assert np.array_equal(state[node], expected)
        assert np.array_equal(inside, expected)
        view = topology.view(node)
        assert np.array_equal(np.moveaxis(arrays[view.array][view.index], -1, 0), expected)


@FEW
@given(viewed(), st.integers(1, 3), st.data())
def test_writing_a_view_writes_its_cells_and_no_others(graph, batch, data):
    topology = Topology(graph)
    state = numbered_state(topology, batch)
    node = data.draw(st.sampled_from(list(topology.nodes)))
    value = np.arange(2.0, 2 + batch * math.prod(topology.shape(node)), dtype=np.float32)
    value = value.reshape(batch, *topology.shape(node))
    view = topology.view(node)
    expected = {name: np.array(array) for name, array in state.arrays.items()}
    expected[view.array][view.index] = np.moveaxis(value, 0, -1)

    @jax.jit
    def write(state, value):
        after = state.replace_val(node, value)
        return after, after[node]

    inside, read = write(state, value)
    assert np.array_equal(read, value)
    for after in (inside, state.replace_val(node, value)):
        for name, array in after.arrays.items():
            assert np.array_equal(array, expected[name])


def test_many_scattered_views_are_one_write():
    graph = nx.DiGraph(arrays={"x": (40, 3)})
    for i in range(20):
        graph.add_node(i, array="x", index=[39 - i, i])
    state = GraphState(Topology(graph))
    rng = np.random.default_rng(0)
    values = {i: rng.normal(size=(2, 2, 3)).astype(np.float32) for i in range(20)}
    compiled = compilations(lambda: state.init(values))
    after = state.init(values)
    assert compiled == 1
    assert all(np.array_equal(after[i], values[i]) for i in range(20))
    assert compilations(lambda: [after[i] for i in range(20)]) <= 1


def test_a_list_that_is_regular_gives_the_numbers_of_the_slice():
    def network(*indices):
        graph = nx.DiGraph(arrays={"x": (4, 6)})
        for name, index in zip("abc", indices, strict=True):
            graph.add_node(name, array="x", index=index)
        graph.add_node("far", shape=4)
        edges = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "b"), ("far", "a"), ("c", "far")]
        graph.add_edges_from(edges)
        topology = Topology(graph)
        biases = {"node": dx.bias(jax.nn.initializers.normal())}
        return dx.Network(
            topology, {"edge": dx.dense()}, dx.tanh, biases=biases, key=jax.random.key(0)
        )

    sliced = network((slice(0, 4, 2), slice(1, 3)), (1, slice(0, 6)), slice(2, 4))
    listed = network(np.ix_([0, 2], [1, 2]), (1, list(range(6))), [2, 3])
    states = [random_state(net.topology, 3) for net in (sliced, listed)]
    start = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    states = [state.replace({"b": np.moveaxis(start[1], -1, 0)}) for state in states]
    rules = {"edge": dx.hebbian()}

    @eqx.filter_jit
    def acts(net, state):
        return (
            state,
            dx.step(net, state),
            dx.step(net, state, schedule=dx.node_by_node()),
            dx.relax(net, state, clamp=["b"]).state,
            dx.local_updates(net, state, rules),
        )

    one, two = (
        jax.tree.leaves(acts(*given)) for given in zip((sliced, listed), states, strict=True)
    )
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_softmax_over_the_cells_of_a_scattered_view():
    graph = nx.DiGraph(arrays={"x": 7})
    graph.add_node("soft", array="x", index=[6, 0, 3], kind="soft")
    graph.add_node("plain", array="x", index=[2, 5], kind="plain")
    graph.add_edge("plain", "soft")
    topology = Topology(graph)
    activations = {"soft": dx.softmax, "plain": dx.tanh}
    network = dx.Network(topology, {"edge": dx.dense()}, activations, key=jax.random.key(0))
    state = random_state(topology, 2)
    field = np.asarray(state["plain"]) @ np.asarray(network["plain", "soft"].weight).T
    after = dx.step(network, state)
    expected = np.exp(field) / np.exp(field).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after["soft"], expected, rtol=1e-5)
    before, now = np.asarray(state.arrays["x"]), np.asarray(after.arrays["x"])
    assert np.array_equal(np.delete(now, [6, 0, 3], axis=0), np.delete(before, [6, 0, 3], axis=0))
