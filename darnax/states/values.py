"""Values that users give to states: read as arrays, and checked on every write."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Shaped

from darnax import checks

KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


def as_array(what: str, value: Any) -> Any:
    """`value` as a JAX array if it is one, else as NumPy reads it, at full precision."""
    if isinstance(value, jax.Array):
        return value
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


def _is_masked(value: Any) -> bool:
    """Whether NumPy would read numbers that a mask hides."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_masked, value))
    return isinstance(value, np.ma.MaskedArray)


def checked(
    what: str, value: Any, shape: tuple[int, ...], dtype: Any, batch: int | None
) -> Shaped[Any, "..."]:
    """`value` as an array `(batch, *shape)` of `dtype`, or an error that starts with `what`.

    Floats are rounded to the float type of the state, as JAX does, unless a finite one becomes
    infinite; everything else must arrive exactly. What NumPy has read is a copy: what the user does
    to `value` later is not seen.
    """
    array = as_array(what, value)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        numeric = _rank(array.dtype) is not None
        came = array.shape if numeric else checks.came(value)
        advice = "reshape it" if numeric else "give an array of numbers"
        advice = (
            "add a batch axis, as in value[None]" if array.shape == shape and numeric else advice
        )
        raise ValueError(
            f"{what} has shape {_expected(batch, shape)}, batch first, but got {came}; {advice}"
        )
    if not array.shape[0]:
        raise ValueError(f"{what} has a batch of 0; give at least one sample")
    if batch is not None and array.shape[0] != batch:
        came = f"but got a batch of {array.shape[0]}; give all one batch, or use init to resize"
        raise ValueError(f"{what} has shape {_expected(batch, shape)}, {came}")
    return cast(what, array, dtype)


def _expected(batch: int | None, shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(["B" if batch is None else str(batch), *map(str, shape)]) + ")"


def cast(what: str, value: Any, dtype: Any) -> Shaped[Any, "..."]:
    """`value` in `dtype`, never weakly typed; an error where more than a rounding of floats is
    lost.
    """
    source, dtype = value.dtype, jnp.dtype(dtype)
    if source == dtype:
        return (
            value if isinstance(value, jax.Array) and not value.weak_type else value.astype(dtype)
        )
    ranks = _rank(source), _rank(dtype)
    if ranks[0] is None or ranks[1] is None or ranks[0] > ranks[1]:
        raise TypeError(
            f"{what} has dtype {dtype}, but got {source}; convert it, as in value.astype('{dtype}')"
        )
    if jnp.issubdtype(source, jnp.integer) and not _keeps_integers(value, dtype):
        raise TypeError(
            f"{what} has dtype {dtype}, which cannot hold these {source} values exactly; "
            f"convert them, as in value.astype('{dtype}')"
        )
    if _may_overflow(source, dtype) and not isinstance(value, Tracer):
        _check_overflow(what, np.asarray(value), dtype)
    with np.errstate(over="ignore"):
        return value.astype(dtype)


def _rank(dtype: Any) -> int | None:
    """The place of a dtype among the kinds of numbers, each of which holds those before it."""
    return next((i for i, kind in enumerate(KINDS) if jnp.issubdtype(dtype, kind)), None)


def _may_overflow(source: Any, dtype: np.dtype) -> bool:
    if not (jnp.issubdtype(source, jnp.inexact) and jnp.issubdtype(dtype, jnp.inexact)):
        return False
    return float(jnp.finfo(source).max) > float(jnp.finfo(dtype).max)


def _check_overflow(what: str, value: np.ndarray, dtype: np.dtype):
    """Refuse finite numbers that a narrower type makes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.isfinite(value) & ~np.isfinite(value.astype(dtype))
    if lost.any():
        raise ValueError(
            f"{what} holds {value[lost][0]}, which is infinite as {dtype}; scale the values, or "
            "give a wider dtype"
        )


def _keeps_integers(value: Any, dtype: np.dtype) -> bool:
    """Whether integers survive: by type if that says so, else by value, else (traced) only into
    floats.
    """
    source = jnp.iinfo(value.dtype)
    integer = jnp.issubdtype(dtype, jnp.integer)
    if integer:
        lowest, highest = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
    else:
        highest = 2 ** (jnp.finfo(dtype).nmant + 1)
        lowest = -highest
    if lowest <= source.min and source.max <= highest:
        return True
    if isinstance(value, Tracer):
        return not integer
    value = np.asarray(value)
    inside = not value.size or (lowest <= int(value.min()) and int(value.max()) <= highest)
    if inside or integer:
        return inside
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.array_equal(value.astype(dtype).astype(value.dtype), value))


def layers(value: Any, count: int) -> list[Any]:
    """`value` as a list of `count` buffers."""
    try:
        value = list(value)
    except TypeError:
        checks.refuse(
            "value",
            "a list of one array a layer, or a mapping from layers",
            value,
            "give one of them",
        )
    if len(value) != count:
        raise ValueError(
            f"`value` holds one array a layer, {count} in all, but got {len(value)}; give them all"
        )
    return value
