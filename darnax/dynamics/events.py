"""Event-driven passes: fields are kept, and corrected by the units that changed.

Near rest few units change from one pass to the next, and all would send again. Where the messages
of a group are a weighted sum, its field follows from the one before and from what changed:

    field[r] += w[e] * (x[s] - x_before[s])        for the edges e: s -> r of what changed.

A kept field rounds at every correction, and a sum from scratch rounds in another way. For units
that ask for no more than the sign of their field, this matters only where the field is nearly zero.
So the cells whose field is smaller than what rounding can have done are summed from scratch in
every pass, and all the others have the sign of the plain sum. The states are those of plain passes,
to the last bit.
"""

from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from darnax.dynamics.problem import Constants, Fields, Problem
from darnax.dynamics.visits import InTurn
from darnax.kernels.following import Following
from darnax.kernels.graph import by_unit
from darnax.network.message_passing import Rows, fitted

FEW = 4
"""Samples up to which it pays: more of them are summed side by side, in the time of few."""
MOST = 32
"""Corrections after which fields are summed from scratch, whatever has changed."""


GroupFields: TypeAlias = dict[int, Float[Array, "rows *item batch"]]
"""By group the sum of its messages, on the rows that it sends to."""


class Follower(NamedTuple):
    """The groups whose fields are kept, and what corrections read.

    **Fields:**

    - `kept`: the groups whose fields are kept.
    - `groups`: all groups that end at the same arrays, in the order in which their fields add up.
    - `reach`: by receiving array how far rounding can take a sum, for states between -1 and 1:
      `(rows, units or 1, 1)`.
    """

    kept: tuple[int, ...]
    groups: tuple[int, ...]
    reach: dict[str, Float[Array, "rows item 1"]]


class Kept(NamedTuple):
    """What an event-driven pass hands to the next one.

    **Fields:**

    - `sent`: of every array that sends, the rows that the fields are of.
    - `fields`: by group the sum of its messages.
    - `largest`: the largest size of any sending state of each sample, and 1 at least. Those that
      move stay within 1, so that it is that of the start.
    - `passes`: how often the fields were corrected since they were summed from scratch.
    """

    sent: Rows
    fields: GroupFields
    largest: Float[Array, " batch"]
    passes: Int[Array, ""]


def followed_groups(problem: Problem, batch: int) -> tuple[int, ...]:
    """The groups whose fields can be kept, and where that pays."""
    if batch > FEW:
        return ()
    # The field of an array is asked for once in a pass, all of it.
    order = problem.order
    if not isinstance(order, InTurn) or len(order.visits) > 1:
        return ()
    # A random share of the units moves, and a drive that is a function changes with every pass.
    if problem.schedule.share is not None or any(map(callable, problem.drives)):
        return ()
    return tuple(i for i in problem.changing if _can_follow(problem, i))


def _can_follow(problem: Problem, i: int) -> bool:
    """Whether the field of a group can be kept."""
    passing = problem.network.message_passing[i]
    group = passing.group
    # A kernel sums over all edges; where some of them are silent it does not run.
    if problem.active[i] is not None or not isinstance(passing.kernel, Following):
        return False
    # `reach` is for states between -1 and 1; those that never move are looked at once a call.
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
    reach: Rows = {}
    sent: Rows = {}
    fields: GroupFields = {}
    for i in followed:
        passing = problem.network.message_passing[i]
        kernel, group = passing.kernel, passing.group
        assert isinstance(kernel, Following)
        reached = kernel.reach(constants.ready[i])
        # A sum in float64 that is rounded to a field of float32 could not be kept as it is.
        if reached.dtype != group.receiver.field_dtype:
            continue
        name = group.receiver.name
        own = fitted(reached, passing.start, 0, group.receiver.rows)
        reach[name] = reach[name] + own if name in reach else own
        sent[group.sender.name] = arrays[group.sender.name]
        shape = passing.stop - passing.start, *group.receiver.item, batch
        fields[i] = jnp.zeros(shape, reached.dtype)
    groups: list[int] = []
    for i in problem.changing:
        if problem.network.message_passing[i].group.receiver.name in reach:
            groups.append(i)
    largest = jnp.ones(batch, jnp.float32)
    for rows in sent.values():
        # Cast first: the size of the lowest int8 is no int8.
        sizes = jnp.abs(rows.astype(jnp.float32))
        largest = jnp.maximum(largest, jnp.max(sizes, axis=tuple(range(rows.ndim - 1))))
    follower = Follower(tuple(fields), tuple(groups), reach)
    # The first pass sums from scratch.
    return follower, Kept(sent, fields, largest, jnp.full((), MOST, jnp.int32))


def follow(
    problem: Problem,
    follower: Follower,
    constants: Constants,
    moving: Rows,
    kept: Kept,
) -> tuple[Fields, Kept]:
    """The fields of a pass with the messages of `follower.groups`, and what is kept of it."""
    network = problem.network
    arrays = constants.still | moving
    # A kernel may sum from scratch of its own accord, which takes rounding away as well.
    anew = kept.passes >= MOST
    passes = jnp.where(anew, 0, kept.passes + 1)
    fields: GroupFields = {}
    plain: GroupFields = {}
    for i in follower.groups:
        passing = network.message_passing[i]
        if i not in follower.kept:
            plain[i] = passing.field(constants.ready[i], arrays, constants.active[i])
            continue
        kernel, sender = passing.kernel, passing.group.sender.name
        assert isinstance(kernel, Following)
        fields[i] = kernel.corrected(
            constants.ready[i],
            kept.fields[i],
            kept.sent[sender],
            arrays[sender],
            anew,
        )

    # the cells whose sign rounding may have decided
    parts = constants.fields, plain, fields
    cells: dict[str, Array] = {}
    for array, total in _totals(problem, follower, *parts).items():
        largest = kept.largest.astype(total.dtype)
        size = follower.reach[array] * largest + _size(problem, array, constants.fields, plain)
        # A sum of n terms rounds n times, and a correction of all of them twice as often.
        roundings = (1 + 2 * passes).astype(total.dtype)
        off = roundings * float(jnp.finfo(total.dtype).eps) * size
        # `not greater` and no `less`: NaN is doubtful as well.
        sure = jnp.abs(by_unit(total)) > off
        cells[array] = (~sure).reshape(total.shape)

    for i, field in fields.items():
        passing = network.message_passing[i]
        kernel, group = passing.kernel, passing.group
        assert isinstance(kernel, Following)
        fields[i] = kernel.resummed(
            constants.ready[i],
            field,
            arrays[group.sender.name],
            cells[group.receiver.name][passing.start : passing.stop],
        )
    sent: Rows = {}
    for array in kept.sent:
        sent[array] = arrays[array]
    totals = _totals(problem, follower, *parts)
    return constants.fields | totals, Kept(sent, fields, kept.largest, passes)


def _totals(
    problem: Problem,
    follower: Follower,
    constant: Fields,
    plain: GroupFields,
    kept: GroupFields,
) -> Fields:
    """The fields of the arrays that are followed; parts add up in the order of plain passes."""
    totals: Fields = {}
    for i in follower.groups:
        passing = problem.network.message_passing[i]
        spec = passing.group.receiver
        own = kept[i] if i in kept else plain[i]
        field = fitted(own, passing.start, 0, spec.rows)
        total = totals.get(spec.name, constant.get(spec.name))
        totals[spec.name] = field if total is None else total + field
    return totals


def _size(
    problem: Problem,
    array: str,
    constant: Fields,
    plain: GroupFields,
) -> Float[Array, "rows item batch"] | float:
    """How large the parts of the field of an array are that are not kept."""
    size = jnp.abs(by_unit(constant[array])) if array in constant else 0.0
    for i, own in plain.items():
        passing = problem.network.message_passing[i]
        spec = passing.group.receiver
        if spec.name == array:
            size = size + jnp.abs(by_unit(fitted(own, passing.start, 0, spec.rows)))
    return size
