"""Handwritten digits by local learning: a recurrent network of sign units that settles on its
answer.

    python examples/digits.py              # a progress bar, a table and digits.png
    python examples/digits.py --json       # one line of numbers, nothing else on stdout
    python examples/digits.py --small      # fewer channels, units and epochs, in seconds

The image drives a random convolution to `v1`, means over windows of that (`pooled`) drive a hidden
layer `deep`, and that the `label`. The units of `deep` also hear themselves and the label. Every
batch comes to rest three times:

- *free*: the label is silent. This is inference, and what is learnt is learnt where inference ends.
- *clamped*: the label is held at the right answer and speaks; `deep` moves to a state that suits
  image and answer.
- *released*: the label falls silent again, and `deep` keeps what it can hold by itself.

In the last two `v1` and `pooled` are held as well: they hear the image alone, and are already as
they will be.

Units that are not on the side of the released state by a margin, judged by their free field, learn
by the perceptron rule, so that the image alone leads there next time. The read-out learns the label
by the same rule. No gradient crosses a node.

What does learning add? `deep` has 512 units. Left as drawn, they lose much of what the 4,096 units
of `pooled` say of the image; learnt, they say nearly as much of the digit as a read-out on all of
`pooled`. The table has both. Rates and margins were chosen on parts of the training images.
"""

import argparse
import functools
import json
import math
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCH, CHANNELS, UNITS = 16, 256, 512
READOUT = {"readout": dx.perceptron(margin=15.0)}
LEARNT = READOUT | {"forward": dx.perceptron(margin=0.5)}
PHASES = [
    dx.Phase("free", steps=30, silence=["label"], schedule=dx.node_by_node()),
    dx.Phase("clamped", steps=30, clamp=["v1", "pooled", "label"]),
    dx.Phase("released", steps=30, clamp=["v1", "pooled"], silence=["label"]),
]


class Report(NamedTuple):
    """How a network does on the test images: one number each, or an array over epochs."""

    accuracy: Any
    settled: Any
    steps: Any
    seconds: Any


def digits(split: int = 0):
    """Training images, test images `(n, 8, 8, 1)` in [-1, 1], and their labels."""
    data = load_digits()
    images = (data.images[..., None] / 8 - 1).astype(np.float32)
    return train_test_split(
        images, data.target, test_size=0.2, stratify=data.target, random_state=split
    )


def draw(reads: str = "deep", channels: int = CHANNELS, units: int = UNITS) -> dx.Topology:
    """The network as a graph; `reads` names the node that the label listens to."""
    g = nx.DiGraph()
    g.add_node("image", shape=(8, 8, 1))
    g.add_node("v1", shape=(8, 8, channels), kind="visual")
    g.add_node("pooled", shape=(4, 4, channels), kind="mean")
    g.add_node("deep", shape=(units,), kind="hidden")
    g.add_node("label", shape=(10,), kind="output")
    g.add_edge("image", "v1", kind="conv")
    g.add_edge("v1", "pooled", kind="pool")
    g.add_edge("pooled", "deep", kind="forward")
    g.add_edge("deep", "deep", kind="recurrent")
    g.add_edge(reads, "label", kind="readout")
    g.add_edge("label", "deep", kind="feedback")
    return dx.Topology(g, inputs=["image"], outputs=["label"])


def build(topology: dx.Topology, seed: int, images) -> dx.Network:
    """The network as drawn at random, every channel of `v1` about as often on as off over the
    images.
    """
    key = jax.random.key(seed)
    network = dx.Network(
        topology,
        couplings={
            "conv": dx.conv(kernel=5),
            "pool": dx.pool(2, reduce=twice_the_mean),
            "forward": dx.dense(),
            "recurrent": dx.dense(gain=0.0, self_coupling=1.0),
            "readout": dx.dense(gain=0.0),
            "feedback": dx.dense(gain=9.5),
        },
        activations={
            "visual": dx.sign,
            "mean": dx.identity,
            "hidden": dx.sign,
            "output": dx.identity,
        },
        biases={"visual": dx.bias()},
        key=key,
    )
    field = network.local_field(dx.GraphState(topology).init(images))["v1"].mean((0, 1, 2))
    bias = 0.25 * jax.random.normal(jax.random.fold_in(key, 1), field.shape) - field
    spread = jax.tree.map(lambda leaf: jnp.broadcast_to(bias, leaf.shape), network.biases["visual"])
    return eqx.tree_at(lambda network: network.biases["visual"], network, spread)


def twice_the_mean(units, axis: int):
    """Of four units of ±1: about as large as one of them."""
    return 2 * units.mean(axis)


def descent(batches: int, forward: float = 0.03) -> optax.GradientTransformation:
    """Plain descent at a falling rate: hidden couplings end early, and the read-out, which decays,
    follows them.
    """
    readout = optax.cosine_decay_schedule(1.0, batches, alpha=0.02)
    hidden = optax.cosine_decay_schedule(forward, math.ceil(0.8 * batches))
    rates = {
        "readout": optax.chain(optax.add_decayed_weights(0.002), optax.sgd(readout)),
        "forward": optax.sgd(hidden),
        "recurrent": optax.sgd(hidden),
    }
    return optax.multi_transform(rates, lambda params: params.labels())


def teaching(rules) -> dx.DynamicalLearning:
    return dx.DynamicalLearning(rules, PHASES, from_inference=True, normalise=by_root)


def by_root(batch: int, fan_in: int) -> float:
    return (batch * fan_in) ** 0.5


def train(topology: dx.Topology, rules, data, epochs: int, seed: int) -> list[Report]:
    """Learn by `rules`, and report on the test images after every epoch."""
    images, test_images, labels, test_labels = data
    begin, clock = time.perf_counter(), []
    _, history = dx.fit(
        build(topology, seed, images),
        teaching(rules),
        descent(epochs * math.ceil(len(images) / BATCH)),
        images,
        dx.one_vs_all(labels, 10),
        epochs=epochs,
        batch_size=BATCH,
        key=jax.random.key(seed),
        validation=(test_images, dx.one_vs_all(test_labels, 10)),
        callbacks=[lambda network, history: clock.append(time.perf_counter() - begin)],
    )
    columns = [history[f"validation {name}"] for name in ("accuracy", "settled", "steps")]
    return [Report(*map(float, row)) for row in zip(*columns, clock, strict=True)]


def over_seeds(topology: dx.Topology, rules, data, epochs: int, seeds: int) -> Report:
    """Means over seeds, every field an array over epochs."""
    runs = [train(topology, rules, data, epochs, seed) for seed in range(seeds)]
    return Report(*np.mean(runs, axis=0).T)


def baseline(model, data) -> Report:
    images, test_images, labels, test_labels = data
    begin = time.perf_counter()
    with threadpool_limits(1):  # on small matrices several threads mostly wait for each other
        model.fit(images.reshape(len(images), -1), labels)
    accuracy = model.score(test_images.reshape(len(test_images), -1), test_labels)
    return Report(accuracy, None, None, time.perf_counter() - begin)


def last(report: Report) -> Report:
    """After the last epoch."""
    return Report(*(float(field[-1]) for field in report))


def table(rows: dict[str, Report]) -> str:
    lines = [f"{'':<38}{'accuracy':>9}{'settled':>9}{'steps':>7}{'seconds':>9}"]
    for name, (accuracy, settled, steps, seconds) in rows.items():
        rest = f"{'-':>9}{'-':>7}" if settled is None else f"{settled:>9.3f}{steps:>7.1f}"
        lines.append(f"{name:<38}{accuracy:>9.3f}{rest}{seconds:>9.1f}")
    return "\n".join(lines)


def picture(
    topology: dx.Topology, curves: dict[str, Report], lines: dict[str, Report]
) -> plt.Figure:
    """The topology above; below, over epochs, the accuracy of `curves` and `lines` and the settling
    of `curves`.
    """
    rooms = [["topology", "topology"], ["accuracy", "settled"]]
    figure, axes = plt.subplot_mosaic(
        rooms, figsize=(11, 7), height_ratios=(1, 1.5), layout="constrained"
    )
    dx.plots.topology(topology, ax=axes["topology"], bold=list(LEARNT))
    axes["topology"].set_title("the topology: bold couplings learn, the others stay as drawn")
    steps = axes["settled"].twinx()
    for (name, report), colour, width in zip(curves.items(), ("0.6", "C1"), (4, 2), strict=True):
        epochs = np.arange(1, len(report.accuracy) + 1)
        axes["accuracy"].plot(epochs, report.accuracy, color=colour, linewidth=width, label=name)
        axes["settled"].plot(epochs, report.settled, color=colour, linewidth=width)
        steps.plot(epochs, report.steps, ":", color=colour, linewidth=width)
    for (name, report), style in zip(lines.items(), ("--", "-.", ":"), strict=True):
        axes["accuracy"].axhline(
            report.accuracy, color="C0", linestyle=style, linewidth=1, label=name
        )
    axes["accuracy"].set(title="accuracy on the test images", xlabel="epoch")
    axes["accuracy"].legend(loc="lower right", frameon=False)
    axes["settled"].set(
        title="share of settled images (solid), mean steps (dotted)", xlabel="epoch", ylim=(0, 1.05)
    )
    steps.set(ylim=(0, 10))
    for ax in (axes["accuracy"], axes["settled"], steps):
        ax.spines["top"].set_visible(False)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="20 of them, or one of a small network")
    parser.add_argument("--small", action="store_true", help="fewer channels and units")
    parser.add_argument("--seeds", type=int, default=1, help="how many networks to average over")
    parser.add_argument(
        "--json", action="store_true", help="train only the network itself and print one line"
    )
    options = parser.parse_args(arguments)

    data = digits()
    epochs = options.epochs
    if epochs is None:
        epochs = 1 if options.small else 20
    sizes = {"channels": 32, "units": 64} if options.small else {}
    topology = draw(**sizes)
    run = functools.partial(over_seeds, data=data, epochs=epochs, seeds=options.seeds)
    learnt = run(topology, LEARNT)
    if options.json:
        print(
            json.dumps({field: round(value, 4) for field, value in last(learnt)._asdict().items()})
        )
        return
    drawn, skipped = run(topology, READOUT), run(draw("pooled", **sizes), READOUT)
    baselines = {
        "LogisticRegression": baseline(LogisticRegression(max_iter=1000), data),
        "MLPClassifier(256)": baseline(MLPClassifier((256,), random_state=0), data),
        "SVC(rbf)": baseline(SVC(), data),
    }
    networks = {
        "this network": last(learnt),
        "  hidden couplings left as drawn": last(drawn),
        "  the same, read-out on all of pooled": last(skipped),
    }
    print(table(networks | baselines))
    picture(topology, {"hidden left as drawn": drawn, "learnt": learnt}, baselines).savefig(
        "digits.png", dpi=150
    )
    print("drawn in digits.png")


if __name__ == "__main__":
    main()
