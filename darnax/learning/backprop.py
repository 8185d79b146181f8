"""Learning by the true gradient of a loss at rest.

A local rule sees no further than its own edge. The gradient sees the whole network: how a weight
moves the state in which all nodes come to rest, and by that the loss. To have both on one network
shows what locality costs, so this teacher takes the place of any other in `fit`.

No pass is remembered. Rest is a solution of `s = F(θ, s)`, and its derivatives follow from F at
this point alone (`darnax.dynamics.adjoint`): one linear equation for all nodes together, which is
solved by sending errors back through the transposes of all couplings. That is what the phases of
`ContrastiveLearning` let the network do by itself, if its couplings go both ways.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from darnax import _text, checks
from darnax.activations import name
from darnax.dynamics import Solution
from darnax.dynamics.problem import pose
from darnax.learning.data import Data, Targets
from darnax.learning.phases import Phase, RandomKey, nudge
from darnax.learning.scores import Samples, Scores, finite
from darnax.learning.teaching import Learning, as_free_phase, bound, check_free_phase
from darnax.learning.updates import check_trained, samples_that_count
from darnax.network.network import Network, partition
from darnax.states.graph import GraphState
from darnax.states.values import as_array
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

Loss: TypeAlias = Callable[[GraphState, Targets], Float[Array, " batch"]]
"""A function `(state, targets) -> (B,)`: the loss of every sample, from the state at rest."""


def squared_error(state: GraphState, targets: Targets) -> Float[Array, " batch"]:
    """Half the squared distance of nodes from their targets, `(B,)`.

    It is what a nudge goes down, and so the loss of equilibrium propagation. Raises `ValueError`
    for no targets at all, from which nothing would be learnt.
    """
    if not targets:
        raise ValueError(
            "`targets` are empty, and the squared error of nothing is zero; give `y`, or a loss of "
            "the state alone"
        )
    total = jnp.zeros(state.batch_size)
    for node, target in targets.items():
        error = nudge(node, target, 1.0).energy(state)
        total = total + error.astype(total.dtype)
    return total


class BackpropLearning(Learning):
    """Learns by the gradient of a loss of the state in which the free phase comes to rest.

    The updates are the gradient of the mean loss over the samples that count, by
    `dx.implicit()`: `∂L/∂θ = ∂F/∂θᵀ (1 - ∂F/∂sᵀ)⁻¹ ∂L/∂s` (F. J. Pineda, Phys. Rev. Lett. 59, 2229,
    1987; L. B. Almeida, Proc. ICNN 2, 609, 1987). Parameters that several edges share have the sum
    over their uses, those of a reverse kind included. A sample that does not settle has no
    gradient, and one that is lost, in its data or on its way, does not count.

    Scores of `fit` are `loss`, which is 0 for lost samples, and `lost`.

    **Arguments:**

    - `trained`: the edge kinds that are trained, with the biases that their edges reach; rules by
      edge kind will do, for their kinds.
    - `free`: the phase that leads to rest.
    - `loss`: a function `(state, targets) -> (B,)` of the state and of targets by node, such as
      `lambda state, y: optax.softmax_cross_entropy(state["label"], y["label"])`; by default the
      squared error.

    Raises `TypeError` or `ValueError` for no kinds, a free phase that needs targets or does not
    settle, and a loss that is no function of two arguments; in `updates` for kinds that have
    nothing to train, units that have no derivative, and targets or a loss that are not one a
    sample.

    !!! example

        ```python
        couplings = {"forward": dx.dense(), "recurrent": dx.dense(gain=0.5)}
        network = dx.Network(topology, couplings, dx.tanh, key=key)
        learning = dx.BackpropLearning(["forward"], dx.Phase("free"))
        updates, answer, scores = learning.updates(network, x, {"label": y}, jnp.ones(B, bool))
        ```
    """

    trained: tuple[str, ...] = eqx.field(static=True)
    free: Phase = eqx.field(static=True)
    # a loss may hold arrays, which are leaves, as rules may
    loss: Loss

    @checks.by_hand
    def __init__(self, trained: Iterable[str], free: Phase, loss: Loss = squared_error):
        holds = "a sequence of edge kinds, at least one"
        self.trained = tuple(dict.fromkeys(checks.names("trained", trained)))
        if not self.trained:
            advice = "name those that are trained"
            checks.refuse("trained", holds, trained, advice, ValueError)
        self.free = as_free_phase(free)
        if not free.settle:
            advice = "leave out settle=False, for this is the gradient of a state at rest"
            checks.refuse("free", "a phase that settles", free, advice, ValueError)
        # ours is no factory that should have been called, for which it would be taken
        if loss is not squared_error:
            advice = "write one, as in lambda state, targets: state['label'].sum(1)"
            checks.function("loss", loss, "a function (state, targets) -> (B,)", advice)
        checks.takes("loss", loss, 2, "(state, targets)")
        self.loss = loss

    def check(self, topology: Topology):
        check_free_phase(self.free, topology)

    def infer(self, network: Network, x: Data, key: RandomKey = None) -> Solution:
        start = GraphState(network.topology).init(x)
        return self.free.run(network, start, {}, key)

    @checks.by_hand
    def updates(
        self,
        network: Network,
        x: Data,
        y: Targets,
        samples: Samples,
        key: RandomKey = None,
    ) -> tuple[Network, Solution, Scores]:
        check_trained(network, dict.fromkeys(self.trained), "trained")
        network = bound(network)
        start = GraphState(network.topology).init(x)
        targets = _as_targets(y, start.batch_size)
        samples = samples_that_count(samples, start.batch_size)
        _check_smooth(network, start, self.free)
        return _by_gradient(self, network, start, targets, samples, key)


# One program, also where a loop of the user's asks for updates.
@eqx.filter_jit
def _by_gradient(
    learning: BackpropLearning,
    network: Network,
    start: GraphState,
    targets: OrderedDict[Name, Array],
    samples: Samples,
    key: RandomKey,
) -> tuple[Network, Solution, Scores]:
    params, rest = partition(network, learning.trained)

    def mean_loss(params: Network) -> tuple[Array, tuple[Solution, Samples, Array]]:
        answer = learning.free.run(eqx.combine(params, rest), start, {}, key)
        counted = samples & finite(answer.state) & _finite_targets(targets, len(samples))
        # chosen and not multiplied, before the loss and behind it: zero times NaN is NaN
        state = jax.tree.map(lambda array: jnp.where(counted, array, 0), answer.state)
        losses = _checked(learning.loss(state, targets), len(samples))
        losses = jnp.where(counted, losses, 0)
        number = jnp.maximum(jnp.sum(counted, dtype=losses.dtype), 1)
        return jnp.sum(losses) / number, (answer, counted, losses)

    updates, (answer, counted, losses) = jax.grad(mean_loss, has_aux=True)(params)
    scores = {"lost": (~counted).astype(jnp.float32), "loss": losses}
    return updates, answer, scores


@checks.by_hand  # a function of the user's may give anything
def _checked(losses: Array, batch: int) -> Float[Array, " batch"]:
    """What a loss gave, in single precision at least, if it is one real number a sample."""
    is_real = jnp.issubdtype(getattr(losses, "dtype", complex), jnp.floating)
    if not is_real or losses.shape != (batch,):
        raise ValueError(
            f"`loss(state, targets)` is one real number a sample, of shape ({batch},), but got "
            f"{checks.came(losses)}; sum over units, and not over samples"
        )
    # in half precision the sum over a batch may overflow
    return losses.astype(jnp.float64 if losses.dtype == jnp.float64 else jnp.float32)


@checks.by_hand
def _as_targets(y: Targets, batch: int) -> OrderedDict[Name, Array]:
    """Targets by node, one a sample; of what shape, a loss may say."""
    # no plain dict: JAX sorts the keys of that, and names of two types have no order
    targets: OrderedDict[Name, Array] = OrderedDict()
    for node, values in y.items():
        what = f"`y` for node {node!r}"
        target = as_array(what, values)
        if target.shape[:1] != (batch,):
            raise ValueError(
                f"{what} is one target a sample, ({batch}, ...), but got {target.shape}; give one "
                "for each"
            )
        targets[node] = jnp.asarray(target)
    return targets


def _finite_targets(targets: Targets, batch: int) -> Samples:
    """The samples whose targets are finite."""
    good = jnp.ones(batch, bool)
    for target in targets.values():
        good = good & jnp.isfinite(target).reshape(batch, -1).all(1)
    return good


def _check_smooth(network: Network, start: GraphState, free: Phase):
    """Raise `TypeError` for units that move in a phase and have no derivative."""
    problem = pose(
        network,
        start,
        schedule=free.schedule,
        clamp=free.clamp,
        silence=free.silence,
        kinds=free.kinds,
        drive=None,
    )
    rough = problem.rough_kinds
    if rough:
        found = [f"{kind!r} ({name(network.activations[kind])})" for kind in rough]
        raise TypeError(
            f"nodes of kind {_text.listing(found)} have no derivative, and a gradient would stop "
            "there; give them a smooth activation such as dx.tanh, or teach by local rules, as "
            "dx.DynamicalLearning does"
        )
