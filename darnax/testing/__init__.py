"""A testing kit for topologies, couplings, activations and schedules of your own.

The tests of darnax itself use it. `check_coupling`, `check_activation`, `check_schedule` and
`check_topology` run the laws that the rest of the library relies on, on small awkward graphs, and
say which law is broken on which graph. `Reference` is the dynamics as a plain loop in NumPy, and
`topologies` and `states` are strategies for hypothesis (`pip install 'darnax[testing]'`).
"""

from darnax.testing.activation_laws import check_activation as check_activation
from darnax.testing.awkward import AWKWARD_GRAPHS as AWKWARD_GRAPHS
from darnax.testing.awkward import drawn as drawn
from darnax.testing.awkward import mark as mark
from darnax.testing.awkward import redrawn as redrawn
from darnax.testing.coupling_laws import check_coupling as check_coupling
from darnax.testing.laws import LawBroken as LawBroken
from darnax.testing.networks import random_state as random_state
from darnax.testing.networks import rounded as rounded
from darnax.testing.networks import small_network as small_network
from darnax.testing.reference import Reference as Reference
from darnax.testing.reference import cells_of as cells_of
from darnax.testing.reference import overlapping as overlapping
from darnax.testing.schedule_laws import check_schedule as check_schedule
from darnax.testing.strategies import graphs as graphs
from darnax.testing.strategies import states as states
from darnax.testing.strategies import topologies as topologies
from darnax.testing.topology_laws import check_topology as check_topology
