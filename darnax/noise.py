"""Random numbers of units and edges, from their names and the keys of samples.

What a unit draws depends on the name of its node, its place in the node, its sample and the pass,
and on nothing else: not on the order of nodes, nor on which other units draw, nor on the batch. The
same holds for edges.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt32

from darnax import checks

ROTATIONS = 13, 15, 26, 6, 17, 29, 16, 24
PARITY = 0x1BD11BDA
ROUNDS = 13


def named_keys(words: UInt32[Array, "n 2"], keys: Key[Array, " batch"]) -> Key[Array, "n batch"]:
    """A key for every node, or edge, and sample: the sample's, mixed with two words of a name.

    Both are as good as random, so that their bits may be added: to hash them would cost as much as
    the noise itself.
    """
    data = jax.random.key_data(keys)
    data = jnp.broadcast_to(data, (len(words), *data.shape))
    data = data.at[..., :2].set(data[..., :2] ^ words[:, None])
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


def sample_keys(key: Any, batch: int, random: str | None) -> Key[Array, " batch"] | None:
    """One key a sample; None where nothing is random.

    `random` says what is random, and None that nothing is. Sample i of a single key draws from
    `fold_in(key, i)`, so that its companions do not change its noise. Raises `ValueError` where a
    key is missing, or keys are not one a sample.
    """
    if key is None:
        if random is not None:
            raise ValueError(f"`key` is missing: {random}; give jax.random.key(0)")
        return None
    key = checks.key("key", key)
    if key.shape not in ((), (batch,)):
        raise ValueError(
            f"`key` is one key or one for each of the {batch} samples, but got keys of shape "
            f"{key.shape}"
        )
    if random is None:
        return None
    return key if key.ndim else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))


def pass_keys(keys: Key[Array, " batch"] | None, t: Any) -> Key[Array, " batch"] | None:
    """The keys of all samples for pass `t`."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, t))(keys)
