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
# # Draw a topology
#
# At the end you will have drawn a network of two eyes, a cortex and a word that speaks back, joined to it a circle of units
# from a builder, and compiled all of it to a topology that weights can be put on.
#
# The idea: **who exists and who talks to whom is a graph, so draw a graph.** The drawing is plain networkx, which you may know
# already. What is particular to darnax are a few attributes on nodes and edges.

# %%
import jax
import matplotlib.pyplot as plt
import networkx as nx

import darnax as dx

# %% [markdown]
# ## Two nodes and an edge
#
# A node has a `shape`. An edge `u -> v` means that u sends to v. `dx.Topology` reads the drawing once; as the last line of a
# cell it shows itself.

# %%
g = nx.DiGraph()
g.add_node("eye", shape=(8, 8, 1))
g.add_node("cortex", shape=100)
g.add_edge("eye", "cortex")
dx.Topology(g)

# %% [markdown]
# ## Kinds say what is alike
#
# A network gets one coupling for each *kind* of edge and one activation for each *kind* of node. So give one kind to what
# should be alike. Roles say who is set from outside, and who is read.

# %%
g = nx.DiGraph()
g.add_node("left eye", shape=(8, 8, 1), kind="eye", role="input")
g.add_node("right eye", shape=(8, 8, 1), kind="eye", role="input")
g.add_node("cortex", shape=100, kind="hidden")
g.add_node("word", shape=10, kind="output", role="output")
g.add_edge("left eye", "cortex", kind="see")
g.add_edge("right eye", "cortex", kind="see")
g.add_edge("cortex", "word", kind="name")
ax = dx.plots.topology(dx.Topology(g))

# %% [markdown]
# A circle is a node, larger for more cells, in a colour for its kind. Inputs have a bold border, the output a double one.
#
# ## What makes it recurrent
#
# So far everything runs one way. A self-loop is a node that hears itself, and an edge backwards is feedback; both are edges
# like any other, and there may be as many as you like.

# %%
g.add_edge("cortex", "cortex", kind="recurrent")
g.add_edge("word", "cortex", kind="feedback")
ax = dx.plots.topology(dx.Topology(g), bold=["recurrent", "feedback"])

# %% [markdown]
# ## A slip is told
#
# What is wrong with the nodes of a drawing is said at once, and so is what is wrong with its edges, by their names and with
# what to do. Here one node has no shape, and another one cells that cannot be:

# %%
wrong = g.copy()
wrong.add_node("ear")
wrong.add_node("nose", shape=-2)
try:
    dx.Topology(wrong)
except ValueError as error:
    message = str(error)
print(message)
assert "'ear'" in message
assert "'nose'" in message

# %% [markdown]
# ## Builders draw what is tedious
#
# `dx.topologies` has functions that draw chains, windows on images, lattices and random graphs. What they return is a graph,
# which you can look at and change. A lattice of one dimension that closes on itself is a ring:

# %%
ring = dx.topologies.lattice(12, periodic=True)
nx.set_node_attributes(ring, "place", "kind")
nx.set_edge_attributes(ring, "around", "kind")
ax = dx.plots.topology(dx.Topology(ring), place=nx.circular_layout, words=False)

# %% [markdown]
# ## Parts become a whole
#
# Both are graphs, so networkx puts them together. Rename the units of the ring first, so that no name is taken twice, and
# let the cortex speak to each of them.

# %%
ring = nx.relabel_nodes(ring, {i: ("heading", i) for i in ring})
whole = nx.compose(g, ring)
for unit in ring:
    whole.add_edge("cortex", unit, kind="steer")
topology = dx.Topology(whole)

# %% [markdown]
# Nodes are drawn in layers from left to right. `place=` puts them elsewhere, here the ring around the cortex that steers it.

# %%
place = {node: 3 * point for node, point in nx.circular_layout(ring).items()}
place |= {"left eye": (-7, 2), "right eye": (-7, -2), "cortex": (0, 0), "word": (6, 0)}
ax = dx.plots.topology(topology, place=place)

# %% [markdown]
# Each unit of the ring is a node of its own, since each has neighbours of its own. The hundred units of the cortex are one
# node: they are all alike. [Topologies](../topologies.md#which-one) says more about how coarse a node should be.
#
# ## What was made of it
#
# The compiled topology keeps names and numbers. The nodes live in a few arrays, and edges that are alike are one group,
# which will run as one operation: the table below has a row for a group however many edges it has.

# %%
print(topology.summary())

# %%
len(topology.nodes), len(topology.edges), len(topology.arrays)  # (16, 41, 4)

# %% [markdown]
# ## Weights are put on it later
#
# A topology holds no numbers that learn. A network puts a coupling on every kind of edge and units on every kind of node,
# and takes all sizes from the drawing.

# %%
network = dx.Network(
    topology,
    couplings={
        "see": dx.dense(),
        "recurrent": dx.dense(gain=0.5),
        "name": dx.dense(),
        "feedback": dx.dense(gain=0.3),
        "steer": dx.dense(),
        "around": dx.scale(0.5),
    },
    activations=dx.tanh,
    key=jax.random.key(0),
)
network["cortex", "word"].weight.shape  # (10, 100)

# %% [markdown]
# It runs: all the ways of before, from both eyes to the heading.

# %%
eyes = jax.random.normal(jax.random.key(1), (2, 1, 8, 8, 1))
start = dx.GraphState(topology).init({"left eye": eyes[0], "right eye": eyes[1]})
solution = dx.relax(network, start)
bool(solution.settled.all())  # True

# %%
ax = dx.plots.state(solution.state)

# %% [markdown]
# ## When it grows
#
# Above 60 nodes a circle stands for a *kind* of nodes, and an arrow says how many edges it stands for. So the picture of a
# large network says what its drawing meant.

# %%
grid = dx.topologies.lattice((30, 30))
nx.set_node_attributes(grid, "site", "kind")
nx.set_edge_attributes(grid, "lateral", "kind")
for node in [(15, 15), (14, 15), (15, 14)]:
    grid.add_edge("touch", node, kind="press")
grid.add_node("touch", shape=(), kind="skin", role="input")
large = dx.Topology(grid)
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax = dx.plots.topology(large, ax=ax)

# %% [markdown]
# ## Where to go on
#
# [Topologies](../topologies.md) has all builders, views and overlap, and how graphs go to files and come back. The next
# tutorial draws networks [whose nodes are images](images.py).
