"""Draws the pictures of the pages, which are SVG text: docs/images.

    python tools/pictures.py

A picture shows what the code beside it makes: it is drawn from that code. A test says when it is no
longer so.
"""

import re
from pathlib import Path
from typing import Any

from darnax.diagrams.svg import drawn

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pictures() -> dict[str, str]:
    """By file name, the text of each picture."""
    topology = made_by(ROOT / "README.md", "g = nx.DiGraph()")
    return {"readme.svg": enlarged(drawn(topology), 1.8) + "\n"}


def enlarged(svg: str, factor: float) -> str:
    """A picture that stands in a page by itself, so many times as wide as in a notebook."""
    begin, end = svg.split(">", 1)
    size = lambda found: f'{found[1]}="{round(factor * int(found[2]))}"'  # noqa: E731
    return re.sub(r'\b(width|height)="(\d+)"', size, begin) + ">" + end


def made_by(page: Path, line: str) -> Any:
    """The topology that the first block of a page with this line makes."""
    for source in BLOCK.findall(page.read_text()):
        if line in source.splitlines():
            names: dict[str, Any] = {}
            exec(source, names)
            return names["topology"]
    raise ValueError(f"{page.name} has no block with the line {line!r}")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (IMAGES / name).write_text(text)
        print(f"drawn in docs/images/{name}")


if __name__ == "__main__":
    main()
