"""Convolutions of Equinox, run as ours."""

from typing import TypeGuard

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from darnax.couplings.conv import Conv, ConvTranspose
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
        message = self.channels_last().batched(image)
        message = jnp.moveaxis(message, -2, 0)
        bias = self.layer.bias
        return message if bias is None else message + bias[..., None]

    def transposed(self, sender_shape: tuple[int, ...]) -> "ChannelsFirstTranspose":
        return ChannelsFirstTranspose(self, sender_shape)

    def describe(self) -> tuple[str, str]:
        return self.channels_last().describe()

    def channels_last(self) -> Conv:
        layer = self.layer
        padding = layer.padding
        if not isinstance(padding, str):
            padding = tuple((before, after) for before, after in padding)
        # From (receiver channels, sender channels, *kernel) to ours, (*kernel, sender, receiver)
        weight = jnp.moveaxis(layer.weight, (0, 1), (-1, -2))
        return Conv(weight, tuple(layer.stride), padding)


class ChannelsFirstTranspose(Coupling):
    """The transpose of a convolution of Equinox, run as that of ours.

    Its bias does not depend on the sender, and has no part in it.
    """

    forward: ChannelsFirst
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        return self.batched(x[..., None])[..., 0]

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        channels, *space = self.receiver_shape
        image = jnp.moveaxis(x, 0, -2)
        message = self._channels_last((*space, channels)).batched(image)
        return jnp.moveaxis(message, -2, 0)

    def describe(self) -> tuple[str, str]:
        channels, *space = self.receiver_shape
        return self._channels_last((*space, channels)).describe()

    def _channels_last(self, shape: tuple[int, ...]) -> ConvTranspose:
        conv = self.forward.channels_last()
        return ConvTranspose(conv.weight, conv.stride, conv.padding, shape)


def is_plain_conv(coupling: object) -> TypeGuard[eqx.nn.Conv]:
    """Whether a layer is a convolution without groups or dilation, with zeros at the border."""
    # The very classes: a subclass may call itself otherwise.
    if type(coupling) not in LAYERS or not isinstance(coupling, eqx.nn.Conv):
        return False
    whole = coupling.groups == 1 and set(coupling.dilation) == {1}
    return whole and coupling.padding_mode == "ZEROS"
