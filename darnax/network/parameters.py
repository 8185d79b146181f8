"""From factories to the stacked parameters of all couplings."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from darnax import _text, checks
from darnax.couplings.coupling import Edges, Factory, asks, pick
from darnax.couplings.draws import Draws, derived, keys_of
from darnax.static import sealed, unsealed
from darnax.topologies import names as naming
from darnax.topologies.groups import EdgeGroup, ParameterBlock
from darnax.topologies.topology import Topology

Stacked = Any
"""The coupling of all edges of a block: a module whose arrays have a leading axis of edges."""


class Builder:
    """Makes the couplings of a topology, block by block.

    **Fields:**

    - `read`: the edge attributes that couplings have read, by edge kind.
    - `structures`: for groups whose coupling has another structure than that of their block, as
      tied edges of several shapes may have, this structure: the coupling with numbers for arrays.
    """

    def __init__(self, topology: Topology, key: Key[Array, ""]):
        self.topology, self.key = topology, key
        self.read: dict[str, set[str]] = {}
        self.structures: dict[int, Any] = {}

    @cached_property
    def _edge_words(self) -> Any:
        """Two random words for every edge, worked out when the first coupling asks for them."""
        return derived(self.key, self.topology.edge_words())

    def words(self, block: ParameterBlock) -> Any:
        """Two random words for every edge of a block, `(E, 2)`, or `(1, 2)` for a tie."""
        if block.tie is None:
            return self._edge_words[block.edges]
        name = naming.hashes([("tie", block.kind, block.tie)])
        return derived(self.key, naming.words(name))

    def untied(self, factory: Callable[..., Any], block: ParameterBlock) -> Stacked:
        """The coupling of a block whose edges have each their own parameters."""
        groups = [self.topology.groups[i] for i in block.groups]
        module = sealed(self._make(factory, groups[0], block))
        for group in groups:
            check_message(self.topology, group, module)
        return module

    def tied(self, factory: Callable[..., Any], block: ParameterBlock) -> Stacked:
        """The coupling of a block whose edges share their parameters, whatever their shapes.

        Every pair of shapes has a coupling of its own, and all of these have the same leaves.
        """
        groups = [self.topology.groups[i] for i in block.groups]
        made = {}
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
        for i, group in zip(block.groups, groups, strict=True):
            module = made[group.sender_shape, group.receiver_shape, group.self_loop]
            if jax.tree.structure(module) != jax.tree.structure(first):
                self.structures[i] = jax.tree.map(lambda _: 0, module)
        return first

    def _with_shapes(self, group: EdgeGroup) -> str:
        edge = self.topology.edge(int(group.edges[0]))
        return f"{edge} {group.sender_shape} -> {group.receiver_shape}"

    def _make(self, factory: Callable[..., Any], group: EdgeGroup, block: ParameterBlock) -> Any:
        """The couplings of a block: at once by a factory of ours, else vectorised over keys."""
        try:
            if isinstance(factory, Factory):
                edges = self._edges(group, block)
                lead = () if block.tie is not None else (len(block.edges),)
                draws = Draws(self.words(block), lead, edges.dtype)
                return factory.stacked(group.sender_shape, group.receiver_shape, draws, edges)
            return self._make_vectorised(factory, group, block)
        except Exception as error:
            raise on_edge(self.topology, group, "cannot be made", error) from error

    def _make_vectorised(
        self, factory: Callable[..., Any], group: EdgeGroup, block: ParameterBlock
    ) -> Any:
        parameters = inspect.signature(factory).parameters
        shapes = group.sender_shape, group.receiver_shape
        keys, columns, edges = (), {}, None
        if _takes_key(parameters):
            keys = (keys_of(self.words(block), self.key),)
        if "edges" in parameters:
            edges = self._edges(group, block)
            columns = {name: jnp.asarray(values) for name, values in edges.attributes.items()}

        def one(keys: tuple, columns: dict[str, Array]) -> Any:
            if edges is None:
                return factory(*shapes, *keys)
            return factory(*shapes, *keys, edges=replace(edges, attributes=columns))

        if block.tie is not None:
            return one(tuple(key[0] for key in keys), columns)
        return eqx.filter_vmap(one, in_axes=(0, 0), axis_size=len(block.edges))(keys, columns)

    def _edges(self, group: EdgeGroup, block: ParameterBlock) -> Edges:
        """What a factory may read of the edges of a block, and on which edges it is not right."""
        topology, edges, tied = self.topology, block.edges, block.tie is not None
        dtypes = [topology.groups[i].receiver.field_dtype for i in block.groups]
        dtype = np.dtype("float64" if "float64" in dtypes else "float32")
        columns: dict[str, np.ndarray] = {}
        wrong: dict[str, dict[str, str]] = {"missing": {}, "strange": {}, "differing": {}}
        for attribute, (all_values, all_given) in topology.columns.attributes.items():
            values = all_values[edges]
            given = np.ones(len(edges), bool) if all_given is None else all_given[edges]
            columns[attribute] = values.astype(dtype)
            found = {
                "missing": ~given,
                "strange": given & ~np.isfinite(columns[attribute]),
                "differing": (values != values[0]) & tied,
            }
            for what, where in found.items():
                if where.any():
                    names = [topology.edge(edge) for edge in edges[where].tolist()]
                    wrong[what][attribute] = _text.names(names)
        return Edges(
            self_loop=group.self_loop,
            dtype=dtype,
            attributes=columns,
            tied=tied,
            **wrong,
            left_out=topology.columns.left_out,
            read=self.read.setdefault(block.kind, set()),
        )


def couplings(
    topology: Topology, factories: Any, key: Key[Array, ""]
) -> tuple[dict[str, tuple[Stacked, ...]], dict[int, Any]]:
    """The stacked couplings of all parameter blocks by edge kind, and `Builder.structures`."""
    advice = "a factory such as dx.dense()"
    needed = set(topology.parameter_blocks)
    factories = checks.by_kind("couplings", factories, topology.edge_kinds, needed, advice)
    _check_ties(topology)
    builder = Builder(topology, key)
    modules = {}
    for kind, blocks in topology.parameter_blocks.items():
        holds = "a factory of couplings such as dx.dense()"
        factory = checks.function(f"couplings[{kind!r}]", factories[kind], holds, "give one")
        made = []
        for block in blocks:
            build = builder.untied if block.tie is None else builder.tied
            made.append(build(factory, block))
        modules[kind] = tuple(made)
    _warn_of_unread(topology, builder.read)
    return modules, builder.structures


def _check_ties(topology: Topology) -> None:
    """A tie joins edges of one kind."""
    by_tie: dict[str, list[ParameterBlock]] = {}
    for blocks in topology.parameter_blocks.values():
        for block in blocks:
            if block.tie is not None:
                by_tie.setdefault(block.tie, []).append(block)
    for tie, blocks in by_tie.items():
        if len(blocks) > 1:
            who = [f"{topology.edge(int(b.edges[0]))} of kind {b.kind!r}" for b in blocks]
            raise ValueError(
                f"tie {tie!r} joins edges of several kinds: {_text.listing(who)}; give each kind "
                "its own tie"
            )


def _warn_of_unread(topology: Topology, read: Mapping[str, set[str]]) -> None:
    """Warn of numbers on edges that no coupling reads; ones would change nothing anywhere."""
    columns = topology.columns
    for attribute, (values, given) in columns.attributes.items():
        is_read = [attribute in read.get(kind, ()) for kind, _ in columns.edge_classes]
        unread = ~np.asarray(is_read)[columns.edge_class] & (values != 1)
        if given is not None:
            unread &= given
        edges = np.flatnonzero(unread)
        if len(edges):
            who = _text.names(topology.edge(edge) for edge in edges[:3].tolist())
            more = f" and {len(edges) - 3} more" if len(edges) > 3 else ""
            warnings.warn(
                f"edge attribute {attribute!r} on {who}{more} is read by no coupling; draw it only "
                f"where one reads it, as dx.scale(weight={attribute!r}) or "
                f"dx.dense(factor={attribute!r}) does",
                stacklevel=4,
            )


def _leaf_shapes(module: Any) -> list[Any]:
    leaves = jax.tree.leaves(module)
    return [(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in leaves]


def _takes_key(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a factory draws: a `key` with a default is left out, as keys take long to compile."""
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = 0
    for parameter in parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return True
        needed += parameter.kind in positional and parameter.default is parameter.empty
    return needed > 2


def check_message(topology: Topology, group: EdgeGroup, module: Stacked) -> None:
    """The message of one edge has the receiver's shape, found by tracing and not by running."""
    coupling = unsealed(module)
    if not callable(coupling):
        raise TypeError(
            f"`couplings[{group.kind!r}]` made {checks.came(coupling)}, which cannot be called; "
            "a factory returns a module"
        )
    arrays, static = eqx.partition(coupling, eqx.is_array)
    arrays = jax.eval_shape(lambda arrays: pick(arrays, group.tie is not None, 0), arrays)
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    dtype = leaves[0].dtype if leaves else group.receiver.field_dtype
    asked: dict[str, Any] = {
        "receiver": jax.ShapeDtypeStruct(group.receiver_shape, dtype),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
    }
    asked = {name: asked[name] for name in asks(coupling)}
    sender = jax.ShapeDtypeStruct(group.sender_shape, dtype)
    try:
        sent = jax.eval_shape(
            lambda arrays, x, asked: eqx.combine(arrays, static)(x, **asked), arrays, sender, asked
        )
    except Exception as error:
        what = f"cannot take a sender of shape {group.sender_shape}"
        raise on_edge(topology, group, what, error) from error
    shape, dtype = getattr(sent, "shape", None), getattr(sent, "dtype", complex)
    if shape != group.receiver_shape or jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(
            f"`couplings[{group.kind!r}]` on edge {topology.edge(int(group.edges[0]))}: the "
            f"receiver takes a real message of shape {group.receiver_shape}, but the coupling "
            f"gives {sent}; change one or the other"
        )


def on_edge(topology: Topology, group: EdgeGroup, what: str, error: Exception) -> Exception:
    """The error of a factory or a coupling, with the edge that it is about."""
    cls = type(error) if type(error) in (ValueError, TypeError) else ValueError
    # our own errors end with what to do; those of a user's factory or layer do not
    advice = "; a factory (sender_shape, receiver_shape, key) makes a function of a sender"
    if "; " in str(error):
        advice = ""
    return cls(
        f"`couplings[{group.kind!r}]` on edge {topology.edge(int(group.edges[0]))}, "
        f"{group.sender_shape} -> {group.receiver_shape}, {what}: {error}{advice}"
    )
