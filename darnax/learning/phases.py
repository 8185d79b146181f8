"""Phases of the dynamics: stretches in which the same nodes are held and the same ones speak."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from darnax import _text, checks
from darnax.dynamics import Solution, relax, rollout, synchronous
from darnax.dynamics.schedules import Schedule
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.states.values import as_array
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

Targets = Mapping[Name, Array]


class Nudge(eqx.Module):
    """A drive towards a target, `strength * (target - state)`: minus the gradient of half the
    squared distance.
    """

    node: Name = eqx.field(static=True)
    target: Array
    strength: Float[Array, ""]

    def __call__(self, state: GraphState) -> Array:
        return self.strength * (self.target - state[self.node])


def nudge(node: Any, target: Any, strength: Any) -> Nudge:
    """The drive of equilibrium propagation, for `drive={node: dx.nudge(node, y, 0.1)}`.

    **Arguments:**

    - `node`: its name.
    - `target`: where it is drawn to, `(B, *shape)`.
    - `strength`: a finite number; below 0 it is driven away.

    Raises `TypeError` or `ValueError` for a target that is no array of numbers, or another
    strength. Source: B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11, 24 (2017), equation
    10.

    !!! example

        ```python
        state = dx.step(network, state, drive={"label": dx.nudge("label", y, 0.1)})
        ```
    """
    array = as_array("`target`", target)
    if not jnp.issubdtype(array.dtype, jnp.number):
        checks.refuse(
            "target",
            "an array of numbers (B, *shape)",
            target,
            "give the states that the node should be in",
        )
    if not isinstance(node, Hashable):
        checks.refuse("node", "the name of a node", node, "give one name")
    return Nudge(
        node, jnp.asarray(array), jnp.asarray(checks.scalar("strength", strength), jnp.float32)
    )


@dataclass(frozen=True)
class Phase:
    """A stretch of the dynamics in which the same nodes are held and the same ones speak.

    **Fields:**

    - `name`: what to call it.
    - `steps`: the number of passes, or the most there may be; at least 1 where it settles.
    - `settle`: whether every sample stops where it comes to rest; if not, nobody looks, and none
      counts as settled.
    - `clamp`: nodes held besides the inputs; those that have a target are set to it first.
    - `silence`: nodes whose messages are dropped.
    - `kinds`: the edge kinds that speak; None for all.
    - `nudge`: how strongly the field of nodes that have a target is drawn to it, or driven away
      below 0; 0 for not at all.
    - `schedule`: who is updated when.

    Raises `TypeError` or `ValueError` that name the field and the phase for anything else.

    !!! example

        ```python
        phases = [dx.Phase("clamped", clamp=["label"]), dx.Phase("free", silence=["label"])]
        ```
    """

    name: Any
    steps: Any = 100
    settle: Any = True
    clamp: Any = ()
    silence: Any = ()
    kinds: Any = None
    nudge: Any = 0.0
    schedule: Any = synchronous()  # noqa: RUF009 (schedules are frozen)

    def __post_init__(self):
        name = checks.text("name", self.name, "the name of a phase")
        settle = checks.flag(f"settle of phase {name!r}", self.settle)
        schedule = f"schedule of phase {name!r}"
        checks.instance(
            schedule, self.schedule, Schedule, "a schedule such as dx.synchronous()", "give one"
        )
        # equal phases are equal however they were written
        plain = {
            "settle": settle,
            "steps": checks.count(f"steps of phase {name!r}", self.steps, 1 if settle else 0),
            "nudge": checks.number(f"nudge of phase {name!r}", self.nudge),
            "clamp": _names(name, "clamp", self.clamp),
            "silence": _names(name, "silence", self.silence),
            "kinds": None if self.kinds is None else _names(name, "kinds", self.kinds),
        }
        for field, value in plain.items():
            object.__setattr__(self, field, value)

    def teaches(self, nodes: Sequence[Name]) -> bool:
        """Whether it needs the targets of some nodes."""
        return bool(self.nudge) or bool(set(self.clamp) & set(nodes))

    def check(self, topology: Topology):
        """Its nodes and kinds are those of the topology; `ValueError` names the phase if not."""
        for field in ("clamp", "silence"):
            topology.indices(f"{field} of phase {self.name!r}", getattr(self, field))
        unknown = [kind for kind in self.kinds or () if kind not in topology.edge_kinds]
        if unknown:
            raise ValueError(
                f"phase {self.name!r}: `kinds` names {_text.names(unknown)}, which no edge has; "
                f"the edge kinds are {_text.names(topology.edge_kinds)}"
            )

    def run(
        self, network: Network, state: GraphState, targets: Targets, key: Any = None
    ) -> Solution:
        """Where it leads, and whether and when each sample came to rest there."""
        held = {node: target for node, target in targets.items() if node in self.clamp}
        state = state.replace(held) if held else state
        drive = {node: nudge(node, target, self.nudge) for node, target in targets.items()}
        said = {
            "schedule": self.schedule,
            "clamp": self.clamp,
            "silence": self.silence,
            "kinds": self.kinds,
            "drive": drive if self.nudge else None,
            "key": key,
        }
        if self.settle:
            return relax(network, state, max_steps=self.steps, **said)
        state, _ = rollout(network, state, self.steps, **said)
        batch = (state.batch_size,)
        unknown = (
            jnp.zeros(batch, bool),
            jnp.full(batch, self.steps, jnp.int32),
            jnp.full(batch, jnp.inf),
        )
        return Solution(state, *unknown, jnp.zeros(batch, jnp.int32))


def _names(phase: str, field: str, value: Any) -> tuple:
    """The names that a phase has in a field."""
    argument = f"{field} of phase {phase!r}"
    if isinstance(value, Mapping):
        checks.refuse(
            argument, "a list of names", value, "a phase holds whole nodes; for masks use dx.relax"
        )
    names = checks.names(argument, value)
    if not all(isinstance(name, Hashable) for name in names):
        checks.refuse(
            argument, "a list of names", value, "names are text, whole numbers or tuples of these"
        )
    return names


def run(
    network: Network,
    state: GraphState,
    phases: Sequence[Phase],
    targets: Targets,
    key: Any,
    first: int = 0,
) -> list[Solution]:
    """Phase after phase, each from where the last one led, with noise of its own; they are numbered
    from `first`.
    """
    solutions = []
    for i, phase in enumerate(phases, first):
        own = None if key is None else jax.random.fold_in(key, i)
        solutions.append(phase.run(network, state, targets, own))
        state = solutions[-1].state
    return solutions


def whole(solutions: Sequence[Solution]) -> Solution:
    """Phases as one: where the last of them ended, after the passes of all.

    A pass that only showed that an earlier phase had settled does not count: a phase that changes
    nothing adds none.
    """
    last, steps = solutions[-1], solutions[-1].steps
    for earlier in solutions[:-1]:
        steps = steps + earlier.steps - earlier.settled.astype(steps.dtype)
    return dataclasses.replace(last, steps=steps)
