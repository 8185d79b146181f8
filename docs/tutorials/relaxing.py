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
# # Relax, and read what came of it
#
# At the end you will have relaxed a few hundred random states of a network, and know of each whether it came to rest, after
# how many passes, or in a cycle of which length it ended; and you will have found what lets all of them rest.
#
# The idea: a recurrent network has no last layer at which it is done. It is done when a pass changes nothing. **Whether that
# happens is a question, sample by sample, and `dx.relax` answers it** instead of running a number of passes and hoping.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx

import darnax as dx

# %% [markdown]
# ## Two units that copy each other
#
# Every unit hears the other and takes its value. Two samples: in the first they disagree, in the second they agree.

# %%
g = nx.DiGraph()
g.add_node("a", shape=())
g.add_node("b", shape=())
g.add_edge("a", "b")
g.add_edge("b", "a")
pair = dx.Network(dx.Topology(g), {"edge": dx.relay()}, dx.sign, key=jax.random.key(0))
start = dx.GraphState(pair.topology).init({"a": jnp.array([1.0, 1.0]), "b": jnp.array([-1.0, 1.0])})
ax = dx.plots.topology(pair.topology)

# %% [markdown]
# `dx.step` makes one **pass**: all units move at once, from what they saw before. `dx.rollout` makes several. In the first
# sample the two trade places for ever.

# %%
_, frames = dx.rollout(pair, start, 6, observe=lambda state: state["a"])
frames.T.tolist()  # [[-1.0, 1.0, -1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]

# %% [markdown]
# `dx.relax` finds this out. It makes passes until every sample is decided, and gives a `Solution`:

# %%
solution = dx.relax(pair, start)
solution

# %% [markdown]
# One sample was at rest from the start: its period is 1, and it took the one pass that showed it. The other one is on a cycle
# of two. That is no failure of the search, it is what this network does.

# %%
solution.settled.tolist(), solution.period.tolist()  # ([False, True], [2, 1])

# %% [markdown]
# ## The order is part of the dynamics
#
# A **schedule** says who moves when within a pass. Let the two take turns, and the cycle is gone: `b` copies `a` after `a` has
# copied `b`.

# %%
taking_turns = dx.relax(pair, start, schedule=dx.node_by_node())
taking_turns.settled.tolist()  # [True, True]

# %% [markdown]
# ## Many units, many starts
#
# Now a population of 100 units of ±1, each of which hears all others through random weights that differ in both directions.
# We start from 300 random states.

# %%
topology = dx.Topology(dx.topologies.hopfield(100))


def population(self_coupling):
    """A random population whose units hear themselves with some strength."""
    couplings = {"recurrent": dx.dense(self_coupling=self_coupling)}
    return dx.Network(topology, couplings, dx.sign, key=jax.random.key(1))


starts = jax.random.rademacher(jax.random.key(2), (300, 100), jnp.float32)
start = dx.GraphState(topology).init({"units": starts})
wandering = dx.relax(population(0.0), start, max_steps=100)
wandering

# %% [markdown]
# Not one of them rests. A period of 0 says that neither rest nor a cycle was found within these 100 passes: all of them are
# still wandering.

# %%
assert not wandering.settled.any()
assert (wandering.period == 0).all()

# %% [markdown]
# ## What lets them rest
#
# A unit that hears itself is slow to change its mind. Give each of them a **self-coupling**, and ask again. The picture counts
# how many passes samples took and how they ended, and shows how far the last pass moved those that go on:

# %%
halfway = dx.relax(population(0.5), start, max_steps=100)
ax = dx.plots.solution(halfway)
assert 0.3 < halfway.settled.mean() < 1

# %% [markdown]
# Every number in it is a column of the solution, one entry for each sample, so that you can ask further. Did those that settled
# need long?

# %%
passes = halfway.steps[halfway.settled]
print(
    f"{len(passes)} settled, after {passes.mean():.0f} passes in the mean and {passes.max()} at most"
)

# %% [markdown]
# Between never and always lies a narrow range of strengths. The strength is a number inside of the network, so that all of
# these relaxations are one compiled program.

# %%
strengths = [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0]
shares = []
for strength in strengths:
    relaxed = dx.relax(population(strength), start, max_steps=100)
    shares.append(float(relaxed.settled.mean()))
figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(strengths, shares, "o-")
ax.set_xlabel("self-coupling")
ax.set_ylabel("share that comes to rest")
assert shares[0] == 0
assert shares[-1] == 1

# %% [markdown]
# ## On the way
#
# `rollout` shows what happens meanwhile. How many units change in a pass? And with the solution beside it: how many samples
# have come to rest by then?


# %%
def units(state):
    return state["units"]


network = population(0.6)
_, path = dx.rollout(network, start, 60, observe=units)
before = jnp.concatenate([starts[None], path[:-1]])
changed = (path != before).mean(-1)
relaxed = dx.relax(network, start, max_steps=100)
ax = dx.plots.trajectory({"share of units that change": changed}, solution=relaxed)

# %% [markdown]
# ## Who is held
#
# What is clamped keeps its value, and the rest comes to rest around it. The fewer units are free, the sooner it does: here are
# the wanderers of before, with four in five of their units held where they started. `silence=` and `drive=` work alike: they
# are arguments of a call, and nothing of the network changes.

# %%
fixed = jnp.arange(100) < 80
held = dx.relax(population(0.0), start, clamp={"units": fixed}, max_steps=100)
assert (held.state["units"][:, :80] == starts[:, :80]).all()
print(
    f"share at rest: {wandering.settled.mean():.2f} free, {held.settled.mean():.2f} with most units held"
)
assert held.settled.mean() > 0.3

# %% [markdown]
# ## When a value is not finite
#
# A sample with a value that is no number is given up at once, and says so by its residual. It never touches another one:

# %%
broken = start.replace_val("units", starts.at[7, 0].set(jnp.nan))
calm = dx.relax(population(1.0), start, max_steps=100)
lost = dx.relax(population(1.0), broken, max_steps=100)
assert jnp.isnan(lost.residual[7])
assert not lost.settled[7]
others = jnp.arange(300) != 7
assert (lost.state["units"][others] == calm.state["units"][others]).all()
lost

# %% [markdown]
# ## Where to go on
#
# [Dynamics](../dynamics.md) has all schedules and every field of a solution, [Analysis](../analysis.md) tells whether a point of
# rest is stable. Why does self-coupling help, and what else does? [settling.py](../../examples/settling.py) measures it. The next
# tutorial [teaches a network](digits.py), by what it does at rest.
