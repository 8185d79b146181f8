"""Training, evaluation and prediction on data."""

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real
from tqdm.auto import tqdm

from darnax import _text, checks, files
from darnax.dynamics import Solution
from darnax.learning.data import Data, batches_of, in_order, is_batches, pair, shuffled
from darnax.learning.history import History
from darnax.learning.phases import Learning, Targets, finite
from darnax.learning.program import Shared
from darnax.learning.run import Checkpoint, Progress, Run, check_may_differ, facts_of
from darnax.learning.updates import check_rules, check_takes
from darnax.network.build import as_key
from darnax.network.network import Network, partition

Callback = Callable[[Network, History], Any]


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

    Every epoch goes once through the data in a fresh order, as one compiled scan over batches. A last batch that is
    short is filled up with samples that do not count, so that there is but one program. Samples in which the dynamics
    leave the finite numbers teach nothing; their share is the score `lost`, and a warning says so.

    Ctrl-C, or a checkpoint that cannot be written any more, ends the training with a warning, and what was learnt until
    then is returned.

    **Arguments:**

    - `learning`: how to teach, such as `dx.DynamicalLearning(rules)`.
    - `optimiser`: from optax.
    - `x`, `y`: arrays `(n, *shape)` for the only input and output, or mappings from nodes to such. Or `x` alone: an
      iterable of batches `(x, y)`, gone through anew every epoch; every size of batch is compiled once.
    - `epochs`: how many there are in all, those before a resumption included.
    - `batch_size`: how many samples an update averages; for arrays.
    - `key`: for the order of samples and the noise of the dynamics.
    - `validation`: `(x, y)` to evaluate after every epoch.
    - `callbacks`: functions `(network, history)` called after every epoch; one that returns True ends the training.
    - `checkpoint`: the path of a file that is written after every epoch. If it is there already, training goes on from
      it, and ends with the very bits it would have ended with, had it never stopped. It must be of the same run: of
      the same network, learning, optimiser, arrays, `batch_size` and `key`. Batches of an iterable are not compared.
    - `may_differ`: what of a checkpoint's run may be different here, some of `"learning"`, `"optimiser"`, `"start"`,
      `"frozen"`, `"data"`, `"validation"`, `"batch_size"` and `"key"`.
    - `progress`: whether to show a bar.

    **Returns:** the trained network and a `History`, both as they were after the last whole epoch.

    Raises `ValueError` or `TypeError` for rules, phases or data that do not fit the network, empty data, or a
    checkpoint that is damaged or of another run, and `OSError` for one that cannot be written, before training starts.

    !!! example

        ```python
        learning = dx.DynamicalLearning({"forward": dx.perceptron(0.5)})
        y = dx.one_vs_all(jnp.arange(32) % 10, 10)
        trained, history = dx.fit(network, learning, optax.sgd(0.1), x, y, epochs=2, key=key, progress=False)
        ```
    """
    check_learning(network, learning)
    check_optimiser(optimiser)
    callbacks, progress = as_callbacks(callbacks), checks.flag("progress", progress)
    epochs, batch_size = checks.count("epochs", epochs), checks.count("batch_size", batch_size, 1)
    key, may_differ, topology = one_key(key), check_may_differ(may_differ), network.topology
    path = None if checkpoint is None else files.as_path("checkpoint", checkpoint)
    data = None if y is None and is_batches(x) else Data.of(topology, x, y)
    tests = None if validation is None else Data.of(topology, *pair("validation", validation, "a pair"))
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
    """A run, and what goes with it: what nothing trains, batches if there are any, and the callbacks."""

    run: Run
    rest: Network
    batches: Any
    callbacks: tuple[Callback, ...]

    def network(self, now: Progress) -> Network:
        """The network as it is now."""
        return eqx.combine(now.params, self.rest)

    def train(self, now: Progress, epochs: int, path: Path | None, may_differ: tuple[str, ...], show: bool) -> Progress:
        """Epoch after epoch until the last one, the word of a callback, or an interruption."""
        try:
            file = None if path is None else Checkpoint(path, facts_of(self.run, now, self.rest), may_differ)
            now = now if file is None else self.resume(now, file)
            begin = len(now.history)
            with tqdm(range(begin, epochs), initial=begin, total=epochs, disable=not show, unit="epoch") as bar:
                for epoch in bar:
                    if now.ended:
                        break
                    now = self.epoch(now, epoch)
                    row = now.history[-1]
                    bar.set_postfix({name: f"{value:.3f}" for name, value in row.items() if name.endswith("accuracy")})
                    now = now._replace(ended=self.ask(now))
                    if file is not None and not _saved(file, now):
                        break
        except KeyboardInterrupt:
            warnings.warn(f"training was interrupted; {_so_far(now)}", stacklevel=3)
        return now

    def resume(self, start: Progress, file: Checkpoint) -> Progress:
        """Where the file is; callbacks that ended the run are asked again, since others may have been given."""
        now = file.resume(start)
        return now._replace(ended=now.ended and self.ask(now))

    def epoch(self, now: Progress, epoch: int) -> Progress:
        """Once through the data, and the scores of that."""
        run, params, memory = self.run, now.params, now.memory
        own, sums, count = jax.random.fold_in(run.key, epoch), {}, 0
        parts = [run.data] if run.data is not None else batches_of(run.network.topology, self.batches, epoch)
        for number, part in enumerate(parts):
            if run.data is None:
                check_signs(run.network, run.learning, part)
            order, real = shuffled(len(part), run.batch_size or len(part), jax.random.fold_in(own, 2 * number))
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
            scores = _evaluate(*self.validation(params, own, run.validation))
            row |= {f"validation {name}": value for name, value in scores.items()}
        return Progress(params, memory, now.history.extended(row))

    def validation(self, params: Network, key: Any, data: Data) -> tuple:
        """What to evaluate after an epoch."""
        return eqx.combine(params, self.rest), self.run.learning, data, min(len(data), 256), key

    def check_scores(self, given: tuple, key: Any):
        """The scores that callbacks of ours look at are there, which is known before anything has run."""
        looking = [callback for callback in self.callbacks if isinstance(callback, EarlyStopping)]
        if not looking:
            return
        names = list(_train.outputs(*given)[2])
        if self.run.validation is not None:
            scores = _test.outputs(*_batches(*self.validation(given[0], key, self.run.validation)))
            names += [f"validation {name}" for name in scores]
        for callback in looking:
            callback.check(names)

    def ask(self, now: Progress) -> bool:
        """Whether any callback ends the training; all of them are asked."""
        network = self.network(now)
        ends = False
        for i, callback in enumerate(self.callbacks):
            ends = _answer(i, callback(network, now.history)) or ends
        return ends


def _answer(i: int, answer: Any) -> bool:
    """What a callback says: True to end, anything like False or None to go on."""
    if answer is None:
        return False
    if not (hasattr(answer, "dtype") and answer.dtype == bool and answer.shape == ()):
        checks.flag(f"callbacks[{i}](network, history)", answer)
    return bool(answer)


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
    return f"the network is as it was after epoch {done}" if done else "the network is as it was given"


def _warn_of_lost(share: float, epoch: int):
    if share > 0:
        warnings.warn(
            f"epoch {epoch + 1}: {share:.2%} of the samples are not finite, in the data or after relaxing; "
            "they taught nothing",
            stacklevel=5,
        )


def evaluate(
    network: Any, learning: Any, x: Any, y: Any, *, batch_size: Any = 256, key: Any = None
) -> dict[str, float]:
    """Means over data of what inference gives: `accuracy`, `settled`, `steps`, and the share of samples `lost`.

    Arguments as for `fit`. A sample is accurate if the largest unit of an output is that of its target; for an output
    of a single unit, or with space, the score is the share of units that have the sign of their target. A sample that
    is lost, with values that are not finite anywhere in the network, is never accurate.

    !!! example

        ```python
        scores = dx.evaluate(network, learning, x, y)
        scores["accuracy"], scores["lost"]
        ```
    """
    check_teaching(network, learning)
    size, key = checks.count("batch_size", batch_size, 1), None if key is None else one_key(key)
    data = Data.of(network.topology, x, y)
    return _evaluate(network, learning, data, min(len(data), size), key)


def predict(network: Any, learning: Any, x: Any, *, batch_size: Any = 256, key: Any = None) -> Any:
    """What inference answers: the read-out for all of `x`, an array `(n, *shape)` or a mapping for several outputs.

    A warning names the samples that are lost, with values that are not finite: what is answered for them means nothing.

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
    answers, good = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: len(data)], (answers, good))
    lost = np.flatnonzero(~np.asarray(good)).tolist()
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(data)} samples are not finite, in the data or after relaxing, and their answers mean "
            f"nothing: samples {_text.listing(lost)}",
            stacklevel=2,
        )
    outputs = network.topology.outputs
    return answers[0] if len(outputs) == 1 else dict(zip(outputs, answers, strict=True))


@dataclass(frozen=True)
class EarlyStopping:
    """See `early_stopping`."""

    score: str
    patience: int
    larger: bool

    def check(self, scores: Collection[str]):
        """The score is one of those that there will be."""
        if self.score not in scores:
            raise ValueError(
                f"`score` of early stopping is {self.score!r}, which no epoch will have; there will be "
                f"{_text.names(scores)}, and those of `validation` if it is given"
            )

    def __call__(self, network: Network, history: History) -> bool:
        values = history[self.score] if self.larger else -history[self.score]
        best = int(np.argmax(np.where(np.isnan(values), -np.inf, values)))
        return len(values) - 1 - best >= self.patience


def early_stopping(score: Any, patience: Any, larger: Any = True) -> EarlyStopping:
    """A callback that ends training when a score has not been better for `patience` epochs.

    It looks at the history alone, so that a run that was resumed ends where one that never stopped does.

    **Arguments:**

    - `score`: the name of a column of the history.
    - `patience`: a number of epochs, at least 1.
    - `larger`: whether larger is better.

    !!! example

        ```python
        callbacks = [dx.early_stopping("validation accuracy", patience=5)]
        ```
    """
    score = checks.text("score", score, 'the name of a score such as "validation accuracy"')
    return EarlyStopping(score, checks.count("patience", patience, 1), checks.flag("larger", larger))


def as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Functions of the network and the history."""
    holds = "a list of functions (network, history)"
    if callable(callbacks):
        checks.called("callbacks", callbacks)
        checks.refuse("callbacks", holds, callbacks, "write [callback]")
    if isinstance(callbacks, (str, Mapping)) or not isinstance(callbacks, Iterable):
        checks.refuse("callbacks", holds, callbacks, "give a list, or leave it out")
    callbacks = tuple(callbacks)
    for i, callback in enumerate(callbacks):
        argument, holds = f"callbacks[{i}]", "a function (network, history)"
        checks.function(argument, callback, holds, "give one, such as dx.early_stopping(...)")
        check_takes(argument, callback, 2, "(network, history)")
    return callbacks


def one_key(key: Any) -> Any:
    """A single key."""
    key = as_key(key)
    if key.shape:
        checks.refuse("key", "one key", key, "give a single one, as from jax.random.key(0)", ValueError)
    return key


def check_teaching(network: Any, learning: Any):
    """A network, and a way to teach it whose phases are of it."""
    checks.instance("network", network, Network, "a darnax.Network", "make one, such as dx.Network(topology, ...)")
    uncalled = inspect.isclass(learning)
    advice = "make one of it, giving it the rules" if uncalled else "give one"
    checks.instance("learning", learning, Learning, "a way to teach such as dx.DynamicalLearning(rules)", advice)
    learning.check(network.topology)


def check_learning(network: Any, learning: Any):
    """Rules and phases are of this network."""
    check_teaching(network, learning)
    if not check_rules(network, learning.rules):
        raise ValueError("`rules` is empty, and nothing would learn; give a rule to at least one edge kind")


def check_optimiser(optimiser: Any):
    """A gradient transformation of optax."""
    parts = [callable(getattr(optimiser, name, None)) for name in ("init", "update")]
    if inspect.isclass(optimiser) or not all(parts):
        advice = "call it with its rate" if callable(optimiser) else "give one made by optax"
        checks.refuse("optimiser", "a transformation of optax such as optax.sgd(0.1)", optimiser, advice)


def check_signs(network: Network, learning: Learning, data: Data):
    """Targets of nodes that learn by a rule for ±1 units are ±1: at 0 such a rule is silent."""
    topology = network.topology
    for node, value in data.y.items():
        at = topology.index(node)
        kinds = {
            topology.columns.edge_classes[i][0]
            for i in np.unique(topology.columns.edge_class[topology.columns.receivers == at]).tolist()
        }
        signed = sorted(kind for kind in kinds if getattr(learning.rules.get(kind), "signs", False))
        zeros = np.asarray(value == 0)
        if signed and zeros.any():
            kind = signed[0]
            raise ValueError(
                f"`y` for node {node!r} holds zeros, and the rule of {kind!r} is for targets of ±1: a target of 0 "
                "teaches nothing; give 2 * y - 1 in place of 0 and 1"
            )


@Shared
def _train(params, rest, memory, optimiser, learning, data, order, real, key):
    """An update for each batch; sums of scores over the real samples."""

    def learn(now, batch):
        params, memory = now
        places, real, number = batch
        here, noise = data.at(places), jax.random.fold_in(key, number)
        updates, answer, scores = learning.updates(eqx.combine(params, rest), here.x, here.y, real, noise)
        steps, memory = optimiser.update(updates, memory, params)
        scores = scores | _scores(answer, here.y)
        return (eqx.apply_updates(params, steps), memory), {
            n: jnp.sum(jnp.where(real, v, 0)) for n, v in scores.items()
        }

    (params, memory), sums = jax.lax.scan(
        learn, (params, memory), (jnp.asarray(order), jnp.asarray(real), jnp.arange(len(order)))
    )
    return params, memory, jax.tree.map(jnp.sum, sums)


def _scores(answer: Solution, y: Targets) -> dict[str, Float[Array, " batch"]]:
    """What is said of every sample's answer."""
    told = [agreement(answer.state[node], y[node]) for node in answer.state.topology.outputs if node in y]
    scores = {"settled": answer.settled.astype(jnp.float32), "steps": answer.steps.astype(jnp.float32)}
    if told:
        # a lost sample stops where it is: its output may still be what it was set to in the beginning
        scores["accuracy"] = jnp.where(finite(answer.state), jnp.mean(jnp.stack(told), axis=0), 0)
    return scores


def agreement(answer: Real[Array, "batch ..."], target: Real[Array, "batch ..."]) -> Float[Array, " batch"]:
    """1 where the largest unit is the right one; for a single unit or with space the share of right signs.

    0 for samples whose answer or target is not finite.
    """
    if answer.ndim == 2 and answer.shape[1] > 1:
        right = (answer.argmax(-1) == target.argmax(-1)).astype(jnp.float32)
    else:
        same = (answer >= 0) == (target >= 0)
        right = jnp.mean(same.reshape(len(same), -1).astype(jnp.float32), axis=1)
    good = jnp.isfinite(answer) & jnp.isfinite(target)
    return jnp.where(good.reshape(len(good), -1).all(1), right, 0)


def _evaluate(network: Network, learning: Learning, data: Data, size: int, key: Any) -> dict[str, float]:
    sums = _test(*_batches(network, learning, data, size, key))
    return {name: float(value) / len(data) for name, value in sums.items()}


def _batches(network: Network, learning: Learning, data: Data, size: int, key: Any) -> tuple:
    """The arguments of `_test` for batches of a size."""
    return network, learning, data, *in_order(len(data), size), key


@Shared
def _test(network, learning, data, order, real, key):
    def one(batch):
        places, real, number = batch
        here = data.at(places)
        answer = learning.infer(network, here.x, None if key is None else jax.random.fold_in(key, number))
        lost = ~finite(answer.state)
        scores = _scores(answer, here.y) | {"lost": lost.astype(jnp.float32)}
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
        return [answers] if isinstance(answers, jax.Array) else list(answers.values()), finite(state)

    return jax.lax.map(one, (jnp.asarray(order), jnp.arange(len(order))))
