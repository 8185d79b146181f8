"""Windows on a grid that all look through the same weights: a convolution."""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from darnax.couplings.conv import Conv, overlap_add
from darnax.couplings.dense import is_matrix, matrix_of
from darnax.network.kernels.kernel import Kernel


@dataclass(frozen=True)
class Grid:
    """Views on a grid, in an array of shape `lead`; they are spread along its first axes.

    Along each axis they begin at `start` and are `stride` apart, `count` of them, each `window`
    cells long.
    """

    lead: tuple[int, ...]
    start: tuple[int, ...]
    stride: tuple[int, ...]
    count: tuple[int, ...]
    window: tuple[int, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """How many views there are along each axis that they are spread along."""
        return tuple(count for count in self.count if count > 1)

    @property
    def kernel(self) -> tuple[int, ...]:
        """How long they are along these axes."""
        return self.window[: len(self.places)]

    @property
    def steps(self) -> tuple[int, ...]:
        """How far apart the cells are that views cover: those between views of one cell are
        nobody's.
        """
        return tuple(
            stride if window == 1 else 1
            for stride, window in zip(self.stride, self.window, strict=True)
        )

    @property
    def extent(self) -> tuple[int, ...]:
        """How many cells there are from the first to the last that a view covers."""
        parts = zip(self.stride, self.count, self.window, strict=True)
        return tuple(stride * (count - 1) + window for stride, count, window in parts)

    def read(self, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """All cells that views cover: the axes they are spread along, everything else as channels,
        the batch.
        """
        parts = zip(self.start, self.extent, self.steps, strict=True)
        box = x.reshape(*self.lead, -1, x.shape[-1])
        box = box[tuple(slice(start, start + extent, step) for start, extent, step in parts)]
        return box.reshape(*box.shape[: len(self.places)], -1, x.shape[-1])

    def write(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """What `read` gives, back in its place in an array of zeros."""
        parts = list(zip(self.lead, self.start, self.extent, self.steps, strict=True))
        covered = [len(range(0, extent, step)) for _, _, extent, step in parts]
        pads = [(start, size - start - extent, step - 1) for size, start, extent, step in parts]
        value = value.reshape(*covered, -1, value.shape[-1])
        return jax.lax.pad(value, jnp.zeros((), value.dtype), [*pads, (0, 0, 0), (0, 0, 0)])


def grid_of(addresses: np.ndarray, lead: tuple[int, ...]) -> tuple[Grid, np.ndarray] | None:
    """The grid that views stand on, and which of its places each has; None where they do not.

    `addresses` are positions in an array of shape `lead`, one row of them a view.
    """
    cells = addresses.reshape(len(addresses), -1)
    if not lead or (cells - cells[:, :1] != cells[0] - cells[0, 0]).any():
        return None
    first = np.stack(np.unravel_index(cells[:, 0], lead), axis=1)
    window = np.stack(np.unravel_index(cells[0], lead), axis=1).max(axis=0) - first[0] + 1
    axes = [np.unique(axis) for axis in first.T]
    gaps = [np.diff(axis) for axis in axes]
    spread = [len(gap) > 0 for gap in gaps]
    if any((gap != gap[:1]).any() for gap in gaps) or spread != sorted(spread, reverse=True):
        return None
    start, stride = (
        [int(axis[0]) for axis in axes],
        [int(gap[0]) if len(gap) else 1 for gap in gaps],
    )
    count = [len(axis) for axis in axes]
    if math.prod(window.tolist()) != cells.shape[1] or math.prod(count) != len(cells):
        return None
    # A view may name its cells in any order; a window has them row by row.
    box = np.ravel_multi_index(tuple(np.indices(window).reshape(len(lead), -1)), lead)
    if (cells[0] - cells[0, 0] != box).any():
        return None
    place = ((first - start) // stride) @ np.asarray(
        [math.prod(count[i + 1 :]) for i in range(len(count))]
    )
    if len(np.unique(place)) < len(place):
        return None
    return Grid(lead, tuple(start), tuple(stride), tuple(count), tuple(window.tolist())), place


class Windows(Kernel):
    """A convolution of an array, or its transpose.

    Either each receiver is one place and hears a window of the sending array; or each sender is one
    and speaks to a window of the receiving array, where messages add up.
    """

    sender: Grid = eqx.field(static=True)
    receiver: Grid = eqx.field(static=True)
    item: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site):
        group, shared = site.group, site.sender.shared or site.receiver.shared
        factor = getattr(site.coupling, "factor", None)
        if (
            not shared
            or group.tie is None
            or len(group.edges) == 1
            or not is_matrix(site.coupling)
            or factor is not None
        ):
            return None
        lead = site.receiver.lead if site.receiver.shared else (site.hearing,)
        sender = grid_of(group.senders, site.sender.lead)
        receiver = grid_of(site.receivers.reshape(group.receivers.shape), lead)
        if sender is None or receiver is None or (sender[1] != receiver[1]).any():
            return None
        points = [math.prod(grid.kernel) == 1 for grid in (sender[0], receiver[0])]
        return cls(sender[0], receiver[0], site.receiver.item) if any(points) else None

    @property
    def forward(self) -> bool:
        """Whether receivers hear windows; if not, they are what is spoken to."""
        return math.prod(self.receiver.kernel) == 1

    def prepare(self, coupling):
        weight, bias = matrix_of(coupling)
        return weight, None if bias is None else bias[:, None]

    def __call__(self, prepared, x, y, dtype):
        weight, bias = prepared
        box = self.sender.read(x.astype(weight.dtype))
        grid = self.sender if self.forward else self.receiver
        stride = grid.stride[: len(grid.places)]
        if self.forward:
            weight = jnp.moveaxis(weight.reshape(len(weight), *grid.kernel, -1), 0, -1)
            said = Conv(weight, stride, "VALID").batched(box)
            said = said if bias is None else said + bias
        else:
            weight = weight.reshape(*grid.kernel, -1, weight.shape[1])
            box = box.reshape(*grid.places, -1, box.shape[-1])
            said = overlap_add(weight, box, stride, bias)
        return self.receiver.write(said.astype(dtype)).reshape(-1, *self.item, x.shape[-1])

    def __str__(self):
        return "convolution" if self.forward else "transposed convolution"

    def why(self):
        return "windows on a grid, one matrix"
