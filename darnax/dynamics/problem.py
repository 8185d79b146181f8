"""The problem: one call of `step`, `rollout` or `relax`, checked and ready to be compiled.

Which edges send and which rows move follow from names alone: so they are decided in NumPy, before
anything is traced, and kept with the topology for the next equal call. Only the values of masks and
drives are data. A program is compiled for a problem and a batch; its arrays are arguments of the
program, never constants.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypedDict

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from darnax import checks
from darnax.activations import name
from darnax.dynamics.arguments import (
    Clamp,
    Drive,
    DriveFunction,
    Drives,
    Kinds,
    Nodes,
    check_driven,
    check_samples,
    clamped,
    driven_field,
    drives_of,
)
from darnax.dynamics.order import Names, everything, order_of
from darnax.dynamics.schedules import Schedule, ScheduleLike, Synchronous, as_schedule
from darnax.dynamics.unit_sweep import sweepable
from darnax.dynamics.visits import InTurn, Sweep
from darnax.network.active import (
    Active,
    EdgeMasks,
    Flips,
    active_groups,
    edge_masks,
    moving_flips,
)
from darnax.network.message_passing import Ready, Rows, fitted
from darnax.network.network import Network, check_state, random_couplings
from darnax.states.graph import GraphState

Fields = dict[str, Float[Array, "..."]]
"""Local fields, or parts of them, by array, each as its rows."""


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
    ready: dict[int, Ready]
    fields: Fields
    moves: dict[str, Bool[Array, "..."] | None]
    held: dict[str, Bool[Array, "..."]]
    still: dict[str, Shaped[Array, "..."]]


class Problem(eqx.Module):
    """Everything that a call asks for, checked once.

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
    drives: tuple[Float[Array, "..."] | DriveFunction, ...]
    driven: tuple[int, ...] = eqx.field(static=True)

    def at_once(self) -> "Problem":
        """The same problem with everything updated at once: its fixed points are the same."""
        return replace(self, order=self.everything, schedule=Synchronous())

    @property
    def moving_kinds(self) -> list[str]:
        """The kinds of units on the arrays that move, sorted.

        On a shared array these are the kinds of all its nodes, also where some of them are held.
        """
        kinds: set[str] = set()
        for array in self.moves:
            kinds.update(self.network.units[array].kinds)
        return sorted(kinds)

    @property
    def rough_kinds(self) -> list[str]:
        """Those of the kinds that move whose units have no derivative."""
        found: list[str] = []
        for kind in self.moving_kinds:
            if not self.network.activations[kind].differentiable:
                found.append(kind)
        return found

    @property
    def never_rests(self) -> str | None:
        """The first units or couplings with noise that take part, in words; None for none."""
        for kind in self.moving_kinds:
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

    def moving(self, state: GraphState) -> Rows:
        """The arrays of a state that move, each as its rows: what a loop of passes carries."""
        rows = state.rows()
        # Others are read by passes and never change.
        return {array: rows[array] for array in self.moves}

    def constants(self, state: GraphState) -> Constants:
        """What does not change from pass to pass, from the state that a call starts at."""
        rows = state.rows()
        active = edge_masks(self.network.topology, self.active)
        # masks of cells, which are data
        held: dict[str, Array] = {}
        for array in self.moves:
            mask = self._held_cells(array)
            if mask is not None:
                held[array] = mask
        ready = self._ready(active)
        fields = self._constant_fields(state, rows, active)
        # masks of rows, which follow from names
        moves: dict[str, Array | None] = {}
        for array in self.moves:
            moves[array] = self._moving_rows(array)
        still: Rows = {}
        for array, value in rows.items():
            if array not in self.moves:
                still[array] = value
        return Constants(
            active,
            ready,
            fields,
            moves,
            held,
            still,
        )

    def _held_cells(self, array: str) -> Bool[Array, "rows *item batch"] | None:
        """The cells of an array that masks hold, with a batch of 1 where all samples share them."""
        topology = self.network.topology
        spec = topology.arrays[array]
        here: list[tuple[int, Array]] = []
        for node, mask in zip(self.masked, self.masks, strict=True):
            if topology.array_of(node).name == array:
                here.append((node, mask))
        if not here:
            return None
        batch = max(len(mask) for _, mask in here)
        cells = jnp.zeros((*spec.shape, batch), bool)
        for node, mask in here:
            # `max` is the union: where views overlap, one mask that holds a cell is enough.
            view = topology.view_at(node).index
            cells = cells.at[view].max(jnp.moveaxis(mask, 0, -1))
        return spec.as_rows(cells)

    def _ready(self, active: EdgeMasks) -> dict[int, Ready]:
        changing: EdgeMasks = {}
        for i in self.changing:
            changing[i] = active[i]
        # A sweep takes a few edges at a time, and kernels take all.
        return self.network.ready(changing, by_edge=self.order.lists_edges)

    def _constant_fields(
        self,
        state: GraphState,
        rows: Rows,
        active: EdgeMasks,
    ) -> Fields:
        """Messages that do not change, drives that are no functions, and biases, added up."""
        topology, network = self.network.topology, self.network
        total: Fields = {}
        lasting: EdgeMasks = {}
        for i in self.lasting:
            lasting[i] = active[i]
        for i, parameters in network.ready(lasting).items():
            passing = network.message_passing[i]
            spec = passing.group.receiver
            field = passing.field(parameters, rows, active[i])
            # A group sums over the rows that its messages span, a field has all rows of the array.
            _add(total, spec.name, fitted(field, passing.start, 0, spec.rows))
        for array, field in self.driven_fields(state, functions=False).items():
            _add(total, array, field)
        for array in self.moves:
            bias = network.bias(topology.arrays[array])
            if bias is not None:
                _add(total, array, bias[..., None])
        return total

    def _moving_rows(self, array: str) -> Bool[Array, " rows"] | None:
        """The rows of an array that can change; None for all."""
        flips = self.moves[array]
        if flips is None:
            return None
        known = self.network.units[array].moves
        if known is None:
            spec = self.network.topology.arrays[array]
            known = jnp.ones(spec.rows, bool)
        return flips.of(known)

    def driven_fields(self, state: GraphState, functions: bool) -> Fields:
        """The fields of the drives that are functions of the state, or of the others."""
        topology = self.network.topology
        fields: Fields = {}
        for node, value in zip(self.driven, self.drives, strict=True):
            if callable(value) != functions:
                continue
            spec = topology.array_of(node)
            # What a function gives is known only here, and checked like an array of the user's.
            if callable(value):
                value = driven_field(topology, node, value(state), state.batch_size)
            field = fields.get(spec.name)
            if field is None:
                shape = *spec.shape, state.batch_size
                field = jnp.zeros(shape, spec.field_dtype)
            # Drives add up where views overlap, as messages do.
            view = topology.view_at(node).index
            batch_last = jnp.moveaxis(value, 0, -1)
            fields[spec.name] = field.at[view].add(batch_last)
        for array, field in fields.items():
            fields[array] = topology.arrays[array].as_rows(field)
        return fields


def _add(
    total: Fields,
    array: str,
    field: Float[Array, "..."],
):
    total[array] = total[array] + field if array in total else field


class Arguments(TypedDict):
    """The arguments that `step`, `relax` and `pose` have in common."""

    schedule: ScheduleLike
    clamp: Clamp
    silence: Nodes
    kinds: Kinds
    drive: Drive


@checks.by_hand
def arguments(
    *,
    schedule: ScheduleLike,
    clamp: Clamp,
    silence: Nodes,
    kinds: Kinds,
    drive: Drive,
) -> Arguments:
    """The arguments of a call in a form that can be read several times: generators as tuples."""
    return Arguments(
        schedule=schedule,
        clamp=clamp if isinstance(clamp, Mapping) else checks.names("clamp", clamp),
        silence=checks.names("silence", silence),
        kinds=None if kinds is None else checks.names("kinds", kinds),
        drive=drive,
    )


@checks.by_hand
def pose(
    network: Network,
    state: GraphState,
    *,
    schedule: ScheduleLike,
    clamp: Clamp,
    silence: Nodes,
    kinds: Kinds,
    drive: Drive,
) -> Problem:
    """The problem of a call, from its arguments."""
    check_state(network, state)
    check_samples(network, state.batch_size)
    schedule = as_schedule(schedule)
    topology = network.topology
    held, masks = clamped(topology, state.batch_size, clamp)
    drives = drives_of(topology, state.batch_size, drive)
    names = Names(
        held=held,
        kinds=None if kinds is None else checks.names("kinds", kinds),
        silence=checks.names("silence", silence),
        driven=tuple(drives),
    )
    active = active_groups(topology, names.silence, names.kinds)
    moves = moving_flips(topology, *names)
    check_driven(network, names.driven, names.held)
    # Messages change where their sender can move, or their coupling asks for more than its state:
    # its receiver, which moves as well, or a key. All others are worked out once a call.
    changing: list[int] = []
    lasting: list[int] = []
    for i in active:
        passing = network.message_passing[i]
        if passing.group.receiver.name not in moves:
            continue
        can_change = passing.group.sender.name in moves or passing.asks
        (changing if can_change else lasting).append(i)
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
    network: Network,
    schedule: Schedule,
    names: Names,
    changing: list[int],
    drives: Drives,
) -> InTurn | Sweep:
    """The visits of a pass."""
    topology = network.topology
    by_node: set[str] = set()
    for array, units in network.units.items():
        if units.nodes:
            by_node.add(array)
    stepped: frozenset[str] = frozenset()
    if schedule.by_unit:
        # A drive that is a function is asked anew before every unit, and not in a sweep of units.
        asking: set[str] = set()
        for node, drive in drives.items():
            if callable(drive):
                asking.add(topology.array_of(node).name)
        stepped = sweepable(network) - asking
    return order_of(
        topology,
        schedule,
        names,
        frozenset(changing),
        frozenset(by_node),
        stepped,
    )
