"""The wiring of a network: builders that draw it, and the topology that compiles a drawing.

A drawing is a plain networkx graph with annotations, so that users can change it before it is
compiled. `layout` explains where the nodes live, `groups` how the edges run.
"""

from darnax.topologies.convolutional import convolutional as convolutional
from darnax.topologies.foreign import as_graph as as_graph
from darnax.topologies.graph_layer import graph_layer as graph_layer
from darnax.topologies.lattice import lattice as lattice
from darnax.topologies.layout import ArraySpec as ArraySpec
from darnax.topologies.layout import View as View
from darnax.topologies.populations import bipartite as bipartite
from darnax.topologies.populations import hopfield as hopfield
from darnax.topologies.populations import modular as modular
from darnax.topologies.predictive import predictive as predictive
from darnax.topologies.random import random as random
from darnax.topologies.random import scale_free as scale_free
from darnax.topologies.random import small_world as small_world
from darnax.topologies.reciprocal import reciprocal as reciprocal
from darnax.topologies.sequential import sequential as sequential
from darnax.topologies.topology import Topology as Topology
