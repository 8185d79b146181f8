"""Windows that slide over an image, as views of one shared array."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from darnax import checks
from darnax._lazy import Lazy
from darnax.topologies.tables import parse_number, parse_shape

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")

Pads = Sequence[tuple[int, int]]


class Stage(NamedTuple):
    """Windows on an image of `space` with `pads` around it: as many as `counts` say along each
    axis.
    """

    space: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    pads: Pads
    features: int

    @property
    def counts(self) -> tuple[int, ...]:
        """How many windows there are along each axis."""
        parts = zip(self.space, self.pads, self.window, self.stride, strict=True)
        return tuple(
            (size + sum(pad) - window) // stride + 1 for size, pad, window, stride in parts
        )

    def windows(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Every window: its place, and its slice of the padded image."""
        for at in product(*map(range, self.counts)):
            parts = zip(at, self.stride, self.window, strict=True)
            yield at, tuple(slice(i * stride, i * stride + window) for i, stride, window in parts)


def convolutional(
    image: Any,
    window: Any,
    stride: Any = 1,
    *,
    features: Any,
    padding: Any = 0,
    backward: Any = False,
    tied: Any = True,
) -> "nx.DiGraph":
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
    backward, tied = checks.flag("backward", backward), checks.flag("tied", tied)
    if not 2 <= len(shape) <= 4:
        raise ValueError(
            "`image` has the shape (*space, channels), with one to three axes of space, but got "
            f"{shape}; give it a channel axis, as in (28, 28, 1)"
        )
    stages = _stages(shape[:-1], features, window, stride, padding)
    graph = nx.DiGraph(
        arrays={},
        node_kinds=("image", "feature"),
        edge_kinds=("forward", *["backward"] * backward),
    )
    _add_map(graph, "image", "image", shape, stages[0].pads, "border")
    for i, stage in enumerate(stages):
        for at, index in stage.windows():
            seen, kind = ("image", "image") if i == 0 else ("features" + _suffix(i - 1), "feature")
            graph.add_node(("patch" + _suffix(i), *at), array=seen, index=index, kind=kind)
        pads = stages[i + 1].pads if i + 1 < len(stages) else [(0, 0)] * len(stage.space)
        shape = (*stage.counts, stage.features)
        _add_map(graph, "features" + _suffix(i), "feature", shape, pads, "border" + _suffix(i + 1))
        for at, _ in stage.windows():
            start = (at[axis] + before for axis, (before, _) in enumerate(pads))
            unit, patch = ("feature" + _suffix(i), *at), ("patch" + _suffix(i), *at)
            graph.add_node(unit, array="features" + _suffix(i), index=tuple(start), kind="feature")
            edges = [(patch, unit, "forward"), *[(unit, patch, "backward")] * backward]
            for u, v, kind in edges:
                graph.add_edge(u, v, kind=kind, **{"tie": kind + _suffix(i)} if tied else {})
    graph.nodes["image"]["role"] = "input"
    graph.nodes["features" + _suffix(len(stages) - 1)]["role"] = "output"
    return graph


def _suffix(stage: int) -> str:
    """What names of stages from the second on end in."""
    return str(stage + 1) if stage else ""


def _add_map(
    graph: "nx.DiGraph", name: str, kind: str, shape: tuple[int, ...], pads: Pads, border: str
):
    """A shared array of `shape` with `pads` around it: a view of the interior, and strips that hold
    the border.
    """
    inside = [slice(before, before + size) for size, (before, _) in zip(shape, pads, strict=False)]
    sizes = [size + sum(pad) for size, pad in zip(shape, pads, strict=False)]
    graph.graph["arrays"][name] = (*sizes, shape[-1])
    graph.add_node(name, array=name, index=tuple(inside), kind=kind)
    for axis, size in enumerate(sizes):
        for side, strip in (
            ("before", slice(0, inside[axis].start)),
            ("after", slice(inside[axis].stop, size)),
        ):
            if strip.start < strip.stop:
                index = (*inside[:axis], strip)
                graph.add_node(
                    (border, axis, side), array=name, index=index, kind=kind, role="held"
                )


def _stages(
    space: tuple[int, ...], features: Any, window: Any, stride: Any, padding: Any
) -> list[Stage]:
    """The stages, one seen through the next."""
    units = features if isinstance(features, list) else [features]
    columns = {"window": window, "stride": stride, "padding": padding}
    columns = {
        name: given if isinstance(given, list) else [given] * len(units)
        for name, given in columns.items()
    }
    wrong = {name: len(column) for name, column in columns.items() if len(column) != len(units)}
    if wrong or not units:
        raise ValueError(
            f"`features` makes {len(units)} stages, but there are entries for {wrong or 'none'}; "
            "give lists with one entry a stage, tuples with one an axis"
        )
    stages = []
    for count, *geometry in zip(units, *columns.values(), strict=True):
        size, step = (
            checks.per_axis(name, given, len(space))
            for name, given in zip(columns, geometry[:2], strict=False)
        )
        stage = Stage(
            space,
            size,
            step,
            _pads(geometry[2], space, size, step),
            parse_number("features", count),
        )
        stages.append(stage)
        space = stage.counts
    return stages


def _pads(
    padding: Any, space: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]
) -> Pads:
    """Cells before and after the image along every axis."""
    pads = _pairs(padding, space, window, stride)
    good = len(pads) == len(space) and all(len(pad) == 2 for pad in pads)
    if not good or not all(
        _is_pad(cells, size) for pad, size in zip(pads, window, strict=True) for cells in pad
    ):
        checks.refuse(
            "padding",
            f"at least 0 and smaller than the window {window} on every side of an image of {space}",
            padding,
            "a window further out would see nothing of it: give a number of cells, a tuple of "
            "pairs (before, after), 'SAME' or 'VALID'",
            ValueError,
        )
    pads = [(int(before), int(after)) for before, after in pads]
    small = [
        axis
        for axis, (n, pad, w) in enumerate(zip(space, pads, window, strict=True))
        if n + sum(pad) < w
    ]
    if small:
        raise ValueError(
            f"`window` {window} is larger than the image of {space} with `padding` {pads} along "
            f"axes {small}; make it smaller or add padding"
        )
    return pads


def _pairs(
    padding: Any, space: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]
) -> list[Any]:
    """What was given, as a sequence with an entry for each axis."""
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        return list(jax.lax.padtype_to_pads(space, window, stride, padding))
    if isinstance(padding, tuple) or (isinstance(padding, np.ndarray) and padding.ndim == 2):
        return [tuple(pad) if isinstance(pad, (tuple, list, np.ndarray)) else () for pad in padding]
    return [(padding, padding)] * len(space)


def _is_pad(cells: Any, window: int) -> bool:
    return (
        isinstance(cells, (int, np.integer))
        and not isinstance(cells, bool)
        and bool(0 <= cells < window)
    )
