"""Callbacks: functions that are called after every epoch, may end the training, and keep records.

A record of scores is the history, written down. It is written from the history as a whole wherever
the two may differ, as after a resumption: a run that was stopped and went on has the same record as
one that was never stopped.
"""

import csv as csv_format
import importlib.util
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from darnax import _text, checks
from darnax._lazy import Lazy
from darnax.files.writing import FilePath, as_path, check_writable, part, replace
from darnax.learning.history import History, Row
from darnax.network.network import Network

__all__ = ["Callback", "csv", "early_stopping", "tensorboard"]

# a package that need not be there
tensorboardX = Lazy("tensorboardX")
Callback: TypeAlias = Callable[[Network, History], bool | None]
"""A function of the network and the history after an epoch; True ends the training."""


# no closure: `fit` reads its score, to refuse one that no epoch has before an hour has gone by
@dataclass(frozen=True)
class EarlyStopping:
    """See `early_stopping`."""

    score: str
    patience: int
    larger: bool

    def check(self, scores: Collection[str]):
        """Raise `ValueError` for a score that is none of those that an epoch will have."""
        if self.score not in scores:
            raise ValueError(
                f"`score` of early stopping is {self.score!r}, which no epoch will have; there "
                f"will be {_text.names(scores)}, and those of `validation` if it is given"
            )

    def __call__(self, network: Network, history: History) -> bool:
        values = history[self.score]
        if not self.larger:
            values = -values
        # an epoch in which the score is NaN was no better than any other
        values = np.where(np.isnan(values), -np.inf, values)
        # the first of equal ones: to be as good as before is not to be better
        best = int(np.argmax(values))
        return len(values) - 1 - best >= self.patience


@checks.by_hand
def early_stopping(score: str, patience: int, larger: bool = True) -> EarlyStopping:
    """A callback that ends training when a score has not been better for `patience` epochs.

    It looks at the history alone, so that a resumed run ends in the same epoch as one that never
    stopped.

    **Arguments:**

    - `score`: the name of a column of the history.
    - `patience`: a number of epochs, at least 1.
    - `larger`: whether larger is better.

    !!! example

        ```python
        callbacks = [dx.early_stopping("validation accuracy", patience=5)]
        ```
    """
    score = checks.text("score", score, 'the name of a score such as "validation accuracy"')
    patience = checks.count("patience", patience, 1)
    return EarlyStopping(score, patience, checks.flag("larger", larger))


class CsvLog:
    """See `csv`."""

    def __init__(self, path: Path):
        self.path = path
        self._rows: list[Row] = []
        self._names: list[str] = []

    def __call__(self, network: object, history: History):
        # the last epoch is one line more, unless the file is of other epochs or lacks a column
        follows = history.rows[:-1] == self._rows and history.names == self._names
        if follows and self.path.exists():
            with self.path.open("a", newline="") as file:
                self._write(file, history, len(history) - 1)
        else:
            with part("path", self.path) as (file, target):
                text = TextIOWrapper(file, encoding="utf-8", newline="")
                csv_format.writer(text).writerow(["epoch", *history.names])
                self._write(text, history, 0)
                text.flush()
                replace(file, target)
                text.detach()
        self._rows, self._names = list(history.rows), history.names

    def _write(self, file: TextIOWrapper, history: History, start: int):
        """The rows of all epochs from the one after `start`."""
        lines = csv_format.DictWriter(file, ["epoch", *history.names])
        for i in range(start, len(history)):
            lines.writerow({"epoch": i + 1} | history.rows[i])


@checks.by_hand
def csv(path: FilePath) -> CsvLog:
    """A callback that keeps the history in a file of comma-separated values, a line an epoch.

    The first column is the epoch, from 1, and the others are named as those of the history. A line
    is there as soon as its epoch has ended.

    **Arguments:**

    - `path`: of the file; one that is there is replaced.

    Raises `OSError` that names the path if it cannot be written.

    !!! example

        ```python
        path = tempfile.mkdtemp() + "/history.csv"
        callbacks = [dx.callbacks.csv(path)]
        settings = {"epochs": 2, "key": key, "progress": False}
        run = dx.fit(network, learning, optimiser, x, y, callbacks=callbacks, **settings)
        np.genfromtxt(path, delimiter=",", names=True)["epoch"]  # [1, 2]
        ```
    """
    check_writable("path", path)
    return CsvLog(as_path("path", path))


class TensorboardLog:
    """See `tensorboard`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: Any = None
        self._rows: list[Row] = []

    def __call__(self, network: object, history: History):
        if self._writer is None or history.rows[:-1] != self._rows:
            # what an earlier run has written is hidden, and written once more
            self.close()
            self._writer = tensorboardX.SummaryWriter(str(self.folder), purge_step=1)
            self._rows = []
        for i in range(len(self._rows), len(history)):
            for name, value in history.rows[i].items():
                self._writer.add_scalar(_tag(name), value, i + 1)
        self._writer.flush()
        self._rows = list(history.rows)

    def close(self):
        """Close the file of events; the next epoch opens another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(score: str) -> str:
    """The name of a score to TensorBoard, which groups names by what stands before a slash."""
    name = score.removeprefix("validation ")
    group = "training" if name == score else "validation"
    return f"{group}/{name}".replace(" ", "_")


@checks.by_hand
def tensorboard(path: FilePath) -> TensorboardLog:
    """A callback that shows the history in TensorBoard, as `tensorboard --logdir` finds it.

    Scores are called `training/accuracy` and `validation/accuracy`; steps are epochs, from 1. What
    an earlier run has written to the folder is hidden, so that a run which goes on is one curve.

    **Arguments:**

    - `path`: of a folder, which is made if it is not there.

    Raises `ModuleNotFoundError` without tensorboardX, which `pip install 'darnax[loggers]'` brings.
    """
    folder = as_path("path", path)
    if importlib.util.find_spec("tensorboardX") is None:
        raise ModuleNotFoundError(
            "`tensorboard` writes with tensorboardX, which is not installed; "
            "pip install 'darnax[loggers]'"
        )
    return TensorboardLog(folder)


def as_callbacks(callbacks: object) -> tuple[Callback, ...]:
    """Callbacks as a tuple; `TypeError` for what cannot be called with a network and a history."""
    holds = "a list of functions (network, history)"
    if callable(callbacks):
        # `dx.early_stopping` itself is told to be called, and not to be put into a list
        checks.called("callbacks", callbacks)
        checks.refuse("callbacks", holds, callbacks, "write [callback]")
    result = checks.several("callbacks", callbacks, holds)
    for i, callback in enumerate(result):
        argument, holds = f"callbacks[{i}]", "a function (network, history)"
        checks.function(argument, callback, holds, "give one, such as dx.early_stopping(...)")
        checks.takes(argument, callback, 2, "(network, history)")
    return result


def early_stops(callbacks: Iterable[Callback]) -> list[EarlyStopping]:
    """The callbacks that look at a score, which every epoch must have."""
    return [callback for callback in callbacks if isinstance(callback, EarlyStopping)]


def ask(callbacks: Iterable[Callback], network: Network, history: History) -> bool:
    """Whether any callback ends the training; all of them are asked."""
    ends = False
    for i, callback in enumerate(callbacks):
        answer = callback(network, history)
        # a function without `return` goes on
        if answer is None:
            continue
        # a comparison of arrays gives a scalar array of bool
        if (
            isinstance(answer, (jax.Array, np.ndarray))
            and answer.shape == ()
            and answer.dtype == bool
        ):
            answer = bool(answer)
        ends |= checks.flag(f"callbacks[{i}](network, history)", answer)
    return ends
