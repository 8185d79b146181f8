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
from typing import Generic, TypeAlias, TypeGuard, TypeVar, TypeVarTuple

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import (
    ClosedJaxpr,  # pyright: ignore[reportPrivateImportUsage]  # in later JAX a name of `Jaxpr`
    Jaxpr,
    JaxprEqn,
    Literal,
    jaxpr_as_fun,
)
from jax.typing import ArrayLike
from jaxtyping import Array

from darnax.files.leaves import plain

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

Program: TypeAlias = Callable[..., list[Array]]
"""A compiled program: it takes array leaves one by one, and gives the leaves of the results."""


class Shared(Generic[*Arguments, Result]):
    """A function that is compiled once for all arguments for which it is the same program.

    Arrays are traced, everything else is part of the program, as in `eqx.filter_jit`; results are
    arrays. For arguments that are equal nothing is traced again. Others are traced, in a small part
    of the time that compiling takes.
    """

    def __init__(self, function: Callable[[*Arguments], Result]):
        # what is no array goes in flat: JAX finds a trace by the hash of static arguments, which a
        # tuple of leaves and a structure have, and a tree with a dict in it has not
        @functools.partial(jax.jit, static_argnums=0)
        def traced(static: tuple[tuple[object, ...], object], arrays: object) -> Result:
            leaves, structure = static
            others = jax.tree.unflatten(structure, leaves)
            arguments: tuple[*Arguments] = eqx.combine(arrays, others)
            return function(*arguments)

        # used for its traces alone, which JAX keeps for arguments that are equal
        self.traced = traced

    def __call__(self, *arguments: *Arguments) -> Result:
        arrays, static = eqx.partition(arguments, _is_array)
        leaves, structure = jax.tree.flatten(static)
        traced = self.traced.trace((tuple(leaves), structure), arrays)
        # one program serves traces of several structures: they are put on again outside of it
        program = _program(traced.jaxpr)
        results = program(*jax.tree.leaves(arrays))
        return jax.tree.unflatten(jax.tree.structure(traced.out_info), results)


def fingerprint(function: Callable[..., object], *arguments: object) -> str:
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
    # left out of the comparison: two traces of one program are two objects, which are never equal
    closed: ClosedJaxpr = field(compare=False)


# The first cache is by object, and spares the text of a trace that JAX has kept; the second is by
# identity. Both are bounded, since a compiled program of an epoch takes megabytes. 64 are more than
# a run uses.
@functools.lru_cache(maxsize=64)
def _program(closed: ClosedJaxpr) -> Program:
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
def _compiled(trace: _Trace) -> Program:
    return jax.jit(jaxpr_as_fun(trace.closed))


def _text(closed: ClosedJaxpr) -> str:
    # colours would depend on where the output of the process goes
    return closed.pretty_print(use_color=False)


def _digest(closed: ClosedJaxpr, text: str) -> str:
    """A digest of the operations, as text, and of the bits of all constants."""
    # an address differs from process to process, and would make every digest a new one
    words = re.sub(r"0x\w+", "", text)
    result = blake2b(words.encode(), digest_size=16)
    for constant in _constants(closed):
        array = plain(constant)
        # with its dtype and shape, since other arrays may have the same bits
        result.update(f"{array.dtype} {array.shape};".encode() + array.tobytes())
    return result.hexdigest()


def _constants(closed: ClosedJaxpr) -> Iterator[ArrayLike]:
    """The constants of a program in the order of use; most of them are but names in its text."""
    yield from closed.consts
    for equation in _equations(closed):
        # a literal that is an array is no more than [...] in the text
        for end in equation.invars:
            if isinstance(end, Literal):
                yield end.val
        # inner programs hold constants of their own; those of a Jaxpr are arguments
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


def _parameters(equation: JaxprEqn) -> list[object]:
    """The parameters of an equation, those inside of tuples one by one."""
    return jax.tree.leaves(list(equation.params.values()))


def _is_array(leaf: object) -> TypeGuard[ArrayLike]:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))
