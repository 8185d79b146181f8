"""A message of both ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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

    # `receiver` without a default: by this name the coupling asks for the receiver's state.
    def __call__(
        self,
        x: Shaped[Array, "*sender"],
        receiver: Shaped[Array, "*receiver"],
    ) -> Shaped[Array, "*receiver"]:
        of_sender = self.sender_weight @ x.reshape(-1)
        of_receiver = self.receiver_weight @ receiver.reshape(-1)
        hidden = self.activation(of_sender + of_receiver + self.bias)
        return (self.weight @ hidden).reshape(self.receiver_shape)


@checks.by_hand
def edge_mlp(
    hidden: int,
    activation: Callable[[Array], Array] = jax.nn.relu,
    gain: float | int = 1.0,
) -> Factory:
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
    hidden = checks.count("hidden", hidden, 1)
    holds = "an elementwise function such as jnp.tanh"
    activation = checks.function("activation", activation, holds, "give one")
    return EdgeMLPFactory(hidden, Static(activation), checks.number("gain", gain))


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
        hidden = self.hidden
        sending, receiving = math.prod(sender_shape), math.prod(receiver_shape)
        # W and U are one layer on both ends: its fan-in counts the units of both.
        first = 1 / math.sqrt(sending + receiving)
        last = self.gain / math.sqrt(hidden)
        # A stream for each matrix: from one stream they would start with the same numbers.
        sender_weight = draws.normal((hidden, sending), first, stream=0)
        receiver_weight = draws.normal((hidden, receiving), first, stream=1)
        weight = draws.normal((receiving, hidden), last, stream=2)
        return EdgeMLP(
            sender_weight=on_device(sender_weight),
            receiver_weight=on_device(receiver_weight),
            bias=on_device(draws.full((hidden,), 0)),
            weight=on_device(weight),
            activation=self.activation,
            receiver_shape=receiver_shape,
        )
