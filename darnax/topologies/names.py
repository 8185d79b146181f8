"""Names of nodes: what may be one, how one is found, and a hash that never changes.

Initial weights and noise are drawn from keys derived from these hashes. So they belong to a name,
in every process, and not to the place where something stands in a drawing.
"""

import hashlib
import json
import operator
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import UInt32, UInt64

from darnax import _text, checks

Name = Hashable
"""A str, an int, or a (nested) tuple of these."""

Names = Iterable[Name]
"""Names of several nodes, as users give them: a sequence, or a set, which is read as drawn."""

DEPTH = 20
"""How deep tuples in a name may be nested."""


def is_integer(value: object) -> TypeGuard[int | np.integer]:
    """Whether this is an int of Python or NumPy; a bool is none."""
    # Python takes True for 1. A node that was meant as a flag would be found by accident.
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_name(name: object, depth: int = DEPTH) -> bool:
    """Whether this is a str, an int or a tuple of these, at most `DEPTH` deep."""
    # The depth is bounded, because names are hashed, compared and written part by part.
    if isinstance(name, tuple):
        return depth > 0 and all(is_name(part, depth - 1) for part in name)
    return isinstance(name, str) or is_integer(name)


def normalise(
    names: Sequence[object],
    what: str = "node names",
) -> tuple[Name, ...]:
    """The names with NumPy integers as Python's; `TypeError` lists what cannot be a name."""
    # Nearly all names are str, int or flat tuples of these. Their types tell so at once, which is
    # faster than a look into every name.
    tuples = [name for name in names if type(name) is tuple]
    outer = set(map(type, names)) - {tuple}
    inner = set(map(type, chain.from_iterable(tuples)))
    if outer | inner <= {str, int}:
        return tuple(names)  # pyright: ignore[reportReturnType]
    wrong = [name for name in names if not is_name(name)]
    if wrong:
        came = _text.listing(map(checks.came, wrong))
        raise TypeError(
            f"`{what}` are str, int or tuples of these, at most {DEPTH} deep, but got {came}; "
            "rename them, nodes for example with networkx.convert_node_labels_to_integers"
        )
    return tuple(map(_plain, names))


def node_names(names: Sequence[object]) -> Sequence[Name]:
    """The names of all nodes, each once; a range where they are the numbers 0 to n-1."""
    names = normalise(names)
    if len(set(names)) < len(names):
        raise ValueError("two nodes have one name")
    # Numbers that only count are not kept: a range takes no memory and finds itself.
    numbered = range(len(names))
    return numbered if names == tuple(numbered) else names


def _plain(name: Any) -> Name:
    if isinstance(name, tuple):
        return tuple(map(_plain, name))
    return str.__str__(name) if isinstance(name, str) else operator.index(name)


class Finder:
    """Finds the position of a name.

    Names are found alike in every topology: 1.0 and True are equal to 1, and are no names. Where
    the names are the numbers 0 to n-1, negative ones count from the end, as in a list.
    """

    def __init__(self, names: Sequence[Name]):
        self.names = names

    def __call__(self, name: object) -> int | None:
        """The position, or None if there is no such name."""
        if not isinstance(self.names, range):
            return self._position.get(name) if is_name(name) else None
        count = len(self.names)
        if is_integer(name) and -count <= name < count:
            return int(name) % count
        return None

    @cached_property
    def _position(self) -> dict[Name, int]:
        # Made at the first use: a topology of numbered nodes never needs it.
        return {name: i for i, name in enumerate(self.names)}


@checks.by_hand
def positions(
    argument: str,
    nodes: Names,
    find: Finder,
) -> tuple[int, ...]:
    """Positions of several nodes; the error names the argument and all that is unknown in it.

    A set is read in the order of drawing: its own order differs between processes.
    """
    found, unknown = [], []
    for node in _entries(argument, nodes):
        position = find(node)
        if position is None:
            unknown.append(node)
        else:
            found.append(position)
    if unknown:
        raise ValueError(
            f"`{argument}` names {_text.listing(map(checks.came, unknown))}, which the topology "
            f"does not have; its nodes are {some(find.names)}{_advice(nodes, unknown, find)}"
        )
    if isinstance(nodes, (set, frozenset)):
        found.sort()
    return tuple(found)


def _entries(argument: str, nodes: Any) -> list[Any]:
    try:
        if not isinstance(nodes, (str, bytes)):
            return list(nodes)
    except TypeError:
        pass
    advice = f"write [{checks.came(nodes)}]" if nodes is not None else "write [] for none"
    checks.refuse(argument, "a sequence of node names", nodes, advice)


def _advice(
    nodes: object,
    unknown: list[object],
    find: Finder,
) -> str:
    """What to write instead of unknown names, where that can be told."""
    if find(nodes) is not None:
        return f"; for the one node {nodes!r} write [{nodes!r}]"
    lists = [name for name in unknown if isinstance(name, list)]
    meant = list(map(from_json, lists))
    if any(find(name) is not None for name in meant):
        return f"; a list is no name, for JSON turns tuples into lists: write {_text.names(meant)}"
    return "; give some of these"


def some(names: Sequence[Name], limit: int = 12) -> str:
    """The first names and how many more there are, without a look at all of them."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return _text.names(names[:limit]) + more


def from_json(value: object) -> Any:
    """What JSON made lists of as tuples again, at any depth."""
    return tuple(map(from_json, value)) if isinstance(value, list) else value


def hashes(names: Sequence[Name]) -> UInt64[np.ndarray, " n"]:
    """One 64-bit number a name: the same in every process and for every order of drawing."""
    if isinstance(names, range):
        numbers = np.arange(names.start, names.stop, names.step)
        return mix(numbers.astype(np.uint64))
    # Names that are alike are hashed together, which NumPy does for thousands at a time.
    places: dict[object, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(_likeness(name), []).append(i)
    # A name has the same hash whatever stands beside it, because nothing but its parts goes in.
    result = np.empty(len(names), np.uint64)
    for likeness, where in places.items():
        alike = [names[i] for i in where]
        result[where] = _hashes_of_alike(likeness, alike)
    return result


def _likeness(name: Name) -> object:
    """`int` for numbers of 64 bits, the length for tuples, `str` for all other names."""
    if isinstance(name, tuple):
        return len(name)
    if type(name) is int and -(2**63) <= name < 2**63:
        return int
    return str


def _hashes_of_alike(likeness: object, names: list[Any]) -> np.ndarray:
    if likeness is int:
        numbers = np.asarray(names, np.int64)
        return mix(numbers.astype(np.uint64))
    if likeness is str:
        digests = list(map(_digest, names))
        return np.asarray(digests, np.uint64)
    # The length goes in first, so that ("a",) and "a" differ.
    length = mix(np.asarray([likeness], np.uint64))
    columns = zip(*names, strict=True)
    return combine(length, *map(hashes, columns))


def _digest(name: Name) -> int:
    # Python's own hash of a str is another one in every process.
    text = json.dumps(name).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def mix(x: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Spread 64 bits over 64 bits (splitmix64; Steele, Lea and Flood 2014, figure 15)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def combine(*parts: UInt64[np.ndarray, "*#shape"]) -> UInt64[np.ndarray, "*#shape"]:
    """One number from several, their order included."""
    shapes = [part.shape for part in parts]
    result = np.zeros(np.broadcast_shapes(*shapes), np.uint64)
    for part in parts:
        result = mix(result + part)
    return result


def words(x: UInt64[np.ndarray, " n"]) -> UInt32[np.ndarray, "n 2"]:
    """The two 32-bit halves, `(n, 2)`, as JAX folds them into a key."""
    low = x & np.uint64(0xFFFFFFFF)
    high = x >> np.uint64(32)
    return np.stack([low, high], axis=-1).astype(np.uint32)
