"""Windows that slide over an image, as overlapping views of one shared array.

Overlap needs no rule of its own: a cell is one unit, whichever windows see it, and what windows
send back adds up on it.
"""

from collections.abc import Iterator, Sequence
from itertools import product, zip_longest
from typing import Any, NamedTuple

import jax
import numpy as np

from darnax import checks
from darnax.topologies.lazy_networkx import NxDiGraph, nx
from darnax.topologies.names import is_integer
from darnax.topologies.tables import Shape, parse_number, parse_shape

Pads = Sequence[tuple[int, int]]
"""Cells before and after an image, along each axis of space."""

Padding = int | str | Sequence[Sequence[int]]
"""Padding as users give it: cells on every side, pairs (before, after), "SAME" or "VALID"."""


class Stage(NamedTuple):
    """Windows that slide over an image, and the number of features that each of them has.

    **Fields:**

    - `suffix`: the end of all names of this stage.
    - `space`: the shape of the image, without its channels.
    - `window`, `stride`: cells along each axis.
    - `pads`: cells of padding before and after the image, along each axis.
    - `features`: the number of features of every window.
    """

    suffix: str
    space: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    pads: Pads
    features: int

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of windows along each axis."""
        counts: list[int] = []
        for size, pad, window, stride in zip(
            self.space,
            self.pads,
            self.window,
            self.stride,
            strict=True,
        ):
            # Steps that the window can make from the first cell on, and the window it starts at.
            steps = (size + sum(pad) - window) // stride
            counts.append(steps + 1)
        return tuple(counts)

    def positions(self) -> Iterator[tuple[int, ...]]:
        """The position of every window among the others."""
        return product(*map(range, self.counts))

    def window_at(self, position: tuple[int, ...]) -> tuple[slice, ...]:
        """The slice of the padded image that a window sees."""
        parts: list[slice] = []
        for along, stride, window in zip(position, self.stride, self.window, strict=True):
            start = along * stride
            parts.append(slice(start, start + window))
        return tuple(parts)


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

    The image is a shared array, with its padding around it. Node `"image"` is the interior and the
    input; the border is held at zero. Every window is a node `("patch", i, j)`, a view of its slice
    of the array, and sends by an edge `forward` to `("feature", i, j)`, of shape `(features,)`. All
    features together are the node `"features"`, of shape `(rows, columns, features)`, the output.
    Along an axis of n cells there are `(n + padding - window) // stride + 1` windows. With `tied`
    weights and `dx.dense()` this is a convolution. `backward` draws the reverse edges, whose
    messages add up on the image where windows overlap: with `dx.transpose("forward")` the transpose
    of that convolution, by the same weights.

    Views of the image are of kind `image`, views of features of kind `feature`.

    With several stages the features of each are the image of the next. Names from stage 2 on carry
    its number, `("patch2", i, j)`, `("feature2", i, j)` and `"features2"`. Weights are tied within
    a stage.

    **Arguments:**

    - `image`: the shape `(*space, channels)`, with one to three axes of space.
    - `window`, `stride`: one number for all axes of space, or a tuple with one for each.
    - `features`: the number of features of every window; a list of such numbers makes as many
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
    graph = nx.DiGraph(
        arrays={},
        node_kinds=("image", "feature"),
        edge_kinds=tuple(kinds),
    )
    # Every stage looks at one shared array and fills the next.
    _add_map(graph, "image", "image", shape, stages[0])
    seen = kind = "image"
    for stage, following in zip_longest(stages, stages[1:]):
        for position in stage.positions():
            graph.add_node(
                ("patch" + stage.suffix, *position),
                array=seen,
                index=stage.window_at(position),
                kind=kind,
            )
        seen = "features" + stage.suffix
        kind = "feature"
        inside = _add_map(graph, seen, kind, (*stage.counts, stage.features), following)
        for position in stage.positions():
            # All channels of one cell: the index leaves the last axis out.
            index = [part.start + along for part, along in zip(inside, position, strict=True)]
            graph.add_node(
                ("feature" + stage.suffix, *position),
                array=seen,
                index=tuple(index),
                kind=kind,
            )
        _add_edges(graph, stage, kinds, tied)
    graph.nodes["image"]["role"] = "input"
    graph.nodes[seen]["role"] = "output"
    return graph


def _add_map(
    graph: NxDiGraph,
    name: str,
    kind: str,
    shape: tuple[int, ...],
    viewer: Stage | None,
) -> list[slice]:
    """A shared array with the padding of the stage that looks at it; the slices of its interior.

    Its nodes are a view of the interior, and strips of border that are held.
    """
    # Padding is part of the array, held at zero: so every window is a view of the same shape, and
    # all windows of a stage run as one operation.
    pads = [(0, 0)] * (len(shape) - 1) if viewer is None else viewer.pads
    inside: list[slice] = []
    sizes: list[int] = []
    for size, (before, after) in zip(shape[:-1], pads, strict=True):
        inside.append(slice(before, before + size))
        sizes.append(before + size + after)
    graph.graph["arrays"][name] = (*sizes, shape[-1])
    graph.add_node(name, array=name, index=tuple(inside), kind=kind)
    if viewer is None:
        return inside
    # Strips before and after an axis reach over the interior of the axes in front of it and over
    # the whole of those behind it, so that they cover each cell of the border once.
    for axis, part in enumerate(inside):
        strips = {
            "before": slice(0, part.start),
            "after": slice(part.stop, sizes[axis]),
        }
        for side, strip in strips.items():
            if strip.start < strip.stop:
                graph.add_node(
                    ("border" + viewer.suffix, axis, side),
                    array=name,
                    index=(*inside[:axis], strip),
                    kind=kind,
                    role="held",
                )
    return inside


def _add_edges(
    graph: NxDiGraph,
    stage: Stage,
    kinds: Sequence[str],
    tied: bool,
) -> None:
    """An edge of each kind between every window and its features."""
    for position in stage.positions():
        patch = ("patch" + stage.suffix, *position)
        feature = ("feature" + stage.suffix, *position)
        ends = {
            "forward": (patch, feature),
            "backward": (feature, patch),
        }
        for kind in kinds:
            # Stages may differ in shapes, so that each has weights of its own.
            tie = {"tie": kind + stage.suffix} if tied else {}
            graph.add_edge(*ends[kind], kind=kind, **tie)


def _stages(
    space: tuple[int, ...],
    features: object,
    window: object,
    stride: object,
    padding: object,
) -> list[Stage]:
    """The stages, of which each sees the features of the one before."""
    stages: list[Stage] = []
    for count, size, step, cells in _per_stage(features, window, stride, padding):
        width = checks.per_axis("window", size, len(space))
        steps = checks.per_axis("stride", step, len(space))
        pads = _pads(cells, space, width, steps)
        stage = Stage(
            # Names of the first stage are plain, since most drawings have one.
            suffix=str(len(stages) + 1) if stages else "",
            space=space,
            window=width,
            stride=steps,
            pads=pads,
            features=parse_number("features", count),
        )
        small = [axis for axis, windows in enumerate(stage.counts) if windows < 1]
        if small:
            raise ValueError(
                f"`window` {width} is larger than the image of {space} with `padding` {pads} "
                f"along axes {small}; make it smaller or add padding"
            )
        stages.append(stage)
        space = stage.counts
    return stages


def _per_stage(
    features: Any,
    window: object,
    stride: object,
    padding: object,
) -> Iterator[tuple[Any, ...]]:
    """The four arguments of each stage; what is no list is for all stages."""
    units = features if isinstance(features, list) else [features]
    columns: list[list[object]] = [units]
    wrong: dict[str, int] = {}
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
    padding: Any,
    space: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
) -> Pads:
    """Cells before and after the image along every axis."""
    # A list is one entry a stage, and was taken apart before: here only tuples are pairs.
    pairs = isinstance(padding, tuple)
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        pads = list(jax.lax.padtype_to_pads(space, window, stride, padding))
    elif pairs or (isinstance(padding, np.ndarray) and padding.ndim == 2):
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


def _is_pad(pad: object, window: int) -> bool:
    """Whether this is a pair of numbers of cells, each smaller than a window."""
    if not isinstance(pad, (tuple, list, np.ndarray)) or len(pad) != 2:
        return False
    # A window that lies in the padding alone would see nothing of the image.
    return all(is_integer(cells) and 0 <= cells < window for cells in pad)
