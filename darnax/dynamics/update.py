"""The update: what one visit does, and a pass as the updates of its visits."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from darnax.dynamics.problem import Constants, Problem
from darnax.dynamics.residual import Scales, change_to_target
from darnax.dynamics.visits import Changes, Visit
from darnax.network.message_passing import Rows, outer
from darnax.noise import chosen
from darnax.states.graph import GraphState

Keys = Key[Array, " batch"] | None


def one_pass(
    problem: Problem,
    constants: Constants,
    moving: Rows,
    keys: Keys = None,
    scales: Scales | None = None,
) -> tuple[Rows, Float[Array, " batch"] | None]:
    """The moving arrays after one pass, and the residual of every sample if `scales` are given."""

    def visit(arrays: Rows, residual: Any, visit: Visit) -> tuple[Changes, Any]:
        return update(problem, constants, arrays, visit, keys, scales, residual)

    residual = None
    if scales is not None:
        # like an array of the state, it is spread over devices inside of `shard_map`
        like = next(iter((constants.still | moving).values()))
        residual = jnp.zeros_like(like, shape=like.shape[-1:], dtype=scales.dtype)
    arrays, residual = problem.order.run(visit, constants.still | moving, residual)
    return {array: arrays[array] for array in moving}, residual


def update(
    problem: Problem,
    constants: Constants,
    arrays: Rows,
    visit: Visit,
    keys: Keys,
    scales: Scales | None,
    residual: Float[Array, " batch"] | None,
) -> tuple[Changes, Float[Array, " batch"] | None]:
    """What a visit changes: fields, answers, and the states of the cells that are free to move.

    It serves every visit of every schedule. All visited rows are worked out, since to pick some of
    them would cost more, and the mask of free cells decides at the end which of them are changed.
    """
    network, changes = problem.network, {}
    for array, field in _fields(problem, constants, arrays, visit, keys).items():
        rows = visit.rows[array]
        old = rows.take(arrays[array])
        free = _free(constants, visit, array, old)
        answer = visit.answer(network, constants.ready, array, old, field, free, keys)
        moves = free
        share = problem.schedule.share
        if share is not None:
            assert keys is not None
            ids = rows.take(network.units[array].ids)
            moves = both(free, chosen(ids, keys, old.shape[1:-1], share))
        new = answer.value.astype(old.dtype)
        new = new if moves is None else jnp.where(moves, new, old)
        if scales is not None and residual is not None:
            change = change_to_target(problem, array, answer.target, new, old, free)
            residual = jnp.maximum(residual, scales.relative(array, rows, change))
        changes[array] = rows, new
    return changes, residual


def _fields(
    problem: Problem, constants: Constants, arrays: Rows, visit: Visit, keys: Keys
) -> dict[str, Float[Array, "..."]]:
    """The local fields of the visited rows."""
    network = problem.network
    driven: Rows = {}
    if any(map(callable, problem.drives)):
        state = GraphState.of_rows(network.topology, arrays)
        driven = problem.driven_fields(state, functions=True)
    fields = {}
    for array, rows in visit.rows.items():
        spec = network.topology.arrays[array]
        like = rows.take(arrays[array])
        field = jnp.zeros(like.shape, spec.field_dtype)
        for part in (constants.fields.get(array), driven.get(array)):
            if part is not None:
                field = field + rows.take(part)
        fields[array] = field
    for i in problem.changing:
        passing = network.message_passing[i]
        array = passing.group.receiver.name
        if array in fields:
            ready, active = constants.ready[i], constants.active[i]
            fields[array] = visit.add_messages(fields[array], passing, ready, arrays, active, keys)
    return fields


def _free(
    constants: Constants, visit: Visit, array: str, old: Array
) -> Bool[Array, "some *item _"] | None:
    """The cells of the visited rows that can change; None for all."""
    rows, free = visit.rows[array], visit.members[array]
    moves = constants.moves[array]
    if moves is not None:
        free = both(free, rows.take(moves))
    free = None if free is None else outer(free, old.ndim)
    held = constants.held.get(array)
    if held is not None:
        free = both(free, ~rows.take(held))
    return both(free, visit.chosen_cell(array, old))


def both(a: Array | None, b: Array | None) -> Array | None:
    """Two masks as one; None restricts nothing."""
    if a is None or b is None:
        return b if a is None else a
    return a & b
