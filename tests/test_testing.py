"""The testing kit: what is right passes, and what is wrong is named, with its law and its graph."""

import itertools
import sys
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import darnax as dx
from darnax.testing import (
    AWKWARD_GRAPHS,
    LawBroken,
    Reference,
    check_activation,
    check_coupling,
    check_schedule,
    check_topology,
    drawn,
    graphs,
    overlapping,
    random_state,
    redrawn,
    small_network,
    states,
    topologies,
)

slow = pytest.mark.slow


class Noisy(eqx.Module):
    def __call__(self, x, *, key):
        return x + jax.random.normal(key, x.shape, x.dtype)


class Lazy(dx.Activation):
    """Units with memory and noise."""

    rate: jax.Array
    elementwise = True
    draws = "unit"

    def target(self, field, state, noise):
        return jnp.tanh(field + noise)

    def move(self, state, target):
        return state + self.rate * (target - state)


COUPLINGS = {
    "dense": (dx.dense(gain=2.0), 3, 3),
    "edge_mlp": (dx.edge_mlp(4, jnp.tanh), (2, 2), 3),
    "conv": (dx.conv(3), (4, 4, 1), (4, 4, 2)),
    "linear": (lambda s, r, key: eqx.nn.Linear(s[0], r[0], key=key), 4, 2),
    "function": (lambda s, r, key=None: lambda x: jnp.sin(x), 3, 3),
    "noisy": (lambda s, r, key=None: Noisy(), 3, 3),
}
MORE_COUPLINGS = {
    "conv_transpose": (dx.conv_transpose(3, 2), (2, 2, 1), (4, 4, 2)),
    "pool": (dx.pool(2), (4, 4, 2), (2, 2, 2)),
    "upsample": (dx.upsample(2), (2, 2, 2), (4, 4, 2)),
    "relay": (dx.relay(), 3, 3),
    "scale": (dx.scale(0.7), (2, 2), (2, 2)),
    "sparse": (dx.sparse(nx.cycle_graph(5)), 5, 5),
    "scalars": (dx.dense(), (), ()),
}
couplings = [*COUPLINGS, *(pytest.param(name, marks=slow) for name in MORE_COUPLINGS)]


@pytest.mark.parametrize("name", couplings)
def test_couplings_keep_the_laws(name):
    factory, sender, receiver = (COUPLINGS | MORE_COUPLINGS)[name]
    check_coupling(factory, sender, receiver)


def test_couplings_may_read_numbers_of_edges():
    check_coupling(dx.scale(weight="weight"), (), (), attributes={"weight": 0.5})
    with pytest.raises(ValueError, match="'weight'"):
        check_coupling(dx.scale(weight="weight"), (), ())


ACTIVATIONS = {
    "sign": dx.sign,
    "softmax": dx.softmax,
    "leaky": dx.leaky(0.5, dx.tanh),
    "glauber": dx.glauber(0.5),
    "lazy": Lazy(jnp.asarray(0.3)),
    "function with memory": lambda field, state: 0.5 * (state + jnp.tanh(field)),
}
MORE_ACTIVATIONS = {
    "tanh": dx.tanh,
    "relu": dx.relu,
    "identity": dx.identity,
    "negative": dx.negative,
    "integrator": dx.integrator,
    "leaky integrator": dx.leaky(0.1, dx.integrator),
    "heaviside": dx.heaviside,
    "elementwise": dx.elementwise(jnp.sin),
    "sigmoid": dx.sigmoid,
    "slow softmax": dx.leaky(0.5, dx.softmax),
    "given": dx.elementwise(jnp.arctan, potential=lambda s: -jnp.log(jnp.cos(s))),
    "clipped": dx.elementwise(lambda h: jnp.clip(h, -1, 1), potential=lambda s: s**2 / 2),
}
activations = [*ACTIVATIONS, *(pytest.param(name, marks=slow) for name in MORE_ACTIVATIONS)]


@pytest.mark.parametrize("name", activations)
def test_activations_keep_the_laws(name):
    check_activation((ACTIVATIONS | MORE_ACTIVATIONS)[name], (2, 2))


def backwards(topology, movable):
    return [[i] for i in reversed(range(len(topology))) if movable[i]]


SCHEDULES = {"asynchronous": dx.asynchronous(0.5)}
MORE_SCHEDULES = {
    "unit_by_unit": dx.unit_by_unit(),
    "synchronous": dx.synchronous(),
    "node_by_node": dx.node_by_node(),
    "coloured": dx.coloured(),
}
schedules = [*SCHEDULES, *(pytest.param(name, marks=slow) for name in MORE_SCHEDULES)]


@pytest.mark.parametrize("name", schedules)
def test_schedules_keep_the_laws(name):
    check_schedule((SCHEDULES | MORE_SCHEDULES)[name])


def test_a_schedule_for_topologies_of_ones_own():
    hub = dx.Topology(drawn(dict.fromkeys("abc", 2), [("a", "b"), ("b", "c"), ("c", "a")]))
    check_schedule(backwards, {"ring": hub})
    check_schedule(dx.groups([["a", "b"], ["c"]]), {"ring": hub})


@pytest.mark.parametrize(
    "name", ["one node", "no edges", "windows", "parallel", "tied", "bfloat16"]
)
def test_topologies_keep_the_laws(name):
    topology = check_topology(AWKWARD_GRAPHS[name](), activations=dx.tanh)
    assert topology == dx.Topology(AWKWARD_GRAPHS[name]())
    assert check_topology(topology, activations=dx.tanh) is topology


# what is wrong is named


class Weighted(dx.Coupling):
    """A coupling that is right, and the classes below it which are not."""

    weight: jax.Array

    def __call__(self, x):
        return self.weight * x


class WrongBatch(Weighted):
    def batched(self, x):
        return self.weight[:, None] * x + 0.01


class Crowd(Weighted):
    def batched(self, x):
        return self.weight[:, None] * x + x.mean(-1, keepdims=True)


class WrongMatrix(Weighted):
    linear: ClassVar = "matrix"

    def matrix(self):
        return (
            2 * jax.vmap(jnp.diag)(self.weight)
            if self.weight.ndim > 1
            else jnp.diag(2 * self.weight)
        )


@jax.custom_vjp
def shifted(weight, x):
    return weight * x


shifted.defvjp(
    lambda weight, x: (weight * x, (weight, x)), lambda kept, g: (g * kept[1], 2 * g * kept[0])
)


class WrongDerivative(Weighted):
    def __call__(self, x):
        return shifted(self.weight, x)


def weighted(kind):
    return lambda s, r, key: kind(jax.random.normal(key, s))


def counting():
    numbers = itertools.count(1.0)
    return lambda s, r, key=None: Weighted(jnp.full(s, next(numbers)))


WRONG_COUPLINGS = {
    "batch": (weighted(WrongBatch), "a batch is its samples one by one"),
    "crowd": (weighted(Crowd), "a sample does not hear its companions"),
    "matrix": (weighted(WrongMatrix), "a fast kernel is the plain loop"),
    "derivative": (weighted(WrongDerivative), "derivatives are the limit of differences"),
    "order": (counting(), "the order of drawing is nothing"),
}


def test_a_right_coupling_of_this_kind_passes():
    check_coupling(weighted(Weighted))


@pytest.mark.parametrize("name", WRONG_COUPLINGS)
def test_wrong_couplings_break_a_law_by_name(name):
    factory, law = WRONG_COUPLINGS[name]
    with pytest.raises(LawBroken) as broken:
        check_coupling(factory)
    assert broken.value.law == law
    assert law in str(broken.value)
    assert f"on the graph {broken.value.graph!r}" in str(broken.value)


@jax.custom_jvp
def steep(field):
    return jnp.tanh(field)


steep.defjvp(lambda field, way: (jnp.tanh(field[0]), 3 * way[0]))


class Loose(dx.Activation):
    """Units that claim what is not so."""

    def target(self, field, state, noise):
        return 2 * field


def loose(**claims):
    return type("Loose", (Loose,), claims)()


class Share(dx.Activation):
    """Units that answer to their share of all fields, whatever the size of these."""

    by_sign = True

    def target(self, field, state, noise):
        return field / jnp.max(jnp.abs(field))


class Restless(dx.Activation):
    def target(self, field, state, noise):
        return jnp.tanh(field)

    def move(self, state, target):
        return target + 0.1 * jnp.ones_like(target)


POTENTIAL = "a potential is the integral of the field that leads to a state"


def costing(potential):
    return dx.elementwise(jnp.tanh, potential=potential)


class Dear(dx.Activation):
    """Softmax units that cost twice what they should."""

    def target(self, field, state, noise):
        return jax.nn.softmax(field)

    def potential(self, state):
        return 2 * dx.softmax.potential(state)


class Far(dx.Activation):
    """Sign units that are said never to be where they are."""

    differentiable = False

    def target(self, field, state, noise):
        return dx.sign.target(field, state, noise)

    def potential(self, state):
        return dx.heaviside.potential(state)


class Astray(dx.Activation):
    """Units that follow their field, and rest in none but zero."""

    def target(self, field, state, noise):
        return state + field

    def potential(self, state):
        return state**2 / 2


WRONG_ACTIVATIONS = {
    "shape": (lambda field: field.sum(), "an answer has the shape of its field"),
    "NaN": (lambda field: jnp.nan_to_num(field), "NaN is passed on"),
    "elementwise": (dx.elementwise(jax.nn.softmax), "a claim is kept"),
    "bounded": (loose(bounded=True), "a claim is kept"),
    "integer": (loose(integer=True), "a claim is kept"),
    "by_sign": (loose(by_sign=True), "a claim is kept"),
    "by_sign of a share": (Share(), "a claim is kept"),
    "derivative": (steep, "derivatives are the limit of differences"),
    "rest": (Restless(), "rest is where the state equals its target"),
    "potential of others": (costing(lambda s: s**2 / 2), POTENTIAL),
    "potential with a sign": (costing(lambda s: -dx.tanh.potential(s)), POTENTIAL),
    "potential that is a sum": (costing(lambda s: dx.tanh.potential(s).sum()), POTENTIAL),
    "potential that hides NaN": (
        costing(lambda s: jnp.nan_to_num(dx.tanh.potential(s))),
        POTENTIAL,
    ),
    "potential by node": (Dear(), POTENTIAL),
    "potential that is infinite": (Far(), POTENTIAL),
    "potential of units with memory": (Astray(), POTENTIAL),
}


@pytest.mark.parametrize("name", WRONG_ACTIVATIONS)
def test_wrong_activations_break_a_law_by_name(name):
    activation, law = WRONG_ACTIVATIONS[name]
    with pytest.raises(LawBroken) as broken:
        check_activation(activation)
    assert broken.value.law == law


@dataclass(frozen=True)
class Fickle(dx.Schedule):
    """Each time another order."""

    def visits(self, topology, movable):
        return np.random.default_rng(next(TIMES)).permutation(np.flatnonzero(movable))[:, None]


TIMES = itertools.count()


class Unequal(dx.Schedule):
    """Equal to itself alone."""

    __hash__ = object.__hash__

    def visits(self, topology, movable):
        return None


def test_wrong_schedules_break_a_law_by_name():
    ring = dx.Topology(drawn(dict.fromkeys(range(9), 1), [(i, (i + 1) % 9) for i in range(9)]))
    for schedule, law in (
        (Fickle(), "a schedule is a rule"),
        (Unequal(), "a schedule is equal by content"),
    ):
        with pytest.raises(LawBroken) as broken:
            check_schedule(schedule, {"ring": ring})
        assert broken.value.law == law
        assert broken.value.graph == "ring"


def test_wrong_parts_on_a_topology_are_found():
    graph = drawn({"a": 3, "b": 3}, [("a", "b")])
    with pytest.raises(LawBroken, match="a pass is the plain loop"):
        check_topology(graph, {"edge": weighted(WrongBatch)})
    with pytest.raises(LawBroken, match="the order of drawing is nothing"):
        check_topology(
            drawn({"a": 3, "b": 3, "c": 3, "d": (3, 1)}, [("a", "b"), ("d", "c", {"kind": "e"})]),
            {"edge": counting(), "e": lambda s, r, key=None: lambda x: x[:, 0]},
        )


# the plain loop and the strategies


def test_the_loop_makes_the_visits_of_a_schedule():
    network = small_network(dx.Topology(AWKWARD_GRAPHS["views"]()))
    state = random_state(network.topology)
    for schedule in (dx.synchronous(), dx.node_by_node(), dx.unit_by_unit(), dx.coloured()):
        loop = Reference(network, state).step(schedule)
        after = dx.step(network, state, schedule=schedule)
        assert loop.difference(after) == 0
        assert loop.difference(state) > 0


def test_the_loop_has_no_noise():
    network = small_network(dx.Topology(AWKWARD_GRAPHS["hub"]()), activations=dx.glauber(1.0))
    state = random_state(network.topology)
    with pytest.raises(ValueError, match=r"`network` draws random numbers \(kinds \['node'\]\)"):
        Reference(network, state)
    quiet = small_network(dx.Topology(AWKWARD_GRAPHS["hub"]()))
    with pytest.raises(ValueError, match=r"`schedule` .* draws the cells that move"):
        Reference(quiet, state).step(dx.asynchronous(0.5))
    ring = drawn(dict.fromkeys("abc", 3), [("a", "b"), ("b", "c")])
    noisy = small_network(dx.Topology(ring), {"edge": lambda s, r, key=None: Noisy()})
    with pytest.raises(ValueError, match=r"draws random numbers \(kinds \['edge'\]\)"):
        Reference(noisy, random_state(noisy.topology))


FEATURES = {
    "parallel edges": lambda g: (
        g.is_multigraph() and any(g.number_of_edges(*e[:2]) > 1 for e in g.edges)
    ),
    "ties": lambda g: len([1 for *_, data in g.edges(data=True) if "tie" in data]) > 1,
    "self-loops": lambda g: nx.number_of_selfloops(g) > 0,
    "views that overlap": lambda g: any(len(part) > 1 for part in overlapping(dx.Topology(g))),
    "views of any cells": lambda g: any(isinstance(i, list) for _, i in g.nodes(data="index")),
    "two arrays": lambda g: len({a for _, a in g.nodes(data="array") if a}) == 2,
    "inputs and outputs": lambda g: dx.Topology(g).inputs and dx.Topology(g).outputs,
    "scalars": lambda g: any(shape == () for _, shape in g.nodes(data="shape")),
}


def test_the_strategy_draws_everything_that_a_drawing_can_say():
    seen = set()

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(graphs())
    def look(graph):
        seen.update(feature for feature, shown in FEATURES.items() if shown(graph))

    look()
    assert seen == set(FEATURES)


@settings(max_examples=30, deadline=None, database=None)
@given(topologies(4), st.data())
def test_topologies_and_states_of_the_strategies_are_sound(topology, data):
    assert dx.Topology.from_json(topology.to_json()) == topology
    assert 1 <= len(topology) <= 4
    state = data.draw(states(topology, 2))
    assert state.batch_size == 2
    assert all((abs(np.asarray(array)) == 1).all() for array in state.arrays.values())
    other = dx.Topology(redrawn(topology.to_networkx()))
    assert set(other.nodes) == set(topology.nodes)


def test_the_kit_says_what_it_needs(monkeypatch):
    with pytest.raises(TypeError, match="`factory` is a factory"):
        check_coupling(3)
    with pytest.raises(TypeError, match="call it"):
        check_coupling(dx.dense)
    with pytest.raises(TypeError, match="`activation` is a function of the field"):
        check_activation(3)
    with pytest.raises(TypeError, match=r"`topologies\['a'\]` is a darnax\.Topology"):
        check_schedule(dx.synchronous(), {"a": 3})
    with pytest.raises(ValueError, match="has 2550 edges, and the plain loop takes up to 2000"):
        check_topology(dx.Topology.from_edges(*np.nonzero(~np.eye(51, dtype=bool))))
    with pytest.raises(ValueError, match="`most` is an int of at least 1"):
        graphs(0)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"pip install 'darnax\[testing\]'"):
        graphs()
