"""Convolution between image-shaped nodes."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key, Shaped

from darnax.couplings.coupling import Edges, Factory
from darnax.topologies.arguments import per_axis

Padding = str | tuple[tuple[int, ...], ...]


class Conv(eqx.Module):
    """The cross-correlation of a `(*space, channels)` node with `weight`.

    The weight has the shape `(*kernel, sender channels, receiver channels)`.
    """

    weight: Float[Array, "..."]
    stride: tuple[int, ...] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        space = "DHW"[-len(self.stride) :]
        padding: Any = self.padding  # typed too narrowly by JAX
        numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
        message = jax.lax.conv_general_dilated(x[None], self.weight, self.stride, padding, dimension_numbers=numbers)
        return message[0]


def conv(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    gain: float | int = 1.0,
) -> Factory:
    """Convolution between nodes of shape `(*space, channels)`, space of one to three axes.

    The weights start as `N(0, gain² / (kernel units * sender channels))`; channels follow from the shapes of the
    nodes. As everywhere in deep learning it is a cross-correlation,
    `y[p, o] = Σ_{k,i} w[k, i, o] x[p * stride + k, i]`.

    **Arguments:**

    - `kernel`, `stride`: one number for all axes of space, or one for each.
    - `padding`: `"SAME"`, `"VALID"`, a number of cells on every side, or a pair (before, after) for each axis.
    - `gain`: scales the initial weights.

    Raises `ValueError` for nodes without space and channels, or a kernel or stride below 1.

    !!! example

        ```python
        couplings = {"conv": dx.conv(kernel=3), "lateral": dx.conv(kernel=3, gain=0.5)}
        ```
    """

    def make(sender_shape: tuple[int, ...], receiver_shape: tuple[int, ...], key: Key[Array, ""], *, edges: Edges):
        axes = len(sender_shape) - 1
        if len(receiver_shape) != len(sender_shape) or not 1 <= axes <= 3:
            raise ValueError(
                f"`conv` joins nodes of shape (*space, channels) with one to three axes of space, but {sender_shape} "
                f"sends to {receiver_shape}; give an image a channel axis, as in (28, 28, 1)"
            )
        window = per_axis("kernel", kernel, axes)
        pad = padding if isinstance(padding, str) else ((padding,) * 2,) * axes if isinstance(padding, int) else padding
        weight_shape = (*window, sender_shape[-1], receiver_shape[-1])
        weight = jax.random.normal(key, weight_shape, edges.dtype) * (gain / math.sqrt(math.prod(weight_shape[:-1])))
        return Conv(weight, per_axis("stride", stride, axes), pad if isinstance(pad, str) else tuple(map(tuple, pad)))

    return make
