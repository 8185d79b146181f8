"""A coupling of what a function makes of the sender's state."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from darnax import _text, checks
from darnax.activations import Activation, as_activation, name, without_derivative
from darnax.couplings.adapt import as_coupling
from darnax.couplings.coupling import Coupling, Edges, Factory, asks
from darnax.couplings.dense import MatrixTranspose
from darnax.couplings.draws import Draws
from darnax.static import Static, as_static


class After(Coupling):
    """The message `C(fn(x))`, C being another coupling.

    Its reverse is the vector-Jacobian product, `fn'(x) Cᵀ y`, x being the state at the other end.
    """

    fn: Static = eqx.field(static=True, converter=as_static)
    coupling: Coupling

    @property
    def needed(self) -> frozenset[str]:
        return asks(self.coupling)

    def __call__(
        self,
        x: Shaped[Array, "*sender"],
        **asked: Any,
    ) -> Shaped[Array, "*receiver"]:
        return self.coupling(_made_of(self.fn, x), **asked)

    def batched(
        self,
        x: Shaped[Array, "*sender batch"],
        **asked: Any,
    ) -> Shaped[Array, "*receiver batch"]:
        # Sample by sample, as a function such as softmax is one of all units of a node.
        one = functools.partial(_made_of, self.fn)
        said = jax.vmap(one, in_axes=-1, out_axes=-1)(x)
        return self.coupling.batched(said, **asked)

    def prepared(self) -> "After":
        return After(self.fn, self.coupling.prepared())

    def transposed(self, sender_shape: tuple[int, ...]) -> "AfterTranspose | None":
        back = self.coupling.transposed(sender_shape)
        if back is None and self.coupling.linear == "matrix":
            back = MatrixTranspose(self.coupling, sender_shape)
        # What is not linear, or asks for more, is transposed as a whole.
        return None if back is None or back.needed else AfterTranspose(self.fn, back)

    def describe(self) -> tuple[str, str] | None:
        return self.coupling.describe()


class AfterTranspose(Coupling):
    """The message `fn'(x) Cᵀ y`, x being the state of its receiver, by the fast way to `Cᵀ y`."""

    fn: Static = eqx.field(static=True, converter=as_static)
    back: Coupling

    def __call__(
        self,
        x: Shaped[Array, "*sender"],
        receiver: Shaped[Array, "*receiver"],
    ) -> Shaped[Array, "*receiver"]:
        return self._pulled(self.back(x), receiver)

    def batched(
        self,
        x: Shaped[Array, "*sender batch"],
        receiver: Shaped[Array, "*receiver batch"],
    ) -> Shaped[Array, "*receiver batch"]:
        pulled = jax.vmap(self._pulled, in_axes=-1, out_axes=-1)
        return pulled(self.back.batched(x), receiver)

    def prepared(self) -> "AfterTranspose":
        return AfterTranspose(self.fn, self.back.prepared())

    def describe(self) -> tuple[str, str]:
        how, why = self.back.describe() or ("product", "linear after a function")
        return f"vector-Jacobian product, {how}", why

    def _pulled(
        self,
        said: Shaped[Array, "*receiver"],
        receiver: Shaped[Array, "*receiver"],
    ) -> Shaped[Array, "*receiver"]:
        rate, pull = jax.vjp(functools.partial(_made_of, self.fn), receiver)
        (message,) = pull(said.astype(rate.dtype))
        return message


def _made_of(fn: Static, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """What a function makes of the state of one node."""
    if isinstance(fn.value, Activation) and not fn.value.differentiable:
        what = name(fn.value)
        x = without_derivative(
            x,
            f"`fn` of dx.after cannot be differentiated: {what} has no derivative, which the way "
            "back by dx.transpose and gradients need; use a smooth function such as dx.tanh",
        )
    made = fn(x)
    # A single number for all units would pass through many couplings unnoticed.
    if jnp.shape(made) != x.shape:
        raise ValueError(
            f"`fn` of dx.after keeps the shape, but gave {jnp.shape(made)} for {x.shape}; give a "
            "function such as dx.tanh"
        )
    return made


@checks.by_hand
def after(fn: Callable[..., Array], coupling: Callable[..., Any]) -> Callable[..., Any]:
    """The coupling of `fn(x)`: the message `C(fn(x))`, C being what `coupling` makes.

    For units whose state is a potential x and whose others hear a rate `fn(x)`, as in predictive
    coding: there the state itself must stay free to move. `dx.transpose` of it is its
    vector-Jacobian product at the present state, `fn'(x) Cᵀ y`, as fast as the transpose of C.

    **Arguments:**

    - `fn`: a function of the state of one node such as `dx.tanh`, which keeps its shape; it has no
      parameters.
    - `coupling`: a factory, of the library or your own.

    Raises `TypeError` for what is no function or no factory, and `ValueError` for an activation
    that needs a key or a state, and a function that holds arrays. Where derivatives of `dx.sign`
    and its like are asked for, by the transpose or by gradients, networks raise `TypeError`.

    !!! example

        ```python
        couplings = {"forward": dx.after(dx.tanh, dx.dense())}
        ```
    """
    checks.function("fn", fn, "a function of a state such as dx.tanh", "give one")
    needed = sorted(as_activation(fn).needed)
    if needed:
        raise ValueError(
            f"`fn` is a function of the state alone, but {name(fn)} needs {_text.listing(needed)}; "
            "give a function such as dx.tanh"
        )
    if any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(fn)):
        raise ValueError(
            f"`fn` has no parameters, but {name(fn)} holds arrays; make them part of `coupling`"
        )
    holds = "a factory of couplings such as dx.dense()"
    checks.function("coupling", coupling, holds, "give one")
    if isinstance(coupling, Factory):
        return AfterFactory(Static(fn), coupling)

    # A factory of a user is asked by its signature what it takes, which is kept.
    @functools.wraps(coupling)
    def make(*shapes: Any, **named: Any) -> After:
        return After(Static(fn), as_coupling(coupling(*shapes, **named)))

    return make


@dataclass(frozen=True)
class AfterFactory(Factory):
    """See `after`."""

    fn: Static
    factory: Factory

    def stacked(
        self,
        sender_shape: tuple[int, ...],
        receiver_shape: tuple[int, ...],
        draws: Draws,
        edges: Edges,
    ) -> After:
        made = self.factory.stacked(sender_shape, receiver_shape, draws, edges)
        return After(self.fn, made)
