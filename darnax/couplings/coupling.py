"""What a coupling is, and what a factory may ask about its edges.

A *coupling* turns one sender's state of one sample into one receiver's message. Any callable module
of that kind is one: a layer of Equinox, a function. A *factory*
`(sender_shape, receiver_shape, key) -> coupling` makes it; shapes come from the topology, so that
no size is written twice. The network calls a factory once for all edges of equal shapes, vectorised
over keys; one that draws nothing gives `key` a default and is called without it.

A coupling may ask for more than its sender's state, by arguments of these names without a default:
`receiver`, the receiver's state, and `key`, a random key of the edge, sample and pass.

To write one that runs faster than `vmap` of a single message, subclass `Coupling`.
"""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Key, Shaped

from darnax import checks
from darnax._arrays import on_device
from darnax.couplings.draws import Draws, Tree, words_of
from darnax.states.values import AnyArray

ATTRIBUTE = "the name of an edge attribute"

LeafMask: TypeAlias = Any
"""True or False for every leaf of a pytree: a pytree of the same form."""


class Coupling(eqx.Module):
    """The message of one edge of one sample, and how a batch or a loop makes many of them.

    Only `__call__` must be written. The other methods have defaults that are right for every
    coupling; overriding them makes it faster, and must not change a message.

    `linear` says what the kernels of the network can make use of: `"matrix"` for a message
    `matrix() @ x`, flattened, plus `offset()`; `"weights"` for `unit_weights() * x`; None for any
    other.
    """

    linear: ClassVar[Literal["matrix", "weights"] | None] = None

    @property
    def needed(self) -> frozenset[str]:
        """Which of `receiver` and `key` the coupling asks for: arguments without a default."""
        return checks.asked_for(self, ("receiver", "key"))

    @property
    def is_symmetric(self) -> bool:
        """Whether the message is linear, and its transpose the very same coupling."""
        # A factor for every unit serves both ways.
        return self.linear == "weights"

    # Any, because an override names `x` and what else it asks for, each with its own type.
    @abc.abstractmethod
    def __call__(self, *args: Any, **asked: Any) -> Shaped[Array, "*receiver"]:
        """The message, from `x`, the sender's state, and what else the coupling asks for."""

    def batched(
        self,
        x: Shaped[Array, "*sender batch"],
        *args: Any,
        **asked: Any,
    ) -> Shaped[Array, "*receiver batch"]:
        """The messages of a batch, which stands last."""

        # A function of named arguments: `vmap` maps those that are passed by name over axis 0.
        def one(x: Array, asked: dict[str, Array]) -> Array:
            return self(x, **asked)

        return jax.vmap(one, in_axes=-1, out_axes=-1)(x, asked)

    def prepared(self) -> "Coupling":
        """The same coupling with all that follows from its parameters worked out, for a loop."""
        return self

    # The three parts of a linear message are read off a stacked coupling as well, so that each may
    # have a leading axis of edges.

    def matrix(self) -> Array:
        """The matrix of the message, `(receiver units, sender units)`."""
        raise NotImplementedError(
            f"{type(self).__name__} is `linear`, and lacks `matrix`; write it"
        )

    def offset(self) -> Array | None:
        """The part of the message that does not depend on the sender, `(receiver units,)`."""
        return None

    def unit_weights(self) -> Array:
        """The factor of every unit, in the shape of the sender."""
        raise NotImplementedError(
            f"{type(self).__name__} is `linear`, and lacks `unit_weights`; write it"
        )

    def transposed(self, sender_shape: tuple[int, ...]) -> "Coupling | None":
        """The coupling of the reverse edge, to this one's sender of `sender_shape`.

        It rearranges and computes nothing, so that it serves a stacked coupling as well. None where
        there is no better way than that of `darnax.couplings.reverse`, which transposes any.
        """
        return None

    def describe(self) -> tuple[str, str] | None:
        """How `batched` works and why, for the summary of a network; None for plain `vmap`."""
        return None


class Plain(Coupling):
    """A layer of Equinox or a function of a user, as a `Coupling`."""

    function: Callable[..., Array]

    @property
    def needed(self) -> frozenset[str]:
        # This class passes on whatever it is given: what counts is the signature inside.
        return checks.asked_for(self.function, ("receiver", "key"))

    def __call__(
        self,
        x: Shaped[Array, "*sender"],
        **asked: Any,
    ) -> Shaped[Array, "*receiver"]:
        return self.function(x, **asked)


def asks(coupling: Callable[..., object]) -> frozenset[str]:
    """Which of `receiver` and `key` a coupling, or a module of a user, asks for."""
    if isinstance(coupling, Coupling):
        return coupling.needed
    return checks.asked_for(coupling, ("receiver", "key"))


class Factory(abc.ABC):
    """A factory of ours: plain data, equal by content, which makes many couplings at once.

    Called like a factory of a user it makes a single one.
    """

    @abc.abstractmethod
    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: "Edges",
    ) -> Coupling:
        """The coupling of several edges, every array with the leading axes of `draws`."""

    def __call__(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        key: Key[Array, ""] | None = None,
        *,
        edges: "Edges | None" = None,
    ) -> Coupling:
        edges = Edges.of_one() if edges is None else edges
        words = None if key is None else words_of(key)[None]
        draws = Draws(words, (), edges.dtype)
        return self.stacked(tuple(sender_shape), tuple(receiver_shape), draws, edges)


class Fixed(eqx.Module):
    """A number of a coupling that no rule trains; it can be swept and annealed.

    `own` marks one that every edge has for itself even where edges are tied, as `Edges.own` gives
    it.
    """

    # A leaf, unlike a static field: a program serves every number, and derivatives reach it.
    value: Shaped[Array, "..."]
    own: bool = eqx.field(static=True, default=False)


def value(leaf: Array | Fixed) -> Array:
    """A leaf's number, whether it is trained or fixed."""
    return leaf.value if isinstance(leaf, Fixed) else leaf


def trainable(tree: object) -> LeafMask:
    """True on every leaf that rules may train: floating-point arrays not marked `Fixed`."""

    def of_leaf(leaf: object) -> LeafMask:
        if isinstance(leaf, Fixed):
            return jax.tree.map(lambda _: False, leaf)
        return eqx.is_inexact_array(leaf)

    return jax.tree.map(of_leaf, tree, is_leaf=_is_fixed)


def per_edge(coupling: object, tied: bool) -> LeafMask:
    """For every leaf of the coupling of several edges, whether it has a leading axis of edges.

    All arrays have one, but where edges are tied only those marked as each edge's own.
    """

    def of_part(part: object) -> LeafMask:
        own = not tied or (isinstance(part, Fixed) and part.own)
        return jax.tree.map(lambda leaf: own and eqx.is_array(leaf), part)

    # Stopped at `Fixed`, because its mark is lost once a map has gone down to the array inside.
    return jax.tree.map(of_part, coupling, is_leaf=_is_fixed)


def _is_fixed(part: object) -> bool:
    return isinstance(part, Fixed)


def has_own_numbers(coupling: Coupling) -> bool:
    """Whether tied edges differ in a number that each has for itself."""
    return any(jax.tree.leaves(per_edge(coupling, tied=True)))


def pick(
    coupling: Tree,
    tied: bool,
    edges: int | slice | AnyArray,
) -> Tree:
    """The coupling of some of its edges; an int gives that of a single one."""
    own = per_edge(coupling, tied)
    return jax.tree.map(lambda own, leaf: leaf[edges] if own else leaf, own, coupling)


@dataclass(frozen=True)
class Edges:
    """What a factory may read of the edge it makes a coupling for, if it takes `edges=`.

    **Fields:**

    - `self_loop`: whether sender and receiver are one node.
    - `dtype`: of messages; a good choice for parameters.
    - `attributes`: the edge's numbers by name, an entry for each of several edges; where edges are
      tied, the last axis is a column with those of all of them.
    - `tied`: whether edges are tied.
    - `missing`: for attributes that not all edges have, which lack it.
    - `strange`: for attributes that are not finite on some edges, which these are.
    - `differing`: for attributes that tied edges have with several values, which differ from the
      first.
    - `left_out`: for attributes that hold no numbers, an example.
    - `read`: the names of the attributes that were asked for.

    `edges["name"]` is the edge's number, one for all tied edges; `edges.own("name")` is a `Fixed`
    number that tied edges have each for itself.
    """

    self_loop: bool
    dtype: np.dtype[Any]
    attributes: Mapping[str, AnyArray] = field(default_factory=dict)
    tied: bool = False
    # What is wrong with an attribute is known here, and said only once a coupling reads it: a
    # drawing may hold numbers that concern nobody.
    missing: Mapping[str, str] = field(default_factory=dict)
    strange: Mapping[str, str] = field(default_factory=dict)
    differing: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    # The one field that changes: the network warns of numbers that no coupling has read.
    read: set[str] = field(default_factory=set)

    @classmethod
    def of_one(cls) -> "Edges":
        """What is known of an edge that no topology has."""
        return cls(False, np.dtype("float32"))

    def __getitem__(self, name: str) -> AnyArray:
        column = self._column(name)
        if name in self.differing:
            raise ValueError(
                f"edge attribute {name!r} is one number for all tied edges, but differs on "
                f"{self.differing[name]}; give them one value, or read it with edges.own where it "
                "is no parameter"
            )
        return column[..., 0] if self.tied else column

    def own(self, name: str) -> Fixed:
        """The edge's number, which stays its own where edges are tied."""
        return Fixed(on_device(self._column(name)), own=True)

    def _column(self, name: str) -> AnyArray:
        self.read.add(name)
        if name in self.strange:
            raise ValueError(
                f"edge attribute {name!r} is not finite on {self.strange[name]}; give a finite "
                "number"
            )
        if name in self.missing:
            raise ValueError(
                f"edge attribute {name!r} is missing on {self.missing[name]}; give it to every edge"
            )
        if name in self.left_out:
            raise ValueError(
                f"edge attribute {name!r} is no number: {self.left_out[name]}; draw numbers"
            )
        if name not in self.attributes:
            known = sorted(self.attributes) or "none"
            raise ValueError(
                f"no edge has a number {name!r} (numbers known here: {known}); draw it, as in "
                f"{name}=0.5"
            )
        return self.attributes[name].astype(self.dtype)
