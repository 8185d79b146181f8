"""Windows on images: where they lie, and that tied weights on them are a convolution."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import values
from hypothesis import given, settings
from hypothesis import strategies as st

import darnax as dx
from darnax import Topology, topologies


def numbers(rng, shape):
    return (rng.integers(-8, 8, shape) / 8).astype(np.float32)


def lax_conv(image, kernel, stride, pads):
    """`image: (B, *space, channels)`, `kernel: (*window, channels, features)`."""
    space = "DHW"[-len(stride) :]
    spec = (f"N{space}C", f"{space}IO", f"N{space}C")
    return jax.lax.conv_general_dilated(image, kernel, stride, pads, dimension_numbers=spec)


def kernel_of(coupling, window):
    """The weight of a tied `dense` coupling of windows as a convolution's kernel."""
    return np.moveaxis(np.asarray(coupling.weight).reshape(-1, *window), 0, -1)


@st.composite
def geometries(draw):
    axes = draw(st.integers(1, 2))
    space = tuple(draw(st.integers(3, 6)) for _ in range(axes))
    window = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    pads = tuple((draw(st.integers(0, w - 1)), draw(st.integers(0, w - 1))) for w in window)
    return space, window, stride, pads


@settings(max_examples=40, deadline=None)
@given(geometries())
def test_windows_tile_the_padded_image(geometry):
    space, window, stride, pads = geometry
    graph = topologies.convolutional((*space, 2), window, stride, features=3, padding=pads)
    padded = [n + sum(pad) for n, pad in zip(space, pads, strict=True)]
    starts = [range(0, n - w + 1, s) for n, w, s in zip(padded, window, stride, strict=True)]
    corners = {
        tuple(s * i for i, s in zip(name[1:], stride, strict=True)): tuple(
            part.start for part in data["index"]
        )
        for name, data in graph.nodes(data=True)
        if name[0] == "patch"
    }
    assert len(corners) == np.prod([len(axis) for axis in starts])
    assert all(corner == found for corner, found in corners.items())
    assert all(at in axis for corner in corners for at, axis in zip(corner, starts, strict=True))
    # interior and border cover every cell of the padded image exactly once
    covered = np.zeros((*padded, 2), int)
    for name in ["image", *(node for node, role in graph.nodes(data="role") if role == "held")]:
        covered[graph.nodes[name]["index"]] += 1
    assert (covered == 1).all()
    topology = Topology(graph)
    assert topology.shape("image") == (*space, 2)
    assert topology.shape("features") == (*map(len, starts), 3)
    assert topology.edge_kinds == ("forward",)


@pytest.mark.parametrize(
    ("image", "window", "stride", "padding"),
    [
        ((7, 6, 2), (3, 2), (2, 1), ((1, 0), (0, 1))),
        ((8, 8, 1), 5, 1, "SAME"),
        ((9, 3), 4, 2, "VALID"),
        ((4, 3, 4, 2), 2, 1, 1),
    ],
)
def test_tied_windows_are_a_convolution_and_back_its_transpose(image, window, stride, padding):
    features, rng = 4, np.random.default_rng(0)
    graph = topologies.convolutional(
        image, window, stride, features=features, padding=padding, backward=True
    )
    topology = Topology(graph)
    kinds = {"forward": dx.dense(), "backward": dx.dense()}
    network = dx.Network(topology, kinds, dx.identity, key=jax.random.key(0))
    axes = len(image) - 1
    window, stride = (
        (value,) * axes if isinstance(value, int) else value for value in (window, stride)
    )
    pads = [(padding, padding)] * axes if isinstance(padding, int) else padding
    kernel = kernel_of(network["forward"], (*window, image[-1]))
    x, f = numbers(rng, (3, *image)), numbers(rng, (3, *topology.shape("features")))
    state = dx.GraphState(topology).init(x).replace_val("features", f)

    @jax.jit
    def plain(x, f, kernel):
        said, back = jax.vjp(lambda image: lax_conv(image, kernel, stride, pads), x)
        _, seen = jax.vjp(lambda image: lax_conv(image, jnp.ones_like(kernel), stride, pads), x)
        return said, back(f)[0], seen(jnp.ones_like(f))[0]

    said, expected, seen = map(np.asarray, plain(x, f, kernel))
    moved = dx.step(network, state, kinds=["forward"])
    np.testing.assert_allclose(moved["features"], said, atol=1e-5)

    # backward, every feature adds its window to the image; the border takes none of it
    transposed = jax.device_put(np.asarray(network["forward"].weight).T)
    network = network.replace_val(
        "backward", eqx.tree_at(lambda c: c.weight, network["backward"], transposed)
    )
    moved = values(dx.step(network, state, kinds=["backward"], clamp={"image": False}))
    reached = seen > 0  # a stride may leave cells that no window sees
    np.testing.assert_allclose(
        np.where(reached, moved["image"], 0), np.where(reached, expected, 0), atol=1e-5
    )
    np.testing.assert_array_equal(np.where(reached, 0, moved["image"]), np.where(reached, 0, x))
    border = [node for node in topology.nodes if node[0] == "border"]
    assert (
        bool(border) == any(sum(pad) for pad in pads if not isinstance(pad, str))
        or padding == "SAME"
    )
    assert all((moved[node] == 0).all() for node in border)


def test_stages_see_one_through_the_next():
    graph = topologies.convolutional(
        (6, 5, 1), [3, 2], stride=1, features=[4, 3], padding=["SAME", 1]
    )
    topology = Topology(graph)
    network = dx.Network(topology, {"forward": dx.dense()}, dx.tanh, key=jax.random.key(0))
    x = numbers(np.random.default_rng(0), (2, 6, 5, 1))
    solution = dx.relax(network, dx.GraphState(topology).init(x))

    @jax.jit
    def plain(x, one, two):
        first = jnp.tanh(lax_conv(x, one, (1, 1), "SAME"))
        return first, jnp.tanh(lax_conv(first, two, (1, 1), [(1, 1), (1, 1)]))

    kernels = kernel_of(network["forward"], (3, 3, 1)), kernel_of(network["forward2"], (2, 2, 4))
    first, second = plain(x, *kernels)
    found = values(solution.state)
    np.testing.assert_allclose(found["features"], first, atol=1e-5)
    np.testing.assert_allclose(found["features2"], second, atol=1e-5)
    np.testing.assert_array_equal(solution.state.readout, found["features2"])
    np.testing.assert_array_equal(found["feature", 2, 3], found["features"][:, 2, 3])
    np.testing.assert_array_equal(found["feature2", 6, 0], found["features2"][:, 6, 0])
    assert all(int(steps) == 3 for steps in solution.steps)


def test_a_stage_of_conv_is_the_same():
    graph = topologies.convolutional((6, 6, 2), 3, 2, features=4, padding=1)
    graph.add_node("map", shape=(3, 3, 4), kind="feature")
    graph.add_edge("image", "map", kind="conv")
    graph.add_edge("map", "image", kind="back")
    topology = Topology(graph)
    kinds = {"forward": dx.dense(), "conv": dx.conv(3, 2, 1), "back": dx.conv_transpose(3, 2, 1)}
    network = dx.Network(topology, kinds, dx.identity, key=jax.random.key(0))
    kernel = kernel_of(network["forward"], (3, 3, 2))
    coupling = eqx.tree_at(lambda c: c.weight, network["image", "map"], jax.device_put(kernel))
    network = network.replace_val(("image", "map"), coupling)
    x = numbers(np.random.default_rng(0), (2, 6, 6, 2))
    moved = dx.step(network, dx.GraphState(topology).init(x))
    np.testing.assert_allclose(moved["map"], moved["features"], atol=1e-5)


def test_untied_windows_have_weights_of_their_own():
    graph = topologies.convolutional((4, 4, 1), 2, 2, features=3, tied=False)
    network = dx.Network(Topology(graph), {"forward": dx.dense()}, dx.sign, key=jax.random.key(0))
    weights = [
        network[("patch", i, j), ("feature", i, j)].weight for i in range(2) for j in range(2)
    ]
    assert len({weight.tobytes() for weight in map(np.asarray, weights)}) == 4
