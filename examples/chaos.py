"""Where silence ends and chaos begins: random networks of tanh units as their couplings grow.

    python examples/chaos.py            # a table and chaos.png, in about half a minute
    python examples/chaos.py --small    # a smaller network at three strengths, in seconds

Each of n units hears all others by random couplings of size g/√n. Silence, where all units are at
zero, is a fixed point of every such network. The eigenvalues of a pass there fill a disc of radius
g (Girko's law): beyond g = 1 silence is unstable, and a large network has nothing else to rest in.
The largest Lyapunov exponent, by which neighbouring states move apart, is that of silence, ln g, as
long as this is below zero; then chaos sets in. Small networks may end in a cycle instead, and do so
less often the larger they are.

Source: H. Sompolinsky, A. Crisanti and H. J. Sommers, Phys. Rev. Lett. 61, 259 (1988).
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHOWN = 1.5  # the strength of the spectrum in the picture


def population(n: int, seed: int) -> dx.Network:
    """Couplings of strength 1."""
    topology = dx.Topology(dx.topologies.hopfield(n))
    network = dx.Network(
        topology,
        {"recurrent": dx.dense(self_coupling=0.0)},
        dx.tanh,
        key=jax.random.key(0),
    )
    weight = np.random.default_rng(seed).normal(size=(n, n)) / n**0.5
    return stronger(network, jnp.asarray(weight, jnp.float32), 1.0)


def stronger(network: dx.Network, weight: jax.Array, gain) -> dx.Network:
    coupling = eqx.tree_at(
        lambda coupling: coupling.weight, network["units", "units"], gain * weight
    )
    return network.replace_val(("units", "units"), coupling)


def exponents(network: dx.Network, gains: np.ndarray, samples: int, passes: int) -> np.ndarray:
    """The largest exponent of every sample at every strength, `(gains, samples)`, by one
    program.
    """
    topology, weight = network.topology, network["units", "units"].weight
    starts = jax.random.normal(jax.random.key(1), (samples, *topology.shape("units")))
    state = dx.GraphState(topology).init({"units": starts})

    def at(gain):
        return dx.lyapunov(stronger(network, weight, gain), state, passes, transient=passes)

    return np.asarray(jax.jit(jax.vmap(at))(jnp.asarray(gains, jnp.float32)))[..., 0]


def at_silence(network: dx.Network, gains: np.ndarray) -> np.ndarray:
    """The modulus of the leading eigenvalue at silence, at every strength."""
    weight = network["units", "units"].weight
    silence = dx.GraphState(network.topology)
    leading = [dx.spectrum(stronger(network, weight, gain), silence) for gain in gains]
    return np.abs(np.concatenate(leading)).ravel()


def table(gains: np.ndarray, radius: np.ndarray, found: np.ndarray) -> str:
    lines = [f"{'g':>5}{'radius':>9}{'ln radius':>11}{'exponent':>10}{'spread':>9}"]
    for gain, modulus, row in zip(gains, radius, found, strict=True):
        numbers = gain, modulus, np.log(modulus), row.mean(), row.std()
        lines.append("{:>5.2f}{:>9.3f}{:>11.3f}{:>10.3f}{:>9.3f}".format(*numbers))
    return "\n".join(lines)


def picture(
    gains: np.ndarray, radius: np.ndarray, found: np.ndarray, network: dx.Network
) -> plt.Figure:
    figure, (disc, curve) = plt.subplots(
        1, 2, figsize=(9, 4.2), layout="constrained", width_ratios=(1, 1.3)
    )
    weight = network["units", "units"].weight
    (n,) = network.topology.shape("units")
    shown = stronger(network, weight, SHOWN)
    values = np.asarray(dx.spectrum(shown, dx.GraphState(network.topology), n))[0]
    angle = np.linspace(0, 2 * np.pi, 200)
    disc.plot(np.cos(angle), np.sin(angle), color="0.3", linewidth=1, linestyle="--")
    disc.plot(SHOWN * np.cos(angle), SHOWN * np.sin(angle), color="0.7", linewidth=1)
    disc.plot(values.real, values.imag, "o", color="#2a788e", markersize=3)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    disc.annotate("inside: stable", (0, 1), ha="center", va="center", color="0.3", bbox=box)
    disc.set(aspect="equal", xlabel="real part", ylabel="imaginary part")
    disc.set_title(f"eigenvalues of a pass at silence, g = {SHOWN}", fontsize=11)
    curve.axhline(0, color="0.3", linewidth=1)
    curve.plot(gains, np.log(radius), color="0.6", label="at silence, ln |λ₁|")
    curve.errorbar(
        gains,
        found.mean(1),
        found.std(1),
        fmt="o",
        color="C3",
        markersize=5,
        capsize=3,
        label="along trajectories",
    )
    curve.annotate("chaos", (gains[-1], 0), (0, 5), textcoords="offset points", ha="right")
    curve.set(xlabel="strength g of the couplings", ylabel="largest Lyapunov exponent, per pass")
    curve.set_title(f"{n} tanh units, mean and spread over starts", fontsize=11)
    curve.legend(loc="upper left", frameon=False)
    curve.spines[["top", "right"]].set_visible(False)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a smaller network at three strengths")
    small = parser.parse_args(arguments).small

    n, samples, passes = (100, 4, 300) if small else (400, 8, 1000)
    gains = np.array([0.7, 1.5, 3.0]) if small else np.arange(6, 25, 1) / 10
    network = population(n, 0)
    radius, found = at_silence(network, gains), exponents(network, gains, samples, passes)
    print(table(gains, radius, found))
    picture(gains, radius, found, network).savefig("chaos.png", dpi=150)
    print("drawn in chaos.png")


if __name__ == "__main__":
    main()
