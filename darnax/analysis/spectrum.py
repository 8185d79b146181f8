"""Spectrum: the leading eigenvalues of a pass, by which small disturbances grow or die out.

The Jacobian of a pass, ∂F/∂s at a state, has a row and a column for every cell that is free to
move. It is never written down for large states. ARPACK finds its leading eigenvalues from products
with vectors alone, and each product is one forward derivative of a pass.

ARPACK runs on the host. The alternative, an Arnoldi iteration within the program, would serve a
batch at once and run under `jit`, but has no restarts that can be relied on: the spectra of random
networks fill a disc, and the eigenvalues at its edge are so close to each other that a plain
iteration needs about as many vectors as there are cells.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float, Int

from darnax import checks
from darnax._arrays import any_rank, on_device
from darnax._lazy import Lazy
from darnax.activations import name
from darnax.analysis.sample_map import SampleMap, sample_map
from darnax.dynamics.arguments import Clamp, Drive, Kinds, Nodes
from darnax.dynamics.problem import Problem, pose
from darnax.dynamics.schedules import ScheduleLike, synchronous
from darnax.network.network import Network
from darnax.states.graph import GraphState

if TYPE_CHECKING:
    from scipy.sparse import linalg
else:
    linalg = Lazy("scipy.sparse.linalg")

VECTORS = 128
"""The vectors that ARPACK works with; a Jacobian that is no larger is written down.

With its usual 20 it takes a neighbour for the leading eigenvalue in half of random networks of 600
units, without a word; with 128 in none of several hundred, of up to 2,000 units.
"""
DENSE = 4096
"""The most cells of which the Jacobian is written down where ARPACK does not converge."""


@any_rank
@checks.slips(n="k", steps="dx.lyapunov")
@checks.by_hand
def spectrum(
    network: Network,
    state: GraphState,
    k: int = 1,
    *,
    schedule: ScheduleLike = synchronous(),  # noqa: B008 (schedules are frozen)
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
) -> Complex[Array, "batch k"]:
    """The `k` leading eigenvalues of the Jacobian of a pass at every sample of a state, `(B, k)`.

    They are those of largest modulus, largest first, and of a conjugate pair the one of positive
    imaginary part first. At a fixed point small disturbances grow or shrink by the modulus of the
    first one in every pass: it is stable where this is below 1, see `dx.stable`. The Jacobian is
    that of F, one pass of the schedule, with respect to the cells that are free to move.

    Where at most 128 cells are free the Jacobian is written down. Beyond, ARPACK works with
    products of the Jacobian and vectors, each one forward derivative of a pass, some hundreds for
    every sample. An eigenvalue is found to about 1e-6 of its modulus if it is well conditioned, and
    of many that are equal some may be left out. Those of a long chain without loops are not: they
    are zero, and a rounding of ε lifts them to ε^(1/length). It runs on the host: not inside of
    `jax.jit`.

    Arguments as for `step`, and

    - `k`: how many, at most the cells that are free in every sample.

    A sample with values that are not finite has eigenvalues NaN.

    Raises `TypeError` naming the node kind for units without a derivative, such as `dx.sign`, and
    `ValueError` for a `k` that is too large, and for random units, couplings or schedules.

    Source: R. B. Lehoucq, D. C. Sorensen and C. Yang, ARPACK Users' Guide (SIAM, 1998).

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.hopfield(50))
        couplings = {"recurrent": dx.dense(gain=1.5, self_coupling=0.0)}
        rnn = dx.Network(topology, couplings, dx.tanh, key=jax.random.key(0))
        dx.spectrum(rnn, dx.GraphState(topology), k=2).shape  # (1, 2)
        ```
    """
    k = checks.count("k", k, 1)
    problem = pose(
        network,
        state,
        schedule=schedule,
        clamp=clamp,
        silence=silence,
        kinds=kinds,
        drive=drive,
    )
    refuse_random(problem)
    refuse_rough(problem, "a Jacobian means nothing for them")
    refuse_traced("spectrum", (network, state, problem))
    values = eigenvalues(sample_map(problem, state), k, range(state.batch_size))
    return on_device(values)


def refuse_random(problem: Problem) -> None:
    """Refuse a pass that draws random numbers: it is no map."""
    if problem.random is not None:
        raise ValueError(
            f"{problem.random}, so that a pass is no map of the state; use dx.lyapunov, which "
            "follows passes with their noise"
        )


def refuse_rough(problem: Problem, why: str) -> None:
    """Refuse units without a derivative; `why` is the clause that says what for."""
    rough = problem.rough_kinds
    if rough:
        kind = rough[0]
        activation = name(problem.network.activations[kind])
        raise TypeError(
            f"nodes of kind {kind!r} have no derivative ({activation}), and {why}; use a smooth "
            "activation such as dx.tanh, dx.lyapunov for the spread of flips, or dx.stable"
        )


def refuse_traced(function: str, tree: object) -> None:
    """Refuse to run inside of a program, where there are no numbers to look at."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree)):
        raise TypeError(
            f"`dx.{function}` looks at numbers, and was called inside of jax.jit, jax.vmap or "
            "jax.grad, which have none yet; call it outside"
        )


def eigenvalues(
    sample_map: SampleMap,
    k: int,
    samples: Sequence[int],
) -> Complex[np.ndarray, "samples k"]:
    """The leading eigenvalues of some samples."""
    free = np.asarray(sample_map.free)
    finite = np.all(np.isfinite(np.asarray(sample_map.state)), axis=1)
    check_k(k, sample_map.free[np.asarray(samples)])
    double = sample_map.state.dtype == np.float64
    result = np.full((len(samples), k), np.nan, np.complex128 if double else np.complex64)
    for row, sample in enumerate(samples):
        if finite[sample]:
            result[row] = _of_sample(sample_map, sample, np.flatnonzero(free[sample]), k)
    return result


def check_k(k: int, free: Bool[Array, "samples cells"]) -> None:
    """Refuse a `k` above the number of free cells of a sample."""
    samples, cells = free.shape
    # inside of a program it is not known which cells are free, but how many could be
    counts = np.full(samples, cells)
    if not isinstance(free, Tracer):
        counts = np.asarray(free).sum(1)
    least = int(counts.min())
    if k > least:
        raise ValueError(
            f"`k` is at most the number of cells that are free to move, {least} in sample "
            f"{int(counts.argmin())}, but got {k}; ask for fewer, or let more cells move"
        )


def _of_sample(
    sample_map: SampleMap,
    sample: int,
    cells: np.ndarray,
    k: int,
) -> np.ndarray:
    """The leading eigenvalues of one sample, whose free cells are given."""
    found = None
    # of its vectors ARPACK needs two for every eigenvalue, and fewer than there are cells
    vectors = max(VECTORS, 2 * (k + 1))
    if len(cells) > vectors:
        found = _by_arpack(sample_map, sample, cells, k, vectors)
    if found is None:
        jacobian = np.asarray(_jacobian(sample_map, _position(sample)))
        jacobian = jacobian[np.ix_(cells, cells)].astype(np.float64)
        # held nodes and parameters may be lost as well
        if not np.isfinite(jacobian).all():
            return np.full(k, np.nan)
        found = np.linalg.eigvals(jacobian)
    # lexsort takes its last key first; moduli of a conjugate pair are equal to the last bit
    order = np.lexsort((-np.imag(found), -np.real(found), -np.abs(found)))
    return found[order[:k]]


def _by_arpack(
    sample_map: SampleMap,
    sample: int,
    cells: np.ndarray,
    k: int,
    vectors: int,
) -> np.ndarray | None:
    """The leading eigenvalues by ARPACK; None where it does not converge, and a matrix can do."""
    dtype = sample_map.state.dtype
    position = _position(sample)
    change = np.zeros(sample_map.state.shape[1], dtype)

    def pushed(vector: np.ndarray) -> np.ndarray:
        change[cells] = vector.ravel()
        after = np.asarray(_pushed(sample_map, position, on_device(change.copy())))
        return after[cells].astype(np.float64)

    size = len(cells)
    # ARPACK itself works in float64: it then loses nothing but what a pass rounds. SciPy's types
    # know the class for its subclasses alone.
    operator = linalg.LinearOperator((size, size), matvec=pushed, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    # a start of its own, drawn once and for all, so that the same call gives the same numbers
    start = np.random.default_rng(0).normal(size=size)
    if not np.all(np.isfinite(pushed(start))):
        return np.full(k, np.nan)
    try:
        found = linalg.eigs(
            operator,
            k + 1,  # so that both of a pair come, and the one of positive imaginary part is kept
            ncv=vectors,
            v0=start,
            # an int in SciPy's types, after its default of 0
            tol=float(np.finfo(dtype).eps),  # pyright: ignore[reportArgumentType]
            return_eigenvectors=False,
        )
        return np.asarray(found)
    except linalg.ArpackError as error:
        # A Jacobian that sends every vector to zero breaks it off as well.
        if size > DENSE:
            raise RuntimeError(
                f"ARPACK did not find the leading eigenvalues of sample {sample}, with {size} "
                f"free cells: {error}; ask for another `k`"
            ) from error
        return None


def _position(sample: int) -> Int[Array, ""]:
    """A sample as data, so that one program serves all of them."""
    return on_device(sample, np.int32)


@eqx.filter_jit
@any_rank
def _pushed(
    sample_map: SampleMap,
    sample: Int[Array, ""],
    change: Float[Array, " cells"],
) -> Float[Array, " cells"]:
    return sample_map.pushed(sample, change)


@eqx.filter_jit
@any_rank
def _jacobian(sample_map: SampleMap, sample: Int[Array, ""]) -> Float[Array, "cells cells"]:
    """The Jacobian at a sample, `[changed, changing]`."""
    basis = jnp.eye(sample_map.state.shape[1], dtype=sample_map.state.dtype)
    return jax.vmap(lambda change: sample_map.pushed(sample, change), out_axes=1)(basis)
