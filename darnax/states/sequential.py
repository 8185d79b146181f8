"""The state of a chain of layers, as a list of buffers."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from darnax.states.state import State, allocate, checked, layers
from darnax.topologies.columns import parse_dtype
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

    def __init__(self, sizes: Any, dtype: Any = jnp.float32):
        shapes = parse_sizes(sizes)
        if not shapes:
            raise ValueError("`sizes` names at least one layer, but got none; give one shape a layer")
        self.dtype = jnp.dtype(parse_dtype(dtype))
        self.states = [allocate((1, *shape), self.dtype) for shape in shapes]

    def __getitem__(self, key: Any) -> Shaped[Array, "batch *shape"]:
        return self.states[self._index(key)]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.states)))

    def __len__(self) -> int:
        return len(self.states)

    def __contains__(self, key: Any) -> bool:
        integer = isinstance(key, (int, np.integer)) and not isinstance(key, bool)
        return integer and -len(self) <= int(key) < len(self)

    @property
    def batch_size(self) -> int:
        """How many samples are held."""
        return self.states[0].shape[0]

    @property
    def readout(self) -> Shaped[Array, "batch *shape"]:
        """The output buffer."""
        return self.states[-1]

    def init(self, x: Any, y: Any = None) -> "SequentialState":
        """Input set to `x: (B, *sizes[0])`, output to `y: (B, *sizes[-1])` if given, zeros elsewhere."""
        first = checked("`x`", x, self._shape(0), self.dtype, None)
        batch = first.shape[0]
        states = [jnp.zeros((batch, *self._shape(i)), self.dtype) for i in self]
        states[0] = first
        if y is not None and len(self) == 1:
            raise ValueError("`y` would overwrite `x`: the only layer is input and output; give one of them")
        if y is not None:
            states[-1] = checked("`y`", y, self._shape(-1), self.dtype, batch)
        return self._with(states)

    def replace(self, value: Any) -> "SequentialState":
        """All buffers replaced by a list of as many, all of one batch."""
        fresh, batch = [], None
        for i, buffer in enumerate(layers(value, len(self))):
            fresh.append(checked(f"`value[{i}]`", buffer, self._shape(i), self.dtype, batch))
            batch = len(fresh[0])
        return self._with(fresh)

    def replace_val(self, key: Any, value: Any) -> "SequentialState":
        """The buffer of layer `key` replaced by `value`, of the same batch."""
        at = self._index(key)
        states = list(self.states)
        states[at] = checked(f"`value` for layer {key}", value, self._shape(at), self.dtype, self.batch_size)
        return self._with(states)

    def _index(self, key: Any) -> int:
        if key not in self:
            raise UnknownNode(f"there is no layer {key!r}; the layers are 0 to {len(self) - 1}, or from the end -1")
        return int(key) % len(self)

    def _shape(self, at: int) -> tuple[int, ...]:
        return self.states[at].shape[1:]

    def _with(self, states: list) -> "SequentialState":
        return jax.tree.unflatten(jax.tree.structure(self), states)
