"""Couplings: what an edge makes of its sender's state."""

from darnax.couplings.conv import Conv as Conv
from darnax.couplings.conv import ConvTranspose as ConvTranspose
from darnax.couplings.conv import conv as conv
from darnax.couplings.conv import conv_transpose as conv_transpose
from darnax.couplings.coupling import Coupling as Coupling
from darnax.couplings.coupling import Edges as Edges
from darnax.couplings.coupling import Fixed as Fixed
from darnax.couplings.dense import Dense as Dense
from darnax.couplings.dense import dense as dense
from darnax.couplings.edge_mlp import EdgeMLP as EdgeMLP
from darnax.couplings.edge_mlp import edge_mlp as edge_mlp
from darnax.couplings.graph_conv import GraphConv as GraphConv
from darnax.couplings.graph_conv import graph_conv as graph_conv
from darnax.couplings.pool import Pool as Pool
from darnax.couplings.pool import Upsample as Upsample
from darnax.couplings.pool import pool as pool
from darnax.couplings.pool import upsample as upsample
from darnax.couplings.relay import Relay as Relay
from darnax.couplings.relay import relay as relay
from darnax.couplings.reverse import Transpose as Transpose
from darnax.couplings.reverse import transpose as transpose
from darnax.couplings.scale import Scale as Scale
from darnax.couplings.scale import scale as scale
from darnax.couplings.sparse import Sparse as Sparse
from darnax.couplings.sparse import sparse as sparse
