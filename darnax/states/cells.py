"""Reading and writing nodes in the global arrays of a state.

Outside of a user's program every call runs one small compiled program of ours. It is compiled for
the *form* of a view, its extents and steps, and takes its place as an argument: a thousand nodes of
one array share one program. Inside a user's program places are constants, which XLA and `vmap` turn
into better code.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Shaped

from darnax.topologies.views import Index

FEW = 8


class Form(NamedTuple):
    """A view without its place.

    **Fields:**

    - `sizes`: how many cells it reaches over along each axis that it indexes.
    - `steps`: the steps between the cells that it takes.
    - `dropped`: the axes that it indexes by an int.
    """

    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    dropped: tuple[int, ...]


ROW = Form((1,), (1,), (0,))


class Write(NamedTuple):
    """Values of one form for one array: `places (n, axes)` and `values (n, B, *shape)`, or a single
    one of each.
    """

    array: str
    form: Form
    places: Any
    values: Any


def place_and_form(index: Index) -> tuple[tuple[int, ...], Form]:
    """The first cell of an explicit index along its axes, and the rest."""
    slices = [slice(part, part + 1, 1) if isinstance(part, int) else part for part in index]
    form = Form(
        sizes=tuple(part.stop - part.start for part in slices),
        steps=tuple(part.step for part in slices),
        dropped=tuple(axis for axis, part in enumerate(index) if isinstance(part, int)),
    )
    return tuple(part.start for part in slices), form


def joined(array: str, form: Form, pairs: list[tuple[tuple[int, ...], Any]]) -> list[Write]:
    """Values of one form as writes: a few as they are, many as one; rows that follow one another
    are one slice.
    """
    if len(pairs) <= FEW:
        return [Write(array, form, place, value) for place, value in pairs]
    pairs = sorted(pairs, key=lambda pair: pair[0])
    first, last = pairs[0][0], pairs[-1][0]
    values = [value for _, value in pairs]
    if form == ROW and last[0] - first[0] == len(pairs) - 1:
        return [Write(array, Form((len(pairs),), (1,), ()), first, stack(values, 1))]
    return [
        Write(array, form, np.asarray([place for place, _ in pairs], np.int32), stack(values, 0))
    ]


def read(array: Any, index: Index) -> Shaped[Array, "batch *shape"]:
    """The view of an array `(..., B)`, batch first."""
    place, form = place_and_form(index)
    return (
        _read(array, place, form)
        if isinstance(array, Tracer)
        else _read_program(array, place, form)
    )


def _read(array, place, form: Form):
    window = _window(array, place, form.sizes)
    strides = form.steps + (1,) * (array.ndim - len(form.steps))
    if set(strides) != {1}:
        window = lax.slice(window, (0,) * array.ndim, window.shape, strides)
    return jnp.moveaxis(lax.squeeze(window, form.dropped), -1, 0)


_read_program = jax.jit(_read, static_argnames="form")


def _window(array, place, sizes: tuple[int, ...]):
    sizes, starts = sizes + array.shape[len(sizes) :], _starts(place, array.ndim)
    if all(isinstance(start, int) for start in starts):
        return lax.slice(
            array, starts, [start + size for start, size in zip(starts, sizes, strict=True)]
        )
    return lax.dynamic_slice(array, starts, sizes)


def _starts(place, axes: int) -> tuple:
    """A start for every axis; those of a place that is an argument all have one type, which JAX
    asks for.
    """
    starts = (*place, *(0,) * (axes - len(place)))
    if all(isinstance(start, int) for start in starts):
        return starts
    return tuple(jnp.asarray(start, jnp.int32) for start in starts)


def write(arrays: dict[str, Any], writes: Sequence[Write]) -> dict[str, Any]:
    """The arrays with values written into them; those that nothing is written to are the same
    objects.
    """
    touched = {write.array: arrays[write.array] for write in writes}
    forms, places, values = _split(writes)
    inside = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((touched, values)))
    return arrays | (_write if inside else _write_program)(touched, forms, places, values)


def fresh(sizes: tuple, batch: int, writes: Sequence[Write]) -> dict[str, Any]:
    """Arrays of zeros, `sizes` by name, shape and dtype, with values written into them."""
    forms, places, values = _split(writes)
    inside = any(isinstance(value, Tracer) for value in values)
    return (_fresh if inside else _fresh_program)(sizes, batch, forms, places, values)


def zeros(sizes: tuple, batch: int) -> dict[str, Any]:
    """Arrays of zeros, batch last."""
    # Behind the barrier XLA takes them for data: as constants, it would work out what becomes of
    # them, cell by cell, while it compiles a program in which a state is made and run.
    return {
        name: lax.optimization_barrier(jnp.zeros((*shape, batch), dtype))
        for name, shape, dtype in sizes
    }


def _split(writes: Sequence[Write]):
    """What a program is compiled for, and what it takes."""
    return (
        tuple((write.array, write.form) for write in writes),
        tuple(write.places for write in writes),
        tuple(write.values for write in writes),
    )


def _write(arrays: dict[str, Any], forms: tuple, places: tuple, values: tuple) -> dict[str, Any]:
    arrays = dict(arrays)
    for (name, form), place, value in zip(forms, places, values, strict=True):
        put = _put if isinstance(place, tuple) else _put_all
        arrays[name] = put(arrays[name], place, value, form)
    return arrays


def _put_all(array, places, values, form: Form):
    places, values, count = jnp.asarray(places), jnp.asarray(values), len(places)

    def put_one(i, array):
        return _put(array, tuple(places[i]), values[i], form)

    return lax.fori_loop(0, count, put_one, array)


def _put(array, place, value, form: Form):
    value = jnp.expand_dims(jnp.moveaxis(value, 0, -1), form.dropped)
    if any(step > 1 for step in form.steps):
        taken = tuple(slice(None, None, step) for step in form.steps)
        value = _window(array, place, form.sizes).at[taken].set(value)
    return lax.dynamic_update_slice(array, value, _starts(place, array.ndim))


def _fresh(sizes: tuple, batch: int, forms: tuple, places: tuple, values: tuple) -> dict[str, Any]:
    return _write(zeros(sizes, batch), forms, places, values)


_write_program = jax.jit(_write, static_argnames="forms")
_fresh_program = jax.jit(_fresh, static_argnames=("sizes", "batch", "forms"))
zeros_program = jax.jit(zeros, static_argnames=("sizes", "batch"))


def stack(values: Sequence[Any], axis: int) -> Any:
    """Arrays side by side; by NumPy where it can, for XLA takes quadratic time for an operation of
    many operands.
    """
    if not any(isinstance(value, jax.Array) for value in values):
        return np.stack(values, axis)
    some = 64
    parts = [jnp.stack(values[i : i + some], axis) for i in range(0, len(values), some)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)
