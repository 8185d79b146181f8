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
    - `symmetric`: whether W is the mean of `weight` and its transpose. This too is part of the
      formula: W is symmetric to the last bit, whatever an optimiser does to `weight`.
    """

    weight: Float[Array, "*edges receiver sender"]
    self_coupling: Fixed | None
    factor: Fixed | None
    receiver_shape: tuple[int, ...] = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True, default=False)
    linear = "matrix"

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        message = self.prepared().weight @ x.reshape(-1)
        message = message.reshape(self.receiver_shape)
        # The factor on the message, which has fewer numbers than the matrix
        return message if self.factor is None else value(self.factor) * message

    def prepared(self) -> "Dense":
        """The same coupling with its matrix written out."""
        if self.self_coupling is None and not self.symmetric:
            return self
        weight = self.weight
        if self.symmetric:
            weight = mean_with(weight, jnp.matrix_transpose(weight))
        if self.self_coupling is not None:
            # Chosen and not added: what the weights hold on their diagonal must not count.
            diagonal = jnp.eye(weight.shape[-1], dtype=bool)
            weight = jnp.where(diagonal, value(self.self_coupling), weight)
        return Dense(weight, None, self.factor, self.receiver_shape)

    def matrix(self) -> Array:
        """The matrix with its factor in it; that of a `prepared` coupling."""
        if self.factor is None:
            return self.weight
        # A factor for each of several edges, or one
        return value(self.factor)[..., None, None] * self.weight

    @property
    def is_symmetric(self) -> bool:
        return self.symmetric


class MatrixTranspose(Coupling):
    """The transpose of a coupling whose message is a matrix product: `matrix().T @ y`.

    An offset of that coupling does not depend on its sender, and has no part in it.
    """

    forward: Coupling
    receiver_shape: tuple[int, ...] = eqx.field(static=True)
    linear = "matrix"

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        return self.prepared()(x)

    def prepared(self) -> Dense:
        """The transpose written out; a factor stays apart, as it serves more than the matrix."""
        forward = self.forward.prepared()
        if isinstance(forward, Dense):
            matrix, factor = forward.weight, forward.factor
        else:
            matrix, factor = forward.matrix(), None
        return Dense(jnp.matrix_transpose(matrix), None, factor, self.receiver_shape)

    def matrix(self) -> Array:
        return self.prepared().matrix()


def is_factored(coupling: Coupling) -> bool:
    """Whether all that tied edges have each for themselves is a factor on their message."""
    forward = coupling.forward if isinstance(coupling, MatrixTranspose) else coupling
    return isinstance(forward, Dense)


def mean_with(weight: Array, mirrored: Array) -> Array:
    """The mean of weights and their mirror images, which is its own mirror image to the last bit.

    Sums of two numbers do not depend on their order, and half of a number is exact.
    """
    return (weight + mirrored) / 2


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
    symmetric: bool = False,
) -> Factory:
    """All-to-all coupling, `W x` with `W ~ N(0, gain² / sender units)`.

    **Arguments:**

    - `gain`: scales the initial weights; 0 starts without any.
    - `self_coupling`: for self-loops, a fixed diagonal of `W` that nothing trains; positive values
      help a network to settle.
    - `factor`: the name of an edge attribute that multiplies the message. Nothing trains it, and
      tied edges keep each their own: with one `W` for all edges of a weighted graph, the field is
      `A X W`.
    - `symmetric`: for self-loops, whether W equals its transpose, to the last bit and after any
      update. Its diagonal is free, or the `self_coupling`; 0 for none.

    Raises `ValueError` where `self_coupling` or `symmetric` meet an edge that is no self-loop, or
    an edge lacks the attribute.

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
    return DenseFactory(gain, self_coupling, factor, checks.flag("symmetric", symmetric))


@dataclass(frozen=True)
class DenseFactory(Factory):
    """See `dense`."""

    gain: float
    self_coupling: float | None
    factor: str | None
    symmetric: bool

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Dense:
        check_self_loop(edges, self.self_coupling, self.symmetric)
        fan_in = math.prod(sender_shape)
        fan_out = math.prod(receiver_shape)
        scale = self.gain / math.sqrt(fan_in)
        weight = draws.normal((fan_out, fan_in), scale)
        xp = draws.xp
        if self.symmetric:
            # One of both draws, and not their mean, whose variance would be half of theirs
            above = xp.triu(weight, 1)
            weight = xp.triu(weight) + xp.swapaxes(above, -1, -2)
        fixed = None
        if self.self_coupling is not None:
            # Nothing reads the drawn diagonal, and zeros say so to whoever looks at the weights.
            diagonal = np.eye(fan_in, dtype=bool)
            zero = draws.dtype.type(0)
            weight = xp.where(diagonal, zero, weight)
            fixed = Fixed(on_device(draws.full((), self.self_coupling)))
        return Dense(
            weight=on_device(weight),
            self_coupling=fixed,
            factor=None if self.factor is None else edges.own(self.factor),
            receiver_shape=receiver_shape,
            symmetric=self.symmetric,
        )


def check_self_loop(
    edges: Edges,
    self_coupling: float | None,
    symmetric: bool,
) -> None:
    """Refuse what only a coupling of a node to itself can have on other edges."""
    if edges.self_loop:
        return
    if self_coupling is not None:
        raise ValueError(
            "`self_coupling` is for self-loops; give edges between different nodes a kind of "
            "their own"
        )
    if symmetric:
        raise ValueError(
            "`symmetric` is for self-loops; between different nodes draw edges both ways, and let "
            "those back be dx.transpose of those forward"
        )
