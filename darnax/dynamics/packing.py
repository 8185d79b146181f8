"""Packing: many small arrays that move, carried by a relaxation as one.

A relaxation selects, compares and measures every array that moves, in every pass: kernels of XLA
for each, which take longer to compile than to run where arrays are small. Packed into one array,
many small ones take one kernel each time. Large ones would take longer to copy there and back.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from darnax._lazy import Lazy
from darnax.dynamics.problem import Problem
from darnax.dynamics.residual import shows, within_one
from darnax.network.message_passing import Rows

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

FEWEST = 4
"""Arrays that are packed: fewer take no time to compile."""
SMALL = 2**14
"""Cells of all samples of an array that is packed."""
PACKED = "packed"
"""The name of the array that small ones are packed into: no name of an array of a topology."""


class Packing(NamedTuple):
    """Which arrays are packed, one after another, and the shapes of their rows."""

    shapes: dict[str, tuple[int, ...]]

    def packed(self, rows: Rows) -> Rows:
        """The rows with the packed arrays as one, `(cells, B)`."""
        if not self.shapes:
            return rows
        others: Rows = {}
        cells: list[Array] = []
        for array, value in rows.items():
            if array in self.shapes:
                cells.append(value.reshape(-1, value.shape[-1]))
            else:
                others[array] = value
        return others | {PACKED: jnp.concatenate(cells)}

    def unpacked(self, rows: Rows) -> Rows:
        """The other way."""
        if not self.shapes:
            return rows
        result = dict(rows)
        cells = result.pop(PACKED)
        start = 0
        for array, shape in self.shapes.items():
            stop = start + math.prod(shape)
            result[array] = cells[start:stop].reshape(*shape, cells.shape[-1])
            start = stop
        return result

    def scales(self, packed: Float[Array, "cells batch"]) -> Float[Array, "cells batch"]:
        """The scale of every cell: `max(1, max|s|)` over the row of its array that it is in."""
        # the row of every cell, counted through all arrays
        numbers: list[Array] = []
        count = 0
        for rows, *item in self.shapes.values():
            own = jnp.arange(rows * math.prod(item), dtype=jnp.int32) // max(math.prod(item), 1)
            numbers.append(count + own)
            count += rows
        row = jnp.concatenate(numbers)
        largest = jraph.segment_max(jnp.abs(packed), row, count)
        return jnp.maximum(largest[row], 1)


def packing_of(problem: Problem, batch: int) -> Packing:
    """The arrays that are packed: those whose changes tell how far they are from rest."""
    shapes: dict[str, tuple[int, ...]] = {}
    for array in problem.moves:
        spec = problem.network.topology.arrays[array]
        small = math.prod(spec.shape) * batch <= SMALL
        plain = shows(problem, array) and within_one(problem, array) and not spec.shared
        if small and plain and spec.dtype == "float32":
            shapes[array] = (spec.rows, *spec.item)
    return Packing(shapes if len(shapes) >= FEWEST else {})
