"""Views: NumPy basic indexing, made explicit and checked, so that a wrong one fails where it is
drawn.
"""

import operator

import numpy as np

from darnax import checks

Index = tuple[int | slice, ...]
"""One entry an axis: a non-negative int, or a slice with start, stop and positive step all written
out."""


def resolve_index(index: object, shape: tuple[int, ...]) -> Index:
    """NumPy basic indexing into `shape`, made explicit: non-negative ints and slices, one for each
    axis.

    Raises `ValueError` or `TypeError` with the reason; the caller adds the node.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise ValueError("it has more than one Ellipsis")
    missing = len(shape) - len(parts) + len(dots)
    if missing < 0:
        raise ValueError(f"it has {len(parts)} entries for {len(shape)} axes")
    at = dots[0] if dots else len(parts)
    parts[at : at + len(dots)] = [slice(None)] * missing
    return tuple(
        _resolve_axis(part, size, axis)
        for axis, (part, size) in enumerate(zip(parts, shape, strict=True))
    )


def _resolve_axis(part: object, size: int, axis: int) -> int | slice:
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        if not -size <= part < size:
            raise ValueError(f"{part} lies outside axis {axis} of size {size}")
        return int(part) % size
    if not isinstance(part, slice):
        raise TypeError(f"{checks.came(part)} is neither an int nor a slice")
    try:
        start, stop, step = (
            None if end is None else operator.index(end)
            for end in (part.start, part.stop, part.step)
        )
    except TypeError:
        raise TypeError(f"the parts of {checks.came(part)} are not ints") from None
    step = 1 if step is None else step
    if step < 1:
        raise ValueError(f"{part} has a step of {step} on axis {axis}, and steps are positive")
    first = 0 if start is None else start + size * (start < 0)
    end = size if stop is None else stop + size * (stop < 0)
    if first < 0 or end > size:
        raise ValueError(f"{part} reaches outside axis {axis} of size {size}")
    if end <= first:
        raise ValueError(f"{part} is empty on axis {axis} of size {size}")
    return slice(first, first + step * ((end - first - 1) // step) + 1, step)


def index_shape(index: Index) -> tuple[int, ...]:
    """The shape of the view an explicit index takes."""
    return tuple(
        len(range(part.start, part.stop, part.step)) for part in index if isinstance(part, slice)
    )
