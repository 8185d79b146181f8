"""Sums of products with matrices, corrected by what changed: calls of the native library."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from darnax.kernels.graph import take
from darnax.kernels.native_call import NativeCall, Results


class EdgeMatrices(eqx.Module):
    """Edges with a matrix each, or one for all, sorted by receiver.

    Two copies of the matrices cost memory. What an input sends lies side by side in one of them,
    and what an output hears in the other.

    **Fields:**

    - `starts`: the first edge of every receiver, and behind them the number of edges.
    - `senders`: the sender of every edge.
    - `by_input`: the matrices, `(E or 1, inputs, outputs)`.
    - `by_output`: their transposes, `(E or 1, outputs, inputs)`.
    """

    starts: Int[Array, " starts"]
    senders: Int[Array, " edges"]
    by_input: Float[Array, "each inputs outputs"]
    by_output: Float[Array, "each outputs inputs"]


def corrected_products(
    edges: EdgeMatrices,
    field: Float[Array, "receiving outputs batch"],
    before: Float[Array, "rows inputs batch"],
    after: Float[Array, "rows inputs batch"],
    share: Float[Array, ""],
) -> tuple[Float[Array, "receiving outputs batch"], Int[Array, " batch"], Bool[Array, ""]]:
    """`field[r] + Σ_e W[e] (after - before)[s[e]]`, at the cost of the inputs that changed.

    With it come the number of states that changed, of every sample, and whether more than `share`
    of all of them did: if so, the field is what it was.

    The field is corrected in place where nobody else reads it. It rounds a little at every
    correction, and a state that stops being infinite leaves NaN. There are no derivatives.
    """
    operands = edges.starts, edges.senders, edges.by_input, share, before, after, field
    changed, too_much, found = _correct(*operands)
    return found, changed, too_much


def resummed_products(
    edges: EdgeMatrices,
    field: Float[Array, "receiving outputs batch"],
    x: Float[Array, "rows inputs batch"],
    cells: Bool[Array, "receiving outputs batch"],
    share: Float[Array, ""],
) -> tuple[Float[Array, "receiving outputs batch"], Bool[Array, ""]]:
    """The field with `Σ_e W[e] x[s[e]]` in some cells, added up in float64 by the library.

    With it comes whether the cells are more than `share` of all: if so, the field is what it was.
    It costs the products of these cells. The field is changed in place where nobody else reads it.
    There are no derivatives.
    """
    operands = edges.starts, edges.senders, edges.by_output, share, x, cells, field
    too_much, found = _resum(*operands)
    return found, too_much


def _plain_correct(
    starts: Array,
    senders: Array,
    by_input: Array,
    share: Array,
    before: Array,
    after: Array,
    field: Array,
) -> tuple[Array, Array, Array]:
    differ = before != after
    changed = jnp.sum(differ, axis=(0, 1), dtype=jnp.int32)
    too_much = jnp.mean(differ, dtype=share.dtype) > share
    change = _products(starts, senders, jnp.swapaxes(by_input, 1, 2), after - before)
    return changed, too_much, jnp.where(too_much, field, field + change)


def _plain_resum(
    starts: Array,
    senders: Array,
    by_output: Array,
    share: Array,
    x: Array,
    cells: Array,
    field: Array,
) -> tuple[Array, Array]:
    too_much = jnp.mean(cells, dtype=share.dtype) > share
    sums = _products(starts, senders, by_output, x)
    return too_much, jnp.where(cells & ~too_much, sums, field)


def _products(starts: Array, senders: Array, matrices: Array, x: Array) -> Array:
    edges, receiving = len(senders), len(starts) - 1
    each = jnp.broadcast_to(matrices, (edges, *matrices.shape[1:]))
    messages = jnp.einsum("eok,ekb->eob", each, take(x, senders))
    receivers = jnp.repeat(jnp.arange(receiving), jnp.diff(starts), total_repeat_length=edges)
    field = jnp.zeros((receiving, *messages.shape[1:]), messages.dtype)
    return field.at[receivers].add(messages)


def _in_place(*operands: Any) -> Results:
    """Whether there is too much to do, and the field."""
    field = operands[-1]
    return [((field.shape[0],), bool), (field.shape, field.dtype)]


def _changed_and_in_place(*operands: Any) -> Results:
    field = operands[-1]
    changed = (field.shape[0], field.shape[-1]), jnp.int32
    return [changed, *_in_place(*operands)]


# Operands of both: starts, senders, matrices, the share. Then states before and after, and the
# field; or states, the cells to sum, and the field.
_correct = NativeCall(
    "darnax_correct_products", _changed_and_in_place, _plain_correct, in_place=True
)
_resum = NativeCall("darnax_resum_products", _in_place, _plain_resum, in_place=True)
