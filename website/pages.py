"""Files of the repository that are pages of the site too, and links between them.

Pages are written for readers of the repository: `docs/x.md`, `../examples/y.py`. On the site each
of these has its place: `README.md` is the first page, an example and a tutorial have pages with
their pictures, and any other file that a page links to is shown as it is.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
SOURCES = {page: file for file, page in PAGES.items()}
# The first page is a section by itself, with no list of pages beside it; the others here come last
# in a search.
HEADS = {
    "index.md": "hide: [navigation]",
    "contributing.md": "search: {boost: 0.5}",
    "changelog.md": "search: {boost: 0.5}",
}
# not in code, where a call may stand behind a bracket
LINK = re.compile(r"^( *)```.*?^\1```|`[^`\n]+`(?!\])|(?<=\])\((?P<to>[^)\s]+)\)", re.M | re.S)
# of other sites, or of the page itself
OUTSIDE = re.compile(r"[a-z]+:|#")


def place_of(file: str) -> str:
    """The page that shows a file of the repository, from its path there."""
    if file in PAGES:
        return PAGES[file]
    folder, _, name = file.partition("/")
    if folder == "docs":
        is_tutorial = name.startswith("tutorials/")
        return re.sub(r"\.py$", ".md", name) if is_tutorial else name
    if folder == "examples" and name.endswith(".py"):
        return f"examples/{name.removesuffix('.py')}.md"
    return f"source/{file}.md"


def shown(file: str) -> str:
    """The Markdown of a page that shows a file as it is."""
    kind = Path(file).suffix.removeprefix(".") or "text"
    return f"# {file}\n\n~~~~~~ {{.{kind} }}\n{(ROOT / file).read_text()}\n~~~~~~\n"


def links(text: str) -> list[str]:
    """The links of a page to files, as they are written."""
    found = [match["to"] for match in LINK.finditer(text) if match["to"]]
    return [to for to in found if not OUTSIDE.match(to)]


def target(to: str, source: str) -> str:
    """The file of the repository that a link of another one leads to, without its anchor."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), to.partition("#")[0]))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for file, page in PAGES.items():
        text = f"---\n{HEADS[page]}\n---\n\n{(ROOT / file).read_text()}"
        files.append(File.generated(config, page, content=text))
    written = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")]
    written += [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.py")]
    for file in [*PAGES, *sorted(written)]:
        for to in links((ROOT / file).read_text()):
            wanted = target(to, file)
            page = place_of(wanted)
            is_new = page.startswith("source/") and page not in files.src_uris
            if is_new and (ROOT / wanted).is_file():
                files.append(File.generated(config, page, content=shown(wanted)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files into links between pages."""
    here = page.file.src_uri
    if here.startswith(("reference/", "examples/", "source/")):
        return markdown  # written for the site
    source = SOURCES.get(here, f"docs/{here}")

    def link(match: re.Match[str]) -> str:
        to = match["to"]
        if to is None or OUTSIDE.match(to):
            return match[0]
        place = place_of(target(to, source))
        _, mark, anchor = to.partition("#")
        return f"({posixpath.relpath(place, posixpath.dirname(here) or '.')}{mark}{anchor})"

    return LINK.sub(link, markdown)
