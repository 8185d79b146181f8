"""What every state can do."""

from abc import abstractmethod
from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped
from numpy.typing import ArrayLike

from darnax import _text, checks
from darnax.states.values import checked
from darnax.topologies.names import Name

# `Mapping` is invariant in its keys: a `dict[str, Array]` is no `Mapping[Name, Array]`.
ByName = Mapping[Any, ArrayLike]
"""Buffers `(B, *shape)` by the key of their layer or node."""

Buffers = dict[int, Array | np.ndarray]
"""Checked buffers of one batch by the position of their layer or node."""


S = TypeVar("S", bound="State")  # `Self`, which beartype knows in whole classes only


class Value(NamedTuple):
    """What a user gives for one buffer.

    **Fields:**

    - `what`: the words for it in an error.
    - `node`: the position of its layer or node.
    - `given`: an array, or what should be one.
    """

    what: str
    node: int
    given: object


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

    @abstractmethod
    def __contains__(self, key: object) -> bool:
        """Whether there is a buffer of this key."""

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """How many samples the state holds."""

    @property
    @abstractmethod
    def readout(self) -> Array | dict[Name, Array]:
        """The answer of the network: the buffer of the output."""

    @abstractmethod
    def replace(self: S, value: Any) -> S:
        """Buffers replaced: all of them, or some by a mapping from keys to `(B, *shape)`."""

    def keys(self) -> KeysView[Name]:
        """The names of layers or nodes, in order."""
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

    @checks.by_hand
    def init(self: S, x: ArrayLike | ByName, y: ArrayLike | ByName | None = None) -> S:
        """Input set to `x`, output to `y` if given, zeros elsewhere, all in the batch of `x`.

        `x` and `y` are arrays `(B, *shape)` for the only input and output, or mappings from any
        keys to such arrays. Raises `ValueError` or `TypeError` if a name, shape, dtype or batch is
        wrong, or if two values meet on one cell.
        """
        values = self._named("x", x, self._inputs)
        if y is not None:
            values += self._named("y", y, self._outputs)
        if not values:
            new = f"a new {type(self).__name__}, which holds zeros"
            raise ValueError(f"`x` is empty and gives no batch; give a value, or take {new}")
        return self._fresh(self._checked(values, None))

    @checks.by_hand
    def replace_val(self: S, key: Name, value: ArrayLike) -> S:
        """The buffer of `key` replaced by `value: (B, *shape)`, of the batch that the state has."""
        node = self._index(key)
        values = [Value(f"`value` for {self._label(node)}", node, value)]
        return self._written(self._checked(values, self.batch_size))

    @checks.by_hand
    def _replaced_some(self: S, given: ByName) -> S:
        values = self._named("value", given, ())
        return self._written(self._checked(values, self.batch_size))

    @checks.by_hand
    def _replaced_all(self: S, given: Any) -> S:
        """A state of one buffer for every key; they may bring another batch."""
        try:
            buffers = list(given)
        except TypeError:
            holds = "a list of one array a layer, or a mapping from layers"
            checks.refuse("value", holds, given, "give one of them")
        if len(buffers) != len(self):
            raise ValueError(
                f"`value` holds one array a layer, {len(self)} in all, but got {len(buffers)}; "
                "give them all"
            )
        values = [Value(f"`value[{i}]`", i, buffer) for i, buffer in enumerate(buffers)]
        return self._fresh(self._checked(values, None))

    def _named(self, argument: str, given: object, ends: Sequence[Name]) -> list[Value]:
        """The values in an argument; an array is the value of the only one of `ends`."""
        if not isinstance(given, Mapping):
            given = {_only(argument, given, ends): given}
        nodes = self._indices(argument, given)
        return [
            Value(f"`{argument}` for {self._label(node)}", node, value)
            for node, value in zip(nodes, given.values(), strict=True)
        ]

    def _checked(self, values: Sequence[Value], batch: int | None) -> Buffers:
        """Buffers of one batch by node; a `batch` of None takes any."""
        counts = Counter(value.node for value in values)
        if len(counts) < len(values):
            twice = [self._label(node) for node, count in counts.items() if count > 1]
            raise ValueError(
                f"some buffers are set twice: {_text.listing(twice)}; give each value once"
            )
        buffers: Buffers = {}
        for what, node, given in values:
            shape, dtype = self._form(node)
            buffers[node] = checked(what, given, shape, dtype, batch)
            batch = len(buffers[node])
        return buffers

    # where a state keeps its buffers: what each of the two classes answers for itself

    @property
    @abstractmethod
    def _inputs(self) -> Sequence[Name]:
        """The keys of the inputs."""

    @property
    @abstractmethod
    def _outputs(self) -> Sequence[Name]:
        """The keys of the outputs."""

    @abstractmethod
    def _index(self, key: Name) -> int:
        """The position of a key; raises `UnknownNode`."""

    @abstractmethod
    def _indices(self, argument: str, keys: Iterable[Name]) -> Sequence[int]:
        """The positions of several keys; raises `ValueError` naming the argument."""

    @abstractmethod
    def _label(self, node: int) -> str:
        """The words for a layer or node in an error."""

    @abstractmethod
    def _form(self, node: int) -> tuple[tuple[int, ...], str]:
        """The shape and dtype of a layer or node."""

    @abstractmethod
    def _fresh(self: S, buffers: Buffers) -> S:
        """A state of these buffers, in their batch, and zeros elsewhere."""

    @abstractmethod
    def _written(self: S, buffers: Buffers) -> S:
        """The state with these buffers in place of its own."""


def _only(argument: str, given: object, ends: Sequence[Name]) -> Name:
    if len(ends) == 1:
        return ends[0]
    ends_are = {"x": "inputs", "y": "outputs"}[argument]
    have = f"the {ends_are} {_text.names(ends)}" if ends else f"no {ends_are}"
    raise ValueError(
        f"the topology has {have}; give `{argument}` as a mapping from nodes to arrays, "
        f"but got {checks.came(given)}"
    )


def check_width(dtypes: Iterable[str]):
    """Refuse types that JAX would quietly make narrower."""
    for dtype in dtypes:
        if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
            raise ValueError(
                f"dtype {dtype} needs 64-bit mode; call jax.config.update('jax_enable_x64', True) "
                "first"
            )
