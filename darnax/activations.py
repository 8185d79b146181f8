"""Activations: the state that a node's units take in a local field.

The simplest activation is a function `(field) -> state` of one node of one sample. One that needs
noise or memory has a parameter `key` or `state` without a default as well. NaN is passed on, never
hidden.

Units with dynamics of their own, leaky, noisy or both, are subclasses of `Activation`. Those of the
library are written in the same way.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from darnax import checks
from darnax.static import sealed, unsealed

Units = Float[Array, "*shape"]
"""A number for every unit: of one node, or of many nodes and samples where all answer at once."""

Noise = Units | Key[Array, ""] | None
"""What comes as `noise`, by the `draws` of an activation: `"unit"`, `"node"` or None."""


class Activation(eqx.Module):
    """The answer of a node's units to their local field.

    Each pass calls two methods: `target`, the state that the units are sent to, and `move`, the
    state that they reach within the pass. Fixed points are states that equal their target, and
    `relax` measures the distance from it. So a unit with memory rests at its target, however slowly
    it moves.

    A subclass writes `target`, and overrides `move` if units do not reach it at once. Its arrays
    are leaves of the network, which no rule trains. Class attributes tell the library what it may
    do:

    - `elementwise`: every unit answers to its own field alone. One call then serves all nodes and
      samples, and views may overlap. Otherwise a call is one node of one sample.
    - `draws`: the random numbers that come as `noise`: None; `"unit"`, a number in [0, 1) for every
      unit; or `"node"`, a key of `jax.random`.
    - `integer`: the values are whole numbers, which integer states can hold.
    - `differentiable`: a derivative through it means something; False refuses to give one.
    - `bounded`: the values lie between -1 and 1.
    - `by_sign`: the target is one value where the field is above zero, and one where it is below.

    !!! example

        ```python
        class NoisyLeaky(dx.Activation):
            rate: jax.Array
            elementwise = True
            draws = "unit"

            def target(self, field, state, noise):
                return jnp.tanh(field + 0.1 * jax.scipy.special.ndtri(noise))

            def move(self, state, target):
                return state + self.rate * (target - state)


        activations = {"hidden": NoisyLeaky(jnp.array(0.2))}
        ```
    """

    # A module makes fields of annotated names. These belong to the class, and are no part of the
    # pytree; a subclass that knows the answer only from what it holds makes properties of them.
    elementwise: ClassVar[bool] = False
    draws: ClassVar[Literal["unit", "node"] | None] = None
    integer: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    bounded: ClassVar[bool] = False
    by_sign: ClassVar[bool] = False

    @abc.abstractmethod
    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        """The state that units are sent to, from their field, their state and their noise.

        All are in the dtype of the field. `noise` is None where nothing is drawn. Passes always
        give `state`; a call of the activation itself may leave it out if units move at once.
        """

    def move(self, state: Units, target: Units) -> Units:
        """The state after the pass; by default the target."""
        return target

    def potential(self, state: Units) -> Units | None:
        """What the states of units cost in the energy of a network, a number for every unit.

        It is called as `target` is: an elementwise one for all nodes and samples at once, another
        one for one node of one sample.

        Its derivative is the field for which units rest in a state, the inverse of `target`:
        `∂ Σ potential(s) / ∂s = f⁻¹(s)`. It is infinite where no field leads. None where no
        potential is known.
        """
        return None

    @property
    def needed(self) -> frozenset[str]:
        """Which of `key` and `state` a call of one node needs besides the field."""
        needed: set[str] = set()
        if self.draws is not None:
            needed.add("key")
        if not self.immediate:
            needed.add("state")
        return frozenset(needed)

    @property
    def samples(self) -> int | None:
        """The number of samples that it holds numbers of their own for; None if all share them."""
        return None

    @property
    def immediate(self) -> bool:
        """Whether units reach their target within a pass."""
        return type(self).move is Activation.move

    @checks.by_hand  # functions of users give anything, which networks check when they are built
    def __call__(
        self,
        field: Units,
        *,
        state: Units | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Units:
        """The new state of one node of one sample."""
        noise = _noise(self, field, key)
        if state is None and "state" in self.needed:
            raise TypeError(
                f"`state` is missing: {name(self)} units move from it; give their state"
            )
        target = self.target(field, state, noise)
        if state is None or self.immediate:
            return target
        return self.move(state, target)


def _noise(activation: Activation, field: Units, key: Key[Array, ""] | None) -> Noise:
    """The noise of one node of one sample.

    Passes draw by `darnax.noise` instead, where the names of nodes take the part of keys.
    """
    if activation.draws is None:
        return None
    if key is None:
        raise TypeError(f"`key` is missing: {name(activation)} is random; give jax.random.key(0)")
    if activation.draws == "node":
        return key
    return jax.random.uniform(key, field.shape, field.dtype)


class Function(Activation):
    """A function of the user as an `Activation`.

    **Fields:**

    - `by_unit`: whether the user marked it as elementwise.
    - `integral`: the potential of its units, if the user gave one.
    """

    # Sealed, because the function may be a module that holds arrays: these stay leaves.
    function: Callable[..., Any] = eqx.field(converter=sealed)
    by_unit: bool = eqx.field(static=True, default=False)
    integral: Any = eqx.field(converter=sealed, default=None)

    # A property where the base has an attribute of the class, which reads alike.
    @property
    def elementwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.by_unit

    @property
    def needed(self) -> frozenset[str]:
        return checks.asked_for(unsealed(self.function), ("key", "state"))

    @property
    def draws(self) -> Literal["node"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "node" if "key" in self.needed else None

    @checks.by_hand
    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        given = {"key": noise, "state": state}
        arguments: dict[str, Units] = {}
        for word in sorted(self.needed):
            value = given[word]
            if value is None:
                raise TypeError(f"`{word}` is missing: {name(self)} asks for it; give it")
            arguments[word] = value
        return unsealed(self.function)(field, **arguments)

    # A function of the user's may give anything: energies look at its shape.
    @checks.by_hand
    def potential(self, state: Units) -> Units | None:
        integral = unsealed(self.integral)
        return None if integral is None else integral(state)


def as_activation(function: Callable[..., Any]) -> Activation:
    """An activation as networks keep it: a pytree whose only leaves are arrays."""
    return function if isinstance(function, Activation) else Function(function)


def name(activation: object) -> str:
    """The word for an activation in summaries and errors."""
    if isinstance(activation, Function):
        return name(unsealed(activation.function))
    return getattr(activation, "__name__", type(activation).__name__).lstrip("_").lower()


def without_derivative(values: Units, why: str) -> Units:
    """The values as they are; differentiating through them raises `TypeError`, which says why.

    A derivative of zero would be right almost everywhere, and would teach nothing in silence.
    """

    # The rule of the derivative is traced only where somebody differentiates: a call without
    # derivatives never meets the error.
    @jax.custom_jvp
    def refuse(values: Array) -> Array:
        return values

    @refuse.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> NoReturn:
        raise TypeError(why)

    return refuse(values)


@checks.by_hand
def elementwise(
    fn: Callable[..., Any],
    potential: Callable[[Array], Array] | None = None,
) -> Activation:
    """The activation `fn`, marked as elementwise: `fn(field)[i]` depends on `field[i]` alone.

    **Arguments:**

    - `fn`: a function of the field.
    - `potential`: for `dx.energy`, an elementwise function of the state, `∫ fn⁻¹`: its derivative
      is the field that leads to a state.

    Raises `TypeError` for what is no function.

    !!! example

        ```python
        activations = dx.elementwise(lambda field: jnp.clip(field, -1, 1))
        bent = dx.elementwise(jnp.arctan, potential=lambda state: -jnp.log(jnp.cos(state)))
        ```
    """
    checks.function("fn", fn, "a function of the field", "give one")
    if potential is not None:
        checks.function("potential", potential, "a function of the state", "give one, or None")
    return Function(fn, by_unit=True, integral=potential)


def _within(
    state: Units,
    low: float | int,
    high: float | int,
    inside: Units,
) -> Units:
    """The potential of units whose states lie between two bounds: infinite beyond them."""
    # No comparison with NaN holds, so that it is passed on by what is inside.
    outside = (state < low) | (state > high)
    return jnp.where(outside, jnp.inf, inside)


def _entropy(state: Units) -> Units:
    """`½ (1+s) log(1+s) + ½ (1-s) log(1-s)` for states from -1 to 1: 0 at 0, log 2 at ±1."""
    up, down = (1 + state) / 2, (1 - state) / 2
    return jax.scipy.special.xlogy(up, 1 + state) + jax.scipy.special.xlogy(down, 1 - state)


class Sign(Activation):
    """See `sign`."""

    elementwise = True
    integer = True
    differentiable = False
    bounded = True
    by_sign = True

    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        # A field that is neither below zero nor at least zero is NaN, and falls through both.
        negative = jnp.where(field < 0, -1, field)
        return jnp.where(field >= 0, 1, negative).astype(field.dtype)

    # The potential of a step is the wall around the states between its two values.
    def potential(self, state: Units) -> Units:
        return _within(state, -1, 1, 0 * state)


class Heaviside(Activation):
    """See `heaviside`."""

    elementwise = True
    integer = True
    differentiable = False
    bounded = True
    by_sign = True

    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        # NaN falls through both, as in `Sign`.
        off = jnp.where(field < 0, 0, field)
        return jnp.where(field >= 0, 1, off).astype(field.dtype)

    def potential(self, state: Units) -> Units:
        return _within(state, 0, 1, 0 * state)


class Tanh(Activation):
    """See `tanh`."""

    elementwise = True
    bounded = True

    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        return jnp.tanh(field)

    # ∫ artanh
    def potential(self, state: Units) -> Units:
        return _within(state, -1, 1, _entropy(state))


class Sigmoid(Activation):
    """See `sigmoid`."""

    elementwise = True
    bounded = True

    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        return jax.nn.sigmoid(field)

    # ∫ log(s / (1 - s))
    def potential(self, state: Units) -> Units:
        on, off = (
            jax.scipy.special.xlogy(state, state),
            jax.scipy.special.xlogy(1 - state, 1 - state),
        )
        return _within(state, 0, 1, on + off)


class Relu(Activation):
    """See `relu`."""

    elementwise = True

    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        return jax.nn.relu(field)

    def potential(self, state: Units) -> Units:
        return _within(state, 0, jnp.inf, state**2 / 2)


class Identity(Activation):
    """See `identity`."""

    elementwise = True

    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        return field

    def potential(self, state: Units) -> Units:
        return state**2 / 2


class Negative(Activation):
    """See `negative`."""

    elementwise = True

    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        return -field

    # The field that leads to s is -s: such units go to where an energy is largest.
    def potential(self, state: Units) -> Units:
        return -(state**2) / 2


class Integrator(Activation):
    """See `integrator`."""

    elementwise = True

    @property
    def needed(self) -> frozenset[str]:
        return frozenset({"state"})

    # Units with memory are always given their state.
    def target(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        field: Units,
        state: Units,
        noise: Noise,
    ) -> Units:
        return state + field

    # They rest in a field of zero, in whatever state they are.
    def potential(self, state: Units) -> Units:
        return 0 * state


class Softmax(Activation):
    """See `softmax`."""

    bounded = True

    def target(
        self,
        field: Units,
        state: Units | None,
        noise: Noise,
    ) -> Units:
        return jax.nn.softmax(field, axis=-1)

    # The field is known up to a constant for each node, which does not change the state.
    def potential(self, state: Units) -> Units:
        return _within(state, 0, 1, jax.scipy.special.xlogy(state, state))


sign = Sign()
"""±1 by the sign of the field; a field of zero gives +1."""
heaviside = Heaviside()
"""1 where the field is at least zero, else 0."""
tanh = Tanh()
"""The hyperbolic tangent."""
sigmoid = Sigmoid()
"""The logistic function, `1 / (1 + exp(-field))`."""
relu = Relu()
"""The positive part."""
identity = Identity()
"""The field itself."""
negative = Negative()
"""The field turned around, `-field`: errors of predictive coding, `dx.topologies.predictive`."""
integrator = Integrator()
"""The state and the field, `state + field`: units that rest where their field is zero, and follow
it until then. `dx.leaky(rate, dx.integrator)` takes steps of `rate * field`: where the field is
minus the slope of a function, as in predictive coding, this is gradient descent."""
softmax = Softmax()
"""Exponentials normalised over the last axis of the node."""


class Glauber(Activation):
    """See `glauber`."""

    temperature: Float[Array, "*samples"]
    elementwise = True
    draws = "unit"
    integer = True
    differentiable = False
    bounded = True

    @property
    def samples(self) -> int | None:
        return len(self.temperature) if self.temperature.ndim else None

    # `draws` promises an array, which the base cannot know.
    def target(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        field: Units,
        state: Units | None,
        noise: Units,
    ) -> Units:
        temperature = self.temperature.astype(field.dtype)
        warm = temperature > 0
        # At temperature 0 a quotient would be infinite or NaN: another is worked out, and dropped.
        divisor = jnp.where(warm, temperature, 1)
        up_if_warm = jax.nn.sigmoid(2 * field / divisor)
        up_if_cold = (field >= 0).astype(field.dtype)
        up = jnp.where(warm, up_if_warm, up_if_cold)
        # Noise is below 1, so that a probability of 1 is never missed.
        spin = jnp.where(noise < up, 1, -1).astype(field.dtype)
        # No comparison with NaN holds: a field of NaN would give -1.
        return jnp.where(jnp.isnan(field), field, spin)

    # Of ±1 it is zero, and the energy is that of Boltzmann's distribution. Of means between them it
    # is minus temperature times entropy, and the energy is the free energy of independent units.
    def potential(self, state: Units) -> Units:
        temperature = self.temperature.astype(state.dtype)
        log_two = jnp.log(jnp.asarray(2, state.dtype))
        return _within(state, -1, 1, temperature * (_entropy(state) - log_two))


@checks.by_hand
def glauber(temperature: ArrayLike) -> Glauber:
    """±1 units of a heat bath, `P(+1) = 1 / (1 + exp(-2 field / temperature))`.

    At temperature 0 it is the sign. The temperature is a number, or an array `(B,)` of one for each
    sample, which the network then runs B samples at. It is a leaf of the network, to be swept and
    annealed without recompiling, see `dx.at_temperature`; nothing trains it. Raises `ValueError` or
    `TypeError` for a temperature that is negative or no number.

    Source: R. J. Glauber, J. Math. Phys. 4, 294 (1963).

    !!! example

        ```python
        activations = {"spin": dx.glauber(temperature=2.27)}
        ladder = {"spin": dx.glauber(jnp.geomspace(0.5, 4.0, 8))}  # for a batch of 8
        ```
    """
    return Glauber(checks.by_sample("temperature", temperature, least=0))


class Leaky(Activation):
    """See `leaky`. What it may do follows from the function inside."""

    rate: Float[Array, ""]
    fn: Activation

    # `integer` and `bounded` stay False: a state on its way lies between whole numbers, and it may
    # start outside of any bound.
    @property
    def elementwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.fn.elementwise

    @property
    def draws(self) -> Literal["unit", "node"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.fn.draws

    @property
    def differentiable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.fn.differentiable

    @property
    def samples(self) -> int | None:
        return self.fn.samples

    # Units with memory are always given their state.
    def target(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        field: Units,
        state: Units,
        noise: Noise,
    ) -> Units:
        # Where `fn` has memory of its own, units are sent to the state that `fn` alone would reach.
        return self.fn.move(state, self.fn.target(field, state, noise))

    def move(self, state: Units, target: Units) -> Units:
        return state + self.rate.astype(state.dtype) * (target - state)

    def potential(self, state: Units) -> Units | None:
        return self.fn.potential(state)


@checks.by_hand
def leaky(rate: float | int | Array, fn: Callable[..., Any]) -> Leaky:
    """Units with memory, `state + rate * (fn(field) - state)`.

    It is an Euler step of `τ ds/dt = fn(field) - s`, with rate = dt/τ. The units rest exactly where
    `fn` alone would, and `relax` measures how far they are from that. The rate is a leaf of the
    network that nothing trains. Raises `ValueError` for a rate outside (0, 1].

    !!! example

        ```python
        activations = {"hidden": dx.leaky(0.1, dx.tanh)}
        ```
    """
    checks.function("fn", fn, "a function of the field such as dx.tanh", "give one")
    rate = jnp.asarray(checks.scalar("rate", rate, above=0, most=1), jnp.float32)
    return Leaky(rate, as_activation(fn))
