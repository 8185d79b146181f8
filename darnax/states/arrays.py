"""The global arrays of a state, as a mapping from names that is a pytree."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from darnax import _text, checks
from darnax.states.values import as_array, cast
from darnax.topologies.layout import ArraySpec

# JAX rebuilds a pytree with whatever leaves a map gave: axes of `vmap`, shapes, None.
Leaves = tuple[Any, ...]
"""The arrays of a state in order, or what stands in their place."""


@jax.tree_util.register_pytree_with_keys_class
class Arrays(Mapping[str, Array]):
    """The global arrays of a state by name, batch last; an immutable mapping and a pytree.

    A dict would not do: it can be written to, and JAX would sort its arrays by name, where the
    topology has an order of its own.
    """

    # Without a dictionary of attributes, so that no array can be put on it by a slip.
    __slots__ = ("_by_name",)

    def __init__(self, names: tuple[str, ...], values: Leaves):
        self._by_name = dict(zip(names, values, strict=True))

    @checks.by_hand
    def __getitem__(self, name: str) -> Array:
        try:
            return self._by_name[name]
        except (KeyError, TypeError):  # a TypeError for what cannot be a key, such as a slice
            raise KeyError(
                f"there is no array {checks.came(name)}; the arrays are {_text.names(self)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Arrays({{{_text.arrays(self)}}})"

    def tree_flatten_with_keys(self) -> tuple[Leaves, tuple[str, ...]]:
        """For JAX."""
        names, values = tuple(self._by_name), self._by_name.values()
        keys = map(jax.tree_util.DictKey, names)
        return tuple(zip(keys, values, strict=True)), names

    # Every call of a program flattens the state. Keys are for paths alone, and are not made there.
    def tree_flatten(self) -> tuple[Leaves, tuple[str, ...]]:
        """For JAX."""
        return tuple(self._by_name.values()), tuple(self._by_name)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Leaves) -> "Arrays":
        """For JAX."""
        return cls(names, tuple(values))


@checks.by_hand
def checked_arrays(arrays: Arrays, specs: Mapping[str, ArraySpec]) -> dict[str, Array]:
    """The arrays, all of one batch, if names, shapes and dtypes are those of a topology."""
    if tuple(arrays) != tuple(specs):
        raise ValueError(
            f"`value` has the arrays {_text.names(arrays)}, but the topology has "
            f"{_text.names(specs)}; give the arrays of a state of this topology"
        )
    # All are read before any is compared: the shapes to expect depend on the batch of all.
    given = {}
    for name, array in arrays.items():
        given[name] = as_array(f"`value[{name!r}]`", array)
    batches = sorted({_batch(array.shape) for array in given.values()})
    if len(batches) > 1 or batches[0] < 1:
        raise ValueError(
            f"`value` has arrays of batch {batches}; give all one batch of at least 1, as the last "
            "axis"
        )
    result = {}
    for name, array in given.items():
        expected = (*specs[name].shape, *batches)
        if array.shape != expected:
            raise ValueError(
                f"`value[{name!r}]` has shape {expected}, batch last, but got {array.shape}; "
                "reshape it"
            )
        array = cast(f"`value[{name!r}]`", array, specs[name].dtype)
        result[name] = jnp.asarray(array)
    return result


def _batch(shape: tuple[int, ...]) -> int:
    """The batch of an array, which stands last; 0 for a single number."""
    return shape[-1] if shape else 0
