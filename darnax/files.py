"""Array leaves of a pytree in one file, and back. Nothing that a file holds is ever run.

**What a file is.** A file of safetensors, so that other programs read its arrays. Its metadata hold
the facts that were saved along with the arrays, and a seal, the digest of every other byte:

    size | {"__metadata__": {format, seal, dtypes, facts}, name: place, ...} | arrays
                                     └── digest of the whole file with 64 zeros in this place

No change goes unnoticed, wherever in the file a disk or a hand has made it.

**How it is written.** A part, a file with a name of its own beside the path, is written first and
then takes the place of the path at once. Readers see the old file or the new one, an interrupted
save leaves the old one as it was, and two writers never mix. A writer holds a lock on its part for
as long as it lives. A part without a lock was left behind by a writer that was killed, and the next
writer removes it.
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
from typing import Any, BinaryIO, NamedTuple, TypeAlias, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from darnax import _text, checks

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted: that is lock enough
    fcntl = None

FilePath: TypeAlias = str | os.PathLike[str]
"""The path of a file, as text or as a `pathlib.Path`."""

FORMAT = "darnax 2"
# JSON inside of JSON has its quotes escaped: neither facts nor names can hold this text
SEAL = re.compile(rb'"seal":"([0-9a-f]{64})"')
BLANK = b"0" * 64


class Saved(NamedTuple):
    """The contents of a file: arrays by their place in the tree, and facts."""

    path: Path
    arrays: dict[str, np.ndarray]
    facts: Any

    def into(self, like: PyTree) -> PyTree:
        """The pytree `like` with its array leaves from the file; see `load_arrays`."""
        self._check(_named(like))

        def restored(path: tuple, leaf: object) -> object:
            if not eqx.is_array(leaf):
                return leaf
            fresh = jnp.asarray(self.arrays[jax.tree_util.keystr(path)])
            if _is_key(leaf):
                return jax.random.wrap_key_data(fresh, impl=jax.random.key_impl(leaf))
            return fresh

        return jax.tree_util.tree_map_with_path(restored, like)

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
            raise ValueError(
                f"`path` {str(self.path)!r} does not fit: {_text.listing(wrong)}; load it into "
                "what was saved"
            )


@checks.by_hand
def save_arrays(path: FilePath, tree: PyTree, facts: object = None):
    """Save the array leaves of a pytree, and facts about them, in one file.

    A file that is there keeps its mode, and a symbolic link stays one. Parts that killed writers
    left behind are removed.

    **Arguments:**

    - `path`: of the file, in a folder that is there.
    - `tree`: any pytree; its leaves that are no arrays are not saved.
    - `facts`: whatever JSON can say.

    Raises `OSError` that names the path if it cannot be written; what was there before is then as
    it was. Raises `TypeError` for facts that JSON cannot say.

    !!! example

        ```python
        path = tempfile.mkdtemp() + "/network.safetensors"
        dx.files.save_arrays(path, network)
        network = dx.files.load_arrays(path, like=network)
        ```
    """
    from safetensors.numpy import save

    path, arrays = as_path("path", path), _named(tree)
    try:
        written = json.dumps(facts)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"`facts` are what JSON can say, but {error}; give text, numbers, lists and dicts"
        ) from error
    dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    metadata = {
        "format": FORMAT,
        "seal": BLANK.decode(),
        "dtypes": json.dumps(dtypes),
        "facts": written,
    }
    # copies in C order: safetensors writes memory as it lies
    bits = {name: _bits(array).copy("C") for name, array in arrays.items()}
    blank = save(bits, metadata)
    data = SEAL.sub(b'"seal":"' + _seal(blank) + b'"', blank, count=1)
    with _part("path", path) as (file, target):
        file.write(data)
        file.flush()
        # the bytes must be on the disk before the path leads to them
        os.fsync(file.fileno())
        if os.name == "nt":  # an open file cannot be renamed there
            file.close()
        os.replace(file.name, target)


@checks.by_hand
def load_arrays(path: FilePath, like: PyTree) -> PyTree:
    """The pytree `like` with its array leaves from a file that `save_arrays` wrote.

    Raises `OSError` for a file that cannot be read, and `ValueError` for one that is damaged or no
    file of darnax. Leaves that are missing, left over, or of another shape or dtype are listed by
    a `ValueError`.
    """
    return read(path).into(like)


@checks.by_hand
def load_facts(path: FilePath) -> Any:
    """The facts in a file that `save_arrays` wrote; errors as for `load_arrays`."""
    return read(path).facts


def read(path: object) -> Saved:
    """The contents of a file; errors as for `load_arrays`."""
    from safetensors.numpy import load

    path = as_path("path", path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror
        raise OSError(
            error.errno,
            f"`path` {str(path)!r} cannot be read: {reason}; give a file that was saved",
        ) from error
    damage = _damage(data)
    if damage is not None:
        raise ValueError(f"`path` {str(path)!r} {damage}")
    metadata = _metadata(data)
    dtypes = json.loads(metadata["dtypes"])
    arrays = {}
    for name, bits in load(data).items():
        arrays[name] = bits.view(jnp.dtype(dtypes[name]))
    return Saved(path, arrays, json.loads(metadata["facts"]))


def check_writable(argument: str, path: object):
    """Raise `OSError` that names the path if a file cannot be saved there; nothing stays behind."""
    with _part(argument, as_path(argument, path)):
        pass


def digest(tree: PyTree) -> str:
    """A digest of the array leaves of a pytree: their places in it, shapes, dtypes and bits."""
    result = blake2b(digest_size=16)
    for name, array in _named(tree).items():
        result.update(f"{name} {array.dtype} {array.shape};".encode())
        result.update(np.ravel(_bits(array)).data)
    return result.hexdigest()


def as_path(argument: str, value: object) -> Path:
    """The path as `pathlib` has it; `TypeError` or `ValueError` for what is no path of a file."""
    # the paths of some systems are bytes
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        holds = "the path of a file, as text or as a pathlib.Path"
        checks.refuse(argument, holds, value, "give such a path")
    if "\0" in os.fspath(value):
        checks.refuse(
            argument, "the path of a file", value, "take out the null character", ValueError
        )
    return Path(value)


# reading


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a file of safetensors; some error if there are none."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size])["__metadata__"]


def _damage(data: bytes) -> str | None:
    """The reason why a file cannot be read, and what to do; None for a file as it was saved."""
    try:
        form = str(_metadata(data).get("format"))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return "is not a whole file of darnax: it is damaged, or something else; give one it saved"
    if form != FORMAT and form.startswith("darnax "):
        return (
            f"has the format {form!r} of another version, and this one reads {FORMAT!r}; start "
            "anew with another path"
        )
    if form != FORMAT:
        return "is not a file of darnax; give one it saved"
    found = SEAL.search(data)
    if found:
        blank = data[: found.start(1)] + BLANK + data[found.end(1) :]
        if _seal(blank) == found[1]:
            return None
    return (
        "is damaged: it is not as it was saved, some byte was changed; give another one, or start "
        "anew"
    )


def _seal(blank: bytes) -> bytes:
    """The seal of a file that has zeros in its place."""
    return blake2b(blank, digest_size=32).hexdigest().encode()


# writing


@contextlib.contextmanager
def _part(argument: str, path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """An open part, and the target whose place it may take; a part that is left is removed.

    The target is where the symbolic links of the path lead. Whatever fails on the way raises
    `OSError` that names the path.
    """
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
        raise OSError(
            error.errno or errno.EIO,
            f"`{argument}` {str(path)!r} cannot be written: {reason}; what was there is as it was",
        ) from error


def _mode(target: Path) -> int | None:
    """The mode of the file that is to be replaced; None where there is none yet."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(
            errno.EISDIR, "it is a folder, and a path with the name of a file is needed"
        )
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no plain file")
    # root may write what nobody may write, but a file is marked so in order to keep it
    if not mode & 0o222 or not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is there and may not be written to")
    return stat.S_IMODE(mode)


def _new_part(target: Path, mode: int | None) -> BinaryIO:
    """A new part with the mode of the file that it replaces, open and locked."""

    def private(name: str, flags: int) -> int:
        # what others may not read must not be readable on the way either
        return os.open(name, flags, 0o666 if mode is None else 0o600)

    while True:
        file = open(f"{target}.{os.urandom(8).hex()}.part", "xb", opener=private)  # noqa: SIM115
        # where nothing can be locked, nobody removes parts either
        with contextlib.suppress(OSError):
            _lock(file, wait=True)
        # another writer may have taken it for a dead one in the moment before it was locked
        if os.path.exists(file.name):
            break
        file.close()
    now = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    # only where it is another: some disks refuse every change of a mode
    if mode is not None and mode != now:
        os.chmod(file.name, mode)
    return file


def _remove_dead_parts(target: Path):
    """Remove the parts of writers that were killed: nobody holds a lock on them."""
    part = re.compile(re.escape(target.name) + r"\.[0-9a-f]{16}\.part")
    for name in os.listdir(target.parent):
        if part.fullmatch(name):
            with contextlib.suppress(OSError), open(target.with_name(name), "rb") as file:
                _lock(file, wait=False)
                os.unlink(file.name)


def _lock(file: BinaryIO, wait: bool):
    """Lock a file; `OSError` if another writer holds it, or if nothing can be locked there."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


# pytrees


def _named(tree: PyTree) -> dict[str, np.ndarray]:
    """The array leaves by their place in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {jax.tree_util.keystr(path): plain(leaf) for path, leaf in leaves}


def plain(leaf: ArrayLike) -> np.ndarray:
    """A leaf in NumPy; keys as the numbers they are made of."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _is_key(leaf: object) -> TypeGuard[jax.Array]:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _bits(array: np.ndarray) -> np.ndarray:
    """The same bits in a dtype that safetensors has a name for; bfloat16 has none in NumPy."""
    if array.dtype.kind in "biufc":
        return array
    return array.view(f"u{array.dtype.itemsize}")
