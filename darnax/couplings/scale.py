"""One strength for every unit."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from darnax.couplings.coupling import Edges, Factory, Fixed, value


class Scale(eqx.Module):
    """The message `strength * x`, unit by unit."""

    strength: Float[Array, "*shape"] | Fixed

    def __call__(self, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        return value(self.strength) * x


def scale(strength: float | int = 1.0, weight: str | None = None, fixed: bool = False) -> Factory:
    """Elementwise coupling between nodes of one shape, `strength * x`; between scalar nodes an ordinary weight.

    **Arguments:**

    - `strength`: the initial strength of every unit.
    - `weight`: the name of an edge attribute that multiplies it.
    - `fixed`: whether no rule trains it; tied edges then keep each their own `weight`.

    Raises `ValueError` where the shapes of sender and receiver differ, or an edge lacks the attribute.

    !!! example

        ```python
        graph.add_edge("a", "b", kind="synapse", weight=-0.5)
        couplings = {"synapse": dx.scale(weight="weight")}
        ```
    """

    def make(
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        key: Key[Array, ""] | None = None,
        *,
        edges: Edges,
    ):
        if sender_shape != receiver_shape:
            raise ValueError(
                f"`scale` keeps the shape, but {sender_shape} sends to {receiver_shape}; use `dense` there"
            )
        if weight is not None and fixed:
            own = strength * edges.own(weight).value  # one number, or one for each of the tied edges
            units = own[(..., *[None] * len(receiver_shape))]
            return Scale(Fixed(jnp.broadcast_to(units, own.shape + receiver_shape), own=True))
        start = strength if weight is None else strength * edges[weight]
        leaf = jnp.full(receiver_shape, start, edges.dtype)
        return Scale(Fixed(leaf) if fixed else leaf)

    return make
