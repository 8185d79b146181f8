"""Arguments of a call that name cells and give them values: clamps and drives, checked and read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from darnax import _text, checks
from darnax._arrays import on_device
from darnax.activations import name
from darnax.network.activations import check_activations
from darnax.network.network import Network
from darnax.states.graph import GraphState
from darnax.states.values import AnyArray, as_array, cast
from darnax.topologies.memory import remembered
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

Nodes: TypeAlias = Iterable[Name]
"""Names of nodes."""
Clamp: TypeAlias = Nodes | Mapping[Name, ArrayLike | bool]
"""Nodes that are held, or by node a mask of its cells `(*shape)` or `(B, *shape)`; False lets
go."""
Kinds: TypeAlias = Iterable[str] | None
"""The edge kinds that send; None for all."""
DriveFunction: TypeAlias = Callable[[GraphState], ArrayLike]
"""The field of one node as a function of the whole state."""


@runtime_checkable
class DriveBySample(Protocol):
    """A drive that is a function, and knows what it is for some of the samples.

    With others a relaxation goes on with all samples until the last one rests: a function may hold
    numbers for each of them.
    """

    def __call__(self, state: GraphState) -> ArrayLike:
        """The field of its node."""
        ...

    def of_samples(self, samples: Int[Array, " some"], shape: tuple[int, ...]) -> DriveFunction:
        """The drive of the samples at these positions, at a node of this shape."""
        ...


Drive: TypeAlias = Mapping[Name, ArrayLike | DriveFunction] | None
"""By node what is added to its field, `(*shape)` or `(B, *shape)`, or a function that gives it."""

Masks: TypeAlias = dict[int, Bool[Array, "..."]]
"""By node the cells that are held, `(1, *shape)` or `(B, *shape)`."""
Drives: TypeAlias = dict[int, Float[Array, "..."] | DriveFunction]
"""By node a function, or a field `(1, *shape)` or `(B, *shape)`."""


@checks.by_hand
def clamped(
    topology: Topology,
    batch: int,
    clamp: Clamp,
) -> tuple[tuple[int, ...], Masks]:
    """The nodes that are held as a whole, and the masks of those that are held in part."""
    held = set(topology.columns.held)
    masks: Masks = {}
    if not isinstance(clamp, Mapping):
        nodes = topology.indices("clamp", checks.names("clamp", clamp))
        return tuple(sorted(held.union(nodes))), masks
    nodes = topology.indices("clamp", clamp)
    for node, mask in zip(nodes, clamp.values(), strict=True):
        # Whoever is named in a mapping is held as it says and no further: inputs can be let go.
        held.discard(node)
        if isinstance(mask, (bool, np.bool_)):
            if mask:
                held.add(node)
            continue
        what = f"`clamp` for node {topology.nodes[node]!r}"
        shape = topology.node_class(node).shape
        masks[node] = on_device(_batched(what, mask, shape, batch, "mask"))
    wrong: list[Name] = []
    for node, mask in masks.items():
        if mask.dtype != bool:
            wrong.append(topology.nodes[node])
    if wrong:
        raise TypeError(
            f"`clamp` takes masks of bool, but those for {_text.names(wrong)} are not; compare, as "
            "in x > 0"
        )
    return tuple(sorted(held)), masks


@checks.by_hand
def drives_of(
    topology: Topology,
    batch: int,
    drive: Drive,
) -> Drives:
    """The drives by node: functions as they are, arrays as fields."""
    if drive is None:
        return {}
    checks.mapping("drive", drive, "nodes to arrays or functions of the state")
    drives: Drives = {}
    nodes = topology.indices("drive", drive)
    for node, value in zip(nodes, drive.values(), strict=True):
        if callable(value):
            drives[node] = value
        else:
            drives[node] = on_device(driven_field(topology, node, value, batch))
    return drives


def driven_field(
    topology: Topology,
    node: int,
    value: object,
    batch: int,
) -> AnyArray:
    """What a drive of a node gives, as its field: `(1, *shape)` or `(batch, *shape)`."""
    what = f"`drive` for node {topology.nodes[node]!r}"
    shape = topology.node_class(node).shape
    field = _batched(what, value, shape, batch, "field")
    if jnp.issubdtype(field.dtype, jnp.complexfloating):
        raise TypeError(f"{what} is real, but got {field.dtype}; take its real part")
    return cast(what, field, topology.array_of(node).field_dtype)


def _batched(
    what: str,
    given: object,
    shape: tuple[int, ...],
    batch: int,
    noun: str,
) -> AnyArray:
    """What was given as an array of shape `(1, *shape)` or `(batch, *shape)`."""
    value = as_array(what, given)
    holds = f"{what} is a {noun} of shape {shape} or {(batch, *shape)}"
    if value.dtype.kind not in "biufcV":  # V: bfloat16 and its like
        raise TypeError(f"{holds}, but got {checks.came(given)}; give one")
    if value.shape == shape:
        return value[None]
    if value.shape != (batch, *shape):
        raise ValueError(f"{holds}, but got {value.shape}; reshape it")
    return value


def check_driven(
    network: Network,
    driven: tuple[int, ...],
    held: tuple[int, ...],
):
    """Nodes that are driven can move, and have an activation that suits them."""
    topology = network.topology
    stuck = sorted(set(driven) & set(held))
    if stuck:
        raise ValueError(
            f"`drive` would move nodes {topology.named(stuck)}, which are held in this call; drop "
            "them there, or let an input go by clamp={node: False}"
        )
    driven_kinds = {topology.node_class(node).kind for node in driven}
    kinds = driven_kinds - set(network.activations)
    if kinds:
        raise ValueError(
            f"`drive` moves nodes of kinds {_text.names(sorted(kinds))}, which have no activation; "
            "give them one"
        )
    # A network looks at the activations of nodes that edges end at, when it is made.
    unchecked = _without_edges(topology, driven)
    check_activations(topology, network.activations, unchecked)


def check_samples(network: Network, batch: int):
    """Activations with numbers for every sample have as many as there are samples."""
    for kind, activation in network.activations.items():
        if activation.samples not in (None, batch):
            raise ValueError(
                f"`activations[{kind!r}]` ({name(activation)}) holds numbers for "
                f"{activation.samples} samples, but the state has a batch of {batch}; give one for "
                "each, as by dx.at_temperature"
            )


@remembered
def _without_edges(topology: Topology, nodes: tuple[int, ...]) -> np.ndarray:
    """The nodes that no edge ends at: nobody has looked at their activation yet."""
    return np.setdiff1d(np.asarray(nodes, np.int64), topology.columns.receivers)
