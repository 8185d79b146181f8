"""Files of images, made here and read back."""

import gzip

import numpy as np
import pytest

from darnax.learning import load_idx, load_npz
from darnax.learning.loader import PARTS, read_idx

RNG = np.random.default_rng(0)
ARRAYS = [
    RNG.integers(0, 256, (6, 4, 5), np.uint8),
    RNG.integers(0, 10, 6, np.uint8),
    RNG.integers(0, 256, (3, 4, 5), np.uint8),
    RNG.integers(0, 10, 3, np.uint8),
]
CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def idx(array):
    """The bytes of an IDX file."""
    head = bytes([0, 0, CODES[array.dtype.name], array.ndim])
    return (
        head
        + np.asarray(array.shape, ">u4").tobytes()
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_give_their_arrays(tmp_path, zipped):
    for part, array in zip(PARTS, ARRAYS, strict=True):
        (tmp_path / (part + ".gz" * zipped)).write_bytes(
            gzip.compress(idx(array)) if zipped else idx(array)
        )
    images = load_idx(tmp_path)
    assert images._fields == ("x_train", "y_train", "x_test", "y_test")
    for ours, array in zip(images, ARRAYS, strict=True):
        assert ours.dtype == array.dtype
        np.testing.assert_array_equal(ours, array)


@pytest.mark.parametrize("dtype", CODES)
def test_every_dtype_of_the_format(tmp_path, dtype):
    array = np.arange(-3, 9).reshape(2, 6).astype(dtype)
    (tmp_path / "file").write_bytes(idx(array))
    ours = read_idx(tmp_path / "file")
    assert ours.dtype == array.dtype
    np.testing.assert_array_equal(ours, array)


def test_npz_gives_its_arrays(tmp_path):
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "data.npz", **dict(zip(names, ARRAYS, strict=True)))
    for ours, array in zip(load_npz(tmp_path / "data.npz"), ARRAYS, strict=True):
        np.testing.assert_array_equal(ours, array)


def test_what_is_missing_or_broken_is_named(tmp_path):
    (tmp_path / PARTS[0]).write_bytes(idx(ARRAYS[0]))
    with pytest.raises(
        FileNotFoundError,
        match=r"lacks train-labels-idx1-ubyte, t10k-images.*nothing is downloaded",
    ):
        load_idx(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"`path` '.*none.npz' is not there.*nothing is downloaded"
    ):
        load_npz(tmp_path / "none.npz")
    (tmp_path / "cut").write_bytes(idx(ARRAYS[0])[:-1])
    with pytest.raises(
        ValueError, match=r"says that it holds \(6, 4, 5\) of uint8, but has 119 bytes"
    ):
        read_idx(tmp_path / "cut")
    for wrong in (b"", b"\x00\x00", b"PK\x03\x04 and more", b"\x00\x00\x08\x03\x00"):
        (tmp_path / "wrong").write_bytes(wrong)
        with pytest.raises(ValueError, match="is not an IDX file"):
            read_idx(tmp_path / "wrong")
    (tmp_path / "wrong.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"is not an .npz of plain arrays"):
        load_npz(tmp_path / "wrong.npz")
    np.savez(tmp_path / "objects.npz", x_train=np.array([{}], object))
    with pytest.raises(ValueError, match=r"is not an .npz of plain arrays"):
        load_npz(tmp_path / "objects.npz")
    np.savez(tmp_path / "few.npz", x_train=ARRAYS[0])
    with pytest.raises(ValueError, match=r"lacks the arrays y_train, x_test, y_test"):
        load_npz(tmp_path / "few.npz")
