"""Strict from the first import: types and shapes are checked at run time, and so is dtype
promotion."""

import atexit
import ctypes
import gc
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

OPTIMISED = "DARNAX_TEST_OPTIMISED" in os.environ
FLAGS = ["--xla_force_host_platform_device_count=2"]
if not OPTIMISED and version("jaxlib").startswith("0.10."):
    # Most of the time goes into compiling tiny programs, and without these passes of XLA, in one
    # piece each, it is half. Later releases may not know a flag, and XLA dies of one that it does
    # not know. `make test-slow` runs everything as users do.
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
    FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ["MPLBACKEND"] = "Agg"  # pictures without a screen
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

# What was compiled serves again after `jax.clear_caches()`, and in processes that tests start. The
# folder is of this run, so that nothing comes from programs of yesterday; and of this worker: JAX
# writes files in place, and another might read half of one.
PROGRAMS = tempfile.mkdtemp(prefix="darnax-programs-")
atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_disable_most_optimizations", not OPTIMISED)
hook = install_import_hook("darnax", "annotations.checked")
import darnax  # noqa: E402

# these are imported later else, when the hook is gone
import darnax.plots  # noqa: E402
import darnax.testing  # noqa: E402

hook.uninstall()
# What was imported stays. Programs are traced in many small objects, and looking through all that
# there are so often takes a tenth of the time.
gc.freeze()
gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Programs are dropped before their memory maps are more than a process may have."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 30_000:
        jax.clear_caches()
    # What compiling leaves free stays with glibc, gigabytes in the course of a run.
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@pytest.fixture(scope="module", params=["library", "plain JAX"])
def way(request):
    """The operations run by the native library, and as they run where it is missing."""
    library = darnax.kernels.native_library()
    if request.param == "library" and not library.loaded:
        pytest.skip(f"no native library: {library.reason}")
    # what was compiled the other way must not serve this one
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "plain JAX":
            off = darnax.kernels.NativeLibrary(False, "switched off")
            patch.setattr("darnax.kernels.native_call.native_library", lambda: off)
        yield request.param
    jax.clear_caches()
