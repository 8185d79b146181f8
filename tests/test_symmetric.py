"""Symmetric couplings are symmetric to the last bit, whatever learns them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
import scipy.sparse

import darnax as dx

KEY = jax.random.key(0)
GRID = nx.grid_graph([4, 3], periodic=True)
LOOPS = nx.gnp_random_graph(12, 0.4, seed=0)
LOOPS.add_edges_from((v, v) for v in (0, 5))
for u, v in LOOPS.edges:
    LOOPS.edges[u, v]["weight"] = u - v / 2
TWICE = scipy.sparse.coo_array(([1, 2, 1, 2, 3], ([0, 0, 1, 1, 2], [1, 1, 0, 0, 2])), (12, 12))
COUPLINGS = {
    "dense": (dx.dense(symmetric=True), 12),
    "dense, no diagonal": (dx.dense(symmetric=True, self_coupling=0.0), (3, 4)),
    "sparse": (dx.sparse(LOOPS, symmetric=True), 12),
    "sparse, drawn": (dx.sparse(GRID, gain=1.0, symmetric=True), (4, 3)),
    "sparse, fixed diagonal": (dx.sparse(GRID, symmetric=True, self_coupling=0.5), 12),
    "parallel entries": (dx.sparse(TWICE, symmetric=True), 12),
    "conv": (dx.conv(3, symmetric=True), (4, 3, 1)),
    "conv, fixed diagonal": (dx.conv((3, 5), symmetric=True, self_coupling=0.5), (2, 2, 3)),
    "conv of a line": (dx.conv(5, symmetric=True, padding=2, self_coupling=0.0), (6, 2)),
}
DIAGONAL = {"no diagonal": 0.0, "fixed diagonal": 0.5, "of a line": 0.0}


@functools.cache
def network(name):
    coupling, shape = COUPLINGS[name]
    graph = nx.DiGraph()
    graph.add_node("units", shape=shape)
    graph.add_edge("units", "units", kind="recurrent")
    return dx.Network(dx.Topology(graph), {"recurrent": coupling}, dx.tanh, key=KEY)


@jax.jit
def fields(network):
    """The field of every unit vector: the rows of the transposed matrix."""
    shape = network.topology.shape("units")
    units = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    state = dx.GraphState(network.topology).init({"units": units})
    return network.local_field(state)["units"].reshape(len(units), -1)


def check(name, matrix):
    np.testing.assert_array_equal(matrix, matrix.T)
    for words, value in DIAGONAL.items():
        if words in name:
            np.testing.assert_array_equal(np.diag(matrix), np.float32(value))


@pytest.mark.parametrize("name", COUPLINGS)
def test_symmetric_from_the_start_and_whatever_is_added(name):
    drawn = network(name)
    start = np.asarray(fields(drawn))
    check(name, start)
    assert np.any(start)
    rng = np.random.default_rng(0)
    # an update of no symmetry at all
    params, rest = dx.partition(drawn, {"recurrent": dx.hebbian()})
    moved = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape).astype("f"), params)
    after = np.asarray(fields(eqx.combine(moved, rest)))
    check(name, after)
    assert np.any(after != start)
    if name in ("dense", "sparse", "conv"):
        assert np.any(np.diag(after) != np.diag(start))


def test_weights_are_those_in_force_where_updates_are_our_own():
    """The mean with the mirror image changes nothing at the start: the weights are symmetric."""
    weight = np.asarray(network("dense")["units", "units"].weight)
    np.testing.assert_array_equal(weight, fields(network("dense")))
    big = dx.Network(
        dx.Topology(dx.topologies.hopfield(400)), {"recurrent": dx.dense(symmetric=True)}, dx.sign, key=KEY
    )  # fmt: skip
    np.testing.assert_allclose(np.std(big["units", "units"].weight), 1 / 20, rtol=0.02)
    kernel = np.asarray(network("conv")["units", "units"].weight)
    np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])


@pytest.mark.parametrize(
    ("name", "optimiser"),
    [
        ("dense, no diagonal", optax.sgd(0.1, momentum=0.9)),
        ("dense", optax.contrib.muon(0.05)),
        ("sparse, fixed diagonal", optax.adamw(0.05, weight_decay=0.1)),
        ("conv, fixed diagonal", optax.chain(optax.clip(0.1), optax.lion(0.01, weight_decay=0.1))),
        ("parallel entries", optax.adam(0.05)),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_symmetric_after_a_hundred_updates_of_any_optimiser(name, optimiser):
    drawn = network(name)
    rules = {"recurrent": dx.delta(dx.tanh)}
    params, rest = dx.partition(drawn, rules)
    states = jax.random.normal(KEY, (100, 5, *drawn.topology.shape("units")))

    @jax.jit
    def learnt(params):
        def update(carry, x):
            params, memory = carry
            state = dx.GraphState(drawn.topology).init({"units": x})
            updates = dx.local_updates(eqx.combine(params, rest), state, rules)
            with jax.numpy_dtype_promotion("standard"):
                steps, memory = optimiser.update(updates, memory, params)
            return (optax.apply_updates(params, steps), memory), None

        return jax.lax.scan(update, (params, optimiser.init(params)), states)[0][0]

    with jax.numpy_dtype_promotion("standard"):
        after = np.asarray(fields(eqx.combine(learnt(params), rest)))
    check(name, after)
    assert np.any(np.abs(after - np.asarray(fields(drawn))) > 0.01)


@pytest.mark.parametrize("name", ["dense", "sparse", "conv"])
def test_what_is_learnt_is_the_mean_of_both_ways(name):
    """A symmetric coupling moves as its mean with the transpose would, had both been learnt."""
    drawn = network(name)
    x = np.random.default_rng(1).normal(size=(4, *drawn.topology.shape("units"))).astype("f")
    state = dx.GraphState(drawn.topology).init({"units": x})
    rules = {"recurrent": lambda field, state: jnp.sin(3 * state)}
    _, rest = dx.partition(drawn, rules)
    # the coupling whose weights are the updates
    change = np.asarray(fields(eqx.combine(dx.local_updates(drawn, state, rules), rest)))
    outer = np.einsum("br,bs->rs", np.sin(3 * x).reshape(4, -1), x.reshape(4, -1)) / 4
    if name == "dense":
        np.testing.assert_allclose(change, (outer + outer.T) / 2, atol=1e-6)
    if name == "sparse":
        wired = nx.to_numpy_array(LOOPS, weight=None) > 0
        np.testing.assert_allclose(change, np.where(wired, (outer + outer.T) / 2, 0), atol=1e-6)
    if name == "conv":
        plain = dx.Network(drawn.topology, {"recurrent": dx.conv(3)}, dx.tanh, key=KEY)
        (one_way,) = jax.tree.leaves(dx.local_updates(plain, state, rules))
        (update,) = jax.tree.leaves(dx.local_updates(drawn, state, rules))
        mirrored = np.asarray(one_way)[:, ::-1, ::-1]
        np.testing.assert_allclose(update, (one_way + mirrored) / 2, atol=1e-6)
    np.testing.assert_array_equal(change, change.T)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_fixed_self_coupling_is_no_part_of_what_learns(symmetric):
    for coupling in (
        dx.conv(3, self_coupling=-0.5, symmetric=symmetric),
        dx.sparse(GRID, self_coupling=-0.5, symmetric=symmetric),
    ):
        graph = dx.topologies.hopfield((4, 3, 1))
        made = dx.Network(dx.Topology(graph), {"recurrent": coupling}, dx.tanh, key=KEY)
        np.testing.assert_array_equal(np.diag(fields(made)), np.float32(-0.5))
        (leaf,) = jax.tree.leaves(dx.partition(made, {"recurrent": dx.hebbian()})[0].couplings)
        assert leaf.shape in ((1, 3, 3, 1, 1), (1, 48))
        # NaN where nothing may be read
        if leaf.ndim == 5:
            broken = eqx.tree_at(
                lambda n: n.couplings["recurrent"][0].weight, made, leaf.at[0, 1, 1].set(jnp.nan)
            )
            assert np.isfinite(fields(broken)).all()


def test_sign_units_settle_unit_by_unit():
    """Symmetric couplings without a diagonal have an energy, which such updates lower."""
    graph = dx.topologies.hopfield(60)
    coupling = dx.dense(symmetric=True, self_coupling=0.0)
    made = dx.Network(dx.Topology(graph), {"recurrent": coupling}, dx.sign, key=KEY)
    x = np.random.default_rng(0).choice([-1.0, 1.0], (8, 60)).astype("f")
    start = dx.GraphState(made.topology).init({"units": x})
    assert dx.relax(made, start, schedule=dx.unit_by_unit()).settled.all()
