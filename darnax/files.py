"""Array leaves of a pytree in one file, and back. No code in a file is ever run.

**Format.** A file of safetensors, so that other programs can read its arrays. Its metadata hold the
facts that were saved along with the arrays, and a seal, the digest of every other byte:

    size | {"__metadata__": {format, seal, dtypes, facts}, name: place, ...} | arrays
                                     └── digest of the whole file with 64 zeros in this place

Any change of any byte is noticed, whether a disk or a hand has made it.

**Writing.** A part, a file with a name of its own beside the path, is written first and then
replaces the file at the path in one step. Readers see the old file or the new one, an interrupted
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
from collections.abc import Generator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias, TypeGuard, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyEntry
from jax.typing import ArrayLike

from darnax import _text, checks

try:
    import fcntl
except ImportError:
    # Windows, where a file that is open cannot be deleted: that is lock enough.
    fcntl = None

Tree = TypeVar("Tree")
"""Any pytree."""

FilePath: TypeAlias = str | os.PathLike[str]
"""The path of a file, as text or as a `pathlib.Path`."""

FORMAT = "darnax 2"
"""The format that is written, and the only one that is read."""

# Facts are JSON inside of JSON, with escaped quotes: neither they nor names can hold this text.
SEAL = re.compile(rb'"seal":"([0-9a-f]{64})"')
BLANK = b"0" * 64
"""The seal while it is computed: 64 zeros."""


class Saved(NamedTuple):
    """The contents of a file: arrays by their path in the tree, and facts."""

    path: Path
    arrays: dict[str, np.ndarray]
    facts: Any

    def into(self, like: Tree) -> Tree:
        """The pytree `like` with its array leaves from the file; see `load_arrays`."""
        self._check(_named(like))

        def restored(path: tuple[KeyEntry, ...], leaf: object) -> object:
            if not eqx.is_array(leaf):
                return leaf
            fresh = jnp.asarray(self.arrays[jax.tree_util.keystr(path)])
            # Keys were saved as numbers: the implementation that they belong to is that of `like`.
            if _is_key(leaf):
                return jax.random.wrap_key_data(fresh, impl=jax.random.key_impl(leaf))
            return fresh

        return jax.tree_util.tree_map_with_path(restored, like)

    def _check(self, wanted: Mapping[str, np.ndarray]):
        """Refuse a tree with other arrays; the error lists all differences."""
        wrong = [f"{name} is missing" for name in wanted if name not in self.arrays]
        wrong += [f"{name} is left over" for name in self.arrays if name not in wanted]
        for name, here in wanted.items():
            # A missing array is in the list already, and equals itself here.
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
def save_arrays(path: FilePath, tree: object, facts: object = None):
    """Save the array leaves of a pytree, and facts about them, in one file.

    A file that is replaced keeps its mode, and a symbolic link stays one. Parts that killed writers
    left behind are removed.

    **Arguments:**

    - `path`: of the file, in a folder that exists.
    - `tree`: any pytree; only its array leaves are saved.
    - `facts`: any value that JSON can express.

    Raises `OSError` that names the path if it cannot be written; an old file is then as it was.
    Raises `TypeError` for facts that JSON cannot express.

    !!! example

        ```python
        path = tempfile.mkdtemp() + "/network.safetensors"
        dx.files.save_arrays(path, network)
        network = dx.files.load_arrays(path, like=network)
        ```
    """
    from safetensors.numpy import save

    path = as_path("path", path)
    arrays = _named(tree)
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
    # In C order, because safetensors writes memory as it lies.
    bits = {name: _bits(array).copy("C") for name, array in arrays.items()}
    # Zeros and seal have the same length, so that all other bytes stay in their places.
    blank = save(bits, metadata)
    data = SEAL.sub(b'"seal":"' + _seal(blank) + b'"', blank, count=1)
    with _part("path", path) as (file, target):
        file.write(data)
        file.flush()
        # The bytes must be on the disk before the path leads to them.
        os.fsync(file.fileno())
        # Windows does not rename an open file.
        if os.name == "nt":
            file.close()
        os.replace(file.name, target)


@checks.by_hand
def load_arrays(path: FilePath, like: Tree) -> Tree:
    """The pytree `like` with its array leaves from a file that `save_arrays` wrote.

    Raises `OSError` for a file that cannot be read, and `ValueError` for one that is damaged or no
    file of darnax. Another `ValueError` lists all leaves that are missing, left over, or of another
    shape or dtype.
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
    # Arrays are read only if the seal is right.
    damage = _damage(data)
    if damage is not None:
        raise ValueError(f"`path` {str(path)!r} {damage}")
    metadata = _metadata(data)
    dtypes = json.loads(metadata["dtypes"])
    arrays: dict[str, np.ndarray] = {}
    for name, bits in load(data).items():
        arrays[name] = bits.view(jnp.dtype(dtypes[name]))
    return Saved(path, arrays, json.loads(metadata["facts"]))


def check_writable(argument: str, path: object):
    """Raise `OSError` that names the path if a file cannot be saved there; leave nothing behind."""
    # A part is opened and removed, as by a save that fails: this tests links, modes and rights.
    with _part(argument, as_path(argument, path)):
        pass


def digest(tree: object) -> str:
    """A digest of the array leaves of a pytree: their paths in it, dtypes, shapes and bits."""
    result = blake2b(digest_size=16)
    for name, array in _named(tree).items():
        result.update(f"{name} {array.dtype} {array.shape};".encode())
        result.update(np.ravel(_bits(array)).data)
    return result.hexdigest()


def as_path(argument: str, value: object) -> Path:
    """The path as a `Path` of `pathlib`; `TypeError` or `ValueError` for anything else."""
    # `os.fspath` may give bytes, which `pathlib` does not take.
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        holds = "the path of a file, as text or as a pathlib.Path"
        checks.refuse(argument, holds, value, "give such a path")
    # Python refuses it as well, but with an error that does not name the argument.
    if "\0" in os.fspath(value):
        checks.refuse(
            argument, "the path of a file", value, "take out the null character", ValueError
        )
    return Path(value)


# reading


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a file of safetensors; an error of many types if there are none."""
    # Eight bytes give the size of the header, which is JSON.
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size])["__metadata__"]


def _damage(data: bytes) -> str | None:
    """The reason why a file cannot be read, with advice; None for a file as it was saved."""
    # Files of others and of other versions come first: they are sound, but have no seal of ours.
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
    """The seal of a file that has zeros in the place of one."""
    return blake2b(blank, digest_size=32).hexdigest().encode()


# writing


@contextlib.contextmanager
def _part(argument: str, path: Path) -> Generator[tuple[BinaryIO, Path], None, None]:
    """An open part, and the target that it may replace; a part that was not used is removed.

    The target is where the symbolic links of the path lead. Any failure on the way raises `OSError`
    that names the path.
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
            # After a save it has another name, and there is nothing to remove.
            Path(file.name).unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno or errno.EIO,
            f"`{argument}` {str(path)!r} cannot be written: {reason}; what was there is as it was",
        ) from error


def _mode(target: Path) -> int | None:
    """The mode of the file to replace, None if there is no file; refuses all but plain files."""
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
    # Replacing needs no right to write to the file itself, and root has every right. But who marks
    # a file as read-only wants to keep it.
    if not mode & 0o222 or not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is there and may not be written to")
    return stat.S_IMODE(mode)


def _new_part(target: Path, mode: int | None) -> BinaryIO:
    """A new part with the mode of the file that it replaces, open and locked."""

    def private(name: str, flags: int) -> int:
        # A part is never readable to more people than the file that it replaces.
        return os.open(name, flags, 0o666 if mode is None else 0o600)

    while True:
        name = f"{target}.{os.urandom(8).hex()}.part"
        file = open(name, "xb", opener=private)  # noqa: SIM115
        # On a disk without locks this fails, but then nobody can lock and remove a part either.
        with contextlib.suppress(OSError):
            _lock(file, wait=True)
        # Before it was locked another writer may have taken the part for a dead one.
        if os.path.exists(name):
            break
        file.close()
    now = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    # Only where modes differ: some disks refuse every change of a mode.
    if mode is not None and mode != now:
        os.chmod(name, mode)
    return file


def _remove_dead_parts(target: Path):
    """Remove the parts of writers that were killed: nobody holds a lock on them."""
    part = re.compile(re.escape(target.name) + r"\.[0-9a-f]{16}\.part")
    for name in os.listdir(target.parent):
        if not part.fullmatch(name):
            continue
        # An error means that the part is locked, or removed by another writer: it is let alone.
        with contextlib.suppress(OSError), open(target.with_name(name), "rb") as file:
            _lock(file, wait=False)
            os.unlink(file.name)


def _lock(file: BinaryIO, wait: bool):
    """Lock a file; `OSError` if another writer holds it, or if nothing can be locked there."""
    if fcntl is not None:
        # The system drops the lock when the process ends, however it ends.
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


# pytrees


def _named(tree: object) -> dict[str, np.ndarray]:
    """The array leaves by their path in the tree."""
    arrays = eqx.filter(tree, eqx.is_array)
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return {jax.tree_util.keystr(path): plain(leaf) for path, leaf in leaves}


def plain(leaf: ArrayLike) -> np.ndarray:
    """A leaf as an array of NumPy; keys as the numbers that they are made of."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _is_key(leaf: object) -> TypeGuard[jax.Array]:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _bits(array: np.ndarray) -> np.ndarray:
    """The same bits in a dtype that safetensors can write from NumPy: bfloat16 becomes uint16."""
    if array.dtype.kind in "biufc":
        return array
    return array.view(f"u{array.dtype.itemsize}")
