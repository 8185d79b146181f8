"""How much a Hopfield network remembers: patterns are stored by the Hebbian rule and called back
from noise.

    python examples/hopfield.py            # a table and hopfield.png, in about ten seconds
    python examples/hopfield.py --small    # one small network at three loads, in seconds

A network of n units stores p random patterns of ±1 in the couplings W = XᵀX / n, with a diagonal of
zero. It starts from a pattern in which a tenth of the units is flipped, an overlap of 0.8, and
updates unit by unit until it rests. While the load p/n is small it rests on the pattern; beyond
0.138 a large network no longer has a state of rest nearby, and recall breaks down. In small
networks the fall is less steep.

Sources: J. J. Hopfield, Proc. Natl. Acad. Sci. 79, 2554 (1982), the network; D. J. Amit, H.
Gutfreund and H. Sompolinsky, Phys. Rev. Lett. 55, 1530 (1985), its capacity.
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

CAPACITY = 0.138
FLIPPED = 0.1
# so many starts whatever the load, so that all loads of a network share one compiled relaxation
RECALLED = 16


def blank(n: int) -> dx.Network:
    """A network that stores nothing yet."""
    topology = dx.Topology(dx.topologies.hopfield(n))
    return dx.Network(
        topology,
        {"recurrent": dx.dense(gain=0.0, symmetric=True, self_coupling=0.0)},
        dx.sign,
        key=jax.random.key(0),
    )


def store(network: dx.Network, patterns: np.ndarray) -> dx.Network:
    """The network with the Hebbian couplings of patterns `(p, n)`."""
    weight = jnp.asarray(patterns.T @ patterns / patterns.shape[1])
    coupling = eqx.tree_at(lambda coupling: coupling.weight, network["units", "units"], weight)
    return network.replace_val(("units", "units"), coupling)


def recall(network: dx.Network, load: float, seed: int) -> float:
    """The mean overlap of stored patterns with where the network rests when it starts near them."""
    rng = np.random.default_rng(seed)
    (n,) = network.topology.shape("units")
    patterns = rng.choice(np.float32([-1, 1]), (round(load * n), n))
    wanted = patterns[np.arange(RECALLED) % len(patterns)]
    noisy = wanted * rng.permuted(
        np.where(np.arange(n) < FLIPPED * n, -1, 1)[None].repeat(RECALLED, 0), axis=1
    )
    start = dx.GraphState(network.topology).init({"units": noisy.astype(np.float32)})
    solution = dx.relax(store(network, patterns), start, schedule=dx.unit_by_unit())
    return float((solution.state["units"] * wanted).mean())


def table(loads: list[float], overlaps: dict[int, np.ndarray]) -> str:
    lines = [f"{'p/n':>6}" + "".join(f"{f'n = {n}':>10}" for n in overlaps)]
    for load, row in zip(loads, np.transpose(list(overlaps.values())), strict=True):
        lines.append(f"{load:>6.2f}" + "".join(f"{overlap:>10.3f}" for overlap in row))
    return "\n".join(lines)


def picture(loads: list[float], overlaps: dict[int, np.ndarray]) -> plt.Figure:
    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    shades = plt.colormaps["viridis_r"](np.linspace(0.25, 0.9, len(overlaps)))
    for (n, row), shade in zip(overlaps.items(), shades, strict=True):
        ax.plot(loads, row, "o-", color=shade, markersize=5, label=f"n = {n}")
    ax.axvline(CAPACITY, color="0.3", linestyle="--", linewidth=1)
    ax.annotate(
        f"capacity of a large network, {CAPACITY}",
        (CAPACITY, 0.06),
        (6, 0),
        textcoords="offset points",
    )
    ax.axhline(1 - 2 * FLIPPED, color="0.6", linestyle=":", linewidth=1)
    ax.annotate(
        "at the start",
        (max(loads), 1 - 2 * FLIPPED),
        (0, 4),
        textcoords="offset points",
        ha="right",
    )
    ax.set(
        xlabel="load: patterns per unit, p/n",
        ylabel="overlap with the stored pattern",
        ylim=(0, 1.03),
    )
    ax.set_title("recall from starts with a tenth of the units flipped", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower left", frameon=False)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="one small network at three loads")
    small = parser.parse_args(arguments).small

    sizes, units = (
        ([200], 400) if small else ([100, 200, 400], 2000)
    )  # a small network is drawn more often
    loads = (
        [0.05, 0.14, 0.25]
        if small
        else [0.02, 0.05, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3]
    )
    overlaps = {}
    for n in sizes:
        network = blank(n)
        overlaps[n] = np.array(
            [np.mean([recall(network, load, seed) for seed in range(units // n)]) for load in loads]
        )
    print(table(loads, overlaps))
    picture(loads, overlaps).savefig("hopfield.png", dpi=150)
    print("drawn in hopfield.png")


if __name__ == "__main__":
    main()
