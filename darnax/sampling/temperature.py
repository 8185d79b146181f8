"""The temperature of a network: that of all its units of a heat bath."""

import equinox as eqx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from darnax import _text, checks
from darnax.activations import Activation, Glauber, Leaky, name
from darnax.network.network import Network, check_network


@checks.by_hand
def at_temperature(network: Network, temperature: ArrayLike) -> Network:
    """The network with another temperature for all units of `dx.glauber`.

    One number, or an array `(B,)` of one for each sample: then every sample of a batch of B runs at
    its own. It is data: a sweep or an annealing compiles nothing anew, and inside of `jax.jit` and
    `jax.vmap` the temperature may be traced. Raises `ValueError` for a network without such units,
    and for a temperature that is negative.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.lattice((8, 8)))
        couplings = {"lateral": dx.scale(1.0, fixed=True)}
        magnet = dx.Network(topology, couplings, dx.glauber(1.0), key=jax.random.key(0))
        ladder = dx.at_temperature(magnet, jnp.linspace(1.0, 4.0, 8))
        start = dx.GraphState(topology, batch_size=8)
        dx.rollout(ladder, start, 10, key=key, observe=lambda s: s[0, 0])[1].shape  # (10, 8)
        ```
    """
    network = check_network(network)
    return with_temperature(network, checks.by_sample("temperature", temperature, least=0))


def with_temperature(network: Network, temperature: Float[Array, "*samples"]) -> Network:
    """The network with a temperature that was checked."""
    activations: dict[str, Activation] = {}
    for kind, activation in network.activations.items():
        activations[kind] = _replaced(activation, temperature)
    if not any(map(_has_temperature, activations.values())):
        units = _text.listing(map(name, activations.values()))
        raise ValueError(
            f"`network` has no units with a temperature, but {units}; make it with "
            "dx.glauber(temperature)"
        )
    return eqx.tree_at(lambda network: network.activations, network, activations)


def _replaced(activation: Activation, temperature: Float[Array, "*samples"]) -> Activation:
    if isinstance(activation, Glauber):
        return Glauber(temperature)
    if isinstance(activation, Leaky):
        return Leaky(activation.rate, _replaced(activation.fn, temperature))
    return activation


def _has_temperature(activation: Activation) -> bool:
    if isinstance(activation, Leaky):
        return _has_temperature(activation.fn)
    return isinstance(activation, Glauber)
