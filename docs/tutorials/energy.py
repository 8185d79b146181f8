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
# # Energy and memory
#
# At the end you will have stored three letters in the weights of a network, called them back from scribbles, and seen the
# energy that leads there, the hills between memories, and the load at which memory breaks.
#
# The idea: if weights are the same both ways, each pass goes **down an energy**. What is stored becomes a valley, and to
# remember is to roll downhill.

# %%
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np

import darnax as dx

# %% [markdown]
# ## Three letters
#
# Pictures of 10 × 10 units, +1 for ink and -1 for paper.

# %%
LETTERS = """
..........  ..######..  .########.
.########.  .########.  .########.
.########.  ##......##  .##.......
....##....  ##......##  .##.......
....##....  ##......##  .#######..
....##....  ##......##  .#######..
....##....  ##......##  .##.......
....##....  ##......##  .##.......
....##....  .########.  .########.
....##....  ..######..  .########.
"""
rows = [line.split() for line in LETTERS.split("\n") if line]
patterns = np.array(
    [[[1.0 if pen == "#" else -1.0 for pen in row[i]] for row in rows] for i in range(3)],
    np.float32,
)
patterns.shape  # (3, 10, 10)

# %% [markdown]
# ## A network that holds them
#
# One node, whose units all hear each other. `symmetric=True` makes the weight from one unit to another the same both ways,
# whatever learns it; `self_coupling=0.0` keeps units from hearing themselves. There are no weights yet: `gain=0.0`.

# %%
g = nx.DiGraph()
g.add_node("picture", shape=(10, 10), role="output")
g.add_edge("picture", "picture", kind="recurrent")
topology = dx.Topology(g)
blank = dx.Network(
    topology,
    {"recurrent": dx.dense(symmetric=True, self_coupling=0.0, gain=0.0)},
    dx.sign,
    key=jax.random.key(0),
)
stored = dx.GraphState(topology).init({"picture": patterns})
figure, axes = plt.subplots(1, 3, figsize=(7, 2.5), layout="constrained")
for sample, ax in enumerate(axes):
    dx.plots.state(stored, ["picture"], ax=ax, sample=sample)

# %% [markdown]
# ## Storing is Hebb's rule
#
# Units that are alike in a pattern get a weight that keeps them alike. The updates of `dx.local_updates` point downhill, as
# those of optax, so they are taken away.


# %%
def store(state):
    """The network that has learnt all samples of a state."""
    rules = {"recurrent": dx.hebbian()}
    params, rest = dx.partition(blank, rules)
    updates = dx.local_updates(blank, state, rules)
    return eqx.combine(jax.tree.map(lambda weight, update: weight - update, params, updates), rest)


memory = store(stored)

# %% [markdown]
# ## Recall
#
# Take sixty-four copies of the letters, flip a quarter of their units, and let the network come to rest. Units take turns,
# `dx.unit_by_unit()`, for that is the order in which the energy is sure to fall.

# %%
wanted = patterns[np.arange(64) % 3]
flips = jax.random.bernoulli(jax.random.key(1), 0.25, wanted.shape)
scribbles = dx.GraphState(topology).init({"picture": jnp.where(flips, -wanted, wanted)})
recalled = dx.relax(memory, scribbles, schedule=dx.unit_by_unit())
right = (recalled.state["picture"] == wanted).all((1, 2))
print(f"{right.mean():.0%} are recalled to the last unit")
assert right.mean() > 0.8
recalled

# %%
figure, axes = plt.subplots(2, 3, figsize=(7, 5), layout="constrained")
for row, state in zip(axes, [scribbles, recalled.state], strict=True):
    for sample, ax in enumerate(row):
        dx.plots.state(state, ["picture"], ax=ax, sample=sample)
for row, title in zip(axes, ["start", "at rest"], strict=True):
    row[0].set_title(title)

# %% [markdown]
# ## The energy on the way
#
# `dx.energy` is one number for each sample. Sixty-four random starts, and their energies pass by pass, from the start at 0:
# they fall and never rise, and this is why every one of them comes to rest.


# %%
def energy(state):
    return dx.energy(memory, state)


random = jax.random.rademacher(jax.random.key(2), (64, 10, 10), jnp.float32)
start = dx.GraphState(topology).init({"picture": random})
_, energies = dx.rollout(memory, start, 6, schedule=dx.unit_by_unit(), observe=energy)
energies = jnp.concatenate([energy(start)[None], energies])
assert (jnp.diff(energies, axis=0) <= 1e-3).all()
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.set_xlabel("pass")
ax.set_ylabel("energy")
lines = ax.plot(energies, color="C0", alpha=0.3)

# %% [markdown]
# ## The landscape
#
# Go in a straight line from one letter to the next, through states that are neither, and look at the energy: every letter lies
# in a valley, with a hill before the next one.

# %%
stops = np.concatenate([patterns, patterns[:1]])
share = np.linspace(0, 1, 21, endpoint=False, dtype=np.float32)[:, None, None]
path = [(1 - share) * here + share * there for here, there in pairwise(stops)]
walk = dx.GraphState(topology).init({"picture": np.concatenate([*path, stops[-1:]])})
heights = energy(walk)
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(np.arange(64) / 21, heights)
ax.set_xticks([0, 1, 2, 3], ["T", "O", "E", "T"])
ax.set_ylabel("energy")
assert heights[10] > max(heights[0], heights[21])

# %% [markdown]
# ## Where all roads lead
#
# Which valleys are there? `dx.fixed_points` starts from many states and counts where they end. Besides the letters there are
# their opposites, ink and paper exchanged, for the energy of a state and its opposite are the same; and there may be mixtures
# that nobody stored.

# %%
points = dx.fixed_points(memory, start, schedule=dx.unit_by_unit())
similar = abs(dx.overlaps(points.states, {"picture": patterns})).max(-1)
letters = int((similar == 1).sum())
print(f"{len(points)} points of rest, {letters} of them a letter or its opposite")
figure, axes = plt.subplots(1, 6, figsize=(11, 2.3), layout="constrained")
for sample, ax in enumerate(axes[: len(points)]):
    dx.plots.state(points.states, ["picture"], ax=ax, sample=sample)
    ax.set_title(f"{int(points.counts[sample])} starts")
for ax in axes:
    ax.set_axis_off()

# %% [markdown]
# ## How much fits
#
# Store more and more random pictures, start from each with a tenth of its units flipped, and see how much of it is still there
# at rest. Memory does not fade, it breaks.

# %%
loads = [2, 4, 8, 16, 32]
overlaps = []
for load in loads:
    rng = np.random.default_rng(load)
    many = rng.choice(np.float32([-1, 1]), (load, 10, 10))
    wanted = many[np.arange(64) % load]
    noisy = np.where(rng.random(wanted.shape) < 0.1, -wanted, wanted)
    begin = dx.GraphState(topology).init({"picture": noisy})
    full = store(dx.GraphState(topology).init({"picture": wanted}))
    rest = dx.relax(full, begin, schedule=dx.unit_by_unit())
    overlaps.append(float((rest.state["picture"] * wanted).mean()))
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(loads, overlaps, "o-")
ax.set_xlabel("stored pictures, of 100 units each")
ax.set_ylabel("overlap at rest")
assert overlaps[0] > 0.98 > 0.8 > overlaps[-1]

# %% [markdown]
# ## Where to go on
#
# [Energy](../energy.md) says which networks have one: dense, convolutional and graph couplings mixed, with hidden layers and edges
# both ways. [hopfield.py](../../examples/hopfield.py) measures the capacity of larger networks, and [Sampling](../sampling.md) adds
# a temperature, by which a state may leave its valley.
