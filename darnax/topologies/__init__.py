"""Drawing and compiling the wiring of a network."""

from darnax.topologies.layout import ArraySpec as ArraySpec
from darnax.topologies.layout import View as View
from darnax.topologies.sequential import sequential as sequential
from darnax.topologies.topology import Topology as Topology
