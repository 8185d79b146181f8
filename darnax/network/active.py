"""Active edges and moving rows of a call, worked out once in NumPy.

Both follow from the topology and from names alone. So they are decided before anything is traced: a
program has no masks but those that it needs, and needs no run-time check of which edges send.
"""

from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

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
        positions = np.flatnonzero(mask != known)
        return cls(concrete(positions.astype(np.int32)))

    def of(self, known: Bool[Array, " n"]) -> Bool[Array, " n"]:
        """The mask."""
        return known.at[self.positions].set(~known[self.positions])


Given: TypeAlias = tuple[Hashable, ...]
"""Names of nodes or of edge kinds as users gave them: hashable, and not looked up yet."""
Active: TypeAlias = dict[int, Flips | None]
"""The groups that send, by position: which of their edges do, and None for all of them."""
EdgeMasks: TypeAlias = dict[int, Bool[Array, "..."] | None]
"""The same as masks of edges."""


@remembered
def active_edges(
    topology: Topology,
    silence: Given,
    kinds: Given | None,
) -> tuple[np.ndarray | None, ...]:
    """For every group which edges send if nodes in `silence` do not, and only edges of `kinds` do.

    None stands for a group of which no edge sends. Raises `ValueError` naming nodes or kinds that
    the topology does not have.
    """
    silent = np.zeros(len(topology), bool)
    nodes = topology.indices("silence", silence)
    silent[list(nodes)] = True
    unknown = set(kinds or ()) - set(topology.edge_kinds)
    if unknown:
        # Users may give anything hashable: only text can be sorted, whatever it is.
        raise ValueError(
            f"`kinds` names {_text.names(sorted(map(str, unknown)))}, which no edge has; "
            f"the edge kinds are {_text.names(topology.edge_kinds)}"
        )
    active = []
    for group in topology.groups:
        senders = topology.columns.senders[group.edges]
        sends = ~silent[senders]
        of_kind = kinds is None or group.kind in kinds
        active.append(sends if of_kind and sends.any() else None)
    return tuple(active)


@remembered
def active_groups(
    topology: Topology,
    silence: Given,
    kinds: Given | None,
) -> Active:
    """The active edges of the groups that send, for JAX."""
    active: Active = {}
    for i, sends in enumerate(active_edges(topology, silence, kinds)):
        if sends is None:
            continue
        # A mask that all edges pass is left out, and so is its cost in every pass.
        active[i] = None
        if not sends.all():
            all_send = np.ones(len(sends), bool)
            active[i] = Flips.between(sends, all_send)
    return active


def edge_masks(topology: Topology, active: Active) -> EdgeMasks:
    """The active edges of every group that sends as a mask; None for all of them."""
    masks: EdgeMasks = {}
    for i, flips in active.items():
        masks[i] = None
        if flips is not None:
            count = len(topology.groups[i].edges)
            masks[i] = flips.of(jnp.ones(count, bool))
    return masks


@remembered
def moving_rows(
    topology: Topology,
    held: tuple[int, ...],
    silence: Given,
    kinds: Given | None,
    driven: tuple[int, ...],
) -> dict[str, np.ndarray]:
    """For every array that can change the rows that can, `(rows,)`.

    A row can move if an active edge sends to a node that covers it, or such a node is driven, and
    no node that covers it is held. A node that nothing reaches keeps its state, and is not sent to
    the answer to a field of zero.
    """
    reached = np.zeros(len(topology), bool)
    reached[list(driven)] = True
    active = active_edges(topology, silence, kinds)
    for group, sends in zip(topology.groups, active, strict=True):
        if sends is not None:
            edges = group.edges[sends]
            reached[topology.columns.receivers[edges]] = True
    layout = topology.layout
    held_rows = layout.rows_of(np.asarray(held, np.int64))
    moves = {}
    reached_rows = layout.rows_of(np.flatnonzero(reached))
    for i, rows in reached_rows.items():
        spec = layout.arrays[i]
        mask = np.zeros(spec.rows, bool)
        mask[rows] = True
        # Where views overlap, the node that is held wins: it keeps all of its cells.
        mask[held_rows.get(i, [])] = False
        if mask.any():
            moves[spec.name] = mask
    return moves


@remembered
def moves_by_default(topology: Topology) -> dict[str, np.ndarray]:
    """The rows that can move in a call without arguments; all rows where none can."""
    found = moving_rows(topology, topology.columns.held, (), None, ())
    moves = {}
    for name, spec in topology.arrays.items():
        # A mask of all rows is no leaf of the network. The array moves in other calls alone, which
        # tell their rows by where they differ from all.
        moves[name] = found.get(name, np.ones(spec.rows, bool))
    return moves


@remembered
def moving_flips(
    topology: Topology,
    held: tuple[int, ...],
    silence: Given,
    kinds: Given | None,
    driven: tuple[int, ...],
) -> dict[str, Flips | None]:
    """The arrays that can change, and how their moving rows differ from those by default.

    None says that all rows can move.
    """
    default = moves_by_default(topology)
    flips: dict[str, Flips | None] = {}
    moves = moving_rows(topology, held, silence, kinds, driven)
    for name, mask in moves.items():
        flips[name] = None
        if not mask.all():
            flips[name] = Flips.between(mask, default[name])
    return flips


def concrete(array: np.ndarray) -> Array:
    """A JAX array that is safe to keep, even where this runs inside a trace."""
    # Results are remembered: a tracer among them would leak into other programs.
    with jax.ensure_compile_time_eval():
        made = on_device(array)
    if isinstance(made, Tracer):
        # `shard_map` without `jit` traces even that, but only in its own thread.
        with ThreadPoolExecutor(1) as elsewhere:
            made = elsewhere.submit(on_device, array).result()
    return made
