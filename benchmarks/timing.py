"""How calls are timed: interleaved in rounds of one run, so that a shared machine disturbs all sides alike."""

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
