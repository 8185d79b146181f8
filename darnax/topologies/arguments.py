"""What builders and couplings ask of their numbers, said once."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def whole(argument: str, value: Any, least: int, most: int | None = None) -> int:
    """An int of at least `least` and at most `most`; `ValueError` otherwise."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if integer and value >= least and (most is None or value <= most):
        return int(value)
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"`{argument}` is an int {bounds}, but got {value!r}; give such a number")


def probability(argument: str, value: Any) -> float:
    """A number from 0 to 1; `ValueError` otherwise."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if real and math.isfinite(value) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"`{argument}` is a probability, from 0 to 1, but got {value!r}; give such a number")


def per_axis(argument: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """One positive int for each axis of space; a single one counts for all."""
    values = (value,) * axes if isinstance(value, (int, np.integer)) else tuple(value)
    if len(values) != axes or not all(isinstance(v, (int, np.integer)) and v >= 1 for v in values):
        raise ValueError(
            f"`{argument}` is one positive int, or one for each of the {axes} axes of space, but got {value!r}"
        )
    return tuple(map(int, values))
