"""What a training run went through, epoch by epoch."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class History(Sequence):
    """One row of numbers an epoch; `history["accuracy"]` is a column, `history[-1]` the last row.

    A column that an epoch does not have is NaN there.
    """

    def __init__(self, rows: Sequence[Mapping[str, float]] = ()):
        self.rows = [dict(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.rows[key]
        if key not in self.names:
            raise KeyError(f"no epoch has {key!r}; there are {', '.join(map(repr, self.names)) or 'no numbers yet'}")
        return np.asarray([row.get(key, np.nan) for row in self.rows])

    @property
    def names(self) -> list[str]:
        """The names of all columns, in order of first use."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.rows[-1].items()) if self.rows else "empty"
        return f"History({len(self)} epochs; {last})"

    def to_json(self) -> str:
        """All rows as JSON text."""
        return json.dumps(self.rows)

    def plot(self, axes: Any = None) -> Any:
        """Every score over epochs, training and validation in one panel; returns the matplotlib figure.

        **Arguments:**

        - `axes`: as many matplotlib axes as there are scores; None makes a figure.
        """
        import matplotlib.pyplot as plt

        scores = list(dict.fromkeys(name.removeprefix("validation ") for name in self.names))
        if axes is None:
            _, axes = plt.subplots(1, len(scores), figsize=(3.5 * len(scores), 3), layout="constrained", squeeze=False)
        axes = np.ravel(np.asarray(axes))
        if len(axes) != len(scores):
            raise ValueError(f"`axes` are {len(axes)}, but there are {len(scores)} scores: {scores}; give one each")
        epochs = np.arange(1, len(self) + 1)
        for ax, score in zip(axes, scores, strict=True):
            for name, style in ((score, "-"), (f"validation {score}", "--")):
                if name in self.names:
                    ax.plot(epochs, self[name], style, label=name)
            ax.set(xlabel="epoch", title=score)
            ax.legend(frameon=False)
        return axes[0].figure
