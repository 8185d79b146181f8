"""Evaluation and prediction on data."""

import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.dynamics import Solution
from darnax.learning.data import Data, in_order
from darnax.learning.phases import Targets
from darnax.learning.program import Shared
from darnax.learning.teaching import Learning, finite
from darnax.network.network import Network


@any_rank
def evaluate(
    network: Any, learning: Any, x: Any, y: Any, *, batch_size: Any = 256, key: Any = None
) -> dict[str, float]:
    """Means over data of what inference gives: `accuracy`, `settled`, `steps`, and the share of
    samples `lost`.

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
    check_teaching(network, learning)
    size, key = checks.count("batch_size", batch_size, 1), None if key is None else one_key(key)
    data = Data.of(network.topology, x, y)
    return mean_scores(network, learning, data, min(len(data), size), key)


@any_rank
def predict(network: Any, learning: Any, x: Any, *, batch_size: Any = 256, key: Any = None) -> Any:
    """What inference answers: the read-out for all of `x`, an array `(n, *shape)` or a mapping for
    several outputs.

    A warning names the samples that are lost, with values that are not finite: what is answered for
    them means nothing.

    !!! example

        ```python
        answers = dx.predict(network, learning, x)
        answers.argmax(axis=1)
        ```
    """
    check_teaching(network, learning)
    size, key = checks.count("batch_size", batch_size, 1), None if key is None else one_key(key)
    data = Data.of(network.topology, x, {})
    order, _ = in_order(len(data), min(len(data), size))
    answers, good = _infer(network, learning, data, order, key)
    answers, good = jax.tree.map(
        lambda a: a.reshape(-1, *a.shape[2:])[: len(data)], (answers, good)
    )
    lost = np.flatnonzero(~np.asarray(good)).tolist()
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(data)} samples are not finite, in the data or after relaxing, "
            f"and their answers mean nothing: samples {_text.listing(lost)}",
            stacklevel=2,
        )
    outputs = network.topology.outputs
    return answers[0] if len(outputs) == 1 else dict(zip(outputs, answers, strict=True))


def one_key(key: Any) -> Any:
    """A single key."""
    key = checks.key("key", key)
    if key.shape:
        checks.refuse(
            "key", "one key", key, "give a single one, as from jax.random.key(0)", ValueError
        )
    return key


def check_teaching(network: Any, learning: Any):
    """A network, and a way to teach it whose phases are of it."""
    checks.instance(
        "network",
        network,
        Network,
        "a darnax.Network",
        "make one, such as dx.Network(topology, ...)",
    )
    uncalled = inspect.isclass(learning)
    advice = "make one of it, giving it the rules" if uncalled else "give one"
    checks.instance(
        "learning", learning, Learning, "a way to teach such as dx.DynamicalLearning(rules)", advice
    )
    learning.check(network.topology)


def sample_scores(answer: Solution, y: Targets) -> dict[str, Float[Array, " batch"]]:
    """What is said of every sample's answer."""
    told = [
        agreement(answer.state[node], y[node])
        for node in answer.state.topology.outputs
        if node in y
    ]
    scores = {
        "settled": answer.settled.astype(jnp.float32),
        "steps": answer.steps.astype(jnp.float32),
    }
    if told:
        # a lost sample stops where it is: its output may still be what it was set to in the
        # beginning
        scores["accuracy"] = jnp.where(finite(answer.state), jnp.mean(jnp.stack(told), axis=0), 0)
    return scores


def agreement(
    answer: Real[Array, "batch ..."], target: Real[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """1 where the largest unit is the right one; for a single unit or with space the share of right
    signs.

    0 for samples whose answer or target is not finite.
    """
    if answer.ndim == 2 and answer.shape[1] > 1:
        right = (answer.argmax(-1) == target.argmax(-1)).astype(jnp.float32)
    else:
        same = (answer >= 0) == (target >= 0)
        right = jnp.mean(same.reshape(len(same), -1).astype(jnp.float32), axis=1)
    good = jnp.isfinite(answer) & jnp.isfinite(target)
    return jnp.where(good.reshape(len(good), -1).all(1), right, 0)


def mean_scores(
    network: Network, learning: Learning, data: Data, size: int, key: Any
) -> dict[str, float]:
    """Scores of inference, averaged over data that run in batches of a size."""
    sums = inference_scores(*in_batches(network, learning, data, size, key))
    return {name: float(value) / len(data) for name, value in sums.items()}


def in_batches(network: Network, learning: Learning, data: Data, size: int, key: Any) -> tuple:
    """The arguments of `inference_scores` for batches of a size."""
    return network, learning, data, *in_order(len(data), size), key


@Shared
def inference_scores(network, learning, data, order, real, key):
    """Sums of scores over the real samples."""

    def one(batch):
        places, real, number = batch
        here = data.at(places)
        answer = learning.infer(
            network, here.x, None if key is None else jax.random.fold_in(key, number)
        )
        lost = ~finite(answer.state)
        scores = sample_scores(answer, here.y) | {"lost": lost.astype(jnp.float32)}
        return {name: jnp.sum(jnp.where(real, value, 0)) for name, value in scores.items()}

    sums = jax.lax.map(one, (jnp.asarray(order), jnp.asarray(real), jnp.arange(len(order))))
    return jax.tree.map(jnp.sum, sums)


@Shared
def _infer(network, learning, data, order, key):
    """Answers of all outputs, in their order, and which samples are finite."""

    def one(batch):
        places, number = batch
        own = None if key is None else jax.random.fold_in(key, number)
        state = learning.infer(network, data.at(places).x, own).state
        answers = state.readout
        return [answers] if isinstance(answers, jax.Array) else list(answers.values()), finite(
            state
        )

    return jax.lax.map(one, (jnp.asarray(order), jnp.arange(len(order))))
