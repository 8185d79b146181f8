"""What of a call stays the same from pass to pass."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from darnax.dynamics.call import Call, batched, drive_dtype
from darnax.dynamics.sweep import Sweep
from darnax.network import messages
from darnax.network.messages import Arrays, arrays_of, concrete, field_dtype, rows_of
from darnax.network.network import Network
from darnax.states.graph import GraphState

Landings = dict[int, list[messages.Landing]]


class Setting(NamedTuple):
    """Everything of a call that stays the same from pass to pass, ready for use inside the loop.

    **Fields:**

    - `couplings`: of the groups that speak and whose messages can change.
    - `landed`: for every array that moves, what lands on it in every pass alike: messages that
      cannot change, because their senders cannot, and drives that are no functions.
    - `held`: for every array that moves, which cells are held, `(rows, *1 or item, 1 or B)`; None
      for none.
    - `biases`: for every array that moves, with an axis for the batch; None without.
    """

    network: Network
    call: Call
    couplings: dict[int, Any]
    landed: Landings
    held: dict[int, Bool[Array, "..."] | None]
    biases: dict[int, Float[Array, "..."] | None]


def setting(network: Network, call: Call, state: GraphState) -> Setting:
    """Worked out once in a trace, before any loop that begins at `state`."""
    moving, groups = call.frame.moving, network.topology.groups
    speaking = call.frame.speakers
    changing = call.frame.changing
    visited = changing if isinstance(call.frame.sweep, Sweep) else ()  # a few edges at a time
    couplings = {
        i: c
        for i, c in network.ready(speaking, visited).items()
        if groups[i].receiver_array in moving
    }
    lasting = {i: c for i, c in couplings.items() if i not in changing}
    landed = messages.landings(network, arrays_of(state), speaking, lasting)
    biases = {at: network.bias(at) for at in moving}
    return Setting(
        network,
        call,
        {i: c for i, c in couplings.items() if i in changing},
        joined(landed, drive_landings(network, call, state, callable_ones=False)),
        {at: _held(network, call, at) for at in moving},
        {at: None if bias is None else bias[..., None] for at, bias in biases.items()},
    )


def moving_arrays(setting: Setting, state: GraphState) -> Arrays:
    """The arrays that can change: what a loop carries.

    The others pass it by, so that in one program what nodes say that never change is worked out
    once for all loops.
    """
    arrays = arrays_of(state)
    return {at: arrays[at] for at in setting.call.frame.moving}


def joined(first: Landings, *others: Landings) -> Landings:
    """All that lands on every array, in this order."""
    result = {at: list(found) for at, found in first.items()}
    for other in others:
        for at, found in other.items():
            result.setdefault(at, []).extend(found)
    return result


def _held(network: Network, call: Call, at: int) -> Bool[Array, "..."] | None:
    spec, frame = network.topology.layout.arrays[at], call.frame
    held = None
    if at in frame.partly_held:
        rows = frame.held.get(at, network.plan.arrays[at].held)
        held = (
            jnp.zeros(spec.rows, bool)
            .at[rows]
            .set(True)
            .reshape(spec.rows, *[1] * (len(spec.item) + 1))
        )
    here = [
        (node, mask)
        for node, mask in zip(call.masked, call.masks, strict=True)
        if network.topology.layout.node_array[node] == at
    ]
    if not here:
        return held
    batch = max(mask.shape[0] for _, mask in here)
    cells = jnp.zeros((*spec.lead, *spec.item, batch), bool)
    for node, mask in here:
        view = network.topology.view(network.topology.nodes[node]).index
        cells = cells.at[view].max(jnp.moveaxis(mask, 0, -1))
    cells = rows_of(spec, cells)
    return cells if held is None else held | cells


def drive_landings(
    network: Network, call: Call, state: GraphState, callable_ones: bool
) -> Landings:
    """What drives add to the fields: those that are functions of the state, or the others."""
    topology, layout = network.topology, network.topology.layout
    found: dict[int, list[tuple[int, Any]]] = {}
    for node, value in zip(call.driven, call.drives, strict=True):
        if callable(value) == callable_ones:
            found.setdefault(int(layout.node_array[node]), []).append((node, value))
    result: Landings = {}
    for at, drives in found.items():
        spec = layout.arrays[at]
        field = jnp.zeros((*spec.shape, state.batch_size), field_dtype(spec))
        for node, value in drives:
            if callable(value):
                what, shape = (
                    f"`drive` for node {topology.nodes[node]!r}",
                    topology.node_class(node).shape,
                )
                value = batched(what, value(state), shape, state.batch_size, "field")
                value = value.astype(drive_dtype(what, value, topology, node))
            field = field.at[topology.view(topology.nodes[node]).index].add(
                jnp.moveaxis(value, 0, -1)
            )
        driven = np.zeros(spec.rows, bool)
        driven[layout.rows_of(np.asarray([node for node, _ in drives]))[at]] = True
        result[at] = [
            messages.Landing(
                0, spec.rows, rows_of(spec, field), None if driven.all() else concrete(driven)
            )
        ]
    return result
