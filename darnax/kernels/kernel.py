"""Kernels: faster ways to run all edges of one group at once.

Without a kernel a group runs edge by edge: the states of all senders are gathered, one vmapped call
of the coupling makes the messages, and jraph's segment sum adds them up. A kernel goes from the
rows of the sending array to the summed messages in one step of its own. It must give the same
result; the tests compare each with the plain way.

The wiring is known before the first pass. What can be read off it, such as classes of in-degree or
the diagonals of a lattice, is worked out once in NumPy, when the network is built, and kept as
index arrays. What follows from the parameters is arranged once before a loop, by `prepare`.

To add a kernel, write a `Kernel` and put it into `KERNELS` of `kernels/table.py`.
"""

import abc
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from darnax.couplings.coupling import Coupling
from darnax.kernels.graph import Graph
from darnax.topologies.groups import EdgeGroup

Prepared: TypeAlias = Any
"""What a kernel makes of the parameters before a loop: a pytree, of a form that only it reads."""


class Site(NamedTuple):
    """An edge group as a kernel sees it when one is chosen.

    **Fields:**

    - `group`: the edges, their addresses and the arrays at both ends.
    - `coupling`: the coupling of all edges, its parameters stacked along a leading axis of edges,
      or not where they are tied.
    - `landings`: the row that each message, or each cell of it, is added to, counted from the first
      row that the group sends to, of which there are `receiving`.
    - `tied`: whether the edges share their parameters. It is not always by a tie of their own:
      reverse edges have those of the edges that they reverse.
    - `graph`: senders and landings as arrays of JAX; None where nodes are views of shared arrays,
      or where every receiver has one edge and nothing has to be summed.
    """

    group: EdgeGroup
    coupling: Coupling
    landings: np.ndarray
    receiving: int
    tied: bool
    graph: Graph | None


class Kernel(eqx.Module):
    """A way to run all edges of one group at once."""

    # Index arrays of a kernel are leaves: constants of a program cost seconds of compile time, and
    # a copy in every program. Only what decides the shape of a program is a static field.

    @classmethod
    @abc.abstractmethod
    def of(cls, site: Site) -> "Kernel | None":
        """The kernel for an edge group; None where it does not suit."""

    @abc.abstractmethod
    def prepare(self, coupling: Coupling) -> Prepared:
        """What follows from the parameters of a `prepared` coupling, worked out before a loop."""

    @abc.abstractmethod
    def __call__(
        self,
        prepared: Prepared,
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "receiving *receiver batch"],
        dtype: DTypeLike,
    ) -> Float[Array, "receiving *receiver batch"]:
        """The messages of all edges summed at their receivers, in `dtype`.

        `x` are all rows of the sending array, `y` the states of the rows that the group sends to.
        """

    @abc.abstractmethod
    def describe(self) -> tuple[str, str]:
        """What it is, and what about the group it was chosen for, for `Network.summary`."""
