"""Recurrent networks with local learning: the state of the whole network as one immutable JAX pytree."""

from darnax import topologies as topologies
from darnax.topologies import Topology as Topology
from darnax import states as states
from darnax.states import GraphState as GraphState
from darnax.states import SequentialState as SequentialState
from darnax.states import State as State
