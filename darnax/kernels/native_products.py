"""Sums of products with matrices, corrected by what changed: calls of the native library."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from darnax.kernels.graph import take
from darnax.kernels.native_sums import alike, in_stack, on_cpu, stack_of, unstacked


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
    changed, too_much, found = _bind(_correct, *operands)
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
    too_much, found = _bind(_resum, *operands)
    return found, too_much


def _bind(primitive: Primitive, *operands: Array) -> list[Array]:
    # The first axis is for matrices or states that `vmap` stacks.
    found = primitive.bind(*(operand[None] for operand in alike(*operands)))
    return [result[0] for result in found]


# Operands of both: starts, senders, matrices, the share. Then states before and after, and the
# field; or states, the cells to sum, and the field.
_correct = Primitive("darnax_correct_products")
_resum = Primitive("darnax_resum_products")


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


def _results(primitive: Primitive, *operands: Any) -> list[tuple[tuple[int, ...], DTypeLike]]:
    """The shapes and dtypes of what a call gives."""
    field = operands[-1]
    stack, batch = field.shape[0], field.shape[-1]
    found: list[tuple[tuple[int, ...], DTypeLike]] = [((stack,), bool), (field.shape, field.dtype)]
    if primitive is _correct:
        found.insert(0, ((stack, batch), jnp.int32))
    return found


def _abstract(primitive: Primitive, *operands: Any) -> list[Any]:
    # Everything else is that of the field: mesh and axes that vary.
    *_, field = operands
    avals: list[Any] = []
    for shape, dtype in _results(primitive, *operands):
        avals.append(field.update(shape=shape, dtype=jnp.dtype(dtype), weak_type=False))
    return avals


def _native(primitive: Primitive, *operands: Array) -> Sequence[Array]:
    results = [jax.ShapeDtypeStruct(*result) for result in _results(primitive, *operands)]
    aliases = {len(operands) - 1: len(results) - 1}
    return jax.ffi.ffi_call(primitive.name, results, input_output_aliases=aliases)(*operands)


def _each(plain: Callable[..., Sequence[Array]], *operands: Array) -> Sequence[Array]:
    stack = stack_of(operands)
    whole = [jnp.broadcast_to(operand, (stack, *operand.shape[1:])) for operand in operands]
    return jax.vmap(plain)(*whole)


def _batched(
    primitive: Primitive,
    operands: Sequence[Array],
    axes: Sequence[int | None],
) -> tuple[list[Array], list[int]]:
    (*others, field), size = in_stack(operands, axes)
    # The result is the field itself, and so that has the whole stack.
    stack = stack_of([*others, field])
    field = jnp.broadcast_to(field, (stack, *field.shape[1:]))
    found = primitive.bind(*alike(*others, field))
    return [unstacked(result, size) for result in found], [0] * len(found)


def _register(primitive: Primitive, plain: Callable[..., Sequence[Array]]):
    """Tells JAX how a primitive runs, inside of programs and outside."""
    primitive.multiple_results = True
    of_all = functools.partial(_each, plain)
    native = functools.partial(_native, primitive)
    primitive.def_impl(jax.jit(primitive.bind))
    primitive.def_abstract_eval(functools.partial(_abstract, primitive))
    mlir.register_lowering(primitive, mlir.lower_fun(of_all, multiple_results=True))
    on_this = mlir.lower_fun(on_cpu(native, of_all), multiple_results=True)
    mlir.register_lowering(primitive, on_this, platform="cpu")
    batching.primitive_batchers[primitive] = functools.partial(_batched, primitive)


_register(_correct, _plain_correct)
_register(_resum, _plain_resum)
