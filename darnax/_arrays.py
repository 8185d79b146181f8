"""Small things that all floors ask of JAX."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Shaped

F = TypeVar("F", bound=Callable[..., Any])


def on_device(values: Any, dtype: Any = None) -> Shaped[Array, "..."]:
    """What `jnp.asarray` gives, without the program that it compiles for every new shape."""
    if isinstance(values, jax.Array):
        return values if dtype is None else values.astype(dtype)
    return jax.device_put(np.asarray(values, dtype))


def any_rank(function: F) -> F:
    """A decorator: inside, axes are broadcast even where the user has told JAX to refuse that.

    Masks of samples meet arrays whose last axis is the batch in every line of a pass.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **named: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **named)

    return wrapper  # pyright: ignore[reportReturnType]
