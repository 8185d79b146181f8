"""The arguments of a call that several analyses are made of."""

from collections.abc import Mapping
from typing import TypedDict

from darnax import checks
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.schedules import ScheduleLike


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
