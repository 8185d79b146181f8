"""Small things that all floors ask of JAX."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Shaped

P = ParamSpec("P")
R = TypeVar("R")


def on_device(
    values: ArrayLike | np.generic,
    dtype: DTypeLike | None = None,
) -> Shaped[Array, "..."]:
    """The array that `jnp.asarray` gives, without the program that it compiles for a new shape."""
    # Arrays of JAX may be traced, and NumPy cannot read those.
    if isinstance(values, jax.Array):
        return values if dtype is None else values.astype(dtype)
    return jax.device_put(np.asarray(values, dtype))


def any_rank(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: inside, axes are broadcast even where the user has told JAX to refuse that.

    Masks of samples meet arrays whose last axis is the batch in every line of a pass.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **named: P.kwargs) -> R:
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **named)

    return wrapper
