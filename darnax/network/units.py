"""Units: what the rows of an array are, and how they answer to their field."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from darnax._arrays import on_device
from darnax.activations import Activation, name
from darnax.network.active import moves_by_default
from darnax.network.message_passing import outer
from darnax.noise import named_keys, uniform
from darnax.topologies import names as naming
from darnax.topologies.topology import Topology


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
    nodes: dict[str, tuple[tuple[Array, Array], ...]]
    kinds: tuple[str, ...] = eqx.field(static=True)

    def answer(
        self,
        activations: dict[str, Activation],
        rows: Any,
        old: Shaped[Array, "rows *item batch"],
        field: Float[Array, "rows *item batch"],
        keys: Key[Array, " batch"] | None,
    ) -> Answer:
        """The answers of some rows, as if all of them were updated.

        `rows` is a `Range` or a `Listed` of a visit, which takes these rows out of all.
        """
        if self.nodes:
            return self._answer_by_node(activations, rows, old, field, keys)
        first, *others = self.kinds
        ids = rows.take(self.ids)
        result = answer(first, activations[first], ids, old, field, keys)
        for i, kind in enumerate(others, 1):
            assert self.owner is not None
            own = outer(rows.take(self.owner) == i, field.ndim)
            result = _chosen(own, answer(kind, activations[kind], ids, old, field, keys), result)
        return result

    def _answer_by_node(self, activations, rows, old, field, keys) -> Answer:
        """The answers on a shared array, gathered by node and written back to their cells."""
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
                found = answer(kind, activation, ids, all_old[address], all_fields[address], keys)
                result = Answer(
                    result.value.at[address].set(found.value),
                    result.target.at[address].set(found.target),
                )
        return Answer(rows.take(result.value), rows.take(result.target))


def _chosen(mask: Bool[Array, "..."], one: Answer, other: Answer) -> Answer:
    value = jnp.where(mask, one.value, other.value)
    return Answer(value, jnp.where(mask, one.target, other.target))


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
    noise = draw(activation, ids, field.shape[1:-1], field.dtype, keys)

    def one(field: Array, state: Array, noise: Any) -> tuple[Array, Array]:
        target = activation.target(field, state, noise).astype(field.dtype)
        return activation.move(state, target).astype(field.dtype), target

    if activation.elementwise and activation.draws != "node":
        return Answer(*one(field, state, noise))
    of_batch = jax.vmap(one, in_axes=-1, out_axes=-1)
    return Answer(*jax.vmap(of_batch)(field, state, noise))


def draw(
    activation: Activation,
    ids: UInt32[Array, "nodes 2"],
    shape: tuple[int, ...],
    dtype: Any,
    keys: Key[Array, " batch"] | None,
) -> Any:
    """The noise of several nodes, as their activation asks for it."""
    if activation.draws is None:
        return None
    assert keys is not None
    if activation.draws == "node":
        return named_keys(ids, keys)
    return uniform(ids, keys, shape).astype(dtype)


def guarded(kind: str, activation: Activation, dtype: Any, field: Array) -> Array:
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

    @jax.custom_jvp
    def refuse(field):
        return field

    @refuse.defjvp
    def _(primals, tangents):
        raise TypeError(
            f"nodes of kind {kind!r} cannot be differentiated: {reason}; "
            "use a smooth activation such as dx.tanh"
        )

    return refuse(field)


def units_of(topology: Topology, array: str, activations: dict[str, Activation]) -> Units:
    """The units of an array."""
    layout = topology.layout
    i = list(topology.arrays).index(array)
    spec, members = layout.arrays[i], layout.members[i]
    moves = moves_by_default(topology)[array]
    moves = None if moves.all() else on_device(moves)
    if not spec.shared:
        kind = topology.node_class(int(members[0])).kind
        kinds = (kind,) if kind in activations else ()
        ids = naming.words(topology.node_hashes[members])
        return Units(on_device(ids), moves, None, {}, None, {}, kinds)
    found = {topology.node_class(node).kind for node in members.tolist()}
    kinds = tuple(sorted(found & set(activations)))
    covers = _covers(topology, members, spec.rows)
    cells = naming.combine(naming.hashes([array]), np.arange(spec.rows, dtype=np.uint64))
    return Units(
        ids=on_device(naming.words(cells)),
        moves=moves,
        owner=_owners(covers, kinds, spec.rows),
        covers={kind: on_device(mask) for kind, mask in covers.items()} if len(covers) > 1 else {},
        blocks=on_device(layout.blocks[i], jnp.int32),
        nodes=_nodes(topology, members, kinds, activations),
        kinds=kinds,
    )


def _covers(topology: Topology, members: np.ndarray, rows: int) -> dict[str, np.ndarray]:
    """The cells of a shared array that the nodes of each kind cover."""
    covers: dict[str, np.ndarray] = {}
    for node in members.tolist():
        mask = covers.setdefault(topology.node_class(node).kind, np.zeros(rows, bool))
        mask[topology.layout.cells(node)] = True
    return covers


def _owners(covers: dict[str, np.ndarray], kinds: tuple[str, ...], rows: int) -> Array | None:
    """The first of `kinds` that covers each cell: where several do, they have one activation."""
    owner = np.full(rows, -1, np.int8)
    for i, kind in reversed(list(enumerate(kinds))):
        owner[covers[kind]] = i
    return None if len(kinds) == 1 and (owner == 0).all() else on_device(owner)


def _nodes(
    topology: Topology,
    members: np.ndarray,
    kinds: tuple[str, ...],
    activations: dict[str, Activation],
) -> dict[str, tuple[tuple[Array, Array], ...]]:
    """The nodes of kinds that answer node by node: addresses and names, one entry a shape."""
    by_shape: dict[str, dict[tuple[int, ...], list[int]]] = {}
    for node in members.tolist():
        kind, shape, *_ = topology.node_class(node)
        if kind in kinds and not activations[kind].elementwise:
            by_shape.setdefault(kind, {}).setdefault(shape, []).append(node)
    nodes = {}
    for kind, shapes in by_shape.items():
        entries = []
        for same in shapes.values():
            address = on_device(topology.layout.address(np.asarray(same)))
            entries.append((address, on_device(naming.words(topology.node_hashes[same]))))
        nodes[kind] = tuple(entries)
    return nodes
