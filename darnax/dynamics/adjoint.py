"""How gradients are taken through a relaxation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Adjoint:
    """A way to differentiate `relax`."""


@dataclass(frozen=True)
class Implicit(Adjoint):
    """See `implicit`."""


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """See `unrolled`."""


def implicit() -> Implicit:
    """Gradients at the fixed point."""
    return Implicit()


def unrolled() -> Unrolled:
    """Gradients through every pass: always `max_steps` of them are made and remembered."""
    return Unrolled()
