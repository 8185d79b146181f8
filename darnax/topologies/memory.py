"""Results that depend on a topology alone, kept as long as the topology and no longer."""

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
    """A function `(topology, *arguments)` that keeps its latest `LIMIT` results on the topology.

    A cache in a module would keep every topology that was ever used alive. Arguments are hashable,
    and equal arguments give the same object. A result must not be changed, and must not refer to
    the topology.
    """

    @checks.by_hand
    def look_up(topology: "Topology", *arguments: Hashable) -> T:
        results = topology.memory.get(function)
        if results is None:
            # The topology holds the cache. A plain reference back to it would be a circle, which
            # only the garbage collector frees.
            owner = ref(topology)
            results = lru_cache(LIMIT)(lambda *given: function(owner(), *given))
            # Another thread may have been faster: both use the cache that came first.
            results = topology.memory.setdefault(function, results)
        return results(*arguments)

    return update_wrapper(look_up, function)
