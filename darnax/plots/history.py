"""The picture of a training: its scores over the epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from darnax import _text, checks
from darnax.learning.history import History
from darnax.plots.axes import axes_of, plain, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VALIDATION = "validation "

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@checks.by_hand
def history(
    history: History | Mapping[str, History],
    scores: Sequence[str] | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Scores over the epochs: of training as solid lines, of validation as dashed ones.

    Several runs are compared by giving them by name.

    **Arguments:**

    - `history`: what `fit` returned, or several by name.
    - `scores`: the columns to draw; None for all whose values are shares, between 0 and 1, or for
      all if there are none.
    - `ax`: matplotlib axes; None makes a figure.

    Returns the axes. Raises `ValueError` for an empty history, and for scores that no run has.

    !!! example

        ```python
        history = dx.History([{"accuracy": 0.5, "steps": 9.0}, {"accuracy": 0.75, "steps": 4.0}])
        ax = dx.plots.history(history, ["accuracy"])
        ```
    """
    runs = _runs(history)
    columns = _columns(runs, scores)
    ax = axes_of(ax)
    plain(ax)
    for i, (run, rows) in enumerate(runs.items()):
        for name in columns:
            if name in rows.names:
                look = _look(columns, name, i if len(runs) > 1 else None)
                # A line of one point would not be seen.
                marker = "o" if len(rows) == 1 else look.marker
                epochs = np.arange(1, len(rows) + 1)
                ax.plot(
                    epochs,
                    rows[name],
                    look.style,
                    color=look.colour,
                    marker=marker,
                    label=_label(run, name, columns),
                )
    ax.set_xlabel("epoch")
    whole(ax.xaxis)
    if len(columns) == 1:
        ax.set_ylabel(columns[0], parse_math=False)
    # A single line is named by its axis.
    if len(columns) > 1 or len(runs) > 1:
        ax.legend(frameon=False)
    return ax


class _Look(NamedTuple):
    """How a line is drawn."""

    colour: str
    style: str
    marker: str


def _look(columns: Sequence[str], name: str, run: int | None) -> _Look:
    """The look of a score; `run` is the number of its run, where there are several."""
    score = name.removeprefix(VALIDATION)
    scores = list(dict.fromkeys(column.removeprefix(VALIDATION) for column in columns))
    style = "--" if name != score and score in columns else "-"
    if run is None:
        return _Look(f"C{scores.index(score) % 10}", style, "")
    # Colours tell runs apart, so that scores need markers.
    marker = MARKERS[scores.index(score) % len(MARKERS)] if len(scores) > 1 else ""
    return _Look(f"C{run % 10}", style, marker)


def _label(run: str, name: str, columns: Sequence[str]) -> str:
    words = [run] if len(columns) == 1 else [run, name]
    label = ": ".join(word for word in words if word) or name
    # matplotlib leaves lines out of the legend whose label begins so.
    return f" {label}" if label.startswith("_") else label


def _runs(history: object) -> dict[str, History]:
    """All histories by name; a single one has none."""
    if isinstance(history, History):
        return {"": _trained("history", history)}
    holds = "a darnax.History, or a mapping from names of runs to histories"
    if not isinstance(history, Mapping) or not history:
        checks.refuse("history", holds, history, "give what fit returned")
    runs: dict[str, History] = {}
    for name, run in history.items():
        argument = f"history[{name!r}]"
        advice = "give what fit returned"
        checks.instance(argument, run, History, "a darnax.History", advice)
        runs[str(name)] = _trained(argument, run)
    return runs


def _trained(argument: str, history: History) -> History:
    if not history.names:
        raise ValueError(
            f"`{argument}` is empty, and there is nothing to plot; train for at least one epoch"
        )
    return history


def _columns(runs: Mapping[str, History], scores: Sequence[str] | None) -> list[str]:
    """The names of the scores to draw."""
    known: dict[str, None] = {}
    for run in runs.values():
        known |= dict.fromkeys(run.names)
    if scores is None:
        return [name for name in known if _is_share(runs, name)] or list(known)
    wanted = list(dict.fromkeys(checks.names("scores", scores)))
    unknown = _text.names(name for name in wanted if name not in known)
    if unknown:
        raise ValueError(
            f"`scores` names {unknown}, which no epoch has; there are {_text.names(known)}"
        )
    if not wanted:
        raise ValueError(f"`scores` is empty; name some of {_text.names(known)}")
    return wanted


def _is_share(runs: Mapping[str, History], name: str) -> bool:
    """Whether all values of a score lie between 0 and 1."""
    for run in runs.values():
        if name in run.names:
            values = run[name][np.isfinite(run[name])]
            if ((values < 0) | (values > 1)).any():
                return False
    return True
