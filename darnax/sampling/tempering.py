"""Replica exchange, or parallel tempering: samples at many temperatures that change places.

A cold sample stays in the valley that it is in, for a time that grows exponentially with the height
of the hills. A hot one crosses them. So samples run at a ladder of temperatures, and after some
passes neighbours on it exchange their states, with such a probability that each temperature keeps
its Boltzmann distribution: what the heat has found wanders down into the cold.

Temperatures stay with the samples, and states move. So sample b of the result is a draw at
temperature b.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

from darnax import checks
from darnax._arrays import any_rank, on_device
from darnax.dynamics.adjoint import free_cells
from darnax.dynamics.arguments import Clamp, Drive, DriveFunction, Kinds, Nodes, driven_field
from darnax.dynamics.energy import energy as energy_of
from darnax.dynamics.problem import Problem, arguments, pose
from darnax.dynamics.schedules import ScheduleLike, unit_by_unit
from darnax.dynamics.step import Observe
from darnax.dynamics.update import one_pass
from darnax.dynamics.visits import Keys
from darnax.network.message_passing import Rows
from darnax.network.network import Network, check_state
from darnax.noise import pass_keys, sample_keys
from darnax.sampling.temperature import with_temperature
from darnax.states.graph import GraphState
from darnax.states.values import as_array

Energy: TypeAlias = Callable[[GraphState], Float[Array, " batch"]]
"""The energy of every sample of a state."""


class Tempering(eqx.Module):
    """Where replica exchange ended.

    **Fields:**

    - `state`: the last state; sample b is at temperature b.
    - `frames`: what was observed after every round, stacked; None for nothing.
    - `accepted`: between temperatures b and b + 1, the share of exchanges that were made of those
      that were proposed, `(B - 1,)`. A ladder is right where none of them is near zero.
    """

    state: GraphState
    frames: Any
    accepted: Float[Array, " steps"]


@any_rank
@checks.by_hand
def exchange(
    state: GraphState,
    energy: Float[Array, " batch"],
    temperatures: ArrayLike,
    key: Key[Array, ""],
    *,
    odd: bool | Bool[Array, ""] = False,
) -> tuple[GraphState, Bool[Array, " steps"]]:
    """The state in which neighbours have exchanged their states, and which pairs have, `(B - 1,)`.

    Samples i and i + 1 change places with probability
    `min(1, exp((1 / Tᵢ - 1 / Tᵢ₊₁) (Eᵢ - Eᵢ₊₁)))`, for even i or for odd ones. This keeps the
    Boltzmann distributions of all temperatures, whatever these are: several ladders may stand side
    by side in one batch.

    **Arguments:**

    - `energy`: of every sample, `(B,)`.
    - `temperatures`: of every sample, `(B,)`, above 0.
    - `key`: one key.
    - `odd`: whether pairs begin at odd positions.

    Raises `ValueError` or `TypeError` for energies or temperatures that are not one a sample.

    Source: K. Hukushima and K. Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996).

    !!! example

        ```python
        temperatures = jnp.geomspace(0.5, 4.0, B)
        energy = -state["label"].sum(-1)
        state, exchanged = dx.exchange(state, energy, temperatures, key)
        exchanged.shape  # (B - 1,)
        ```
    """
    advice = "make one of a topology"
    state = checks.instance("state", state, GraphState, "a darnax.GraphState", advice)
    batch = state.batch_size
    ladder = _ladder(temperatures, batch)
    return _exchange(
        state,
        _checked_energy("energy", energy, batch),
        ladder,
        _one_key(key),
        odd if isinstance(odd, jax.Array) else jnp.asarray(checks.flag("odd", odd)),
    )


@any_rank
@checks.slips(steps="rounds")
@checks.by_hand
def temper(
    network: Network,
    state: GraphState,
    temperatures: ArrayLike,
    rounds: int,
    *,
    energy: Energy | None = None,
    passes: int = 1,
    schedule: ScheduleLike = unit_by_unit(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
    key: Key[Array, ""],
    observe: Observe | None = None,
) -> Tempering:
    """Samples at a ladder of temperatures, whose neighbours exchange their states after each round.

    A round is `passes` passes of the schedule, sample b at temperature b, and proposals to exchange
    by `dx.exchange`, in turns for even and for odd pairs. All is one program.

    The states follow the Boltzmann distribution `exp(-E / T)` if the passes do: where couplings are
    symmetric, units are not coupled to themselves and take turns, and `energy` is that of the
    couplings, `-½ Σ s h` with `h` the messages to s, less `Σ s (bias + drive)`: `dx.energy`, which
    knows it where connections go both ways by their declaration. So the default
    schedule is unit by unit; `dx.coloured()` takes turns in fewer visits where units are nodes of
    their own. Neighbouring temperatures must be so close that energies overlap: `accepted` tells.

    Arguments as for `dx.rollout`, and

    - `state`: B samples, of which cells that are held have the same values.
    - `temperatures`: one for each sample, `(B,)`, above 0, of all units of `dx.glauber`. Several
      ladders may follow one another.
    - `rounds`, `passes`: their numbers, at least 1.
    - `energy`: a function of the state that gives one number for each sample, `(B,)`; None for
      `dx.energy` with the arguments of this call.
    - `key`: one key.
    - `observe`: a function of the state, called after every round.

    Raises `ValueError` or `TypeError` for a ladder that is not one number for each sample, held
    values, masks or drives that differ by sample, an energy of another shape, and a network without
    units that have a temperature.

    Source: K. Hukushima and K. Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996); every pair in turn: S.
    Syed, A. Bouchard-Côté, G. Deligiannidis and A. Doucet, J. R. Stat. Soc. B 84, 321 (2022).

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.lattice((4, 4)))
        couplings = {"lateral": dx.scale(1.0, fixed=True)}
        magnet = dx.Network(topology, couplings, dx.glauber(1.0), key=jax.random.key(0))


        def energy(state):
            field = magnet.local_field(state)
            return -0.5 * sum(state[node] * field[node] for node in topology.nodes)


        start = dx.GraphState(topology, batch_size=6)
        ladder = jnp.geomspace(1.0, 4.0, 6)
        found = dx.temper(
            magnet, start, ladder, 20, energy=energy, schedule=dx.coloured(), key=key
        )
        found.accepted.shape  # (5,)
        ```
    """
    check_state(network, state)
    rounds = checks.count("rounds", rounds, 1, checks.MOST)
    passes = checks.count("passes", passes, 1, checks.MOST // rounds)
    # A call and its energy both read them.
    given = arguments(schedule=schedule, clamp=clamp, silence=silence, kinds=kinds, drive=drive)
    ladder = _ladder(temperatures, None)
    network = with_temperature(network, ladder)
    if energy is None:
        energy = _OwnEnergy(network, given["clamp"], given["silence"], given["kinds"], drive)
    else:
        holds = "a function of the state that gives (B,)"
        checks.function("energy", energy, holds, "give one, or None for dx.energy")
    if observe is not None:
        checks.function("observe", observe, "a function of the state", "give one, or None")
    problem = pose(network, state, **given)
    _check_arguments_alike(problem, state)
    _check_states_alike(problem, state)
    key = _one_key(key)
    keys = sample_keys(key, state.batch_size, problem.random)
    # past the last sample's, so that no noise of units is used twice
    own = jax.random.fold_in(key, state.batch_size)
    return _temper(problem, state, ladder, keys, own, rounds, passes, energy, observe)


class _OwnEnergy(eqx.Module):
    """The energy of a network in calls with these arguments."""

    # A module and no closure: equal calls share their program.
    network: Network
    clamp: Clamp
    silence: Nodes
    kinds: Kinds
    drive: Drive

    def __call__(self, state: GraphState) -> Float[Array, " batch"]:
        return energy_of(
            self.network,
            state,
            clamp=self.clamp,
            silence=self.silence,
            kinds=self.kinds,
            drive=self.drive,
        )


def _one_key(given: object) -> Key[Array, ""]:
    key = checks.key("key", given)
    if key.shape:
        raise ValueError(f"`key` is one key, but got keys of shape {key.shape}; give one of them")
    return key


def _ladder(given: object, batch: int | None) -> Float[Array, " batch"]:
    """The temperatures of all samples; of any number of them if `batch` is None."""
    ladder = checks.by_sample("temperatures", given, above=0)
    if not ladder.ndim or batch not in (None, len(ladder)):
        holds = "an array of temperatures above 0, one for each "
        holds += "sample" if batch is None else f"of the {batch} samples"
        advice = "give such numbers, as by jnp.geomspace(0.5, 4.0, 8)"
        checks.refuse("temperatures", holds, given, advice, ValueError)
    return ladder


def _checked_energy(argument: str, given: object, batch: int) -> Float[Array, " batch"]:
    energy = as_array(f"`{argument}`", given)
    if energy.shape != (batch,) or energy.dtype.kind not in "iuf":
        holds = f"one real number for each of the {batch} samples, (B,)"
        checks.refuse(argument, holds, given, "sum over all units of a sample", ValueError)
    energy = on_device(energy)
    if jnp.issubdtype(energy.dtype, jnp.floating):
        return energy
    return energy.astype(float)  # counts


def _check_arguments_alike(problem: Problem, state: GraphState):
    """Refuse masks and drives that differ by sample: they would not move along with the states."""
    topology = problem.network.topology
    masked: list[int] = []
    for node, mask in zip(problem.masked, problem.masks, strict=True):
        if len(mask) > 1:
            masked.append(node)
    if masked:
        raise ValueError(
            f"`clamp` holds other cells in each sample at nodes {topology.named(masked)}, and "
            "samples exchange their states; give one mask for all"
        )
    driven: list[int] = []
    for node, drive in zip(problem.driven, problem.drives, strict=True):
        if _differs(problem, node, drive, state):
            driven.append(node)
    if driven:
        raise ValueError(
            f"`drive` differs by sample at nodes {topology.named(driven)}, and samples exchange "
            "their states; give one for all"
        )


def _differs(
    problem: Problem,
    node: int,
    drive: Float[Array, "..."] | DriveFunction,
    state: GraphState,
) -> bool:
    """Whether a drive is another one for other samples."""
    if not callable(drive):
        return len(drive) > 1
    # Inside of a program of the user's there are no values to look at.
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((drive, state))):
        return False
    # What a function gives depends on the states: so it is asked with all of them alike.
    first = jax.tree.map(lambda array: jnp.repeat(array[..., :1], array.shape[-1], -1), state)
    field = driven_field(problem.network.topology, node, drive(first), state.batch_size)
    values = np.asarray(field)
    return not np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True)


def _check_states_alike(problem: Problem, state: GraphState):
    """Refuse held values that differ by sample: the problem of a temperature would change."""
    # Inside of a program of the user's there are no values to look at.
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((problem, state))):
        return
    topology = problem.network.topology
    rows: dict[int, np.ndarray] = {}
    for i, differs in enumerate(_differing_rows(problem, state)):
        rows[i] = np.flatnonzero(differs)
    nodes = np.flatnonzero(topology.layout.covering(rows)).tolist()
    if nodes:
        raise ValueError(
            f"`state` has other values in each sample at nodes {topology.named(nodes)}, which are "
            "held, and samples exchange their states; give all samples the same ones"
        )


@eqx.filter_jit
@any_rank
def _differing_rows(problem: Problem, state: GraphState) -> list[Bool[Array, " rows"]]:
    """By array, the rows that hold a cell which does not move, and is not alike in all samples."""
    rows = state.rows()
    constants = problem.constants(state)
    free = free_cells(constants, problem.moving(state))
    result: list[Array] = []
    for array, values in rows.items():
        differs = values != values[..., :1]
        if array in free:
            differs = differs & ~free[array]
        result.append(jnp.any(differs, axis=tuple(range(1, values.ndim))))
    return result


@eqx.filter_jit
@any_rank
def _temper(
    problem: Problem,
    state: GraphState,
    ladder: Float[Array, " batch"],
    keys: Keys,
    key: Key[Array, ""],
    rounds: int,
    passes: int,
    energy: Energy,
    observe: Observe | None,
) -> Tempering:
    # Held values are alike in all samples, so that the constants stay right when states move.
    constants = problem.constants(state)
    moving = problem.moving(state)

    def sweep(moving: Rows, t: Int[Array, ""]) -> tuple[Rows, None]:
        after, _ = one_pass(problem, constants, moving, pass_keys(keys, t))
        return after, None

    def body(moving: Rows, r: Int[Array, ""]) -> tuple[Rows, tuple[Array, object]]:
        moving, _ = jax.lax.scan(sweep, moving, r * passes + jnp.arange(passes))
        here = state.with_rows(moving)
        energies = _checked_energy("energy", energy(here), len(ladder))
        own = jax.random.fold_in(key, r)
        here, exchanged = _exchange(here, energies, ladder, own, r % 2 == 1)
        frame = None if observe is None else observe(here)
        return problem.moving(here), (exchanged, frame)

    moving, (exchanged, frames) = jax.lax.scan(body, moving, jnp.arange(rounds))
    # even pairs were proposed in rounds 0, 2, 4, ..., odd ones in the others
    proposed = (rounds + 1 - jnp.arange(len(ladder) - 1) % 2) // 2
    accepted = jnp.sum(exchanged, axis=0) / proposed
    return Tempering(state.with_rows(moving), frames, accepted)


@eqx.filter_jit
def _exchange(
    state: GraphState,
    energy: Float[Array, " batch"],
    ladder: Float[Array, " batch"],
    key: Key[Array, ""],
    odd: Bool[Array, ""],
) -> tuple[GraphState, Bool[Array, " steps"]]:
    first = jnp.arange(len(ladder) - 1)
    cold = 1 / ladder
    # A proposal to lower the sum of E / T is always accepted.
    # Energies are as precise as they were given: of large ones small differences matter.
    gain = (cold[:-1] - cold[1:]) * (energy[:-1] - energy[1:]).astype(cold.dtype)
    chance = jax.random.uniform(key, gain.shape)
    # false for NaN: a sample that is lost stays where it is
    exchanged = ((first % 2 == 1) == odd) & (jnp.log(chance) < gain)
    # sample i takes the state of i + 1 where pair i exchanges, and of i - 1 where pair i - 1 does
    no = jnp.zeros(1, bool)
    up = jnp.concatenate([exchanged, no]).astype(jnp.int32)
    down = jnp.concatenate([no, exchanged]).astype(jnp.int32)
    source = jnp.arange(len(ladder)) + up - down
    return jax.tree.map(lambda array: array[..., source], state), exchanged
