"""What it takes to draw a large topology with networkx, to compile it, and to do without the
drawing.

Prints a table of docs/benchmarks.md. Usage:

    python benchmarks/topologies.py
"""

import gc
import statistics
import tracemalloc

import networkx as nx
import numpy as np
from timing import interleaved, processor, ratio

import darnax as dx


def torus(side):
    """The torus of networkx, drawn in both directions and annotated."""
    graph = nx.grid_2d_graph(side, side, periodic=True).to_directed()
    nx.set_node_attributes(graph, (), "shape")
    nx.set_node_attributes(graph, "unit", "kind")
    nx.set_edge_attributes(graph, "lateral", "kind")
    return graph


def annotated(n, senders, receivers):
    """Edges given as lists, drawn one by one."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n), shape=(), kind="unit")
    graph.add_edges_from(zip(senders, receivers, strict=True), kind="lateral")
    return graph


def ends_of(graph):
    """The edges as columns of positions."""
    position = {node: i for i, node in enumerate(graph)}
    return np.asarray([(position[u], position[v]) for u, v in graph.edges]).T


def retained(make):
    """Megabytes that what a call returns keeps alive."""
    gc.collect()
    tracemalloc.start()
    kept = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return size / 1e6


def compile_(make, *arguments, **options):
    """A topology with its edge groups, and nothing that an earlier round has left alive."""
    topology = make(*arguments, **options)
    assert topology.groups
    return topology


def case(name, draw, build):
    graph = build()
    senders, receivers = ends_of(graph)
    calls = {
        "networkx": draw,
        "builder": build,
        "compile": lambda: compile_(dx.Topology, graph),
        "arrays": lambda: compile_(
            dx.Topology.from_edges,
            senders,
            receivers,
            n=len(graph),
            kind="unit",
            edge_kind="lateral",
        ),
    }
    times = dict(zip(calls, interleaved(*calls.values(), rounds=5), strict=True))
    seconds = " | ".join(f"{statistics.median(column):.2f}" for column in times.values())
    ratios = [ratio(times["compile"], times["networkx"]), ratio(times["networkx"], times["arrays"])]
    memory = [retained(calls[name]) for name in ("builder", "compile", "arrays")]
    print(f"| {name} | {seconds} |", " | ".join(f"{number:.2f}" for number in ratios), end=" | ")
    print(" | ".join(f"{number:.0f}" for number in memory), "|")


def main():
    columns = ("networkx, s", "builder, s", "`Topology`, s", "`from_edges`, s")
    columns += (
        "`Topology` / networkx",
        "networkx / `from_edges`",
        "graph, MB",
        "`Topology`, MB",
        "`from_edges`, MB",
    )
    print(f"{processor()}\n")
    print("| topology |", " | ".join(columns), "|")
    print("|---|" + "--:|" * len(columns))
    side, n, degree = 512, 100_000, 16
    case(
        f"torus of {side} × {side}",
        lambda: torus(side),
        lambda: dx.topologies.lattice((side, side)),
    )
    ends = [column.tolist() for column in ends_of(dx.topologies.random(n, degree=degree))]
    case(
        f"random, {n:,} nodes of degree {degree}",
        lambda: annotated(n, *ends),
        lambda: dx.topologies.random(n, degree=degree),
    )


if __name__ == "__main__":
    main()
