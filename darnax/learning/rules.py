"""Local rules: what a receiver's field and state say about the messages it got.

A rule is a function `(field, state) -> signal` of one node of one sample. The signal stands where a gradient with
respect to the field would stand: each coupling turns it into its own update through its own vector-Jacobian product,
and optimisers subtract that. For a dense coupling it is the classical outer product, `signal ⊗ sender`.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Perceptron:
    """See `perceptron`."""

    margin: float

    def __call__(self, field: Float[Array, "*shape"], state: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.where(state * field <= self.margin, -state, 0)


@dataclass(frozen=True)
class Hebbian:
    """See `hebbian`."""

    def __call__(self, field: Float[Array, "*shape"], state: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -state


def perceptron(margin: float | int = 0.0) -> Perceptron:
    """Units that are not yet right by a margin learn: signal `-s` where `s * field <= margin`, else 0.

    For ±1 units and a dense coupling the update of `W[i, j]` is `s[i] x[j]` for every sample in which unit i violates
    its margin (Rosenblatt, Psychol. Rev. 65, 386, 1958; with a margin Gardner, J. Phys. A 21, 257, 1988). It stops by
    itself. Raises `ValueError` for a negative margin.

    !!! example

        ```python
        updates = dx.local_updates(network, state, {"forward": dx.perceptron(margin=0.5)})
        ```
    """
    if not margin >= 0:
        raise ValueError(f"`margin` is at least 0, but got {margin}")
    return Perceptron(float(margin))


def hebbian() -> Hebbian:
    """What fires together wires together: signal `-s`, so that `W[i, j]` grows by `s[i] x[j]` (Hebb, 1949).

    It never stops by itself: add weight decay, or store each pattern once.
    """
    return Hebbian()
