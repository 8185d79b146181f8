"""A lateral convolution that learns to clean up: image-shaped sign units settle on what they would say without noise.

    python examples/conv_digits.py            # a table and conv_digits.png, in about half a minute
    python examples/conv_digits.py --small    # fewer channels and epochs, in seconds

An 8 by 8 digit drives `v1`, 16 channels of 8 by 8 sign units, through a random 5 by 5 convolution that stays as drawn.
The units of `v1` also hear each other through a lateral 5 by 5 convolution, and each hears itself so that they come to
rest. Means over 2 by 2 units lead to a dense read-out of the digit.

The lateral convolution learns from noisy images: where `v1` comes to rest on one, its units learn by the perceptron
rule to be what the clean image alone makes of them. Then it is fixed, and the read-out learns the label by the same
rule, on clean training images at rest. The table compares `v1` without the lateral convolution, with a random one, and
with the learnt one, on test images clean and noisy: the accuracy, the share of units that are as the clean image alone
makes them, the share of images that settle, and the mean passes made.

What is learnt adds three points of accuracy under noise and none without; a random convolution, weaker than what a unit
tells itself, adds nothing. This is one network, and its settings were chosen on these test images. Under noise more
units were right in every variant tried, but accuracy did not always follow: one with 32 channels, its read-out learnt
from noisy images, lost a point.

Source: the perceptron rule at a state of rest follows S. Diederich and M. Opper, Phys. Rev. Lett. 58, 949 (1987).
"""

import argparse
from typing import NamedTuple

import equinox as eqx
import jax
import matplotlib
import networkx as nx
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCH, PASSES, NOISE = 16, 30, 0.7
CLEAN_UP = {"lateral": dx.perceptron(margin=1.0)}
READ = {"readout": dx.perceptron(margin=15.0)}


class Score(NamedTuple):
    """What becomes of test images."""

    accuracy: float
    units: float
    settled: float
    passes: float


def digits():
    """Training images, test images `(n, 8, 8, 1)` in [-1, 1], and their labels."""
    data = load_digits()
    images = (data.images[..., None] / 8 - 1).astype(np.float32)
    return train_test_split(images, data.target, test_size=0.2, stratify=data.target, random_state=0)


def noisy(images: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    return images + np.float32(NOISE) * noise


def build(channels: int, lateral: float) -> dx.Network:
    """The network as drawn; a lateral convolution of gain 0 is none."""
    g = nx.MultiDiGraph()  # v1 sends to itself twice
    g.add_node("image", shape=(8, 8, 1))
    g.add_node("v1", shape=(8, 8, channels), kind="hidden")
    g.add_node("pooled", shape=(4, 4, channels), kind="pooled")
    g.add_node("label", shape=(10,), kind="output")
    g.add_edge("image", "v1", kind="conv")
    g.add_edge("v1", "pooled", kind="pool")
    g.add_edge("pooled", "label", kind="readout")
    g.add_edge("v1", "v1", kind="self")
    g.add_edge("v1", "v1", kind="lateral")
    return dx.Network(
        dx.Topology(g, inputs=["image"], outputs=["label"]),
        couplings={
            "conv": dx.conv(5),
            "self": dx.scale(1.0, fixed=True),
            "lateral": dx.conv(5, gain=lateral),
            "pool": dx.pool(2),
            "readout": dx.dense(gain=0.0),
        },
        activations={"hidden": dx.sign, "pooled": dx.elementwise(lambda field: 2 * field), "output": dx.identity},
        key=jax.random.key(0),
    )


def alone(network: dx.Network, images: np.ndarray):
    """What the images make of `v1` in one pass, all else silent."""
    return dx.step(network, dx.GraphState(network.topology).init(images), kinds=["conv"])["v1"]


def infer(network: dx.Network, images) -> dx.Solution:
    """`v1` to rest, and each pass on to the label."""
    start = dx.GraphState(network.topology).init(images)
    return dx.relax(network, start, schedule=dx.node_by_node(), max_steps=PASSES)


def clean_up(network: dx.Network, images, wanted):
    """What the lateral convolution learns from noisy images and the `v1` of clean ones."""
    state = infer(network, images).state
    return dx.local_updates(network, state, CLEAN_UP, target=state.replace_val("v1", wanted), normalise=by_root)


def read(network: dx.Network, pooled, answers):
    """What the read-out learns from `pooled` at rest and the answers."""
    state = dx.GraphState(network.topology).init({"pooled": pooled})
    return dx.local_updates(network, state, READ, target=state.replace_val("label", answers), normalise=by_root)


def by_root(batch: int, fan_in: int) -> float:
    return (batch * fan_in) ** 0.5


def train(network: dx.Network, rules, lesson, pairs, rate: float, decay: float) -> dx.Network:
    """Learn by `rules` what `lesson` says, from `pairs(epoch)` of arrays for each of some epochs."""
    params, rest = dx.partition(network, rules)
    batches = len(pairs[0][0]) // BATCH
    falling = optax.cosine_decay_schedule(rate, len(pairs) * batches, alpha=0.02)
    optimiser = optax.chain(optax.add_decayed_weights(decay), optax.sgd(falling))

    @eqx.filter_jit
    def one_epoch(params, memory, rest, pair):
        def learn(now, batch):
            params, memory = now
            steps, memory = optimiser.update(lesson(eqx.combine(params, rest), *batch), memory, params)
            return (optax.apply_updates(params, steps), memory), None

        return jax.lax.scan(learn, (params, memory), pair)[0]

    memory, shuffle = optimiser.init(params), np.random.default_rng(0)
    for pair in pairs:
        order = shuffle.permutation(len(pair[0]))[: batches * BATCH].reshape(batches, BATCH)
        params, memory = one_epoch(params, memory, rest, tuple(array[order] for array in pair))
    return eqx.combine(params, rest)


def learn_lateral(network: dx.Network, images: np.ndarray, epochs: int) -> dx.Network:
    wanted = np.asarray(alone(network, images))
    return train(network, CLEAN_UP, clean_up, [(noisy(images, i), wanted) for i in range(epochs)], 0.01, 0.0)


def learn_readout(network: dx.Network, images: np.ndarray, labels: np.ndarray, epochs: int) -> dx.Network:
    """`v1` no longer changes, and comes to rest only once."""
    pooled = np.asarray(infer(network, images).state["pooled"])
    answers = np.asarray(2 * jax.nn.one_hot(labels, 10) - 1)
    return train(network, READ, read, [(pooled, answers)] * epochs, 1.0, 0.002)


def tests(network: dx.Network, images: np.ndarray, labels: np.ndarray) -> list[Score]:
    """On clean images, and with four draws of the noise."""
    copies = np.concatenate([images, noisy(np.tile(images, (4, 1, 1, 1)), 1000)])
    solution = infer(network, copies)
    right = np.asarray(solution.state["label"].argmax(-1)) == np.tile(labels, 5)
    units = np.asarray(solution.state["v1"]) == np.tile(alone(network, images), (5, 1, 1, 1))
    numbers, n = (right, units, np.asarray(solution.settled), np.asarray(solution.steps)), len(images)
    return [Score(*(float(x[part].mean()) for x in numbers)) for part in (slice(n), slice(n, None))]


def table(scores: dict[str, list[Score]]) -> str:
    lines = [f"{'':<23}{'accuracy':>10}{'units right':>13}{'settled':>9}{'passes':>8}"]
    for name, found in scores.items():
        for images, row in zip(("clean", "noisy"), found, strict=True):
            lines.append(f"{name:<17}{images:<6}" + "{:>10.3f}{:>13.3f}{:>9.3f}{:>8.1f}".format(*row))
    return "\n".join(lines)


def passes(network: dx.Network, images, count: int) -> np.ndarray:
    """`v1` after each of so many passes, `(count, n, 8, 8, channels)`."""
    start = dx.GraphState(network.topology).init(images)
    _, seen = dx.rollout(network, start, count, schedule=dx.node_by_node(), observe=lambda state: state["v1"])
    return np.asarray(seen)


def picture(networks: dict[str, dx.Network], images: np.ndarray) -> plt.Figure:
    """Left one channel of the learnt `v1` settling on noisy images, right the share of units right over passes."""
    count, shown, corrupted, learnt = 6, 4, noisy(images, 1000), networks["lateral learnt"]
    wanted, states = np.asarray(alone(learnt, images)), passes(learnt, corrupted, count)
    repaired = ((states[-1] == wanted) * 1.0 - (states[0] == wanted)).sum((0, 1, 2)).argmax()
    figure = plt.figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    columns = {"image": images[..., 0], "noisy": corrupted[..., 0], "v1, clean": wanted[..., repaired]}
    columns |= {f"pass {i}": states[i - 1, ..., repaired] for i in (1, 2, 3, count)}
    for column, (name, values) in zip(left.subplots(shown, len(columns)).T, columns.items(), strict=True):
        column[0].set_title(name)
        for i, ax in enumerate(column):
            ax.imshow(values[i], cmap="gray_r", vmin=-1.5, vmax=1.5)
            ax.set(xticks=[], yticks=[])
            if name.startswith("pass"):
                y, x = np.nonzero(values[i] != columns["v1, clean"][i])
                ax.scatter(x, y, s=14, color="C1")
    left.suptitle(f"channel {repaired} of v1 with the learnt lateral convolution; dots: not as on the clean image")
    ax = right.subplots()
    lines = zip(networks.items(), ("0.7", "k", "C1"), ("-", ":", "-"), (5, 2, 2), strict=True)
    for (name, network), colour, style, width in lines:
        share = (passes(network, corrupted, count) == wanted).mean((1, 2, 3, 4))
        ax.plot(np.arange(1, count + 1), share, style, color=colour, linewidth=width, label=name)
    ax.set(xlabel="pass", title="share of units right, noisy test images")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="center right")
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="fewer channels and epochs")
    small = parser.parse_args(arguments).small

    images, test_images, labels, test_labels = digits()
    channels, epochs, readings = (8, 4, 5) if small else (16, 10, 20)
    drawn = build(channels, lateral=0.3)
    networks = {
        "no lateral": build(channels, lateral=0.0),
        "lateral as drawn": drawn,
        "lateral learnt": learn_lateral(drawn, images, epochs),
    }
    networks = {name: learn_readout(network, images, labels, readings) for name, network in networks.items()}
    scores = {name: tests(network, test_images, test_labels) for name, network in networks.items()}
    print(table(scores))
    picture(networks, test_images).savefig("conv_digits.png", dpi=150)
    print("drawn in conv_digits.png")


if __name__ == "__main__":
    main()
