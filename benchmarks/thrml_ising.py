"""The heat bath of `speed.py` in thrml: million updates a second, seconds to build it, and to the
first sample.

Usage, in an environment that has thrml: `python benchmarks/thrml_ising.py SIDE CHAINS`
"""

import sys
import time

import jax
import jax.numpy as jnp
from thrml import Block, SamplingSchedule, SpinNode, sample_states
from thrml.models import IsingEBM, IsingSamplingProgram, hinton_init


def main(side: int, chains: int):
    sweeps = 200 if side < 100 else 20
    begin = time.perf_counter()
    node = {(x, y): SpinNode() for x in range(side) for y in range(side)}
    edges = [
        (spin, node[(x + a) % side, (y + 1 - a) % side])
        for (x, y), spin in node.items()
        for a in (0, 1)
    ]
    model = IsingEBM(
        list(node.values()),
        edges,
        jnp.zeros(len(node)),
        jnp.ones(len(edges)),
        jnp.asarray(1 / 2.27),
    )
    colours = [
        Block([spin for (x, y), spin in node.items() if (x + y) % 2 == colour]) for colour in (0, 1)
    ]
    program = IsingSamplingProgram(model, colours, [])
    built = time.perf_counter() - begin
    schedule = SamplingSchedule(sweeps, 1, 1)
    start = hinton_init(jax.random.key(0), model, colours, (chains,))

    @jax.jit
    def sample(keys, start):
        return jax.vmap(
            lambda key, start: sample_states(key, program, schedule, start, [], colours)
        )(keys, start)

    def once():
        return jax.block_until_ready(sample(jax.random.split(jax.random.key(1), chains), start))

    once()
    first = time.perf_counter() - begin
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        once()
        times.append(time.perf_counter() - begin)
    print(side * side * chains * (sweeps + 1) / min(times) / 1e6, built, first)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
