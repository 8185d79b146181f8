"""Convolutions of Equinox, run as ours."""

from typing import TypeGuard

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from darnax.couplings.conv import Conv
from darnax.couplings.coupling import Coupling

LAYERS = (
    eqx.nn.Conv,
    eqx.nn.Conv1d,
    eqx.nn.Conv2d,
    eqx.nn.Conv3d,
)


class ChannelsFirst(Coupling):
    """A convolution of Equinox between nodes `(channels, *space)`, with a bias or without."""

    layer: eqx.nn.Conv

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        return self.layer(x)

    # Ours takes a batch that stands last without moving it, unlike `vmap` of the layer.
    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        image = jnp.moveaxis(x, 0, -2)
        message = self._channels_last().batched(image)
        message = jnp.moveaxis(message, -2, 0)
        bias = self.layer.bias
        return message if bias is None else message + bias[..., None]

    def describe(self) -> tuple[str, str]:
        return self._channels_last().describe()

    def _channels_last(self) -> Conv:
        layer = self.layer
        padding = layer.padding
        if not isinstance(padding, str):
            padding = tuple((before, after) for before, after in padding)
        # From (receiver channels, sender channels, *kernel) to ours, (*kernel, sender, receiver)
        weight = jnp.moveaxis(layer.weight, (0, 1), (-1, -2))
        return Conv(weight, tuple(layer.stride), padding)


def is_plain_conv(coupling: object) -> TypeGuard[eqx.nn.Conv]:
    """Whether a layer is a convolution without groups or dilation, with zeros at the border."""
    # The very classes: a subclass may call itself otherwise.
    if type(coupling) not in LAYERS or not isinstance(coupling, eqx.nn.Conv):
        return False
    whole = coupling.groups == 1 and set(coupling.dilation) == {1}
    return whole and coupling.padding_mode == "ZEROS"
