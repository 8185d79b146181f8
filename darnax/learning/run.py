"""A training run: what decides its numbers, how far it is, and what one epoch does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from darnax.learning.callbacks import EarlyStopping
from darnax.learning.data import Batches, Dataset, in_batches
from darnax.learning.evaluate import mean_scores
from darnax.learning.history import History
from darnax.learning.program import Shared
from darnax.learning.scores import Samples, Scores, sample_scores
from darnax.learning.teaching import Learning
from darnax.network.network import Network

if TYPE_CHECKING:
    import optax

Sums: TypeAlias = dict[str, Float[Array, ""]]
"""Scores by name, each added up over samples."""


class Trained(NamedTuple):
    """The numbers that every update changes.

    **Fields:**

    - `params`: the leaves that are trained.
    - `memory`: the memory of the optimiser.
    """

    params: Network
    memory: PyTree


class Progress(NamedTuple):
    """The place that a run has reached: its last whole epoch, so that all of these fit together.

    **Fields:**

    - `params`, `memory`: as in `Trained`.
    - `history`: one row for each epoch.
    - `ended`: whether a callback ended the run.
    """

    params: Network
    memory: PyTree
    history: History
    ended: bool = False


class Run(NamedTuple):
    """Everything that decides the numbers of a training, but for the start.

    Epoch n draws its order of samples and its noise from `fold_in(key, n)`, and an epoch begins
    with nothing but the progress. So it does not matter in how many pieces the epochs were run.

    **Fields:**

    - `frozen`: the network without the leaves that are trained.
    - `batch_size`: None for an iterable, each of whose batches is one update.
    """

    frozen: Network
    learning: Learning
    optimiser: "optax.GradientTransformation"
    data: Dataset | Batches
    validation: Dataset | None
    batch_size: int | None
    key: Key[Array, ""]

    def network(self, progress: Progress) -> Network:
        """The network as it is now."""
        return eqx.combine(progress.params, self.frozen)

    def epoch(
        self,
        progress: Progress,
        stops: Sequence[EarlyStopping] = (),
    ) -> Progress:
        """The progress after one epoch more; `stops` look at scores that it must have."""
        epoch = len(progress.history)
        key = jax.random.fold_in(self.key, epoch)
        now = Trained(progress.params, progress.memory)
        sums: dict[str, float] = {}
        samples = 0
        for i, data in enumerate(self.data.parts()):
            # the batches of an iterable cannot be looked at before the first epoch
            if stops and i == 0:
                self._check_scores(stops, data, progress)
            shuffle = jax.random.fold_in(key, 2 * i)
            noise = jax.random.fold_in(key, 2 * i + 1)
            order = np.asarray(jax.random.permutation(shuffle, len(data)))
            batches = in_batches(order, self.batch_size or len(data))
            now, scores = _learn(
                now,
                self.frozen,
                self.optimiser,
                self.learning,
                data,
                batches,
                noise,
            )
            # sums and not means: the batches of an iterable may be of several sizes
            samples += len(data)
            for name, score in scores.items():
                sums[name] = sums.get(name, 0.0) + float(score)
        if not samples:
            raise ValueError(
                f"`x` gave no batches in epoch {epoch + 1}; give an iterable that starts anew "
                "every time, such as a list, and not a generator"
            )
        row = {name: score / samples for name, score in sums.items()}
        after = Progress(now.params, now.memory, progress.history)
        if self.validation is not None:
            network = self.network(after)
            # in batches as large as those of `evaluate`: nothing is learnt, so none need be small
            scores = mean_scores(network, self.learning, self.validation, 256, key)
            for name, score in scores.items():
                row[f"validation {name}"] = score
        return after._replace(history=progress.history.extended(row))

    def _check_scores(self, stops: Sequence[EarlyStopping], data: Dataset, progress: Progress):
        """Raise `ValueError` for early stopping by a score that no epoch will have."""
        # names of scores are known from tracing: an epoch, which may take an hour, is not needed
        network = self.network(progress)
        learning, key = self.learning, self.key
        example = data.example()
        counts = jax.ShapeDtypeStruct((2,), bool)
        _, scores = eqx.filter_eval_shape(lesson, network, learning, example, counts, key)
        names = list(scores)
        if self.validation is not None:
            # inference has no more scores than those of answers: nothing is taught there
            example = self.validation.example()
            answer = eqx.filter_eval_shape(learning.infer, network, example.x, key)
            scores = eqx.filter_eval_shape(sample_scores, answer, example.y)
            names += [f"validation {name}" for name in scores]
        for stop in stops:
            stop.check(names)


def lesson(
    network: Network,
    learning: Learning,
    data: Dataset,
    counts: Samples,
    key: Key[Array, ""],
) -> tuple[Network, Scores]:
    """Updates from the samples of a batch that count, and the scores of all of them."""
    updates, answer, scores = learning.updates(network, data.x, data.y, counts, key)
    return updates, sample_scores(answer, data.y) | scores


@Shared
def _learn(
    now: Trained,
    frozen: Network,
    optimiser: "optax.GradientTransformation",
    learning: Learning,
    data: Dataset,
    batches: Int[Array | np.ndarray, "batches size"],
    key: Key[Array, ""],
) -> tuple[Trained, Sums]:
    """One update for each batch, in one program; and scores, summed over all samples."""

    def learn(now: Trained, batch: tuple[Array, Array]) -> tuple[Trained, Sums]:
        i, numbers = batch
        # the last batch is filled up with numbers past the end
        counts = numbers < len(data)
        network = eqx.combine(now.params, frozen)
        noise = jax.random.fold_in(key, i)
        updates, scores = lesson(network, learning, data.take(numbers), counts, noise)
        # optax takes any pytree, though its types do not say so
        steps, memory = optimiser.update(updates, now.memory, now.params)  # pyright: ignore[reportArgumentType]
        params = eqx.apply_updates(now.params, steps)
        sums: Sums = {}
        for name, score in scores.items():
            # chosen and not multiplied: what fills the batch up may have scores that are NaN
            sums[name] = jnp.sum(jnp.where(counts, score, 0))
        return Trained(params, memory), sums

    # a loop within the program: an epoch is dispatched once, and batches are cut out on the device
    numbered = jnp.arange(len(batches)), jnp.asarray(batches)
    now, sums = jax.lax.scan(learn, now, numbered)
    return now, jax.tree.map(jnp.sum, sums)
