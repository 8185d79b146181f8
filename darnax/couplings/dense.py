"""All-to-all coupling."""

import math
from dataclasses import dataclass
from typing import TypeGuard

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax.couplings.coupling import ATTRIBUTE, Coupling, Edges, Factory, Fixed, value
from darnax.couplings.draws import Draws


class Dense(Coupling):
    """The message `factor * W x`, sender and receiver flattened.

    **Fields:**

    - `weight`: `(receiver units, sender units)`.
    - `self_coupling`: the fixed diagonal of W, one number, or None. It is part of the formula: what
      `weight` holds on its diagonal is never read, and no update or decay can move the diagonal.
    - `factor`: a fixed number of the edge, or None.
    """

    weight: Float[Array, "*edges receiver sender"]
    self_coupling: Fixed | None
    factor: Fixed | None
    receiver_shape: tuple[int, ...] = eqx.field(static=True)
    linear = "matrix"

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        message = self.prepared().weight @ x.reshape(-1)
        message = message.reshape(self.receiver_shape)
        # The factor on the message, which has fewer numbers than the matrix
        return message if self.factor is None else value(self.factor) * message

    def prepared(self) -> "Dense":
        """The same coupling with its diagonal written out."""
        if self.self_coupling is None:
            return self
        # Chosen and not added: what the weights hold on their diagonal must not count.
        diagonal = jnp.eye(self.weight.shape[-1], dtype=bool)
        weight = jnp.where(diagonal, value(self.self_coupling), self.weight)
        return Dense(weight, None, self.factor, self.receiver_shape)

    def matrix(self) -> Array:
        """The matrix with its factor in it; that of a `prepared` coupling."""
        if self.factor is None:
            return self.weight
        # A factor for each of several edges, or one
        return value(self.factor)[..., None, None] * self.weight


class Affine(Coupling):
    """Equinox's `Linear` between vectors: the message `W x + b`."""

    layer: eqx.nn.Linear
    linear = "matrix"

    def __call__(self, x: Shaped[Array, " sender"]) -> Shaped[Array, " receiver"]:
        return self.layer(x)

    def matrix(self) -> Array:
        return self.layer.weight

    def offset(self) -> Array | None:
        return self.layer.bias


def is_plain_linear(module: object) -> TypeGuard[eqx.nn.Linear]:
    """Whether a module is Equinox's `Linear` from a vector to a vector."""
    # The very class: a subclass may call itself otherwise.
    if type(module) is not eqx.nn.Linear:
        return False
    return "scalar" not in (module.in_features, module.out_features)


@checks.by_hand
def dense(
    gain: float | int = 1.0,
    self_coupling: float | int | None = None,
    factor: str | None = None,
) -> Factory:
    """All-to-all coupling, `W x` with `W ~ N(0, gain² / sender units)`.

    **Arguments:**

    - `gain`: scales the initial weights; 0 starts without any.
    - `self_coupling`: for self-loops, a fixed diagonal of `W` that nothing trains; positive values
      help a network to settle.
    - `factor`: the name of an edge attribute that multiplies the message. Nothing trains it, and
      tied edges keep each their own: with one `W` for all edges of a weighted graph, the field is
      `A X W`.

    Raises `ValueError` where `self_coupling` meets an edge that is no self-loop, or an edge lacks
    the attribute.

    !!! example

        ```python
        couplings = {"forward": dx.dense(), "recurrent": dx.dense(gain=0.5, self_coupling=1.0)}
        ```
    """
    gain = checks.number("gain", gain)
    if self_coupling is not None:
        self_coupling = checks.number("self_coupling", self_coupling)
    if factor is not None:
        factor = checks.text("factor", factor, ATTRIBUTE)
    return DenseFactory(gain, self_coupling, factor)


@dataclass(frozen=True)
class DenseFactory(Factory):
    """See `dense`."""

    gain: float
    self_coupling: float | None
    factor: str | None

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Dense:
        if self.self_coupling is not None and not edges.self_loop:
            raise ValueError(
                "`self_coupling` is for self-loops; give edges between different nodes a kind of "
                "their own"
            )
        fan_in = math.prod(sender_shape)
        fan_out = math.prod(receiver_shape)
        scale = self.gain / math.sqrt(fan_in)
        weight = draws.normal((fan_out, fan_in), scale)
        own = None
        if self.factor is not None:
            own = edges.own(self.factor)
        if self.self_coupling is None:
            return Dense(on_device(weight), None, own, receiver_shape)
        # Nothing reads the drawn diagonal, and zeros say so to whoever looks at the weights.
        diagonal = np.eye(fan_in, dtype=bool)
        zero = draws.dtype.type(0)
        weight = draws.xp.where(diagonal, zero, weight)
        fixed = Fixed(on_device(draws.full((), self.self_coupling)))
        return Dense(on_device(weight), fixed, own, receiver_shape)
