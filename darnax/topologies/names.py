"""Names of nodes: which values may be one, how a name is found, and a hash that never changes.

Initial weights and noise are drawn from keys that are derived from these hashes. They therefore
belong to a name, in every process, and not to a position in a drawing: a graph that is drawn in
another order gets the same weights.
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
"""A str, an int, or a (nested) tuple of these.

What is returned by name is an `OrderedDict`: JAX sorts the keys of a plain dict, and names of two
types have no order. It could not leave a `jit`.
"""

Names = Iterable[Name]
"""Names of several nodes, as users give them: a sequence, or a set, read in drawing order."""

DEPTH = 20
"""The deepest nesting of tuples in a name. They are hashed, compared and written recursively."""


def is_integer(value: object) -> TypeGuard[int | np.integer]:
    """Whether this is an int of Python or NumPy; a bool is none."""
    # To Python True equals 1: a flag given in place of a name would find node 1.
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_name(name: object, depth: int = DEPTH) -> bool:
    """Whether this is a str, an int or a tuple of these, at most `depth` deep."""
    if isinstance(name, tuple):
        return depth > 0 and all(is_name(part, depth - 1) for part in name)
    return isinstance(name, str) or is_integer(name)


def normalise(
    names: Sequence[object],
    what: str = "node names",
) -> tuple[Name, ...]:
    """The names with NumPy integers as Python's; `TypeError` lists what cannot be a name."""
    if _are_plain(names):
        return tuple(names)
    wrong = [name for name in names if not is_name(name)]
    if wrong:
        came = _text.listing(map(checks.came, wrong))
        raise TypeError(
            f"`{what}` are str, int or tuples of these, at most {DEPTH} deep, but got {came}; "
            "rename them, nodes for example with networkx.convert_node_labels_to_integers"
        )
    return tuple(map(_plain, names))


def _are_plain(names: Sequence[object]) -> TypeGuard[Sequence[Name]]:
    """Whether all names are str, int or flat tuples of these, by their exact types."""
    # Nearly all names are. A set of types tells so faster than a recursive look at every name.
    tuples = [name for name in names if type(name) is tuple]
    outer = set(map(type, names)) - {tuple}
    inner = set(map(type, chain.from_iterable(tuples)))
    return outer | inner <= {str, int}


def node_names(names: Sequence[object]) -> Sequence[Name]:
    """The names of all nodes, each once; a range where they are the numbers 0 to n-1."""
    names = normalise(names)
    if len(set(names)) < len(names):
        raise ValueError("two nodes have one name")
    # The numbers 0 to n-1 need no table: a range takes no memory, and a name is its own position.
    numbered = range(len(names))
    return numbered if names == tuple(numbered) else names


def _plain(name: Any) -> Name:
    """A sound name made of Python's own types."""
    if isinstance(name, tuple):
        return tuple(map(_plain, name))
    if isinstance(name, str):
        # `str(name)` would ask a subclass, and an enum answers "Colour.RED" instead of its value.
        return str.__str__(name)
    return operator.index(name)


class Finder:
    """Finds the position of a name.

    The rules are the same in every topology: 1.0 and True are equal to 1, but are no names. Where
    the names are the numbers 0 to n-1, negative numbers count from the end, as in a list.
    """

    def __init__(self, names: Sequence[Name]):
        self.names = names

    def __call__(self, name: object) -> int | None:
        """The position, or None if there is no such name."""
        if not isinstance(self.names, range):
            # A dictionary would find 1 under 1.0 and under True.
            return self._position.get(name) if is_name(name) else None
        count = len(self.names)
        if is_integer(name) and -count <= name < count:
            return int(name) % count
        return None

    @cached_property
    def _position(self) -> dict[Name, int]:
        # Built at the first use: numbered nodes never need it.
        return {name: i for i, name in enumerate(self.names)}


@checks.by_hand
def positions(
    argument: str,
    nodes: Names,
    find: Finder,
) -> tuple[int, ...]:
    """Positions of several nodes; an error names the argument and every unknown name in it.

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


def _entries(argument: str, nodes: Any) -> list[object]:
    """The entries of an argument, sets included; one bare name is refused."""
    try:
        # The letters of "abc" could be names of nodes, but one node is meant.
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
    """Advice for unknown names: what to write instead, where that can be told."""
    if find(nodes) is not None:
        return f"; for the one node {nodes!r} write [{nodes!r}]"
    lists = [name for name in unknown if isinstance(name, list)]
    meant = list(map(from_json, lists))
    if any(find(name) is not None for name in meant):
        return f"; a list is no name, for JSON turns tuples into lists: write {_text.names(meant)}"
    return "; give some of these"


def some(names: Sequence[Name], limit: int = 12) -> str:
    """The first names, and how many more there are."""
    # Names may be a range of billions, so nothing here goes through all of them.
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return _text.names(names[:limit]) + more


def from_json(value: object) -> Any:
    """A value read from JSON, with tuples where JSON has lists, at any depth."""
    if isinstance(value, list):
        return tuple(map(from_json, value))
    return value


def hashes(names: Sequence[Name]) -> UInt64[np.ndarray, " n"]:
    """A 64-bit number for every name, the same in every process and every order of drawing."""
    if isinstance(names, range):
        numbers = np.arange(names.start, names.stop, names.step)
        return mix(numbers.astype(np.uint64))
    # Names that are alike are hashed together: NumPy takes thousands at a time.
    places: dict[type | int, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(_likeness(name), []).append(i)
    # Nothing but the parts of a name enters its hash, so it does not depend on the other names.
    result = np.empty(len(names), np.uint64)
    for likeness, where in places.items():
        alike = [names[i] for i in where]
        result[where] = _hashes_of_alike(likeness, alike)
    return result


def _likeness(name: Name) -> type | int:
    """`int` for numbers of 64 bits, the length for tuples, `str` for all other names."""
    if isinstance(name, tuple):
        return len(name)
    if type(name) is int and -(2**63) <= name < 2**63:
        return int
    return str


def _hashes_of_alike(
    likeness: type | int,
    names: Sequence[Any],
) -> UInt64[np.ndarray, " n"]:
    """The hashes of names of one likeness."""
    if likeness is int:
        numbers = np.asarray(names, np.int64)
        return mix(numbers.astype(np.uint64))
    if likeness is str:
        digests = list(map(_digest, names))
        return np.asarray(digests, np.uint64)
    # Tuples of one length are hashed column by column. The length enters first, so that ("a",)
    # and "a" differ.
    length = mix(np.asarray([likeness], np.uint64))
    columns = zip(*names, strict=True)
    return combine(length, *map(hashes, columns))


def _digest(name: Name) -> int:
    # Python salts its own hash of a str anew in every process.
    text = json.dumps(name).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def mix(x: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Hash of a 64-bit number (splitmix64; Steele, Lea and Flood 2014, figure 15)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def combine(*parts: UInt64[np.ndarray, "*#shape"]) -> UInt64[np.ndarray, "*#shape"]:
    """A hash of several numbers in their order."""
    shapes = [part.shape for part in parts]
    result = np.zeros(np.broadcast_shapes(*shapes), np.uint64)
    # Mixed after every part: without it the hash of (a, b) would be that of (b, a).
    for part in parts:
        result = mix(result + part)
    return result


def words(x: UInt64[np.ndarray, " n"]) -> UInt32[np.ndarray, "n 2"]:
    """The low and the high 32 bits, `(n, 2)`, as JAX folds them into a key."""
    low = x & np.uint64(0xFFFFFFFF)
    high = x >> np.uint64(32)
    return np.stack([low, high], axis=-1).astype(np.uint32)
