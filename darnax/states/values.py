"""Values that users give to states: read as arrays, and checked on every write."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array

from darnax import checks

KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
"""The kinds of numbers, each of which holds those before it."""

AnyArray = Array | np.ndarray
"""A value once it is read: an array of JAX if it came as one, else of NumPy."""


def as_array(what: str, value: object) -> AnyArray:
    """`value` as a JAX array if it is one, else as NumPy reads it, at full precision."""
    if isinstance(value, jax.Array):
        return value
    # NumPy reads the rest, for JAX would round to 32 bits at once: what is lost could not be told.
    if _is_masked(value):
        raise TypeError(
            f"{what} is an array without a mask, but got a masked one; fill it, as in "
            "value.filled(0)"
        )
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:  # a list of traced numbers
        return jnp.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{what} is not an array: {error}; give one, batch first") from None


def _is_masked(value: object) -> bool:
    """Whether NumPy would read numbers that a mask hides."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_masked, value))
    return isinstance(value, np.ma.MaskedArray)


def checked(
    what: str,
    value: object,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    batch: int | None,
) -> AnyArray:
    """`value` as an array `(batch, *shape)` of `dtype`, or an error that starts with `what`.

    A `batch` of None takes any. What NumPy has read is copied: a state does not see what the user
    does to `value` later.
    """
    array = as_array(what, value)
    # The shape of a scalar, without a first axis that it does not have, is that of a scalar unit.
    if array.shape[1:] != shape or not array.ndim:
        raise ValueError(
            f"{what} has shape {_expected(batch, shape)}, batch first, but got "
            f"{_came(array, value, shape)}"
        )
    samples = array.shape[0]
    if not samples:
        raise ValueError(f"{what} has a batch of 0; give at least one sample")
    if batch is not None and samples != batch:
        raise ValueError(
            f"{what} has shape {_expected(batch, shape)}, but got a batch of {samples}; give all "
            "one batch, or use init to resize"
        )
    return cast(what, array, dtype)


def _expected(batch: int | None, shape: tuple[int, ...]) -> str:
    """The words for the shape of an array `(batch, *shape)`."""
    first = "B" if batch is None else str(batch)
    return f"({', '.join([first, *map(str, shape)])})"


def _came(array: AnyArray, value: object, shape: tuple[int, ...]) -> str:
    """The words for a value in place of an array `(batch, *shape)`, and the advice."""
    if not _is_number(array.dtype):
        return f"{checks.came(value)}; give an array of numbers"
    if array.shape == shape:
        return f"{array.shape}; add a batch axis, as in value[None]"
    return f"{array.shape}; reshape it"


def cast(what: str, value: AnyArray, dtype: DTypeLike) -> AnyArray:
    """`value` in `dtype`, never weakly typed, or an error that starts with `what`.

    Floats are rounded to the float type of the state, as JAX does, unless a finite one becomes
    infinite. Everything else must arrive exactly.
    """
    source, dtype = value.dtype, jnp.dtype(dtype)
    if source == dtype:
        # Weakly typed buffers would compile every program a second time. Arrays of NumPy may be
        # written to later, and are copied by `astype`.
        strong = isinstance(value, jax.Array) and not value.weak_type
        return value if strong else value.astype(dtype)
    if _rank(source) > _rank(dtype):
        raise TypeError(
            f"{what} has dtype {dtype}, but got {source}; convert it, as in value.astype('{dtype}')"
        )
    if jnp.issubdtype(source, jnp.integer):
        _check_exact(what, value, dtype)
    elif _may_overflow(source, dtype) and not isinstance(value, Tracer):
        # Types do not tell, so the values do; a look at them waits for the device.
        _check_overflow(what, np.asarray(value), dtype)
    return value.astype(dtype)


# `Any`, because the dtypes of keys are no dtypes of NumPy.
def _rank(dtype: Any) -> int:
    """The place of a dtype in `KINDS`; past the end for text, keys and such."""
    for i, kind in enumerate(KINDS):
        if jnp.issubdtype(dtype, kind):
            return i
    return len(KINDS)


def _is_number(dtype: Any) -> bool:
    return _rank(dtype) < len(KINDS)


def _may_overflow(source: np.dtype, dtype: np.dtype) -> bool:
    """Whether the range of a type of floats is wider than that of another."""
    if not jnp.issubdtype(source, jnp.inexact):
        return False
    return float(jnp.finfo(source).max) > float(jnp.finfo(dtype).max)


def _check_overflow(what: str, value: np.ndarray, dtype: np.dtype):
    """Refuse finite numbers that a narrower type makes infinite."""
    # What came as infinite or NaN was meant so.
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.isfinite(value) & ~np.isfinite(value.astype(dtype))
    if lost.any():
        raise ValueError(
            f"{what} holds {value[lost][0]}, which is infinite as {dtype}; scale the values, or "
            "give a wider dtype"
        )


def _check_exact(what: str, value: AnyArray, dtype: np.dtype):
    """Refuse integers that a type cannot hold."""
    if not _keeps_integers(value, dtype):
        raise TypeError(
            f"{what} has dtype {dtype}, which cannot hold these {value.dtype} values exactly; "
            f"convert them, as in value.astype('{dtype}')"
        )


def _keeps_integers(value: AnyArray, dtype: np.dtype) -> bool:
    """Whether integers are the same numbers in another type: by their type if it tells, else each.

    A look at the values waits for the device, so that it comes last.
    """
    lowest, highest = _integers(dtype)
    source = jnp.iinfo(value.dtype)
    if lowest <= source.min and source.max <= highest:
        return True
    rounds = not jnp.issubdtype(dtype, jnp.integer)
    if isinstance(value, Tracer):
        # The values are unknown while tracing. Floats take them as JAX does; a narrower integer
        # type would wrap around, and give other numbers without a word.
        return rounds
    value = np.asarray(value)
    if not value.size or (lowest <= int(value.min()) and int(value.max()) <= highest):
        return True
    # Floats hold some integers past their bounds, such as powers of two.
    return rounds and _survives(value, dtype)


def _integers(dtype: np.dtype) -> tuple[int, int]:
    """The bounds between which a type holds every integer."""
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        return int(info.min), int(info.max)
    # A mantissa of n bits has a leading one besides, which is not stored.
    highest = 2 ** (jnp.finfo(dtype).nmant + 1)
    return -highest, highest


def _survives(value: np.ndarray, dtype: np.dtype) -> bool:
    """Whether integers come back from a type of floats as they were."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.real(value.astype(dtype))
        back = rounded.astype(value.dtype)
    # NumPy makes some integer of an infinite number, often the least of its type, which the value
    # may well be.
    return bool(np.isfinite(rounded).all()) and np.array_equal(back, value)
