"""Recurrent networks with local learning, their whole state in one immutable JAX pytree."""

import importlib as _importlib
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

from darnax import analysis as analysis
from darnax import learning as learning
from darnax import topologies as topologies
from darnax.activations import Activation as Activation
from darnax.activations import elementwise as elementwise
from darnax.activations import glauber as glauber
from darnax.activations import heaviside as heaviside
from darnax.activations import identity as identity
from darnax.activations import integrator as integrator
from darnax.activations import leaky as leaky
from darnax.activations import negative as negative
from darnax.activations import relu as relu
from darnax.activations import sigmoid as sigmoid
from darnax.activations import sign as sign
from darnax.activations import softmax as softmax
from darnax.activations import tanh as tanh
from darnax.analysis import FixedPoints as FixedPoints
from darnax.analysis import fixed_points as fixed_points
from darnax.analysis import lyapunov as lyapunov
from darnax.analysis import overlaps as overlaps
from darnax.analysis import spectrum as spectrum
from darnax.analysis import stable as stable
from darnax.couplings import Coupling as Coupling
from darnax.couplings import Fixed as Fixed
from darnax.couplings import after as after
from darnax.couplings import conv as conv
from darnax.couplings import conv_transpose as conv_transpose
from darnax.couplings import dense as dense
from darnax.couplings import edge_mlp as edge_mlp
from darnax.couplings import graph_conv as graph_conv
from darnax.couplings import pool as pool
from darnax.couplings import predictions as predictions
from darnax.couplings import relay as relay
from darnax.couplings import scale as scale
from darnax.couplings import sparse as sparse
from darnax.couplings import transpose as transpose
from darnax.couplings import upsample as upsample
from darnax.dynamics import Schedule as Schedule
from darnax.dynamics import Solution as Solution
from darnax.dynamics import asynchronous as asynchronous
from darnax.dynamics import coloured as coloured
from darnax.dynamics import energy as energy
from darnax.dynamics import energy_terms as energy_terms
from darnax.dynamics import groups as groups
from darnax.dynamics import implicit as implicit
from darnax.dynamics import node_by_node as node_by_node
from darnax.dynamics import relax as relax
from darnax.dynamics import rollout as rollout
from darnax.dynamics import step as step
from darnax.dynamics import synchronous as synchronous
from darnax.dynamics import unit_by_unit as unit_by_unit
from darnax.dynamics import unrolled as unrolled
from darnax.files import Carryover as Carryover
from darnax.files import carry as carry
from darnax.files import load as load
from darnax.files import save as save
from darnax.learning import BackpropLearning as BackpropLearning
from darnax.learning import ContrastiveLearning as ContrastiveLearning
from darnax.learning import DynamicalLearning as DynamicalLearning
from darnax.learning import History as History
from darnax.learning import Learning as Learning
from darnax.learning import Phase as Phase
from darnax.learning import anti_hebbian as anti_hebbian
from darnax.learning import bcm as bcm
from darnax.learning import callbacks as callbacks
from darnax.learning import covariance as covariance
from darnax.learning import delta as delta
from darnax.learning import early_stopping as early_stopping
from darnax.learning import evaluate as evaluate
from darnax.learning import fit as fit
from darnax.learning import hebbian as hebbian
from darnax.learning import local_updates as local_updates
from darnax.learning import nudge as nudge
from darnax.learning import oja as oja
from darnax.learning import one_vs_all as one_vs_all
from darnax.learning import perceptron as perceptron
from darnax.learning import predict as predict
from darnax.network import Network as Network
from darnax.network import bias as bias
from darnax.network import partition as partition
from darnax.sampling import Tempering as Tempering
from darnax.sampling import anneal as anneal
from darnax.sampling import at_temperature as at_temperature
from darnax.sampling import exchange as exchange
from darnax.sampling import temper as temper
from darnax.states import GraphState as GraphState
from darnax.states import SequentialState as SequentialState
from darnax.states import State as State
from darnax.topologies import Topology as Topology

if _TYPE_CHECKING:
    from darnax import plots as plots
    from darnax import testing as testing

__version__ = "0.1.0"


# Parts that most programs do not need, imported where they are named, as in `dx.plots.topology`.
_LATER = ("plots", "testing")


def __getattr__(name: str) -> _ModuleType:
    if name in _LATER:
        return _importlib.import_module(f"darnax.{name}")
    raise AttributeError(f"module 'darnax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
