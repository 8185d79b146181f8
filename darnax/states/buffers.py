"""The buffers of a state, and the values that users give for them."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array
from numpy.typing import ArrayLike

from darnax import _text, checks
from darnax.states.values import checked
from darnax.topologies.names import Name

# `Mapping` is invariant in its keys: a `dict[str, Array]` is no `Mapping[Name, Array]`.
ByName = Mapping[Any, ArrayLike]
"""Arrays `(B, *shape)` by the key of their layer or node."""

Checked = dict[int, Array | np.ndarray]
"""Arrays `(B, *shape)` of one batch B, by the position of their layer or node."""


class Given(NamedTuple):
    """The value that a user gives for one buffer, and the words for it in an error."""

    what: str
    node: int
    value: object


class Buffers(ABC):
    """The buffers that a state has, by position, and the reading of what users give for them.

    The classes of states keep their arrays in different ways, but are given values in the same way,
    through `init`, `replace` and `replace_val`. It is read here, for all of them.

    This is a plain class, and no part of the states themselves: a method of an Equinox module is
    made into a pytree for each call, which takes as long as everything that is done here.
    """

    @property
    @abstractmethod
    def inputs(self) -> Sequence[Name]:
        """The keys of the inputs."""

    @property
    @abstractmethod
    def outputs(self) -> Sequence[Name]:
        """The keys of the outputs."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def index(self, key: object) -> int:
        """The position of a key; raises `UnknownNode`."""

    @abstractmethod
    def indices(self, argument: str, keys: Iterable[Name]) -> Sequence[int]:
        """The positions of several keys; raises `ValueError` naming the argument."""

    @abstractmethod
    def label(self, node: int) -> str:
        """The words for a layer or node in an error."""

    @abstractmethod
    def form(self, node: int) -> tuple[tuple[int, ...], str]:
        """Shape, without the batch, and dtype."""

    def start(self, x: object, y: object) -> Checked:
        """What `init` is given: values for inputs, outputs or any others, all of one batch."""
        given = self._named("x", x, self.inputs)
        if y is not None:
            given += self._named("y", y, self.outputs)
        if not given:
            raise ValueError(
                "`x` is empty and gives no batch; give a value, or take a new state, which holds "
                "zeros"
            )
        return self._checked(given, None)

    def one(self, key: object, value: object, batch: int) -> Checked:
        """What `replace_val` is given."""
        node = self.index(key)
        return self._checked([Given(f"`value` for {self.label(node)}", node, value)], batch)

    def some(self, values: Mapping[Any, object], batch: int) -> Checked:
        """What `replace` is given as a mapping from keys to arrays."""
        return self._checked(self._named("value", values), batch)

    @checks.by_hand
    def every(self, values: Iterable[object]) -> Checked:
        """What `replace` is given as a list of one array a buffer, in a batch of its own."""
        try:
            values = list(values)
        except TypeError:
            holds = "a list of one array a layer, or a mapping from layers"
            checks.refuse("value", holds, values, "give one of them")
        if len(values) != len(self):
            raise ValueError(
                f"`value` holds one array a layer, {len(self)} in all, but got {len(values)}; "
                "give them all"
            )
        given = [Given(f"`value[{i}]`", i, value) for i, value in enumerate(values)]
        return self._checked(given, None)

    def _named(self, argument: str, given: object, ends: Sequence[Name] = ()) -> list[Given]:
        """The values in a mapping from keys; an array is the value of the only one of `ends`."""
        if not isinstance(given, Mapping):
            given = {_only(argument, given, ends): given}
        nodes = self.indices(argument, given)
        return [
            Given(f"`{argument}` for {self.label(node)}", node, value)
            for node, value in zip(nodes, given.values(), strict=True)
        ]

    def _checked(self, given: Sequence[Given], batch: int | None) -> Checked:
        """Values as arrays of one batch; of any if `batch` is None."""
        nodes = [entry.node for entry in given]
        if len(set(nodes)) < len(nodes):
            twice = [self.label(node) for node, count in Counter(nodes).items() if count > 1]
            raise ValueError(
                f"some buffers are set twice: {_text.listing(twice)}; give each value once"
            )
        result: Checked = {}
        for what, node, value in given:
            shape, dtype = self.form(node)
            result[node] = checked(what, value, shape, dtype, batch)
            batch = len(result[node])
        return result


def _only(argument: str, given: object, ends: Sequence[Name]) -> Name:
    if len(ends) == 1:
        return ends[0]
    which = {"x": "inputs", "y": "outputs"}[argument]
    have = f"the {which} {_text.names(ends)}" if ends else f"no {which}"
    raise ValueError(
        f"the topology has {have}; give `{argument}` as a mapping from nodes to arrays, "
        f"but got {checks.came(given)}"
    )
