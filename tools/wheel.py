"""Builds the source distribution and a wheel of it, and checks the wheel as a user meets it.

    make wheel                                  # or: python tools/wheel.py
    DARNAX_NATIVE=0 python tools/wheel.py       # the wheel without the native library

The wheel is built from the source distribution and not from this folder, so that both are tried. It
is installed in a fresh environment outside of this folder: in here `import darnax` would find the
sources, and a file that the wheel lacks would not be missed.
"""

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = [
    "darnax/*.py",
    "darnax/py.typed",
    "darnax/native/libdarnax.*",
    "darnax-*.dist-info/METADATA",
    "darnax-*.dist-info/RECORD",
    "darnax-*.dist-info/WHEEL",
    "darnax-*.dist-info/licenses/LICENSE",
]
"""All that a wheel may hold; a star stands for folders as well."""

LOOK = """
import importlib.metadata, json, sys
from pathlib import Path
import darnax

folder = Path(darnax.__file__).parent
library = darnax.kernels.native_library()
print(json.dumps({
    "installed": folder.is_relative_to(sys.prefix),
    "typed": (folder / "py.typed").exists(),
    "version": [darnax.__version__, importlib.metadata.version("darnax")],
    "native": library.loaded,
    "library": library.reason,
}))
"""


def problems(names: list[str]) -> list[str]:
    """What is wrong with the names in a wheel: files that may not be in it, or are missing."""
    found: list[str] = []
    for name in names:
        if not any(fnmatch.fnmatch(name, pattern) for pattern in ALLOWED):
            found.append(f"{name} is in the wheel")
    for path in sorted((ROOT / "darnax").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in names:
            found.append(f"{name} is not in the wheel")
    if "darnax/py.typed" not in names:
        found.append("darnax/py.typed is not in the wheel")
    return found


def built(folder: Path) -> Path:
    """The wheel of a source distribution, both written to a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], ROOT)
    (source,) = folder.glob("*.tar.gz")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    run([*wheel, str(folder), str(source)], folder)
    (made,) = folder.glob("*.whl")
    return made


def check(wheel: Path) -> None:
    """The contents of a wheel, and what it does in a fresh environment."""
    names = zipfile.ZipFile(wheel).namelist()
    wrong = problems(names)
    if wrong:
        sys.exit("\n".join(wrong))
    compiled = any(name.startswith("darnax/native/") for name in names)
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size // 1024} kB")

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*install, f"darnax[examples] @ {wheel.as_uri()}"], folder)

        seen = json.loads(run([str(python), "-c", LOOK], folder))
        print(f"installed: {seen}")
        version = wheel.name.split("-")[1]
        assert seen["installed"], "darnax was imported from elsewhere"
        assert seen["typed"], "py.typed is not installed"
        assert seen["version"] == [version, version], "the versions differ"
        assert seen["native"] == compiled, f"the native library: {seen['library']}"

        shutil.copy(ROOT / "examples" / "digits.py", folder)
        demo = json.loads(run([str(python), "digits.py", "--json", "--epochs", "1"], folder))
        print(f"the demo after one epoch: {demo}")
        assert demo["accuracy"] > 0.9, "the demo has not learnt"


def run(command: list[str], folder: Path) -> str:
    """What a command prints; it sees nothing of this folder unless it is run in it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="where both are written")
    check(built(parser.parse_args().to.resolve()))


if __name__ == "__main__":
    main()
