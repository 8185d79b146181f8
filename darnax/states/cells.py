"""Reading and writing nodes in the global arrays of a state.

A view is taken apart into a *place*, where it lies, and a *form*, all the rest. Outside of a user's
program a call runs one small compiled program, which is compiled for the form and takes the place
as an argument: a thousand nodes of one array share one program. Inside a user's program places are
constants, which XLA and `vmap` turn into better code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Int, Shaped

from darnax.topologies.views import ViewIndex, index_shape

FEW = 8
"""Up to so many writes of one form are operations of their own; more are joined into one."""

Value = Array | np.ndarray
Arrays = dict[str, Array]
Sizes = tuple[tuple[str, tuple[int, ...], str], ...]
"""Name, shape without the batch, and dtype of arrays."""

Place = tuple[Any, ...]
"""One entry an axis: a start of a window, or an array of positions."""


@dataclass(frozen=True)
class Window:
    """The form of a regular view: a slice of the array, found without an index array.

    **Fields:**

    - `sizes`: how many cells it reaches over along each axis that it indexes.
    - `steps`: the steps between the cells that it takes.
    - `dropped`: the axes that it indexes by an int.
    """

    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    dropped: tuple[int, ...]

    def read(self, array: Array, place: Place) -> Shaped[Array, "batch *shape"]:
        """The view of an array, batch first."""
        window = self._around(array, place)
        strides = self.steps + (1,) * (array.ndim - len(self.steps))
        if set(strides) != {1}:
            window = lax.slice(window, (0,) * array.ndim, window.shape, strides)
        return jnp.moveaxis(lax.squeeze(window, self.dropped), -1, 0)

    def write(self, array: Array, place: Place, value: Value) -> Array:
        """The array with a value, batch first, in the view."""
        value = jnp.expand_dims(jnp.moveaxis(value, 0, -1), self.dropped)
        if any(step > 1 for step in self.steps):
            taken = tuple(slice(None, None, step) for step in self.steps)
            value = self._around(array, place).at[taken].set(value)
        return lax.dynamic_update_slice(array, value, _starts(place, array.ndim))

    def write_all(self, array: Array, places: Int[Any, "n axes"], values: Value) -> Array:
        """The array with values `(n, B, *shape)` in n views, one after another."""
        places = jnp.asarray(places)
        values = jnp.asarray(values)

        def write_one(i: Array, array: Array) -> Array:
            return self.write(array, tuple(places[i]), values[i])

        return lax.fori_loop(0, len(places), write_one, array)

    def joined(self, array: str, places: list[Place], values: list[Value]) -> "Write":
        """Many values as one write; rows that follow one another are one slice."""
        order = sorted(range(len(places)), key=places.__getitem__)
        places = [places[i] for i in order]
        values = [values[i] for i in order]
        if self == ROW and places[-1][0] - places[0][0] == len(places) - 1:
            rows = Window((len(places),), (1,), ())
            return Write(array, rows, places[0], stack(values, 1))
        return Write(array, self, np.asarray(places, np.int32), stack(values, 0))

    def _around(self, array: Array, place: Place) -> Array:
        """The cells from the first to the last of the view, those between its steps included."""
        sizes = self.sizes + array.shape[len(self.sizes) :]
        starts = _starts(place, array.ndim)
        if not all(isinstance(start, int) for start in starts):
            return lax.dynamic_slice(array, starts, sizes)
        stops = [start + size for start, size in zip(starts, sizes, strict=True)]
        return lax.slice(array, starts, stops)


@dataclass(frozen=True)
class Scattered:
    """The form of a view of any cells: a gather, and its place is an index array for each axis."""

    shape: tuple[int, ...]

    def read(self, array: Array, place: Place) -> Shaped[Array, "batch *shape"]:
        """The view of an array, batch first."""
        cells = array.at[place].get(mode="promise_in_bounds", wrap_negative_indices=False)
        return jnp.moveaxis(cells, -1, 0)

    def write(self, array: Array, place: Place, value: Value) -> Array:
        """The array with a value, batch first, in the view."""
        cells = array.at[place]
        return cells.set(
            jnp.moveaxis(value, 0, -1),
            mode="promise_in_bounds",
            unique_indices=True,
            wrap_negative_indices=False,
        )

    def joined(self, array: str, places: list[Place], values: list[Value]) -> "Write":
        """Many values as one write: no two meet on a cell, so all of them are one view."""
        place = tuple(np.stack(axis) for axis in zip(*places, strict=True))
        return Write(array, Scattered((len(places), *self.shape)), place, stack(values, 1))


Form = Window | Scattered

ROW = Window((1,), (1,), (0,))
"""The form of one row of a stacked array."""


class Write(NamedTuple):
    """Values of one form for one array.

    **Fields:**

    - `places`: one place, or an array of n of them `(n, axes)`.
    - `values`: `(B, *shape)`, or `(n, B, *shape)`.
    """

    array: str
    form: Form
    places: Place | np.ndarray
    values: Value


def place_and_form(index: ViewIndex) -> tuple[Place, Form]:
    """The index of a view as where it lies and all the rest."""
    starts, sizes, steps, dropped = [], [], [], []
    for axis, part in enumerate(index):
        if isinstance(part, np.ndarray):
            return index, Scattered(index_shape(index))
        if isinstance(part, int):
            dropped.append(axis)
            part = slice(part, part + 1, 1)
        starts.append(part.start)
        sizes.append(part.stop - part.start)
        steps.append(part.step)
    return tuple(starts), Window(tuple(sizes), tuple(steps), tuple(dropped))


def joined(array: str, form: Form, pairs: list[tuple[Place, Value]]) -> list[Write]:
    """Values of one form as writes: a few as they are, many as one."""
    if len(pairs) <= FEW:
        return [Write(array, form, place, value) for place, value in pairs]
    places, values = zip(*pairs, strict=True)
    return [form.joined(array, list(places), list(values))]


def read(array: Array, index: ViewIndex) -> Shaped[Array, "batch *shape"]:
    """The view of an array `(..., B)`, batch first."""
    place, form = place_and_form(index)
    if isinstance(array, Tracer):
        return form.read(array, place)
    return _read_program(array, place, form)


def write(arrays: Arrays, writes: Sequence[Write]) -> Arrays:
    """The arrays with values written into them; untouched ones are the same objects."""
    touched = {write.array: arrays[write.array] for write in writes}
    forms, places, values = _split(writes)
    inside = _traced((touched, values))
    return arrays | (_write if inside else _write_program)(touched, forms, places, values)


def fresh(sizes: Sizes, batch: int, writes: Sequence[Write]) -> Arrays:
    """Arrays of zeros with values written into them."""
    forms, places, values = _split(writes)
    return (_fresh if _traced(values) else _fresh_program)(sizes, batch, forms, places, values)


def zeros(sizes: Sizes, batch: int) -> Arrays:
    """Arrays of zeros, batch last."""
    # Behind the barrier XLA takes them for data: as constants, it would work out what becomes of
    # them, cell by cell, while it compiles a program in which a state is made and run.
    arrays = {}
    for name, shape, dtype in sizes:
        arrays[name] = lax.optimization_barrier(jnp.zeros((*shape, batch), dtype))
    return arrays


def stack(values: Sequence[Value], axis: int) -> Value:
    """Arrays side by side, by NumPy where it can."""
    if not any(isinstance(value, jax.Array) for value in values):
        return np.stack(values, axis)
    # XLA takes quadratic time for an operation of many operands.
    some = 64
    parts = [jnp.stack(values[i : i + some], axis) for i in range(0, len(values), some)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)


def _traced(tree: Any) -> bool:
    """Whether this runs inside a user's program."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _split(writes: Sequence[Write]):
    """What a program is compiled for, and the two things that it takes."""
    return (
        tuple((write.array, write.form) for write in writes),
        tuple(write.places for write in writes),
        tuple(write.values for write in writes),
    )


def _starts(place: Place, axes: int) -> tuple[Any, ...]:
    """A start for every axis; those that are arguments all have one type, as JAX demands."""
    starts = (*place, *(0,) * (axes - len(place)))
    if all(isinstance(start, int) for start in starts):
        return starts
    return tuple(jnp.asarray(start, jnp.int32) for start in starts)


def _write(arrays: Arrays, forms: tuple, places: tuple, values: tuple) -> Arrays:
    arrays = dict(arrays)
    for (name, form), place, value in zip(forms, places, values, strict=True):
        put = form.write if isinstance(place, tuple) else form.write_all
        arrays[name] = put(arrays[name], place, value)
    return arrays


def _fresh(sizes: Sizes, batch: int, forms: tuple, places: tuple, values: tuple) -> Arrays:
    return _write(zeros(sizes, batch), forms, places, values)


def _read(array: Array, place: Place, form: Form) -> Shaped[Array, "batch *shape"]:
    return form.read(array, place)


_read_program = jax.jit(_read, static_argnames="form")
_write_program = jax.jit(_write, static_argnames="forms")
_fresh_program = jax.jit(_fresh, static_argnames=("sizes", "batch", "forms"))
zeros_program = jax.jit(zeros, static_argnames=("sizes", "batch"))
