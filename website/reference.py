"""The reference: a page for each subject, with every public name of its modules.

mkdocstrings knows an object by the module that defines it, such as `darnax.dynamics.relax.relax`;
users know it as `dx.relax`. The shorter name gets an anchor and an entry in `objects.inv` as well.
In all pages, code that begins with a public name leads to it.

Types that signatures name, such as `Clamp`, stand below the names of a page: nobody imports them,
and a signature is not read without them.
"""

import re
from functools import cache

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from website.names import SUBJECTS, Name, Subject, names_on, public_names, types


def page_of(subject: Subject) -> str:
    """The Markdown of a page: a table of its names, and each of them."""
    names = names_on(subject)
    rows = "\n".join(f"| [`{name.title}`](#{name.public[0]}) | {name.first} |" for name in names)
    parts = [
        # whoever searches a name finds what it is before who uses it
        "---\nsearch: {boost: 2}\n---",
        f"# {subject.title}",
        f"The [guide](../{subject.guide}) tells how these work together.",
        f"| name | what it is |\n|---|---|\n{rows}\n{{ .names }}",
    ]
    for name in names:
        anchors = "".join(f"[](){{#{public}}}" for public in name.public if public != name.path)
        parts.append(f"{anchors}\n\n::: {name.path}\n    options:\n      heading: {name.title}")
    named = [name for name in types() if name.subject is subject]
    if named:
        parts.append("## Types\n\nWhat signatures call by a name.")
    for name in named:
        word = name.path.rpartition(".")[2]
        options = ["heading: " + word, "heading_level: 3", "show_labels: false"]
        options += ["show_symbol_type_heading: false", "show_symbol_type_toc: false"]
        parts.append("\n      ".join([f"::: {name.path}\n    options:", *options]))
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
        links = [f"[`{name.title}`]({subject.page}#{name.public[0]})" for name in names_on(subject)]
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
