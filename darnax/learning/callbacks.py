"""Functions that are called after every epoch, and may end the training."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from darnax import _text, checks
from darnax.learning.history import History
from darnax.network.network import Network

Callback = Callable[[Network, History], Any]


@dataclass(frozen=True)
class EarlyStopping:
    """See `early_stopping`."""

    score: str
    patience: int
    larger: bool

    def check(self, scores: Collection[str]):
        """The score is one of those that there will be."""
        if self.score not in scores:
            raise ValueError(
                f"`score` of early stopping is {self.score!r}, which no epoch will have; there "
                f"will be {_text.names(scores)}, and those of `validation` if it is given"
            )

    def __call__(self, network: Network, history: History) -> bool:
        values = history[self.score] if self.larger else -history[self.score]
        best = int(np.argmax(np.where(np.isnan(values), -np.inf, values)))
        return len(values) - 1 - best >= self.patience


def early_stopping(score: Any, patience: Any, larger: Any = True) -> EarlyStopping:
    """A callback that ends training when a score has not been better for `patience` epochs.

    It looks at the history alone, so that a run that was resumed ends where one that never stopped
    does.

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
    return EarlyStopping(
        score, checks.count("patience", patience, 1), checks.flag("larger", larger)
    )


def as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Functions of the network and the history."""
    holds = "a list of functions (network, history)"
    if callable(callbacks):
        checks.called("callbacks", callbacks)
        checks.refuse("callbacks", holds, callbacks, "write [callback]")
    if isinstance(callbacks, (str, Mapping)) or not isinstance(callbacks, Iterable):
        checks.refuse("callbacks", holds, callbacks, "give a list, or leave it out")
    callbacks = tuple(callbacks)
    for i, callback in enumerate(callbacks):
        argument, holds = f"callbacks[{i}]", "a function (network, history)"
        checks.function(argument, callback, holds, "give one, such as dx.early_stopping(...)")
        checks.takes(argument, callback, 2, "(network, history)")
    return callbacks


def ask(callbacks: Iterable[Callback], network: Network, history: History) -> bool:
    """Whether any callback ends the training; all of them are asked."""
    ends = False
    for i, callback in enumerate(callbacks):
        ends = _as_flag(f"callbacks[{i}](network, history)", callback(network, history)) or ends
    return ends


def _as_flag(argument: str, answer: Any) -> bool:
    """What a callback says: True to end the training, False or None to go on."""
    if answer is None:
        return False
    if hasattr(answer, "dtype") and answer.dtype == bool and answer.shape == ():
        return bool(answer)
    return checks.flag(argument, answer)
