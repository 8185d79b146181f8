"""The buffers of a state, and the values that users give for them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from numpy.typing import ArrayLike

from darnax import _text, checks
from darnax.states.values import AnyArray, checked
from darnax.topologies.names import Name
from darnax.topologies.tables import NodeClass

# `Mapping` is invariant in its keys: a `dict[str, Array]` is no `Mapping[Name, Array]`.
ByName = Mapping[Any, ArrayLike]
"""Arrays `(B, *shape)` by the key of their layer or node."""

Checked = dict[int, AnyArray]
"""Arrays `(B, *shape)` of one batch B, by the position of their layer or node."""


class Given(NamedTuple):
    """The value that a user gives for one buffer, and the words for it in an error."""

    what: str
    node: int
    value: object


class Buffers(NamedTuple):
    """The buffers that a state has, and the reading of what users give for them.

    The classes of states keep their arrays in different ways, but are given values in the same way,
    through `init`, `replace` and `replace_val`. It is read here, for all of them. This is no base
    class of states: a method of an Equinox module is made into a pytree for each call, which would
    take as long as everything that is done here.

    **Fields:**

    - `word`: the noun for one of them in an error, "node" or "layer".
    - `names`: the keys, in order.
    - `indices`: a function from several keys to their positions; it raises `ValueError` naming the
      argument.
    - `form`: a function from a position to a shape, without the batch, and a dtype.
    """

    word: str
    names: Sequence[Name]
    indices: Callable[[str, Iterable[Name]], Sequence[int]]
    form: Callable[[int], NodeClass | jax.ShapeDtypeStruct]

    def label(self, node: int) -> str:
        """The words for a buffer in an error."""
        return f"{self.word} {self.names[node]!r}"

    def start(
        self,
        x: object,
        y: object,
        inputs: Sequence[Name],
        outputs: Sequence[Name],
    ) -> Checked:
        """The values that `init` is given, for inputs, outputs or any others, all of one batch."""
        given = self._named("x", x, inputs)
        if y is not None:
            given += self._named("y", y, outputs)
        if not given:
            raise ValueError(
                "`x` is empty and gives no batch; give a value, or take a new state, which holds "
                "zeros"
            )
        return self._checked(given, None)

    def one(self, node: int, value: object, batch: int) -> Checked:
        """The value that `replace_val` is given for the buffer at a position."""
        given = Given(f"`value` for {self.label(node)}", node, value)
        return self._checked([given], batch)

    def some(self, values: Mapping[Any, object], batch: int) -> Checked:
        """The values that `replace` is given as a mapping from keys to arrays."""
        return self._checked(self._named("value", values), batch)

    @checks.by_hand
    def every(self, values: Iterable[object]) -> Checked:
        """The values that `replace` is given as a list, one a buffer, in a batch of their own."""
        try:
            values = list(values)
        except TypeError:
            holds = "a list of one array a layer, or a mapping from layers"
            checks.refuse("value", holds, values, "give one of them")
        if len(values) != len(self.names):
            raise ValueError(
                f"`value` holds one array a layer, {len(self.names)} in all, but got "
                f"{len(values)}; give them all"
            )
        given = [Given(f"`value[{i}]`", i, value) for i, value in enumerate(values)]
        return self._checked(given, None)

    def _named(self, argument: str, given: object, ends: Sequence[Name] = ()) -> list[Given]:
        """The values in a mapping from keys; an array is the value of the only one of `ends`."""
        if not isinstance(given, Mapping):
            given = {_only(argument, given, ends): given}
        # All keys are looked up at once, so that the error lists all that are unknown.
        nodes = self.indices(argument, given)
        result: list[Given] = []
        for node, value in zip(nodes, given.values(), strict=True):
            result.append(Given(f"`{argument}` for {self.label(node)}", node, value))
        return result

    def _checked(self, given: Sequence[Given], batch: int | None) -> Checked:
        """The values as arrays of one batch; of any if `batch` is None."""
        nodes = [entry.node for entry in given]
        # A buffer may be named by 0 and by -L, or by `x` and by `y`.
        if len(set(nodes)) < len(nodes):
            twice = [self.label(node) for node, count in Counter(nodes).items() if count > 1]
            raise ValueError(
                f"some buffers are set twice: {_text.listing(twice)}; give each value once"
            )
        result: Checked = {}
        for what, node, value in given:
            form = self.form(node)
            result[node] = checked(what, value, form.shape, form.dtype, batch)
            # The first value decides for the others.
            batch = len(result[node])
        return result


def _only(argument: str, given: object, ends: Sequence[Name]) -> Name:
    """The one input or output that an array without a key is meant for."""
    if len(ends) == 1:
        return ends[0]
    which = {"x": "inputs", "y": "outputs"}[argument]
    have = f"the {which} {_text.names(ends)}" if ends else f"no {which}"
    raise ValueError(
        f"the topology has {have}; give `{argument}` as a mapping from nodes to arrays, "
        f"but got {checks.came(given)}"
    )
