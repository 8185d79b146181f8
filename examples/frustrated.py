"""A frustrated lattice, sampled in the cold: single chains stay where they are, a ladder of
temperatures does not.

    python examples/frustrated.py            # a table and frustrated.png, in about ten seconds
    python examples/frustrated.py --small    # fewer passes, in seconds

Spins of ±1 on a 4 × 4 lattice that closes on itself hear their neighbours by couplings of ±1, drawn
at random. Around some squares no choice of spins suits all four couplings, so that there are many
valleys, with hills between them. A chain in a cold heat bath stays for long in the valley that it
began in. With replica exchange samples run at a ladder of temperatures and change places with their
neighbours, which brings what the heat finds down into the cold.

With 16 spins there are 65,536 states, and the Boltzmann distribution is a sum. The table has the
mean energy at each temperature, exact, from single chains and from the ladder, and beside it how
wrong the probabilities of the states of lowest energy are: half the sum of their errors, 0 at best
and near 0.5 where a half of these states is never seen.

Source: K. Hukushima and K. Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996).
"""

import argparse
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIDE = 4
LADDER = np.geomspace(0.25, 2.5, 10)


class Glass(NamedTuple):
    """The lattice, and all of its states with their energies."""

    network: dx.Network
    states: np.ndarray
    energies: np.ndarray


def glass(seed: int) -> Glass:
    lattice = nx.grid_2d_graph(SIDE, SIDE, periodic=True)
    rng = np.random.default_rng(seed)
    graph = nx.DiGraph()
    graph.add_nodes_from(lattice.nodes, shape=())
    nodes = {node: i for i, node in enumerate(lattice.nodes)}
    states = np.array(list(itertools.product([-1, 1], repeat=len(nodes))), np.int8)
    energies = np.zeros(len(states))
    for u, v in lattice.edges:
        weight = rng.choice([-1.0, 1.0])
        graph.add_edge(u, v, weight=weight)
        energies -= weight * states[:, nodes[u]] * states[:, nodes[v]]
    # both ways with one weight: only then there is an energy
    topology = dx.Topology(dx.topologies.reciprocal(graph, kind="edge"))
    couplings = {"edge": dx.scale(weight="weight", fixed=True), "back": dx.transpose("edge")}
    network = dx.Network(topology, couplings, dx.glauber(1.0), key=jax.random.key(0))
    return Glass(network, states, energies)


def number(state: dx.GraphState) -> jax.Array:
    """The position of every sample in the list of all states."""
    nodes = state.topology.nodes
    last = len(nodes) - 1
    return sum((state[node] > 0).astype(jnp.int32) << (last - i) for i, node in enumerate(nodes))


def sample(glass: Glass, passes: int) -> dict[str, np.ndarray]:
    """The states that are passed through, `(passes, temperatures)`, both from one random start."""
    network = glass.network
    topology = network.topology
    rng = np.random.default_rng(1)
    spins = {node: np.full(len(LADDER), rng.choice([-1.0, 1.0])) for node in topology.nodes}
    start = dx.GraphState(topology).init(spins)
    given = {"schedule": dx.coloured(), "key": jax.random.key(2), "observe": number}
    alone = dx.at_temperature(network, LADDER)
    _, chains = dx.rollout(alone, start, passes, **given)
    ladder = dx.temper(network, start, LADDER, passes, **given)
    print("exchanged", " ".join(f"{share:.2f}" for share in ladder.accepted))
    return {"single chains": np.asarray(chains), "ladder": np.asarray(ladder.frames)}


def probabilities(glass: Glass, temperature: float) -> np.ndarray:
    weights = np.exp(-(glass.energies - glass.energies.min()) / temperature)
    return weights / weights.sum()


def wrong(glass: Glass, seen: np.ndarray, temperature: float) -> float:
    """The distance between what was seen and what is right, over the lowest states."""
    exact = probabilities(glass, temperature)
    found = np.bincount(seen, minlength=len(exact)) / len(seen)
    lowest = glass.energies <= glass.energies.min() + 1e-6
    return 0.5 * np.abs(exact - found)[lowest].sum()


def table(glass: Glass, seen: dict[str, np.ndarray]) -> str:
    lines = [
        f"{'T':>6}{'exact E':>10}" + "".join(f"{name + ' E':>18}{'wrong':>8}" for name in seen)
    ]
    for i, temperature in enumerate(LADDER):
        exact = probabilities(glass, temperature) @ glass.energies
        line = f"{temperature:>6.2f}{exact:>10.3f}"
        for frames in seen.values():
            at = frames[len(frames) // 10 :, i]
            line += f"{glass.energies[at].mean():>18.3f}{wrong(glass, at, temperature):>8.3f}"
        lines.append(line)
    return "\n".join(lines)


def picture(glass: Glass, seen: dict[str, np.ndarray]) -> plt.Figure:
    """Of the coldest sample: above its way, below how often it was in each state of lowest
    energy.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9, 5), layout="constrained", sharey="row")
    lowest = np.flatnonzero(glass.energies <= glass.energies.min() + 1e-6)
    exact = probabilities(glass, LADDER[0])[lowest]
    shown = 600
    for (above, below), (name, frames) in zip(axes.T, seen.items(), strict=True):
        cold = frames[:, 0]
        overlap = (glass.states[cold[-shown:]] * glass.states[lowest[0]]).mean(1)
        above.plot(overlap, color="#2a788e", linewidth=1)
        above.set(title=name, xlabel=f"the last {shown} passes", ylim=(-1.05, 1.05))
        found = np.bincount(cold, minlength=len(glass.states))[lowest] / len(cold)
        below.bar(np.arange(len(lowest)), found, color="#a5c8d1", label="found")
        below.step(
            np.arange(-1, len(lowest) + 1),
            np.concatenate([[0], exact, [0]]),
            where="mid",
            color="0.2",
            label="exact",
        )
        below.set(xlabel="states of lowest energy", xticks=[])
        for room in (above, below):
            room.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel(f"overlap with one state\nof lowest energy, T = {LADDER[0]:.2f}")
    axes[1, 0].set_ylabel("probability")
    axes[1, 1].legend(frameon=False)
    return figure


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="fewer passes")
    passes = 5000 if parser.parse_args(arguments).small else 50_000

    lattice = glass(0)
    seen = sample(lattice, passes)
    print(table(lattice, seen))
    picture(lattice, seen).savefig("frustrated.png", dpi=150)
    print("drawn in frustrated.png")


if __name__ == "__main__":
    main()
