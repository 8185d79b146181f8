"""How gradients are taken through a relaxation.

The default forgets how a sample came to rest. Where it rests is a solution of `s = F(θ, s)`, whose
derivatives follow from those of F at this point alone: one linear equation instead of a way back
through every pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from darnax._arrays import any_rank
from darnax.dynamics.problem import Constants, Problem
from darnax.dynamics.update import one_pass
from darnax.network.message_passing import Rows, outer
from darnax.states.graph import GraphState

T = TypeVar("T")
Map: TypeAlias = Callable[[Rows], Rows]
"""A map of the moving arrays, or of small changes of them."""
Tangents: TypeAlias = dict[str, Array | None]
"""Small changes of arrays; None for those that do not change."""

TOLERANCE, MOST = 1e-6, 100
"""To which part of its right side the linear equation is solved, and how often is iterated."""


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
    problem: Problem,
    start: GraphState,
    end: GraphState,
    settled: Bool[Array, " batch"],
) -> GraphState:
    """`end`, bit for bit, with the derivatives of the fixed point that it is."""
    # Every schedule has the fixed points of the synchronous map, which costs least.
    problem = problem.at_once()
    given, found = start.rows(), end.rows()
    # What did not settle may not be finite, and nothing times infinity is no number.
    sound: Rows = {}
    for array, rows in given.items():
        sound[array] = jnp.where(settled, rows, jnp.zeros_like(rows))
    constants = problem.constants(start.with_rows(sound))
    free = free_cells(constants, given)
    # Integers have no derivatives, and a map that needs theirs refuses by name.
    smooth: Rows = {}
    others: Rows = {}
    for array in free:
        inexact = jnp.issubdtype(found[array].dtype, jnp.inexact)
        (smooth if inexact else others)[array] = found[array]

    def image(moving: Rows) -> Rows:
        """One pass at once, by which the cells that moved and settled are where they are."""
        # Cells that do not move are read from the start, for they have its derivatives.
        point = dict(others)
        for array, rows in moving.items():
            point[array] = jnp.where(free[array], rows, given[array])
        for array, rows in point.items():
            point[array] = jnp.where(settled, rows, jnp.zeros_like(rows))
        after, _ = one_pass(problem, constants, point)
        images: Rows = {}
        for array, rows in moving.items():
            images[array] = jnp.where(free[array] & settled, after[array], rows)
        return images

    # The point has the derivatives of a solution alone, and none of the way that led there.
    moved = jax.lax.stop_gradient(smooth)
    free_and_settled = {array: free[array] & settled for array in smooth}
    # Everything that the map reads becomes an argument, parameters in closures of the user's
    # included: the rule of `_at_rest` sees the derivatives of its arguments alone.
    rest = _at_rest(moved, eqx.filter_closure_convert(image, moved), free_and_settled)
    for array in smooth:
        others[array] = jnp.where(free[array], rest[array], given[array])
    return start.with_rows(others)


def free_cells(
    constants: Constants,
    rows: Rows,
) -> dict[str, Bool[Array, "..."]]:
    """The cells of moving arrays that an update of everything at once changes."""
    free: dict[str, Array] = {}
    for array, moves in constants.moves.items():
        mask = jnp.ones(rows[array].shape, bool)
        if moves is not None:
            mask = mask & outer(moves, mask.ndim)
        if array in constants.held:
            mask = mask & ~constants.held[array]
        free[array] = mask
    return free


def without_gradient(tree: T) -> T:
    """The same values, constants for differentiation."""
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


@eqx.filter_custom_jvp
def _at_rest(
    end: Rows,
    image: Map,
    free: Rows,
) -> Rows:
    """`end`, the fixed point of `image`; cells that are not `free` do not depend on anything."""
    return end


@_at_rest.def_jvp
@any_rank
def _tangent(
    primals: tuple[Rows, Map, Rows],
    tangents: tuple[Tangents, Map, Tangents],
) -> tuple[Rows, Rows]:
    end, image, free = primals
    # The point itself moves with what the map reads: asked for again, it has its own derivative,
    # and so to any order.
    here = _at_rest(end, image, free)
    dtype = _working_dtype(here)

    def only_free(arrays: Rows) -> Rows:
        changes: Rows = {}
        for array, rows in arrays.items():
            changes[array] = jnp.where(free[array], rows, 0).astype(dtype)
        return changes

    def pushed(change: Rows) -> Rows:
        """The linear map ∂F/∂s; it works in one dtype, whatever those of the arrays are."""
        change = _cast_as(only_free(change), here)
        _, change = jax.jvp(image, (here,), (change,))
        return only_free(change)

    def operator(change: Rows) -> Rows:
        return jax.tree.map(jnp.subtract, change, pushed(change))

    # the right side ∂F/∂θ dθ
    _, moved_image = eqx.filter_jvp(lambda image: image(here), (image,), (tangents[1],))
    known: Rows = {}
    for array, rows in moved_image.items():
        if rows is not None:
            known[array] = rows
    known = only_free(known)
    # JAX transposes the solution only if every right side is linear in the tangents, and zeros
    # alone are not.
    total = sum(jnp.sum(rows) for rows in known.values())
    zero = jnp.where(False, total, 0)
    given: Rows = {}
    for array, rows in here.items():
        nothing = jnp.zeros(rows.shape, dtype)
        given[array] = known.get(array, nothing) + zero

    def solve(operator: Map, given: Rows) -> Rows:
        return _solve(operator, given, _tolerance(here))

    # Forwards and backwards are one equation: JAX transposes the operator for the latter.
    change = jax.lax.custom_linear_solve(operator, given, solve=solve, transpose_solve=solve)
    return here, _cast_as(change, here)


def _working_dtype(arrays: Rows) -> DTypeLike:
    """Float32, or float64 where any of the arrays is."""
    double = any(array.dtype == jnp.float64 for array in arrays.values())
    return jnp.float64 if double else jnp.float32


def _tolerance(arrays: Rows) -> float:
    """The tolerance of a solution: no finer than the coarsest dtype of the arrays resolves."""
    tolerance = TOLERANCE
    for array in arrays.values():
        tolerance = max(tolerance, float(jnp.finfo(array.dtype).eps))
    return tolerance


def _cast_as(changes: Rows, arrays: Rows) -> Rows:
    """Changes in the dtypes of the arrays that they change."""
    result: Rows = {}
    for array, rows in changes.items():
        result[array] = rows.astype(arrays[array].dtype)
    return result


class Approach(NamedTuple):
    """An approximate solution `u`, what is left of the equation, and the sizes of this.

    **Fields:**

    - `error`, `before`: the size of `rest`, now and before the last step.
    - `steps`: the steps made.
    """

    u: Rows
    rest: Rows
    error: Float[Array, ""]
    before: Float[Array, ""]
    steps: int | Int[Array, ""]


def _solve(
    operator: Map,
    given: Rows,
    tolerance: float,
) -> Rows:
    """The u for which `operator(u) = given`.

    Where the network came to rest by passes that draw near to it, so does adding what is left, at
    the same rate; where it does not, GMRES goes on from where it stands.
    """

    def left(u: Rows) -> tuple[Rows, Float[Array, ""]]:
        """What is left of the equation, and its size."""
        rest = jax.tree.map(jnp.subtract, given, operator(u))
        return rest, size(rest)

    def size(arrays: Rows) -> Float[Array, ""]:
        squares = sum(jnp.vdot(rows, rows) for rows in jax.tree.leaves(arrays))
        return jnp.sqrt(squares)

    enough = tolerance * size(given)

    def going(now: Approach) -> Bool[Array, ""]:
        # It stops as well where a step does not lessen the error: from there GMRES does better.
        away = now.error > enough
        closer = now.error < now.before
        return away & closer & (now.steps < MOST)

    def nearer(now: Approach) -> Approach:
        u = jax.tree.map(jnp.add, now.u, now.rest)
        rest, error = left(u)
        return Approach(u, rest, error, before=now.error, steps=now.steps + 1)

    rest, error = left(given)
    start = Approach(given, rest, error, before=jnp.full_like(enough, jnp.inf), steps=0)
    end = jax.lax.while_loop(going, nearer, start)
    # It looks at the error first: where that is small enough, it gives the start back.
    solved, _ = jax.scipy.sparse.linalg.gmres(
        operator,
        given,
        end.u,
        tol=tolerance,
        restart=32,
        maxiter=32,
        solve_method="incremental",
    )
    return solved
