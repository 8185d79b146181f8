"""The loop of a relaxation: a map, iterated until every sample has come to rest.

It knows no network. States are any pytree whose arrays have the samples as their last axis.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Step = Callable[[Any, Any, Array], tuple[Any, Float[Array, " batch"]]]
"""`(y, args, t) -> (y, residual)`: the map, and how far `y` was from a fixed point of it."""
Back = Callable[..., Bool[Array, " batch"]]
"""`(new, old, anchor, residual, args, t) -> which samples are back at the anchor`."""


class Progress(eqx.Module):
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
    y: Any
    active: Bool[Array, " batch"]
    steps: Int[Array, " batch"]
    residual: Float[Array, " batch"]
    period: Int[Array, " batch"]


def begin(y: Any, finite: Bool[Array, " batch"], dtype: Any) -> Progress:
    """The progress before the first pass; samples that are not finite never go on."""
    steps = jnp.where(finite, 0, 1).astype(jnp.int32)
    return Progress(
        t=jnp.zeros((), jnp.int32),
        y=y,
        active=finite,
        steps=steps,
        # like `steps`, these are spread over devices inside of `shard_map`
        residual=jnp.full_like(steps, jnp.inf, dtype=dtype),
        period=jnp.zeros_like(steps),
    )


def advance(
    step: Step, back: Back | None, tol: Array, args: Any, now: Progress, anchor: Progress
) -> Progress:
    """The progress after one pass. `anchor` is the copy that a cycle would come back to.

    A sample stops at the first pass where its residual is at most `tol`, where it is not finite, or
    where it is back at the anchor.
    """
    t = now.t + 1
    new, residual = step(now.y, args, now.t)
    active, period = now.active & (residual > tol) & (residual < jnp.inf), now.period
    if back is not None:
        asked = jnp.where(active & (anchor.t > 0), residual, 0)
        is_back = back(new, now.y, anchor.y, asked, args, now.t)
        active, period = active & ~is_back, jnp.where(is_back, t - anchor.t, period)
    return Progress(
        t=t,
        y=jax.tree.map(lambda new, old: jnp.where(now.active, new, old), new, now.y),
        active=active,
        steps=jnp.where(now.active, t, now.steps),
        residual=jnp.where(now.active, residual, now.residual),
        period=period,
    )


def iterate(
    step: Step, start: Progress, args: Any, tol: Array, max_steps: Array, back: Back | None
) -> Progress:
    """Passes until no sample goes on, or `max_steps` are made.

    The copy that a cycle comes back to is taken anew at pass 1, 2, 4, 8, ... (Brent, BIT 20, 176,
    1980): so any period is found, and in an inner loop between two copies the copy is a constant,
    which costs no traffic.
    """

    def goes_on(now: Progress) -> Array:
        return jnp.any(now.active) & (now.t < max_steps)

    def stretch(anchor: Progress) -> Progress:
        stop = jnp.maximum(2 * anchor.t, 1)
        return jax.lax.while_loop(
            lambda now: goes_on(now) & (now.t < stop),
            lambda now: advance(step, back, tol, args, now, anchor),
            anchor,
        )

    return jax.lax.while_loop(goes_on, stretch, start)


def unroll(
    step: Step, start: Progress, args: Any, tol: Array, max_steps: int, back: Back | None
) -> Progress:
    """The same in a loop of a known number of passes, all of which are made and remembered."""

    def body(carry: tuple[Progress, Progress], _: Any) -> tuple[tuple[Progress, Progress], None]:
        now, anchor = carry
        is_power_of_two = (now.t > 0) & ((now.t & (now.t - 1)) == 0)
        anchor = jax.tree.map(lambda new, old: jnp.where(is_power_of_two, new, old), now, anchor)
        return (advance(step, back, tol, args, now, anchor), anchor), None

    (end, _), _ = jax.lax.scan(body, (start, start), length=max_steps)
    return end
