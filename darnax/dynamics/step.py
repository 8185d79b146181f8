"""A pass, or a fixed number of them."""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from darnax import checks
from darnax._arrays import any_rank
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.problem import Problem, pose
from darnax.dynamics.schedules import ScheduleLike, synchronous
from darnax.dynamics.update import one_pass
from darnax.dynamics.visits import Keys
from darnax.network.message_passing import Rows
from darnax.network.network import Network
from darnax.noise import pass_keys, sample_keys
from darnax.states.graph import GraphState

Observe: TypeAlias = Callable[[GraphState], object]
"""What is looked at after every pass, as a function of the state."""


@checks.slips(steps="dx.rollout")
@checks.by_hand
def step(
    network: Network,
    state: GraphState,
    *,
    schedule: ScheduleLike = synchronous(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
    key: Key[Array, "..."] | None = None,
) -> GraphState:
    """The state after one pass of the schedule.

    A cell is updated if it is not held and an edge into a node that covers it speaks, or it is
    driven; then its new value is its activation of the local field: messages, bias and drive
    summed. A node that hears nobody keeps its state.

    **Arguments:**

    - `network`, `state`: on one topology.
    - `schedule`: who is updated when, such as `dx.synchronous()` or `dx.unit_by_unit()`.
    - `clamp`: who is held besides the inputs: node names, or a mapping from nodes to a mask of
      bool, `(*shape)` or `(B, *shape)`, or to False, which lets an input go.
    - `silence`: names of nodes whose messages are dropped.
    - `kinds`: the edge kinds that speak; None for all.
    - `drive`: a mapping from nodes to what is added to their field, `(*shape)` or `(B, *shape)`, or
      a function of the state that gives such an array.
    - `key`: for random activations and schedules, one key or one for each sample. Sample i draws
      from `fold_in(key, i)`, whatever its companions.

    Raises `ValueError` or `TypeError` naming the argument and node for anything that does not fit.

    !!! example

        ```python
        state = dx.step(network, state, schedule=dx.node_by_node(), silence=["label"])
        ```
    """
    after, _ = rollout(
        network,
        state,
        1,
        schedule=schedule,
        clamp=clamp,
        silence=silence,
        kinds=kinds,
        drive=drive,
        key=key,
    )
    return after


@any_rank
@checks.slips(max_steps="steps", length="steps")
@checks.by_hand
def rollout(
    network: Network,
    state: GraphState,
    steps: int,
    *,
    schedule: ScheduleLike = synchronous(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
    key: Key[Array, "..."] | None = None,
    observe: Observe | None = None,
) -> tuple[GraphState, Any]:
    """The state after `steps` passes, and what was observed on the way.

    Arguments as for `step`, and

    - `steps`: the number of passes.
    - `observe`: a function of the state, called after every pass; its results are stacked along a
      new first axis. None observes nothing.

    Pass t of sample i draws its noise from the sample's key folded with t.

    !!! example

        ```python
        state, energy = dx.rollout(network, state, 100, observe=lambda s: s["spins"].mean())
        ```
    """
    steps = checks.count("steps", steps, 0, checks.MOST)
    if observe is not None:
        checks.function("observe", observe, "a function of the state", "give one, or None")
    problem = pose(
        network,
        state,
        schedule=schedule,
        clamp=clamp,
        silence=silence,
        kinds=kinds,
        drive=drive,
    )
    keys = sample_keys(key, state.batch_size, problem.random)
    return _rollout(problem, state, keys, steps, observe)


@eqx.filter_jit
def _rollout(
    problem: Problem,
    state: GraphState,
    keys: Keys,
    steps: int,
    observe: Observe | None,
) -> tuple[GraphState, Any]:
    constants = problem.constants(state)
    moving = problem.moving(state)

    def body(moving: Rows, t: int | Int[Array, ""]) -> tuple[Rows, object]:
        after, _ = one_pass(problem, constants, moving, pass_keys(keys, t))
        frame = None if observe is None else observe(state.with_rows(after))
        return after, frame

    if steps == 1:
        # without the cost of a loop, as `step` makes its one pass
        moving, frame = body(moving, 0)
        frames = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], frame)
    else:
        moving, frames = jax.lax.scan(body, moving, jnp.arange(steps))
    return state.with_rows(moving), frames
