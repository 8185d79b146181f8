"""An image, the vertices of a graph and a dense population in one state, which come to rest
together.

    python examples/mixed.py               # a summary, a table and mixed.png, in seconds

Each part has the wiring that suits it: a convolution from the image to its map, the links of a
small world around a ring, all to all in the hidden population. Map and ring meet in `hidden` alone,
both ways, and it gives the answer. No coupling is trained. The parts hear each other all the same:
with another image the ring rests elsewhere, and with the ring held elsewhere so does the map. Where
`hidden` is silent, neither happens.

Source: D. J. Watts and S. H. Strogatz, Nature 393, 440 (1998), the small world.
"""

import argparse

import jax
import matplotlib
import networkx as nx
import numpy as np
from sklearn.datasets import load_digits

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PARTS = ("map", "hidden", "ring", "answer")
VERTICES = 24


def small_world() -> nx.DiGraph:
    """Every vertex hears about four others, and so about their mean."""
    graph = dx.topologies.small_world(VERTICES, neighbours=4, rewire=0.1)
    nx.set_edge_attributes(graph, 0.25, "weight")
    return graph


def draw(ring: nx.DiGraph) -> dx.Topology:
    seen = nx.DiGraph()
    seen.add_node("image", shape=(8, 8, 1))
    seen.add_node("map", shape=(8, 8, 4), kind="spin")
    seen.add_edge("image", "map", kind="conv")
    layer = dx.topologies.graph_layer(ring, features=(), whole=True)

    g = nx.compose(seen, nx.relabel_nodes(layer, {"layer": "ring"}))
    g.add_node("hidden", shape=64, kind="spin")
    g.add_node("answer", shape=6, kind="output")
    g.add_edge("hidden", "hidden", kind="recurrent")
    g.add_edge("hidden", "answer", kind="dense")
    for part in ("map", "ring"):
        g.add_edges_from([(part, "hidden"), ("hidden", part)], kind="dense")
    return dx.Topology(g, inputs=["image"], outputs=["answer"])


def build(topology: dx.Topology, ring: nx.DiGraph) -> dx.Network:
    couplings = {
        "conv": dx.conv(kernel=3),
        "lateral": dx.sparse(ring),
        "dense": dx.dense(),
        "recurrent": dx.dense(gain=0.5, self_coupling=1.5),
    }
    activations = {"spin": dx.sign, "unit": dx.tanh, "output": dx.softmax}
    return dx.Network(topology, couplings, activations, key=jax.random.key(0))


def rest(
    network: dx.Network, start: dx.GraphState, hold_ring: bool = False, silence=()
) -> dx.Solution:
    held = {
        "ring": np.full(VERTICES, hold_ring)
    }  # as a mask: held or free, it is one compiled relaxation
    return dx.relax(network, start, clamp=held, silence=silence, max_steps=200)


def share_moved(a: dx.GraphState, b: dx.GraphState) -> str:
    """The share of the units of every part that differ by more than a tenth."""
    return "".join(f"{(abs(np.subtract(a[part], b[part])) > 0.1).mean():>8.3f}" for part in PARTS)


def table(network: dx.Network, start: dx.GraphState) -> str:
    """Which units rest elsewhere where every sample is given the image, or the ring, of the sample
    before it.
    """
    lines = [f"{'units that rest elsewhere':<36}" + "".join(f"{part:>8}" for part in PARTS)]
    image = start.replace_val("image", np.roll(start["image"], 1, axis=0))
    found = rest(network, start).state["ring"]
    ring, other = (start.replace_val("ring", np.roll(found, shift, axis=0)) for shift in (0, 1))
    for voice, silence in {"": (), ", hidden silent": ("hidden",)}.items():
        for name, *starts, hold in (
            ("another image", start, image, False),
            ("another ring, held", ring, other, True),
        ):
            ends = (rest(network, begin, hold, silence).state for begin in starts)
            lines.append(f"{name + voice:<36}" + share_moved(*ends))
    return "\n".join(lines)


def picture(ring: nx.DiGraph, state: dx.GraphState, samples: int = 4) -> plt.Figure:
    """A row for every sample."""
    figure, axes = plt.subplots(samples, figsize=(9, 9), layout="constrained")
    for sample, ax in enumerate(axes):
        place = nx.circular_layout
        dx.plots.state(state, ax=ax, sample=sample, graphs={"ring": ring}, place=place)
    figure.suptitle("four samples at rest, one state: red is above zero, blue below")
    return figure


def main(arguments: list[str] | None = None):
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(arguments)

    ring = small_world()
    topology = draw(ring)
    network = build(topology, ring)
    images = (load_digits().images[:32, ..., None] / 8 - 1).astype(np.float32)
    start = dx.GraphState(topology).init(images)
    solution = rest(network, start)

    print(topology.summary(), end="\n\n")
    for name, array in solution.state.arrays.items():
        print(f"{name:<16}{array.shape}")
    print(
        f"\nsettled {solution.settled.sum()} of {len(images)}, in {solution.steps.mean():.1f} "
        "passes\n"
    )
    print(table(network, start))
    picture(ring, solution.state).savefig("mixed.png", dpi=150)
    print("drawn in mixed.png")


if __name__ == "__main__":
    main()
