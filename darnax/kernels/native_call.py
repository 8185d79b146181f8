"""Calls of the native library as operations of JAX.

Every operand has an axis in front, of 1 or as many as `vmap` stacks: there each of the stack has
its own, and what is the same for all is an axis of 1. Where the library is missing, and on other
devices than CPUs, the same operation runs in plain JAX.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.typing import DTypeLike
from jaxtyping import Array

from darnax.kernels.native_sums import alike, in_stack, on_cpu, stack_of, unstacked

Results: TypeAlias = Sequence[tuple[tuple[int, ...], DTypeLike]]
"""Shapes and dtypes."""


def native_call(
    name: str,
    results: Callable[..., Results],
    plain: Callable[..., Sequence[Array]],
    in_place: bool = False,
) -> Callable[..., list[Array]]:
    """The call `name` of the library, as a function of its operands without their first axes.

    **Arguments:**

    - `results`: what it gives, from its operands with their first axes.
    - `plain`: the same for one of a stack.
    - `in_place`: whether the last result takes the place of the last operand. That one then has the
      whole stack.

    All of them are given the attributes of the call as well, which are its named arguments: bools
    and tuples of ints. There are no derivatives.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def abstract(*operands: Any, **attributes: Any) -> list[Any]:
        # Everything but shapes and dtypes is that of an operand: mesh and axes that vary.
        last = operands[-1]
        avals: list[Any] = []
        for shape, dtype in results(*operands, **attributes):
            avals.append(last.update(shape=shape, dtype=jnp.dtype(dtype), weak_type=False))
        return avals

    def native(*operands: Array, **attributes: Any) -> Sequence[Array]:
        given = [jax.ShapeDtypeStruct(*result) for result in results(*operands, **attributes)]
        aliases = {len(operands) - 1: len(given) - 1} if in_place else None
        call = jax.ffi.ffi_call(name, given, input_output_aliases=aliases)
        known: dict[str, Any] = {}
        for key, value in attributes.items():
            known[key] = np.asarray(value) if isinstance(value, tuple) else value
        return call(*operands, **known)

    def one_by_one(*operands: Array, **attributes: Any) -> Sequence[Array]:
        stack = stack_of(operands)
        whole = [jnp.broadcast_to(operand, (stack, *operand.shape[1:])) for operand in operands]
        return jax.vmap(functools.partial(plain, **attributes))(*whole)

    def batched(
        operands: Sequence[Array],
        axes: Sequence[int | None],
        **attributes: Any,
    ) -> tuple[list[Array], list[int]]:
        stacked, size = in_stack(operands, axes)
        if in_place:
            whole = stack_of(stacked), *stacked[-1].shape[1:]
            stacked[-1] = jnp.broadcast_to(stacked[-1], whole)
        found = primitive.bind(*alike(*stacked), **attributes)
        return [unstacked(result, size) for result in found], [0] * len(found)

    def alone(*operands: Array, **attributes: Any) -> list[Array]:
        return jax.jit(functools.partial(primitive.bind, **attributes))(*operands)

    primitive.def_impl(alone)
    primitive.def_abstract_eval(abstract)
    rule = mlir.lower_fun(one_by_one, multiple_results=True)
    mlir.register_lowering(primitive, rule)
    rule = mlir.lower_fun(on_cpu(native, one_by_one), multiple_results=True)
    mlir.register_lowering(primitive, rule, platform="cpu")
    batching.primitive_batchers[primitive] = batched

    def call(*operands: Array, **attributes: Any) -> list[Array]:
        stacked = [operand[None] for operand in alike(*operands)]
        return [result[0] for result in primitive.bind(*stacked, **attributes)]

    return call
