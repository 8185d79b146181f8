"""Callbacks: functions that are called after every epoch, and may end the training."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import jax
import numpy as np

from darnax import _text, checks
from darnax.learning.history import History
from darnax.network.network import Network

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
