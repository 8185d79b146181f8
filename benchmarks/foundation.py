"""Compile time and steady passes, beside hand-written loops that do the same arithmetic.

Prints the tables of docs/benchmarks.md.

Ratios are medians over interleaved rounds of one run, so that a shared machine disturbs both sides
alike. Usage:

    python benchmarks/foundation.py
"""

import pickle
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved, processor, ratio, timed

import darnax as dx

WIDTH, BATCH = 64, 32


def chain(layers):
    """A chain of layers of 64 sign units with all three kinds of edges, and a random state of
    it.
    """
    topology = dx.Topology(dx.topologies.sequential([WIDTH] * layers))
    network = dx.Network(
        topology, dict.fromkeys(topology.edge_kinds, dx.dense()), dx.sign, key=jax.random.key(0)
    )
    return network, spins(topology)


def recurrent(units):
    """One population of sign units, all to all."""
    graph = dx.topologies.sequential([8, units, 8], backward=False)
    graph.remove_nodes_from([0, 2])
    topology = dx.Topology(graph)
    network = dx.Network(topology, {"recurrent": dx.dense()}, dx.sign, key=jax.random.key(0))
    return network, spins(topology)


def spins(topology):
    rng = np.random.default_rng(0)
    state = dx.GraphState(topology, BATCH)
    return state.replace(
        jax.tree.map(lambda a: jnp.asarray(rng.choice([-1.0, 1.0], a.shape), a.dtype), state.arrays)
    )


def sign(field):
    return jnp.where(field >= 0, 1, jnp.where(field < 0, -1, field))


def chain_by_hand(network, state):
    """The pass of a chain on bare arrays `(layers, units, B)`, as one would write it once and for
    all.
    """
    weights = {
        kind: [bundle.weight for bundle in bundles] for kind, bundles in network.couplings.items()
    }
    hidden = len(network.topology) - 2
    forward, backward, loop = weights["forward"][0], weights["backward"][0], weights["recurrent"][0]
    order = [
        network.topology.edge(int(e)) for e in network.topology.parameter_blocks["forward"][0].edges
    ]
    first, last = order.index((0, 1)), order.index((hidden, hidden + 1))
    inner = jnp.asarray([order.index((i, i + 1)) for i in range(1, hidden)], int)
    order = [
        network.topology.edge(int(e))
        for e in network.topology.parameter_blocks["backward"][0].edges
    ]
    top = order.index((hidden + 1, hidden))
    back = jnp.asarray([order.index((i + 1, i)) for i in range(1, hidden)], int)
    x = state.arrays["input(64,)"][0]
    w = (forward[first], forward[inner], forward[last], backward[back], backward[top], loop)

    def one_pass(carry, w):
        h, y = carry
        w_in, w_up, w_out, w_down, w_top, w_loop = w
        up, down, own = w_up @ h[:-1], w_down @ h[1:], w_loop @ h
        bottom = sign(down[0] + w_in @ x + own[0])[None]
        middle = sign(down[1:] + up[:-1] + own[1:-1])
        top = sign(w_top @ y[0] + up[-1] + own[-1])[None]
        return jnp.concatenate([bottom, middle, top]), sign(w_out @ h[-1])[None]

    return one_pass, (state.arrays["hidden(64,)"], state.arrays["output(64,)"]), w


def recurrent_by_hand(network, state):
    (bundle,) = network.couplings["recurrent"]
    (h,) = state.arrays.values()
    return (lambda h, w: sign(w[0] @ h[0])[None]), h, bundle.weight


def passes_for(network):
    """As many passes as make one call long enough to time: fewer for large networks."""
    units = sum(np.prod(spec.shape) for spec in network.topology.arrays.values())
    return int(np.clip(600_000 // units, 50, 2000))


def first_step(layers):
    """Seconds of the first jitted step less one steady pass, all caches empty; and seconds to
    build.
    """
    begin = time.perf_counter()
    network, state = chain(layers)
    jax.block_until_ready(jax.tree.leaves(eqx.filter(network, eqx.is_array)))
    build = time.perf_counter() - begin
    step = eqx.filter_jit(dx.step)
    times = []
    for _ in range(3):
        jax.clear_caches()
        first = timed(lambda: step(network, state))
        times.append(first - timed(lambda: step(network, state)))
    return statistics.median(times), build


def steady(network, state, by_hand):
    """Milliseconds a pass of ours and by hand, and their ratio."""
    one_pass, carry, w = by_hand(network, state)
    passes = passes_for(network)
    hand = jax.jit(
        lambda carry, w: jax.lax.scan(lambda c, _: (one_pass(c, w), None), carry, length=passes)[0]
    )
    ours, theirs = interleaved(
        lambda: dx.rollout(network, state, passes)[0], lambda: hand(carry, w)
    )
    np.testing.assert_array_equal(
        np.asarray(jax.tree.leaves(hand(carry, w))[0]),
        next(
            np.asarray(a)
            for n, a in dx.rollout(network, state, passes)[0].arrays.items()
            if n.startswith("hidden")
        ),
    )
    return (
        statistics.median(ours) / passes * 1e3,
        statistics.median(theirs) / passes * 1e3,
        ratio(ours, theirs),
    )


def relaxing(network, state):
    """`relax` against `rollout`, a pass."""

    def relax():
        return dx.relax(network, state, max_steps=passes_for(network), tol=0.0)

    passes = int(relax().steps.max())
    ours, theirs = interleaved(relax, lambda: dx.rollout(network, state, passes)[0])
    return statistics.median(ours) / passes * 1e3, ratio(ours, theirs)


def large():
    """What an equal copy of a topology of 100,000 nodes adds to a jitted call; an eager step
    outside the device.
    """
    n = 100_000
    receivers = np.arange(n)
    topology = dx.Topology.from_edges((receivers + 1) % n, receivers, n=n)
    other = pickle.loads(pickle.dumps(topology))
    fresh = dx.Topology.from_edges((receivers + 1) % n, receivers, n=n)
    network = dx.Network(topology, {"edge": dx.relay()}, dx.identity, key=jax.random.key(0))
    touch = eqx.filter_jit(lambda state: state.batch_size)
    states = [dx.GraphState(t) for t in (topology, other, fresh)]
    columns = interleaved(*[lambda s=s: [touch(s) for _ in range(100)] for s in states])
    copy, equal = (
        statistics.median(column) - statistics.median(columns[0]) for column in columns[1:]
    )
    small = dx.Topology.from_edges([1, 0], [0, 1])
    tiny = dx.Network(small, {"edge": dx.relay()}, dx.identity, key=jax.random.key(0))
    at_large, at_small = interleaved(
        lambda: [dispatch(network, states[0]) for _ in range(20)],
        lambda: [dispatch(tiny, dx.GraphState(small)) for _ in range(20)],
    )
    return (
        copy * 10,
        equal * 10,
        statistics.median(at_large) / 20 * 1e3,
        statistics.median(at_small) / 20 * 1e3,
    )


def dispatch(network, state):
    """An eager step up to the moment where the device has the work."""
    return dx.step(network, state).arrays


def main():
    print(f"{processor()}\n")
    columns = (
        "first step, s",
        "of L = 4",
        "build, s",
        "pass, ms",
        "by hand, ms",
        "ratio",
        "relax / rollout",
    )
    print("| chain of L layers of 64 units, batch 32 |", " | ".join(columns), "|")
    print("|---|" + "--:|" * len(columns))
    base = None
    for layers in (4, 64, 256, 1024):
        compile_time, build = first_step(layers)
        base = base or compile_time
        network, state = chain(layers)
        ours, theirs, against = steady(network, state, chain_by_hand)
        _, relaxed = relaxing(network, state)
        first = f"{compile_time:.2f} | {compile_time / base:.2f} | {build:.2f}"
        print(
            f"| L = {layers} | {first} | {ours:.3f} | {theirs:.3f} | {against:.2f} | {relaxed:.2f} "
            "|"
        )
    network, state = recurrent(2000)
    ours, theirs, against = steady(network, state, recurrent_by_hand)
    _, relaxed = relaxing(network, state)
    print(
        f"| one recurrent layer of 2,000 units | | | | {ours:.3f} | {theirs:.3f} | {against:.2f} | "
        f"{relaxed:.2f} |"
    )
    copy, equal, at_large, at_small = large()
    print("\n| 100,000 nodes | ms |\n|---|--:|")
    print(f"| what an unpickled copy of the topology adds to a jitted call | {copy:.4f} |")
    print(f"| what an equal topology built anew adds | {equal:.4f} |")
    print(f"| an eager step, dispatched and finished, at B = 1 | {at_large:.2f} |")
    print(f"| the same on 2 nodes | {at_small:.2f} |")


if __name__ == "__main__":
    main()
