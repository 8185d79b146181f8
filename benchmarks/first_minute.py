"""What a newcomer waits for: the import, the first network, single calls, many nodes.

    python benchmarks/first_minute.py

Every figure of a first time comes from a fresh process, in CPU-seconds; single calls are medians in
microseconds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from timing import processor

import darnax as dx


def readme_network():
    """The first network of the README."""
    g = nx.DiGraph()
    g.add_node("image", shape=(8, 8, 1))
    g.add_node("cortex", shape=100, kind="hidden")
    g.add_node("label", shape=10, kind="output")
    g.add_edge("image", "cortex", kind="forward")
    g.add_edge("cortex", "cortex", kind="recurrent")
    g.add_edge("cortex", "label", kind="forward")
    g.add_edge("label", "cortex", kind="feedback")
    topology = dx.Topology(g, inputs=["image"], outputs=["label"])
    recurrent = dx.dense(gain=0.5, self_coupling=1.0)
    couplings = {"forward": dx.dense(), "recurrent": recurrent, "feedback": dx.dense(gain=0.3)}
    return dx.Network(
        topology, couplings, {"hidden": dx.sign, "output": dx.tanh}, key=jax.random.key(0)
    )


def widths(count):
    """A chain of layers, each of another width."""
    sizes = list(range(20, 20 + count))
    topology = dx.Topology(dx.topologies.sequential(sizes, recurrent=False, backward=False))
    return dx.Network(topology, {"forward": dx.dense()}, dx.tanh, key=jax.random.key(0))


def first_relaxation():
    network = readme_network()
    state = dx.GraphState(network.topology).init(jnp.ones((32, 8, 8, 1)))
    return dx.relax(network, state).settled


def many_nodes(count=8000):
    """`init` of a mapping with a value for every node."""
    topology = dx.Topology.from_edges(
        np.arange(count), (np.arange(count) + 1) % count, n=count, shape=2
    )
    values = {node: np.ones((1, 2), np.float32) for node in range(count)}
    begin = time.process_time()
    dx.GraphState(topology).init(values)
    return time.process_time() - begin


FIRST = {
    "README's network": readme_network,
    "README's network, and its first relaxation": first_relaxation,
    "30 layers of different widths": lambda: widths(30),
    "300 layers of different widths": lambda: widths(300),
}


def imported(module):
    """CPU-seconds of a process that imports a module, as Python has compiled it before; the median
    of three.
    """
    code, environment = f"import time, {module}; print(time.process_time())", dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    times = []
    for _ in range(4):
        run = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        times.append(float(run.stdout))
    return statistics.median(times[1:])


def median_microseconds(call, calls=200):
    call()
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--first", choices=FIRST, help="print the CPU-seconds of one first time, and nothing else"
    )
    chosen = parser.parse_args().first
    if chosen is not None:
        begin = time.process_time()
        jax.block_until_ready(jax.tree.leaves(FIRST[chosen]()))
        print(time.process_time() - begin)
        return

    print(f"{processor()}\n\n| for the first time | CPU-seconds |\n|---|--:|")
    for module in ("jax", "equinox", "darnax"):
        print(f"| import {module} | {imported(module):.2f} |")
    for name in FIRST:
        run = subprocess.run(
            [sys.executable, __file__, "--first", name], check=True, capture_output=True, text=True
        )
        print(f"| {name} | {float(run.stdout):.2f} |")
    many_nodes(10)
    print(f"| `init` of a mapping of 8,000 nodes | {many_nodes():.2f} |")

    topology = readme_network().topology
    state = dx.GraphState(topology).init(jnp.ones((32, 8, 8, 1)))
    x, label = jnp.ones((32, 8, 8, 1)), jnp.ones((32, 10))
    calls = {
        "dx.GraphState(topology)": lambda: dx.GraphState(topology),
        "state.init(x)": lambda: state.init(x),
        "state.replace_val": lambda: state.replace_val("label", label),
        "state[node]": lambda: state["cortex"],
    }
    print("\n| one call | microseconds |\n|---|--:|")
    for name, call in calls.items():
        print(f"| `{name}` | {median_microseconds(call):.0f} |")


if __name__ == "__main__":
    main()
