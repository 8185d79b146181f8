"""The laws of activations.

An activation says of itself what the library may do with it: answer for all nodes at once, keep its
values in integers, skip its derivative. What is claimed and is not so gives wrong states without a
word. The claims are looked at here, and passes are compared with the plain loop.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from darnax import checks
from darnax._arrays import any_rank
from darnax.activations import Activation, as_activation
from darnax.couplings.dense import dense
from darnax.dynamics.step import step
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.testing.awkward import drawn, redrawn
from darnax.testing.laws import Law, first_sample, other_companions
from darnax.testing.networks import random_state
from darnax.testing.reference import Reference
from darnax.topologies.lazy_networkx import NxDiGraph
from darnax.topologies.tables import Shape, parse_shape
from darnax.topologies.topology import Topology

BATCH = 4


@any_rank
@checks.by_hand
def check_activation(activation: Callable[..., Any], shape: Shape = 3) -> None:
    """Run the laws of activations on nodes of a shape.

    - *an answer has the shape of its field*.
    - *NaN is passed on*: a unit whose field is NaN is NaN.
    - *a claim is kept*: units of an `elementwise` activation answer to their own field alone;
      values are whole numbers where it is `integer` and lie within ±1 where it is `bounded`; the
      target depends on the sign of the field alone where it is `by_sign`; where it is
      `differentiable`, derivatives are the limit of differences.
    - *rest is where the state equals its target*: a unit that is at its target stays.
    - *a potential is the integral of the field that leads to a state*, if there is one: it has a
      finite number for every unit, NaN where the state is, and units rest in the field that is
      its derivative. The last is asked of units that have derivatives and draw nothing.
    - *a sample does not hear its companions*, and *the order of drawing is nothing*, in a pass.
    - *a pass is the plain loop*, *held cells stay*. An activation that draws is asked instead
      whether the same key gives the same state.

    **Arguments:**

    - `activation`: as a network takes it: a function of the field, or a subclass of
      `dx.Activation`.
    - `shape`: of the nodes.

    Raises `LawBroken` with the law and the graph.

    !!! example

        ```python
        from darnax.testing import check_activation

        check_activation(dx.elementwise(lambda field: jnp.clip(field, -1, 1)))
        ```
    """
    checks.function("activation", activation, "a function of the field", "give one")
    units = as_activation(activation)
    size = parse_shape(shape)
    _check_answers(units, size)
    _check_claims(units, size)
    _check_rest(units, size)
    _check_potential(units, size)
    for graph, made in _graphs(size, units.elementwise).items():
        _check_passes(graph, made, units)


def _numbers(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _answer(units: Activation, field: jax.Array, state: jax.Array | None = None) -> jax.Array:
    """The new state of one node, with the same noise in every call."""
    if state is None:
        state = jnp.asarray(_numbers(field.shape, seed=9), field.dtype)
    # All that passes give: `needed` says only what a call by hand cannot do without.
    return units(field, key=jax.random.key(1), state=state)


def _check_answers(units: Activation, shape: tuple[int, ...]) -> None:
    alone = "one node"
    law = Law("an answer has the shape of its field", alone)
    field = _numbers(shape)
    answer = _answer(units, field)
    law.holds(answer.shape == field.shape, f"{answer.shape} for a field of {field.shape}")
    law = Law("NaN is passed on", alone)
    lost = _answer(units, jnp.full(shape, jnp.nan, jnp.float32))
    law.holds(bool(jnp.isnan(lost).all()), f"a field of NaN gives {np.ravel(lost)[:3]}")


def _check_claims(units: Activation, shape: tuple[int, ...]) -> None:
    law = Law("a claim is kept", "one node")
    field = 3 * _numbers(shape)
    answer = _answer(units, field)
    # Units move from a state of any numbers: what is claimed of values is claimed of targets.
    target = answer if units.immediate else _target(units, field)
    if units.integer and units.immediate:
        law.holds(bool((target == jnp.round(target)).all()), f"`integer` units have {target}")
    if units.bounded:
        law.holds(bool((abs(target) <= 1).all()), f"`bounded` units have targets {target}")
    if units.by_sign:
        # every cell by a factor of its own: units that divide by their companions are no such
        other = field * jnp.exp(_numbers(shape, seed=4))
        law.equal("the answer of `by_sign` units to larger fields", _answer(units, other), answer)
    if units.elementwise and field.size > 1:
        other = field.ravel().at[0].add(1.0).reshape(shape)
        ours, theirs = _answer(units, other).ravel()[1:], answer.ravel()[1:]
        law.equal("`elementwise` units whose own field is the same", ours, theirs)
    if units.differentiable and units.draws is None:
        _check_slope(units, field)


def _target(
    units: Activation,
    field: jax.Array,
    state: jax.Array | None = None,
) -> jax.Array:
    noise: Any = None
    if units.draws == "unit":
        noise = jax.random.uniform(jax.random.key(1), field.shape, field.dtype)
    elif units.draws == "node":
        noise = jax.random.key(1)
    if state is None:
        state = jnp.asarray(_numbers(field.shape, seed=9), field.dtype)
    return units.target(field, state, noise)


def _check_slope(units: Activation, field: jax.Array) -> None:
    """The derivative along a random way against a central difference, in 64 bits."""
    law = Law("derivatives are the limit of differences", "one node", tol=1e-2)
    with jax.enable_x64(True):
        point = jnp.asarray(np.asarray(field), jnp.float64)
        way = jnp.asarray(np.random.default_rng(3).normal(size=field.shape))
        state = jnp.asarray(np.asarray(_numbers(field.shape, seed=9)), jnp.float64)

        def answer(field: jax.Array) -> jax.Array:
            return jnp.sum(_answer(units, field, state) * way)

        found = jnp.sum(jax.grad(answer)(point) * way)
        size = 1e-5
        expected = (answer(point + size * way) - answer(point - size * way)) / (2 * size)
        law.equal("the slope of the answer along a random way", found, expected)


def _check_rest(units: Activation, shape: tuple[int, ...]) -> None:
    """Units of memory alone can be anywhere else than at their target."""
    law = Law("rest is where the state equals its target", "one node")
    if not units.immediate:
        target = _target(units, _numbers(shape))
        law.equal("a unit at its target moves, and", units.move(target, target), target)


def _check_potential(units: Activation, shape: tuple[int, ...]) -> None:
    """What states that fields lead to cost, and the field that the slope of the cost names.

    In 64 bits, as the field of a state near its bound is lost to rounding.
    """
    law = Law("a potential is the integral of the field that leads to a state", "one node")
    with jax.enable_x64(True):
        rest = _target(units, jnp.asarray(np.asarray(3 * _numbers(shape)), jnp.float64))
        if units.potential(rest) is None:
            return

        def cost(state: jax.Array) -> jax.Array:
            return jnp.asarray(units.potential(state))

        found = cost(rest)
        law.holds(found.shape == shape, f"it has the shape {found.shape} for {shape} units")
        law.holds(bool(jnp.isfinite(found).all()), f"states {rest} cost {found}")
        lost = cost(jnp.full(shape, jnp.nan))
        law.holds(bool(jnp.isnan(lost).all()), f"a state of NaN costs {np.ravel(lost)[:3]}")
        if units.differentiable and units.draws is None:
            field = jax.grad(lambda state: jnp.sum(cost(state)))(rest)
            law.equal("the state of units in its derivative", _target(units, field, rest), rest)


def _graphs(shape: tuple[int, ...], elementwise: bool) -> dict[str, NxDiGraph]:
    loops = [(i, i) for i in range(3)]
    ring = [(i, (i + 1) % 3) for i in range(3)]
    nodes: dict[Any, Any] = dict.fromkeys(range(3), shape)
    graphs = {
        "ring with loops": drawn(nodes, ring + loops),
        "chain behind an input": drawn(nodes, [(0, 1), (1, 2), (2, 1)], inputs=[0]),
    }
    # Views that overlap need units that answer by themselves.
    if elementwise and shape:
        views: dict[Any, Any] = {"far": shape}
        for start, view in enumerate(("left", "right")):
            views[view] = {"array": "line", "index": slice(start, start + shape[0])}
        arrays = {"line": (shape[0] + 1, *shape[1:])}
        edges = [("far", "left"), ("left", "right"), ("right", "far"), ("far", "far")]
        graphs["views that overlap"] = drawn(views, edges, arrays=arrays)
    return graphs


def _network(graph: NxDiGraph, units: Activation) -> Network:
    couplings = {"edge": dense(), "loop": dense()}
    topology = Topology(graph)
    known = {kind: couplings[kind] for kind in topology.edge_kinds}
    return Network(topology, known, units, key=jax.random.key(2))


def _check_passes(name_: str, graph: NxDiGraph, units: Activation) -> None:
    network = _network(graph, units)
    state = random_state(network.topology, BATCH)
    key: dict[str, Any] = {} if units.draws is None else {"key": jax.random.key(4)}
    after = step(network, state, **key)
    law = Law("a sample does not hear its companions", name_)
    others = step(network, other_companions(state), **key)
    law.states(first_sample(others).arrays, first_sample(after).arrays)
    law = Law("held cells stay", name_)
    for node in network.topology.inputs:
        law.equal(f"{node!r}", after[node], state[node])
    if units.draws is None:
        law = Law("a pass is the plain loop", name_)
        law.states(after.arrays, Reference(network, state).step().arrays)
    else:
        law = Law("the same key gives the same state", name_)
        law.states(step(network, state, **key).arrays, after.arrays)
    if not network.topology.layout.overlaps:
        law = Law("the order of drawing is nothing", name_)
        other = _network(redrawn(graph), units)
        again = GraphState(other.topology, BATCH).replace({node: state[node] for node in state})
        law.states(step(other, again, **key), after)
