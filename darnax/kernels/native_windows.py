"""Convolutions of images whose samples stand last: calls of the native library."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from darnax.kernels.native_call import NativeCall, Results

AXES = 3
"""Axes of space that the library knows; fewer are filled up by axes of one place."""


def windows(
    weight: Float[Array, "*window channels units"],
    x: Float[Array, "*places channels batch"],
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
) -> Float[Array, "*new_places units batch"]:
    """`y[p, o] = Σ_{k,c} w[k, c, o] x[p * stride + k - before, c]`, zero outside of the image.

    `pads` are the places (before, after) that every axis of space is longer by. The dtype is
    float32 or float64, and there are 8 samples or more. There are no derivatives.
    """
    space = x.shape[: len(stride)]
    window = weight.shape[: len(stride)]
    places: list[int] = []
    for size, cells, step, pad in zip(space, window, stride, pads, strict=True):
        places.append((size + sum(pad) - cells) // step + 1)
    return _whole(weight, x, stride, pads, tuple(places), transposed=False)


def windows_transposed(
    weight: Float[Array, "*window channels units"],
    x: Float[Array, "*places channels batch"],
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    places: tuple[int, ...],
) -> Float[Array, "*new_places units batch"]:
    """The transpose of `windows` of images of `places`: each cell hears the windows that cover it.

    `y[p, o] = Σ w[k, c, o] x[q, c]` over k and q with `p = q * stride + k - before`.
    """
    return _whole(weight, x, stride, pads, places, transposed=True)


def _whole(
    weight: Array,
    x: Array,
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    places: tuple[int, ...],
    transposed: bool,
) -> Array:
    # Axes of one place in front change no sum.
    more = (1,) * (AXES - len(stride))
    (y,) = _windows(
        x.reshape(*more, *x.shape),
        weight.reshape(*more, *weight.shape),
        stride=(*more, *stride),
        pad=(0,) * len(more) + tuple(before for before, _ in pads),
        places=(*more, *places),
        transposed=transposed,
    )
    return y.reshape(*places, *y.shape[AXES:])


def _results(x: Any, w: Any, *, places: tuple[int, ...], **_: Any) -> Results:
    stack = max(x.shape[0], w.shape[0])
    return [((stack, *places, w.shape[-1], x.shape[-1]), x.dtype)]


def _plain(
    x: Array,
    w: Array,
    *,
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    places: tuple[int, ...],
    transposed: bool,
) -> list[Array]:
    one = (1,) * AXES
    window = w.shape[:AXES]
    # A transpose spreads the image and turns the window round.
    spread = stride if transposed else one
    step = one if transposed else stride
    pads: list[tuple[int, int]] = []
    for axis in range(AXES):
        before = window[axis] - 1 - pad[axis] if transposed else pad[axis]
        needed = (places[axis] - 1) * step[axis] + window[axis]
        after = needed - before - (x.shape[axis] - 1) * spread[axis] - 1
        pads.append((before, after))
    if transposed:
        w = jnp.flip(w, axis=tuple(range(AXES)))
    y = jax.lax.conv_general_dilated(
        x,
        w,
        step,
        pads,
        lhs_dilation=spread,
        dimension_numbers=("DHWCN", "DHWIO", "DHWCN"),
    )
    return [y]


_windows = NativeCall(
    "darnax_windows",
    _results,
    _plain,
    attributes=("stride", "pad", "places", "transposed"),
)
