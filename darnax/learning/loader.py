"""Images and labels from files of one's own. Nothing is downloaded."""

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from darnax import checks
from darnax.files.writing import FilePath, as_path

# codes of the format; ">" because numbers of several bytes have the highest one first
IDX_DTYPES = {
    0x08: "u1",
    0x09: "i1",
    0x0B: ">i2",
    0x0C: ">i4",
    0x0D: ">f4",
    0x0E: ">f8",
}
PARTS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class Images(NamedTuple):
    """Images and class indices for training and for test, as they are in the files."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@checks.by_hand
def load_idx(folder: FilePath) -> Images:
    """Images and labels of MNIST and its like, from the four files of its format.

    **Arguments:**

    - `folder`: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`,
      plain or with `.gz`.

    Raises `FileNotFoundError` naming what is missing, and `ValueError` for a file that is not of
    this format. Source of the format: Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database
    of handwritten digits.
    """
    folder = as_path("folder", folder)
    paths: list[Path] = []
    missing: list[str] = []
    for part in PARTS:
        # the plain one first: it need not be unpacked
        found = [path for path in (folder / part, folder / f"{part}.gz") if path.exists()]
        if found:
            paths.append(found[0])
        else:
            missing.append(part)
    if missing:
        raise FileNotFoundError(
            f"`folder` {str(folder)!r} lacks {', '.join(missing)}, plain or with .gz; put the "
            "files there, nothing is downloaded"
        )
    return _paired("folder", folder, Images(*map(read_idx, paths)))


@checks.by_hand
def load_npz(path: FilePath) -> Images:
    """Images and labels from one `.npz` with arrays `x_train`, `y_train`, `x_test` and `y_test`.

    Raises `FileNotFoundError` or `ValueError` saying what is missing.
    """
    path = as_path("path", path)
    if not path.exists():
        raise FileNotFoundError(
            f"`path` {str(path)!r} is not there; put the file there, nothing is downloaded"
        )
    # arrays are read when they are asked for: a damaged file may show only then
    try:
        arrays = _arrays(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"`path` {str(path)!r} is not an .npz of plain arrays: {error}; save one with "
            "numpy.savez"
        ) from error
    missing = [name for name in Images._fields if name not in arrays]
    if missing:
        raise ValueError(
            f"`path` {str(path)!r} lacks the arrays {', '.join(missing)}; save it with these names"
        )
    return _paired("path", path, Images(**arrays))


def read_idx(path: object) -> np.ndarray:
    """The array in one IDX file, plain or with `.gz`.

    Raises `ValueError` for a file that is cut short or something else.
    """
    path = as_path("path", path)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as an IDX file: {error}; get a whole file"
        ) from error
    # head of the file: two zeros, a code for the dtype, the number of axes, the length of each axis
    axes = data[3] if len(data) > 3 else 0
    start = 4 + 4 * axes
    if len(data) < start or data[:2] != b"\x00\x00" or data[2] not in IDX_DTYPES:
        raise ValueError(f"{str(path)!r} is not an IDX file; give one as MNIST has them")
    # numbers of Python, whose product has no limit: a damaged head may hold any lengths
    shape = tuple(np.frombuffer(data, ">u4", axes, 4).tolist())
    dtype = np.dtype(IDX_DTYPES[data[2]])
    size = len(data) - start
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{str(path)!r} says that it holds {shape} of {dtype.name}, but has {size} bytes of "
            "them; get a whole file"
        )
    values = np.frombuffer(data, dtype, offset=start).reshape(shape)
    # JAX takes the byte order of the machine alone. The copy may be written to, unlike the bytes
    return values.astype(dtype.newbyteorder("="))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` that are fields of `Images`."""
    # a pickle would run whatever its writer wanted
    file = np.load(path, allow_pickle=False)
    # an .npy gives an array, and no archive of them
    if isinstance(file, np.ndarray):
        raise ValueError("it holds one array without a name")
    with file:
        return {name: file[name] for name in Images._fields if name in file}


def _paired(argument: str, path: Path, images: Images) -> Images:
    """The same images; `ValueError` if they do not have one label each."""
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        if x.shape[:1] != y.shape[:1] or not x.ndim:
            raise ValueError(
                f"`{argument}` {str(path)!r} holds one label an image, but there are images "
                f"{x.shape} with labels {y.shape}; put files together that belong together"
            )
    return images
