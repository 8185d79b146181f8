"""What a coupling is, and what a factory may ask about its edges.

A *coupling* is a callable module from one sender's state of one sample to one receiver's message. A *factory*
`(sender_shape, receiver_shape, key) -> coupling` makes it; any Equinox layer works. The network calls a factory once
for every sort of edge, vectorised over keys, so that it draws from nothing but `key`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

Coupling: TypeAlias = Callable[[Array], Array]
Factory: TypeAlias = Callable[..., Coupling]


class Fixed(eqx.Module):
    """A number of a coupling that no rule trains: it can be swept and annealed, but optimisers never see it."""

    value: Shaped[Array, "..."]


def value(leaf: Any) -> Any:
    """A leaf's number, whether it is trained or fixed."""
    return leaf.value if isinstance(leaf, Fixed) else leaf


@dataclass(frozen=True)
class Edges:
    """What a factory may read of the edge it makes a coupling for, if it takes `edges=`.

    **Fields:**

    - `self_loop`: whether sender and receiver are one node.
    - `dtype`: of messages; a good choice for parameters.
    - `attributes`: the edge's numbers by name.
    - `missing`: for attributes that not all edges have, or not with one value where they are tied: which lack it.
    """

    self_loop: bool
    dtype: np.dtype
    attributes: Mapping[str, Any]
    missing: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        if name in self.missing:
            raise ValueError(f"edge attribute {name!r} is missing on {self.missing[name]}; give it to every edge")
        if name not in self.attributes:
            known = sorted(self.attributes) or "none"
            raise ValueError(f"no edge has a number {name!r} (numbers known here: {known}); draw it, as in {name}=0.5")
        return jnp.asarray(self.attributes[name], self.dtype)
