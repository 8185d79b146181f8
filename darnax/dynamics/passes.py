"""One pass of a schedule over the arrays of a state."""

import math
from collections.abc import Container
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
from jaxtyping import Array, Bool, Float, Key, Shaped

from darnax.activations import Glauber, Leaky, described, name, needs
from darnax.couplings.coupling import pick
from darnax.dynamics.call import Landings, Setting, drive_landings, joined
from darnax.dynamics.noise import chosen, node_keys, uniform
from darnax.dynamics.schedules import Asynchronous
from darnax.dynamics.sweep import InTurn, Listing, Sweep
from darnax.dynamics.units import loop_matrix, sweep_units
from darnax.network import messages
from darnax.network.messages import Arrays, arrays_of, field_dtype, outer, rows_of
from darnax.states.graph import GraphState

Scales = dict[int, Float[Array, "rows batch"]]


class Cells(NamedTuple):
    """Some rows of an array about to be updated.

    **Fields:**

    - `at`: the array.
    - `rows`: which rows: a slice, or an array of positions.
    - `old`: their state.
    - `field`: their local field.
    """

    at: int
    rows: Any
    old: Shaped[Array, "rows *item batch"]
    field: Float[Array, "rows *item batch"]


def with_arrays(state: GraphState, arrays: Arrays) -> GraphState:
    """The state with these arrays in place of its own."""
    own = arrays_of(state) | arrays
    return jax.tree.unflatten(jax.tree.structure(state), [own[at] for at in range(len(own))])


def moving_arrays(setting: Setting, state: GraphState) -> Arrays:
    """The arrays that can change: what a loop carries.

    The others pass it by, so that in one program what nodes say that never change is worked out once for all loops.
    """
    arrays = arrays_of(state)
    return {at: arrays[at] for at in setting.call.frame.moving}


def one_pass(
    setting: Setting,
    state: GraphState,
    keys: Key[Array, " batch"] | None,
    active: Bool[Array, " batch"] | None = None,
    scales: Scales | None = None,
) -> tuple[GraphState, Float[Array, " batch"] | None]:
    """The state after one pass, and if `scales` are given the residual of every sample.

    Samples that are not `active` stay as they are; None means all are.
    """
    sweep = setting.call.frame.sweep
    if sweep is None:
        return _at_once(setting, state, keys, active, scales)
    if isinstance(sweep, InTurn):
        residuals = []
        for visit in sweep.visits:
            state, residual = _at_once(setting, state, keys, active, scales, visit)
            residuals += [] if residual is None else [residual]
        return state, largest_of(setting, residuals, state.batch_size, scales)
    return _visits(setting, state, keys, active, scales)


def residual_dtype(setting: Setting) -> Any:
    """Float32, or float64 where any moving array is."""
    specs = setting.network.topology.layout.arrays
    return jnp.result_type(jnp.float32, *(field_dtype(specs[at]) for at in setting.call.frame.moving))


def block_scales(setting: Setting, state: GraphState, skip: Container[int] = ()) -> Scales:
    """For every row of the moving arrays max(1, max|s|) over its block: what residuals are relative to."""
    result, arrays = {}, arrays_of(state)
    for at in setting.call.frame.moving:
        if at in skip:
            continue
        spec = setting.network.topology.layout.arrays[at]
        size = jnp.abs(rows_of(spec, arrays[at]).astype(field_dtype(spec)))
        if spec.shared:
            blocks = setting.network.plan.arrays[at].blocks
            assert blocks is not None
            largest = jraph.segment_max(size, jnp.where(blocks < 0, spec.rows, blocks), spec.rows)
            size = largest.at[blocks].get(mode="fill", fill_value=1)
        else:
            size = jnp.max(size, axis=tuple(range(1, size.ndim - 1)))
        result[at] = jnp.maximum(size, 1)
    return result


def within_one(setting: Setting, at: int) -> bool:
    """Whether after a first pass all that moves in an array lies between -1 and 1, and the scales of its rows are 1.

    Held cells may be larger, so that must not share a row with others; nor may a pass leave out what it could move.
    """
    network, call = setting.network, setting.call
    bounded = all(described(network.activations[kind]).bounded for kind in network.plan.arrays[at].kinds)
    masked = any(network.topology.layout.node_array[node] == at for node in call.masked)
    shared = network.topology.layout.arrays[at].shared
    return bounded and not masked and not shared and not isinstance(call.schedule, Asynchronous)


def relative(scale: Float[Array, "rows batch"], change: Float[Array, "rows *item batch"]) -> Float[Array, " batch"]:
    """The largest change of every sample, relative to the scale of its row."""
    largest = jnp.max(change, axis=tuple(range(1, change.ndim - 1)))
    return jnp.max(largest / scale, axis=0)


def _at_once(setting: Setting, state: GraphState, keys, active, scales, visit=None):
    """All cells updated from one snapshot, or those of the rows that a visit names, array by array."""
    network, call = setting.network, setting.call
    topology, arrays = network.topology, arrays_of(state)
    visit = dict.fromkeys(call.frame.moving) if visit is None else visit
    landings = _landings(setting, state, visit)
    residuals, new = [], {}
    for at, visited in visit.items():
        spec = topology.layout.arrays[at]
        rows = rows_of(spec, arrays[at])
        moves = None
        if isinstance(call.schedule, Asynchronous):
            assert keys is not None
            moves = chosen(network.plan.arrays[at].ids, keys, spec.item, call.schedule.fraction)
        parts = []
        for run in messages.runs(landings[at], spec.rows):
            here = slice(run.start, run.stop)
            old = rows[here]
            if run.field is None:
                parts.append(old)
                continue
            cells = Cells(at, here, old, run.field)
            value, target = respond(setting, cells, keys)
            free = both(None if run.heard is None else outer(run.heard, old.ndim), held_out(setting, at, here))
            free = both(free, None if visited is None else outer(visited[here], old.ndim))
            if scales is not None and not shows(setting, at):
                residuals.append(relative(scales[at][here], change_of(target, cells, free)))
            parts.append(
                keep(
                    both(free, active if moves is None else both(moves[here], active)),
                    value.astype(old.dtype),
                    old,
                )
            )
        after = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        if scales is not None and shows(setting, at):
            residuals.append(relative(scales[at], jnp.abs(after - rows).astype(field_dtype(spec))))
        new[at] = after.reshape(arrays[at].shape)
    return with_arrays(state, new), largest_of(setting, residuals, state.batch_size, scales)


def updated_cells(setting: Setting, state: GraphState) -> dict[int, Bool[Array, "..."]]:
    """For every array that moves, in its shape, the cells that an update at once changes."""
    arrays, result = arrays_of(state), {}
    landings = _landings(setting, state, setting.call.frame.moving)
    for at in setting.call.frame.moving:
        spec = setting.network.topology.layout.arrays[at]
        free = outer(messages.heard_rows(messages.runs(landings[at], spec.rows)), len(spec.item) + 2)
        free = both(free, held_out(setting, at, slice(None)))
        result[at] = jnp.broadcast_to(free, rows_of(spec, arrays[at]).shape).reshape(arrays[at].shape)
    return result


def _landings(setting: Setting, state: GraphState, on: Container[int]) -> Landings:
    """All that lands on some arrays."""
    network, call = setting.network, setting.call
    couplings = {i: c for i, c in setting.couplings.items() if network.topology.groups[i].receiver_array in on}
    said = messages.landings(network, arrays_of(state), call.frame.speakers, couplings)
    return joined(setting.landed, said, drive_landings(network, call, state, callable_ones=True))


def largest_of(setting: Setting, residuals: list, batch: int, scales: Scales | None) -> Float[Array, " batch"] | None:
    """The residual over all parts of a pass."""
    if scales is None:
        return None
    dtype = residual_dtype(setting)
    return jnp.max(jnp.stack([jnp.zeros(batch, dtype), *(part.astype(dtype) for part in residuals)]), axis=0)


def both(a: Any, b: Any) -> Any:
    """Two masks as one; None is no restriction."""
    return b if a is None else a if b is None else a & b


def keep(mask: Array | None, new: Array, old: Array) -> Array:
    """The new value where the mask allows, the old bits elsewhere."""
    return new if mask is None else jnp.where(mask, new, old)


def held_out(setting: Setting, at: int, rows: Any) -> Bool[Array, "..."] | None:
    """Which cells of some rows are free; None for all."""
    held = setting.held[at]
    return None if held is None else ~held[rows]


def shows(setting: Setting, at: int) -> bool:
    """Whether the change of an array shows how far its cells were from where the map sends them.

    It is then read off the written array, which is cheaper than working out the map a second time. Leaky units move but
    a part of the way, a random schedule moves but some cells, and integers cannot show a NaN.
    """
    network = setting.network
    leaky = any(isinstance(network.activations[kind], Leaky) for kind in network.plan.arrays[at].kinds)
    floating = jnp.issubdtype(jnp.dtype(network.topology.layout.arrays[at].dtype), jnp.floating)
    return floating and not leaky and not isinstance(setting.call.schedule, Asynchronous)


def change_of(target: Array, cells: Cells, free: Array | None) -> Float[Array, "rows *item batch"]:
    """How far free cells are from where the map sends them; NaN and infinity show as such."""
    change = jnp.abs(target - cells.old.astype(target.dtype))
    return change if free is None else jnp.where(free, change, 0)


def respond(setting: Setting, cells: Cells, keys: Key[Array, " batch"] | None) -> tuple[Array, Array]:
    """The new state of cells that all are updated, and the target that the residual is measured to, in field dtype."""
    network, at = setting.network, cells.at
    spec, index = network.topology.layout.arrays[at], network.plan.arrays[at]
    bias = setting.biases[at]
    if bias is not None:
        cells = cells._replace(field=cells.field + bias[cells.rows])
    if index.nodes:
        return _respond_by_node(setting, cells, keys)
    value = target = None
    for i, kind in enumerate(index.kinds):
        ids = index.ids[cells.rows]
        answer = activate(network, kind, spec.dtype, cells.field, cells.old, ids, keys)
        if value is None or target is None:
            value, target = answer
            continue
        assert index.owner is not None
        own = outer(index.owner[cells.rows] == i, value.ndim)
        value, target = jnp.where(own, answer[0], value), jnp.where(own, answer[1], target)
    assert value is not None
    assert target is not None
    return value, target


def _respond_by_node(setting: Setting, cells: Cells, keys) -> tuple[Array, Array]:
    """On a shared array where some nodes answer as a whole: gathered by node, written back to their cells."""
    network, at = setting.network, cells.at
    spec, index = network.topology.layout.arrays[at], network.plan.arrays[at]
    shape = (spec.rows, cells.field.shape[-1])
    field = jnp.zeros(shape, cells.field.dtype).at[cells.rows].set(cells.field, mode="drop")
    old = jnp.zeros(shape, cells.old.dtype).at[cells.rows].set(cells.old, mode="drop")
    value, target = field, field
    for i, kind in enumerate(index.kinds):
        if kind in index.nodes:
            for address, ids in index.nodes[kind]:
                answer = activate(network, kind, spec.dtype, field[address], old[address], ids, keys)
                value, target = value.at[address].set(answer[0]), target.at[address].set(answer[1])
            continue
        answer = activate(network, kind, spec.dtype, field, old, index.ids, keys)
        own = outer(index.owner == i, 2)
        value, target = jnp.where(own, answer[0], value), jnp.where(own, answer[1], target)
    return value[cells.rows], target[cells.rows]


def activate(network: Any, kind: str, dtype: str, field: Array, old: Array, ids: Array, keys) -> tuple[Array, Array]:
    """The activation of a node kind on the fields of several nodes `(nodes, *shape, B)`: new state and target."""
    activation = network.activations[kind]
    known, needed = described(activation), needs(activation)
    inner = activation.target if isinstance(activation, Leaky) else activation
    if not known.differentiable or "key" in needed or not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        reason = (
            f"{name(activation)} has no derivative"
            if not known.differentiable
            else "it is random"
            if "key" in needed
            else f"its state is {dtype}"
        )
        field = no_gradient(
            f"nodes of kind {kind!r} cannot be differentiated: {reason}; use a smooth activation such as dx.tanh",
            field,
        )
    arguments = {"state": old.astype(field.dtype)} if "state" in needed else {}
    axes = dict.fromkeys(arguments, 0)
    if "key" in needed:
        arguments["key"], axes["key"] = node_keys(ids, keys), 0
    if isinstance(inner, Glauber):
        target = inner.spins(field, uniform(ids, keys, field.shape[1:-1]).astype(field.dtype))
    elif known.elementwise and "key" not in needed:
        target = inner(field, **arguments)
    else:

        def one(field, arguments):
            return inner(field, **arguments)

        batch = jax.vmap(one, in_axes=(-1, dict.fromkeys(axes, -1)), out_axes=-1)
        target = jax.vmap(batch, in_axes=(0, axes))(field, arguments)
    target = target.astype(field.dtype)
    return (activation.leak(target, arguments["state"]) if isinstance(activation, Leaky) else target), target


def no_gradient(message: str, field: Array) -> Array:
    """The field as it is; differentiating through it raises `TypeError` with the message."""

    @jax.custom_jvp
    def refuse(field):
        return field

    @refuse.defjvp
    def _(primals, tangents):
        raise TypeError(message)

    return refuse(field)


def _visits(setting: Setting, state: GraphState, keys, active, scales):
    """The visits of a sweep, one after another; visits of like size share a branch."""
    sweep = setting.call.frame.sweep
    assert isinstance(sweep, Sweep)
    lasting, moving = _whole(setting, setting.landed, state.batch_size), moving_arrays(setting, state)
    specs = setting.network.topology.layout.arrays
    branches = [
        lambda carry, visit, size=size: _visit(
            setting, lasting, with_arrays(state, carry[0]), carry[1], size, visit, keys, active, scales
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

    residual = largest_of(setting, [], state.batch_size, scales)
    (moving, residual), _ = jax.lax.scan(body, (moving, residual), jnp.arange(len(sweep.branch)))
    return with_arrays(state, moving), residual


def read(listing: Listing, visit: Array, size: int) -> tuple[Array, Bool[Array, " size"]]:
    """The positions that a visit lists, `size` of them, and which are real."""
    positions = jax.lax.dynamic_slice(listing.positions, (listing.offset[visit],), (size,))
    return positions, jnp.arange(size) < listing.count[visit]


Fields = dict[int, tuple[Float[Array, "rows *item batch"], Bool[Array, " rows"]]]


def _whole(setting: Setting, landings: Landings, batch: int) -> Fields:
    """Landings added up over all rows of their arrays, and the rows that anything lands on."""
    result = {}
    for at, found in landings.items():
        spec = setting.network.topology.layout.arrays[at]
        parts = messages.runs(found, spec.rows)
        result[at] = messages.fields(parts, spec, batch), messages.heard_rows(parts)
    return result


def _visit(setting: Setting, lasting: Fields, state: GraphState, residual, sizes, visit: Array, keys, active, scales):
    """What a visit makes of some arrays, the rows that it changes in others and their values, and the residual."""
    network, frame = setting.network, setting.call.frame
    sweep, topology, arrays = frame.sweep, network.topology, arrays_of(state)
    assert isinstance(sweep, Sweep)
    edge_sizes, row_sizes = dict(sizes[0]), dict(sizes[1])
    here = {at: read(sweep.rows[at], visit, size) for at, size in row_sizes.items()}
    # what only fills up a size lies outside, where reading is clamped and writing is dropped
    here = {at: (jnp.where(real, rows, topology.layout.arrays[at].rows), real) for at, (rows, real) in here.items()}
    driven = _whole(setting, drive_landings(network, setting.call, state, callable_ones=True), state.batch_size)
    fields, heard = {}, {}
    for at, (rows, _) in here.items():
        spec = topology.layout.arrays[at]
        fields[at] = jnp.zeros((len(rows), *spec.item, state.batch_size), field_dtype(spec))
        heard[at] = jnp.zeros(len(rows), bool)
        for given in (lasting, driven):
            if at in given:
                field, hears = given[at]
                fields[at], heard[at] = fields[at] + field[rows], heard[at] | hears[rows]
    loops: dict[int, list] = {at: [] for at in sweep.stepped}
    for i, size in edge_sizes.items():
        at = topology.groups[i].receiver_array
        edges, real = read(sweep.edges[i], visit, size)
        if at in sweep.stepped and topology.groups[i].self_loop:
            tied = topology.groups[i].tie is not None
            speaks = _spoken(setting, i, edges, real)
            places = [0] if len(topology.groups[i].edges) == 1 else list(edges)
            loops[at] += [
                (loop_matrix(setting.couplings[i], tied, k), on) for k, on in zip(places, speaks, strict=True)
            ]
        sent, row, real = _say(setting, arrays, i, edges, real)
        slot = sweep.slots[at][row]
        slot = jnp.where(real & (here[at][0][slot] == row), slot, len(here[at][0]))
        fields[at] = fields[at].at[slot].add(jnp.where(outer(real, sent.ndim), sent, 0), mode="drop")
        heard[at] = heard[at].at[slot].set(True, mode="drop")
    new, changed = moving_arrays(setting, state), {}
    for at, most in sweep.most:
        spec, old = topology.layout.arrays[at], new.pop(at)
        changed[at] = jnp.full(most, spec.rows), jnp.zeros((most, *spec.item, state.batch_size), old.dtype)
    for at, (rows, real) in here.items():
        spec = topology.layout.arrays[at]
        whole = rows_of(spec, arrays[at])
        cells = Cells(at, rows, whole[rows], fields[at])
        free = both(outer(heard[at] & real, cells.field.ndim), held_out(setting, at, rows))
        if at in sweep.stepped:
            value, target = _one_by_one(setting, cells, loops[at], both(free, active), keys)
        else:
            value, target = respond(setting, cells, keys)
        if sweep.cell is not None and at not in sweep.stepped:
            place = jnp.arange(len(rows) * math.prod(spec.item)).reshape(len(rows), *spec.item, 1)
            free = both(free, place == sweep.cell[visit])
        if scales is not None:
            residual = jnp.maximum(
                residual, relative(scales[at][rows], change_of(target, cells, free)).astype(residual.dtype)
            )
        value = keep(both(free, active), value.astype(cells.old.dtype), cells.old)
        if at in changed:
            changed[at] = tuple(
                full.at[: len(rows)].set(part) for full, part in zip(changed[at], (rows, value), strict=True)
            )
        else:
            new[at] = whole.at[rows].set(value, mode="drop").reshape(arrays[at].shape)
    return new, changed, residual


def _spoken(setting: Setting, i: int, edges: Array, real: Array) -> Array:
    """Which of some edges of group `i` are real and speak."""
    group, network = setting.network.topology.groups[i], setting.network
    sender = network.topology.layout.arrays[group.sender_array]
    spoken = messages.spoken(setting.call.frame.speakers, i, network.plan.groups[i], group, sender)
    return real if spoken is None else real & spoken[edges]


def _one_by_one(setting: Setting, cells: Cells, loops: list, free: Array | None, keys) -> tuple[Array, Array]:
    """The units of one node updated one after another, in their new state and the target of each."""
    network, at = setting.network, cells.at
    spec, ids = network.topology.layout.arrays[at], network.plan.arrays[at].ids[cells.rows]
    (kind,) = network.plan.arrays[at].kinds
    fn: Any = network.activations[kind]
    bias, units = setting.biases[at], math.prod(spec.item)
    field = cells.field if bias is None else cells.field + bias[cells.rows]

    def respond(field, old, noise):
        if noise is not None:
            return fn.spins(field, noise)
        return activate(network, kind, spec.dtype, field[None, None], old[None, None], ids, None)[1][0, 0]

    def settle(target, old):
        value = fn.leak(target, old.astype(target.dtype)) if isinstance(fn, Leaky) else target
        return value.astype(old.dtype)

    old, shape = cells.old.reshape(units, -1), cells.old.shape
    moves = jnp.broadcast_to(True if free is None else free, shape).reshape(old.shape)
    noise = uniform(ids, keys, (units,))[0].astype(field.dtype) if isinstance(fn, Glauber) else None
    target = sweep_units(respond, settle, old, field.reshape(old.shape), noise, loops, moves)
    return settle(target, old).reshape(shape), target.reshape(shape)


def _say(setting: Setting, arrays: Arrays, i: int, edges: Array, real: Array):
    """What some edges of group `i` say: messages by row, the rows they land on, and which of them are real."""
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
        rows = index.senders[edges] if index.senders is not None else edges_to_rows(group.sender_index, edges)
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
