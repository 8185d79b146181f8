"""Zachary's karate club: two known members tell all the others which side they take.

    python examples/karate_club.py         # the two factions and karate_club.png, in seconds

After a quarrel a club of 34 broke in two, around its teacher, Mr. Hi, and its president, the
Officer. The club is one layer of a network, a unit for each member, and these two are clamped at +1
and -1. Every other member is the mean of its friends, weighted by in how many places they met. At
rest the state of a member is the chance that a walk from friend to friend meets Mr. Hi first, less
the chance that it meets the Officer first: its sign is the faction.

The same club as one node, its friendships a jraph model, comes to rest in the same state.

Sources: W. W. Zachary, J. Anthropol. Res. 33, 452 (1977), the club; X. Zhu, Z. Ghahramani and J.
Lafferty, Proc. 20th Int. Conf. Mach. Learn., 912 (2003), labels that spread as means.
"""

import argparse

import jax
import jraph
import matplotlib
import networkx as nx
import numpy as np

import darnax as dx

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LABELS = {0: 1.0, 33: -1.0}  # Mr. Hi and the Officer


def means(club: nx.Graph) -> nx.DiGraph:
    """Both ways along every friendship, what each hears from all its friends adding up to 1."""
    graph = nx.DiGraph()
    graph.add_nodes_from(club)
    for u, v, weight in club.to_directed().edges(data="weight"):
        graph.add_edge(u, v, weight=weight / club.degree(v, weight="weight"))
    return graph


def relax_members(friends: nx.DiGraph) -> dx.Solution:
    """Every member a node of its own, clamped by name."""
    topology = dx.Topology(dx.topologies.graph_layer(friends, features=()))
    friendship = dx.scale(weight="weight", fixed=True)
    network = dx.Network(topology, {"lateral": friendship}, dx.identity, key=jax.random.key(0))
    start = dx.GraphState(topology).init(
        {member: np.full(1, label, np.float32) for member, label in LABELS.items()}
    )
    return dx.relax(network, start, clamp=list(LABELS))


def relax_whole(friends: nx.DiGraph) -> dx.Solution:
    """The club as one node, clamped by a mask; any jraph model is a coupling."""
    topology = dx.Topology(dx.topologies.graph_layer(friends, features=1, whole=True))
    model = jraph.GraphNetwork(
        update_edge_fn=lambda weight, sent, received, globals_: weight * sent,
        update_node_fn=lambda nodes, sent, received, globals_: received,
    )
    network = dx.Network(
        topology, {"lateral": dx.graph_conv(model, friends)}, dx.identity, key=jax.random.key(0)
    )
    labels = np.zeros((1, len(friends), 1), np.float32)
    labels[0, list(LABELS), 0] = list(LABELS.values())
    return dx.relax(
        network, dx.GraphState(topology).init({"layer": labels}), clamp={"layer": labels[0] != 0}
    )


def picture(club: nx.Graph, state: dx.GraphState, wrong: list[int]) -> plt.Figure:
    """Colour is the state, a square was told its side, a ring is wrong."""
    figure, ax = plt.subplots(figsize=(9, 6), layout="constrained")
    found = nx.kamada_kawai_layout(club, weight=None)
    place = {member: (-y, x) for member, (x, y) in found.items()}
    dx.plots.state(state, ax=ax, place=place)
    figure.colorbar(ax.collections[-1], shrink=0.6).set_ticks(
        [-1, 0, 1], labels=["the Officer", "undecided", "Mr. Hi"]
    )
    for members, marker, size in (list(LABELS), "s", 1100), (wrong, "o", 900):
        x, y = np.transpose([place[member] for member in members])
        ax.scatter(x, y, size, "none", marker=marker, edgecolors="k", linewidths=2.5)
    for dark in (False, True):  # white on what is dark
        names = {member: member for member in club if (abs(state[member][0]) > 0.6) == dark}
        colour = "w" if dark else "k"
        nx.draw_networkx_labels(club, place, names, ax=ax, font_size=9, font_color=colour)
    ax.set_title(
        f"{len(club) - len(wrong)} of {len(club)} members on the side they took; squares were "
        "told, a ring is wrong"
    )
    return figure


def main(arguments: list[str] | None = None):
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(arguments)

    club = nx.karate_club_graph()
    friends = means(club)
    members, whole = relax_members(friends), relax_whole(friends)
    side = np.array([members.state[member][0] for member in club])
    mr_hi = np.array([faction == "Mr. Hi" for _, faction in club.nodes(data="club")])
    wrong = np.flatnonzero((side > 0) != mr_hi).tolist()

    print(f"settled          {bool(members.settled[0])}, in {int(members.steps[0])} passes")
    print(f"accuracy         {1 - len(wrong) / len(club):.3f}")
    for member in wrong:
        print(f"wrong            {member}, of {club.nodes[member]['club']}, at {side[member]:.3f}")
    print(f"as one node      differs by {np.abs(whole.state['layer'][0, :, 0] - side).max():.1e}")
    picture(club, members.state, wrong).savefig("karate_club.png", dpi=150)
    print("drawn in karate_club.png")


if __name__ == "__main__":
    main()
