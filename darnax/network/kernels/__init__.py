"""Which edge groups run faster than edge by edge, and how.

To add a way: a file with a `Kernel`, and a line in the table.
"""

from darnax.network.kernels.both_ends import BothEnds
from darnax.network.kernels.kernel import Kernel as Kernel
from darnax.network.kernels.kernel import Site as Site
from darnax.network.kernels.matrices import Matrices
from darnax.network.kernels.shared_message import SharedMessage
from darnax.network.kernels.strengths import Strengths
from darnax.network.kernels.windows import Windows

KERNELS = (Strengths, SharedMessage, BothEnds, Matrices, Windows)


def choose(site: Site) -> Kernel | None:
    """The first of `KERNELS` that suits an edge group; None for the plain way."""
    found = (kind.of(site) for kind in KERNELS)
    return next((kernel for kernel in found if kernel is not None), None)
