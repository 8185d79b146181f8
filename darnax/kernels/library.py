"""The native library: sums over edges in C++, compiled when darnax was installed.

Everything in darnax runs without it. `hatch_build.py` compiles `darnax/native` where it
finds a C++ compiler, and `DARNAX_NATIVE=0` in the environment leaves the library alone.
"""

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import NamedTuple

import jax

VERSION = 2
"""The version of the calls, which `darnax_version` of the library gives."""
CALLS = (
    "darnax_sum",
    "darnax_products",
    "darnax_correct",
    "darnax_resum",
    "darnax_correct_products",
    "darnax_resum_products",
    "darnax_windows",
)
"""The functions of the library, and the names that XLA knows them by."""
FOLDER = Path(__file__).parent.parent / "native"
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


class NativeLibrary(NamedTuple):
    """What became of the native library in this process.

    **Fields:**

    - `loaded`: whether its sums can be called.
    - `reason`: why not, as a part of a sentence; where it is, if it is loaded.
    """

    loaded: bool
    reason: str


@functools.cache
def native_library() -> NativeLibrary:
    """Whether the native library is loaded, and why not; the first call loads it.

    !!! example

        ```python
        dx.kernels.native_library().loaded
        ```
    """
    if os.environ.get("DARNAX_NATIVE") == "0":
        return NativeLibrary(False, "DARNAX_NATIVE is 0")
    path = FOLDER / f"libdarnax{SUFFIX}"
    if not path.exists():
        return NativeLibrary(False, "no compiler was found at installation")
    return _load(path)


def _load(path: Path) -> NativeLibrary:
    """The library of a file, known to XLA."""
    try:
        library = ctypes.CDLL(str(path))
        if library.darnax_version() != VERSION:
            return NativeLibrary(False, "the library is of another version of darnax")
        for name in CALLS:
            call = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, call, platform="cpu")
    # Whatever is wrong with a file, darnax runs without it: a library of another processor is an
    # OSError, one without our functions an AttributeError, and XLA refuses one that was compiled
    # with headers of a later version.
    except Exception as error:
        return NativeLibrary(False, f"the library does not load: {error}")
    return NativeLibrary(True, str(path))
