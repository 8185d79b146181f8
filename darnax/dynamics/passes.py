"""One pass of a schedule over the arrays of a state."""

from collections.abc import Container

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from darnax.dynamics.noise import chosen
from darnax.dynamics.residual import Scales, change_of, largest_of, relative, shows
from darnax.dynamics.respond import Cells, both, held_out, keep, respond
from darnax.dynamics.schedules import Asynchronous
from darnax.dynamics.setting import Landings, Setting, drive_landings, joined
from darnax.dynamics.sweep import InTurn
from darnax.dynamics.visits import run_visits
from darnax.network import messages
from darnax.network.messages import arrays_of, field_dtype, outer, rows_of, with_arrays
from darnax.states.graph import GraphState


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
    return run_visits(setting, state, keys, active, scales)


def _at_once(setting: Setting, state: GraphState, keys, active, scales, visit=None):
    """All cells updated from one snapshot, or those of the rows that a visit names, array by
    array.
    """
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
            free = both(
                None if run.heard is None else outer(run.heard, old.ndim),
                held_out(setting, at, here),
            )
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
        free = outer(
            messages.heard_rows(messages.runs(landings[at], spec.rows)), len(spec.item) + 2
        )
        free = both(free, held_out(setting, at, slice(None)))
        result[at] = jnp.broadcast_to(free, rows_of(spec, arrays[at]).shape).reshape(
            arrays[at].shape
        )
    return result


def _landings(setting: Setting, state: GraphState, on: Container[int]) -> Landings:
    """All that lands on some arrays."""
    network, call = setting.network, setting.call
    couplings = {
        i: c
        for i, c in setting.couplings.items()
        if network.topology.groups[i].receiver_array in on
    }
    said = messages.landings(network, arrays_of(state), call.frame.speakers, couplings)
    return joined(setting.landed, said, drive_landings(network, call, state, callable_ones=True))
