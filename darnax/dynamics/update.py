"""The update: what one visit does, and a pass as the updates of its visits."""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from darnax.dynamics.problem import Constants, Fields, Problem
from darnax.dynamics.residual import Scales, change_to_target
from darnax.dynamics.unit_sweep import answer_one_by_one
from darnax.dynamics.visits import AnyVisit, Changes, Keys, Residual
from darnax.network.message_passing import Rows, outer
from darnax.noise import chosen
from darnax.states.graph import GraphState


def one_pass(
    problem: Problem,
    constants: Constants,
    moving: Rows,
    keys: Keys = None,
    scales: Scales | None = None,
) -> tuple[Rows, Residual]:
    """The moving arrays after one pass, and the residual of every sample if `scales` are given.

    It is that of the arrays that have scales.
    """
    arrays = constants.still | moving
    residual = None
    if scales is not None:
        # Made from an array of the state, it is spread over devices like one inside of `shard_map`.
        like = next(iter(arrays.values()))
        residual = jnp.zeros_like(like, shape=like.shape[-1:], dtype=scales.dtype)
    visit = partial(update, problem, constants, keys, scales)
    arrays, residual = problem.order.run(visit, arrays, residual)
    # Arrays that stand still would be carried by the loop for nothing.
    moved: Rows = {}
    for array in moving:
        moved[array] = arrays[array]
    return moved, residual


def update(
    problem: Problem,
    constants: Constants,
    keys: Keys,
    scales: Scales | None,
    arrays: Rows,
    residual: Residual,
    visit: AnyVisit,
) -> tuple[Changes, Residual]:
    """What a visit changes: fields, answers, and the states of the cells that are free to move.

    It serves every visit of every schedule. All visited rows are worked out, since to pick some of
    them would cost more, and the mask of free cells decides at the end which of them are changed.
    """
    network = problem.network
    changes: Changes = {}
    for array, field in local_fields(problem, constants, keys, arrays, visit).items():
        rows = visit.rows[array]
        units = network.units[array]
        old = rows.take(arrays[array])
        free = _free(constants, visit, array, old)
        # the answers, as if all units were updated
        if array in visit.stepped:
            loops = visit.loops(network, constants.ready, array)
            ids = rows.take(units.ids)
            answer = answer_one_by_one(
                network,
                array,
                ids,
                old,
                field,
                loops,
                free,
                keys,
            )
        else:
            answer = units.answer(network.activations, rows, old, field, keys)
        # the cells that take their answer
        moves = free
        share = problem.schedule.share
        if share is not None:
            assert keys is not None
            ids = rows.take(units.ids)
            moves = both(free, chosen(ids, keys, old.shape[1:-1], share))
        new = answer.value.astype(old.dtype)
        if moves is not None:
            new = jnp.where(moves, new, old)
        changes[array] = rows, new
        # The residual is that of all free cells, whether a random schedule moves them or not. That
        # of arrays without scales is found elsewhere.
        if scales is not None and residual is not None and array in scales.by_array:
            change = change_to_target(
                problem,
                array,
                answer.target,
                new,
                old,
                free,
            )
            residual = jnp.maximum(residual, scales.relative(array, rows, change))
    return changes, residual


def local_fields(
    problem: Problem,
    constants: Constants,
    keys: Keys,
    arrays: Rows,
    visit: AnyVisit,
) -> Fields:
    """The local fields of the visited rows."""
    network = problem.network
    driven: Fields = {}
    if any(map(callable, problem.drives)):
        state = GraphState.of_rows(network.topology, arrays)
        driven = problem.driven_fields(state, functions=True)
    # what does not depend on the state, and drives
    fields: Fields = {}
    for array, rows in visit.rows.items():
        spec = network.topology.arrays[array]
        like = rows.take(arrays[array])
        field = jnp.zeros(like.shape, spec.field_dtype)
        for part in (constants.fields.get(array), driven.get(array)):
            if part is not None:
                field = field + rows.take(part)
        fields[array] = field
    # messages
    for i in problem.changing:
        passing = network.message_passing[i]
        array = passing.group.receiver.name
        if array in fields:
            ready, active = constants.ready[i], constants.active[i]
            fields[array] = visit.add_messages(
                fields[array],
                passing,
                ready,
                arrays,
                active,
                keys,
            )
    return fields


def _free(
    constants: Constants,
    visit: AnyVisit,
    array: str,
    old: Shaped[Array, "some *item batch"],
) -> Bool[Array, "some ..."] | None:
    """The cells of the visited rows that can change; None for all.

    Its last axis is 1 where all samples share it, which costs a read less for every cell.
    """
    rows = visit.rows[array]
    free = visit.members[array]  # (some,), as are the rows that can move
    moves = constants.moves[array]
    if moves is not None:
        free = both(free, rows.take(moves))
    if free is not None:
        free = outer(free, old.ndim)
    held = constants.held.get(array)
    if held is not None:
        free = both(free, ~rows.take(held))
    return both(free, visit.chosen_cell(array, old))


def both(
    a: Bool[Array, "..."] | None,
    b: Bool[Array, "..."] | None,
) -> Bool[Array, "..."] | None:
    """Two masks as one; None restricts nothing."""
    if a is None:
        return b
    if b is None:
        return a
    return a & b
