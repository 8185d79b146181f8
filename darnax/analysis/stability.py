"""Stability of fixed points: whether small disturbances die out.

Smooth units are told by the spectrum: its leading eigenvalue has to be below 1 in modulus. Units
that jump, such as `dx.sign`, have no derivative at their jump and one of zero elsewhere. So a
disturbance that is small enough does not reach them, unless a field is at the jump itself: then the
least push decides. In a network of both, those that jump are held while the spectrum of the others
is taken.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from darnax import checks
from darnax._arrays import any_rank, on_device
from darnax.analysis.sample_map import sample_map
from darnax.analysis.spectrum import eigenvalues, refuse_random, refuse_traced
from darnax.dynamics.adjoint import free_cells
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.problem import Arguments, Problem, arguments, pose
from darnax.dynamics.schedules import ScheduleLike, synchronous
from darnax.dynamics.update import local_fields
from darnax.network.message_passing import outer
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

T = TypeVar("T")

MARGIN = 1e-6
"""The part of the largest field of a sample below which a field counts as zero: its rounding."""
SMALLEST = 1e-30
"""The largest field of a sample counts as this at least, so that no margin is zero."""


@any_rank
@checks.by_hand
def stable(
    network: Network,
    state: GraphState,
    *,
    schedule: ScheduleLike = synchronous(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
) -> Bool[Array, " batch"]:
    """Whether each sample of a state, a fixed point, is stable: small disturbances die out.

    For smooth units this is so where the leading eigenvalue of `dx.spectrum` is below 1 in modulus;
    it depends on the schedule, as fixed points themselves do not. Units that jump, such as
    `dx.sign`, stay where they are under small disturbances, unless their field is zero: a sample is
    unstable where the answer of one of them changes with a field of 1e-6 of the largest one. Where
    a network has both, those that jump are held, and the others decide by their eigenvalues.

    Whether a sample is at rest is not looked at: `dx.relax` tells. One that is not finite is not
    stable. Arguments as for `step`. Raises `ValueError` for random units and couplings, and for
    random schedules of smooth units. Not inside of `jax.jit`.

    !!! example

        ```python
        solution = dx.relax(network, state)
        dx.stable(network, solution.state).shape  # (32,)
        ```
    """
    given = arguments(schedule=schedule, clamp=clamp, silence=silence, kinds=kinds, drive=drive)
    problem = pose(network, state, **given)
    refuse_traced("stable", (network, state, problem))
    smooth = smooth_part(problem, state, given)
    return on_device(stable_samples(problem, smooth, state, range(state.batch_size)))


def smooth_part(problem: Problem, state: GraphState, given: Arguments) -> Problem:
    """The problem of a call in which units that jump are held as well."""
    rough = problem.rough_kinds
    if not rough:
        return problem
    topology = problem.network.topology
    jumping = [node for node in topology.nodes if topology.kind(node) in rough]
    clamp = given["clamp"]
    if not isinstance(clamp, Mapping):
        clamp = dict.fromkeys(clamp, True)
    masks = _by_name(topology, "clamp", clamp)
    driven = _by_name(topology, "drive", given["drive"] or {})
    for node in jumping:
        masks[node] = True
        # a node that is held takes no drive
        driven.pop(node, None)
    held = given.copy()
    held["clamp"] = masks
    held["drive"] = driven
    return pose(problem.network, state, **held)


def _by_name(topology: Topology, argument: str, given: Mapping[Name, T]) -> dict[Name, T]:
    """A mapping from nodes by the names that the topology has for them: -1 is one for the last."""
    nodes = topology.indices(argument, given)
    return {topology.nodes[i]: value for i, value in zip(nodes, given.values(), strict=True)}


def stable_samples(
    problem: Problem,
    smooth: Problem,
    state: GraphState,
    samples: Sequence[int],
) -> Bool[np.ndarray, " samples"]:
    """Which of some samples are stable; `smooth` is what `smooth_part` gave."""
    if problem.never_rests is not None:
        refuse_random(problem)
    chosen = list(samples)
    result = np.asarray(_keep_their_answers(problem, state))[chosen]
    if smooth.moves:
        refuse_random(smooth)
        smooth_map = sample_map(smooth, state)
        free = np.asarray(smooth_map.free)[chosen].any(1)
        rows = np.flatnonzero(result & free)
        if len(rows):
            leading = eigenvalues(smooth_map, 1, [chosen[row] for row in rows])
            # false for NaN
            result[rows] = np.abs(leading[:, 0]) < 1
    return result


@eqx.filter_jit
@any_rank
def _keep_their_answers(problem: Problem, state: GraphState) -> Bool[Array, " batch"]:
    """The samples in which no free unit that jumps is at its jump, and all fields are finite."""
    problem = problem.at_once()
    network = problem.network
    constants = problem.constants(state)
    moving = problem.moving(state)
    free = free_cells(constants, moving)
    (visit,) = problem.everything.visits
    fields = local_fields(problem, constants, None, constants.still | moving, visit)
    result = jnp.ones(state.batch_size, bool)
    for array, field in fields.items():
        rows = visit.rows[array]
        cells = tuple(range(field.ndim - 1))
        may_move = rows.take(free[array])
        size = jnp.max(jnp.where(may_move, jnp.abs(field), 0), axis=cells)
        result = result & jnp.isfinite(size)
        jumps = rows.take(_rows_that_jump(network, array, free[array]))
        # Fields that are zero throughout are at the jump as well.
        shift = MARGIN * jnp.maximum(size, SMALLEST)
        old = rows.take(moving[array])
        below = network.units[array].answer(network.activations, rows, old, field - shift, None)
        above = network.units[array].answer(network.activations, rows, old, field + shift, None)
        changes = may_move & jumps & (below.target != above.target)
        result = result & ~jnp.any(changes, axis=cells)
    return result


def _rows_that_jump(
    network: Network,
    array: str,
    like: Bool[Array, "rows ..."],
) -> Bool[Array, "rows ..."]:
    """The rows of an array whose units have no derivative, with the axes of another mask."""
    units = network.units[array]
    jumps = [not network.activations[kind].differentiable for kind in units.kinds]
    if units.owner is None:
        return jnp.full((len(like), *[1] * (like.ndim - 1)), jumps[0])
    # -1, no owner, finds the last entry
    by_kind = jnp.asarray([*jumps, False])
    return outer(by_kind[units.owner], like.ndim)
