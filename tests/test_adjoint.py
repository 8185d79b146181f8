"""Derivatives of a relaxation: those of the fixed point, forward and backward, of any order."""

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import couplings_matrix, population, start

import darnax as dx


def one_unit(weight, x, adjoint=None):
    """The fixed point of `s = tanh(weight * s + x)`."""
    g = nx.DiGraph()
    g.add_node("s", shape=())
    g.add_edge("s", "s")
    network = dx.Network(dx.Topology(g), {"edge": dx.scale(1.0)}, dx.tanh, key=jax.random.key(0))
    network = eqx.tree_at(
        lambda n: n.couplings["edge"][0].strength, network, jnp.reshape(weight, (1,))
    )
    state = dx.GraphState(network.topology)
    adjoint = dx.implicit() if adjoint is None else adjoint
    return dx.relax(network, state, drive={"s": x}, tol=1e-7, max_steps=300, adjoint=adjoint).state[
        "s"
    ][0]


def closed_form(weight, x):
    """First and second derivative of the fixed point with respect to x."""
    s = 0.0
    for _ in range(1000):
        s = np.tanh(weight * s + x)
    d = 1 - s * s
    slope = d / (1 - weight * d)
    return slope, -2 * s * d * (1 + weight * slope) ** 2 / (1 - weight * d)


def test_derivatives_of_every_order_have_their_closed_form():
    x, weight = jnp.float32(0.3), jnp.float32(-0.7)
    first, second = closed_form(float(weight), 0.3)
    rest = lambda x: one_unit(weight, x)  # noqa: E731
    for derivative in (
        jax.grad(rest),
        jax.jacfwd(rest),
        lambda x: jax.jvp(rest, (x,), (jnp.ones(()),))[1],
    ):
        np.testing.assert_allclose(jax.jit(derivative)(x), first, rtol=1e-4)
    for derivative in (
        jax.grad(jax.grad(rest)),
        jax.hessian(rest),
        jax.jacfwd(jax.jacfwd(rest)),
        jax.jacrev(jax.jacfwd(rest)),
    ):
        np.testing.assert_allclose(jax.jit(derivative)(x), second, rtol=1e-3)
    third = jax.jit(jax.grad(jax.grad(jax.grad(rest))))(x)
    step = 1e-3
    expected = (
        closed_form(float(weight), 0.3 + step)[1] - closed_form(float(weight), 0.3 - step)[1]
    ) / (2 * step)
    np.testing.assert_allclose(third, expected, rtol=1e-2)


def test_hessians_equal_those_through_every_pass():
    """Weights and inputs together, with held cells, beside the passes themselves."""
    topology = dx.Topology(dx.topologies.sequential([2, 3, 2]))
    kinds = dict.fromkeys(topology.edge_kinds, dx.dense(gain=0.4))
    network = dx.Network(
        topology, kinds, dx.tanh, biases={"hidden": dx.bias(0.1)}, key=jax.random.key(1)
    )
    params, rest = dx.partition(network, dict.fromkeys(topology.edge_kinds, dx.hebbian()))
    leaves, structure = jax.tree.flatten(params)

    def loss(x, scale, adjoint):
        network = eqx.combine(
            jax.tree.unflatten(structure, [leaf * scale for leaf in leaves]), rest
        )
        state = dx.GraphState(topology).init(x)
        mask = {1: jnp.array([True, False, False])}
        solution = dx.relax(network, state, clamp=mask, adjoint=adjoint, tol=1e-7, max_steps=60)
        return jnp.sum(solution.state.readout**3) + jnp.sum(solution.state[1])

    given = jnp.asarray([[0.3, -0.5]]), jnp.float32(1.0)
    hessian = jax.jit(jax.hessian(loss, argnums=(0, 1)), static_argnums=2)
    hessians = [hessian(*given, adjoint) for adjoint in (dx.implicit(), dx.unrolled())]
    for ours, theirs in zip(*map(jax.tree.leaves, hessians), strict=True):
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-3)


def test_what_the_users_functions_close_over_has_derivatives():
    network = population(couplings_matrix(4, symmetric=False) * 0.3, dx.tanh)
    state = start(network, np.zeros((2, 4), np.float32))

    def loss(strength, adjoint):
        drive = {"units": lambda state: strength * (1 - state["units"])}
        return jnp.sum(
            dx.relax(network, state, drive=drive, adjoint=adjoint, tol=1e-6).state["units"]
        )

    slopes = [
        jax.grad(loss)(jnp.float32(0.3), adjoint) for adjoint in (dx.implicit(), dx.unrolled())
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-4)
    assert abs(float(slopes[0])) > 1e-2


def test_a_lost_sample_does_not_spoil_the_derivatives_of_others():
    network = population(couplings_matrix(4, symmetric=False) * 0.3, dx.tanh)
    drive = np.full((3, 4), [[0.1], [np.inf], [0.2]], np.float32)

    def loss(matrix, drive):
        own = eqx.tree_at(lambda n: n.couplings["recurrent"][0].weight, network, matrix)
        state = start(network, np.zeros((len(drive), 4), np.float32))
        state = state.replace_val("units", jnp.where(jnp.isfinite(drive), 0, jnp.nan))
        return jnp.sum(
            jnp.nan_to_num(
                dx.relax(own, state, drive={"units": jnp.nan_to_num(drive, posinf=0)}).state[
                    "units"
                ]
            )
        )

    weight = network.couplings["recurrent"][0].weight
    gradient = jax.jit(jax.grad(loss))
    slope = gradient(weight, drive)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope, gradient(weight, drive[[0, 2]]), rtol=1e-4, atol=1e-6)


def test_held_cells_of_a_lost_sample_do_not_spoil_the_derivatives_of_others():
    """Also those of couplings that hear them, whose messages no pass changes."""
    g = nx.DiGraph()
    g.add_node("x", shape=2)
    g.add_node("h", shape=3)
    g.add_edge("x", "h")
    topology = dx.Topology(g, inputs=["x"])
    network = dx.Network(topology, {"edge": dx.dense()}, dx.tanh, key=jax.random.key(0))

    def loss(weight, x):
        own = eqx.tree_at(lambda n: n.couplings["edge"][0].weight, network, weight)
        solution = dx.relax(own, dx.GraphState(topology).init(x))
        return jnp.sum(jnp.where(solution.settled[:, None], solution.state["h"], 0) ** 2)

    x = np.array([[0.1, 0.2], [np.nan, 0.1], [0.3, np.inf], [0.2, -0.4]], "f")
    gradient = jax.jit(jax.grad(loss))
    weight = network.couplings["edge"][0].weight
    np.testing.assert_allclose(gradient(weight, x), gradient(weight, x[[0, 3]]), rtol=1e-5)


@pytest.mark.parametrize(
    "dtypes", [("float32", "bfloat16"), ("float16", "float32"), ("bfloat16", "float16")], ids=str
)
def test_nodes_of_several_dtypes(dtypes):
    g = nx.DiGraph()
    g.add_node("x", shape=3)
    for name, dtype in zip("ab", dtypes, strict=True):
        g.add_node(name, shape=3, dtype=dtype)
    g.add_edges_from([("x", "a"), ("a", "b"), ("b", "a")])
    topology = dx.Topology(g, inputs=["x"])
    network = dx.Network(topology, {"edge": dx.dense(gain=0.3)}, dx.tanh, key=jax.random.key(0))

    def loss(x, adjoint):
        solution = dx.relax(network, dx.GraphState(topology).init(x), adjoint=adjoint, tol=1e-2)
        return (solution.state["b"].astype(jnp.float32) ** 2).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    one, other = (gradient(jnp.ones((2, 3)), adjoint) for adjoint in (dx.unrolled(), dx.implicit()))
    np.testing.assert_allclose(one, other, atol=0.05 * np.abs(one).max())


def test_gradients_under_64_bits():
    with jax.enable_x64(True):
        network = population(couplings_matrix(4, symmetric=False) * 0.3, dx.tanh)
        state = start(network, np.full((2, 4), 0.1, np.float32))

        def loss(drive, adjoint):
            return (
                dx.relax(network, state, drive={"units": drive}, adjoint=adjoint)
                .state["units"]
                .sum()
            )

        gradient = jax.jit(jax.grad(loss), static_argnums=1)
        slopes = [gradient(np.full(4, 0.3), adjoint) for adjoint in (dx.implicit(), dx.unrolled())]
        np.testing.assert_allclose(*slopes, rtol=1e-3)
