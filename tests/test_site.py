"""The site names every page and every public name; built, it is read in a browser."""

import functools
import http.server
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
import types
import zlib
from pathlib import Path

import browser
import pytest

import darnax as dx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from website import kept, names  # noqa: E402

PHONE, DESK = (390, 844), (1400, 900)
# How tests run programs of JAX, and where they draw (tests/conftest.py): not for pages, which are
# kept for the next build.
OF_TESTS = ("JAX_", "XLA_FLAGS", "MPLBACKEND")


def public() -> set[str]:
    """The paths of all public names, as a running darnax has them."""
    found = set()
    for path in names.MODULES:
        module = importlib.import_module(path)
        for name in getattr(module, "__all__", vars(module)):
            thing = getattr(module, name)
            # a module, or something that a module has for its own use
            foreign = getattr(thing, "__module__", path).partition(".")[0] != "darnax"
            if not (name.startswith("_") or isinstance(thing, types.ModuleType) or foreign):
                found.add(f"{names.SHORT.get(path, path)}.{name}")
    return found


def test_every_public_name_is_on_a_page_of_the_reference():
    listed = {public for name in names.public_names() for public in name.public}
    assert not public() - listed
    assert "darnax.relax" in listed
    assert "darnax.callbacks.csv" in listed
    for subject in names.SUBJECTS:
        assert names.names_on(subject)
    assert sum(len(names.names_on(subject)) for subject in names.SUBJECTS) == len(
        names.public_names()
    )


def test_every_public_name_says_what_it_is():
    assert not [name.path for name in names.public_names() if not name.first]


def test_modules_that_are_called_as_dx_are_in_the_reference():
    things = [getattr(dx, name) for name in dir(dx) if not name.startswith("_")]
    paths = {thing.__name__ for thing in things if isinstance(thing, types.ModuleType)}
    parts = {path for path in paths if re.fullmatch(r"darnax\.[a-z]\w*(\.\w+)?", path)}
    assert "darnax.plots" in parts
    # all that `darnax.activations` has for users is in darnax itself
    inside = {"activations", "checks", "diagrams", "noise", "static"}
    assert parts - {f"darnax.{part}" for part in inside} <= set(names.MODULES)


def test_the_navigation_has_every_page():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r"[\w/-]+\.md", nav)
    written = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    written += [
        path.relative_to(ROOT / "docs").with_suffix(".md")
        for path in (ROOT / "docs" / "tutorials").glob("*.py")
    ]
    pages = [path.as_posix() for path in written]
    pages += [f"reference/{subject.page}" for subject in names.SUBJECTS]
    pages += [
        "index.md",
        "contributing.md",
        "changelog.md",
        "examples/index.md",
        "reference/index.md",
    ]
    assert sorted(named) == sorted(pages)


def test_pictures_are_drawn_anew_where_any_source_has_changed():
    folder = ROOT / "darnax"
    sources = {path for path in folder.rglob("*") if path.suffix in {".py", ".cc", ".h"}}
    assert {path.suffix for path in sources} == {".py", ".cc", ".h"}
    assert sources == set(kept.library())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built as `make docs` builds it."""
    if browser.found() is None:
        pytest.skip("no Chromium is installed: the site cannot be looked at")
    if shutil.which("make") is None:
        pytest.skip("no make is installed: the site is built by `make docs`")
    folder = tmp_path_factory.mktemp("site")
    own = {name: value for name, value in os.environ.items() if not name.startswith(OF_TESTS)}
    done = subprocess.run(
        ["make", "docs", f"SITE={folder}"], cwd=ROOT, env=own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def reader(address, tmp_path):
    """A browser that has never seen the site."""
    reader = browser.Browser(tmp_path / "profile")
    reader.size(*DESK)
    yield reader
    reader.close()


@pytest.mark.slow
def test_the_inventory_has_every_public_name(site):
    # four lines of text, and then a compressed line for each name
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = [line.split() for line in zlib.decompress(packed).decode().splitlines()]
    listed = {entry[0]: entry[3] for entry in entries}
    assert not public() - set(listed)
    for name in public():
        page, _, anchor = listed[name].replace("$", name).partition("#")
        assert f'id="{anchor}"' in (site / page / "index.html").read_text()


@pytest.mark.slow
def test_tutorials_are_pages_with_pictures_and_links_lead_to_them(site):
    """And not to the scripts, but for the link of each page to its own."""
    tutorials = sorted(path.stem for path in (ROOT / "docs" / "tutorials").glob("*.py"))
    found = []
    for path in sorted(site.rglob("index.html")):
        for to in re.findall(r'href="([^"#]+\.py)"', path.read_text()):
            found.append((path.parent / to).resolve().relative_to(site.resolve()).as_posix())
    assert sorted(found) == [f"tutorials/{name}.py" for name in tutorials]
    for name in tutorials:
        page = (site / "tutorials" / name / "index.html").read_text()
        assert len(re.findall(rf'<img [^>]*src="\.\./{name}-\d+\.png"', page)) >= 4


@pytest.mark.slow
def test_pages_load_without_a_complaint_and_from_here_alone(site, address, reader):
    reader.size(*PHONE, phone=True)
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("index.html"))
    assert len(pages) > 40
    for page in pages:
        reader.open(f"{address}{page}")
        assert not reader.errors, (page, reader.errors)
        # on a phone nothing is wider than the screen
        width = reader.value("document.documentElement.scrollWidth")
        assert width <= PHONE[0], page
        broken = reader.value(
            "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
        )
        assert broken == 0, page
    elsewhere = [url for url in reader.requests if not url.startswith((address, "data:", "about:"))]
    assert not elsewhere


@pytest.mark.slow
def test_the_search_finds_relax(address, reader):
    reader.open(address)
    reader.value(
        "(query => { query.focus(); query.value = 'relax';"
        " query.dispatchEvent(new Event('input', {bubbles: true}));"
        " query.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true})) })"
        "(document.querySelector('[data-md-component=search-query]'))"
    )
    links = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
    found = reader.until(f"({links}).length > 3 && {links}")
    wanted = r".*/reference/dynamics/.*#darnax\.dynamics\.relax\.relax"
    assert any(re.fullmatch(wanted, link) for link in found), found


@pytest.mark.slow
def test_code_is_copied(address, reader):
    reader.call("Browser.grantPermissions", permissions=["clipboardReadWrite"], origin=address)
    reader.call("Emulation.setFocusEmulationEnabled", enabled=True)
    reader.open(f"{address}topologies/")
    reader.until("document.querySelector('.highlight [data-md-type=copy]') != null")
    shown = reader.value("document.querySelector('.highlight code').textContent")
    reader.value("document.querySelector('.highlight [data-md-type=copy]').click()")
    assert shown.strip()
    copied = "navigator.clipboard.readText()"
    reader.until(f"{copied}.then(text => text.length > 0)")
    assert reader.value(copied).strip() == shown.strip()


@pytest.mark.slow
def test_colours_are_those_of_the_system_until_a_reader_chooses(address, reader):
    colour = "getComputedStyle(document.body).backgroundColor"
    reader.prefer("light")
    reader.open(address)
    light = reader.value(colour)
    reader.prefer("dark")
    reader.until("document.body.dataset.mdColorScheme == 'slate'")
    dark = reader.until(f"{colour} != {light!r} && {colour}")
    click = "document.querySelector('form[data-md-component=palette] label:not([hidden])').click()"
    reader.value(click)
    assert reader.until(f"{colour} == {light!r}")
    reader.value(click)
    assert reader.until(f"{colour} == {dark!r}")
    # the choice is kept
    reader.prefer("light")
    reader.open(f"{address}dynamics/")
    assert reader.value(colour) == dark
