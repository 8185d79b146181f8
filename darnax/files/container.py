"""The container: named arrays and text in one file, every byte of it under a digest.

**Format.** A file of safetensors, so that other programs can read its arrays. Its metadata are the
texts, and a seal, the digest of every other byte:

    size | {"__metadata__": {format, seal, ...}, name: {dtype, shape, data_offsets}, ...} | arrays
                                     └── digest of the whole file with 64 zeros in this place

Any change of any byte is noticed, whether a disk or a hand has made it. A seal is no signature:
who changes a file by intent can seal it anew. So nothing in a file is trusted. Its header is
checked before any memory is taken for what it promises, no code in it is run, and an array is read
only when it is known to be of the shape that is wanted.
"""

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Generator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from darnax.files.writing import as_path, part, replace

FORMAT = "darnax 3"
"""The format that is written, and the only one that is read."""

# Texts are JSON inside of JSON, with escaped quotes: neither they nor names can hold this.
SEAL = re.compile(rb'"seal":"([0-9a-f]{64})"')
BLANK = b"0" * 64
"""The seal while it is computed: 64 zeros."""

LONGEST_HEADER = 100_000_000
"""The longest header in bytes that readers of safetensors take."""

CHUNK = 2**20
"""The bytes that are read at once while the seal is checked."""

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
}
"""The types of numbers that are written, by their names in safetensors."""

MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    StopIteration,
    OverflowError,
    RecursionError,
)
"""The errors of data whose parts are of other types, sizes or depths than was written."""


class Entry(NamedTuple):
    """One array of a file: its type and shape, and its bytes from the start of all arrays."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class Container:
    """An open file that is as it was saved.

    **Fields:**

    - `path`: for errors.
    - `texts`: the texts by name.
    - `entries`: the arrays by name, none of which was read.
    """

    def __init__(self, path: Path, file: BinaryIO, header: bytes, size: int):
        data = json.loads(header)
        self.path = path
        self.texts: dict[str, str] = data.pop("__metadata__")
        self.entries = _entries(data, size - 8 - len(header))
        self._file = file
        self._start = 8 + len(header)

    def array(self, name: str) -> np.ndarray:
        """An array, read now; `KeyError` if there is none of this name."""
        entry = self.entries[name]
        self._file.seek(self._start + entry.start)
        data = self._file.read(entry.stop - entry.start)
        return np.frombuffer(data, entry.dtype).reshape(entry.shape)

    def malformed(self, error: Exception) -> ValueError:
        """The error for a file that is whole and sealed, but says what no save has said."""
        return ValueError(
            f"`path` {str(self.path)!r} has a right seal, but no save of darnax wrote it: {error!r}"
            "; give one that it saved"
        )


def write(path: object, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]):
    """Write arrays, in types of `DTYPES`, and texts to a file; `OSError` names the path."""
    from safetensors import SafetensorError
    from safetensors.numpy import save

    # Zeros and seal have the same length, so that all other bytes stay in their places.
    metadata = {"format": FORMAT, "seal": BLANK.decode(), **texts}
    try:
        blank = memoryview(save(dict(arrays), metadata))
    except SafetensorError as error:
        # facts and topologies stand in the header, which the format limits
        advice = "save facts and topologies of less text"
        words = f"`path` {str(as_path('path', path))!r} cannot be written: {error}; {advice}"
        raise OSError(errno.EFBIG, words) from None
    header = blank[: 8 + _length(blank[:8])]
    found = SEAL.search(header)
    assert found is not None
    seal = blake2b(blank, digest_size=32).hexdigest().encode()
    with part("path", as_path("path", path)) as (file, target):
        # in pieces, for a copy of all arrays may not fit into the memory
        file.write(blank[: found.start(1)])
        file.write(seal)
        file.write(blank[found.end(1) :])
        replace(file, target)


@contextlib.contextmanager
def opened(path: object) -> Generator[Container, None, None]:
    """A file to read from; `OSError` and `ValueError` for one that cannot be, with advice."""
    path = as_path("path", path)
    try:
        # what is neither a file nor a folder may let a reader wait for ever
        if not (path.is_file() or path.is_dir()) and path.exists():
            raise OSError(errno.EINVAL, "it is no plain file")
        file = path.open("rb")
    except OSError as error:
        reason = error.strerror
        raise OSError(
            error.errno,
            f"`path` {str(path)!r} cannot be read: {reason}; give a file that was saved",
        ) from error
    with file:
        size = file.seek(0, os.SEEK_END)
        header = _header(file, size)
        damage = _damage(file, header)
        if damage is not None:
            raise ValueError(f"`path` {str(path)!r} {damage}")
        try:
            container = Container(path, file, header, size)
        except MALFORMED as error:
            raise ValueError(
                f"`path` {str(path)!r} has a right seal, but its header promises other arrays than "
                f"there are: {error}; give a file that darnax saved"
            ) from None
        yield container


def _length(size: bytes | memoryview) -> int:
    """The length of the header, which the first eight bytes give."""
    return int.from_bytes(size, "little")


def _header(file: BinaryIO, size: int) -> bytes:
    """The header of a file; no bytes if it cannot have one."""
    file.seek(0)
    length = _length(file.read(8))
    # a length is only a promise, and memory is taken for what is there
    if length > min(size - 8, LONGEST_HEADER):
        return b""
    return file.read(length)


def _damage(file: BinaryIO, header: bytes) -> str | None:
    """The reason why a file cannot be read, with advice; None for a file as it was saved."""
    # Files of others and of other versions come first: they are sound, but have no seal of ours.
    try:
        form = str(json.loads(header)["__metadata__"].get("format"))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return "is not a whole file of darnax: it is damaged, or something else; give one it saved"
    if form != FORMAT and form.startswith("darnax "):
        return (
            f"has the format {form!r} of another version, and this one reads {FORMAT!r}; start "
            "anew with another path"
        )
    if form != FORMAT:
        return "is not a file of darnax; give one it saved"
    found = SEAL.search(header)
    if found and _seal(file, header, found) == found[1]:
        return None
    return (
        "is damaged: it is not as it was saved, some byte was changed; give another one, or start "
        "anew"
    )


def _seal(file: BinaryIO, header: bytes, found: re.Match[bytes]) -> bytes:
    """The seal that a file should have, from a look at all bytes, few at a time."""
    result = blake2b(digest_size=32)
    file.seek(0)
    result.update(file.read(8))
    result.update(header[: found.start(1)] + BLANK + header[found.end(1) :])
    file.seek(8 + len(header))
    while chunk := file.read(CHUNK):
        result.update(chunk)
    return result.hexdigest().encode()


def _entries(data: Mapping[str, Any], size: int) -> dict[str, Entry]:
    """The arrays that a header promises; `ValueError` unless they are all bytes of the file."""
    entries: dict[str, Entry] = {}
    for name, said in data.items():
        start, stop = said["data_offsets"]
        shape = tuple(said["shape"])
        entries[name] = Entry(np.dtype(DTYPES[said["dtype"]]), shape, start, stop)
    end = 0
    # one behind the other: bytes that several arrays had in common would be read once for each
    for name, (dtype, shape, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        sizes = [*shape, start, stop]
        if not all(type(number) is int and number >= 0 for number in sizes):
            raise ValueError(f"{name} has a shape or a place that is none")
        if start != end or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} does not lie where its shape says")
        end = stop
    if end != size:
        raise ValueError("the arrays are not as long as the file")
    return entries
