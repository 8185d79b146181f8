"""A picture as SVG text, a few kilobytes that stand in a page as they are.

matplotlib would write SVG as well. It takes a quarter of a second to import and turns every letter
into a curve; here text stays text, and a notebook shows a topology at once.
"""

import numpy as np

from darnax import _html
from darnax.diagrams.diagram import diagram
from darnax.diagrams.picture import Area, Circle, Picture, Stroke, Word, picture
from darnax.diagrams.placement import placed
from darnax.topologies.topology import Topology

DOTS = 72
"""Units of the SVG in an inch."""


def drawn(topology: Topology) -> str:
    """The diagram of a topology as one `<svg>` element."""
    shown = diagram(topology)
    places, scale = placed(shown)
    return svg(picture(shown, places, scale))


def svg(picture: Picture) -> str:
    """The picture as one `<svg>` element."""
    page = _Page(picture)
    parts = [page.area(band) for band in picture.bands]
    parts += [page.stroke(stroke) for stroke in picture.strokes]
    parts += [page.area(head) for head in picture.heads]
    parts += [page.circle(circle) for circle in picture.circles]
    parts += [page.word(word) for word in picture.words]
    width, height = page.size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" style="max-width:100%;height:auto">'
        # Its own ground, so that ink is read on dark pages as well.
        '<rect width="100%" height="100%" rx="6" fill="#ffffff"/>'
        f"{''.join(parts)}</svg>"
    )


class _Page:
    """The coordinates of a page, whose y runs downwards, and the elements on it."""

    def __init__(self, picture: Picture):
        left, low, right, high = picture.box
        self.left, self.high = left, high
        self.size = round((right - left) * DOTS), round((high - low) * DOTS)

    def xy(self, x: float, y: float) -> str:
        return f"{(x - self.left) * DOTS:.1f},{(self.high - y) * DOTS:.1f}"

    def points(self, rows: np.ndarray) -> list[str]:
        return [self.xy(x, y) for x, y in rows.tolist()]

    def stroke(self, stroke: Stroke) -> str:
        start, *rest = self.points(stroke.curve)
        dash = ""
        if stroke.dash is not None:
            on, off = stroke.dash
            dash = f' stroke-dasharray="{on * DOTS:.1f} {off * DOTS:.1f}"'
        return (
            f'<path d="M{start} C{" ".join(rest)}" fill="none" stroke="{stroke.colour}" '
            f'stroke-width="{stroke.width * DOTS:.1f}" stroke-linecap="round"'
            f"{dash}{_faint(stroke.faint)}/>"
        )

    def area(self, area: Area) -> str:
        corners = " ".join(self.points(area.corners))
        return f'<polygon points="{corners}" fill="{area.colour}"{_faint(area.faint)}/>'

    def circle(self, circle: Circle) -> str:
        x, y = self.xy(circle.x, circle.y).split(",")
        radius = circle.radius * DOTS
        width = 2.4 if circle.bold else 1.0
        dash = ' stroke-dasharray="3 2"' if circle.dashed else ""
        border = f'stroke="#333333" stroke-width="{width}"{dash}'
        drawn = f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="{circle.colour}" {border}/>'
        if circle.double:
            inner = radius - 3
            drawn += f'<circle cx="{x}" cy="{y}" r="{inner:.1f}" fill="none" {border}/>'
        return drawn

    def word(self, word: Word) -> str:
        x, y = self.xy(word.x, word.y).split(",")
        anchor = "start" if word.left else "middle"
        weight = ' font-weight="bold"' if word.bold else ""
        return (
            f'<text x="{x}" y="{y}" font-size="{word.size * DOTS:.1f}" fill="{word.colour}" '
            f'font-family="sans-serif" text-anchor="{anchor}" dominant-baseline="central" '
            f'stroke="#ffffff" stroke-width="{word.rim * DOTS:.1f}" stroke-linejoin="round" '
            'paint-order="stroke"'
            f"{weight}>{_html.text(word.text)}</text>"
        )


def _faint(faint: bool) -> str:
    return ' opacity="0.55"' if faint else ""
