"""Arrays of a pytree in a file, and back. Nothing in a file is run, and an interrupted save loses no older one."""

import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from darnax import _text


def save_arrays(path: Any, tree: Any, facts: Any = None):
    """Write the array leaves of a pytree, by their place in it, and `facts`, whatever JSON can say, to one file.

    The file is written beside `path` first and then takes its place at once. Raises `OSError` that names the path if
    that cannot be done; what was there before is then as it was.
    """
    path = Path(path)
    named = _named(tree)
    arrays = {name: _storable(leaf).copy(order="C") for name, leaf in named.items()}
    dtypes = {name: str(leaf.dtype) for name, leaf in named.items()}
    metadata = {"format": "darnax 1", "dtypes": json.dumps(dtypes), "facts": json.dumps(facts)}
    unfinished = path.with_name(path.name + f".{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as file:
            file.write(save(arrays, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise type(error)(f"`path` {str(path)!r} cannot be written: {error}; what was there is as it was") from error
    finally:
        unfinished.unlink(missing_ok=True)


def load_facts(path: Any) -> Any:
    """What `save_arrays` was told along with the arrays."""
    return json.loads(_metadata(path)["facts"])


def load_arrays(path: Any, like: Any) -> Any:
    """The pytree `like` with its array leaves from a file that `save_arrays` wrote.

    Raises `ValueError` listing every leaf that is missing, left over, or of another shape or dtype.
    """
    dtypes = json.loads(_metadata(path)["dtypes"])
    with safe_open(path, "np") as file:
        found = {name: file.get_tensor(name).view(jnp.dtype(dtypes[name])) for name in file.keys()}  # noqa: SIM118
    wanted = _named(like)
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} is left over" for name in found if name not in wanted]
    wrong += [
        f"{name} is {found[name].dtype}{found[name].shape} in the file and {leaf.dtype}{leaf.shape} here"
        for name, leaf in wanted.items()
        if name in found and (found[name].shape, found[name].dtype) != (leaf.shape, leaf.dtype)
    ]
    if wrong:
        raise ValueError(f"`path` {str(path)!r} does not fit: {_text.listing(wrong)}; load it into what was saved")
    arrays, rest = eqx.partition(like, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    fresh = [_like(jnp.asarray(found[name]), leaf) for name, leaf in zip(_named(like), leaves, strict=True)]
    return eqx.combine(jax.tree.unflatten(structure, fresh), rest)


def _metadata(path: Any) -> dict[str, str]:
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"`path` {str(path)!r} is not a whole file of darnax: {error}; give one it saved") from error
    if metadata.get("format") != "darnax 1":
        raise ValueError(f"`path` {str(path)!r} is not a file of darnax; give one it saved")
    return metadata


def _named(tree: Any) -> dict[str, Any]:
    """The array leaves by their place in the tree; keys as the numbers they are made of."""
    arrays = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {jax.tree_util.keystr(path): _plain(leaf) for path, leaf in arrays}


def _plain(leaf: Any) -> Any:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _like(fresh: Any, leaf: Any) -> Any:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(fresh, impl=jax.random.key_impl(leaf)) if is_key else fresh


def _storable(array: np.ndarray) -> np.ndarray:
    """The same bits in a dtype that NumPy has a name for; bfloat16 has none."""
    return array if array.dtype.kind in "biufc" else array.view(f"u{array.dtype.itemsize}")
