"""The heat bath of `speed.py`: million updates a second, seconds to build it, and to the first
sample.

Run by `speed.py` in a process of its own, as its peer is: `python benchmarks/ising.py SIDE CHAINS`
"""

import sys
import time

import equinox as eqx
import jax
import numpy as np
from timing import timed

import darnax as dx


def torus(side):
    """Senders and receivers on a square lattice, and how many nodes there are."""
    rows = np.arange(side * side)
    x, y = rows // side, rows % side
    near = [((x + a) % side) * side + (y + b) % side for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    return np.concatenate(near), np.tile(rows, 4), side * side


def main(side: int, chains: int):
    sweeps = 200 if side < 100 else 20
    begin = time.perf_counter()
    key = jax.random.key(0)
    keyed = time.perf_counter()  # the peer makes its key after its program
    senders, receivers, units = torus(side)
    topology = dx.Topology.from_edges(senders, receivers, n=units)
    network = dx.Network(topology, {"edge": dx.scale(1.0)}, dx.glauber(2.27), key=key)
    jax.block_until_ready(jax.tree.leaves(eqx.filter(network, eqx.is_array)))
    built = time.perf_counter() - keyed
    state = dx.GraphState(topology, chains)

    def sample():
        return dx.rollout(network, state, sweeps, schedule=dx.coloured(), key=jax.random.key(1))[
            0
        ].arrays

    timed(sample)
    first = time.perf_counter() - begin
    print(units * chains * sweeps / min(timed(sample) for _ in range(5)) / 1e6, built, first)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
