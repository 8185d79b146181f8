"""How gradients are taken through a relaxation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from darnax._arrays import any_rank
from darnax.dynamics.call import Call
from darnax.dynamics.passes import one_pass, updated_cells
from darnax.dynamics.schedules import synchronous
from darnax.dynamics.setting import setting
from darnax.network.messages import Arrays, arrays_of, with_arrays
from darnax.network.network import Network
from darnax.states.graph import GraphState

TOLERANCE, MOST = 1e-6, 100


@dataclass(frozen=True)
class Adjoint:
    """A way to differentiate `relax`."""


@dataclass(frozen=True)
class Implicit(Adjoint):
    """See `implicit`."""


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """See `unrolled`."""


def implicit() -> Implicit:
    """Derivatives of the fixed point itself, by the implicit function theorem; memory does not grow
    with the passes.

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
    network: Network, call: Call, start: GraphState, end: GraphState, settled: Bool[Array, " batch"]
) -> GraphState:
    """`end`, bit for bit, with the derivatives of the fixed point that it is."""
    frame = eqx.tree_at(
        lambda frame: frame.sweep, call.frame, None, is_leaf=lambda leaf: leaf is None
    )
    call = Call(frame, call.masks, call.drives, synchronous(), call.masked, call.driven)
    fixed = setting(network, call, start)
    free = updated_cells(fixed, start)
    given, found = arrays_of(start), arrays_of(end)
    # integers have no derivatives, and a map that needs theirs refuses by name
    movable = [at for at in free if jnp.issubdtype(found[at].dtype, jnp.inexact)]
    others = given | {at: found[at] for at in free if at not in movable}

    def image(moving: Arrays) -> Arrays:
        """One pass at once, by which the cells that moved and settled are where they are."""
        point = others | {at: jnp.where(free[at], array, given[at]) for at, array in moving.items()}
        # what did not settle may not be finite, and nothing times infinity is no number
        point = {
            at: jnp.where(settled, array, jnp.zeros_like(array)) for at, array in point.items()
        }
        after, _ = one_pass(fixed, with_arrays(start, point), None)
        here = {at: free[at] & settled for at in moving}
        return {at: jnp.where(here[at], arrays_of(after)[at], moving[at]) for at in moving}

    moved = jax.lax.stop_gradient({at: found[at] for at in movable})
    # everything that the map reads becomes an argument, parameters in closures of the user's
    # included
    rest = _at_rest(
        moved, eqx.filter_closure_convert(image, moved), {at: free[at] & settled for at in movable}
    )
    return with_arrays(
        start, others | {at: jnp.where(free[at], rest[at], given[at]) for at in movable}
    )


def without_gradient(tree: Any) -> Any:
    """The same values, constants for differentiation."""
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


@eqx.filter_custom_jvp
def _at_rest(end: Arrays, image: Callable[[Arrays], Arrays], free: Arrays) -> Arrays:
    """`end`, the fixed point of `image`; cells that are not `free` do not depend on anything."""
    return end


@_at_rest.def_jvp
@any_rank
def _tangent(primals: Any, tangents: Any) -> tuple[Arrays, Arrays]:
    end, image, free = primals
    # the point itself moves with what the map reads: asked for again, it has its own derivative,
    # and so to any order
    here = _at_rest(end, image, free)
    dtype = (
        jnp.float64 if any(array.dtype == jnp.float64 for array in here.values()) else jnp.float32
    )

    def only_free(arrays: Arrays) -> Arrays:
        return {at: jnp.where(free[at], array, 0).astype(dtype) for at, array in arrays.items()}

    def pushed(change: Arrays) -> Arrays:
        """The linear map ∂F/∂s; it works in one dtype, whatever those of the arrays are."""
        change = {at: u.astype(here[at].dtype) for at, u in only_free(change).items()}
        return only_free(jax.jvp(image, (here,), (change,))[1])

    def operator(change: Arrays) -> Arrays:
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


def _solve(operator: Callable[[Arrays], Arrays], given: Arrays, tolerance: float) -> Arrays:
    """The u for which `operator(u) = given`.

    Where the network came to rest by passes that draw near to it, so does adding what is left, at
    the same rate; where it does not, GMRES goes on from where it stands.
    """

    def left(u: Arrays) -> tuple[Arrays, Float[Array, ""]]:
        rest = jax.tree.map(jnp.subtract, given, operator(u))
        return rest, size(rest)

    def size(arrays: Arrays) -> Float[Array, ""]:
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
