"""Fixed points by Newton's method, as roots of `F(s) - s`.

It is that of Levenberg and Marquardt: each step solves `(J - 1) d = s - F(s)` in the sense of least
squares, with a penalty on long steps that follows from how good the last one was. LSMR solves it by
products of J and of its transpose with vectors, so that no Jacobian is written down. Without the
penalty steps jump far from where they are good: of 64 random starts on 100 random tanh units of
gain 3 none came to a root, with it every second one. GMRES, which needs no transpose, takes 60
times as long at 100 units: the spectrum of J - 1 lies all around zero.
"""

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from darnax._arrays import any_rank
from darnax._lazy import Lazy
from darnax.analysis.sample_map import SampleMap

if TYPE_CHECKING:
    import lineax
    import optimistix
else:
    lineax, optimistix = Lazy("lineax"), Lazy("optimistix")

NEAR = 1e-5
"""The relative size of the last step."""
EQUATION = 1e-4
"""The relative tolerance of the linear equation of a step."""
PRODUCTS = 500
"""The most products with vectors for a step."""


@eqx.filter_jit
@any_rank
def roots(
    sample_map: SampleMap,
    tol: float,
    max_steps: int,
) -> Float[Array, "batch cells"]:
    """Where Newton's method ended, from the state of every sample; maybe at no root."""

    def of_sample(sample: Int[Array, ""]) -> Float[Array, " cells"]:
        free = sample_map.free[sample]
        start = sample_map.state[sample]

        def held(cells: Float[Array, " cells"]) -> Float[Array, " cells"]:
            return jnp.where(free, cells, start)

        def distance(cells: Float[Array, " cells"], _: None) -> Float[Array, " cells"]:
            # Held cells are where they began, whatever the vector says: the linear equations have
            # zeros for them, and the shortest solution, which LSMR gives, leaves them alone.
            cells = held(cells)
            return sample_map(sample, cells) - cells

        equation = lineax.LSMR(rtol=EQUATION, atol=EQUATION * tol, max_steps=PRODUCTS)
        method = optimistix.LevenbergMarquardt(rtol=NEAR, atol=tol, linear_solver=equation)
        found = optimistix.root_find(
            distance,
            method,
            start,
            max_steps=max_steps,
            throw=False,
        )
        return held(found.value)

    return jax.vmap(of_sample)(jnp.arange(len(sample_map.state)))
