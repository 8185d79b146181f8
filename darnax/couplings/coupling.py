"""What a coupling is, and what a factory may ask about its edges.

A *coupling* is a callable module from one sender's state of one sample to one receiver's message. A
*factory* `(sender_shape, receiver_shape, key) -> coupling` makes it; any Equinox layer works. The
network calls a factory once for every sort of edge, vectorised over keys, so that it draws from
nothing but `key`; one that draws nothing gives `key` a default and is called without it.

A message may depend on the receiver's state too: then the coupling asks for it by an argument of
this name, `(x, receiver)`.

A coupling may have more methods. `prepared()` gives it as a loop wants it, with all that follows
from its parameters worked out. `batched(x)` takes the states `(*sender, B)` of a batch at once,
where that beats `vmap`. `how()` and `why()` say for the summary of a network how it does that, and
what for.
"""

import abc
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Key, Shaped

from darnax._arrays import on_device
from darnax.couplings.draws import Draws, words_of

Coupling: TypeAlias = Callable[..., Array]
ATTRIBUTE = "the name of an edge attribute"


class Factory(abc.ABC):
    """A factory of ours: plain data, equal by content, that makes the couplings of many edges at
    once.

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
        return self.stacked(
            tuple(sender_shape), tuple(receiver_shape), Draws(words, (), edges.dtype), edges
        )


class Fixed(eqx.Module):
    """A number of a coupling that no rule trains: it can be swept and annealed, but optimisers
    never see it.

    `own` marks one that every edge has for itself even where edges are tied, as `Edges.own` gives
    it.
    """

    value: Shaped[Array, "..."]
    own: bool = eqx.field(static=True, default=False)


def value(leaf: Any) -> Any:
    """A leaf's number, whether it is trained or fixed."""
    return leaf.value if isinstance(leaf, Fixed) else leaf


def hears_receiver(coupling: Any) -> bool:
    """Whether what an edge says depends on its receiver's state as well: it has an argument for it,
    and no default.
    """
    try:
        found = inspect.signature(coupling).parameters.get("receiver")
    except ValueError:  # built-in functions show no signature
        return False
    return found is not None and found.default is inspect.Parameter.empty


def message(coupling: Any, x: Any, receiver: Any = None) -> Any:
    """What one edge makes of its sender's state, and of its receiver's if that is given."""
    return coupling(x) if receiver is None else coupling(x, receiver=receiver)


def over_batch(coupling: Any, *ends: Array) -> Shaped[Array, "*receiver batch"]:
    """The messages of one edge for a batch of its ends, which stands last."""
    if hasattr(coupling, "batched"):
        return coupling.batched(*ends)
    return jax.vmap(lambda *ends: message(coupling, *ends), in_axes=-1, out_axes=-1)(*ends)


def per_edge(coupling: Any, tied: bool) -> Any:
    """For every leaf of the coupling of several edges, whether it has a leading axis of edges.

    All arrays have one, but where edges are tied only those marked as each edge's own.
    """

    def marked(part: Any) -> Any:
        every = not tied or (isinstance(part, Fixed) and part.own)
        return jax.tree.map(lambda leaf: every and eqx.is_array(leaf), part)

    return jax.tree.map(marked, coupling, is_leaf=lambda part: isinstance(part, Fixed))


def pick(coupling: Any, tied: bool, edges: Any) -> Any:
    """The coupling of some of its edges; an int gives that of a single one."""
    return jax.tree.map(
        lambda own, leaf: leaf[edges] if own else leaf, per_edge(coupling, tied), coupling
    )


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
    dtype: np.dtype
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tied: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)
    strange: Mapping[str, str] = field(default_factory=dict)
    differing: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    @classmethod
    def of_one(cls) -> "Edges":
        """What is known of an edge that no topology has."""
        return cls(False, np.dtype("float32"))

    def __getitem__(self, name: str) -> Any:
        value = self._column(name)
        if name in self.differing:
            raise ValueError(
                f"edge attribute {name!r} is one number for all tied edges, but differs on "
                f"{self.differing[name]}; give them one value, or read it with edges.own where it "
                "is no parameter"
            )
        return value[..., 0] if self.tied else value

    def own(self, name: str) -> Fixed:
        """The edge's number, which stays its own where edges are tied."""
        return Fixed(on_device(self._column(name)), own=True)

    def _column(self, name: str) -> Any:
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
