"""The state of a chain of layers, as a list of buffers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped
from numpy.typing import ArrayLike

from darnax import _text, checks
from darnax.states.buffers import Buffers, ByName, Checked
from darnax.states.state import State, check_width
from darnax.topologies.names import Finder, Name, positions
from darnax.topologies.sequential import parse_sizes
from darnax.topologies.tables import Shape, parse_dtype
from darnax.topologies.topology import UnknownNode


class SequentialState(State):
    """One buffer a layer: index 0 is the input, -1 the output.

    **Arguments:**

    - `sizes`: the shape of every layer, an int or a tuple.
    - `dtype`: of all buffers.

    !!! example

        ```python
        state = dx.SequentialState([(4,), (8,), (3,)])
        state = state.init(jnp.ones((32, 4)))
        state[1].shape  # (32, 8)
        ```
    """

    states: list[Shaped[Array, "..."]]
    dtype: np.dtype = eqx.field(static=True)

    @checks.by_hand
    def __init__(self, sizes: Sequence[Shape], dtype: DTypeLike = jnp.float32):
        shapes = parse_sizes(sizes)
        if not shapes:
            raise ValueError(
                "`sizes` names at least one layer, but got none; give one shape a layer"
            )
        self.dtype = jnp.dtype(parse_dtype(dtype))
        check_width([self.dtype.name])
        # The program is kept by its arguments: all states of these sizes share one compilation.
        self.states = _zeros(tuple(shapes), 1, self.dtype.name)

    @checks.by_hand
    def __getitem__(self, key: Name) -> Shaped[Array, "batch *shape"]:
        return self.states[_index(self, key)]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.states)))

    def __len__(self) -> int:
        return len(self.states)

    def __contains__(self, key: object) -> bool:
        return _find(self)(key) is not None

    def __repr__(self) -> str:
        return f"SequentialState({_text.arrays(dict(enumerate(self.states)))})"

    @property
    def readout(self) -> Shaped[Array, "batch *shape"]:
        """The buffer of the last layer."""
        return self.states[-1]

    @checks.by_hand
    def init(self, x: ArrayLike | ByName, y: ArrayLike | ByName | None = None) -> "SequentialState":
        """Input set to `x`, output to `y` if given, zeros elsewhere, all in the batch of `x`.

        `x` is `(B, *sizes[0])`, and `y` is `(B, *sizes[-1])`; either may be a mapping from any
        layers to arrays.
        """
        buffers = _buffers(self).start(x, y, inputs=[0], outputs=[-1])
        # Once more, for 64-bit mode may have been left since the state was made.
        check_width([self.dtype.name])
        shapes = tuple(buffer.shape[1:] for buffer in self.states)
        # All that were given have one batch: any of them tells it.
        batch = len(next(iter(buffers.values())))
        zeros = _zeros(shapes, batch, self.dtype.name)
        return _with(self, dict(enumerate(zeros)) | buffers)

    @checks.by_hand
    def replace(self, value: Iterable[ArrayLike] | ByName) -> "SequentialState":
        """Buffers replaced: all by a list of as many, or some by a mapping from layers to arrays.

        Arrays are `(B, *shape)`. A mapping keeps the batch of the state; a list may bring another.
        """
        buffers = _buffers(self)
        if isinstance(value, Mapping):
            return _with(self, buffers.some(value, self.batch_size))
        return _with(self, buffers.every(value))

    @checks.by_hand
    def replace_val(self, key: Name, value: ArrayLike) -> "SequentialState":
        """The buffer of layer `key` replaced by `value`, of the batch that the state has."""
        layer = _index(self, key)
        buffers = _buffers(self).one(layer, value, self.batch_size)
        return _with(self, buffers)


# Functions and no methods: a method of an Equinox module is made into a pytree for each call.


def _find(state: SequentialState) -> Finder:
    return Finder(range(len(state.states)))


def _index(state: SequentialState, key: object) -> int:
    """The position of a layer, counted from either end."""
    layer = _find(state)(key)
    if layer is None:
        last = len(state.states) - 1
        raise UnknownNode(
            f"there is no layer {checks.came(key)}; the layers are 0 to {last}, or from the end -1"
        )
    return layer


def _buffers(state: SequentialState) -> Buffers:
    # The shapes are those of the buffers: a state keeps no list of sizes besides.
    def form(layer: int) -> jax.ShapeDtypeStruct:
        shape = state.states[layer].shape[1:]
        return jax.ShapeDtypeStruct(shape, state.dtype)

    find = _find(state)
    return Buffers("layer", find.names, partial(positions, find=find), form)


def _with(state: SequentialState, buffers: Checked) -> SequentialState:
    """The state with some of its buffers replaced."""
    arrays = list(state.states)
    for layer, value in buffers.items():
        # Values that NumPy has read are moved to the device.
        arrays[layer] = value if isinstance(value, jax.Array) else jnp.asarray(value)
    # Rebuilt from its structure, for the constructor would make zeros and check the sizes again.
    return jax.tree.unflatten(jax.tree.structure(state), arrays)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(
    shapes: tuple[tuple[int, ...], ...],
    batch: int,
    dtype: str,
) -> list[Array]:
    buffers: list[Array] = []
    for shape in shapes:
        buffer = jnp.zeros((batch, *shape), dtype)
        # The barrier keeps XLA from folding zeros as constants while it compiles: `cells.zeros`.
        buffers.append(lax.optimization_barrier(buffer))
    return buffers
