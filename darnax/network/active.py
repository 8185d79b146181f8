"""Who sends and who moves in a call, worked out once in NumPy.

Both follow from the topology and from names alone. So they are decided before anything is traced: a
program has no masks but those that it needs, and needs no run-time check of who sends.
"""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool

from darnax import _text
from darnax._arrays import on_device
from darnax.topologies.memory import remembered
from darnax.topologies.topology import Topology

Active = dict[int, Bool[Array, " edges"] | None]
"""The groups that send, by position: which of their edges do, and None for all of them."""


@remembered
def active_edges(
    topology: Topology, silence: tuple, kinds: tuple | None
) -> tuple[np.ndarray | None, ...]:
    """For every group which edges send if nodes in `silence` do not, and only edges of `kinds` do.

    None stands for a group of which no edge sends. Raises `ValueError` naming nodes or kinds that
    the topology does not have.
    """
    silent = np.zeros(len(topology), bool)
    silent[list(topology.indices("silence", silence))] = True
    unknown = set(kinds or ()) - set(topology.edge_kinds)
    if unknown:
        raise ValueError(
            f"`kinds` names {_text.names(sorted(map(str, unknown)))}, which no edge has; "
            f"the edge kinds are {_text.names(topology.edge_kinds)}"
        )
    found = []
    for group in topology.groups:
        sends = ~silent[topology.columns.senders[group.edges]]
        heard = kinds is None or group.kind in kinds
        found.append(sends if heard and sends.any() else None)
    return tuple(found)


@remembered
def active_groups(topology: Topology, silence: tuple, kinds: tuple | None) -> Active:
    """The same as masks of JAX, for the groups that send."""
    active: Active = {}
    for i, sends in enumerate(active_edges(topology, silence, kinds)):
        if sends is not None:
            active[i] = None if sends.all() else concrete(sends)
    return active


@remembered
def moving_rows(
    topology: Topology, held: tuple[int, ...], silence: tuple, kinds: tuple | None, driven: tuple
) -> dict[str, np.ndarray]:
    """For every array that can change the rows that can, `(rows,)`.

    A row can move if an active edge sends to a node that covers it, or such a node is driven, and
    no node that covers it is held.
    """
    reached = np.zeros(len(topology), bool)
    reached[list(driven)] = True
    active = active_edges(topology, silence, kinds)
    for group, sends in zip(topology.groups, active, strict=True):
        if sends is not None:
            reached[topology.columns.receivers[group.edges[sends]]] = True
    layout = topology.layout
    held_rows = layout.rows_of(np.asarray(held, np.int64))
    moves = {}
    for i, rows in layout.rows_of(np.flatnonzero(reached)).items():
        mask = np.zeros(layout.arrays[i].rows, bool)
        mask[rows] = True
        mask[held_rows.get(i, [])] = False
        if mask.any():
            moves[layout.arrays[i].name] = mask
    return moves


def concrete(array: np.ndarray) -> Array:
    """A JAX array that is safe to keep, even where this runs inside a trace."""
    with jax.ensure_compile_time_eval():
        made = on_device(array)
    if isinstance(
        made, Tracer
    ):  # `shard_map` without `jit` traces even that, but in its own thread
        with ThreadPoolExecutor(1) as elsewhere:
            made = elsewhere.submit(on_device, array).result()
    return made
