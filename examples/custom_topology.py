"""A topology drawn by hand: what networkx can draw, with names, shapes and kinds, is a network that
relaxes.

    python examples/custom_topology.py  # two summaries, a table and custom_topology.png, in seconds

Eye and ear drive sight and sound, and both meet in `mix`, a recurrent population that answers with
a name and a place. Skip edges go past a stage, feedback goes back to one. The same batch comes to
rest twice from the same start: free, and with one half of `mix` held by a clamp mask, while the
other half of that node goes on moving.

Source: H. Sompolinsky, A. Crisanti and H. J. Sommers, Phys. Rev. Lett. 61, 259 (1988): random tanh
networks come to rest while the gain of their couplings is small.
"""

import argparse

import jax
import matplotlib
import networkx as nx
import numpy as np

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCH, PASSES = 32, 40
HALF = np.arange(32) < 16  # the cells of `mix` that the mask holds
NODES = ("sight", "sound", "mix", "name", "place")  # those that hear somebody


def draw() -> dx.Topology:
    g = nx.DiGraph()
    g.add_node("eye", shape=(4, 4))
    g.add_node("ear", shape=16)
    g.add_nodes_from(["sight", "sound", "mix"], shape=32, kind="hidden")
    g.add_node("name", shape=4, kind="output")
    g.add_node("place", shape=2, kind="output")
    nx.add_path(g, ["eye", "sight", "mix", "name"], kind="forward")
    nx.add_path(g, ["ear", "sound", "mix", "place"], kind="forward")
    g.add_edges_from([("eye", "mix"), ("sound", "place")], kind="skip")
    g.add_edge("mix", "mix", kind="recurrent")
    g.add_edges_from([("mix", "sight"), ("mix", "sound"), ("name", "mix")], kind="feedback")
    return dx.Topology(g, inputs=["eye", "ear"], outputs=["name", "place"])


def build(topology: dx.Topology) -> dx.Network:
    recurrent, feedback = dx.dense(gain=0.5, self_coupling=0.3), dx.dense(gain=0.3)
    couplings = {
        "forward": dx.dense(),
        "skip": dx.dense(),
        "recurrent": recurrent,
        "feedback": feedback,
    }
    return dx.Network(
        topology, couplings, {"hidden": dx.tanh, "output": dx.tanh}, key=jax.random.key(0)
    )


def begin(topology: dx.Topology) -> dx.GraphState:
    """Random sights and sounds; the half of `mix` that will be held is at +1, all else at 0."""
    rng = np.random.default_rng(0)
    inputs = {
        node: rng.normal(size=(BATCH, *topology.shape(node))).astype(np.float32)
        for node in topology.inputs
    }
    return dx.GraphState(topology).init(
        inputs | {"mix": np.tile(HALF.astype(np.float32), (BATCH, 1))}
    )


def row(name: str, start: dx.GraphState, solution: dx.Solution) -> str:
    """How many samples settled, in how many passes, and how far each half of `mix` went from its
    start on average.
    """
    moved = abs(np.subtract(solution.state["mix"], start["mix"]))
    passes = f"{solution.settled.sum():>9}{solution.steps.mean():>8.1f}{solution.steps.max():>6}"
    return f"{name:<12}{passes}{moved[:, HALF].mean():>14.3f}{moved[:, ~HALF].mean():>14.3f}"


def changes(network: dx.Network, start: dx.GraphState, clamp) -> dict[str, np.ndarray]:
    """The root mean square change of every node that hears somebody, pass by pass."""
    _, path = dx.rollout(
        network,
        start,
        PASSES,
        clamp=clamp,
        observe=lambda state: {node: state[node] for node in NODES},
    )
    steps = {node: np.diff(path[node], axis=0, prepend=start[node][None]) for node in NODES}
    return {node: np.sqrt((step**2).mean((1, 2))) for node, step in steps.items()}


def picture(topology: dx.Topology, paths: dict[str, dict[str, np.ndarray]]) -> plt.Figure:
    """The topology, and below it how each node comes to rest."""
    rooms = [["topology"] * len(paths), list(paths)]
    figure, axes = plt.subplot_mosaic(rooms, figsize=(10, 8), layout="constrained")
    dx.plots.topology(topology, ax=axes.pop("topology"))
    for name, ax in axes.items():
        dx.plots.trajectory(paths[name], ax=ax)
        ax.set(title=f"root mean square change, {name}", yscale="log", ylim=(1e-6, 2))
    return figure


def main(arguments: list[str] | None = None):
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(arguments)

    topology = draw()
    network, start = build(topology), begin(topology)
    print(topology.summary(), network.summary(), sep="\n\n", end="\n\n")
    print(f"{'':<12}{'settled':>9}{'steps':>8}{'most':>6}{'half moved':>14}{'other moved':>14}")
    paths = {}
    for name, clamp in {"free": {}, "half held": {"mix": HALF}}.items():
        print(row(name, start, dx.relax(network, start, clamp=clamp)))
        paths[name] = changes(network, start, clamp)
    picture(topology, paths).savefig("custom_topology.png", dpi=150)
    print("drawn in custom_topology.png")


if __name__ == "__main__":
    main()
