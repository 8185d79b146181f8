"""Simulated annealing: passes at a temperature that falls.

In the heat units cross from valley to valley, and in the cold they stay in one. If the temperature
falls slowly enough, it is a deep one.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from darnax import checks
from darnax._arrays import any_rank, on_device
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.problem import Problem, pose
from darnax.dynamics.schedules import ScheduleLike, unit_by_unit
from darnax.dynamics.step import Observe
from darnax.dynamics.update import one_pass
from darnax.dynamics.visits import Keys
from darnax.network.message_passing import Rows
from darnax.network.network import Network, check_state
from darnax.noise import pass_keys, sample_keys
from darnax.sampling.temperature import with_temperature
from darnax.states.graph import GraphState
from darnax.states.values import as_array


@any_rank
@checks.slips(temperature="temperatures", steps="temperatures")
@checks.by_hand
def anneal(
    network: Network,
    state: GraphState,
    temperatures: ArrayLike,
    *,
    schedule: ScheduleLike = unit_by_unit(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
    key: Key[Array, "..."],
    observe: Observe | None = None,
) -> tuple[GraphState, Any]:
    """The state after one pass at each temperature, and what was observed on the way.

    It is `dx.rollout` with a temperature of its own for every pass, in one program. Units that are
    coupled symmetrically and take turns then sample the Boltzmann distribution of each temperature,
    if it falls slowly; at 0 they settle. So the default schedule is unit by unit;
    `dx.coloured()` takes turns in fewer visits where units are nodes of their own.

    Arguments as for `dx.rollout`, and

    - `temperatures`: an array `(passes,)`, or `(passes, B)` for a course of its own in each sample;
      of all units of `dx.glauber`.

    Raises `ValueError` or `TypeError` for temperatures that are negative or of another shape, and
    for a network without units that have one.

    Source: S. Kirkpatrick, C. D. Gelatt and M. P. Vecchi, Science 220, 671 (1983).

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.lattice((8, 8)))
        couplings = {"lateral": dx.scale(1.0, fixed=True)}
        magnet = dx.Network(topology, couplings, dx.glauber(1.0), key=jax.random.key(0))
        start = dx.GraphState(topology, batch_size=4)
        cooling = jnp.geomspace(5.0, 0.1, 50)
        cold, _ = dx.anneal(magnet, start, cooling, schedule=dx.coloured(), key=key)
        ```
    """
    check_state(network, state)
    values = _temperatures(temperatures)
    if observe is not None:
        checks.function("observe", observe, "a function of the state", "give one, or None")
    problem = pose(
        with_temperature(network, values[0]),
        state,
        schedule=schedule,
        clamp=clamp,
        silence=silence,
        kinds=kinds,
        drive=drive,
    )
    keys = sample_keys(key, state.batch_size, problem.random)
    return _anneal(problem, state, keys, values, observe)


def _temperatures(given: object) -> Float[Array, "passes *samples"]:
    """The temperatures of all passes."""
    holds = "an array of temperatures of at least 0, (passes,) or (passes, B)"
    array = as_array("`temperatures`", given)
    advice = "give such numbers, as by jnp.geomspace(5.0, 0.1, 100)"
    if array.dtype.kind not in "iuf":
        checks.refuse("temperatures", holds, given, advice)
    if array.ndim not in (1, 2) or not array.size:
        checks.refuse("temperatures", holds, given, advice, ValueError)
    if not isinstance(array, Tracer):
        values = np.asarray(array, float)
        wrong = values[~((values >= 0) & (values <= checks.LARGEST))]
        if wrong.size:
            checks.refuse("temperatures", holds, float(wrong[0]), advice, ValueError)
    return on_device(array, np.float32)


@eqx.filter_jit
def _anneal(
    problem: Problem,
    state: GraphState,
    keys: Keys,
    temperatures: Float[Array, "passes *samples"],
    observe: Observe | None,
) -> tuple[GraphState, Any]:
    constants = problem.constants(state)

    def body(
        moving: Rows,
        now: tuple[Int[Array, ""], Float[Array, "*samples"]],
    ) -> tuple[Rows, object]:
        t, temperature = now
        # What passes have in common does not depend on the temperature.
        here = replace(problem, network=with_temperature(problem.network, temperature))
        after, _ = one_pass(here, constants, moving, pass_keys(keys, t))
        frame = None if observe is None else observe(state.with_rows(after))
        return after, frame

    passes = jnp.arange(len(temperatures)), temperatures
    moving, frames = jax.lax.scan(body, problem.moving(state), passes)
    return state.with_rows(moving), frames
