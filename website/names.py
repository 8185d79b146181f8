"""What is public, and the page of the reference that it stands on.

It is read off the source: what a package imports as `from x import Name as Name`, what it defines
itself without an underscore, and the `__all__` of a single module. So a new name is on its page
without a list that somebody would have to keep.
"""

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
    Subject("pictures.md", "Pictures", ("darnax.plots", "darnax.diagrams"), "pictures.md"),
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
            found.update(
                {alias.asname or alias.name: statement.module for alias in statement.names}
            )
        found.update(dict.fromkeys(names_of(statement)))
    return found


def origin(module: str, name: str) -> str | None:
    """The path where a name of a module is defined; None for modules, and what is not of darnax."""
    while name in defined(module):
        earlier = defined(module)[name]
        if earlier is None:
            return f"{module}.{name}"
        # `from darnax import plots`, in darnax itself
        if earlier == module or earlier.partition(".")[0] != "darnax":
            break
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


def types() -> list[Name]:
    """The named types of the signatures of all public names, and of each other."""
    found: dict[str, Name] = {}
    waiting = [name.path for name in public_names()]
    known = set(waiting)
    while waiting:
        module, _, name = waiting.pop(0).rpartition(".")
        for word in words_of_types(module, name):
            path = origin(module, word)
            if path is not None and path not in known and first_sentence(path) and is_type(path):
                known.add(path)
                found[path] = Name(path, (path,), first_sentence(path))
                waiting.append(path)
    return list(found.values())


def statement_of(path: str) -> ast.stmt | None:
    """What defines the name at a path; of overloads the last one."""
    module, _, name = path.rpartition(".")
    found = [statement for statement in parsed(module).body if name in names_of(statement)]
    return found[-1] if found else None


def is_type(path: str) -> bool:
    """Whether a name stands for a type, as in `Clamp: TypeAlias = ...`."""
    statement = statement_of(path)
    return isinstance(statement, ast.AnnAssign) and ast.unparse(statement.annotation) == "TypeAlias"


def words_of_types(module: str, name: str) -> list[str]:
    """The words in the types of a signature; of a class in those of its public methods."""
    statement = statement_of(f"{module}.{name}")
    parts = [statement]
    if isinstance(statement, ast.ClassDef):
        parts = [part for part in statement.body if not re.match(r"_(?!_)", function_name(part))]
    words = []
    for part in parts:
        for expression in types_in(part):
            nodes = ast.walk(expression)
            words.extend(node.id for node in nodes if isinstance(node, ast.Name))
    return words


def function_name(statement: ast.stmt) -> str:
    """The name of a function, and "" for what is none."""
    return statement.name if isinstance(statement, ast.FunctionDef) else ""


def types_in(statement: ast.stmt | None) -> list[ast.expr]:
    """The types of the parameters and the result of a function, or what a named type stands for."""
    found: list[ast.expr | None] = []
    if isinstance(statement, ast.FunctionDef):
        arguments = statement.args
        found.append(statement.returns)
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            found.append(argument.annotation)
    elif isinstance(statement, ast.AnnAssign):
        found.append(statement.value)
    return [expression for expression in found if expression is not None]


def names_on(subject: Subject) -> list[Name]:
    """The names of a page: first those of `dx` itself; in the order of the subject's modules."""

    def rank(name: Name) -> tuple[bool, int]:
        module = next(i for i, m in enumerate(subject.modules) if name.path.startswith(f"{m}."))
        return name.title.count(".") > 1, module

    return sorted((name for name in public_names() if name.subject is subject), key=rank)
