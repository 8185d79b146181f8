"""Leaves of a pytree as arrays of NumPy, and back as what they were."""

import json
from hashlib import blake2b
from typing import Any, Protocol, TypeGuard, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from darnax import checks


@runtime_checkable
class Written(Protocol):
    """An object that says itself in text, as `History` and `Topology` do."""

    def to_json(self) -> str: ...

    # the class is that of an object of the user: a file names no class
    @classmethod
    def from_json(cls, text: str) -> Any: ...


def plain(leaf: ArrayLike | np.generic) -> np.ndarray:
    """A leaf as an array of NumPy; keys as the numbers that they are made of."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def type_name(leaf: object) -> str:
    """The type of a leaf in one word: that of its numbers for an array, with what makes keys."""
    if _is_key(leaf):
        return f"key<{jax.random.key_impl(leaf)}>"
    if is_array(leaf):
        # not by `plain`: an array may have to come from a device for that
        return np.dtype(leaf.dtype).newbyteorder("=").name
    return type(leaf).__name__


def shape(leaf: ArrayLike | np.generic) -> tuple[int, ...]:
    """The shape that `plain` gives."""
    return jnp.shape(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def is_array(leaf: object) -> TypeGuard[jax.Array | np.ndarray | np.generic]:
    """Whether a leaf is an array of NumPy or JAX."""
    return eqx.is_array(leaf)


def is_value(leaf: object) -> bool:
    """Whether a leaf is no array, but a number, a text or an object that says itself in text."""
    return isinstance(leaf, (bool, int, float, complex, str)) or (
        isinstance(leaf, Written) and not isinstance(leaf, type)
    )


def check_leaf(argument: str, name: str, leaf: object):
    """Refuse arrays that hold no numbers, those of a running program, and promises of arrays."""
    where = f"the leaf {name or 'itself'} of `{argument}`"
    if isinstance(leaf, Tracer):
        raise TypeError(
            f"{where} is {checks.came(leaf)}; save and load outside of jit, vmap and grad"
        )
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(f"{where} is {leaf}, the shape of an array; give arrays")
    if is_array(leaf) and not _is_key(leaf):
        dtype = np.dtype(leaf.dtype)
        if not (jnp.issubdtype(dtype, jnp.number) or dtype.kind == "b"):
            raise TypeError(f"{where} is an array of {dtype}; give numbers")


def value_to_json(leaf: object) -> object:
    """A number or a text in what JSON has."""
    if isinstance(leaf, Written):
        return leaf.to_json()
    return [leaf.real, leaf.imag] if isinstance(leaf, complex) else leaf


def value_from_json(value: object, like: object) -> object:
    """The inverse of `value_to_json`, of the type of `like`."""
    if isinstance(like, Written):
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")
        return like.from_json(value)
    if isinstance(like, complex):
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is no pair of numbers")
        return complex(*value)
    # a subclass, such as an enum of text, is made by its class
    return type(like)(value)  # pyright: ignore[reportCallIssue]


def array_like(array: np.ndarray, like: object) -> object:
    """An array of NumPy as an array of the class of `like`, on its devices."""
    # keys were saved as numbers: what makes keys of them is that of `like`
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        return jax.device_put(array, like.sharding)
    # `jnp.asarray` would narrow float64
    return array[()] if isinstance(like, np.generic) else array


def bits(array: np.ndarray) -> np.ndarray:
    """The same bits in a dtype that safetensors can write from NumPy, in C order."""
    # safetensors writes memory as it lies
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)
    if array.dtype.kind in "biuf":
        return array
    # neither bfloat16 nor complex numbers have a type there that NumPy knows as well
    if array.dtype.itemsize <= 8:
        return array.view(f"u{array.dtype.itemsize}")
    return np.frombuffer(array.tobytes(), np.uint8)


def from_bits(saved: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `bits`."""
    return np.frombuffer(saved.tobytes(), dtype).reshape(shape).copy()


def digest(tree: object) -> str:
    """A digest of the array leaves of a pytree: their paths in it, dtypes, shapes and bits."""
    arrays = eqx.filter(tree, eqx.is_array)
    result = blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = plain(leaf)
        name = jax.tree_util.keystr(path)
        result.update(f"{name} {array.dtype} {array.shape};".encode())
        result.update(np.ravel(bits(array)).data)
    return result.hexdigest()


def as_json(argument: str, value: object) -> str:
    """A value as JSON text; `TypeError` for one that JSON has no words for."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"`{argument}` are what JSON can say, but {error}; give text, numbers, lists and dicts"
        ) from error


def _is_key(leaf: object) -> TypeGuard[jax.Array]:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
