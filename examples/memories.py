"""Three memories of one size, from classical to modern: how much they hold, and how they recall.

    python examples/memories.py            # tables and memories.png, in about a quarter of a minute
    python examples/memories.py --small    # three loads, in seconds

Each stores p random patterns ξ of n units of ±1, and all have an energy that recall goes down:

- classical: symmetric couplings W = Σ ξ ξᵀ / n. Beyond a load p/n of 0.138 patterns are lost;
- learnt: the same graph, but the perceptron rule corrects W at each unit that a pattern does not
  hold by a margin. More than one pattern a unit is at rest then, though few starts near it return;
- softmax: a second node of one unit a pattern, and the same couplings both ways. Its units share
  one answer, h = softmax(β ξ·s), and send back ξᵀ h, nearly always one pattern alone.

Sources: J. J. Hopfield, Proc. Natl. Acad. Sci. 79, 2554 (1982); E. Gardner, J. Phys. A 21, 257
(1988), the margin; D. Krotov and J. J. Hopfield, Adv. Neural Inf. Process. Syst. 29 (2016), more
than quadratic energies; H. Ramsauer et al., Int. Conf. Learn. Represent. (2021), the softmax.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

UNITS = 100
CAPACITY = 0.138  # of a large classical network
RECALLED = 100  # so many starts whatever the load, so that all loads share compiled programs
FLIPPED = 0.1
SHARPNESS = 0.5  # the inverse temperature of the softmax
SHOWN = 0.5  # the load of the recall that is drawn
RULES = {"recurrent": dx.perceptron(margin=5.0)}
COLOURS = {"classical": "0.45", "learnt": "C0", "softmax": "C3"}


class Trial(NamedTuple):
    """Patterns at one load, and the states that recall begins at and looks for, a row each."""

    patterns: np.ndarray
    noisy: np.ndarray
    wanted: np.ndarray


def trial(load: float, most: int) -> Trial:
    """All loads have as many rows of patterns, so that they share programs; rows of zeros say
    nothing.
    """
    rng = np.random.default_rng(0)
    count = round(load * UNITS)
    patterns = np.zeros((most, UNITS), np.float32)
    patterns[:count] = rng.choice([-1, 1], (count, UNITS))
    wanted = patterns[np.arange(RECALLED) % count]
    flips = np.where(np.arange(UNITS) < FLIPPED * UNITS, np.float32(-1), np.float32(1))
    noisy = wanted * rng.permuted(np.tile(flips, (RECALLED, 1)), axis=1)
    return Trial(patterns, noisy, wanted)


def population() -> dx.Network:
    """Units that hear each other alike both ways, and store nothing yet."""
    couplings = {"recurrent": dx.dense(gain=0.0, symmetric=True, self_coupling=0.0)}
    topology = dx.Topology(dx.topologies.hopfield(UNITS))
    return dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))


def classical(patterns: np.ndarray) -> dx.Network:
    network = population()
    weight = jnp.asarray(patterns.T @ patterns / UNITS)
    coupling = eqx.tree_at(lambda coupling: coupling.weight, network["units", "units"], weight)
    return network.replace_val(("units", "units"), coupling)


def learnt(patterns: np.ndarray, corrections: int = 1000) -> dx.Network:
    """A population after so many corrections, each by all patterns at once."""
    return corrected(population(), patterns, corrections)


@eqx.filter_jit
def corrected(network: dx.Network, patterns: np.ndarray, corrections: int) -> dx.Network:
    params, rest = dx.partition(network, RULES)
    shown = dx.GraphState(network.topology).init({"units": patterns})

    def correct(_, params):
        updates = dx.local_updates(
            eqx.combine(params, rest), shown, RULES, normalise=lambda batch, fan_in: fan_in
        )
        return jax.tree.map(jnp.subtract, params, updates)

    return eqx.combine(jax.lax.fori_loop(0, corrections, correct, params), rest)


def softmax(patterns: np.ndarray) -> dx.Network:
    """Two nodes, and couplings both ways: the forward ones are β ξ, row by row."""
    graph = nx.DiGraph()
    graph.add_node("units", shape=UNITS)
    graph.add_node("patterns", shape=len(patterns), kind="patterns")
    graph.add_edge("units", "patterns", kind="forward")
    network = dx.Network(
        dx.Topology(dx.topologies.reciprocal(graph, kind="forward")),
        {"forward": dx.dense(gain=0.0), "back": dx.transpose("forward")},
        {"node": dx.sign, "patterns": dx.softmax},
        key=jax.random.key(0),
    )
    weight = jnp.asarray(SHARPNESS * patterns)
    coupling = eqx.tree_at(lambda coupling: coupling.weight, network["units", "patterns"], weight)
    return network.replace_val(("units", "patterns"), coupling)


# how each is made of patterns, and the order in which it recalls
MEMORIES: dict[str, tuple[Callable[[np.ndarray], dx.Network], dx.Schedule]] = {
    "classical": (classical, dx.unit_by_unit()),
    "learnt": (learnt, dx.unit_by_unit()),
    "softmax": (softmax, dx.node_by_node(["patterns", "units"])),
}


def begin(network: dx.Network, units: np.ndarray) -> dx.GraphState:
    """The state with these units, to which a second node has answered."""
    state = dx.GraphState(network.topology).init({"units": units})
    return dx.step(network, state, clamp=["units"])


def overlaps(network: dx.Network, schedule: dx.Schedule, trial: Trial) -> list[float]:
    """Means over patterns: from their noisy versions, and from the patterns themselves."""
    found: list[float] = []
    for start in (trial.noisy, trial.wanted):
        rest = dx.relax(network, begin(network, start), schedule=schedule).state
        found.append(float((rest["units"] * trial.wanted).mean()))
    return found


def descent(network: dx.Network, schedule: dx.Schedule, trial: Trial, passes: int = 5):
    """Mean energies before and after each pass, in units of that of the pattern less its sign."""
    state = begin(network, trial.noisy)
    energies = [dx.energy(network, state).mean()]
    for _ in range(passes):
        state = dx.step(network, state, schedule=schedule)
        energies.append(dx.energy(network, state).mean())
    return np.asarray(energies) / -dx.energy(network, begin(network, trial.wanted)).mean()


def table(loads: list[float], overlap: dict[str, np.ndarray], path: dict[str, np.ndarray]) -> str:
    lines = ["overlap from starts with a tenth flipped, and from the pattern itself"]
    lines.append(f"{'p/n':>6}" + "".join(f"{name:>16}" for name in overlap))
    for i, load in enumerate(loads):
        numbers = [
            f"{noisy:>10.3f}{itself:>6.2f}"
            for noisy, itself in (rows[i] for rows in overlap.values())
        ]
        lines.append(f"{load:>6.2f}" + "".join(numbers))
    lines.append(f"energy pass by pass at p/n = {SHOWN}; that of the pattern is -1")
    for name, energies in path.items():
        lines.append(f"{name:>10}" + "".join(f"{energy:>8.3f}" for energy in energies))
    return "\n".join(lines)


def picture(
    loads: list[float], overlap: dict[str, np.ndarray], path: dict[str, np.ndarray]
) -> plt.Figure:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4.5), width_ratios=(1.5, 1), layout="constrained"
    )
    for name, colour in COLOURS.items():
        noisy, itself = overlap[name].T
        left.semilogx(loads, noisy, "o-", color=colour, markersize=5, label=name)
        left.semilogx(loads, itself, ":", color=colour)
        right.plot(path[name], "o-", color=colour, markersize=5)
    left.axvline(CAPACITY, color="0.3", linestyle="--", linewidth=1)
    left.annotate(f"{CAPACITY}", (CAPACITY, 0.03), (4, 0), textcoords="offset points")
    left.set(xlabel="load: patterns per unit, p/n", ylabel="overlap with the stored pattern")
    left.set(ylim=(0, 1.03), xticks=loads, xticklabels=[f"{load:g}" for load in loads])
    left.minorticks_off()
    left.set_title("recall with a tenth flipped; dotted: from the pattern itself", fontsize=11)
    left.legend(loc="lower left", frameon=False)
    right.axhline(-1, color="0.6", linestyle=":", linewidth=1)
    right.annotate("the stored pattern", (5, -1), (0, -14), textcoords="offset points", ha="right")
    right.set(xlabel="passes", ylabel="energy, in units of that of the pattern")
    right.set_title(f"along a recall, p/n = {SHOWN}", fontsize=11)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="three loads")
    small = parser.parse_args(arguments).small

    loads = (
        [0.1, SHOWN, 1.0] if small else [0.05, 0.1, 0.2, 0.3, SHOWN, 0.7, 1.0, 1.5, 2.0, 5.0, 10.0]
    )
    trials = {load: trial(load, round(loads[-1] * UNITS)) for load in loads}
    overlap: dict[str, np.ndarray] = {}
    path: dict[str, np.ndarray] = {}
    for name, (store, schedule) in MEMORIES.items():
        networks = {load: store(trial.patterns) for load, trial in trials.items()}
        overlap[name] = np.array(
            [overlaps(networks[load], schedule, trials[load]) for load in loads]
        )
        path[name] = descent(networks[SHOWN], schedule, trials[SHOWN])
    print(table(loads, overlap, path))
    picture(loads, overlap, path).savefig("memories.png", dpi=150)
    print("drawn in memories.png")


if __name__ == "__main__":
    main()
