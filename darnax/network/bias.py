"""Biases: numbers added to the local field."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax.couplings.coupling import Coupling
from darnax.couplings.draws import derived, keys_of
from darnax.topologies import names as naming
from darnax.topologies.layout import ArraySpec
from darnax.topologies.topology import Topology

Biases: TypeAlias = dict[str, dict[str, Float[Array, "..."]]]
"""The biases by node kind and array, `(n, *shape)` of stacked nodes, `(*shape)` of a shared
array."""

Shape: TypeAlias = tuple[int, ...]

Initialiser: TypeAlias = Callable[[Key[Array, ""], Shape, DTypeLike], ArrayLike]
"""Initial numbers, `(key, shape, dtype) -> array`, as those of `jax.nn.initializers`."""


class Bias(Coupling):
    """The coupling that ignores its sender: the message is `value`."""

    value: Float[Array, "*receiver"]

    def __call__(self, x: Shaped[Array, "*sender"]) -> Float[Array, "*receiver"]:
        return self.value


class BiasFactory(eqx.Module):
    """See `bias`."""

    init: float | Initialiser = eqx.field(static=True)

    def __call__(
        self,
        sender_shape: Shape,
        receiver_shape: Shape,
        key: Key[Array, ""] | None = None,
    ) -> Bias:
        if not callable(self.init):
            return Bias(jnp.full(receiver_shape, self.init, jnp.float32))
        if key is None:
            raise TypeError("`key` is missing: this bias is drawn; give jax.random.key(0)")
        return Bias(_drawn(self.init, key, receiver_shape, jnp.float32))

    def values(
        self,
        keys: Callable[[], Key[Array, " n"]],
        count: int,
        shape: Shape,
        dtype: DTypeLike,
    ) -> np.ndarray | Array:
        """The biases of several nodes or arrays, `(count, *shape)`.

        `keys` are made only where something is drawn, for they take long to compile.
        """
        init = self.init
        # A constant is written out by NumPy, without a program for every shape.
        if not callable(init):
            return np.full((count, *shape), init, dtype)
        of_all = jax.vmap(lambda key: _drawn(init, key, shape, dtype))
        return of_all(keys())


def _drawn(
    init: Initialiser,
    key: Key[Array, ""],
    shape: Shape,
    dtype: DTypeLike,
) -> Array:
    """The initial biases of one node or array."""
    start = init(key, shape, dtype)
    if jnp.shape(start) != shape:
        raise ValueError(f"`init` gives an array of shape {shape}, but gave {jnp.shape(start)}")
    return jnp.asarray(start, dtype)


@checks.by_hand
def bias(init: float | int | Initialiser = 0.0) -> BiasFactory:
    """Biases of a node kind, one number a unit, learnt from the same signal as the couplings.

    A bias is the coupling that ignores its sender. `biases=` gives one to every node of a kind
    without an edge to be drawn; as a coupling of self-loops, `couplings={"bias": dx.bias()}`, it is
    drawn edge by edge. An edge makes its receiver move; `biases=` alone do not.

    **Arguments:**

    - `init`: the number that all start from, or an initialiser `(key, shape, dtype) -> array` such
      as those of `jax.nn.initializers`.

    !!! example

        ```python
        biases = {"hidden": dx.bias(jax.nn.initializers.normal(0.1))}
        ```
    """
    if callable(init):
        checks.called("init", init)
        return BiasFactory(init)
    return BiasFactory(checks.number("init", init))


@checks.by_hand
def biases(
    topology: Topology,
    given: Mapping[str, BiasFactory] | None,
    key: Key[Array, ""],
) -> Biases:
    """The biases of all kinds that have some; zero on cells of a shared array that others cover."""
    if given is None:
        return {}
    by_kind = checks.by_kind("biases", given, topology.node_kinds, set(), "dx.bias()")
    result: Biases = {}
    for kind, factory in by_kind.items():
        checks.instance(f"biases[{kind!r}]", factory, BiasFactory, "dx.bias(...)", "give one")
        result[kind] = {}
        for i, spec in enumerate(topology.layout.arrays):
            nodes = _of_kind(topology, i, kind)
            if not len(nodes):
                continue
            result[kind][spec.name] = _of_array(topology, spec, nodes, factory, key)
    return result


def _of_kind(topology: Topology, array: int, kind: str) -> np.ndarray:
    """The nodes of a kind that live in an array."""
    members = topology.layout.members[array]
    if not topology.layout.arrays[array].shared:
        # All nodes of a stacked array are of one kind, so that a look at one of a million will do.
        alike = topology.node_class(int(members[0])).kind == kind
        return members if alike else members[:0]
    kept: list[int] = []
    for node in members.tolist():
        if topology.node_class(node).kind == kind:
            kept.append(node)
    return np.asarray(kept, np.int64)


def _of_array(
    topology: Topology,
    spec: ArraySpec,
    nodes: np.ndarray,
    factory: BiasFactory,
    key: Key[Array, ""],
) -> Array:
    """The biases of some nodes of an array; on a shared array one number a cell that they cover."""
    # The biases of a node are drawn by its name, those of a shared array by the name of the array:
    # nodes of a kind that share a cell have one bias there.
    hashes = naming.hashes([spec.name]) if spec.shared else topology.node_hashes[nodes]
    shape = spec.lead if spec.shared else spec.item

    def keys() -> Key[Array, " n"]:
        return keys_of(derived(key, naming.words(hashes)), key)

    values = factory.values(keys, len(hashes), shape, spec.field_dtype)
    if not spec.shared:
        return on_device(values)
    # Cells that no node of the kind covers have no bias of this kind.
    kind = topology.node_class(int(nodes[0])).kind
    covered = covered_cells(topology, spec.name, kind)
    factor = covered.reshape(spec.lead).astype(spec.field_dtype)
    return on_device(values[0] * factor)


def covered_cells(topology: Topology, array: str, kind: str) -> np.ndarray:
    """A mask over the cells of a shared array, as its rows: those that nodes of a kind cover."""
    covered = np.zeros(topology.arrays[array].rows, bool)
    for node in topology.layout.members_of(array).tolist():
        if topology.node_class(node).kind == kind:
            covered[topology.layout.cells(node)] = True
    return covered


def total_bias(biases: Biases, spec: ArraySpec) -> Float[Array, "rows *item"] | None:
    """The biases of an array as its rows; None without any.

    On a cell that nodes of several kinds cover the biases of all of them add up, as their messages
    do.
    """
    total = None
    for by_array in biases.values():
        if spec.name in by_array:
            rows = spec.as_rows(by_array[spec.name])
            total = rows if total is None else total + rows
    return total
