"""How gradients are taken through a relaxation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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
    """Gradients of the fixed point itself, by the implicit function theorem; memory does not grow with the passes.

    At a fixed point `s = F(θ, s)` of the synchronous map the cotangent `v` becomes `u = (1 - ∂F/∂sᵀ)⁻¹ v`, found by
    iterating `u = v + ∂F/∂sᵀ u`, or by GMRES where that does not converge, and the gradient `∂F/∂θᵀ u` (Pineda, Phys.
    Rev. Lett. 59, 2229, 1987). Held cells, drives and parameters get gradients; the start of cells that move gets none,
    and samples that did not settle give zero.
    """
    return Implicit()


def unrolled() -> Unrolled:
    """Gradients through every pass: always `max_steps` of them are made, and all are remembered."""
    return Unrolled()


def attach(
    network: Network, call: Call, start: GraphState, end: GraphState, settled: Bool[Array, " batch"]
) -> GraphState:
    """`end`, bit for bit, with the derivatives of the fixed point that it is."""
    frame = eqx.tree_at(lambda frame: frame.sweep, call.frame, None, is_leaf=lambda leaf: leaf is None)
    call = Call(frame, call.masks, call.drives, synchronous(), call.masked, call.driven)
    fixed = setting(network, call, start)
    free, found, point = updated_cells(fixed, start), arrays_of(end), arrays_of(start)
    point |= {at: jnp.where(mask, jax.lax.stop_gradient(found[at]), point[at]) for at, mask in free.items()}
    image, _ = one_pass(fixed, with_arrays(end, point), None)
    return _solve(image, without_gradient((network, call, free, end, settled)))


def without_gradient(tree: Any) -> Any:
    """The same values, constants for differentiation."""
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


@eqx.filter_custom_vjp
def _solve(image: GraphState, fixed: Any) -> GraphState:
    return fixed[3]


@_solve.def_fwd
def _forward(perturbed, image, fixed):
    return fixed[3], None


@_solve.def_bwd
def _backward(residuals, cotangent, perturbed, image, fixed):
    network, call, free, end, settled = fixed
    rest = arrays_of(end)
    # an integer array that is held has no cotangent; it passes none on either
    given = {
        at: jnp.zeros_like(array) if v is None else jnp.where(settled, v, 0)
        for (at, array), v in zip(rest.items(), cotangent.arrays.values(), strict=True)
    }

    def moved(at: int, array: Array) -> Array:
        return jnp.where(free[at], array, 0)

    def image_of(moving: Arrays) -> Arrays:
        point = {at: jnp.where(free[at], a, rest[at]) for at, a in moving.items()}
        after, _ = one_pass(setting(network, call, end), with_arrays(end, point), None)
        return {at: moved(at, array) for at, array in arrays_of(after).items() if at in moving}

    _, pull = jax.vjp(image_of, {at: rest[at] for at in free})

    solved = _fixed_point(lambda u: pull(u)[0], {at: moved(at, given[at]) for at in free})
    total = {at: jnp.where(free[at], jnp.where(settled, u, 0), given[at]) for at, u in solved.items()}
    return with_arrays(end, given | total)


def _fixed_point(pull: Callable[[Arrays], Arrays], given: Arrays) -> Arrays:
    """The u for which `u = given + pull(u)`.

    Where the network came to rest by passes that draw near to it, so does this iteration, at the same rate; where it
    does not, GMRES goes on from where it stands.
    """

    def operator(u: Arrays) -> Arrays:
        return jax.tree.map(jnp.subtract, u, pull(u))

    def left(u: Arrays) -> tuple[Arrays, Float[Array, ""]]:
        rest = jax.tree.map(jnp.subtract, given, operator(u))
        return rest, size(rest)

    def size(arrays: Arrays) -> Float[Array, ""]:
        return jnp.sqrt(sum(jnp.vdot(a, a) for a in jax.tree.leaves(arrays)))

    enough = TOLERANCE * size(given)

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
        operator, given, u, tol=TOLERANCE, restart=32, maxiter=32, solve_method="incremental"
    )
    return solved
