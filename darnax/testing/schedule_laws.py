"""The laws of schedules.

Compiled programs are kept by schedule: one that is not equal to its copy compiles anew in every
call, and one that changes its mind is run as it was when it was compiled.
"""

import copy
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from darnax import checks
from darnax.dynamics.relax import relax
from darnax.dynamics.schedules import Schedule, ScheduleLike, as_schedule
from darnax.dynamics.step import step
from darnax.network.network import Network
from darnax.testing.awkward import AWKWARD_GRAPHS
from darnax.testing.laws import Law
from darnax.testing.networks import random_state, small_network
from darnax.testing.reference import Reference
from darnax.topologies.topology import Topology

BATCH = 3

GRAPHS = "one node", "hub", "views", "parallel"
"""Awkward graphs on which units are all of one kind of activation."""


@checks.by_hand
def check_schedule(
    schedule: ScheduleLike,
    topologies: Mapping[str, Topology] | None = None,
) -> None:
    """Run the laws of schedules on small graphs.

    - *a schedule is equal by content*: to a copy of itself, with the same hash, as programs are
      kept by it. Functions are told apart as objects, and are not asked.
    - *a schedule is a rule*: asked twice it gives the same visits.
    - *a pass is the plain loop* that makes the same visits.
    - *held cells stay*.
    - *rest is rest*: where `relax` says that a sample has settled, another pass changes nothing.

    That every node which can change is visited once, and views that overlap together, is checked by
    `step` itself, whose error says what is wrong. Schedules that draw which cells move are asked
    for the first two, for held cells and for rest.

    **Arguments:**

    - `schedule`: a `dx.Schedule`, or a function `(topology, movable) -> visits`.
    - `topologies`: by name, those that it is made for; None for a table of awkward ones.

    Raises `LawBroken` with the law and the graph.

    !!! example

        ```python
        from darnax.testing import check_schedule


        def backwards(topology, movable):
            return [[i] for i in reversed(range(len(topology))) if movable[i]]


        check_schedule(backwards, {"mine": topology})
        ```
    """
    given = as_schedule(schedule)
    if topologies is None:
        topologies = {name: Topology(AWKWARD_GRAPHS[name]()) for name in GRAPHS}
    holds = "a darnax.Topology"
    for name, topology in checks.mapping("topologies", topologies, "names to topologies").items():
        checks.instance(f"topologies[{name!r}]", topology, Topology, holds, "compile the graph")
        if isinstance(schedule, Schedule):
            _check_equal(str(name), schedule)
        _check_passes(str(name), given, small_network(topology))


def _check_equal(graph: str, schedule: Schedule) -> None:
    law = Law("a schedule is equal by content", graph)
    again = copy.deepcopy(schedule)
    law.holds(again == schedule, f"{schedule!r} is not equal to a copy of itself")
    law.holds(hash(again) == hash(schedule), f"{schedule!r} has another hash than its copy")


def _check_passes(graph: str, schedule: Schedule, network: Network) -> None:
    topology = network.topology
    state = random_state(topology, BATCH)
    key: dict[str, Any] = {} if schedule.share is None else {"key": jax.random.key(0)}
    movable = Reference(network, state).movable()
    law = Law("a schedule is a rule", graph)
    first, again = _visits(schedule, topology, movable), _visits(schedule, topology, movable)
    law.holds(first == again, f"it gives first {first} and then {again}")
    after = step(network, state, schedule=schedule, **key)
    if schedule.share is None:
        law = Law("a pass is the plain loop", graph)
        law.states(after.arrays, Reference(network, state).step(schedule).arrays)
    law = Law("held cells stay", graph)
    for node in topology.held:
        law.equal(f"{node!r}", after[node], state[node])
    law = Law("rest is rest", graph)
    solution = relax(network, state, schedule=schedule, max_steps=30, **key)
    settled = np.asarray(solution.settled)
    moved = step(network, solution.state, schedule=schedule, **key)
    for name, array in moved.arrays.items():
        ours, theirs = np.asarray(array), np.asarray(solution.state.arrays[name])
        law.equal(f"{name!r} of settled samples", ours[..., settled], theirs[..., settled])


def _visits(schedule: Schedule, topology: Topology, movable: np.ndarray) -> list[list[int]] | None:
    visits = schedule.visits(topology, movable)
    if visits is None:
        return None
    return [[int(node) for node in visit] for visit in visits]
