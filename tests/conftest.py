"""Strict from the first import: types and shapes are checked at run time, and so is dtype promotion."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
hook = install_import_hook("darnax", "beartype.beartype")
import darnax  # noqa: E402, F401

hook.uninstall()
