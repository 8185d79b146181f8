# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Image-shaped nodes and convolutional slices
#
# At the end you will have a recurrent convolution that cleans a noisy picture by coming to rest, and the same convolution cut
# into windows that have names, so that single ones can be silenced.
#
# The idea: a node has any shape, so **an image is one node**, and a convolution is a coupling like any other. Where you need
# the parts of an image by name, the windows are nodes themselves: **slices of one shared array**.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np

import darnax as dx

# %% [markdown]
# A picture to work with: a ring and a bar of +1 on a ground of -1, and the same with every tenth pixel flipped or so.

# %%
rows, columns = np.mgrid[:32, :32]
radius = np.hypot(rows - 13, columns - 13)
bar = (rows > 25) & (rows < 29) & (columns > 3) & (columns < 28)
drawn = np.where((radius > 6) & (radius < 11) | bar, 1.0, -1.0).astype(np.float32)
picture = drawn[None, ..., None]
rng = np.random.default_rng(0)
flips = rng.random(picture.shape) < 0.1
noisy = np.where(flips, -picture, picture)
picture.shape, bool(0.05 < flips.mean() < 0.15)  # ((1, 32, 32, 1), True)

# %% [markdown]
# ## A convolution between two images
#
# `(32, 32, 1)` is space and channels. `dx.conv` joins two such nodes and finds all sizes in the drawing: the second node has
# two channels, so there are two kernels. A network draws its weights at random; here we put two kernels there that everybody
# knows, the slopes along both axes.

# %%
g = nx.DiGraph()
g.add_node("image", shape=(32, 32, 1), role="input")
g.add_node("slopes", shape=(32, 32, 2), kind="map", role="output")
g.add_edge("image", "slopes", kind="conv")
network = dx.Network(dx.Topology(g), {"conv": dx.conv(3)}, dx.tanh, key=jax.random.key(0))

slope = jnp.array([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]]) / 8
kernels = jnp.stack([slope, slope.T], axis=-1)[:, :, None, :]
coupling = eqx.tree_at(lambda conv: conv.weight, network["image", "slopes"], kernels)
network = network.replace_val(("image", "slopes"), coupling)
kernels.shape  # (3, 3, 1, 2)

# %% [markdown]
# One pass takes the image to its slopes. Channels are drawn side by side; it is white where nothing changes. Beyond the border
# of an image there are zeros, which the kernels take for a slope.

# %%
state = dx.GraphState(network.topology).init(picture)
figure, ax = plt.subplots(figsize=(9, 3), layout="constrained")
ax = dx.plots.state(dx.step(network, state), ax=ax)

# %% [markdown]
# ## A convolution of an image with itself
#
# A self-loop with a small kernel is lateral wiring: every pixel hears its eight neighbours. Let a second image `clean` hear
# the noisy one pixel by pixel (`dx.scale`), and its own neighbours through a kernel of equal weights. `symmetric=True` keeps
# the weight between two pixels the same both ways, and `self_coupling=0.0` keeps the middle of the kernel at zero.

# %%
g = nx.DiGraph()
g.add_node("seen", shape=(32, 32, 1), role="input")
g.add_node("clean", shape=(32, 32, 1), kind="pixels", role="output")
g.add_edge("seen", "clean", kind="look")
g.add_edge("clean", "clean", kind="lateral")
cleaner = dx.Network(
    dx.Topology(g),
    {
        "look": dx.scale(1.5, fixed=True),
        "lateral": dx.conv(3, symmetric=True, self_coupling=0.0),
    },
    dx.tanh,
    key=jax.random.key(0),
)
lateral = cleaner["clean", "clean"]
equal = eqx.tree_at(lambda conv: conv.weight, lateral, jnp.full((3, 3, 1, 1), 0.4))
cleaner = cleaner.replace_val(("clean", "clean"), equal)
cleaner

# %% [markdown]
# Neighbours agree more often than noise does. So the network comes to rest on a picture in which lone pixels have given way:

# %%
start = dx.GraphState(cleaner.topology).init(noisy)
solution = dx.relax(cleaner, start)
solution

# %%
_, passes = dx.rollout(cleaner, start, 3, observe=lambda state: state["clean"][0, ..., 0])
frames = {
    "seen": noisy[0, ..., 0],
    "after a pass": passes[0],
    "after three": passes[2],
    "at rest": solution.state["clean"][0, ..., 0],
}
figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
for ax, (title, frame) in zip(axes, frames.items(), strict=True):
    ax.imshow(frame, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_title(title)
    ax.set_axis_off()

# %%
before = float((np.sign(noisy) != picture).mean())
after = float((jnp.sign(solution.state["clean"]) != picture).mean())
print(f"wrong pixels: {before:.1%} as seen, {after:.1%} at rest")
assert after < before / 3

# %% [markdown]
# Nothing here was trained. [Teach digits](digits.py) is about that, and a kernel learns by the same rules as a matrix.
#
# ## The same, in windows that have names
#
# `dx.conv` treats all places alike. To clamp, silence or read *single* places, or to give them weights of their own, draw the
# windows as nodes. A builder does it: the image is one array, every window is a view of it, and behind each there is a node of
# features. Here is a small one to look at, whose image is a line of nine pixels; pale bands join nodes that share cells.

# %%
small = dx.topologies.convolutional((9, 1), window=3, stride=2, features=2)
place = {"image": (-2, 0), "features": (-2, -1.5)}
for i in range(4):
    place["patch", i] = (1.5 * i, 0)
    place["feature", i] = (1.5 * i, -1.5)
figure, ax = plt.subplots(figsize=(9, 3.5), layout="constrained")
ax = dx.plots.topology(dx.Topology(small), ax=ax, place=place, words=False)

# %% [markdown]
# All windows are *tied*: one matrix serves them all, and that is what makes it a convolution. With our two kernels in it, it
# gives the slopes of before, wherever a window lies inside of the image:

# %%
drawing = dx.topologies.convolutional((32, 32, 1), window=3, features=2)
windows = dx.Network(dx.Topology(drawing), {"forward": dx.dense()}, dx.tanh, key=jax.random.key(0))
rows_of_kernels = kernels.reshape(9, 2).T
tied = eqx.tree_at(lambda dense: dense.weight, windows["forward"], rows_of_kernels)
windows = windows.replace_val("forward", tied)

start = dx.GraphState(windows.topology).init(picture)
slopes = dx.step(windows, start)["features"]
inside = dx.step(network, state)["slopes"][:, 1:-1, 1:-1]
slopes.shape, bool(jnp.allclose(slopes, inside, atol=1e-5))  # ((1, 30, 30, 2), True)

# %% [markdown]
# The summary of the network says how it is run: the windows were found to stand on a grid, so they run as one convolution and
# not one by one.

# %%
print(windows.summary())

# %% [markdown]
# Now single windows can be addressed. Here a square of them falls silent, and their features stay at zero:

# %%
hushed = [("patch", i, j) for i in range(8, 18) for j in range(2, 12)]
quiet = dx.step(windows, start, silence=hushed)
assert (quiet["features"][:, 8:18, 2:12] == 0).all()

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 2.8), layout="constrained")
for ax, after in [(left, dx.step(windows, start)), (right, quiet)]:
    dx.plots.state(after, ["features"], ax=ax)

# %% [markdown]
# ## Where to go on
#
# [Topologies](../topologies.md#windows-on-an-image) tells when windows are worth it, and [image_patches.py](../../examples/image_patches.py)
# lets windows complete the half of a digit. The next tutorial is about [coming to rest](relaxing.py).
