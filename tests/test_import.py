"""The first second: what `import darnax` brings along."""

import subprocess
import sys

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
