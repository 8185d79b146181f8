"""A law that is broken, and the comparisons that find it."""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from darnax.states.graph import GraphState

# Any: names of nodes, edges and arrays, which a mapping is invariant in.
ByName: TypeAlias = Mapping[Any, ArrayLike] | GraphState
"""Arrays by name, such as states, messages, or the arrays of a state."""

T = TypeVar("T")


class LawBroken(AssertionError):
    """The error of a check: which law does not hold, on which graph, where, and by how much.

    **Fields:**

    - `law`: in words.
    - `graph`: the name of the small graph.
    """

    def __init__(self, law: str, graph: str, how: str):
        self.law, self.graph = law, graph
        super().__init__(f"{law!r} does not hold on the graph {graph!r}: {how}")


class Law:
    """A law, looked at on one small graph.

    **Arguments:**

    - `law`, `graph`: in words, for the error.
    - `tol`: the largest difference that rounding may make, relative to the largest value, or to 1
      where all are smaller: terms of sums that cancel are of about that size here.
    """

    def __init__(self, law: str, graph: str, tol: float = 1e-4):
        self.law, self.graph, self.tol = law, graph, tol

    def holds(self, right: bool, how: str) -> None:
        """Raise `LawBroken` unless it is right."""
        if not right:
            raise LawBroken(self.law, self.graph, how)

    def equal(self, what: str, found: ArrayLike, expected: ArrayLike) -> None:
        """Raise `LawBroken` unless two arrays are equal but for rounding."""
        ours, theirs = np.asarray(found), np.asarray(expected)
        # A value of bfloat16 may be rounded to its neighbour.
        inexact = jnp.issubdtype(ours.dtype, jnp.inexact)
        tol = max(self.tol, 2 * float(jnp.finfo(ours.dtype).eps)) if inexact else self.tol
        shapes = f"{what} has the shape {ours.shape} where {theirs.shape} is expected"
        self.holds(ours.shape == theirs.shape, shapes)
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        # NaN in both is equal; NaN in one is a difference that no tolerance allows.
        lost = np.isnan(ours) != np.isnan(theirs)
        self.holds(not lost.any(), f"{what} is NaN in {lost.sum()} places where it should not be")
        apart = np.nan_to_num(abs(ours - theirs))
        largest = float(apart.max(initial=0))
        size = float(np.nan_to_num(abs(theirs)).max(initial=0))
        words = f"{what} differs by {largest:.3g}, of values up to {size:.3g}"
        self.holds(largest <= tol * max(size, 1.0), words)

    def same(self, what: str, found: object, expected: object) -> None:
        """Raise `LawBroken` unless two trees are equal but for rounding, leaf by leaf."""
        ours, theirs = jax.tree.leaves(found), jax.tree.leaves(expected)
        count = f"{what} has {len(ours)} arrays where {len(theirs)} are expected"
        self.holds(len(ours) == len(theirs), count)
        for one, other in zip(ours, theirs, strict=True):
            self.equal(what, one, other)

    def states(self, found: ByName, expected: ByName) -> None:
        """Raise `LawBroken` unless two states, or mappings of arrays, are equal under each name."""
        for name in expected:
            self.equal(f"{name!r}", found[name], expected[name])


def other_companions(tree: T) -> T:
    """A state with the first sample as it was, and others in the places behind it."""

    def changed(leaf: jax.Array) -> jax.Array:
        array = np.array(leaf)
        array[..., 1:] = -array[..., 1:][..., ::-1]
        return jax.device_put(array)

    return jax.tree.map(changed, tree)


def first_sample(tree: T) -> T:
    """The first sample of a state."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[..., 0], tree)
