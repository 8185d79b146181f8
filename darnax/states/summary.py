"""The table of a state: its arrays, the nodes in them, and the range of their values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.core import Tracer

from darnax import _html
from darnax._text import Table
from darnax.topologies.names import some
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    from darnax.states.graph import GraphState

LARGEST = 2**24
"""The most numbers of which the range is worked out: more take a second."""


def state_html(state: "GraphState") -> str:
    """The arrays of a state as a page."""
    return _html.page(repr(state), [_html.table(values_table(state.topology, state.arrays))])


def values_table(topology: Topology, arrays: Mapping[str, object]) -> Table:
    """A row for every array."""
    rows: list[tuple[object, ...]] = []
    for array, spec in enumerate(topology.layout.arrays):
        value = arrays[spec.name]
        names = [topology.nodes[node] for node in topology.layout.members[array].tolist()]
        # A state that went through `jax.tree.map` may hold anything.
        dtype, shape = getattr(value, "dtype", ""), getattr(value, "shape", type(value).__name__)
        rows.append((spec.name, dtype, shape, some(names, 5), *_range(value)))
    return Table(("array", "dtype", "shape", "nodes", "least", "mean", "most"), rows)


def _range(value: object) -> tuple[str, str, str]:
    """The least, the mean and the largest number of an array; nothing where that is not known."""
    if not isinstance(value, (np.ndarray, jax.Array)) or isinstance(value, Tracer):
        return "", "", ""
    if isinstance(value, jax.Array) and value.is_deleted():
        return "deleted", "", ""
    if not value.size or value.size > LARGEST or not jax.numpy.issubdtype(value.dtype, np.number):
        return "", "", ""
    numbers = np.asarray(value)
    if np.iscomplexobj(numbers):
        numbers = abs(numbers)
    # Means of small types would overflow.
    numbers = numbers.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    lost = numbers.size - finite.size
    if lost:
        return f"{lost} not finite", "", ""
    return f"{finite.min():.4g}", f"{finite.mean():.4g}", f"{finite.max():.4g}"
