"""Relaxations to rest, beside the loop one would write, and without darnax's own ways to less work.

- **by hand** is a `while_loop` on bare arrays that freezes samples at rest. It finds no cycles.
- **all samples** and **all edges** are darnax with the samples at rest still worked out, and with
  every unit sending in every pass; **plain** is both.

Milliseconds a relaxation, medians of interleaved rounds and the spread of the middle half; then
how many times longer the others take. `--smoke` runs small networks once. Usage:

    python benchmarks/relaxing.py
    python benchmarks/relaxing.py --only dense
"""

import argparse
import importlib
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved, processor, ratio, spread

import darnax as dx

# `darnax.dynamics.relax` is the function.
relaxation = importlib.import_module("darnax.dynamics.relax")
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def spins(shape):
    return jnp.asarray(RNG.choice([-1.0, 1.0], shape), jnp.float32)


WAYS = "_widths", "followed_groups"


def without(*ways):
    """`relax` compiled with some of its ways to less work switched off."""
    usual = {way: getattr(relaxation, way) for way in ways}

    def relax(network, state):
        # programs are traced in the first call, which is the one to warm up
        for way in ways:
            setattr(relaxation, way, lambda *_: ())
        try:
            return compiled(network, state)
        finally:
            for way, function in usual.items():
                setattr(relaxation, way, function)

    compiled = eqx.filter_jit(lambda network, state: dx.relax(network, state))
    return relax


def report(name, network, state, others):
    """A row; `others` are calls by name."""
    relax = eqx.filter_jit(lambda network, state: dx.relax(network, state))
    begin = time.perf_counter()
    solution = jax.block_until_ready(relax(network, state))
    first = time.perf_counter() - begin
    times = interleaved(lambda: relax(network, state), *others.values(), rounds=ROUNDS)
    ours = [1e3 * seconds for seconds in times[0]]
    cells = [
        f"{other} {ratio(column, times[0]):.2f}"
        for other, column in zip(others, times[1:], strict=True)
    ]
    steps = solution.steps
    print(
        f"| {name} | {steps.mean():.1f} · {steps.max()} | {statistics.median(ours):.2f} ± "
        f"{spread(ours):.0%} | {', '.join(cells)} | {first:.1f} |",
        flush=True,
    )


def loop_by_hand(one_pass, states, passes=100):
    """Passes until all samples are at rest; `one_pass` maps a tuple of arrays, samples last."""

    def body(now):
        states, active, steps = now
        new = one_pass(states)
        change = [jnp.abs(a - b) for a, b in zip(new, states, strict=True)]
        residual = [jnp.max(c, axis=tuple(range(c.ndim - 1))) for c in change]
        states = tuple(jnp.where(active, a, b) for a, b in zip(new, states, strict=True))
        return states, active & (jnp.max(jnp.stack(residual), axis=0) > 1e-5), steps + active

    def going(now):
        return jnp.any(now[1]) & (jnp.max(now[2]) < passes)

    batch = states[0].shape[-1]
    return jax.lax.while_loop(
        going, body, (states, jnp.ones(batch, bool), jnp.zeros(batch, jnp.int32))
    )


def sign(field):
    return jnp.where(field >= 0, 1.0, -1.0)


def dense(small):
    """784-512 × 3-10 units of ±1, as they are taught with local rules, and one population."""
    sizes, batch = ((20, 16, 16, 16, 4), 16) if small else ((784, 512, 512, 512, 10), 256)
    couplings = {
        "forward": dx.dense(),
        "backward": dx.dense(0.5),
        "recurrent": dx.dense(0.5, self_coupling=1.0),
    }
    topology = dx.Topology(dx.topologies.sequential(sizes))
    network = dx.Network(topology, couplings, dx.sign, key=KEY)
    state = dx.GraphState(topology).init(spins((batch, sizes[0])))
    w = {edge: network[edge].weight for edge in topology.edges}
    loops = {node: w[node, node] + jnp.eye(sizes[node]) for node in (1, 2, 3)}
    x, *rest = (jnp.moveaxis(state[node], 0, -1) for node in range(5))

    @jax.jit
    def by_hand(w, loops, x, rest):
        seen = w[0, 1] @ x

        def one_pass(states):
            a, b, c, d = states
            return (
                sign(seen + loops[1] @ a + w[2, 1] @ b),
                sign(w[1, 2] @ a + loops[2] @ b + w[3, 2] @ c),
                sign(w[2, 3] @ b + loops[3] @ c + w[4, 3] @ d),
                sign(w[3, 4] @ c),
            )

        return loop_by_hand(one_pass, tuple(rest))

    every, plain = without("followed_groups"), without(*WAYS)
    found = by_hand(w, loops, x, rest)
    solution = dx.relax(network, state)
    # a field near zero may take another sign where it is summed in another order
    same = np.mean(np.asarray(solution.state[2]) == np.asarray(found[0][1]).T)
    assert same > 0.99, same
    report(
        f"{'-'.join(map(str, sizes))}, sign, dense, B = {batch}",
        network,
        state,
        {
            "by hand": lambda: by_hand(w, loops, x, rest),
            "all edges": lambda: every(network, state),
            "plain": lambda: plain(network, state),
        },
    )
    units = 32 if small else 1024
    topology = dx.Topology.from_edges([0], [0], n=1, shape=units)
    network = dx.Network(topology, {"edge": dx.dense(self_coupling=1.0)}, dx.sign, key=KEY)
    state = dx.GraphState(topology, batch)
    state = state.replace(jax.tree.map(lambda a: spins(a.shape), state.arrays))
    report(
        f"{units} units, sign, dense, B = {batch}",
        network,
        state,
        {
            "all edges": lambda: every(network, state),
            "plain": lambda: plain(network, state),
        },
    )


def sparse(small):
    """Units of ±1 on a random graph, which hear themselves."""
    for units, degree in ((300, 10),) if small else ((10_000, 50), (10_000, 200)):
        for batch in (1, 4, 32):
            pairs = np.unique(RNG.integers(0, units**2, units * degree))
            pairs = pairs[pairs // units != pairs % units]
            nodes = np.arange(units)
            topology = dx.Topology.from_edges(
                np.concatenate([pairs // units, nodes]),
                np.concatenate([pairs % units, nodes]),
                n=units,
            )
            network = dx.Network(topology, {"edge": dx.scale(1.0)}, dx.sign, key=KEY)
            for i, group in enumerate(topology.groups):
                drawn = RNG.standard_normal(len(group.senders)) / np.sqrt(degree)
                strength = np.ones(len(drawn)) if group.self_loop else drawn
                old = network.couplings["edge"][i].strength
                network = eqx.tree_at(
                    lambda network, i=i: network.couplings["edge"][i].strength,
                    network,
                    jnp.asarray(strength.reshape(old.shape), old.dtype),
                )
            state = dx.GraphState(topology, batch)
            state = state.replace(jax.tree.map(lambda a: spins(a.shape), state.arrays))
            whole, every = without("_widths"), without("followed_groups")
            report(
                f"{units:,} units, sign, {degree} edges each, B = {batch}",
                network,
                state,
                {
                    "all samples": lambda n=network, s=state, f=whole: f(n, s),
                    "all edges": lambda n=network, s=state, f=every: f(n, s),
                },
            )


def conv(small):
    """An image of 32 channels that hears itself by a convolution."""
    side, channels, batch = (8, 4, 16) if small else (28, 32, 128)
    topology = dx.Topology.from_edges([0], [0], n=1, shape=(side, side, channels))
    network = dx.Network(topology, {"edge": dx.conv(3, gain=0.5)}, dx.tanh, key=KEY)
    state = dx.GraphState(topology, batch)
    draw = lambda a: jnp.asarray(RNG.standard_normal(a.shape), a.dtype)  # noqa: E731
    state = state.replace(jax.tree.map(draw, state.arrays))
    weight = network[0, 0].weight
    x = jnp.asarray(state[0])

    @jax.jit
    def by_hand(weight, x):
        def body(now):
            x, active, steps = now
            field = jax.lax.conv_general_dilated(
                x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            new = jnp.tanh(field)
            residual = jnp.max(jnp.abs(new - x), axis=(1, 2, 3))
            x = jnp.where(active[:, None, None, None], new, x)
            return x, active & (residual > 1e-5), steps + active

        def going(now):
            return jnp.any(now[1]) & (jnp.max(now[2]) < 100)

        return jax.lax.while_loop(
            going, body, (x, jnp.ones(len(x), bool), jnp.zeros(len(x), jnp.int32))
        )

    whole = without("_widths")
    np.testing.assert_allclose(dx.relax(network, state).state[0], by_hand(weight, x)[0], atol=1e-4)
    report(
        f"{side} × {side} × {channels}, tanh, 3 × 3 windows, B = {batch}",
        network,
        state,
        {
            "by hand, batch first": lambda: by_hand(weight, x),
            "all samples": lambda: whole(network, state),
        },
    )


def compiling(small):
    """Seconds to compile `relax` of a chain of layers of different widths."""
    for layers in (3,) if small else (10, 50):
        sizes = range(20, 20 + layers)
        topology = dx.Topology(dx.topologies.sequential(sizes))
        couplings = {
            "forward": dx.dense(),
            "backward": dx.dense(0.5),
            "recurrent": dx.dense(0.5),
        }
        network = dx.Network(topology, couplings, dx.tanh, key=KEY)
        state = dx.GraphState(topology).init(jnp.ones((8, sizes[0])))
        begin, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(dx.relax(network, state))
        seconds = time.perf_counter() - begin
        print(
            f"| first relaxation of {layers} widths | {seconds:.1f} s, "
            f"{time.process_time() - cpu:.1f} CPU-seconds | | | |",
            flush=True,
        )


SECTIONS = {"dense": dense, "sparse": sparse, "conv": conv, "compiling": compiling}
ROUNDS = 9


def main():
    global ROUNDS
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--smoke", action="store_true", help="small networks, once")
    options = parser.parse_args()
    if options.smoke:
        ROUNDS = 1
    print(f"{processor()}; {dx.kernels.native_library()}\n")
    print("| relaxation | passes, mean · most | ms | how many times longer | first call, s |")
    print("|---|--:|--:|---|--:|")
    for name in options.only:
        SECTIONS[name](options.smoke)


if __name__ == "__main__":
    main()
