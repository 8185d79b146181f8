"""What is said is what is heard."""

import equinox as eqx
from jaxtyping import Array, Key, Shaped

from darnax.couplings.coupling import Factory


class Relay(eqx.Module):
    """The message `x`."""

    def __call__(self, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        return x


def relay() -> Factory:
    """The sender's state as it is; it has no parameters. Sender and receiver have one shape.

    !!! example

        ```python
        couplings = {"copy": dx.relay()}
        ```
    """

    def make(sender_shape: tuple[int, ...], receiver_shape: tuple[int, ...], key: Key[Array, ""] | None = None):
        if sender_shape != receiver_shape:
            raise ValueError(
                f"`relay` keeps the shape, but {sender_shape} sends to {receiver_shape}; use `dense` there"
            )
        return Relay()

    return make
