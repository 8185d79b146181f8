"""The interface that all states share."""

from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped
from numpy.typing import ArrayLike

from darnax import checks
from darnax.states.buffers import ByName
from darnax.topologies.names import Name


class State(eqx.Module):
    """The configuration of a whole network, as one immutable pytree.

    A state holds a buffer `(B, *shape)` for every layer or node, input and output included, and
    nothing else: no weights and no rule. It is one value instead of a buffer in every layer, so
    that a step of the dynamics is a function from state to state, which JAX compiles, maps, scans
    and differentiates as a whole. It is immutable because JAX traces functions: a buffer changed in
    place would change once, during tracing, and never again when the program runs. Every method
    returns a new state, which shares with the old one all arrays that are the same in both.

    A new state has a batch of one; `init` resizes all buffers to the batch of what it is given. The
    batch is no axis of `vmap`, which maps over stacked states: a new leading axis on every leaf.
    """

    @abstractmethod
    def __getitem__(self, key: Name) -> Shaped[Array, "batch *shape"]:
        """The buffer of one layer or node."""

    @abstractmethod
    def __iter__(self) -> Iterator[Name]:
        """The keys, in order."""

    @abstractmethod
    def __len__(self) -> int:
        """How many buffers there are."""

    def keys(self) -> KeysView[Name]:
        """The names of layers or nodes, in order."""
        # The views of Python need no more than the length, the order and the look-up of a state.
        return KeysView(self)

    def values(self) -> ValuesView[Array]:
        """The buffers `(B, *shape)`, each read when it is reached."""
        return ValuesView(self)

    def items(self) -> ItemsView[Name, Array]:
        """Pairs of a name and its buffer `(B, *shape)`."""
        return ItemsView(self)

    def _ipython_key_completions_(self) -> list[Name]:
        """What IPython and Jupyter offer after `state[`."""
        return list(self)

    @property
    def batch_size(self) -> int:
        """How many samples the state holds."""
        return self[next(iter(self))].shape[0]

    @property
    @abstractmethod
    def readout(self) -> Array | dict[Name, Array]:
        """The answer of the network: the buffer of the output."""

    @checks.by_hand
    @abstractmethod
    def init(self, x: ArrayLike | ByName, y: ArrayLike | ByName | None = None) -> "State":
        """Input set to `x`, output to `y` if given, zeros elsewhere, all in the batch of `x`.

        `x` and `y` are arrays `(B, *shape)` for the only input and output, or mappings from any
        keys to such arrays. Raises `ValueError` or `TypeError` if a name, shape, dtype or batch is
        wrong, or if two values meet on one cell.
        """

    @checks.by_hand
    @abstractmethod
    def replace(self, value: Iterable[ArrayLike] | ByName) -> "State":
        """Buffers replaced: all by a list of as many, or some by a mapping from keys to arrays.

        Arrays are `(B, *shape)`. A mapping keeps the batch of the state; a list may bring another.
        """

    @checks.by_hand
    @abstractmethod
    def replace_val(self, key: Name, value: ArrayLike) -> "State":
        """The buffer of `key` replaced by `value: (B, *shape)`, of the batch that the state has."""


def check_width(dtypes: Iterable[str]):
    """Refuse types that JAX would quietly make narrower."""
    for dtype in dtypes:
        # JAX answers a request for float64 with float32 unless 64-bit mode is on.
        if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
            raise ValueError(
                f"dtype {dtype} needs 64-bit mode; call jax.config.update('jax_enable_x64', True) "
                "first"
            )
