"""The reference: a page for each subject, with every public name of its modules.

What is public is read off the source: what a package imports as `from x import Name as Name`, what
it defines itself without an underscore, and the `__all__` of a single module. So a new name is on
its page without a list that somebody would have to keep.

mkdocstrings knows an object by the module that defines it, such as `darnax.dynamics.relax.relax`;
users know it as `dx.relax`. The shorter name gets an anchor and an entry in `objects.inv` as well.
In all pages, code that begins with a public name leads to it.
"""

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parent.parent
DOCUMENTED = (ast.FunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Subject:
    """A page of the reference.

    **Fields:**

    - `page`: its file below `reference/`.
    - `modules`: whose names stand on it.
    - `guide`: the page of docs/ that explains them.
    """

    page: str
    title: str
    modules: tuple[str, ...]
    guide: str


# A name belongs to the first subject that has the module it is defined in, or a package of that.
SUBJECTS = [
    Subject("topologies.md", "Topologies", ("darnax.topologies",), "topologies.md"),
    Subject("states.md", "States", ("darnax.states",), "states.md"),
    Subject(
        "networks.md",
        "Networks and couplings",
        ("darnax.network", "darnax.couplings"),
        "networks.md",
    ),
    Subject("activations.md", "Activations", ("darnax.activations",), "networks.md"),
    Subject(
        "analysis.md",
        "Energy and analysis",
        ("darnax.dynamics.energy", "darnax.analysis"),
        "analysis.md",
    ),
    Subject("dynamics.md", "Dynamics", ("darnax.dynamics",), "dynamics.md"),
    Subject("sampling.md", "Sampling", ("darnax.sampling",), "sampling.md"),
    Subject("learning.md", "Learning", ("darnax.learning",), "learning.md"),
    Subject("files.md", "Files", ("darnax.files",), "files.md"),
    Subject("pictures.md", "Pictures", ("darnax.plots",), "pictures.md"),
    Subject("testing.md", "Testing", ("darnax.testing",), "testing.md"),
    Subject("kernels.md", "Kernels", ("darnax.kernels",), "kernels.md"),
]
# Modules whose names users call. Of those that are left out, `darnax.diagrams`, `checks`, `noise`
# and `static`, no page tells.
MODULES = [
    "darnax",
    "darnax.analysis",
    "darnax.couplings",
    "darnax.dynamics",
    "darnax.files",
    "darnax.kernels",
    "darnax.learning",
    "darnax.learning.callbacks",
    "darnax.network",
    "darnax.plots",
    "darnax.sampling",
    "darnax.states",
    "darnax.testing",
    "darnax.topologies",
]
# how users reach a module other than by its path
SHORT = {"darnax.learning.callbacks": "darnax.callbacks"}


@dataclass(frozen=True)
class Name:
    """A public name.

    **Fields:**

    - `path`: where it is defined, `darnax.dynamics.relax.relax`.
    - `public`: where users find it, the shortest first: `darnax.relax`, `darnax.dynamics.relax`.
    - `first`: the first sentence of its docstring.
    """

    path: str
    public: tuple[str, ...]
    first: str

    @property
    def title(self) -> str:
        """As users write it."""
        return self.public[0].replace("darnax.", "dx.", 1)

    @property
    def subject(self) -> Subject:
        """The page that it stands on."""
        for subject in SUBJECTS:
            if self.path.startswith(tuple(f"{module}." for module in subject.modules)):
                return subject
        raise LookupError(f"{self.path} is on no page: SUBJECTS of {__file__} has no module of it")


def source_of(module: str) -> Path | None:
    """The file of a module, or None where there is none."""
    path = ROOT.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.exists():
            return file
    return None


@cache
def parsed(module: str) -> ast.Module:
    """The source of a module."""
    file = source_of(module)
    if file is None:
        raise LookupError(f"there is no module {module}")
    return ast.parse(file.read_text())


def exported(module: str) -> dict[str, str]:
    """By public name of a module, the path where it is defined; in the order of the source."""
    found: dict[str, str] = {}
    for statement in parsed(module).body:
        if "__all__" in names_of(statement):
            return {name: f"{module}.{name}" for name in ast.literal_eval(statement.value)}
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if alias.name != alias.asname:
                    continue  # imported for the module's own use
                path = origin(str(statement.module), alias.name)
                if path is not None:
                    found[alias.name] = path
        for name in names_of(statement):
            if not name.startswith("_"):
                found[name] = f"{module}.{name}"
    return found


def names_of(statement: ast.stmt) -> list[str]:
    """What a statement of a module defines for others: a function, a class, a named constant."""
    if isinstance(statement, DOCUMENTED):
        return [statement.name]
    targets = []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    return [target.id for target in targets if isinstance(target, ast.Name)]


@cache
def defined(module: str) -> dict[str, str | None]:
    """By name, the module that a module has it from, or None for its own."""
    found: dict[str, str | None] = {}
    for statement in parsed(module).body:
        if isinstance(statement, ast.ImportFrom):
            found.update({alias.asname or alias.name: statement.module for alias in statement.names})
        found.update(dict.fromkeys(names_of(statement)))
    return found


def origin(module: str, name: str) -> str | None:
    """The path where a name of a module is defined; None for a module of a package."""
    while name in defined(module):
        earlier = defined(module)[name]
        if earlier is None:
            return f"{module}.{name}"
        if earlier == module:
            break  # `from darnax import plots`, in darnax itself
        module = earlier
    return None


def first_sentence(path: str) -> str:
    """The first sentence of the docstring of what is defined at a path, or ""."""
    module, _, name = path.rpartition(".")
    before: ast.stmt | None = None
    docstring = ""
    for statement in parsed(module).body:
        if isinstance(statement, DOCUMENTED) and statement.name == name:
            docstring = ast.get_docstring(statement) or ""  # of overloads the last one has it
        elif is_text(statement) and before is not None and name in names_of(before):
            docstring = inspect.cleandoc(ast.literal_eval(statement.value))
        before = statement
    paragraph = docstring.partition("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=\.) ", paragraph)[0]


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a string, as is the docstring of a constant before it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@cache
def public_names() -> list[Name]:
    """All public names, in the order of the modules and their sources."""
    where: dict[str, list[str]] = {}
    for module in MODULES:
        for name, path in exported(module).items():
            where.setdefault(path, []).append(f"{SHORT.get(module, module)}.{name}")
    return [Name(path, tuple(public), first_sentence(path)) for path, public in where.items()]


def page_of(subject: Subject) -> str:
    """The Markdown of a page: a table of its names, and each of them."""
    names = [name for name in public_names() if name.subject is subject]
    rows = "\n".join(f"| [`{name.title}`](#{name.public[0]}) | {name.first} |" for name in names)
    parts = [
        f"# {subject.title}",
        f"The guide is [{subject.guide}](../{subject.guide}).",
        f"| name | what it is |\n|---|---|\n{rows}",
    ]
    for name in names:
        anchors = "".join(f"[](){{#{public}}}" for public in name.public if public != name.path)
        parts.append(f"{anchors}\n\n::: {name.path}\n    options:\n      heading: {name.title}")
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """The Markdown of the first page: all names by subject."""
    parts = [
        "# Reference",
        "Every public name; `import darnax as dx` is taken for granted. Shapes stand in the types: "
        '`Float[Array, "batch units"]` is an array of floats with two axes, by the conventions of '
        "jaxtyping.",
    ]
    for subject in SUBJECTS:
        links = [
            f"[`{name.title}`]({subject.page}#{name.public[0]})"
            for name in public_names()
            if name.subject is subject
        ]
        parts.append(f"## [{subject.title}]({subject.page})\n\n{' · '.join(links)}")
    return "\n\n".join(parts) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {"index.md": index()}
    for subject in SUBJECTS:
        pages[subject.page] = page_of(subject)
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}", content=text))
    return files


def address(name: Name) -> str:
    """Its place on the site."""
    return f"reference/{name.subject.page.removesuffix('.md')}/#{name.public[0]}"


@cache
def addresses() -> dict[str, str]:
    """The place on the site of every public name, under each of its paths."""
    return {public: address(name) for name in public_names() for public in name.public}


# Headings, links and blocks stay as they are; what is left are words of code in the text.
CODE = re.compile(
    r"<h\d.*?</h\d>|<a\b.*?</a>|<pre.*?</pre>|<code>(?P<path>(?:dx|darnax)\.[\w.]+)[^<]*</code>",
    re.DOTALL,
)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Code that begins with a public name is a link to it."""

    def link(match: re.Match[str]) -> str:
        if match["path"] is None:
            return match[0]
        path = re.sub("^dx", "darnax", match["path"])
        while path not in addresses() and "." in path:
            path = path.rpartition(".")[0]  # a method, or a field
        if path not in addresses():
            return match[0]
        return f'<a href="{get_relative_url(addresses()[path], page.url)}">{match[0]}</a>'

    return CODE.sub(link, html)


# before mkdocstrings writes its inventory
@event_priority(100)
def on_env(env: object, config: MkDocsConfig, files: Files) -> None:
    """Enter the public names into `objects.inv`, by which other projects link to them."""
    inventory = config.plugins["mkdocstrings"].handlers.inventory
    for name in public_names():
        if name.path not in inventory:
            raise LookupError(f"{name.path} was not rendered")
        for public in name.public:
            inventory.register(
                name=public, domain="py", role=inventory[name.path].role, uri=addresses()[public]
            )
