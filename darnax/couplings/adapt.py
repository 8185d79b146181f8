"""Modules of all origins as couplings."""

from typing import Any

import equinox as eqx
import jax

from darnax.couplings.channels_first import ChannelsFirst, is_plain_conv
from darnax.couplings.coupling import Coupling, Plain, pick
from darnax.couplings.dense import Affine, is_plain_linear


def as_coupling(module: Any) -> Coupling:
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
    if type(coupling).prepared is Coupling.prepared:
        return coupling
    if tied:
        return coupling.prepared()
    leaves = jax.tree.leaves(eqx.filter(coupling, eqx.is_array))
    if len(leaves[0]) > 1:
        return eqx.filter_vmap(lambda own: own.prepared())(coupling)
    one = pick(coupling, tied, 0).prepared()  # no `vmap`: it would turn products into batched ones
    return jax.tree.map(lambda leaf: leaf[None] if eqx.is_array(leaf) else leaf, one)
