"""The index arrays of a network, as leaves.

Closed over they would be constants of every compiled function, which costs seconds of compile time
and copies of them; as leaves they are arguments. What is regular (ranges of rows, single views)
stays static in the topology and has no leaf.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from darnax._arrays import on_device
from darnax.couplings.coupling import hears_receiver
from darnax.kernels import Ends
from darnax.network.kernels import Kernel, Site, choose
from darnax.static import unsealed
from darnax.topologies import names as naming
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.topology import Topology


class GroupIndex(eqx.Module):
    """The addresses of one edge group.

    **Fields:**

    - `senders`: rows to gather, or None where a static index does it.
    - `receivers`: the row of `start ... stop` that each message (or each of its cells) lands on,
      counted from `start`.
    - `heard`: which of the rows from `start` to `stop` anything lands on; None where it is all of
      them.
    - `kernel`: how to run all edges faster; None for edge by edge.
    - `start`, `stop`: the rows that the messages are summed over.
    - `hears_receiver`: whether messages depend on the receiver's state as well.
    """

    senders: Int[Array, "edges *lead"] | None
    receivers: Int[Array, " landings"] | None
    heard: Bool[Array, " rows"] | None
    kernel: Kernel | None
    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)
    hears_receiver: bool = eqx.field(static=True)


class ArrayIndex(eqx.Module):
    """What is known of the rows of one array.

    **Fields:**

    - `ids`: two words a row that name it: noise is drawn from them.
    - `held`: rows of nodes that are held by default, or None where the array has none or nothing
      else.
    - `owner`: for cells of a shared array, the place of their node's kind in `kinds`, -1 for none;
      None where one kind covers them all, as in stacked arrays.
    - `covers`: where nodes of several kinds live on a shared array, the cells that those of each
      kind cover.
    - `blocks`: for cells of a shared array, which block they are part of.
    - `nodes`: for shared arrays and activations that are not elementwise: for each kind the
      addresses and ids of its nodes, one entry a shape.
    - `kinds`: the kinds of the nodes that live here and have an activation, sorted.
    """

    ids: UInt32[Array, "rows 2"]
    held: Int[Array, " held"] | None
    owner: Int[Array, " rows"] | None
    covers: dict[str, Bool[Array, " rows"]]
    blocks: Int[Array, " rows"] | None
    nodes: dict[str, tuple[tuple[Array, Array], ...]]
    kinds: tuple[str, ...] = eqx.field(static=True)


class Plan(eqx.Module):
    """Every index array of a network."""

    groups: tuple[GroupIndex, ...]
    arrays: tuple[ArrayIndex, ...]


def plan(
    topology: Topology, couplings: dict[str, tuple[Any, ...]], elementwise: dict[str, bool]
) -> Plan:
    """The plan of a topology with these couplings.

    `elementwise` says it of the activation of every node kind that has one.
    """
    groups = tuple(
        _group_index(topology, group, unsealed(couplings[group.kind][place.bundle]))
        for group, place in zip(topology.groups, topology.places, strict=True)
    )
    arrays = tuple(_array_index(topology, at, elementwise) for at in range(len(topology.arrays)))
    return Plan(groups, arrays)


def _group_index(topology: Topology, group: EdgeGroup, coupling: Any) -> GroupIndex:
    sender, spec = (
        topology.layout.arrays[group.sender_array],
        topology.layout.arrays[group.receiver_array],
    )
    senders = None if group.sender_index is not None else on_device(group.senders, jnp.int32)
    rows = group.receivers.ravel()
    start, stop = int(rows.min()), int(rows.max()) + 1
    each_one = group.receiver_index is not None
    if spec.shared or (4 * (stop - start) > spec.rows and not each_one):
        # fewer cuts through the array: what lands on most of it may as well be summed over all of
        # it
        start, stop = 0, spec.rows
    heard, receivers, ends = np.zeros(stop - start, bool), None, None
    heard[rows - start] = True
    if not each_one:
        receivers = on_device(rows - start, jnp.int32)
        if not sender.shared and not spec.shared:
            sending = on_device(group.senders, jnp.int32) if senders is None else senders
            ends = Ends(sending, receivers, stop - start, sender.rows)
    kernel = choose(Site(group, coupling, sender, spec, rows - start, stop - start, ends))
    return GroupIndex(
        senders=senders,
        receivers=receivers,
        heard=None if each_one or heard.all() else on_device(heard),
        kernel=kernel,
        start=start,
        stop=stop,
        hears_receiver=hears_receiver(coupling),
    )


def _array_index(topology: Topology, at: int, elementwise: dict[str, bool]) -> ArrayIndex:
    layout = topology.layout
    spec, members = layout.arrays[at], layout.members[at]
    kinds = tuple(
        sorted(
            {
                topology.node_class(node).kind
                for node in (members if spec.shared else members[:1]).tolist()
            }
            & set(elementwise)
        )
    )
    held = layout.rows_of(np.asarray(topology.columns.held, np.int64)).get(at)
    partial = held is not None and len(held) < spec.rows
    if spec.shared:
        array_hash = naming.hashes([spec.name])
        ids = naming.combine(array_hash, np.arange(spec.rows, dtype=np.uint64))
        owner, nodes = _owners(topology, members, spec.rows, kinds, elementwise)
        covers = _covers(topology, members, spec.rows)
        blocks = on_device(layout.blocks[at], jnp.int32)
    else:
        ids, owner, nodes, covers, blocks = topology.node_hashes[members], None, {}, {}, None
    return ArrayIndex(
        ids=on_device(naming.words(ids)),
        held=on_device(held, jnp.int32) if partial else None,
        owner=owner,
        covers=covers,
        blocks=blocks,
        nodes=nodes,
        kinds=kinds,
    )


def _covers(topology: Topology, members: np.ndarray, rows: int) -> dict[str, Array]:
    """The cells of a shared array that nodes of each kind cover, where there are several kinds."""
    covered: dict[str, np.ndarray] = {}
    for node in members.tolist():
        mask = covered.setdefault(topology.node_class(node).kind, np.zeros(rows, bool))
        mask[topology.layout.cells(node)] = True
    return {kind: on_device(mask) for kind, mask in covered.items()} if len(covered) > 1 else {}


def _owners(
    topology: Topology,
    members: np.ndarray,
    rows: int,
    kinds: tuple[str, ...],
    elementwise: dict[str, bool],
):
    """Which kind answers for every cell, and for kinds that are not elementwise where their nodes
    are.
    """
    owner = np.full(rows, -1, np.int8)
    places: dict[str, dict[tuple, list[int]]] = {}
    for node in members.tolist():
        kind, shape, *_ = topology.node_class(node)
        if kind not in kinds:
            continue
        cells = topology.layout.cells(node)
        here = owner[cells]
        owner[cells] = np.where(here < 0, kinds.index(kind), np.minimum(here, kinds.index(kind)))
        if not elementwise[kind]:
            places.setdefault(kind, {}).setdefault(shape, []).append(node)
    nodes = {
        kind: tuple(
            (
                on_device(topology.layout.address(np.asarray(ids))),
                on_device(naming.words(topology.node_hashes[ids])),
            )
            for ids in by_shape.values()
        )
        for kind, by_shape in places.items()
    }
    return None if len(kinds) == 1 and (owner == 0).all() else on_device(owner), nodes
