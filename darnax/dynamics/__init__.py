"""Dynamics: passes, relaxation to rest, rollouts."""

from darnax.dynamics.adjoint import implicit as implicit
from darnax.dynamics.adjoint import unrolled as unrolled
from darnax.dynamics.energy import EnergyTerms as EnergyTerms
from darnax.dynamics.energy import energy as energy
from darnax.dynamics.energy import energy_terms as energy_terms
from darnax.dynamics.relax import Solution as Solution
from darnax.dynamics.relax import relax as relax
from darnax.dynamics.schedules import Schedule as Schedule
from darnax.dynamics.schedules import asynchronous as asynchronous
from darnax.dynamics.schedules import coloured as coloured
from darnax.dynamics.schedules import groups as groups
from darnax.dynamics.schedules import node_by_node as node_by_node
from darnax.dynamics.schedules import synchronous as synchronous
from darnax.dynamics.schedules import unit_by_unit as unit_by_unit
from darnax.dynamics.step import rollout as rollout
from darnax.dynamics.step import step as step
