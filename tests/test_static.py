"""A network is a plain pytree: arrays are its only leaves, and a copy of it is the same program."""

import copy
import dataclasses
import multiprocessing
import pickle

import cloudpickle
import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from helpers import CASES

import darnax as dx
from darnax.static import sealed, unsealed
from darnax.testing import random_state

KEY = jax.random.key(0)


def doubled(x):
    return 2 * x


def mlp(sender, receiver, key):
    return eqx.nn.MLP(sender[0], receiver[0], 5, 1, final_activation=doubled, key=key)


def network(coupling=None, activation=dx.tanh, **arguments):
    topology = dx.Topology(dx.topologies.sequential([3, 3, 3], recurrent=False, backward=False))
    coupling = dx.dense() if coupling is None else coupling
    return dx.Network(topology, {"forward": coupling}, activation, key=KEY, **arguments)


NETWORKS = {
    "dense": lambda: network(),
    "a layer with functions inside": lambda: network(mlp),
    "a function for a coupling": lambda: network(lambda s, r: doubled),
    "a function of JAX": lambda: network(activation=jnp.tanh),
    "another function of JAX": lambda: network(activation=jax.nn.relu),
    "relu": lambda: network(activation=dx.relu),
    "softmax": lambda: network(activation=dx.softmax),
    "leaky": lambda: network(activation=dx.leaky(0.5, jax.nn.sigmoid)),
    "a function of the user": lambda: network(activation=dx.elementwise(doubled)),
    "a module of the user": lambda: network(activation=eqx.nn.PReLU()),
    "glauber": lambda: network(activation=dx.glauber(0.5)),
    "biases": lambda: network(biases={"hidden": dx.bias()}),
    "both ends": lambda: network(dx.edge_mlp(4)),
    "sparse": lambda: network(dx.sparse(nx.cycle_graph(3))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_arrays_are_the_only_leaves_and_copies_are_equal(name):
    made = NETWORKS[name]()
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(made))
    for other in (
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
        jax.tree.map(lambda leaf: leaf, made),
    ):
        assert jax.tree.structure(other) == jax.tree.structure(made)
        assert all(map(np.array_equal, jax.tree.leaves(other), jax.tree.leaves(made)))


def test_jax_takes_networks_as_they_are():
    made = network(mlp, jnp.tanh)
    state = dx.GraphState(made.topology).init(jnp.ones((2, 3)))
    jitted = jax.jit(dx.relax)(made, state)
    np.testing.assert_allclose(jitted.state[2], dx.relax(made, state).state[2], atol=1e-6)
    slope = jax.grad(lambda network: dx.relax(network, state).state[2].sum(), allow_int=True)(made)
    assert jnp.abs(slope[0, 1].layers[0].weight).sum() > 0


def test_a_copy_compiles_nothing():
    made = network(mlp, jnp.tanh)
    state = dx.GraphState(made.topology).init(jnp.ones((2, 3)))
    traced = []

    @jax.jit
    def run(network, state):
        traced.append(1)
        return dx.step(network, state)

    for other in (
        made,
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
        network(mlp, jnp.tanh),
    ):
        run(other, state)
    assert len(traced) == 1


def local_network():
    """A network that plain pickle cannot copy: its functions have no name in a module."""
    return network(
        lambda sender, receiver: lambda x: 0.5 * x,
        lambda field: jnp.clip(field, -1, 1),
    )


def test_cloudpickle_copies_functions_without_a_name():
    made = local_network()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(made)
    state = dx.GraphState(made.topology).init(jnp.ones((2, 3)))
    copied, copied_state = cloudpickle.loads(cloudpickle.dumps((made, state)))
    assert copied_state.topology == made.topology
    np.testing.assert_array_equal(
        dx.relax(copied, copied_state).state[2], dx.relax(made, state).state[2]
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_cloudpickle_keeps_what_pickle_keeps(name):
    made = NETWORKS[name]()
    copied = cloudpickle.loads(cloudpickle.dumps(made))
    assert jax.tree.structure(copied) == jax.tree.structure(made)
    assert all(map(np.array_equal, jax.tree.leaves(copied), jax.tree.leaves(made)))


def relaxed_elsewhere(network, state):
    return network, dx.relax(network, state)


def test_a_spawned_process_relaxes_a_network_and_gives_it_back():
    made = network(mlp, jnp.tanh)
    state = dx.GraphState(made.topology).init(jnp.ones((2, 3)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        returned, solution = pool.apply(relaxed_elsewhere, (made, state))
    here = dx.relax(made, state)
    assert jax.tree.structure((returned, solution)) == jax.tree.structure((made, here))
    assert all(map(np.array_equal, jax.tree.leaves(returned), jax.tree.leaves(made)))
    np.testing.assert_allclose(solution.state[2], here.state[2], atol=1e-6)
    np.testing.assert_array_equal(solution.steps, here.steps)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dx.dense(0.5, 1.0, "weight"),
        lambda: dx.conv((3, 3), 2, ((1, 1), (0, 0))),
        lambda: dx.conv_transpose(3),
        lambda: dx.pool(2),
        lambda: dx.upsample(2),
        lambda: dx.relay(),
        lambda: dx.scale(0.5, fixed=True),
        lambda: dx.edge_mlp(3, jax.nn.gelu),
        lambda: dx.bias(0.5),
        lambda: dx.synchronous(),
        lambda: dx.coloured({0: 1}),
        lambda: dx.groups([[0], [1]]),
        lambda: dx.implicit(),
    ],
)
def test_what_is_made_anew_or_copied_is_equal(make):
    made = make()
    assert make() == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made


def test_sparse_factories_can_be_copied():
    made = dx.sparse(nx.cycle_graph(3))
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        np.testing.assert_array_equal(network(other)[0, 1].weight, network(made)[0, 1].weight)


def test_sealing_is_undone():
    module = eqx.nn.MLP(2, 2, 3, 1, key=KEY)
    assert jax.tree.structure(unsealed(sealed(module))) == jax.tree.structure(module)
    x = jnp.ones(2)
    np.testing.assert_array_equal(unsealed(sealed(module))(x), module(x))


def test_an_ensemble_is_called_by_vmap_alone():
    topology = network().topology
    make = lambda key: dx.Network(topology, {"forward": dx.dense()}, dx.tanh, key=key)  # noqa: E731
    keys = jax.random.split(KEY, 4)
    ensemble = jax.jit(jax.vmap(make))(keys)
    state = dx.GraphState(topology).init(jnp.ones((2, 3)))
    for call in (
        dx.step,
        dx.relax,
        dx.Network.local_field,
        lambda n, s: dx.local_updates(n, s, {"forward": dx.hebbian()}),
    ):
        with pytest.raises(ValueError, match="call an ensemble of networks by"):
            call(ensemble, state)
    rest = lambda network: dx.relax(network, state).state[2]  # noqa: E731
    answers = np.asarray(jax.jit(jax.vmap(rest))(ensemble))
    for answer, key in zip(answers, keys, strict=True):
        np.testing.assert_allclose(answer, rest(make(key)), atol=1e-6)


def test_weights_are_the_same_bits_in_numpy_and_in_a_program():
    topology = network().topology
    make = lambda key: dx.Network(topology, {"forward": dx.dense()}, dx.tanh, key=key)  # noqa: E731
    eager = make(KEY)
    for traced in (
        jax.jit(make)(KEY),
        jax.tree.map(lambda leaf: np.asarray(leaf)[0], jax.jit(jax.vmap(make))(KEY[None])),
    ):
        assert all(map(np.array_equal, jax.tree.leaves(traced), jax.tree.leaves(eager)))


@pytest.mark.parametrize("name", ["chain", "windows", "views", "mixed", "scalars", "hub"])
def test_a_user_who_refuses_to_broadcast_ranks_is_served(name):
    """What JAX is told about the user's own lines does not reach into ours, derivatives
    included."""
    with jax.numpy_rank_promotion("raise"):
        network = CASES[name].network.__wrapped__(CASES[name])
        state = random_state(network.topology, 3)
        dx.relax(network, state, max_steps=3)
        dx.step(network, state, schedule=dx.node_by_node())
        dx.local_updates(network, state, {network.topology.edge_kinds[0]: dx.hebbian()})
        jax.jit(lambda state: list(network.local_field(state).values()))(state)
        smooth = dataclasses.replace(CASES[name], activations=dx.tanh).network()
        if name not in ("mixed",):
            loss = lambda n: sum(jnp.sum(a) for a in dx.relax(n, state).state.arrays.values())  # noqa: E731
            jax.jit(jax.grad(loss, allow_int=True))(smooth)


def test_training_where_the_user_refuses_to_broadcast_ranks():
    topology = network().topology
    with jax.numpy_rank_promotion("raise"):
        made, learning = network(), dx.DynamicalLearning({"forward": dx.perceptron(0.5)})
        x, y = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
        trained, _ = dx.fit(made, learning, optax.sgd(0.1), x, y, epochs=1, key=KEY, progress=False)
        dx.evaluate(trained, learning, x, y)
        dx.predict(trained, learning, x)
        lattice = dx.GraphState(dx.Topology(dx.topologies.lattice((3, 3))), 2)
        lattice.from_graphs_tuple("lateral", lattice.graphs_tuple("lateral"))
        dx.GraphState(topology).init(x, y).replace_val(1, y)
