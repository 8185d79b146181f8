"""What takes long to make is kept between builds, as long as what it is made from is the same."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".docs-cache"


def library() -> list[Path]:
    """The sources of darnax itself."""
    native = [*ROOT.glob("darnax/native/*.cc"), *ROOT.glob("darnax/native/*.h")]
    return sorted([*ROOT.glob("darnax/**/*.py"), *native])


def digest(sources: Iterable[Path], also: str) -> str:
    """A word for the contents of files and a text."""
    result = hashlib.sha256(also.encode())
    for source in sources:
        result.update(f"{source.relative_to(ROOT)}\n".encode())
        result.update(hashlib.sha256(source.read_bytes()).digest())
    return result.hexdigest()[:16]


def kept(name: str, source: Path, make: Callable[[Path], None], also: str = "") -> Path:
    """A folder that `make` has filled from a script.

    It is called where the script, darnax or what is said in `also` has changed since the last time.
    """
    folder = FOLDER / f"{name}-{digest([*library(), source], also)}"
    if folder.exists():
        return folder
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as place:
        unfinished = Path(place) / "unfinished"
        unfinished.mkdir()
        make(unfinished)
        for old in FOLDER.glob(f"{name}-*"):
            shutil.rmtree(old)
        # at once: a build that is stopped leaves no half of a folder
        unfinished.rename(folder)
    return folder
