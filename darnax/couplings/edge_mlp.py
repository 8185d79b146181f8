"""A message of both ends."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax.couplings.coupling import Coupling, Edges, Factory
from darnax.couplings.draws import Draws
from darnax.static import Static, as_static


class EdgeMLP(Coupling):
    """A perceptron of both ends, flattened.

    The message is `weight @ activation(sender_weight @ x + receiver_weight @ y + bias)`.
    """

    sender_weight: Float[Array, "*edges hidden sender"]
    receiver_weight: Float[Array, "*edges hidden receiver"]
    bias: Float[Array, "*edges hidden"]
    weight: Float[Array, "*edges receiver hidden"]
    activation: Static = eqx.field(static=True, converter=as_static)
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(
        self, x: Shaped[Array, "*sender"], receiver: Shaped[Array, "*receiver"]
    ) -> Shaped[Array, "*receiver"]:
        hidden = (
            self.sender_weight @ x.reshape(-1)
            + self.receiver_weight @ receiver.reshape(-1)
            + self.bias
        )
        return (self.weight @ self.activation(hidden)).reshape(self.receiver_shape)


@checks.by_hand
def edge_mlp(hidden: Any, activation: Any = jax.nn.relu, gain: float | int = 1.0) -> Factory:
    """A perceptron with one hidden layer on both ends of an edge, as in message passing networks.

    The message is `V activation(W x + U y + b)`, with x the sender's state and y the receiver's.
    Weights start as `N(0, 1 / fan-in)`, those of V times `gain`; b starts as 0. Where edges are
    tied, W and U are applied once to every node, V once to every sum: edges cost no more than the
    activation.

    Source: J. Gilmer, S. S. Schoenholz, P. F. Riley, O. Vinyals and G. E. Dahl, ICML (2017),
    equation 1.

    **Arguments:**

    - `hidden`: how many hidden units an edge has.
    - `activation`: an elementwise function of theirs, such as `jnp.tanh`.
    - `gain`: scales the initial weights of V.

    Raises `ValueError` where `hidden` is below 1, `TypeError` for an activation that cannot be
    called.

    !!! example

        ```python
        couplings = {"edge": dx.edge_mlp(hidden=32, activation=jnp.tanh)}
        ```
    """
    holds = "an elementwise function such as jnp.tanh"
    return EdgeMLPFactory(
        checks.count("hidden", hidden, 1),
        Static(checks.function("activation", activation, holds, "give one")),
        checks.number("gain", gain),
    )


@dataclass(frozen=True)
class EdgeMLPFactory(Factory):
    """See `edge_mlp`."""

    hidden: int
    activation: Static
    gain: float

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> EdgeMLP:
        hidden, sending, hearing = self.hidden, math.prod(sender_shape), math.prod(receiver_shape)
        first = 1 / math.sqrt(sending + hearing)
        return EdgeMLP(
            sender_weight=on_device(draws.normal((hidden, sending), first, stream=0)),
            receiver_weight=on_device(draws.normal((hidden, hearing), first, stream=1)),
            bias=on_device(draws.full((hidden,), 0)),
            weight=on_device(
                draws.normal((hearing, hidden), self.gain / math.sqrt(hidden), stream=2)
            ),
            activation=self.activation,
            receiver_shape=receiver_shape,
        )
