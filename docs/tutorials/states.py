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
# # States
#
# At the end you will have two half-fields of an eye that share one image, hold them in a single immutable value, and send
# that value through a compiled loop in which a spot of light wanders from one to the other.
#
# The idea: a **state** is what every part of a network does *now*, and nothing else. It knows no weights and no rules.
# Because it is one value, all that JAX does to a value (compile, map, scan, differentiate) it does to a whole network.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np

import darnax as dx

# %% [markdown]
# ## One buffer for each layer
#
# The simplest state is a chain of layers. Every layer has a **buffer**, an array whose first axis is the batch. `init` sets
# the input, here a batch of 32 samples, and zeros the rest.

# %%
state = dx.SequentialState([(4,), (8,), (3,)])
state = state.init(jnp.ones((32, 4)))
[state[layer].shape for layer in state]  # [(32, 4), (32, 8), (32, 3)]

# %% [markdown]
# Nothing is ever changed in place: what changes something gives a new state, and the old one is as it was. You will never
# wonder who else holds this object.

# %%
busy = state.replace_val(1, jnp.full((32, 8), 0.5))
float(busy[1].max()), float(state[1].max())  # (0.5, 0.0)

# %% [markdown]
# ## Names instead of positions
#
# A network that is no chain is drawn with networkx. Its state, a `GraphState`, answers to the names of the nodes, and
# buffers have whatever shape you draw: an image, a vector, a single unit.

# %%
graph = nx.DiGraph()
graph.add_node("image", shape=(6, 6, 1), role="input")
graph.add_node("layer 1", shape=20, kind="hidden")
graph.add_node("layer 2", shape=20, kind="hidden")
graph.add_node("answer", shape=(), role="output")
graph.add_edge("image", "layer 1")
graph.add_edge("layer 1", "layer 2")
graph.add_edge("layer 2", "answer")

pictures = jax.random.normal(jax.random.key(0), (2, 6, 6, 1))
state = dx.GraphState(graph).init(pictures)
state

# %% [markdown]
# The table says what there is and where it lives. `dx.plots.state` shows one sample of it, every part in its own shape:
# blue below zero, red above.

# %%
noise = jax.random.normal(jax.random.key(1), (2, 20))
ax = dx.plots.state(state.replace({"layer 1": noise, "layer 2": -noise}))

# %% [markdown]
# ## A few arrays hold everything
#
# There are four nodes, and three arrays: the two layers are alike, so they are two rows of one array and will be updated by
# one operation. This holds for a thousand layers as well, and is why programs do not grow with the number of nodes.

# %%
len(state), len(jax.tree.leaves(state))  # (4, 3)

# %%
chain = dx.GraphState(dx.topologies.sequential([16] * 1000))
len(chain), len(jax.tree.leaves(chain))  # (1000, 3)

# %% [markdown]
# ## Nodes that share cells
#
# So a node is an address: a view into an array. Then two nodes may look at the *same* cells. Declare the array once, and
# say by an index, as in NumPy, which part of it a node is. Here the left and the right half of a visual field overlap in the
# middle, and a third node is all of it.

# %%
field = nx.DiGraph(arrays={"field": (8, 12)})
field.add_node("whole", array="field", index=...)
field.add_node("left", array="field", index=np.s_[:, :8])
field.add_node("right", array="field", index=np.s_[:, 4:])
field.add_edge("left", "right")
both = dx.GraphState(field)
both["left"].shape, both["right"].shape, len(jax.tree.leaves(both))  # ((1, 8, 8), (1, 8, 8), 1)

# %% [markdown]
# What is written through one view is seen through the other. Below, `left` alone is written, and the columns that it shares
# with `right` are lit in both.

# %%
lit = both.replace_val("left", jnp.ones((1, 8, 8)))
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
for ax, part in zip(axes, ["whole", "left", "right"], strict=True):
    dx.plots.state(lit, [part], ax=ax)
assert (lit["right"][..., :4] == 1).all()
assert (lit["right"][..., 4:] == 0).all()

# %% [markdown]
# ## One value in a loop
#
# Since a state is a pytree, `jax.lax.scan` carries it, and `jax.jit` compiles what is done to it. Here a spot of light
# crosses the field; every frame is a state, and the spot is read through both views.


# %%
@jax.jit
def cross(state):
    """The states while a spot goes from left to right."""
    rows, columns = jnp.mgrid[:8, :12]

    def move(state, position):
        spot = jnp.exp(-((rows - 3.5) ** 2 + (columns - position) ** 2) / 4)
        state = state.replace_val("whole", spot[None])
        return state, state

    return jax.lax.scan(move, state, jnp.arange(12.0))


last, frames = cross(both)


def light(state):
    return {half: state[half].sum() for half in ("left", "right")}


figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for half, amount in jax.vmap(light)(frames).items():
    ax.plot(amount, label=half)
ax.set_ylabel("light in the half-field")
ax.set_xlabel("frame")
legend = ax.legend()

# %% [markdown]
# The frames of a scan are a *stack* of states, one leading axis more in every array; `jax.vmap` maps over it, as it would
# over the members of an ensemble. One frame is taken out of it with `jax.tree.map`:


# %%
def frame_at(time):
    return jax.tree.map(lambda leaf: leaf[time], frames)


figure, axes = plt.subplots(1, 4, figsize=(11, 2.2), layout="constrained")
for ax, time in zip(axes, [0, 4, 7, 11], strict=True):
    dx.plots.state(frame_at(time), ["whole"], ax=ax, limit=1.0)
    ax.set_title(f"frame {time}")

# %% [markdown]
# ## A derivative by every cell
#
# The derivative of a number by a state is a state again. How much does the light in the right half change with each cell?
# By 1 where `right` looks, and not at all elsewhere.

# %%
slope = jax.grad(lambda state: state["right"].sum())(last)
assert (slope["right"] == 1).all()
ax = dx.plots.state(slope, ["whole"])

# %% [markdown]
# ## Where to go on
#
# [States](../states.md) has the whole contract, types of cells, jraph and several devices. The next tutorial
# [draws a topology](topologies.py); how a network makes a state move is told in [Relax, and read what came of it](relaxing.py).
