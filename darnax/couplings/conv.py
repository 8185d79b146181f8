"""Convolution between image-shaped nodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from darnax import checks
from darnax._arrays import any_rank, on_device
from darnax.couplings.coupling import Coupling, Edges, Factory, Fixed, value
from darnax.couplings.dense import check_self_loop, mean_with
from darnax.couplings.draws import Draws
from darnax.kernels.library import native_library
from darnax.kernels.native_windows import windows, windows_transposed
from darnax.states.values import AnyArray

SAMPLES = 8
"""Samples from which the native library takes images."""
FEW = 32
"""Numbers of a window up to which shifted copies are faster than XLA."""
Padding: TypeAlias = str | tuple[tuple[int, int], ...]
"""Padding as JAX takes it: "SAME", "VALID", or a pair (before, after) for each axis of space."""
AnyPadding: TypeAlias = int | Padding
"""Padding as users give it, before the number of axes is known."""


class Conv(Coupling):
    """The cross-correlation of a `(*space, channels)` node with a kernel.

    **Fields:**

    - `weight`: the kernel, `(*kernel, sender channels, receiver channels)`.
    - `self_coupling`: for lateral couplings, the fixed number by which every unit sends to itself,
      or None. It is part of the formula, as that of `Dense`.
    - `symmetric`: whether the kernel is the mean of `weight` and its mirror image, in which places
      lie on the other side of the centre, and channels are exchanged. Then every two units of an
      image send to each other by the same number.
    """

    weight: Float[Array, "..."]
    stride: tuple[int, ...] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    self_coupling: Fixed | None = None
    symmetric: bool = eqx.field(static=True, default=False)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        space = "DHW"[-len(self.stride) :]
        message = jax.lax.conv_general_dilated(
            x[None],
            self.prepared().weight,
            self.stride,
            self.padding,
            dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        )
        return message[0]

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        """The messages of a batch, which stands last.

        XLA would first move the batch to where it wants it. The native library takes it where it
        stands; without one, windows of few numbers are shifted copies of the image, weighted and
        added in one loop.
        """
        whole = self.prepared()
        # The rule of `_with_derivatives` takes over: JAX need not follow what is called here.
        still, image = jax.lax.stop_gradient((whole, x))
        if _suits_native(x):
            y = windows(still.weight, image, self.stride, _pads_of(self, x.shape))
        elif self._numbers <= FEW:
            y = _shifted(still, image)
        else:
            return whole.by_xla(x)
        return _with_derivatives(y, whole, x)

    def by_xla(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        """The messages of a batch, which is moved to where XLA wants it."""
        return jax.vmap(self, in_axes=-1, out_axes=-1)(x)

    def prepared(self) -> "Conv":
        """The same coupling with its kernel written out."""
        if self.self_coupling is None and not self.symmetric:
            return self
        weight = self.weight
        if self.symmetric:
            weight = mean_with(weight, _mirrored(weight))
        if self.self_coupling is not None:
            centre = _centre(weight.shape)
            weight = jnp.where(centre, value(self.self_coupling), weight)
        return Conv(weight, self.stride, self.padding)

    @property
    def is_symmetric(self) -> bool:
        return self.symmetric

    def transposed(self, sender_shape: tuple[int, ...]) -> "ConvTranspose | None":
        # Its kernel would have to be written out, edge by edge.
        if self.self_coupling is not None:
            return None
        return ConvTranspose(self.weight, self.stride, self.padding, sender_shape)

    def describe(self) -> tuple[str, str]:
        how = "shifted copies" if self._numbers <= FEW else "XLA"
        return _described(self, how), f"windows of {self._numbers} numbers"

    @property
    def _numbers(self) -> int:
        """The numbers of a window, all of its channels included."""
        return math.prod(self.weight.shape[:-1])


def _is_native(dtype: DTypeLike) -> bool:
    """Whether the native library is there for numbers of this dtype."""
    known = dtype in (jnp.float32, jnp.float64)
    return known and jax.default_backend() == "cpu" and native_library().loaded


def _suits_native(x: Array) -> bool:
    """Whether the native library takes images with this batch."""
    return _is_native(x.dtype) and x.shape[-1] >= SAMPLES


def _described(coupling: "Conv | ConvTranspose", otherwise: str) -> str:
    """How the messages of a batch are made; `otherwise` without the native library."""
    if not _is_native(coupling.weight.dtype):
        return otherwise
    return f"native, {otherwise} below {SAMPLES} samples"


def _pads_of(
    coupling: "Conv | ConvTranspose",
    image: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """How many places every axis of an image is longer by, before and after."""
    axes = len(coupling.stride)
    kernel = coupling.weight.shape[:axes]
    return tuple(_pads(coupling.padding, image[:axes], kernel, coupling.stride))


def _mirrored(weight: Float[Array, "..."]) -> Float[Array, "..."]:
    """The kernel of the transpose of a lateral convolution."""
    space = tuple(range(weight.ndim - 2))
    return jnp.swapaxes(jnp.flip(weight, space), -1, -2)


def _centre(shape: tuple[int, ...]) -> np.ndarray:
    """The entries of a kernel by which units send to themselves."""
    *kernel, channels, _ = shape
    entries = np.zeros(shape, bool)
    middle = tuple(size // 2 for size in kernel)
    entries[middle] = np.eye(channels, dtype=bool)
    return entries


def _shifted(coupling: Conv, x: Array) -> Array:
    """The messages of a batch as a sum of shifted copies, `(*places, channels, B)`."""
    weight, strides = coupling.weight, coupling.stride
    *kernel, channels, _ = weight.shape
    x = jnp.pad(x, [*_pads_of(coupling, x.shape), (0, 0), (0, 0)])
    # Without the barrier XLA would look up in every copy where the image ends.
    x = jax.lax.optimization_barrier(x)

    # A loop over the cells of the window: one cell of all windows is a strided slice.
    total = jnp.zeros((), x.dtype)
    for place in np.ndindex(*kernel):
        cut = []
        for i, start in enumerate(place):
            stop = start + x.shape[i] - kernel[i] + 1
            cut.append(slice(start, stop, strides[i]))
        copy = x[tuple(cut)]
        # Channels are written out too: all terms then are one elementwise loop over the batch.
        for channel in range(channels):
            factors = weight[place][channel, :, None]
            total = total + factors * copy[..., channel, None, :]
    return total


@jax.custom_jvp
def _with_derivatives(y: Array, coupling: "Conv | ConvTranspose", x: Array) -> Array:
    """`y`, the messages of a batch, with the derivatives of those by XLA.

    The derivatives of shifted copies are slow, and calls of the native library have none.
    """
    return y


# Linear in both tangents: one rule of forward mode, which JAX transposes, serves both modes.
@any_rank
def _tangent(
    primals: "tuple[Array, Conv | ConvTranspose, Array]",
    tangents: "tuple[object, Conv | ConvTranspose, Array | SymbolicZero]",
) -> tuple[Array, Array]:
    y, coupling, x = primals
    # A tangent has the form of its primal: that of a `Conv` is one, with changes for weights.
    _, d_coupling, dx = tangents
    change = jnp.zeros_like(y)
    if not isinstance(d_coupling.weight, SymbolicZero):
        change = change + d_coupling.by_xla(x)
    if not isinstance(dx, SymbolicZero):
        change = change + coupling.by_xla(dx)
    # Not `y` itself, which has no derivatives: those of higher orders ask for them.
    return _with_derivatives(y, coupling, x), change


_with_derivatives.defjvp(_tangent, symbolic_zeros=True)


@checks.by_hand
def conv(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[tuple[int, int]] = "SAME",
    gain: float | int = 1.0,
    self_coupling: float | int | None = None,
    symmetric: bool = False,
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
    - `self_coupling`: for self-loops, a fixed number by which every unit sends to itself, which
      nothing trains.
    - `symmetric`: for self-loops, whether every two units send to each other by the same number, to
      the last bit and after any update: `w[k, i, o] = w[-k, o, i]`, k counted from the centre. By
      how much units send to themselves is free, or the `self_coupling`; 0 for not at all.

    Raises `ValueError` for nodes without space and channels, or a kernel or stride below 1; and
    where `self_coupling` or `symmetric` meet an edge that is no self-loop, an even kernel, a stride
    above 1, or padding that is not that of `"SAME"`.

    !!! example

        ```python
        couplings = {"conv": dx.conv(kernel=3), "lateral": dx.conv(kernel=3, gain=0.5)}
        memory = {"lateral": dx.conv(kernel=5, symmetric=True, self_coupling=0.0)}
        ```
    """
    if self_coupling is not None:
        self_coupling = checks.number("self_coupling", self_coupling)
    return ConvFactory(
        kernel=checks.sizes("kernel", kernel),
        stride=checks.sizes("stride", stride),
        padding=_checked_padding(padding),
        gain=checks.number("gain", gain),
        self_coupling=self_coupling,
        symmetric=checks.flag("symmetric", symmetric),
    )


@dataclass(frozen=True)
class ConvFactory(Factory):
    """See `conv`."""

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...]
    padding: AnyPadding
    gain: float
    self_coupling: float | None
    symmetric: bool

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Conv:
        axes = space_axes("conv", sender_shape, receiver_shape)
        window = checks.per_axis("kernel", self.kernel, axes)
        check_self_loop(edges, self.self_coupling, self.symmetric)
        shape = (*window, sender_shape[-1], receiver_shape[-1])
        # The variance is one over the number of terms in the sum of a receiving unit.
        terms = math.prod(shape[:-1])
        weight = draws.normal(shape, self.gain / math.sqrt(terms))
        stride = checks.per_axis("stride", self.stride, axes)
        padding = _padding(self.padding, axes)
        fixed = None
        if self.symmetric or self.self_coupling is not None:
            _check_centred(sender_shape, window, stride, padding)
        if self.symmetric:
            weight = _mirrored_draws(weight, axes, draws)
        if self.self_coupling is not None:
            # Nothing reads the drawn centre, and zeros say so to whoever looks at the weights.
            weight = draws.xp.where(_centre(shape), draws.dtype.type(0), weight)
            fixed = Fixed(on_device(draws.full((), self.self_coupling)))
        return Conv(on_device(weight), stride, padding, fixed, self.symmetric)


def _mirrored_draws(weight: AnyArray, axes: int, draws: Draws) -> AnyArray:
    """Drawn kernels with one half replaced by the mirror image of the other.

    A mean of both would have half of the variance.
    """
    xp = draws.xp
    shape = weight.shape[len(draws.lead) :]
    space = tuple(range(-axes - 2, -2))
    mirrored = xp.swapaxes(xp.flip(weight, space), -1, -2)
    # Of an entry and its mirror image the one that comes first in memory stays.
    place = np.arange(math.prod(shape)).reshape(shape)
    image = np.swapaxes(np.flip(place, space), -1, -2)
    return xp.where(place <= image, weight, mirrored)


def _check_centred(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
) -> None:
    """Refuse lateral kernels that have no centre, or whose centre is not on the unit itself."""
    centred = [(size // 2, size // 2) for size in kernel]
    odd = all(size % 2 for size in kernel)
    pads = [tuple(pair) for pair in _pads(padding, image[:-1], kernel, stride)]
    if not odd or set(stride) != {1} or pads != centred:
        raise ValueError(
            f"`symmetric` and `self_coupling` of a convolution want an odd `kernel`, `stride` 1 "
            f"and `padding` 'SAME', but got kernel {kernel}, stride {stride} and padding "
            f"{padding!r}; give such"
        )


class ConvTranspose(Coupling):
    """The transpose of a `Conv` that takes the receiver to the sender.

    The weight is that of the convolution, `(*kernel, receiver channels, sender channels)`.
    """

    weight: Float[Array, "..."]
    stride: tuple[int, ...] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        # The definition itself; `batched` is the same sum in a faster way.
        forward = Conv(self.weight, self.stride, self.padding)
        image = jax.ShapeDtypeStruct(self.receiver_shape, self.weight.dtype)
        return jax.linear_transpose(forward, image)(x)[0]

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        """The messages of a batch, which stands last."""
        if not _suits_native(x):
            return self.by_xla(x)
        still, image = jax.lax.stop_gradient((self, x))
        weight = jnp.swapaxes(still.weight, -1, -2)
        *space, _ = self.receiver_shape
        pads = _pads_of(self, self.receiver_shape)
        y = windows_transposed(weight, image, self.stride, pads, tuple(space))
        return _with_derivatives(y, self, x)

    def by_xla(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        """The messages of a batch; much faster than those of XLA's own transpose."""
        *space, _ = self.receiver_shape
        pads = _pads_of(self, self.receiver_shape)
        whole = overlap_add(self.weight, x, self.stride)

        # The padding of the convolution is cut off again; cells that no window covers are zero.
        cut = []
        for i, size in enumerate(space):
            before, _ = pads[i]
            after = whole.shape[i] - before - size
            cut.append((-before, -after, 0))
        # One padding does both: a negative number cuts.
        return padded(whole, cut)

    def transposed(self, sender_shape: tuple[int, ...]) -> Conv:
        return Conv(self.weight, self.stride, self.padding)

    def describe(self) -> tuple[str, str]:
        return _described(self, "one product, shifted sums"), "windows overlap"


def overlap_add(
    weight: Float[Array, "..."],
    x: Shaped[Array, "*places channels batch"],
    stride: Sequence[int],
    bias: Float[Array, "..."] | None = None,
) -> Float[Array, "*space units batch"]:
    """The messages of all places to windows a stride apart, added up where these overlap.

    `weight` is `(*kernel, units, channels)`; `bias` has a number for every cell of a window,
    `(cells, 1)`. All windows are one product of matrices; then the k-th cell of every window is
    added at once, in an elementwise loop.
    """
    *kernel, units, channels = weight.shape
    batch = x.shape[-1]
    places = x.shape[: len(kernel)]
    matrix = weight.reshape(-1, channels)
    columns = jnp.moveaxis(x, -2, 0)
    windows = matrix @ columns.reshape(channels, -1)
    if bias is not None:
        windows = windows + bias
    # Without the barrier XLA would work out the product anew for every cell.
    windows = jax.lax.optimization_barrier(windows)
    windows = windows.reshape(*kernel, units, *places, batch)

    # Padding moves the k-th cells to where they belong, and sets them a stride apart: sums of
    # padded copies are one elementwise loop, and a scatter would go cell by cell.
    total = jnp.zeros((), windows.dtype)
    for place in np.ndindex(*kernel):
        pads = [(0, 0, 0)]
        for before, size, step in zip(place, kernel, stride, strict=True):
            pads.append((before, size - before - 1, step - 1))
        total = total + padded(windows[place], pads)
    return jnp.moveaxis(total, 0, -2)


def padded(
    x: Shaped[Array, "..."],
    pads: Sequence[tuple[int, int, int]],
) -> Shaped[Array, "..."]:
    """Zeros before, after and between the entries of an array, along its first axes."""
    others = x.ndim - len(pads)
    none = [(0, 0, 0)] * others
    zero = jnp.zeros((), x.dtype)
    return jax.lax.pad(x, zero, [*pads, *none])


@checks.by_hand
def conv_transpose(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[tuple[int, int]] = "SAME",
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
    return ConvTransposeFactory(
        kernel=checks.sizes("kernel", kernel),
        stride=checks.sizes("stride", stride),
        padding=_checked_padding(padding),
        gain=checks.number("gain", gain),
    )


@dataclass(frozen=True)
class ConvTransposeFactory(Factory):
    """See `conv_transpose`."""

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...]
    padding: AnyPadding
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

        # The convolution knows which shape it makes: it is asked, and nothing is run.
        made = jax.eval_shape(
            lambda weight, image: Conv(weight, stride, padding)(image),
            jax.ShapeDtypeStruct(shape, draws.dtype),
            jax.ShapeDtypeStruct(receiver_shape, draws.dtype),
        ).shape
        if made != sender_shape:
            raise ValueError(
                f"`conv_transpose` undoes a convolution of {receiver_shape}, which makes {made} of "
                f"it and not the sender's {sender_shape}; change `kernel`, `stride` or `padding`, "
                "or the shape of a node"
            )
        # Windows overlap less the further they are apart. It is a mean, and no whole number.
        terms = math.prod(window) * sender_shape[-1] / math.prod(stride)
        weight = draws.normal(shape, self.gain / math.sqrt(terms))
        return ConvTranspose(on_device(weight), stride, padding, receiver_shape)


def _checked_padding(padding: object) -> AnyPadding:
    """Padding, checked as far as the number of axes need not be known."""
    holds = "'SAME', 'VALID', a number of cells, or a pair (before, after) for each axis"
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            checks.refuse("padding", holds, padding, "give one of them", ValueError)
        return padding.upper()
    if isinstance(padding, (int, np.integer)):
        return checks.count("padding", padding)
    if not isinstance(padding, (tuple, list)):
        checks.refuse("padding", holds, padding, "give one of them")
    for pair in padding:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            checks.refuse("padding", holds, padding, "give one of them")
    pairs = []
    for before, after in padding:
        cells_before = checks.count("padding", before)
        pairs.append((cells_before, checks.count("padding", after)))
    return tuple(pairs)


def _padding(padding: AnyPadding, axes: int) -> Padding:
    """Padding as JAX takes it, for a number of axes."""
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


def _pads(
    padding: Padding,
    space: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
) -> Sequence[tuple[int, int]]:
    """The cells before and after each axis of an image of size `space`."""
    if isinstance(padding, str):
        return jax.lax.padtype_to_pads(space, kernel, stride, padding)
    return padding


def space_axes(
    coupling: str,
    sender_shape: tuple[int, ...],
    receiver_shape: tuple[int, ...],
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
