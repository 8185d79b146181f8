"""A matrix for every edge."""

from collections.abc import Iterator
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from darnax._arrays import on_device
from darnax.couplings.coupling import Coupling
from darnax.kernels.graph import by_unit, take
from darnax.kernels.kernel import Kernel, Site

FEWEST = 64
"""Edges from which it pays."""
MOST_CLASSES = 40
"""In-degrees: each is a product to compile."""


Blocks: TypeAlias = list[Float[Array, "_ _ _"]]
"""For every in-degree, matrices side by side: (receivers, units, degree * sender units)."""
Offsets: TypeAlias = list[Float[Array, "_ _"]]
"""For every in-degree, sums of the edges' offsets: (receivers, units)."""


class Matrices(Kernel):
    """A matrix for every edge, those of one receiver side by side.

    One product with the senders below each other then makes the messages and adds them up.

    **Fields:**

    - `order`: the edges, by in-degree of their receivers.
    - `senders`: for every in-degree, the senders of its receivers.
    - `place`: where in the results of all in-degrees each row is. The entry behind the last result
      is zero, for rows without edges.
    """

    order: Int[Array, " edges"]
    senders: tuple[Int[Array, "_ _"], ...]
    place: Int[Array, " receiving"]
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site: Site) -> "Matrices | None":
        group, rows = site.group, site.landings
        if site.graph is None or site.coupling.linear != "matrix":
            return None
        # Tied edges have a single matrix, and writing it out for every edge would only cost memory.
        if site.tied:
            return None
        degree = np.bincount(rows, minlength=site.receiving)
        degrees = np.unique(degree[degree > 0]).tolist()
        if len(rows) < FEWEST or len(degrees) > MOST_CLASSES:
            return None

        # Receivers of one in-degree form a class: their blocks are equally wide, without padding.
        order, senders, receivers = [], [], []
        for d in degrees:
            edges = np.flatnonzero(degree[rows] == d)
            # Edges are sorted by receiver: every d of them have one receiver in common.
            of_class = group.senders[edges].reshape(-1, d)
            order.append(edges)
            senders.append(on_device(of_class, jnp.int32))
            receivers.append(rows[edges][::d])

        # Results come class after class, and are put into the order of rows by one gather.
        receiver = np.concatenate(receivers)
        place = np.full(site.receiving, len(receiver))
        place[receiver] = np.arange(len(receiver))
        return cls(
            order=on_device(np.concatenate(order), jnp.int32),
            senders=tuple(senders),
            place=on_device(place, jnp.int32),
            shape=group.receiver_shape,
        )

    def prepare(self, coupling: Coupling) -> tuple[Blocks, Offsets | None]:
        blocks = []
        for senders, own in self._by_class(coupling.matrix()):
            # (receivers, degree, units, sender units) -> (receivers, units, degree * sender units)
            own = own.reshape(*senders.shape, *own.shape[1:])
            block = jnp.moveaxis(own, 1, 2)
            block = block.reshape(*block.shape[:2], -1)
            blocks.append(block)
        offset = coupling.offset()
        if offset is None:
            return blocks, None

        # Offsets do not depend on the senders: they are added up before the loop.
        offsets = []
        for senders, own in self._by_class(offset):
            own = own.reshape(*senders.shape, -1)
            offsets.append(own.sum(1))
        return blocks, offsets

    def _by_class(self, values: Array) -> Iterator[tuple[Array, Array]]:
        """The senders of every class, and what its edges have of `values`, one entry an edge."""
        sizes = [senders.size for senders in self.senders]
        starts = np.cumsum(sizes)[:-1].tolist()
        # One gather puts the edges into the order of classes, so that a class is a slice.
        parts = jnp.split(take(values, self.order), starts)
        return zip(self.senders, parts, strict=True)

    def __call__(
        self,
        prepared: tuple[Blocks, Offsets | None],
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "receiving *receiver batch"],
        dtype: DTypeLike,
    ) -> Float[Array, "receiving *receiver batch"]:
        blocks, offsets = prepared
        batch = x.shape[-1]
        states = by_unit(x).astype(blocks[0].dtype)
        fields = []
        for i, block in enumerate(blocks):
            # All senders of a receiver below each other: (receivers, degree * sender units, B)
            below = take(states, self.senders[i])
            below = below.reshape(len(below), -1, batch)
            # Sums in the dtype of the field, also where the matrices are coarse
            field = jnp.einsum("nrk,nkb->nrb", block, below, preferred_element_type=dtype)
            if offsets is not None:
                field = field + offsets[i][..., None]
            fields.append(field.astype(dtype))
        # The zero that rows without edges take
        shape = 1, *fields[0].shape[1:]
        fields.append(jnp.zeros(shape, dtype))
        rows = take(jnp.concatenate(fields), self.place)
        return rows.reshape(len(rows), *self.shape, batch)

    def describe(self) -> tuple[str, str]:
        return f"matrices side by side, {len(self.senders)} in-degrees", "a matrix for every edge"
