"""Local rules: error signals that a receiver works out from its field and its state.

A rule is a function `(field, state) -> signal` of one node of one sample; all three have the shape
of the node. The signal stands where the gradient of a loss with respect to the field would stand.
Each incoming coupling turns it into an update of its own parameters, by its own vector-Jacobian
product, and optimisers subtract that. A dense weight therefore moves along `-signal ⊗ sender`, and
a rule that strengthens what agrees with the state has the signal `-state`.

A rule that compares samples has a third parameter, `mean`: a function that averages over the batch.

A rule whose signal at a unit depends on the field and the state of this unit alone may say so by an
attribute, `elementwise = True`. On a shared array it is then called once for every cell, whatever
the nodes are that cover the cell; without it, it is called for every node that an edge ends at.

The rules of the library are frozen dataclasses and not closures. Two that were made alike are then
equal, and programs that were compiled for one serve the other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from darnax import _text, checks
from darnax.activations import as_activation, identity, name

Units = Float[Array, "*shape"]
"""One number for each unit of a node."""

Mean = Callable[[Units], Units]
"""The function that a rule is given to average over the batch."""

# no union of two functions: a third parameter counts by its name, `mean`, which the type of a
# function cannot say
Rule: TypeAlias = Callable[..., Array]
"""A local rule: `(field, state) -> signal`, or `(field, state, mean) -> signal`."""

Rules: TypeAlias = Mapping[str, Rule]
"""Local rules by edge kind. Edges of kinds that are not named learn nothing."""

Normalise: TypeAlias = Callable[[Array | int, int], Array | float]
"""A function `(batch, fan_in) -> number` that sums over the batch are divided by."""


def is_elementwise(function: Callable[..., object]) -> bool:
    """Whether a rule or an activation promises to work out each unit for itself."""
    return getattr(function, "elementwise", False)


@dataclass(frozen=True)
class Perceptron:
    """See `perceptron`."""

    margin: float
    elementwise = True
    # the rule is for targets of ±1: its signal at a target of 0 is 0, which `fit` refuses
    signs = True

    def __call__(self, field: Units, state: Units) -> Units:
        # at a margin of 0 a field of 0 still violates it: weights that start at 0 begin to learn
        return jnp.where(state * field <= self.margin, -state, 0)


@dataclass(frozen=True)
class Hebbian:
    """See `hebbian` and `anti_hebbian`."""

    sign: int
    elementwise = True

    def __call__(self, field: Units, state: Units) -> Units:
        return -self.sign * state


@dataclass(frozen=True)
class Oja:
    """See `oja`."""

    elementwise = True
    # the rest of the rule is about senders, and no signal can say it: `local_updates` replaces them
    # by what the receivers do not explain of them
    residual = True

    def __call__(self, field: Units, state: Units) -> Units:
        return -state


@dataclass(frozen=True)
class Delta:
    """See `delta`."""

    activation: Callable[[Array], Array]

    @property
    def elementwise(self) -> bool:
        """Whether units answer each to its own field, as those of softmax do not."""
        return is_elementwise(self.activation)

    def __call__(self, field: Units, state: Units) -> Units:
        # a product and not `jax.grad`: units of one node may depend on one another, as in softmax
        answer, pull = jax.vjp(self.activation, field)
        return pull(answer - state)[0]


@dataclass(frozen=True)
class Covariance:
    """See `covariance`."""

    elementwise = True

    def __call__(self, field: Units, state: Units, mean: Mean) -> Units:
        return mean(state) - state


@dataclass(frozen=True)
class BCM:
    """See `bcm`."""

    elementwise = True

    def __call__(self, field: Units, state: Units, mean: Mean) -> Units:
        return -state * (state - mean(state**2))


@checks.by_hand
def perceptron(margin: float = 0.0) -> Perceptron:
    """Perceptron rule: the signal is `-s` where `s * field <= margin`, else 0.

    For ±1 units and a dense coupling the update of `W[i, j]` is `s[i] x[j]` for every sample in
    which unit i violates its margin. Learning stops by itself when no margin is violated. Source:
    F. Rosenblatt, Psychol. Rev. 65, 386 (1958); with a margin E. Gardner, J. Phys. A 21, 257
    (1988).

    **Arguments:**

    - `margin`: at least 0, in units of the field.

    Raises `TypeError` or `ValueError` for another margin.

    !!! example

        ```python
        updates = dx.local_updates(network, state, {"forward": dx.perceptron(margin=0.5)})
        ```
    """
    return Perceptron(checks.number("margin", margin, least=0.0))


def hebbian() -> Hebbian:
    """Hebbian rule: the signal is `-s`, so that `W[i, j]` grows by `s[i] x[j]`.

    It never stops by itself: add weight decay, or store each pattern once.
    Source: D. O. Hebb, The Organization of Behavior (1949).
    """
    return Hebbian(1)


def anti_hebbian() -> Hebbian:
    """Anti-Hebbian rule: the signal is `s`, so that `W[i, j]` falls by `s[i] x[j]`.

    On lateral couplings it decorrelates units; on states that the network settles in by itself it
    unlearns them. Source: P. Földiák, Biol. Cybern. 64, 165 (1990); J. J. Hopfield et al., Nature
    304, 158 (1983).
    """
    return Hebbian(-1)


def oja() -> Oja:
    """Oja's rule: Hebbian learning of the residual, `W` grows by `s (x - Wᵀ s)`.

    One linear unit, `s = w · x`, finds the first principal component of centred data, with
    `|w| = 1`; several find the subspace of as many components. `Wᵀ s` is the coupling's own
    transpose, so it serves every linear coupling. Source: E. Oja, J. Math. Biol. 15, 267 (1982),
    and Int. J. Neural Syst. 1, 61 (1989).

    !!! example

        ```python
        updates = dx.local_updates(network, state, {"forward": dx.oja()})
        ```
    """
    return Oja()


@checks.by_hand
def delta(activation: Callable[[Array], Array] = identity) -> Delta:
    """Delta rule: the signal is `f'(field) (f(field) - s)`, the gradient of `½ (f(field) - s)²`.

    For continuous units, which learn to answer with their target: the state, or `target` of
    `local_updates`. Source: B. Widrow and M. E. Hoff, IRE WESCON 4, 96 (1960).

    **Arguments:**

    - `activation`: f, with a derivative, of the field alone; that of the units.

    Raises `TypeError` or `ValueError` for one without a derivative, or that needs a key or a state.

    !!! example

        ```python
        updates = dx.local_updates(network, state, {"forward": dx.delta(dx.tanh)})
        ```
    """
    checks.function("activation", activation, "a function of the field such as dx.tanh", "give one")
    # rules are given neither a key nor the state before the pass
    needed = sorted(as_activation(activation).needed)
    if needed:
        raise ValueError(
            f"`activation` is a function of the field alone, but {name(activation)} needs "
            f"{' and '.join(needed)}; give the function inside, such as dx.tanh"
        )
    if not as_activation(activation).differentiable:
        raise ValueError(
            f"`activation` has a derivative, but that of {name(activation)} is 0, and nothing "
            "would be learnt; give one such as dx.tanh, or use dx.perceptron"
        )
    return Delta(activation)


def covariance() -> Covariance:
    """Covariance rule: the signal is `mean(s) - s`, with the mean over the batch.

    Averaged over a batch, `W[i, j]` grows by the covariance of `s[i]` and `x[j]`.
    Source: T. J. Sejnowski, J. Math. Biol. 4, 303 (1977).
    """
    return Covariance()


def bcm() -> BCM:
    """BCM rule: the signal is `-s (s - θ)`, with the sliding threshold `θ = mean(s²)`.

    The mean is over the batch. Answers above the threshold are strengthened, those below it
    weakened: units become selective. The threshold follows the answers and keeps both in bounds.
    Source: E. L. Bienenstock, L. N. Cooper and P. W. Munro, J. Neurosci. 2, 32 (1982); the
    threshold as in N. Intrator and L. N. Cooper, Neural Networks 5, 3 (1992).
    """
    return BCM()


def as_rules(rules: object) -> dict[Any, Rule]:
    """Rules by edge kind: functions of a field and a state."""
    holds = "edge kinds to rules such as dx.perceptron(0.5)"
    # kinds are looked at where a topology is known: until then they may be anything
    by_kind: dict[Any, Rule] = dict(checks.mapping("rules", rules, holds))
    wrong = [kind for kind, rule in by_kind.items() if not callable(rule)]
    if wrong:
        raise TypeError(
            f"`rules` {_text.names(wrong)} are not rules; give functions such as dx.perceptron(0.5)"
        )
    for kind, rule in by_kind.items():
        argument = f"rules[{kind!r}]"
        checks.called(argument, rule)
        checks.takes(argument, rule, 2, "(field, state)", {"mean"})
        # arrays in a rule are arguments of the program; all else is part of its identity
        static = eqx.filter(rule, eqx.is_array, inverse=True)
        leaves, structure = jax.tree.flatten(static)
        if not is_hashable((tuple(leaves), structure)):
            holds = "part of a compiled program, and so can be hashed"
            advice = "freeze its class, as dataclass(frozen=True) does"
            checks.refuse(argument, holds, rule, advice)
    return by_kind


def check_normalise(normalise: object):
    """Raise `TypeError` unless it is None or a function of the batch and the fan-in."""
    if normalise is None:
        return
    holds = "None, or a function (batch, fan_in) -> number to divide by"
    advice = "write one, as in lambda batch, fan_in: batch"
    function = checks.function("normalise", normalise, holds, advice)
    checks.takes("normalise", function, 2, "(batch, fan_in)")


def is_hashable(value: object) -> bool:
    """Whether equal programs can be found by this value; a tuple can if all of its parts can."""
    try:
        hash(value)
    except TypeError:
        return False
    return True
