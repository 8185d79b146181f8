"""The documentation is run: every Python block of the pages, and every example in a public
docstring.

Behind a bare expression a comment is a promise: `state[1].shape  # (32, 8)` fails unless the two
are equal. So is a block of text right behind a block of Python: it is what the code prints.
Tutorials are notebooks as text, and run cell by cell.
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
from matplotlib.artist import Artist

import darnax as dx

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
TEXTS = [*PAGES, *TUTORIALS]
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


def run(source: str, names: dict[str, Any], where: str, before: int = 0) -> Any:
    """Run a block statement by statement, and compare bare expressions with the comments behind
    them. Returns what a notebook would show: the value of a bare expression at the end."""
    promised = comments(source)
    shown = None
    for statement in ast.parse(source).body:
        line = statement.end_lineno
        ast.increment_lineno(statement, before)
        shown = None
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), where, "exec"), names)
            continue
        shown = eval(compile(ast.Expression(statement.value), where, "eval"), names)
        if line in promised:
            expected = eval(promised[line], names)
            assert np.all(shown == expected), (
                f"{where}, line {before + line}: {promised[line]} was promised, but it is {shown!r}"
            )
    return shown


def cells(text: str) -> list[tuple[int, bool, str]]:
    """The cells of a notebook in the percent format: the lines before it, whether it is Markdown,
    and its source."""
    found = []
    starts = [*re.finditer(r"^# %%( \[markdown\])?\n", text, re.MULTILINE)]
    ends = [start.start() for start in starts[1:]] + [len(text)]
    for start, end in zip(starts, ends, strict=True):
        source = text[start.end() : end]
        if start[1]:
            source = re.sub("^# ?", "", source, flags=re.MULTILINE)
        found.append((text[: start.end()].count("\n"), bool(start[1]), source))
    return found


def prose(text: Path) -> str:
    """What a page or a notebook says, without the code of the notebook."""
    if text.suffix == ".md":
        return text.read_text()
    return "".join(source for _, is_markdown, source in cells(text.read_text()) if is_markdown)


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


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.stem)
def test_tutorials(tutorial, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    with jax.numpy_dtype_promotion("standard"):
        for before, is_markdown, source in cells(tutorial.read_text()):
            if is_markdown:
                continue
            value = run(source, names, str(tutorial), before)
            # it would stand as <Axes: > or Text(0, 0, '') below the cell
            assert not isinstance(value, Artist), f"cell at line {before} ends in {value!r}"
            shown.append(getattr(value, "_repr_html_", lambda: None)())
            for number in plt.get_fignums():
                plt.figure(number).draw_without_rendering()
                shown.append("a picture")
            plt.close("all")  # as after every cell of a notebook
    assert shown.count("a picture") >= 4
    assert any("<table" in part for part in shown if part)


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.stem)
def test_tutorials_say_first_what_one_will_have(tutorial):
    (_, is_markdown, opening), *others = cells(tutorial.read_text())
    assert is_markdown
    title, _, first, *_ = opening.splitlines()
    assert title.startswith("# ")
    assert first.startswith("At the end you will have")
    assert "## Where to go on" in others[-1][2]


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


def anchors(text: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page, which the site gives as well."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", prose(text)), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    missing = []
    for link in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", prose(page))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing, f"{page.name} links to {missing}, which are not there"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_that_pages_mention_exist(page):
    unknown = []
    for path in re.findall(r"`dx\.([\w.]*\w)", prose(page)):
        thing = dx
        for name in path.split("."):
            thing = getattr(thing, name, None)
        if thing is None:
            unknown.append(f"dx.{path}")
    assert not unknown, f"{page.name} mentions {unknown}, which are not there"


def test_the_guide_to_choosing_has_every_teacher_and_every_unit():
    page = prose(ROOT / "docs" / "how-to-choose.md")
    choices = set()
    for name, thing in vars(dx).items():
        is_teacher = inspect.isclass(thing) and issubclass(thing, dx.Learning)
        is_unit = hasattr(dx.activations, name) and not inspect.ismodule(thing)
        if name[0] != "_" and (is_teacher or is_unit):
            choices.add(name)
    choices -= {"Learning", "Activation", "elementwise"}  # what others are made of
    assert {"BackpropLearning", "leaky", "sign"} < choices
    missing = [name for name in choices if not re.search(rf"`[^`]*dx\.{name}\b", page)]
    assert sorted(missing) == []


def test_the_version_to_cite_is_that_of_the_package():
    version = dx.__version__
    cff = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", cff, re.MULTILINE) == [version]
    page = (ROOT / "docs" / "citation.md").read_text()
    assert re.findall(r"version = \{(.*)\}", page) == [version]


def test_a_broken_promise_is_noticed():
    with pytest.raises(
        AssertionError, match=r"a page, line 3: \(2,\) was promised, but it is \(3,\)"
    ):
        run("import numpy as np\nnp.zeros(3).shape  # (2,)", {}, "a page", before=1)
