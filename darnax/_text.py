"""Words for error messages, and tables for summaries."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import islice
from typing import Any, NamedTuple


def listing(items: Iterable[object], limit: int = 20) -> str:
    """Offenders in one line: all of them up to `limit`, then how many more there are."""
    items = list(items)
    words: list[str] = []
    for item in items[:limit]:
        # A str is a word already; `repr` would put quotes around it.
        to_word = str if isinstance(item, str) else repr
        words.append(to_word(item))
    return _in_one_line(words, len(items))


def names(items: Iterable[object]) -> str:
    """Names as Python would write them, in one line."""
    return listing(map(repr, items))


def arrays(items: Mapping[Any, object], limit: int = 12) -> str:
    """Arrays by name in one line, as their types and shapes."""
    words: list[str] = []
    for name, value in islice(items.items(), limit):
        words.append(f"{name!r}: {_array(value)}")
    return _in_one_line(words, len(items))


def _in_one_line(words: Sequence[str], count: int) -> str:
    """The first words of `count`, and how many more there are."""
    line = ", ".join(words)
    more = count - len(words)
    return f"{line} and {more} more" if more else line


def _array(value: object) -> str:
    dtype = getattr(value, "dtype", None)
    shape = getattr(value, "shape", None)
    # After `jax.tree.map` any object may stand where an array stood.
    if dtype is None or shape is None:
        return type(value).__name__
    return f"{dtype}{list(shape)}"


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known word that a word is a slip of; None for none.

    Slips are another case, letters exchanged, and a letter too many or too few.
    """
    lower = word.lower()
    for right in known:
        # Words of other first letters are no slips, or "lore" would be one of "role".
        if word == right or lower[:1] != right[:1]:
            continue
        exchanged = sorted(lower) == sorted(right)
        similar = SequenceMatcher(None, lower, right).ratio() > 0.85
        if exchanged or similar:
            return right
    return None


class Table(NamedTuple):
    """The words of a table, whichever way it is shown."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    limit: int = 40,
) -> str:
    """Columns aligned on spaces; past `limit` rows a count of the rest."""
    rows = list(rows)
    lines = [list(header)]
    lines += [list(map(str, row)) for row in rows[:limit]]
    # A column is as wide as its widest cell, among those that are shown.
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    text = [_aligned(cells, widths) for cells in lines]
    if len(rows) > limit:
        text.append(f"... and {len(rows) - limit} more")
    return "\n".join(text)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = map(str.ljust, cells, widths)
    return "  ".join(padded).rstrip()
