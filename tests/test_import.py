"""The first second: what `import darnax` brings along; and what parts of darnax import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

DARNAX = Path(__file__).parent.parent / "darnax"

HEAVY = [
    "networkx",
    "scipy",
    "jraph",
    "optax",
    "tqdm",
    "safetensors",
    "matplotlib",
    "sklearn",
    "jax.experimental.sparse",
    "darnax.plots",
    "darnax.diagrams",
]


def test_what_is_heavy_is_imported_where_it_is_used():
    code = f"import sys, darnax; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
    assert run.stderr == ""


def test_lazy_modules_are_the_modules():
    import networkx as nx

    from darnax._lazy import Lazy

    assert Lazy("networkx").DiGraph is nx.DiGraph


def parts():
    """The modules and packages of darnax, but for those with an underscore."""
    folders = [path.parent.name for path in DARNAX.glob("*/__init__.py")]
    files = [path.stem for path in DARNAX.glob("*.py")]
    return {name for name in [*folders, *files] if name[0] != "_"}


def imported(path):
    """The parts of darnax that a file imports when it is itself imported."""
    found = set()
    for statement in ast.parse(path.read_text()).body:
        if not isinstance(statement, ast.ImportFrom):
            continue
        if statement.module == "darnax":
            found |= {alias.name for alias in statement.names}
        elif statement.module.startswith("darnax."):
            found.add(statement.module.split(".")[1])
    return found


def test_floors_import_from_those_above_them_in_the_tree_of_contributing():
    tree = (DARNAX.parent / "CONTRIBUTING.md").read_text().partition("```\ndarnax/\n")[2]
    floors = re.findall(r"^  (\w+)(?:/|\.py) ", tree.partition("```")[0], re.MULTILINE)
    assert sorted(floors) == sorted(parts() | {"native"})
    wrong = []
    for floor in floors:
        own = [*DARNAX.glob(f"{floor}.py"), *DARNAX.glob(f"{floor}/**/*.py")]
        for path in own:
            for other in imported(path) & set(floors):
                if floors.index(other) > floors.index(floor):
                    wrong.append((floor, other))
    # which are one floor
    assert set(wrong) == {("couplings", "kernels")}
