"""How a network is taught: what it learns from where phases of its dynamics lead."""

import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from darnax import checks
from darnax.dynamics import Solution
from darnax.learning.phases import Phase, Targets, run, whole
from darnax.learning.updates import as_rules, check_normalise, local_updates
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.topologies.topology import Topology

Scores = dict[str, Float[Array, " batch"]]


class Learning(eqx.Module):
    """A way of teaching, as `fit` uses it: how a network answers, and what it learns from a
    batch.
    """

    rules: eqx.AbstractVar[dict[str, Callable[..., Any]]]

    @abc.abstractmethod
    def check(self, topology: Topology):
        """Whatever it names is in the topology; `ValueError` if not."""

    @abc.abstractmethod
    def infer(self, network: Network, x: Any, key: Any = None) -> Solution:
        """Where the network rests on its inputs, without being told anything else."""

    @abc.abstractmethod
    def updates(
        self, network: Network, x: Any, y: Targets, samples: Bool[Array, " batch"], key: Any = None
    ) -> tuple[Network, Solution, Scores]:
        """Updates from those `samples` that count; where the network answered; and scores, one a
        sample.
        """


class DynamicalLearning(Learning):
    """Teaches the network to settle, unclamped, in the state in which it settled while its outputs
    were clamped.

    The phases follow one another; in some the targets are clamped, in the last ones they no longer
    are. Then all that has a rule learns by it to be in the state where the last phase led, outputs
    in that of their targets. Inference is the same phases without those that need targets.

    **Arguments:**

    - `rules`: by edge kind, a local rule.
    - `phases`: a sequence of `Phase`; None for one pass of warm-up, outputs clamped until rest,
      outputs silent until rest (Badalotti et al., arXiv:2509.05041).
    - `from_inference`: whether senders and fields are those of inference, and the phases only say
      where to be; else they too are those of the last phase. A self-coupling keeps a memory of the
      clamped outputs; what is learnt where inference ends does not rely on it.
    - `normalise`: as for `local_updates`.

    Raises `TypeError` or `ValueError` for rules that are no functions, and phases that are none.

    !!! example

        ```python
        learning = dx.DynamicalLearning({"forward": dx.perceptron(0.5)})
        samples = jnp.ones(B, bool)
        updates, answer, scores = learning.updates(network, x, {"label": y}, samples=samples)
        ```
    """

    rules: dict[str, Callable[..., Any]]
    phases: tuple[Phase, ...] | None = eqx.field(static=True)
    from_inference: bool = eqx.field(static=True)
    normalise: Callable[[Any, int], Any] | None = eqx.field(static=True)

    def __init__(
        self, rules: Any, phases: Any = None, *, from_inference: Any = False, normalise: Any = None
    ):
        check_normalise(normalise)
        self.rules = as_rules(rules)
        self.phases = None if phases is None else _phases(phases)
        self.from_inference, self.normalise = (
            checks.flag("from_inference", from_inference),
            normalise,
        )

    def check(self, topology: Topology):
        for phase in self._phases(topology):
            phase.check(topology)

    def infer(self, network: Network, x: Any, key: Any = None) -> Solution:
        start = GraphState(network.topology).init(x)
        return whole(run(network, start, self._inference(network.topology), {}, key))

    def updates(
        self, network: Network, x: Any, y: Targets, samples: Bool[Array, " batch"], key: Any = None
    ) -> tuple[Network, Solution, Scores]:
        phases = self._phases(network.topology)
        network = bound(network)
        solutions = run(network, GraphState(network.topology).init(x), phases, y, key)
        last = solutions[-1]
        answer = self._answer(network, x, solutions, key) if self.from_inference else last
        samples = samples & finite(answer.state) & finite(last.state)
        updates = local_updates(
            network,
            answer.state,
            self.rules,
            target=last.state.replace(dict(y)) if y else last.state,
            silence=phases[-1].silence,
            kinds=phases[-1].kinds,
            normalise=self.normalise,
            samples=samples,
        )
        taught = [
            s.state for s, phase in zip(solutions, phases, strict=True) if phase.teaches(list(y))
        ]
        scores = {"overlap": overlap(taught[-1], last.state)} if taught else {}
        return updates, answer, scores | {"lost": (~samples).astype(jnp.float32)}

    def _answer(self, network: Network, x: Any, solutions: list[Solution], key: Any) -> Solution:
        """What `infer` gives; the phases that it has in common with teaching are not run again."""
        phases, inference = self._phases(network.topology), self._inference(network.topology)
        common = 0
        while common < len(inference) and inference[common] == phases[common]:
            common += 1
        made = solutions[:common]
        start = made[-1].state if made else GraphState(network.topology).init(x)
        return whole(made + run(network, start, inference[common:], {}, key, common))

    def _phases(self, topology: Topology) -> tuple[Phase, ...]:
        """All phases."""
        outputs = topology.outputs
        return self.phases or (
            Phase("warm-up", steps=1, settle=False, silence=outputs),
            Phase("clamped", clamp=outputs),
            Phase("free", silence=outputs),
        )

    def _inference(self, topology: Topology) -> tuple[Phase, ...]:
        """The phases that do without targets."""
        alone = tuple(
            phase for phase in self._phases(topology) if not phase.teaches(topology.outputs)
        )
        if not alone:
            raise ValueError(
                "`phases` leave nothing for inference: every one of them clamps or nudges outputs; "
                "add one that does not, such as dx.Phase('free')"
            )
        return alone


def _phases(given: Any) -> tuple[Phase, ...]:
    """A sequence of phases, at least one."""
    holds = "a sequence of dx.Phase(...), at least one"
    if isinstance(given, Phase):
        checks.refuse("phases", holds, given, "write [phase]")
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        checks.refuse("phases", holds, given, "give a list of them")
    phases = tuple(given)
    if not phases:
        checks.refuse(
            "phases", holds, given, "give a list of them, or None for the usual three", ValueError
        )
    for i, phase in enumerate(phases):
        _phase(f"phases[{i}]", phase)
    return phases


def _phase(argument: str, value: Any) -> Phase:
    return checks.instance(
        argument, value, Phase, "a dx.Phase(...)", "make one, such as dx.Phase('free')"
    )


class ContrastiveLearning(Learning):
    """Learning from the difference of two phases: rules applied where the network is taught, less
    where it is free.

    With `hebbian` rules, clamped outputs are contrastive Hebbian learning (J. R. Movellan,
    Connectionist Models 10, 1991); outputs that are nudged, by `Phase(..., nudge=β)`, equilibrium
    propagation (B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11, 24, 2017). There the
    difference, divided by β, goes to the gradient of the squared error at rest as β goes to 0, if
    couplings are symmetric: that of a weight which both directions share.

    **Arguments:**

    - `rules`: by edge kind, a local rule; `dx.hebbian()` above.
    - `free`, `taught`: the two phases; the second one begins where the first led, and clamps or
      nudges what has a target.
    - `normalise`: as for `local_updates`.

    Raises `TypeError` or `ValueError` for rules that are no functions, a free phase that needs
    targets, and a taught one that needs none.

    !!! example

        ```python
        taught = dx.Phase("nudged", nudge=0.1)
        learning = dx.ContrastiveLearning({"forward": dx.hebbian()}, dx.Phase("free"), taught)
        ```
    """

    rules: dict[str, Callable[..., Any]]
    free: Phase = eqx.field(static=True)
    taught: Phase = eqx.field(static=True)
    normalise: Callable[[Any, int], Any] | None = eqx.field(static=True)

    def __init__(self, rules: Any, free: Any, taught: Any, *, normalise: Any = None):
        check_normalise(normalise)
        self.rules, self.normalise = as_rules(rules), normalise
        self.free, self.taught = _phase("free", free), _phase("taught", taught)
        if not (self.taught.clamp or self.taught.nudge):
            advice = "give it clamp=[...] or nudge=..., or it does what the free one does"
            checks.refuse("taught", "a phase that is given targets", taught, advice, ValueError)
        if self.free.nudge:
            checks.refuse(
                "free", "a phase without targets", free, "leave out its nudge", ValueError
            )

    def check(self, topology: Topology):
        for phase in (self.free, self.taught):
            phase.check(topology)
        if self.free.teaches(topology.outputs):
            checks.refuse(
                "free", "a phase without targets", self.free, "let it hold no outputs", ValueError
            )

    def infer(self, network: Network, x: Any, key: Any = None) -> Solution:
        return self.free.run(network, GraphState(network.topology).init(x), {}, key)

    def updates(
        self, network: Network, x: Any, y: Targets, samples: Bool[Array, " batch"], key: Any = None
    ) -> tuple[Network, Solution, Scores]:
        network = bound(network)
        free, taught = run(
            network, GraphState(network.topology).init(x), (self.free, self.taught), y, key
        )
        samples = samples & finite(free.state) & finite(taught.state)
        there, here = (
            local_updates(
                network,
                solution.state,
                self.rules,
                silence=phase.silence,
                kinds=phase.kinds,
                normalise=self.normalise,
                samples=samples,
            )
            for phase, solution in ((self.taught, taught), (self.free, free))
        )
        updates = jax.tree.map(lambda a, b: (a - b) / (self.taught.nudge or 1), there, here)
        scores = {
            "overlap": overlap(taught.state, free.state),
            "lost": (~samples).astype(jnp.float32),
        }
        return updates, free, scores


def bound(network: Network) -> Network:
    """The network with its arrays bound together, for a program in which several phases use them.

    In a loop over steps of learning XLA takes what depends on index arrays alone out of the loop,
    once for every phase; then it no longer sees that all phases hear the same from nodes that are
    held.
    """
    traced, rest = eqx.partition(network, lambda leaf: isinstance(leaf, Tracer))
    return eqx.combine(jax.lax.optimization_barrier(traced), rest)


def finite(state: GraphState) -> Bool[Array, " batch"]:
    """Which samples hold nothing but finite numbers."""
    return jnp.all(
        jnp.stack(
            [jnp.isfinite(a.reshape(-1, a.shape[-1])).all(0) for a in jax.tree.leaves(state)]
        ),
        axis=0,
    )


def overlap(a: GraphState, b: GraphState) -> Float[Array, " batch"]:
    """The cosine of two states of every sample, over the nodes that are neither inputs nor
    outputs.
    """
    topology = a.topology
    inner = np.setdiff1d(
        np.arange(len(topology)), [*topology.columns.held, *topology.columns.outputs]
    )
    dots = []
    for at, rows in topology.layout.rows_of(inner).items():
        spec = topology.layout.arrays[at]
        here = slice(None) if len(rows) == spec.rows else rows
        one, two = (
            s.arrays[spec.name].reshape(spec.rows, -1, s.batch_size)[here].astype(jnp.float32)
            for s in (a, b)
        )
        dots.append(
            jnp.stack([(one * two).sum((0, 1)), (one**2).sum((0, 1)), (two**2).sum((0, 1))])
        )
    if not dots:
        return jnp.ones(a.batch_size)
    both, first, second = sum(dots[1:], dots[0])
    return both / jnp.sqrt(jnp.maximum(first * second, jnp.finfo(jnp.float32).tiny))
