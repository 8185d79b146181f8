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


class NativeCall:
    """A call of the library, as a function of its operands without their first axes.

    Its named arguments are attributes of the call: bools and tuples of ints, which are a part of
    the program. There are no derivatives.
    """

    def __init__(
        self,
        name: str,
        results: Callable[..., Results],
        plain: Callable[..., Sequence[Array]],
        attributes: Sequence[str] = (),
        in_place: bool = False,
    ):
        """A call of this name.

        **Arguments:**

        - `results`: what it gives, from its operands with their first axes and its attributes.
        - `plain`: the same in plain JAX, for one of a stack.
        - `attributes`: the names of its attributes.
        - `in_place`: whether the last result takes the place of the last operand. That one then has
          the whole stack.
        """
        self.name, self.results, self.plain, self.in_place = name, results, plain, in_place
        self.primitive = Primitive(name)
        self.primitive.multiple_results = True
        self.primitive.def_impl(jax.jit(self.primitive.bind, static_argnames=attributes))
        self.primitive.def_abstract_eval(self._abstract)
        rule = mlir.lower_fun(self._one_by_one, multiple_results=True)
        mlir.register_lowering(self.primitive, rule)
        rule = mlir.lower_fun(on_cpu(self._native, self._one_by_one), multiple_results=True)
        mlir.register_lowering(self.primitive, rule, platform="cpu")
        batching.primitive_batchers[self.primitive] = self._batched

    def __call__(self, *operands: Array, **attributes: Any) -> list[Array]:
        stacked = [operand[None] for operand in alike(*operands)]
        return [result[0] for result in self.primitive.bind(*stacked, **attributes)]

    def _abstract(self, *operands: Any, **attributes: Any) -> list[Any]:
        # Everything but shapes and dtypes is that of an operand: mesh and axes that vary.
        last = operands[-1]
        avals: list[Any] = []
        for shape, dtype in self.results(*operands, **attributes):
            avals.append(last.update(shape=shape, dtype=jnp.dtype(dtype), weak_type=False))
        return avals

    def _native(self, *operands: Array, **attributes: Any) -> Sequence[Array]:
        given: list[jax.ShapeDtypeStruct] = []
        for shape, dtype in self.results(*operands, **attributes):
            given.append(jax.ShapeDtypeStruct(shape, dtype))
        aliases = {len(operands) - 1: len(given) - 1} if self.in_place else None
        call = jax.ffi.ffi_call(self.name, given, input_output_aliases=aliases)
        known: dict[str, Any] = {}
        for key, value in attributes.items():
            known[key] = np.asarray(value) if isinstance(value, tuple) else value
        return call(*operands, **known)

    def _one_by_one(self, *operands: Array, **attributes: Any) -> Sequence[Array]:
        stack = stack_of(operands)
        whole = [jnp.broadcast_to(operand, (stack, *operand.shape[1:])) for operand in operands]
        return jax.vmap(functools.partial(self.plain, **attributes))(*whole)

    def _batched(
        self,
        operands: Sequence[Array],
        axes: Sequence[int | None],
        **attributes: Any,
    ) -> tuple[list[Array], list[int]]:
        stacked, size = in_stack(operands, axes)
        if self.in_place:
            whole = stack_of(stacked), *stacked[-1].shape[1:]
            stacked[-1] = jnp.broadcast_to(stacked[-1], whole)
        found = self.primitive.bind(*alike(*stacked), **attributes)
        return [unstacked(result, size) for result in found], [0] * len(found)
