"""Rows of `speed.py` in torch and PyTorch Geometric: the milliseconds of one pass of each way.

Usage, in an environment that has both: `python benchmarks/torch_peers.py graph UNITS EDGES BATCH`,
or `windows`, or `matrices`
"""

import statistics
import sys
import time
import warnings

import numpy as np
import torch
from torch_geometric.nn import MessagePassing

PASSES, ROUNDS = 10, 9
RNG = np.random.default_rng(0)


class WeightedSum(MessagePassing):
    """A weighted sum over edges, as a layer of PyTorch Geometric."""

    def forward(self, x, edge_index, weight):
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_j, weight):
        return weight[:, None] * x_j


def milliseconds(one_pass):
    """A pass, the median over rounds."""
    one_pass()
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(PASSES):
            one_pass()
        times.append((time.perf_counter() - begin) / PASSES * 1e3)
    return statistics.median(times)


def normal(*shape):
    return torch.tensor(RNG.standard_normal(shape), dtype=torch.float32)


def graph(units, edges, batch):
    """Sparse matrix in CSR, and PyTorch Geometric with edges sorted by receiver."""
    pairs = np.unique(RNG.integers(0, units, edges) * units + RNG.integers(0, units, edges))
    ends = torch.tensor(np.stack([pairs // units, pairs % units]))
    x, weight = normal(units, batch), normal(len(pairs))
    matrix = torch.sparse_coo_tensor(ends, weight, (units, units)).to_sparse_csr()
    layer, edge_index = WeightedSum(), ends.flip(0)
    return (
        milliseconds(lambda: (matrix @ x).clamp_(-1, 1)),
        milliseconds(lambda: layer(x, edge_index, weight).clamp_(-1, 1)),
    )


def windows():
    """A convolution of 64 images with 16 filters of 5 × 5."""
    image, kernel = normal(64, 1, 28, 28), normal(16, 1, 5, 5)
    return (milliseconds(lambda: torch.nn.functional.conv2d(image, kernel).clamp_(-1, 1)),)


def matrices():
    """2,048 matrices of 32 × 32 by a batched product and an indexed sum."""
    senders, receivers = torch.tensor(RNG.integers(0, 512, (2, 2048)))
    weight, x, zero = normal(2048, 32, 32), normal(512, 32, 32), torch.zeros(512, 32, 32)
    return (
        milliseconds(
            lambda: zero.index_add(0, receivers, torch.bmm(weight, x[senders])).clamp_(-1, 1)
        ),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # CSR is called a beta
    with torch.inference_mode():
        found = {"graph": graph, "windows": windows, "matrices": matrices}[sys.argv[1]](
            *map(int, sys.argv[2:])
        )
    print(*found)
