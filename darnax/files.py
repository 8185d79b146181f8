"""Arrays of a pytree in a file, and back. Nothing in a file is run, and an interrupted save loses
no older one.

A file is one of safetensors whose metadata hold a digest of every other byte in it, so that no
change goes unnoticed. It is written under a name of its own beside the path and then takes its
place at once: readers see the old file or the new one, and two writers never mix.
"""

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from darnax import _text, checks

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted: that is lock enough
    fcntl = None

FORMAT = "darnax 2"
# In JSON inside of JSON quotes are escaped: neither facts nor names can hold this text.
SEAL = re.compile(rb'"seal":"([0-9a-f]{64})"')
BLANK = b"0" * 64


class Saved(NamedTuple):
    """What a file holds: arrays by their place in the tree, and facts."""

    path: Path
    arrays: dict[str, np.ndarray]
    facts: Any

    def into(self, like: Any) -> Any:
        """The pytree `like` with its array leaves from the file; see `load_arrays`."""
        wanted = _named(like)
        self._check(wanted)
        arrays, rest = eqx.partition(like, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        fresh = [
            _like(jnp.asarray(self.arrays[name]), leaf)
            for name, leaf in zip(wanted, leaves, strict=True)
        ]
        return eqx.combine(jax.tree.unflatten(structure, fresh), rest)

    def _check(self, wanted: dict[str, np.ndarray]):
        wrong = [f"{name} is missing" for name in wanted if name not in self.arrays]
        wrong += [f"{name} is left over" for name in self.arrays if name not in wanted]
        for name, here in wanted.items():
            there = self.arrays.get(name, here)
            if (there.shape, there.dtype) != (here.shape, here.dtype):
                wrong.append(
                    f"{name} is {there.dtype}{there.shape} in the file and "
                    f"{here.dtype}{here.shape} here"
                )
        if wrong:
            listed = _text.listing(wrong)
            raise ValueError(
                f"`path` {str(self.path)!r} does not fit: {listed}; load it into what was saved"
            )


def save_arrays(path: Any, tree: Any, facts: Any = None):
    """Write the array leaves of a pytree, by their place in it, and `facts`, whatever JSON can say,
    to one file.

    The file is written beside `path` first and then takes its place at once. A file that is there
    keeps its mode, and a symbolic link stays one. Parts that killed writers left behind are
    removed. Raises `OSError` that names the path if it cannot be written; what was there before is
    then as it was. Raises `TypeError` for facts that JSON cannot say.

    !!! example

        ```python
        path = tempfile.mkdtemp() + "/network.safetensors"
        dx.files.save_arrays(path, network)
        network = dx.files.load_arrays(path, like=network)
        ```
    """
    from safetensors.numpy import save

    named = _named(tree)
    arrays = {name: _storable(leaf).copy(order="C") for name, leaf in named.items()}
    dtypes = {name: str(leaf.dtype) for name, leaf in named.items()}
    metadata = {
        "format": FORMAT,
        "seal": BLANK.decode(),
        "dtypes": json.dumps(dtypes),
        "facts": _json(facts),
    }
    data = _sealed(save(arrays, metadata))
    with _part("path", path) as (file, target):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:  # an open file cannot be renamed there
            file.close()
        os.replace(file.name, target)


def check_writable(argument: str, path: Any):
    """Raise `OSError` that names the path if a file cannot be saved there; nothing stays behind."""
    with _part(argument, path):
        pass


def load_facts(path: Any) -> Any:
    """What `save_arrays` was told along with the arrays."""
    return read(path).facts


def load_arrays(path: Any, like: Any) -> Any:
    """The pytree `like` with its array leaves from a file that `save_arrays` wrote.

    Raises `ValueError` for a file that is damaged or of something else, and listing every leaf that
    is missing, left over, or of another shape or dtype.
    """
    return read(path).into(like)


def read(path: Any) -> Saved:
    """All that a file holds. Raises `ValueError` if any byte of it was changed, or if it is not of
    this format.
    """
    from safetensors.numpy import load

    path = as_path("path", path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (
            f"`path` {str(path)!r} cannot be read: {error.strerror}; give a file that was saved"
        )
        raise OSError(error.errno, reason) from error
    if not _is_whole(data) or _header(data)["format"] != FORMAT:
        raise ValueError(f"`path` {str(path)!r} {_wrong_with(data)}")
    metadata, arrays = _header(data), load(data)
    dtypes = json.loads(metadata["dtypes"])
    arrays = {name: array.view(jnp.dtype(dtypes[name])) for name, array in arrays.items()}
    return Saved(path, arrays, json.loads(metadata["facts"]))


def digest(tree: Any) -> str:
    """A digest of the array leaves of a pytree: their places in it, shapes, dtypes and bits."""
    result = blake2b(digest_size=16)
    for name, leaf in _named(tree).items():
        result.update(f"{name} {leaf.dtype} {leaf.shape};".encode())
        result.update(np.ascontiguousarray(_storable(leaf)).data.cast("B") if leaf.size else b"")
    return result.hexdigest()


def as_path(argument: str, value: Any) -> Path:
    """A path from text or another path."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        checks.refuse(
            argument, "the path of a file, as text or as a pathlib.Path", value, "give such a path"
        )
    if "\0" in os.fspath(value):
        checks.refuse(
            argument, "the path of a file", value, "take out the null character", ValueError
        )
    return Path(value)


# whole or damaged


def _sealed(data: bytes) -> bytes:
    """A file with the digest of its bytes in place of the blank."""
    return SEAL.sub(b'"seal":"' + _seal(data) + b'"', data, count=1)


def _seal(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).hexdigest().encode()


def _is_whole(data: bytes) -> bool:
    found = SEAL.search(data)
    return (
        found is not None
        and _seal(data[: found.start(1)] + BLANK + data[found.end(1) :]) == found[1]
    )


def _wrong_with(data: bytes) -> str:
    """What is wrong with a file that is not whole, and what to do."""
    try:
        form = _header(data).get("format", "")
    except (ValueError, RecursionError):
        return "is not a whole file of darnax: it is damaged, or something else; give one it saved"
    if form != FORMAT and form.startswith("darnax "):
        return (
            f"has the format {form!r} of another version, and this one reads {FORMAT!r}; start "
            "anew with another path"
        )
    if form != FORMAT:
        return "is not a file of darnax; give one it saved"
    return (
        "is damaged: it is not as it was saved, some byte was changed; give another one, or start "
        "anew"
    )


def _header(data: bytes) -> dict[str, str]:
    """The metadata of a file of safetensors; `ValueError` if there are none."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size]) if 8 + size <= len(data) else None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("there are no metadata")
    return metadata


# writing


@contextlib.contextmanager
def _part(argument: str, path: Any) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside that which a path leads to, and the latter; what is left of the new one in
    the end is removed.

    Whatever fails on the way raises `OSError` that names the path.
    """
    path = as_path(argument, path)
    try:
        target = Path(os.path.realpath(path))
        mode = _mode(target)
        _remove_dead_parts(target)
        file = _new_part(target, mode)
        try:
            with file:
                yield file, target
        finally:
            Path(file.name).unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        message = (
            f"`{argument}` {str(path)!r} cannot be written: {reason}; what was there is as it was"
        )
        raise OSError(error.errno or errno.EIO, message) from error


def _mode(target: Path) -> int | None:
    """The mode of the file that is to be replaced; None where there is none yet."""
    if (
        target.is_symlink()
    ):  # all links were followed, but for those that lead nowhere but to themselves
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not target.exists():
        return None
    mode = target.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(
            errno.EISDIR, "it is a folder, and a path with the name of a file is needed"
        )
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no plain file")
    # root may write what nobody may write, but a file is marked so in order to keep it
    if not (mode & 0o222 and os.access(target, os.W_OK)):
        raise PermissionError(errno.EACCES, "the file is there and may not be written to")
    return stat.S_IMODE(mode)


def _new_part(target: Path, mode: int | None) -> BinaryIO:
    """A file of this writer alone, which holds a lock on it for as long as it is open."""

    def private(name: str, flags: int) -> int:
        # what others may not read must not be readable on the way either
        return os.open(name, flags, 0o666 if mode is None else 0o600)

    while True:
        file = open(f"{target}.{os.urandom(8).hex()}.part", "xb", opener=private)  # noqa: SIM115
        with contextlib.suppress(
            OSError
        ):  # where nothing can be locked, nobody removes parts either
            _lock(file, wait=True)
        # another writer may have taken it for a dead one in the moment before it was locked
        if os.path.exists(file.name):
            break
        file.close()
    if mode is not None and mode != stat.S_IMODE(os.fstat(file.fileno()).st_mode):
        os.chmod(file.name, mode)
    return file


def _remove_dead_parts(target: Path):
    """Remove the parts of writers that were killed: nobody holds a lock on them."""
    ours = re.compile(re.escape(target.name) + r"\.[0-9a-f]{16}\.part")
    for name in os.listdir(target.parent):
        if ours.fullmatch(name):
            with contextlib.suppress(OSError), open(target.with_name(name), "rb") as file:
                _lock(file, wait=False)
                os.unlink(file.name)


def _lock(file: BinaryIO, wait: bool):
    """Lock a file against other writers; `OSError` if one of them has it, or if nothing can be
    locked there.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _json(facts: Any) -> str:
    try:
        return json.dumps(facts)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"`facts` are what JSON can say, but {error}; give text, numbers, lists and dicts"
        ) from error


# pytrees


def _named(tree: Any) -> dict[str, Any]:
    """The array leaves by their place in the tree."""
    arrays = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {jax.tree_util.keystr(path): plain(leaf) for path, leaf in arrays}


def plain(leaf: Any) -> np.ndarray:
    """A leaf in NumPy; keys as the numbers they are made of."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _like(fresh: Any, leaf: Any) -> Any:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(fresh, impl=jax.random.key_impl(leaf)) if is_key else fresh


def _storable(array: np.ndarray) -> np.ndarray:
    """The same bits in a dtype that NumPy has a name for; bfloat16 has none."""
    return array if array.dtype.kind in "biufc" else array.view(f"u{array.dtype.itemsize}")
