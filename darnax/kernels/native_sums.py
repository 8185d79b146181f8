"""The sums of the native library as operations of JAX, with derivatives of every order.

Weights w of edges, states x of their senders and numbers q of their receivers make one number,

    Σ w[e, u] x[s[e], u, b] q[r[e], u, b]    over edges e, units u and samples b.

Its derivative by q is the weighted sum `y[r, u, b] = Σ_e w[e, u] x[s[e], u, b]`; its derivative by
x is the same sum over the reversed graph; and its derivative by w is what weights learn. Each is
linear in both of the others, and its transposes are the two others. So there is one primitive for
all three, which is its own derivative.

Where the library is missing, and on other devices than CPUs, the same operations run in plain JAX:
a network that was saved on one machine runs on another.
"""

import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Bool, Float, Int, UInt16

from darnax._arrays import any_rank, on_device
from darnax.kernels.graph import Graph, take
from darnax.kernels.native_call import (
    NativeCall,
    Results,
    alike,
    each,
    in_stack,
    on_cpu,
    stack_of,
    unstacked,
)

NARROW = 2**16
"""Rows whose numbers fit into 16 bits: half as much to read for every edge."""


class EdgesByRow(eqx.Module):
    """The edges of a graph, row after row.

    **Fields:**

    - `starts`: the first edge of every row, and behind them the number of edges.
    - `ends`: the row at the other end of every edge.
    """

    starts: Int[Array, "*stack starts"]
    ends: Int[Array, "*stack edges"] | UInt16[Array, "*stack edges"]

    @classmethod
    def of(
        cls,
        rows: np.ndarray,
        ends: np.ndarray,
        count: int,
        others: int,
    ) -> "EdgesByRow":
        """The edges of `count` rows, sorted by row, to as many as `others` at the other end."""
        degree = np.bincount(rows, minlength=count)
        starts = np.concatenate([[0], np.cumsum(degree)])
        narrow = others <= NARROW
        return cls(
            starts=on_device(starts, jnp.int32),
            ends=on_device(ends, jnp.uint16 if narrow else jnp.int32),
        )


class Incidence(eqx.Module):
    """The edges of a graph both ways.

    **Fields:**

    - `received`: the edges of every receiver, in the order of their weights.
    - `sent`: the edges of every sender.
    - `order`: for every edge of `sent`, its number in the order of the weights.
    """

    received: EdgesByRow
    sent: EdgesByRow
    order: Int[Array, "*stack edges"]

    @classmethod
    def of(
        cls,
        senders: np.ndarray,
        receivers: np.ndarray,
        receiving: int,
        sending: int,
    ) -> "Incidence":
        """From edges sorted by receiver."""
        order = np.argsort(senders, kind="stable")
        return cls(
            received=EdgesByRow.of(receivers, senders, receiving, sending),
            sent=EdgesByRow.of(senders[order], receivers[order], sending, receiving),
            order=on_device(order, jnp.int32),
        )


class Of(enum.Enum):
    """What an array has a row for."""

    EDGES = enum.auto()
    SENDERS = enum.auto()
    RECEIVERS = enum.auto()


OPERANDS = {
    Of.RECEIVERS: (Of.EDGES, Of.SENDERS),
    Of.SENDERS: (Of.EDGES, Of.RECEIVERS),
    Of.EDGES: (Of.SENDERS, Of.RECEIVERS),
}
"""Of what the two operands are, from what the result is of."""


def weighted_sum(
    edges: Incidence,
    w: Float[Array, "edges item"],
    x: Float[Array, "rows units batch"],
) -> Float[Array, "receiving units batch"]:
    """`y[r] = Σ_e w[e] x[s[e]]` in the dtype of both, float32 or float64."""
    # All arrays have the same four axes; the first is for graphs or weights that `vmap` stacks.
    return _bind(_stacked(edges), w[None, ..., None], x[None], of=Of.RECEIVERS, items=w.shape[1])[0]


def reversed_sum(
    edges: Incidence,
    w: Float[Array, "edges item"],
    q: Float[Array, "receiving units batch"],
) -> Float[Array, "rows units batch"]:
    """`x[s] = Σ_e w[e] q[r[e]]`, over the reversed graph, in the dtype of both."""
    return _bind(_stacked(edges), w[None, ..., None], q[None], of=Of.SENDERS, items=w.shape[1])[0]


def corrected(
    edges: Incidence,
    field: Float[Array, "receiving units batch"],
    w: Float[Array, "edges item"],
    before: Float[Array, "rows units batch"],
    after: Float[Array, "rows units batch"],
    anew: Bool[Array, ""],
) -> Float[Array, "receiving units batch"]:
    """`field + Σ_e w[e] (after - before)[s[e]]`, at the cost of the edges of what changed.

    Where much has changed, and where `anew` asks for it, it is `weighted_sum(edges, w, after)`. The
    field is corrected in place where nobody else reads it. It rounds a little at every correction,
    and a state that stops being infinite leaves NaN. There are no derivatives.
    """
    graph = jax.tree.leaves(edges)
    return _correct(*graph, w[..., None], anew, before, after, field)[0]


def resummed(
    edges: Incidence,
    field: Float[Array, "receiving units batch"],
    w: Float[Array, "edges item"],
    x: Float[Array, "rows units batch"],
    cells: Bool[Array, "receiving units batch"],
) -> Float[Array, "receiving units batch"]:
    """The field with `weighted_sum(edges, w, x)` in some cells, to the last bit.

    It costs the edges of these cells. Others beside them may be summed as well. The field is
    changed in place where nobody else reads it. There are no derivatives.
    """
    received = edges.received
    return _resum(received.starts, received.ends, w[..., None], x, cells, field)[0]


# ---- the primitive of the three sums ----

# Operands: the five arrays of an `Incidence`, and two of weights, states and numbers of receivers,
# each `(1 or stack, rows, units or 1, batch or 1)`.
_sums = Primitive("darnax_sums")
GRAPH = 5


def _bind(
    edges: Sequence[Array],
    a: Array,
    b: Array,
    **params: Any,
) -> Array:
    return _sums.bind(*alike(*edges, a, b), **params)


def _stacked(edges: Incidence) -> list[Array]:
    return [leaf[None] for leaf in jax.tree.leaves(edges)]


def _shape(
    operands: Sequence[Any],
    of: Of,
    items: int,
) -> tuple[int, int, int, int]:
    """The shape of the result."""
    starts, senders, starts_back, *_ = operands
    stack = stack_of(operands)
    # One of both is of states, which know the units and the batch.
    *_, units, batch = operands[-1].shape
    if of is Of.EDGES:
        return stack, senders.shape[1], items, 1
    rows = starts if of is Of.RECEIVERS else starts_back
    return stack, rows.shape[1] - 1, units, batch


def _abstract(*operands: Any, of: Of, items: int) -> Any:
    # Everything but the shape is that of the last operand: dtype, mesh and axes that vary.
    return operands[-1].update(shape=_shape(operands, of, items), weak_type=False)


def _tangent(position: int) -> Callable[..., Array]:
    """The change of the result with an operand: linear, it takes the operand's place."""

    def rule(change: Array, *operands: Array, **params: Any) -> Array:
        changed = list(operands)
        changed[position] = change
        return _bind(changed[:GRAPH], *changed[GRAPH:], **params)

    return rule


def _transposed(
    signal: Any,
    *operands: Any,
    of: Of,
    items: int,
) -> list[Any]:
    """What goes back to the one operand that is not known yet."""
    results: list[Any] = [None] * len(operands)
    known = {of: signal}
    position, wanted = 0, of
    for i, name in enumerate(OPERANDS[of], start=GRAPH):
        if ad.is_undefined_primal(operands[i]):
            position, wanted = i, name
        else:
            known[name] = operands[i]
    aval = operands[position].aval
    if type(signal) is ad.Zero:
        results[position] = ad.Zero(aval)
        return results
    a, b = (known[name] for name in OPERANDS[wanted])
    back = _bind(operands[:GRAPH], a, b, of=wanted, items=items)
    # What served a whole stack hears from all of it.
    if aval.shape[0] < back.shape[0]:
        back = jnp.sum(back, axis=0, keepdims=True)
    results[position] = back
    return results


def _batched(
    operands: Sequence[Array],
    axes: Sequence[int | None],
    *,
    of: Of,
    items: int,
) -> tuple[Array, int]:
    alone = [i for i, axis in enumerate(axes) if axis is not None] == [GRAPH + 1]
    if alone and of is not Of.EDGES:
        # States alone differ: they are a larger batch.
        axis = axes[-1]
        assert axis is not None
        states, size = _merged(operands[-1], axis)
        y = _bind(operands[:GRAPH], operands[GRAPH], states, of=of, items=items)
        return _parted(y, size), y.ndim
    stacked, size = in_stack(operands, axes)
    y = _bind(stacked[:GRAPH], *stacked[GRAPH:], of=of, items=items)
    return unstacked(y, size), 0


def _merged(states: Array, axis: int) -> tuple[Array, int]:
    """States with an axis of `vmap` as a part of the batch; the size of that axis."""
    last = jnp.moveaxis(states, axis, -1)
    *lead, batch, size = last.shape
    return last.reshape(*lead, batch * size), size


def _parted(states: Array, size: int) -> Array:
    """The other way: states with the axis of `vmap` last."""
    *lead, both = states.shape
    return states.reshape(*lead, both // size, size)


# ---- how it runs ----


def _native(*operands: Array, of: Of, items: int) -> Array:
    starts, senders, starts_back, receivers, order, a, b = operands
    result = jax.ShapeDtypeStruct(_shape(operands, of, items), b.dtype)
    if of is Of.EDGES:
        return jax.ffi.ffi_call("darnax_products", result)(starts, senders, a, b)
    call = jax.ffi.ffi_call("darnax_sum", result)
    if of is Of.RECEIVERS:
        return call(starts, senders, a, b)
    return call(starts_back, receivers, _in_order(a, order), b)


def _plain(*operands: Array, of: Of, items: int) -> Array:
    starts, senders, starts_back, receivers, order, a, b = operands
    if of is Of.EDGES:
        return each(functools.partial(_plain_products, items=items), starts, senders, a, b)
    if of is Of.RECEIVERS:
        return each(_plain_sum, starts, senders, a, b)
    return each(_plain_sum, starts_back, receivers, _in_order(a, order), b)


def _in_order(w: Array, order: Array) -> Array:
    if len(order) == 1:
        return w.at[:, order[0]].get(mode="promise_in_bounds", wrap_negative_indices=False)
    return each(take, w, order)


def _plain_graph(starts: Array, ends: Array, others: int) -> Graph:
    rows = len(starts) - 1
    degree = jnp.diff(starts)
    own = jnp.repeat(jnp.arange(rows, dtype=jnp.int32), degree, total_repeat_length=len(ends))
    return Graph(ends.astype(jnp.int32), own, rows, others)


@any_rank
def _plain_sum(starts: Array, ends: Array, w: Array, x: Array) -> Array:
    return _plain_graph(starts, ends, len(x)).sum(w[..., 0], x)


def _plain_products(starts: Array, ends: Array, x: Array, q: Array, items: int) -> Array:
    graph = _plain_graph(starts, ends, len(x))
    terms = take(x, graph.senders) * take(q, graph.receivers)
    edges, units, batch = terms.shape
    own = terms.reshape(edges, items, units * batch // items)
    return own.sum(axis=-1, keepdims=True)


def _register(
    primitive: Primitive,
    native: Callable[..., Array],
    plain: Callable[..., Array],
) -> None:
    """Tells JAX how a primitive runs, inside of programs and outside."""

    @functools.partial(jax.jit, static_argnames=("of", "items"))
    def alone(*operands: Array, **params: Any) -> Array:
        return primitive.bind(*operands, **params)

    primitive.def_impl(alone)
    rule = mlir.lower_fun(plain, multiple_results=False)
    mlir.register_lowering(primitive, rule)
    rule = mlir.lower_fun(on_cpu(native, plain), multiple_results=False)
    mlir.register_lowering(primitive, rule, platform="cpu")


_sums.def_abstract_eval(_abstract)
_register(_sums, _native, _plain)
ad.defjvp(_sums, *[None] * GRAPH, _tangent(GRAPH), _tangent(GRAPH + 1))
ad.primitive_transposes[_sums] = _transposed
batching.primitive_batchers[_sums] = _batched


# ---- the calls that change a field ----


@any_rank
def _plain_correct(
    starts: Array,
    senders: Array,
    starts_back: Array,
    receivers: Array,
    order: Array,
    w: Array,
    anew: Array,
    before: Array,
    after: Array,
    field: Array,
) -> list[Array]:
    def correct() -> Array:
        graph = _plain_graph(starts_back, receivers, len(field))
        terms = take(w, order) * take(after - before, graph.receivers)
        return field.at[graph.senders].add(terms, mode="promise_in_bounds")

    return [jax.lax.cond(anew, lambda: _plain_sum(starts, senders, w, after), correct)]


def _plain_resum(
    starts: Array,
    ends: Array,
    w: Array,
    x: Array,
    cells: Array,
    field: Array,
) -> list[Array]:
    return [jnp.where(cells, _plain_sum(starts, ends, w, x), field)]


def _field(*operands: Any) -> Results:
    return [(operands[-1].shape, operands[-1].dtype)]


# Operands: the arrays of an `Incidence`, weights, whether to sum anew, states before and after, the
# field.
_correct = NativeCall("darnax_correct", _field, _plain_correct, in_place=True)
# Operands: edges by receiver, weights, states, the cells to sum, the field.
_resum = NativeCall("darnax_resum", _field, _plain_resum, in_place=True)
