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
PLACES = {"eye": (0, 1), "ear": (0, -1), "sight": (1, 1), "sound": (1, -1), "mix": (2, 0)}
PLACES |= {"name": (3, 1), "place": (3, -1)}
NODES = dict(
    zip(("sight", "sound", "mix", "name", "place"), plt.colormaps["Set2"].colors, strict=False)
)
EDGES = {"forward": "0.25", "skip": "C1", "recurrent": "C3", "feedback": "C0"}


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


def show_topology(ax, topology: dx.Topology):
    graph, size = topology.to_networkx(), 55
    names = {node: f"{node}\n{'×'.join(map(str, topology.shape(node)))}" for node in graph}
    for node, place in PLACES.items():
        colours = {"markerfacecolor": NODES.get(node, "white"), "markeredgecolor": "0.2"}
        halves = {"fillstyle": "top", "markerfacecoloralt": "0.75"} if node == "mix" else {}
        ax.plot(*place, "o", markersize=size, **colours, **halves)
    nx.draw_networkx_labels(graph, PLACES, names, ax=ax, font_size=10)
    for u, v, kind in graph.edges(data="kind"):
        start, end, bend, shrink = PLACES[u], PLACES[v], 0.18, size / 2
        if u == v:  # out of one shoulder of the node and into the other
            start, end, bend, shrink = (
                np.add(start, (0.22, 0.1)),
                np.add(end, (0.22, -0.1)),
                -2.2,
                0,
            )
        arrow = {
            "arrowstyle": "-|>,head_width=0.3,head_length=0.6",
            "connectionstyle": f"arc3,rad={bend}",
        }
        arrow |= {"shrinkA": shrink, "shrinkB": shrink, "color": EDGES[kind], "linewidth": 1.8}
        ax.annotate("", end, start, arrowprops=arrow)
    for kind, colour in EDGES.items():
        ax.plot([], [], color=colour, label=kind)
    ax.plot([], [], "s", color="0.75", label="held by the mask")
    ax.legend(loc="lower center", ncols=3, frameon=False)
    ax.set(title="the topology", xlim=(-0.4, 3.4), ylim=(-2, 1.5))
    ax.axis("off")


def picture(topology: dx.Topology, paths: dict[str, dict[str, np.ndarray]]) -> plt.Figure:
    """The topology, and on its right how each node comes to rest."""
    rooms = [["topology", name] for name in paths]
    figure, axes = plt.subplot_mosaic(
        rooms, figsize=(11, 5.5), width_ratios=(1.4, 1), layout="constrained"
    )
    show_topology(axes.pop("topology"), topology)
    for name, ax in axes.items():
        for node, change in paths[name].items():
            ax.semilogy(
                np.arange(1, PASSES + 1), change, color=NODES[node], linewidth=2, label=node
            )
        ax.set(title=f"change per pass, {name}", xlabel="pass", ylim=(1e-6, 2), xlim=(1, PASSES))
        ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, ncols=2)
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
