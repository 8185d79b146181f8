"""One pass over a random graph of single units, by every way there is, beside what memory allows.

A pass is a weighted sum and a clip. **native** and **slots** are darnax with its native library and
without. **reads** is NumPy, on one core, going through weights and senders once, in the order of
memory, and asking for no state. Milliseconds a pass: medians of interleaved rounds, and how far
the middle half of the rounds lies apart, in per cent of the median.

`--avx2` keeps XLA and the library to AVX2, on processors that have more. `--smoke` runs small rows
once, and tells the kernels and no times. Usage:

    python benchmarks/sparse.py
    python benchmarks/sparse.py --avx2
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse as sp
from timing import interleaved, processor, spread

import darnax as dx
from darnax.kernels import Native, Segments, Slots, library, native_library, table

ROWS = [
    (units, edges, batch)
    for units, edges in ((2000, 40_000), (10_000, 500_000), (100_000, 1_600_000))
    for batch in (1, 4, 16, 64)
]
SMALLEST = [(300, 3000, 1), (300, 6000, 4)]


def clip(x):
    return jnp.clip(x, -1, 1)


def keep_to_avx2():
    """XLA and the native library for processors without AVX-512; before JAX runs anything."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa=AVX2"
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import hatch_build

    folder = Path(tempfile.mkdtemp())
    hatch_build.FLAGS += ["-DDARNAX_ONE_TARGET", "-march=x86-64-v3"]
    problem = hatch_build.build(Path(__file__).parent.parent, folder / hatch_build.LIBRARY.name)
    if problem is not None:
        raise SystemExit(f"the native library was not compiled: {problem}")
    library.FOLDER = folder


def network_of(topology, kernels):
    """The network whose edges run by the first of these kernels that suits them."""
    usual = list(table.KERNELS)
    table.KERNELS[:] = kernels
    try:
        return dx.Network(
            topology, {"edge": dx.scale(0.1)}, dx.elementwise(clip), key=jax.random.key(0)
        )
    finally:
        table.KERNELS[:] = usual


def ways(units, edges, batch, passes):
    """So many passes by each way, as calls; and the kernels of ours."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, units, edges) * units + rng.integers(0, units, edges)
    pairs = np.unique(pairs)
    pairs = pairs[pairs // units != pairs % units]
    topology = dx.Topology.from_edges(pairs // units, pairs % units, n=units)
    native = network_of(topology, [Native, Slots, Segments])
    slots = network_of(topology, [Slots, Segments])
    state = dx.GraphState(topology, batch)
    draw = lambda array: jnp.asarray(rng.standard_normal(array.shape), array.dtype)  # noqa: E731
    state = state.replace(jax.tree.map(draw, state.arrays))
    group = topology.groups[0]
    w = native.couplings["edge"][0].strength
    senders, receivers = jnp.asarray(group.senders), jnp.asarray(group.receivers)
    matrix = sp.csr_matrix((np.asarray(w), (group.receivers, group.senders)), (units, units))
    (x,) = state.arrays.values()
    start = np.asarray(x) if batch > 1 else np.asarray(x[:, 0])

    def scipy_passes():
        y = start
        for _ in range(passes):
            y = np.clip(matrix @ y, -1, 1)
        return y

    @jax.jit
    def jraph_passes(w, x):
        def one(_, x):
            terms = w[:, None] * x[senders]
            return clip(jraph.segment_sum(terms, receivers, units, indices_are_sorted=True))

        return jax.lax.fori_loop(0, passes, one, x)

    numbers, rows = np.asarray(w), np.asarray(group.senders, np.int32)

    def reads():
        for _ in range(passes):
            np.add.reduce(numbers)
            np.bitwise_or.reduce(rows)

    calls = {
        "native": lambda: dx.rollout(native, state, passes)[0].arrays,
        "slots": lambda: dx.rollout(slots, state, passes)[0].arrays,
        "scipy": scipy_passes,
        "jraph": lambda: jraph_passes(w, x),
        "reads": reads,
    }
    return calls, [type(one.message_passing[0].kernel).__name__ for one in (native, slots)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--avx2", action="store_true", help="keep XLA and the library to AVX2")
    parser.add_argument("--smoke", action="store_true", help="the smallest rows, once")
    options = parser.parse_args()
    if options.avx2:
        keep_to_avx2()
    print(f"{processor()}{', kept to AVX2' if options.avx2 else ''}; {native_library()}\n")
    names = "native", "slots", "scipy", "jraph", "reads"
    print(f"| units / edges | B | {' | '.join(names)} |\n|---|--:|{'--:|' * len(names)}")
    for units, edges, batch in SMALLEST if options.smoke else ROWS:
        passes = 2 if options.smoke else max(20, min(500, 100_000_000 // (edges * batch)))
        calls, kernels = ways(units, edges, batch, passes)
        times = interleaved(*calls.values(), rounds=1 if options.smoke else 11)
        cells = []
        for column in times:
            each = [1e3 * seconds / passes for seconds in column]
            cells.append(f"{statistics.median(each):.3f} ± {spread(each):.0%}")
        if options.smoke:
            cells = kernels
        print(f"| {units:,} / {edges:,} | {batch} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
