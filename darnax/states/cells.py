"""Reading and writing nodes in the global arrays of a state.

A view is taken apart into a *place*, where it lies, and a *form*, all the rest. Outside of a user's
program a call runs one small compiled program, which is compiled for the form and takes the place
as an argument: a thousand nodes of one array share one program. Inside a user's program places are
constants, which XLA and `vmap` turn into better code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Shaped

from darnax.topologies.views import ViewIndex, index_shape

FEW = 8
"""Up to so many writes of one form are operations of their own; more are joined into one."""

MOST_OPERANDS = 64
"""XLA takes quadratic time for an operation of many operands."""

Value = Array | np.ndarray
"""The cells of a view as they are written, batch first."""

Place = tuple[Any, ...]
"""One entry an axis: the start of a window, or an array of positions."""

Placed = tuple[Place, Value]
"""A value, and the place that it is written to."""

Sizes = tuple[tuple[str, tuple[int, ...], str], ...]
"""Name, shape without the batch, and dtype of arrays."""


@dataclass(frozen=True)
class Window:
    """The form of a regular view: a slice of the array, without index arrays.

    **Fields:**

    - `sizes`: how many cells it reaches over along each axis that it indexes.
    - `steps`: the steps between the cells that it takes.
    - `dropped`: the axes that it indexes by an int.
    """

    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    dropped: tuple[int, ...]

    def read(
        self,
        array: Array,
        place: Place,
    ) -> Shaped[Array, "batch *shape"]:
        """The view of an array, batch first."""
        window = self._window(array, place)
        if any(step > 1 for step in self.steps):
            window = window[self._index_inside()]
        # An axis that is indexed by an int is a window of one cell, and is no axis of the view.
        window = lax.squeeze(window, self.dropped)
        return jnp.moveaxis(window, -1, 0)

    def write(
        self,
        array: Array,
        place: Place,
        value: Value,
    ) -> Array:
        """The array with a value, batch first, in the view."""
        value = jnp.moveaxis(value, 0, -1)
        value = jnp.expand_dims(value, self.dropped)
        # Cells between the steps belong to others, and are written back as they are.
        if any(step > 1 for step in self.steps):
            value = self._window(array, place).at[self._index_inside()].set(value)
        return lax.dynamic_update_slice(array, value, _starts(place, array.ndim))

    def joined(
        self,
        array: str,
        places: list[Place],
        values: list[Value],
    ) -> "Write":
        """Many values as one write; rows that follow one another are one slice."""
        # Sorted by place: rows that are given in any order are found to follow one another.
        count = len(places)
        order = sorted(range(count), key=places.__getitem__)
        places = [places[i] for i in order]
        values = [values[i] for i in order]
        first, last = places[0], places[-1]
        # The common case by far: all nodes of an array are given at once.
        if self == ROW and last[0] - first[0] == count - 1:
            rows = Window((count,), (1,), ())
            return Write(array, rows, first, stack(values, 1))
        # Places become a table of starts, an array an axis, which the program takes as arguments.
        starts = np.asarray(places, np.int32)
        return Write(array, Windows(self), tuple(starts.T), stack(values, 0))

    def _window(self, array: Array, place: Place) -> Array:
        """The cells from the first to the last of the view, those between its steps included."""
        sizes = self.sizes + array.shape[len(self.sizes) :]
        starts = _starts(place, array.ndim)
        if not _constant(starts):
            return lax.dynamic_slice(array, starts, sizes)
        stops = [start + size for start, size in zip(starts, sizes, strict=True)]
        return lax.slice(array, starts, stops)

    def _index_inside(self) -> tuple[slice, ...]:
        """The index of the view in the window around it."""
        return tuple(slice(None, None, step) for step in self.steps)


@dataclass(frozen=True)
class Windows:
    """Many windows of one form, one after another; a place has an array of starts an axis."""

    window: Window

    def write(
        self,
        array: Array,
        place: Place,
        value: Value,
    ) -> Array:
        """The array with values `(n, B, *shape)` in the n views."""
        # A loop, because a scatter of so many windows is compiled and run cell by cell.
        starts = jnp.stack(place, axis=1)
        value = jnp.asarray(value)

        def write_one(i: Array, array: Array) -> Array:
            return self.window.write(array, tuple(starts[i]), value[i])

        return lax.fori_loop(0, len(starts), write_one, array)


@dataclass(frozen=True)
class Scattered:
    """The form of a view of any cells: a gather, and its place is an index array for each axis."""

    shape: tuple[int, ...]

    def read(
        self,
        array: Array,
        place: Place,
    ) -> Shaped[Array, "batch *shape"]:
        """The view of an array, batch first."""
        # Positions were checked when the node was drawn: XLA need not look at them again.
        cells = array.at[place]
        value = cells.get(mode="promise_in_bounds", wrap_negative_indices=False)
        return jnp.moveaxis(value, -1, 0)

    def write(
        self,
        array: Array,
        place: Place,
        value: Value,
    ) -> Array:
        """The array with a value, batch first, in the view."""
        # Views that overlap were refused: no cell is named twice, and the writes need no order.
        cells = array.at[place]
        return cells.set(
            jnp.moveaxis(value, 0, -1),
            mode="promise_in_bounds",
            unique_indices=True,
            wrap_negative_indices=False,
        )

    def joined(
        self,
        array: str,
        places: list[Place],
        values: list[Value],
    ) -> "Write":
        """Many values as one write: no two meet on a cell, so all views are one view."""
        place = tuple(map(np.stack, zip(*places, strict=True)))
        together = Scattered((len(places), *self.shape))
        return Write(array, together, place, stack(values, 1))


Form = Window | Scattered

ROW = Window((1,), (1,), (0,))
"""The form of one row of a stacked array."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["place", "value"],
    meta_fields=["array", "form"],
)
@dataclass(frozen=True)
class Write:
    """A value for one array. A program is compiled for the array and the form, and takes the rest.

    **Fields:**

    - `array`: the name of the array.
    """

    array: str
    form: Form | Windows
    # JAX rebuilds a pytree with whatever leaves it needs, so that these two are not always arrays.
    place: Any
    value: Any


def place_and_form(index: ViewIndex) -> tuple[Place, Form]:
    """The index of a view as where it lies and all the rest."""
    starts: list[int] = []
    sizes: list[int] = []
    steps: list[int] = []
    dropped: list[int] = []
    for axis, part in enumerate(index):
        # One array means that there is one for every axis: the index itself is the place.
        if isinstance(part, np.ndarray):
            return index, Scattered(index_shape(index))
        # An int is a slice of one cell whose axis is dropped, so that all windows are slices.
        if isinstance(part, int):
            dropped.append(axis)
            part = slice(part, part + 1, 1)
        starts.append(part.start)
        sizes.append(part.stop - part.start)
        steps.append(part.step)
    return tuple(starts), Window(tuple(sizes), tuple(steps), tuple(dropped))


def joined(
    array: str,
    form: Form,
    pairs: list[Placed],
) -> list[Write]:
    """Values of one form, each with its place, as writes: a few as they are, many as one."""
    # Each number of writes is a program of its own, whose time to compile grows with the number.
    if len(pairs) <= FEW:
        return [Write(array, form, place, value) for place, value in pairs]
    places = [place for place, _ in pairs]
    values = [value for _, value in pairs]
    return [form.joined(array, places, values)]


def read(array: Array, index: ViewIndex) -> Shaped[Array, "batch *shape"]:
    """The view of an array `(..., B)`, batch first."""
    # In a user's program the place is a constant, and a view a plain slice.
    place, form = place_and_form(index)
    program = _read if _traced(array) else _read_program
    return program(array, place, form)


def write(
    arrays: dict[str, Array],
    writes: Sequence[Write],
) -> dict[str, Array]:
    """The arrays with values written into them; untouched ones are the same objects."""
    # Arrays that nothing is written to stay out of the program, which would copy them.
    touched = {write.array: arrays[write.array] for write in writes}
    program = _write if _traced((touched, writes)) else _write_program
    return arrays | program(touched, writes)


def fresh(
    sizes: Sizes,
    batch: int,
    writes: Sequence[Write],
) -> dict[str, Array]:
    """Arrays of zeros with values written into them."""
    program = _fresh if _traced(writes) else _fresh_program
    return program(sizes, batch, writes)


def zeros(sizes: Sizes, batch: int) -> dict[str, Array]:
    """Arrays of zeros, batch last."""
    # Behind the barrier XLA takes them for data: as constants, it would work out what becomes of
    # them, cell by cell, while it compiles a program in which a state is made and run.
    arrays = {}
    for name, shape, dtype in sizes:
        array = jnp.zeros((*shape, batch), dtype)
        arrays[name] = lax.optimization_barrier(array)
    return arrays


def stack(values: Sequence[Value], axis: int) -> Value:
    """Arrays side by side, by NumPy where it can."""
    if not any(isinstance(value, jax.Array) for value in values):
        return np.stack(values, axis)
    # In groups, and then the groups: the number of operands stays small.
    parts = []
    for start in range(0, len(values), MOST_OPERANDS):
        some = values[start : start + MOST_OPERANDS]
        parts.append(jnp.stack(some, axis))
    return jnp.concatenate(parts, axis)


def _traced(tree: Any) -> bool:
    """Whether this runs inside a user's program."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _starts(place: Place, axes: int) -> Place:
    """A start for every axis; those that are arguments all have one type, as JAX demands."""
    # A place names the axes of nodes or cells. Units of a node and samples are taken whole.
    starts = place + (0,) * (axes - len(place))
    # Starts that are fixed stay so, and make a plain slice.
    if _constant(starts):
        return starts
    return tuple(jnp.asarray(start, jnp.int32) for start in starts)


def _constant(starts: Place) -> bool:
    """Whether a window lies at a fixed place, as in a user's program."""
    return all(isinstance(start, int) for start in starts)


def _read(
    array: Array,
    place: Place,
    form: Form,
) -> Shaped[Array, "batch *shape"]:
    return form.read(array, place)


def _write(
    arrays: dict[str, Array],
    writes: Sequence[Write],
) -> dict[str, Array]:
    arrays = dict(arrays)
    for write in writes:
        array = arrays[write.array]
        arrays[write.array] = write.form.write(array, write.place, write.value)
    return arrays


def _fresh(
    sizes: Sizes,
    batch: int,
    writes: Sequence[Write],
) -> dict[str, Array]:
    return _write(zeros(sizes, batch), writes)


# Made once, because JAX keeps what it has compiled by the identity of these functions.
_read_program = jax.jit(_read, static_argnames="form")
_write_program = jax.jit(_write)
_fresh_program = jax.jit(_fresh, static_argnames=("sizes", "batch"))
zeros_program = jax.jit(zeros, static_argnames=("sizes", "batch"))
