"""Learning: how a network answers, and what it learns from a batch.

A `Learning` leads the network through states, in phases of its dynamics, and says what they teach.
It knows nothing of epochs, optimisers or files: `fit` calls `check` once, `updates` for every batch
and `infer` for evaluation. A way of teaching of your own is a class with these three methods, and
with `trained`, which names the edge kinds that it trains. What gives updates in that structure is a
teacher, by local rules (`LocalLearning`) or by a gradient: all of them share one `fit`.
"""

import abc
import dataclasses
from collections.abc import Iterable
from itertools import takewhile

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from darnax import checks
from darnax.dynamics import Solution
from darnax.learning.data import Data, Targets
from darnax.learning.phases import Phase, RandomKey, in_sequence, run_phases
from darnax.learning.rules import Normalise, Rule, Rules, as_rules, check_normalise
from darnax.learning.scores import Samples, Scores, finite, overlap
from darnax.learning.updates import local_updates
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.topologies.topology import Topology


class Learning(eqx.Module):
    """A way of teaching: how a network answers, and what it learns from a batch."""

    # the edge kinds that are trained: by them `fit` separates their leaves from the rest
    trained: eqx.AbstractVar[tuple[str, ...]]

    @abc.abstractmethod
    def check(self, topology: Topology):
        """Raise `ValueError` for nodes and kinds that the topology does not have."""

    @abc.abstractmethod
    def infer(self, network: Network, x: Data, key: RandomKey = None) -> Solution:
        """The solution that the network settles in on its inputs, without targets."""

    @abc.abstractmethod
    def updates(
        self,
        network: Network,
        x: Data,
        y: Targets,
        samples: Samples,
        key: RandomKey = None,
    ) -> tuple[Network, Solution, Scores]:
        """The updates that a batch gives, its answers, and its scores.

        **Arguments:**

        - `x`, `y`: inputs and targets.
        - `samples`: which samples count.
        - `key`: for random schedules and activations.

        **Returns:** updates for optax, in the structure of `params` in
        `params, rest = dx.partition(network, learning.trained)`; the solution whose outputs are the
        answers; and scores, one a sample.
        """


class LocalLearning(Learning):
    """A way of teaching by local rules: it trains the edge kinds that have one."""

    # rules may hold arrays, which are leaves; all other fields are part of the program
    rules: eqx.AbstractVar[dict[str, Rule]]
    normalise: eqx.AbstractVar[Normalise | None]

    @property
    def trained(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(self.rules)

    def learnt(
        self,
        network: Network,
        state: GraphState,
        phase: Phase,
        samples: Samples,
        target: GraphState | None = None,
    ) -> Network:
        """Local updates among the edges that send in a phase."""
        return local_updates(
            network,
            state,
            self.rules,
            target=target,
            silence=phase.silence,
            kinds=phase.kinds,
            normalise=self.normalise,
            samples=samples,
        )


class DynamicalLearning(LocalLearning):
    """Teaches the network to settle, unclamped, in the state in which it settled while clamped.

    The phases follow one another: first the outputs are clamped to their targets, at last they no
    longer are. Every node that edges with a rule reach learns to be in the state in which the last
    phase ended, outputs in that of their targets. Inference runs the same phases without those that
    need targets.

    **Arguments:**

    - `rules`: by edge kind, a local rule.
    - `phases`: a sequence of `Phase`; None for one pass of warm-up, outputs clamped until rest,
      outputs silent until rest (Badalotti et al., arXiv:2509.05041).
    - `from_inference`: whether senders and fields are those of inference, and the phases give the
      targets alone; else senders and fields too are those of the last phase. A self-coupling keeps
      a memory of the clamped outputs; what is learnt where inference ends does not rely on it.
    - `normalise`: as for `local_updates`.

    Raises `TypeError` or `ValueError` for rules that are no functions, and phases that are none.

    !!! example

        ```python
        learning = dx.DynamicalLearning({"forward": dx.perceptron(0.5)})
        samples = jnp.ones(B, bool)
        updates, answer, scores = learning.updates(network, x, {"label": y}, samples=samples)
        ```
    """

    rules: dict[str, Rule]
    # None stays None: the usual phases depend on the outputs, which only a topology knows
    phases: tuple[Phase, ...] | None = eqx.field(static=True)
    from_inference: bool = eqx.field(static=True)
    normalise: Normalise | None = eqx.field(static=True)

    @checks.by_hand
    def __init__(
        self,
        rules: Rules,
        phases: Iterable[Phase] | None = None,
        *,
        from_inference: bool = False,
        normalise: Normalise | None = None,
    ):
        check_normalise(normalise)
        self.rules = as_rules(rules)
        self.phases = None if phases is None else _as_phases(phases)
        self.from_inference = checks.flag("from_inference", from_inference)
        self.normalise = normalise

    def check(self, topology: Topology):
        for phase in self._phases(topology):
            phase.check(topology)

    def infer(self, network: Network, x: Data, key: RandomKey = None) -> Solution:
        start = GraphState(network.topology).init(x)
        phases = self._inference(network.topology)
        return in_sequence(run_phases(network, start, phases, {}, key))

    def updates(
        self,
        network: Network,
        x: Data,
        y: Targets,
        samples: Samples,
        key: RandomKey = None,
    ) -> tuple[Network, Solution, Scores]:
        topology = network.topology
        network = bound(network)
        phases = self._phases(topology)
        start = GraphState(topology).init(x)

        # teaching: the last phase gives the targets, and senders and fields unless inference does
        solutions = run_phases(network, start, phases, y, key)
        last = solutions[-1]
        answer = last
        if self.from_inference:
            # up to the first phase that teaches, inference is what has just been run
            needed = {*y, *topology.outputs}
            common = list(takewhile(lambda phase: not phase.teaches(needed), phases))
            done = solutions[: len(common)]
            inference = self._inference(topology)
            answer = in_sequence(run_phases(network, start, inference, {}, key, done))

        # NaN in one sample would be NaN in every weight
        samples = samples & finite(answer.state) & finite(last.state)
        # outputs learn their targets themselves, and not the state that they were let go to
        target = last.state.replace(y) if y else last.state
        updates = self.learnt(network, answer.state, phases[-1], samples, target)

        scores = {"lost": (~samples).astype(jnp.float32)}
        pairs = zip(phases, solutions, strict=True)
        taught = [solution for phase, solution in pairs if phase.teaches(y)]
        if taught:
            # how much of the last state that was taught has lasted until the end
            scores["overlap"] = overlap(taught[-1].state, last.state)
        return updates, answer, scores

    def _phases(self, topology: Topology) -> tuple[Phase, ...]:
        """The phases that were given, or the usual three."""
        outputs = topology.outputs
        return self.phases or (
            Phase("warm-up", steps=1, settle=False, silence=outputs),
            Phase("clamped", clamp=outputs),
            Phase("free", silence=outputs),
        )

    def _inference(self, topology: Topology) -> tuple[Phase, ...]:
        """The phases that need no targets."""
        phases = self._phases(topology)
        alone = tuple(phase for phase in phases if not phase.teaches(topology.outputs))
        if not alone:
            raise ValueError(
                "`phases` leave nothing for inference: every one of them clamps or nudges outputs; "
                "add one that does not, such as dx.Phase('free')"
            )
        return alone


class ContrastiveLearning(LocalLearning):
    """Learns from the difference of two phases: updates where it is taught less those where free.

    With `hebbian` rules, clamped outputs are contrastive Hebbian learning (J. R. Movellan,
    Connectionist Models 10, 1991); outputs that are nudged, by `Phase(..., nudge=β)`, equilibrium
    propagation (B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11, 24, 2017). There the
    difference, divided by β, goes to the gradient of the squared error at rest as β goes to 0, if
    the weights of both directions are shared (`dx.transpose`) or couplings are symmetric. Its error
    is of the order of β, because the free phase lies at one end of the stretch from 0 to β. Between
    phases nudged by β and by -β it lies in the middle: `symmetric=True` takes their difference,
    divided by 2β, and the error is of the order of β² (A. Laborieux et al., Front. Neurosci. 15,
    633674, 2021).

    **Arguments:**

    - `rules`: by edge kind, a local rule; `dx.hebbian()` above.
    - `free`, `taught`: the two phases; the second one begins where the first led, and clamps or
      nudges what has a target.
    - `symmetric`: whether a third phase, with the nudge of the second turned around, takes the part
      of the free one in the difference; it begins where the free one led as well.
    - `normalise`: as for `local_updates`.

    Raises `TypeError` or `ValueError` for rules that are no functions, a free phase that needs
    targets, a taught one that needs none, and `symmetric` where the taught one has no nudge.

    !!! example

        ```python
        taught = dx.Phase("nudged", nudge=0.1)
        learning = dx.ContrastiveLearning({"forward": dx.hebbian()}, dx.Phase("free"), taught)
        ```
    """

    rules: dict[str, Rule]
    free: Phase = eqx.field(static=True)
    taught: Phase = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)
    normalise: Normalise | None = eqx.field(static=True)

    @checks.by_hand
    def __init__(
        self,
        rules: Rules,
        free: Phase,
        taught: Phase,
        *,
        symmetric: bool = False,
        normalise: Normalise | None = None,
    ):
        check_normalise(normalise)
        self.rules = as_rules(rules)
        self.normalise = normalise
        self.free = as_free_phase(free)
        self.taught = _as_phase("taught", taught)
        self.symmetric = checks.flag("symmetric", symmetric)
        if not (taught.clamp or taught.nudge):
            advice = "give it clamp=[...] or nudge=..., or it does what the free one does"
            checks.refuse("taught", "a phase that is given targets", taught, advice, ValueError)
        if symmetric and not taught.nudge:
            holds = "a phase that nudges, where `symmetric` turns it around"
            advice = "clamped outputs have no other side; give it nudge=..., or leave that out"
            checks.refuse("taught", holds, taught, advice, ValueError)

    def check(self, topology: Topology):
        check_free_phase(self.free, topology)
        self.taught.check(topology)

    def infer(self, network: Network, x: Data, key: RandomKey = None) -> Solution:
        start = GraphState(network.topology).init(x)
        return self.free.run(network, start, {}, key)

    def updates(
        self,
        network: Network,
        x: Data,
        y: Targets,
        samples: Samples,
        key: RandomKey = None,
    ) -> tuple[Network, Solution, Scores]:
        network = bound(network)
        start = GraphState(network.topology).init(x)
        free, taught = run_phases(network, start, (self.free, self.taught), y, key)
        # the other end of the difference, and how far it is from the taught one. A weak nudge
        # changes little: what is learnt does not depend on its strength, nor on its sign
        phase, other = self.free, free
        distance = self.taught.nudge or 1
        if self.symmetric:
            phase = dataclasses.replace(self.taught, nudge=-self.taught.nudge)
            # in the place of the taught one, and so with its noise: the difference is free of it
            _, other = run_phases(network, start, (self.free, phase), y, key, [free])
            distance = 2 * self.taught.nudge

        # NaN in one sample would be NaN in every weight
        samples = samples & finite(free.state) & finite(taught.state) & finite(other.state)
        # without `target`: in both phases receivers learn the state that the phase led to
        here = self.learnt(network, other.state, phase, samples)
        there = self.learnt(network, taught.state, self.taught, samples)
        updates = jax.tree.map(lambda a, b: (a - b) / distance, there, here)
        scores = {
            "lost": (~samples).astype(jnp.float32),
            "overlap": overlap(taught.state, free.state),
        }
        return updates, free, scores


def _as_phases(phases: object) -> tuple[Phase, ...]:
    holds = "a sequence of dx.Phase(...), at least one"
    if isinstance(phases, Phase):
        checks.refuse("phases", holds, phases, "write [phase]")
    result = checks.several("phases", phases, holds)
    if not result:
        advice = "give a list of them, or None for the usual three"
        checks.refuse("phases", holds, phases, advice, ValueError)
    for i, phase in enumerate(result):
        _as_phase(f"phases[{i}]", phase)
    return result


def _as_phase(argument: str, phase: object) -> Phase:
    advice = "make one, such as dx.Phase('free')"
    return checks.instance(argument, phase, Phase, "a dx.Phase(...)", advice)


def as_free_phase(phase: object) -> Phase:
    """A phase that is given no targets."""
    free = _as_phase("free", phase)
    # names of outputs are not known yet: `check_free_phase` sees whether it holds any
    if free.nudge:
        advice = "leave out its nudge"
        checks.refuse("free", "a phase without targets", free, advice, ValueError)
    return free


def check_free_phase(free: Phase, topology: Topology):
    """Raise `ValueError` for a free phase that holds outputs, or names what is not there."""
    free.check(topology)
    if free.teaches(topology.outputs):
        advice = "let it hold no outputs"
        checks.refuse("free", "a phase without targets", free, advice, ValueError)


def bound(network: Network) -> Network:
    """The network with its arrays bound together, for a program in which several phases use them.

    In a loop over batches XLA takes what depends on index arrays alone out of the loop, once for
    every phase. Then it no longer sees that all phases gather the same from nodes that are held.
    """
    # a barrier means something within a program alone
    traced, rest = eqx.partition(network, lambda leaf: isinstance(leaf, Tracer))
    return eqx.combine(jax.lax.optimization_barrier(traced), rest)
