"""The units of one node updated one after another, at about the cost of a pass.

To work out the field anew for every unit would cost a pass each. The field is kept instead, and
every unit that changes adds its column of the node's coupling to itself: at once to the units of
its block, and to the others when their block comes, as a matrix product.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Shaped, UInt32

from darnax.network.network import Network
from darnax.network.units import Answer, Units, draw, guarded

BLOCK = 32
"""Units whose changes reach each other at once."""

Loops: TypeAlias = Sequence[tuple[Float[Array, "units units"], Bool[Array, ""]]]
"""The matrices by which units of a node send to each other, and whether each sends."""


def sweepable(network: Network) -> frozenset[str]:
    """The arrays whose nodes can be swept.

    Their nodes have several units, which answer one by one and send to each other by matrices or
    weights; and no message to them depends on their own state in any other way.
    """
    refused: set[str] = set()
    for i, group in enumerate(network.topology.groups):
        if not _keeps_fields(network, i):
            refused.add(group.receiver.name)
    result: set[str] = set()
    for array, units in network.units.items():
        spec = network.topology.arrays[array]
        several = not spec.shared and spec.item
        if several and _one_by_one(network, units) and array not in refused:
            result.add(array)
    return frozenset(result)


def _keeps_fields(network: Network, i: int) -> bool:
    """Whether a change of units changes the messages of a group by known columns, or not at all."""
    passing = network.message_passing[i]
    if passing.asks:
        return False
    return not passing.group.self_loop or network.block_coupling(i).linear is not None


def _one_by_one(network: Network, units: Units) -> bool:
    """Whether every unit answers to its own field, with a number of its own as noise at most."""
    for kind in units.kinds:
        activation = network.activations[kind]
        if not activation.elementwise or activation.draws == "node":
            return False
    return True


def answer_one_by_one(
    network: Network,
    array: str,
    ids: UInt32[Array, "1 2"],
    old: Shaped[Array, "1 *item batch"],
    field: Float[Array, "1 *item batch"],
    loops: Loops,
    free: Bool[Array, "..."] | None,
    keys: Key[Array, " batch"] | None,
) -> Answer:
    """The answers of the units of one node, each in the field that those before it left."""
    (kind,) = network.units[array].kinds
    activation = network.activations[kind]
    field = guarded(kind, activation, old.dtype, field)
    # for all units before the loop: what a unit draws depends on its name, and not on its turn
    noise = draw(activation, ids, old.shape[1:-1], field.dtype, keys)
    # units as rows, whatever the shape of the node
    shape = math.prod(old.shape[:-1]), old.shape[-1]

    def respond(
        field: Array,
        old: Array,
        noise: Array | None,
    ) -> Array:
        target = activation.target(field, old.astype(field.dtype), noise)
        return target.astype(field.dtype)

    def settle(target: Array, old: Array) -> Array:
        new = activation.move(old.astype(target.dtype), target)
        return new.astype(old.dtype)

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
    return Answer(
        value=value.reshape(old.shape),
        target=target.reshape(old.shape),
    )


def sweep_units(
    respond: Callable[[Array, Array, Array | None], Array],
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
    # units that fill up the last block: they are not free, so that their change is 0
    filling = (0, blocks * size - units)
    given = {"old": old, "free": free, "field": field}
    if noise is not None:
        given["noise"] = noise
    for name, part in given.items():
        given[name] = jnp.pad(part, (filling, (0, 0)))
    matrices: list[tuple[Array, Array]] = []
    for matrix, on in loops:
        matrix = jnp.pad(matrix.astype(field.dtype), (filling, filling))
        matrices.append((matrix, on))

    def moved(
        target: Array,
        old: Array,
        free: Array,
    ) -> Array:
        """The change of units, in the dtype of their field."""
        new = settle(target, old).astype(field.dtype)
        change = new - old.astype(field.dtype)
        return jnp.where(free, change, 0)

    def block(changes: Array, first: Array) -> tuple[Array, Array]:
        """The units of one block; `changes` are those of all units so far, 0 for the others."""
        own: dict[str, Array] = {}
        for name, part in given.items():
            own[name] = jax.lax.dynamic_slice_in_dim(part, first, size)
        fields = own.pop("field")
        # what the units of this block send to each other, (receiver, sender)
        inner = jnp.zeros((size, size), field.dtype)
        for matrix, on in matrices:
            rows = jax.lax.dynamic_slice_in_dim(matrix, first, size)
            rows = jnp.where(on, rows, 0)
            # all blocks before this one at once; the changes of its own units are still 0
            fields = fields + rows @ changes
            inner = inner + jax.lax.dynamic_slice_in_dim(rows, first, size, axis=1)

        def unit(
            fields: Array,
            given: tuple[Array, Array, dict[str, Array]],
        ) -> tuple[Array, Array]:
            j, column, own = given
            target = respond(fields[j], own["old"], own.get("noise"))
            change = moved(target, own["old"], own["free"])
            return fields + column[:, None] * change, target

        # Columns of `inner`: what unit j sends to all units of its block.
        each = jnp.arange(size), inner.T, own
        _, targets = jax.lax.scan(unit, fields, each)
        here = moved(targets, own["old"], own["free"])
        return jax.lax.dynamic_update_slice_in_dim(changes, here, first, axis=0), targets

    firsts = jnp.arange(blocks) * size
    changes = jnp.zeros_like(given["field"])
    _, targets = jax.lax.scan(block, changes, firsts)
    return targets.reshape(-1, batch)[:units]


def _block_size(units: int) -> int:
    """The units of a block: the largest divisor up to `BLOCK`, if it is large enough.

    Else units are padded to a multiple of `BLOCK`.
    """
    largest = max(size for size in range(1, BLOCK + 1) if units % size == 0)
    # For a prime number of units the largest divisor is 1: a scan of single units, block by block.
    return largest if 4 * largest > BLOCK else min(BLOCK, units)
