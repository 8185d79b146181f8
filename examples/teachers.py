"""Four teachers of one network, and how near each comes to the true gradient.

    python examples/teachers.py            # a table and teachers.png, in less than a minute
    python examples/teachers.py --small    # fewer epochs, in seconds

The network reads scikit-learn's digits. Its layers hear each other by the same weights in both
directions, so that its dynamics go down an energy. Only the teacher changes, one argument of
`dx.fit`:

- *contrastive Hebbian*: what units agree on while the label is clamped, less what they agree on
  while they are free;
- *equilibrium propagation*: the same, with a label that is gently drawn to its target. *One-sided*
  it compares with the free phase, *symmetric* with a label that is driven away as gently;
- *true gradient*: of the squared error at rest, by the implicit function theorem.

The first three are local: a coupling knows its two ends and nothing else. The table gives the
accuracy on new digits, and the angle between what a batch teaches and the gradient on that batch,
before and after training. Weights grow as they learn, and a nudge that was weak then moves the
network further. The picture shows how the angle falls with the nudge β: as β one-sided, as β² if
it is symmetric, until the rounding of 32 bits, divided by β, takes over.

Sources: J. R. Movellan, Connectionist Models 10 (1991); B. Scellier and Y. Bengio, Front. Comput.
Neurosci. 11, 24 (2017); A. Laborieux et al., Front. Neurosci. 15, 633674 (2021).
"""

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np
import optax
from sklearn.datasets import load_digits

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BETA = 0.1
RULES = {"in": dx.hebbian(), "up": dx.hebbian()}
SETTLE = {"steps": 200, "tol": 1e-6, "schedule": dx.node_by_node()}
FREE = dx.Phase("free", **SETTLE)
CLAMPED = dx.Phase("clamped", clamp=["label"], **SETTLE)


class Digits(NamedTuple):
    """Images `(n, 64)`, and targets of ±1."""

    x: np.ndarray
    y: jax.Array


class Taught(NamedTuple):
    """What a teacher made of the network, and its angles to the gradient before and after."""

    accuracy: float
    history: dx.History
    before: float
    after: float


def digits() -> tuple[Digits, Digits]:
    """Those to learn, and those to be tested on."""
    data = load_digits()
    x = (data.data / 16).astype(np.float32)
    y = dx.one_vs_all(data.target, 10)
    return Digits(x[:1400], y[:1400]), Digits(x[1400:], y[1400:])


def build() -> dx.Network:
    """An image, two hidden layers and a label, each but the first heard by the one before it."""
    graph = nx.DiGraph()
    graph.add_node("image", shape=64)
    graph.add_node("first", shape=100, kind="hidden")
    graph.add_node("second", shape=50, kind="hidden")
    graph.add_node("label", shape=10, kind="output")
    graph.add_edge("image", "first", kind="in")
    for below, above in (("first", "second"), ("second", "label")):
        graph.add_edge(below, above, kind="up")
        graph.add_edge(above, below, kind="down")
    topology = dx.Topology(graph, inputs=["image"], outputs=["label"])
    couplings = {"in": dx.dense(), "up": dx.dense(gain=0.3), "down": dx.transpose("up")}
    activations = {"hidden": dx.tanh, "output": dx.identity}
    biases = {"hidden": dx.bias(), "output": dx.bias()}
    return dx.Network(topology, couplings, activations, biases=biases, key=jax.random.key(0))


def nudging(beta: float, symmetric: bool) -> dx.ContrastiveLearning:
    """Equilibrium propagation with a nudge of strength β."""
    nudged = dx.Phase("nudged", nudge=beta, **SETTLE)
    return dx.ContrastiveLearning(RULES, FREE, nudged, symmetric=symmetric)


def teachers() -> dict[str, dx.Learning]:
    return {
        "contrastive Hebbian": dx.ContrastiveLearning(RULES, FREE, CLAMPED),
        "one-sided": nudging(BETA, symmetric=False),
        "symmetric": nudging(BETA, symmetric=True),
        "true gradient": dx.BackpropLearning(RULES, FREE),
    }


def angle(network: dx.Network, learning: dx.Learning, batch: Digits) -> float:
    """The angle between what a batch teaches and the true gradient on it, in degrees."""
    flat: list[np.ndarray] = []
    for teacher in (learning, dx.BackpropLearning(RULES, FREE)):
        everyone = jnp.ones(len(batch.x), bool)
        updates, _, _ = teacher.updates(network, batch.x, {"label": batch.y}, everyone)
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(updates)]
        flat.append(np.concatenate(leaves).astype(float))
    one, other = (vector / np.linalg.norm(vector) for vector in flat)
    # by the chord, which tells small angles that a cosine rounds away
    return float(np.degrees(2 * np.arcsin(np.linalg.norm(one - other) / 2)))


def teach(learning: dx.Learning, train: Digits, test: Digits, epochs: int) -> Taught:
    network, batch = build(), Digits(train.x[:100], train.y[:100])
    trained, history = dx.fit(
        network,
        learning,
        optax.sgd(optax.cosine_decay_schedule(0.01, 44 * epochs), momentum=0.9),
        train.x,
        train.y,
        epochs=epochs,
        validation=test,
        key=jax.random.key(1),
        progress=False,
    )
    accuracy = history["validation accuracy"][-1]
    before, after = (angle(taught, learning, batch) for taught in (network, trained))
    return Taught(accuracy, history, before, after)


def table(found: dict[str, Taught]) -> str:
    lines = [f"{'':>20}{'accuracy':>10}{'angle before':>14}{'angle after':>13}"]
    for name, taught in found.items():
        numbers = f"{taught.accuracy:>10.3f}{taught.before:>13.2f}°{taught.after:>12.2f}°"
        lines.append(f"{name:>20}{numbers}")
    return "\n".join(lines)


def picture(found: dict[str, Taught], train: Digits, nudges: int) -> plt.Figure:
    figure, (curves, angles) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    dx.plots.history(
        {name: taught.history for name, taught in found.items()},
        ["validation accuracy"],
        ax=curves,
    )
    curves.set_title("accuracy on new digits", fontsize=11)
    network, batch = build(), Digits(train.x[:100], train.y[:100])
    strengths = np.geomspace(0.003, 0.6, nudges)
    angles.axhline(found["contrastive Hebbian"].before, color="C0", label="contrastive Hebbian")
    for name, colour in (("one-sided", "C1"), ("symmetric", "C2")):
        sizes: list[float] = []
        for beta in strengths.tolist():
            sizes.append(angle(network, nudging(beta, name == "symmetric"), batch))
        angles.loglog(strengths, sizes, "o-", color=colour, label=name, markersize=4)
    angles.set(xlabel="nudge β", ylabel="degrees")
    angles.set_title("angle to the true gradient, before training", fontsize=11)
    angles.spines[["top", "right"]].set_visible(False)
    angles.legend(frameon=False)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="fewer epochs")
    epochs, nudges = (2, 3) if parser.parse_args(arguments).small else (5, 9)

    train, test = digits()
    found = {name: teach(learning, train, test, epochs) for name, learning in teachers().items()}
    print(table(found))
    picture(found, train, nudges).savefig("teachers.png", dpi=150)
    print("drawn in teachers.png")


if __name__ == "__main__":
    main()
