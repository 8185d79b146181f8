"""What a kernel is.

The plain way gathers the senders of all edges, applies the coupling, and adds up messages with
`jraph.segment_sum`. A kernel goes from the rows of the sending array to the field of the rows that
hear, with the same result.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Shaped

from darnax.kernels import Ends
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.layout import ArraySpec


class Site(NamedTuple):
    """An edge group, what runs on it, and where it lies.

    **Fields:**

    - `sender`, `receiver`: the arrays at its ends.
    - `receivers`: the rows that messages land on, counted from the first that they are summed over,
      of which there are `hearing`.
    - `ends`: the same and the senders as arrays of JAX; None where nodes are views of shared
      arrays, or where every receiver hears one edge and nothing has to be summed.
    """

    group: EdgeGroup
    coupling: Any
    sender: ArraySpec
    receiver: ArraySpec
    receivers: np.ndarray
    hearing: int
    ends: Ends | None


class Kernel(eqx.Module):
    """A way to run all edges of one group at once."""

    @classmethod
    @abc.abstractmethod
    def of(cls, site: Site) -> "Kernel | None":
        """The kernel for an edge group; None where it does not suit."""

    @abc.abstractmethod
    def prepare(self, coupling: Any) -> Any:
        """What follows from the parameters, worked out before a loop."""

    @abc.abstractmethod
    def __call__(
        self,
        prepared: Any,
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "heard *receiver batch"],
        dtype: Any,
    ) -> Float[Array, "heard *receiver batch"]:
        """The messages of all edges summed at their receivers, in `dtype`, from the states of
        both.
        """

    @abc.abstractmethod
    def __str__(self) -> str:
        """What it is, for the summary of a network."""

    @abc.abstractmethod
    def why(self) -> str:
        """What about the group it was chosen for."""
