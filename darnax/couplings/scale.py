"""One strength for every unit."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax.couplings.coupling import ATTRIBUTE, Coupling, Edges, Factory, Fixed, value
from darnax.couplings.draws import Draws


class Scale(Coupling):
    """The message `strength * x`, unit by unit."""

    strength: Float[Array, "*shape"] | Fixed
    linear = "weights"

    def __call__(self, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        return value(self.strength) * x

    def matrix(self) -> Array:
        return jnp.diag(self.unit_weights().reshape(-1))

    def unit_weights(self) -> Array:
        return value(self.strength)


@checks.by_hand
def scale(
    strength: float | int = 1.0,
    weight: str | None = None,
    fixed: bool = False,
) -> Factory:
    """Elementwise coupling `strength * x`; between scalar nodes an ordinary weight.

    **Arguments:**

    - `strength`: the initial strength of every unit.
    - `weight`: the name of an edge attribute that multiplies it.
    - `fixed`: whether no rule trains it; tied edges then keep each their own `weight`.

    Raises `ValueError` where the shapes of sender and receiver differ, or an edge lacks the
    attribute.

    !!! example

        ```python
        graph.add_edge("a", "b", kind="synapse", weight=-0.5)
        couplings = {"synapse": dx.scale(weight="weight")}
        ```
    """
    if weight is not None:
        weight = checks.text("weight", weight, ATTRIBUTE)
    return ScaleFactory(
        strength=checks.number("strength", strength),
        weight=weight,
        fixed=checks.flag("fixed", fixed),
    )


@dataclass(frozen=True)
class ScaleFactory(Factory):
    """See `scale`."""

    strength: float
    weight: str | None
    fixed: bool

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> Scale:
        if sender_shape != receiver_shape:
            raise ValueError(
                f"`scale` keeps the shape, but {sender_shape} sends to {receiver_shape}; use "
                "`dense` there"
            )
        if self.weight is not None and self.fixed:
            # No parameter, so that tied edges need not agree: one number, or one for each of them
            own = self.strength * edges.own(self.weight).value
            units = own[(..., *[None] * len(receiver_shape))]
            units = jnp.broadcast_to(units, own.shape + receiver_shape)
            return Scale(Fixed(units, own=True))
        # A parameter, of which tied edges have one
        start = self.strength
        if self.weight is not None:
            start = self.strength * edges[self.weight]
        leaf = on_device(draws.full(receiver_shape, start))
        return Scale(Fixed(leaf) if self.fixed else leaf)
