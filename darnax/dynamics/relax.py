"""Relaxation: pass after pass until every sample has come to rest."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from darnax import checks
from darnax._arrays import any_rank
from darnax.activations import Leaky, name
from darnax.dynamics.adjoint import Adjoint, Unrolled, attach, implicit, without_gradient
from darnax.dynamics.call import noisy_kinds, prepare, sample_keys
from darnax.dynamics.passes import one_pass
from darnax.dynamics.residual import block_scales, relative, residual_dtype, within_one
from darnax.dynamics.schedules import Asynchronous, Schedule, synchronous
from darnax.dynamics.setting import Setting, moving_arrays, setting
from darnax.dynamics.step import pass_keys
from darnax.network.messages import Arrays, arrays_of, field_dtype, rows_of, with_arrays
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.topologies.names import Name

NEAR, SUSTAINED, MOST_SUSTAINED = 1e-5, 1000, 1e-3


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
    clamp: Iterable[Name] | Mapping[Name, Any] = (),
    silence: Iterable[Name] = (),
    kinds: Iterable[str] | None = None,
    drive: Mapping[Name, Any] | None = None,
    key: Key[Array, "..."] | None = None,
    max_steps: int = 100,
    tol: float = 1e-5,
    adjoint: Adjoint = implicit(),  # noqa: B008
) -> Solution:
    """Passes of the schedule until every sample is at rest, cycles, is lost, or `max_steps` are
    made.

    F is one pass of the schedule; for `asynchronous`, which visits a share of the cells, the full
    synchronous update. A sample stops, and is frozen, at the first pass where

    - its residual is at most `tol`: settled, period 1;
    - it is back at a copy taken at pass 1, 2, 4, 8, ... (Brent, BIT 20, 176, 1980): not settled,
      and the period is the number of passes since. Back means within `tol`, and within 1e-5 of how
      far it goes in a pass, since a slow approach that alternates or spirals comes near to where it
      was as well; not looked for under random schedules;
    - a value is not finite: not settled, period 0, residual NaN;
    - `max_steps` are made: period 0.

    Arguments as for `step`, and

    - `max_steps`: at least 1.
    - `tol`: at least 0. For `leaky` units the residual is that of the unleaked map. Below 1e-6, the
      rounding of float32, smooth units may go on cycling in their last bits and not settle.
    - `adjoint`: how gradients are taken, `dx.implicit()` or `dx.unrolled()`.

    Raises `ValueError` for random activations, which never rest: use `rollout`.

    !!! example

        ```python
        solution = dx.relax(network, state, silence=["label"], max_steps=50)
        solution.settled.mean(), solution.steps.max()
        ```
    """
    max_steps, tol = (
        checks.count("max_steps", max_steps, 1, checks.MOST),
        checks.number("tol", tol, least=0),
    )
    checks.instance("adjoint", adjoint, Adjoint, "dx.implicit() or dx.unrolled()", "give one")
    call = prepare(
        network, state, schedule=schedule, clamp=clamp, silence=silence, kinds=kinds, drive=drive
    )
    noisy = noisy_kinds(network, call.frame)
    if noisy:
        raise ValueError(
            f"nodes of kind {noisy[0]!r} are random ({name(network.activations[noisy[0]])}) and "
            "never rest; use rollout, which makes a fixed number of passes"
        )
    keys = sample_keys(network, call.frame, schedule, key, state.batch_size)
    # one program for all numbers of steps, unless all of them are to be remembered
    most = max_steps if isinstance(adjoint, Unrolled) else jnp.asarray(max_steps, jnp.int32)
    return _relax(network, state, call, keys, jnp.asarray(tol, jnp.float32), most, adjoint)


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
    # a state made in the same program is full of constant zeros, which XLA would spend seconds on
    # while compiling
    unknown = jax.lax.optimization_barrier(state)
    moving = moving_arrays(fixed, unknown)
    tol = tol.astype(residual_dtype(fixed))
    cycles = not isinstance(call.schedule, Asynchronous)

    ones = [at for at in call.frame.moving if within_one(fixed, at)]
    at_first = block_scales(fixed, unknown)

    def advance(now: _Progress, anchor: _Progress) -> _Progress:
        """One pass; `anchor` is the copy that a cycle would come back to."""
        t = now.t + 1
        before = with_arrays(state, now.moving)
        scales = {at: jnp.where(now.t == 0, at_first[at], 1) for at in ones} | block_scales(
            fixed, before, skip=ones
        )
        after, residual = one_pass(fixed, before, pass_keys(keys, now.t), now.active, scales)
        assert residual is not None
        active, period = now.active & (residual > tol) & (residual < jnp.inf), now.period
        if cycles:
            copy = with_arrays(state, anchor.moving)
            back = _back(
                fixed, after, copy, scales, tol, jnp.where(active & (anchor.t > 0), residual, 0)
            )
            active, period = active & ~back, jnp.where(back, t - anchor.t, period)
        return _Progress(
            t=t,
            moving=moving_arrays(fixed, after),
            active=active & (t < max_steps),
            steps=jnp.where(now.active, t, now.steps),
            residual=jnp.where(now.active, residual, now.residual),
            period=period,
        )

    finite = _finite(unknown)
    steps = jnp.where(finite, 0, 1).astype(jnp.int32)
    now = _Progress(
        t=jnp.zeros((), jnp.int32),
        moving=moving,
        active=finite,
        steps=steps,
        # like `steps`, these are spread over devices inside of `shard_map`
        residual=jnp.full_like(steps, jnp.inf, dtype=tol.dtype),
        period=jnp.zeros_like(steps),
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
            lambda now: jnp.any(now.active) & (now.t < stop),
            lambda now: advance(now, anchor),
            anchor,
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


def _back(
    fixed: Setting,
    now: GraphState,
    copy: GraphState,
    scales: Any,
    tol: Array,
    residual: Float[Array, " batch"],
) -> Bool[Array, " batch"]:
    """Which samples are back at a copy of their state; a residual of zero says not to ask.

    Where a pass contracts by λ near a p-th root of unity, a sample on its way to rest comes near to
    where it was p passes ago too. It is then `|1 - λᵖ| / |1 - λ|` of its residual away, at least
    `1 - |λ|`; in a cycle it is not away at all, but for rounding. So it must be much nearer than it
    goes in a pass, and go much further than rounding reaches: where `|λ|` is 0.999, rounding alone
    keeps a slow approach going round in its last thousand bits for good.

    Few samples are back, and a look at some cells tells; only if some might be is the whole
    compared.
    """
    specs, moving = fixed.network.topology.layout.arrays, moving_arrays(fixed, now)
    inexact = [at for at, array in moving.items() if jnp.issubdtype(array.dtype, jnp.inexact)]
    rounding = 4 * max((float(jnp.finfo(moving[at].dtype).eps) for at in inexact), default=0.0)

    def near(size: Any, where: dict[int, slice]) -> Bool[Array, " batch"]:
        within = jnp.minimum(tol, jnp.maximum(NEAR * residual, rounding * size))
        return _near(fixed, now, copy, scales, within, where)

    def look_closer() -> Bool[Array, " batch"]:
        size = jnp.zeros_like(residual)
        for at in inexact:
            values = jnp.abs(rows_of(specs[at], moving[at])).astype(field_dtype(specs[at]))
            size = jnp.maximum(size, relative(scales[at], values).astype(size.dtype))
        reached = min(SUSTAINED * rounding, MOST_SUSTAINED) * size
        return hint & near(size, dict.fromkeys(moving, slice(None))) & (residual > reached)

    first = next(iter(moving), None)
    some = {} if first is None else {first: slice(0, 1 + 64 // math.prod(specs[first].item))}
    hint = (residual > 0) & near(1.0, some)
    return jax.lax.cond(jnp.any(hint), look_closer, lambda: hint & False)


def _near(
    fixed: Setting, a: GraphState, b: GraphState, scales: Any, tol: Array, where: dict[int, slice]
) -> Bool[Array, " batch"]:
    """Whether two states are equal within the tolerance on some rows of some arrays.

    Leaky units count in steps of their rate; otherwise a slow approach would look like a cycle: in
    one pass a leaky unit moves but a small share of its residual.
    """
    network = fixed.network
    result = jnp.ones(a.batch_size, bool)
    ours, theirs = arrays_of(a), arrays_of(b)
    for at, rows in where.items():
        spec, index = network.topology.layout.arrays[at], network.plan.arrays[at]
        dtype = field_dtype(spec)
        change = jnp.abs(
            rows_of(spec, ours[at])[rows].astype(dtype)
            - rows_of(spec, theirs[at])[rows].astype(dtype)
        )
        for i, kind in enumerate(index.kinds):
            activation = network.activations[kind]
            if isinstance(activation, Leaky):
                slow = change / activation.rate.astype(dtype)
                own = None if index.owner is None else (index.owner[rows] == i)[:, None]
                change = slow if own is None else jnp.where(own, slow, change)
        result = result & (relative(scales[at][rows], change) <= tol.astype(dtype))
    return result
