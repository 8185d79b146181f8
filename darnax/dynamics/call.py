"""The arguments of a call, checked once and turned into index arrays: who speaks, who is held, who
is driven.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from darnax import _text, checks
from darnax._arrays import on_device
from darnax.activations import name, needs
from darnax.dynamics.schedules import Asynchronous, Schedule, UnitByUnit, block_of
from darnax.dynamics.sweep import InTurn, Sweep, in_turn, sweep
from darnax.dynamics.units import can_step
from darnax.network.build import as_key, check_activations
from darnax.network.messages import SILENT, SOME, Speakers, concrete, field_dtype, speakers
from darnax.network.network import Network, check_state
from darnax.states.values import as_array, cast
from darnax.topologies.memory import remembered
from darnax.topologies.topology import Topology


class Frame(eqx.Module):
    """What a call means on a topology, apart from the values of masks and drives.

    **Fields:**

    - `speakers`: which edges speak.
    - `sweep`: the visits of a pass, or None where everything is updated at once.
    - `held`: for arrays of which some rows are held by name, these rows; the key is missing where
      the network's own list says it.
    - `moving`: arrays that can change.
    - `changing`: groups whose messages can change: their senders can, or they hear their receivers
      too.
    - `partly_held`: those of them that have rows held by name.
    """

    speakers: Speakers
    sweep: Sweep | InTurn | None
    held: dict[int, Int[Array, " rows"]]
    moving: tuple[int, ...] = eqx.field(static=True)
    changing: frozenset[int] = eqx.field(static=True)
    partly_held: tuple[int, ...] = eqx.field(static=True)


class Call(eqx.Module):
    """A checked call: its frame, the masks of cells and the drives, node by node."""

    frame: Frame
    masks: tuple[Bool[Array, "..."], ...]
    drives: tuple[Any, ...]
    schedule: Schedule = eqx.field(static=True)
    masked: tuple[int, ...] = eqx.field(static=True)
    driven: tuple[int, ...] = eqx.field(static=True)


def prepare(
    network: Any, state: Any, *, schedule: Any, clamp: Any, silence: Any, kinds: Any, drive: Any
) -> Call:
    """The arguments of `step`, `relax` and `rollout`, checked."""
    check_state(network, state)
    checks.instance(
        "schedule", schedule, Schedule, "a schedule such as dx.synchronous()", "give one"
    )
    topology = network.topology
    names, masks = _clamps(topology, state.batch_size, clamp)
    drives = _drives(topology, state.batch_size, drive)
    frame = _frame(
        topology,
        schedule,
        names,
        checks.names("silence", silence),
        None if kinds is None else checks.names("kinds", kinds),
        tuple(drives),
        tuple(at for at, index in enumerate(network.plan.arrays) if index.nodes),
        _stepped(network, schedule, drives),
        tuple(i for i, index in enumerate(network.plan.groups) if index.hears_receiver),
    )
    _check_driven(network, names, tuple(drives))
    return Call(
        frame, tuple(masks.values()), tuple(drives.values()), schedule, tuple(masks), tuple(drives)
    )


@remembered
def _frame(
    topology: Topology,
    schedule: Schedule,
    held: tuple[int, ...],
    silence: tuple,
    kinds: tuple | None,
    driven: tuple[int, ...],
    whole: tuple[int, ...],
    stepped: tuple[int, ...],
    two_ended: tuple[int, ...],
) -> Frame:
    speaking = speakers(topology, silence, kinds)
    hears = np.zeros(len(topology), bool)
    hears[list(driven)] = True
    quiet = set(topology.indices("silence", silence))
    for group, mode in zip(topology.groups, speaking.modes, strict=True):
        if mode != SILENT:
            ends = topology.columns.senders[group.edges], topology.columns.receivers[group.edges]
            hears[ends[1] if mode != SOME else ends[1][~np.isin(ends[0], list(quiet))]] = True
    layout = topology.layout
    held_rows = layout.rows_of(np.asarray(held, np.int64))
    heard_rows = layout.rows_of(np.flatnonzero(hears))
    moving_rows = {at: np.setdiff1d(rows, held_rows.get(at, [])) for at, rows in heard_rows.items()}
    moving_rows = {at: rows for at, rows in moving_rows.items() if len(rows)}
    moving = tuple(moving_rows)
    partly = tuple(at for at in moving if at in held_rows)
    named = layout.rows_of(np.asarray(topology.columns.held, np.int64))
    given = {
        at: concrete(held_rows[at].astype(np.int32))
        for at in partly
        if not np.array_equal(held_rows[at], named.get(at, []))
    }
    changing = frozenset(
        i
        for i, group in enumerate(topology.groups)
        if group.sender_array in moving or i in two_ended
    )
    block = block_of(topology)
    movable = layout.covering(moving_rows)
    visits = schedule.visits(topology, movable)
    plan = None
    if visits is not None:
        visits = [nodes[np.isin(block[nodes], block[movable])] for nodes in visits]
        visits = [nodes for nodes in visits if len(nodes)]
        units = isinstance(schedule, UnitByUnit)
        plan = None if units else in_turn(topology, visits)
        plan = plan or sweep(topology, visits, speaking, changing, units, whole, stepped)
    return Frame(
        speaking,
        plan,
        given,
        moving if visits is None or plan is not None else (),
        changing,
        partly,
    )


def _stepped(network: Network, schedule: Schedule, drives: Mapping[int, Any]) -> tuple[int, ...]:
    """Arrays whose nodes are swept unit by unit at the cost of a pass."""
    if not isinstance(schedule, UnitByUnit):
        return ()
    moved = {
        int(network.topology.layout.node_array[node])
        for node, drive in drives.items()
        if callable(drive)
    }
    return tuple(at for at in can_step(network) if at not in moved)


def _clamps(topology: Topology, batch: int, clamp: Any) -> tuple[tuple[int, ...], dict[int, Array]]:
    """Nodes held as a whole, and masks of those held in part."""
    held = dict.fromkeys(topology.columns.held)
    masks = {}
    if not isinstance(clamp, Mapping):
        return tuple(
            sorted(held | dict.fromkeys(topology.indices("clamp", checks.names("clamp", clamp))))
        ), masks
    for at, mask in zip(topology.indices("clamp", clamp), clamp.values(), strict=True):
        held.pop(at, None)
        if isinstance(mask, (bool, np.bool_)):
            if mask:
                held[at] = None
            continue
        what, shape = f"`clamp` for node {topology.nodes[at]!r}", topology.node_class(at).shape
        masks[at] = on_device(batched(what, mask, shape, batch, "mask"))
    wrong = [topology.nodes[at] for at, mask in masks.items() if mask.dtype != bool]
    if wrong:
        raise TypeError(
            f"`clamp` takes masks of bool, but those for {_text.names(wrong)} are not; compare, as "
            "in x > 0"
        )
    return tuple(sorted(held)), masks


def _drives(topology: Topology, batch: int, drive: Any) -> dict[int, Any]:
    if drive is None:
        return {}
    checks.mapping("drive", drive, "nodes to arrays or functions of the state")
    result = {}
    for at, value in zip(topology.indices("drive", drive), drive.values(), strict=True):
        what = f"`drive` for node {topology.nodes[at]!r}"
        if not callable(value):
            value = batched(what, value, topology.node_class(at).shape, batch, "field")
            value = on_device(cast(what, value, drive_dtype(what, value, topology, at)))
        result[at] = value
    return result


def drive_dtype(what: str, value: Any, topology: Topology, at: int) -> Any:
    """The dtype of the field that a drive of node `at` adds to; drives are real."""
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise TypeError(f"{what} is real, but got {value.dtype}; take its real part")
    return field_dtype(topology.array_of(at))


def batched(what: str, given: Any, shape: tuple[int, ...], batch: int, noun: str) -> Any:
    """What was given as an array of shape `(1, *shape)` or `(batch, *shape)`."""
    value = as_array(what, given)
    if value.dtype.kind not in "biufcV":  # V: bfloat16 and its like
        raise TypeError(
            f"{what} is a {noun} of shape {shape} or {(batch, *shape)}, but got "
            f"{checks.came(given)}; give one"
        )
    if value.shape == shape:
        return value[None]
    if value.shape != (batch, *shape):
        raise ValueError(
            f"{what} is a {noun} of shape {shape} or {(batch, *shape)}, but got {value.shape}; "
            "reshape it"
        )
    return value


def _check_driven(network: Network, held: tuple[int, ...], driven: tuple[int, ...]):
    """What is driven can move; what hears nobody needs no activation until then."""
    still = sorted(set(driven) & set(held))
    if still:
        raise ValueError(
            f"`drive` would move nodes {network.topology.named(still)}, which are held in this "
            "call; drop them there, or let an input go by clamp={node: False}"
        )
    kinds = {network.topology.node_class(at).kind for at in driven} - set(network.activations)
    if kinds:
        raise ValueError(
            f"`drive` moves nodes of kinds {_text.names(sorted(kinds))}, which have no activation; "
            "give them one"
        )
    check_activations(network.topology, network.activations, _hear_nobody(network.topology, driven))


@remembered
def _hear_nobody(topology: Topology, nodes: tuple[int, ...]) -> np.ndarray:
    """Those of some nodes that no edge ends at: nobody has looked at their activation yet."""
    return np.setdiff1d(np.asarray(nodes, np.int64), topology.columns.receivers)


def sample_keys(
    network: Network, frame: Frame, schedule: Schedule, key: Any, batch: int
) -> Key[Array, " batch"] | None:
    """One key a sample; None where nothing is random. `ValueError` where something is and no key is
    given.
    """
    noisy = noisy_kinds(network, frame)
    if key is None:
        if noisy:
            who = f"nodes of kind {noisy[0]!r} are random ({name(network.activations[noisy[0]])})"
            raise ValueError(f"`key` is missing: {who}; give jax.random.key(0)")
        if isinstance(schedule, Asynchronous):
            raise ValueError(
                "`key` is missing: `asynchronous` visits a random share of the cells; give "
                "jax.random.key(0)"
            )
        return None
    key = as_key(key)
    if key.shape not in ((), (batch,)):
        raise ValueError(
            f"`key` is one key or one for each of the {batch} samples, but got keys of shape "
            f"{key.shape}"
        )
    if not noisy and not isinstance(schedule, Asynchronous):
        return None
    return key if key.ndim else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))


def noisy_kinds(network: Network, frame: Frame) -> list[str]:
    """Node kinds that are random and can change in this call."""
    kinds = {kind for at in frame.moving for kind in network.plan.arrays[at].kinds}
    return sorted(
        kind
        for kind in kinds
        if kind in network.activations and "key" in needs(network.activations[kind])
    )
