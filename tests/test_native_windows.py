"""Convolutions of the native library are those of XLA, and no call of it can do harm."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import needs_library

import darnax as dx
from darnax.couplings.conv import Conv, ConvTranspose
from darnax.kernels import NativeLibrary
from darnax.kernels.native_windows import windows, windows_transposed

# `darnax.couplings.conv` is the function.
conv_module = importlib.import_module("darnax.couplings.conv")


# places, window, stride, padding
GEOMETRIES = {
    "line": ((7,), (3,), (1,), ((1, 1),)),
    "line, far apart": ((9,), (2,), (4,), ((0, 0),)),
    "plane": ((5, 6), (3, 3), (1, 1), ((1, 1), (1, 1))),
    "strides of two kinds": ((9, 8), (3, 2), (2, 1), ((0, 1), (1, 0))),
    "cells that no window covers": ((8, 8), (2, 2), (3, 3), ((0, 0), (0, 0))),
    "more padding than window": ((3, 3), (2, 2), (1, 1), ((3, 4), (2, 0))),
    "padding that cuts": ((6, 6), (3, 3), (1, 1), ((-1, 0), (0, -2))),
    "volume": ((4, 3, 5), (2, 3, 2), (1, 2, 1), ((0, 1), (2, 0), (1, 1))),
    "a window as large as the image": ((4, 4), (4, 4), (1, 1), ((0, 0), (0, 0))),
}
# every width that the loops of C++ fall into, and their remainders
CHANNELS = [(1, 1), (3, 5), (2, 17)]
BATCHES = [8, 9, 16, 31, 32, 33, 48]


def numbers(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def by_loop(w, x, stride, pads):
    """The convolution in NumPy, window after window."""
    axes = len(stride)
    longer = [(max(before, 0), max(after, 0)) for before, after in pads]
    x = np.pad(x.astype(float), [*longer, (0, 0), (0, 0)])
    # negative padding cuts
    kept = [slice(max(-a, 0), x.shape[i] - max(-b, 0)) for i, (a, b) in enumerate(pads)]
    x = x[tuple(kept)]
    window = w.shape[:axes]
    places = [(x.shape[i] - window[i]) // stride[i] + 1 for i in range(axes)]
    y = np.zeros((*places, w.shape[-1], x.shape[-1]))
    for place in np.ndindex(*places):
        starts = np.multiply(place, stride)
        part = x[tuple(slice(a, a + k) for a, k in zip(starts, window, strict=True))]
        y[place] = np.tensordot(w, part, (range(axes + 1), range(axes + 1)))
    return y


@pytest.mark.parametrize("name", GEOMETRIES)
def test_windows_are_those_of_a_loop(way, name):
    space, window, stride, pads = GEOMETRIES[name]
    # in plain JAX every width is the same to us
    every = name == "plane" and way == "library"
    for channels, units in CHANNELS if every else [(3, 5)]:
        for batch in BATCHES if every else [9]:
            w, x = numbers((*window, channels, units)), numbers((*space, channels, batch), 1)
            found = windows(jnp.asarray(w), jnp.asarray(x), stride, pads)
            np.testing.assert_allclose(found, by_loop(w, x, stride, pads), atol=1e-4)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_transpose_answers_to_the_convolution(way, name):
    space, window, stride, pads = GEOMETRIES[name]
    w, x = numbers((*window, 3, 5)), numbers((*space, 3, 9), 1)
    y = by_loop(w, x, stride, pads)
    q = numbers(y.shape, 2)
    back = windows_transposed(
        jnp.asarray(np.swapaxes(w, -1, -2)), jnp.asarray(q), stride, pads, space
    )
    assert back.shape == x.shape
    # <q, C x> = <C' q, x> in every sample
    forward = (q * y).reshape(-1, 9).sum(0)
    np.testing.assert_allclose((back * x).reshape(-1, 9).sum(0), forward, rtol=1e-3, atol=1e-3)


def test_windows_of_float64_keep_their_digits(way):
    space, window, stride, pads = GEOMETRIES["strides of two kinds"]
    with jax.enable_x64(True):
        w, x = numbers((*window, 3, 5), 0, np.float64), numbers((*space, 3, 21), 1, np.float64)
        found = windows(jnp.asarray(w), jnp.asarray(x), stride, pads)
        np.testing.assert_allclose(found, by_loop(w, x, stride, pads), atol=1e-12)


def test_what_is_not_finite_stays_in_its_sample_and_window(way):
    space, window, stride, pads = GEOMETRIES["plane"]
    w, x = numbers((*window, 1, 2)), numbers((*space, 1, 10), 1)
    x[0, 0, 0, 3] = np.nan
    found = np.asarray(windows(jnp.asarray(w), jnp.asarray(x), stride, pads))
    lost = np.isnan(found)
    assert lost[:2, :2, :, 3].all()
    assert lost.sum() == 8


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0), (1, 2)])
def test_windows_under_vmap(way, axes):
    space, window, stride, pads = GEOMETRIES["plane"]
    given = []
    for axis, shape in zip(axes, [(*window, 3, 5), (*space, 3, 9)], strict=True):
        stacked = shape if axis is None else (*shape[:axis], 4, *shape[axis:])
        given.append(jnp.asarray(numbers(stacked)))
    found = jax.vmap(lambda w, x: windows(w, x, stride, pads), axes)(*given)
    for i in range(4):
        w, x = (
            a if axis is None else jnp.take(a, i, axis) for a, axis in zip(given, axes, strict=True)
        )
        np.testing.assert_allclose(found[i], by_loop(w, x, stride, pads), atol=1e-4)


# as couplings


@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 1))])
def test_batches_are_single_messages_with_their_derivatives(way, kind, padding, monkeypatch):
    loaded = NativeLibrary(True, "for a test")
    monkeypatch.setattr(conv_module, "native_library", lambda: loaded)
    w = jnp.asarray(numbers((3, 2, 3, 4)))
    coupling = Conv(w, (2, 1), padding)
    x = jnp.asarray(numbers((7, 6, 3, 9)))
    if kind is ConvTranspose:
        x, shape = coupling.batched(x), x.shape[:-1]
        coupling = ConvTranspose(w, (2, 1), padding, shape)
    calls = []
    for name in ("windows", "windows_transposed"):
        true = getattr(conv_module, name)
        monkeypatch.setattr(conv_module, name, lambda *a, true=true: calls.append(1) or true(*a))
    y, back = jax.vjp(lambda c, x: c.batched(x), coupling, x)
    assert calls
    one, each_back = jax.vjp(jax.vmap(lambda c, x: c(x), (None, -1), -1), coupling, x)
    np.testing.assert_allclose(y, one, atol=1e-4)
    signal = jnp.asarray(numbers(y.shape, 3))
    ours, theirs = back(signal), each_back(signal)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    # forward, and of second order
    change = jax.tree.map(lambda leaf: jnp.asarray(numbers(leaf.shape, 4)), (coupling, x))

    def of_second_order(batched):
        gradient = jax.grad(lambda c, x: (batched(c, x) ** 3).sum(), 1)
        return jax.jvp(gradient, (coupling, x), change)[1]

    for derivative in (lambda f: jax.jvp(f, (coupling, x), change)[1], of_second_order):
        ours = derivative(lambda c, x: c.batched(x))
        theirs = derivative(lambda c, x: c.by_xla(x))
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-1)


@needs_library
def test_the_summary_says_how_windows_run():
    topology = dx.Topology.from_edges([0], [0], n=1, shape=(6, 6, 2))
    network = dx.Network(topology, {"edge": dx.conv(3)}, dx.tanh, key=jax.random.key(0))
    assert "native, shifted copies below 8 samples" in network.summary()


# calls that no function of ours makes


def call(
    x=(1, 1, 4, 5, 3, 8), w=(1, 1, 2, 2, 3, 6), y=(1, 1, 3, 4, 6, 8), dtypes="fff", **attributes
):
    dtype = {"f": np.float32, "d": np.float64, "i": np.int32}
    named = {
        "stride": (1, 1, 1),
        "pad": (0, 0, 0),
        "places": y[1:4],
        "transposed": False,
    } | attributes
    for name in ("stride", "pad", "places"):
        named[name] = np.asarray(named[name], np.int64)
    result = jax.ShapeDtypeStruct(y, dtype[dtypes[2]])
    operands = np.ones(x, dtype[dtypes[0]]), np.ones(w, dtype[dtypes[1]])
    # attributes are a part of the program
    raw = jax.jit(lambda *operands: jax.ffi.ffi_call("darnax_windows", result)(*operands, **named))
    return jax.block_until_ready(raw(*operands))


BAD = {
    "an image without an axis": {"x": (1, 4, 5, 3, 8)},
    "an image of more channels": {"x": (1, 1, 4, 5, 4, 8)},
    "an image of more samples": {"x": (1, 1, 4, 5, 3, 9)},
    "images of a stack": {"x": (2, 1, 4, 5, 3, 8)},
    "a window without an axis": {"w": (1, 2, 2, 3, 6)},
    "a window of fewer channels": {"w": (1, 1, 2, 2, 2, 6)},
    "a window of fewer units": {"w": (1, 1, 2, 2, 3, 5)},
    "windows of a stack": {"w": (2, 1, 2, 2, 3, 6)},
    "a result without an axis": {"y": (1, 3, 4, 6, 8)},
    "a result of other places": {"places": (1, 3, 3)},
    "few samples": {"x": (1, 1, 4, 5, 3, 7), "y": (1, 1, 3, 4, 6, 7)},
    "integers": {"dtypes": "iii"},
    "an image of another dtype": {"dtypes": "iff"},
    "windows of another dtype": {"dtypes": "fif"},
    "a stride of nothing": {"stride": (1, 0, 1)},
    "a stride back": {"stride": (1, -1, 1)},
    "a stride beyond 32 bits": {"stride": (1, 2**40, 1)},
    "a stride of two axes": {"stride": (1, 1)},
    "padding of two axes": {"pad": (0, 0)},
    "padding beyond 32 bits": {"pad": (0, 2**40, 0)},
}


@needs_library
@pytest.mark.parametrize("name", BAD)
def test_bad_windows_are_refused(name):
    with pytest.raises(jax.errors.JaxRuntimeError, match="darnax:"):
        call(**BAD[name])


@needs_library
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pad": (5, -9, 2**30)},
        {"stride": (7, 9, 2**30)},
        {"transposed": True, "pad": (0, 3, 1)},
    ],
)
def test_calls_of_any_geometry_stay_in_their_arrays(attributes):
    found = call(**attributes)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    # at most all cells of the window, of three channels each
    assert found.max() <= 12
