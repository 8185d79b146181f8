"""Windows on a grid that all look through the same weights: a convolution."""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from darnax.couplings.conv import Conv, overlap_add
from darnax.couplings.coupling import has_own_numbers
from darnax.kernels.kernel import Kernel


@dataclass(frozen=True)
class Grid:
    """Views of one shape on a grid, in an array of shape `lead`.

    Along each axis the first view begins at `start`, the next ones are `stride` apart, `count` of
    them, each `window` cells long. The axes along which there are several views come first.
    """

    lead: tuple[int, ...]
    start: tuple[int, ...]
    stride: tuple[int, ...]
    count: tuple[int, ...]
    window: tuple[int, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """The number of views along each axis that has several."""
        return tuple(count for count in self.count if count > 1)

    @property
    def kernel(self) -> tuple[int, ...]:
        """The length of a view along these axes."""
        return self.window[: len(self.places)]

    @property
    def spans(self) -> list[slice]:
        """The covered cells along each axis.

        Views of one cell leave out the cells between them; wider ones are taken to leave out none.
        """
        spans = []
        for start, stride, count, window in zip(
            self.start, self.stride, self.count, self.window, strict=True
        ):
            extent = stride * (count - 1) + window
            spans.append(slice(start, start + extent, stride if window == 1 else 1))
        return spans

    def read(self, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """The covered cells `(*axes with several views, everything else as channels, B)`."""
        box = x.reshape(*self.lead, -1, x.shape[-1])[tuple(self.spans)]
        return box.reshape(*box.shape[: len(self.places)], -1, x.shape[-1])

    def write(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """What `read` gives, back in its place in an array of zeros."""
        covered, pads = [], []
        for size, span in zip(self.lead, self.spans, strict=True):
            covered.append(len(range(size)[span]))
            pads.append((span.start, size - span.stop, span.step - 1))
        value = value.reshape(*covered, -1, value.shape[-1])
        return jax.lax.pad(value, jnp.zeros((), value.dtype), [*pads, (0, 0, 0), (0, 0, 0)])


def grid_of(addresses: np.ndarray, lead: tuple[int, ...]) -> tuple[Grid, np.ndarray] | None:
    """The grid that views stand on, and the place of each on it; None where they do not.

    `addresses` are rows of an array of shape `lead`, one line of them a view.
    """
    cells = addresses.reshape(len(addresses), -1)
    if not lead or (cells - cells[:, :1] != cells[0] - cells[0, 0]).any():
        return None
    first = np.stack(np.unravel_index(cells[:, 0], lead), axis=1)
    window = np.stack(np.unravel_index(cells[0], lead), axis=1).max(axis=0) - first[0] + 1
    start, stride, count = [], [], []
    for axis in first.T:
        starts = np.unique(axis)
        gaps = np.diff(starts)
        if (gaps != gaps[:1]).any():
            return None
        start.append(int(starts[0]))
        stride.append(int(gaps[0]) if len(gaps) else 1)
        count.append(len(starts))
    several = [n > 1 for n in count]
    if several != sorted(several, reverse=True):
        return None
    if math.prod(window.tolist()) != cells.shape[1] or math.prod(count) != len(cells):
        return None
    # a view may list its cells in any order, and a window has them in row-major order
    box = np.ravel_multi_index(tuple(np.indices(window).reshape(len(lead), -1)), lead)
    if (cells[0] - cells[0, 0] != box).any():
        return None
    place = np.asarray(np.ravel_multi_index(tuple(((first - start) // stride).T), count))
    if len(np.unique(place)) < len(place):
        return None
    return Grid(lead, tuple(start), tuple(stride), tuple(count), tuple(window.tolist())), place


class Windows(Kernel):
    """A convolution of an array, or the transpose of one.

    Either each receiver stands at one place and reads a window of the sending array; or each sender
    stands at one and sends to a window of the receiving array, where messages add up.
    """

    sender: Grid = eqx.field(static=True)
    receiver: Grid = eqx.field(static=True)
    item: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site):
        group, coupling = site.group, site.coupling
        several = group.tie is not None and len(group.edges) > 1
        one_matrix = coupling.linear == "matrix" and not has_own_numbers(coupling)
        shared = group.sender.shared or group.receiver.shared
        if not (shared and several and one_matrix):
            return None
        lead = group.receiver.lead if group.receiver.shared else (site.receiving,)
        sender = grid_of(group.senders, group.sender.lead)
        receiver = grid_of(site.landings.reshape(group.receivers.shape), lead)
        if sender is None or receiver is None or (sender[1] != receiver[1]).any():
            return None
        points = [math.prod(grid.kernel) == 1 for grid, _ in (sender, receiver)]
        return cls(sender[0], receiver[0], group.receiver.item) if any(points) else None

    @property
    def forward(self) -> bool:
        """Whether receivers read windows; if not, senders send to windows."""
        return math.prod(self.receiver.kernel) == 1

    def prepare(self, coupling):
        offset = coupling.offset()
        return coupling.matrix(), None if offset is None else offset[:, None]

    def __call__(self, prepared, x, y, dtype):
        weight, offset = prepared
        box = self.sender.read(x.astype(weight.dtype))
        grid = self.sender if self.forward else self.receiver
        stride = grid.stride[: len(grid.places)]
        if self.forward:
            weight = jnp.moveaxis(weight.reshape(len(weight), *grid.kernel, -1), 0, -1)
            messages = Conv(weight, stride, "VALID").batched(box)
            if offset is not None:
                messages = messages + offset
        else:
            weight = weight.reshape(*grid.kernel, -1, weight.shape[1])
            box = box.reshape(*grid.places, -1, box.shape[-1])
            messages = overlap_add(weight, box, stride, offset)
        rows = self.receiver.write(messages.astype(dtype))
        return rows.reshape(-1, *self.item, x.shape[-1])

    def describe(self):
        how = "convolution" if self.forward else "transposed convolution"
        return how, "windows on a grid, one matrix"
