"""Relaxation: pass after pass until every sample has come to rest."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from darnax import checks
from darnax.activations import Leaky, name
from darnax.dynamics.adjoint import Adjoint, Unrolled, attach, implicit, without_gradient
from darnax.dynamics.call import noisy_kinds, prepare, sample_keys
from darnax.dynamics.passes import one_pass
from darnax.dynamics.residual import block_scales, relative, residual_dtype, within_one
from darnax.dynamics.schedules import Asynchronous, synchronous
from darnax.dynamics.setting import Setting, moving_arrays, setting
from darnax.dynamics.step import pass_keys
from darnax.network.messages import Arrays, arrays_of, field_dtype, rows_of, with_arrays
from darnax.network.network import Network
from darnax.states.graph import GraphState


class Solution(eqx.Module):
    """Where a relaxation ended, sample by sample.

    **Fields:**

    - `state`: the last state.
    - `settled`: whether the residual fell to the tolerance.
    - `steps`: how many passes were made, the deciding one included: a start at rest gives 1.
    - `residual`: the largest |F(s) - s| of the last pass over the cells free to move, relative to max(1, max|s|) of
      their block; NaN where a value is not finite.
    - `period`: 1 at rest; the length of the cycle that was found; 0 where neither was.
    """

    state: GraphState
    settled: Bool[Array, "*stacked batch"]
    steps: Int[Array, "*stacked batch"]
    residual: Float[Array, "*stacked batch"]
    period: Int[Array, "*stacked batch"]


def relax(
    network: Network,
    state: GraphState,
    *,
    schedule: Any = synchronous(),  # noqa: B008 (schedules are frozen)
    clamp: Any = (),
    silence: Any = (),
    kinds: Any = None,
    drive: Any = None,
    key: Any = None,
    max_steps: Any = 100,
    tol: Any = 1e-5,
    adjoint: Any = implicit(),  # noqa: B008
) -> Solution:
    """Passes of the schedule until every sample is at rest, cycles, is lost, or `max_steps` are made.

    F is one pass of the schedule; for `asynchronous`, which visits a share of the cells, the full synchronous update.
    A sample stops, and is frozen, at the first pass where

    - its residual is at most `tol`: settled, period 1;
    - it equals within `tol` a copy taken at pass 1, 2, 4, 8, ... (Brent, BIT 20, 176, 1980): not settled, and the
      period is the number of passes since; not looked for under random schedules;
    - a value is not finite: not settled, period 0, residual NaN;
    - `max_steps` are made: period 0.

    Arguments as for `step`, and

    - `max_steps`: at least 1.
    - `tol`: at least 0. For `leaky` units the residual is that of the unleaked map. Below 1e-6, the rounding of
      float32, smooth units may go on cycling in their last bits and not settle.
    - `adjoint`: how gradients are taken, `dx.implicit()` or `dx.unrolled()`.

    Raises `ValueError` for random activations, which never rest: use `rollout`.

    !!! example

        ```python
        solution = dx.relax(network, state, silence=["label"], max_steps=50)
        solution.settled.mean(), solution.steps.max()
        ```
    """
    max_steps = checks.count("max_steps", max_steps, 1)
    if not (isinstance(tol, (int, float, np.number)) and math.isfinite(tol) and tol >= 0):
        raise ValueError(f"`tol` is a finite number of at least 0, but got {tol!r}")
    if not isinstance(adjoint, Adjoint):
        raise TypeError(f"`adjoint` is dx.implicit() or dx.unrolled(), but got {adjoint!r}")
    call = prepare(network, state, schedule=schedule, clamp=clamp, silence=silence, kinds=kinds, drive=drive)
    noisy = noisy_kinds(network, call.frame)
    if noisy:
        raise ValueError(
            f"nodes of kind {noisy[0]!r} are random ({name(network.activations[noisy[0]])}) and never rest; "
            "use rollout, which makes a fixed number of passes"
        )
    keys = sample_keys(network, call.frame, schedule, key, state.batch_size)
    return _relax(network, state, call, keys, jnp.asarray(tol, jnp.float32), max_steps, adjoint)


class _Progress(eqx.Module):
    """What one pass hands to the next; `period` is that of a cycle."""

    t: Int[Array, ""]
    moving: Arrays
    active: Bool[Array, " batch"]
    steps: Int[Array, " batch"]
    residual: Float[Array, " batch"]
    period: Int[Array, " batch"]


@eqx.filter_jit
def _relax(network, state, call, keys, tol, max_steps, adjoint) -> Solution:
    given = network, call, state
    if not isinstance(adjoint, Unrolled):
        network, call, state = without_gradient(given)
    fixed = setting(network, call, state)
    # a state made in the same program is full of constant zeros, which XLA would spend seconds on while compiling
    moving = jax.lax.optimization_barrier(moving_arrays(fixed, state))
    tol = tol.astype(residual_dtype(fixed))
    cycles = not isinstance(call.schedule, Asynchronous)

    ones = [at for at in call.frame.moving if within_one(fixed, at)]
    at_first = block_scales(fixed, state)

    def advance(now: _Progress, anchor: _Progress) -> _Progress:
        """One pass; `anchor` is the copy that a cycle would come back to."""
        t = now.t + 1
        before = with_arrays(state, now.moving)
        scales = {at: jnp.where(now.t == 0, at_first[at], 1) for at in ones} | block_scales(fixed, before, skip=ones)
        after, residual = one_pass(fixed, before, pass_keys(keys, now.t), now.active, scales)
        assert residual is not None
        active, period = now.active & (residual > tol) & (residual < jnp.inf), now.period
        if cycles:
            again = _again(fixed, after, with_arrays(state, anchor.moving), scales, tol, active & (anchor.t > 0))
            active, period = active & ~again, jnp.where(again, t - anchor.t, period)
        return _Progress(
            t=t,
            moving=moving_arrays(fixed, after),
            active=active & (t < max_steps),
            steps=jnp.where(now.active, t, now.steps),
            residual=jnp.where(now.active, residual, now.residual),
            period=period,
        )

    finite = _finite(state)
    now = _Progress(
        t=jnp.zeros((), jnp.int32),
        moving=moving,
        active=finite,
        steps=jnp.where(finite, 0, 1),
        residual=jnp.full(finite.shape, jnp.inf, tol.dtype),
        period=jnp.zeros(finite.shape, jnp.int32),
    )
    if isinstance(adjoint, Unrolled):

        def remembered(carry, _):
            now, anchor = carry
            take = (now.t > 0) & ((now.t & (now.t - 1)) == 0)
            anchor = jax.tree.map(lambda new, old: jnp.where(take, new, old), now, anchor)
            return (advance(now, anchor), anchor), None

        (now, _), _ = jax.lax.scan(remembered, (now, now), length=max_steps)
        return _solution(with_arrays(state, now.moving), now, tol)

    def stretch(anchor: _Progress) -> _Progress:
        # within a stretch the anchor is a constant of the loop, which costs no traffic
        stop = jnp.maximum(2 * anchor.t, 1)
        return jax.lax.while_loop(
            lambda now: jnp.any(now.active) & (now.t < stop), lambda now: advance(now, anchor), anchor
        )

    end = jax.lax.while_loop(lambda now: jnp.any(now.active), stretch, now)
    return _solution(attach(*given, with_arrays(state, end.moving), end.residual <= tol), end, tol)


def _solution(state: GraphState, end: _Progress, tol: Array) -> Solution:
    residual = jax.lax.stop_gradient(jnp.where(jnp.isfinite(end.residual), end.residual, jnp.nan))
    settled = residual <= tol
    return Solution(state, settled, end.steps, residual, jnp.where(settled, 1, end.period))


def _finite(state: GraphState) -> Bool[Array, " batch"]:
    """Which samples hold finite numbers only, in all arrays, whoever reads them."""
    result = jnp.ones(state.batch_size, bool)
    for array in state.arrays.values():
        if jnp.issubdtype(array.dtype, jnp.inexact):
            result = result & jnp.all(jnp.isfinite(array), axis=tuple(range(array.ndim - 1)))
    return result


def _again(
    fixed: Setting, now: GraphState, anchor: GraphState, scales: Any, tol: Array, open_: Array
) -> Bool[Array, " batch"]:
    """Which of the open samples are back at the anchor, within the tolerance.

    Few are, and a look at some cells tells; only if some might be is the whole compared.
    """
    moving, specs = fixed.call.frame.moving, fixed.network.topology.layout.arrays
    some = {at: slice(0, 1 + 64 // math.prod(specs[at].item)) for at in moving[:1]}
    hint = open_ & _near(fixed, now, anchor, scales, tol, some)
    whole = dict.fromkeys(moving, slice(None))
    return jax.lax.cond(
        jnp.any(hint), lambda: hint & _near(fixed, now, anchor, scales, tol, whole), lambda: jnp.zeros_like(hint)
    )


def _near(
    fixed: Setting, a: GraphState, b: GraphState, scales: Any, tol: Array, where: dict[int, slice]
) -> Bool[Array, " batch"]:
    """Whether two states are equal within the tolerance on some rows of some arrays.

    Leaky units count in steps of their rate; otherwise a slow approach would look like a cycle: in one pass a leaky
    unit moves but a small share of its residual.
    """
    network = fixed.network
    result = jnp.ones(a.batch_size, bool)
    ours, theirs = arrays_of(a), arrays_of(b)
    for at, rows in where.items():
        spec, index = network.topology.layout.arrays[at], network.plan.arrays[at]
        dtype = field_dtype(spec)
        change = jnp.abs(rows_of(spec, ours[at])[rows].astype(dtype) - rows_of(spec, theirs[at])[rows].astype(dtype))
        for i, kind in enumerate(index.kinds):
            activation = network.activations[kind]
            if isinstance(activation, Leaky):
                slow = change / activation.rate.astype(dtype)
                own = None if index.owner is None else (index.owner[rows] == i)[:, None]
                change = slow if own is None else jnp.where(own, slow, change)
        result = result & (relative(scales[at][rows], change) <= tol.astype(dtype))
    return result
