"""Windows that slide over an image, as views of one shared array."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np

from darnax import checks
from darnax.topologies.lazy_networkx import NxDiGraph, nx
from darnax.topologies.tables import Shape, parse_number, parse_shape

Pads = Sequence[tuple[int, int]]
"""Cells before and after an image, along each axis of space."""

Padding = int | str | Sequence[Sequence[int]]
"""Padding as users give it: cells on every side, pairs (before, after), "SAME" or "VALID"."""


class Stage(NamedTuple):
    """Windows that slide over an image, and how many features look through each.

    **Fields:**

    - `space`: the shape of the image, without its channels.
    - `window`, `stride`: cells along each axis.
    - `pads`: cells of padding before and after the image, along each axis.
    - `features`: how many features every window has.
    """

    space: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    pads: Pads
    features: int

    @property
    def counts(self) -> tuple[int, ...]:
        """How many windows there are along each axis."""
        counts = []
        axes = zip(self.space, self.pads, self.window, self.stride, strict=True)
        for size, pad, window, stride in axes:
            counts.append((size + sum(pad) - window) // stride + 1)
        return tuple(counts)

    def positions(self) -> Iterator[tuple[int, ...]]:
        """The position of every window among the others."""
        return product(*map(range, self.counts))

    def window_at(self, position: tuple[int, ...]) -> tuple[slice, ...]:
        """The slice of the padded image that a window sees."""
        axes = zip(position, self.stride, self.window, strict=True)
        return tuple(slice(i * stride, i * stride + window) for i, stride, window in axes)


@checks.by_hand
def convolutional(
    image: Shape,
    window: Shape | list[Shape],
    stride: Shape | list[Shape] = 1,
    *,
    features: int | list[int],
    padding: Padding | list[Padding] = 0,
    backward: bool = False,
    tied: bool = True,
) -> NxDiGraph:
    """An image seen through overlapping windows, each of which sends to features of its own.

    The image is a shared array, with its padding around it. Node `"image"` is the interior, the
    input; the border is held at zero. Every window is a node `("patch", i, j)` that views its slice
    of the array, and sends by an edge `forward` to `("feature", i, j)`, of shape `(features,)`. All
    features together are the node `"features"`, of shape `(rows, columns, features)`, the output.
    Along an axis of n cells there are `(n + padding - window) // stride + 1` windows. With `tied`
    weights and `dx.dense()` this is a convolution; `backward` draws the reverse edges, whose
    messages add up on the image where windows overlap: the transpose of a convolution.

    Nodes that view the image are of kind `image`, those that view features of kind `feature`.

    Several stages see one through the next: the features of one are the image of the following. The
    names of stage 2 and on carry its number, `("patch2", i, j)`, `("feature2", i, j)` and
    `"features2"`; weights are tied within each.

    **Arguments:**

    - `image`: the shape `(*space, channels)`, with one to three axes of space.
    - `window`, `stride`: one number for all axes of space, or a tuple with one for each.
    - `features`: how many features look through every window; a list of such numbers makes as many
      stages. Then `window`, `stride` and `padding` may be lists too, with one entry a stage.
    - `padding`: a number of cells on every side, a tuple of pairs (before, after), or `"SAME"` or
      `"VALID"` as in JAX.
    - `backward`: whether features send back to their windows.
    - `tied`: whether all windows of a stage use the same weights.

    Raises `ValueError` for a window larger than the padded image, a stride below 1, or padding that
    is negative or hides whole windows.

    !!! example

        ```python
        graph = dx.topologies.convolutional((28, 28, 1), window=5, features=16)
        graph.number_of_edges()  # 576
        couplings = {"forward": dx.dense()}
        topology = dx.Topology(graph)
        network = dx.Network(topology, couplings, {"feature": dx.sign}, key=jax.random.key(0))
        ```
    """
    shape = parse_shape(image, "image")
    kinds = ["forward"]
    if checks.flag("backward", backward):
        kinds.append("backward")
    tied = checks.flag("tied", tied)
    if not 2 <= len(shape) <= 4:
        raise ValueError(
            "`image` has the shape (*space, channels), with one to three axes of space, but got "
            f"{shape}; give it a channel axis, as in (28, 28, 1)"
        )
    stages = _stages(shape[:-1], features, window, stride, padding)
    # Padding is part of the array, and held at zero: so every window is a view of the same shape,
    # and all windows of a stage run as one operation.
    graph = nx.DiGraph(arrays={}, node_kinds=("image", "feature"), edge_kinds=tuple(kinds))
    _add_map(graph, "image", "image", shape, stages[0].pads, "border")
    seen = kind = "image"
    for number, stage in enumerate(stages):
        suffix = _suffix(number)
        for i in stage.positions():
            index = stage.window_at(i)
            graph.add_node(("patch" + suffix, *i), array=seen, index=index, kind=kind)
        # Around the features lies the padding of the stage that sees them.
        pads = [(0, 0)] * len(stage.space)
        if stage is not stages[-1]:
            pads = stages[number + 1].pads
        shape = (*stage.counts, stage.features)
        seen = "features" + suffix
        kind = "feature"
        _add_map(graph, seen, kind, shape, pads, "border" + _suffix(number + 1))
        for i in stage.positions():
            index = [before + along for along, (before, _) in zip(i, pads, strict=True)]
            graph.add_node(("feature" + suffix, *i), array=seen, index=tuple(index), kind=kind)
        _add_edges(graph, stage, suffix, kinds, tied)
    graph.nodes["image"]["role"] = "input"
    graph.nodes[seen]["role"] = "output"
    return graph


def _suffix(number: int) -> str:
    """What the names of a stage end in, from the second stage on."""
    return str(number + 1) if number else ""


def _add_map(
    graph: NxDiGraph, name: str, kind: str, shape: tuple[int, ...], pads: Pads, border: str
):
    """A shared array of `shape` and padding: a view of the interior, and strips of border."""
    inside, sizes = [], []
    for size, (before, after) in zip(shape[:-1], pads, strict=True):
        inside.append(slice(before, before + size))
        sizes.append(before + size + after)
    graph.graph["arrays"][name] = (*sizes, shape[-1])
    graph.add_node(name, array=name, index=tuple(inside), kind=kind)
    # Strips before and after an axis reach over the interior of the axes in front of it and over
    # the whole of those behind it, so that they cover each cell of the border once.
    for axis, part in enumerate(inside):
        strips = {"before": slice(0, part.start), "after": slice(part.stop, sizes[axis])}
        for side, strip in strips.items():
            if strip.start < strip.stop:
                index = (*inside[:axis], strip)
                node = (border, axis, side)
                graph.add_node(node, array=name, index=index, kind=kind, role="held")


def _add_edges(graph: NxDiGraph, stage: Stage, suffix: str, kinds: list[str], tied: bool):
    """An edge of each kind between every window and its features."""
    for i in stage.positions():
        patch = ("patch" + suffix, *i)
        unit = ("feature" + suffix, *i)
        ends = {"forward": (patch, unit), "backward": (unit, patch)}
        for kind in kinds:
            tie = {"tie": kind + suffix} if tied else {}
            graph.add_edge(*ends[kind], kind=kind, **tie)


def _stages(
    space: tuple[int, ...], features: Any, window: Any, stride: Any, padding: Any
) -> list[Stage]:
    """The stages, one seen through the next."""
    stages = []
    for count, size, step, cells in _per_stage(features, window, stride, padding):
        width = checks.per_axis("window", size, len(space))
        steps = checks.per_axis("stride", step, len(space))
        pads = _pads(cells, space, width, steps)
        stage = Stage(space, width, steps, pads, parse_number("features", count))
        small = [axis for axis, windows in enumerate(stage.counts) if windows < 1]
        if small:
            raise ValueError(
                f"`window` {width} is larger than the image of {space} with `padding` {pads} "
                f"along axes {small}; make it smaller or add padding"
            )
        stages.append(stage)
        space = stage.counts
    return stages


def _per_stage(features: Any, window: Any, stride: Any, padding: Any) -> Iterator[tuple]:
    """What is given for each stage; what is no list is for all of them."""
    units = features if isinstance(features, list) else [features]
    columns, wrong = [units], {}
    geometry = {"window": window, "stride": stride, "padding": padding}
    for name, given in geometry.items():
        column = given if isinstance(given, list) else [given] * len(units)
        columns.append(column)
        if len(column) != len(units):
            wrong[name] = len(column)
    if wrong or not units:
        raise ValueError(
            f"`features` makes {len(units)} stages, but there are entries for {wrong or 'none'}; "
            "give lists with one entry a stage, tuples with one an axis"
        )
    return zip(*columns, strict=True)


def _pads(
    padding: Any, space: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]
) -> Pads:
    """Cells before and after the image along every axis."""
    # A list is one entry a stage, and was taken apart before: here only tuples are pairs.
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        pads = list(jax.lax.padtype_to_pads(space, window, stride, padding))
    elif isinstance(padding, tuple) or (isinstance(padding, np.ndarray) and padding.ndim == 2):
        pads = list(padding)
    else:
        pads = [(padding, padding)] * len(space)
    if len(pads) != len(space) or not all(map(_is_pad, pads, window)):
        checks.refuse(
            "padding",
            f"at least 0 and smaller than the window {window} on every side of an image of {space}",
            padding,
            "a window further out would see nothing of it: give a number of cells, a tuple of "
            "pairs (before, after), 'SAME' or 'VALID'",
            ValueError,
        )
    return [(int(before), int(after)) for before, after in pads]


def _is_pad(pad: Any, window: int) -> bool:
    """Whether this is a pair of numbers of cells, each smaller than a window."""
    if not isinstance(pad, (tuple, list, np.ndarray)) or len(pad) != 2:
        return False
    # A window that lies in the padding alone would see nothing of the image.
    integers = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in pad)
    return integers and all(0 <= n < window for n in pad)
