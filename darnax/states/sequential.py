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
from darnax.topologies.columns import parse_dtype
from darnax.topologies.names import Finder, Name, positions
from darnax.topologies.sequential import parse_sizes
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
    def __init__(self, sizes: Sequence[int | Sequence[int]], dtype: DTypeLike = jnp.float32):
        shapes = parse_sizes(sizes)
        if not shapes:
            raise ValueError(
                "`sizes` names at least one layer, but got none; give one shape a layer"
            )
        self.dtype = jnp.dtype(parse_dtype(dtype))
        check_width([self.dtype.name])
        self.states = _zeros(tuple(shapes), 1, self.dtype.name)

    @checks.by_hand
    def __getitem__(self, key: Name) -> Shaped[Array, "batch *shape"]:
        return self.states[_Layers(self).index(key)]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.states)))

    def __len__(self) -> int:
        return len(self.states)

    def __contains__(self, key: object) -> bool:
        return _Layers(self).find(key) is not None

    def __repr__(self) -> str:
        return f"SequentialState({_text.arrays(dict(enumerate(self.states)))})"

    @property
    def batch_size(self) -> int:
        """How many samples the state holds."""
        return self.states[0].shape[0]

    @property
    def readout(self) -> Shaped[Array, "batch *shape"]:
        """The buffer of the last layer."""
        return self.states[-1]

    @checks.by_hand
    def init(self, x: ArrayLike | ByName, y: ArrayLike | ByName | None = None) -> "SequentialState":
        """Input set to `x: (B, *sizes[0])`, output to `y: (B, *sizes[-1])`, zeros elsewhere.

        Either may be a mapping from any layers to arrays, all of one batch.
        """
        buffers = _Layers(self).start(x, y)
        check_width([self.dtype.name])
        shapes = tuple(buffer.shape[1:] for buffer in self.states)
        batch = len(next(iter(buffers.values())))
        zeros = _zeros(shapes, batch, self.dtype.name)
        return _with(self, dict(enumerate(zeros)) | buffers)

    @checks.by_hand
    def replace(self, value: Iterable[ArrayLike] | ByName) -> "SequentialState":
        """Buffers replaced: all by a list of as many, or some by a mapping from layers to arrays.

        Arrays are `(B, *shape)`. A mapping keeps the batch of the state; a list may bring another.
        """
        if isinstance(value, Mapping):
            return _with(self, _Layers(self).some(value, self.batch_size))
        return _with(self, _Layers(self).every(value))

    @checks.by_hand
    def replace_val(self, key: Name, value: ArrayLike) -> "SequentialState":
        """The buffer of layer `key` replaced by `value`, of the batch that the state has."""
        return _with(self, _Layers(self).one(key, value, self.batch_size))


class _Layers(Buffers):
    """The layers 0 to L-1; keys count from the end, too."""

    def __init__(self, state: SequentialState):
        self.state = state
        self.find = Finder(range(len(state)))

    @property
    def inputs(self) -> Sequence[Name]:
        return [0]

    @property
    def outputs(self) -> Sequence[Name]:
        return [len(self) - 1]

    def __len__(self) -> int:
        return len(self.state)

    def index(self, key: object) -> int:
        layer = self.find(key)
        if layer is None:
            raise UnknownNode(
                f"there is no layer {checks.came(key)}; the layers are 0 to {len(self) - 1}, or "
                "from the end -1"
            )
        return layer

    def indices(self, argument: str, keys: Iterable[Name]) -> Sequence[int]:
        return positions(argument, keys, self.find)

    def label(self, node: int) -> str:
        return f"layer {node}"

    def form(self, node: int) -> tuple[tuple[int, ...], str]:
        return self.state.states[node].shape[1:], self.state.dtype.name


def _with(state: SequentialState, buffers: Checked) -> SequentialState:
    """The state with some of its buffers replaced."""
    arrays = [jnp.asarray(buffers.get(i, buffer)) for i, buffer in enumerate(state.states)]
    return jax.tree.unflatten(jax.tree.structure(state), arrays)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shapes: tuple[tuple[int, ...], ...], batch: int, dtype: str) -> list[Array]:
    # The barrier keeps XLA from folding zeros as constants while it compiles: see `cells.zeros`.
    return [lax.optimization_barrier(jnp.zeros((batch, *shape), dtype)) for shape in shapes]
