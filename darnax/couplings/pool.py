"""Couplings without parameters between images of different size."""

from collections.abc import Callable, Sequence
from itertools import product

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from darnax import checks
from darnax.couplings.conv import space_axes
from darnax.couplings.coupling import Factory


class Pool(eqx.Module):
    """What `reduce` makes of every window of a `(*space, channels)` node, channel by channel."""

    window: tuple[int, ...] = eqx.field(static=True)
    stride: tuple[int, ...] = eqx.field(static=True)
    reduce: Callable[..., Array] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        # the k-th unit of all windows at once is one strided slice of the image
        ends = [size - window for size, window in zip(x.shape, self.window, strict=False)]
        shifted = [
            x[tuple(slice(k, end + k + 1, step) for k, end, step in zip(shift, ends, self.stride, strict=True))]
            for shift in product(*map(range, self.window))
        ]
        return self.reduce(jnp.stack(shifted), axis=0)


def pool(
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    reduce: Callable[..., Array] = jnp.mean,
) -> Factory:
    """One number for every window of an image and every channel; it has no parameters.

    Nodes are of shape `(*space, channels)`, with one to three axes of space. Windows lie inside the image, `(size -
    window) // stride + 1` of them along an axis.

    **Arguments:**

    - `window`: one number for all axes of space, or one for each.
    - `stride`: the same; None for that of the window, so that windows tile the image.
    - `reduce`: what a window becomes, a function with an `axis`: `jnp.mean`, `jnp.max`, `jnp.sum`, ...

    Raises `ValueError` for a window or stride below 1, a window larger than the image, or nodes without space.

    !!! example

        ```python
        couplings = {"pool": dx.pool(2), "strongest": dx.pool(3, stride=2, reduce=jnp.max)}
        ```
    """

    def make(sender_shape: tuple[int, ...], receiver_shape: tuple[int, ...], key: Key[Array, ""] | None = None):
        axes = space_axes("pool", sender_shape, receiver_shape)
        size = checks.per_axis("window", window, axes)
        if any(part > whole for part, whole in zip(size, sender_shape, strict=False)):
            raise ValueError(f"`window` {size} is larger than the image {sender_shape}; make it smaller")
        return Pool(size, size if stride is None else checks.per_axis("stride", stride, axes), reduce)

    return make


class Upsample(eqx.Module):
    """The message in which every unit of a `(*space, channels)` node fills a block."""

    factor: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        for axis, times in enumerate(self.factor):
            x = jnp.repeat(x, times, axis=axis)
        return x


def upsample(factor: int | Sequence[int]) -> Factory:
    """A larger image in which every unit is repeated over a block; it has no parameters.

    Nodes are of shape `(*space, channels)`, with one to three axes of space.

    **Arguments:**

    - `factor`: how often a unit is repeated along an axis; one number for all, or one for each.

    Raises `ValueError` for a factor below 1 or nodes without space.

    !!! example

        ```python
        couplings = {"back": dx.upsample(2)}
        ```
    """

    def make(sender_shape: tuple[int, ...], receiver_shape: tuple[int, ...], key: Key[Array, ""] | None = None):
        return Upsample(checks.per_axis("factor", factor, space_axes("upsample", sender_shape, receiver_shape)))

    return make
