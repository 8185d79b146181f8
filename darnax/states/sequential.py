"""The state of a chain of layers, as a list of buffers."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from darnax import _text, checks
from darnax.states.state import State, check_width
from darnax.states.values import checked, layers
from darnax.topologies.names import Finder, positions
from darnax.topologies.sequential import parse_sizes
from darnax.topologies.tables import parse_dtype
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
            raise ValueError(
                "`sizes` names at least one layer, but got none; give one shape a layer"
            )
        self.dtype = jnp.dtype(parse_dtype(dtype))
        check_width([self.dtype.name])
        self.states = _zeros(tuple(shapes), 1, self.dtype.name)

    def __getitem__(self, key: Any) -> Shaped[Array, "batch *shape"]:
        return self.states[_index(self, key)]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.states)))

    def __len__(self) -> int:
        return len(self.states)

    def __contains__(self, key: Any) -> bool:
        return _find(self)(key) is not None

    def __repr__(self) -> str:
        return f"SequentialState({_text.arrays(dict(enumerate(self.states)))})"

    @property
    def batch_size(self) -> int:
        """How many samples are held."""
        return self.states[0].shape[0]

    @property
    def readout(self) -> Shaped[Array, "batch *shape"]:
        """The output buffer."""
        return self.states[-1]

    def init(self, x: Any, y: Any = None) -> "SequentialState":
        """Input set to `x: (B, *sizes[0])`, output to `y: (B, *sizes[-1])` if given, zeros
        elsewhere.

        Either may be a mapping from any layers to arrays, all of one batch.
        """
        values = _named(self, "x", x, 0)
        values += [] if y is None else _named(self, "y", y, len(self) - 1)
        if not values:
            raise ValueError("`x` is empty and gives no batch; give a value")
        buffers = _all_checked(self, values, None)
        check_width([self.dtype.name])
        shapes = tuple(buffer.shape[1:] for buffer in self.states)
        zeros = _zeros(shapes, len(next(iter(buffers.values()))), self.dtype.name)
        return _with(self, {**dict(enumerate(zeros)), **buffers})

    def replace(self, value: Any) -> "SequentialState":
        """Buffers replaced: all by a list of as many, or some by a mapping from layers to
        `(B, *shape)`.

        A mapping keeps the batch of the state; a list may bring another.
        """
        if isinstance(value, Mapping):
            buffers = _all_checked(self, _named(self, "value", value, 0), self.batch_size)
            return _with(self, {**dict(enumerate(self.states)), **buffers})
        values = [(f"`value[{i}]`", i, buffer) for i, buffer in enumerate(layers(value, len(self)))]
        return _with(self, _all_checked(self, values, None))

    def replace_val(self, key: Any, value: Any) -> "SequentialState":
        """The buffer of layer `key` replaced by `value`, of the same batch."""
        at = _index(self, key)
        buffers = _all_checked(self, [(f"`value` for layer {at}", at, value)], self.batch_size)
        return _with(self, {**dict(enumerate(self.states)), **buffers})


def _named(
    state: SequentialState, argument: str, value: Any, default: int
) -> list[tuple[str, int, Any]]:
    """What to call each value in an error, its layer, and the value."""
    if isinstance(value, Mapping):
        places = zip(positions(argument, value, _find(state)), value.values(), strict=True)
        return [(f"`{argument}` for layer {at}", at, given) for at, given in places]
    return [(f"`{argument}`", default, value)]


def _all_checked(
    state: SequentialState, values: list[tuple[str, int, Any]], batch: int | None
) -> dict[int, Any]:
    """Buffers of one batch by layer."""
    buffers: dict[int, Any] = {}
    given: dict[int, str] = {}
    for what, at, value in values:
        if at in buffers:
            raise ValueError(
                f"{what} would overwrite {given[at]}, for both set layer {at}; give one of them"
            )
        given[at] = what
        buffers[at] = checked(what, value, state.states[at].shape[1:], state.dtype, batch)
        batch = len(buffers[at])
    return buffers


def _find(state: SequentialState) -> Finder:
    return Finder(range(len(state.states)))


def _index(state: SequentialState, key: Any) -> int:
    at = _find(state)(key)
    if at is None:
        last = len(state.states) - 1
        raise UnknownNode(
            f"there is no layer {checks.came(key)}; the layers are 0 to {last}, or from the end -1"
        )
    return at


def _with(state: SequentialState, buffers: dict[int, Any]) -> SequentialState:
    """The state of these buffers, one a layer."""
    arrays = [jnp.asarray(buffers[i]) for i in range(len(buffers))]
    return jax.tree.unflatten(jax.tree.structure(state), arrays)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shapes: tuple[tuple[int, ...], ...], batch: int, dtype: str) -> list[Array]:
    # behind the barrier, as for all states: see `cells.zeros`
    return [lax.optimization_barrier(jnp.zeros((batch, *shape), dtype)) for shape in shapes]
