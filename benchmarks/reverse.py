"""Passes of networks whose edges go both ways: shared weights beside weights of their own.

Each network has edges there and back. **own** has parameters for both, **shared** lets those back
be the transpose of those there, and **ratio** is how many times as long that takes: medians of
interleaved rounds. The plain way, the vector-Jacobian product of the couplings there at the present
state, is what a network without kernels for the way back would do: **VJP** is its ratio.

`--smoke` runs a few small rows once. Usage:

    python benchmarks/reverse.py
"""

import argparse
import statistics

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from timing import interleaved, processor, ratio, spread

import darnax as dx
from darnax.couplings.coupling import Coupling


class Plain(eqx.Module):
    """A coupling that shows nothing of how it is made: it is transposed by its derivative."""

    inner: Coupling

    def __call__(self, x, receiver=None):
        # `abs` is what makes JAX take it for a function that is not linear
        return self.inner(x) + 0 * jnp.abs(x).sum()


def hidden(factory):
    """A factory of the same couplings, which hides what they are."""

    def make(sender, receiver, *, edges):
        words = np.zeros(2, np.uint32)
        key = jax.random.wrap_key_data(jnp.asarray(words))
        return Plain(factory(sender, receiver, key, edges=edges))

    return make


def pair(sender, receiver):
    """Two nodes, and an edge."""
    graph = nx.DiGraph()
    graph.add_node("a", shape=sender)
    graph.add_node("b", shape=receiver)
    graph.add_edge("a", "b", kind="there")
    return graph


def random_graph(units, edges, size=(), tie=None):
    """Random edges, each one way."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, units, (edges, 2)), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    graph = nx.DiGraph()
    graph.add_nodes_from(range(units), shape=size)
    graph.add_edges_from(pairs.tolist(), kind="there", **({"tie": tie} if tie else {}))
    return graph


def wiring(units, edges):
    rng = np.random.default_rng(0)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(units))
    graph.add_edges_from(rng.integers(0, units, (edges, 2)).tolist())
    return graph


def windows(size, features):
    graph = dx.topologies.convolutional((size, size, 1), window=5, features=features)
    graph.graph["edge_kinds"] = ()
    for _, _, data in graph.edges(data=True):
        data["kind"] = "there"
    # The image moves as well.
    del graph.nodes["image"]["role"]
    return graph


def rows(small):
    """By name: a graph of edges there, the couplings there and back, and a batch."""
    n = 4 if small else 1
    big = 16 // n**2
    units = 2000 // n
    sums = wiring(units, 20 * units)
    turned = sums.reverse()
    return {
        f"dense, {64 * big} → {32 * big}": (pair(64 * big, 32 * big), dx.dense(), dx.dense(), 32),
        "convolution 5 × 5, stride 2, 32 × 32 × 8 → 16": (
            pair((32, 32, 8), (16, 16, 16)), dx.conv(5, 2), dx.conv_transpose(5, 2), 16 // n,
        ),
        "its transpose, back a convolution": (
            pair((16, 16, 16), (32, 32, 8)), dx.conv_transpose(5, 2), dx.conv(5, 2), 16 // n,
        ),
        f"dx.sparse, {units:,} units, 20 each": (
            pair(units, units), dx.sparse(sums, gain=1.0), dx.sparse(turned, gain=1.0), 16,
        ),
        f"weights of {units:,} single units, B = 1": (
            random_graph(units, 20 * units), dx.scale(0.1), dx.scale(0.1), 1,
        ),
        f"weights of {units:,} single units, B = 16": (
            random_graph(units, 20 * units), dx.scale(0.1), dx.scale(0.1), 16,
        ),
        f"{512 // n} nodes of 32 units, matrices": (
            random_graph(512 // n, 4096 // n, 32), dx.dense(), dx.dense(), 32,
        ),
        "the same, one matrix": (
            random_graph(512 // n, 4096 // n, 32, tie="t"), dx.dense(), dx.dense(), 32,
        ),
        "windows 5 × 5 on an image, 16 features": (
            windows(28 // n + 4, 16), dx.dense(), dx.dense(), 16,
        ),
    }  # fmt: skip


def network_of(graph, there, back):
    """The network with edges back."""
    graph = graph.copy()
    for u, v, data in list(graph.edges(data=True)):
        tie = {"tie": "back"} if "tie" in data else {}
        graph.add_edge(v, u, kind="back", **tie)
    couplings = {"there": there, "back": back}
    return dx.Network(dx.Topology(graph), couplings, dx.tanh, key=jax.random.key(0))


def kernel_back(network):
    """How the edges back are run."""
    for passing in network.message_passing:
        if passing.group.kind == "back":
            return passing.kernel.describe()[0] if passing.kernel else "edge by edge"
    raise AssertionError("edges go both ways")


def rolled(network, batch, passes):
    """So many passes from random states, as a call."""
    rng = np.random.default_rng(0)

    def draw(array):
        return jnp.asarray(rng.standard_normal(array.shape), array.dtype)

    state = dx.GraphState(network.topology, batch)
    state = state.replace(jax.tree.map(draw, state.arrays))
    return lambda: dx.rollout(network, state, passes)[0].arrays


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a few small rows, once")
    options = parser.parse_args()
    print(f"{processor()}\n")
    print("| both ways | B | own, ms | shared, ms | ratio | VJP | kernel back |")
    print("|---|--:|--:|--:|--:|--:|---|")
    table = list(rows(options.smoke).items())
    for name, (graph, there, back, batch) in table[::4] if options.smoke else table:
        networks = [
            network_of(graph, there, back),
            network_of(graph, there, dx.transpose("there")),
            network_of(graph, hidden(there), dx.transpose("there")),
        ]
        passes = 2 if options.smoke else 50
        calls = [rolled(network, batch, passes) for network in networks]
        times = interleaved(*calls, rounds=1 if options.smoke else 9)
        cells = []
        for column in times[:2]:
            cells.append(f"{1e3 * statistics.median(column) / passes:.3f} ± {spread(column):.0%}")
        for column in times[1:]:
            cells.append(f"{ratio(column, times[0]):.2f}")
        print(
            f"| {name} | {batch} | {' | '.join(cells)} | {kernel_back(networks[1])} |", flush=True
        )


if __name__ == "__main__":
    main()
