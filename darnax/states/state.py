"""What every state can do, and the check that every write passes through."""

from abc import abstractmethod
from collections.abc import Hashable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Shaped


class State(eqx.Module):
    """The configuration of a whole network, as an immutable pytree.

    Every layer or node, input and output included, has a buffer `(B, *shape)`. A new state has a batch of
    one; `init` resizes all buffers to the batch of what it is given. Every method returns a new state.
    """

    @abstractmethod
    def __getitem__(self, key: Any) -> Shaped[Array, "batch *shape"]:
        """The buffer of one layer or node."""

    @abstractmethod
    def __iter__(self) -> Iterator[Hashable]:
        """The keys, in order."""

    @abstractmethod
    def __len__(self) -> int:
        """How many buffers there are."""

    @abstractmethod
    def init(self, x: Any, y: Any = None) -> "State":
        """Input set to `x`, output to `y` if given, zeros elsewhere, all in the batch of `x`."""

    @abstractmethod
    def replace(self, value: Any) -> "State":
        """All buffers replaced."""

    @abstractmethod
    def replace_val(self, key: Any, value: Any) -> "State":
        """One buffer replaced, in the batch that the state has."""

    @property
    @abstractmethod
    def readout(self) -> Any:
        """What the network answers."""


def allocate(shape: tuple[int, ...], dtype: Any) -> Shaped[Array, "..."]:
    """Zeros; `ValueError` where JAX would quietly give a narrower type than asked for."""
    if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        name = jnp.dtype(dtype).name
        raise ValueError(f"dtype {name} needs 64-bit mode; call jax.config.update('jax_enable_x64', True) first")
    return jnp.zeros(shape, dtype)


def layers(value: Any, count: int) -> list:
    """`value` as a list of `count` buffers."""
    try:
        value = list(value)
    except TypeError:
        raise TypeError(f"`value` is a list of one array a layer, but got {type(value).__name__}") from None
    if len(value) != count:
        raise ValueError(f"`value` holds one array a layer, {count} in all, but got {len(value)}")
    return value


def as_array(what: str, value: Any) -> Any:
    """`value` as a JAX array if it is one, else as NumPy reads it, at full precision."""
    if isinstance(value, jax.Array):
        return value
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what} is not an array: {error}; give one, batch first") from None


def checked(what: str, value: Any, shape: tuple[int, ...], dtype: Any, batch: int | None) -> Shaped[Array, "..."]:
    """`value` as an array `(batch, *shape)` of `dtype`, or an error that starts with `what`.

    Floats are rounded to the float type of the state, as JAX does; everything else must arrive exactly.
    """
    value = as_array(what, value)
    expected = "(" + ", ".join(["B" if batch is None else str(batch), *map(str, shape)]) + ")"
    if value.ndim != 1 + len(shape) or value.shape[1:] != shape:
        hint = "add a batch axis, as in value[None]" if value.shape == shape else "reshape it"
        raise ValueError(f"{what} has shape {expected}, batch first, but got {value.shape}; {hint}")
    if not value.shape[0]:
        raise ValueError(f"{what} has a batch of 0; give at least one sample")
    if batch is not None and value.shape[0] != batch:
        came = f"but got a batch of {value.shape[0]}; give all one batch, or use init to resize"
        raise ValueError(f"{what} has shape {expected}, {came}")
    return cast(what, value, jnp.dtype(dtype))


def cast(what: str, value: Any, dtype: np.dtype) -> Shaped[Array, "..."]:
    """`value` in `dtype`, never weakly typed; `TypeError` where more than a rounding of floats is lost."""
    source = value.dtype
    kinds = [jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating]
    rank = [next((i for i, kind in enumerate(kinds) if jnp.issubdtype(d, kind)), None) for d in (source, dtype)]
    if rank[0] is None or rank[1] is None or rank[0] > rank[1]:
        raise TypeError(f"{what} has dtype {dtype}, but got {source}; convert it, as in value.astype('{dtype}')")
    if source != dtype and jnp.issubdtype(source, jnp.integer) and not _keeps_integers(value, dtype):
        raise TypeError(
            f"{what} has dtype {dtype}, which cannot hold these {source} values exactly; "
            f"convert them, as in value.astype('{dtype}')"
        )
    if isinstance(value, jax.Array):
        return value.astype(dtype)
    with np.errstate(over="ignore"):
        return jnp.array(value.astype(dtype))  # a copy: what the user does to `value` later is not seen


def _keeps_integers(value: Any, dtype: np.dtype) -> bool:
    """Whether integers survive: by type if that says so, else by value, else (traced) only into floats."""
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
