"""Builds `darnax/native` where a C++ compiler is found; without one the package is pure.

Nothing of darnax needs the library: it makes passes faster. So a compiler that is missing, or
fails, is said in a line and is no error. `darnax.kernels.native_library()` tells what came of it.
With `DARNAX_NATIVE=0` in the environment the package is pure although there is a compiler: a
release has such a wheel beside those of platforms.
"""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("darnax/native")
SOURCES = "sums.cc", "products.cc", "windows.cc"
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
LIBRARY = FOLDER / f"libdarnax{SUFFIX}"
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    # vectors are written out; of other loops GCC makes slower ones, and packs vectors anew
    "-fno-tree-vectorize",
    "-fno-tree-slp-vectorize",
    # one rounding for a product and its sum, as XLA does it
    "-ffp-contract=fast",
    # no vector is handed to another library
    "-Wno-psabi",
]


class NativeBuildHook(BuildHookInterface):
    """Adds the library to a wheel, or to the source tree of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        problem = build(Path(self.root))
        if problem is not None:
            self.app.display_warning(f"darnax is built without its native library: {problem}")
            return
        self.app.display_info(f"darnax is built with its native library {LIBRARY}")
        # git ignores the library, and hatchling leaves out what git ignores unless it is told.
        build_data["artifacts"].append(LIBRARY.as_posix())
        build_data["pure_python"] = False
        # Loaded by ctypes, it serves every Python on this platform.
        build_data["tag"] = f"py3-none-{platform_tag(sysconfig.get_platform())}"


def platform_tag(name: str) -> str:
    """The tag of a platform, as Python names it, for a library of one architecture."""
    # A Python for both architectures of macOS compiles for the one that it runs on.
    name = name.replace("universal2", platform.machine())
    return name.replace("-", "_").replace(".", "_")


def build(root: Path, library: Path | None = None) -> str | None:
    """Compiles the sources below `root` to `library`; None, or what was in the way."""
    library = library or root / LIBRARY
    # A library of older sources must not outlive a build that fails.
    library.unlink(missing_ok=True)
    if os.environ.get("DARNAX_NATIVE") == "0":
        return "DARNAX_NATIVE is 0"
    command = compiler()
    if command is None:
        return "no C++ compiler was found (CXX, g++, clang++, c++)"
    headers = jaxlib_headers()
    if headers is None:
        return "jaxlib, whose headers it needs, was not found"
    sources = [str(root / FOLDER / name) for name in SOURCES]
    # As system headers: their warnings are not ours.
    options = [*FLAGS, "-isystem", str(headers), "-o", str(library)]
    try:
        run = subprocess.run([*command, *options, *sources], capture_output=True, text=True)
    except OSError as error:
        return f"{command[0]} did not run: {error}"
    if run.returncode != 0:
        library.unlink(missing_ok=True)
        first = (run.stderr.strip() or "no message").splitlines()[0]
        return f"{command[0]} failed: {first}"
    return None


def compiler() -> list[str] | None:
    """The command of a C++ compiler, in words; None without one."""
    given = shlex.split(os.environ.get("CXX", ""))
    for command in (given, ["g++"], ["clang++"], ["c++"]):
        if command and shutil.which(command[0]) is not None:
            return command
    return None


def jaxlib_headers() -> Path | None:
    """The folder of XLA's headers, found without importing JAX, which takes long."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "include"
