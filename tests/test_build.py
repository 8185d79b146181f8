"""The build hook: with a compiler, without one, and with one that fails."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent


def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    """A source tree with an old library."""
    build = hook()
    (tmp_path / build.FOLDER).mkdir(parents=True)
    for name in build.SOURCES:
        (tmp_path / build.FOLDER / name).write_text("int main() {}")
    (tmp_path / build.LIBRARY).write_text("old")
    return tmp_path


def fake(folder, name, script):
    """A compiler of ours, first on the path."""
    command = folder / name
    command.write_text(f"#!{sys.executable}\n{script}")
    command.chmod(0o755)
    return command


WRITES = "import sys; open(sys.argv[sys.argv.index('-o') + 1], 'w').write(' '.join(sys.argv))"


@pytest.mark.skipif(sys.platform == "win32", reason="the compilers here are scripts")
def test_without_a_compiler_the_package_is_pure(monkeypatch, tree, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CXX", raising=False)
    build = hook()
    assert "no C++ compiler" in build.build(tree)
    assert not (tree / build.LIBRARY).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the compilers here are scripts")
def test_a_compiler_that_fails_leaves_no_library(monkeypatch, tree, tmp_path):
    broken = fake(tmp_path, "broken", f"{WRITES}\nsys.exit('it broke\\nand more')")
    monkeypatch.setenv("CXX", f"{broken} --quietly")
    build = hook()
    assert build.build(tree) == f"{broken} failed: it broke"
    assert not (tree / build.LIBRARY).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the compilers here are scripts")
def test_the_library_of_a_compiler_is_built_into_the_wheel(monkeypatch, tree, tmp_path):
    compiler = fake(tmp_path, "good", WRITES)
    monkeypatch.setenv("CXX", f"{compiler} --quietly")
    build, lines = hook(), []
    app = SimpleNamespace(display_info=lines.append, display_warning=lines.append)
    data = {"artifacts": [], "pure_python": True, "tag": None}
    build.NativeBuildHook.initialize(SimpleNamespace(root=str(tree), app=app), "standard", data)
    assert data["artifacts"] == [build.LIBRARY.as_posix()]
    assert not data["pure_python"]
    assert data["tag"].startswith("py3-none-")
    arguments = (tree / build.LIBRARY).read_text()
    assert "--quietly -std=c++17" in arguments
    assert "jaxlib" in arguments
    assert len(lines) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="the compilers here are scripts")
def test_a_pure_wheel_is_said_in_one_line(monkeypatch, tree, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CXX", raising=False)
    build, lines = hook(), []
    app = SimpleNamespace(display_info=lines.append, display_warning=lines.append)
    data = {"artifacts": [], "pure_python": True, "tag": None}
    build.NativeBuildHook.initialize(SimpleNamespace(root=str(tree), app=app), "standard", data)
    assert data == {"artifacts": [], "pure_python": True, "tag": None}
    (line,) = lines
    assert "without its native library" in line


def test_a_pure_wheel_may_be_asked_for(monkeypatch, tree):
    monkeypatch.setenv("DARNAX_NATIVE", "0")
    build = hook()
    assert build.build(tree) == "DARNAX_NATIVE is 0"
    assert not (tree / build.LIBRARY).exists()


def test_the_tag_of_a_wheel_names_the_architecture_of_its_library(monkeypatch):
    build = hook()
    monkeypatch.setattr(build.platform, "machine", lambda: "arm64")
    assert build.platform_tag("macosx-11.0-universal2") == "macosx_11_0_arm64"
    assert build.platform_tag("linux-x86_64") == "linux_x86_64"


def test_the_headers_are_those_of_jaxlib():
    assert (hook().jaxlib_headers() / "xla/ffi/api/ffi.h").exists()
