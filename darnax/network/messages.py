"""Message passing: gather the senders, apply the coupling, sum at the receivers.

Inside, an array is its rows, `(rows, *item, B)`; the batch stands last because neighbours are then
gathered as contiguous rows of the batch. Messages add up on the rows, so that where views overlap
all that lands on a cell is added, once.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Shaped

from darnax import _text
from darnax._arrays import on_device
from darnax._lazy import Lazy
from darnax.couplings.coupling import over_batch, per_edge, pick
from darnax.network.plan import GroupIndex
from darnax.states.graph import GraphState
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.layout import ArraySpec
from darnax.topologies.memory import remembered
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

SILENT, SOME, ALL = range(3)

Arrays = dict[int, Array]
Heard = tuple[Array, ...]
"""The states of senders `(E, *sender_shape, B)`, and of receivers where a coupling asks for
them."""


def arrays_of(state: GraphState) -> Arrays:
    """The arrays of a state by position."""
    return dict(enumerate(state.arrays.values()))


def with_arrays(state: GraphState, arrays: Arrays) -> GraphState:
    """The state with these arrays in place of its own."""
    own = arrays_of(state) | arrays
    return jax.tree.unflatten(jax.tree.structure(state), [own[at] for at in range(len(own))])


class Speakers(eqx.Module):
    """Which edges speak in a call.

    **Fields:**

    - `modes`: for every edge group whether none, some or all of its edges speak.
    - `silent`: for groups of which some speak, the rows of the silent senders; on a shared array,
      which edges are silent.
    """

    modes: tuple[int, ...] = eqx.field(static=True)
    silent: dict[int, Int[Array, " rows"] | Bool[Array, " edges"]]


@remembered
def speakers(topology: Topology, silence: tuple, kinds: tuple | None) -> Speakers:
    """Who speaks if the nodes in `silence` do not, and only edges of `kinds` do (None: all).

    Raises `ValueError` naming nodes or kinds that the topology does not have.
    """
    quiet_nodes = np.zeros(len(topology), bool)
    quiet_nodes[list(topology.indices("silence", silence))] = True
    unknown = set(kinds or ()) - set(topology.edge_kinds)
    if unknown:
        raise ValueError(
            f"`kinds` names {_text.names(sorted(map(str, unknown)))}, which no edge has; "
            f"the edge kinds are {_text.names(topology.edge_kinds)}"
        )
    modes, silent = [], {}
    for i, group in enumerate(topology.groups):
        senders = topology.columns.senders[group.edges]
        quiet = quiet_nodes[senders]
        if quiet.all() or (kinds is not None and group.kind not in kinds):
            modes.append(SILENT)
        elif not quiet.any():
            modes.append(ALL)
        else:
            modes.append(SOME)
            stacked = not topology.layout.arrays[group.sender_array].shared
            silent[i] = concrete(
                np.unique(group.senders[quiet]).astype(np.int32) if stacked else quiet
            )
    return Speakers(tuple(modes), silent)


def concrete(array: np.ndarray) -> Array:
    """A JAX array that is safe to keep, even where this runs inside a trace."""
    with jax.ensure_compile_time_eval():
        made = on_device(array)
    if isinstance(
        made, Tracer
    ):  # `shard_map` without `jit` traces even that, but only in its own thread
        with ThreadPoolExecutor(1) as elsewhere:
            made = elsewhere.submit(on_device, array).result()
    return made


class Landing(NamedTuple):
    """What lands on rows `start` to `stop` of an array, and on which of them (None: all)."""

    start: int
    stop: int
    field: Float[Array, "rows *item batch"]
    heard: Bool[Array, " rows"] | None


class Run(NamedTuple):
    """Neighbouring rows on which the same landings fall; `field` is None where none does."""

    start: int
    stop: int
    field: Float[Array, "rows *item batch"] | None
    heard: Bool[Array, " rows"] | None


def rows_of(spec: ArraySpec, array: Shaped[Array, "..."]) -> Shaped[Array, "rows ..."]:
    """An array as its rows."""
    return array.reshape(spec.rows, *array.shape[len(spec.lead) :])


def outer(rows: Bool[Array, " rows"], ndim: int) -> Bool[Array, "..."]:
    """A mask of rows with axes for the item and the batch."""
    return rows.reshape(-1, *[1] * (ndim - 1))


def gather(
    group: EdgeGroup, index: GroupIndex, spec: ArraySpec, array: Shaped[Array, "..."]
) -> Shaped[Array, "..."]:
    """The senders' states, `(E, *sender_shape, B)`."""
    if index.senders is not None:
        return (
            rows_of(spec, array)
            .at[index.senders]
            .get(mode="promise_in_bounds", wrap_negative_indices=False)
        )
    assert group.sender_index is not None
    return array[group.sender_index][None] if spec.shared else array[group.sender_index]


def send(coupling: Any, tied: bool, ends: Heard, dtype: Any) -> Shaped[Array, "..."]:
    """The messages of all edges of a group, `(E, *receiver_shape, B)` in `dtype`.

    `coupling` has a leading axis of E edges where `per_edge` says so.
    """
    leaves = [leaf for leaf in jax.tree.leaves(coupling) if eqx.is_inexact_array(leaf)]
    ends = tuple(x.astype(leaves[0].dtype if leaves else dtype) for x in ends)
    arrays, static = eqx.partition(coupling, eqx.is_array)

    def of_one(arrays: Any, *ends: Array) -> Array:
        return over_batch(eqx.combine(arrays, static), *ends)

    if len(ends[0]) == 1:
        return of_one(pick(arrays, tied, 0), *(x[0] for x in ends))[None].astype(dtype)
    axes = jax.tree.map(lambda own: 0 if own else None, per_edge(arrays, tied))
    return jax.vmap(of_one, in_axes=(axes, *[0] * len(ends)))(arrays, *ends).astype(dtype)


def land(
    group: EdgeGroup, index: GroupIndex, spec: ArraySpec, messages: Array, spoken: Array | None
) -> Landing:
    """The messages summed at their receivers; `spoken` tells which edges spoke (None: all of
    them).
    """
    if spoken is not None:
        messages = jnp.where(outer(spoken, messages.ndim), messages, 0)
    heard = index.heard
    if index.receivers is not None:
        cells = messages.reshape(-1, *spec.item, messages.shape[-1])
        field = jraph.segment_sum(cells, index.receivers, index.stop - index.start)
        if spoken is not None:
            spoken = jnp.repeat(spoken, len(cells) // len(messages))
            heard = jnp.zeros(index.stop - index.start, bool).at[index.receivers].max(spoken)
        return Landing(index.start, index.stop, field, heard)
    assert group.receiver_index is not None
    if not spec.shared:
        return Landing(index.start, index.stop, messages, spoken)
    field, heard = spread(group.receiver_index, spec, messages[0])
    return Landing(0, spec.rows, field, heard)


def spread(view: Sequence[int | slice], spec: ArraySpec, value: Shaped[Array, "*view batch"]):
    """A value of a view as rows of its shared array, zero elsewhere; and which rows it covers
    (None: all).
    """
    full = value.reshape(
        *[
            1 if isinstance(part, int) else len(range(part.start, part.stop, part.step))
            for part in view
        ],
        -1,
    )
    edges = [
        (part, size - part - 1, 0)
        if isinstance(part, int)
        else (part.start, size - part.stop, part.step - 1)
        for part, size in zip(view, spec.lead, strict=True)
    ]
    field = jax.lax.pad(full, jnp.zeros((), full.dtype), [*edges, (0, 0, 0)])
    covered = None
    if full.size < field.size:
        covered = rows_of(spec, jnp.zeros(spec.lead, bool).at[tuple(view)].set(True))
    return rows_of(spec, field), covered


def runs(landings: Sequence[Landing], rows: int) -> list[Run]:
    """The rows of an array cut where the set of landings changes, messages added up."""
    cuts = sorted(
        {0, rows, *(landing.start for landing in landings), *(landing.stop for landing in landings)}
    )
    result = []
    for start, stop in pairwise(cuts):
        here = [landing for landing in landings if landing.start <= start and stop <= landing.stop]
        if not here:
            result.append(Run(start, stop, None, None))
            continue
        parts = [landing.field[start - landing.start : stop - landing.start] for landing in here]
        heard = None
        if all(landing.heard is not None for landing in here):
            masks = [
                landing.heard[start - landing.start : stop - landing.start]
                for landing in here
                if landing.heard is not None
            ]
            heard = jnp.any(jnp.stack(masks), axis=0)
        result.append(Run(start, stop, sum(parts[1:], parts[0]), heard))
    return result


def fields(runs: Sequence[Run], spec: ArraySpec, batch: int) -> Float[Array, "rows *item batch"]:
    """The field of all rows of an array, zero where nothing lands."""
    zeros = [
        jnp.zeros((run.stop - run.start, *spec.item, batch), field_dtype(spec))
        for run in runs
        if run.field is None
    ]
    parts = [zeros.pop(0) if run.field is None else run.field for run in runs]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def heard_rows(runs: Sequence[Run]) -> Bool[Array, " rows"]:
    """Which rows of an array anything lands on."""
    return jnp.concatenate(
        [
            jnp.full(r.stop - r.start, r.field is not None) if r.heard is None else r.heard
            for r in runs
        ]
    )


def spoken(
    speakers: Speakers, i: int, index: GroupIndex, group: EdgeGroup, spec: ArraySpec
) -> Bool[Array, " edges"] | None:
    """Which edges of group `i` speak; None for all."""
    if speakers.modes[i] == ALL:
        return None
    silent = speakers.silent[i]
    if spec.shared:
        return ~silent
    speaks = jnp.ones(spec.rows, bool).at[silent].set(False)
    return speaks[group.sender_index] if index.senders is None else speaks[index.senders]


def landings(
    network: Any, arrays: Mapping[int, Array], speakers: Speakers, couplings: Mapping[int, Any]
) -> dict[int, list[Landing]]:
    """For every array what lands on it, in the order of the groups.

    `couplings` holds those of the groups to run, as `Network.ready` gives them.
    """
    topology = network.topology
    specs = topology.layout.arrays
    result: dict[int, list[Landing]] = {}
    for i, coupling in couplings.items():
        group, index = topology.groups[i], network.plan.groups[i]
        kernel, sender, receiver = (
            network.kernel(i, speakers),
            specs[group.sender_array],
            specs[group.receiver_array],
        )
        if kernel is None:
            speaks = spoken(speakers, i, index, group, sender)
            landing = land(group, index, receiver, say(network, i, coupling, arrays), speaks)
        else:
            field = kernel(coupling, *both_ends(network, i, arrays), field_dtype(receiver))
            landing = Landing(index.start, index.stop, field, index.heard)
        result.setdefault(group.receiver_array, []).append(landing)
    return result


def say(
    network: Any, i: int, coupling: Any, arrays: Mapping[int, Array]
) -> Float[Array, "edges *receiver batch"]:
    """What the edges of group `i` say, as if all of them spoke."""
    return said(network, i, coupling, heard_from(network, i, arrays))


def heard_from(network: Any, i: int, arrays: Mapping[int, Array]) -> Heard:
    """What the messages of group `i` are made of, edge by edge."""
    group, index, specs = (
        network.topology.groups[i],
        network.plan.groups[i],
        network.topology.layout.arrays,
    )
    senders = gather(group, index, specs[group.sender_array], arrays[group.sender_array])
    if not index.hears_receiver:
        return (senders,)
    receivers = rows_of(specs[group.receiver_array], arrays[group.receiver_array])[
        receiver_rows(network, i)
    ]
    return senders, receivers.reshape(-1, *group.receiver_shape, receivers.shape[-1])


def both_ends(network: Any, i: int, arrays: Mapping[int, Array]) -> tuple[Array, Array]:
    """What a kernel makes the messages of group `i` of: the rows that can send, and those it is
    summed over.
    """
    group, index, specs = (
        network.topology.groups[i],
        network.plan.groups[i],
        network.topology.layout.arrays,
    )
    sending, hearing = (
        rows_of(specs[at], arrays[at]) for at in (group.sender_array, group.receiver_array)
    )
    return sending, hearing[index.start : index.stop]


def receiver_rows(network: Any, i: int) -> Any:
    """The rows that the edges of group `i` end at, `(E, *lead)`: a slice where they are regular."""
    group, index = network.topology.groups[i], network.plan.groups[i]
    if index.receivers is not None:
        return (index.receivers + index.start).reshape(group.receivers.shape)
    if network.topology.layout.arrays[group.receiver_array].shared:
        return jnp.asarray(group.receivers)
    return slice(index.start, index.stop)


def said(network: Any, i: int, coupling: Any, ends: Heard) -> Float[Array, "edges *receiver batch"]:
    """What the edges of group `i` make of the states of their ends."""
    group = network.topology.groups[i]
    dtype = field_dtype(network.topology.layout.arrays[group.receiver_array])
    return send(coupling, group.tie is not None, ends, dtype)


def field_dtype(spec: ArraySpec) -> Any:
    """Messages and fields are float32 whatever the state is, float64 where the state is."""
    return jnp.float64 if spec.dtype == "float64" else jnp.float32
