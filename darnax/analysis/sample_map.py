"""A pass as a map of the cells that move, one sample at a time.

Eigenvalues and roots belong to single samples, and a pass serves a whole batch. What samples do not
share (states, held cells, fields from outside) has them as its last axis, and is picked here. Then
a pass is a function of one vector, as linear algebra wants it: all cells of the arrays that move,
one after another, in one dtype. Cells that are held keep their place in the vector and their value.
"""

import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from darnax._arrays import any_rank
from darnax.dynamics.adjoint import free_cells
from darnax.dynamics.arguments import DriveFunction
from darnax.dynamics.problem import Constants, Problem
from darnax.dynamics.residual import residual_dtype
from darnax.dynamics.update import one_pass
from darnax.network.message_passing import Rows
from darnax.states.graph import GraphState


class SampleMap(eqx.Module):
    """A pass of a problem as a map of vectors, by sample.

    **Fields:**

    - `problem`: what a pass does.
    - `constants`: what all passes read.
    - `state`: the cells of arrays that move, one vector a sample.
    - `free`: which of them a pass changes.
    """

    problem: Problem
    constants: Constants
    state: Float[Array, "batch cells"]
    free: Bool[Array, "batch cells"]

    def __call__(
        self,
        sample: Int[Array, ""],
        cells: Float[Array, " cells"],
    ) -> Float[Array, " cells"]:
        """The cells of a sample after one pass."""
        problem, constants = self._alone(sample)
        moving = as_rows(problem, cells[None])
        after, _ = one_pass(problem, constants, moving)
        return as_vectors(problem, after, 1)[0]

    def pushed(
        self,
        sample: Int[Array, ""],
        change: Float[Array, " cells"],
    ) -> Float[Array, " cells"]:
        """What one pass from the state of a sample makes of a small change of its free cells."""
        change = jnp.where(self.free[sample], change, 0)
        image = lambda cells: self(sample, cells)  # noqa: E731
        _, after = jax.jvp(image, (self.state[sample],), (change,))
        return after

    def put(
        self,
        state: GraphState,
        vectors: Float[Array, "batch cells"],
    ) -> GraphState:
        """The state with other values in the arrays that move."""
        return state.with_rows(as_rows(self.problem, vectors))

    def _alone(self, sample: Int[Array, ""]) -> tuple[Problem, Constants]:
        """The problem of one sample, as a batch of 1."""
        batch = len(self.state)

        def picked(leaf: Shaped[Array, "... samples"]) -> Shaped[Array, "... 1"]:
            # An axis of 1 stands for what all samples share.
            return leaf if leaf.shape[-1] == 1 else leaf[..., sample, None]

        constants = self.constants
        by_sample = constants.fields, constants.held, constants.still
        fields, held, still = jax.tree.map(picked, by_sample)
        constants = constants._replace(fields=fields, held=held, still=still)
        drives: list[Array | DriveFunction] = []
        for node, drive in zip(self.problem.driven, self.problem.drives, strict=True):
            if callable(drive):
                shape = self.problem.network.topology.node_class(node).shape
                drive = _DriveOfOne(drive, sample, batch, shape)
            drives.append(drive)
        return replace(self.problem, drives=tuple(drives)), constants


class _DriveOfOne(eqx.Module):
    """The drive of one sample, from a function of the user's that was written for a whole batch.

    It may hold numbers for every sample. So it is shown a batch in which all samples are this one.
    """

    function: DriveFunction
    sample: Int[Array, ""]
    batch: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, state: GraphState) -> Shaped[Array, "..."]:
        everywhere = jax.tree.map(lambda leaf: jnp.repeat(leaf, self.batch, -1), state)
        value = jnp.asarray(self.function(everywhere))
        if value.shape == (self.batch, *self.shape):
            return value[self.sample][None]
        # one for all samples, or a wrong shape that the check of drives refuses
        return value


@eqx.filter_jit
@any_rank
def sample_map(problem: Problem, state: GraphState) -> SampleMap:
    """The map of a problem at the samples of a state."""
    constants = problem.constants(state)
    moving = problem.moving(state)
    free = free_cells(constants, moving)
    return SampleMap(
        problem,
        constants,
        as_vectors(problem, moving, state.batch_size),
        as_vectors(problem, free, state.batch_size) > 0,
    )


def as_vectors(problem: Problem, rows: Rows, batch: int) -> Float[Array, "batch cells"]:
    """The cells of arrays that move as one vector a sample."""
    dtype = residual_dtype(problem)
    # of no cells where nothing moves
    parts = [jnp.zeros((0, batch), dtype)]
    for array in problem.moves:
        cells = rows[array].reshape(-1, batch)
        parts.append(cells.astype(dtype))
    return jnp.concatenate(parts).T


def as_rows(problem: Problem, vectors: Float[Array, "batch cells"]) -> Rows:
    """The arrays that move, from one vector a sample."""
    rows: Rows = {}
    start = 0
    for array in problem.moves:
        spec = problem.network.topology.arrays[array]
        stop = start + spec.rows * math.prod(spec.item)
        cells = vectors[:, start:stop].T
        rows[array] = cells.reshape(spec.rows, *spec.item, -1).astype(spec.dtype)
        start = stop
    return rows
