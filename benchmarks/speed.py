"""Passes, sweeps and training steps beside what else one could use, and beside what the machine
allows.

Every row is timed in interleaved rounds of one run. thrml, and torch with PyTorch Geometric, stand
in environments of their own, named by `--thrml PYTHON` and `--torch PYTHON`; without, their columns
are missing. They run right after the row that they belong to. Prints a table of docs/benchmarks.md.
Usage:

    python benchmarks/speed.py
    python benchmarks/speed.py --only lattice ising
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import networkx as nx
import numpy as np
import optax
import scipy.sparse as sp
from ising import torus
from timing import interleaved, processor, ratio, spread, timed

import darnax as dx

PASSES, KEY = 50, jax.random.key(0)
RNG = np.random.default_rng(0)


def clip(x):
    return jnp.clip(x, -1, 1)


CLIP = dx.elementwise(clip)


def loop(one_pass, passes=PASSES):
    """That many passes as one compiled call."""
    return jax.jit(lambda w, x: jax.lax.fori_loop(0, passes, lambda _, x: one_pass(w, x), x))


def random_ends(units, edges):
    """About so many different edges between random units, none of them to itself."""
    pairs = np.unique(RNG.integers(0, units, edges) * units + RNG.integers(0, units, edges))
    pairs = pairs[pairs // units != pairs % units]
    return pairs // units, pairs % units


def random_state(topology, batch):
    state = dx.GraphState(topology, batch)
    return state.replace(
        jax.tree.map(lambda a: jnp.asarray(RNG.standard_normal(a.shape), a.dtype), state.arrays)
    )


def elsewhere(python, script, *arguments):
    """The numbers that a script beside this one prints in another environment; none without one."""
    if python is None:
        return []
    command = [python, Path(__file__).with_name(script), *map(str, arguments)]
    return list(
        map(
            float,
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(),
        )
    )


def report(name, ours, peers, passes=PASSES, limit=None, also=None):
    """A row: milliseconds a pass of ours and their spread, how many times longer each peer takes,
    and which share of the limit it is.

    `also` has milliseconds a pass of peers that ran elsewhere.
    """
    times = interleaved(ours, *peers.values(), *([] if limit is None else [limit]), rounds=9)
    cells = [
        f"{peer} {ratio(column, times[0]):.2g}"
        for peer, column in zip(peers, times[1:], strict=False)
    ]
    cells += [
        f"{peer} {time / statistics.median(times[0]) * passes / 1e3:.2g}"
        for peer, time in (also or {}).items()
    ]
    share = "" if limit is None else f"{ratio(times[-1], times[0]):.0%}"
    print(
        f"| {name} | {statistics.median(times[0]) / passes * 1e3:.3f} ± {spread(times[0]):.0%} | "
        f"{', '.join(cells)} | {share} |",
        flush=True,
    )


def strengths(name, senders, receivers, units, batch, also=None):
    """Weights on the edges of a graph of single units."""
    passes = PASSES if units > 10_000 else 10 * PASSES
    topology = dx.Topology.from_edges(senders, receivers, n=units)
    network = dx.Network(topology, {"edge": dx.scale(0.1)}, CLIP, key=KEY)
    state = random_state(topology, batch)
    (spec,) = state.arrays
    group = topology.groups[0]
    s, r, w = (
        jnp.asarray(group.senders),
        jnp.asarray(group.receivers),
        network.couplings["edge"][0].strength,
    )
    matrix = sp.csr_matrix((np.asarray(w), (group.receivers, group.senders)), shape=(units, units))
    x = state.arrays[spec]
    by_hand = np.asarray(x) if batch > 1 else np.asarray(x[:, 0])

    def segments(w, x):
        return clip(
            jraph.segment_sum(w[2][:, None] * x[w[0]], w[1], units, indices_are_sorted=True)
        )

    def scipy_passes():
        y = by_hand
        for _ in range(passes):
            y = np.clip(matrix @ y, -1, 1)

    slots = jnp.asarray(RNG.integers(0, units, (max(len(senders) // units, 1), units)), jnp.int32)

    def gathers(slots, x):
        return 0.1 * sum(
            x.at[rows].get(mode="promise_in_bounds", wrap_negative_indices=False) for rows in slots
        )

    jraph_loop, limit = loop(segments, passes), loop(gathers, passes)
    report(
        name,
        lambda: dx.rollout(network, state, passes)[0].arrays,
        {"jraph": lambda: jraph_loop((s, r, w), x), "scipy": scipy_passes},
        limit=lambda: limit(slots, x),
        passes=passes,
        also=also,
    )


def irregular(options):
    print(f"{dx.kernels.native_library()}", file=sys.stderr)
    for units, edges in ((2000, 40_000), (10_000, 500_000), (100_000, 1_600_000)):
        ends = random_ends(units, edges)
        for batch in (1, 4, 16, 64):
            found = elsewhere(options.torch, "torch_peers.py", "graph", units, edges, batch)
            name = f"random graph, {units:,} units, {edges:,} edges, B = {batch}"
            strengths(
                name, *ends, units, batch, also=dict(zip(("torch CSR", "PyG"), found, strict=False))
            )
    pairs = np.asarray(nx.barabasi_albert_graph(100_000, 8, seed=0).edges).T
    ends = np.concatenate([pairs, pairs[::-1]], axis=1)
    strengths(f"scale-free, 100,000 units, {ends.shape[1]:,} edges, B = 16", *ends, 100_000, 16)


def lattice(options):
    for batch in (1, 8):
        strengths(f"torus 512 × 512, a weight an edge, B = {batch}", *torus(512), batch)
    for batch in (1, 8, 32):
        senders, receivers, units = torus(512)
        passes = []
        for dtype in ("int8", "float32"):
            topology = dx.Topology.from_edges(senders, receivers, n=units, dtype=dtype)
            network = dx.Network(topology, {"edge": dx.scale(0.1)}, dx.sign, key=KEY)
            state = dx.GraphState(topology, batch)
            state = state.replace(
                jax.tree.map(
                    lambda a: jnp.asarray(RNG.choice([-1, 1], a.shape), a.dtype), state.arrays
                )
            )
            passes.append(lambda n=network, s=state: dx.rollout(n, s, PASSES)[0].arrays)
        report(f"the same, spins in int8, B = {batch}", passes[0], {"in float32": passes[1]})


def graph_layer(options):
    vertices, edges, features = 10_000, 160_000, 64
    senders, receivers = random_ends(vertices, edges)
    topology = dx.Topology.from_edges(
        senders, receivers, n=vertices, shape=(features,), tie="shared"
    )
    network = dx.Network(topology, {"edge": dx.dense(gain=0.1)}, CLIP, key=KEY)
    both = dx.Network(
        topology, {"edge": dx.edge_mlp(features, jax.nn.relu, gain=0.1)}, CLIP, key=KEY
    )
    state = random_state(topology, 1)
    x = next(iter(state.arrays.values()))[..., 0]
    weight, mlp = network.couplings["edge"][0].weight, both.couplings["edge"][0]
    graph = jraph.GraphsTuple(
        x,
        None,
        jnp.asarray(receivers),
        jnp.asarray(senders),
        None,
        jnp.asarray([vertices]),
        jnp.asarray([len(senders)]),
    )

    def convolve(given, x):
        weight, graph = given
        layer = jraph.GraphConvolution(
            lambda nodes: nodes @ weight.T, add_self_edges=False, symmetric_normalization=False
        )
        return clip(layer(graph._replace(nodes=x)).nodes)

    def message(given, x):
        mlp, graph = given
        first = jnp.concatenate([mlp.sender_weight, mlp.receiver_weight], axis=1)

        def of_edges(edges, sent, received, context):
            return (
                jax.nn.relu(jnp.concatenate([sent, received], axis=1) @ first.T + mlp.bias)
                @ mlp.weight.T
            )

        layer = jraph.GraphNetwork(
            of_edges, update_node_fn=lambda nodes, sent, received, context: received
        )
        return clip(layer(graph._replace(nodes=x)).nodes)

    slots = jnp.asarray(RNG.integers(0, vertices, (edges // vertices, vertices)), jnp.int32)
    limit = loop(
        lambda slots, x: 0.1 * sum(x.at[rows].get(mode="promise_in_bounds") for rows in slots)
    )
    convolving, messaging = loop(convolve), loop(message, passes=5)
    report(
        "graph layer, 10,000 vertices, 160,000 edges, 64 features, one matrix",
        lambda: dx.rollout(network, state, PASSES)[0].arrays,
        {"jraph.GraphConvolution": lambda: convolving((weight, graph), x)},
        limit=lambda: limit(slots, x),
    )
    report(
        "the same, perceptrons of both ends with 64 hidden units",
        lambda: dx.rollout(both, state, 5)[0].arrays,
        {"jraph.GraphNetwork": lambda: messaging((mlp, graph), x)},
        passes=5,
    )


def matrices(options):
    nodes, edges, units, batch = 512, 2048, 32, 32
    senders, receivers = random_ends(nodes, edges)
    topology = dx.Topology.from_edges(senders, receivers, n=nodes, shape=(units,))
    network = dx.Network(topology, {"edge": dx.dense(gain=0.3)}, CLIP, key=KEY)
    state, group = random_state(topology, batch), topology.groups[0]
    x = next(iter(state.arrays.values()))
    given = (
        network.couplings["edge"][0].weight,
        jnp.asarray(group.senders),
        jnp.asarray(group.receivers),
    )

    def einsum(given, x):
        weight, senders, receivers = given
        return clip(
            jraph.segment_sum(jnp.einsum("eij,ejb->eib", weight, x[senders]), receivers, nodes)
        )

    peer = loop(einsum)
    report(
        "512 nodes of 32 units, 2,048 matrices, B = 32",
        lambda: dx.rollout(network, state, PASSES)[0].arrays,
        {"einsum and segment_sum": lambda: peer(given, x)},
        also=dict(
            zip(["torch bmm"], elsewhere(options.torch, "torch_peers.py", "matrices"), strict=False)
        ),
    )


def windows(options):
    """A convolution of an image that changes from pass to pass, drawn as two nodes and as windows
    on a shared array.
    """
    drawn = nx.DiGraph()
    drawn.add_node("image", shape=(28, 28, 1))
    drawn.add_node("features", shape=(24, 24, 16))
    drawn.add_edge("image", "features", kind="forward")
    views = dx.topologies.convolutional((28, 28, 1), window=5, features=16)
    kernel = 0.2 * jnp.asarray(RNG.standard_normal((5, 5, 1, 16)), jnp.float32)

    def convolve(kernel, now):
        image, _ = now
        numbers = "NHWC", "HWIO", "NHWC"
        features = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "VALID", dimension_numbers=numbers
        )
        return clip(image), clip(features)

    peers, peer = {}, loop(convolve)
    images = (
        jnp.asarray(RNG.standard_normal((64, 28, 28, 1)), jnp.float32),
        jnp.zeros((64, 24, 24, 16)),
    )
    peers["lax.conv"] = lambda: peer(kernel, images)
    for name, graph, coupling in (
        ("two nodes", drawn, dx.conv(5, padding="VALID")),
        ("windows on a shared array", views, dx.dense()),
    ):
        graph.add_edge("image", "image", kind="hold")
        topology = dx.Topology(graph, inputs=[])
        network = dx.Network(topology, {"forward": coupling, "hold": dx.relay()}, CLIP, key=KEY)
        state = random_state(network.topology, 64)
        report(
            f"5 × 5 windows on 28 × 28, 16 filters, B = 64, {name}",
            lambda network=network, state=state: dx.rollout(network, state, PASSES)[0].arrays,
            peers,
            also=dict(
                zip(
                    ["torch conv2d"],
                    elsewhere(options.torch, "torch_peers.py", "windows"),
                    strict=False,
                )
            ),
        )


def ising(options):
    for side, chains in ((64, 1), (64, 32), (512, 1)):
        rate, built, first = elsewhere(sys.executable, "ising.py", side, chains)
        line = (
            f"| heat bath on a torus {side} × {side}, two colours, {chains} "
            f"chain{'s' * (chains > 1)} "
        )
        line += (
            f"| {rate:.0f} M updates/s, program {built:.2f} s, {first:.1f} s to the first sample | "
        )
        if found := elsewhere(options.thrml, "thrml_ising.py", side, chains):
            theirs, program, begun = found
            line += (
                f"thrml {rate / theirs:.2g}, program {program / built:.2g}, to the first sample "
                f"{begun / first:.2g}"
            )
        print(line + " | |", flush=True)


def training(options):
    """The 784-2000-10 network of sparse couplings, 1 + 5 + 5 passes, perceptron rule, plain
    descent, batch 16.
    """

    def wiring(receivers, senders, density):
        return sp.random(
            receivers,
            senders,
            density,
            random_state=0,
            data_rvs=lambda n: RNG.standard_normal(n) * 0.1,
        )

    g = nx.DiGraph()
    g.add_node("x", shape=(784,))
    g.add_node("h", shape=(2000,), kind="hidden")
    g.add_node("y", shape=(10,), kind="output")
    for u, v, kind in (
        ("x", "h", "input"),
        ("h", "h", "recurrent"),
        ("h", "y", "readout"),
        ("y", "h", "feedback"),
    ):
        g.add_edge(u, v, kind=kind)
    couplings = {
        "input": dx.sparse(wiring(2000, 784, 0.1)),
        "recurrent": dx.sparse(wiring(2000, 2000, 0.01)),
        "readout": dx.dense(),
        "feedback": dx.dense(),
    }
    network = dx.Network(dx.Topology(g, inputs=["x"], outputs=["y"]), couplings, dx.sign, key=KEY)
    rules = {kind: dx.perceptron(1.0) for kind in ("input", "recurrent", "readout")}
    phases = [
        dx.Phase("warm-up", steps=1, settle=False, silence=["y"]),
        dx.Phase("clamped", steps=5, settle=False, clamp=["y"]),
        dx.Phase("free", steps=5, settle=False, silence=["y"]),
    ]
    learning, optimiser = dx.DynamicalLearning(rules, phases), optax.sgd(0.01)
    x = jnp.asarray(RNG.standard_normal((16, 784)), jnp.float32)
    y = {"y": dx.one_vs_all(RNG.integers(0, 10, 16), 10)}
    params, rest = dx.partition(network, rules)
    matrix = jnp.asarray(RNG.standard_normal((2000, 2000)), jnp.float32)
    columns = jnp.asarray(RNG.standard_normal((2000, 16)), jnp.float32)

    @eqx.filter_jit
    def steps(params, memory, rest, x, y):
        def one(now, _):
            params, memory = now
            updates, *_ = learning.updates(eqx.combine(params, rest), x, y, jnp.ones(16, bool))
            change, memory = optimiser.update(updates, memory, params)
            return (optax.apply_updates(params, change), memory), None

        return jax.lax.scan(one, (params, memory), length=PASSES)[0]

    memory, peer = optimiser.init(params), loop(lambda w, x: clip(w @ x))

    def ours():
        return steps(params, memory, rest, x, y)

    first = timed(ours)
    ours, theirs = interleaved(ours, lambda: peer(matrix, columns), rounds=9)
    print(
        f"| training step, 784-2000-10, sparse | {statistics.median(ours) / PASSES * 1e3:.2f} | a "
        f"dense product 2000 × 2000 at B = 16: {ratio(theirs, ours):.2f}; {first:.1f} s to compile "
        "| |",
        flush=True,
    )


def relaxing(options):
    """A chain of four layers, to rest, beside the loop one would write for it on bare arrays."""
    sizes, batch = (64, 256, 256, 10), 64
    topology = dx.Topology(dx.topologies.sequential(sizes))
    couplings = {"forward": dx.dense(0.5), "backward": dx.dense(0.3), "recurrent": dx.dense(0.3)}
    network = dx.Network(topology, couplings, dx.tanh, key=KEY)
    state = dx.GraphState(topology).init(RNG.standard_normal((batch, 64)))
    edges = [(0, 1), (1, 2), (2, 3), (2, 1), (3, 2), (1, 1), (2, 2)]
    w = {edge: network[edge].weight for edge in edges}
    x, *rest = (jnp.moveaxis(state[node], 0, -1) for node in range(4))

    @jax.jit
    def by_hand(w, x, rest):
        seen = w[0, 1] @ x

        def one_pass(now):
            states, _, active, steps = now
            a, b, c = states
            new = (
                jnp.tanh(seen + w[2, 1] @ b + w[1, 1] @ a),
                jnp.tanh(w[1, 2] @ a + w[3, 2] @ c + w[2, 2] @ b),
                jnp.tanh(w[2, 3] @ b),
            )
            change = [jnp.max(jnp.abs(s - t), axis=0) for s, t in zip(new, states, strict=True)]
            residual = jnp.maximum(jnp.maximum(*change[:2]), change[2])
            states = tuple(jnp.where(active, s, t) for s, t in zip(new, states, strict=True))
            return states, residual, active & (residual > 1e-5), steps + active

        def going(now):
            return jnp.any(now[2]) & (jnp.max(now[3]) < 100)

        start = tuple(rest), jnp.zeros(batch), jnp.ones(batch, bool), jnp.zeros(batch, int)
        return jax.lax.while_loop(going, one_pass, start)

    relax = eqx.filter_jit(dx.relax)
    solution, found = relax(network, state), by_hand(w, x, rest)
    np.testing.assert_allclose(solution.state[2], found[0][1].T, atol=1e-5)
    passes = int(solution.steps.max())
    report(
        f"relaxation of a chain of 4 layers, {sizes[1]} hidden units, B = {batch}, {passes} passes",
        lambda: relax(network, state).state.arrays,
        {"a while_loop by hand": lambda: by_hand(w, x, rest)},
        passes=passes,
    )


def first(topology, coupling, schedule):
    """Seconds of the first jitted step with all caches empty, less one steady step; the median of
    three.
    """
    network = dx.Network(topology, dict.fromkeys(topology.edge_kinds, coupling), dx.tanh, key=KEY)
    state = dx.GraphState(topology, 16)
    step = eqx.filter_jit(lambda network, state: dx.step(network, state, schedule=schedule).arrays)
    times = []
    for _ in range(3):
        jax.clear_caches()
        begin = timed(lambda: step(network, state))
        times.append(begin - timed(lambda: step(network, state)))
    return statistics.median(times)


def compiling(options):
    """First steps of large networks beside small ones of the same sort."""

    def drawn(nodes):
        ends = random_ends(nodes, 4 * nodes)
        return dx.Topology.from_edges(*ends, n=nodes, shape=(16,)), dx.synchronous()

    def ring(colours):
        nodes = np.arange(8 * colours)
        ahead = np.arange(1, min(colours, 5))
        senders, receivers = (
            np.repeat(nodes, len(ahead)),
            (nodes[:, None] + ahead).ravel() % len(nodes),
        )
        colouring = dx.coloured(dict(enumerate((nodes % colours).tolist())))
        return dx.Topology.from_edges(senders, receivers, n=len(nodes), shape=(16,)), colouring

    def chain(layers):
        return dx.Topology(dx.topologies.sequential([16] * layers)), dx.synchronous()

    for name, make, large, small in (
        ("chain, 1,024 layers", chain, 1024, 4),
        ("random graph, 2,000 nodes of 16 units, 8,000 edges", drawn, 2000, 20),
        ("node by node, 1,024 nodes", lambda n: (drawn(n)[0], dx.node_by_node()), 1024, 20),
        ("64 colours", ring, 64, 8),
    ):
        ours, least = (
            first(topology, dx.dense(), schedule)
            for topology, schedule in map(make, (large, small))
        )
        print(
            f"| first step: {name} | {ours:.2f} s | that of {small} is {least / ours:.2f} of it | "
            "|",
            flush=True,
        )


def units(options):
    g = nx.DiGraph()
    g.add_node("spins", shape=(1000,))
    g.add_edge("spins", "spins")
    network = dx.Network(dx.Topology(g), {"edge": dx.dense(self_coupling=0.0)}, dx.sign, key=KEY)
    state = random_state(network.topology, 16)
    report(
        "unit by unit, one dense population of 1,000 units, B = 16",
        lambda: dx.rollout(network, state, PASSES, schedule=dx.unit_by_unit())[0].arrays,
        {"a synchronous pass": lambda: dx.rollout(network, state, PASSES)[0].arrays},
    )


def million(options):
    count, degree = 10**6, 8
    ends = random_ends(count, count * degree)
    begin = time.perf_counter()
    topology = dx.Topology.from_edges(*ends, n=count)
    network = dx.Network(topology, {"edge": dx.scale(0.1)}, dx.tanh, key=KEY)
    jax.block_until_ready(jax.tree.leaves(eqx.filter(network, eqx.is_array)))
    built = time.perf_counter() - begin
    held = sum(
        leaf.nbytes
        for leaf in {
            id(leaf): leaf for leaf in jax.tree.leaves(network) if eqx.is_array(leaf)
        }.values()
    )
    print(
        f"| one million units of degree 8: topology and network | {built:.1f} s, {held / 1e6:.0f} "
        "MB | | |"
    )
    strengths("one million units of degree 8, B = 1", *ends, count, 1)


ROWS = {
    "irregular": irregular,
    "lattice": lattice,
    "graph_layer": graph_layer,
    "matrices": matrices,
    "windows": windows,
    "ising": ising,
    "training": training,
    "relaxing": relaxing,
    "compiling": compiling,
    "units": units,
    "million": million,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--thrml", help="the Python of an environment that has thrml")
    parser.add_argument(
        "--torch", help="the Python of an environment that has torch and torch_geometric"
    )
    options = parser.parse_args()
    print(f"{processor()}\n")
    print("| one pass | ms | times as long take | share of the limit |\n|---|--:|---|--:|")
    for name in options.only:
        ROWS[name](options)


if __name__ == "__main__":
    main()
