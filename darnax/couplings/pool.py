"""Couplings without parameters between images of different size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from darnax import checks
from darnax.couplings.conv import space_axes
from darnax.couplings.coupling import Coupling, Edges, Factory
from darnax.couplings.draws import Draws

REDUCE = "a function of an array with an `axis`"


class Pool(Coupling):
    """What `reduce` makes of every window of a `(*space, channels)` node, channel by channel."""

    window: tuple[int, ...] = eqx.field(static=True)
    stride: tuple[int, ...] = eqx.field(static=True)
    reduce: Callable[..., Array] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        space = x.shape[: len(self.window)]
        cells = []
        # The k-th cell of all windows at once is one strided slice of the image.
        for shift in product(*map(range, self.window)):
            cut = []
            for i, start in enumerate(shift):
                stop = start + space[i] - self.window[i] + 1
                cut.append(slice(start, stop, self.stride[i]))
            cells.append(x[tuple(cut)])
        return self.reduce(jnp.stack(cells), axis=0)


@checks.by_hand
def pool(
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    reduce: Callable[..., Array] = jnp.mean,
) -> Factory:
    """One number for every window of an image and every channel; it has no parameters.

    Nodes are of shape `(*space, channels)`, with one to three axes of space. Windows cover the
    image, `(size - window) / stride + 1` of them along an axis.

    **Arguments:**

    - `window`: one number for all axes of space, or one for each.
    - `stride`: the same; None for that of the window, so that windows tile the image.
    - `reduce`: what a window becomes, a function with an `axis`: `jnp.mean`, `jnp.max`, `jnp.sum`,
      ...

    Raises `ValueError` for a window or stride below 1, windows that do not cover the image, or
    nodes without space.

    !!! example

        ```python
        couplings = {"pool": dx.pool(2), "strongest": dx.pool(3, stride=2, reduce=jnp.max)}
        ```
    """
    size = checks.sizes("window", window)
    step = size if stride is None else checks.sizes("stride", stride)
    reduce = checks.function("reduce", reduce, REDUCE, "give one such as jnp.mean")
    return PoolFactory(size, step, reduce)


@dataclass(frozen=True)
class PoolFactory(Factory):
    """See `pool`."""

    window: int | tuple[int, ...]
    stride: int | tuple[int, ...]
    reduce: Callable[..., Array]

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Pool:
        axes = space_axes("pool", sender_shape, receiver_shape)
        window = checks.per_axis("window", self.window, axes)
        stride = checks.per_axis("stride", self.stride, axes)
        sizes = sender_shape[:-1]
        rests = []
        for part, whole in zip(window, sizes, strict=True):
            rests.append(whole - part)
        if min(rests) < 0:
            raise ValueError(
                f"`window` {window} is larger than the image {sender_shape}; make it smaller"
            )
        # A last window that does not reach the end would leave out cells without a word.
        left_out = [rest % step for rest, step in zip(rests, stride, strict=True)]
        if any(left_out):
            raise ValueError(
                f"`window` {window} with `stride` {stride} leaves out cells at the end of an image "
                f"{sender_shape}; choose others, or give the image another size"
            )
        return Pool(window, stride, self.reduce)


class Upsample(Coupling):
    """The message in which every unit of a `(*space, channels)` node fills a block."""

    factor: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        for axis, times in enumerate(self.factor):
            x = jnp.repeat(x, times, axis=axis)
        return x


@checks.by_hand
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
    return UpsampleFactory(checks.sizes("factor", factor))


@dataclass(frozen=True)
class UpsampleFactory(Factory):
    """See `upsample`."""

    factor: int | tuple[int, ...]

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Upsample:
        axes = space_axes("upsample", sender_shape, receiver_shape)
        return Upsample(checks.per_axis("factor", self.factor, axes))
