"""Couplings: what an edge makes of its sender's state."""

from darnax.couplings.conv import Conv as Conv
from darnax.couplings.conv import conv as conv
from darnax.couplings.coupling import Edges as Edges
from darnax.couplings.coupling import Fixed as Fixed
from darnax.couplings.dense import Dense as Dense
from darnax.couplings.dense import dense as dense
from darnax.couplings.relay import Relay as Relay
from darnax.couplings.relay import relay as relay
from darnax.couplings.scale import Scale as Scale
from darnax.couplings.scale import scale as scale
