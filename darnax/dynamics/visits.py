"""The visits of a sweep, run one after another."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from darnax.activations import Glauber, Leaky
from darnax.couplings.coupling import pick
from darnax.dynamics.noise import uniform
from darnax.dynamics.residual import change_of, relative, residual_dtype
from darnax.dynamics.respond import Cells, activate, both, held_out, keep, respond
from darnax.dynamics.setting import Landings, Setting, drive_landings, moving_arrays
from darnax.dynamics.sweep import Listing, Sweep
from darnax.dynamics.units import loop_matrix, sweep_units
from darnax.network import messages
from darnax.network.messages import Arrays, arrays_of, field_dtype, outer, rows_of, with_arrays
from darnax.states.graph import GraphState

Fields = dict[int, tuple[Float[Array, "..."], Bool[Array, " _"]]]
"""For every array the field of some or all of its rows, and which of them hear anything."""


def run_visits(setting: Setting, state: GraphState, keys, active, scales):
    """The visits of a sweep, one after another; visits of like size share a branch."""
    sweep = setting.call.frame.sweep
    assert isinstance(sweep, Sweep)
    lasting, moving = (
        _whole(setting, setting.landed, state.batch_size),
        moving_arrays(setting, state),
    )
    specs = setting.network.topology.layout.arrays
    branches = [
        lambda carry, visit, size=size: _visit(
            setting,
            lasting,
            with_arrays(state, carry[0]),
            carry[1],
            size,
            visit,
            keys,
            active,
            scales,
        )
        for size in sweep.sizes
    ]

    def body(carry, visit):
        if len(branches) == 1:
            new, changed, residual = branches[0](carry, visit)
        else:
            new, changed, residual = jax.lax.switch(sweep.branch[visit], branches, carry, visit)
        # written here, outside of branches, an array is changed in place and not copied
        for at, (rows, value) in changed.items():
            whole = rows_of(specs[at], carry[0][at])
            new[at] = whole.at[rows].set(value, mode="drop").reshape(carry[0][at].shape)
        return (new, residual), None

    residual = None
    if (
        scales is not None
    ):  # like an array that moves, it is spread over devices inside of `shard_map`
        one = next(iter(moving.values()))
        residual = jnp.zeros_like(one, shape=(state.batch_size,), dtype=residual_dtype(setting))
    (moving, residual), _ = jax.lax.scan(body, (moving, residual), jnp.arange(len(sweep.branch)))
    return with_arrays(state, moving), residual


def read(listing: Listing, visit: Array, size: int) -> tuple[Array, Bool[Array, " size"]]:
    """The positions that a visit lists, `size` of them, and which are real."""
    positions = jax.lax.dynamic_slice(listing.positions, (listing.offset[visit],), (size,))
    return positions, jnp.arange(size) < listing.count[visit]


def _whole(setting: Setting, landings: Landings, batch: int) -> Fields:
    """Landings added up over all rows of their arrays, and the rows that anything lands on."""
    result = {}
    for at, found in landings.items():
        spec = setting.network.topology.layout.arrays[at]
        parts = messages.runs(found, spec.rows)
        result[at] = messages.fields(parts, spec, batch), messages.heard_rows(parts)
    return result


def _visit(
    setting: Setting,
    lasting: Fields,
    state: GraphState,
    residual,
    sizes,
    visit: Array,
    keys,
    active,
    scales,
):
    """What a visit makes of some arrays, the rows that it changes in others and their values, and
    the residual.
    """
    sweep, specs, arrays = (
        setting.call.frame.sweep,
        setting.network.topology.layout.arrays,
        arrays_of(state),
    )
    assert isinstance(sweep, Sweep)
    edge_sizes, row_sizes = map(dict, sizes)
    here = {at: read(sweep.rows[at], visit, size) for at, size in row_sizes.items()}
    # what only fills up a size lies outside, where reading is clamped and writing is dropped
    here = {at: (jnp.where(real, rows, specs[at].rows), real) for at, (rows, real) in here.items()}
    fields = _fields(
        setting, lasting, state, {at: rows for at, (rows, _) in here.items()}, edge_sizes, visit
    )
    new, changed = moving_arrays(setting, state), {}
    for at, most in sweep.most:
        spec, old = specs[at], new.pop(at)
        nothing = jnp.zeros_like(old, shape=(most, *spec.item, state.batch_size))
        changed[at] = jnp.full(most, spec.rows), nothing
    for at, (rows, real) in here.items():
        spec, (field, heard) = specs[at], fields[at]
        whole = rows_of(spec, arrays[at])
        cells = Cells(at, rows, whole[rows], field)
        free = both(outer(heard & real, field.ndim), held_out(setting, at, rows))
        if at in sweep.stepped:
            loops = _loops(setting, at, edge_sizes, visit)
            value, target = _one_by_one(setting, cells, loops, both(free, active), keys)
        else:
            value, target = respond(setting, cells, keys)
        if sweep.cell is not None and at not in sweep.stepped:
            place = jnp.arange(len(rows) * math.prod(spec.item)).reshape(len(rows), *spec.item, 1)
            free = both(free, place == sweep.cell[visit])
        if scales is not None:
            residual = jnp.maximum(
                residual,
                relative(scales[at][rows], change_of(target, cells, free)).astype(residual.dtype),
            )
        value = keep(both(free, active), value.astype(cells.old.dtype), cells.old)
        if at in changed:
            changed[at] = tuple(
                full.at[: len(rows)].set(part)
                for full, part in zip(changed[at], (rows, value), strict=True)
            )
        else:
            new[at] = whole.at[rows].set(value, mode="drop").reshape(arrays[at].shape)
    return new, changed, residual


def _fields(
    setting: Setting,
    lasting: Fields,
    state: GraphState,
    here: dict[int, Array],
    edge_sizes: dict[int, int],
    visit: Array,
) -> Fields:
    """The fields of the visited rows, and which of them hear anything."""
    network, sweep = setting.network, setting.call.frame.sweep
    assert isinstance(sweep, Sweep)
    driven = _whole(
        setting, drive_landings(network, setting.call, state, callable_ones=True), state.batch_size
    )
    fields = {}
    for at, rows in here.items():
        spec = network.topology.layout.arrays[at]
        field, heard = (
            jnp.zeros((len(rows), *spec.item, state.batch_size), field_dtype(spec)),
            jnp.zeros(len(rows), bool),
        )
        for given in (lasting, driven):
            if at in given:
                field, heard = field + given[at][0][rows], heard | given[at][1][rows]
        fields[at] = field, heard
    for i, size in edge_sizes.items():
        at = network.topology.groups[i].receiver_array
        edges, real = read(sweep.edges[i], visit, size)
        sent, row, real = _say(setting, arrays_of(state), i, edges, real)
        slot = sweep.slots[at][row]
        slot = jnp.where(real & (here[at][slot] == row), slot, len(here[at]))
        field, heard = fields[at]
        field = field.at[slot].add(jnp.where(outer(real, sent.ndim), sent, 0), mode="drop")
        fields[at] = field, heard.at[slot].set(True, mode="drop")
    return fields


def _loops(
    setting: Setting, at: int, edge_sizes: dict[int, int], visit: Array
) -> list[tuple[Array, Array]]:
    """The matrices by which the units of the visited node hear each other, and whether they do."""
    sweep, loops = setting.call.frame.sweep, []
    assert isinstance(sweep, Sweep)
    for i, size in edge_sizes.items():
        group = setting.network.topology.groups[i]
        if group.self_loop and group.receiver_array == at:
            edges, real = read(sweep.edges[i], visit, size)
            places = [0] if len(group.edges) == 1 else list(edges)
            loops += [
                (loop_matrix(setting.couplings[i], group.tie is not None, place), speaks)
                for place, speaks in zip(places, _spoken(setting, i, edges, real), strict=True)
            ]
    return loops


def _spoken(setting: Setting, i: int, edges: Array, real: Array) -> Array:
    """Which of some edges of group `i` are real and speak."""
    group, network = setting.network.topology.groups[i], setting.network
    sender = network.topology.layout.arrays[group.sender_array]
    spoken = messages.spoken(setting.call.frame.speakers, i, network.plan.groups[i], group, sender)
    return real if spoken is None else real & spoken[edges]


def _one_by_one(
    setting: Setting, cells: Cells, loops: list, free: Array | None, keys
) -> tuple[Array, Array]:
    """The units of one node updated one after another, in their new state and the target of
    each.
    """
    network, at = setting.network, cells.at
    spec, ids = network.topology.layout.arrays[at], network.plan.arrays[at].ids[cells.rows]
    (kind,) = network.plan.arrays[at].kinds
    fn: Any = network.activations[kind]
    bias, units = setting.biases[at], math.prod(spec.item)
    field = cells.field if bias is None else cells.field + bias[cells.rows]

    def respond(field, old, noise):
        if noise is not None:
            return fn.spins(field, noise)
        return activate(network, kind, spec.dtype, field[None, None], old[None, None], ids, None)[
            1
        ][0, 0]

    def settle(target, old):
        value = fn.leak(target, old.astype(target.dtype)) if isinstance(fn, Leaky) else target
        return value.astype(old.dtype)

    old, shape = cells.old.reshape(units, -1), cells.old.shape
    moves = jnp.broadcast_to(True if free is None else free, shape).reshape(old.shape)
    noise = uniform(ids, keys, (units,))[0].astype(field.dtype) if isinstance(fn, Glauber) else None
    target = sweep_units(respond, settle, old, field.reshape(old.shape), noise, loops, moves)
    return settle(target, old).reshape(shape), target.reshape(shape)


def _say(setting: Setting, arrays: Arrays, i: int, edges: Array, real: Array):
    """What some edges of group `i` say: messages by row, the rows they land on, and which of them
    are real.
    """
    network = setting.network
    topology = network.topology
    group, index = topology.groups[i], network.plan.groups[i]
    sender, receiver = (
        topology.layout.arrays[group.sender_array],
        topology.layout.arrays[group.receiver_array],
    )
    real = _spoken(setting, i, edges, real)
    if len(group.edges) == 1 or (index.senders is None and sender.shared):
        x = messages.gather(group, index, sender, arrays[group.sender_array])
    else:
        rows = (
            index.senders[edges]
            if index.senders is not None
            else edges_to_rows(group.sender_index, edges)
        )
        x = rows_of(sender, arrays[group.sender_array])[rows]
    if index.receivers is not None:
        rows = index.receivers.reshape(len(group.edges), -1)[edges] + index.start
    elif receiver.shared:
        rows = jnp.asarray(group.receivers.reshape(1, -1))
    else:
        rows = edges_to_rows(group.receiver_index, edges)[:, None]
    ends = (x,)
    if index.hears_receiver:
        y = rows_of(receiver, arrays[group.receiver_array])[rows]
        ends = x, y.reshape(len(x), *group.receiver_shape, y.shape[-1])
    coupling = setting.couplings[i]
    if len(group.edges) > 1:
        coupling = pick(coupling, group.tie is not None, edges)
    sent = messages.send(coupling, group.tie is not None, ends, field_dtype(receiver))
    real = jnp.repeat(real, rows.shape[1])
    return sent.reshape(rows.size, *receiver.item, sent.shape[-1]), rows.ravel(), real


def edges_to_rows(index: Any, edges: Array) -> Array:
    """The rows that a static slice gives some edges of a group."""
    return index[0].start + edges * index[0].step
