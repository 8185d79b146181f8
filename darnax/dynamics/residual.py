"""How far cells are from rest."""

from collections.abc import Container
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from darnax._lazy import Lazy
from darnax.activations import Leaky, described
from darnax.dynamics.respond import Cells
from darnax.dynamics.schedules import Asynchronous
from darnax.dynamics.setting import Setting
from darnax.network.messages import arrays_of, field_dtype, rows_of
from darnax.states.graph import GraphState

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

Scales = dict[int, Float[Array, "rows batch"]]


def residual_dtype(setting: Setting) -> Any:
    """Float32, or float64 where any moving array is."""
    specs = setting.network.topology.layout.arrays
    double = any(field_dtype(specs[at]) == jnp.float64 for at in setting.call.frame.moving)
    return jnp.float64 if double else jnp.float32


def block_scales(setting: Setting, state: GraphState, skip: Container[int] = ()) -> Scales:
    """For every row of the moving arrays max(1, max|s|) over its block: what residuals are relative
    to.
    """
    result, arrays = {}, arrays_of(state)
    for at in setting.call.frame.moving:
        if at in skip:
            continue
        spec = setting.network.topology.layout.arrays[at]
        size = jnp.abs(rows_of(spec, arrays[at]).astype(field_dtype(spec)))
        if spec.shared:
            blocks = setting.network.plan.arrays[at].blocks
            assert blocks is not None
            largest = jraph.segment_max(size, jnp.where(blocks < 0, spec.rows, blocks), spec.rows)
            size = largest.at[blocks].get(mode="fill", fill_value=1)
        else:
            size = jnp.max(size, axis=tuple(range(1, size.ndim - 1)))
        result[at] = jnp.maximum(size, 1)
    return result


def within_one(setting: Setting, at: int) -> bool:
    """Whether after a first pass all that moves in an array lies between -1 and 1, and the scales
    of its rows are 1.

    Held cells may be larger, so that must not share a row with others; nor may a pass leave out
    what it could move.
    """
    network, call = setting.network, setting.call
    bounded = all(
        described(network.activations[kind]).bounded for kind in network.plan.arrays[at].kinds
    )
    masked = any(network.topology.layout.node_array[node] == at for node in call.masked)
    shared = network.topology.layout.arrays[at].shared
    return bounded and not masked and not shared and not isinstance(call.schedule, Asynchronous)


def relative(
    scale: Float[Array, "rows batch"], change: Float[Array, "rows *item batch"]
) -> Float[Array, " batch"]:
    """The largest change of every sample, relative to the scale of its row."""
    largest = jnp.max(change, axis=tuple(range(1, change.ndim - 1)))
    return jnp.max(largest / scale, axis=0)


def shows(setting: Setting, at: int) -> bool:
    """Whether the change of an array shows how far its cells were from where the map sends them.

    It is then read off the written array, which is cheaper than working out the map a second time.
    Leaky units move but a part of the way, a random schedule moves but some cells, and integers
    cannot show a NaN.
    """
    network = setting.network
    leaky = any(
        isinstance(network.activations[kind], Leaky) for kind in network.plan.arrays[at].kinds
    )
    floating = jnp.issubdtype(jnp.dtype(network.topology.layout.arrays[at].dtype), jnp.floating)
    return floating and not leaky and not isinstance(setting.call.schedule, Asynchronous)


def change_of(target: Array, cells: Cells, free: Array | None) -> Float[Array, "rows *item batch"]:
    """How far free cells are from where the map sends them; NaN and infinity show as such."""
    change = jnp.abs(target - cells.old.astype(target.dtype))
    return change if free is None else jnp.where(free, change, 0)


def largest_of(
    setting: Setting, residuals: list, batch: int, scales: Scales | None
) -> Float[Array, " batch"] | None:
    """The residual over all parts of a pass."""
    if scales is None:
        return None
    dtype = residual_dtype(setting)
    return jnp.max(
        jnp.stack([jnp.zeros(batch, dtype), *(part.astype(dtype) for part in residuals)]), axis=0
    )
