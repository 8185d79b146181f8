"""Who sends and who moves in a call, worked out once in NumPy.

Both follow from the topology and from names alone. So they are decided before anything is traced: a
program has no masks but those that it needs, and needs no run-time check of who sends.
"""

from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from darnax import _text
from darnax._arrays import on_device
from darnax.topologies.memory import remembered
from darnax.topologies.topology import Topology


class Flips(eqx.Module):
    """A mask as the positions where it differs from a known one.

    Inside of a user's own `jit` everything made here is a constant of the program. A mask of all
    rows or edges would be a large one; where it differs from what the network has as a leaf are few
    positions.
    """

    positions: Int[Array, " some"]

    @classmethod
    def between(cls, mask: np.ndarray, known: np.ndarray) -> "Flips":
        """The flips that make one mask of another, in NumPy."""
        return cls(concrete(np.flatnonzero(mask != known).astype(np.int32)))

    def of(self, known: Bool[Array, " n"]) -> Bool[Array, " n"]:
        """The mask."""
        return known.at[self.positions].set(~known[self.positions])


Active = dict[int, Flips | None]
"""The groups that send, by position: which of their edges do, and None for all of them."""
EdgeMasks = dict[int, Bool[Array, "..."] | None]
"""The same as masks of edges."""


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
    """The same for JAX, of the groups that send."""
    active: Active = {}
    for i, sends in enumerate(active_edges(topology, silence, kinds)):
        if sends is not None:
            all_send = np.ones(len(sends), bool)
            active[i] = None if sends.all() else Flips.between(sends, all_send)
    return active


def edge_masks(topology: Topology, active: Active) -> EdgeMasks:
    """The active edges of every group that sends as a mask; None for all of them."""
    masks: EdgeMasks = {}
    for i, flips in active.items():
        count = len(topology.groups[i].edges)
        masks[i] = None if flips is None else flips.of(jnp.ones(count, bool))
    return masks


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


@remembered
def moves_by_default(topology: Topology) -> dict[str, np.ndarray]:
    """The rows that can move in a call without arguments; all rows where none can."""
    found = moving_rows(topology, topology.columns.held, (), None, ())
    moves = {}
    for name, spec in topology.arrays.items():
        moves[name] = found.get(name, np.ones(spec.rows, bool))
    return moves


@remembered
def moving_flips(
    topology: Topology, held: tuple[int, ...], silence: tuple, kinds: tuple | None, driven: tuple
) -> dict[str, Flips | None]:
    """The arrays that can change, and how their moving rows differ from those by default.

    None says that all rows can move.
    """
    default, flips = moves_by_default(topology), {}
    for name, mask in moving_rows(topology, held, silence, kinds, driven).items():
        flips[name] = None if mask.all() else Flips.between(mask, default[name])
    return flips


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
