"""What a training run went through, epoch by epoch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from darnax import checks


class History(Sequence):
    """One row of numbers an epoch; `history["accuracy"]` is a column, `history[-1]` the last row.

    A column that an epoch does not have is NaN there.

    **Arguments:**

    - `rows`: mappings from names to numbers.

    !!! example

        ```python
        history = dx.History([{"accuracy": 0.5}, {"accuracy": 0.75}])
        history["accuracy"].tolist()  # [0.5, 0.75]
        ```
    """

    def __init__(self, rows: Any = ()):
        holds = "a list of mappings from names of scores to numbers"
        if isinstance(rows, (str, Mapping)) or not isinstance(rows, Iterable):
            checks.refuse("rows", holds, rows, "give one mapping an epoch")
        self.rows: list[dict[str, Any]] = []
        for row in rows:
            row = checks.mapping("rows", row, "names of scores to numbers, one an epoch")
            wrong = [
                name
                for name, value in row.items()
                if not (isinstance(name, str) and _is_number(value))
            ]
            if wrong:
                came = {name: row[name] for name in wrong}
                checks.refuse("rows", holds, came, "give a number, or NaN where there is none")
            self.rows.append(dict(row))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self._row(key)
        if key not in self.names:
            raise KeyError(
                f"no epoch has {key!r}; there are "
                f"{', '.join(map(repr, self.names)) or 'no numbers yet'}"
            )
        return np.asarray([row.get(key, np.nan) for row in self.rows])

    def extended(self, row: dict[str, float]) -> "History":
        """The history with one epoch more."""
        longer = History()
        longer.rows = [*self.rows, row]
        return longer

    def _row(self, key: Any) -> Any:
        """The row of an epoch, or several of them."""
        try:
            return self.rows[key]
        except TypeError:
            checks.refuse(
                "key", "the name of a score, or the number of an epoch", key, "give one of them"
            )
        except IndexError:
            raise IndexError(f"there is no epoch {key!r}: the history has {len(self)}") from None

    @property
    def names(self) -> list[str]:
        """The names of all columns, in order of first use."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __repr__(self) -> str:
        last = (
            ", ".join(f"{name} {value:.4g}" for name, value in self.rows[-1].items())
            if self.rows
            else "empty"
        )
        return f"History({len(self)} epochs; {last})"

    def to_json(self) -> str:
        """All rows as JSON text."""
        return json.dumps(self.rows)

    def plot(self, axes: Any = None) -> Any:
        """Every score over epochs, training and validation in one panel; returns the matplotlib
        figure.

        **Arguments:**

        - `axes`: as many matplotlib axes as there are scores; None makes a figure.

        Raises `ValueError` or `TypeError` for other axes, and if there is nothing to plot.
        """
        import matplotlib.pyplot as plt

        scores = list(dict.fromkeys(name.removeprefix("validation ") for name in self.names))
        if not scores:
            raise ValueError(
                "the history is empty, and there is nothing to plot; train for at least one epoch"
            )
        if axes is None:
            _, axes = plt.subplots(
                1, len(scores), figsize=(3.5 * len(scores), 3), layout="constrained", squeeze=False
            )
        axes = np.ravel(np.asarray(axes))
        if not all(hasattr(ax, "plot") for ax in axes):
            checks.refuse(
                "axes",
                "one matplotlib axes or several",
                axes,
                "give them as from plt.subplots(1, n)[1]",
            )
        if len(axes) != len(scores):
            raise ValueError(
                f"`axes` are {len(axes)}, but there are {len(scores)} scores: {scores}; give one "
                "each"
            )
        epochs = np.arange(1, len(self) + 1)
        for ax, score in zip(axes, scores, strict=True):
            for name, style in ((score, "-"), (f"validation {score}", "--")):
                if name in self.names:
                    ax.plot(epochs, self[name], style, label=name)
            ax.set(xlabel="epoch", title=score)
            ax.legend(frameon=False)
        return axes[0].figure


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
