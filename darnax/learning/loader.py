"""Images and labels from files of one's own. Nothing is downloaded."""

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from darnax.files import as_path

IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
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


def load_idx(folder: Any) -> Images:
    """MNIST and its like from the four files of its format, plain or with `.gz`.

    **Arguments:**

    - `folder`: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`.

    Raises `FileNotFoundError` naming what is missing, and `ValueError` for a file that is not of
    this format. Source of the format: Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database
    of handwritten digits.
    """
    folder = as_path("folder", folder)
    paths = [_either(folder / part) for part in PARTS]
    missing = [part for part, path in zip(PARTS, paths, strict=True) if path is None]
    if missing:
        raise FileNotFoundError(
            f"`folder` {str(folder)!r} lacks {', '.join(missing)}, plain or with .gz; put the "
            "files there, nothing is downloaded"
        )
    return _paired("folder", folder, Images(*(read_idx(path) for path in paths)))


def load_npz(path: Any) -> Images:
    """Images and labels from one `.npz` with arrays `x_train`, `y_train`, `x_test` and `y_test`.

    Raises `FileNotFoundError` or `ValueError` saying what is missing.
    """
    path = as_path("path", path)
    if not path.exists():
        raise FileNotFoundError(
            f"`path` {str(path)!r} is not there; put the file there, nothing is downloaded"
        )
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


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` that have the names of ours."""
    file = np.load(path, allow_pickle=False)
    if isinstance(file, np.ndarray):
        raise ValueError("it holds one array without a name")
    with file:
        return {name: file[name] for name in Images._fields if name in file}


def _paired(argument: str, path: Path, images: Images) -> Images:
    """Images that have one label each."""
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        if x.shape[:1] != y.shape[:1] or not x.ndim:
            raise ValueError(
                f"`{argument}` {str(path)!r} holds one label an image, but there are images "
                f"{x.shape} with labels {y.shape}; put files together that belong together"
            )
    return images


def read_idx(path: Any) -> np.ndarray:
    """The array in one IDX file, plain or with `.gz`; `ValueError` if it is cut short or something
    else.
    """
    path = as_path("path", path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as an IDX file: {error}; get a whole file"
        ) from error
    axes = data[3] if len(data) > 3 else 0
    if len(data) < 4 + 4 * axes or data[:2] != b"\x00\x00" or data[2] not in IDX_DTYPES:
        raise ValueError(f"{str(path)!r} is not an IDX file; give one as MNIST has them")
    shape = np.frombuffer(data, ">u4", axes, 4).astype(int)
    dtype = np.dtype(IDX_DTYPES[data[2]])
    body = data[4 + 4 * axes :]
    if len(body) != math.prod(shape.tolist()) * dtype.itemsize:
        raise ValueError(
            f"{str(path)!r} says that it holds {tuple(shape.tolist())} of {dtype.name}, but has "
            f"{len(body)} bytes of them; get a whole file"
        )
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _either(path: Path) -> Path | None:
    """The file, or the same with `.gz`."""
    return next(
        (found for found in (path, path.with_name(path.name + ".gz")) if found.exists()), None
    )
