"""What every state can do, and the check that every write passes through."""

from abc import abstractmethod
from collections.abc import Hashable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped


class State(eqx.Module):
    """The configuration of a whole network, as an immutable pytree.

    Every layer or node, input and output included, has a buffer `(B, *shape)`. A new state has a batch of one; `init`
    resizes all buffers to the batch of what it is given. Every method returns a new state.
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
        raise ValueError(
            f"dtype {jnp.dtype(dtype).name} needs 64-bit mode; call jax.config.update('jax_enable_x64', True) first"
        )
    return jnp.zeros(shape, dtype)


def checked(what: str, value: Any, shape: tuple[int, ...], dtype: Any, batch: int | None) -> Shaped[Array, "..."]:
    """`value` as an array `(batch, *shape)` of `dtype`, or an error that starts with `what`.

    Floats are rounded to the float type of the state, as JAX does; everything else must arrive exactly.
    """
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
    expected = "(" + ", ".join(["B" if batch is None else str(batch), *map(str, shape)]) + ")"
    if value.ndim != 1 + len(shape) or value.shape[1:] != shape:
        hint = "; add a batch axis, as in value[None]" if value.shape == shape else ""
        raise ValueError(f"{what} has shape {expected}, batch first, but got {value.shape}{hint}")
    if not value.shape[0]:
        raise ValueError(f"{what} has a batch of 0; give at least one sample")
    if batch is not None and value.shape[0] != batch:
        raise ValueError(f"{what} has shape {expected}, but got a batch of {value.shape[0]}; use init to resize the batch")
    return cast(what, value, jnp.dtype(dtype))


def cast(what: str, value: Any, dtype: np.dtype) -> Shaped[Array, "..."]:
    """`value` in `dtype`; `TypeError` where that would lose more than a rounding of floats."""
    source = value.dtype
    if source == dtype:
        return jnp.asarray(value)
    ranks = [jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating]
    rank = [next((i for i, kind in enumerate(ranks) if jnp.issubdtype(d, kind)), None) for d in (source, dtype)]
    if rank[0] is None or rank[1] is None or rank[0] > rank[1]:
        raise TypeError(f"{what} has dtype {dtype}, but got {source}; convert it, as in value.astype({str(dtype)!r})")
    if jnp.issubdtype(source, jnp.integer) and not _keeps_integers(value, dtype):
        raise TypeError(f"{what} has dtype {dtype}, which cannot hold these {source} values exactly; cast them yourself")
    return jnp.asarray(value).astype(dtype) if isinstance(value, jax.Array) else jnp.asarray(value.astype(dtype))


def _keeps_integers(value: Any, dtype: np.dtype) -> bool:
    """Whether integers survive: by their type if it says so, else by their values, else (traced) only into floats."""
    source = jnp.iinfo(value.dtype)
    if jnp.issubdtype(dtype, jnp.integer):
        bounds = jnp.iinfo(dtype)
        lowest, highest = int(bounds.min), int(bounds.max)
    else:
        highest = 2 ** (jnp.finfo(dtype).nmant + 1)
        lowest = -highest
    if lowest <= source.min and source.max <= highest:
        return True
    if isinstance(value, jax.core.Tracer):
        return not jnp.issubdtype(dtype, jnp.integer)
    value = np.asarray(value)
    inside = not value.size or (lowest <= int(value.min()) and int(value.max()) <= highest)
    if inside or jnp.issubdtype(dtype, jnp.integer):
        return inside
    return bool(np.array_equal(value.astype(dtype).astype(value.dtype), value))
