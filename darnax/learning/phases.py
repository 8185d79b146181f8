"""Phases: stretches of the dynamics in which the same nodes are held and the same edges send.

Local rules need nothing but states, so a network is taught by leading it through the states to
learn from. `dx.DynamicalLearning` does so in three phases unless it is given others:

    zeros ──► warm-up ─────────► clamped ──────────► free
              one pass,          outputs held        outputs silent:
              outputs silent     at their targets    does the state last?

Each phase begins in the state in which the one before it ended, with noise of its own. Nothing else
passes from phase to phase.
"""

import dataclasses
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from darnax import _text, checks
from darnax.dynamics import Schedule, Solution, relax, rollout, synchronous
from darnax.learning.data import Targets, Values
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.states.values import as_array
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

RandomKey: TypeAlias = Key[Array, ""] | None
"""The key of random schedules and activations; None where nothing is random."""


class Nudge(eqx.Module):
    """See `nudge`."""

    # target and strength are leaves: a drive with other values is no other program
    node: Name = eqx.field(static=True)
    target: Array
    strength: Float[Array, ""]

    def __call__(self, state: GraphState) -> Array:
        distance = self._distance(state)
        return self.strength.astype(distance.dtype) * distance

    def of_samples(self, samples: Int[Array, " some"], shape: tuple[int, ...]) -> "Nudge":
        """The nudge of some samples of a node of this shape, for loops that go on with them."""
        if self.target.shape == shape:
            return self
        return eqx.tree_at(lambda nudge: nudge.target, self, self.target[samples])

    def energy(self, state: GraphState) -> Array:
        """Half the squared distance from the target times the strength, `(B,)`, for `dx.energy`."""
        distance = self._distance(state)
        half = self.strength.astype(distance.dtype) / 2
        return half * jnp.sum(distance**2, axis=tuple(range(1, distance.ndim)))

    def _distance(self, state: GraphState) -> Float[Array, "batch *shape"]:
        """The target minus the state, in the dtype of fields."""
        value = state[self.node]
        # a target of another shape would be broadcast in silence
        if self.target.shape not in (value.shape, value.shape[1:]):
            raise ValueError(
                f"`target` of dx.nudge for node {self.node!r} has shape {value.shape[1:]} or "
                f"{value.shape}, but got {self.target.shape}; reshape it"
            )
        # whole numbers of few bits would overflow, and JAX may be told to promote nothing
        topology = state.topology
        dtype = topology.array_of(topology.index(self.node)).field_dtype
        return self.target.astype(dtype) - value.astype(dtype)


@checks.by_hand
def nudge(node: Name, target: Values, strength: float | Array) -> Nudge:
    """The drive of equilibrium propagation, `strength * (target - state)`.

    It is minus the gradient of half the squared distance from the target, times the strength.
    Source: B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11, 24 (2017), equation 10.

    **Arguments:**

    - `node`: its name.
    - `target`: where it is drawn to, `(B, *shape)`, or `(*shape)` for all samples.
    - `strength`: a finite number; below 0 it is driven away.

    Raises `TypeError` or `ValueError` for a target that is no array of numbers, or another
    strength.

    !!! example

        ```python
        state = dx.step(network, state, drive={"label": dx.nudge("label", y, 0.1)})
        ```
    """
    array = as_array("`target`", target)
    is_complex = jnp.issubdtype(array.dtype, jnp.complexfloating)
    if is_complex or not jnp.issubdtype(array.dtype, jnp.number):
        advice = "give the states that the node should be in"
        checks.refuse("target", "an array of numbers (B, *shape)", target, advice)
    if not isinstance(node, Hashable):
        checks.refuse("node", "the name of a node", node, "give one name")
    # 64 bits where JAX has them: the difference of two phases is divided by the number itself
    strength = jnp.asarray(checks.scalar("strength", strength), float)
    return Nudge(node, jnp.asarray(array), strength)


@checks.by_hand
@dataclass(frozen=True)
class Phase:
    """A stretch of the dynamics in which the same nodes are held and the same edges send.

    **Fields:**

    - `name`: what to call it.
    - `steps`: the number of passes, or the most there may be; at least 1 where it settles.
    - `settle`: whether every sample stops where it comes to rest; if not, all passes are made, no
      residual is computed, and no sample counts as settled.
    - `clamp`: nodes held besides the inputs; those that have a target are set to it first.
    - `silence`: nodes whose messages are dropped.
    - `kinds`: the edge kinds that send; None for all.
    - `nudge`: how strongly the field of nodes that have a target is drawn to it, or driven away
      below 0; 0 for not at all.
    - `schedule`: who is updated when.
    - `tol`: the residual at which a sample is at rest, as for `dx.relax`. Where the difference of
      two phases is divided by a small nudge, their distance from rest is divided by it as well.

    Raises `TypeError` or `ValueError` that name the field and the phase for anything else.

    !!! example

        ```python
        phases = [dx.Phase("clamped", clamp=["label"]), dx.Phase("free", silence=["label"])]
        ```
    """

    name: str
    steps: int = 100
    settle: bool = True
    clamp: Iterable[Name] = ()
    silence: Iterable[Name] = ()
    kinds: Iterable[str] | None = None
    nudge: float = 0.0
    schedule: Schedule = synchronous()  # noqa: RUF009 (schedules are frozen)
    tol: float = 1e-5

    def __post_init__(self):
        name = checks.text("name", self.name, "the name of a phase")
        phase = f"of phase {name!r}"
        holds = "a schedule such as dx.synchronous()"
        checks.instance(f"schedule {phase}", self.schedule, Schedule, holds, "give one")
        settle = checks.flag(f"settle {phase}", self.settle)
        # equal phases are written alike, be it with a list or a tuple, 1 or 1.0: a program is
        # compiled once for equal ones
        plain: dict[str, object] = {
            "settle": settle,
            # a pass at least has to show that a sample is at rest
            "steps": checks.count(f"steps {phase}", self.steps, int(settle)),
            "nudge": checks.number(f"nudge {phase}", self.nudge),
            "tol": checks.number(f"tol {phase}", self.tol, least=0),
        }
        for field in ("clamp", "silence", "kinds"):
            value = getattr(self, field)
            # the keys of a mapping would pass for names, and its masks would be lost
            if isinstance(value, Mapping):
                advice = "a phase holds whole nodes; for masks use dx.relax"
                checks.refuse(f"{field} {phase}", "a list of names", value, advice)
            every_kind = field == "kinds" and value is None
            if not every_kind:
                plain[field] = checks.names(f"{field} {phase}", value)
        # the only way to write to fields of a frozen dataclass
        for field, value in plain.items():
            object.__setattr__(self, field, value)

    def teaches(self, nodes: Collection[Name]) -> bool:
        """Whether it needs the targets of some nodes."""
        return self.nudge != 0 or not set(nodes).isdisjoint(self.clamp)

    def check(self, topology: Topology):
        """Raise `ValueError` for nodes and kinds that the topology does not have."""
        topology.indices(f"clamp of phase {self.name!r}", self.clamp)
        topology.indices(f"silence of phase {self.name!r}", self.silence)
        unknown = [kind for kind in self.kinds or () if kind not in topology.edge_kinds]
        if unknown:
            raise ValueError(
                f"phase {self.name!r}: `kinds` names {_text.names(unknown)}, which no edge has; "
                f"the edge kinds are {_text.names(topology.edge_kinds)}"
            )

    def run(
        self,
        network: Network,
        state: GraphState,
        targets: Targets,
        key: RandomKey = None,
    ) -> Solution:
        """The solution of the phase from a state; one that does not settle has no residual."""
        # `clamp` holds a node where it is: a node with a target is put there first
        placed: dict[Name, Array] = {}
        for node, target in targets.items():
            if node in self.clamp:
                placed[node] = target
        if placed:
            state = state.replace(placed)

        # the arguments that `relax` and `rollout` have in common
        arguments: dict[str, Any] = {
            "schedule": self.schedule,
            "clamp": self.clamp,
            "silence": self.silence,
            "kinds": self.kinds,
            "key": key,
        }
        # without targets, as in inference, nothing is nudged
        if self.nudge:
            drive: dict[Name, Nudge] = {}
            for node, target in targets.items():
                drive[node] = nudge(node, target, self.nudge)
            arguments["drive"] = drive

        if self.settle:
            return relax(network, state, max_steps=self.steps, tol=self.tol, **arguments)
        # random activations never settle, and `relax` refuses them: a rollout takes them
        state, _ = rollout(network, state, self.steps, **arguments)
        batch = state.batch_size
        return Solution(
            state=state,
            settled=jnp.zeros(batch, bool),
            steps=jnp.full(batch, self.steps, jnp.int32),
            residual=jnp.full(batch, jnp.inf),
            period=jnp.zeros(batch, jnp.int32),
        )


def run_phases(
    network: Network,
    state: GraphState,
    phases: Sequence[Phase],
    targets: Targets,
    key: RandomKey,
    done: Sequence[Solution] = (),
) -> list[Solution]:
    """The solutions of phases one after another; `done` are those of the first ones.

    Phase i draws its noise from `fold_in(key, i)`. So a phase has the same noise whether the ones
    before it are run or handed in.
    """
    solutions = list(done)
    for i in range(len(done), len(phases)):
        if solutions:
            state = solutions[-1].state
        own = None if key is None else jax.random.fold_in(key, i)
        solutions.append(phases[i].run(network, state, targets, own))
    return solutions


def in_sequence(solutions: Sequence[Solution]) -> Solution:
    """The solution of several phases as if they were one: the end of the last, the steps of all.

    The pass that only showed that an earlier phase had settled does not count: a phase that changes
    nothing adds none.
    """
    steps = solutions[-1].steps
    for earlier in solutions[:-1]:
        deciding = earlier.settled.astype(steps.dtype)
        steps = steps + earlier.steps - deciding
    return dataclasses.replace(solutions[-1], steps=steps)
