"""Tables and pages as HTML fragments, for notebooks.

Styles stand in the elements, since notebooks share one page and a style sheet would reach out of
its cell. Colours are those of the page, so that dark ones stay dark. Every text is escaped here, in
one place: names come from users and their files.
"""

import html
from collections.abc import Iterable, Sequence

from darnax._text import Table

CELL = "padding:2px 8px;text-align:left;vertical-align:top;border:none;white-space:nowrap"
LINE = "border-bottom:1px solid rgba(128,128,128,0.5)"


def text(value: object) -> str:
    """A value as HTML: markup in it is letters, and what no page may hold is replaced."""
    letters: list[str] = []
    for letter in str(value):
        shown = letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        letters.append(shown)
    return html.escape("".join(letters))


def table(given: Table, limit: int = 20) -> str:
    """A table; past `limit` rows a count of the rest."""
    rows = list(given.rows)
    lines = [_row("th", given.header, f"{CELL};{LINE}")]
    lines += [_row("td", row, CELL) for row in rows[:limit]]
    if len(rows) > limit:
        words = f"... and {len(rows) - limit} more"
        lines.append(f'<tr><td colspan="{len(given.header)}" style="{CELL}">{words}</td></tr>')
    style = "border-collapse:collapse;font-size:0.85em;margin:4px 0"
    return f'<table style="{style}">{"".join(lines)}</table>'


def _row(tag: str, cells: Sequence[object], style: str) -> str:
    parts = [f'<{tag} style="{style}">{text(cell)}</{tag}>' for cell in cells]
    return f"<tr>{''.join(parts)}</tr>"


def page(title: object, parts: Iterable[str]) -> str:
    """A fragment: a bold line, and parts below it that are HTML already."""
    scroll = "overflow-x:auto;max-width:100%"
    return f'<div style="{scroll}"><div><b>{text(title)}</b></div>{"".join(parts)}</div>'


def folded(title: object, part: str) -> str:
    """A part that is shown when its title is clicked."""
    return f"<details><summary>{text(title)}</summary>{part}</details>"
