"""From factories to parameters, and all that can be found wrong before the first step."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from darnax import _text, checks
from darnax.activations import described, name, needs
from darnax.couplings.coupling import Edges, Factory, hears_receiver, message, pick
from darnax.kernels.sum import take
from darnax.network.bias import Bias
from darnax.network.messages import field_dtype
from darnax.topologies import names as naming
from darnax.topologies.groups import Bundle, EdgeGroup
from darnax.topologies.topology import Topology

Structure = Any
"""How the leaves of a bundle make a coupling for one of its groups; None: as they are."""


def as_key(key: Any) -> Key[Array, "..."]:
    """A key as JAX's typed keys; raw `jax.random.PRNGKey` arrays are wrapped."""
    if not isinstance(key, jax.Array):
        raise TypeError(f"`key` is a key, as from jax.random.key(0), but got {key!r}")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if key.dtype != jnp.uint32 or not key.ndim or key.shape[-1] != 2:
        raise TypeError(f"`key` is a key, as from jax.random.key(0), but got {key.dtype} of shape {key.shape}")
    return jax.random.wrap_key_data(key)


@jax.jit
def fold(key: Key[Array, ""], words: UInt32[Array, "n 2"]) -> Key[Array, " n"]:
    """One key for each pair of words."""
    return jax.vmap(lambda pair: jax.random.fold_in(jax.random.fold_in(key, pair[0]), pair[1]))(words)


def couplings(topology: Topology, factories: Any, key: Key[Array, ""]):
    """The stacked coupling modules of every edge kind, and the structures of groups that differ from their bundle's."""
    factories = checks.by_kind(
        "couplings", factories, topology.edge_kinds, set(topology.bundles), "a factory such as dx.dense()"
    )
    _check_ties(topology)

    @cache
    def keys() -> Key[Array, " edges"]:
        return fold(key, jnp.asarray(topology.edge_words()))

    modules: dict[str, tuple] = {}
    structures: list[Structure] = [None] * len(topology.groups)
    for kind, bundles in topology.bundles.items():
        if not callable(factories[kind]):
            raise TypeError(f"`couplings[{kind!r}]` is a factory such as dx.dense(), but got {factories[kind]!r}")
        made = []
        for bundle in bundles:
            made.append(_bundle(topology, factories[kind], bundle, key, keys, structures))
        modules[kind] = tuple(made)
    return modules, tuple(structures)


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
                f"tie {tie!r} joins edges of several kinds: {_text.listing(who)}; give each kind its own tie"
            )


def _bundle(topology: Topology, factory: Factory, bundle: Bundle, key, keys, structures: list[Structure]) -> Any:
    groups = [topology.groups[i] for i in bundle.groups]
    dtype = jnp.result_type(*(field_dtype(topology.layout.arrays[group.receiver_array]) for group in groups))
    if bundle.tie is None:
        module = _make(
            topology, factory, groups[0], bundle.edges, lambda: take(keys(), jnp.asarray(bundle.edges)), dtype
        )
        for group in groups:
            _check_message(topology, group, module)
        return module
    words = naming.words(naming.hashes([("tie", bundle.kind, bundle.tie)]))
    made = {}  # one coupling a pair of shapes; all must have the same leaves
    for group in groups:
        shapes = group.sender_shape, group.receiver_shape, group.self_loop
        if shapes not in made:
            stacked = _make(topology, factory, group, bundle.edges, lambda: fold(key, jnp.asarray(words)), dtype)
            made[shapes] = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, stacked)
            _check_message(topology, group, made[shapes])
    modules = list(made.values())
    if any(_leaf_shapes(module) != _leaf_shapes(modules[0]) for module in modules):
        who = [f"{topology.edge(int(g.edges[0]))} {g.sender_shape} -> {g.receiver_shape}" for g in groups]
        raise ValueError(
            f"tie {bundle.tie!r} of kind {bundle.kind!r} joins edges whose parameters have different shapes: "
            f"{_text.listing(who)}; tie only edges between nodes of equal shapes"
        )
    for i, group in zip(bundle.groups, groups, strict=True):
        module = made[group.sender_shape, group.receiver_shape, group.self_loop]
        structure = jax.tree.structure(module)
        structures[i] = None if structure == jax.tree.structure(modules[0]) else structure
    return modules[0]


def _leaf_shapes(module: Any) -> list:
    return [(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in jax.tree.leaves(module)]


def _make(topology: Topology, factory: Factory, group: EdgeGroup, edges: np.ndarray, keys, dtype) -> Any:
    """The factory called once, vectorised over the edges' keys and columns, if it takes them."""
    shapes, tied = (group.sender_shape, group.receiver_shape), group.tie is not None
    try:
        parameters = inspect.signature(factory).parameters
        drawn = (keys(),) if _takes_key(parameters) else ()
        columns, missing, differing = _columns(topology, edges, tied) if "edges" in parameters else ({}, {}, {})

        def one(drawn, columns):
            known = Edges(group.self_loop, jnp.dtype(dtype), columns, missing, differing)
            return factory(*shapes, *drawn, **({"edges": known} if "edges" in parameters else {}))

        count = 1 if tied else len(edges)
        return eqx.filter_vmap(one, in_axes=(0, None if tied else 0), axis_size=count)(drawn, columns)
    except Exception as error:
        raise _on_edge(topology, group, "cannot be made", error) from error


def _takes_key(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a factory draws: keys take long to compile, and one whose `key` has a default can do without."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in parameters.values() if p.kind in positional and p.default is p.empty]
    return len(given) > 2 or any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters.values())


def _columns(topology: Topology, edges: np.ndarray, tied: bool):
    """The edges' numbers, a column each; by attribute, edges that lack it, and tied ones unlike the first."""
    columns, missing, differing = {}, {}, {}
    for attribute, (values, given) in topology.columns.attributes.items():
        values, given = values[edges], np.ones(len(edges), bool) if given is None else given[edges]
        columns[attribute] = jnp.asarray(values, float)
        for which, found in (missing, ~given), (differing, (values != values[0]) & tied):
            if found.any():
                which[attribute] = _text.names(topology.edge(edge) for edge in edges[found].tolist())
    return columns, missing, differing


def _check_message(topology: Topology, group: EdgeGroup, module: Any):
    """The message of one edge has the receiver's shape, found by tracing and not by running."""
    if not callable(module):
        raise TypeError(
            f"`couplings[{group.kind!r}]` made {module!r}, which cannot be called; a factory returns a module"
        )
    arrays, static = eqx.partition(module, eqx.is_array)
    arrays = jax.eval_shape(lambda arrays: pick(arrays, group.tie is not None, 0), arrays)
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    dtype = leaves[0].dtype if leaves else field_dtype(topology.layout.arrays[group.receiver_array])
    shapes = [group.sender_shape, *[group.receiver_shape] * hears_receiver(module)]
    ends = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    try:
        sent = jax.eval_shape(lambda arrays, *ends: message(eqx.combine(arrays, static), *ends), arrays, *ends)
    except Exception as error:
        raise _on_edge(topology, group, f"cannot take a sender of shape {group.sender_shape}", error) from error
    if getattr(sent, "shape", None) != group.receiver_shape or jnp.issubdtype(sent.dtype, jnp.complexfloating):
        raise ValueError(
            f"`couplings[{group.kind!r}]` on edge {topology.edge(int(group.edges[0]))}: the receiver takes a real "
            f"message of shape {group.receiver_shape}, but the coupling gives {sent}; change one or the other"
        )


def _on_edge(topology: Topology, group: EdgeGroup, what: str, error: Exception) -> Exception:
    cls = type(error) if type(error) in (ValueError, TypeError) else ValueError
    return cls(
        f"`couplings[{group.kind!r}]` on edge {topology.edge(int(group.edges[0]))}, "
        f"{group.sender_shape} -> {group.receiver_shape}, {what}: {error}"
    )


def activations(topology: Topology, given: Any) -> dict[str, Callable[..., Any]]:
    """The activation of every node kind that needs one."""
    receivers = {topology.node_class(at).kind for at in _one_of_each_class(topology, topology.columns.receivers)}
    if callable(given):
        given = dict.fromkeys(topology.node_kinds, given)
    given = checks.by_kind("activations", given, topology.node_kinds, receivers, "an activation such as dx.sign")
    check_activations(topology, given, topology.columns.receivers)
    _check_overlaps(topology, given)
    return given


def check_activations(topology: Topology, given: dict[str, Any], nodes: np.ndarray):
    """The activations of some nodes can be called on their fields, and their dtypes can hold the values."""
    for at in _one_of_each_class(topology, nodes):
        kind, shape, dtype, _ = topology.node_class(at)
        _check_activation(kind, given[kind], shape, jnp.dtype(dtype), repr(topology.nodes[at]))


def _one_of_each_class(topology: Topology, nodes: np.ndarray) -> list[int]:
    first = np.full(len(topology.columns.node_classes), -1)
    first[topology.columns.node_class[nodes][::-1]] = nodes[::-1]
    return first[first >= 0].tolist()


def _check_activation(kind: str, activation: Any, shape: tuple[int, ...], dtype: np.dtype, node: str):
    if not callable(activation):
        raise TypeError(f"`activations[{kind!r}]` is a function of the field such as dx.sign, but got {activation!r}")
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
            lambda arrays, field, needed: eqx.combine(arrays, static)(field, **needed), arrays, field, needed
        )
    except Exception as error:
        raise ValueError(f"{where} cannot be called: {error}") from error
    if getattr(value, "shape", None) != shape:
        raise ValueError(f"{where} gives {value}; an activation keeps the shape of the field")
    if not fits(described(activation).integer, value.dtype, dtype):
        raise ValueError(
            f"{where}: {name(activation)} gives {value.dtype}, which {dtype} cannot hold; use sign or another "
            "activation of whole numbers, or a float dtype for the node"
        )


def fits(integer: bool, source: Any, dtype: Any) -> bool:
    """Whether values of an activation can be stored in a dtype."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return not jnp.issubdtype(source, jnp.complexfloating) or bool(jnp.issubdtype(dtype, jnp.complexfloating))
    signed = dtype != jnp.bool_ and not jnp.issubdtype(dtype, jnp.unsignedinteger)
    return (integer and signed) or bool(np.can_cast(source, dtype))


def _check_overlaps(topology: Topology, given: dict[str, Any]):
    """Cells that several nodes share answer once, so all of them must answer alike and cell by cell."""
    receivers = np.zeros(len(topology), bool)
    receivers[topology.columns.receivers] = True
    for block in topology.layout.overlaps:
        nodes = [at for at in block.tolist() if receivers[at]]
        kinds = sorted({topology.node_class(at).kind for at in (block.tolist() if nodes else [])} & set(given))
        if not nodes:
            continue
        who = _text.listing((repr(topology.nodes[at]) for at in block.tolist()), 12)
        bad = [kind for kind in kinds if not described(given[kind]).elementwise]
        if bad:
            raise ValueError(
                f"nodes {who} overlap on a shared array, but `activations` {_text.names(bad)} ({name(given[bad[0]])}) "
                "is not known to be elementwise; mark a function of your own with dx.elementwise, or keep views apart"
            )
        others = [
            k for k in kinds if given[k] is not given[kinds[0]] and not bool(eqx.tree_equal(given[k], given[kinds[0]]))
        ]
        if others:
            raise ValueError(
                f"nodes {who} overlap on a shared array, but kinds {_text.names([kinds[0], *others])} have different "
                "activations; give them one and the same"
            )


def biases(topology: Topology, given: Any, key: Key[Array, ""]) -> dict[str, dict[str, Array]]:
    """By node kind and array, one number a cell; zero on cells of a shared array that belong to others."""
    if given is None:
        return {}
    given = checks.by_kind("biases", given, topology.node_kinds, set(), "dx.bias()")
    layout = topology.layout
    result: dict[str, dict[str, Float[Array, ...]]] = {kind: {} for kind in given}
    for kind, start in given.items():
        if not isinstance(start, Bias):
            raise TypeError(f"`biases[{kind!r}]` is dx.bias(...), but got {start!r}")
    for at, (spec, members) in enumerate(zip(layout.arrays, layout.members, strict=True)):
        here = {topology.node_class(node).kind for node in (members if spec.shared else members[:1]).tolist()}
        for kind in here & set(given):
            own = [node for node in members.tolist() if not spec.shared or topology.node_class(node).kind == kind]
            dtype = field_dtype(spec)
            hashes = naming.hashes([spec.name]) if spec.shared else topology.node_hashes[members]
            shape = spec.lead if spec.shared else spec.item
            start = given[kind](lambda h=hashes: fold(key, jnp.asarray(naming.words(h))), len(hashes), shape, dtype)
            if not spec.shared:
                result[kind][spec.name] = start
                continue
            covered = np.zeros(spec.rows, bool)
            covered[layout.rows_of(np.asarray(own))[at]] = True
            result[kind][spec.name] = jnp.where(covered.reshape(spec.lead), start[0], 0)
    return result
