"""One learnt number a unit, added to the local field."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from darnax import checks


class Bias(eqx.Module):
    """How the biases of a node kind start; see `bias`."""

    init: float | Callable[..., Any] = eqx.field(static=True)

    def __call__(
        self,
        keys: Callable[[], Key[Array, " count"]],
        count: int,
        shape: tuple[int, ...],
        dtype: Any,
    ) -> Any:
        """Those of several nodes, or arrays; `keys` are asked for only to draw."""
        init = self.init
        if not callable(init):
            return np.full((count, *shape), init, dtype)

        def one(key: Key[Array, ""]) -> Float[Array, "..."]:
            start = init(key, shape, dtype)
            if jnp.shape(start) != shape:
                raise ValueError(
                    f"`init` gives an array of shape {shape}, but gave {jnp.shape(start)}"
                )
            return jnp.asarray(start, dtype)

        return jax.vmap(one)(keys())


@checks.by_hand
def bias(init: float | int | Callable[..., Any] = 0.0) -> Bias:
    """Biases of a node kind, one number a unit, learnt from the same signal as the couplings.

    **Arguments:**

    - `init`: the number that all start from, or an initialiser `(key, shape, dtype) -> array` such
      as those of `jax.nn.initializers`.

    !!! example

        ```python
        biases = {"hidden": dx.bias(jax.nn.initializers.normal(0.1))}
        ```
    """
    if callable(init):
        checks.called("init", init)
        return Bias(init)
    return Bias(checks.number("init", init))
