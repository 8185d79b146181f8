"""The picture of a state: every array in the shape that it has."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from darnax import _text, checks
from darnax.diagrams.diagram import written
from darnax.diagrams.placement import Place, by_distance, given_places
from darnax.plots.axes import Box, axes_of, panels, size_of
from darnax.states.graph import GraphState
from darnax.topologies.lazy_networkx import NxGraph, nx
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 12
"""The most nodes of one array that are shown one by one."""

VERTICES = 200
"""The most vertices of a graph that are drawn on it."""

CHANNELS = 64
"""The most channels of an image that are shown."""

LINE = 64
"""The most cells of a vector in a line."""

WORDS_ABOVE, WORDS_BELOW = 0.12, 0.11
"""The height of a line of words, in cells of the picture."""

COLOURS = "RdBu_r"
"""Blue below zero, white at zero, red above."""

Arrays: TypeAlias = Mapping[str, np.ndarray]
"""The arrays of a state by name, batch last."""

# Any: names of nodes, which a mapping is invariant in.
Limit: TypeAlias = float | int | Mapping[Any, float] | None
"""The value of the darkest colours: one for all, one for each by name, or None for the largest."""


@dataclass(frozen=True)
class Wiring:
    """The vertices `(n, 2)` of a graph in the plane, and its edges `(E, 2)` as pairs of them."""

    places: np.ndarray
    pairs: np.ndarray


@dataclass(frozen=True)
class Tile:
    """One part of the picture: a node, an array, or a layer of vertices.

    **Fields:**

    - `name`: of the node or array.
    - `words`: its shape.
    - `read`: the values of one sample, from all arrays: of an image `(rows, columns)` or
      `(rows, columns, channels)`, of a vector `(n,)`, of a graph one for each vertex.
    - `wiring`: of a graph, else None.
    """

    name: Name
    words: str
    read: Callable[[Arrays, int], np.ndarray]
    wiring: Wiring | None = None


@checks.by_hand
def state(
    state: GraphState,
    nodes: Sequence[Name] | None = None,
    *,
    ax: "Axes | None" = None,
    sample: int = 0,
    limit: Limit = None,
    place: Place | None = None,
    graphs: Mapping[Any, NxGraph] | None = None,
) -> "Axes":
    """One sample of a state, each part in the shape that it has.

    - Two or more axes are an image; a third axis, and all behind it, are channels side by side, 64
      at most.
    - One axis is a strip of cells, in lines of up to 64.
    - Scalar nodes that send to each other are vertices of their graph, coloured by their value, up
      to 200; so are more than 12 nodes of any shape, by the mean of their cells. Sites `(i, j)` of
      a full grid are an image.
    - Views are shown as the array that they share.

    Blue is below zero and red above, the darkest the largest size of a value, which stands below
    each part. Values that are not finite are black.

    **Arguments:**

    - `state`: a `GraphState`.
    - `nodes`: the nodes and arrays to show, each by itself; None for everything. A single part
      fills the axes.
    - `ax`: matplotlib axes; None makes a figure.
    - `sample`: the position in the batch; negative ones count from the end.
    - `limit`: the value of the darkest colours, one for all parts or a mapping from their names.
    - `place`: where the vertices of graphs stand, by node, or a layout of networkx.
    - `graphs`: for nodes whose units are the vertices of a graph, such as the layer of
      `graph_layer(..., whole=True)`, that graph: rows of the node stand in the order of its nodes.

    Returns the axes. Raises `TypeError` or `ValueError` for anything that does not fit.

    !!! example

        ```python
        ax = dx.plots.state(state, ["eye", "cortex"], sample=3)
        ```
    """
    advice = "make one, as GraphState(topology)"
    checks.instance("state", state, GraphState, "a darnax.GraphState", advice)
    batch = state.batch_size
    position = checks.count("sample", sample, -batch, batch - 1)
    tiles = tiles_of(state.topology, nodes, place, graphs)
    arrays = {name: np.asarray(array) for name, array in state.arrays.items()}
    values = [tile.read(arrays, position) for tile in tiles]
    limits = _limits(limit, tiles, values)
    boxes, size = _boxes(tiles, values)
    ax = axes_of(ax, size)
    inner = panels(ax, boxes) if len(tiles) > 1 else [ax]
    for panel, tile, own, most in zip(inner, tiles, values, limits, strict=True):
        _draw(panel, tile, own, most)
    return ax


@checks.by_hand
def _limits(
    limit: Limit,
    tiles: Sequence[Tile],
    values: Sequence[np.ndarray],
) -> list[float]:
    """The value of the darkest colour of every tile."""
    given = limit if isinstance(limit, Mapping) else {}
    names = [tile.name for tile in tiles]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(
            f"`limit` names {_text.names(unknown)}, which are not shown; the parts are "
            f"{_text.names(names)}"
        )
    limits: list[float] = []
    for name, own in zip(names, values, strict=True):
        most = given.get(name) if isinstance(limit, Mapping) else limit
        if most is None:
            limits.append(largest(own))
        else:
            limits.append(checks.number("limit", most, above=0))
    return limits


def largest(values: np.ndarray) -> float:
    """The largest size of a finite value; 1 where all are zero."""
    finite = abs(values[np.isfinite(values)])
    return float(finite.max(initial=0)) or 1.0


# what is shown


@checks.by_hand
def tiles_of(
    topology: Topology,
    nodes: Sequence[Name] | None,
    place: Place | None = None,
    graphs: Mapping[Any, NxGraph] | None = None,
) -> list[Tile]:
    """The tiles of some nodes and arrays, or of everything."""
    wirings = _wirings(topology, graphs, place)
    if nodes is None:
        tiles: list[Tile] = []
        for name in topology.arrays:
            tiles += _array_tiles(topology, name, wirings, place)
        return tiles
    named = checks.names("nodes", nodes)
    if not named:
        raise ValueError("`nodes` is empty; name some nodes or arrays, or leave it out for all")
    unknown = [name for name in named if name not in topology and name not in topology.arrays]
    if unknown:
        raise ValueError(
            f"`nodes` names {_text.names(unknown)}, which are neither nodes nor arrays; give some "
            "of topology.nodes or topology.arrays"
        )
    tiles = []
    for name in named:
        if name in topology:
            tiles.append(_node_tile(topology, topology.index(name), wirings))
        else:
            tiles += _array_tiles(topology, str(name), wirings, place)
    return tiles


@checks.by_hand
def _wirings(
    topology: Topology,
    graphs: Mapping[Any, NxGraph] | None,
    place: Place | None,
) -> dict[int, Wiring]:
    """The graphs that a user gives for nodes, by position of node."""
    if graphs is None:
        return {}
    found: dict[int, Wiring] = {}
    for name, graph in checks.mapping("graphs", graphs, "nodes to networkx graphs").items():
        node = topology.index(name)
        argument = f"graphs[{name!r}]"
        checks.instance(argument, graph, nx.Graph, "a networkx graph", "give one")
        vertices = (*topology.node_class(node).shape, 0)[0]
        if len(graph) != vertices:
            raise ValueError(
                f"`{argument}` has {len(graph)} vertices, but the first axis of the node has "
                f"{vertices}; give the graph of its units"
            )
        names = list(graph)
        position = {vertex: i for i, vertex in enumerate(names)}
        pairs = [(position[edge[0]], position[edge[1]]) for edge in graph.edges]
        found[node] = _wiring(names, pairs, place)
    return found


@checks.by_hand
def _wiring(
    names: Sequence[Name],
    pairs: Sequence[tuple[int, int]],
    place: Place | None,
) -> Wiring:
    if place is not None:
        return Wiring(given_places(names, pairs, place), _ends(pairs))
    return Wiring(by_distance(len(names), pairs), _ends(pairs))


def _ends(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.asarray(pairs, np.int64).reshape(-1, 2)


@checks.by_hand
def _array_tiles(
    topology: Topology,
    name: str,
    wirings: Mapping[int, Wiring],
    place: Place | None,
) -> list[Tile]:
    """The tiles of an array: a shared one as it is, a stacked one by its nodes."""
    spec = topology.arrays[name]
    if spec.shared:
        return [Tile(name, _shape_words(spec.shape), lambda arrays, i: arrays[name][..., i])]
    position = topology.layout.arrays.index(spec)
    members = topology.layout.members[position].tolist()
    return _stacked_tiles(topology, members, wirings, place)


def _node_tile(topology: Topology, node: int, wirings: Mapping[int, Wiring]) -> Tile:
    view = topology.view_at(node)

    def read(arrays: Arrays, i: int) -> np.ndarray:
        return arrays[view.array][(*view.index, ..., i)]

    name, words, wiring = topology.nodes[node], _shape_words(view.shape), wirings.get(node)
    if wiring is None:
        return Tile(name, words, read)
    return Tile(name, words, lambda arrays, i: _by_vertex(read(arrays, i)), wiring)


def _by_vertex(values: np.ndarray) -> np.ndarray:
    """One value for each vertex: the mean of its cells."""
    return values.reshape(len(values), -1).mean(axis=1)


@checks.by_hand
def _stacked_tiles(
    topology: Topology,
    members: Sequence[int],
    wirings: Mapping[int, Wiring],
    place: Place | None,
) -> list[Tile]:
    """The tiles of the nodes of one stacked array."""
    scalar = math.prod(topology.node_class(members[0]).shape) == 1
    if len(members) > 1 and (scalar or len(members) > FEW):
        tile = _layer_tile(topology, members, place, scalar)
        if tile is not None:
            return [tile]
    if len(members) <= FEW:
        return [_node_tile(topology, node, wirings) for node in members]
    array = topology.array_of(members[0]).name
    # A row for each node.
    cells = (-1,) if scalar else (len(members), -1)
    words = _count_words(topology, members)
    return [Tile(array, words, lambda arrays, i: arrays[array][..., i].reshape(cells))]


@checks.by_hand
def _layer_tile(
    topology: Topology,
    members: Sequence[int],
    place: Place | None,
    scalar: bool,
) -> Tile | None:
    """Nodes as the sites of a grid, or as the vertices of their graph; None if they are neither."""
    array = topology.array_of(members[0]).name
    names = [topology.nodes[node] for node in members]
    words = _count_words(topology, members)
    grid = _grid_of_names(names)
    if grid is not None and scalar:
        return Tile(array, words, lambda arrays, i: arrays[array][..., i].reshape(grid))
    pairs = _pairs_among(topology, members)
    if not pairs or len(members) > VERTICES:
        return None
    wiring = _wiring(names, pairs, place)
    words = words if scalar else f"{words}, means"
    return Tile(array, words, lambda arrays, i: _by_vertex(arrays[array][..., i]), wiring)


def _count_words(topology: Topology, members: Sequence[int]) -> str:
    shape = topology.node_class(members[0]).shape
    return f"{len(members)} nodes" + (f" of {_shape_words(shape)}" if shape else "")


def _grid_of_names(names: Sequence[object]) -> tuple[int, int] | None:
    """The rows and columns of nodes whose names are all sites `(i, j)` of a grid, row by row."""
    last = names[-1]
    if not isinstance(last, tuple) or len(last) != 2:
        return None
    if not all(type(part) is int for part in last):
        return None
    rows, columns = last[0] + 1, last[1] + 1
    sites = [(i, j) for i in range(rows) for j in range(columns)] if rows > 0 < columns else []
    return (rows, columns) if list(names) == sites else None


def _pairs_among(topology: Topology, members: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs of members that an edge joins, by their places among the members."""
    columns = topology.columns
    place = np.full(len(topology), -1)
    place[members] = np.arange(len(members))
    ends = np.stack([place[columns.senders], place[columns.receivers]], axis=1)
    inside = (ends >= 0).all(axis=1) & (ends[:, 0] != ends[:, 1])
    # An edge there and the edge back are one line.
    pairs = np.unique(np.sort(ends[inside], axis=1), axis=0)
    return [(one, other) for one, other in pairs.tolist()]


def _shape_words(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if shape else "one unit"


# where and how it is shown


def _boxes(
    tiles: Sequence[Tile],
    values: Sequence[np.ndarray],
) -> tuple[list[Box], tuple[float, float]]:
    """The places of tiles inside of some axes, and the size in inches that suits them.

    Cells of a grid hold one image or graph, or up to three strips below each other.
    """
    heights = [_height(tile, own) for tile, own in zip(tiles, values, strict=True)]
    cells: list[list[int]] = []
    for i, height in enumerate(heights):
        full = not cells or sum(heights[j] for j in cells[-1]) + height > 1.01
        if full:
            cells.append([])
        cells[-1].append(i)
    columns = min(len(cells), max(4, math.ceil(math.sqrt(1.5 * len(cells)))))
    rows = math.ceil(len(cells) / columns)
    boxes: list[Box] = []
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        # Strips that do not fill a cell stand in its middle.
        top = 1 - (1 - sum(heights[i] for i in cell)) / 2
        for i in cell:
            # A part of each height is for the words above and below.
            low, high = top - heights[i] + WORDS_BELOW, top - WORDS_ABOVE
            box = column + 0.05, rows - 1 - row + low, 0.9, high - low
            boxes.append((box[0] / columns, box[1] / rows, box[2] / columns, box[3] / rows))
            top -= heights[i]
    return boxes, (2.3 * columns, 2.4 * rows)


def _height(tile: Tile, values: np.ndarray) -> float:
    """The share of a cell that a tile takes, words included."""
    if tile.wiring is not None or values.ndim > 1:
        return 1.0
    lines = math.ceil(values.size / LINE)
    return min(1.0, WORDS_ABOVE + WORDS_BELOW + 0.07 + 0.035 * lines)


def _draw(ax: "Axes", tile: Tile, values: np.ndarray, limit: float) -> None:
    """A tile in axes of its own."""
    if np.iscomplexobj(values):
        values = abs(values)
    values = values.astype(float)
    if tile.wiring is not None:
        _draw_graph(ax, tile.wiring, values, limit)
    elif values.ndim <= 1:
        _draw_image(ax, _in_lines(values.ravel()), limit, square=values.size <= FEW)
    else:
        channels = values.reshape(*values.shape[:2], -1)
        _draw_image(ax, _side_by_side(channels), limit, square=True)
        _separate(ax, channels.shape)
    # Names of a user may hold what matplotlib would read as mathematics.
    ax.set_title(written(tile.name), fontsize=10, parse_math=False)
    words = f"{tile.words}, ±{limit:.3g}"
    if values.ndim > 2 and tile.wiring is None and values[0, 0].size > CHANNELS:
        words = f"{words}, {CHANNELS} channels shown"
    ax.set_xlabel(words, fontsize=8, color="0.4")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _in_lines(values: np.ndarray) -> np.ndarray:
    """A vector as lines of cells, the last filled up with nothing."""
    lines = math.ceil(values.size / LINE)
    width = math.ceil(values.size / lines)
    filled = np.ma.masked_all(lines * width)
    filled[: values.size] = values
    return filled.reshape(lines, width)


def _side_by_side(values: np.ndarray) -> np.ndarray:
    """The channels of an image `(rows, columns, channels)` beside and below each other."""
    rows, columns, channels = values.shape
    channels = min(channels, CHANNELS)
    across, down = _sheet(channels)
    sheet = np.ma.masked_all((down * rows, across * columns))
    for channel in range(channels):
        i, j = divmod(channel, across)
        top, left = i * rows, j * columns
        sheet[top : top + rows, left : left + columns] = values[..., channel]
    return sheet


def _sheet(channels: int) -> tuple[int, int]:
    """How many channels stand beside and below each other."""
    across = math.ceil(math.sqrt(channels))
    return across, math.ceil(channels / across)


def _separate(ax: "Axes", shape: tuple[int, ...]) -> None:
    """Draw white lines between channels."""
    rows, columns, channels = shape
    across, down = _sheet(min(channels, CHANNELS))
    for i in range(1, down):
        ax.axhline(i * rows - 0.5, color="white", linewidth=2.5)
    for j in range(1, across):
        ax.axvline(j * columns - 0.5, color="white", linewidth=2.5)


def _draw_image(ax: "Axes", values: np.ndarray, limit: float, square: bool) -> None:
    import matplotlib.pyplot as plt

    # What is masked is no cell, and stays white.
    image = np.ma.masked_array(_on_scale(np.ma.getdata(values), limit), np.ma.getmaskarray(values))
    ax.imshow(
        image,
        cmap=plt.colormaps[COLOURS].with_extremes(bad="white", over="black"),
        vmin=-limit,
        vmax=limit,
        aspect="equal" if square else "auto",
        interpolation="nearest",
    )
    # Few cells are told apart by lines, since neighbours may have one colour.
    rows, columns = image.shape
    if max(rows, columns) <= LINE // 4 or rows == 1:
        ax.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, colors="white", linewidths=0.4)
        ax.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, colors="white", linewidths=0.4)


def _on_scale(values: np.ndarray, limit: float) -> np.ndarray:
    """Values that are clipped to the scale; what is not finite lies above it, where it is black."""
    return np.where(np.isfinite(values), np.clip(values, -limit, limit), 2 * limit)


def _draw_graph(ax: "Axes", wiring: Wiring, values: np.ndarray, limit: float) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    lines = list(wiring.places[wiring.pairs])
    ax.add_collection(LineCollection(lines, colors="0.75", linewidths=0.8))
    low, high = wiring.places.min(axis=0), wiring.places.max(axis=0)
    room = 0.08 * max(float((high - low).max()), 1e-3)
    ax.scatter(
        *wiring.places.T,
        c=_on_scale(values, limit),
        s=_dot(ax, len(values)),
        cmap=plt.colormaps[COLOURS].with_extremes(over="black"),
        vmin=-limit,
        vmax=limit,
        edgecolors="0.3",
        linewidths=0.6,
        zorder=2,
    )
    ax.set(
        xlim=(low[0] - room, high[0] + room),
        ylim=(low[1] - room, high[1] + room),
        aspect="equal",
    )


def _dot(ax: "Axes", count: int) -> float:
    """The area of a vertex in square points, so that vertices leave half of the axes free."""
    width, height = size_of(ax)
    return float(np.clip(0.08 * width * height / count, 4, 400))
