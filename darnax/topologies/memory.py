"""Results that follow from a topology, kept as long as the topology and no longer."""

from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Any, TypeVar
from weakref import ref

T = TypeVar("T")

LIMIT = 256


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """A function `(topology, *arguments)` that works out every result once, the last 256 for each
    topology.

    Results lie on the topology itself: a cache in a module would hold every topology that was ever
    used. Arguments are hashable and equal ones are the same; results must not be changed, nor hold
    the topology.
    """

    def look_up(topology: Any, *arguments: Any) -> T:
        results = topology.memory.get(function)
        if results is None:
            owner = ref(
                topology
            )  # a plain reference would be a circle, which only the garbage collector frees
            results = lru_cache(LIMIT)(lambda *given: function(owner(), *given))
            results = topology.memory.setdefault(function, results)
        return results(*arguments)

    return update_wrapper(look_up, function)
