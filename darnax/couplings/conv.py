"""Convolution between image-shaped nodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Shaped

from darnax import checks
from darnax._arrays import any_rank, on_device
from darnax.couplings.coupling import Coupling, Edges, Factory
from darnax.couplings.draws import Draws

FEW = 32
Padding = str | tuple[tuple[int, ...], ...]


class Conv(Coupling):
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
        message = jax.lax.conv_general_dilated(
            x[None], self.weight, self.stride, padding, dimension_numbers=numbers
        )
        return message[0]

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        """The messages of a batch, which stands last.

        Windows of few numbers are shifted copies of the image, weighted and added in one loop; a
        library call would first move the batch to where it wants it.
        """
        if not self._small:
            return _over_batch(self, x)
        still = jax.lax.stop_gradient((self, x))
        return _with_derivatives(_shifted(*still), self, x)

    def describe(self) -> tuple[str, str]:
        how = "shifted copies" if self._small else "library"
        return how, f"windows of {math.prod(self.weight.shape[:-1])} numbers"

    @property
    def _small(self) -> bool:
        return math.prod(self.weight.shape[:-1]) <= FEW


def _over_batch(coupling: Conv, x: Array) -> Array:
    return jax.vmap(coupling, in_axes=-1, out_axes=-1)(x)


def _shifted(coupling: Conv, x: Array) -> Array:
    *kernel, channels, _ = coupling.weight.shape
    size, pads, strides = x.shape[: len(kernel)], coupling.padding, coupling.stride
    if isinstance(pads, str):
        pads = jax.lax.padtype_to_pads(size, kernel, strides, pads)
    # without the barrier XLA would look up in every copy where the image ends
    x = jax.lax.optimization_barrier(jnp.pad(x, [*pads, (0, 0), (0, 0)]))
    lasts = [n + sum(pad) - k for n, pad, k in zip(size, pads, kernel, strict=True)]
    total = jnp.zeros((), x.dtype)
    for place in np.ndindex(*kernel):
        cut = (
            slice(p, p + last + 1, step)
            for p, last, step in zip(place, lasts, strides, strict=True)
        )
        window = x[tuple(cut)]
        for channel in range(channels):
            total = total + coupling.weight[place][channel, :, None] * window[..., channel, None, :]
    return total


@jax.custom_jvp
def _with_derivatives(y: Array, coupling: Conv, x: Array) -> Array:
    """`y`, with the derivatives of the library's convolution: those of shifted copies are slow."""
    return y


@any_rank
def _tangent(primals, tangents):
    y, coupling, x = primals
    _, d_coupling, dx = tangents
    change = jnp.zeros_like(y)
    if not isinstance(d_coupling.weight, SymbolicZero):
        change = change + _over_batch(d_coupling, x)
    if not isinstance(dx, SymbolicZero):
        change = change + _over_batch(coupling, dx)
    return y, change


_with_derivatives.defjvp(_tangent, symbolic_zeros=True)


@checks.by_hand
def conv(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    gain: float | int = 1.0,
) -> Factory:
    """Convolution between nodes of shape `(*space, channels)`, space of one to three axes.

    The weights start as `N(0, gain² / (kernel units * sender channels))`; channels follow from the
    shapes of the nodes. As everywhere in deep learning it is a cross-correlation,
    `y[p, o] = Σ_{k,i} w[k, i, o] x[p * stride + k, i]`.

    **Arguments:**

    - `kernel`, `stride`: one number for all axes of space, or one for each.
    - `padding`: `"SAME"`, `"VALID"`, a number of cells on every side, or a pair (before, after) for
      each axis.
    - `gain`: scales the initial weights.

    Raises `ValueError` for nodes without space and channels, or a kernel or stride below 1.

    !!! example

        ```python
        couplings = {"conv": dx.conv(kernel=3), "lateral": dx.conv(kernel=3, gain=0.5)}
        ```
    """
    return ConvFactory(*_geometry(kernel, stride, padding), checks.number("gain", gain))


@dataclass(frozen=True)
class ConvFactory(Factory):
    """See `conv`."""

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...]
    padding: str | int | tuple[tuple[int, ...], ...]
    gain: float

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Conv:
        axes = space_axes("conv", sender_shape, receiver_shape)
        shape = (
            *checks.per_axis("kernel", self.kernel, axes),
            sender_shape[-1],
            receiver_shape[-1],
        )
        weight = draws.normal(shape, self.gain / math.sqrt(math.prod(shape[:-1])))
        stride = checks.per_axis("stride", self.stride, axes)
        return Conv(on_device(weight), stride, _padding(self.padding, axes))


class ConvTranspose(Coupling):
    """The transpose of a `Conv` that takes the receiver to the sender.

    The weight is that of the convolution, `(*kernel, receiver channels, sender channels)`.
    """

    weight: Float[Array, "..."]
    stride: tuple[int, ...] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        forward = Conv(self.weight, self.stride, self.padding)
        image = jax.ShapeDtypeStruct(self.receiver_shape, self.weight.dtype)
        return jax.linear_transpose(forward, image)(x)[0]

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        """The messages of a batch, which stands last; much faster than by the library."""
        kernel, (*space, _) = self.weight.shape[: len(self.stride)], self.receiver_shape
        pads = self.padding
        if isinstance(pads, str):
            pads = jax.lax.padtype_to_pads(space, kernel, self.stride, pads)
        whole = overlap_add(self.weight, x, self.stride)
        sizes = zip(pads, space, whole.shape, strict=False)
        cut = [(-before, before + size - full, 0) for (before, _), size, full in sizes]
        return jax.lax.pad(whole, jnp.zeros((), whole.dtype), [*cut, (0, 0, 0), (0, 0, 0)])

    def describe(self) -> tuple[str, str]:
        return "one product, shifted sums", "windows overlap"


def overlap_add(
    weight: Float[Array, "..."],
    x: Shaped[Array, "*places channels batch"],
    stride: Sequence[int],
    bias: Float[Array, "..."] | None = None,
) -> Float[Array, "*space units batch"]:
    """What all places say to windows a stride apart, added up where these overlap.

    `weight` is `(*kernel, units, channels)`; `bias` has a number for every cell of a window,
    `(cells, 1)`. All windows are one product of matrices; then the k-th cell of every window is
    added at once, in an elementwise loop.
    """
    *kernel, units, channels = weight.shape
    places = x.shape[: len(kernel)]
    said = weight.reshape(-1, channels) @ jnp.moveaxis(x, -2, 0).reshape(channels, -1)
    said = said if bias is None else said + bias
    # without the barrier XLA would work out the product anew for every cell
    said = jax.lax.optimization_barrier(said).reshape(*kernel, units, *places, x.shape[-1])
    total = jnp.zeros((), said.dtype)
    for place in np.ndindex(*kernel):
        parts = zip(place, kernel, stride, strict=True)
        pads = [(before, size - before - 1, step - 1) for before, size, step in parts]
        total = total + jax.lax.pad(
            said[place], jnp.zeros((), said.dtype), [(0, 0, 0), *pads, (0, 0, 0)]
        )
    return jnp.moveaxis(total, 0, -2)


@checks.by_hand
def conv_transpose(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    gain: float | int = 1.0,
) -> Factory:
    """The transpose of a `conv` with the same arguments, from its receiver to its sender.

    Every unit of the sender adds its window to the receiver's image. The weights start as
    `N(0, gain² / (kernel units * sender channels / stride units))`, the mean number of terms in a
    sum.

    **Arguments:**

    - `kernel`, `stride`, `padding`: those of the convolution that it is the transpose of.
    - `gain`: scales the initial weights.

    Raises `ValueError` where that convolution would make another shape of the receiver than the
    sender's.

    !!! example

        ```python
        couplings = {"forward": dx.conv(5, stride=2), "backward": dx.conv_transpose(5, stride=2)}
        ```
    """
    return ConvTransposeFactory(*_geometry(kernel, stride, padding), checks.number("gain", gain))


@dataclass(frozen=True)
class ConvTransposeFactory(Factory):
    """See `conv_transpose`."""

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...]
    padding: str | int | tuple[tuple[int, ...], ...]
    gain: float

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> ConvTranspose:
        axes = space_axes("conv_transpose", sender_shape, receiver_shape)
        window = checks.per_axis("kernel", self.kernel, axes)
        stride = checks.per_axis("stride", self.stride, axes)
        padding = _padding(self.padding, axes)
        shape = (*window, receiver_shape[-1], sender_shape[-1])
        given = (jax.ShapeDtypeStruct(part, draws.dtype) for part in (shape, receiver_shape))
        made = jax.eval_shape(
            lambda weight, image: Conv(weight, stride, padding)(image), *given
        ).shape
        if made != sender_shape:
            raise ValueError(
                f"`conv_transpose` undoes a convolution of {receiver_shape}, which makes {made} of "
                f"it and not the sender's {sender_shape}; change `kernel`, `stride` or `padding`, "
                "or the shape of a node"
            )
        terms = math.prod(window) * sender_shape[-1] / math.prod(stride)
        weight = draws.normal(shape, self.gain / math.sqrt(terms))
        return ConvTranspose(on_device(weight), stride, padding, receiver_shape)


def _geometry(kernel: Any, stride: Any, padding: Any) -> tuple[Any, Any, Any]:
    """Kernel, stride and padding, checked as far as the number of axes need not be known."""
    sizes = checks.sizes("kernel", kernel), checks.sizes("stride", stride)
    holds = "'SAME', 'VALID', a number of cells, or a pair (before, after) for each axis"
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            checks.refuse("padding", holds, padding, "give one of them", ValueError)
        return *sizes, padding.upper()
    if isinstance(padding, (int, np.integer)):
        return *sizes, checks.count("padding", padding)
    if not isinstance(padding, (tuple, list)) or not all(
        isinstance(p, (tuple, list)) and len(p) == 2 for p in padding
    ):
        checks.refuse("padding", holds, padding, "give one of them")
    return *sizes, tuple(
        (checks.count("padding", before), checks.count("padding", after))
        for before, after in padding
    )


def _padding(padding: str | int | tuple[tuple[int, ...], ...], axes: int) -> Padding:
    """Padding as JAX takes it."""
    if isinstance(padding, str):
        return padding
    if isinstance(padding, int):
        return ((padding, padding),) * axes
    if len(padding) != axes:
        raise ValueError(
            f"`padding` has a pair for each of the {axes} axes of space, but got {padding}; give "
            "as many"
        )
    return padding


def space_axes(
    coupling: str, sender_shape: tuple[int, ...], receiver_shape: tuple[int, ...]
) -> int:
    """The number of axes of space of two images; `ValueError` where they are none."""
    axes = len(sender_shape) - 1
    if len(receiver_shape) != len(sender_shape) or not 1 <= axes <= 3:
        raise ValueError(
            f"`{coupling}` joins nodes of shape (*space, channels) with one to three axes of "
            f"space, but {sender_shape} sends to {receiver_shape}; give an image a channel axis, "
            "as in (28, 28, 1)"
        )
    return axes
