"""The benchmarks run, and time the kernels that they say."""

import subprocess
import sys
from pathlib import Path

import darnax as dx

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def printed(script, *arguments):
    command = [sys.executable, BENCHMARKS / script, "--smoke", *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def test_sparse_sums_run_by_the_kernels_they_name():
    table = printed("sparse.py")
    ours = "Native" if dx.kernels.native_library().loaded else "Segments"
    for edges in ("3,000", "6,000"):
        (row,) = [line for line in table.splitlines() if f"/ {edges} |" in line]
        others = "Segments" if edges == "3,000" else "Slots"
        expected = ours if ours == "Native" else others
        assert row.endswith(f"| {expected} | {others} |")
    assert "threads, jax" in table


def test_relaxations_run():
    processor, heads, _, *rows = filter(None, printed("relaxing.py").splitlines())
    assert "threads, jax" in processor
    assert len(rows) == 7
    assert all(row.count("|") == heads.count("|") for row in rows)


def test_edges_back_run_by_kernels():
    rows = printed("reverse.py").splitlines()[4:]
    assert [row.rsplit("|")[-2].strip() for row in rows] == [
        "edge by edge",
        "native sum" if dx.kernels.native_library().loaded else "slots",
        "transposed convolution",
    ]
