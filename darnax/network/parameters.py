"""From factories to the stacked parameters of all couplings."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Key, UInt32

from darnax import _text, checks
from darnax.couplings.coupling import Coupling, Edges, Factory, asks, pick
from darnax.couplings.draws import Draws, derived, keys_of
from darnax.couplings.reverse import Transpose, is_linear
from darnax.network.reverse import Reverses, owner_edges, read_reverses
from darnax.static import sealed, unsealed
from darnax.topologies import names as naming
from darnax.topologies.groups import EdgeGroup, ParameterBlock
from darnax.topologies.topology import Topology

CouplingFactory: TypeAlias = Callable[..., Callable[..., Array]]
"""A factory `(sender_shape, receiver_shape, key) -> coupling`; see `darnax.couplings.coupling`."""

Factories: TypeAlias = Mapping[str, CouplingFactory | Transpose]
"""The factories of couplings by edge kind, or the kind that has them as `dx.transpose` names it."""

Stacked: TypeAlias = Callable[..., Array]
"""The coupling of all edges of a block: a module whose arrays have a leading axis of edges."""

Words: TypeAlias = UInt32[np.ndarray, "edges 2"] | UInt32[Array, "edges 2"]
"""Two random words for each of several edges; of JAX where the key is traced."""


class Builder:
    """Makes the couplings of a topology, block by block.

    One call of a factory makes the couplings of all edges of a block: what has to be compiled grows
    with the shapes of a topology, and not with its edges.

    **Fields:**

    - `read`: the edge attributes that couplings have read, by edge kind.
    - `structures`: for groups whose coupling has another structure than that of their block, as
      tied edges of several shapes may have, this structure: the coupling with numbers for arrays.
    """

    def __init__(self, topology: Topology, key: Key[Array, ""]):
        self.topology = topology
        self.key = key
        self.read: dict[str, set[str]] = {}
        self.structures: dict[int, object] = {}

    @cached_property
    def _edge_words(self) -> Words:
        """Two random words for every edge, worked out when the first coupling asks for them."""
        return derived(self.key, self.topology.edge_words())

    def words(self, block: ParameterBlock) -> Words:
        """Two random words for every edge of a block, `(E, 2)`, or `(1, 2)` for a tie."""
        if block.tie is None:
            return self._edge_words[block.edges]
        name = naming.hashes([("tie", block.kind, block.tie)])
        return derived(self.key, naming.words(name))

    def untied(self, factory: CouplingFactory, block: ParameterBlock) -> Stacked:
        """The coupling of a block whose edges have each their own parameters."""
        groups = [self.topology.groups[i] for i in block.groups]
        module = sealed(self._make(factory, groups[0], block))
        for group in groups:
            check_message(self.topology, group, module)
        return module

    def tied(self, factory: CouplingFactory, block: ParameterBlock) -> Stacked:
        """The coupling of a block whose edges share their parameters, whatever their shapes.

        Every pair of shapes has a coupling of its own, and all of these have the same leaves.
        """
        groups = [self.topology.groups[i] for i in block.groups]
        made: dict[tuple[object, ...], Stacked] = {}
        for group in groups:
            shapes = group.sender_shape, group.receiver_shape, group.self_loop
            if shapes not in made:
                made[shapes] = sealed(self._make(factory, group, block))
                check_message(self.topology, group, made[shapes])
        first, *others = made.values()
        if any(_leaf_shapes(module) != _leaf_shapes(first) for module in others):
            raise ValueError(
                f"tie {block.tie!r} of kind {block.kind!r} joins edges whose parameters have "
                f"different shapes: {_text.listing(map(self._with_shapes, groups))}; "
                "tie only edges between nodes of equal shapes"
            )
        # The network keeps the leaves of the first coupling alone. The others differ from it in
        # static parts, such as the shape of an image: those groups keep their structure, and put
        # the leaves into it.
        for i, group in zip(block.groups, groups, strict=True):
            module = made[group.sender_shape, group.receiver_shape, group.self_loop]
            if jax.tree.structure(module) != jax.tree.structure(first):
                self.structures[i] = jax.tree.map(lambda _: 0, module)
        return first

    def _with_shapes(self, group: EdgeGroup) -> str:
        edge = self.topology.edge(int(group.edges[0]))
        return f"{edge} {group.sender_shape} -> {group.receiver_shape}"

    def _make(
        self,
        factory: CouplingFactory,
        group: EdgeGroup,
        block: ParameterBlock,
    ) -> object:
        """The couplings of a block: at once by a factory of ours, else vectorised over keys."""
        try:
            if not isinstance(factory, Factory):
                return self._make_vectorised(factory, group, block)
            edges = self._edges(group, block)
            # What tied edges share has no axis of edges.
            lead = () if block.tie is not None else (len(block.edges),)
            draws = Draws(self.words(block), lead, edges.dtype)
            return factory.stacked(
                group.sender_shape,
                group.receiver_shape,
                draws,
                edges,
            )
        except Exception as error:
            raise on_edge(self.topology, group, "cannot be made", error) from error

    def _make_vectorised(
        self,
        factory: CouplingFactory,
        group: EdgeGroup,
        block: ParameterBlock,
    ) -> object:
        """The couplings of a block by a user's factory, which makes one coupling a call."""
        parameters = inspect.signature(factory).parameters
        shapes = group.sender_shape, group.receiver_shape
        keys: tuple[Key[Array, " edges"], ...] = ()
        if _takes_key(parameters):
            keys = (keys_of(self.words(block), self.key),)
        edges = None
        columns: dict[str, Array] = {}
        if "edges" in parameters:
            edges = self._edges(group, block)
            for name, values in edges.attributes.items():
                columns[name] = jnp.asarray(values)

        def one(
            keys: tuple[Key[Array, ""], ...],
            columns: Mapping[str, Array],
        ) -> object:
            if edges is None:
                return factory(*shapes, *keys)
            own = replace(edges, attributes=columns)
            return factory(*shapes, *keys, edges=own)

        if block.tie is not None:
            # Tied edges have one key, and the factory sees the numbers of all of them.
            return one(tuple(key[0] for key in keys), columns)
        # The number of edges is given, for a factory may need neither keys nor columns.
        of_all = eqx.filter_vmap(one, in_axes=(0, 0), axis_size=len(block.edges))
        return of_all(keys, columns)

    def _edges(self, group: EdgeGroup, block: ParameterBlock) -> Edges:
        """What a factory may read of the edges of a block, and on which edges it is not right."""
        topology = self.topology
        # The parameters of a block serve all of its groups, as precise as the widest field.
        dtypes = [topology.groups[i].receiver.field_dtype for i in block.groups]
        dtype = np.dtype("float64" if "float64" in dtypes else "float32")
        tied = block.tie is not None
        columns: dict[str, np.ndarray] = {}
        # Numbers that are not right are no error yet: no coupling may read them.
        missing: dict[str, str] = {}
        strange: dict[str, str] = {}
        differing: dict[str, str] = {}
        for name, (all_values, all_given) in topology.columns.attributes.items():
            values = all_values[block.edges]
            column = values.astype(dtype)
            columns[name] = column
            given = np.ones(len(values), bool)
            if all_given is not None:
                given = all_given[block.edges]
            self._note(missing, name, block, ~given)
            self._note(strange, name, block, given & ~np.isfinite(column))
            if tied:
                self._note(differing, name, block, values != values[0])
        return Edges(
            self_loop=group.self_loop,
            dtype=dtype,
            attributes=columns,
            tied=tied,
            missing=missing,
            strange=strange,
            differing=differing,
            left_out=topology.columns.left_out,
            read=self.read.setdefault(block.kind, set()),
        )

    def _note(
        self,
        offenders: dict[str, str],
        attribute: str,
        block: ParameterBlock,
        where: np.ndarray,
    ) -> None:
        """Note the edges of a block on which an attribute is not right, if there are any."""
        edges = block.edges[where].tolist()
        if edges:
            offenders[attribute] = _text.names(self.topology.edge(edge) for edge in edges)


@checks.by_hand
def couplings(
    topology: Topology,
    factories: Factories,
    key: Key[Array, ""],
) -> tuple[dict[str, tuple[Stacked, ...]], dict[int, object], Reverses]:
    """The stacked couplings of all parameter blocks by edge kind, and `Builder.structures`.

    Reverse kinds, which come as well, have no couplings of their own.
    """
    advice = "a factory such as dx.dense()"
    needed = set(topology.parameter_blocks)
    by_kind = checks.by_kind("couplings", factories, topology.edge_kinds, needed, advice)
    reverses = read_reverses(topology, by_kind)
    # The first look at the pairs of edges, which is remembered: none is built if one is missing.
    owner_edges(topology, reverses)
    _check_ties(topology, dict(reverses))
    builder = Builder(topology, key)
    modules: dict[str, tuple[Stacked, ...]] = {}
    for kind, blocks in topology.parameter_blocks.items():
        if kind in dict(reverses):
            modules[kind] = ()
            continue
        holds = "a factory of couplings such as dx.dense()"
        factory = checks.function(f"couplings[{kind!r}]", by_kind[kind], holds, "give one")
        made: list[Stacked] = []
        for block in blocks:
            build = builder.untied if block.tie is None else builder.tied
            made.append(build(factory, block))
        modules[kind] = tuple(made)
    _warn_of_unread(topology, builder.read)
    return modules, builder.structures, reverses


def _check_ties(topology: Topology, reverses: Mapping[str, str]) -> None:
    """A tie joins edges of one kind; those of reverse kinds say nothing about parameters."""
    by_tie: dict[str, list[ParameterBlock]] = {}
    for kind, blocks in topology.parameter_blocks.items():
        for block in blocks:
            if block.tie is not None and kind not in reverses:
                by_tie.setdefault(block.tie, []).append(block)
    # Edges of one kind and tie are one block, whatever their shapes.
    for tie, blocks in by_tie.items():
        if len(blocks) > 1:
            who = [f"{topology.edge(int(b.edges[0]))} of kind {b.kind!r}" for b in blocks]
            raise ValueError(
                f"tie {tie!r} joins edges of several kinds: {_text.listing(who)}; give each kind "
                "its own tie, or let one kind be dx.transpose of another"
            )


def _warn_of_unread(topology: Topology, read: Mapping[str, set[str]]) -> None:
    """Warn of numbers on edges that no coupling reads."""
    columns = topology.columns
    for attribute, (values, given) in columns.attributes.items():
        is_read = [attribute in read.get(kind, ()) for kind, _ in columns.edge_classes]
        # Many graphs carry a weight of 1 on every edge, which would change nothing if it were read.
        unread = ~np.asarray(is_read)[columns.edge_class] & (values != 1)
        if given is not None:
            unread &= given
        edges = np.flatnonzero(unread)
        if len(edges):
            first = edges[:3].tolist()
            who = _text.names(topology.edge(edge) for edge in first)
            more = f" and {len(edges) - 3} more" if len(edges) > 3 else ""
            warnings.warn(
                f"edge attribute {attribute!r} on {who}{more} is read by no coupling; draw it only "
                f"where one reads it, as dx.scale(weight={attribute!r}) or "
                f"dx.dense(factor={attribute!r}) does",
                stacklevel=4,
            )


def _leaf_shapes(module: Stacked) -> list[tuple[object, ...]]:
    """Shapes and dtypes of the parameters; a sealed module has no leaves but arrays."""
    leaves = jax.tree.leaves(module)
    return [(leaf.shape, leaf.dtype) for leaf in leaves]


def _takes_key(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a factory draws: a `key` with a default is left out, as keys take long to compile."""
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = 0
    for parameter in parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return True
        needed += parameter.kind in positional and parameter.default is parameter.empty
    # The first two are the shapes.
    return needed > 2


def check_message(
    topology: Topology,
    group: EdgeGroup,
    module: Stacked,
    tied: bool | None = None,
) -> None:
    """The message of one edge has the receiver's shape, found by tracing and not by running.

    `tied` says whether the edges share their parameters, where that does not follow from a tie.
    """
    coupling = unsealed(module)
    if not callable(coupling):
        raise TypeError(
            f"`couplings[{group.kind!r}]` made {checks.came(coupling)}, which cannot be called; "
            "a factory returns a module"
        )
    tied = group.tie is not None if tied is None else tied
    sent = _traced_message(topology, group, coupling, tied)
    dtype = getattr(sent, "dtype", complex)
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
    if getattr(sent, "shape", None) != group.receiver_shape or is_complex:
        raise ValueError(
            f"`couplings[{group.kind!r}]` on edge {topology.edge(int(group.edges[0]))}: the "
            f"receiver takes a real message of shape {group.receiver_shape}, but the coupling "
            f"gives {sent}; change one or the other"
        )


def _traced_message(
    topology: Topology,
    group: EdgeGroup,
    coupling: Callable[..., object],
    tied: bool,
) -> object:
    """The message of one edge as JAX describes it: shape and dtype, if it is an array."""
    arrays, static = eqx.partition(coupling, eqx.is_array)
    arrays = jax.eval_shape(lambda arrays: pick(arrays, tied, 0), arrays)
    dtype = _dtype_of_senders(group, arrays)
    # Only what is asked for: to trace a key would take a fifth of the time of a message.
    asked: dict[str, jax.ShapeDtypeStruct] = {}
    if "receiver" in asks(coupling):
        asked["receiver"] = jax.ShapeDtypeStruct(group.receiver_shape, dtype)
    if "key" in asks(coupling):
        asked["key"] = jax.eval_shape(lambda: jax.random.key(0))
    sender = jax.ShapeDtypeStruct(group.sender_shape, dtype)
    try:
        return jax.eval_shape(
            lambda arrays, x, asked: eqx.combine(arrays, static)(x, **asked),
            arrays,
            sender,
            asked,
        )
    except Exception as error:
        what = f"cannot take a sender of shape {group.sender_shape}"
        raise on_edge(topology, group, what, error) from error


def _dtype_of_senders(group: EdgeGroup, arrays: object) -> DTypeLike:
    """The dtype in which states reach a coupling: that of its first parameter, as in `send`."""
    for leaf in jax.tree.leaves(arrays):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf.dtype
    return group.receiver.field_dtype


def linear_message(group: EdgeGroup, coupling: Coupling) -> bool:
    """Whether the message of an edge of a group is linear, as `is_linear` finds it by tracing."""
    arrays, static = eqx.partition(coupling, eqx.is_array)
    tied = group.tie is not None
    arrays = jax.eval_shape(lambda arrays: pick(arrays, tied, 0), arrays)
    dtype = _dtype_of_senders(group, arrays)
    sender = jax.ShapeDtypeStruct(group.sender_shape, dtype)
    return is_linear(eqx.combine(arrays, static), sender)


def on_edge(
    topology: Topology,
    group: EdgeGroup,
    what: str,
    error: Exception,
) -> Exception:
    """The error of a factory or a coupling, with the edge that it is about."""
    cls = type(error) if type(error) in (ValueError, TypeError) else ValueError
    # Our own errors end with what to do; those of a user's factory or layer do not.
    advice = "; a factory (sender_shape, receiver_shape, key) makes a function of a sender"
    if "; " in str(error):
        advice = ""
    return cls(
        f"`couplings[{group.kind!r}]` on edge {topology.edge(int(group.edges[0]))}, "
        f"{group.sender_shape} -> {group.receiver_shape}, {what}: {error}{advice}"
    )
