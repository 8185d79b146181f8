"""From factories to parameters, and all that can be found wrong before the first step."""

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
from jaxtyping import Array, Float, Key

from darnax import _text, checks
from darnax._arrays import on_device
from darnax.activations import described, known, name, needs
from darnax.couplings.coupling import Edges, Factory, hears_receiver, message, pick
from darnax.couplings.draws import Draws, derived, keys_of
from darnax.network.bias import Bias
from darnax.network.messages import field_dtype
from darnax.static import sealed, unsealed
from darnax.topologies import names as naming
from darnax.topologies.groups import Bundle, EdgeGroup
from darnax.topologies.topology import Topology

Structure = Any
"""A coupling without its numbers: how the leaves of a bundle make one for one of its groups; None:
as they are."""


def as_key(key: Any) -> Key[Array, "..."]:
    """A key as JAX's typed keys; raw `jax.random.PRNGKey` arrays are wrapped."""
    if not isinstance(key, jax.Array):
        checks.refuse("key", "a key, as from jax.random.key(0)", key, "make one")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if key.dtype != jnp.uint32 or not key.ndim or key.shape[-1] != 2:
        raise TypeError(
            f"`key` is a key, as from jax.random.key(0), but got {key.dtype} of shape {key.shape}"
        )
    return jax.random.wrap_key_data(key)


def couplings(topology: Topology, factories: Any, key: Key[Array, ""]):
    """The stacked coupling modules of every edge kind, and the structures of groups that differ
    from their bundle's.
    """
    factories = checks.by_kind(
        "couplings",
        factories,
        topology.edge_kinds,
        set(topology.bundles),
        "a factory such as dx.dense()",
    )
    _check_ties(topology)
    keys = _Keys(key, topology.edge_words())
    read: set[tuple[str, str]] = set()
    modules: dict[str, tuple] = {}
    structures: list[Structure] = [None] * len(topology.groups)
    for kind, bundles in topology.bundles.items():
        holds = "a factory of couplings such as dx.dense()"
        factory = checks.function(f"couplings[{kind!r}]", factories[kind], holds, "give one")
        asked: set[str] = set()
        modules[kind] = tuple(
            _bundle(topology, factory, bundle, keys, asked, structures) for bundle in bundles
        )
        read |= {(kind, name) for name in asked}
    _warn_of_unread(topology, read)
    return modules, tuple(structures)


class _Keys:
    """The random words of edges and ties, worked out when they are asked for."""

    def __init__(self, key: Key[Array, ""], edge_words: np.ndarray):
        self.key, self.edge_words = key, edge_words

    @cached_property
    def edges(self) -> Any:
        """Those of all edges, `(E, 2)`."""
        return derived(self.key, self.edge_words)

    def of(self, bundle: Bundle) -> Any:
        """Those of the edges of a bundle, `(E, 2)`, or `(1, 2)` for a tie."""
        if bundle.tie is None:
            return self.edges[bundle.edges]
        return derived(self.key, naming.words(naming.hashes([("tie", bundle.kind, bundle.tie)])))


def _warn_of_unread(topology: Topology, read: set[tuple[str, str]]):
    """Numbers on edges that no coupling reads are drawn in vain; ones change nothing, wherever they
    are.
    """
    columns = topology.columns
    for attribute, (values, given) in columns.attributes.items():
        kinds = np.asarray([(kind, attribute) in read for kind, _ in columns.edge_classes])
        unread = ~kinds[columns.edge_class] & (values != 1)
        unread = np.flatnonzero(unread if given is None else unread & given)
        if len(unread):
            who = _text.names(topology.edge(edge) for edge in unread[:3].tolist())
            more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
            warnings.warn(
                f"edge attribute {attribute!r} on {who}{more} is read by no coupling; draw it only "
                f"where one reads it, as dx.scale(weight={attribute!r}) or "
                f"dx.dense(factor={attribute!r}) does",
                stacklevel=4,
            )


def _check_ties(topology: Topology):
    kinds: dict[str, list[Bundle]] = {}
    for bundles in topology.bundles.values():
        for bundle in bundles:
            if bundle.tie is not None:
                kinds.setdefault(bundle.tie, []).append(bundle)
    for tie, bundles in kinds.items():
        if len(bundles) > 1:
            who = [f"{topology.edge(int(b.edges[0]))} of kind {b.kind!r}" for b in bundles]
            raise ValueError(
                f"tie {tie!r} joins edges of several kinds: {_text.listing(who)}; give each kind "
                "its own tie"
            )


def _bundle(
    topology: Topology,
    factory: Callable[..., Any],
    bundle: Bundle,
    keys: _Keys,
    read: set[str],
    structures: list,
) -> Any:
    groups = [topology.groups[i] for i in bundle.groups]
    dtype = _message_dtype(topology, groups)
    if bundle.tie is None:
        module = sealed(_make(topology, factory, groups[0], bundle, keys, dtype, read))
        for group in groups:
            _check_message(topology, group, module)
        return module
    made = {}  # one coupling a pair of shapes; all must have the same leaves
    for group in groups:
        shapes = group.sender_shape, group.receiver_shape, group.self_loop
        if shapes not in made:
            made[shapes] = sealed(_make(topology, factory, group, bundle, keys, dtype, read))
            _check_message(topology, group, made[shapes])
    modules = list(made.values())
    if any(_leaf_shapes(module) != _leaf_shapes(modules[0]) for module in modules):
        who = [
            f"{topology.edge(int(g.edges[0]))} {g.sender_shape} -> {g.receiver_shape}"
            for g in groups
        ]
        raise ValueError(
            f"tie {bundle.tie!r} of kind {bundle.kind!r} joins edges whose parameters have "
            f"different shapes: {_text.listing(who)}; tie only edges between nodes of equal shapes"
        )
    for i, group in zip(bundle.groups, groups, strict=True):
        module = made[group.sender_shape, group.receiver_shape, group.self_loop]
        if jax.tree.structure(module) != jax.tree.structure(modules[0]):
            structures[i] = jax.tree.map(lambda _: 0, module)
    return modules[0]


def _message_dtype(topology: Topology, groups: list[EdgeGroup]) -> np.dtype:
    """Float64 if any message of these groups is, else float32."""
    found = [field_dtype(topology.layout.arrays[group.receiver_array]) for group in groups]
    return np.dtype("float64" if jnp.float64 in found else "float32")


def _leaf_shapes(module: Any) -> list:
    return [
        (leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in jax.tree.leaves(module)
    ]


def _make(
    topology: Topology,
    factory: Callable[..., Any],
    group: EdgeGroup,
    bundle: Bundle,
    keys: _Keys,
    dtype: np.dtype,
    read: set[str],
) -> Any:
    """The couplings of a bundle: made at once by a factory of ours, by a user's vectorised over
    keys and columns.
    """
    shapes, tied, count = (
        (group.sender_shape, group.receiver_shape),
        bundle.tie is not None,
        len(bundle.edges),
    )
    try:
        if isinstance(factory, Factory):
            edges = _edges(topology, group, bundle.edges, dtype, read)
            return factory.stacked(
                *shapes, Draws(keys.of(bundle), () if tied else (count,), dtype), edges
            )
        parameters = inspect.signature(factory).parameters
        drawn = (keys_of(keys.of(bundle), keys.key),) if _takes_key(parameters) else ()
        about = (
            _edges(topology, group, bundle.edges, dtype, read) if "edges" in parameters else None
        )
        columns = (
            {}
            if about is None
            else {name: jnp.asarray(values) for name, values in about.attributes.items()}
        )

        def one(drawn, columns):
            given = {} if about is None else {"edges": replace(about, attributes=columns)}
            return factory(*shapes, *drawn, **given)

        if tied:
            return one(tuple(key[0] for key in drawn), columns)
        return eqx.filter_vmap(one, in_axes=(0, 0), axis_size=count)(drawn, columns)
    except Exception as error:
        raise _on_edge(topology, group, "cannot be made", error) from error


def _takes_key(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a factory draws: keys take long to compile, and one whose `key` has a default can do
    without.
    """
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in parameters.values() if p.kind in positional and p.default is p.empty]
    return len(given) > 2 or any(
        p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters.values()
    )


def _edges(
    topology: Topology, group: EdgeGroup, edges: np.ndarray, dtype: np.dtype, read: set[str]
) -> Edges:
    """What a factory may read of some edges: their numbers, and by attribute on which edges these
    are not right.
    """
    tied, columns = group.tie is not None, {}
    wrong: dict[str, dict[str, str]] = {"missing": {}, "strange": {}, "differing": {}}
    for attribute, (values, given) in topology.columns.attributes.items():
        values, given = values[edges], np.ones(len(edges), bool) if given is None else given[edges]
        columns[attribute] = values.astype(dtype)
        found = {"missing": ~given, "strange": given & ~np.isfinite(columns[attribute])}
        found["differing"] = (values != values[0]) & tied
        for which, where in found.items():
            if where.any():
                wrong[which][attribute] = _text.names(
                    topology.edge(edge) for edge in edges[where].tolist()
                )
    left_out = topology.columns.left_out
    return Edges(group.self_loop, dtype, columns, tied, **wrong, left_out=left_out, read=read)


def _check_message(topology: Topology, group: EdgeGroup, module: Any):
    """The message of one edge has the receiver's shape, found by tracing and not by running."""
    if not callable(unsealed(module)):
        raise TypeError(
            f"`couplings[{group.kind!r}]` made {checks.came(unsealed(module))}, which cannot be "
            "called; a factory returns a module"
        )
    arrays, static = eqx.partition(unsealed(module), eqx.is_array)
    arrays = jax.eval_shape(lambda arrays: pick(arrays, group.tie is not None, 0), arrays)
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    dtype = leaves[0].dtype if leaves else field_dtype(topology.layout.arrays[group.receiver_array])
    shapes = [group.sender_shape, *[group.receiver_shape] * hears_receiver(unsealed(module))]
    ends = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    try:
        sent = jax.eval_shape(
            lambda arrays, *ends: message(eqx.combine(arrays, static), *ends), arrays, *ends
        )
    except Exception as error:
        raise _on_edge(
            topology, group, f"cannot take a sender of shape {group.sender_shape}", error
        ) from error
    if getattr(sent, "shape", None) != group.receiver_shape or jnp.issubdtype(
        sent.dtype, jnp.complexfloating
    ):
        raise ValueError(
            f"`couplings[{group.kind!r}]` on edge {topology.edge(int(group.edges[0]))}: the "
            f"receiver takes a real message of shape {group.receiver_shape}, but the coupling "
            f"gives {sent}; change one or the other"
        )


def _on_edge(topology: Topology, group: EdgeGroup, what: str, error: Exception) -> Exception:
    cls = type(error) if type(error) in (ValueError, TypeError) else ValueError
    # our own errors end with what to do; those of a user's factory or layer do not
    advice = (
        ""
        if "; " in str(error)
        else "; a factory (sender_shape, receiver_shape, key) makes a function of a sender"
    )
    return cls(
        f"`couplings[{group.kind!r}]` on edge {topology.edge(int(group.edges[0]))}, "
        f"{group.sender_shape} -> {group.receiver_shape}, {what}: {error}{advice}"
    )


def activations(topology: Topology, given: Any) -> dict[str, Callable[..., Any]]:
    """The activation of every node kind that needs one."""
    receivers = {
        topology.node_class(at).kind
        for at in _one_of_each_class(topology, topology.columns.receivers)
    }
    if callable(given):
        checks.called("activations", given)
        given = dict.fromkeys(topology.node_kinds, given)
    given = checks.by_kind(
        "activations", given, topology.node_kinds, receivers, "an activation such as dx.sign"
    )
    holds = "a function of the field such as dx.sign"
    for kind, activation in given.items():
        checks.function(f"activations[{kind!r}]", activation, holds, "give one")
    given = {kind: known(activation) for kind, activation in given.items()}
    check_activations(topology, given, topology.columns.receivers)
    _check_overlaps(topology, given)
    return given


def check_activations(topology: Topology, given: dict[str, Any], nodes: np.ndarray):
    """The activations of some nodes can be called on their fields, and their dtypes can hold the
    values.
    """
    for at in _one_of_each_class(topology, nodes):
        kind, shape, dtype, _ = topology.node_class(at)
        _check_activation(kind, given[kind], shape, jnp.dtype(dtype), repr(topology.nodes[at]))


def _one_of_each_class(topology: Topology, nodes: np.ndarray) -> list[int]:
    first = np.full(len(topology.columns.node_classes), -1)
    first[topology.columns.node_class[nodes][::-1]] = nodes[::-1]
    return first[first >= 0].tolist()


def _check_activation(
    kind: str, activation: Any, shape: tuple[int, ...], dtype: np.dtype, node: str
):
    where = f"`activations[{kind!r}]` on node {node} of shape {shape} and dtype {dtype}"
    field = jax.ShapeDtypeStruct(shape, jnp.float64 if dtype == jnp.float64 else jnp.float32)
    needed: dict[str, Any] = {}
    if "state" in needs(activation):
        needed["state"] = field
    if "key" in needs(activation):
        needed["key"] = jax.eval_shape(lambda: jax.random.key(0))
    try:
        arrays, static = eqx.partition(activation, eqx.is_array)
        value = jax.eval_shape(
            lambda arrays, field, needed: eqx.combine(arrays, static)(field, **needed),
            arrays,
            field,
            needed,
        )
    except Exception as error:
        raise ValueError(
            f"{where} cannot be called: {error}; give a function of the field"
        ) from error
    if getattr(value, "shape", None) != shape:
        raise ValueError(f"{where} gives {value}; an activation keeps the shape of the field")
    if not fits(described(activation).integer, value.dtype, dtype):
        raise ValueError(
            f"{where}: {name(activation)} gives {value.dtype}, which {dtype} cannot hold; use sign "
            "or another activation of whole numbers, or a float dtype for the node"
        )


def fits(integer: bool, source: Any, dtype: Any) -> bool:
    """Whether values of an activation can be stored in a dtype."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return not jnp.issubdtype(source, jnp.complexfloating) or bool(
            jnp.issubdtype(dtype, jnp.complexfloating)
        )
    signed = dtype != jnp.bool_ and not jnp.issubdtype(dtype, jnp.unsignedinteger)
    return (integer and signed) or bool(np.can_cast(source, dtype))


def _check_overlaps(topology: Topology, given: dict[str, Any]):
    """Cells that several nodes share answer once, so all of them must answer alike and cell by
    cell.
    """
    receivers = np.zeros(len(topology), bool)
    receivers[topology.columns.receivers] = True
    for block in topology.layout.overlaps:
        nodes = [at for at in block.tolist() if receivers[at]]
        kinds = sorted(
            {topology.node_class(at).kind for at in (block.tolist() if nodes else [])} & set(given)
        )
        if not nodes:
            continue
        who = _text.listing((repr(topology.nodes[at]) for at in block.tolist()), 12)
        bad = [kind for kind in kinds if not described(given[kind]).elementwise]
        if bad:
            raise ValueError(
                f"nodes {who} overlap on a shared array, but `activations` {_text.names(bad)} "
                f"({name(given[bad[0]])}) is not known to be elementwise; mark a function of your "
                "own with dx.elementwise, or keep views apart"
            )
        others = [
            k
            for k in kinds
            if given[k] is not given[kinds[0]]
            and not bool(eqx.tree_equal(given[k], given[kinds[0]]))
        ]
        if others:
            raise ValueError(
                f"nodes {who} overlap on a shared array, but kinds "
                f"{_text.names([kinds[0], *others])} have different activations; give them one and "
                "the same"
            )


def biases(topology: Topology, given: Any, key: Key[Array, ""]) -> dict[str, dict[str, Array]]:
    """By node kind and array, one number a cell; zero on cells of a shared array that belong to
    others.
    """
    if given is None:
        return {}
    given = checks.by_kind("biases", given, topology.node_kinds, set(), "dx.bias()")
    layout = topology.layout
    result: dict[str, dict[str, Float[Array, ...]]] = {kind: {} for kind in given}
    for kind, start in given.items():
        checks.instance(f"biases[{kind!r}]", start, Bias, "dx.bias(...)", "give one")
    for at, (spec, members) in enumerate(zip(layout.arrays, layout.members, strict=True)):
        here = {
            topology.node_class(node).kind
            for node in (members if spec.shared else members[:1]).tolist()
        }
        for kind in here & set(given):
            own = [
                node
                for node in members.tolist()
                if not spec.shared or topology.node_class(node).kind == kind
            ]
            dtype = field_dtype(spec)
            hashes = naming.hashes([spec.name]) if spec.shared else topology.node_hashes[members]
            shape = spec.lead if spec.shared else spec.item
            start = given[kind](
                lambda h=hashes: keys_of(derived(key, naming.words(h)), key),
                len(hashes),
                shape,
                dtype,
            )
            if not spec.shared:
                result[kind][spec.name] = on_device(start)
                continue
            covered = np.zeros(spec.rows, bool)
            covered[layout.rows_of(np.asarray(own))[at]] = True
            result[kind][spec.name] = on_device(start[0] * covered.reshape(spec.lead).astype(dtype))
    return result
