"""Fast ways to run edges, chosen by their structure.

The wiring is known before the first step. What can be read off it, such as classes of in-degree or
diagonals, is worked out once in NumPy and kept as index arrays; what follows from the weights is
arranged once before a loop. Every kernel gives what the plain way gives, gather, multiply,
`segment_sum`, and is tested against it.
"""

import numpy as np

from darnax.kernels.all_to_all import AllToAll
from darnax.kernels.diagonals import Diagonals
from darnax.kernels.segments import Segments as Segments
from darnax.kernels.slots import Slots
from darnax.kernels.sum import Ends as Ends
from darnax.kernels.sum import Sum as Sum

SUMS = (AllToAll, Diagonals, Slots, Segments)


def choose_sum(senders: np.ndarray, receivers: np.ndarray, ends: Ends, scalar: bool) -> Sum:
    """The first of `SUMS` that suits a graph, its edges sorted by receiver.

    `ends` has the same as arrays of JAX; `scalar` says that a node is a single unit.
    """
    found = (kind.of(senders, receivers, ends, scalar) for kind in SUMS)
    return next(kernel for kernel in found if kernel is not None)
