"""What is published: the files of the wheel and of the source distribution, the version, the
pictures of pages, and the workflows."""

import importlib.util
import re
from pathlib import Path

import jax
import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import darnax as dx

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def selected(builder):
    """The names of the files that go into a distribution; nothing is built."""
    return [
        Path(file.distribution_path).as_posix()
        for file in builder(str(ROOT)).recurse_selected_project_files()
    ]


def test_the_wheel_holds_the_package_and_nothing_else():
    wheel, names = tool("wheel"), selected(WheelBuilder)
    assert wheel.problems(names) == []
    assert wheel.problems([*names, "darnax/weights.npz", "tests/helpers.py"]) == [
        "darnax/weights.npz is in the wheel",
        "tests/helpers.py is in the wheel",
    ]
    names.remove("darnax/checks.py")
    names.remove("darnax/py.typed")
    assert wheel.problems(names) == [
        "darnax/checks.py is not in the wheel",
        "darnax/py.typed is not in the wheel",
    ]


def test_the_source_distribution_has_all_that_make_test_needs():
    names = selected(SdistBuilder)
    folders = {Path(name).parts[0] for name in names if "/" in name}
    assert folders == {"darnax", "tests", "examples", "benchmarks", "docs", "website", "tools"}
    # text alone: sources, pages, and the pictures and styles of pages
    assert {Path(name).suffix for name in names if "/" in name} <= {
        "", ".py", ".cc", ".h", ".md", ".css", ".svg", ".typed",
    }  # fmt: skip
    native = {path.name for path in (ROOT / "darnax" / "native").iterdir()}
    # git ignores the library, whatever its suffix is on this platform
    sources = {name for name in native if not name.startswith("libdarnax.")}
    assert sources == {Path(name).name for name in names if name.startswith("darnax/native/")}


CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n## 1.2.0 - 2026-01-31\n\n- all\n\n## 1.1.0 - 2025-01-31\n"
)


def test_a_release_has_one_version_everywhere():
    release = tool("release")
    init = '__version__ = "1.2.0"\n'
    assert release.problems("v1.2.0", init, CHANGELOG) == []
    entries = CHANGELOG.replace("Unreleased\n", "Unreleased\n\n- more\n")
    (problem,) = release.problems("v1.2.0", init, entries)
    assert "has entries under Unreleased" in problem
    (problem,) = release.problems("v1.2.0", init, CHANGELOG.replace(" - 2026-01-31", ""))
    assert "'1.2.0', expected '1.2.0 - YYYY-MM-DD'" in problem
    (problem,) = release.problems("1.2.0", init, CHANGELOG)
    assert "The tag is 1.2.0" in problem
    tag, first = release.problems("v1.2.0", '__version__ = "1.3.0"\n', CHANGELOG)
    assert "version in darnax/__init__.py is 1.3.0" in tag
    assert "'1.2.0 - 2026-01-31', expected '1.3.0 - YYYY-MM-DD'" in first
    form, _ = release.problems("v1.2", '__version__ = "1.2"\n', CHANGELOG)
    assert "not of the form" in form


def test_the_version_of_a_release_is_that_of_darnax():
    assert tool("release").version((ROOT / "darnax" / "__init__.py").read_text()) == dx.__version__


def test_pictures_show_what_the_code_beside_them_makes():
    with jax.numpy_dtype_promotion("standard"):
        drawn = tool("pictures").pictures()
    folder = ROOT / "docs" / "images"
    assert {path.name for path in folder.iterdir()} == set(drawn)
    for name, text in drawn.items():
        assert (folder / name).read_text() == text, "run tools/pictures.py"


@pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no workflows")
def test_workflows_run_targets_that_there_are():
    """And actions of one major version, so that a workflow does what it did."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in WORKFLOWS:
        text = path.read_text()
        named = re.findall(r"run: make ([a-z-]+)|^ +target: ([a-z-]+)$", text, re.MULTILINE)
        listed = re.findall(r"target: \[(.+)\]", text)
        found = {a or b for a, b in named} | set(", ".join(listed).split(", ")) - {""}
        for target in found:
            assert target in targets, f"{path.name} runs make {target}"
        for action in re.findall(r"uses: (\S+)", text):
            assert re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", action), action
