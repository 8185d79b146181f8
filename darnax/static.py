"""Functions and other plain objects inside of pytrees.

A leaf that is a function makes a pytree that `jax.jit`, `jax.grad` and `jax.tree.map` refuse.
`sealed` moves everything that is no array into the structure of the tree, where JAX compares it,
and `unsealed` brings it back for use.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from darnax._arrays import on_device

_PUBLIC = {"jax.numpy": jnp, "jax.nn": jax.nn, "jax.lax": jax.lax}
"""The modules in which users find functions of JAX."""


class Static(eqx.Module):
    """An object without arrays, as part of the structure of a pytree; a call calls the object."""

    value: Any = eqx.field(static=True)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.value(*args, **named)

    def __deepcopy__(self, memo: object) -> "Static":
        # A copy of a compiled function of JAX is not equal to it. A network with such a copy would
        # have another structure, and would be compiled once more.
        return self

    def __reduce__(self) -> tuple[Callable[..., "Static"], tuple[Any, ...]]:
        # Pickle looks for functions of JAX in the private modules that they were written in, and
        # fails. So they are written down, and found again, by their public names.
        name = getattr(self.value, "__name__", None)
        for space, module in _PUBLIC.items():
            if isinstance(name, str) and getattr(module, name, None) is self.value:
                return _public, (space, name)
        return Static, (self.value,)


def _public(space: str, name: str) -> Static:
    """A function of JAX by its public name."""
    return Static(getattr(_PUBLIC[space], name))


def as_static(value: object) -> Static:
    """The value in a `Static`; one that came in a `Static` is left as it is."""
    return value if isinstance(value, Static) else Static(value)


def sealed(tree: object) -> Any:
    """The pytree with arrays as its only leaves."""
    return jax.tree.map(_seal, tree)


def unsealed(tree: object) -> Any:
    """The inverse of `sealed`."""
    return jax.tree.map(_unseal, tree, is_leaf=_is_static)


def _seal(leaf: object) -> Array | Static:
    # Arrays of NumPy have no hash, and would break comparisons of the structure.
    if isinstance(leaf, (np.ndarray, np.generic)):
        return on_device(leaf)
    return leaf if isinstance(leaf, jax.Array) else Static(leaf)


def _unseal(leaf: object) -> Any:
    return leaf.value if isinstance(leaf, Static) else leaf


def _is_static(leaf: object) -> bool:
    # A `Static` has no leaves, so that a map would pass it by.
    return isinstance(leaf, Static)
