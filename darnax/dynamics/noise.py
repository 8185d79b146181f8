"""Random numbers of units, from the names of nodes and the keys of samples.

What a unit draws depends on its node's name, its place in the node, its sample and the pass, and on
nothing else: not on the order of nodes, nor on which other units draw.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt32

ROTATIONS = 13, 15, 26, 6, 17, 29, 16, 24
PARITY = 0x1BD11BDA
ROUNDS = 13


def node_keys(
    ids: UInt32[Array, "nodes 2"], keys: Key[Array, " batch"]
) -> Key[Array, "nodes batch"]:
    """A key for every node and sample: the sample's, its first two words mixed with those that name
    the node.

    Both are as good as random, so their bits may be added; to hash them would cost as much as the
    noise itself.
    """
    data = jax.random.key_data(keys)
    data = (
        jnp.broadcast_to(data, (len(ids), *data.shape)).at[..., :2].set(data[:, :2] ^ ids[:, None])
    )
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))


def chosen(
    ids: UInt32[Array, "nodes 2"],
    keys: Key[Array, " batch"],
    item: tuple[int, ...],
    fraction: float,
) -> Bool[Array, "nodes *item batch"]:
    """A random share of the cells, drawn apart from the noise of the units."""
    return uniform(ids, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys), item) < fraction


def uniform(
    ids: UInt32[Array, "nodes 2"], keys: Key[Array, " batch"], item: tuple[int, ...]
) -> Float[Array, "nodes *item batch"]:
    """A number in [0, 1) for every unit, in steps of 2^-24.

    It is Threefry-2x32 in 13 rounds instead of the 20 of JAX; the counter is the node's name, moved
    on by the place of the unit. Written out, it runs in one loop with what the number is for,
    unlike that of JAX.

    Source: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, Proc. SC11 (2011).
    """
    data = jax.random.key_data(keys)
    place = jnp.arange(math.prod(item), dtype=jnp.uint32)[:, None]
    schedule = data[:, 0], data[:, 1], data[:, 0] ^ data[:, 1] ^ jnp.uint32(PARITY)
    a, b = ids[:, 0, None, None] + schedule[0], ids[:, 1, None, None] + place + schedule[1]
    for i in range(ROUNDS):
        turn = ROTATIONS[i % 8]
        a = a + b
        b = ((b << jnp.uint32(turn)) | (b >> jnp.uint32(32 - turn))) ^ a
        if i % 4 == 3:
            n = i // 4 + 1
            a, b = a + schedule[n % 3], b + schedule[(n + 1) % 3] + jnp.uint32(n)
    a = jnp.broadcast_to(a, (len(ids), len(place), len(data)))
    return ((a >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2**-24)).reshape(
        len(ids), *item, len(data)
    )
