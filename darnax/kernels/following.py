"""Kernels whose sums can be kept from pass to pass, and corrected by what changed."""

import abc

from jaxtyping import Array, Bool, Float, Shaped

from darnax.kernels.kernel import Kernel, Prepared


class Following(Kernel):
    """A kernel that can follow changes, at the cost of the edges of what changed.

    States are `(rows, *sender, B)`, and fields `(receiving, *receiver, B)` in the dtype that the
    kernel sums in.
    """

    @abc.abstractmethod
    def reach(self, prepared: Prepared) -> Float[Array, "receiving item 1"]:
        """The number of terms of every sum, times the sum of the sizes of its weights.

        So many units in the last place a sum of states between -1 and 1 can be off by rounding. One
        for all units of a node, or one for each.
        """

    @abc.abstractmethod
    def corrected(
        self,
        prepared: Prepared,
        field: Float[Array, "receiving *receiver batch"],
        before: Shaped[Array, "rows *sender batch"],
        after: Shaped[Array, "rows *sender batch"],
        anew: Bool[Array, ""],
    ) -> Float[Array, "receiving *receiver batch"]:
        """The sum at `after` from `field`, which is the sum at `before`.

        It is summed from scratch where `anew` asks for it, or much has changed.
        """

    @abc.abstractmethod
    def resummed(
        self,
        prepared: Prepared,
        field: Float[Array, "receiving *receiver batch"],
        x: Shaped[Array, "rows *sender batch"],
        cells: Bool[Array, "receiving *receiver batch"],
    ) -> Float[Array, "receiving *receiver batch"]:
        """The field with the sums of `x` in the cells that are set, as a call makes them.

        Other cells may be summed as well.
        """
