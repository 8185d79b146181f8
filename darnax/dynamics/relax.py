"""Relaxation: pass after pass until every sample has come to rest.

This file knows networks: it makes one pass of a schedule into a map, with a residual and a test for
cycles. The loop that iterates the map is in `loop.py`, and knows none.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from darnax import checks
from darnax._arrays import any_rank
from darnax.dynamics.adjoint import Adjoint, attach, implicit, without_gradient
from darnax.dynamics.arguments import Clamp, Drive, DriveBySample, DriveFunction, Kinds, Nodes
from darnax.dynamics.events import Follower, Kept, follow, followed_groups, start_following
from darnax.dynamics.loop import Iteration, Progress, begin, iterate_with_fewer, unroll
from darnax.dynamics.packing import PACKED, Packing, packing_of
from darnax.dynamics.problem import Constants, Fields, Problem, pose
from darnax.dynamics.residual import (
    Scales,
    immediate,
    is_back,
    residual_dtype,
    scales_before,
    scales_of_bounded,
)
from darnax.dynamics.schedules import ScheduleLike, synchronous
from darnax.dynamics.update import one_pass
from darnax.dynamics.verdicts import as_html
from darnax.dynamics.visits import Keys
from darnax.network.message_passing import Rows
from darnax.network.network import Network
from darnax.network.selection import Range
from darnax.noise import pass_keys, sample_keys
from darnax.states.graph import GraphState

# Fewer samples take less time, and a width takes time to compile: measured on two CPU cores.
MANY = 2**17
"""Moving cells of all samples from which a relaxation goes on with fewer samples."""
SHARES = 2, 5, 16
"""Parts of the batch that it goes on with: a half, a fifth, a sixteenth of the samples."""
FEWEST = 8
"""Widths are multiples of it: samples below which fewer take no less time."""


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

    def _repr_html_(self) -> str:
        """How samples ended, and where, for notebooks."""
        return as_html(self)


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
    # Corrections have no derivatives.
    followed = () if adjoint.remembers else followed_groups(problem, state.batch_size)
    return _relax(
        problem,
        state,
        keys,
        jnp.asarray(tol, jnp.float32),
        most,
        adjoint,
        _widths(problem, state.batch_size),
        followed,
    )


class _Args(NamedTuple):
    """What differs by sample and no pass changes: samples last, or 1 where all of them share it.

    The first three are those of `Constants`; `samples` are the numbers of the samples, None where
    the loop always goes on with all of them.
    """

    fields: Fields
    held: dict[str, Bool[Array, "..."]]
    still: Rows
    first_scales: dict[str, Float[Array, "..."]]
    keys: Keys
    samples: Int[Array, " batch"] | None


class _Map(NamedTuple):
    """A pass as a map of the arrays that move, and its test for cycles.

    **Fields:**

    - `constants`: what all passes and samples read; what differs by sample comes as `args`.
    - `packing`: the arrays that are one between passes.
    - `tol`: in the dtype of residuals, float64 where any array that moves is.
    """

    problem: Problem
    constants: Constants
    follower: Follower
    packing: Packing
    tol: Float[Array, ""]

    def step(
        self,
        packed: Rows,
        kept: Kept,
        args: _Args,
        t: Int[Array, ""],
    ) -> tuple[Rows, Kept, Float[Array, " batch"]]:
        """The arrays after a pass, what it keeps, and how far they were from rest before it."""
        moving = self.packing.unpacked(packed)
        constants = self.constants._replace(
            fields=args.fields,
            held=args.held,
            still=args.still,
        )
        problem = self.problem
        if args.samples is not None:
            problem = replace(problem, drives=_drives_of(problem, args.samples))
        followed = self.follower.groups
        if followed:
            # Fields that are kept are constants of the pass, and their groups send nothing in it.
            fields, kept = follow(problem, self.follower, constants, moving, kept)
            constants = constants._replace(fields=fields)
            changing = tuple(i for i in problem.changing if i not in followed)
            problem = replace(problem, changing=changing)
        keys = pass_keys(args.keys, t)
        scales = self._scales(packed, args, t)
        new, residual = one_pass(problem, constants, moving, keys, scales)
        assert residual is not None  # scales were given
        new = self.packing.packed(new)
        if PACKED in new:
            # cells that are not free kept their state: their change is 0 without a mask
            change = jnp.abs(new[PACKED] - packed[PACKED])
            own = scales.relative(PACKED, Range(0, len(change)), change)
            residual = jnp.maximum(residual, own)
        return new, kept, residual

    def back(
        self,
        new: Rows,
        old: Rows,
        anchor: Rows,
        residual: Float[Array, " batch"],
        args: _Args,
        t: Int[Array, ""],
    ) -> Bool[Array, " batch"]:
        """The samples that a pass brought back to an earlier copy."""
        return is_back(
            self._scales(old, args, t),
            new,
            old,
            anchor,
            self.tol,
            residual,
            all(immediate(self.problem, array) for array in self.problem.moves),
        )

    def _scales(self, moving: Rows, args: _Args, t: Int[Array, ""]) -> Scales:
        return scales_before(self.problem, moving, args.first_scales, t)


@eqx.filter_jit
def _relax(
    problem: Problem,
    state: GraphState,
    keys: Keys,
    tol: Float[Array, ""],
    max_steps: int | Int[Array, ""],
    adjoint: Adjoint,
    widths: tuple[int, ...],
    followed: tuple[int, ...],
) -> Solution:
    given = problem, state
    if not adjoint.remembers:
        # The loop is not differentiated: `attach` gives the derivatives of the point it ends at.
        problem, state = without_gradient(given)
    # A state made in the same program is full of constant zeros. XLA would work out all that
    # follows from them while it compiles, for seconds.
    start = jax.lax.optimization_barrier(state)
    # Arrays that do not move are no part of what the loop carries.
    moving = problem.moving(start)
    packing = Packing({})
    # A loop that is differentiated is left as it is.
    if not adjoint.remembers:
        packing = packing_of(problem, state.batch_size)
    packed = packing.packed(moving)
    tol = tol.astype(residual_dtype(problem))
    constants = problem.constants(state)
    args = _Args(
        fields=constants.fields,
        held=constants.held,
        still=constants.still,
        first_scales=_first_scales(problem, packing, packed),
        keys=keys,
        samples=jnp.arange(state.batch_size) if widths else None,
    )
    follower, kept = start_following(problem, constants, moving, followed, state.batch_size)
    image = _Map(
        problem,
        constants._replace(fields={}, held={}, still={}),
        follower,
        packing,
        tol,
    )
    # A random schedule goes another way from the same state: to be back there is no cycle.
    back = image.back if problem.schedule.share is None else None
    it = Iteration(image.step, back, args, tol, max_steps)
    finite = _finite(constants.still | packed)
    run = begin(packed, kept, finite, tol.dtype)
    # An int stands for `dx.unrolled()`: its loop is differentiated as it is, and nothing attached.
    if isinstance(max_steps, int):
        end = unroll(it, run, max_steps).now
        return _solution(state.with_rows(end.y), end, tol)
    end = iterate_with_fewer(it, run, widths).now
    rows = packing.unpacked(end.y)
    last = attach(*given, state.with_rows(rows), end.residual <= tol)
    return _solution(last, end, tol)


def _widths(problem: Problem, batch: int) -> tuple[int, ...]:
    """The numbers of samples that the loop goes on with, falling; none where that is no gain."""
    topology = problem.network.topology
    cells = sum(math.prod(topology.arrays[array].shape) for array in problem.moves)
    if cells * batch < MANY:
        return ()
    # A function of the user's may know how many samples there are: it is given all of them.
    for drive in problem.drives:
        if callable(drive) and not isinstance(drive, DriveBySample):
            return ()
    # An accelerator works out many samples in the time of few.
    if jax.default_backend() != "cpu":
        return ()
    widths: list[int] = []
    last = batch
    for share in SHARES:
        width = FEWEST * math.ceil(batch / (share * FEWEST))
        if width < last:
            widths.append(width)
            last = width
    return tuple(widths)


def _drives_of(
    problem: Problem,
    samples: Int[Array, " some"],
) -> tuple[Float[Array, "..."] | DriveFunction, ...]:
    """The drives of some samples; those that are no functions are part of the constants."""
    drives: list[Array | DriveFunction] = []
    for node, drive in zip(problem.driven, problem.drives, strict=True):
        if isinstance(drive, DriveBySample):
            drive = drive.of_samples(samples, problem.network.topology.node_class(node).shape)
        drives.append(drive)
    return tuple(drives)


def _solution(
    state: GraphState,
    end: Progress[Rows, Kept],
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


def _first_scales(
    problem: Problem,
    packing: Packing,
    packed: Rows,
) -> dict[str, Float[Array, "..."]]:
    """The scales before the first pass of all arrays whose scales are 1 from the second one on."""
    rest = dict(packed)
    cells = rest.pop(PACKED, None)
    first = scales_of_bounded(problem, rest)
    return first if cells is None else first | {PACKED: packing.scales(cells)}


def _finite(arrays: Rows) -> Bool[Array, " batch"]:
    """The samples that hold finite numbers only, in all arrays, whoever reads them."""
    like = next(iter(arrays.values()))
    result = jnp.ones_like(like, shape=like.shape[-1:], dtype=bool)
    for array in arrays.values():
        if jnp.issubdtype(array.dtype, jnp.inexact):
            all_but_batch = tuple(range(array.ndim - 1))
            result = result & jnp.all(jnp.isfinite(array), axis=all_but_batch)
    return result
