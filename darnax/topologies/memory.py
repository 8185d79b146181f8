"""Results that follow from a topology, kept as long as the topology and no longer."""

from collections.abc import Callable, Hashable
from functools import lru_cache, update_wrapper
from typing import TYPE_CHECKING, TypeVar
from weakref import ref

from darnax import checks

if TYPE_CHECKING:
    from darnax.topologies.topology import Topology

T = TypeVar("T")

LIMIT = 256
"""How many results of one function are kept on one topology."""


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """A function `(topology, *arguments)` that works out every result once, the latest 256.

    Results lie on the topology itself: a cache in a module would hold every topology that was ever
    used. Arguments are hashable and equal ones are the same; results must not be changed, nor hold
    the topology.
    """

    @checks.by_hand
    def look_up(topology: "Topology", *arguments: Hashable) -> T:
        results = topology.memory.get(function)
        if results is None:
            # A plain reference would be a circle, which only the garbage collector frees.
            owner = ref(topology)
            results = lru_cache(LIMIT)(lambda *given: function(owner(), *given))
            results = topology.memory.setdefault(function, results)
        return results(*arguments)

    return update_wrapper(look_up, function)
