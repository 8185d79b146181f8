"""Small arrays that a relaxation carries as one come to the states that they come to apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import darnax as dx
from darnax.dynamics import packing
from darnax.dynamics.problem import pose


@pytest.fixture
def apart(monkeypatch):
    """A relaxation that packs nothing."""

    def relax(*given, **named):
        with monkeypatch.context() as patch:
            patch.setattr(packing, "FEWEST", 10**9)
            # programs know nothing of this number
            jax.clear_caches()
            solution = dx.relax(*given, **named)
        jax.clear_caches()
        return solution

    return relax


def chain(activation, **couplings):
    """Layers of different widths, some of several nodes, and one in float64 where that is on."""
    graph = dx.topologies.sequential([6, 5, 4, 4, 7, (2, 3), 3])
    given = {"forward": dx.dense(), "backward": dx.dense(0.5), "recurrent": dx.dense(0.5)}
    return dx.Network(dx.Topology(graph), given | couplings, activation, key=jax.random.key(0))


def start_of(network, batch=5, scale=1.0):
    state = dx.GraphState(network.topology, batch)
    rng = np.random.default_rng(0)
    draw = lambda array: jnp.asarray(scale * rng.standard_normal(array.shape), array.dtype)  # noqa: E731
    return state.replace(jax.tree.map(draw, state.arrays))


def assert_equal(ours, theirs):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_what_is_packed_comes_back():
    rng = np.random.default_rng(0)
    shapes = {"a": (2, 3), "b": (1,), "c": (4, 2, 2)}
    rows = {name: jnp.asarray(rng.normal(size=(*s, 5)), jnp.float32) for name, s in shapes.items()}
    rows["large"] = jnp.ones((7, 5))
    some = packing.Packing({name: shapes[name] for name in ("c", "a", "b")})
    packed = some.packed({name: rows[name] for name in ("large", "c", "a", "b")})
    assert {name: array.shape for name, array in packed.items()} == {
        "large": (7, 5),
        packing.PACKED: (23, 5),
    }
    again = some.unpacked(packed)
    for name in rows:
        np.testing.assert_array_equal(again[name], rows[name])
    # the scale of a cell is that of its row
    expected = []
    for name in some.shapes:
        sizes = np.abs(np.asarray(rows[name]))
        largest = sizes.max(tuple(range(1, sizes.ndim - 1)), keepdims=True)
        expected.append(np.broadcast_to(np.maximum(largest, 1), sizes.shape).reshape(-1, 5))
    np.testing.assert_array_equal(some.scales(packed[packing.PACKED]), np.concatenate(expected))


@pytest.mark.parametrize(
    ("activation", "scale"), [(dx.tanh, 1), (dx.tanh, 1000), (dx.sign, 3)], ids=str
)
def test_solutions_are_those_of_arrays_apart(activation, scale, apart):
    network = chain(activation)
    state = start_of(network, scale=scale)
    given = {"clamp": [2], "max_steps": 30}
    assert_equal(apart(network, state, **given), dx.relax(network, state, **given))


def test_some_arrays_stay_apart(apart):
    activations = {"input": dx.identity, "hidden": dx.tanh, "output": dx.relu}
    network = chain(activations)
    state = start_of(network)
    # unbounded units and cells that are held have a scale of their own in every pass
    given = {"clamp": {3: np.array([True, False, False, False])}}
    assert_equal(apart(network, state, **given), dx.relax(network, state, **given))


def test_cycles_are_found_in_packed_states(apart):
    network = chain(dx.sign, backward=dx.dense(-2.0), recurrent=dx.dense(-2.0))
    state = start_of(network, 40)
    solution = dx.relax(network, state)
    assert (solution.period > 1).sum() > 5
    assert_equal(apart(network, state), solution)


def test_what_is_not_finite_stays_in_its_sample(apart):
    network = chain(dx.tanh)
    state = start_of(network)
    state = state.replace_val(4, state[4].at[1, 2].set(jnp.nan).at[3, 0].set(jnp.inf))
    solution = dx.relax(network, state)
    np.testing.assert_array_equal(np.isnan(solution.residual), [False, True, False, True, False])
    assert_equal(apart(network, state), solution)


def test_gradients_and_vmap():
    network = chain(dx.tanh)
    states = [start_of(network), start_of(network, scale=0.1)]

    def loss(state):
        return jnp.sum(dx.relax(network, state, tol=1e-6).state[6] ** 2)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    found = jax.jit(jax.vmap(jax.grad(loss)))(stacked)
    alone = jax.jit(jax.grad(loss))
    for i, state in enumerate(states):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        assert_equal(alone(state), one)


def test_which_arrays_are_packed():
    network = chain(dx.tanh)
    topology = network.topology

    def packed(batch, **given):
        arguments = {"schedule": dx.synchronous(), "silence": (), "kinds": None, "drive": None}
        state = dx.GraphState(topology, batch)
        problem = pose(network, state, **(arguments | {"clamp": ()} | given))
        return set(packing.packing_of(problem, batch).shapes)

    moving = {topology.array_of(i).name for i in range(len(topology.nodes)) if i != 0}
    assert packed(5) == moving
    # large ones are copied there and back for nothing, and a few take no time to compile
    assert not packed(packing.SMALL)
    assert not packed(5, clamp=[1, 2, 3])
