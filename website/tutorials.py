"""Tutorials: notebooks that are kept as scripts in docs/tutorials, and run when the site is built.

A script in jupytext's percent format has text and code and no results, so that it can be reviewed
and merged. Its page is Markdown like all others: links are checked, code can be copied, and the
search finds it. The executed notebook lies beside it.
"""

import base64
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from traitlets.config import Config

from website.kept import kept

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "tutorials"

# Notebooks talk to their kernel through files; by TCP all others on the machine could listen.
SOCKETS = {"transport": "ipc"}


def run(script: Path) -> Path:
    """The executed notebook of a script."""

    def make(folder: Path):
        notebook = jupytext.read(script)
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        # a notebook may write files: not beside its page
        with tempfile.TemporaryDirectory() as elsewhere:
            client = NotebookClient(
                notebook,
                resources={"metadata": {"path": elsewhere}},
                config=Config({"KernelManager": SOCKETS | {"ip": f"{elsewhere}/kernel"}}),
            )
            # under another backend pictures would not be in the notebook
            client.execute(env={k: v for k, v in os.environ.items() if k != "MPLBACKEND"})
        nbformat.write(notebook, folder / f"{script.stem}.ipynb")

    return kept(f"tutorial-{script.stem}", script, make) / f"{script.stem}.ipynb"


def page_of(notebook: nbformat.NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """The Markdown of an executed notebook, and its pictures by name."""
    pictures: dict[str, bytes] = {}
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.source:
            parts.append(f"~~~~~~ {{.python }}\n{cell.source}\n~~~~~~")
            parts.extend(shown(output, name, pictures) for output in cell.outputs)
    files = f"[The executed notebook]({name}.ipynb), and [the script] that it is kept as."
    # defined apart from the text, where links to scripts lead to pages
    return "\n\n".join([*parts, files, f"[the script]: {name}.py"]) + "\n", pictures


def shown(output: nbformat.NotebookNode, name: str, pictures: dict[str, bytes]) -> str:
    """The Markdown of what a cell printed, drew or had as its last value."""
    if output.output_type == "stream":
        return printed(output.text)
    data = output.data
    if "image/png" in data:
        picture = f"{name}-{len(pictures) + 1}.png"
        pictures[picture] = base64.b64decode(data["image/png"])
        return f"![What the cell above draws]({picture}){{ .picture }}"
    if "text/html" in data:
        return f'<div class="shown">\n{data["text/html"].strip()}\n</div>'
    return printed(data["text/plain"])


def printed(text: str) -> str:
    """Text as it is, below the code that printed it."""
    return f"~~~~~~ {{.text .printed }}\n{text.rstrip()}\n~~~~~~"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Run the scripts, and add their pages, pictures and notebooks."""
    scripts = sorted(FOLDER.glob("*.py"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        notebooks = list(pool.map(run, scripts))
    for script, path in zip(scripts, notebooks, strict=True):
        name = script.stem
        text, pictures = page_of(nbformat.read(path, as_version=4), name)
        files.append(File.generated(config, f"tutorials/{name}.md", content=text))
        files.append(File.generated(config, f"tutorials/{name}.ipynb", abs_src_path=str(path)))
        for picture, data in pictures.items():
            files.append(File.generated(config, f"tutorials/{picture}", content=data))
    return files
