"""Training on data."""

import inspect
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from darnax import checks, files
from darnax._arrays import any_rank
from darnax.learning.callbacks import Callback, EarlyStopping, as_callbacks, ask
from darnax.learning.data import Data, batches_of, is_batches, pair, shuffled
from darnax.learning.evaluate import (
    check_teaching,
    in_batches,
    inference_scores,
    mean_scores,
    one_key,
    sample_scores,
)
from darnax.learning.history import History
from darnax.learning.program import Shared
from darnax.learning.run import Checkpoint, Progress, Run, check_may_differ, facts_of
from darnax.learning.teaching import Learning
from darnax.learning.updates import check_rules
from darnax.network.network import Network, partition


@any_rank
def fit(
    network: Any,
    learning: Any,
    optimiser: Any,
    x: Any,
    y: Any = None,
    *,
    epochs: Any,
    batch_size: Any = 32,
    key: Any,
    validation: Any = None,
    callbacks: Any = (),
    checkpoint: Any = None,
    may_differ: Any = (),
    progress: Any = True,
) -> tuple[Network, History]:
    """Train a network on data.

    Every epoch goes once through the data in a fresh order, as one compiled scan over batches. A
    last batch that is short is filled up with samples that do not count, so that there is but one
    program. Samples in which the dynamics leave the finite numbers teach nothing; their share is
    the score `lost`, and a warning says so.

    Ctrl-C, or a checkpoint that cannot be written any more, ends the training with a warning, and
    what was learnt until then is returned.

    **Arguments:**

    - `learning`: how to teach, such as `dx.DynamicalLearning(rules)`.
    - `optimiser`: from optax.
    - `x`, `y`: arrays `(n, *shape)` for the only input and output, or mappings from nodes to such.
      Or `x` alone: an iterable of batches `(x, y)`, gone through anew every epoch; every size of
      batch is compiled once.
    - `epochs`: how many there are in all, those before a resumption included.
    - `batch_size`: how many samples an update averages; for arrays.
    - `key`: for the order of samples and the noise of the dynamics.
    - `validation`: `(x, y)` to evaluate after every epoch.
    - `callbacks`: functions `(network, history)` called after every epoch; one that returns True
      ends the training.
    - `checkpoint`: the path of a file that is written after every epoch. If it is there already,
      training goes on from it, and ends with the very bits it would have ended with, had it never
      stopped. It must be of the same run: of the same network, learning, optimiser, arrays,
      `batch_size` and `key`. Batches of an iterable are not compared.
    - `may_differ`: what of a checkpoint's run may be different here, some of `"learning"`,
      `"optimiser"`, `"start"`, `"frozen"`, `"data"`, `"validation"`, `"batch_size"` and `"key"`.
    - `progress`: whether to show a bar.

    **Returns:** the trained network and a `History`, both as they were after the last whole epoch.

    Raises `ValueError` or `TypeError` for rules, phases or data that do not fit the network, empty
    data, or a checkpoint that is damaged or of another run, and `OSError` for one that cannot be
    written, before training starts.

    !!! example

        ```python
        learning = dx.DynamicalLearning({"forward": dx.perceptron(0.5)})
        y = dx.one_vs_all(jnp.arange(32) % 10, 10)
        trained, history = dx.fit(
            network, learning, optax.sgd(0.1), x, y, epochs=2, key=key, progress=False
        )
        ```
    """
    check_learning(network, learning)
    check_optimiser(optimiser)
    callbacks, progress = as_callbacks(callbacks), checks.flag("progress", progress)
    epochs, batch_size = checks.count("epochs", epochs), checks.count("batch_size", batch_size, 1)
    key, may_differ, topology = one_key(key), check_may_differ(may_differ), network.topology
    path = None if checkpoint is None else files.as_path("checkpoint", checkpoint)
    data = None if y is None and is_batches(x) else Data.of(topology, x, y)
    tests = (
        None if validation is None else Data.of(topology, *pair("validation", validation, "a pair"))
    )
    size = 0 if data is None else min(batch_size, len(data))
    params, rest = partition(network, learning.rules)
    now = Progress(params, optimiser.init(params), History())
    trainer = Trainer(Run(network, learning, optimiser, data, tests, size, key), rest, x, callbacks)
    if data is not None:
        check_signs(network, learning, data)
    if path is not None:
        files.check_writable("checkpoint", path)
    now = trainer.train(now, epochs, path, may_differ, progress)
    return trainer.network(now), now.history


class Trainer(NamedTuple):
    """A run, and what goes with it: what nothing trains, batches if there are any, and the
    callbacks.
    """

    run: Run
    rest: Network
    batches: Any
    callbacks: tuple[Callback, ...]

    def network(self, now: Progress) -> Network:
        """The network as it is now."""
        return eqx.combine(now.params, self.rest)

    def train(
        self, now: Progress, epochs: int, path: Path | None, may_differ: tuple[str, ...], show: bool
    ) -> Progress:
        """Epoch after epoch until the last one, the word of a callback, or an interruption."""
        from tqdm.auto import tqdm

        try:
            file = (
                None
                if path is None
                else Checkpoint(path, facts_of(self.run, now, self.rest), may_differ)
            )
            now = now if file is None else self.resume(now, file)
            begin = len(now.history)
            with tqdm(
                range(begin, epochs), initial=begin, total=epochs, disable=not show, unit="epoch"
            ) as bar:
                for epoch in bar:
                    if now.ended:
                        break
                    now = self.epoch(now, epoch)
                    row = now.history[-1]
                    bar.set_postfix(
                        {
                            name: f"{value:.3f}"
                            for name, value in row.items()
                            if name.endswith("accuracy")
                        }
                    )
                    now = now._replace(ended=self.ask(now))
                    if file is not None and not _saved(file, now):
                        break
        except KeyboardInterrupt:
            warnings.warn(f"training was interrupted; {_so_far(now)}", stacklevel=3)
        return now

    def resume(self, start: Progress, file: Checkpoint) -> Progress:
        """Where the file is; callbacks that ended the run are asked again, since others may have
        been given.
        """
        now = file.resume(start)
        return now._replace(ended=now.ended and self.ask(now))

    def epoch(self, now: Progress, epoch: int) -> Progress:
        """Once through the data, and the scores of that."""
        run, params, memory = self.run, now.params, now.memory
        own, sums, count = jax.random.fold_in(run.key, epoch), {}, 0
        parts = (
            [run.data]
            if run.data is not None
            else batches_of(run.network.topology, self.batches, epoch)
        )
        for number, part in enumerate(parts):
            if run.data is None:
                check_signs(run.network, run.learning, part)
            order, real = shuffled(
                len(part), run.batch_size or len(part), jax.random.fold_in(own, 2 * number)
            )
            noise = jax.random.fold_in(own, 2 * number + 1)
            given = params, self.rest, memory, run.optimiser, run.learning, part, order, real, noise
            if number == 0:
                self.check_scores(given, own)
            params, memory, scores = _train(*given)
            count += len(part)
            sums = {name: sums.get(name, 0.0) + float(value) for name, value in scores.items()}
        row = {name: value / count for name, value in sums.items()}
        _warn_of_lost(row.get("lost", 0.0), epoch)
        if run.validation is not None:
            scores = mean_scores(*self.validation(params, own, run.validation))
            row |= {f"validation {name}": value for name, value in scores.items()}
        return Progress(params, memory, now.history.extended(row))

    def validation(self, params: Network, key: Any, data: Data) -> tuple:
        """What to evaluate after an epoch."""
        return eqx.combine(params, self.rest), self.run.learning, data, min(len(data), 256), key

    def check_scores(self, given: tuple, key: Any):
        """The scores that callbacks of ours look at are there, which is known before anything has
        run.
        """
        looking = [callback for callback in self.callbacks if isinstance(callback, EarlyStopping)]
        if not looking:
            return
        names = list(_train.outputs(*given)[2])
        if self.run.validation is not None:
            scores = inference_scores.outputs(
                *in_batches(*self.validation(given[0], key, self.run.validation))
            )
            names += [f"validation {name}" for name in scores]
        for callback in looking:
            callback.check(names)

    def ask(self, now: Progress) -> bool:
        """Whether any callback ends the training."""
        return ask(self.callbacks, self.network(now), now.history)


def _saved(file: Checkpoint, now: Progress) -> bool:
    """Whether the checkpoint could be written; a warning says why not."""
    try:
        file.save(now)
    except OSError as error:
        warnings.warn(f"training was interrupted: {error}; {_so_far(now)}", stacklevel=4)
        return False
    return True


def _so_far(now: Progress) -> str:
    done = len(now.history)
    return (
        f"the network is as it was after epoch {done}" if done else "the network is as it was given"
    )


def _warn_of_lost(share: float, epoch: int):
    if share > 0:
        warnings.warn(
            f"epoch {epoch + 1}: {share:.2%} of the samples are not finite, in the data or after "
            "relaxing; they taught nothing",
            stacklevel=5,
        )


def check_learning(network: Any, learning: Any):
    """Rules and phases are of this network."""
    check_teaching(network, learning)
    if not check_rules(network, learning.rules):
        raise ValueError(
            "`rules` is empty, and nothing would learn; give a rule to at least one edge kind"
        )


def check_optimiser(optimiser: Any):
    """A gradient transformation of optax."""
    parts = [callable(getattr(optimiser, name, None)) for name in ("init", "update")]
    if inspect.isclass(optimiser) or not all(parts):
        advice = "call it with its rate" if callable(optimiser) else "give one made by optax"
        checks.refuse(
            "optimiser", "a transformation of optax such as optax.sgd(0.1)", optimiser, advice
        )


def check_signs(network: Network, learning: Learning, data: Data):
    """Targets of nodes that learn by a rule for ±1 units are ±1: at 0 such a rule is silent."""
    topology = network.topology
    for node, value in data.y.items():
        at = topology.index(node)
        kinds = {
            topology.columns.edge_classes[i][0]
            for i in np.unique(
                topology.columns.edge_class[topology.columns.receivers == at]
            ).tolist()
        }
        signed = sorted(kind for kind in kinds if getattr(learning.rules.get(kind), "signs", False))
        zeros = np.asarray(value == 0)
        if signed and zeros.any():
            kind = signed[0]
            raise ValueError(
                f"`y` for node {node!r} holds zeros, and the rule of {kind!r} is for targets of "
                "±1: a target of 0 teaches nothing; give 2 * y - 1 in place of 0 and 1"
            )


@Shared
def _train(params, rest, memory, optimiser, learning, data, order, real, key):
    """An update for each batch; sums of scores over the real samples."""

    def learn(now, batch):
        params, memory = now
        places, real, number = batch
        here, noise = data.at(places), jax.random.fold_in(key, number)
        updates, answer, scores = learning.updates(
            eqx.combine(params, rest), here.x, here.y, real, noise
        )
        steps, memory = optimiser.update(updates, memory, params)
        scores = scores | sample_scores(answer, here.y)
        return (eqx.apply_updates(params, steps), memory), {
            n: jnp.sum(jnp.where(real, v, 0)) for n, v in scores.items()
        }

    (params, memory), sums = jax.lax.scan(
        learn, (params, memory), (jnp.asarray(order), jnp.asarray(real), jnp.arange(len(order)))
    )
    return params, memory, jax.tree.map(jnp.sum, sums)
