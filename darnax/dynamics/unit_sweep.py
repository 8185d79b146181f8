"""The units of one node updated one after another, at about the cost of a pass.

To work out the field anew for every unit would cost a pass each. The field is kept instead, and
every unit that changes adds its column of the node's coupling to itself: at once to the units of
its block, and to the others when their block comes, as a matrix product.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from darnax.activations import Activation
from darnax.network.network import Network
from darnax.network.units import Answer, draw, guarded

BLOCK = 32
"""Units whose changes reach each other at once."""

Loops = Sequence[tuple[Float[Array, "units units"], Bool[Array, ""]]]
"""The matrices by which units of a node send to each other, and whether each sends."""


def sweepable(network: Network) -> frozenset[str]:
    """The arrays whose nodes can be swept.

    Their nodes have several units, which answer one by one and send to each other by matrices or
    weights; and no message to them depends on their own state in any other way.
    """
    groups = range(len(network.message_passing))
    refused = {_receiver(network, i) for i in groups if not _keeps_fields(network, i)}
    result = set()
    for array, units in network.units.items():
        spec = network.topology.arrays[array]
        activations = [network.activations[kind] for kind in units.kinds]
        one_by_one = all(fn.elementwise and fn.draws != "node" for fn in activations)
        if not spec.shared and spec.item and one_by_one and array not in refused:
            result.add(array)
    return frozenset(result)


def _receiver(network: Network, i: int) -> str:
    return network.topology.groups[i].receiver.name


def _keeps_fields(network: Network, i: int) -> bool:
    """Whether a change of units changes the messages of a group by known columns, or not at all."""
    passing = network.message_passing[i]
    if passing.asks:
        return False
    return not passing.group.self_loop or network.block_coupling(i).linear is not None


def answer_one_by_one(
    kind: str,
    activation: Activation,
    ids: Any,
    old: Shaped[Array, "1 *item batch"],
    field: Float[Array, "1 *item batch"],
    loops: Loops,
    free: Bool[Array, "..."] | None,
    keys: Any,
) -> Answer:
    """The answers of the units of one node, each in the field that those before it left."""
    field = guarded(kind, activation, old.dtype, field)
    shape = math.prod(old.shape[:-1]), old.shape[-1]
    noise = draw(activation, ids, old.shape[1:-1], field.dtype, keys)

    def respond(field: Array, old: Array, noise: Any) -> Array:
        return activation.target(field, old.astype(field.dtype), noise).astype(field.dtype)

    def settle(target: Array, old: Array) -> Array:
        return activation.move(old.astype(target.dtype), target).astype(old.dtype)

    moves = jnp.broadcast_to(True if free is None else free, old.shape)
    target = sweep_units(
        respond,
        settle,
        old.reshape(shape),
        field.reshape(shape),
        None if noise is None else noise.reshape(shape),
        loops,
        moves.reshape(shape),
    )
    value = settle(target, old.reshape(shape))
    return Answer(value.reshape(old.shape), target.reshape(old.shape))


def sweep_units(
    respond: Callable[..., Array],
    settle: Callable[[Array, Array], Array],
    old: Shaped[Array, "units batch"],
    field: Float[Array, "units batch"],
    noise: Float[Array, "units batch"] | None,
    loops: Loops,
    free: Bool[Array, "units batch"],
) -> Float[Array, "units batch"]:
    """The target of every unit in the field that it had when its turn came.

    `respond(field, old, noise)` gives the target of some units, `settle(target, old)` the state
    that they then take. `field` is that of all units before the first one changes.
    """
    units, batch = old.shape
    size = _block_size(units)
    blocks = -(-units // size)
    pad = (0, blocks * size - units), (0, 0)
    given = {"old": old, "free": free, "field": field}
    if noise is not None:
        given["noise"] = noise
    given = {name: jnp.pad(part, pad) for name, part in given.items()}
    loops = [(jnp.pad(matrix.astype(field.dtype), (pad[0], pad[0])), on) for matrix, on in loops]

    def moved(target: Array, old: Array, free: Array) -> Array:
        """The change of units, in the dtype of their field."""
        change = settle(target, old).astype(field.dtype) - old.astype(field.dtype)
        return jnp.where(free, change, 0)

    def block(changes: Array, first: Array) -> tuple[Array, Array]:
        own = {}
        for name, part in given.items():
            own[name] = jax.lax.dynamic_slice_in_dim(part, first, size)
        fields, inner = own.pop("field"), jnp.zeros((size, size), field.dtype)
        for matrix, on in loops:
            rows = jnp.where(on, jax.lax.dynamic_slice_in_dim(matrix, first, size), 0)
            fields = fields + rows @ changes
            inner = inner + jax.lax.dynamic_slice_in_dim(rows, first, size, axis=1)

        def unit(fields: Array, given: Any) -> tuple[Array, Array]:
            j, column, own = given
            target = respond(fields[j], own["old"], own.get("noise"))
            change = moved(target, own["old"], own["free"])
            return fields + column[:, None] * change, target

        _, targets = jax.lax.scan(unit, fields, (jnp.arange(size), inner.T, own))
        here = moved(targets, own["old"], own["free"])
        return jax.lax.dynamic_update_slice_in_dim(changes, here, first, axis=0), targets

    firsts = jnp.arange(blocks) * size
    _, targets = jax.lax.scan(block, jnp.zeros_like(given["field"]), firsts)
    return targets.reshape(-1, batch)[:units]


def _block_size(units: int) -> int:
    """The units of a block: the largest divisor up to `BLOCK`, if it is large enough.

    Else units are padded to a multiple of `BLOCK`.
    """
    largest = max(size for size in range(1, BLOCK + 1) if units % size == 0)
    return largest if 4 * largest > BLOCK else min(BLOCK, units)
