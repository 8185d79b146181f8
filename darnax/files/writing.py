"""Writing a file without losing what was there.

A part, a file with a name of its own beside the path, is written first and then replaces the file
at the path in one step. Readers see the old file or the new one, an interrupted save leaves the old
one as it was, and two writers never mix. A writer holds a lock on its part for as long as it lives.
A part without a lock was left behind by a writer that was killed, and the next writer removes it.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from darnax import checks

try:
    import fcntl
except ImportError:
    # Windows, where a file that is open cannot be deleted: that is lock enough.
    fcntl = None

FilePath: TypeAlias = str | os.PathLike[str]
"""The path of a file, as text or as a `pathlib.Path`."""


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


def check_writable(argument: str, path: object):
    """Raise `OSError` that names the path if a file cannot be saved there; leave nothing behind."""
    # A part is opened and removed, as by a save that fails: this tests links, modes and rights.
    with part(argument, as_path(argument, path)):
        pass


@contextlib.contextmanager
def part(argument: str, path: Path) -> Generator[tuple[BinaryIO, Path], None, None]:
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


def replace(file: BinaryIO, target: Path):
    """Put an open part, written to its end, in the place of its target."""
    file.flush()
    # The bytes must be on the disk before the path leads to them.
    os.fsync(file.fileno())
    # Windows does not rename an open file.
    if os.name == "nt":
        file.close()
    os.replace(file.name, target)


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
