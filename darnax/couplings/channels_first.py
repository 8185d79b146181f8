"""Convolutions of Equinox, run as ours."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from darnax.couplings.conv import Conv

LAYERS = eqx.nn.Conv, eqx.nn.Conv1d, eqx.nn.Conv2d, eqx.nn.Conv3d


class ChannelsFirst(eqx.Module):
    """A convolution between nodes `(channels, *space)`, with a bias `(channels, 1, ...)` or
    without.
    """

    conv: Conv
    bias: Float[Array, "..."] | None

    @classmethod
    def of(cls, layer: eqx.nn.Conv) -> "ChannelsFirst":
        """The same as `layer`."""
        weight = jnp.moveaxis(layer.weight, (0, 1), (-1, -2))
        padding = (
            layer.padding if isinstance(layer.padding, str) else tuple(map(tuple, layer.padding))
        )
        return cls(Conv(weight, tuple(layer.stride), padding), layer.bias)

    def batched(self, x: Shaped[Array, "*sender batch"]) -> Shaped[Array, "*receiver batch"]:
        """The messages of a batch, which stands last."""
        message = jnp.moveaxis(self.conv.batched(jnp.moveaxis(x, 0, -2)), -2, 0)
        return message if self.bias is None else message + self.bias[..., None]

    def how(self) -> str:
        """How it is run."""
        return self.conv.how()

    def why(self) -> str:
        """What for."""
        return self.conv.why()


def is_plain_conv(coupling: Any) -> bool:
    """Whether it is a convolution of Equinox that `dx.conv` could be: no groups, no dilation, zeros
    at the border.
    """
    if type(coupling) not in LAYERS:
        return False
    return (
        coupling.groups == 1 and set(coupling.dilation) == {1} and coupling.padding_mode == "ZEROS"
    )
