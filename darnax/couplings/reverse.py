"""Reverse edges: the same weights the other way.

A *reverse* edge v -> u has no parameters of its own. Its message is the transpose of the coupling
C of the edge u -> v that it belongs to. Where C is not linear, it is the transpose of its
derivative at the present state of u: the vector-Jacobian product `J(x_u)ᵀ y`, y being the state of
its sender v. With both edges, what u and v say to each other is the derivative of one number,

    ⟨x_v, C(x_u)⟩,

by x_u and by x_v: networks whose connections go both ways so descend an energy.

Couplings that know a fast way to their transpose say so by `Coupling.transposed`. All others are
transposed by JAX, from the way in which they compute their message.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
from jaxtyping import Array, Shaped

from darnax import checks
from darnax.couplings.coupling import Coupling, asks
from darnax.couplings.dense import MatrixTranspose


@dataclass(frozen=True)
class Transpose:
    """See `transpose`."""

    kind: str


@checks.by_hand
def transpose(kind: str) -> Transpose:
    """The transpose of the couplings of another edge kind, for edges that go the other way.

    An edge v -> u of this kind belongs to the edge u -> v of the kind named here; parallel edges
    belong to each other by their keys. It has no parameters of its own: what is learnt there is
    there for both. Its message is `Cᵀ y`, C being the coupling of that edge and y the state of v;
    where C is not linear, its vector-Jacobian product at the present state of u. It runs as fast as
    an edge forward.

    A local rule for either kind trains the shared weights; with rules for both, each edge adds what
    it would learn. For couplings within one node see `symmetric` of `dx.dense`, `dx.sparse` and
    `dx.conv`.

    **Arguments:**

    - `kind`: the edge kind that has the parameters.

    A network raises `ValueError` for a kind that is not there or is itself a transpose, and lists
    edges to which no edge belongs, or several.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.bipartite((8, 8, 1), 100))
        couplings = {"forward": dx.dense(), "backward": dx.transpose("forward")}
        network = dx.Network(topology, couplings, dx.glauber(1.0), key=jax.random.key(0))
        ```
    """
    return Transpose(checks.text("kind", kind, "the name of an edge kind"))


class LinearTranspose(Coupling):
    """The transpose of a coupling that is linear in its sender's state, as JAX derives it."""

    forward: Coupling
    receiver_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array, "*sender"]) -> Shaped[Array, "*receiver"]:
        sender = jax.ShapeDtypeStruct(self.receiver_shape, x.dtype)
        message = jax.eval_shape(self.forward, sender)
        return _transposed(self.forward, sender)(x.astype(message.dtype))

    def describe(self) -> tuple[str, str]:
        return "transposed by JAX", "linear"


class Pullback(Coupling):
    """The vector-Jacobian product of a coupling at the present states of both ends."""

    forward: Coupling

    @property
    def needed(self) -> frozenset[str]:
        return asks(self.forward) | {"receiver"}

    # `receiver` is the state at the other end: that from which the coupling makes its own message.
    def __call__(
        self,
        x: Shaped[Array, "*sender"],
        receiver: Shaped[Array, "*receiver"],
        **asked: Array,
    ) -> Shaped[Array, "*receiver"]:
        if "receiver" in asks(self.forward):
            asked["receiver"] = x
        message, pull = jax.vjp(lambda state: self.forward(state, **asked), receiver)
        (back,) = pull(x.astype(message.dtype))
        return back

    def describe(self) -> tuple[str, str]:
        return "vector-Jacobian product", "not linear"


def reversed_coupling(
    coupling: Coupling,
    sender_shape: tuple[int, ...],
    linear: bool,
) -> Coupling:
    """The coupling of the reverse edge, to the sender of a coupling.

    It computes nothing, so that it serves a stacked coupling as well. `linear` is what `is_linear`
    says of it.
    """
    if coupling.is_symmetric:
        return coupling
    known = coupling.transposed(sender_shape)
    if known is not None:
        return known
    if coupling.linear == "matrix":
        return MatrixTranspose(coupling, sender_shape)
    if linear:
        return LinearTranspose(coupling, sender_shape)
    return Pullback(coupling)


def is_linear(
    coupling: Coupling,
    sender: jax.ShapeDtypeStruct,
) -> bool:
    """Whether JAX finds the message of one edge to be linear, but for a constant.

    Nothing is computed: its arrays may be known by shape and dtype alone. A coupling that asks for
    more than its sender's state is not linear.
    """
    if asks(coupling):
        return False
    arrays, static = eqx.partition(coupling, _has_shape)

    def there_and_back(arrays: Coupling, state: Array) -> Array:
        whole = eqx.combine(arrays, static)
        return _transposed(whole, sender)(whole(state))

    try:
        jax.eval_shape(there_and_back, arrays, sender)
    # What JAX raises for an operation that has no transpose depends on the operation.
    except Exception:
        return False
    return True


def _has_shape(leaf: object) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _transposed(
    coupling: Coupling,
    sender: jax.ShapeDtypeStruct,
) -> Callable[[Array], Array]:
    """The transpose of a linear coupling of one edge."""
    transpose = jax.linear_transpose(coupling, sender)
    return lambda message: transpose(message)[0]
