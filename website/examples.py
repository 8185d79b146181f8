"""The gallery: every script of examples/ is run when the site is built, and has a page.

The page shows the text at the head of the script, the picture that it drew, what it printed, and
the script itself. Scripts run small, so that the site is built in minutes: what is written about
full runs stands in their text and in the guides.
"""

import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from website.kept import kept

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples"
PRINTED = "printed.txt"
SMALL = "--small"
# What a script is called with, where it is not `--small`
ARGUMENTS = {"digits": ["--epochs", "6"], "mnist": ["scikit_learn_digits.npz", "--epochs", "6"]}
# MNIST itself is not fetched: the script reads files, and these are written for it.
MNIST_LIKE = """
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

data = load_digits()
images = (data.images * 15.9).astype(np.uint8)
parts = train_test_split(images, data.target, test_size=0.2, random_state=0)
np.savez("scikit_learn_digits.npz", **dict(zip(["x_train", "x_test", "y_train", "y_test"], parts)))
"""


@dataclass(frozen=True)
class Example:
    """A script, and the text at its head."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the script without its ending."""
        return self.path.stem

    @property
    def page(self) -> str:
        """Its page on the site."""
        return f"examples/{self.name}.md"

    @property
    def text(self) -> str:
        """The docstring of the script."""
        return ast.get_docstring(ast.parse(self.path.read_text())) or ""

    @property
    def idea(self) -> str:
        """The first paragraph of the docstring, in one line."""
        return self.text.partition("\n\n")[0].replace("\n", " ")

    @property
    def title(self) -> str:
        """What comes before the colon of the idea."""
        return self.idea.partition(":")[0].rstrip(".")

    @property
    def subtitle(self) -> str:
        """What comes after it, or nothing."""
        rest = self.idea.partition(":")[2].strip()
        return rest[:1].upper() + rest[1:]

    @property
    def arguments(self) -> list[str]:
        """What it is called with when the site is built."""
        if self.name in ARGUMENTS:
            return ARGUMENTS[self.name]
        return [SMALL] if SMALL in self.path.read_text() else []


def examples() -> list[Example]:
    """All scripts, in the order in which the README names them."""
    readme = (ROOT / "README.md").read_text()
    found = [Example(path) for path in sorted(FOLDER.glob("*.py"))]
    return sorted(found, key=lambda example: readme.find(f"examples/{example.path.name}") % 10**9)


def run(example: Example) -> Path:
    """The folder with what the script printed and drew."""

    def make(folder: Path):
        if example.name == "mnist":
            call(["-c", MNIST_LIKE], folder)
        (folder / PRINTED).write_text(call([str(example.path), *example.arguments], folder))

    return kept(
        f"example-{example.name}", example.path, make, also=f"{example.arguments}{MNIST_LIKE}"
    )


def call(arguments: list[str], folder: Path) -> str:
    """What Python prints in a process of its own; an error of it ends the build."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments} failed:\n{done.stderr}")
    return done.stdout


def pictures(folder: Path) -> list[str]:
    """The names of the pictures that a script drew."""
    return sorted(path.name for path in folder.glob("*.png"))


def page_of(example: Example, folder: Path) -> str:
    """The Markdown of its page."""
    text = example.text.partition("\n\n")[2]
    drawn = [
        f"![What {example.path.name} draws]({name}){{ .picture }}" for name in pictures(folder)
    ]
    if example.arguments:
        drawn.append(f"Drawn here with `{' '.join(example.arguments)}`.\n{{ .caption }}")
    parts = [
        f"# {example.title}",
        example.subtitle,
        *drawn,
        text,
        "## What it prints",
        f"~~~~~~ {{.text }}\n{(folder / PRINTED).read_text()}~~~~~~",
        f"## {example.path.name} {{ data-search-exclude }}",
        f"~~~~~~ {{.python }}\n{example.path.read_text()}~~~~~~",
    ]
    return "\n\n".join(parts) + "\n"


def gallery(folders: dict[Example, Path]) -> str:
    """The Markdown of the page with all of them."""
    cards = []
    for example, folder in folders.items():
        picture = "".join(f"![]({name})" for name in pictures(folder)[:1])
        cards.append(
            f'<div class="card" markdown>\n\n[{picture}]({example.name}.md)\n\n'
            f"**[{example.title}]({example.name}.md)**\n\n"
            f"{example.subtitle}\n\n"
            f"[`{example.path.name}`]({example.name}.md#{example.path.stem}py)\n\n</div>"
        )
    parts = [
        "---\nhide: [toc]\n---",
        "# Examples",
        "Each is one idea in one script, which prints what it found and draws one picture. All of "
        "them were run when this site was built.",
        '<div class="cards" markdown>',
        *cards,
        "</div>",
    ]
    return "\n\n".join(parts) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Enter the scripts into the navigation."""
    for section in config.nav or []:
        if "Examples" in section:
            section["Examples"].extend({item.path.name: item.page} for item in examples())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Run the scripts, and add their pages and pictures."""
    found = examples()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        folders = dict(zip(found, pool.map(run, found), strict=True))
    files.append(File.generated(config, "examples/index.md", content=gallery(folders)))
    for example, folder in folders.items():
        files.append(File.generated(config, example.page, content=page_of(example, folder)))
        for name in pictures(folder):
            path = folder / name
            files.append(File.generated(config, f"examples/{name}", abs_src_path=str(path)))
    return files
