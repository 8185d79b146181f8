"""Relaxation: pass after pass until every sample has come to rest."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from darnax import checks
from darnax._arrays import any_rank
from darnax.dynamics.adjoint import Adjoint, attach, implicit, without_gradient
from darnax.dynamics.loop import Progress, begin, iterate, unroll
from darnax.dynamics.problem import Clamp, Constants, Drive, Kinds, Nodes, Problem, pose
from darnax.dynamics.residual import Scales, is_back, residual_dtype, scales_of, within_one
from darnax.dynamics.schedules import Schedule, synchronous
from darnax.dynamics.update import one_pass
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
@checks.slips(steps="max_steps", maxiter="max_steps", tolerance="tol", atol="tol", rtol="tol")
@checks.by_hand
def relax(
    network: Network,
    state: GraphState,
    *,
    schedule: Schedule = synchronous(),  # noqa: B008 (schedules are frozen)
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
        network, state, schedule=schedule, clamp=clamp, silence=silence, kinds=kinds, drive=drive
    )
    if problem.never_rests is not None:
        raise ValueError(
            f"{problem.never_rests} and never rest; use rollout, which makes a fixed number of "
            "passes"
        )
    keys = sample_keys(key, state.batch_size, problem.random)
    # one program for all numbers of steps, unless all of them are to be remembered
    most = max_steps if adjoint.remembers else jnp.asarray(max_steps, jnp.int32)
    return _relax(problem, state, keys, jnp.asarray(tol, jnp.float32), most, adjoint)


class _Args(NamedTuple):
    """What all passes of a relaxation read; entries that differ by sample have samples last."""

    constants: Constants
    first_scales: dict[str, Array]
    keys: Key[Array, " batch"] | None


@eqx.filter_jit
def _relax(
    problem: Problem,
    state: GraphState,
    keys: Key[Array, " batch"] | None,
    tol: Array,
    max_steps: Any,
    adjoint: Adjoint,
) -> Solution:
    unrolled, given = adjoint.remembers, (problem, state)
    if not unrolled:
        problem, state = without_gradient(given)
    # a state made in the same program is full of constant zeros, which XLA would spend seconds on
    start = jax.lax.optimization_barrier(state)
    rows = start.rows()
    moving = {array: rows[array] for array in problem.moves}
    tol = tol.astype(residual_dtype(problem))
    bounded = [array for array in problem.moves if within_one(problem, array)]
    first = scales_of(problem, {array: moving[array] for array in bounded})
    args = _Args(problem.constants(state), first.by_array, keys)

    def scales(moving: Rows, args: _Args, t: Array) -> Scales:
        """The scales before pass `t`: those of bounded units are 1 from the second pass on."""
        others = {array: rows for array, rows in moving.items() if array not in bounded}
        found = dict(scales_of(problem, others).by_array)
        for array in bounded:
            found[array] = jnp.where(t == 0, args.first_scales[array], 1)
        return Scales(found, tol.dtype)

    def step(moving: Rows, args: _Args, t: Array) -> tuple[Rows, Array]:
        keys, relative_to = pass_keys(args.keys, t), scales(moving, args, t)
        new, residual = one_pass(problem, args.constants, moving, keys, relative_to)
        assert residual is not None
        return new, residual

    def back(new: Rows, old: Rows, anchor: Rows, residual: Array, args: _Args, t: Array) -> Array:
        return is_back(problem, scales(old, args, t), new, old, anchor, tol, residual)

    cycles = None if problem.schedule.share is not None else back
    progress = begin(moving, _finite(start), tol.dtype)
    if unrolled:
        end = unroll(step, progress, args, tol, max_steps, cycles)
        return _solution(state.with_rows(end.y), end, tol)
    end = iterate(step, progress, args, tol, max_steps, cycles)
    return _solution(attach(*given, state.with_rows(end.y), end.residual <= tol), end, tol)


def _solution(state: GraphState, end: Progress, tol: Array) -> Solution:
    residual = jax.lax.stop_gradient(jnp.where(jnp.isfinite(end.residual), end.residual, jnp.nan))
    settled = residual <= tol
    return Solution(state, settled, end.steps, residual, jnp.where(settled, 1, end.period))


def _finite(state: GraphState) -> Bool[Array, " batch"]:
    """The samples that hold finite numbers only, in all arrays, whoever reads them."""
    result = jnp.ones(state.batch_size, bool)
    for array in state.arrays.values():
        if jnp.issubdtype(array.dtype, jnp.inexact):
            result = result & jnp.all(jnp.isfinite(array), axis=tuple(range(array.ndim - 1)))
    return result
