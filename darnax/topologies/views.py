"""Indices of views: which cells of a shared array are a node.

An index means what it means to NumPy. When a topology is made it is checked and brought into one of
two forms:

- *regular*: ints and slices, one an axis, with start, stop and step written out. The view is a
  slice of the array, which XLA reads and writes without an index array.
- *scattered*, where lists, integer arrays or masks are part of it: one integer array an axis, each
  in the shape of the view. Every cell is named by itself, so that one form serves all mixtures that
  NumPy allows.
"""

import operator
from collections.abc import Sequence
from types import EllipsisType
from typing import TypeGuard

import jax
import numpy as np

from darnax import _text, checks
from darnax.topologies.names import is_integer

RawPart = int | slice | EllipsisType | np.ndarray
"""One entry of an index before the shape of its array is known: an array may be a mask."""

Index = tuple[int | slice, ...]
"""A regular index, one entry an axis: a non-negative int, or a slice of positive step."""

Part = int | slice | np.ndarray
"""The entry of an index for one axis: an int, a slice, or an integer array."""

ViewIndex = Index | tuple[np.ndarray, ...]
"""The index of a view, regular or scattered; both index the array directly."""


def is_regular(index: Sequence[object]) -> TypeGuard[Index]:
    """Whether an index has no array among its entries."""
    return not any(isinstance(part, np.ndarray) for part in index)


def resolve_index(index: object, shape: tuple[int, ...]) -> ViewIndex:
    """An index into `shape` in one of its two forms.

    Raises `ValueError` or `TypeError` with the reason; the caller adds the node. Slices that NumPy
    would clip are refused, and so are empty views and cells that are named twice.
    """
    entries = index if isinstance(index, tuple) else (index,)
    raw = [_entry(part) for part in entries]
    if not is_regular(raw):
        _check_by_numpy(raw, shape)
    # NumPy clips slices that reach outside, and lets them run backwards. A view does neither, so
    # every entry is checked once more.
    parts = _one_an_axis(_without_masks(raw), len(shape))
    for axis, size in enumerate(shape):
        parts[axis] = _resolve_axis(parts[axis], size, axis)
    found = tuple(parts)
    return found if is_regular(found) else _scattered(found, shape)


def index_shape(index: ViewIndex) -> tuple[int, ...]:
    """The shape of the view that an index takes."""
    if index and isinstance(index[0], np.ndarray):
        return index[0].shape
    slices = [part for part in index if isinstance(part, slice)]
    return tuple(len(_along(part)) for part in slices)


def index_cells(
    index: ViewIndex,
    shape: tuple[int, ...],
) -> np.ndarray:
    """The cells of a view, in its shape, as positions in the flattened array of `shape`."""
    # A position in the flattened array is a number whose digits are the positions on the axes. A
    # slice adds an axis to the view, an int does not, and the arrays of a scattered index have the
    # shape of the view from the start.
    cells = np.zeros((), np.int32)
    for part, size in zip(index, shape, strict=True):
        if isinstance(part, slice):
            cells = cells[..., None]
            part = np.asarray(_along(part), np.int32)
        cells = cells * size + part
    return np.asarray(cells, np.int32)


def first_cell(index: ViewIndex, shape: tuple[int, ...]) -> int:
    """The first of `index_cells`, computed without the others: there may be millions."""
    cell = 0
    for part, size in zip(index, shape, strict=True):
        if isinstance(part, slice):
            part = part.start
        elif isinstance(part, np.ndarray):
            part = int(part.flat[0])
        cell = cell * size + part
    return cell


def index_to_json(index: ViewIndex) -> list[object]:
    """An index for JSON: ints, `[start, stop, step]` for slices, `{"cells": [...]}` for arrays."""
    return [_part_to_json(part) for part in index]


def _part_to_json(part: Part) -> object:
    if isinstance(part, slice):
        return [part.start, part.stop, part.step]
    if isinstance(part, np.ndarray):
        return {"cells": part.tolist()}
    return part


def _along(part: slice) -> range:
    """The positions that a slice of a regular index takes."""
    return range(part.start, part.stop, part.step)


def _entry(part: object) -> RawPart:
    """One entry as given, checked: an int, a slice, Ellipsis, or an array of ints or of bools."""
    if isinstance(part, (slice, EllipsisType)):
        return part
    if is_integer(part):
        return int(part)
    if not isinstance(part, (list, tuple, range, np.ndarray, jax.Array)):
        raise TypeError(f"{checks.came(part)} is neither an int, a slice, a list nor a mask")
    try:
        array = np.asarray(part)
    # Raised for lists of several lengths, and for traced arrays.
    except (ValueError, TypeError):
        raise TypeError(f"{checks.came(part)} is no array of ints") from None
    if not array.size:
        raise ValueError(f"{checks.came(part)} names no cell")
    if array.dtype.kind not in "iub" or isinstance(part, np.ma.MaskedArray):
        raise TypeError(f"{checks.came(part)} holds neither ints nor a mask")
    # An array without axes is read as a scalar: True is then refused, which is a mask to NumPy.
    return array if array.ndim else _entry(array.item())


def _check_by_numpy(
    parts: Sequence[RawPart],
    shape: tuple[int, ...],
):
    """Refuse what NumPy refuses: positions outside, masks of another shape, too many entries."""
    # A broadcast array has one byte of memory, whatever its shape.
    array = np.broadcast_to(np.zeros((), bool), shape)
    try:
        view = array[tuple(parts)]
    except IndexError as error:
        raise ValueError(str(error).strip()) from None
    if not view.size:
        raise ValueError("it names no cell")


def _without_masks(parts: Sequence[RawPart]) -> list[RawPart]:
    """The entries with every mask replaced by the positions that it marks, one array an axis."""
    entries: list[RawPart] = []
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype == bool:
            entries.extend(np.nonzero(part))
        else:
            entries.append(part)
    return entries


def _one_an_axis(
    entries: Sequence[RawPart],
    axes: int,
) -> list[Part]:
    """One entry for every axis; axes that are not named are taken whole."""
    parts: list[Part] = []
    # Axes that are not named belong where the Ellipsis is, or else at the end.
    gap = None
    for i, entry in enumerate(entries):
        if not isinstance(entry, EllipsisType):
            parts.append(entry)
        elif gap is None:
            gap = i
        else:
            raise ValueError("it has more than one Ellipsis")
    missing = axes - len(parts)
    if missing < 0:
        raise ValueError(f"it has {len(entries)} entries for {axes} axes")
    if gap is None:
        gap = len(parts)
    parts[gap:gap] = [slice(None)] * missing
    return parts


def _resolve_axis(part: Part, size: int, axis: int) -> Part:
    """An entry with all positions counted from the start of its axis."""
    if isinstance(part, slice):
        return _resolve_slice(part, size, axis)
    if isinstance(part, int) and not -size <= part < size:
        raise ValueError(f"{part} lies outside axis {axis} of size {size}")
    # Arrays were checked by NumPy.
    return part % size


def _resolve_slice(part: slice, size: int, axis: int) -> slice:
    """A slice with all of its parts written out; it may neither be clipped nor run backwards."""
    try:
        start = 0 if part.start is None else operator.index(part.start)
        stop = size if part.stop is None else operator.index(part.stop)
        step = 1 if part.step is None else operator.index(part.step)
    except TypeError:
        raise TypeError(f"the parts of {checks.came(part)} are not ints") from None
    if step < 1:
        raise ValueError(f"{part} has a step of {step} on axis {axis}, and steps are positive")
    start += size * (start < 0)
    stop += size * (stop < 0)
    if start < 0 or stop > size:
        raise ValueError(f"{part} reaches outside axis {axis} of size {size}")
    if stop <= start:
        raise ValueError(f"{part} is empty on axis {axis} of size {size}")
    # Several stops take the same cells. The one behind the last cell stands for all of them.
    last = start + step * ((stop - start - 1) // step)
    return slice(start, last + 1, step)


def _scattered(
    parts: Sequence[Part],
    shape: tuple[int, ...],
) -> tuple[np.ndarray, ...]:
    """The cells of a mixed index, one array an axis, each in the shape of the view."""
    # NumPy's rules for mixtures are intricate, so NumPy itself applies them: to a small grid that
    # has only the positions in use along every axis. `used` are these positions, and `index` is the
    # same index into the grid. The whole array may be far larger than the view.
    used: list[np.ndarray] = []
    index: list[Part] = []
    for part in parts:
        if isinstance(part, np.ndarray):
            used.append(part.ravel())
            index.append(np.arange(part.size).reshape(part.shape))
        elif isinstance(part, slice):
            used.append(np.asarray(_along(part)))
            index.append(slice(None))
        else:
            used.append(np.asarray([part]))
            index.append(0)
    cells: list[np.ndarray] = []
    # On every axis of the array, the position of each cell of the grid; no memory is copied yet.
    for positions in np.broadcast_arrays(*np.ix_(*used)):
        taken = positions[tuple(index)]
        cells.append(np.ascontiguousarray(taken, np.int32))
    _refuse_repeated(tuple(cells), shape)
    return tuple(cells)


def _refuse_repeated(index: ViewIndex, shape: tuple[int, ...]):
    # A cell is one unit: if a view named it twice, the node would send it twice.
    cells, counts = np.unique(index_cells(index, shape), return_counts=True)
    repeated = np.unravel_index(cells[counts > 1], shape)
    names = np.transpose(repeated).tolist()
    if names:
        raise ValueError(
            f"cells {_text.names(map(tuple, names))} are named more than once; name each once"
        )
