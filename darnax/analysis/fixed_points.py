"""Fixed points: the states that a network can come to rest in, and how many starts lead to each.

They are looked for from many starts at once, and starts that led to the same point are counted. So
the table that comes out is a sample of the landscape and no proof: what no start leads to is not
found. Relaxation finds what attracts. Newton's method goes to unstable points as well, such as the
saddles between two attractors.
"""

from importlib.util import find_spec

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, Key

from darnax import checks
from darnax._arrays import any_rank, on_device
from darnax.analysis.newton import roots
from darnax.analysis.sample_map import sample_map
from darnax.analysis.spectrum import refuse_random, refuse_rough, refuse_traced
from darnax.analysis.stability import smooth_part, stable_samples
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.energy import NoEnergyError, energy
from darnax.dynamics.problem import Arguments, Problem, arguments, pose
from darnax.dynamics.relax import relax
from darnax.dynamics.schedules import ScheduleLike, synchronous
from darnax.network.network import Network, check_state
from darnax.states.graph import GraphState

APART = 1e-3
"""See `apart` of `fixed_points`."""


class FixedPoints(eqx.Module):
    """Distinct fixed points, those that most starts led to first.

    **Fields:**

    - `states`: a state whose samples are the points; of a batch of 0 where none was found.
    - `counts`: how many of the starts led to each: the size of its basin, as far as starts tell.
    - `residual`: how far from rest each is, as in `dx.Solution`.
    - `energy`: of each, as `dx.energy` gives it; None where connections do not go both ways.
    - `stable`: whether small disturbances die out, see `dx.stable`.
    - `reached`: by start, the position of the point that it led to; -1 where it led to none.
    """

    states: GraphState
    counts: Int[Array, " points"]
    residual: Float[Array, " points"]
    energy: Float[Array, " points"] | None
    stable: Bool[Array, " points"]
    reached: Int[Array, " starts"]

    def __len__(self) -> int:
        return len(self.counts)


@any_rank
@checks.slips(steps="max_steps", maxiter="max_steps", tolerance="tol", atol="tol", rtol="tol")
@checks.by_hand
def fixed_points(
    network: Network,
    starts: GraphState,
    *,
    schedule: ScheduleLike = synchronous(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
    key: Key[Array, "..."] | None = None,
    newton: bool = False,
    max_steps: int = 100,
    tol: float = 1e-5,
    apart: float = APART,
) -> FixedPoints:
    """The distinct fixed points that many starts lead to.

    By default each sample of `starts` is relaxed under the schedule, as by `dx.relax`: that finds
    points which attract. With `newton` each is the start of Newton's method on `F(s) - s = 0`, F
    the synchronous pass, in which every linear equation is solved matrix-free: that finds unstable
    points too. It is damped, as by Levenberg and Marquardt, so that starts far from any point are
    led on; some end where they are stuck, and are counted as lost. Smooth units alone allow it.

    Points are compared over all nodes, held ones too: starts with different inputs lead to
    different points.

    Arguments as for `dx.relax`, and

    - `starts`: a state whose samples are the starts, many of them.
    - `newton`: whether to go by Newton's method, which needs `pip install 'darnax[analysis]'`;
      `max_steps` then counts its steps.
    - `tol`: the residual up to which a point counts as one.
    - `apart`: two points are one if no cell of them differs by more than this, relative to
      max(1, max|s|). Starts that approach a point slowly end as far from it as
      `tol / (1 - |λ|)`; let `tol` be small enough that this is less than `apart`.

    Raises as `dx.relax` and `dx.stable` do, and `TypeError` naming the node kind for Newton's
    method on units without a derivative. Not inside of `jax.jit`.

    Sources: D. Sussillo and O. Barak, Neural Comput. 25, 626 (2013), for the search; K.
    Levenberg, Q. Appl. Math. 2, 164 (1944), for the damping.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.hopfield(12))
        couplings = {"recurrent": dx.dense(self_coupling=0.5)}
        memory = dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))
        signs = jax.random.rademacher(jax.random.key(1), (64, 12), float)
        starts = dx.GraphState(topology).init({"units": signs})
        points = dx.fixed_points(memory, starts, schedule=dx.unit_by_unit())
        assert points.counts.sum() == 64
        points.states["units"].shape == (len(points), 12)  # True
        ```
    """
    check_state(network, starts, "starts")
    newton = checks.flag("newton", newton)
    apart = checks.number("apart", apart, least=0)
    given = arguments(schedule=schedule, clamp=clamp, silence=silence, kinds=kinds, drive=drive)
    problem = pose(network, starts, **given)
    refuse_traced("fixed_points", (network, starts, problem))
    if newton:
        max_steps = checks.count("max_steps", max_steps, 1, checks.MOST)
        tol = checks.number("tol", tol, above=0)
        found = _by_newton(problem, starts, max_steps, tol)
        # one pass, which tells how far from rest each of them is
        solution = relax(network, found, **given, key=key, max_steps=1, tol=tol)
    else:
        solution = relax(network, starts, **given, key=key, max_steps=max_steps, tol=tol)
        found = solution.state
    settled = np.asarray(solution.settled)
    points, reached = _distinct(_cells(found), settled, apart)
    stable = stable_samples(problem, smooth_part(problem, found, given), found, points)
    counts = np.bincount(reached[settled], minlength=len(points))
    energies = _energies(network, found, given)
    chosen = np.asarray(points, np.int32)
    return FixedPoints(
        states=_picked(found, points),
        counts=on_device(counts, np.int32),
        residual=solution.residual[chosen],
        energy=None if energies is None else energies[chosen],
        stable=on_device(stable),
        reached=on_device(reached, np.int32),
    )


def _energies(
    network: Network,
    states: GraphState,
    given: Arguments,
) -> Float[Array, " batch"] | None:
    """The energies of states; None of a network that has none."""
    try:
        return energy(
            network,
            states,
            clamp=given["clamp"],
            silence=given["silence"],
            kinds=given["kinds"],
            drive=given["drive"],
        )
    except NoEnergyError:
        return None


def _by_newton(problem: Problem, starts: GraphState, max_steps: int, tol: float) -> GraphState:
    """Where Newton's method ends, from every start."""
    refuse_random(problem)
    refuse_rough(problem, "Newton's method needs one")
    if find_spec("optimistix") is None:
        raise ImportError(
            "`newton` needs optimistix, which is not installed; pip install 'darnax[analysis]'"
        )
    # Every schedule has the fixed points of the synchronous map, which costs least.
    synchronous_map = sample_map(problem.at_once(), starts)
    return synchronous_map.put(starts, roots(synchronous_map, tol, max_steps))


def _cells(state: GraphState) -> Inexact[np.ndarray, "batch cells"]:
    """All cells of a state as one vector a sample."""
    parts: list[np.ndarray] = []
    for array in state.arrays.values():
        values = np.asarray(array).reshape(-1, state.batch_size)
        parts.append(values.astype(np.complex128 if np.iscomplexobj(values) else np.float64))
    return np.concatenate(parts).T


def _distinct(
    cells: Inexact[np.ndarray, "starts cells"],
    settled: Bool[np.ndarray, " starts"],
    apart: float,
) -> tuple[list[int], Int[np.ndarray, " starts"]]:
    """The first start of each point, most reached ones first, and the point of every start."""
    reached = np.full(len(cells), -1)
    first: list[int] = []
    left = np.flatnonzero(settled)
    while len(left):
        one = cells[left[0]]
        size = max(1.0, np.abs(one).max(initial=0))
        distance = np.abs(cells[left] - one).max(1, initial=0)
        same = distance <= apart * size
        reached[left[same]] = len(first)
        first.append(int(left[0]))
        left = left[~same]
    # of points with equal counts the one that the earlier start led to comes first
    counts = np.bincount(reached[settled], minlength=len(first))
    order = np.argsort(-counts, kind="stable")
    place = np.full(len(first) + 1, -1)  # -1, no point, finds the last entry
    place[order] = np.arange(len(first))
    return [first[i] for i in order], place[reached]


def _picked(state: GraphState, samples: list[int]) -> GraphState:
    """Some samples of a state."""
    chosen = np.asarray(samples, np.int32)
    return jax.tree.map(lambda array: array[..., chosen], state)
