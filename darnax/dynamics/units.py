"""The units of one node updated one after another.

To work out the field anew for every unit would cost a pass each. The field is kept instead, and
every unit that changes adds its column of the node's coupling to itself: at once to those of its
block, and to others when their block comes, as a matrix product, so that a sweep costs about as
much as a pass.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from darnax.activations import Glauber, described, needs
from darnax.couplings.coupling import pick, value
from darnax.couplings.dense import is_matrix, matrix_of
from darnax.couplings.scale import Scale
from darnax.network.network import Network
from darnax.static import unsealed

BLOCK = 32


def can_step(network: Network) -> tuple[int, ...]:
    """Arrays whose nodes can be swept: of several units that answer one by one, coupled by matrices
    or strengths.

    Nor may what they hear from others depend on their own state.
    """
    topology, result = network.topology, []
    hearing = {
        group.receiver_array
        for group, index in zip(topology.groups, network.plan.groups, strict=True)
        if index.hears_receiver
    }
    for at, (spec, index) in enumerate(
        zip(topology.layout.arrays, network.plan.arrays, strict=True)
    ):
        loops = [
            unsealed(network.couplings[group.kind][place.bundle])
            for group, place in zip(topology.groups, topology.places, strict=True)
            if group.self_loop and group.receiver_array == at
        ]
        fns = [network.activations[kind] for kind in index.kinds]
        alone = [
            described(fn).elementwise and (isinstance(fn, Glauber) or "key" not in needs(fn))
            for fn in fns
        ]
        fits = not spec.shared and spec.item and at not in hearing
        if (
            fits
            and all(alone)
            and all(is_matrix(loop) or isinstance(loop, Scale) for loop in loops)
        ):
            result.append(at)
    return tuple(result)


def loop_matrix(coupling: Any, tied: bool, edge: Any) -> Float[Array, "units units"]:
    """How the units of a node hear each other through one edge of a group."""
    own = pick(coupling, tied, edge)
    if isinstance(own, Scale):
        return jnp.diag(value(own.strength).reshape(-1))
    return matrix_of(own)[0]


def sweep_units(
    respond: Callable[..., Array],
    settle: Callable[[Array, Array], Array],
    old: Shaped[Array, "units batch"],
    field: Float[Array, "units batch"],
    noise: Float[Array, "units batch"] | None,
    loops: Sequence[tuple[Float[Array, "units units"], Bool[Array, ""]]],
    free: Bool[Array, "units batch"],
) -> Float[Array, "units batch"]:
    """Where the field of every unit sent it when its turn came.

    `respond(field, old, noise)` gives the target of some units, `settle(target, old)` the state
    that they then take; `field` is what all hear at first, and `loops` are matrices by which they
    hear each other, and whether they do.
    """
    units, batch = old.shape
    size = max(size for size in range(1, BLOCK + 1) if units % size == 0)
    size = size if 4 * size > BLOCK else min(BLOCK, units)  # a prime number of units is filled up
    blocks = -(-units // size)
    pad = (0, blocks * size - units), (0, 0)
    given = {"old": old, "free": free, "field": field} | ({} if noise is None else {"noise": noise})
    given = {name: jnp.pad(part, pad) for name, part in given.items()}
    loops = [
        (jnp.pad(matrix.astype(field.dtype), (pad[0], pad[0])), speaks) for matrix, speaks in loops
    ]

    def moved(target: Array, old: Array, free: Array) -> Array:
        return jnp.where(free, settle(target, old).astype(field.dtype) - old.astype(field.dtype), 0)

    def block(steps: Array, first: Array):
        own = {
            name: jax.lax.dynamic_slice_in_dim(part, first, size) for name, part in given.items()
        }
        heard, inner = own.pop("field"), jnp.zeros((size, size), field.dtype)
        for matrix, speaks in loops:
            rows = jnp.where(speaks, jax.lax.dynamic_slice_in_dim(matrix, first, size), 0)
            heard = heard + rows @ steps
            inner = inner + jax.lax.dynamic_slice_in_dim(rows, first, size, axis=1)

        def unit(heard: Array, given: Any):
            j, column, own = given
            target = respond(heard[j], own["old"], own.get("noise"))
            return heard + column[:, None] * moved(target, own["old"], own["free"]), target

        _, targets = jax.lax.scan(unit, heard, (jnp.arange(size), inner.T, own))
        here = moved(targets, own["old"], own["free"])
        return jax.lax.dynamic_update_slice_in_dim(steps, here, first, axis=0), targets

    _, targets = jax.lax.scan(block, jnp.zeros_like(given["field"]), jnp.arange(blocks) * size)
    return targets.reshape(-1, batch)[:units]
