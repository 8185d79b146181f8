"""Predictive coding beside backpropagation: one network learns handwritten digits by both.

    python examples/predictive.py           # two tables and predictive.png, in half a minute
    python examples/predictive.py --small   # fewer epochs, in seconds

Every layer predicts the next, and a node beside it holds the error of the prediction. With the
label held, values move until the errors are as small as they can be all together; then each
prediction learns from the error that it ends at and the value that it starts from, by Hebb's rule.
Nothing else is sent anywhere: the error of the label reaches the first weights through values that
have come to rest. Backpropagation takes the same weights, batches and optimiser.

The second table says how many passes it takes to come to rest, for chains of several lengths, and
the slowest mode of a pass, the part of a distance from rest that is left after it.

Sources: R. P. N. Rao and D. H. Ballard, Nat. Neurosci. 2, 79 (1999); J. C. R. Whittington and R.
Bogacz, Neural Comput. 29, 1229 (2017).
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RULES = {"forward": dx.hebbian()}
PASS = dx.coloured()  # all values, and then all errors
PREDICT = ["forward", "error", "error back"]  # nothing comes back: a layer is what it is predicted
TOLERANCES = 1e-2, 1e-3, 1e-4
BATCH = 32


def digits():
    """Training images, test images `(n, 8, 8, 1)` in [-1, 1], and their labels."""
    data = load_digits()
    images = (data.images[..., None] / 8 - 1).astype(np.float32)
    return train_test_split(
        images, data.target, test_size=0.2, stratify=data.target, random_state=0
    )


def build(sizes, rate: float = 0.2) -> dx.Network:
    return dx.Network(
        dx.Topology(dx.topologies.predictive(sizes)),
        couplings=dx.predictions({"forward": dx.after(dx.tanh, dx.dense())}),
        activations={"value": dx.leaky(rate, dx.integrator), "error": dx.negative},
        biases={"error": dx.bias()},
        key=jax.random.key(0),
    )


def learn(network: dx.Network, data, epochs: int) -> tuple[dx.Network, dx.History]:
    """By predictive coding."""
    images, test_images, labels, test_labels = data
    learning = dx.DynamicalLearning(
        RULES,
        phases=[
            dx.Phase("predict", steps=100, kinds=PREDICT, schedule=PASS),
            dx.Phase("correct", steps=20, settle=False, clamp=[2], schedule=PASS),
        ],
    )
    return dx.fit(
        network,
        learning,
        optax.adam(2e-3),
        images,
        dx.one_vs_all(labels, 10),
        epochs=epochs,
        batch_size=BATCH,
        key=jax.random.key(1),
        validation=(test_images, dx.one_vs_all(test_labels, 10)),
    )


@eqx.filter_jit
def predicted(network: dx.Network, images) -> dx.GraphState:
    """Every layer as the one before predicts it: where the network rests with no label held."""
    state = dx.GraphState(network.topology).init(images)
    for layer in range(1, last(network) + 1):
        # an error hears its prediction, less the value, which is still zero
        state = state.replace_val(layer, network.local_field(state)["error", layer])
    return state


def last(network: dx.Network) -> int:
    (layer,) = network.topology.outputs
    return layer


def backpropagate(network: dx.Network, data, epochs: int) -> list[float]:
    """The accuracy on test images after every epoch."""
    images, test_images, labels, test_labels = data
    targets = dx.one_vs_all(labels, 10)
    params, rest = dx.partition(network, RULES)
    optimiser = optax.adam(2e-3)
    memory = optimiser.init(params)

    def loss(params, x, y):
        answer = predicted(eqx.combine(params, rest), x).readout
        return 0.5 * jnp.mean(jnp.sum((answer - y) ** 2, axis=-1))

    @jax.jit
    def epoch(params, memory, order):
        def batch(carry, chosen):
            params, memory = carry
            slope = jax.grad(loss)(params, images[chosen], targets[chosen])
            steps, memory = optimiser.update(slope, memory, params)
            return (optax.apply_updates(params, steps), memory), None

        return jax.lax.scan(batch, (params, memory), order)[0]

    images, targets = jnp.asarray(images), jnp.asarray(targets)
    rng, accuracies = np.random.default_rng(1), []
    for _ in range(epochs):
        order = rng.permutation(len(images))[: len(images) // BATCH * BATCH].reshape(-1, BATCH)
        params, memory = epoch(params, memory, order)
        found = predicted(eqx.combine(params, rest), test_images).readout.argmax(-1)
        accuracies.append(float((found == test_labels).mean()))
    return accuracies


def taught(network: dx.Network, images, labels) -> dx.GraphState:
    """Values as they are predicted, and the label, which nobody has heard of yet."""
    return predicted(network, images).replace_val(last(network), dx.one_vs_all(labels, 10))


def passes(layers: int, images, labels) -> list[float]:
    """The mean number of passes to rest for every tolerance, and the slowest mode of a pass."""
    network = build([(8, 8, 1), *[64] * layers, 10], rate=0.15)
    call = {"clamp": network.topology.outputs, "schedule": PASS}
    state = taught(network, images, labels)
    counts = []
    for tol in TOLERANCES:
        solution = dx.relax(network, state, max_steps=5000, tol=tol, **call)
        assert solution.settled.all()
        counts.append(float(solution.steps.mean()))
    slowest = dx.spectrum(network, solution.state, 1, **call)
    return [*counts, float(abs(slowest).mean())]


def descent(network: dx.Network, images, labels, steps: int = 60) -> dict[str, np.ndarray]:
    """The free energy of every layer's errors, pass by pass, as a mean over samples."""
    call = {"clamp": [2], "schedule": PASS}

    def energies(state):
        total = dx.energy(network, state, clamp=[2])
        parts = [0.5 * jnp.sum(state["error", layer] ** 2, axis=-1) for layer in (1, 2)]
        return jnp.stack([total, *parts]).mean(axis=-1)

    # the first pass tells the error of the label which label it is
    _, frames = dx.rollout(
        network, taught(network, images, labels), steps, observe=energies, **call
    )
    return dict(
        zip(("free energy", "errors of 1", "errors of 2"), np.asarray(frames).T, strict=True)
    )


def picture(
    network: dx.Network, history: dx.History, other: list[float], energies: dict[str, np.ndarray]
) -> plt.Figure:
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    dx.plots.topology(network.topology, ax=axes[0], bold=["forward"])
    axes[0].set_title("values 0, 1, 2, and errors beside them")
    for name, values in energies.items():
        axes[1].plot(np.arange(1, len(values) + 1), values, label=name)
    axes[1].set(title="inference with the label held", xlabel="pass", ylabel="mean over samples")
    axes[1].set_ylim(0)
    axes[1].legend(frameon=False)
    dx.plots.history({"predictive coding": history}, ["validation accuracy"], ax=axes[2])
    axes[2].plot(range(1, len(other) + 1), other, "k:", label="backpropagation")
    axes[2].set(title="accuracy on the test images", ylabel="")
    axes[2].legend(frameon=False)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="fewer epochs")
    small = parser.parse_args(arguments).small

    data = digits()
    _, test_images, _, test_labels = data
    network = build([(8, 8, 1), 128, 10])
    epochs = 4 if small else 12
    trained, history = learn(network, data, epochs)
    other = backpropagate(network, data, epochs)
    print(f"{'digits':<20}{'accuracy':>9}")
    print(f"{'predictive coding':<20}{history['validation accuracy'][-1]:>9.3f}")
    print(f"{'backpropagation':<20}{other[-1]:>9.3f}")

    print(f"\n{'passes to rest':<20}" + "".join(f"{tol:>9.0e}" for tol in TOLERANCES) + "     mode")
    for layers in (1, 2) if small else (1, 2, 3):
        counts = passes(layers, test_images[:64], test_labels[:64])
        print(f"{layers} between{'':<11}" + "{:>9.1f}{:>9.1f}{:>9.1f}{:>9.3f}".format(*counts))
    energies = descent(network, test_images[:64], test_labels[:64])
    picture(trained, history, other, energies).savefig("predictive.png", dpi=150)
    print("drawn in predictive.png")


if __name__ == "__main__":
    main()
