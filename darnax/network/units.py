"""Units: what the rows of an array are, and how they answer to their field."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from darnax._arrays import on_device
from darnax.activations import Activation, name, without_derivative
from darnax.network.active import moves_by_default
from darnax.network.message_passing import outer
from darnax.network.selection import Selection
from darnax.noise import named_keys, uniform
from darnax.topologies import names as naming
from darnax.topologies.topology import Topology

Noise: TypeAlias = Float[Array, "nodes *shape batch"] | Key[Array, "nodes batch"] | None
"""The random numbers of several nodes: one a unit, a key a node, or None where nothing is drawn."""

Views: TypeAlias = tuple[Int[Array, "nodes *shape"], UInt32[Array, "nodes 2"]]
"""Nodes of one shape on a shared array: their cells as rows, and the words of their names."""


class Answer(NamedTuple):
    """The new state of some cells, and the target that the residual is measured to."""

    value: Float[Array, "rows *item batch"]
    target: Float[Array, "rows *item batch"]


class Units(eqx.Module):
    """The rows of one global array: their names, their kinds and their activations.

    A row of a stacked array is a node, and all have one kind. A row of a shared array is a cell,
    which nodes of several kinds may cover. An elementwise activation is applied to all rows at
    once; another one needs the fields of a whole node, which on a shared array are gathered by
    node.

    **Fields:**

    - `ids`: two words a row that name it: its noise is drawn from them.
    - `moves`: the rows that can move in a call without arguments; None for all.
    - `kinds`: the kinds of nodes that live here and have an activation, sorted.
    - `owner`: for cells of a shared array, the position in `kinds` of the kind whose activation
      counts, -1 for none; None where one kind covers all rows.
    - `covers`: where nodes of several kinds live here, the cells that those of each kind cover.
    - `blocks`: for cells of a shared array, the number of their block, -1 for none.
    - `nodes`: for every kind that answers node by node on a shared array, the addresses and names
      of its nodes, one entry a shape.
    """

    ids: UInt32[Array, "rows 2"]
    moves: Bool[Array, " rows"] | None
    owner: Int[Array, " rows"] | None
    covers: dict[str, Bool[Array, " rows"]]
    blocks: Int[Array, " rows"] | None
    nodes: dict[str, tuple[Views, ...]]
    kinds: tuple[str, ...] = eqx.field(static=True)

    def answer(
        self,
        activations: dict[str, Activation],
        rows: Selection,
        old: Shaped[Array, "rows *item batch"],
        field: Float[Array, "rows *item batch"],
        keys: Key[Array, " batch"] | None,
    ) -> Answer:
        """The answers of some rows, as if all of them were updated."""
        if self.nodes:
            return self._answer_by_node(activations, rows, old, field, keys)
        first, *others = self.kinds
        ids = rows.take(self.ids)
        result = answer(first, activations[first], ids, old, field, keys)
        # Every kind answers for all rows, and a mask picks its own: shapes are static in a program,
        # and which rows are whose is data.
        for i, kind in enumerate(others, start=1):
            assert self.owner is not None
            own = outer(rows.take(self.owner) == i, field.ndim)
            found = answer(kind, activations[kind], ids, old, field, keys)
            result = _chosen(own, found, result)
        return result

    def potential(
        self,
        kind: str,
        activation: Activation,
        states: Float[Array, "rows *item batch"],
    ) -> Float[Array, "rows *item batch"]:
        """What the states of all rows cost, were they units of a kind; 0 where it has no node."""
        if kind not in self.nodes:
            return potential(kind, activation, states)
        cost = jnp.zeros_like(states)
        for address, _ in self.nodes[kind]:
            cost = cost.at[address].set(potential(kind, activation, states[address]))
        return cost

    def _answer_by_node(
        self,
        activations: dict[str, Activation],
        rows: Selection,
        old: Shaped[Array, "rows batch"],
        field: Float[Array, "rows batch"],
        keys: Key[Array, " batch"] | None,
    ) -> Answer:
        """The answers on a shared array, gathered by node and written back to their cells."""
        # Addresses of nodes count rows of the whole array. Rows outside of the visit may be zero:
        # blocks are visited as a whole, so that no visited node has a cell there.
        shape = len(self.ids), field.shape[-1]
        all_fields = rows.put(jnp.zeros(shape, field.dtype), field)
        all_old = rows.put(jnp.zeros(shape, old.dtype), old)
        result = Answer(all_fields, all_fields)
        for i, kind in enumerate(self.kinds):
            activation = activations[kind]
            if kind not in self.nodes:
                found = answer(kind, activation, self.ids, all_old, all_fields, keys)
                result = _chosen(outer(self.owner == i, 2), found, result)
                continue
            for address, ids in self.nodes[kind]:
                old = all_old[address]
                field = all_fields[address]
                found = answer(kind, activation, ids, old, field, keys)
                value = result.value.at[address].set(found.value)
                target = result.target.at[address].set(found.target)
                result = Answer(value, target)
        return Answer(rows.take(result.value), rows.take(result.target))


def _chosen(mask: Bool[Array, "..."], one: Answer, other: Answer) -> Answer:
    """One answer where the mask is set, and the other elsewhere."""
    value = jnp.where(mask, one.value, other.value)
    target = jnp.where(mask, one.target, other.target)
    return Answer(value, target)


def answer(
    kind: str,
    activation: Activation,
    ids: UInt32[Array, "nodes 2"],
    old: Shaped[Array, "nodes *shape batch"],
    field: Float[Array, "nodes *shape batch"],
    keys: Key[Array, " batch"] | None,
) -> Answer:
    """The answers of several nodes of a kind, in the dtype of their fields."""
    field = guarded(kind, activation, old.dtype, field)
    state = old.astype(field.dtype)
    shape = field.shape[1:-1]
    noise = draw(activation, ids, shape, field.dtype, keys)

    def one(
        field: Array,
        state: Array,
        noise: Array | None,
    ) -> tuple[Array, Array]:
        # Functions of users may give another dtype, which strict promotion would not mix.
        target = activation.target(field, state, noise).astype(field.dtype)
        value = activation.move(state, target).astype(field.dtype)
        return value, target

    if activation.elementwise and activation.draws != "node":
        # One call for all nodes and samples: units do not see each other.
        return Answer(*one(field, state, noise))
    # One call for each node and sample, as users write activations.
    of_batch = jax.vmap(one, in_axes=-1, out_axes=-1)
    of_nodes = jax.vmap(of_batch)
    return Answer(*of_nodes(field, state, noise))


def potential(
    kind: str,
    activation: Activation,
    states: Float[Array, "nodes *shape batch"],
) -> Float[Array, "nodes *shape batch"]:
    """What the states of several nodes of a kind cost, called as their answers are."""
    cost = activation.potential
    if not activation.elementwise:
        cost = jax.vmap(jax.vmap(cost, in_axes=-1, out_axes=-1))
    found = cost(states)
    assert found is not None  # energies ask before whether there is one
    if jnp.shape(found) != states.shape:
        raise ValueError(
            f"`potential` of nodes of kind {kind!r} gives one number for each unit, "
            f"{states.shape}, but gave {jnp.shape(found)}; do not sum over units"
        )
    # Functions of users may give another dtype, which strict promotion would not mix.
    return jnp.asarray(found, states.dtype)


def draw(
    activation: Activation,
    ids: UInt32[Array, "nodes 2"],
    shape: tuple[int, ...],
    dtype: DTypeLike,
    keys: Key[Array, " batch"] | None,
) -> Noise:
    """The noise of several nodes, as their activation asks for it."""
    if activation.draws is None:
        return None
    assert keys is not None
    if activation.draws == "node":
        return named_keys(ids, keys)
    return uniform(ids, keys, shape).astype(dtype)


def guarded(
    kind: str,
    activation: Activation,
    dtype: DTypeLike,
    field: Float[Array, "..."],
) -> Float[Array, "..."]:
    """The field as it is; differentiating through units without a derivative raises `TypeError`.

    A derivative of zero would be right almost everywhere, and would teach nothing in silence.
    """
    if not activation.differentiable:
        reason = f"{name(activation)} has no derivative"
    elif activation.draws is not None:
        reason = "it is random"
    elif not jnp.issubdtype(dtype, jnp.floating):
        reason = f"its state is {dtype}"
    else:
        return field

    return without_derivative(
        field,
        f"nodes of kind {kind!r} cannot be differentiated: {reason}; use a smooth activation such "
        "as dx.tanh",
    )


def units_of(
    topology: Topology,
    array: str,
    activations: dict[str, Activation],
) -> Units:
    """The units of an array."""
    position = list(topology.arrays).index(array)
    # Rows that move by default are a leaf: masks of calls are told by where they differ from it.
    mask = moves_by_default(topology)[array]
    moves = None if mask.all() else on_device(mask)
    if topology.arrays[array].shared:
        return _units_of_cells(topology, position, activations, moves)
    return _units_of_nodes(topology, position, activations, moves)


def _units_of_nodes(
    topology: Topology,
    position: int,
    activations: dict[str, Activation],
    moves: Bool[Array, " rows"] | None,
) -> Units:
    """The units of a stacked array: every row is a node, and all nodes are of one kind."""
    members = topology.layout.members[position]
    kind = topology.node_class(int(members[0])).kind
    ids = naming.words(topology.node_hashes[members])
    return Units(
        ids=on_device(ids),
        moves=moves,
        owner=None,
        covers={},
        blocks=None,
        nodes={},
        kinds=(kind,) if kind in activations else (),
    )


def _units_of_cells(
    topology: Topology,
    position: int,
    activations: dict[str, Activation],
    moves: Bool[Array, " rows"] | None,
) -> Units:
    """The units of a shared array: every row is a cell, which nodes of several kinds may cover."""
    layout = topology.layout
    spec = layout.arrays[position]
    members = layout.members[position].tolist()
    covers = _covers(topology, members, spec.rows)
    kinds = tuple(sorted(set(covers) & set(activations)))
    # A cell may have several nodes: it is named by its array and its place there, so that its noise
    # is one, whichever node is looked at.
    places = np.arange(spec.rows, dtype=np.uint64)
    cells = naming.combine(naming.hashes([spec.name]), places)
    # One kind alone needs no masks.
    masks = covers if len(covers) > 1 else {}
    return Units(
        ids=on_device(naming.words(cells)),
        moves=moves,
        owner=_owners(covers, kinds, spec.rows),
        covers={kind: on_device(mask) for kind, mask in masks.items()},
        blocks=on_device(layout.blocks[position], jnp.int32),
        nodes=_answering_by_node(topology, members, activations),
        kinds=kinds,
    )


def _covers(
    topology: Topology,
    members: Iterable[int],
    rows: int,
) -> dict[str, np.ndarray]:
    """The cells of a shared array that the nodes of each kind cover, `(rows,)`."""
    covers: dict[str, np.ndarray] = {}
    for node in members:
        kind = topology.node_class(node).kind
        mask = covers.setdefault(kind, np.zeros(rows, bool))
        mask[topology.layout.cells(node)] = True
    return covers


def _owners(
    covers: Mapping[str, np.ndarray],
    kinds: tuple[str, ...],
    rows: int,
) -> Int[Array, " rows"] | None:
    """The first of `kinds` that covers each cell; None where one kind covers all of them.

    Where several kinds cover a cell they have one activation, so that any of them would do.
    """
    owner = np.full(rows, -1, np.int32)
    # The last kind is written first, so that the first one stays.
    for i, kind in reversed(list(enumerate(kinds))):
        owner[covers[kind]] = i
    if len(kinds) == 1 and (owner == 0).all():
        return None
    return on_device(owner)


def _answering_by_node(
    topology: Topology,
    members: Iterable[int],
    activations: Mapping[str, Activation],
) -> dict[str, tuple[Views, ...]]:
    """The nodes of a shared array whose activation needs the field of the whole node, by kind."""
    # Nodes of one kind and shape are stacked, and answer in one call.
    alike: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for node in members:
        kind, shape, *_ = topology.node_class(node)
        if kind in activations and not activations[kind].elementwise:
            alike.setdefault((kind, shape), []).append(node)
    found: dict[str, tuple[Views, ...]] = {}
    for (kind, _), nodes in alike.items():
        address = topology.layout.address(np.asarray(nodes))
        words = naming.words(topology.node_hashes[nodes])
        views = on_device(address), on_device(words)
        found[kind] = *found.get(kind, ()), views
    return found
