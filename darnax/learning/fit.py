"""Training, evaluation and prediction on data."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from tqdm.auto import tqdm

from darnax import checks, files
from darnax.dynamics import Solution
from darnax.learning.data import Data, batches_of, in_order, is_batches, shuffled
from darnax.learning.history import History
from darnax.learning.phases import Learning, Targets, finite
from darnax.learning.updates import check_rules
from darnax.network.build import as_key
from darnax.network.network import Network, partition
from darnax.topologies.topology import Topology

Callback = Callable[[Network, History], Any]


def fit(
    network: Network,
    learning: Any,
    optimiser: Any,
    x: Any,
    y: Any = None,
    *,
    epochs: Any,
    batch_size: Any = 32,
    key: Any,
    validation: Any = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Any = None,
    progress: bool = True,
) -> tuple[Network, History]:
    """Train a network on data.

    Every epoch goes once through the data in a fresh order, as one compiled scan over batches. A last batch that is
    short is filled up with samples that do not count, so that there is but one program. Samples in which the dynamics
    leave the finite numbers teach nothing; their share is the score `lost`, and a warning says so.

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
      it, and ends with the very bits it would have ended with, had it never stopped.
    - `progress`: whether to show a bar.

    **Returns:** the trained network and a `History`.

    Raises `ValueError` or `TypeError` for rules, phases or data that do not fit the network, empty data, or a
    checkpoint of another network or run.

    !!! example

        ```python
        learning = dx.DynamicalLearning({"forward": dx.perceptron(0.5)})
        y = dx.one_vs_all(jnp.arange(32) % 10, 10)
        trained, history = dx.fit(network, learning, optax.sgd(0.1), x, y, epochs=2, key=key, progress=False)
        ```
    """
    check_learning(network, learning)
    key, topology = as_key(key), network.topology
    data = None if y is None and is_batches(x) else Data.of(topology, x, y)
    tests = None if validation is None else Data.of(topology, *validation)
    size = 0 if data is None else min(checks.count("batch_size", batch_size, 1), len(data))
    if data is not None:
        check_signs(network, learning, data)
    params, rest = partition(network, learning.rules)
    memory, history = optimiser.init(params), History()
    facts = _facts(topology, key, data, size)
    epochs, ended = checks.count("epochs", epochs, 0), False
    if checkpoint is not None and Path(checkpoint).exists():
        (params, memory), history, ended = _resume(checkpoint, (params, memory), facts)
    bar = tqdm(range(len(history), epochs), initial=len(history), total=epochs, disable=not progress, unit="epoch")
    for epoch in bar:
        if ended:
            break
        own, sums, count = jax.random.fold_in(key, epoch), {}, 0
        for number, part in enumerate(batches_of(topology, x, epoch) if data is None else [data]):
            if data is None:
                check_signs(network, learning, part)
            order, real = shuffled(len(part), size or len(part), jax.random.fold_in(own, 2 * number))
            noise = jax.random.fold_in(own, 2 * number + 1)
            params, memory, scores = _train(params, rest, memory, optimiser, learning, part, order, real, noise)
            count += len(part)
            sums = {name: sums.get(name, 0.0) + float(value) for name, value in scores.items()}
        row, now = {name: value / count for name, value in sums.items()}, eqx.combine(params, rest)
        _warn_of_lost(row["lost"], epoch)
        if tests is not None:
            scores = _evaluate(now, learning, tests, min(len(tests), 256), own)
            row |= {f"validation {name}": value for name, value in scores.items()}
        history = History([*history.rows, row])
        bar.set_postfix({name: f"{value:.3f}" for name, value in row.items() if name.endswith("accuracy")})
        ended = True in [callback(now, history) for callback in callbacks]
        if checkpoint is not None:
            files.save_arrays(checkpoint, (params, memory), facts | {"history": history.rows, "ended": ended})
    return eqx.combine(params, rest), history


def _warn_of_lost(share: float, epoch: int):
    if share > 0:
        warnings.warn(
            f"epoch {epoch + 1}: {share:.2%} of the samples are not finite, in the data or after relaxing; "
            "they taught nothing",
            stacklevel=3,
        )


def evaluate(
    network: Network, learning: Learning, x: Any, y: Any, *, batch_size: int = 256, key: Any = None
) -> dict[str, float]:
    """Means over data of what inference gives: `accuracy`, `settled`, `steps`, and the share of samples `lost`.

    Arguments as for `fit`. A sample is accurate if the largest unit of an output is that of its target; for an output
    of a single unit, or with space, the score is the share of units that have the sign of their target.
    """
    learning.check(network.topology)
    data = Data.of(network.topology, x, y)
    return _evaluate(network, learning, data, min(len(data), batch_size), None if key is None else as_key(key))


def predict(network: Network, learning: Learning, x: Any, *, batch_size: int = 256, key: Any = None) -> Any:
    """What inference answers: the read-out for all of `x`, an array `(n, *shape)` or a mapping for several outputs."""
    learning.check(network.topology)
    data = Data.of(network.topology, x, {})
    size = min(len(data), batch_size)
    order, _ = in_order(len(data), size)
    key = None if key is None else as_key(key)
    answers = _infer(network, learning, data.x, order, key)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: len(data)], answers)


def early_stopping(score: str, patience: int, larger: bool = True) -> Callback:
    """A callback that ends training when a score has not been better for `patience` epochs.

    It looks at the history alone, so that a run that was resumed ends where one that never stopped does.

    !!! example

        ```python
        callbacks = [dx.early_stopping("validation accuracy", patience=5)]
        ```
    """

    def callback(network: Network, history: History) -> bool:
        values = history[score] if larger else -history[score]
        return len(values) - 1 - int(np.nanargmax(values)) >= patience

    return callback


def check_learning(network: Network, learning: Any):
    """Rules and phases are of this network."""
    if not isinstance(learning, Learning):
        raise TypeError(f"`learning` is a way to teach such as dx.DynamicalLearning(rules), but got {learning!r}")
    learning.check(network.topology)
    if not check_rules(network, learning.rules):
        raise ValueError("`rules` is empty, and nothing would learn; give a rule to at least one edge kind")


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


@eqx.filter_jit
def _train(params, rest, memory, optimiser, learning, data, order, real, key):
    """An update for each batch; sums of scores over the real samples."""

    def learn(now, batch):
        params, memory = now
        places, real, number = batch
        x, y = (jax.tree.map(lambda a: a[places], part) for part in (data.x, data.y))
        noise = jax.random.fold_in(key, number)
        updates, answer, scores = learning.updates(eqx.combine(params, rest), x, y, real, noise)
        steps, memory = optimiser.update(updates, memory, params)
        scores = scores | _scores(answer, y)
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
    return scores | ({"accuracy": jnp.mean(jnp.stack(told), axis=0)} if told else {})


def agreement(answer: Float[Array, "batch ..."], target: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """1 where the largest unit is the right one; for a single unit or with space the share of right signs."""
    if answer.ndim == 2 and answer.shape[1] > 1:
        return (answer.argmax(-1) == target.argmax(-1)).astype(jnp.float32)
    same = (answer >= 0) == (target >= 0)
    return jnp.mean(same.reshape(len(same), -1).astype(jnp.float32), axis=1)


def _evaluate(network, learning, data, size, key) -> dict[str, float]:
    order, real = in_order(len(data), size)
    sums = _test(network, learning, data, order, real, key)
    return {name: float(value) / len(data) for name, value in sums.items()}


@eqx.filter_jit
def _test(network, learning, data, order, real, key):
    def one(batch):
        places, real, number = batch
        x, y = (jax.tree.map(lambda a: a[places], part) for part in (data.x, data.y))
        answer = learning.infer(network, x, None if key is None else jax.random.fold_in(key, number))
        lost = ~finite(answer.state)
        scores = _scores(answer, y) | {"lost": lost.astype(jnp.float32)}
        return {name: jnp.sum(jnp.where(real, value, 0)) for name, value in scores.items()}

    sums = jax.lax.map(one, (jnp.asarray(order), jnp.asarray(real), jnp.arange(len(order))))
    return jax.tree.map(jnp.sum, sums)


@eqx.filter_jit
def _infer(network, learning, x, order, key):
    def one(batch):
        places, number = batch
        own = None if key is None else jax.random.fold_in(key, number)
        return learning.infer(network, jax.tree.map(lambda a: a[places], x), own).state.readout

    return jax.lax.map(one, (jnp.asarray(order), jnp.arange(len(order))))


def _facts(topology: Topology, key: Any, data: Data | None, batch_size: int) -> dict[str, Any]:
    """What a checkpoint must agree with for a run to go on from it."""
    return {
        "nodes": len(topology.nodes),
        "edges": len(topology.columns.senders),
        "arrays": {name: list(spec.shape) for name, spec in topology.arrays.items()},
        "edge kinds": list(topology.edge_kinds),
        "digest of the topology": topology.digest.hex(),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "samples": None if data is None else len(data),
        "batch_size": batch_size,
    }


def _resume(path: Any, like: Any, facts: dict[str, Any]) -> tuple[Any, History, bool]:
    """Parameters and memory of the optimiser, the history up to them, and whether a callback ended the run."""
    there = files.load_facts(path)
    differing = [
        f"{name} ({there.get(name)} there, {value} here)" for name, value in facts.items() if there.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"`checkpoint` {str(path)!r} is of another run: {'; '.join(differing)}; give another path, or the same run"
        )
    return files.load_arrays(path, like), History(there["history"]), there["ended"]
