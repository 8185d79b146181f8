"""The network: what lives on a topology."""

from darnax.network.bias import Bias as Bias
from darnax.network.bias import bias as bias
from darnax.network.network import Network as Network
from darnax.network.network import partition as partition
