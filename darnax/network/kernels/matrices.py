"""A matrix for every edge."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from darnax._arrays import on_device
from darnax.couplings.dense import is_matrix, matrix_of
from darnax.kernels.sum import take
from darnax.network.kernels.kernel import Kernel

MANY, MOST_CLASSES = 64, 40


class Matrices(Kernel):
    """A matrix for every edge: those of one receiver side by side, so that the product adds up its
    edges.

    **Fields:**

    - `order`: the edges, by in-degree of their receivers.
    - `senders`: for every in-degree, the senders of its receivers.
    - `place`: where among all of these a row is, after the last for rows that hear nobody.
    """

    order: Int[Array, " edges"]
    senders: tuple[Int[Array, "_ _"], ...]
    place: Int[Array, " heard"]
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site):
        group, receivers, ends = site.group, site.receivers, site.ends
        if (
            ends is None
            or group.tie is not None
            or len(receivers) < MANY
            or not is_matrix(site.coupling)
        ):
            return None
        degree = np.bincount(receivers, minlength=ends.hearing)
        degrees = np.unique(degree[degree > 0])
        if len(degrees) > MOST_CLASSES:
            return None
        edges = [np.flatnonzero(degree[receivers] == d) for d in degrees]
        place = np.full(ends.hearing, len(np.unique(receivers)))
        heard = np.concatenate(
            [receivers[own][:: int(d)] for own, d in zip(edges, degrees, strict=True)]
        )
        place[heard] = np.arange(len(heard))
        return cls(
            order=on_device(np.concatenate(edges), jnp.int32),
            senders=tuple(
                on_device(group.senders[own].reshape(-1, d), jnp.int32)
                for own, d in zip(edges, degrees, strict=True)
            ),
            place=on_device(place, jnp.int32),
            shape=group.receiver_shape,
        )

    def prepare(self, coupling):
        weight, bias = matrix_of(coupling)
        starts = np.cumsum([senders.size for senders in self.senders])[:-1].tolist()
        blocks = []
        for senders, own in zip(
            self.senders, jnp.split(take(weight, self.order), starts), strict=True
        ):
            own = own.reshape(*senders.shape, *own.shape[1:])
            blocks.append(jnp.moveaxis(own, 1, 2).reshape(len(senders), own.shape[2], -1))
        if bias is not None:
            parts = jnp.split(take(bias, self.order), starts)
            bias = [
                p.reshape(*s.shape, -1).sum(1) for s, p in zip(self.senders, parts, strict=True)
            ]
        return blocks, bias

    def __call__(self, prepared, x, y, dtype):
        blocks, bias = prepared
        x = x.reshape(len(x), -1, x.shape[-1]).astype(blocks[0].dtype)
        found = []
        for i, (senders, block) in enumerate(zip(self.senders, blocks, strict=True)):
            heard = take(x, senders).reshape(len(senders), -1, x.shape[-1])
            field = jnp.einsum("nrk,nkb->nrb", block, heard, preferred_element_type=dtype)
            found.append((field if bias is None else field + bias[i][..., None]).astype(dtype))
        found.append(jnp.zeros((1, *found[0].shape[1:]), dtype))
        return take(jnp.concatenate(found), self.place).reshape(
            len(self.place), *self.shape, x.shape[-1]
        )

    def __str__(self):
        return f"matrices side by side, {len(self.senders)} in-degrees"

    def why(self):
        return "a matrix for every edge"
