"""A matrix for every edge."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from darnax._arrays import on_device
from darnax.kernels.graph import take
from darnax.kernels.kernel import Kernel

FEWEST = 64
"""Edges from which it pays."""
MOST_CLASSES = 40
"""In-degrees: each is a product to compile."""


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
    def of(cls, site):
        group, rows = site.group, site.landings
        suits = group.tie is None and len(rows) >= FEWEST and site.coupling.linear == "matrix"
        if site.graph is None or not suits:
            return None
        degree = np.bincount(rows, minlength=site.receiving)
        degrees = np.unique(degree[degree > 0]).tolist()
        if len(degrees) > MOST_CLASSES:
            return None
        order, senders, receivers = [], [], []
        for d in degrees:
            edges = np.flatnonzero(degree[rows] == d)
            order.append(edges)
            senders.append(on_device(group.senders[edges].reshape(-1, d), jnp.int32))
            receivers.append(rows[edges][::d])
        found = np.concatenate(receivers)
        place = np.full(site.receiving, len(found))
        place[found] = np.arange(len(found))
        return cls(
            order=on_device(np.concatenate(order), jnp.int32),
            senders=tuple(senders),
            place=on_device(place, jnp.int32),
            shape=group.receiver_shape,
        )

    def prepare(self, coupling):
        starts = np.cumsum([senders.size for senders in self.senders])[:-1].tolist()
        weights = jnp.split(take(coupling.matrix(), self.order), starts)
        blocks = []
        for senders, own in zip(self.senders, weights, strict=True):
            own = own.reshape(*senders.shape, *own.shape[1:])
            blocks.append(jnp.moveaxis(own, 1, 2).reshape(len(senders), own.shape[2], -1))
        offset = coupling.offset()
        if offset is None:
            return blocks, None
        offsets = []
        for senders, own in zip(
            self.senders, jnp.split(take(offset, self.order), starts), strict=True
        ):
            offsets.append(own.reshape(*senders.shape, -1).sum(1))
        return blocks, offsets

    def __call__(self, prepared, x, y, dtype):
        blocks, offsets = prepared
        x = x.reshape(len(x), -1, x.shape[-1]).astype(blocks[0].dtype)
        found = []
        for i, (senders, block) in enumerate(zip(self.senders, blocks, strict=True)):
            below = take(x, senders).reshape(len(senders), -1, x.shape[-1])
            field = jnp.einsum("nrk,nkb->nrb", block, below, preferred_element_type=dtype)
            if offsets is not None:
                field = field + offsets[i][..., None]
            found.append(field.astype(dtype))
        found.append(jnp.zeros((1, *found[0].shape[1:]), dtype))
        rows = take(jnp.concatenate(found), self.place)
        return rows.reshape(len(self.place), *self.shape, x.shape[-1])

    def describe(self):
        return f"matrices side by side, {len(self.senders)} in-degrees", "a matrix for every edge"
