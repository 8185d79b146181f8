"""The picture of a topology: who is there, and who sends to whom."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from darnax import _text, checks
from darnax.diagrams import curves
from darnax.diagrams.diagram import MOST, diagram
from darnax.diagrams.picture import Area, Circle, Picture, Stroke, Word, picture
from darnax.diagrams.placement import Place, placed
from darnax.plots.axes import axes_of, size_of
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection as Artists
    from matplotlib.path import Path


@checks.by_hand
def topology(
    topology: Topology,
    *,
    ax: "Axes | None" = None,
    place: Place | None = None,
    words: Mapping[tuple[Name, ...], object] | bool | None = None,
    bold: Collection[str] = (),
    most: int = MOST,
) -> "Axes":
    """A topology as circles and arrows.

    A circle is a node, larger for more cells (its radius grows with their logarithm), in a colour
    for each kind. Inputs have a bold border, outputs a double one, nodes that are held besides a
    dashed one. An arrow is an edge in the colour of its kind; edges of one kind there and back are
    one arrow with two heads. A pale band joins nodes whose views share cells of an array.

    With inputs, or few nodes, the network is drawn in layers from left to right, such that few
    edges run backwards; a graph of many nodes without a direction by its distances. Above `most`
    nodes a circle is a kind, and an arrow says how many edges it stands for.

    **Arguments:**

    - `topology`: a `Topology`.
    - `ax`: matplotlib axes; None makes a figure of the size that the picture has.
    - `place`: where nodes stand: a mapping from names to `(x, y)`, or a layout of networkx such as
      `nx.circular_layout`. The coordinates are then those of the axes. In a picture of kinds a name
      is the tuple of the kind and its roles, `("hidden",)` or `("node", "input")`.
    - `words`: what is written on edges: True for their kinds, False for nothing, or a mapping from
      edges, as in `topology.edges`, to anything with a text. None writes the kinds of up to 12.
    - `bold`: the edge kinds that stand out, such as those that learn.
    - `most`: the number of nodes that are drawn one by one.

    Returns the axes. Raises `TypeError` or `ValueError` for anything that does not fit.

    !!! example

        ```python
        ax = dx.plots.topology(topology, bold=["forward"])
        ```
    """
    advice = "compile a graph as Topology(graph)"
    checks.instance("topology", topology, Topology, "a darnax.Topology", advice)
    most = checks.count("most", most)
    _check_words(topology, words)
    kinds = checks.names("bold", bold)
    unknown = [kind for kind in kinds if kind not in topology.edge_kinds]
    if unknown:
        raise ValueError(
            f"`bold` names {_text.names(unknown)}, which no edge has; the kinds are "
            f"{_text.names(topology.edge_kinds)}"
        )
    if isinstance(words, Mapping) and len(topology) > most:
        raise ValueError(
            f"`words` are for single edges, but a picture of {len(topology)} nodes shows kinds; "
            "raise `most`, or leave them out"
        )
    shown = diagram(topology, most, words)
    places, scale = placed(shown, place)
    return draw(picture(shown, places, scale, kinds), ax)


@checks.by_hand
def _check_words(
    topology: Topology,
    words: Mapping[tuple[Name, ...], object] | bool | None,
) -> None:
    if words is None or isinstance(words, (bool, np.bool_)):
        return
    checks.mapping("words", words, "edges to what is written on them, or True, False or None")
    edges = set(topology.edges)
    unknown = [edge for edge in words if edge not in edges]
    if unknown:
        raise ValueError(
            f"`words` names {_text.names(unknown)}, which are no edges; give some of topology.edges"
        )


def draw(picture: Picture, ax: "Axes | None") -> "Axes":
    """A picture in some axes, or in a figure of its size."""
    left, low, right, high = picture.box
    width, height = right - left, high - low
    ax = axes_of(ax, _figure_size(width, height))
    pen = _Pen(picture.scale, _points(ax, width, height))
    layers = [
        pen.areas(picture.bands),
        pen.strokes(picture.strokes),
        pen.areas(picture.heads),
        pen.circles(picture.circles),
        *pen.words(picture.words),
    ]
    # From the back to the front; without a number matplotlib puts lines before shapes.
    for depth, layer in enumerate(layers):
        layer.set_zorder(1 + depth)
        ax.add_collection(layer)
    ax.set(
        xlim=(left * picture.scale, right * picture.scale),
        ylim=(low * picture.scale, high * picture.scale),
        aspect="equal",
    )
    ax.set_axis_off()
    return ax


def _figure_size(width: float, height: float) -> tuple[float, float]:
    """The size of a figure for a picture: its own, but no larger than a screen."""
    shrink = min(1.0, 15 / width, 9 / height)
    return max(2.0, shrink * width), max(1.5, shrink * height)


def _points(ax: "Axes", width: float, height: float) -> float:
    """About how many points an inch of the picture takes in these axes."""
    wide, high = size_of(ax)
    # Lines neither vanish in small axes nor become beams in large ones.
    return float(np.clip(min(wide / width, high / height), 25, 110))


class _Pen:
    """Collections of matplotlib for the parts of a picture: one artist for many of a sort.

    Letters are drawn as shapes. They are then as large as the picture wants them in any axes, and
    remain so when those are resized.
    """

    def __init__(self, scale: float, points: float):
        self.scale, self.points = scale, points

    def areas(self, areas: Sequence[Area]) -> "Artists":
        from matplotlib.collections import PolyCollection

        corners = [area.corners * self.scale for area in areas]
        colours = [_shade(area.colour, area.faint) for area in areas]
        return PolyCollection(corners, facecolors=colours, linewidths=0)

    def strokes(self, strokes: Sequence[Stroke]) -> "Artists":
        from matplotlib.collections import LineCollection

        shares = np.linspace(0, 1, 33)
        lines = [curves.points(stroke.curve, shares) * self.scale for stroke in strokes]
        widths = [stroke.width * self.points for stroke in strokes]
        # Dashes are counted in widths of the line.
        dashes: list[object] = []
        for stroke in strokes:
            if stroke.dash is None:
                dashes.append("solid")
            else:
                dashes.append((0, tuple(part / stroke.width for part in stroke.dash)))
        colours = [_shade(stroke.colour, stroke.faint) for stroke in strokes]
        return LineCollection(lines, colors=colours, linewidths=widths, linestyles=dashes)

    def circles(self, circles: Sequence[Circle]) -> "Artists":
        from matplotlib.collections import PatchCollection
        from matplotlib.patches import Circle as Patch

        line = self.points / 72
        patches: list[Patch] = []
        for circle in circles:
            centre = circle.x * self.scale, circle.y * self.scale
            style = "dashed" if circle.dashed else "solid"
            width = line * (2.4 if circle.bold else 1.0)
            border = {"edgecolor": "#333333", "linewidth": width, "linestyle": style}
            radius = circle.radius * self.scale
            patches.append(Patch(centre, radius, facecolor=circle.colour, **border))
            if circle.double:
                inner = radius - 0.04 * self.scale
                patches.append(Patch(centre, inner, facecolor=circle.colour, **border))
        return PatchCollection(patches, match_original=True)

    def words(self, words: Sequence[Word]) -> "list[Artists]":
        """The letters, and a white rim below them, so that they are read on lines as well."""
        from matplotlib.collections import PathCollection

        shapes = [self._letters(word) for word in words]
        colours = [word.colour for word in words]
        rim = PathCollection(shapes, facecolors="white", edgecolors="white")
        rim.set_linewidth([word.rim * self.points for word in words])
        letters = PathCollection(shapes, facecolors=colours, linewidths=0)
        return [rim, letters]

    def _letters(self, word: Word) -> "Path":
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath
        from matplotlib.transforms import Affine2D

        font = FontProperties(weight="bold" if word.bold else "normal")
        # A pair of dollar signs would begin mathematics.
        shape = TextPath((0, 0), word.text.replace("$", r"\$"), size=word.size, prop=font)
        width = shape.get_extents().width if len(shape.vertices) else 0.0
        # The middle of small letters stands on the line, whatever letters there are.
        x = word.x if word.left else word.x - width / 2
        move = Affine2D().translate(x, word.y - 0.36 * word.size).scale(self.scale)
        return shape.transformed(move)


def _shade(colour: str, faint: bool) -> tuple[str, float]:
    return colour, 0.55 if faint else 1.0
