"""Initial weights, drawn for many edges at once in NumPy, without a program for every shape.

JAX compiles its random numbers anew for every shape, half a second each; a network of many shapes
would take minutes to build. Here the bits are Threefry's and the normal numbers come from a table
by integer arithmetic alone, so that NumPy and a traced program give the same bits: under `jit` or
`vmap`, where the key is not known yet, the same lines run in JAX.
"""

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from darnax._arrays import on_device

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY, ROUNDS = 0x1BD11BDA, 20
OCTAVES, STEPS, FRACTIONS, POINT = 31, 32, 2**9, 27
BLOCK = 2**16  # numbers that are worked on in a cache


def threefry(key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Two random words of 32 bits for every pair of words of a counter: Threefry-2x32 in 20 rounds.

    Source: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, Proc. SC11 (2011).
    """
    schedule = key[0], key[1], key[0] ^ key[1] ^ np.uint32(PARITY)
    a, b = counter[0] + schedule[0], counter[1] + schedule[1]
    for i in range(ROUNDS):
        turn = ROTATIONS[i // 4 % 2][i % 4]
        a = a + b
        b = ((b << np.uint32(turn)) | (b >> np.uint32(32 - turn))) ^ a
        if i % 4 == 3:
            n = i // 4 + 1
            a, b = a + schedule[n % 3], b + schedule[(n + 1) % 3] + np.uint32(n)
    return a, b


@functools.cache
def _table() -> np.ndarray:
    """Normal quantiles in steps of 2^-27, `(OCTAVES * STEPS + 1,)`.

    Octave k holds tails from 2^-(k+2) to 2^-(k+1).
    """
    octave, step = np.divmod(np.arange(OCTAVES * STEPS + 1), STEPS)
    # within an octave the tail falls, so that the table as a whole rises
    tails = 2.0 ** -(octave + 1.0) * (1 - step / (2 * STEPS))
    quantile = NormalDist().inv_cdf
    return np.asarray([round(-quantile(tail) * 2**POINT) for tail in tails], np.int32)


def normal_from_bits(bits: Any, xp: Any) -> Any:
    """Standard normal numbers as int32 in units of 2^-27, one for each word of 32 bits.

    The first bit is the sign. How many zeros follow says in which octave the tail lies, the bits
    after that where in it; between the entries of the table it is a line. Their standard deviation
    is 1 within 1e-3, the largest is 6.3.
    """
    rest = bits & np.uint32(0x7FFFFFFF)
    if xp is np:
        # the exponent of a float64 counts the bits of an integer exactly
        length = (np.maximum(rest, 1).astype(np.float64).view(np.int64) >> 52).astype(
            np.int32
        ) - 1022
    else:
        length = 32 - jax.lax.clz(jnp.maximum(rest, jnp.uint32(1))).astype(jnp.int32)
    octave = 31 - length
    scaled = (rest << octave.astype(np.uint32)) & np.uint32(0x3FFFFFFF)
    # the top of an octave comes first in the table
    place = np.uint32(0x3FFFFFFF) - scaled
    step = (place >> np.uint32(25)).astype(np.int32)
    fraction = ((place >> np.uint32(16)) & np.uint32(FRACTIONS - 1)).astype(np.int32)
    table = xp.asarray(_table())
    low = table[octave * STEPS + step]
    size = low + (((table[octave * STEPS + step + 1] - low) * fraction) >> 9)
    return xp.where(bits >> np.uint32(31) != 0, -size, size)


@dataclass(frozen=True)
class Draws:
    """Random and constant leaves for the couplings of several edges at once, or of one.

    **Fields:**

    - `words`: two random words an edge, `(edges, 2)`, of NumPy, or of JAX in a program. None if
      nothing is drawn.
    - `lead`: the leading axes of leaves: `(edges,)` for several, `()` for one, or for what tied
      edges share.
    - `dtype`: of the leaves.
    """

    words: Any
    lead: tuple[int, ...]
    dtype: np.dtype

    @property
    def xp(self) -> Any:
        """The namespace of the arrays: `numpy`, or `jax.numpy` in a program."""
        return jnp if isinstance(self.words, Tracer) else np

    def normal(self, shape: Sequence[int], scale: float, stream: int = 0) -> Any:
        """Normal numbers of standard deviation `scale`, `(*lead, *shape)`.

        Streams are independent of each other.
        """
        if self.words is None:
            raise TypeError(
                "`key` is missing: this coupling draws its weights; give a key, as from "
                "jax.random.key(0)"
            )
        size, count = math.prod(shape), math.prod(self.lead)
        check_size((*self.lead, *shape), self.dtype)
        xp, half = self.xp, -(-size // 2)
        factor = np.asarray(scale * 2.0**-POINT, self.dtype)

        def some(start: int, stop: int) -> Any:
            place = xp.arange(start, stop, dtype=np.uint32)[None]
            key = self.words[:, :1], self.words[:, 1:]
            pair = xp.stack(threefry(key, (place, xp.full_like(place, stream))), axis=-1)
            return normal_from_bits(pair.reshape(count, -1), xp).astype(self.dtype) * factor

        if xp is jnp:
            return some(0, half)[:, :size].reshape((*self.lead, *shape))
        result = np.empty((count, 2 * half), self.dtype)
        width = max(1, BLOCK // max(count, 1))
        for start in range(0, half, width):
            stop = min(start + width, half)
            result[:, 2 * start : 2 * stop] = some(start, stop)
        return result[:, :size].reshape((*self.lead, *shape))

    def full(self, shape: Sequence[int], value: Any) -> Any:
        """A number, or one number an edge, for every entry of `(*lead, *shape)`."""
        check_size((*self.lead, *shape), self.dtype)
        xp = jnp if isinstance(value, jax.Array) else np
        value = xp.asarray(value, self.dtype)
        return xp.broadcast_to(
            value.reshape((*value.shape, *[1] * len(shape))), (*self.lead, *shape)
        )

    def each(self, tree: Any) -> Any:
        """A copy of every array of a pytree for every edge."""
        if self.lead == ():
            return tree

        def copies(leaf: Any) -> Any:
            xp = jnp if isinstance(leaf, Tracer) else np
            shape = (*self.lead, *leaf.shape)
            return on_device(xp.broadcast_to(leaf, shape))

        return jax.tree.map(lambda leaf: copies(leaf) if eqx.is_array(leaf) else leaf, tree)


def check_size(shape: Sequence[int], dtype: Any):
    """Refuse arrays that no memory holds, before they are asked for."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > _memory():
        raise ValueError(
            f"its parameters of shape {tuple(shape)} need {size / 2**30:,.0f} GiB, and this "
            f"machine has {_memory() / 2**30:,.0f}; couple fewer units, or by dx.conv, dx.sparse "
            "or dx.scale"
        )


@functools.cache
def _memory() -> float:
    """Bytes of memory; infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def words_of(key: Any) -> Any:
    """Two words that stand for a key, of NumPy unless it is traced."""
    data = jax.random.key_data(key)
    data = data if isinstance(data, Tracer) else np.asarray(data)
    first = data[..., :2]
    for i in range(2, data.shape[-1] - 1, 2):  # keys of other generators are longer
        first = first ^ data[..., i : i + 2]
    return first


def derived(key: Any, names: np.ndarray) -> Any:
    """Two random words for each pair of words in `names`, `(n, 2)`, from a key."""
    words = words_of(key)
    xp = jnp if isinstance(words, Tracer) else np
    with np.errstate(over="ignore"):
        return xp.stack(threefry((words[0], words[1]), (names[:, 0], names[:, 1])), axis=-1)


def keys_of(words: Any, like: Any) -> Any:
    """Words as keys of JAX, of the generator that `like` is of."""
    size = jax.random.key_data(like).shape[-1]
    data = jnp.concatenate([jnp.asarray(words)] * -(-size // 2), axis=-1)[..., :size]
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
