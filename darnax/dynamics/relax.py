"""Relaxation: pass after pass until every sample has come to rest.

The first half of this file knows networks: it makes one pass of a schedule into a map, with a
residual and a test for cycles. The second half is the loop that iterates any such map.
"""

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from darnax import checks
from darnax._arrays import any_rank
from darnax.dynamics.adjoint import Adjoint, attach, implicit, without_gradient
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.problem import Problem, pose
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
    first_scales = scales_of_bounded(problem, moving)
    constants = problem.constants(state)

    # The map, how far a state was from its rest, and whether one is back at another.
    def scales(moving: Rows, t: Int[Array, ""]) -> Scales:
        return scales_before(problem, moving, first_scales, t)

    def step(
        moving: Rows,
        t: Int[Array, ""],
    ) -> tuple[Rows, Float[Array, " batch"]]:
        new, residual = one_pass(problem, constants, moving, pass_keys(keys, t), scales(moving, t))
        assert residual is not None  # scales were given
        return new, residual

    def back(
        new: Rows,
        old: Rows,
        anchor: Rows,
        residual: Float[Array, " batch"],
        t: Int[Array, ""],
    ) -> Bool[Array, " batch"]:
        return is_back(
            problem,
            scales(old, t),
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
        end = unroll(step, progress, tol, max_steps, cycles)
        return _solution(state.with_rows(end.y), end, tol)
    end = iterate(step, progress, tol, max_steps, cycles)
    last = attach(*given, state.with_rows(end.y), end.residual <= tol)
    return _solution(last, end, tol)


def _solution(
    state: GraphState,
    end: "Progress[Rows]",
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


# The loop. From here on nothing knows a network: a map is iterated until every sample is at rest.
# States `y` are any pytree whose arrays have the samples as their last axis.

Y = TypeVar("Y")
Step: TypeAlias = Callable[[Y, Array], tuple[Y, Float[Array, " batch"]]]
"""`(y, t) -> (new y, residual)`: the map, and how far `y` was from a fixed point of it."""
Back: TypeAlias = Callable[[Y, Y, Y, Array, Array], Bool[Array, " batch"]]
"""`(new, old, anchor, residual, t) -> which samples are back at the anchor`."""


class Progress(eqx.Module, Generic[Y]):
    """What one pass hands to the next.

    **Fields:**

    - `t`: passes made.
    - `y`: the states.
    - `active`: the samples that go on; the others are frozen.
    - `steps`: the passes that each sample took part in.
    - `residual`: that of each sample's last pass.
    - `period`: of a cycle that was found; 0 for none.
    """

    t: Int[Array, ""]
    y: Y
    active: Bool[Array, " batch"]
    steps: Int[Array, " batch"]
    residual: Float[Array, " batch"]
    period: Int[Array, " batch"]


def begin(
    y: Y,
    finite: Bool[Array, " batch"],
    dtype: DTypeLike,
) -> Progress[Y]:
    """The progress before the first pass; samples that are not finite never go on."""
    # Samples that are lost at the start have the numbers of one that its first pass loses.
    steps = jnp.where(finite, 0, 1).astype(jnp.int32)
    return Progress(
        t=jnp.zeros((), jnp.int32),
        y=y,
        active=finite,
        steps=steps,
        # Made from `steps`, these are spread over devices as it is inside of `shard_map`.
        residual=jnp.full_like(steps, jnp.inf, dtype=dtype),
        period=jnp.zeros_like(steps),
    )


def advance(
    step: Step[Y],
    back: Back[Y] | None,
    tol: Float[Array, ""],
    now: Progress[Y],
    anchor: Progress[Y],
) -> Progress[Y]:
    """The progress after one pass. `anchor` is the copy that a cycle would come back to.

    A sample stops at the first pass where its residual is at most `tol`, where it is not finite, or
    where it is back at the anchor.
    """
    t = now.t + 1
    new, residual = step(now.y, now.t)
    # Comparisons with NaN are false: a sample that is not finite stops here too.
    active = now.active & (residual > tol) & (residual < jnp.inf)
    period = now.period
    if back is not None:
        # In pass 1 the anchor is the state before it: whoever is back there is at rest, as the
        # residual has told. A residual of 0 marks samples that are not compared.
        asked = jnp.where(active & (anchor.t > 0), residual, 0)
        is_back = back(new, now.y, anchor.y, asked, now.t)
        active = active & ~is_back
        period = jnp.where(is_back, t - anchor.t, period)
    # A sample that stops takes the state of this pass with it, and is frozen from the next one on.
    return Progress(
        t=t,
        y=_where(now.active, new, now.y),
        active=active,
        steps=jnp.where(now.active, t, now.steps),
        residual=jnp.where(now.active, residual, now.residual),
        period=period,
    )


def _where(mask: Bool[Array, "..."], new: Y, old: Y) -> Y:
    """`new` where the mask is set, and `old` elsewhere, in every array of a pytree."""
    return jax.tree.map(lambda new, old: jnp.where(mask, new, old), new, old)


def iterate(
    step: Step[Y],
    start: Progress[Y],
    tol: Float[Array, ""],
    max_steps: Int[Array, ""],
    back: Back[Y] | None,
) -> Progress[Y]:
    """Passes until no sample goes on, or `max_steps` are made.

    The copy that a cycle comes back to is taken anew at pass 1, 2, 4, 8, ... (Brent, BIT 20, 176,
    1980): so any period is found, and in an inner loop between two copies the copy is a constant,
    which costs no traffic.
    """

    def goes_on(now: Progress[Y]) -> Bool[Array, ""]:
        return jnp.any(now.active) & (now.t < max_steps)

    def stretch(anchor: Progress[Y]) -> Progress[Y]:
        # the pass at which the next copy is taken
        stop = jnp.maximum(2 * anchor.t, 1)
        return jax.lax.while_loop(
            lambda now: goes_on(now) & (now.t < stop),
            lambda now: advance(step, back, tol, now, anchor),
            anchor,
        )

    return jax.lax.while_loop(goes_on, stretch, start)


def unroll(
    step: Step[Y],
    start: Progress[Y],
    tol: Float[Array, ""],
    max_steps: int,
    back: Back[Y] | None,
) -> Progress[Y]:
    """The same in a loop of a known number of passes, all of which are made and remembered."""

    def body(
        carry: tuple[Progress[Y], Progress[Y]],
        _: None,
    ) -> tuple[tuple[Progress[Y], Progress[Y]], None]:
        now, anchor = carry
        # A `while_loop` has no derivative backwards: so the stretches of `iterate` are one scan
        # here, which carries the anchor.
        is_power_of_two = (now.t > 0) & ((now.t & (now.t - 1)) == 0)
        anchor = _where(is_power_of_two, now, anchor)
        return (advance(step, back, tol, now, anchor), anchor), None

    (end, _), _ = jax.lax.scan(body, (start, start), length=max_steps)
    return end
