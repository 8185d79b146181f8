"""A convolution that learns from the label, without a gradient: image-shaped sign units on
handwritten digits.

    python examples/conv_digits.py           # a table and conv_digits.png, in a minute and a half
    python examples/conv_digits.py --small   # fewer channels and epochs, in seconds

An 8 by 8 digit drives `v1` through a random 5 by 5 convolution that stays as drawn; means over 2 by
2 units of it (`pooled`) drive `v2`, 2 by 2 places of 128 channels, through a 3 by 3 convolution
that learns; a dense read-out of `v2` names the digit. Units of `v2` hear themselves, so that they
can hold what they are told, and the label, through random couplings.

Every batch comes to rest *free*, with the label silent; then with the label *clamped*; then
*released*, the label silent again. Where a unit of `v2` has changed sides and could hold that, its
coupling from the window of `pooled` that it sees learns by the perceptron rule to put it there at
once. All places share one kernel, which learns from each.

The table compares `v2` with its kernel as drawn and learnt. The picture shows what changes: how
alike the states of `v2` are for any two test images. Rates were chosen on parts of the training
images.
"""

import argparse
import functools
import math

import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCH = 16
READOUT = {"readout": dx.perceptron(margin=15.0)}
LEARNT = READOUT | {"forward": dx.perceptron(margin=0.5)}
PHASES = [
    dx.Phase("free", silence=["label"], schedule=dx.node_by_node()),
    dx.Phase("clamped", clamp=["v1", "pooled", "label"]),
    dx.Phase("released", clamp=["v1", "pooled"], silence=["label"]),
]


def digits(split: int = 0):
    """Training images, test images `(n, 8, 8, 1)` in [-1, 1], and their labels."""
    data = load_digits()
    images = (data.images[..., None] / 8 - 1).astype(np.float32)
    return train_test_split(
        images, data.target, test_size=0.2, stratify=data.target, random_state=split
    )


def build(seed: int = 0, visual: int = 256, hidden: int = 128) -> dx.Network:
    """The network as drawn, with so many channels in `v1` and in `v2`."""
    g = nx.DiGraph()
    g.add_node("image", shape=(8, 8, 1))
    g.add_node("v1", shape=(8, 8, visual), kind="sign")
    g.add_node("pooled", shape=(4, 4, visual), kind="linear")
    g.add_node("v2", shape=(2, 2, hidden), kind="sign")
    g.add_node("label", shape=(10,), kind="linear")
    g.add_edge("image", "v1", kind="conv")
    g.add_edge("v1", "pooled", kind="pool")
    g.add_edge("pooled", "v2", kind="forward")
    g.add_edge("v2", "v2", kind="self")
    g.add_edge("v2", "label", kind="readout")
    g.add_edge("label", "v2", kind="feedback")
    return dx.Network(
        dx.Topology(g, inputs=["image"], outputs=["label"]),
        couplings={
            "conv": dx.conv(5),
            "pool": dx.pool(2, reduce=twice_the_mean),
            "forward": dx.conv(3, padding="VALID"),
            "self": dx.scale(1.0, fixed=True),
            "readout": dx.dense(gain=0.0),
            "feedback": dx.dense(gain=9.5),
        },
        activations={"sign": dx.sign, "linear": dx.identity},
        key=jax.random.key(seed),
    )


def twice_the_mean(units, axis: int):
    """Of four units of ±1: about as large as one of them."""
    return 2 * units.mean(axis)


def teaching(rules) -> dx.DynamicalLearning:
    return dx.DynamicalLearning(rules, PHASES, from_inference=True, normalise=by_root)


def by_root(batch: int, fan_in: int) -> float:
    return (batch * fan_in) ** 0.5


@functools.cache  # one optimiser for all seeds, so that they share one compiled epoch
def descent(batches: int) -> optax.GradientTransformation:
    readout = optax.cosine_decay_schedule(1.0, batches, alpha=0.02)
    rates = {
        "readout": optax.chain(optax.add_decayed_weights(0.002), optax.sgd(readout)),
        "forward": optax.sgd(optax.cosine_decay_schedule(0.03, math.ceil(0.8 * batches))),
    }
    return optax.multi_transform(rates, lambda params: params.labels())


def train(
    network: dx.Network, rules, data, epochs: int, seed: int = 0
) -> tuple[dx.Network, dx.History]:
    """Learn by `rules`, and look at the test images after every epoch."""
    images, test_images, labels, test_labels = data
    return dx.fit(
        network,
        teaching(rules),
        descent(epochs * math.ceil(len(images) / BATCH)),
        images,
        dx.one_vs_all(labels, 10),
        epochs=epochs,
        batch_size=BATCH,
        key=jax.random.key(seed),
        validation=(test_images, dx.one_vs_all(test_labels, 10)),
    )


def alike(network: dx.Network, images) -> np.ndarray:
    """The overlap of the states of `v2` for any two images, from -1 to 1."""
    start = dx.GraphState(network.topology).init(images)
    units = PHASES[0].run(network, start, {}).state["v2"].reshape(len(images), -1)
    return np.asarray(units @ units.T) / units.shape[1]


def apart(overlaps: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The mean overlap of two images of one digit, and of two digits."""
    same, other = labels[:, None] == labels, ~np.eye(len(labels), dtype=bool)
    return float(overlaps[same & other].mean()), float(overlaps[~same].mean())


def picture(
    overlaps: dict[str, np.ndarray], histories: dict[str, dx.History], labels: np.ndarray
) -> plt.Figure:
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    order = np.argsort(labels, kind="stable")
    middles = [np.flatnonzero(labels[order] == digit).mean() for digit in range(10)]
    image = None
    for ax, (name, overlap) in zip(axes, overlaps.items(), strict=False):
        image = ax.imshow(
            overlap[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
        )
        ax.set(title=f"overlap of v2, {name}", xticks=middles, yticks=middles)
        ax.set_xticklabels(range(10)), ax.set_yticklabels(range(10))
    figure.colorbar(image, ax=axes[1], shrink=0.8)
    dx.plots.history(histories, ["validation accuracy"], ax=axes[2])
    axes[2].set(title="accuracy on the test images", ylabel="")
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="fewer channels and epochs")
    small = parser.parse_args(arguments).small

    data = digits()
    drawn, epochs = (build(visual=32, hidden=16), 5) if small else (build(), 15)
    rules = {"as drawn": READOUT, "learnt": LEARNT}
    runs = {name: train(drawn, rule, data, epochs) for name, rule in rules.items()}
    overlaps = {name: alike(network, jnp.asarray(data[1])) for name, (network, _) in runs.items()}
    print(
        f"{'kernel of v2':<14}{'accuracy':>9}{'settled':>9}"
        f"{'overlap, one digit':>20}{'two digits':>12}"
    )
    for name, (_, history) in runs.items():
        scores = [history[f"validation {score}"][-1] for score in ("accuracy", "settled")]
        print(
            f"{name:<14}"
            + "{:>9.3f}{:>9.3f}{:>20.3f}{:>12.3f}".format(*scores, *apart(overlaps[name], data[3]))
        )
    histories = {name: history for name, (_, history) in runs.items()}
    picture(overlaps, histories, data[3]).savefig("conv_digits.png", dpi=150)
    print("drawn in conv_digits.png")


if __name__ == "__main__":
    main()
