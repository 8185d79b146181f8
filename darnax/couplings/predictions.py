"""The couplings of a network of predictive coding, from those of its predictions."""

from collections.abc import Callable, Mapping
from typing import Any

from darnax import _text, checks
from darnax.couplings.reverse import Transpose, transpose
from darnax.couplings.scale import scale
from darnax.topologies.predictive import ERROR, back


@checks.by_hand
def predictions(
    couplings: Mapping[str, Callable[..., Any]],
) -> dict[str, Callable[..., Any] | Transpose]:
    """The couplings of a network drawn by `dx.topologies.predictive`, from those that predict.

    Every kind is given its transpose the other way, `"forward back"` for `"forward"`. Values and
    their errors send to each other by a fixed factor of -1, `"error"` and `"error back"`. What
    comes out is a dict: add kinds of your own to it.

    **Arguments:**

    - `couplings`: a factory for each kind of edges in the drawing, such as `dx.dense()`.

    Raises `TypeError` for what is no mapping, and `ValueError` for the kinds that are added.

    !!! example

        ```python
        couplings = dx.predictions({"forward": dx.dense()})
        sorted(couplings)  # ["error", "error back", "forward", "forward back"]
        ```
    """
    holds = "edge kinds to factories such as dx.dense()"
    given = checks.mapping("couplings", couplings, holds)
    added = {ERROR, back(ERROR), *map(back, given)}
    wrong = [kind for kind in given if kind in added]
    if wrong:
        raise ValueError(
            f"`couplings` names {_text.names(wrong)}, but what values and errors say to each other "
            "is fixed, and the way back is the transpose of the way there; name the kinds that "
            "predict"
        )
    # Minus one both ways: see `darnax.topologies.predictive`.
    result: dict[str, Callable[..., Any] | Transpose] = {**given, ERROR: scale(-1.0, fixed=True)}
    for kind in list(result):
        result[back(kind)] = transpose(kind)
    return result
