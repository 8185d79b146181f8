"""The Ising magnet: where a lattice of spins loses its order, beside the exact answer.

    python examples/ising.py            # a table and ising.png, in about half a minute
    python examples/ising.py --small    # a smaller lattice at four temperatures, in seconds

Spins of ±1 on a square lattice hear their four neighbours and flip in a heat bath. Neighbours never
move together: `dx.coloured()` finds the checkerboard, and updates first its black squares, then its
white ones. All spins start up. In the cold most of them stay so, and the mean spin is m = (1 -
sinh(2/T)⁻⁴)^(1/8); above Tc = 2 / ln(1 + √2) = 2.269 there are as many down as up. Next to Tc, at T
= 2.3, spins point the same way in patches as large as the lattice, which take longer to turn than
we wait: the start is not forgotten, and the error, which is that over samples, cannot show it.

Sources: L. Onsager, Phys. Rev. 65, 117 (1944), the transition; C. N. Yang, Phys. Rev. 85, 808
(1952), the mean spin.
"""

import argparse
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CRITICAL = 2 / np.log(1 + np.sqrt(2))
SHOWN = (2.0, 2.3, 3.0)  # the temperatures of the snapshots


class Measured(NamedTuple):
    """Over temperatures: the mean spin, its standard error, and the states after the last pass."""

    mean: np.ndarray
    error: np.ndarray
    last: dx.GraphState


def exact(temperatures):
    """The mean spin of an infinite lattice."""
    cold = np.minimum(temperatures, CRITICAL)
    return np.maximum(1 - np.sinh(2 / cold) ** -4.0, 0) ** (1 / 8)


def magnet(side: int) -> dx.Network:
    topology = dx.Topology(dx.topologies.lattice((side, side)))
    return dx.Network(
        topology, {"lateral": dx.scale(1.0, fixed=True)}, dx.glauber(1.0), key=jax.random.key(0)
    )


def mean_spin(state: dx.GraphState) -> jax.Array:
    """One number for each sample; all spins lie in one array, batch last."""
    (spins,) = state.arrays.values()
    return spins.mean(0)


@eqx.filter_jit
def run(network: dx.Network, start: dx.GraphState, passes: int, temperatures):
    """The last state, and the mean spins `(passes, samples)`, at every temperature; all run side by
    side.
    """

    def at(temperature):
        bath = eqx.tree_at(
            lambda network: network.activations["unit"].temperature, network, temperature
        )
        # one key for all temperatures: to draw the noise is most of the work, and so it is done
        # only once
        return dx.rollout(
            bath, start, passes, schedule=dx.coloured(), key=jax.random.key(1), observe=mean_spin
        )

    return jax.vmap(at)(temperatures)


def measure(side: int, temperatures: np.ndarray, samples: int, passes: int) -> Measured:
    """Means over samples, and over all passes but the first fifth, in which the lattice forgets its
    start.
    """
    network = magnet(side)
    start = jax.tree.map(jnp.ones_like, dx.GraphState(network.topology, samples))
    last, means = run(network, start, passes, jnp.asarray(temperatures, jnp.float32))
    means = np.asarray(means)[:, passes // 5 :].mean(1)
    return Measured(means.mean(1), means.std(1, ddof=1) / samples**0.5, last)


def table(temperatures: np.ndarray, measured: Measured) -> str:
    lines = [f"{'T':>5}{'mean spin':>11}{'error':>9}{'exact':>9}"]
    for row in zip(temperatures, measured.mean, measured.error, exact(temperatures), strict=True):
        lines.append("{:>5.2f}{:>11.4f}{:>9.4f}{:>9.4f}".format(*row))
    return "\n".join(lines)


def picture(temperatures: np.ndarray, measured: Measured) -> plt.Figure:
    """The mean spin over temperature, and below it lattices in the cold, at the transition, and in
    the heat.
    """
    rooms = [["curve"] * len(SHOWN), list(SHOWN)]
    figure, axes = plt.subplot_mosaic(
        rooms, figsize=(7, 6.6), height_ratios=(1.5, 1), layout="constrained"
    )
    curve, fine = axes["curve"], np.linspace(temperatures[0], temperatures[-1], 2001)
    curve.plot(fine, exact(fine), color="0.3", label="exact, infinite lattice")
    label = f"measured, {len(measured.last.topology)} spins, ± 2 errors"
    curve.errorbar(
        temperatures,
        measured.mean,
        2 * measured.error,
        fmt="o",
        color="C3",
        markersize=5,
        capsize=3,
        label=label,
    )
    curve.annotate(
        f"Tc = {CRITICAL:.3f}", (CRITICAL, 0.02), (-6, 0), textcoords="offset points", ha="right"
    )
    curve.axvline(CRITICAL, color="0.6", linestyle=":", linewidth=1)
    curve.set(xlabel="temperature T, in units of the coupling", ylabel="mean spin m")
    curve.spines[["top", "right"]].set_visible(False)
    curve.legend(loc="upper right", frameon=False)
    for temperature in SHOWN:
        nearest = np.argmin(abs(temperatures - temperature))
        lattice = jax.tree.map(lambda leaf, i=nearest: leaf[i], measured.last)
        dx.plots.state(lattice, ax=axes[temperature], limit=1.4)
        axes[temperature].set(title=f"T = {temperature}", xlabel="")
    axes[SHOWN[1]].set_xlabel("one lattice after the last pass: red is up, blue is down")
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--small", action="store_true", help="a smaller lattice at four temperatures"
    )
    small = parser.parse_args(arguments).small

    temperatures = np.array([1.8, 2.0, 2.3, 3.0]) if small else np.arange(16, 31) / 10
    side, samples, passes = (32, 8, 500) if small else (64, 8, 2500)
    measured = measure(side, temperatures, samples, passes)
    print(table(temperatures, measured))
    picture(temperatures, measured).savefig("ising.png", dpi=150)
    print("drawn in ising.png")


if __name__ == "__main__":
    main()
