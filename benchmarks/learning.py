"""Digits by local learning against a kernel machine and backpropagation: five splits, three seeds,
paired.

The networks are those of examples/digits.py, larger, and of examples/conv_digits.py, after the last
epoch. Prints a table of docs/benchmarks.md. Usage:

    python benchmarks/learning.py                     # everything, in about an hour on two cores
    python benchmarks/learning.py --networks learnt   # one of them
"""

import argparse
import math
import sys
from pathlib import Path

import jax
import networkx as nx
import numpy as np
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

sys.path.append(str(Path(__file__).parent.parent / "examples"))
import conv_digits
import digits

import darnax as dx

SPLITS, SEEDS = range(5), range(3)
RECURRENT = digits.LEARNT | {"recurrent": dx.perceptron(margin=0.5)}


def accuracies(score):
    """`score(data, seed)` for every split and seed, `(splits, seeds)`."""
    return np.array([[score(digits.digits(split), seed) for seed in SEEDS] for split in SPLITS])


def deep(rules, reads="deep", channels=2 * digits.CHANNELS, units=2 * digits.UNITS, epochs=20):
    """The network of examples/digits.py, of other sizes."""
    topology = digits.draw(reads, channels, units)
    return lambda data, seed: digits.train(topology, rules, data, epochs, seed)[-1].accuracy


def convolutional(rules):
    """The network of examples/conv_digits.py."""

    def score(data, seed):
        _, history = conv_digits.train(conv_digits.build(seed), rules, data, 15, seed)
        return history["validation accuracy"][-1]

    return score


def dense(rules):
    """256 units that see the pixels through one dense coupling."""
    g = nx.DiGraph()
    g.add_node("image", shape=(8, 8, 1))
    g.add_node("deep", shape=(256,), kind="sign")
    g.add_node("label", shape=(10,), kind="linear")
    g.add_edge("image", "deep", kind="forward")
    g.add_edge("deep", "deep", kind="recurrent")
    g.add_edge("deep", "label", kind="readout")
    g.add_edge("label", "deep", kind="feedback")
    topology = dx.Topology(g, inputs=["image"], outputs=["label"])
    couplings = {
        "forward": dx.dense(),
        "recurrent": dx.dense(gain=0.0, self_coupling=1.0),
        "readout": dx.dense(gain=0.0),
        "feedback": dx.dense(gain=9.5),
    }
    phases = [
        dx.Phase("free", silence=["label"], schedule=dx.node_by_node()),
        dx.Phase("clamped", clamp=["label"]),
        dx.Phase("released", silence=["label"]),
    ]
    learning = dx.DynamicalLearning(rules, phases, from_inference=True, normalise=digits.by_root)

    def score(data, seed):
        images, test_images, labels, test_labels = data
        network = dx.Network(
            topology, couplings, {"sign": dx.sign, "linear": dx.identity}, key=jax.random.key(seed)
        )
        optimiser = digits.descent(20 * math.ceil(len(images) / digits.BATCH), forward=0.1)
        targets, tests = (dx.one_vs_all(given, 10) for given in (labels, test_labels))
        key = jax.random.key(seed)
        trained, _ = dx.fit(
            network,
            learning,
            optimiser,
            images,
            targets,
            epochs=20,
            batch_size=digits.BATCH,
            key=key,
            progress=False,
        )
        return dx.evaluate(trained, learning, test_images, tests)["accuracy"]

    return score


NETWORKS = {  # what is said of it, and its accuracy on a split from a seed
    "learnt": ("hidden couplings learnt", deep(digits.LEARNT)),
    "features": (
        "fixed features, read-out learnt",
        deep(digits.READOUT, reads="pooled", channels=digits.CHANNELS, units=10, epochs=40),
    ),
    "conv": ("convolutional, hidden couplings learnt", convolutional(conv_digits.LEARNT)),
    "conv-drawn": ("the same, hidden couplings as drawn", convolutional(conv_digits.READOUT)),
    "dense": ("dense, 256 units, hidden couplings learnt", dense(digits.LEARNT)),
    "dense-recurrent": (
        "the same, units coupled all to all, and that learnt as well",
        dense(RECURRENT),
    ),
    "dense-drawn": ("the same, hidden couplings as drawn", dense(digits.READOUT)),
}
LEFT_AS_DRAWN = {"conv": "conv-drawn", "dense": "dense-drawn"}


def difference(ours, theirs):
    """The mean paired difference, and a 95 % interval from its spread over splits, which share no
    seed's luck.
    """
    per_split = (ours - theirs).mean(1)
    half = (
        2.776 * per_split.std(ddof=1) / len(per_split) ** 0.5
    )  # Student's t with 4 degrees of freedom
    return f"{per_split.mean():+.4f} ± {half:.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    baselines = {
        "SVC(rbf)": accuracies(lambda data, seed: digits.baseline(SVC(), data).accuracy),
        "MLP(256)": accuracies(
            lambda data, seed: (
                digits.baseline(MLPClassifier((256,), random_state=seed), data).accuracy
            )
        ),
    }
    print(
        "| digits, 5 splits × 3 seeds | accuracy | over SVC(rbf) | over MLP(256) "
        "|\n|---|--:|--:|--:|"
    )
    for name, scores in baselines.items():
        print(f"| {name} | {scores.mean():.4f} | | |")
    found = {}
    for which in options.networks:
        name, score = NETWORKS[which]
        scores = found[which] = accuracies(score)
        against = " | ".join(difference(scores, other) for other in baselines.values())
        print(f"| {name} | {scores.mean():.4f} | {against} |", flush=True)
    print("\n| learnt against as drawn | difference |\n|---|--:|")
    for which, drawn in LEFT_AS_DRAWN.items():
        if {which, drawn} <= set(found):
            print(f"| {NETWORKS[which][0]} | {difference(found[which], found[drawn])} |")


if __name__ == "__main__":
    main()
