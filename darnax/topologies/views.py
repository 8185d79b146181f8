"""Views: NumPy basic indexing, made explicit and checked, so that a wrong one fails where it is drawn."""

import numpy as np

Index = tuple[int | slice, ...]
"""One entry an axis: a non-negative int, or a slice whose start, stop and positive step are all written out."""


def resolve_index(index: object, shape: tuple[int, ...]) -> Index:
    """NumPy basic indexing into `shape`, made explicit: non-negative ints and slices, one for each axis.

    Raises `ValueError` or `TypeError` with the reason; the caller adds the node.
    """
    parts = list(index) if isinstance(index, (tuple, list)) else [index]
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise ValueError("has more than one Ellipsis")
    missing = len(shape) - len(parts) + len(dots)
    if missing < 0:
        raise ValueError(f"has {len(parts)} entries for the {len(shape)} axes of {shape}")
    at = dots[0] if dots else len(parts)
    parts[at : at + len(dots)] = [slice(None)] * missing
    return tuple(_resolve_axis(part, size, axis) for axis, (part, size) in enumerate(zip(parts, shape, strict=True)))


def _resolve_axis(part: object, size: int, axis: int) -> int | slice:
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        if not -size <= part < size:
            raise ValueError(f"{part} lies outside axis {axis} of size {size}")
        return int(part) % size
    if not isinstance(part, slice):
        raise TypeError(f"holds {part!r}; it takes ints and slices only")
    step = 1 if part.step is None else part.step
    if step < 1:
        raise ValueError(f"has a step of {step} on axis {axis}; steps are positive")
    start = 0 if part.start is None else part.start + size * (part.start < 0)
    stop = size if part.stop is None else part.stop + size * (part.stop < 0)
    if start < 0 or stop > size:
        raise ValueError(f"{part} reaches outside axis {axis} of size {size}")
    if stop <= start:
        raise ValueError(f"{part} is empty on axis {axis} of size {size}")
    return slice(start, start + step * ((stop - start - 1) // step) + 1, step)


def index_shape(index: Index) -> tuple[int, ...]:
    """The shape of the view an explicit index takes."""
    return tuple(len(range(part.start, part.stop, part.step)) for part in index if isinstance(part, slice))
