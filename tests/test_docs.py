"""The documentation is run: every Python block of the pages, and every example in a public
docstring.

Behind a bare expression a comment is a promise: `state[1].shape  # (32, 8)` fails unless the two
are equal. So is a block of text right behind a block of Python: it is what the code prints.
"""

import ast
import importlib
import inspect
import io
import pkgutil
import re
import tempfile
import textwrap
import tokenize
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import optax
import pytest

import darnax as dx

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str]]:
    """The Python blocks of a text, each with the number of lines before it."""
    return [(text[: m.start(2)].count("\n"), textwrap.dedent(m[2])) for m in FENCE.finditer(text)]


def prints(text: str) -> dict[int, str]:
    """What blocks print, by the number of lines before them, where a page says so."""
    found = {}
    for block in FENCE.finditer(text):
        said = PRINTED.match(text, block.end())
        if said:
            found[text[: block.start(2)].count("\n")] = said[1]
    return found


def comments(source: str) -> dict[int, str]:
    """By line, the comment that ends it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def run(source: str, names: dict[str, Any], where: str, before: int = 0):
    """Run a block statement by statement, and compare bare expressions with the comments behind
    them."""
    promised = comments(source)
    for statement in ast.parse(source).body:
        line = statement.end_lineno
        ast.increment_lineno(statement, before)
        if not (isinstance(statement, ast.Expr) and line in promised):
            exec(compile(ast.Module([statement], []), where, "exec"), names)
            continue
        got = eval(compile(ast.Expression(statement.value), where, "eval"), names)
        expected = eval(promised[line], names)
        assert np.all(got == expected), (
            f"{where}, line {before + line}: {promised[line]} was promised, but it is {got!r}"
        )


def public() -> dict[str, Any]:
    """By path, every public function and class of darnax, with its methods and properties."""
    found = {}
    for info in pkgutil.walk_packages(dx.__path__, "darnax."):
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            if (
                name[0] == "_"
                or getattr(thing, "__module__", None) != info.name
                or not _documented(thing)
            ):
                continue
            found[f"{info.name}.{name}"] = thing
            if inspect.isclass(thing):
                found |= {
                    f"{info.name}.{name}.{member}": part
                    for member, part in vars(thing).items()
                    if _documented(part)
                }
    return found


def _documented(thing: Any) -> bool:
    return inspect.isclass(thing) or inspect.isroutine(thing) or inspect.isdatadescriptor(thing)


EXAMPLES = {
    path: inspect.getdoc(thing)
    for path, thing in public().items()
    if blocks(inspect.getdoc(thing) or "")
}


def world() -> dict[str, Any]:
    """What an example may take for granted: a small network, a state of it, rules and an
    optimiser."""
    graph = nx.DiGraph()
    graph.add_node("eye", shape=(8, 8, 1))
    graph.add_node("cortex", shape=100, kind="hidden")
    graph.add_node("label", shape=10, kind="output")
    graph.add_node("spins", shape=20, kind="hidden")
    graph.add_edge("eye", "cortex", kind="forward")
    graph.add_edge("cortex", "cortex", kind="recurrent")
    graph.add_edge("cortex", "label", kind="forward")
    topology = dx.Topology(graph, inputs=["eye"], outputs=["label"])
    couplings = {"forward": dx.dense(), "recurrent": dx.dense(gain=0.5, self_coupling=1.0)}
    network = dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (32, 8, 8, 1))
    rules = {"forward": dx.perceptron(0.5)}
    params, rest = dx.partition(network, rules)
    optimiser = optax.sgd(0.1)
    return {
        "dx": dx, "jax": jax, "jnp": jnp, "np": np, "nx": nx, "eqx": eqx, "optax": optax, "jraph": jraph,
        "tempfile": tempfile,
        "graph": graph, "topology": topology, "network": network, "x": x, "B": len(x),
        "y": dx.one_vs_all(jnp.arange(len(x)) % 10, 10),
        "state": dx.GraphState(topology).init(x), "rules": rules, "params": params, "rest": rest,
        "learning": dx.DynamicalLearning(rules),
        "optimiser": optimiser, "memory": optimiser.init(params), "key": jax.random.key(2),
    }  # fmt: skip


def lateral() -> dict[str, Any]:
    """What an example on the vertices of a graph may take for granted."""
    ring = nx.cycle_graph(5).to_directed()
    nx.set_node_attributes(ring, 8, "shape")
    nx.set_edge_attributes(ring, "lateral", "kind")
    return {"state": dx.GraphState(dx.Topology(ring), 2), "weights": jnp.ones((8, 8))}


@pytest.fixture(autouse=True)
def no_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where pages may write files
    names: dict[str, Any] = {}
    promised = prints(page.read_text())
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        for before, source in blocks(page.read_text()):
            capsys.readouterr()
            run(source, names, str(page), before)
            if before in promised:
                assert capsys.readouterr().out == promised[before]


@pytest.mark.parametrize("path", sorted(EXAMPLES))
def test_docstrings(path):
    names = world() | (lateral() if "graphs_tuple" in path else {})
    with jax.numpy_dtype_promotion("standard"):
        for before, source in blocks(EXAMPLES[path]):
            run(source, names, f"<example of {path}>", before)


def test_every_example_is_found():
    marked = {
        name for name, thing in vars(dx).items() if "!!! example" in (inspect.getdoc(thing) or "")
    }
    found = {path.rsplit(".", 1)[1] for path in EXAMPLES}
    assert marked <= found, (
        f"examples that are not run: {sorted(marked - found)}; write them as ```python blocks"
    )
    assert any(blocks(page.read_text()) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}, which are not there"


def test_a_broken_promise_is_noticed():
    with pytest.raises(
        AssertionError, match=r"a page, line 3: \(2,\) was promised, but it is \(3,\)"
    ):
        run("import numpy as np\nnp.zeros(3).shape  # (2,)", {}, "a page", before=1)
