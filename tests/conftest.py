"""Strict from the first import: types and shapes are checked at run time, and so is dtype
promotion."""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
# most of the time goes into compiling tiny programs; `make test-slow` runs everything optimised as
# well
jax.config.update("jax_disable_most_optimizations", "DARNAX_TEST_OPTIMISED" not in os.environ)
hook = install_import_hook("darnax", "beartype.beartype")
import darnax  # noqa: E402, F401

hook.uninstall()


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Programs are dropped before their memory maps are more than a process may have."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 30_000:
        jax.clear_caches()
