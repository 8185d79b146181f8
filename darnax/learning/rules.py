"""Local rules: what a receiver's field and state say about the messages it got.

A rule is a function `(field, state) -> signal` of one node of one sample, all of one shape. The
signal stands where a gradient with respect to the field would stand: each coupling turns it into
its own update through its own vector-Jacobian product, and optimisers subtract that. So for a dense
coupling the weights move along `-signal ⊗ sender`, and a rule that strengthens what agrees with the
state has the signal `-state`.

A rule that compares samples has a third parameter, `mean`: it is given a function that averages
over the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from darnax import checks
from darnax.activations import as_activation, identity, name

Units = Float[Array, "*shape"]
Mean = Callable[[Units], Units]


@dataclass(frozen=True)
class Perceptron:
    """See `perceptron`."""

    margin: float
    signs = True

    def __call__(self, field: Units, state: Units) -> Units:
        return jnp.where(state * field <= self.margin, -state, 0)


@dataclass(frozen=True)
class Hebbian:
    """See `hebbian` and `anti_hebbian`."""

    sign: int

    def __call__(self, field: Units, state: Units) -> Units:
        return -self.sign * state


@dataclass(frozen=True)
class Oja:
    """See `oja`."""

    residual = True

    def __call__(self, field: Units, state: Units) -> Units:
        return -state


@dataclass(frozen=True)
class Delta:
    """See `delta`."""

    activation: Callable[..., Any]

    def __call__(self, field: Units, state: Units) -> Units:
        answer, pull = jax.vjp(self.activation, field)
        return pull(answer - state)[0]


@dataclass(frozen=True)
class Covariance:
    """See `covariance`."""

    def __call__(self, field: Units, state: Units, mean: Mean) -> Units:
        return mean(state) - state


@dataclass(frozen=True)
class BCM:
    """See `bcm`."""

    def __call__(self, field: Units, state: Units, mean: Mean) -> Units:
        return -state * (state - mean(state**2))


def perceptron(margin: Any = 0.0) -> Perceptron:
    """Units that are not yet right by a margin learn: signal `-s` where `s * field <= margin`, else
    0.

    For ±1 units and a dense coupling the update of `W[i, j]` is `s[i] x[j]` for every sample in
    which unit i violates its margin. It stops by itself. Source: F. Rosenblatt, Psychol. Rev. 65,
    386 (1958); with a margin E. Gardner, J. Phys. A 21, 257 (1988). Raises `ValueError` for a
    negative margin.

    !!! example

        ```python
        updates = dx.local_updates(network, state, {"forward": dx.perceptron(margin=0.5)})
        ```
    """
    return Perceptron(checks.number("margin", margin, least=0.0))


def hebbian() -> Hebbian:
    """What fires together wires together: signal `-s`, so that `W[i, j]` grows by `s[i] x[j]`.

    It never stops by itself: add weight decay, or store each pattern once.
    Source: D. O. Hebb, The Organization of Behavior (1949).
    """
    return Hebbian(1)


def anti_hebbian() -> Hebbian:
    """What fires together is set apart: signal `s`, so that `W[i, j]` falls by `s[i] x[j]`.

    On lateral couplings it makes units answer independently; on states that a network falls into by
    itself it unlearns them. Source: P. Földiák, Biol. Cybern. 64, 165 (1990); J. J. Hopfield et
    al., Nature 304, 158 (1983).
    """
    return Hebbian(-1)


def oja() -> Oja:
    """Hebbian learning of what is not yet explained: `W` grows by `s (x - Wᵀ s)`.

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


def delta(activation: Any = identity) -> Delta:
    """Units learn to answer with their target: signal `f'(field) (f(field) - s)`, the gradient of
    `½ (f(field) - s)²`.

    For continuous units; the target is the state, or `target` of `local_updates`.
    Source: B. Widrow and M. E. Hoff, IRE WESCON 4, 96 (1960).

    **Arguments:**

    - `activation`: f, with a derivative, of the field alone; that of the units.

    Raises `TypeError` or `ValueError` for one without a derivative, or that needs a key or a state.

    !!! example

        ```python
        updates = dx.local_updates(network, state, {"forward": dx.delta(dx.tanh)})
        ```
    """
    checks.function("activation", activation, "a function of the field such as dx.tanh", "give one")
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
    """Hebbian learning of what is more than usual: signal `mean(s) - s`, the mean over the batch.

    Averaged over a batch, `W[i, j]` grows by the covariance of `s[i]` and `x[j]`.
    Source: T. J. Sejnowski, J. Math. Biol. 4, 303 (1977).
    """
    return Covariance()


def bcm() -> BCM:
    """Units become selective: signal `-s (s - θ)`, with the sliding threshold `θ = mean(s²)` over
    the batch.

    Answers above the threshold are strengthened, those below it weakened; the threshold follows and
    keeps both in bounds. Source: E. L. Bienenstock, L. N. Cooper and P. W. Munro, J. Neurosci. 2,
    32 (1982); the threshold as in N. Intrator and L. N. Cooper, Neural Networks 5, 3 (1992).
    """
    return BCM()
