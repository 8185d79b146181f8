"""A restricted Boltzmann machine learns bars and stripes, by two ways of drawing from itself.

    python examples/boltzmann.py            # a table and boltzmann.png, in about half a minute
    python examples/boltzmann.py --small    # fewer updates, in seconds

Images of 3 × 3 pixels hold bars or stripes: 14 of the 512 there are. Visible units of a heat bath
show them, and hidden units hear these. A coupling learns from how often its two units agree while
images are shown, less how often they do while the machine dreams:

- *contrastive divergence* begins every dream at the images, and wakes after one pass. All of it is
  `dx.fit`, with a phase that dreams and one that is shown the data;
- *persistent chains* dream on and on while the couplings change. What they wander to far from the
  data is unlearnt as well. They must keep up with the couplings: so the rate is small, and weights
  decay a little.

The machine is so small that the logarithm of the probability of the data is a sum over all images,
and is drawn beside the best that there is: every image of the 14 with probability 1/14.

Sources: G. E. Hinton, Neural Comput. 14, 1771 (2002); T. Tieleman, Proc. ICML, 1064 (2008).
"""

import argparse
import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np
import optax

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIDE, HIDDEN, CHAINS = 3, 16, 140
PASSES = 5  # of the chains, for each update
RULES = {"up": dx.hebbian(), "down": dx.hebbian()}
TURNS = dx.groups([["hidden"], ["visible"]])  # hidden units do not hear each other: all at once


class Learnt(NamedTuple):
    """The machine, and its likelihood after each stretch of updates."""

    network: dx.Network
    likelihood: list[float]


def images() -> np.ndarray:
    """All bars and stripes, as ±1, `(14, 9)`."""
    lines = np.array(list(itertools.product([-1, 1], repeat=SIDE)), np.float32)
    bars = np.repeat(lines[:, :, None], SIDE, axis=2).reshape(len(lines), -1)
    stripes = np.repeat(lines[:, None, :], SIDE, axis=1).reshape(len(lines), -1)
    return np.unique(np.concatenate([bars, stripes]), axis=0)


def machine() -> dx.Network:
    """Both ways between visible and hidden units, with couplings that begin equal and stay so."""
    graph = nx.DiGraph()
    graph.add_node("visible", shape=SIDE**2, kind="visible")
    graph.add_node("hidden", shape=HIDDEN, kind="hidden")
    graph.add_edge("visible", "hidden", kind="up")
    graph.add_edge("hidden", "visible", kind="down")
    network = dx.Network(
        dx.Topology(graph),
        {"up": dx.dense(gain=0.2), "down": dx.dense()},
        dx.glauber(1.0),
        biases={"visible": dx.bias(), "hidden": dx.bias()},
        key=jax.random.key(0),
    )
    up = network["visible", "hidden"].weight
    down = eqx.tree_at(lambda coupling: coupling.weight, network["hidden", "visible"], up.T)
    return network.replace_val(("hidden", "visible"), down)


def log_probabilities(network: dx.Network, shown: np.ndarray) -> np.ndarray:
    """The logarithm of the probability of images, with the sum over all 512 in the denominator."""
    up = np.asarray(network["visible", "hidden"].weight, float)
    (visible,) = network.biases["visible"].values()
    (hidden,) = network.biases["hidden"].values()

    def minus_free_energy(x: np.ndarray) -> np.ndarray:
        field = x @ up.T + np.ravel(hidden)
        return x @ np.ravel(visible) + np.logaddexp(field, -field).sum(1)

    every = np.array(list(itertools.product([-1, 1], repeat=SIDE**2)), float)
    return minus_free_energy(shown) - np.logaddexp.reduce(minus_free_energy(every))


def optimiser_of(updates: int) -> optax.GradientTransformation:
    """A rate that falls to zero: in the end the noise of the samples averages out."""
    rate = optax.linear_schedule(0.02, 0.0, updates)
    return optax.chain(optax.add_decayed_weights(0.005), optax.sgd(rate))


def by_contrastive_divergence(network: dx.Network, data: np.ndarray, updates: int) -> Learnt:
    learning = dx.ContrastiveLearning(
        RULES,
        free=dx.Phase("dream", steps=1, settle=False, schedule=TURNS),
        taught=dx.Phase("shown", steps=1, settle=False, clamp=["visible"]),
    )
    likelihood: list[float] = []

    def look(network: dx.Network, history: dx.History):
        likelihood.append(log_probabilities(network, data).mean())

    # every image ten times is one batch, so that an epoch has 10 updates
    x = {"visible": np.tile(data, (100, 1))}
    network, _ = dx.fit(
        network,
        learning,
        optimiser_of(updates),
        x,
        x,
        epochs=updates // 10,
        batch_size=CHAINS,
        key=jax.random.key(1),
        callbacks=[look],
        progress=False,
    )
    return Learnt(network, likelihood)


def by_persistent_chains(network: dx.Network, data: np.ndarray, updates: int) -> Learnt:
    params, rest = dx.partition(network, RULES)
    optimiser = optimiser_of(updates)
    shown = dx.GraphState(network.topology).init({"visible": np.tile(data, (10, 1))})

    def update(carry, key):
        params, memory, chains = carry
        network = eqx.combine(params, rest)
        one, other = jax.random.split(key)
        awake = dx.step(network, shown, clamp=["visible"], key=one)
        chains, _ = dx.rollout(network, chains, PASSES, schedule=TURNS, key=other)
        learnt = dx.local_updates(network, awake, RULES)
        unlearnt = dx.local_updates(network, chains, RULES)
        steps, memory = optimiser.update(
            jax.tree.map(jnp.subtract, learnt, unlearnt), memory, params
        )
        return (optax.apply_updates(params, steps), memory, chains), None

    stretch = jax.jit(lambda carry, keys: jax.lax.scan(update, carry, keys)[0])
    noise = jax.random.rademacher(jax.random.key(2), (CHAINS, SIDE**2), jnp.float32)
    chains = dx.GraphState(network.topology).init({"visible": noise})
    carry = params, optimiser.init(params), chains
    likelihood: list[float] = []
    for keys in jax.random.split(jax.random.key(1), (updates // 10, 10)):
        carry = stretch(carry, keys)
        network = eqx.combine(carry[0], rest)
        likelihood.append(log_probabilities(network, data).mean())
    return Learnt(network, likelihood)


def dreams(network: dx.Network) -> np.ndarray:
    """What the machine shows after many passes from noise."""
    noise = jax.random.rademacher(jax.random.key(3), (24, SIDE**2), jnp.float32)
    start = dx.GraphState(network.topology).init({"visible": noise})
    last, _ = dx.rollout(network, start, 500, schedule=TURNS, key=jax.random.key(4))
    return np.asarray(last["visible"])


def table(found: dict[str, Learnt], data: np.ndarray) -> str:
    lines = [f"{'':>24}{'log likelihood':>16}{'probability of the 14':>24}"]
    for name, learnt in found.items():
        total = np.exp(log_probabilities(learnt.network, data)).sum()
        lines.append(f"{name:>24}{learnt.likelihood[-1]:>16.3f}{total:>24.3f}")
    lines.append(f"{'best':>24}{-np.log(len(data)):>16.3f}{1:>24.3f}")
    return "\n".join(lines)


def picture(found: dict[str, Learnt], data: np.ndarray) -> plt.Figure:
    figure = plt.figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.4, 1))
    curve = left.subplots()
    for (name, learnt), colour in zip(found.items(), ("C0", "C3"), strict=True):
        updates = 10 * np.arange(1, len(learnt.likelihood) + 1)
        curve.plot(updates, learnt.likelihood, color=colour, label=name)
    curve.axhline(-np.log(len(data)), color="0.3", linestyle="--", linewidth=1, label="best")
    curve.set(xlabel="updates", ylabel="mean log probability of the data")
    curve.spines[["top", "right"]].set_visible(False)
    curve.legend(loc="lower right", frameon=False)
    right.suptitle("dreams of persistent chains\nframed: no bars and no stripes", fontsize=11)
    known = {tuple(image) for image in data}
    shown = dreams(found["persistent chains"].network)
    for room, image in zip(right.subplots(4, 6).flat, shown, strict=True):
        room.imshow(-image.reshape(SIDE, SIDE), cmap="gray", vmin=-1.3, vmax=1.3)
        room.set(xticks=[], yticks=[])
        colour = "0.7" if tuple(image) in known else "C3"
        room.spines[:].set(color=colour, linewidth=1 if colour == "0.7" else 2.5)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="fewer updates")
    updates = 1000 if parser.parse_args(arguments).small else 6000

    data, network = images(), machine()
    found = {
        "contrastive divergence": by_contrastive_divergence(network, data, updates),
        "persistent chains": by_persistent_chains(network, data, updates),
    }
    print(table(found, data))
    picture(found, data).savefig("boltzmann.png", dpi=150)
    print("drawn in boltzmann.png")


if __name__ == "__main__":
    main()
