"""What lets an asymmetric network settle: units that hear themselves, or namesakes in other
modules.

    python examples/settling.py            # a table and settling.png, in about half a minute
    python examples/settling.py --small    # smaller networks at four strengths, in seconds

Sign units with random asymmetric couplings of size 1/√n wander for a time that grows exponentially
with their number. Two additions bring them to rest, both excitatory and sparse, one link for each
unit:

- *self-coupling*: one population, in which each unit also hears itself with some strength;
- *links*: a chain of three modules without self-coupling, in which each unit also hears, with that
  strength, the units of its number in the modules next to its own.

For both the table says which share of random starts comes to rest, falls into a cycle, or still
moves after the last pass, and how many passes it takes to rest. Self-coupling works sooner: links
hold a unit only once its namesakes agree.

Source: D. Badalotti, C. Baldassi, M. Mézard, M. Scardecchia and R. Zecchina, arXiv:2509.05041.
"""

import argparse
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PASSES = 300


class Fate(NamedTuple):
    """What becomes of random starts: shares, and the mean passes to rest; one number each, or
    arrays over strengths.
    """

    rest: Any
    cycle: Any
    moving: Any
    passes: Any


def one_population(n: int, strength: float, seed: int) -> dx.Network:
    topology = dx.Topology(dx.topologies.hopfield(n))
    return dx.Network(
        topology, {"recurrent": dx.dense(self_coupling=strength)}, dx.sign, key=jax.random.key(seed)
    )


def three_modules(n: int, strength: float, seed: int) -> dx.Network:
    topology = dx.Topology(dx.topologies.modular(3, units=n))
    couplings = {
        "recurrent": dx.dense(self_coupling=0.0),
        "between": dx.scale(strength, fixed=True),
    }
    return dx.Network(topology, couplings, dx.sign, key=jax.random.key(seed))


def relax(network: dx.Network, starts: int, seed: int) -> dx.Solution:
    """From random states; modules take turns, since two that move at once may trade places for
    ever.
    """
    rng = np.random.default_rng(seed)
    topology = network.topology
    units = {
        node: rng.choice(np.float32([-1, 1]), (starts, *topology.shape(node)))
        for node in topology.nodes
    }
    start = dx.GraphState(topology).init(units)
    return dx.relax(network, start, schedule=dx.node_by_node(), max_steps=PASSES)


def fate(build, n: int, strength: float, networks: int, starts: int) -> Fate:
    """Over several networks; those of all strengths are compiled once, for a strength is a number
    in the network.
    """
    solutions = [relax(build(n, strength, seed), starts, seed) for seed in range(networks)]
    settled = np.concatenate([solution.settled for solution in solutions])
    period = np.concatenate([solution.period for solution in solutions])
    steps = np.concatenate([solution.steps for solution in solutions])
    passes = steps[settled].mean() if settled.any() else np.nan
    return Fate(settled.mean(), (period > 1).mean(), (period == 0).mean(), passes)


def table(strengths: np.ndarray, fates: dict[str, Fate]) -> str:
    names = ("rest", "cycle", "moving", "passes")
    lines = [" " * 8 + "".join(f"{name:>32}" for name in fates)]
    lines.append(f"{'strength':>8}" + "".join(f"{name:>8}" for name in names) * len(fates))
    for i, strength in enumerate(strengths):
        cells = [(field[i] for field in found) for found in fates.values()]
        shares = (
            "{:>8.3f}{:>8.3f}{:>8.3f}{:>8.1f}".format(*row).replace("nan", "  -") for row in cells
        )
        lines.append(f"{strength:>8.1f}" + "".join(shares))
    return "\n".join(lines)


def picture(strengths: np.ndarray, fates: dict[str, Fate], n: int) -> plt.Figure:
    """Above the shares of starts, one on the other; below the passes to rest."""
    size = {"figsize": (9, 6), "height_ratios": (1.6, 1), "layout": "constrained"}
    figure, axes = plt.subplots(2, len(fates), sharex=True, sharey="row", **size)
    titles = (f"self-coupling, one population of {n}", f"links, three modules of {n}")
    for (shares, passes), found, title in zip(axes.T, fates.values(), titles, strict=True):
        colours, labels = (
            ("#2a788e", "#a5c8d1", "#eeeae2"),
            ("at rest", "in a cycle", f"moving after {PASSES} passes"),
        )
        shares.stackplot(
            strengths, found.rest, found.cycle, found.moving, colors=colours, labels=labels
        )
        shares.set(title=title, ylim=(0, 1), xlim=(strengths[0], strengths[-1]))
        passes.semilogy(
            strengths, found.passes, "o-", color=colours[0], markersize=4, clip_on=False
        )
        passes.set(xlabel="strength of the excitatory coupling", ylim=(1, PASSES), xticks=range(4))
        passes.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("share of random starts")
    axes[1, 0].set_ylabel("mean passes to rest")
    axes[0, 0].legend(loc="lower right", reverse=True, framealpha=1)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="smaller networks at four strengths")
    small = parser.parse_args(arguments).small

    n, networks, starts = (100, 2, 16) if small else (200, 8, 64)
    strengths = np.arange(4.0) if small else np.arange(0, 31, 2) / 10
    fates = {}
    for name, build in {"self-coupling": one_population, "links": three_modules}.items():
        rows = [fate(build, n, float(strength), networks, starts) for strength in strengths]
        fates[name] = Fate(*np.transpose(rows))
    print(table(strengths, fates))
    picture(strengths, fates, n).savefig("settling.png", dpi=150)
    print("drawn in settling.png")


if __name__ == "__main__":
    main()
