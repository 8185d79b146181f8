"""The residual: how far samples are from rest, and whether they are back where they were."""

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from darnax._lazy import Lazy
from darnax.dynamics.problem import Problem
from darnax.network.message_passing import Rows
from darnax.network.selection import Range, Selection

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

NEAR = 1e-5
"""A cycle comes back to within this share of the way that it goes in a pass."""
SUSTAINED, MOST_SUSTAINED = 1000, 1e-3
"""Rounding can keep a slow approach going round by so many of its units, and this at most."""
LOOK, PART = 64, 16
"""A first look at the states compares so many cells, or one row in so many of an array."""
FEW, PARTS = 8, 16
"""Samples up to which rows are compared elementwise, and the parts that they are compared in."""


class Scales(NamedTuple):
    """What residuals are relative to: max(1, max|s|) over the block of each row, before a pass.

    A fixed point of large states cannot be found to a small absolute error, and one of small states
    needs no smaller one.
    """

    by_array: dict[str, Float[Array, "..."]]
    dtype: DTypeLike

    def relative(
        self,
        array: str,
        rows: Selection,
        change: Float[Array, "some *item batch"],
    ) -> Float[Array, " batch"]:
        """The largest change of every sample, relative to the scale of its row."""
        cells = tuple(range(1, change.ndim - 1))
        largest = jnp.max(change, axis=cells)  # (some, batch)
        scale = rows.take(self.by_array[array])
        relative = _largest_of_rows(largest / scale)
        return relative.astype(self.dtype)


def _largest_of_rows(sizes: Float[Array, "some batch"]) -> Float[Array, " batch"]:
    """The largest size of any row, of every sample; sizes are at least 0."""
    if sizes.shape[1] > FEW:
        return jnp.max(sizes, axis=0)
    # XLA takes ten times as long to reduce many rows of few samples as to compare them elementwise:
    # parts of the rows, and again, until few are left.
    while len(sizes) > PARTS**2:
        part = -(-len(sizes) // PARTS)
        filled = jnp.pad(sizes, ((0, part * PARTS - len(sizes)), (0, 0)))
        sizes = filled[:part]
        for i in range(1, PARTS):
            sizes = jnp.maximum(sizes, filled[i * part : (i + 1) * part])
        # Without the barrier XLA would make one reduction of it again.
        sizes = jax.lax.optimization_barrier(sizes)
    return jnp.max(sizes, axis=0)


def residual_dtype(problem: Problem) -> DTypeLike:
    """Float32, or float64 where any array that moves is."""
    arrays = problem.network.topology.arrays
    for name in problem.moves:
        if arrays[name].field_dtype == "float64":
            return jnp.dtype("float64")
    return jnp.dtype("float32")


def scales_of(
    problem: Problem,
    array: str,
    rows: Shaped[Array, "..."],
) -> Float[Array, "..."]:
    """The scale of every row of an array, of every sample."""
    spec = problem.network.topology.arrays[array]
    size = jnp.abs(rows.astype(spec.field_dtype))
    if spec.shared:
        # Rows are cells here, and those of one block have one scale.
        blocks = problem.network.units[array].blocks
        assert blocks is not None
        # Cells that no node covers belong to none: a segment out of range is dropped.
        segments = jnp.where(blocks < 0, spec.rows, blocks)
        largest = jraph.segment_max(size, segments, spec.rows)
        size = largest.at[blocks].get(mode="fill", fill_value=1)
    else:
        cells = tuple(range(1, size.ndim - 1))
        size = jnp.max(size, axis=cells)
    return jnp.maximum(size, 1)


def scales_of_bounded(
    problem: Problem,
    moving: Rows,
) -> dict[str, Float[Array, "..."]]:
    """The scales before the first pass of the arrays whose scales are 1 from the second one on."""
    found = {}
    for array, rows in moving.items():
        if within_one(problem, array):
            found[array] = scales_of(problem, array, rows)
    return found


def scales_before(
    problem: Problem,
    moving: Rows,
    first: dict[str, Float[Array, "..."]],
    t: Int[Array, ""],
) -> Scales:
    """The scales before pass `t`, counted from 0; `first` is what `scales_of_bounded` found."""
    scales = {}
    for array, rows in moving.items():
        if array not in first:
            scales[array] = scales_of(problem, array, rows)
    for array, before_first_pass in first.items():
        # To know them saves a look at all states in every pass.
        scales[array] = jnp.where(t == 0, before_first_pass, 1)
    return Scales(scales, residual_dtype(problem))


def within_one(problem: Problem, array: str) -> bool:
    """Whether after a first pass the states of an array lie between -1 and 1, so that scales are 1.

    Held cells may be larger: they must not share a block with cells that move, nor may a pass leave
    out what it could move.
    """
    network = problem.network
    if problem.schedule.share is not None:
        return False
    for kind in network.units[array].kinds:
        if not network.activations[kind].bounded:
            return False
    for node in problem.masked:
        if network.topology.array_of(node).name == array:
            return False
    shared = network.topology.arrays[array].shared
    # A row of a stacked array is a block of its own: rows that are held scale themselves alone.
    return not shared or problem.moves[array] is None


def shows(problem: Problem, array: str) -> bool:
    """Whether the change of an array in a pass is its distance from its target.

    It is then read off the new states, which costs less than to keep the targets. Units with memory
    go but a part of the way, a random schedule moves but some cells, and integers cannot show a
    NaN.
    """
    dtype = jnp.dtype(problem.network.topology.arrays[array].dtype)
    floating = bool(jnp.issubdtype(dtype, jnp.floating))
    return immediate(problem, array) and floating and problem.schedule.share is None


def change_to_target(
    problem: Problem,
    array: str,
    target: Float[Array, "some *item batch"],
    new: Shaped[Array, "some *item batch"],
    old: Shaped[Array, "some *item batch"],
    free: Bool[Array, "..."] | None,
) -> Float[Array, "some *item batch"]:
    """How far free cells were from their target; NaN and infinity show as such."""
    if shows(problem, array):
        # cells that are not free kept their state: their change is 0 without a mask
        return jnp.abs(new - old).astype(target.dtype)
    change = jnp.abs(target - old.astype(target.dtype))
    return change if free is None else jnp.where(free, change, 0)


def distance(
    scales: Scales,
    a: Rows,
    b: Rows,
    look: bool = False,
) -> Float[Array, " batch"]:
    """The largest difference of two states; with `look` on some cells of one array alone."""
    largest = None
    for array, rows in a.items():
        count = len(rows)
        if look:
            item = max(math.prod(rows.shape[1:-1]), 1)
            count = max(1 + LOOK // item, len(rows) // PART)
        some = Range(0, min(count, len(rows)))
        dtype = _field_dtype(rows)
        one = some.take(rows).astype(dtype)
        other = some.take(b[array]).astype(dtype)
        here = scales.relative(array, some, jnp.abs(one - other))
        largest = here if largest is None else jnp.maximum(largest, here)
        # one array is enough for a look
        if look:
            break
    assert largest is not None
    return largest


def is_back(
    scales: Scales,
    new: Rows,
    old: Rows,
    anchor: Rows,
    tol: Float[Array, ""],
    residual: Float[Array, " batch"],
    immediate: bool,
) -> Bool[Array, " batch"]:
    """The samples that are back at an earlier copy of their state, so that they cycle.

    A residual of 0 marks samples that are not asked; `immediate` says that the residual is how far
    samples went in this pass, as no unit has memory. Where a pass contracts by λ near a p-th root
    of unity, a sample on its way to rest comes near to where it was p passes ago too. It is then
    `|1 - λᵖ| / |1 - λ|` of the length of a pass away, at least `1 - |λ|`; in a cycle it is not away
    at all, but for rounding. So it must be much nearer than it goes in a pass, and go much further
    than rounding reaches: where `|λ|` is 0.999, rounding alone keeps a slow approach going round in
    its last thousand units for good.

    Few samples are back, and a look at some cells tells; only if some might be are all compared.
    """
    # what never moves is at rest
    if not new:
        return jnp.zeros_like(residual, dtype=bool)
    floats = {}
    for array, rows in new.items():
        if jnp.issubdtype(rows.dtype, jnp.inexact):
            floats[array] = rows
    # a few units in the last place, of the coarsest dtype
    rounding = 0.0
    for rows in floats.values():
        rounding = max(rounding, 4 * float(jnp.finfo(rows.dtype).eps))
    # how far each sample went in this pass
    length = residual
    if not immediate:
        # units with memory go a share of their residual, and a slow approach is no cycle
        length = jnp.where(residual > 0, distance(scales, new, old), 0)

    def near(
        size: Float[Array, " batch"] | float,
        look: bool,
    ) -> Bool[Array, " batch"]:
        within = jnp.maximum(NEAR * length, rounding * size)
        within = jnp.minimum(tol, within)
        return distance(scales, new, anchor, look) <= within

    def look_closer() -> Bool[Array, " batch"]:
        # Rounding is relative to the largest state of a sample, in units of the scales.
        size = jnp.zeros_like(residual)
        for array, rows in floats.items():
            values = jnp.abs(rows).astype(_field_dtype(rows))
            all_rows = Range(0, len(rows))
            size = jnp.maximum(size, scales.relative(array, all_rows, values))
        reached = min(SUSTAINED * rounding, MOST_SUSTAINED) * size
        return hint & near(size, look=False) & (length > reached)

    # In units of the scales, those of the state before, states are of size 1 or little more.
    hint = (length > 0) & near(1.0, look=True)
    # Nobody, made from `hint`: inside of `shard_map` it is spread over devices as that is.
    return jax.lax.cond(jnp.any(hint), look_closer, lambda: hint & False)


def _field_dtype(rows: Shaped[Array, "..."]) -> DTypeLike:
    """The dtype that states are compared in: that of their fields."""
    return jnp.float64 if rows.dtype == jnp.float64 else jnp.float32


def immediate(problem: Problem, array: str) -> bool:
    """Whether all units of an array reach their target within a pass."""
    kinds = problem.network.units[array].kinds
    return all(problem.network.activations[kind].immediate for kind in kinds)
