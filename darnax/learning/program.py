"""Programs told apart by what they compute, and compiled once for all arguments that come to the
same.

An optimiser is a few closures, and two that were made alike are not equal, nor are two lambdas.
What can be compared is what JAX traces them to: the same operations on the same constants are the
same program, whoever wrote them.
"""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from darnax import files


class Shared:
    """A function that is compiled once for all arguments that it is traced to the same program for.

    Arrays are traced, everything else is part of the program, as in `eqx.filter_jit`; results are
    arrays. For arguments that are equal nothing is traced again. Others are traced, in a small part
    of the time that compiling takes.
    """

    def __init__(self, function: Callable[..., Any]):
        @functools.partial(jax.jit, static_argnums=0)
        def traced(static, arrays):
            leaves, structure = static
            return function(*eqx.combine(arrays, jax.tree.unflatten(structure, leaves)))

        self.traced = traced

    def __call__(self, *arguments: Any) -> Any:
        trace, arrays = self._trace(arguments)
        results = _program(trace.jaxpr)(*jax.tree.leaves(arrays))
        return jax.tree.unflatten(jax.tree.structure(trace.out_info), results)

    def outputs(self, *arguments: Any) -> Any:
        """Shapes and dtypes of what a call gives. Nothing is run, and the call will not trace it
        again.
        """
        return self._trace(arguments)[0].out_info

    def _trace(self, arguments: tuple) -> tuple[Any, Any]:
        arrays, static = eqx.partition(arguments, _is_array)
        leaves, structure = jax.tree.flatten(static)
        return self.traced.trace((tuple(leaves), structure), arrays), arrays


def fingerprint(function: Callable[..., Any], *arguments: Any) -> str:
    """A digest of what `function` computes of its arguments; arrays in them may be
    `jax.ShapeDtypeStruct`.

    It depends on the shapes and dtypes of arrays, not on their values, and on everything else as
    far as it changes what is computed. It is the same in every process.
    """
    closed, _, _ = eqx.filter_make_jaxpr(function)(*arguments)
    return _digest(closed, _text_of(closed))


@functools.lru_cache(maxsize=64)
def _program(closed: ClosedJaxpr) -> Callable[..., Any]:
    """The compiled form of a traced program."""
    text = _text_of(closed)
    # functions of Python that run in it, and objects shown by their address, are not told apart by
    # the text
    callbacks = any("callback" in equation.primitive.name for equation in _equations(closed))
    return (
        _compiled(closed)
        if callbacks or "0x" in text
        else _of_its_kind(_Traced(_digest(closed, text), closed))
    )


@dataclass(frozen=True)
class _Traced:
    """A traced program, equal to others that compute the same."""

    digest: str
    closed: ClosedJaxpr = field(compare=False)


@functools.lru_cache(maxsize=64)
def _of_its_kind(traced: _Traced) -> Callable[..., Any]:
    return _compiled(traced.closed)


def _compiled(closed: ClosedJaxpr) -> Callable[..., Any]:
    return jax.jit(jaxpr_as_fun(closed))


def _text_of(closed: ClosedJaxpr) -> str:
    return closed.pretty_print(use_color=False)


def _digest(closed: ClosedJaxpr, text: str) -> str:
    """A digest of the operations, as text without addresses, and of the bits of all constants."""
    result = blake2b(re.sub(r"0x\w+", "", text).encode(), digest_size=16)
    for constant in _constants(closed):
        array = files.plain(constant)
        result.update(f"{array.dtype} {array.shape};".encode() + array.tobytes())
    return result.hexdigest()


def _constants(closed: ClosedJaxpr) -> Iterator[Any]:
    """What a program computes with besides its arguments, in the order of use; printed, most of it
    is a name.
    """
    yield from closed.consts
    for equation in _equations(closed):
        yield from (end.val for end in equation.invars if isinstance(end, Literal))
        for value in _parameters(equation):
            if isinstance(value, ClosedJaxpr):
                yield from value.consts
            elif _is_array(value):
                yield value


def _equations(program: ClosedJaxpr | Jaxpr) -> Iterator[Any]:
    """All equations of a program, those of its inner programs behind the one that holds them."""
    for equation in program.eqns:
        yield equation
        for value in _parameters(equation):
            if isinstance(value, (ClosedJaxpr, Jaxpr)):
                yield from _equations(value)


def _parameters(equation: Any) -> Iterator[Any]:
    """The parameters of an equation, those in tuples one by one."""
    for value in equation.params.values():
        yield from value if isinstance(value, (tuple, list)) else [value]


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))
