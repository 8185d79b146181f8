"""Recurrent networks with local learning: the state of the whole network as one immutable JAX pytree."""

from darnax import topologies as topologies
from darnax.activations import elementwise as elementwise
from darnax.activations import glauber as glauber
from darnax.activations import identity as identity
from darnax.activations import leaky as leaky
from darnax.activations import relu as relu
from darnax.activations import sign as sign
from darnax.activations import softmax as softmax
from darnax.activations import tanh as tanh
from darnax.couplings import Fixed as Fixed
from darnax.couplings import conv as conv
from darnax.couplings import dense as dense
from darnax.couplings import relay as relay
from darnax.couplings import scale as scale
from darnax.network import Network as Network
from darnax.network import bias as bias
from darnax.network import partition as partition
from darnax.states import GraphState as GraphState
from darnax.states import SequentialState as SequentialState
from darnax.states import State as State
from darnax.topologies import Topology as Topology
