"""Modules of all origins as couplings."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array

from darnax.couplings.channels_first import ChannelsFirst, is_plain_conv
from darnax.couplings.coupling import Coupling, Plain, pick
from darnax.couplings.dense import Affine, is_plain_linear


def as_coupling(module: Callable[..., Array]) -> Coupling:
    """A module as a `Coupling`: one of ours as it is, of Equinox as what it is equal to.

    No number is touched, so that it serves the stacked modules of many edges as well.
    """
    if isinstance(module, Coupling):
        return module
    if is_plain_linear(module):
        return Affine(module)
    if is_plain_conv(module):
        return ChannelsFirst(module)
    return Plain(module)


def prepared(coupling: Coupling, tied: bool) -> Coupling:
    """The coupling of several edges, stacked, as its method `prepared` gives it edge by edge."""
    # Most couplings prepare nothing.
    if type(coupling).prepared is Coupling.prepared:
        return coupling
    leaves = jax.tree.leaves(eqx.filter(coupling, eqx.is_array))
    # Without arrays there is no axis of edges to go along.
    if tied or not leaves:
        return coupling.prepared()
    if len(leaves[0]) > 1:
        return eqx.filter_vmap(lambda own: own.prepared())(coupling)
    # No `vmap` for one edge: it would turn products into batched ones.
    one = pick(coupling, tied, 0).prepared()
    return jax.tree.map(lambda leaf: leaf[None] if eqx.is_array(leaf) else leaf, one)
