"""Relaxation: pass after pass until every sample has come to rest.

This file knows networks: it makes one pass of a schedule into a map, with a residual and a test for
cycles. The loop that iterates the map is in `loop.py`, and knows none.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from darnax import checks
from darnax._arrays import any_rank
from darnax.dynamics.adjoint import Adjoint, attach, implicit, without_gradient
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.loop import Progress, begin, iterate, unroll
from darnax.dynamics.problem import Constants, Problem, pose
from darnax.dynamics.residual import (
    Scales,
    is_back,
    residual_dtype,
    scales_before,
    scales_of_bounded,
)
from darnax.dynamics.schedules import ScheduleLike, synchronous
from darnax.dynamics.update import one_pass
from darnax.dynamics.visits import Keys
from darnax.network.message_passing import Rows
from darnax.network.network import Network
from darnax.noise import pass_keys, sample_keys
from darnax.states.graph import GraphState


class Solution(eqx.Module):
    """Where a relaxation ended, sample by sample.

    **Fields:**

    - `state`: the last state.
    - `settled`: whether the residual fell to the tolerance.
    - `steps`: how many passes were made, the deciding one included: a start at rest gives 1.
    - `residual`: the largest |F(s) - s| of the last pass over the cells free to move, relative to
      max(1, max|s|) of their block; NaN where a value is not finite.
    - `period`: 1 at rest; the length of the cycle that was found; 0 where neither was.
    """

    state: GraphState
    settled: Bool[Array, "*stacked batch"]
    steps: Int[Array, "*stacked batch"]
    residual: Float[Array, "*stacked batch"]
    period: Int[Array, "*stacked batch"]


@any_rank
@checks.slips(
    steps="max_steps",
    maxiter="max_steps",
    tolerance="tol",
    atol="tol",
    rtol="tol",
)
@checks.by_hand
def relax(
    network: Network,
    state: GraphState,
    *,
    schedule: ScheduleLike = synchronous(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
    key: Key[Array, "..."] | None = None,
    max_steps: int = 100,
    tol: float = 1e-5,
    adjoint: Adjoint = implicit(),  # noqa: B008
) -> Solution:
    """Passes of the schedule until every sample is at rest, cycles, is lost, or time is up.

    F is one pass of the schedule; for `asynchronous`, which visits a share of the cells, the full
    synchronous update. A sample stops, and is frozen, at the first pass where

    - its residual is at most `tol`: settled, period 1;
    - it is back at a copy taken at pass 1, 2, 4, 8, ... (Brent, BIT 20, 176, 1980): not settled,
      and the period is the number of passes since. Back means within `tol`, and within 1e-5 of how
      far it goes in a pass, since a slow approach that alternates or spirals comes near to where it
      was as well. Random schedules have no cycles;
    - a value is not finite: not settled, period 0, residual NaN;
    - `max_steps` are made: period 0.

    Arguments as for `step`, and

    - `max_steps`: at least 1.
    - `tol`: at least 0. For units with memory, such as `leaky`, the residual is the distance from
      their target. Below 1e-6, the rounding of float32, smooth units may go on cycling in their
      last bits and not settle.
    - `adjoint`: how gradients are taken, `dx.implicit()` or `dx.unrolled()`.

    Raises `ValueError` for random activations and couplings, which never rest: use `rollout`.

    !!! example

        ```python
        solution = dx.relax(network, state, silence=["label"], max_steps=50)
        solution.settled.mean(), solution.steps.max()
        ```
    """
    max_steps = checks.count("max_steps", max_steps, 1, checks.MOST)
    tol = checks.number("tol", tol, least=0)
    checks.instance("adjoint", adjoint, Adjoint, "dx.implicit() or dx.unrolled()", "give one")
    problem = pose(
        network,
        state,
        schedule=schedule,
        clamp=clamp,
        silence=silence,
        kinds=kinds,
        drive=drive,
    )
    if problem.never_rests is not None:
        raise ValueError(
            f"{problem.never_rests} and never rest; use rollout, which makes a fixed number of "
            "passes"
        )
    keys = sample_keys(key, state.batch_size, problem.random)
    # As an array `max_steps` is data, and one program serves all numbers of passes. Passes that are
    # to be remembered are a part of the program: memory is laid out for all of them.
    most = max_steps if adjoint.remembers else jnp.asarray(max_steps, jnp.int32)
    return _relax(
        problem,
        state,
        keys,
        jnp.asarray(tol, jnp.float32),
        most,
        adjoint,
    )


class _Args(NamedTuple):
    """What all passes of a relaxation read; entries that differ by sample have samples last."""

    constants: Constants
    first_scales: dict[str, Float[Array, "..."]]
    keys: Keys


@eqx.filter_jit
def _relax(
    problem: Problem,
    state: GraphState,
    keys: Keys,
    tol: Float[Array, ""],
    max_steps: int | Int[Array, ""],
    adjoint: Adjoint,
) -> Solution:
    given = problem, state
    if not adjoint.remembers:
        # The loop is not differentiated: `attach` gives the derivatives of the point it ends at.
        problem, state = without_gradient(given)
    # A state made in the same program is full of constant zeros. XLA would work out all that
    # follows from them while it compiles, for seconds.
    start = jax.lax.optimization_barrier(state)
    rows = start.rows()
    # Arrays that do not move are no part of what the loop carries.
    moving: Rows = {}
    for array in problem.moves:
        moving[array] = rows[array]
    # Residuals are compared in their own dtype, float64 where any array that moves is.
    tol = tol.astype(residual_dtype(problem))
    args = _Args(problem.constants(state), scales_of_bounded(problem, moving), keys)

    # The map, how far a state was from its rest, and whether one is back at another.
    def scales(moving: Rows, args: _Args, t: Int[Array, ""]) -> Scales:
        return scales_before(problem, moving, args.first_scales, t)

    def step(
        moving: Rows,
        args: _Args,
        t: Int[Array, ""],
    ) -> tuple[Rows, Float[Array, " batch"]]:
        keys = pass_keys(args.keys, t)
        new, residual = one_pass(problem, args.constants, moving, keys, scales(moving, args, t))
        assert residual is not None  # scales were given
        return new, residual

    def back(
        new: Rows,
        old: Rows,
        anchor: Rows,
        residual: Float[Array, " batch"],
        args: _Args,
        t: Int[Array, ""],
    ) -> Bool[Array, " batch"]:
        return is_back(
            problem,
            scales(old, args, t),
            new,
            old,
            anchor,
            tol,
            residual,
        )

    # A random schedule goes another way from the same state: to be back there is no cycle.
    cycles = back if problem.schedule.share is None else None
    progress = begin(moving, _finite(start), tol.dtype)
    # An int stands for `dx.unrolled()`: its loop is differentiated as it is, and nothing attached.
    if isinstance(max_steps, int):
        end = unroll(step, progress, args, tol, max_steps, cycles)
        return _solution(state.with_rows(end.y), end, tol)
    end = iterate(step, progress, args, tol, max_steps, cycles)
    last = attach(*given, state.with_rows(end.y), end.residual <= tol)
    return _solution(last, end, tol)


def _solution(
    state: GraphState,
    end: Progress[Rows],
    tol: Float[Array, ""],
) -> Solution:
    finite = jnp.isfinite(end.residual)
    residual = jnp.where(finite, end.residual, jnp.nan)
    residual = jax.lax.stop_gradient(residual)
    settled = residual <= tol
    return Solution(
        state=state,
        settled=settled,
        steps=end.steps,
        residual=residual,
        period=jnp.where(settled, 1, end.period),
    )


def _finite(state: GraphState) -> Bool[Array, " batch"]:
    """The samples that hold finite numbers only, in all arrays, whoever reads them."""
    result = jnp.ones(state.batch_size, bool)
    for array in state.arrays.values():
        if jnp.issubdtype(array.dtype, jnp.inexact):
            all_but_batch = tuple(range(array.ndim - 1))
            result = result & jnp.all(jnp.isfinite(array), axis=all_but_batch)
    return result
