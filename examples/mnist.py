"""MNIST and its like, from files of your own: features that stay random, hidden units and a
read-out that learn.

    python examples/mnist.py FOLDER                     # train-images-idx3-ubyte and three more
    python examples/mnist.py FILE.npz --checkpoint run  # x_train, ..., y_test; resumes from `run`

Nothing is downloaded. The network is that of `digits.py` for larger images: a convolution of random
weights to sign units, means over windows, a hidden layer and the label, which comes to rest three
times a batch (free, clamped, released). Prints scores on the test images after every epoch and
saves mnist.png, scores over epochs.
"""

import argparse
import math
from pathlib import Path

import jax
import matplotlib
import networkx as nx
import numpy as np
import optax

import darnax as dx

matplotlib.use("Agg")

BATCH = 64
PHASES = [
    dx.Phase("free", steps=30, silence=["label"]),
    dx.Phase("clamped", steps=30, clamp=["label"]),
    dx.Phase("released", steps=30, silence=["label"]),
]
RULES = {"forward": dx.perceptron(margin=0.5), "readout": dx.perceptron(margin=15.0)}


def load(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels; images `(n, rows, columns, 1)` in [-1,
    1].
    """
    images = dx.learning.load_npz(path) if Path(path).is_file() else dx.learning.load_idx(path)
    x_train, x_test = (
        part[..., None].astype(np.float32) / 127.5 - 1 for part in (images.x_train, images.x_test)
    )
    return x_train, images.y_train, x_test, images.y_test


def build(
    rows: int, columns: int, classes: int, channels: int = 64, units: int = 500
) -> dx.Network:
    half = (math.ceil(rows / 2), math.ceil(columns / 2))
    g = nx.DiGraph()
    g.add_node("image", shape=(rows, columns, 1))
    g.add_node("v1", shape=(*half, channels), kind="hidden")
    g.add_node("pooled", shape=(half[0] // 2, half[1] // 2, channels), kind="mean")
    g.add_node("deep", shape=units, kind="hidden")
    g.add_node("label", shape=classes, kind="output")
    g.add_edge("image", "v1", kind="conv")
    g.add_edge("v1", "pooled", kind="pool")
    g.add_edge("pooled", "deep", kind="forward")
    g.add_edge("deep", "deep", kind="recurrent")
    g.add_edge("deep", "label", kind="readout")
    g.add_edge("label", "deep", kind="feedback")
    couplings = {
        "conv": dx.conv(kernel=5, stride=2),
        "pool": dx.pool(2, reduce=twice_the_mean),
        "forward": dx.dense(),
        "recurrent": dx.dense(gain=0.0, self_coupling=1.0),
        "readout": dx.dense(gain=0.0),
        "feedback": dx.dense(gain=9.5),
    }
    activations = {"hidden": dx.sign, "mean": dx.identity, "output": dx.identity}
    topology = dx.Topology(g, inputs=["image"], outputs=["label"])
    return dx.Network(topology, couplings, activations, key=jax.random.key(0))


def twice_the_mean(units, axis: int):
    """Of four units of ±1: about as large as one of them."""
    return 2 * units.mean(axis)


def descent(steps: int) -> optax.GradientTransformation:
    """Plain descent at falling rates; the read-out decays, to follow hidden units that still
    change.
    """
    readout = optax.chain(
        optax.add_decayed_weights(0.002), optax.sgd(optax.cosine_decay_schedule(1.0, steps, 0.02))
    )
    forward = optax.sgd(optax.cosine_decay_schedule(0.03, steps))
    return optax.multi_transform(
        {"readout": readout, "forward": forward}, lambda params: params.labels()
    )


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", help="a folder of IDX files, or an .npz")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--checkpoint", help="a file to go on from, written after every epoch")
    options = parser.parse_args(arguments)

    x_train, y_train, x_test, y_test = load(options.path)
    classes = int(max(y_train.max(), y_test.max())) + 1
    learning = dx.DynamicalLearning(
        RULES, PHASES, from_inference=True, normalise=lambda batch, fan_in: (batch * fan_in) ** 0.5
    )
    _, history = dx.fit(
        build(*x_train.shape[1:3], classes),
        learning,
        descent(options.epochs * math.ceil(len(x_train) / BATCH)),
        x_train,
        dx.one_vs_all(y_train, classes),
        epochs=options.epochs,
        batch_size=BATCH,
        key=jax.random.key(1),
        validation=(x_test, dx.one_vs_all(y_test, classes)),
        callbacks=[lambda network, history: print(f"epoch {len(history)}: {report(history[-1])}")],
        checkpoint=options.checkpoint,
        may_differ=[
            "optimiser"
        ],  # the rates fall over all epochs: with more of them they fall more slowly
    )
    history.plot().savefig("mnist.png", dpi=150)
    print("drawn in mnist.png")


def report(row: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {row[f'validation {name}']:.4f}" for name in ("accuracy", "settled", "steps")
    )


if __name__ == "__main__":
    main()
