"""How gradients are taken through a relaxation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from darnax._arrays import any_rank
from darnax.dynamics.problem import Constants, Problem
from darnax.dynamics.update import one_pass
from darnax.network.message_passing import Rows, outer
from darnax.states.graph import GraphState

TOLERANCE, MOST = 1e-6, 100


@dataclass(frozen=True)
class Adjoint:
    """A way to differentiate `relax`; `remembers` says that all passes are made and remembered."""

    remembers: ClassVar[bool] = False


@dataclass(frozen=True)
class Implicit(Adjoint):
    """See `implicit`."""


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """See `unrolled`."""

    remembers = True


def implicit() -> Implicit:
    """Derivatives of the fixed point itself, by the implicit function theorem.

    Memory does not grow with the number of passes.

    At a fixed point `s = F(θ, s)` of the synchronous map the tangent is
    `ds = (1 - ∂F/∂s)⁻¹ ∂F/∂θ dθ`, and the cotangent `v` becomes `∂F/∂θᵀ (1 - ∂F/∂sᵀ)⁻¹ v` (Pineda,
    Phys. Rev. Lett. 59, 2229, 1987). The linear equation is solved by iterating the linear map, or
    by GMRES where that does not converge. Derivatives go forward and backward, and are of any
    order: `jax.jvp`, `jax.grad`, `jax.hessian`. Held cells, drives and parameters have derivatives;
    the start of cells that move has none, and samples that did not settle give zero.
    """
    return Implicit()


def unrolled() -> Unrolled:
    """Gradients through every pass: always `max_steps` of them are made, and all are remembered."""
    return Unrolled()


def attach(
    problem: Problem, start: GraphState, end: GraphState, settled: Bool[Array, " batch"]
) -> GraphState:
    """`end`, bit for bit, with the derivatives of the fixed point that it is."""
    problem = problem.at_once()
    constants = problem.constants(start)
    given, found = start.rows(), end.rows()
    free = free_cells(constants, given)
    # integers have no derivatives, and a map that needs theirs refuses by name
    movable = [array for array in free if jnp.issubdtype(found[array].dtype, jnp.inexact)]
    others = {array: found[array] for array in free if array not in movable}

    def image(moving: Rows) -> Rows:
        """One pass at once, by which the cells that moved and settled are where they are."""
        point = dict(others)
        for array, rows in moving.items():
            point[array] = jnp.where(free[array], rows, given[array])
        # what did not settle may not be finite, and nothing times infinity is no number
        point = {a: jnp.where(settled, rows, jnp.zeros_like(rows)) for a, rows in point.items()}
        after, _ = one_pass(problem, constants, point)
        return {a: jnp.where(free[a] & settled, after[a], moving[a]) for a in moving}

    moved = jax.lax.stop_gradient({array: found[array] for array in movable})
    free_and_settled = {array: free[array] & settled for array in movable}
    # everything that the map reads becomes an argument, parameters in closures of the user's
    # included
    rest = _at_rest(moved, eqx.filter_closure_convert(image, moved), free_and_settled)
    for array in movable:
        others[array] = jnp.where(free[array], rest[array], given[array])
    return start.with_rows(others)


def free_cells(constants: Constants, rows: Rows) -> dict[str, Bool[Array, "..."]]:
    """The cells of moving arrays that an update of everything at once changes."""
    free = {}
    for array, moves in constants.moves.items():
        mask = jnp.ones(rows[array].shape, bool)
        if moves is not None:
            mask = mask & outer(moves, mask.ndim)
        if array in constants.held:
            mask = mask & ~constants.held[array]
        free[array] = mask
    return free


def without_gradient(tree: Any) -> Any:
    """The same values, constants for differentiation."""
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


@eqx.filter_custom_jvp
def _at_rest(end: Rows, image: Callable[[Rows], Rows], free: Rows) -> Rows:
    """`end`, the fixed point of `image`; cells that are not `free` do not depend on anything."""
    return end


@_at_rest.def_jvp
@any_rank
def _tangent(primals: Any, tangents: Any) -> tuple[Rows, Rows]:
    end, image, free = primals
    # the point itself moves with what the map reads: asked for again, it has its own derivative,
    # and so to any order
    here = _at_rest(end, image, free)
    dtype = (
        jnp.float64 if any(array.dtype == jnp.float64 for array in here.values()) else jnp.float32
    )

    def only_free(arrays: Rows) -> Rows:
        return {at: jnp.where(free[at], array, 0).astype(dtype) for at, array in arrays.items()}

    def pushed(change: Rows) -> Rows:
        """The linear map ∂F/∂s; it works in one dtype, whatever those of the arrays are."""
        change = {at: u.astype(here[at].dtype) for at, u in only_free(change).items()}
        return only_free(jax.jvp(image, (here,), (change,))[1])

    def operator(change: Rows) -> Rows:
        return jax.tree.map(jnp.subtract, change, pushed(change))

    _, given = eqx.filter_jvp(lambda image: image(here), (image,), (tangents[1],))
    known = only_free({at: u for at, u in given.items() if u is not None})
    # JAX transposes the solution only if every right side is linear in the tangents, and zeros
    # alone are not
    zero = jnp.where(False, sum(jnp.sum(u) for u in known.values()), 0)
    given = {at: known.get(at, jnp.zeros(here[at].shape, dtype)) + zero for at in here}
    enough = max(TOLERANCE, *(float(jnp.finfo(array.dtype).eps) for array in here.values()))
    change = jax.lax.custom_linear_solve(
        operator,
        given,
        solve=lambda matvec, given: _solve(matvec, given, enough),
        transpose_solve=lambda matvec, given: _solve(matvec, given, enough),
    )
    return here, {at: u.astype(here[at].dtype) for at, u in change.items()}


def _solve(operator: Callable[[Rows], Rows], given: Rows, tolerance: float) -> Rows:
    """The u for which `operator(u) = given`.

    Where the network came to rest by passes that draw near to it, so does adding what is left, at
    the same rate; where it does not, GMRES goes on from where it stands.
    """

    def left(u: Rows) -> tuple[Rows, Float[Array, ""]]:
        rest = jax.tree.map(jnp.subtract, given, operator(u))
        return rest, size(rest)

    def size(arrays: Rows) -> Float[Array, ""]:
        return jnp.sqrt(sum(jnp.vdot(a, a) for a in jax.tree.leaves(arrays)))

    enough = tolerance * size(given)

    def going(now):
        _, _, error, before, count = now
        return (error > enough) & (error < before) & (count < MOST)

    def nearer(now):
        u, rest, error, _, count = now
        u = jax.tree.map(jnp.add, u, rest)
        return u, *left(u), error, count + 1

    start = given, *left(given), jnp.full_like(enough, jnp.inf), 0
    u, *_ = jax.lax.while_loop(going, nearer, start)
    solved, _ = jax.scipy.sparse.linalg.gmres(
        operator, given, u, tol=tolerance, restart=32, maxiter=32, solve_method="incremental"
    )
    return solved
