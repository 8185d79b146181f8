"""Couplings as a loop wants them."""

from typing import Any

import equinox as eqx
import jax

from darnax.couplings.channels_first import ChannelsFirst, is_plain_conv
from darnax.couplings.coupling import pick


def prepared(coupling: Any, tied: bool) -> Any:
    """The coupling of several edges as a loop wants it: by its method `prepared()`, or, of Equinox,
    as one of ours.
    """
    if not hasattr(coupling, "prepared") and not is_plain_conv(coupling):
        return coupling
    if tied:
        return _prepared(coupling)
    if len(jax.tree.leaves(eqx.filter(coupling, eqx.is_array))[0]) > 1:
        return eqx.filter_vmap(_prepared)(coupling)
    return jax.tree.map(
        lambda leaf: leaf[None] if eqx.is_array(leaf) else leaf, _prepared(pick(coupling, False, 0))
    )


def how(coupling: Any, tied: bool) -> tuple[str, str] | None:
    """How one of several edges is run, and why, for the summary of a network; None if the coupling
    does not say.
    """
    own = _ours(pick(coupling, tied, 0))
    return (own.how(), own.why()) if hasattr(own, "how") else None


def _prepared(own: Any) -> Any:
    own = _ours(own)
    return own.prepared() if hasattr(own, "prepared") else own


def _ours(own: Any) -> Any:
    return ChannelsFirst.of(own) if is_plain_conv(own) else own
