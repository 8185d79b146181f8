"""A message of both ends."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from darnax.couplings.coupling import Edges, Factory


class EdgeMLP(eqx.Module):
    """The message `weight @ activation(sender_weight @ x + receiver_weight @ y + bias)`, both ends flattened."""

    sender_weight: Float[Array, "*edges hidden sender"]
    receiver_weight: Float[Array, "*edges hidden receiver"]
    bias: Float[Array, "*edges hidden"]
    weight: Float[Array, "*edges receiver hidden"]
    activation: Callable[..., Any] = eqx.field(static=True)
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"], receiver: Shaped[Array, "*receiver"]) -> Shaped[Array, "*receiver"]:
        hidden = self.sender_weight @ x.reshape(-1) + self.receiver_weight @ receiver.reshape(-1) + self.bias
        return (self.weight @ self.activation(hidden)).reshape(self.receiver_shape)


def edge_mlp(hidden: Any, activation: Any = jax.nn.relu, gain: float | int = 1.0) -> Factory:
    """A perceptron with one hidden layer that hears both ends of an edge, as in message passing networks.

    The message is `V activation(W x + U y + b)`, with x the sender's state and y the receiver's. Weights start as
    `N(0, 1 / fan-in)`, those of V times `gain`; b starts as 0. Where edges are tied, W and U are applied once to every
    node, V once to every sum: edges cost no more than the activation.

    Source: J. Gilmer, S. S. Schoenholz, P. F. Riley, O. Vinyals and G. E. Dahl, ICML (2017), equation 1.

    **Arguments:**

    - `hidden`: how many hidden units an edge has.
    - `activation`: an elementwise function of theirs, such as `jnp.tanh`.
    - `gain`: scales the initial weights of V.

    Raises `ValueError` where `hidden` is below 1, `TypeError` for an activation that cannot be called.

    !!! example

        ```python
        couplings = {"edge": dx.edge_mlp(hidden=32, activation=jnp.tanh)}
        ```
    """
    if not isinstance(hidden, int) or hidden < 1:
        raise ValueError(f"`hidden` is a number of units of at least 1, but got {hidden!r}; give one, such as 32")
    if not callable(activation):
        raise TypeError(f"`activation` is an elementwise function such as jnp.tanh, but got {activation!r}")

    def make(sender_shape: tuple[int, ...], receiver_shape: tuple[int, ...], key: Key[Array, ""], *, edges: Edges):
        sending, hearing = math.prod(sender_shape), math.prod(receiver_shape)
        keys = jax.random.split(key, 3)

        def normal(key: Key[Array, ""], rows: int, columns: int, scale: float) -> Array:
            return jax.random.normal(key, (rows, columns), edges.dtype) * scale

        return EdgeMLP(
            sender_weight=normal(keys[0], hidden, sending, 1 / math.sqrt(sending + hearing)),
            receiver_weight=normal(keys[1], hidden, hearing, 1 / math.sqrt(sending + hearing)),
            bias=jnp.zeros(hidden, edges.dtype),
            weight=normal(keys[2], hearing, hidden, gain / math.sqrt(hidden)),
            activation=activation,
            receiver_shape=receiver_shape,
        )

    return make
