"""Ways to keep the summed messages of a group from pass to pass, and to correct them.

Where messages are a weighted sum of states, the sum follows from the one before and from what
changed. The native library does that: for edges of one weight it goes through the edges of what
changed, and for edges of a matrix through its columns. XLA has no fast way to either.
"""

import abc
import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int, Shaped

from darnax.kernels.graph import by_unit
from darnax.kernels.library import native_library
from darnax.kernels.native import Native
from darnax.kernels.native_products import EdgeMatrices, corrected_products, resummed_products
from darnax.kernels.native_sums import corrected, resummed
from darnax.network.message_passing import MessagePassing, Ready

FEW = 4
"""Samples up to which a sparse sum is followed: more take the time of few, side by side."""
MOST = 32
"""Corrections after which sparse sums are made from scratch, whatever has changed."""
LEAST = 2**22
"""Products of a pass, of a group with matrices, from which there is time to save."""
SOME, LARGE = 16, 2**16
"""Samples and entries of a matrix from which it pays to transpose it and to look for changes."""
SHARE = 1 / 8
"""Part of the states that may change: where more do, a product with matrices takes less time."""
DOUBTFUL = 1 / 16
"""Part of the sums that may be made anew one by one: more of them take less time together."""
ROUNDED = 2
"""Corrections of a sum with matrices, as a multiple of its terms, after which it is made anew."""


Plain: TypeAlias = Callable[[], Float[Array, "receiving *receiver batch"]]
"""Makes the sums of a group from scratch, as plain passes do."""


class Sums(NamedTuple):
    """The sums of a group, as one pass hands them to the next.

    **Fields:**

    - `field`: the sums.
    - `since`: how often they were corrected since they were made from scratch, in all passes: of
      all samples, or of each.
    """

    field: Float[Array, "receiving *receiver batch"]
    since: Int[Array, ""] | Int[Array, " batch"]


class Following(eqx.Module):
    """The sums of one group, which are kept and follow what changes.

    States are `(rows, *sender, B)`, and sums `(receiving, *receiver, B)`.

    **Fields:**

    - `start`, `stop`: the rows of the receiving array that are kept.
    - `sizes`: the sum of the sizes of the weights behind each sum, `(receiving, units, 1)`, or one
      for all units of a node.
    - `terms`: how many terms it has, `(receiving, 1, 1)`.
    """

    start: eqx.AbstractVar[int]
    stop: eqx.AbstractVar[int]
    sizes: eqx.AbstractVar[Float[Array, "receiving item 1"]]
    terms: eqx.AbstractVar[Float[Array, "receiving 1 1"]]

    @classmethod
    @abc.abstractmethod
    def suits(cls, passing: MessagePassing, batch: int) -> bool:
        """Whether the sums of a group can be kept, and that pays."""

    @classmethod
    @abc.abstractmethod
    def of(cls, passing: MessagePassing, ready: Ready) -> "Following":
        """What follows a group, from its parameters as its message passing takes them."""

    @abc.abstractmethod
    def begin(self, shape: tuple[int, ...]) -> Sums:
        """The sums before the first pass, which makes them from scratch; `shape` is theirs."""

    @abc.abstractmethod
    def corrected(
        self,
        sums: Sums,
        before: Shaped[Array, "rows *sender batch"],
        after: Shaped[Array, "rows *sender batch"],
        plain: Plain,
    ) -> Sums:
        """The sums at `after` from those at `before`; `plain` makes them from scratch."""

    @abc.abstractmethod
    def rounded(self, sums: Sums) -> Float[Array, "receiving 1 batch"]:
        """How far rounding can have taken sums from those that `resummed` makes.

        In units in the last place of `sizes`, for states between -1 and 1, of all samples or each;
        0 for what was made from scratch.
        """

    @abc.abstractmethod
    def resummed(
        self,
        sums: Sums,
        x: Shaped[Array, "rows *sender batch"],
        cells: Bool[Array, "receiving *receiver batch"],
        plain: Plain,
    ) -> Sums:
        """The sums made from scratch, of `x`, in the cells that are set, and maybe in others."""


class FollowedWeights(Following):
    """Sums over an irregular graph. Whole sums are those of a plain pass to the last bit."""

    kernel: Native
    weights: Float[Array, "edges item"]
    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)
    sizes: Float[Array, "receiving item 1"]
    terms: Float[Array, "receiving 1 1"]

    @classmethod
    def suits(cls, passing: MessagePassing, batch: int) -> bool:
        kernel = passing.kernel
        return isinstance(kernel, Native) and not kernel.backward and batch <= FEW

    @classmethod
    def of(cls, passing: MessagePassing, ready: Ready) -> "FollowedWeights":
        kernel = passing.kernel
        assert isinstance(kernel, Native)
        sizes = jnp.abs(ready)
        ones = jnp.ones((kernel.graph.sending, sizes.shape[1], 1), sizes.dtype)
        terms = jnp.diff(kernel.edges.received.starts).astype(sizes.dtype)
        return cls(
            kernel=kernel,
            weights=ready,
            start=passing.start,
            stop=passing.stop,
            sizes=kernel.sum(sizes, ones),
            terms=terms[:, None, None],
        )

    def begin(self, shape: tuple[int, ...]) -> Sums:
        return Sums(jnp.zeros(shape, self.weights.dtype), jnp.full((), MOST, jnp.int32))

    def corrected(
        self,
        sums: Sums,
        before: Shaped[Array, "rows *sender batch"],
        after: Shaped[Array, "rows *sender batch"],
        plain: Plain,
    ) -> Sums:
        # The library sums from scratch of its own accord where much has changed. It is not asked
        # whether it did: that it rounds less then does no harm.
        anew = sums.since >= MOST
        field = sums.field
        found = corrected(
            self.kernel.edges,
            by_unit(field),
            self.weights,
            by_unit(before).astype(field.dtype),
            by_unit(after).astype(field.dtype),
            anew,
        )
        return Sums(found.reshape(field.shape), jnp.where(anew, 0, sums.since + 1))

    def rounded(self, sums: Sums) -> Float[Array, "receiving 1 1"]:
        # A term rounds twice, by half a unit: its product and its sum. It did so in the sum that is
        # kept, does so in the plain one, and may have been corrected in every pass.
        often = jnp.where(sums.since > 0, 2 + sums.since, 0)
        return self.terms * often.astype(self.terms.dtype)

    def resummed(
        self,
        sums: Sums,
        x: Shaped[Array, "rows *sender batch"],
        cells: Bool[Array, "receiving *receiver batch"],
        plain: Plain,
    ) -> Sums:
        field = sums.field
        found = resummed(
            self.kernel.edges,
            by_unit(field),
            self.weights,
            by_unit(x).astype(field.dtype),
            by_unit(cells),
        )
        return Sums(found.reshape(field.shape), sums.since)


class FollowedMatrices(Following):
    """Sums of products with matrices. Single cells are summed in float64.

    They are kept on all rows of the receiving array, so that those of several groups add up without
    being brought to the same rows in every pass.
    """

    edges: EdgeMatrices
    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)
    sizes: Float[Array, "receiving units 1"]
    terms: Float[Array, "receiving 1 1"]

    @classmethod
    def suits(cls, passing: MessagePassing, batch: int) -> bool:
        if passing.kernel is not None or not passing.is_product:
            return False
        if jax.default_backend() != "cpu" or not native_library().loaded:
            return False
        group = passing.group
        # The states of a view are no rows.
        if group.sender.shared or group.receiver.shared:
            return False
        entries = math.prod(group.sender_shape) * math.prod(group.receiver_shape)
        if batch < SOME or entries < LARGE:
            return False
        return len(group.edges) * entries * batch >= LEAST

    @classmethod
    def of(cls, passing: MessagePassing, ready: Ready) -> "FollowedMatrices":
        matrices = ready.matrix()
        if matrices.ndim == 2:
            matrices = matrices[None]
        receivers = passing.receiver_rows()
        if isinstance(receivers, slice):
            receivers = jnp.arange(receivers.start, receivers.stop, dtype=jnp.int32)
        rows = passing.group.receiver.rows
        # Edges are sorted by receiver: the first edge of a row follows those of all rows before it.
        bounds = jnp.arange(rows + 1, dtype=jnp.int32)
        starts = jnp.sum(receivers < bounds[:, None], axis=1, dtype=jnp.int32)
        of_edges = jnp.sum(jnp.abs(matrices), axis=2)
        of_edges = jnp.broadcast_to(of_edges, (len(receivers), of_edges.shape[1]))
        sizes = jnp.zeros((rows, of_edges.shape[1]), of_edges.dtype).at[receivers].add(of_edges)
        terms = jnp.diff(starts) * matrices.shape[2]
        return cls(
            edges=EdgeMatrices(
                starts=starts,
                senders=passing.sender_numbers(),
                by_input=jnp.swapaxes(matrices, 1, 2),
                by_output=matrices,
            ),
            start=0,
            stop=rows,
            sizes=sizes[..., None],
            terms=terms.astype(sizes.dtype)[:, None, None],
        )

    def begin(self, shape: tuple[int, ...]) -> Sums:
        never = jnp.full(shape[-1], jnp.iinfo(jnp.int32).max // 2, jnp.int32)
        return Sums(jnp.zeros(shape, self.sizes.dtype), never)

    def corrected(
        self,
        sums: Sums,
        before: Shaped[Array, "rows *sender batch"],
        after: Shaped[Array, "rows *sender batch"],
        plain: Plain,
    ) -> Sums:
        field = sums.field
        most = ROUNDED * jnp.max(self.terms)
        often = for_any(jnp.any(sums.since.astype(most.dtype) > most))
        found, changed, too_much = corrected_products(
            self.edges,
            by_unit(field),
            by_unit(before).astype(field.dtype),
            by_unit(after).astype(field.dtype),
            # no share at all is too much
            jnp.where(often, -1.0, SHARE).astype(jnp.float32),
        )
        anew = for_any(too_much)
        field = jax.lax.cond(anew, plain, lambda: found.reshape(field.shape))
        return Sums(field, jnp.where(anew, 0, sums.since + changed))

    def rounded(self, sums: Sums) -> Float[Array, "receiving 1 batch"]:
        # A term rounds twice, by half a unit: its product and its sum. So does what an input
        # changed. Sums in float64 are exact beside that.
        return jnp.where(sums.since > 0, self.terms + sums.since.astype(self.terms.dtype), 0)

    def resummed(
        self,
        sums: Sums,
        x: Shaped[Array, "rows *sender batch"],
        cells: Bool[Array, "receiving *receiver batch"],
        plain: Plain,
    ) -> Sums:
        field = sums.field
        found, too_much = resummed_products(
            self.edges,
            by_unit(field),
            by_unit(x).astype(field.dtype),
            by_unit(cells),
            jnp.asarray(DOUBTFUL, jnp.float32),
        )
        # Where nothing is sent, fields are zero, and as many cells doubtful.
        anew = for_any(too_much)
        field = jax.lax.cond(anew, plain, lambda: found.reshape(field.shape))
        return Sums(field, jnp.where(anew, 0, sums.since))


FOLLOWING: tuple[type[Following], ...] = FollowedWeights, FollowedMatrices
"""Ways to keep the sums of a group; the first that suits it does."""


def following(passing: MessagePassing, batch: int) -> type[Following] | None:
    """How the sums of a group are kept; None where that is impossible or no gain."""
    for kind in FOLLOWING:
        if kind.suits(passing, batch):
            return kind
    return None


@custom_vmap
def for_any(condition: Bool[Array, ""]) -> Bool[Array, ""]:
    """A condition, or under `vmap` whether it holds for any: a `cond` runs one branch there too."""
    return condition


@for_any.def_vmap
def _(size: int, batched: list[bool], condition: Bool[Array, " size"]) -> tuple[Array, bool]:
    return for_any(jnp.any(condition)), False
