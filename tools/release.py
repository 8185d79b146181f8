"""Whether a tag may be released: its version is that of darnax, and the changelog tells of it.

python tools/release.py v0.2.0
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
# major, minor and patch; before a release perhaps a candidate, written as Python packages do
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")


def version(init: str) -> str:
    """The version in the text of `darnax/__init__.py`, read without importing JAX."""
    (found,) = re.findall(r'^__version__ = "(.+)"$', init, re.MULTILINE)
    return found


def problems(tag: str, init: str, changelog: str) -> list[str]:
    """What is in the way of a release; a list of sentences."""
    ours = version(init)
    found: list[str] = []
    if VERSION.fullmatch(ours) is None:
        found.append(f"The version {ours} is not of the form 1.2.3 or 1.2.3rc1.")
    if tag != f"v{ours}":
        found.append(f"The tag is {tag}, and the version in darnax/__init__.py is {ours}.")
    # the title, and then every heading with the text below it
    _, *parts = SECTION.split(changelog)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    if sections.get("Unreleased", "").strip():
        found.append(
            "CHANGELOG.md has entries under Unreleased; move them to a section of the version."
        )
    headings = [heading for heading in sections if heading != "Unreleased"]
    first = headings[0] if headings else "none"
    if re.fullmatch(rf"{re.escape(ours)} - \d{{4}}-\d\d-\d\d", first) is None:
        found.append(
            f"The first version in CHANGELOG.md is {first!r}, expected '{ours} - YYYY-MM-DD'."
        )
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    init = (ROOT / "darnax" / "__init__.py").read_text()
    wrong = problems(sys.argv[1], init, (ROOT / "CHANGELOG.md").read_text())
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"darnax {version(init)} may be released.")


if __name__ == "__main__":
    main()
