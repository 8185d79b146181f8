"""Lyapunov exponents: how fast neighbouring trajectories move apart, pass by pass.

Smooth units have small disturbances, and a pass multiplies one by its Jacobian. Several of them are
carried along a trajectory and made orthogonal after every pass, by a QR decomposition: else all of
them would turn towards the one that grows fastest. The exponents are the mean logarithms of what
each grows by.

Sign units have no small disturbances. The least one is a flip of one unit, and the exponent is the
logarithm of how many units differ a pass later. Above zero damage spreads, below zero it heals.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.activations import Activation, Glauber
from darnax.analysis.sample_map import as_rows, as_vectors
from darnax.analysis.spectrum import check_k
from darnax.dynamics.adjoint import free_cells
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.problem import Constants, Problem, pose
from darnax.dynamics.residual import residual_dtype
from darnax.dynamics.schedules import ScheduleLike, synchronous
from darnax.dynamics.update import one_pass
from darnax.dynamics.visits import Keys
from darnax.network.network import Network
from darnax.noise import pass_keys, sample_keys
from darnax.states.graph import GraphState

CHOICE = 2
"""What a sample's key of a pass is folded with to choose a flip, apart from all other noise."""


@any_rank
@checks.slips(n="k", max_steps="steps")
@checks.by_hand
def lyapunov(
    network: Network,
    state: GraphState,
    steps: int,
    k: int = 1,
    *,
    transient: int = 0,
    schedule: ScheduleLike = synchronous(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
    key: Key[Array, "..."] | None = None,
) -> Float[Array, "batch k"]:
    """The `k` largest Lyapunov exponents along the trajectory of every sample, `(B, k)`, per pass.

    **Smooth units.** Neighbouring states move apart as `exp(λ t)` in t passes. `λ` is the mean over
    `steps` passes of the logarithm of what a disturbance of the free cells grows by; further
    exponents are those of directions orthogonal to the ones before, largest first. Above zero the
    dynamics are chaotic. Each pass costs k derivatives and a QR decomposition.

    **Sign units** (`dx.sign`, `dx.heaviside`, `dx.glauber`, and yours that answer `by_sign`) have
    one exponent. In every pass one free unit, drawn at random, is flipped in a copy of the state,
    and after the pass the units that differ are counted: `λ` is the logarithm of their mean number.
    Damage spreads above zero; -inf says that every flip healed at once. Noise is the same for both
    copies.

    The first exponent is that of the random initial disturbance until this has turned into the
    fastest direction, and a trajectory needs time to reach its attractor: leave out `transient`
    passes.

    Arguments as for `step`, and

    - `steps`: the passes that are averaged over; the error falls as 1/√steps.
    - `k`: how many exponents, at most the cells that are free; 1 for sign units.
    - `transient`: passes that are made first and not counted.
    - `key`: for random units, couplings and schedules, and for which unit is flipped.

    A sample with values that are not finite has exponents NaN.

    Raises `TypeError` naming node kinds if some units are smooth and others are not, or have no
    derivative and more than two states, and `ValueError` for a `k` that is too large or a key that
    is missing.

    Sources: G. Benettin, L. Galgani, A. Giorgilli and J.-M. Strelcyn, Meccanica 15, 9 (1980), for
    smooth units; B. Derrida and Y. Pomeau, Europhys. Lett. 1, 45 (1986), and F. Bagnoli, R.
    Rechtman and S. Ruffo, Phys. Lett. A 172, 34 (1992), for the spread of damage.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.hopfield(50))
        couplings = {"recurrent": dx.dense(gain=3.0, self_coupling=0.0)}
        rnn = dx.Network(topology, couplings, dx.tanh, key=jax.random.key(0))
        start = dx.GraphState(topology).init({"units": jnp.ones((4, 50))})
        dx.lyapunov(rnn, start, 100, transient=50).shape  # (4, 1)
        ```
    """
    steps = checks.count("steps", steps, 1, checks.MOST)
    k = checks.count("k", k, 1)
    transient = checks.count("transient", transient, 0, checks.MOST - steps)
    problem = pose(
        network,
        state,
        schedule=schedule,
        clamp=clamp,
        silence=silence,
        kinds=kinds,
        drive=drive,
    )
    flips = _has_two_states(problem)
    random = problem.random
    if flips:
        random = random or "which unit is flipped is drawn"
        if k > 1:
            raise ValueError(f"`k` is 1 for units of two states, but got {k}; ask for one exponent")
    keys = sample_keys(key, state.batch_size, random)
    check_k(k, _free(problem, state))
    if flips:
        return _of_flips(problem, state, keys, steps, transient)
    return _of_tangents(problem, state, keys, steps, transient, k)


def _has_two_states(problem: Problem) -> bool:
    """Whether the units that move have two states; False where all of them are smooth."""
    two: list[str] = []
    smooth: list[str] = []
    others: list[str] = []
    for kind in problem.moving_kinds:
        activation = problem.network.activations[kind]
        if _is_of_two(activation):
            two.append(kind)
        elif activation.differentiable:
            smooth.append(kind)
        else:
            others.append(kind)
    if others:
        raise TypeError(
            f"nodes of kinds {_text.names(others)} have no derivative and more than two states; "
            "use a smooth activation such as dx.tanh, or one of two states such as dx.sign"
        )
    if two and smooth:
        raise TypeError(
            f"nodes of kinds {_text.names(smooth)} are smooth and nodes of kinds "
            f"{_text.names(two)} are not: their disturbances cannot be compared; hold one of them "
            "by `clamp`"
        )
    return bool(two)


def _is_of_two(activation: Activation) -> bool:
    """Whether units are in one of two states after every pass."""
    return isinstance(activation, Glauber) or (activation.by_sign and activation.immediate)


def _states_of(activation: Activation) -> Float[Array, "2"]:
    """The two states of units, the one for fields above zero first."""
    above_and_below = jnp.asarray([1.0, -1.0])
    if isinstance(activation, Glauber):
        return above_and_below
    return activation.target(above_and_below, above_and_below, None)


@eqx.filter_jit
@any_rank
def _free(problem: Problem, state: GraphState) -> Bool[Array, "batch cells"]:
    """The cells of arrays that move which a pass changes."""
    return _Trajectory.of(problem, state, None).free


class _Trajectory(NamedTuple):
    """The passes of a problem as maps of the arrays that move.

    **Fields:**

    - `free`: the cells that a pass changes.
    """

    problem: Problem
    constants: Constants
    free: Bool[Array, "batch cells"]
    keys: Keys

    @classmethod
    def of(cls, problem: Problem, state: GraphState, keys: Keys) -> "_Trajectory":
        constants = problem.constants(state)
        free = free_cells(constants, problem.moving(state))
        cells = as_vectors(problem, free, state.batch_size) > 0
        return cls(problem, constants, cells, keys)

    def __call__(
        self,
        vectors: Float[Array, "batch cells"],
        t: Int[Array, ""],
    ) -> Float[Array, "batch cells"]:
        """The cells of all samples after pass `t`."""
        moving = as_rows(self.problem, vectors)
        after, _ = one_pass(self.problem, self.constants, moving, pass_keys(self.keys, t))
        return as_vectors(self.problem, after, len(vectors))


@eqx.filter_jit
@any_rank
def _of_tangents(
    problem: Problem,
    state: GraphState,
    keys: Keys,
    steps: int,
    transient: int,
    k: int,
) -> Float[Array, "batch k"]:
    """The exponents of smooth units."""
    trajectory = _Trajectory.of(problem, state, keys)
    start = as_vectors(problem, problem.moving(state), state.batch_size)
    batch, cells = start.shape
    # the same directions for all samples, so that none depends on its companions
    random = jax.random.normal(jax.random.key(0), (cells, k), start.dtype)
    tangents, _ = jnp.linalg.qr(jnp.where(trajectory.free[..., None], random, 0))

    def body(
        now: tuple[Array, Array, Array],
        t: Int[Array, ""],
    ) -> tuple[tuple[Array, Array, Array], None]:
        vectors, tangents, total = now
        after, push = jax.linearize(lambda vectors: trajectory(vectors, t), vectors)
        pushed = jax.vmap(push, in_axes=-1, out_axes=-1)(tangents)
        directions, growth = jnp.linalg.qr(pushed)
        size = jnp.abs(jnp.diagonal(growth, axis1=-2, axis2=-1))
        # In place of a disturbance that has died QR puts any direction, that of a held cell too.
        tangents = jnp.where(size[:, None] > 0, directions, 0)
        total = total + jnp.where(t >= transient, jnp.log(size), 0)
        return (after, tangents, total), None

    nothing = jnp.zeros((batch, k), start.dtype)
    passes = jnp.arange(transient + steps)
    (_, _, total), _ = jax.lax.scan(body, (start, tangents, nothing), passes)
    return -jnp.sort(-total / steps, axis=-1)


@eqx.filter_jit
@any_rank
def _of_flips(
    problem: Problem,
    state: GraphState,
    keys: Keys,
    steps: int,
    transient: int,
) -> Float[Array, "batch 1"]:
    """The exponent of units of two states."""
    trajectory = _Trajectory.of(problem, state, keys)
    start = as_vectors(problem, problem.moving(state), state.batch_size)
    batch, cells = start.shape
    up, down = _two_states(problem)
    # the free cells of every sample come first, in their order
    order = jnp.argsort(~trajectory.free, axis=1, stable=True)
    count = jnp.sum(trajectory.free, axis=1)

    def drawn(key: Key[Array, ""], order: Int[Array, " cells"], count: Int[Array, ""]) -> Array:
        return order[jax.random.randint(jax.random.fold_in(key, CHOICE), (), 0, count)]

    def body(
        now: tuple[Array, Array],
        t: Int[Array, ""],
    ) -> tuple[tuple[Array, Array], None]:
        vectors, total = now
        own = pass_keys(keys, t)
        assert own is not None  # keys were asked for
        cell = jax.vmap(drawn)(own, order, count)
        is_flipped = jnp.arange(cells) == cell[:, None]
        other = jnp.where(vectors == up, down, up)
        after = trajectory(vectors, t)
        copy = trajectory(jnp.where(is_flipped, other, vectors), t)
        differ = jnp.sum((after != copy) & trajectory.free, axis=1).astype(total.dtype)
        # NaN differs from itself, and would count as damage
        differ = jnp.where(jnp.all(jnp.isfinite(after), axis=1), differ, jnp.nan)
        return (after, total + jnp.where(t >= transient, differ, 0)), None

    nothing = jnp.zeros(batch, start.dtype)
    passes = jnp.arange(transient + steps)
    (_, total), _ = jax.lax.scan(body, (start, nothing), passes)
    return jnp.log(total / steps)[:, None]


def _two_states(problem: Problem) -> tuple[Float[Array, " cells"], Float[Array, " cells"]]:
    """The two states of every cell of the arrays that move."""
    network = problem.network
    parts: list[Array] = []
    for array in problem.moves:
        spec, units = network.topology.arrays[array], network.units[array]
        states = jnp.stack([_states_of(network.activations[kind]) for kind in units.kinds])
        owner = jnp.zeros(spec.rows, jnp.int32) if units.owner is None else units.owner
        # rows without an owner never move, and take the states of the last kind
        rows = states[owner]
        parts.append(jnp.repeat(rows, math.prod(spec.item), axis=0))
    both = jnp.concatenate(parts).astype(residual_dtype(problem))
    return both[:, 0], both[:, 1]
