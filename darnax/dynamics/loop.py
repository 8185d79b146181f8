"""The loop of a relaxation: a map, iterated until every sample has come to rest.

It knows no network. States `y` are any pytree whose arrays have the samples as their last axis.
Everything else that differs by sample comes as `args`, with the samples last too, or an axis of 1
where all samples share it; so does the `memory` that a map hands from pass to pass besides the
states. Nothing of it is hidden in the map: so a loop may go on with some of the samples.

Samples come to rest at different times, most of them long before the last one. One at rest is
frozen, and would be worked out all the same. So once the samples that go on fit into half the
width, they are gathered into arrays of that width, and the loop goes on with these; later once
more.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Generic, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

Y = TypeVar("Y")
Memory = TypeVar("Memory")
Args = TypeVar("Args")
Tree = TypeVar("Tree")
Step: TypeAlias = Callable[
    [Y, Memory, Args, Array],
    tuple[Y, Memory, Float[Array, " batch"]],
]
"""`(y, memory, args, t) -> (new y, new memory, residual)`: the map, and how far `y` was from a
fixed point of it."""
Back: TypeAlias = Callable[[Y, Y, Y, Array, Args, Array], Bool[Array, " batch"]]
"""`(new, old, anchor, residual, args, t) -> which samples are back at the anchor`."""


class Progress(eqx.Module, Generic[Y, Memory]):
    """What one pass hands to the next.

    **Fields:**

    - `t`: passes made.
    - `y`: the states.
    - `memory`: what the map remembers of this pass. It is not frozen with its samples.
    - `active`: the samples that go on; the others are frozen.
    - `steps`: the passes that each sample took part in.
    - `residual`: that of each sample's last pass.
    - `period`: of a cycle that was found; 0 for none.
    """

    t: Int[Array, ""]
    y: Y
    memory: Memory
    active: Bool[Array, " batch"]
    steps: Int[Array, " batch"]
    residual: Float[Array, " batch"]
    period: Int[Array, " batch"]


class Copy(eqx.Module, Generic[Y]):
    """The states after pass `t`, kept to see whether a sample comes back to them."""

    t: Int[Array, ""]
    y: Y


class Iteration(eqx.Module, Generic[Y, Memory, Args]):
    """What is iterated, and when a sample stops.

    **Fields:**

    - `step`: the map.
    - `back`: which samples are back at a copy; None where that would show no cycle.
    - `args`: what the map reads besides the states.
    - `tol`: the residual at which a sample is at rest.
    - `max_steps`: the most passes that are made.
    """

    step: Step[Y, Memory, Args]
    back: Back[Y, Args] | None
    args: Args
    tol: Float[Array, ""]
    max_steps: int | Int[Array, ""]


class Run(eqx.Module, Generic[Y, Memory]):
    """A loop between two of its passes; `anchor` is the copy that a cycle would come back to."""

    now: Progress[Y, Memory]
    anchor: Copy[Y]


def begin(
    y: Y,
    memory: Memory,
    finite: Bool[Array, " batch"],
    dtype: DTypeLike,
) -> Run[Y, Memory]:
    """The run before the first pass; samples that are not finite never go on."""
    # Samples that are lost at the start have the numbers of one that its first pass loses.
    steps = jnp.where(finite, 0, 1).astype(jnp.int32)
    t = jnp.zeros((), jnp.int32)
    now = Progress(
        t=t,
        y=y,
        memory=memory,
        active=finite,
        steps=steps,
        # Made from `steps`, these are spread over devices as it is inside of `shard_map`.
        residual=jnp.full_like(steps, jnp.inf, dtype=dtype),
        period=jnp.zeros_like(steps),
    )
    return Run(now, Copy(t, y))


def advance(
    it: Iteration[Y, Memory, Args],
    run: Run[Y, Memory],
) -> Progress[Y, Memory]:
    """The progress after one pass.

    A sample stops at the first pass where its residual is at most `tol`, where it is not finite, or
    where it is back at the anchor.
    """
    now, anchor = run.now, run.anchor
    t = now.t + 1
    new, memory, residual = it.step(now.y, now.memory, it.args, now.t)
    # Comparisons with NaN are false: a sample that is not finite stops here too.
    active = now.active & (residual > it.tol) & (residual < jnp.inf)
    period = now.period
    if it.back is not None:
        # In pass 1 the anchor is the state before it: whoever is back there is at rest, as the
        # residual has told. A residual of 0 marks samples that are not compared.
        asked = jnp.where(active & (anchor.t > 0), residual, 0)
        is_back = it.back(new, now.y, anchor.y, asked, it.args, now.t)
        active = active & ~is_back
        period = jnp.where(is_back, t - anchor.t, period)
    # A sample that stops takes the state of this pass with it, and is frozen from the next one on.
    return Progress(
        t=t,
        y=_where(now.active, new, now.y),
        memory=memory,
        active=active,
        steps=jnp.where(now.active, t, now.steps),
        residual=jnp.where(now.active, residual, now.residual),
        period=period,
    )


def anchored(run: Run[Y, Memory]) -> Run[Y, Memory]:
    """The run with a new copy of its states, if one is due.

    Copies are taken after pass 1, 2, 4, 8, ... (Brent, BIT 20, 176, 1980): so any period is found.
    """
    is_due = run.now.t == next_copy(run.anchor)
    return Run(run.now, _where(is_due, Copy(run.now.t, run.now.y), run.anchor))


def next_copy(anchor: Copy[Y]) -> Int[Array, ""]:
    """The pass after which the next copy is taken."""
    return jnp.maximum(2 * anchor.t, 1)


def iterate(
    it: Iteration[Y, Memory, Args],
    run: Run[Y, Memory],
    until: int = 0,
) -> Run[Y, Memory]:
    """Passes until no more than `until` samples go on, or `max_steps` are made."""

    def stretch(run: Run[Y, Memory]) -> Run[Y, Memory]:
        # Between two copies the copy is a constant of an inner loop, which costs no traffic.
        run = anchored(run)
        anchor, stop = run.anchor, next_copy(run.anchor)
        now = jax.lax.while_loop(
            lambda now: (going_on(it, now) > until) & (now.t < stop),
            lambda now: advance(it, Run(now, anchor)),
            run.now,
        )
        return Run(now, anchor)

    return jax.lax.while_loop(lambda run: going_on(it, run.now) > until, stretch, run)


def going_on(it: Iteration[Y, Memory, Args], now: Progress[Y, Memory]) -> Int[Array, ""]:
    """How many samples go on; none once all passes are made."""
    return jnp.where(now.t < it.max_steps, jnp.sum(now.active), 0)


def iterate_with_fewer(
    it: Iteration[Y, Memory, Args],
    run: Run[Y, Memory],
    widths: Sequence[int],
) -> Run[Y, Memory]:
    """Passes until no sample goes on, or `max_steps` are made.

    `widths` are the sizes of arrays to go on with, falling, as soon as the samples that go on fit.
    Each of them is a loop of the program, and takes its time to compile.
    """
    stops = *widths, 0
    run = iterate(it, run, stops[0])
    for width, until in pairwise(stops):

        def narrower(run: Run[Y, Memory], width: int = width, until: int = until) -> Run[Y, Memory]:
            return with_fewer(it, run, width, until)

        run = jax.lax.cond(going_on(it, run.now) > until, narrower, lambda run: run, run)
    return run


def with_fewer(
    it: Iteration[Y, Memory, Args],
    run: Run[Y, Memory],
    width: int,
    until: int,
) -> Run[Y, Memory]:
    """`iterate` on arrays of `width` samples: those that go on, of which there are no more.

    Samples do not see each other, so that each comes to the same end as among all of them.
    """
    active = run.now.active
    # The first sample fills the places that are left over. It does not go on in them.
    chosen = jnp.flatnonzero(active, size=width, fill_value=0)
    is_real = jnp.arange(width) < jnp.sum(active)
    part = _picked(run, chosen, len(active))
    part = eqx.tree_at(lambda part: part.now.active, part, is_real)
    it = replace(it, args=_picked(it.args, chosen, len(active)))
    part = iterate(it, part, until)
    # Back to all samples by a gather and a mask, which take less time than a scatter.
    place = jnp.cumsum(active) - 1
    found = _picked(part, place, width)

    def put_back(found: Array, whole: Array) -> Array:
        # Numbers of passes have no axis of samples.
        return jnp.where(active, found, whole) if whole.ndim else found

    return jax.tree.map(put_back, found, run)


def _picked(tree: Tree, samples: Int[Array, " some"], batch: int) -> Tree:
    """Some of `batch` samples, in every array that does not share one entry among all."""

    def of_leaf(leaf: Array) -> Array:
        return leaf[..., samples] if leaf.shape[-1:] == (batch,) else leaf

    return jax.tree.map(of_leaf, tree)


def _where(mask: Bool[Array, "..."], new: Tree, old: Tree) -> Tree:
    """`new` where the mask is set, and `old` elsewhere, in every array of a pytree."""
    return jax.tree.map(lambda new, old: jnp.where(mask, new, old), new, old)


def unroll(
    it: Iteration[Y, Memory, Args],
    run: Run[Y, Memory],
    passes: int,
) -> Run[Y, Memory]:
    """The same in a loop of a known number of passes, all of which are made and remembered."""

    def body(run: Run[Y, Memory], _: None) -> tuple[Run[Y, Memory], None]:
        # A `while_loop` has no derivative backwards: so the stretches of `iterate` are one scan
        # here, which carries the anchor.
        run = anchored(run)
        return Run(advance(it, run), run.anchor), None

    end, _ = jax.lax.scan(body, run, length=passes)
    return end
