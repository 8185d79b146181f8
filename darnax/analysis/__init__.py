"""Analysis: what the dynamics of a network are made of, at a state and over many states."""

from darnax.analysis.fixed_points import FixedPoints as FixedPoints
from darnax.analysis.fixed_points import fixed_points as fixed_points
from darnax.analysis.lyapunov import lyapunov as lyapunov
from darnax.analysis.overlaps import overlaps as overlaps
from darnax.analysis.spectrum import spectrum as spectrum
from darnax.analysis.stability import stable as stable
