"""The problem: one call of `step`, `rollout` or `relax`, checked and ready to be compiled."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped
from numpy.typing import ArrayLike

from darnax import _text, checks
from darnax._arrays import on_device
from darnax.activations import name
from darnax.dynamics.order import Names, everything, order_of
from darnax.dynamics.schedules import Schedule, Synchronous, as_schedule
from darnax.dynamics.unit_sweep import sweepable
from darnax.dynamics.visits import InTurn, Sweep
from darnax.network.activations import check_activations
from darnax.network.active import (
    Active,
    EdgeMasks,
    Flips,
    active_groups,
    edge_masks,
    moving_flips,
)
from darnax.network.message_passing import Rows, fitted
from darnax.network.network import Network, check_state, random_couplings
from darnax.states.graph import GraphState
from darnax.states.values import as_array, cast
from darnax.topologies.memory import remembered
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

Nodes: TypeAlias = Iterable[Name]
"""Names of nodes."""
Clamp: TypeAlias = Nodes | Mapping[Name, ArrayLike | bool]
"""Nodes that are held, or by node a mask of its cells `(*shape)` or `(B, *shape)`; False lets
go."""
Kinds: TypeAlias = Iterable[str] | None
"""The edge kinds that send; None for all."""
Drive: TypeAlias = Mapping[Name, ArrayLike | Callable[[GraphState], ArrayLike]] | None
"""By node what is added to its field, `(*shape)` or `(B, *shape)`, or a function that gives it."""


class Problem(eqx.Module):
    """Everything that a call asks for, checked once.

    Which edges send and which rows move follow from names alone: so they are decided in NumPy,
    before anything is traced, and kept with the topology for the next equal call. Only the values
    of masks and drives are data. A program is compiled for a problem and a batch; its arrays are
    arguments of the program, never constants.

    **Fields:**

    - `network`, `schedule`: what runs, and in which order.
    - `active`: the groups that send, and which of their edges; None for all of them.
    - `changing`: those of them whose messages can change within the call, to arrays that move.
    - `lasting`: those whose messages to such arrays stay the same.
    - `moves`: the arrays that can change, and how the rows that can differ from those of a call
      without arguments; None for all rows.
    - `order`, `everything`: the visits of a pass, and one visit to all that can move.
    - `masks`, `drives`: their values, for the nodes `masked` and `driven`.
    """

    network: Network
    schedule: Schedule = eqx.field(static=True)
    active: Active
    changing: tuple[int, ...] = eqx.field(static=True)
    lasting: tuple[int, ...] = eqx.field(static=True)
    moves: dict[str, Flips | None]
    order: InTurn | Sweep
    everything: InTurn
    masks: tuple[Bool[Array, "..."], ...]
    masked: tuple[int, ...] = eqx.field(static=True)
    drives: tuple[Any, ...]
    driven: tuple[int, ...] = eqx.field(static=True)

    def at_once(self) -> "Problem":
        """The same problem with everything updated at once: its fixed points are the same."""
        return replace(self, order=self.everything, schedule=Synchronous())

    @property
    def never_rests(self) -> str | None:
        """The first units or couplings with noise that take part, in words; None for none."""
        for array in self.moves:
            for kind in self.network.units[array].kinds:
                activation = self.network.activations[kind]
                if activation.draws is not None:
                    return f"nodes of kind {kind!r} are random ({name(activation)})"
        return random_couplings(self.network, self.changing)

    @property
    def random(self) -> str | None:
        """The first thing that draws random numbers, in words; None for nothing."""
        if self.never_rests is not None or self.schedule.share is None:
            return self.never_rests
        return "`asynchronous` visits a random share of the cells"

    # what the passes of a call have in common

    def constants(self, state: GraphState) -> "Constants":
        """What does not change from pass to pass, from the state that a call starts at."""
        rows = state.rows()
        active = edge_masks(self.network.topology, self.active)
        held = {}
        for array in self.moves:
            mask = self._held_cells(array)
            if mask is not None:
                held[array] = mask
        return Constants(
            active=active,
            ready=self._ready(active),
            fields=self._constant_fields(state, rows, active),
            moves={array: self._moving_rows(array) for array in self.moves},
            held=held,
            still={array: value for array, value in rows.items() if array not in self.moves},
        )

    def _moving_rows(self, array: str) -> Bool[Array, " rows"] | None:
        """The rows of an array that can change; None for all."""
        flips, known = self.moves[array], self.network.units[array].moves
        if flips is None:
            return None
        if known is None:
            known = jnp.ones(self.network.topology.arrays[array].rows, bool)
        return flips.of(known)

    def _ready(self, active: EdgeMasks) -> dict[int, Any]:
        changing = {i: active[i] for i in self.changing}
        # a sweep takes a few edges at a time, and kernels take all
        return self.network.ready(changing, by_edge=self.order.lists_edges)

    def _constant_fields(
        self, state: GraphState, rows: Rows, active: EdgeMasks
    ) -> dict[str, Array]:
        """Messages that do not change, drives that are no functions, and biases, added up."""
        topology, network = self.network.topology, self.network
        total: dict[str, Array] = {}
        ready = network.ready({i: active[i] for i in self.lasting})
        for i, parameters in ready.items():
            passing = network.message_passing[i]
            spec = passing.group.receiver
            field = passing.field(parameters, rows, active[i])
            _add(total, spec.name, fitted(field, passing.start, 0, spec.rows))
        for array, field in self.driven_fields(state, functions=False).items():
            _add(total, array, field)
        for array in self.moves:
            bias = network.bias(topology.arrays[array])
            if bias is not None:
                _add(total, array, bias[..., None])
        return total

    def driven_fields(self, state: GraphState, functions: bool) -> dict[str, Array]:
        """The fields of the drives that are functions of the state, or of the others."""
        topology = self.network.topology
        fields: dict[str, Array] = {}
        for node, value in zip(self.driven, self.drives, strict=True):
            if callable(value) != functions:
                continue
            spec = topology.array_of(node)
            if callable(value):
                value = _driven_field(topology, node, value(state), state.batch_size)
            if spec.name not in fields:
                fields[spec.name] = jnp.zeros((*spec.shape, state.batch_size), spec.field_dtype)
            view = topology.view_at(node).index
            fields[spec.name] = fields[spec.name].at[view].add(jnp.moveaxis(value, 0, -1))
        return {array: topology.arrays[array].as_rows(field) for array, field in fields.items()}

    def _held_cells(self, array: str) -> Bool[Array, "rows *item batch"] | None:
        """The cells of an array that masks hold, with a batch of 1 where all samples share them."""
        topology = self.network.topology
        spec = topology.arrays[array]
        here = []
        for node, mask in zip(self.masked, self.masks, strict=True):
            if topology.array_of(node).name == array:
                here.append((node, mask))
        if not here:
            return None
        batch = max(len(mask) for _, mask in here)
        cells = jnp.zeros((*spec.shape, batch), bool)
        for node, mask in here:
            cells = cells.at[topology.view_at(node).index].max(jnp.moveaxis(mask, 0, -1))
        return spec.as_rows(cells)


class Constants(NamedTuple):
    """What all passes of a call read and none changes, worked out once in the program.

    **Fields:**

    - `active`: the edges that send, by group; None for all of them.
    - `ready`: the parameters of the changing groups, as their message passing takes them.
    - `fields`: of arrays that move, the part of the field that does not change.
    - `moves`: of arrays that move, the rows that can; None for all.
    - `held`: of arrays that move, the cells that masks hold.
    - `still`: the arrays that do not move. They are read, and are no part of what a loop carries.
    """

    active: EdgeMasks
    ready: dict[int, Any]
    fields: dict[str, Float[Array, "..."]]
    moves: dict[str, Bool[Array, "..."] | None]
    held: dict[str, Bool[Array, "..."]]
    still: dict[str, Shaped[Array, "..."]]


def _add(total: dict[str, Array], array: str, field: Array) -> None:
    total[array] = total[array] + field if array in total else field


@checks.by_hand
def pose(
    network: Network,
    state: GraphState,
    *,
    schedule: Any,
    clamp: Clamp,
    silence: Nodes,
    kinds: Kinds,
    drive: Drive,
) -> Problem:
    """The problem of a call, from its arguments."""
    check_state(network, state)
    schedule = as_schedule(schedule)
    topology = network.topology
    held, masks = _clamped(topology, state.batch_size, clamp)
    drives = _drives(topology, state.batch_size, drive)
    kinds = None if kinds is None else checks.names("kinds", kinds)
    names = Names(held, checks.names("silence", silence), kinds, tuple(drives))
    active = active_groups(topology, names.silence, names.kinds)
    moves = moving_flips(topology, *names)
    changing, lasting = [], []
    for i in active:
        passing = network.message_passing[i]
        if passing.group.receiver.name not in moves:
            continue
        can_change = passing.group.sender.name in moves or passing.asks
        (changing if can_change else lasting).append(i)
    _check_driven(network, names)
    return Problem(
        network=network,
        schedule=schedule,
        active=active,
        changing=tuple(changing),
        lasting=tuple(lasting),
        moves=moves,
        order=_order(network, schedule, names, changing, drives),
        everything=everything(topology, names),
        masks=tuple(masks.values()),
        masked=tuple(masks),
        drives=tuple(drives.values()),
        driven=tuple(drives),
    )


def _order(
    network: Network, schedule: Schedule, names: Names, changing: list[int], drives: dict[int, Any]
) -> InTurn | Sweep:
    topology = network.topology
    by_node = frozenset(array for array, units in network.units.items() if units.nodes)
    stepped: frozenset[str] = frozenset()
    if schedule.by_unit:
        functions = {topology.array_of(n).name for n, drive in drives.items() if callable(drive)}
        stepped = sweepable(network) - functions
    return order_of(topology, schedule, names, frozenset(changing), by_node, stepped)


# arguments


def _clamped(
    topology: Topology, batch: int, clamp: Any
) -> tuple[tuple[int, ...], dict[int, Bool[Array, "..."]]]:
    """The nodes that are held as a whole, and the masks of those that are held in part."""
    held = dict.fromkeys(topology.columns.held)
    masks: dict[int, Any] = {}
    if not isinstance(clamp, Mapping):
        nodes = topology.indices("clamp", checks.names("clamp", clamp))
        return tuple(sorted(held | dict.fromkeys(nodes))), masks
    for node, mask in zip(topology.indices("clamp", clamp), clamp.values(), strict=True):
        held.pop(node, None)
        if isinstance(mask, (bool, np.bool_)):
            if mask:
                held[node] = None
            continue
        what, shape = f"`clamp` for node {topology.nodes[node]!r}", topology.node_class(node).shape
        masks[node] = on_device(_batched(what, mask, shape, batch, "mask"))
    wrong = [topology.nodes[node] for node, mask in masks.items() if mask.dtype != bool]
    if wrong:
        raise TypeError(
            f"`clamp` takes masks of bool, but those for {_text.names(wrong)} are not; compare, as "
            "in x > 0"
        )
    return tuple(sorted(held)), masks


def _drives(topology: Topology, batch: int, drive: Any) -> dict[int, Any]:
    """The drives by node: functions, and fields `(1 or B, *shape)`."""
    if drive is None:
        return {}
    checks.mapping("drive", drive, "nodes to arrays or functions of the state")
    result = {}
    for node, value in zip(topology.indices("drive", drive), drive.values(), strict=True):
        if not callable(value):
            value = on_device(_driven_field(topology, node, value, batch))
        result[node] = value
    return result


def _driven_field(topology: Topology, node: int, value: Any, batch: int) -> Any:
    """What a drive of a node gives, as its field."""
    what, shape = f"`drive` for node {topology.nodes[node]!r}", topology.node_class(node).shape
    value = _batched(what, value, shape, batch, "field")
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise TypeError(f"{what} is real, but got {value.dtype}; take its real part")
    return cast(what, value, topology.array_of(node).field_dtype)


def _batched(what: str, given: Any, shape: tuple[int, ...], batch: int, noun: str) -> Any:
    """What was given as an array of shape `(1, *shape)` or `(batch, *shape)`."""
    value = as_array(what, given)
    holds = f"{what} is a {noun} of shape {shape} or {(batch, *shape)}"
    if value.dtype.kind not in "biufcV":  # V: bfloat16 and its like
        raise TypeError(f"{holds}, but got {checks.came(given)}; give one")
    if value.shape == shape:
        return value[None]
    if value.shape != (batch, *shape):
        raise ValueError(f"{holds}, but got {value.shape}; reshape it")
    return value


def _check_driven(network: Network, names: Names) -> None:
    """Nodes that are driven can move, and have an activation that suits them."""
    topology = network.topology
    held = sorted(set(names.driven) & set(names.held))
    if held:
        raise ValueError(
            f"`drive` would move nodes {topology.named(held)}, which are held in this call; drop "
            "them there, or let an input go by clamp={node: False}"
        )
    kinds = {topology.node_class(node).kind for node in names.driven} - set(network.activations)
    if kinds:
        raise ValueError(
            f"`drive` moves nodes of kinds {_text.names(sorted(kinds))}, which have no activation; "
            "give them one"
        )
    unchecked = _without_edges(topology, names.driven)
    check_activations(topology, network.activations, unchecked)


@remembered
def _without_edges(topology: Topology, nodes: tuple[int, ...]) -> np.ndarray:
    """The nodes that no edge ends at: nobody has looked at their activation yet."""
    return np.setdiff1d(np.asarray(nodes, np.int64), topology.columns.receivers)
