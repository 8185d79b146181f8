"""Activations: what a node makes of its local field.

An activation is any callable `(field) -> state` of one node of one sample. One that needs noise or
memory has a parameter `key` or `state` without a default as well. NaN is passed on, never hidden.
"""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from darnax import checks
from darnax.static import sealed, unsealed

Field = Float[Array, "*shape"]


class Activation(eqx.Module):
    """A function of the field and what is known of it.

    **Fields:**

    - `fn`: `(field) -> state`, or with `state=` and `key=`.
    - `elementwise`: whether every unit answers to its own field alone, so that one call serves
      arrays of any shape.
    - `integer`: whether the values are whole numbers, which integer states can hold.
    - `differentiable`: whether a gradient through it means anything.
    - `bounded`: whether its values lie between -1 and 1.
    """

    fn: Callable[..., Any] = eqx.field(converter=sealed)
    elementwise: bool = eqx.field(static=True, default=False)
    integer: bool = eqx.field(static=True, default=False)
    differentiable: bool = eqx.field(static=True, default=True)
    bounded: bool = eqx.field(static=True, default=False)

    def __call__(self, field: Field, **needed: Any) -> Array:
        return unsealed(self.fn)(field, **needed)

    @property
    def needs(self) -> frozenset[str]:
        """Which of `key` and `state` the function takes."""
        return needs(unsealed(self.fn))


def needs(activation: Callable[..., Any]) -> frozenset[str]:
    """Which of `key` and `state` an activation asks for: parameters of these names that have no
    default.
    """
    if hasattr(activation, "needs"):
        return activation.needs  # pyright: ignore[reportFunctionMemberAccess]
    try:
        parameters = inspect.signature(activation).parameters
    except ValueError:  # built-in functions show no signature
        return frozenset()
    return frozenset(
        word
        for word in ("key", "state")
        if word in parameters and parameters[word].default is inspect.Parameter.empty
    )


def described(activation: Callable[..., Any]) -> Activation:
    """What is known of an activation, the user's own included."""
    if isinstance(activation, Activation):
        return activation
    known = {
        name: getattr(activation, name)
        for name in ("elementwise", "integer", "differentiable", "bounded")
        if hasattr(activation, name)
    }
    return Activation(activation, **known)


def name(activation: Callable[..., Any]) -> str:
    """What to call an activation in summaries and errors."""
    if isinstance(activation, Activation):
        return name(unsealed(activation.fn))
    return getattr(activation, "__name__", type(activation).__name__).lstrip("_").lower()


@checks.by_hand
def elementwise(fn: Callable[..., Any]) -> Activation:
    """`fn` marked as elementwise: `fn(field)[i]` depends on `field[i]` alone, whatever the shape.

    !!! example

        ```python
        activations = dx.elementwise(lambda field: jnp.clip(field, -1, 1))
        ```
    """
    return Activation(
        checks.function("fn", fn, "a function of the field", "give one"), elementwise=True
    )


def known(activation: Callable[..., Any]) -> Callable[..., Any]:
    """An activation as networks keep it: a pytree whose only leaves are arrays."""
    return (
        activation
        if isinstance(activation, (Activation, Glauber, Leaky))
        else described(activation)
    )


def _sign(field: Field) -> Field:
    return jnp.where(field >= 0, 1, jnp.where(field < 0, -1, field)).astype(field.dtype)


def _identity(field: Field) -> Field:
    return field


def _softmax(field: Field) -> Field:
    return jax.nn.softmax(field, axis=-1)


def _tanh(field: Field) -> Field:
    return jnp.tanh(field)


def _relu(field: Field) -> Field:
    return jax.nn.relu(field)


sign = Activation(_sign, elementwise=True, integer=True, differentiable=False, bounded=True)
"""±1 by the sign of the field; a field of zero gives +1."""
tanh = Activation(_tanh, elementwise=True, bounded=True)
"""The hyperbolic tangent."""
relu = Activation(_relu, elementwise=True)
"""The positive part."""
identity = Activation(_identity, elementwise=True)
"""The field itself."""
softmax = Activation(_softmax, bounded=True)
"""Exponentials normalised over the last axis of the node."""


class Glauber(eqx.Module):
    """Heat-bath units; see `glauber`."""

    temperature: Float[Array, ""]
    elementwise = True
    integer = True
    bounded = True
    differentiable = False

    def __call__(self, field: Field, *, key: Key[Array, ""]) -> Field:
        return self.spins(field, jax.random.uniform(key, field.shape, field.dtype))

    def spins(self, field: Field, uniform: Field) -> Field:
        """The new state of units from a random number in [0, 1) for each."""
        temperature = self.temperature.astype(field.dtype)
        warm = jax.nn.sigmoid(2 * field / jnp.where(temperature > 0, temperature, 1))
        up = jnp.where(temperature > 0, warm, (field >= 0).astype(field.dtype))
        spin = jnp.where(uniform < up, 1, -1).astype(field.dtype)
        return jnp.where(jnp.isnan(field), field, spin)


@checks.by_hand
def glauber(temperature: float | int | Array) -> Glauber:
    """±1 units of a heat bath: `P(+1) = 1 / (1 + exp(-2 field / temperature))`; at temperature 0
    the sign.

    The temperature is a leaf of the network, to be swept and annealed without recompiling; nothing
    trains it. Source: R. J. Glauber, J. Math. Phys. 4, 294 (1963). Raises `ValueError` for a
    negative temperature.

    !!! example

        ```python
        activations = {"spin": dx.glauber(temperature=2.27)}
        ```
    """
    return Glauber(jnp.asarray(checks.scalar("temperature", temperature, least=0), jnp.float32))


class Leaky(eqx.Module):
    """Units that move a share of the way; see `leaky`."""

    rate: Float[Array, ""]
    fn: Callable[..., Any]

    @property
    def elementwise(self) -> bool:
        """As the function inside."""
        return described(self.fn).elementwise

    @property
    def differentiable(self) -> bool:
        """As the function inside."""
        return described(self.fn).differentiable

    @property
    def needs(self) -> frozenset[str]:
        """The state, and what the function inside needs."""
        return needs(self.fn) | {"state"}

    def __call__(self, field: Field, *, state: Array, **needed: Any) -> Array:
        return self.leak(self.target(field, state=state, **needed), state)

    def target(self, field: Field, **needed: Any) -> Array:
        """Where the units are going: the unleaked map, whose fixed points are those of the leaky
        one.
        """
        return self.fn(field, **{word: needed[word] for word in needs(self.fn)})

    def leak(self, target: Array, state: Array) -> Array:
        """How far they get."""
        return state + self.rate.astype(state.dtype) * (target - state)


@checks.by_hand
def leaky(rate: float | int | Array, fn: Callable[..., Any]) -> Leaky:
    """Units with memory, `state + rate * (fn(field) - state)`: an Euler step of
    `τ ds/dt = fn(field) - s`, rate = dt/τ.

    They rest exactly where `fn` alone would; `relax` measures how far they are from that. The rate
    is a leaf of the network that nothing trains. Raises `ValueError` for a rate outside (0, 1].

    !!! example

        ```python
        activations = {"hidden": dx.leaky(0.1, dx.tanh)}
        ```
    """
    checks.function("fn", fn, "a function of the field such as dx.tanh", "give one")
    return Leaky(jnp.asarray(checks.scalar("rate", rate, above=0, most=1), jnp.float32), known(fn))
