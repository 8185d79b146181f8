"""Pictures of topologies, states, rollouts, solutions and trainings, on matplotlib.

Every function draws into the axes that it is given as `ax=`, or into those of a new figure, and
returns them: titles, sizes and files are matplotlib's business. matplotlib is installed with
`pip install 'darnax[plots]'`, and imported at the first picture.
"""

from darnax.plots.history import history as history
from darnax.plots.movie import movie as movie
from darnax.plots.solution import solution as solution
from darnax.plots.spectrum import spectrum as spectrum
from darnax.plots.state import state as state
from darnax.plots.topology import topology as topology
from darnax.plots.trajectory import trajectory as trajectory
