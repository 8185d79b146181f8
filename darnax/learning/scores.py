"""Scores: one number for every sample of a batch, on its answer or on what it was taught.

Means over samples are taken by the caller, who knows which of them count, and how many there are in
batches of several sizes.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from darnax.dynamics import Solution
from darnax.learning.data import Targets
from darnax.states.graph import GraphState

Samples: TypeAlias = Bool[Array, " batch"]
"""Some samples of a batch: those that count, or those that are finite."""

Scores: TypeAlias = dict[str, Float[Array, " batch"]]
"""Scores by name, one number for each sample."""


def sample_scores(answer: Solution, y: Targets) -> Scores:
    """The scores of every sample's answer; there is no accuracy where no output has a target."""
    good = finite(answer.state)
    # floats, so that `fit` adds all scores up alike
    scores = {
        "settled": answer.settled.astype(jnp.float32),
        "steps": answer.steps.astype(jnp.float32),
        "lost": (~good).astype(jnp.float32),
    }
    right: list[Float[Array, " batch"]] = []
    for node in answer.state.topology.outputs:
        if node in y:
            right.append(agreement(answer.state[node], y[node]))
    if right:
        # several outputs count alike, whatever their numbers of units
        accuracy = jnp.stack(right).mean(0)
        # a lost sample stops where it is: its output may still be what it was set to at the start
        scores["accuracy"] = jnp.where(good, accuracy, 0)
    return scores


def agreement(
    answer: Real[Array, "batch ..."],
    target: Real[Array, "batch ..."],
) -> Float[Array, " batch"]:
    """The accuracy of every sample: 1 where the largest unit is the right one, else 0.

    For a single unit, or with space, it is the share of right signs; for samples whose answer or
    target is not finite it is 0.
    """
    batch = len(answer)
    one_of_several = answer.ndim == 2 and answer.shape[1] > 1
    if one_of_several:
        right = answer.argmax(1) == target.argmax(1)
    else:
        # 0 counts as positive, as it does for `dx.sign`
        right = (answer >= 0) == (target >= 0)
    # NaN is the largest number for argmax, and agrees with NaN
    good = jnp.isfinite(answer) & jnp.isfinite(target)
    good = good.reshape(batch, -1).all(1)
    right = right.reshape(batch, -1).astype(jnp.float32)
    return jnp.where(good, right.mean(1), 0)


def finite(state: GraphState) -> Samples:
    """The samples that hold nothing but finite numbers."""
    good: list[Samples] = []
    for array in jax.tree.leaves(state):
        # the batch is the last axis of every array
        cells = array.reshape(-1, array.shape[-1])
        good.append(jnp.isfinite(cells).all(0))
    return jnp.stack(good).all(0)


def overlap(a: GraphState, b: GraphState) -> Float[Array, " batch"]:
    """The cosine between two states of every sample, over nodes that are no inputs or outputs."""
    one = _inner(a)
    two = _inner(b)
    # without inner nodes there is nothing in which the states could differ
    if not one:
        return jnp.ones(a.batch_size)
    # a state of zeros has no direction: the cosine is then 0, and not NaN
    smallest = jnp.finfo(jnp.float32).tiny
    norms = _dot(one, one) * _dot(two, two)
    return _dot(one, two) / jnp.sqrt(jnp.maximum(norms, smallest))


def _inner(state: GraphState) -> list[Float[Array, "rows cells batch"]]:
    """The nodes that are no inputs or outputs, array by array."""
    topology = state.topology
    layout = topology.layout
    # inputs, among the held ones, and outputs are where they were put: they would always agree
    ends = [*topology.columns.held, *topology.columns.outputs]
    inner = np.setdiff1d(np.arange(len(topology)), ends)
    result: list[Float[Array, "rows cells batch"]] = []
    for i, rows in layout.rows_of(inner).items():
        spec = layout.arrays[i]
        array = state.arrays[spec.name]
        array = array.reshape(spec.rows, -1, state.batch_size)
        # a gather, and the constant of its indices, only where some of the rows are left out
        if len(rows) < spec.rows:
            array = array[rows]
        # whole numbers too: products of int8 would overflow
        result.append(array.astype(jnp.float32))
    return result


def _dot(one: list[Array], two: list[Array]) -> Float[Array, " batch"]:
    """The inner product of two states of every sample."""
    # both are float32, also where zeros would have 64 bits
    total = jnp.zeros(one[0].shape[-1], jnp.float32)
    for a, b in zip(one, two, strict=True):
        products = a * b
        total += products.sum((0, 1))
    return total
