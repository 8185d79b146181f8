"""What every state can do."""

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped


class State(eqx.Module):
    """The configuration of a whole network, as an immutable pytree.

    Every layer or node, input and output included, has a buffer `(B, *shape)`. A new state has a
    batch of one; `init` resizes all buffers to the batch of what it is given. Every method returns
    a new state.
    """

    @abstractmethod
    def __getitem__(self, key: Any) -> Shaped[Array, "batch *shape"]:
        """The buffer of one layer or node."""

    @abstractmethod
    def __iter__(self) -> Iterator[Hashable]:
        """The keys, in order."""

    @abstractmethod
    def __len__(self) -> int:
        """How many buffers there are."""

    @abstractmethod
    def init(self, x: Any, y: Any = None) -> "State":
        """Input set to `x`, output to `y` if given, zeros elsewhere, all in the batch of `x`."""

    @abstractmethod
    def replace(self, value: Any) -> "State":
        """All buffers replaced."""

    @abstractmethod
    def replace_val(self, key: Any, value: Any) -> "State":
        """One buffer replaced, in the batch that the state has."""

    @property
    @abstractmethod
    def readout(self) -> Any:
        """What the network answers."""


def check_width(dtypes: Iterable[str]):
    """Refuse types that JAX would quietly make narrower."""
    for dtype in dtypes:
        if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
            raise ValueError(
                f"dtype {dtype} needs 64-bit mode; call jax.config.update('jax_enable_x64', True) "
                "first"
            )
