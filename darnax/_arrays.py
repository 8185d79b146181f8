"""From NumPy to JAX."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Shaped


def as_array(values: Any, dtype: Any = None) -> Shaped[Array, "..."]:
    """What `jnp.asarray` gives, without the program that it compiles for every new shape."""
    if isinstance(values, jax.Array):
        return values if dtype is None else values.astype(dtype)
    return jax.device_put(np.asarray(values, dtype))
