"""Event-driven passes: fields are kept, and corrected by the units that changed.

Near rest few units change from one pass to the next, and all would send again. Where the messages
of a group are a weighted sum, its field follows from the one before and from what changed:

    field[r] += w[e] * (x[s] - x_before[s])        for the edges e: s -> r of what changed.

A kept field rounds at every correction, and a sum from scratch rounds in another way. For units
that ask for no more than the sign of their field, this matters only where the field is nearly zero.
So the cells whose field is smaller than what rounding can have done are summed from scratch in
every pass, and all the others have the sign of the plain sum. Where the sum from scratch is that of
plain passes to the last bit, the states are as well; sums of products with matrices, whose last
bits depend on how many samples there are, are made in float64 for these cells.
"""

from functools import partial
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from darnax.dynamics.following import Following, Sums, following
from darnax.dynamics.problem import Constants, Fields, Problem
from darnax.dynamics.visits import InTurn
from darnax.kernels.graph import by_unit
from darnax.network.message_passing import Rows, fitted

GroupFields: TypeAlias = dict[int, Float[Array, "rows *item batch"]]
"""By group the sum of its messages, on all rows of the receiving array."""


class Follower(NamedTuple):
    """The groups whose sums are kept, and how.

    **Fields:**

    - `by_group`: what follows each of them.
    - `groups`: all groups that end at the same arrays, in the order in which their fields add up.
    """

    by_group: dict[int, Following]
    groups: tuple[int, ...]


class Kept(NamedTuple):
    """What an event-driven pass hands to the next one.

    **Fields:**

    - `sent`: of every array that sends, the rows that the sums are of.
    - `sums`: by group the sums of its messages.
    - `largest`: the largest size of any sending state of each sample, and 1 at least. Those that
      move stay within 1, so that it is that of the start.
    """

    sent: Rows
    sums: dict[int, Sums]
    largest: Float[Array, " batch"]


def followed_groups(problem: Problem, batch: int) -> tuple[int, ...]:
    """The groups whose fields can be kept, and where that pays."""
    # The field of an array is asked for once in a pass, all of it.
    order = problem.order
    if not isinstance(order, InTurn) or len(order.visits) > 1:
        return ()
    # A random share of the units moves, and a drive that is a function changes with every pass.
    if problem.schedule.share is not None or any(map(callable, problem.drives)):
        return ()
    return tuple(i for i in problem.changing if _can_follow(problem, i, batch))


def _can_follow(problem: Problem, i: int, batch: int) -> bool:
    """Whether the sums of a group can be kept, and that pays."""
    passing = problem.network.message_passing[i]
    # Sums are those of all edges.
    if problem.active[i] is not None:
        return False
    if following(passing, batch) is None:
        return False
    # Sizes are for states between -1 and 1; those that never move are looked at once a call.
    group = passing.group
    for array in (group.sender.name, group.receiver.name):
        for kind in problem.network.units[array].kinds:
            activation = problem.network.activations[kind]
            if not (activation.by_sign and activation.bounded):
                return False
    return True


def start_following(
    problem: Problem,
    constants: Constants,
    moving: Rows,
    followed: tuple[int, ...],
    batch: int,
) -> tuple[Follower, Kept]:
    """What follows some groups, and what is kept before the first pass."""
    arrays = constants.still | moving
    by_group: dict[int, Following] = {}
    sent: Rows = {}
    sums: dict[int, Sums] = {}
    ends: set[str] = set()
    for i in followed:
        passing = problem.network.message_passing[i]
        group = passing.group
        kind = following(passing, batch)
        assert kind is not None
        own = kind.of(passing, constants.ready[i])
        # A sum in float64 that is rounded to a field of float32 could not be kept as it is.
        if own.sizes.dtype != group.receiver.field_dtype:
            continue
        by_group[i] = own
        sent[group.sender.name] = arrays[group.sender.name]
        sums[i] = own.begin((own.stop - own.start, *group.receiver.item, batch))
        ends.add(group.receiver.name)
    groups: list[int] = []
    for i in problem.changing:
        if problem.network.message_passing[i].group.receiver.name in ends:
            groups.append(i)
    largest = jnp.ones(batch, jnp.float32)
    for rows in sent.values():
        # Cast first: the size of the lowest int8 is no int8.
        sizes = jnp.abs(rows.astype(jnp.float32))
        largest = jnp.maximum(largest, jnp.max(sizes, axis=tuple(range(rows.ndim - 1))))
    return Follower(by_group, tuple(groups)), Kept(sent, sums, largest)


def follow(
    problem: Problem,
    follower: Follower,
    constants: Constants,
    moving: Rows,
    kept: Kept,
) -> tuple[Fields, Kept]:
    """The fields of a pass with the messages of `follower.groups`, and what is kept of it."""
    arrays = constants.still | moving

    def plain(i: int, start: int, stop: int) -> Float[Array, "some *item batch"]:
        passing = problem.network.message_passing[i]
        field = passing.field(constants.ready[i], arrays, constants.active[i])
        return fitted(field, passing.start, start, stop)

    sums: dict[int, Sums] = {}
    fields: GroupFields = {}
    for i in follower.groups:
        group = problem.network.message_passing[i].group
        rows = group.receiver.rows
        own = follower.by_group.get(i)
        if own is None:
            fields[i] = plain(i, 0, rows)
            continue
        states = kept.sent[group.sender.name], arrays[group.sender.name]
        whole = partial(plain, i, own.start, own.stop)
        sums[i] = own.corrected(kept.sums[i], *states, whole)
        fields[i] = fitted(sums[i].field, own.start, 0, rows)

    doubtful = _doubtful_cells(problem, follower, constants.fields, fields, sums, kept.largest)
    for i, own in follower.by_group.items():
        group = problem.network.message_passing[i].group
        cells = doubtful[group.receiver.name][own.start : own.stop]
        whole = partial(plain, i, own.start, own.stop)
        sums[i] = own.resummed(sums[i], arrays[group.sender.name], cells, whole)
        fields[i] = fitted(sums[i].field, own.start, 0, group.receiver.rows)

    sent: Rows = {}
    for array in kept.sent:
        sent[array] = arrays[array]
    totals = _totals(problem, follower, constants.fields, fields)
    return constants.fields | totals, Kept(sent, sums, kept.largest)


def _doubtful_cells(
    problem: Problem,
    follower: Follower,
    constant: Fields,
    fields: GroupFields,
    sums: dict[int, Sums],
    largest: Float[Array, " batch"],
) -> dict[str, Bool[Array, "rows *item batch"]]:
    """The cells, of every array that is followed, whose sign rounding may have decided."""
    # How far the parts of a field go at most, and how far rounding can have taken their sum
    sizes: Fields = {}
    off: Fields = {}
    for array, field in constant.items():
        sizes[array] = jnp.abs(by_unit(field))
    for i in follower.groups:
        spec = problem.network.message_passing[i].group.receiver
        own = follower.by_group.get(i)
        if own is None:
            size = jnp.abs(by_unit(fields[i]))
            rounded = jnp.zeros_like(size)
        else:
            size = own.sizes * largest.astype(own.sizes.dtype)
            rounded = fitted(own.rounded(sums[i]) * size, own.start, 0, spec.rows)
            size = fitted(size, own.start, 0, spec.rows)
        sizes[spec.name] = sizes[spec.name] + size if spec.name in sizes else size
        off[spec.name] = off[spec.name] + rounded if spec.name in off else rounded

    doubtful: dict[str, Array] = {}
    for array, total in _totals(problem, follower, constant, fields).items():
        parts = 1 + len(follower.groups)
        # To add a part rounds by half a unit in the last place, here and in plain passes.
        most = float(jnp.finfo(total.dtype).eps) * (off[array] + parts * sizes[array])
        # `not greater` and no `less`: NaN is doubtful as well. Sums of no correction are plain.
        sure = (jnp.abs(by_unit(total)) > most) | (off[array] == 0)
        doubtful[array] = (~sure).reshape(total.shape)
    return doubtful


def _totals(
    problem: Problem,
    follower: Follower,
    constant: Fields,
    fields: GroupFields,
) -> Fields:
    """The fields of the arrays that are followed; parts add up in the order of plain passes."""
    totals: Fields = {}
    for i in follower.groups:
        array = problem.network.message_passing[i].group.receiver.name
        total = totals.get(array, constant.get(array))
        totals[array] = fields[i] if total is None else total + fields[i]
    return totals
