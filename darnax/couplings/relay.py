"""The identity coupling."""

from dataclasses import dataclass

from jaxtyping import Array, Shaped

from darnax.couplings.coupling import Coupling, Edges, Factory
from darnax.couplings.draws import Draws


class Relay(Coupling):
    """The message `x`."""

    def __call__(self, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        return x

    @property
    def is_symmetric(self) -> bool:
        return True


def relay() -> Factory:
    """The sender's state as it is; it has no parameters. Sender and receiver have one shape.

    !!! example

        ```python
        couplings = {"copy": dx.relay()}
        ```
    """
    return RelayFactory()


@dataclass(frozen=True)
class RelayFactory(Factory):
    """See `relay`."""

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Relay:
        if sender_shape != receiver_shape:
            raise ValueError(
                f"`relay` keeps the shape, but {sender_shape} sends to {receiver_shape}; use "
                "`dense` there"
            )
        return Relay()
