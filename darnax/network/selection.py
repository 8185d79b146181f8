"""Selections of the rows of a global array: those that a visit updates, for example."""

from typing import TypeAlias

import equinox as eqx
from jaxtyping import Array, Int, Shaped


class Range(eqx.Module):
    """Neighbouring rows of an array, known when a program is compiled."""

    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)

    def take(self, rows: Shaped[Array, "rows ..."]) -> Shaped[Array, "some ..."]:
        """These rows of all."""
        return rows[self.start : self.stop]

    def put(
        self, rows: Shaped[Array, "rows ..."], new: Shaped[Array, "some ..."]
    ) -> Shaped[Array, "rows ..."]:
        """All rows, with these replaced."""
        # A range of all rows is replaced without a copy.
        if len(new) == len(rows):
            return new
        return rows.at[self.start : self.stop].set(new)


class Listed(eqx.Module):
    """Rows of an array by position.

    A position that is out of range fills a visit up, and is not written.
    """

    positions: Int[Array, " some"]

    def take(self, rows: Shaped[Array, "rows ..."]) -> Shaped[Array, "some ..."]:
        """These rows of all."""
        return rows[self.positions]

    def put(
        self, rows: Shaped[Array, "rows ..."], new: Shaped[Array, "some ..."]
    ) -> Shaped[Array, "rows ..."]:
        """All rows, with these replaced."""
        return rows.at[self.positions].set(new, mode="drop")


Selection: TypeAlias = Range | Listed
"""The rows of an array that a visit updates."""
