"""Programs that are identified by what they compute, and compiled once for each such identity.

An optimiser is a few closures, and two that were made alike are not equal, nor are two lambdas: a
cache by equality would compile an epoch anew for every `optax.sgd(0.1)` that is written. What can
be compared is the trace of a function, the operations that JAX sees: the same operations on the
same constants are the same program, in whichever source or process they were written. The digest of
the trace is the identity of a program. `Shared` finds compiled programs by it, and a checkpoint
tells by it whether a run is the same.
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
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from darnax import files


class Shared:
    """A function that is compiled once for all arguments for which it is the same program.

    Arrays are traced, everything else is part of the program, as in `eqx.filter_jit`; results are
    arrays. For arguments that are equal nothing is traced again. Others are traced, in a small part
    of the time that compiling takes.
    """

    def __init__(self, function: Callable[..., Any]):
        @functools.partial(jax.jit, static_argnums=0)
        def traced(static, arrays):
            leaves, structure = static
            arguments = eqx.combine(arrays, jax.tree.unflatten(structure, leaves))
            return function(*arguments)

        # used for its traces alone, which JAX keeps for arguments that are equal
        self.traced = traced

    def __call__(self, *arguments: Any) -> Any:
        arrays, static = eqx.partition(arguments, _is_array)
        leaves, structure = jax.tree.flatten(static)
        traced = self.traced.trace((tuple(leaves), structure), arrays)
        program = _program(traced.jaxpr)
        results = program(*jax.tree.leaves(arrays))
        return jax.tree.unflatten(jax.tree.structure(traced.out_info), results)


def fingerprint(function: Callable[..., Any], *arguments: Any) -> str:
    """A digest of what `function` computes of its arguments, the same in every process.

    It depends on the shapes and dtypes of arrays, not on their values, and on everything else as
    far as it changes what is computed. Arrays may be given as `jax.ShapeDtypeStruct`.
    """
    closed, _, _ = eqx.filter_make_jaxpr(function)(*arguments)
    return _digest(closed, _text(closed))


@dataclass(frozen=True)
class _Trace:
    """A traced program, equal to others of the same identity: the key of a compiled one."""

    identity: str | int
    closed: ClosedJaxpr = field(compare=False)


# a bound, since a compiled program of an epoch takes megabytes; 64 are more than a run uses
@functools.lru_cache(maxsize=64)
def _program(closed: ClosedJaxpr) -> Callable[..., Any]:
    """The compiled form of a traced program."""
    text = _text(closed)
    opaque = "0x" in text
    for equation in _equations(closed):
        opaque |= "callback" in equation.primitive.name
    # functions of Python that run inside, and objects shown by their address, look alike in the
    # text: such a program is equal to itself alone
    identity = id(closed) if opaque else _digest(closed, text)
    return _compiled(_Trace(identity, closed))


@functools.lru_cache(maxsize=64)
def _compiled(trace: _Trace) -> Callable[..., Any]:
    return jax.jit(jaxpr_as_fun(trace.closed))


def _text(closed: ClosedJaxpr) -> str:
    return closed.pretty_print(use_color=False)


def _digest(closed: ClosedJaxpr, text: str) -> str:
    """A digest of the operations, as text, and of the bits of all constants."""
    # an address differs from process to process
    plain = re.sub(r"0x\w+", "", text)
    result = blake2b(plain.encode(), digest_size=16)
    for constant in _constants(closed):
        array = files.plain(constant)
        result.update(f"{array.dtype} {array.shape};".encode() + array.tobytes())
    return result.hexdigest()


def _constants(closed: ClosedJaxpr) -> Iterator[Any]:
    """The constants of a program in the order of use; most of them are but names in its text."""
    yield from closed.consts
    for equation in _equations(closed):
        for end in equation.invars:
            if isinstance(end, Literal):
                yield end.val
        for value in _parameters(equation):
            if isinstance(value, ClosedJaxpr):
                yield from value.consts
            elif _is_array(value):
                yield value


def _equations(program: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """All equations of a program, those of its inner programs behind the one that holds them."""
    for equation in program.eqns:
        yield equation
        for value in _parameters(equation):
            if isinstance(value, (ClosedJaxpr, Jaxpr)):
                yield from _equations(value)


def _parameters(equation: JaxprEqn) -> list[Any]:
    """The parameters of an equation, those inside of tuples one by one."""
    return jax.tree.leaves(list(equation.params.values()))


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))
