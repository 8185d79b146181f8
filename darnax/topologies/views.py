"""Indices of views: which cells of a shared array are a node.

An index means what it means to NumPy. It is checked, and brought into one of two forms, when the
node is drawn:

- *regular*: ints and slices, one an axis, with start, stop and step written out. Reading and
  writing it is a slice of the array, which XLA runs without an index array.
- *scattered*, where lists, integer arrays or masks are part of it: one integer array an axis, each
  in the shape of the view. Every cell is named by itself, so that no other form is needed for the
  mixtures that NumPy allows.
"""

import operator
from typing import Any, TypeGuard

import jax
import numpy as np

from darnax import _text, checks
from darnax.topologies.names import is_integer

Index = tuple[int | slice, ...]
"""A regular index, one entry an axis: a non-negative int, or a slice of positive step."""

Part = int | slice | np.ndarray
"""One entry of an index: an int, a slice, or an integer array."""

ViewIndex = Index | tuple[np.ndarray, ...]
"""The index of a view, regular or scattered; both index the array directly."""


def is_regular(index: tuple[object, ...]) -> TypeGuard[Index]:
    """Whether an index is made of ints and slices alone."""
    return not any(isinstance(part, np.ndarray) for part in index)


def resolve_index(index: object, shape: tuple[int, ...]) -> ViewIndex:
    """An index into `shape` in one of its two forms.

    Raises `ValueError` or `TypeError` with the reason; the caller adds the node. What NumPy would
    clip quietly is refused, and so are empty views and cells that are named twice.
    """
    entries = index if isinstance(index, tuple) else (index,)
    parts = [_entry(part) for part in entries]
    regular = is_regular(tuple(parts))
    if not regular:
        _check_by_numpy(parts, shape)
    # NumPy clips slices that reach outside and runs backwards; a view does neither.
    parts = _one_an_axis(parts, len(shape))
    for axis, size in enumerate(shape):
        parts[axis] = _resolve_axis(parts[axis], size, axis)
    return tuple(parts) if regular else _scattered(parts, shape)


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
    # Axis by axis, as digits of a number: a slice adds an axis to the view, an int does not, and
    # the arrays of a scattered index have the shape of the view from the start.
    cells = np.zeros((), np.int32)
    for part, size in zip(index, shape, strict=True):
        if isinstance(part, slice):
            cells = cells[..., None]
            part = np.asarray(_along(part), np.int32)
        cells = cells * size + part
    return np.asarray(cells, np.int32)


def first_cell(index: ViewIndex, shape: tuple[int, ...]) -> int:
    """The first of `index_cells`, without a look at the others: there may be millions."""
    cell = 0
    for part, size in zip(index, shape, strict=True):
        if isinstance(part, slice):
            part = part.start
        elif isinstance(part, np.ndarray):
            part = int(part.flat[0])
        cell = cell * size + part
    return cell


def index_to_json(index: ViewIndex) -> list[object]:
    """An index as JSON takes it: ints, `[start, stop, step]`, and `{"cells": [...]}` for arrays."""
    return [_part_to_json(part) for part in index]


def _part_to_json(part: Part) -> object:
    if isinstance(part, slice):
        return [part.start, part.stop, part.step]
    return {"cells": part.tolist()} if isinstance(part, np.ndarray) else part


def _along(part: slice) -> range:
    """The positions that a slice of a regular index takes."""
    return range(part.start, part.stop, part.step)


def _entry(part: Any) -> Any:
    """An int, a slice, Ellipsis, or an array of ints or of bools; nothing else is an index."""
    if part is Ellipsis or isinstance(part, slice):
        return part
    if is_integer(part):
        return int(part)
    if not isinstance(part, (list, tuple, range, np.ndarray, jax.Array)):
        raise TypeError(f"{checks.came(part)} is neither an int, a slice, a list nor a mask")
    try:
        array = np.asarray(part)
    except (ValueError, TypeError):  # lists of several lengths, and traced arrays
        raise TypeError(f"{checks.came(part)} is no array of ints") from None
    if not array.size:
        raise ValueError(f"{checks.came(part)} names no cell")
    if array.dtype.kind not in "iub" or isinstance(part, np.ma.MaskedArray):
        raise TypeError(f"{checks.came(part)} holds neither ints nor a mask")
    return array if array.ndim else _entry(array.item())


def _check_by_numpy(
    parts: list[Any],
    shape: tuple[int, ...],
):
    """Refuse what NumPy refuses: positions outside, masks of another shape, too many entries."""
    array = np.broadcast_to(np.zeros((), bool), shape)  # one byte of memory, whatever the shape
    try:
        view = array[tuple(parts)]
    except IndexError as error:
        raise ValueError(str(error).strip()) from None
    if not view.size:
        raise ValueError("it names no cell")


def _one_an_axis(
    parts: list[Any],
    axes: int,
) -> list[Any]:
    """The parts of an index with Ellipsis written out, and masks as the positions they mark."""
    entries: list[Any] = []
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype == bool:
            entries.extend(np.nonzero(part))
        else:
            entries.append(part)
    dots = [i for i, part in enumerate(entries) if part is Ellipsis]
    if len(dots) > 1:
        raise ValueError("it has more than one Ellipsis")
    missing = axes + len(dots) - len(entries)
    if missing < 0:
        raise ValueError(f"it has {len(entries)} entries for {axes} axes")
    start = dots[0] if dots else len(entries)
    stop = start + len(dots)
    return entries[:start] + [slice(None)] * missing + entries[stop:]


def _resolve_axis(part: Part, size: int, axis: int) -> Part:
    """One entry with all positions counted from the start of the axis."""
    if isinstance(part, slice):
        return _resolve_slice(part, size, axis)
    if isinstance(part, int) and not -size <= part < size:
        raise ValueError(f"{part} lies outside axis {axis} of size {size}")
    return part % size


def _resolve_slice(part: slice, size: int, axis: int) -> slice:
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
    # One index for one view: the slice ends behind its last cell, as equal topologies need it.
    last = start + step * ((stop - start - 1) // step)
    return slice(start, last + 1, step)


def _scattered(
    parts: list[Part],
    shape: tuple[int, ...],
) -> tuple[np.ndarray, ...]:
    """The cells of a mixed index, one array an axis, each in the shape of the view."""
    # NumPy itself indexes a small array which has only the positions in use along every axis. So
    # its rules for mixtures hold, and the memory is that of the view even where the array is large.
    used, index = [], []
    for part in parts:
        if isinstance(part, np.ndarray):
            used.append(part.ravel())
            part = np.arange(part.size).reshape(part.shape)
        elif isinstance(part, slice):
            used.append(np.asarray(_along(part)))
            part = slice(None)
        else:
            used.append(np.asarray([part]))
            part = 0
        index.append(part)
    cells = []
    for positions in np.broadcast_arrays(*np.ix_(*used)):
        positions = positions[tuple(index)]
        cells.append(np.ascontiguousarray(positions, np.int32))
    _refuse_repeated(tuple(cells), shape)
    return tuple(cells)


def _refuse_repeated(index: ViewIndex, shape: tuple[int, ...]):
    # A cell is one unit: a view that named it twice would send, and learn, from it twice.
    cells, counts = np.unique(index_cells(index, shape), return_counts=True)
    repeated = np.unravel_index(cells[counts > 1], shape)
    names = np.transpose(repeated).tolist()
    if names:
        raise ValueError(
            f"cells {_text.names(map(tuple, names))} are named more than once; name each once"
        )
