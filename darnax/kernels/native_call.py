"""Calls of the native library as operations of JAX.

Every operand has an axis in front, of 1 or as many as `vmap` stacks: there each of the stack has
its own, and what is the same for all is an axis of 1. Where the library is missing, and on other
devices than CPUs, the same operation runs in plain JAX.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.typing import DTypeLike
from jaxtyping import Array

from darnax.kernels.library import native_library

Results: TypeAlias = Sequence[tuple[tuple[int, ...], DTypeLike]]
"""Shapes and dtypes."""
Given = TypeVar("Given", Array, Sequence[Array])
"""What a function gives: one array or several."""


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
        return each(functools.partial(self.plain, **attributes), *operands)

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


def alike(*arrays: Array) -> list[Array]:
    """Arrays that vary over the same axes of a `shard_map`: JAX does so for its own operations."""
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    everywhere = frozenset().union(*varying)
    result = []
    for array, own in zip(arrays, varying, strict=True):
        missing = tuple(sorted(everywhere - own))
        result.append(jax.lax.pcast(array, missing, to="varying") if missing else array)
    return result


def stack_of(operands: Sequence[Any]) -> int:
    """The length of the stack, which some operands may have one of for all."""
    stack = 1
    for operand in operands:
        if operand.shape[0] != 1:
            stack = operand.shape[0]
    return stack


def in_stack(
    operands: Sequence[Array],
    axes: Sequence[int | None],
) -> tuple[list[Array], int]:
    """Operands with an axis of `vmap` as a part of the stack; the size of that axis.

    What is the same for all stays a stack of one.
    """
    first = []
    size = 1
    for operand, axis in zip(operands, axes, strict=True):
        if axis is None:
            first.append(operand[None])
        else:
            first.append(jnp.moveaxis(operand, axis, 0))
            size = first[-1].shape[0]
    inner = stack_of([operand[0] for operand in first])
    stacked = []
    for operand in first:
        if operand.shape[:2] != (1, 1):
            operand = jnp.broadcast_to(operand, (size, inner, *operand.shape[2:]))
        stacked.append(operand.reshape(-1, *operand.shape[2:]))
    return stacked, size


def unstacked(y: Array, size: int) -> Array:
    """The other way: a result with the axis of `vmap` first."""
    return y.reshape(size, len(y) // max(size, 1), *y.shape[1:])


def each(function: Callable[..., Given], *operands: Array) -> Given:
    """The function on every element of a stack."""
    stack = stack_of(operands)
    whole = (jnp.broadcast_to(operand, (stack, *operand.shape[1:])) for operand in operands)
    return jax.vmap(function)(*whole)


def on_cpu(
    native: Callable[..., Given],
    plain: Callable[..., Given],
) -> Callable[..., Given]:
    """The native way if the library is loaded, asked when a program is made."""

    def way(*operands: Array, **params: Any) -> Given:
        return (native if native_library().loaded else plain)(*operands, **params)

    return way
