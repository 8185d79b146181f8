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
from types import ModuleType
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

from darnax._arrays import on_device
from darnax.states.values import AnyArray

# Of Threefry: by how many bits words are turned, the constant of the key schedule, and rounds
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS = 20

# Of the table of normal numbers
OCTAVES = 31
"""Halvings of a tail: one for every bit of a word but the sign."""
STEPS = 32
"""Entries an octave."""
FRACTIONS = 2**9
"""Points of the line from one entry to the next; products with them stay within 32 bits."""
POINT = 27
"""Bits behind the binary point: the largest number, 6.3, then fits into an int32."""

BLOCK = 2**16
"""Numbers that are worked on in a cache."""

Tree = TypeVar("Tree")
"""A pytree that comes back in the same form, such as a coupling."""


def threefry(
    key: tuple[AnyArray, AnyArray],
    counter: tuple[AnyArray, AnyArray],
) -> tuple[AnyArray, AnyArray]:
    """Two random words of 32 bits for every pair of words of a counter: Threefry-2x32 in 20 rounds.

    Source: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, Proc. SC11 (2011).
    """
    parity = key[0] ^ key[1] ^ np.uint32(PARITY)
    schedule = key[0], key[1], parity
    a = counter[0] + schedule[0]
    b = counter[1] + schedule[1]
    for i in range(ROUNDS):
        turn = ROTATIONS[i // 4 % 2][i % 4]
        a = a + b
        turned = (b << np.uint32(turn)) | (b >> np.uint32(32 - turn))
        b = turned ^ a
        # Every fourth round the key is mixed in again, in turn.
        if i % 4 == 3:
            n = i // 4 + 1
            a = a + schedule[n % 3]
            b = b + schedule[(n + 1) % 3] + np.uint32(n)
    return a, b


@functools.cache
def _table() -> np.ndarray:
    """Normal quantiles in steps of 2^-27, `(OCTAVES * STEPS + 1,)`.

    Octave k holds tails from 2^-(k+2) to 2^-(k+1).
    """
    entry = np.arange(OCTAVES * STEPS + 1)
    octave, step = np.divmod(entry, STEPS)
    # Within an octave the tail falls, so that the table as a whole rises.
    top = 2.0 ** -(octave + 1.0)
    tails = top * (1 - step / (2 * STEPS))
    normal = NormalDist()
    entries = [round(-normal.inv_cdf(tail) * 2**POINT) for tail in tails]
    return np.asarray(entries, np.int32)


def normal_from_bits(bits: AnyArray, xp: ModuleType) -> AnyArray:
    """Standard normal numbers as int32 in units of 2^-27, one for each word of 32 bits.

    The first bit is the sign. How many zeros follow says in which octave the tail lies, the bits
    after that where in it; between the entries of the table it is a line. Their standard deviation
    is 1 within 1e-3, the largest is 6.3. All of it is arithmetic of integers: floating-point
    polynomials would differ in their last bits between NumPy and a program.
    """
    rest = bits & np.uint32(0x7FFFFFFF)
    octave = 31 - _bit_length(rest, xp)

    # The 30 bits behind the leading one: 5 choose the step, the next 9 the point between steps.
    behind = np.uint32(0x3FFFFFFF)
    scaled = (rest << octave.astype(np.uint32)) & behind
    # The top of an octave comes first in the table.
    place = behind - scaled
    step = (place >> np.uint32(25)).astype(np.int32)
    fraction = (place >> np.uint32(16)) & np.uint32(FRACTIONS - 1)

    table = xp.asarray(_table())
    entry = octave * STEPS + step
    low = table[entry]
    rise = (table[entry + 1] - low) * fraction.astype(np.int32)
    # A shift in place of a division by FRACTIONS
    size = low + (rise >> 9)
    negative = bits >> np.uint32(31) != 0
    return xp.where(negative, -size, size)


def _bit_length(words: AnyArray, xp: ModuleType) -> AnyArray:
    """How many bits a word has from its first one on; 1 for zero."""
    if xp is np:
        # NumPy counts no zeros. The exponent of a float64 does, exactly, for an integer of 32 bits.
        exact = np.maximum(words, 1).astype(np.float64)
        exponent = exact.view(np.int64) >> 52
        return exponent.astype(np.int32) - 1022
    words = jnp.maximum(words, jnp.uint32(1))
    zeros = jax.lax.clz(words)
    return 32 - zeros.astype(jnp.int32)


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

    words: AnyArray | None
    lead: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def xp(self) -> ModuleType:
        """The namespace of the arrays: `numpy`, or `jax.numpy` in a program."""
        return jnp if isinstance(self.words, Tracer) else np

    def normal(
        self,
        shape: Sequence[int],
        scale: float,
        stream: int = 0,
    ) -> AnyArray:
        """Normal numbers of standard deviation `scale`, `(*lead, *shape)`.

        Streams are independent of each other.
        """
        words = self.words
        if words is None:
            raise TypeError(
                "`key` is missing: this coupling draws its weights; give a key, as from "
                "jax.random.key(0)"
            )
        whole = (*self.lead, *shape)
        check_size(whole, self.dtype)
        xp = self.xp
        size, count = math.prod(shape), math.prod(self.lead)
        # A word of the counter gives two numbers; one too many is cut off at the end.
        half = -(-size // 2)
        factor = np.asarray(scale * 2.0**-POINT, self.dtype)

        def some(start: int, stop: int) -> AnyArray:
            # An edge is its key, and a number its place in the counter: what an edge draws depends
            # neither on other edges nor on how many numbers are drawn at once.
            place = xp.arange(start, stop, dtype=np.uint32)[None]
            counter = place, xp.full_like(place, stream)
            key = words[:, :1], words[:, 1:]
            pair = xp.stack(threefry(key, counter), axis=-1)
            numbers = normal_from_bits(pair.reshape(count, -1), xp)
            return numbers.astype(self.dtype) * factor

        if xp is jnp:
            return some(0, half)[:, :size].reshape(whole)
        # NumPy walks through memory once an operation: in blocks it stays in a cache.
        result = np.empty((count, 2 * half), self.dtype)
        width = max(1, BLOCK // max(count, 1))
        for start in range(0, half, width):
            stop = min(start + width, half)
            result[:, 2 * start : 2 * stop] = some(start, stop)
        return result[:, :size].reshape(whole)

    def full(
        self,
        shape: Sequence[int],
        value: float | int | np.number[Any] | AnyArray,
    ) -> AnyArray:
        """A number, or one number an edge, for every entry of `(*lead, *shape)`."""
        whole = (*self.lead, *shape)
        check_size(whole, self.dtype)
        xp = jnp if isinstance(value, jax.Array) else np
        numbers = xp.asarray(value, self.dtype)
        one = [1] * len(shape)
        numbers = numbers.reshape((*numbers.shape, *one))
        return xp.broadcast_to(numbers, whole)

    def each(self, tree: Tree) -> Tree:
        """A copy of every array of a pytree for every edge."""
        if self.lead == ():
            return tree

        def copies(leaf: Array) -> Array:
            # NumPy outside of a program: JAX would compile a broadcast for every shape.
            xp = jnp if isinstance(leaf, Tracer) else np
            shape = (*self.lead, *leaf.shape)
            return on_device(xp.broadcast_to(leaf, shape))

        return jax.tree.map(lambda leaf: copies(leaf) if eqx.is_array(leaf) else leaf, tree)


def check_size(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Refuse arrays that no memory holds, before they are asked for."""
    size = math.prod(shape) * dtype.itemsize
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


def words_of(key: Key[Array, "..."]) -> AnyArray:
    """Two words that stand for a key, of NumPy unless it is traced."""
    data = jax.random.key_data(key)
    if not isinstance(data, Tracer):
        data = np.asarray(data)
    first = data[..., :2]
    # Keys of other generators are longer: all of their words count.
    for i in range(2, data.shape[-1] - 1, 2):
        first = first ^ data[..., i : i + 2]
    return first


def derived(key: Key[Array, ""], names: np.ndarray) -> AnyArray:
    """Two random words for each pair of words in `names`, `(n, 2)`, from a key."""
    words = words_of(key)
    xp = jnp if isinstance(words, Tracer) else np
    # Arrays of one word, and no scalars: NumPy warns where a sum of scalars wraps around.
    pair = threefry(
        key=(words[:1], words[1:]),
        counter=(names[:, 0], names[:, 1]),
    )
    return xp.stack(pair, axis=-1)


def keys_of(
    words: AnyArray,
    like: Key[Array, ""],
) -> Key[Array, "..."]:
    """Words as keys of JAX, of the generator that `like` is of."""
    size = jax.random.key_data(like).shape[-1]
    # Repeated for generators whose keys are longer than two words
    times = -(-size // 2)
    parts = [jnp.asarray(words)] * times
    data = jnp.concatenate(parts, axis=-1)[..., :size]
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
