"""The history of a training: its scores, epoch by epoch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np

from darnax import _html, _text, checks
from darnax._text import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 12
"""The most epochs that a notebook shows."""

Row: TypeAlias = dict[str, float]
"""The scores of one epoch by name."""


class History(Sequence[Row]):
    """The scores of every epoch: `history["accuracy"]` is a column, `history[-1]` the last row.

    A column that an epoch does not have is NaN there.

    **Arguments:**

    - `rows`: one mapping from names of scores to numbers for each epoch.

    Raises `TypeError` for anything else.

    !!! example

        ```python
        history = dx.History([{"accuracy": 0.5}, {"accuracy": 0.75}])
        history["accuracy"].tolist()  # [0.5, 0.75]
        ```
    """

    @checks.by_hand
    def __init__(self, rows: Iterable[Mapping[str, float]] = ()):
        holds = "a list of mappings from names of scores to numbers"
        if isinstance(rows, (str, Mapping)) or not isinstance(rows, Iterable):
            checks.refuse("rows", holds, rows, "give one mapping an epoch")
        self.rows: list[Row] = []
        for row in rows:
            checks.mapping("rows", row, "names of scores to numbers, one an epoch")
            for name, value in row.items():
                if not isinstance(name, str) or not _is_number(value):
                    advice = "give a number, or NaN where there is none"
                    checks.refuse("rows", holds, {name: value}, advice)
            # a copy: what the user does to the row later does not change the history
            self.rows.append(dict(row))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, key: int, /) -> Row: ...
    @overload
    def __getitem__(self, key: slice, /) -> list[Row]: ...
    @overload
    def __getitem__(self, key: str, /) -> np.ndarray: ...
    @checks.by_hand
    def __getitem__(self, key: str | int | slice, /) -> np.ndarray | Row | list[Row]:
        if isinstance(key, str):
            return self._column(key)
        # a list knows what an index may be; only its words are of lists, and not of epochs
        try:
            return self.rows[key]
        except TypeError:
            holds = "the name of a score, or the number of an epoch"
            checks.refuse("key", holds, key, "give one of them")
        except IndexError:
            raise IndexError(f"there is no epoch {key!r}: the history has {len(self)}") from None

    def _column(self, name: str) -> np.ndarray:
        if name not in self.names:
            there = _text.names(self.names) or "no numbers yet"
            raise KeyError(f"no epoch has {name!r}; there are {there}")
        return np.asarray([row.get(name, np.nan) for row in self.rows])

    def extended(self, row: Row) -> "History":
        """The history with one epoch more."""
        # past the checks of `__init__`: those of all earlier rows would be made anew every epoch
        longer = History()
        longer.rows = [*self.rows, row]
        return longer

    @property
    def names(self) -> list[str]:
        """The names of all columns, in order of first use."""
        # rows may differ: a run that goes on may have been given other `validation`
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row))
        return list(names)

    def __repr__(self) -> str:
        last = "empty"
        if self.rows:
            scores = [f"{name} {value:.4g}" for name, value in self.rows[-1].items()]
            last = ", ".join(scores)
        return f"History({len(self)} epochs; {last})"

    def _repr_html_(self) -> str:
        """The last epochs, for notebooks."""
        names = self.names
        rows: list[tuple[object, ...]] = []
        for epoch in range(max(0, len(self) - SHOWN), len(self)):
            row = self.rows[epoch]
            rows.append((epoch + 1, *(f"{row[name]:.4g}" if name in row else "" for name in names)))
        table = _html.table(Table(("epoch", *names), rows))
        earlier = f"the last {SHOWN} of " if len(self) > SHOWN else ""
        return _html.page(f"History: {earlier}{len(self)} epochs", [table])

    def to_json(self) -> str:
        """All rows as JSON text."""
        # numbers of NumPy are none of JSON
        return json.dumps(self.rows, default=lambda number: number.item())

    @classmethod
    @checks.by_hand
    def from_json(cls, text: str) -> "History":
        """The history that `to_json` wrote; `ValueError` or `TypeError` for another text."""
        return cls(json.loads(text))

    @checks.by_hand
    def plot(self, axes: "Axes | Sequence[Axes] | np.ndarray | None" = None) -> "Figure":
        """A figure of every score over the epochs, training and validation in one panel.

        **Arguments:**

        - `axes`: as many matplotlib axes as there are scores; None makes a figure.

        Raises `ValueError` or `TypeError` for other axes, and if there is nothing to plot.
        """
        names = self.names
        # a score of validation shares the panel of the same score in training
        alone = [name.removeprefix("validation ") for name in names]
        scores = list(dict.fromkeys(alone))
        if not scores:
            raise ValueError(
                "the history is empty, and there is nothing to plot; train for at least one epoch"
            )
        # Pictures are above learning, and most histories are never plotted.
        from darnax.plots import history

        panels = _panels(axes, scores)
        for panel, score in zip(panels, scores, strict=True):
            columns = [name for name in (score, f"validation {score}") if name in names]
            history(self, columns, ax=panel)
            panel.set(title=score, ylabel="")
            panel.legend(frameon=False)
        return panels[0].figure


def _panels(axes: object, scores: list[str]) -> np.ndarray:
    """One matplotlib axes for each score: those that are given, or new ones in a row."""
    # matplotlib takes long to import, and most histories are never plotted
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    if axes is None:
        size = (3.5 * len(scores), 3)
        _, axes = plt.subplots(1, len(scores), figsize=size, layout="constrained")
    # one axes, a list of them, or the grid that `plt.subplots` gives
    panels = np.ravel(np.asarray(axes))
    if not all(isinstance(panel, Axes) for panel in panels):
        advice = "give them as from plt.subplots(1, n)[1]"
        checks.refuse("axes", "one matplotlib axes or several", axes, advice)
    if len(panels) != len(scores):
        raise ValueError(
            f"`axes` are {len(panels)}, but there are {len(scores)} scores: {scores}; give one each"
        )
    return panels


def _is_number(value: object) -> bool:
    # Python takes True for 1
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
