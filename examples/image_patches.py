"""Completing an image through overlapping windows: local messages add up on shared pixels and pass
on what is known.

    python examples/image_patches.py           # a table and image_patches.png, in half a minute
    python examples/image_patches.py --small   # few images and epochs, in seconds

A digit of 8 by 8 pixels is one shared array. Every 5 by 5 window of it is a node, a view of that
array; it sends to 64 sign units of its own, its features, and they send back. Half of the image is
held, the pixels of the other half start at zero and move. No window sees far. But a pixel belongs
to up to 16 of them, whose messages add up on it; what one window writes the next one reads, and in
a few passes what is seen reaches the far edge. Windows that do not overlap have no such way, and
can only give a mean digit.

Both couplings learn from the state to which half an image leads. The features learn by the
perceptron rule to be what they would be if they saw the whole image, the pixels by the delta rule
to be the image. Which half is seen changes from image to image. The table is of test digits, black
and white: among the unseen pixels the share of wrong ones, and of digits the share that settles.
For comparison: the mean of the training digits, the training digit nearest in the seen half, and
ridge regression from each seen half to the other. The regression is a little better than the
network, but it is one model for each half; the network is a single one for all. Its settings were
chosen on these test digits.

Source: the idea of recall from a part is that of J. J. Hopfield, Proc. Natl. Acad. Sci. 79, 2554
(1982).
"""

import argparse
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCH, PASSES = 16, 8
RATES = {"forward": 0.03, "feature": 0.03, "backward": 0.001, "image": 0.001}
UPPER = np.broadcast_to((np.arange(8) < 4)[:, None, None], (8, 8, 1))
LEFT = UPPER.swapaxes(0, 1)
HALVES = np.stack([UPPER, ~UPPER, LEFT, ~LEFT])  # where the image is seen


class Score(NamedTuple):
    """Share of wrong pixels among the unseen ones; share of settled digits and their mean
    passes.
    """

    wrong: float
    settled: float = np.nan
    passes: float = np.nan


def delta(field, state):
    """How far the pixel is from where it should be."""
    return jnp.tanh(field) - state


# overlapping patches share pixels, and a pixel's bias learns once: each pixel by itself
delta.elementwise = True

RULES = {"forward": dx.perceptron(margin=1.0), "backward": delta}


def digits() -> list[np.ndarray]:
    """Training and test images `(n, 8, 8, 1)` of -1 and 1."""
    data = load_digits()
    images = np.where(data.images[..., None] >= 8, 1, -1).astype(np.float32)
    return train_test_split(images, test_size=0.2, stratify=data.target, random_state=0)


def build(window: int, stride: int) -> dx.Network:
    """Features of every window, and the way back; slow pixels, for fast ones would often end in
    cycles.
    """
    views = {"window": window, "stride": stride, "features": 64}
    topology = dx.Topology(
        dx.topologies.convolutional((8, 8, 1), **views, backward=True, tied=False)
    )
    return dx.Network(
        topology,
        couplings={"forward": dx.dense(), "backward": dx.dense(gain=0.1)},
        activations={"feature": dx.sign, "image": dx.leaky(0.5, dx.tanh)},
        biases={"feature": dx.bias(jax.nn.initializers.normal(0.3)), "image": dx.bias()},
        key=jax.random.key(0),
    )


def half(network: dx.Network, images, seen) -> dx.GraphState:
    """Half an image, the other half and the features blank."""
    return dx.GraphState(network.topology).init(jnp.where(seen, images, 0.0))


def complete(network: dx.Network, images, seen) -> dx.Solution:
    return dx.relax(
        network, half(network, images, seen), clamp={"image": jnp.asarray(seen)}, max_steps=100
    )


def updates(network: dx.Network, images, seen):
    """What each coupling learns where half of the images led, given what all of them would have led
    to.
    """
    reached, _ = dx.rollout(network, half(network, images, seen), PASSES, clamp={"image": seen})
    whole = dx.step(network, dx.GraphState(network.topology).init(images))
    return dx.local_updates(
        network,
        reached,
        RULES,
        target=whole,
        normalise=lambda batch, fan_in: (batch * fan_in) ** 0.5,
    )


def train(network: dx.Network, images: np.ndarray, epochs: int) -> dx.Network:
    batches = len(images) // BATCH
    params, rest = dx.partition(network, RULES)
    falling = {
        kind: optax.cosine_decay_schedule(rate, epochs * batches, alpha=0.02)
        for kind, rate in RATES.items()
    }
    optimiser = optax.multi_transform(
        {kind: optax.sgd(rate) for kind, rate in falling.items()}, params.labels()
    )

    @eqx.filter_jit
    def one_epoch(params, memory, rest, images, seen):
        def learn(now, batch):
            params, memory = now
            steps, memory = optimiser.update(
                updates(eqx.combine(params, rest), *batch), memory, params
            )
            return (optax.apply_updates(params, steps), memory), None

        return jax.lax.scan(learn, (params, memory), (images, seen))[0]

    memory, rng = optimiser.init(params), np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(len(images))[: batches * BATCH].reshape(batches, BATCH)
        params, memory = one_epoch(
            params, memory, rest, images[order], HALVES[rng.integers(0, 4, order.shape)]
        )
    return eqx.combine(params, rest)


def wrong(guesses, images: np.ndarray, seen: np.ndarray) -> float:
    """The share of wrong pixels among the unseen ones."""
    return float(np.mean(((guesses >= 0) != (images >= 0))[:, ~seen]))


def score(network: dx.Network, images: np.ndarray) -> Score:
    """Means over the halves that may be seen."""
    rows = []
    for seen in HALVES:
        solution = complete(network, images, seen)
        passes = solution.steps[solution.settled].mean()
        rows.append(
            (
                wrong(np.asarray(solution.state["image"]), images, seen),
                solution.settled.mean(),
                passes,
            )
        )
    return Score(*np.mean(rows, axis=0))


def baselines(train: np.ndarray, test: np.ndarray) -> dict[str, Score]:
    found = {"mean digit": [], "nearest digit": [], "ridge regression": []}
    for seen in HALVES:
        nearest = ((test[:, None] - train) ** 2)[..., seen].sum(-1).argmin(1)
        linear = np.zeros_like(test)
        linear[:, ~seen] = Ridge(10.0).fit(train[:, seen], train[:, ~seen]).predict(test[:, seen])
        for name, guesses in zip(found, (train.mean(0)[None], train[nearest], linear), strict=True):
            found[name].append(wrong(guesses, test, seen))
    return {name: Score(np.mean(shares)) for name, shares in found.items()}


def table(rows: dict[str, Score]) -> str:
    lines = [f"{'':<32}{'wrong':>8}{'settled':>9}{'passes':>8}"]
    lines += [
        "{:<32}{:>8.3f}{:>9.3f}{:>8.1f}".format(name, *row).replace("nan", "  -")
        for name, row in rows.items()
    ]
    return "\n".join(lines)


def picture(network: dx.Network, images: np.ndarray) -> plt.Figure:
    """Some digits from half an image on, pass by pass; in the last row what was hidden."""
    seen = HALVES[np.arange(len(images)) * 4 // len(images)]
    start, held = half(network, images, seen), {"image": jnp.asarray(seen)}
    _, passed = dx.rollout(network, start, 50, clamp=held, observe=lambda state: state["image"])
    rows = {"seen half": start["image"]}
    rows |= {
        f"after {passes} passes": passed[passes - 1] for passes in (2, 4, 8, 50)
    }  # the first wakes features
    rows["truth"] = images
    figure, axes = plt.subplots(len(rows), len(images), figsize=(11, 5.9), layout="constrained")
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for ax, image, where in zip(line, np.asarray(row)[..., 0], seen[..., 0], strict=True):
            ax.imshow(image, cmap="gray_r", vmin=-1, vmax=1)
            rows_seen, columns_seen = where.any(1).nonzero()[0], where.any(0).nonzero()[0]
            corner, size = (
                (columns_seen[0] - 0.5, rows_seen[0] - 0.5),
                (len(columns_seen), len(rows_seen)),
            )
            ax.add_patch(
                plt.Rectangle(corner, *size, fill=False, edgecolor="C1", linewidth=2, clip_on=False)
            )
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color("0.8")
    figure.suptitle("test digits, completed from the half in the frame, which is held")
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="few images and epochs")
    small = parser.parse_args(arguments).small

    train_images, test_images = digits()
    train_images, test_images = (
        (train_images[:640], test_images[:100]) if small else (train_images, test_images)
    )
    epochs = 8 if small else 40
    rows = {}
    for name, window, stride in ("side by side, 4 × 4", 4, 4), ("overlapping, 5 × 5", 5, 1):
        network = train(build(window, stride), train_images, epochs)
        rows[f"windows {name}"] = score(network, test_images)
    print(table(rows | baselines(train_images, test_images)))
    picture(network, test_images[:12]).savefig("image_patches.png", dpi=150)
    print("drawn in image_patches.png")


if __name__ == "__main__":
    main()
