"""What cells make of their local field."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Shaped

from darnax.activations import Glauber, Leaky, described, name, needs
from darnax.dynamics.noise import node_keys, uniform
from darnax.dynamics.setting import Setting
from darnax.network.messages import outer


class Cells(NamedTuple):
    """Some rows of an array about to be updated.

    **Fields:**

    - `at`: the array.
    - `rows`: which rows: a slice, or an array of positions.
    - `old`: their state.
    - `field`: their local field.
    """

    at: int
    rows: Any
    old: Shaped[Array, "rows *item batch"]
    field: Float[Array, "rows *item batch"]


def both(a: Any, b: Any) -> Any:
    """Two masks as one; None is no restriction."""
    return b if a is None else a if b is None else a & b


def keep(mask: Array | None, new: Array, old: Array) -> Array:
    """The new value where the mask allows, the old bits elsewhere."""
    return new if mask is None else jnp.where(mask, new, old)


def held_out(setting: Setting, at: int, rows: Any) -> Bool[Array, "..."] | None:
    """Which cells of some rows are free; None for all."""
    held = setting.held[at]
    return None if held is None else ~held[rows]


def respond(
    setting: Setting, cells: Cells, keys: Key[Array, " batch"] | None
) -> tuple[Array, Array]:
    """The new state of cells that all are updated, and the target that the residual is measured to,
    in field dtype.
    """
    network, at = setting.network, cells.at
    spec, index = network.topology.layout.arrays[at], network.plan.arrays[at]
    bias = setting.biases[at]
    if bias is not None:
        cells = cells._replace(field=cells.field + bias[cells.rows])
    if index.nodes:
        return _respond_by_node(setting, cells, keys)
    value = target = None
    for i, kind in enumerate(index.kinds):
        ids = index.ids[cells.rows]
        answer = activate(network, kind, spec.dtype, cells.field, cells.old, ids, keys)
        if value is None or target is None:
            value, target = answer
            continue
        assert index.owner is not None
        own = outer(index.owner[cells.rows] == i, value.ndim)
        value, target = jnp.where(own, answer[0], value), jnp.where(own, answer[1], target)
    assert value is not None
    assert target is not None
    return value, target


def _respond_by_node(setting: Setting, cells: Cells, keys) -> tuple[Array, Array]:
    """On a shared array where some nodes answer as a whole: gathered by node, written back to their
    cells.
    """
    network, at = setting.network, cells.at
    spec, index = network.topology.layout.arrays[at], network.plan.arrays[at]
    shape = (spec.rows, cells.field.shape[-1])
    field = jnp.zeros(shape, cells.field.dtype).at[cells.rows].set(cells.field, mode="drop")
    old = jnp.zeros(shape, cells.old.dtype).at[cells.rows].set(cells.old, mode="drop")
    value, target = field, field
    for i, kind in enumerate(index.kinds):
        if kind in index.nodes:
            for address, ids in index.nodes[kind]:
                answer = activate(
                    network, kind, spec.dtype, field[address], old[address], ids, keys
                )
                value, target = value.at[address].set(answer[0]), target.at[address].set(answer[1])
            continue
        answer = activate(network, kind, spec.dtype, field, old, index.ids, keys)
        own = outer(index.owner == i, 2)
        value, target = jnp.where(own, answer[0], value), jnp.where(own, answer[1], target)
    return value[cells.rows], target[cells.rows]


def activate(
    network: Any, kind: str, dtype: str, field: Array, old: Array, ids: Array, keys
) -> tuple[Array, Array]:
    """The activation of a node kind on the fields of several nodes `(nodes, *shape, B)`: new state
    and target.
    """
    activation = network.activations[kind]
    known, needed = described(activation), needs(activation)
    inner = activation.target if isinstance(activation, Leaky) else activation
    if (
        not known.differentiable
        or "key" in needed
        or not jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    ):
        reason = (
            f"{name(activation)} has no derivative"
            if not known.differentiable
            else "it is random"
            if "key" in needed
            else f"its state is {dtype}"
        )
        field = no_gradient(
            f"nodes of kind {kind!r} cannot be differentiated: {reason}; use a smooth activation "
            "such as dx.tanh",
            field,
        )
    arguments = {"state": old.astype(field.dtype)} if "state" in needed else {}
    axes = dict.fromkeys(arguments, 0)
    if "key" in needed:
        arguments["key"], axes["key"] = node_keys(ids, keys), 0
    if isinstance(inner, Glauber):
        target = inner.spins(field, uniform(ids, keys, field.shape[1:-1]).astype(field.dtype))
    elif known.elementwise and "key" not in needed:
        target = inner(field, **arguments)
    else:

        def one(field, arguments):
            return inner(field, **arguments)

        batch = jax.vmap(one, in_axes=(-1, dict.fromkeys(axes, -1)), out_axes=-1)
        target = jax.vmap(batch, in_axes=(0, axes))(field, arguments)
    target = target.astype(field.dtype)
    return (
        activation.leak(target, arguments["state"]) if isinstance(activation, Leaky) else target
    ), target


def no_gradient(message: str, field: Array) -> Array:
    """The field as it is; differentiating through it raises `TypeError` with the message."""

    @jax.custom_jvp
    def refuse(field):
        return field

    @refuse.defjvp
    def _(primals, tangents):
        raise TypeError(message)

    return refuse(field)
