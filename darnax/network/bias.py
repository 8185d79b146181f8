"""Biases: numbers added to the local field."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax.couplings.coupling import Coupling
from darnax.couplings.draws import derived, keys_of
from darnax.topologies import names as naming
from darnax.topologies.layout import ArraySpec
from darnax.topologies.topology import Topology

Biases = dict[str, dict[str, Float[Array, "..."]]]
"""The biases by node kind and array, `(n, *shape)` of stacked nodes, `(*shape)` of a shared
array."""


class Bias(Coupling):
    """The coupling that ignores its sender: the message is `value`."""

    value: Float[Array, "*receiver"]

    def __call__(self, x: Shaped[Array, "*sender"]) -> Float[Array, "*receiver"]:
        return self.value


class BiasFactory(eqx.Module):
    """See `bias`."""

    init: float | Callable[..., Any] = eqx.field(static=True)

    def __call__(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        key: Key[Array, ""] | None = None,
    ) -> Bias:
        if not callable(self.init):
            return Bias(jnp.full(receiver_shape, self.init, jnp.float32))
        if key is None:
            raise TypeError("`key` is missing: this bias is drawn; give jax.random.key(0)")
        return Bias(self._drawn(key, receiver_shape, jnp.float32))

    def values(
        self, keys: Callable[[], Key[Array, " n"]], count: int, shape: tuple[int, ...], dtype: Any
    ) -> Any:
        """The biases of several nodes or arrays; `keys` are made only to draw."""
        if not callable(self.init):
            return np.full((count, *shape), self.init, dtype)
        return jax.vmap(lambda key: self._drawn(key, shape, dtype))(keys())

    def _drawn(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> Array:
        assert callable(self.init)
        start = self.init(key, shape, dtype)
        if jnp.shape(start) != shape:
            raise ValueError(f"`init` gives an array of shape {shape}, but gave {jnp.shape(start)}")
        return jnp.asarray(start, dtype)


@checks.by_hand
def bias(init: float | int | Callable[..., Any] = 0.0) -> BiasFactory:
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
    topology: Topology, given: Mapping[str, BiasFactory] | None, key: Key[Array, ""]
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
            if len(nodes):
                result[kind][spec.name] = _of_array(topology, spec, nodes, factory, key)
    return result


def _of_kind(topology: Topology, array: int, kind: str) -> np.ndarray:
    """The nodes of a kind that live in an array; those of a stacked one are all of one kind."""
    members = topology.layout.members[array]
    distinct = members if topology.layout.arrays[array].shared else members[:1]
    kept = [node for node in distinct.tolist() if topology.node_class(node).kind == kind]
    return members if len(kept) == len(distinct) else np.asarray(kept, np.int64)


def _of_array(
    topology: Topology, spec: ArraySpec, nodes: np.ndarray, factory: BiasFactory, key: Any
) -> Array:
    """The biases of some nodes of an array; on a shared array one number a cell that they cover."""
    hashes = naming.hashes([spec.name]) if spec.shared else topology.node_hashes[nodes]

    def keys() -> Any:
        return keys_of(derived(key, naming.words(hashes)), key)

    shape = spec.lead if spec.shared else spec.item
    values = factory.values(keys, len(hashes), shape, spec.field_dtype)
    if not spec.shared:
        return on_device(values)
    covered = np.zeros(spec.rows, bool)
    for node in nodes.tolist():
        covered[topology.layout.cells(node)] = True
    return on_device(values[0] * covered.reshape(spec.lead).astype(spec.field_dtype))


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
