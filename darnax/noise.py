"""Random numbers of units and edges, from their names and the keys of samples.

The noise of a unit depends on the name of its node, its place in the node, its sample and the pass,
and on nothing else: not on the order of nodes, nor on which other units draw, nor on the batch. The
same holds for edges.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from darnax import checks

# Constants of Threefry-2x32, as its authors give them.
ROTATIONS = 13, 15, 26, 6, 17, 29, 16, 24
PARITY = 0x1BD11BDA
ROUNDS = 13


def named_keys(
    words: UInt32[Array, "n 2"],
    keys: Key[Array, " batch"],
) -> Key[Array, "n batch"]:
    """A key for every node, or edge, and sample: the sample's, mixed with two words of a name.

    Both are as good as random, so that their bits may be added: to hash them would cost as much as
    the noise itself.
    """
    data = jax.random.key_data(keys)
    data = jnp.broadcast_to(data, (len(words), *data.shape))
    # Keys of some generators have four words. The name is mixed into the first two.
    mixed = data[..., :2] ^ words[:, None]
    data = data.at[..., :2].set(mixed)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))


def chosen(
    ids: UInt32[Array, "nodes 2"],
    keys: Key[Array, " batch"],
    item: tuple[int, ...],
    fraction: float,
) -> Bool[Array, "nodes *item batch"]:
    """A random share of the cells, drawn apart from the noise of the units."""
    # The units draw from the keys themselves. Without a key of its own the choice would pick those
    # whose noise is small.
    own = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    return uniform(ids, own, item) < fraction


def uniform(
    ids: UInt32[Array, "nodes 2"],
    keys: Key[Array, " batch"],
    item: tuple[int, ...],
) -> Float[Array, "nodes *item batch"]:
    """A number in [0, 1) for every unit, in steps of 2^-24.

    It is the first word of Threefry-2x32 in 13 rounds instead of the 20 of JAX; the counter is the
    name of the node, its second word moved on by the place of the unit. JAX has it as a function of
    its own. Written out, it runs in one loop with the operations that use the numbers.

    Source: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, Proc. SC11 (2011).
    """
    words = jax.random.key_data(keys)
    first, second = words[:, 0], words[:, 1]
    schedule = first, second, first ^ second ^ jnp.uint32(PARITY)
    place = jnp.arange(math.prod(item), dtype=jnp.uint32)[:, None]
    # Arrays are (nodes, cells, batch), or have an axis of 1 where nothing differs along it yet.
    a = ids[:, 0, None, None] + schedule[0]
    b = ids[:, 1, None, None] + place + schedule[1]
    for i in range(ROUNDS):
        left = ROTATIONS[i % 8]
        right = 32 - left
        a = a + b
        b = ((b << jnp.uint32(left)) | (b >> jnp.uint32(right))) ^ a
        # After every fourth round the next two words of the key go in, and the number of the turn.
        if i % 4 == 3:
            turn = i // 4 + 1
            a = a + schedule[turn % 3]
            b = b + schedule[(turn + 1) % 3] + jnp.uint32(turn)
    # A float32 holds 24 bits: more would round up to 1.
    bits = a >> jnp.uint32(8)
    numbers = bits.astype(jnp.float32) * jnp.float32(2**-24)
    return numbers.reshape(len(ids), *item, len(keys))


def sample_keys(key: object, batch: int, random: str | None) -> Key[Array, " batch"] | None:
    """One key a sample; None where nothing is random.

    `random` is a sentence that says what is random, or None if nothing is. Sample i of a single key
    draws from `fold_in(key, i)`, so that its companions do not change its noise. Raises
    `ValueError` where a key is missing, or keys are not one a sample.
    """
    if key is None:
        if random is not None:
            raise ValueError(f"`key` is missing: {random}; give jax.random.key(0)")
        return None
    # A key is checked even where nothing draws, so that a wrong one is found at once.
    key = checks.key("key", key)
    if key.shape not in ((), (batch,)):
        raise ValueError(
            f"`key` is one key or one for each of the {batch} samples, but got keys of shape "
            f"{key.shape}"
        )
    if random is None:
        return None
    if key.ndim:
        return key
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))


def pass_keys(
    keys: Key[Array, " batch"] | None,
    t: int | Int[Array, ""],
) -> Key[Array, " batch"] | None:
    """The keys of all samples for pass `t`."""
    if keys is None:
        return None
    return jax.vmap(lambda key: jax.random.fold_in(key, t))(keys)
