"""The loop of a relaxation: a map, iterated until every sample has come to rest.

It knows no network. States `y` are any pytree whose arrays have the samples as their last axis.
Everything else that differs by sample comes as `args`, with the samples last too, and nothing of it
is hidden in the map: so a loop may go on with some of the samples.
"""

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

Y = TypeVar("Y")
Args = TypeVar("Args")
Step: TypeAlias = Callable[[Y, Args, Array], tuple[Y, Float[Array, " batch"]]]
"""`(y, args, t) -> (new y, residual)`: the map, and how far `y` was from a fixed point of it."""
Back: TypeAlias = Callable[[Y, Y, Y, Array, Args, Array], Bool[Array, " batch"]]
"""`(new, old, anchor, residual, args, t) -> which samples are back at the anchor`."""


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
    step: Step[Y, Args],
    back: Back[Y, Args] | None,
    tol: Float[Array, ""],
    args: Args,
    now: Progress[Y],
    anchor: Progress[Y],
) -> Progress[Y]:
    """The progress after one pass. `anchor` is the copy that a cycle would come back to.

    A sample stops at the first pass where its residual is at most `tol`, where it is not finite, or
    where it is back at the anchor.
    """
    t = now.t + 1
    new, residual = step(now.y, args, now.t)
    # Comparisons with NaN are false: a sample that is not finite stops here too.
    active = now.active & (residual > tol) & (residual < jnp.inf)
    period = now.period
    if back is not None:
        # In pass 1 the anchor is the state before it: whoever is back there is at rest, as the
        # residual has told. A residual of 0 marks samples that are not compared.
        asked = jnp.where(active & (anchor.t > 0), residual, 0)
        is_back = back(new, now.y, anchor.y, asked, args, now.t)
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
    step: Step[Y, Args],
    start: Progress[Y],
    args: Args,
    tol: Float[Array, ""],
    max_steps: Int[Array, ""],
    back: Back[Y, Args] | None,
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
            lambda now: advance(step, back, tol, args, now, anchor),
            anchor,
        )

    return jax.lax.while_loop(goes_on, stretch, start)


def unroll(
    step: Step[Y, Args],
    start: Progress[Y],
    args: Args,
    tol: Float[Array, ""],
    max_steps: int,
    back: Back[Y, Args] | None,
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
        return (advance(step, back, tol, args, now, anchor), anchor), None

    (end, _), _ = jax.lax.scan(body, (start, start), length=max_steps)
    return end
