"""Functions and other plain objects inside of pytrees.

A leaf that is a function makes a pytree that `jax.jit`, `jax.grad` and `jax.tree.map` refuse.
`sealed` moves all that is no array into the structure of the tree, where JAX compares it, and
`unsealed` brings it back for use.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from darnax._arrays import on_device


class Static(eqx.Module):
    """A leaf that is part of the structure; called, it is what it holds."""

    value: Any = eqx.field(static=True)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.value(*args, **named)

    def __deepcopy__(self, memo: Any) -> "Static":
        return self

    def __reduce__(self):
        # functions of JAX are found by their public name: pickle looks for them where they are
        # made, and fails
        name = getattr(self.value, "__name__", None)
        for space in (jnp, jax.nn, jax.lax):
            if isinstance(name, str) and getattr(space, name, None) is self.value:
                return _public, (space.__name__, name)
        return Static, (self.value,)


def as_static(value: Any) -> Static:
    """What is held, by a `Static` if it is none."""
    return value if isinstance(value, Static) else Static(value)


def _public(space: str, name: str) -> Static:
    """A function of JAX by its public name; only from these three modules."""
    return Static(getattr({"jax.numpy": jnp, "jax.nn": jax.nn, "jax.lax": jax.lax}[space], name))


def sealed(tree: Any) -> Any:
    """The tree with arrays as its only leaves."""

    def seal(leaf: Any) -> Any:
        if isinstance(leaf, (np.ndarray, np.generic)):
            return on_device(leaf)
        return leaf if eqx.is_array(leaf) else Static(leaf)

    return jax.tree.map(seal, tree)


def unsealed(tree: Any) -> Any:
    """The inverse of `sealed`."""
    return jax.tree.map(
        lambda leaf: leaf.value if isinstance(leaf, Static) else leaf,
        tree,
        is_leaf=lambda leaf: isinstance(leaf, Static),
    )
