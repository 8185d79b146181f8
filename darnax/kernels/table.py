"""The table of kernels."""

from darnax.kernels.all_to_all import AllToAll
from darnax.kernels.both_ends import BothEnds
from darnax.kernels.diagonals import Diagonals
from darnax.kernels.kernel import Kernel, Site
from darnax.kernels.matrices import Matrices
from darnax.kernels.native import Native
from darnax.kernels.shared_message import SharedMessage
from darnax.kernels.slots import Slots
from darnax.kernels.windows import Windows

# The order matters for weights alone. Several sums may suit them, and stand here as in `SUMS`; tied
# ones suit `SharedMessage` as well, which is left those without a fast sum. No two of the other
# kernels take the same group: they differ in ties, in what a coupling asks, or in shared arrays.
KERNELS: list[type[Kernel]] = [
    AllToAll,
    Diagonals,
    Native,
    Slots,
    SharedMessage,
    BothEnds,
    Matrices,
    Windows,
]
"""All kernels; the first that suits an edge group runs it."""


def choose(site: Site) -> Kernel | None:
    """The first of `KERNELS` that suits an edge group; None for edge by edge."""
    for kind in KERNELS:
        kernel = kind.of(site)
        if kernel is not None:
            return kernel
    return None
