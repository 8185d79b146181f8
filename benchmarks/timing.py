"""How calls are timed: interleaved in rounds of one run, so that a shared machine disturbs all
sides alike.
"""

import os
import platform
import statistics
import time

import jax


def timed(call):
    """Seconds of one call, its arrays ready."""
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def interleaved(*calls, rounds=15):
    """The time of each call in every round, after one to warm up."""
    for call in calls:
        timed(call)
    times = [[timed(call) for call in calls] for _ in range(rounds)]
    return [list(column) for column in zip(*times, strict=True)]


def ratio(ours, theirs):
    """The median over rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def spread(times):
    """How far the middle half of the times lies apart, as a share of the median."""
    if len(times) < 4:
        return 0.0
    lower, middle, upper = statistics.quantiles(times, n=4)
    return (upper - lower) / middle


def processor():
    """The processor, its vector instructions and its threads, to be read with every figure."""
    try:
        with open("/proc/cpuinfo") as file:
            facts = dict(
                line.split(":", 1)
                for line in file.read().split("\n\n")[0].splitlines()
                if ":" in line
            )
    except OSError:
        return (
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} threads, jax "
            f"{jax.__version__}"
        )
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = facts.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "no AVX")
    return (
        f"{facts.get('model name', platform.machine())} ({vectors}), {os.cpu_count()} threads, jax "
        f"{jax.__version__}"
    )
