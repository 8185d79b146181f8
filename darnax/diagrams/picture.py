"""A picture: a diagram as circles, arrows, bands and words, each with its place.

All lengths are in inches, letters included, so that nothing which was put apart meets when the
whole is drawn smaller.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from darnax.diagrams import curves
from darnax.diagrams.curves import Curve
from darnax.diagrams.diagram import FEW, Diagram, Link, written
from darnax.diagrams.placement import Places

LETTER = 0.125
"""The height of a letter: 9 points."""
WIDE = 0.58
"""The width of a letter, in heights. Letters differ, and most are narrower."""
LINE = 1.25
"""The distance of lines, in heights."""
SMALLEST, LARGEST = 0.13, 0.3
"""Radii of spots."""
HEAD, HEAD_WIDTH = 0.1, 0.045
"""The length of the head of an arrow, and half its width."""

# Links are told apart by colour alone where they are few. These are by M. Okabe and K. Ito, "Color
# universal design" (2008), for all eyes; more kinds have the same with dashes.
LINK_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#56b4e9",
    "#6a3d9a",
    "#666666",
)
DASHES: tuple[tuple[float, float] | None, ...] = (None, (0.07, 0.04), (0.02, 0.03))
SPOT_COLOURS = (
    "#cfe3f5",
    "#fddfb8",
    "#cdebc9",
    "#ecd3ee",
    "#f6efa6",
    "#d8d8d8",
    "#f8c8c4",
    "#c3ecec",
)
INK, PALE = "#222222", "#b9b0d6"


class Circle(NamedTuple):
    """A circle; a border that is bold, dashed, or drawn twice, tells the role."""

    x: float
    y: float
    radius: float
    colour: str
    bold: bool = False
    double: bool = False
    dashed: bool = False


class Stroke(NamedTuple):
    """A line along a curve, `dash` its on and off, `width` in inches."""

    curve: Curve
    colour: str
    width: float
    dash: tuple[float, float] | None = None
    faint: bool = False


class Area(NamedTuple):
    """A polygon without a border, by its corners `(n, 2)`: the head of an arrow, or a band."""

    corners: np.ndarray
    colour: str
    faint: bool = False


class Word(NamedTuple):
    """A line of text around (x, y), with letters of the height `size`.

    `rim` is the width of the white around them, which keeps lines away.
    """

    text: str
    x: float
    y: float
    size: float = LETTER
    colour: str = INK
    bold: bool = False
    left: bool = False
    rim: float = 0.03

    @property
    def box(self) -> "Box":
        """The place that it takes."""
        width = len(self.text) * WIDE * self.size
        start = self.x if self.left else self.x - width / 2
        half = LINE * self.size / 2
        return start, self.y - half, start + width, self.y + half


Box: TypeAlias = tuple[float, float, float, float]
"""Left, lower, right and upper end."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What is drawn, from the back to the front: bands, strokes, heads, circles and words.

    **Fields:**

    - `bands`: broad pale lines between spots whose views share cells.
    - `box`: of everything.
    - `scale`: the size of an inch, in units of the places that a user gave.
    """

    bands: tuple[Area, ...]
    strokes: tuple[Stroke, ...]
    heads: tuple[Area, ...]
    circles: tuple[Circle, ...]
    words: tuple[Word, ...]
    box: Box
    scale: float


def picture(
    diagram: Diagram,
    places: Places,
    scale: float = 1.0,
    bold: Collection[str] = (),
) -> Picture:
    """The picture of a diagram whose spots stand at `places`; links of the `bold` kinds stand out.

    `scale` is what `placed` gives with them.
    """
    circles = _circles(diagram, places)
    names = _names(diagram, circles)
    drawn = _draw_links(diagram, circles, names, bold)
    words = [*names, *drawn.words]
    bands = [_band(circles[one], circles[other]) for one, other in diagram.shared]
    parts = [*_boxes(circles), *(word.box for word in words)]
    parts += [curves.box(stroke.curve) for stroke in drawn.strokes]
    legend = _legend(diagram, _around(parts), bold)
    words += legend.words
    parts += [*_boxes(legend.circles), *(word.box for word in legend.words)]
    return Picture(
        bands=tuple(bands + legend.bands),
        strokes=tuple(drawn.strokes + legend.strokes),
        heads=tuple(drawn.heads),
        circles=tuple(circles + legend.circles),
        words=tuple(words),
        box=_no_smaller(_around(parts, margin=0.08)),
        scale=scale,
    )


def _around(boxes: Iterable[Box], margin: float = 0.0) -> Box:
    """The box around several."""
    ends = np.asarray(list(boxes))
    low, high = ends[:, :2].min(axis=0) - margin, ends[:, 2:].max(axis=0) + margin
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _no_smaller(box: Box) -> Box:
    """A box of some size at least: a single spot would fill a whole figure."""
    left, low, right, high = box
    aside, above = max(0.0, 2.4 - (right - left)) / 2, max(0.0, 1.6 - (high - low)) / 2
    return left - aside, low - above, right + aside, high + above


def _boxes(circles: Iterable[Circle]) -> list[Box]:
    boxes: list[Box] = []
    for x, y, radius, *_ in circles:
        boxes.append((x - radius, y - radius, x + radius, y + radius))
    return boxes


# colours


def spot_colours(diagram: Diagram) -> dict[str, str]:
    """The colours of the kinds of spots, in the order of drawing."""
    kinds = dict.fromkeys(spot.kind for spot in diagram.spots)
    return {kind: SPOT_COLOURS[i % len(SPOT_COLOURS)] for i, kind in enumerate(kinds)}


class Look(NamedTuple):
    """The colour and the dashes of the links of a kind."""

    colour: str
    dash: tuple[float, float] | None


def link_looks(diagram: Diagram) -> dict[str, Look]:
    """The looks of the kinds of links, in the order of drawing."""
    kinds = dict.fromkeys(link.kind for link in diagram.links)
    looks: dict[str, Look] = {}
    for i, kind in enumerate(kinds):
        again, colour = divmod(i, len(LINK_COLOURS))
        looks[kind] = Look(LINK_COLOURS[colour], DASHES[again % len(DASHES)])
    return looks


# spots


def _circles(diagram: Diagram, places: Places) -> list[Circle]:
    """A circle for each spot, whose radius grows with the logarithm of its cells."""
    colours = spot_colours(diagram)
    largest = max(spot.cells for spot in diagram.spots)
    room = _room(places)
    circles: list[Circle] = []
    for spot, (x, y) in zip(diagram.spots, places.tolist(), strict=True):
        share = math.log1p(spot.cells) / math.log1p(largest)
        radius = SMALLEST + (LARGEST - SMALLEST) * share
        circles.append(_circle(x, y, min(radius, room), colours[spot.kind], spot.roles))
    return circles


def _circle(x: float, y: float, radius: float, colour: str, roles: Collection[str]) -> Circle:
    return Circle(
        x,
        y,
        radius,
        colour,
        bold="input" in roles,
        double="output" in roles,
        dashed="held" in roles,
    )


def _room(places: Places) -> float:
    """The largest radius at which no two spots touch."""
    if len(places) < 2:
        return LARGEST
    gaps = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    np.fill_diagonal(gaps, np.inf)
    # Places of the user may coincide: a spot stays visible all the same.
    return max(0.4 * float(gaps.min()), SMALLEST / 3)


def _names(diagram: Diagram, circles: list[Circle]) -> list[Word]:
    """What is written on spots: inside of all circles if it fits there, else below all of them."""
    sizes: list[float] = []
    for spot, circle in zip(diagram.spots, circles, strict=True):
        widest = max(map(len, spot.lines))
        # A rectangle inside of the circle.
        height, width = len(spot.lines) * LINE, widest * WIDE
        sizes.append(1.8 * circle.radius / math.hypot(height, width))
    inside = min(sizes) > 0.7 * LETTER
    size = min(*sizes, LETTER) if inside else LETTER
    words: list[Word] = []
    for spot, circle in zip(diagram.spots, circles, strict=True):
        step = LINE * size
        top = circle.y + step * (len(spot.lines) - 1) / 2
        if not inside:
            top = circle.y - circle.radius - 0.04 - step / 2
        for i, line in enumerate(spot.lines):
            colour = INK if i == 0 else "#666666"
            words.append(Word(line, circle.x, top - i * step, size, colour))
    return words


def _band(one: Circle, other: Circle) -> Area:
    """The sign for views that share cells; around a single spot, a ring."""
    start, end = np.asarray([one.x, one.y]), np.asarray([other.x, other.y])
    if one == other:
        angles = np.linspace(0, 2 * np.pi, 48)
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return Area(start + (one.radius + 0.08) * around, PALE, faint=True)
    return _bar(start, end, 1.3 * min(one.radius, other.radius))


def _bar(start: np.ndarray, end: np.ndarray, width: float) -> Area:
    """A broad line from point to point."""
    along = end - start
    aside = np.asarray([-along[1], along[0]]) * width / 2 / max(float(np.hypot(*along)), 1e-9)
    corners = np.stack([start + aside, end + aside, end - aside, start - aside])
    return Area(corners, PALE, faint=True)


# links


class _Drawn(NamedTuple):
    """The parts of a picture that are made so far."""

    bands: list[Area]
    strokes: list[Stroke]
    heads: list[Area]
    circles: list[Circle]
    words: list[Word]


def _draw_links(
    diagram: Diagram,
    circles: list[Circle],
    names: list[Word],
    bold: Collection[str],
) -> _Drawn:
    """All links as arrows, each past the spots that it does not join."""
    looks = link_looks(diagram)
    drawn = _Drawn([], [], [], [], [])
    routes = curves.routes(
        [(link.sender, link.receiver) for link in diagram.links],
        np.asarray([circle[:3] for circle in circles]),
        np.asarray(_around_words(names, circles)).reshape(-1, 3),
    )
    # Thinner and paler where there are many, so that what is below can be seen.
    many = len(diagram.links) > 150
    for link, route in zip(diagram.links, routes, strict=True):
        width = _width(link.kind, bold) * (0.5 if many else 1)
        _draw_arrow(drawn, route, link, looks[link.kind], width, many)
    if diagram.wordy:
        obstacles = [*_boxes(circles), *(word.box for word in names)]
        for link, route in zip(diagram.links, routes, strict=True):
            if link.text:
                word = _word_on(route, link, looks[link.kind].colour, link.kind in bold, obstacles)
                obstacles.append(word.box)
                drawn.words.append(word)
    return drawn


def _width(kind: str, bold: Collection[str]) -> float:
    """The width of the links of a kind."""
    return 0.045 if kind in bold else 0.018


def _around_words(names: list[Word], circles: list[Circle]) -> list[tuple[float, float, float]]:
    """Circles around the words that stand below spots, for arrows to keep clear of."""
    found: list[tuple[float, float, float]] = []
    # Words inside of circles are in nobody's way. Many arrows cannot keep clear of all words, and
    # would only go far around.
    inside = abs(names[0].y - circles[0].y) < circles[0].radius
    if inside or len(circles) > 2 * FEW:
        return found
    for word in names:
        half = 0.35 * len(word.text) * WIDE * word.size
        for x in (word.x - half, word.x, word.x + half):
            found.append((x, word.y, word.size / 2))
    return found


def _draw_arrow(
    drawn: _Drawn,
    route: Curve,
    link: Link,
    look: Look,
    width: float,
    faint: bool,
) -> None:
    """An arrow along a route, with a head at its end, and one at its start for a link both ways."""
    # A bold arrow has a larger head.
    head = HEAD * (1.0 + max(0.0, width - 0.018) / 0.04)
    half = HEAD_WIDTH * head / HEAD
    end, begin = curves.head(route, head, half), curves.head(route[::-1], head, half)
    shaft = curves.without_end(route, head)
    drawn.heads.append(Area(end, look.colour, faint))
    if link.both:
        shaft = curves.without_end(shaft[::-1], head)[::-1]
        drawn.heads.append(Area(begin, look.colour, faint))
    drawn.strokes.append(Stroke(shaft, look.colour, width, look.dash, faint))


def _word_on(
    route: Curve,
    link: Link,
    colour: str,
    bold: bool,
    obstacles: list[Box],
) -> Word:
    """The word of a link, at the place on it where it meets the least of what is there already."""
    tried: list[tuple[float, Word]] = []
    for share in (0.5, 0.4, 0.6, 0.3, 0.7):
        x, y = curves.point(route, share)
        word = Word(link.text, x, y, 0.9 * LETTER, colour, bold, rim=0.06)
        meets = sum(_meeting(word.box, box) for box in obstacles)
        tried.append((meets, word))
    # The first of several that are as good.
    return min(tried, key=lambda pair: pair[0])[1]


def _meeting(one: Box, other: Box) -> float:
    """The area that two boxes have in common."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


# the legend


ROLE_WORDS = {"input": "is an input", "output": "is an output", "held": "is held"}


def _legend(diagram: Diagram, box: Box, bold: Collection[str]) -> _Drawn:
    """The meaning of colours and borders, in rows below the picture; empty if all is clear."""
    drawn = _Drawn([], [], [], [], [])
    left, low = box[0], box[1] - 0.25
    right = max(box[2], left + 5)
    x, y = left, low
    for text, sample in _entries(diagram, bold):
        width = 0.45 + len(text) * WIDE * LETTER + 0.1
        if x > left and x + width > right:
            x, y = left, y - 0.22
        place = np.asarray([x, y])
        if isinstance(sample, Circle):
            drawn.circles.append(sample._replace(x=x + 0.2, y=y))
        elif isinstance(sample, Area):
            drawn.bands.append(sample._replace(corners=sample.corners + place))
        else:
            drawn.strokes.append(sample._replace(curve=sample.curve + place))
        drawn.words.append(Word(text, x + 0.45, y, left=True))
        x += width
    return drawn


def _entries(
    diagram: Diagram,
    bold: Collection[str],
) -> list[tuple[str, Circle | Stroke | Area]]:
    """The words of the legend, and what stands before each, as if at the origin."""
    start, end = np.asarray([0.05, 0.0]), np.asarray([0.35, 0.0])
    entries: list[tuple[str, Circle | Stroke | Area]] = []
    if not diagram.wordy:
        for kind, look in link_looks(diagram).items():
            sample = Stroke(curves.line(start, end), look.colour, _width(kind, bold), look.dash)
            entries.append((written(kind), sample))
    entries += _spot_entries(diagram)
    if diagram.shared:
        entries.append(("shared cells", _bar(start, end, 0.14)))
    return entries


def _spot_entries(diagram: Diagram) -> list[tuple[str, Circle]]:
    """What the colours and borders of circles mean."""
    entries: list[tuple[str, Circle]] = []
    colours = spot_colours(diagram)
    # A single kind needs no legend, and in a diagram of kinds the spots have their names.
    if len(colours) > 1 and not diagram.by_kind:
        for kind, colour in colours.items():
            entries.append((written(kind), Circle(0.0, 0.0, 0.08, colour)))
    present = {role for spot in diagram.spots for role in spot.roles}
    for role, word in ROLE_WORDS.items():
        if role in present:
            entries.append((word, _circle(0.0, 0.0, 0.08, "#ffffff", [role])))
    return entries
