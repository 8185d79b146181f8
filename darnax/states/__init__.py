"""States: the configuration of a whole network as one immutable pytree."""

from darnax.states.arrays import Arrays as Arrays
from darnax.states.graph import GraphState as GraphState
from darnax.states.sequential import SequentialState as SequentialState
from darnax.states.state import State as State
