"""One place for parsing and refusing arguments.

Every parser takes the name of an argument and the value that came for it, whatever that is. It
returns the value in the form in which the library works with it, or raises a `TypeError` or
`ValueError` that says what the argument is, what came, and what to do.
"""

import functools
import inspect
import math
import operator
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn, ParamSpec, SupportsFloat, SupportsIndex, TypeGuard, TypeVar

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key, Real

from darnax import _text

MOST = 2**31 - 1
"""The largest number that counts passes: the numbers of programs have 32 bits."""

LARGEST = float(np.finfo(np.float32).max)
"""The largest number that is finite in the parameters of a network."""

Bound = float | int | None
"""The end of an interval of numbers; None where it has none."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

# Values of any size are cut to fit into one line of an error.
_short = reprlib.Repr()
_short.maxstring, _short.maxother, _short.maxlong = 60, 80, 60


# errors


def came(value: object) -> str:
    """The words for a value in an error: itself where it is short, else what it is."""
    # A tracer counts as an array of JAX as well, so it is told apart first.
    if isinstance(value, Tracer):
        return f"a traced value of type {value.aval}"
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim:
        return f"an array of {value.dtype} and shape {value.shape}"
    if inspect.isgenerator(value):
        return "a generator"
    if inspect.isclass(value):
        return f"the class {_public_name(value)}"
    if inspect.isfunction(value) or inspect.isbuiltin(value):
        return f"the function {_public_name(value)}"
    words = _short.repr(value)
    # Several lines would tear the sentence apart, and an address in memory tells nothing.
    if "\n" in words or " object at 0x" in words:
        return f"an object of type {type(value).__name__}"
    return words


def _public_name(value: Callable[..., object]) -> str:
    return f"dx.{value.__name__}" if _is_ours(value) else value.__name__


def _is_ours(value: Callable[..., object]) -> bool:
    # Methods of built-in objects, such as `[].append`, have no module.
    package = (value.__module__ or "").partition(".")[0]
    return package == "darnax"


def refuse(
    argument: str,
    holds: str,
    value: object,
    advice: str,
    error: type[Exception] = TypeError,
) -> NoReturn:
    """Raise the error in its common form: the argument, what holds, what came, what to do."""
    raise error(f"`{argument}` is {holds}, but got {came(value)}; {advice}")


# numbers


def count(argument: str, value: object, least: int = 0, most: int | None = None) -> int:
    """An int from `least` to `most`, or of any size if `most` is None; no bool and no float."""
    bounds = f"an int of at least {least}" if most is None else f"an int from {least} to {most}"
    if isinstance(value, Tracer):
        refuse(argument, bounds, value, "give a number of Python: programs are compiled for each")
    result = _as_int(value)
    if result is None:
        refuse(argument, bounds, value, "give such a number")
    if result < least or (most is not None and result > most):
        refuse(argument, bounds, value, "give such a number", ValueError)
    return result


def number(
    argument: str,
    value: object,
    *,
    least: Bound = None,
    above: Bound = None,
    most: Bound = None,
) -> float:
    """A finite real number within bounds: `least` and `most` are allowed, `above` is not."""
    holds = "a finite number" + _bounds(least, above, most)
    if isinstance(value, Tracer):
        refuse(argument, holds, value, "give a number of Python or NumPy")
    if not _is_real(value):
        refuse(argument, holds, value, "give such a number")
    result = _as_float(value)
    if not _within(result, least, above, most):
        refuse(argument, holds, value, "give such a number", ValueError)
    return result


def scalar(argument: str, value: object, **bounds: Bound) -> float | Real[Array, ""]:
    """As `number`, but a traced scalar is let through: its value cannot be looked at."""
    if isinstance(value, Tracer) and value.shape == () and value.dtype.kind in "iuf":
        return value
    return number(argument, value, **bounds)


def by_sample(
    argument: str,
    value: object,
    *,
    least: Bound = None,
    above: Bound = None,
) -> Float[Array, "*samples"]:
    """A number, or an array `(B,)` of one for each sample, as an array of float32; traced or not.

    The values of traced ones cannot be looked at.
    """
    holds = f"a number{_bounds(least, above, None)}, or an array (B,) of such, one for each sample"
    advice = "give such numbers"
    array = _as_array(value)
    if array is None:
        refuse(argument, holds, value, advice)
    if not array.ndim:
        return jax.numpy.asarray(scalar(argument, value, least=least, above=above), np.float32)
    if array.ndim > 1 or not len(array):
        refuse(argument, holds, value, advice, ValueError)
    if not isinstance(array, Tracer):
        for number in np.asarray(array, float).tolist():
            if not _within(number, least, above, None):
                refuse(argument, holds, number, advice, ValueError)
    return jax.numpy.asarray(array, np.float32)


def _as_array(value: object) -> Array | np.ndarray | None:
    """An array of real numbers, maybe without axes; None if it is none."""
    # Masked numbers would be read as if they had no mask.
    if isinstance(value, np.ma.MaskedArray):
        return None
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError:  # lists of lists of several lengths
        return None
    # also what NumPy can only wrap, such as a set
    return array if array.dtype.kind in "iuf" else None


def probability(argument: str, value: object) -> float:
    """A number from 0 to 1."""
    holds = "a probability, from 0 to 1"
    if not _is_real(value):
        refuse(argument, holds, value, "give such a number")
    result = _as_float(value)
    if not 0 <= result <= 1:
        refuse(argument, holds, value, "give such a number", ValueError)
    return result


def _as_int(value: object) -> int | None:
    """The int that a value is, of Python, NumPy or JAX; None if it is no int."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # of all arrays only those of one integer have an index
        return None


def _is_real(value: object) -> TypeGuard[SupportsFloat]:
    """Whether this is a real number, of Python or a scalar of NumPy or JAX, that can be read."""
    # Python takes True for 1: a flag in the place of a number is a slip.
    if isinstance(value, (bool, np.bool_, Tracer)):
        return False
    if isinstance(value, (int, float, np.integer, np.floating)):
        return True
    if not isinstance(value, (np.ndarray, jax.Array)):
        return False
    return value.shape == () and value.dtype.kind in "iuf"


def _as_float(value: SupportsFloat) -> float:
    try:
        return float(value)
    except OverflowError:  # an int of Python that no float64 holds
        return math.inf


def _within(value: float, least: Bound, above: Bound, most: Bound) -> bool:
    """Whether a number is finite, in float32 as well, and within bounds."""
    # NaN is not at most anything, so this way round it is refused too.
    if not abs(value) <= LARGEST:
        return False
    if least is not None and value < least:
        return False
    if above is not None and value <= above:
        return False
    return most is None or value <= most


def _bounds(least: Bound, above: Bound, most: Bound) -> str:
    """The words for bounds, with a space before them."""
    parts: list[str] = []
    if least is not None:
        parts.append(f" of at least {least:g}")
    if above is not None:
        parts.append(f" above {above:g}")
    if most is not None:
        parts.append(f" of at most {most:g}")
    return " and".join(parts)


# flags, texts and sizes


def flag(argument: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        refuse(argument, "True or False", value, "give one of them")
    return bool(value)


def text(argument: str, value: object, what: str = "a str") -> str:
    """A str; `what` says in the error which one is wanted."""
    if not isinstance(value, str):
        refuse(argument, what, value, "give one")
    return value


def sizes(argument: str, value: object) -> int | tuple[int, ...]:
    """One positive int, or a tuple of them, where the number of axes is not known yet."""
    if _is_listed(value):
        return per_axis(argument, value, len(value), "axis of space")
    return per_axis(argument, value, 1, "axis of space")[0]


def per_axis(argument: str, value: object, axes: int, each: str = "") -> tuple[int, ...]:
    """One positive int for each axis of space; a single one counts for all."""
    holds = f"one positive int, or one for each {each or f'of the {axes} axes of space'}"
    if _is_listed(value):
        values = list(value)
    elif isinstance(value, (int, np.integer)):
        values = [value] * axes
    else:
        refuse(argument, holds, value, "give such numbers")
    result = [int(entry) for entry in values if _is_positive_int(entry)]
    # Without an axis of space there is nothing that a window could move along.
    if len(values) != axes or len(result) < len(values) or not axes:
        refuse(argument, holds, value, "give such numbers", ValueError)
    return tuple(result)


def _is_listed(value: object) -> TypeGuard[Collection[object]]:
    """Whether this is a list of sizes, and no single one; an array without axes is neither."""
    return isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _is_positive_int(value: object) -> TypeGuard[int | np.integer]:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        return False
    return int(value) >= 1


# objects and functions


def instance(argument: str, value: object, kind: type[T], holds: str, advice: str) -> T:
    """An object of a class."""
    if not isinstance(value, kind):
        # `dx.dense` for `dx.dense()` is a common slip, and has a better advice than the general.
        called(argument, value)
        refuse(argument, holds, value, advice)
    return value


def function(argument: str, value: object, holds: str, advice: str) -> Callable[..., Any]:
    """Something that can be called, and no factory of ours that should have been called before."""
    if not callable(value):
        refuse(argument, holds, value, advice)
    called(argument, value)
    return value


def called(argument: str, value: object) -> None:
    """Refuse a public function of ours in place of its result: `dx.dense` for `dx.dense()`."""
    if not inspect.isfunction(value) or not _is_ours(value):
        return
    # A function that a function of ours returned is no slip. It is known by its qualified name,
    # in which the function around it comes first, as the class does for a method.
    if value.__qualname__ == value.__name__ and not value.__name__.startswith("_"):
        name = f"dx.{value.__name__}"
        raise TypeError(
            f"`{argument}` is {name} itself, which makes what is wanted here; call it, as in "
            f"{name}(...)"
        )


def asked_for(function: Callable[..., object], words: Sequence[str]) -> frozenset[str]:
    """The words that a function asks for: parameters of these names without a default."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # built-in functions show no signature
        return frozenset()
    # A parameter with a default belongs to the user: `key=None` of an equinox module is one.
    found: set[str] = set()
    for word in words:
        if word in parameters and parameters[word].default is inspect.Parameter.empty:
            found.add(word)
    return frozenset(found)


def takes(
    argument: str,
    function: Callable[..., object],
    count: int,
    call: str,
    known: Collection[str] = (),
) -> None:
    """Refuse a function that cannot be called with `count` arguments by position.

    It may have parameters of the `known` names besides, which are then given by name. `call` shows
    the call in the error.
    """
    # A class takes the arguments of its constructor, so its signature tells nothing about the call.
    if inspect.isclass(function):
        refuse(argument, f"a function {call}", function, "make one of it first, as in Rule()")
    try:
        signature = inspect.signature(function)
    except ValueError:  # built-in functions show none, and are tried when they are called
        return
    named = {name: None for name in signature.parameters if name in known}
    try:
        # Any values serve: Python only compares the call with the signature.
        signature.bind(*range(count), **named)
    except TypeError as error:
        advice = f"write it for just these ({error})"
        refuse(argument, f"a function called as {call}", function, advice)


# several things: the entries are the caller's to check, hence `Any`


def several(argument: str, value: object, holds: str) -> tuple[Any, ...]:
    """The entries of anything that can be looped over, as a tuple; a str is refused."""
    # A tuple can be hashed and compared: what is made of it is a static part of programs.
    if isinstance(value, str) or not isinstance(value, Iterable):
        given = f"[{came(value)}]" if value is not None else "() for none"
        refuse(argument, holds, value, f"write {given}")
    return tuple(value)


def names(argument: str, value: object) -> tuple[Any, ...]:
    """Several names as a tuple, of nodes or of kinds; who reads them knows what they name."""
    found = several(argument, value, "a sequence of names")
    for name in found:
        if not _is_hashable(name):
            refuse(argument, "a sequence of names", name, "give str, int or tuples of these")
    return found


def _is_hashable(value: object) -> bool:
    # A tuple has a hash if its entries have one, so that only a try can tell.
    try:
        hash(value)
    except TypeError:
        return False
    return True


def entries(argument: str, value: object, holds: str, advice: str) -> list[Any]:
    """The entries of anything that has an order, but not the letters of a text."""
    if isinstance(value, (str, bytes, set, frozenset)):
        refuse(argument, holds, value, advice)
    try:
        # Some sequences have `__getitem__` alone, which no type of Python names.
        return list(value)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except TypeError:
        refuse(argument, holds, value, advice)


def mapping(argument: str, value: object, holds: str) -> Mapping[Any, Any]:
    """A mapping; `holds` says in the error from what to what."""
    if not isinstance(value, Mapping):
        refuse(argument, f"a mapping from {holds}", value, "give a dict")
    return value


def by_kind(
    argument: str,
    given: object,
    known: Sequence[str],
    needed: Iterable[str],
    advice: str,
) -> dict[str, Any]:
    """A mapping from kinds: none but `known` ones, and all that are `needed`."""
    if not isinstance(given, Mapping):
        raise TypeError(
            f"`{argument}` maps kinds to {advice}, but got {came(given)}; give a dict of them"
        )
    unknown = [kind for kind in given if kind not in known]
    if unknown:
        raise ValueError(
            f"`{argument}` names {_text.names(unknown)}, which nothing has; the kinds are "
            f"{_text.names(known)}"
        )
    # Sorted, because a set has another order in every process.
    missing = sorted(set(needed) - set(given))
    if missing:
        raise ValueError(f"`{argument}` lacks {_text.names(missing)}; give each of them {advice}")
    return dict(given)


# randomness


def key(argument: str, value: object) -> Key[Array, "..."]:
    """A key as JAX's typed keys; raw `jax.random.PRNGKey` arrays are wrapped."""
    holds = "a key, as from jax.random.key(0)"
    if not isinstance(value, jax.Array):
        refuse(argument, holds, value, "make one")
    if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    # A raw key is two words of 32 bits, along the last axis.
    if value.dtype != np.uint32 or not value.ndim or value.shape[-1] != 2:
        raise TypeError(
            f"`{argument}` is {holds}, but got {value.dtype} of shape {value.shape}; make one"
        )
    return jax.random.wrap_key_data(value)


def seed(argument: str, value: object) -> np.random.Generator:
    """A generator of random numbers: a new one from an int, or the one that came."""
    if isinstance(value, np.random.Generator):
        return value
    holds, advice = "an int of at least 0, or a numpy.random.Generator", "give one"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        refuse(argument, holds, value, advice)
    if value < 0:
        refuse(argument, holds, value, advice, ValueError)
    return np.random.default_rng(int(value))


# decorators


def by_hand(function: F) -> F:
    """A decorator for functions that parse their arguments themselves.

    Tests check annotations at run time. Functions with this mark are left out, so that the errors
    which tests see are those which users see.
    """
    function.__no_type_check__ = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


def slips(**meant: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that names the right argument for words which users are likely to write."""

    def with_hints(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **named: P.kwargs) -> R:
            for word in named:
                if word in meant:
                    name = f"dx.{function.__name__}"
                    raise TypeError(
                        f"`{name}` has no argument `{word}`; write `{meant[word]}` instead"
                    )
            return function(*args, **named)

        return wrapper

    return with_hints
