"""Windows on a grid that all look through the same weights: a convolution."""

import math
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from darnax.couplings.conv import Conv, overlap_add, padded
from darnax.couplings.coupling import Coupling, has_own_numbers
from darnax.kernels.kernel import Kernel, Site


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
        axes = zip(self.start, self.stride, self.count, self.window, strict=True)
        for start, stride, count, window in axes:
            stop = start + stride * (count - 1) + window
            step = stride if window == 1 else 1
            spans.append(slice(start, stop, step))
        return spans

    def read(self, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """The covered cells `(*axes with several views, everything else as channels, B)`."""
        batch = x.shape[-1]
        box = x.reshape(*self.lead, -1, batch)
        box = box[tuple(self.spans)]
        # An axis with a single view is read whole by every view, as channels are.
        space = box.shape[: len(self.places)]
        return box.reshape(*space, -1, batch)

    def write(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """What `read` gives, back in its place in an array of zeros."""
        covered, pads = [], []
        for size, span in zip(self.lead, self.spans, strict=True):
            covered.append(len(range(size)[span]))
            after = size - span.stop
            pads.append((span.start, after, span.step - 1))
        value = value.reshape(*covered, -1, value.shape[-1])
        # Padding, also between cells, where a scatter would be slow
        return padded(value, pads)


def grid_of(
    addresses: Int[np.ndarray, "views *lead"],
    lead: tuple[int, ...],
) -> tuple[Grid, np.ndarray] | None:
    """The grid that views stand on, and the place of each on it; None where they do not.

    `addresses` are rows of an array of shape `lead`, one line of them a view.
    """
    cells = addresses.reshape(len(addresses), -1)
    window = _window(cells, lead)
    if window is None:
        return None

    # Along every axis, first cells at equal gaps
    first = np.unravel_index(cells[:, 0], lead)
    start, stride, count = [], [], []
    for axis in first:
        starts = np.unique(axis)
        gaps = np.diff(starts)
        if (gaps != gaps[:1]).any():
            return None
        start.append(int(starts[0]))
        stride.append(int(gaps[0]) if len(gaps) else 1)
        count.append(len(starts))

    # A convolution has its axes of space before its channels.
    several = [n > 1 for n in count]
    if several != sorted(several, reverse=True):
        return None

    # The grid has no holes: as many views as places, and no two at one place.
    if math.prod(count) != len(cells):
        return None
    steps = []
    for axis, begin, gap in zip(first, start, stride, strict=True):
        steps.append((axis - begin) // gap)
    place = np.asarray(np.ravel_multi_index(tuple(steps), count))
    if len(np.unique(place)) < len(place):
        return None
    grid = Grid(
        lead=lead,
        start=tuple(start),
        stride=tuple(stride),
        count=tuple(count),
        window=window,
    )
    return grid, place


def _window(
    cells: Int[np.ndarray, "views cells"],
    lead: tuple[int, ...],
) -> tuple[int, ...] | None:
    """The shape of the box that every view covers; None where they differ, or are no boxes."""
    relative = cells - cells[:, :1]
    if not lead or (relative != relative[0]).any():
        return None
    window = []
    for axis in np.unravel_index(cells[0], lead):
        length = axis.max() - axis[0] + 1
        window.append(int(length))
    if math.prod(window) != cells.shape[1]:
        return None
    # A view may list its cells in any order, and a window has them in row-major order.
    box = np.indices(window).reshape(len(lead), -1)
    row_major = np.ravel_multi_index(tuple(box), lead)
    if (relative[0] != row_major).any():
        return None
    return tuple(window)


def _grids(site: Site) -> tuple[Grid, Grid] | None:
    """The grids at both ends of a group whose edges are a convolution; None where they are not."""
    group = site.group
    if not (group.sender.shared or group.receiver.shared):
        return None
    # Stacked nodes are a row of windows of one cell, counted from the first that receives.
    lead = (site.receiving,)
    if group.receiver.shared:
        lead = group.receiver.lead
    sender = grid_of(group.senders, group.sender.lead)
    receiver = grid_of(site.landings.reshape(group.receivers.shape), lead)
    if sender is None or receiver is None:
        return None
    sender_grid, sender_place = sender
    receiver_grid, receiver_place = receiver
    # Every edge must join the same place of both grids.
    if (sender_place != receiver_place).any():
        return None
    # A convolution reads windows or sends to them, and not both.
    read = math.prod(sender_grid.kernel)
    sent_to = math.prod(receiver_grid.kernel)
    if read > 1 and sent_to > 1:
        return None
    return sender_grid, receiver_grid


class Windows(Kernel):
    """A convolution of an array, or the transpose of one.

    Either each receiver stands at one place and reads a window of the sending array; or each sender
    stands at one and sends to a window of the receiving array, where messages add up.
    """

    sender: Grid = eqx.field(static=True)
    receiver: Grid = eqx.field(static=True)
    item: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, site: Site) -> "Windows | None":
        group, coupling = site.group, site.coupling
        # One matrix for all edges: tied, and without a number of its own for each
        if not site.tied or coupling.linear != "matrix" or has_own_numbers(coupling):
            return None
        # A single edge is a plain product already.
        if len(group.edges) == 1:
            return None
        grids = _grids(site)
        if grids is None:
            return None
        sender, receiver = grids
        return cls(sender, receiver, group.receiver.item)

    @property
    def forward(self) -> bool:
        """Whether receivers read windows; if not, senders send to windows."""
        return math.prod(self.receiver.kernel) == 1

    def prepare(self, coupling: Coupling) -> tuple[Array, Array | None]:
        offset = coupling.offset()
        if offset is None:
            return coupling.matrix(), None
        # With an axis for the batch
        return coupling.matrix(), offset[:, None]

    def __call__(
        self,
        prepared: tuple[Array, Array | None],
        x: Shaped[Array, "rows *sender batch"],
        y: Shaped[Array, "receiving *receiver batch"],
        dtype: DTypeLike,
    ) -> Float[Array, "receiving *receiver batch"]:
        weight, offset = prepared
        batch = x.shape[-1]
        box = self.sender.read(x.astype(weight.dtype))
        grid = self.sender if self.forward else self.receiver
        stride = grid.stride[: len(grid.places)]
        # The matrix `(receiver units, sender units)` is the kernel once the units of a window are
        # taken apart into places and channels: row-major, as `grid_of` has made sure.
        if self.forward:
            weight = weight.reshape(len(weight), *grid.kernel, -1)
            weight = jnp.moveaxis(weight, 0, -1)
            messages = Conv(weight, stride, "VALID").batched(box)
            if offset is not None:
                messages = messages + offset
        else:
            weight = weight.reshape(*grid.kernel, -1, weight.shape[1])
            box = box.reshape(*grid.places, -1, batch)
            messages = overlap_add(weight, box, stride, offset)
        rows = self.receiver.write(messages.astype(dtype))
        return rows.reshape(-1, *self.item, batch)

    def describe(self) -> tuple[str, str]:
        how = "convolution" if self.forward else "transposed convolution"
        return how, "windows on a grid, one matrix"
