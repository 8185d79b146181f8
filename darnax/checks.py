"""One place for parsing and refusing arguments.

Every parser takes the name of the argument and what came, and gives the value in the form in which
the library works with it. Otherwise it raises a `TypeError` or `ValueError` that says what the
argument is, what came, and what to do.
"""

import functools
import inspect
import operator
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

from darnax import _text

MOST = 2**31 - 1
"""The largest number that counts passes: the numbers of programs have 32 bits."""

LARGEST = float(np.finfo(np.float32).max)
"""The largest number that is finite in the parameters of a network."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_short = reprlib.Repr()
_short.maxstring, _short.maxother, _short.maxlong = 60, 80, 60


def came(value: Any) -> str:
    """What came, in a few words: values of any size fit into an error."""
    if isinstance(value, Tracer):
        return f"a traced value of type {value.aval}"
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim:
        return f"an array of {value.dtype} and shape {value.shape}"
    if inspect.isgenerator(value):
        return "a generator"
    if inspect.isfunction(value) or inspect.isclass(value) or inspect.isbuiltin(value):
        return f"{'the class' if inspect.isclass(value) else 'the function'} {_public_name(value)}"
    words = _short.repr(value)
    plain = "\n" not in words and " object at 0x" not in words
    return words if plain else f"an object of type {type(value).__name__}"


def refuse(
    argument: str, holds: str, value: Any, advice: str, error: type[Exception] = TypeError
) -> NoReturn:
    """Raise the error in its common form: the argument, what holds, what came, what to do."""
    raise error(f"`{argument}` is {holds}, but got {came(value)}; {advice}")


def count(argument: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """An int of at least `least` and at most `most`. A bool is none, nor is a float."""
    bounds = f"an int of at least {least}" if most is None else f"an int from {least} to {most}"
    if isinstance(value, Tracer):
        refuse(argument, bounds, value, "give a number of Python: programs are compiled for each")
    try:
        result = operator.index(value)
    except TypeError:
        result = None
    if result is None or isinstance(value, (bool, np.bool_)):
        refuse(argument, bounds, value, "give such a number")
    if result < least or (most is not None and result > most):
        refuse(argument, bounds, value, "give such a number", ValueError)
    return result


def number(
    argument: str,
    value: Any,
    *,
    least: float | int | None = None,
    above: float | int | None = None,
    most: float | int | None = None,
) -> float:
    """A finite real number within bounds: `least` and `most` are allowed, `above` is not."""
    holds = "a finite number" + _bounds(least, above, most)
    if isinstance(value, Tracer):
        refuse(argument, holds, value, "give a number of Python or NumPy")
    if not _is_real(value):
        refuse(argument, holds, value, "give such a number")
    result = float(value)
    small = (least is not None and result < least) or (above is not None and result <= above)
    if not abs(result) <= LARGEST or small or (most is not None and result > most):
        refuse(argument, holds, value, "give such a number", ValueError)
    return result


def scalar(argument: str, value: Any, **bounds: float | int) -> Any:
    """As `number`, but a traced scalar is let through: what it holds cannot be looked at."""
    if isinstance(value, Tracer) and value.shape == () and value.dtype.kind in "iuf":
        return value
    return number(argument, value, **bounds)


def _bounds(least: float | int | None, above: float | int | None, most: float | int | None) -> str:
    parts = [] if least is None else [f"of at least {least:g}"]
    parts += [] if above is None else [f"above {above:g}"]
    parts += [] if most is None else [f"of at most {most:g}"]
    return "".join(f" {part}" if i == 0 else f" and {part}" for i, part in enumerate(parts))


def _is_real(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, (int, float, np.integer, np.floating)):
        return True
    return (
        isinstance(value, (np.ndarray, jax.Array))
        and value.shape == ()
        and value.dtype.kind in "iuf"
    )


def probability(argument: str, value: Any) -> float:
    """A number from 0 to 1."""
    if _is_real(value) and 0 <= float(value) <= 1:
        return float(value)
    error = ValueError if _is_real(value) else TypeError
    refuse(argument, "a probability, from 0 to 1", value, "give such a number", error)


def flag(argument: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        refuse(argument, "True or False", value, "give one of them")
    return bool(value)


def text(argument: str, value: Any, what: str = "a str") -> str:
    """A str."""
    if not isinstance(value, str):
        refuse(argument, what, value, "give one")
    return value


def sizes(argument: str, value: Any) -> int | tuple[int, ...]:
    """One positive int, or a tuple of them, where the number of axes is not known yet."""
    if isinstance(value, (tuple, list, np.ndarray)):
        return per_axis(argument, value, len(value), "axis of space")
    return per_axis(argument, value, 1, "axis of space")[0]


def per_axis(argument: str, value: Any, axes: int, each: str = "") -> tuple[int, ...]:
    """One positive int for each axis of space; a single one counts for all."""
    holds = f"one positive int, or one for each {each or f'of the {axes} axes of space'}"
    if isinstance(value, (tuple, list, np.ndarray)):
        values = list(value)
    elif isinstance(value, (int, np.integer)):
        values = [value] * axes
    else:
        refuse(argument, holds, value, "give such numbers")
    good = all(
        isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= 1 for v in values
    )
    if len(values) != axes or not axes or not good:
        refuse(argument, holds, value, "give such numbers", ValueError)
    return tuple(int(v) for v in values)


def instance(
    argument: str, value: Any, kind: type[T] | tuple[type, ...], holds: str, advice: str
) -> T:
    """An object of a class, or of one of several."""
    if not isinstance(value, kind):
        called(argument, value)
        refuse(argument, holds, value, advice)
    return value  # pyright: ignore[reportReturnType]


def function(argument: str, value: Any, holds: str, advice: str) -> Callable[..., Any]:
    """Something that can be called, and no factory of ours that should have been called before."""
    if not callable(value):
        refuse(argument, holds, value, advice)
    called(argument, value)
    return value


def called(argument: str, value: Any):
    """Refuse a public function of ours in place of its result: `dx.dense` for `dx.dense()`."""
    ours = inspect.isfunction(value) and (value.__module__ or "").partition(".")[0] == "darnax"
    if ours and value.__qualname__ == value.__name__ and not value.__name__.startswith("_"):
        name = f"dx.{value.__name__}"
        raise TypeError(
            f"`{argument}` is {name} itself, which makes what is wanted here; call it, as in "
            f"{name}(...)"
        )


def asked_for(function: Callable[..., Any], words: Sequence[str]) -> frozenset[str]:
    """The words that a function asks for: parameters of these names without a default."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # built-in functions show no signature
        return frozenset()
    empty = inspect.Parameter.empty
    return frozenset(w for w in words if w in parameters and parameters[w].default is empty)


def takes(argument: str, function: Any, count: int, call: str, known: Collection[str] = ()) -> None:
    """A function can be called with some arguments by position, and with those of known names."""
    if inspect.isclass(function):
        refuse(argument, f"a function {call}", function, "make one of it first, as in Rule()")
    try:
        signature = inspect.signature(function)
    except ValueError:  # built-in functions show none
        return
    named = {name: None for name in signature.parameters if name in known}
    try:
        signature.bind(*range(count), **named)
    except TypeError as error:
        advice = f"write it for just these ({error})"
        refuse(argument, f"a function called as {call}", function, advice)


def several(argument: str, value: Any, holds: str) -> tuple:
    """Several things as a tuple, which is equal to another with equal entries; no bare str."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        given = f"[{came(value)}]" if value is not None else "() for none"
        refuse(argument, holds, value, f"write {given}")
    return tuple(value)


def names(argument: str, value: Any) -> tuple:
    """Several names as a tuple."""
    found = several(argument, value, "a sequence of names")
    wrong = [name for name in found if not _is_hashable(name)]
    if wrong:
        refuse(argument, "a sequence of names", wrong[0], "give str, int or tuples of these")
    return found


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def mapping(argument: str, value: Any, holds: str) -> Mapping[Any, Any]:
    """A mapping."""
    if not isinstance(value, Mapping):
        refuse(argument, f"a mapping from {holds}", value, "give a dict")
    return value


def by_kind(
    argument: str, given: Any, known: Sequence[str], needed: Iterable[str], advice: str
) -> dict[str, Any]:
    """A mapping from kinds, complete and without strangers."""
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
    missing = sorted(set(needed) - set(given))
    if missing:
        raise ValueError(f"`{argument}` lacks {_text.names(missing)}; give each of them {advice}")
    return dict(given)


def by_hand(function: F) -> F:
    """A decorator for functions that parse their arguments themselves.

    Tests check annotations at run time; here they stay out, so that what users are told is what is
    tested.
    """
    function.__no_type_check__ = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


def slips(**meant: str) -> Callable[[F], F]:
    """A decorator that names the right argument for words which users are likely to write."""

    def with_hints(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **named: Any) -> Any:
            for word in named:
                if word in meant:
                    name = f"dx.{function.__name__}"
                    raise TypeError(
                        f"`{name}` has no argument `{word}`; write `{meant[word]}` instead"
                    )
            return function(*args, **named)

        return wrapper  # pyright: ignore[reportReturnType]

    return with_hints


def _public_name(value: Any) -> str:
    module, name = value.__module__ or "", value.__name__
    return f"dx.{name}" if module.partition(".")[0] == "darnax" else name


def entries(argument: str, value: Any, holds: str, advice: str) -> list[Any]:
    """The entries of anything that has an order, but not the letters of a text."""
    try:
        if not isinstance(value, (str, bytes, set, frozenset)):
            return list(value)
    except TypeError:
        pass
    refuse(argument, holds, value, advice)


def key(argument: str, value: Any) -> Key[Array, "..."]:
    """A key as JAX's typed keys; raw `jax.random.PRNGKey` arrays are wrapped."""
    holds = "a key, as from jax.random.key(0)"
    if not isinstance(value, jax.Array):
        refuse(argument, holds, value, "make one")
    if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    if value.dtype != np.uint32 or not value.ndim or value.shape[-1] != 2:
        raise TypeError(
            f"`{argument}` is {holds}, but got {value.dtype} of shape {value.shape}; make one"
        )
    return jax.random.wrap_key_data(value)


def seed(argument: str, value: Any) -> np.random.Generator:
    """A generator of random numbers, from an int or as it is."""
    if isinstance(value, np.random.Generator):
        return value
    holds, advice = "an int of at least 0, or a numpy.random.Generator", "give one"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        refuse(argument, holds, value, advice)
    if value < 0:
        refuse(argument, holds, value, advice, ValueError)
    return np.random.default_rng(int(value))
