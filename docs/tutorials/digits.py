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
# # Teach digits
#
# At the end you will have a recurrent network of ±1 units that reads handwritten digits, taught without a single gradient
# between its nodes, and pictures of what it learnt.
#
# The idea: **show the answer, let the network come to rest around it, and let every unit learn to want the state it is in.**
# What a unit needs for that is at hand: what its senders say, the field that this makes, and its own state.

# %%
import jax
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import optax
from sklearn.datasets import load_digits

import darnax as dx

# %% [markdown]
# ## Data
#
# Digits of 8 × 8 pixels, brought to the range from -1 to 1. `dx.one_vs_all` writes a label as +1 for the right class and -1 for
# the others.

# %%
data = load_digits()
x = (data.images[..., None] / 8 - 1).astype(np.float32)
y = dx.one_vs_all(data.target, 10)
train, test = slice(0, 1400), slice(1400, None)

figure, axes = plt.subplots(1, 8, figsize=(9, 1.5), layout="constrained")
for ax, image, digit in zip(axes, x, data.target, strict=False):
    ax.imshow(image[..., 0], cmap="gray_r")
    ax.set_title(digit)
    ax.set_axis_off()

# %% [markdown]
# ## The network
#
# An image drives `deep`, which drives the `label`. What makes it recurrent: units of `deep` hear themselves and each other, and
# the label speaks back. Bold are the edges that will learn.

# %%
g = nx.DiGraph()
g.add_node("image", shape=(8, 8, 1), role="input")
g.add_node("deep", shape=128, kind="hidden")
g.add_node("label", shape=10, kind="output", role="output")
g.add_edge("image", "deep", kind="forward")
g.add_edge("deep", "deep", kind="recurrent")
g.add_edge("deep", "label", kind="readout")
g.add_edge("label", "deep", kind="feedback")
topology = dx.Topology(g)
ax = dx.plots.topology(topology, bold=["forward", "readout"])

# %% [markdown]
# The self-coupling lets `deep` keep what it is told, and the feedback is strong, so that the label is heard at all. The read-out
# starts from zero.

# %%
network = dx.Network(
    topology,
    couplings={
        "forward": dx.dense(),
        "recurrent": dx.dense(gain=0.3, self_coupling=1.0),
        "readout": dx.dense(gain=0.0),
        "feedback": dx.dense(gain=5.0),
    },
    activations={"hidden": dx.sign, "output": dx.identity},
    key=jax.random.key(0),
)
untaught = network
network

# %% [markdown]
# ## Three phases, by hand
#
# What happens to one batch? First the label is silent, and `deep` comes to rest on what the image says. This is inference.

# %%
start = dx.GraphState(topology).init(x[:32])
free = dx.relax(network, start, silence=["label"])

# %% [markdown]
# Then the label is held at the right answer and speaks. `deep` moves to a state that suits both image and answer:

# %%
told = free.state.replace_val("label", y[:32])
clamped = dx.relax(network, told, clamp=["label"])

# %% [markdown]
# At last the label falls silent again, and `deep` keeps of it what it can hold by itself.

# %%
released = dx.relax(network, clamped.state, silence=["label"])
figure, axes = plt.subplots(1, 3, figsize=(10, 1.8), layout="constrained")
phases = {"free": free, "clamped": clamped, "released": released}
for ax, (name, solution) in zip(axes, phases.items(), strict=True):
    dx.plots.state(solution.state, ["deep"], ax=ax)
    ax.set_title(name)

# %% [markdown]
# How much did the answer change, and how much of that stayed? The overlap of two states is 1 where they are equal and 0 where
# they have nothing in common.


# %%
def overlap(one, other):
    return float((one.state["deep"] * other.state["deep"]).mean())


print(f"free and clamped: {overlap(free, clamped):.2f}")
print(f"clamped and released: {overlap(clamped, released):.2f}")
assert overlap(free, clamped) < overlap(clamped, released)

# %% [markdown]
# That is the lesson: next time the image *alone* shall lead to where the answer led. So the **perceptron rule** is applied to
# each unit whose field is not on the side of the released state by a margin. It makes an error signal at the unit, and each
# incoming coupling makes of it an update of its own.

# %%
rules = {"forward": dx.perceptron(0.5), "readout": dx.perceptron(3.0)}
updates = dx.local_updates(
    network, free.state, rules, target=released.state.replace_val("label", y[:32])
)
updates["image", "deep"].weight.shape  # (128, 64)

# %% [markdown]
# ## The same for all data
#
# `dx.DynamicalLearning` is given the phases and the rules, and `dx.fit` does the rest: shuffled batches, an optimiser of optax,
# validation. `from_inference` says what we did above: senders and fields are those of inference, and the phases say where the
# units should be.

# %%
learning = dx.DynamicalLearning(
    rules,
    phases=[
        dx.Phase("free", silence=["label"]),
        dx.Phase("clamped", clamp=["label"]),
        dx.Phase("released", silence=["label"]),
    ],
    from_inference=True,
    normalise=lambda batch, fan_in: (batch * fan_in) ** 0.5,
)
epochs = 4
rate = optax.cosine_decay_schedule(0.1, epochs * 44)
network, history = dx.fit(
    network,
    learning,
    optax.sgd(rate),
    x[train],
    y[train],
    epochs=epochs,
    validation=(x[test], y[test]),
    key=jax.random.key(1),
    progress=False,
)
history

# %%
ax = dx.plots.history(history, ["accuracy", "validation accuracy"])
assert history["validation accuracy"][-1] > 0.85

# %% [markdown]
# `settled` says that the network came to rest on its answers, so that they are answers at all, and `overlap` how much of the
# taught state lasted. [Learning](../learning.md#choosing-and-what-to-look-at) says what to do if either is low.
#
# ## What was learnt
#
# The weights from the image to one unit are an image. They began as noise. What learning has added to them is a sum of images
# with signs, for each update is the sign that a unit should have had times what it saw.

# %%
figure, axes = plt.subplots(2, 8, figsize=(9, 2.6), layout="constrained")
drawn = untaught["image", "deep"].weight
added = network["image", "deep"].weight - drawn
for row, weights in zip(axes, [drawn, added], strict=True):
    limit = float(abs(weights).max())
    for ax, unit in zip(row, weights, strict=False):
        ax.imshow(unit.reshape(8, 8), cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_axis_off()
for row, title in zip(axes, ["as drawn", "added"], strict=True):
    row[0].set_title(title, loc="left")

# %% [markdown]
# ## What it gets wrong
#
# `dx.predict` gives the outputs at rest. Here are the first test digits that it misreads, with its answer and the right one.

# %%
answers = dx.predict(network, learning, x[test]).argmax(-1)
wrong = np.flatnonzero(np.asarray(answers) != data.target[test])
print(f"{len(wrong)} of {len(answers)} test digits are misread")
figure, axes = plt.subplots(1, 8, figsize=(9, 1.6), layout="constrained")
for ax, sample in zip(axes, wrong, strict=False):
    ax.imshow(x[test][sample, ..., 0], cmap="gray_r")
    ax.set_title(f"{answers[sample]}, not {data.target[test][sample]}", fontsize=9)
for ax in axes:
    ax.set_axis_off()

# %% [markdown]
# ## Where to go on
#
# [Learning](../learning.md) lists the rules and tells how to go on from a checkpoint. [digits.py](../../examples/digits.py) is the
# same with a convolution in front, and [its figures](../benchmarks.md#digits) stand beside those of other classifiers. The next
# tutorial is about networks whose rest is a [memory](energy.py).
