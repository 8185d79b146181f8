"""Names of nodes: what may be one, and the hash that never changes between processes.

Initial weights and noise are drawn from keys derived from these hashes, so they belong to a name
and not to the place where something stands in a drawing.
"""

import hashlib
import json
from collections.abc import Hashable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import UInt64

from darnax import _text, checks

Name = Hashable
"""A str, an int, or a (nested) tuple of these."""

DEPTH = 20
"""How deep tuples in a name may be nested."""


def normalise(names: Sequence[Any], what: str = "node names") -> tuple[Name, ...]:
    """The names with NumPy integers as Python's; raises `TypeError` listing what cannot be a
    name.
    """
    parts = chain.from_iterable(name if type(name) is tuple else (name,) for name in names)
    if set(map(type, parts)) <= {str, int}:
        return tuple(names)
    wrong = [name for name in names if not is_name(name)]
    if wrong:
        came = _text.listing(map(checks.came, wrong))
        raise TypeError(
            f"`{what}` are str, int or tuples of these, at most {DEPTH} deep, but got {came}; "
            "rename them, nodes for example with networkx.convert_node_labels_to_integers"
        )
    return tuple(_plain(name) for name in names)


def is_name(name: object, depth: int = DEPTH) -> bool:
    """Whether this is a str, an int or a tuple of these, at most `DEPTH` deep; a bool is no int."""
    if isinstance(name, tuple):
        return depth > 0 and all(is_name(part, depth - 1) for part in name)
    return isinstance(name, (str, int, np.integer)) and not isinstance(name, bool)


def _plain(name):
    if isinstance(name, tuple):
        return tuple(map(_plain, name))
    return int(name) if isinstance(name, (int, np.integer)) else str.__str__(name)


class Finder:
    """Finds the position of a name.

    Names are found alike in every topology: 1.0 and True are equal to 1, and are no names. Where
    the names are the numbers 0 to n-1, negative ones count from the end, as in a list.
    """

    def __init__(self, names: Sequence[Name]):
        self.names = names

    def __call__(self, name: Any) -> int | None:
        """The position, or None if there is no such name."""
        if isinstance(self.names, range):
            count = len(self.names)
            integer = isinstance(name, (int, np.integer)) and not isinstance(name, bool)
            return int(name) % count if integer and -count <= name < count else None
        return self._position.get(name) if is_name(name) else None

    @cached_property
    def _position(self) -> dict[Name, int]:
        return {name: i for i, name in enumerate(self.names)}


def positions(argument: str, nodes: Any, find: Finder) -> tuple[int, ...]:
    """Positions of several nodes; the error names the argument and everything unknown in it.

    A set is read in the order of drawing: its own order differs between processes.
    """
    try:
        entries = None if isinstance(nodes, (str, bytes)) else list(nodes)
    except TypeError:
        entries = None
    if entries is None:
        advice = f"write [{checks.came(nodes)}]" if nodes is not None else "write [] for none"
        checks.refuse(argument, "a sequence of node names", nodes, advice)
    found = [find(node) for node in entries]
    unknown = [node for node, at in zip(entries, found, strict=True) if at is None]
    if unknown:
        raise ValueError(
            f"`{argument}` names {_text.listing(map(checks.came, unknown))}, which the topology "
            f"does not have; its nodes are {some(find.names)}{_advice(nodes, unknown, find)}"
        )
    known = [at for at in found if at is not None]
    return tuple(sorted(known) if isinstance(nodes, (set, frozenset)) else known)


def _advice(nodes: Any, unknown: list, find: Finder) -> str:
    """What to write instead of unknown names, where that can be told."""
    if find(nodes) is not None:
        return f"; for the one node {nodes!r} write [{nodes!r}]"
    meant = [from_json(name) for name in unknown if isinstance(name, list)]
    if any(find(name) is not None for name in meant):
        return f"; a list is no name, for JSON turns tuples into lists: write {_text.names(meant)}"
    return "; give some of these"


def some(names: Sequence[Name], limit: int = 12) -> str:
    """The first names and how many more there are, without a look at all of them."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return _text.names(names[:limit]) + more


def to_json(name):
    """Tuples become lists; str and int stay."""
    return [to_json(part) for part in name] if isinstance(name, tuple) else name


def from_json(name):
    """The inverse of `to_json`."""
    return tuple(from_json(part) for part in name) if isinstance(name, list) else name


def hashes(names: Sequence[Name]) -> UInt64[np.ndarray, " n"]:
    """One 64-bit number a name: the same in every process and for every order of drawing."""
    if isinstance(names, range):
        return mix(np.arange(names.start, names.stop, names.step).astype(np.uint64))
    sorts: dict[Any, list[int]] = {}
    for i, name in enumerate(names):
        small = type(name) is int and -(2**63) <= name < 2**63
        sorts.setdefault(
            int if small else len(name) if isinstance(name, tuple) else str, []
        ).append(i)
    result = np.empty(len(names), np.uint64)
    for sort, where in sorts.items():
        here = [names[i] for i in where]
        if sort is int:
            result[where] = mix(np.asarray(here, np.int64).astype(np.uint64))
        elif sort is str:
            result[where] = [_digest(name) for name in here]
        else:  # tuples of one length, a column of parts at a time
            length = mix(np.asarray([sort], np.uint64))
            result[where] = combine(length, *(hashes(column) for column in zip(*here, strict=True)))
    return result


def _digest(name: Name) -> int:
    return int.from_bytes(
        hashlib.blake2b(json.dumps(name).encode(), digest_size=8).digest(), "little"
    )


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
    result = np.zeros(np.broadcast_shapes(*(part.shape for part in parts)), np.uint64)
    for part in parts:
        result = mix(result + part)
    return result


def words(x: UInt64[np.ndarray, " n"]) -> np.ndarray:
    """The two 32-bit halves, `(n, 2)`, as JAX folds them into a key."""
    return np.stack([x & np.uint64(0xFFFFFFFF), x >> np.uint64(32)], axis=-1).astype(np.uint32)
