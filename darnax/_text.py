"""Words for error messages and tables for summaries."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import islice
from typing import Any


def listing(items: Iterable[object], limit: int = 20) -> str:
    """Offenders in one line: every one of them, up to `limit`, then a count."""
    items = list(items)
    words = [str(item) if isinstance(item, str) else repr(item) for item in items[:limit]]
    return ", ".join(words) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def names(items: Iterable[object]) -> str:
    """Names as Python would write them, in one line."""
    return listing(repr(item) for item in items)


def arrays(items: Mapping[Any, Any], limit: int = 12) -> str:
    """Arrays by name in one line, as their types and shapes."""
    words = [f"{name!r}: {_array(value)}" for name, value in islice(items.items(), limit)]
    return ", ".join(words) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def _array(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known word that a word is a slip of; None for none.

    Slips are another case, letters exchanged, and a letter too many or too few.
    """
    for right in known:
        lower = word.lower()
        exchanged = sorted(lower) == sorted(right)
        close = SequenceMatcher(None, lower, right).ratio() > 0.85
        if word != right and lower[:1] == right[:1] and (exchanged or close):
            return right
    return None


def table(header: Sequence[str], rows: Iterable[Sequence[object]], limit: int = 40) -> str:
    """Columns aligned on spaces; past `limit` rows a count of the rest."""
    rows = list(rows)
    cells = [list(header)] + [[str(cell) for cell in row] for row in rows[:limit]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    if len(rows) > limit:
        lines.append(f"... and {len(rows) - limit} more")
    return "\n".join(lines)
