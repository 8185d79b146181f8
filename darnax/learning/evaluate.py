"""Evaluation and prediction on data."""

import inspect
import warnings
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, Shaped

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.dynamics import Solution
from darnax.learning.data import Data, Dataset, Targets, in_batches
from darnax.learning.phases import RandomKey
from darnax.learning.program import Shared
from darnax.learning.scores import Samples, finite, sample_scores
from darnax.learning.teaching import Learning
from darnax.network.network import Network, check_network
from darnax.topologies.names import Name

Read = TypeVar("Read")
"""A pytree of what is read from the solution of every sample, `(B, ...)`."""


@any_rank
@checks.by_hand
def evaluate(
    network: Network,
    learning: Learning,
    x: Data,
    y: Data,
    *,
    batch_size: int = 256,
    key: RandomKey = None,
) -> dict[str, float]:
    """Scores of inference, averaged over data: `accuracy`, `settled`, `steps` and `lost`.

    Arguments as for `fit`. A sample is accurate if the largest unit of an output is that of its
    target; for an output of a single unit, or with space, the score is the share of units that have
    the sign of their target. A sample that is lost, with values that are not finite anywhere in the
    network, is never accurate.

    !!! example

        ```python
        scores = dx.evaluate(network, learning, x, y)
        scores["accuracy"], scores["lost"]
        ```
    """
    check_learning(network, learning)
    batch_size = checks.count("batch_size", batch_size, 1)
    key = None if key is None else one_key(key)
    data = Dataset.of(network.topology, x, y)
    return mean_scores(network, learning, data, batch_size, key)


@any_rank
@checks.by_hand
def predict(
    network: Network,
    learning: Learning,
    x: Data,
    *,
    batch_size: int = 256,
    key: RandomKey = None,
) -> Array | dict[Name, Array]:
    """Answers of inference: the read-out for all of `x`.

    It is an array `(n, *shape)` for one output, a mapping from nodes to such for several. A warning
    names the samples that are lost, with values that are not finite: their answers mean nothing.

    !!! example

        ```python
        answers = dx.predict(network, learning, x)
        answers.argmax(axis=1)
        ```
    """
    check_learning(network, learning)
    batch_size = checks.count("batch_size", batch_size, 1)
    key = None if key is None else one_key(key)
    data = Dataset.of(network.topology, x, {})
    answers, good = _infer_all(network, learning, data, batch_size, key, _readout)
    lost = np.flatnonzero(~np.asarray(good)).tolist()
    # a warning and not an error: the other answers are good, and may have taken hours
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(data)} samples are not finite, in the data or after relaxing, "
            f"and their answers mean nothing: samples {_text.listing(lost)}",
            # past the wrapper of `any_rank`, to the line that called `predict`
            stacklevel=3,
        )
    return answers


def one_key(key: object) -> Key[Array, ""]:
    """A single key; raw arrays of `jax.random.PRNGKey` become typed ones."""
    key = checks.key("key", key)
    if key.shape:
        advice = "give a single one, as from jax.random.key(0)"
        checks.refuse("key", "one key", key, advice, ValueError)
    return key


@checks.by_hand
def check_learning(network: Network, learning: Learning):
    """Raise an error unless `network` is a network that `learning` can teach."""
    check_network(network)
    advice = "make one of it, giving it the rules" if inspect.isclass(learning) else "give one"
    holds = "a way to teach such as dx.DynamicalLearning(rules)"
    checks.instance("learning", learning, Learning, holds, advice)
    learning.check(network.topology)


def mean_scores(
    network: Network,
    learning: Learning,
    data: Dataset,
    batch_size: int,
    key: RandomKey,
) -> dict[str, float]:
    """The scores of inference, averaged over all samples."""
    scores = _infer_all(network, learning, data, batch_size, key, sample_scores)
    # in 64 bits: sums over many samples are not exact in 32
    means: dict[str, float] = {}
    for name, score in scores.items():
        means[name] = float(np.asarray(score, float).mean())
    return means


def _readout(answer: Solution, y: Targets) -> tuple[Array | dict[Name, Array], Samples]:
    """The read-out of every sample, and whether the sample is finite; targets are not read."""
    return answer.state.readout, finite(answer.state)


def _infer_all(
    network: Network,
    learning: Learning,
    data: Dataset,
    batch_size: int,
    key: RandomKey,
    read: Callable[[Solution, Targets], Read],
) -> Read:
    """The results of `read`, from the solution and the targets of every sample."""
    # few data are one small batch, and not a large one that is mostly filled up
    size = min(len(data), batch_size)
    batches = in_batches(np.arange(len(data)), size)
    return _inferred(network, learning, data, batches, key, read)


@Shared
def _inferred(
    network: Network,
    learning: Learning,
    data: Dataset,
    batches: Int[Array | np.ndarray, "batches size"],
    key: RandomKey,
    read: Callable[[Solution, Targets], Read],
) -> Read:
    """The results of `read` on all batches, one after another in one program."""

    def of_batch(batch: tuple[Array, Array]) -> Read:
        i, numbers = batch
        here = data.take(numbers)
        noise = None if key is None else jax.random.fold_in(key, i)
        # read at once: states go with their batch, and memory holds no more than what is read
        return read(learning.infer(network, here.x, noise), here.y)

    def joined(leaf: Shaped[Array, "batches size *rest"]) -> Shaped[Array, "samples *rest"]:
        # the last batch was filled up with what is no sample
        return leaf.reshape(-1, *leaf.shape[2:])[: len(data)]

    found = jax.lax.map(of_batch, (jnp.arange(len(batches)), batches))
    return jax.tree.map(joined, found)
