"""Diagrams of topologies: what is drawn and where, apart from who draws it.

A diagram is worked out in NumPy, as circles, arrows and words with places in the plane. Two small
renderers read it: `svg` here, for notebooks, which needs nothing but text, and `darnax.plots` on
matplotlib. So both show the same picture, and a notebook shows it without importing matplotlib.
"""

from darnax.diagrams.diagram import Diagram as Diagram
from darnax.diagrams.diagram import diagram as diagram
from darnax.diagrams.picture import Picture as Picture
from darnax.diagrams.picture import picture as picture
from darnax.diagrams.placement import placed as placed
from darnax.diagrams.svg import drawn as drawn
