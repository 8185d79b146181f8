"""Training on data."""

import inspect
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from jaxtyping import Array, Key

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.files.leaves import is_array, shape, type_name
from darnax.files.writing import FilePath, as_path, check_writable
from darnax.learning.callbacks import Callback, as_callbacks, ask, early_stops
from darnax.learning.checkpoint import Checkpoint, MayDiffer, NotSaved, check_may_differ
from darnax.learning.data import Batches, Data, Dataset, is_batches, pair
from darnax.learning.evaluate import check_learning, one_key
from darnax.learning.history import History
from darnax.learning.rules import Rules
from darnax.learning.run import Progress, Run
from darnax.learning.teaching import Learning, LocalLearning
from darnax.learning.updates import check_rules, check_trained
from darnax.network.network import Network, partition

if TYPE_CHECKING:
    import optax


@any_rank
@checks.by_hand
def fit(
    network: Network,
    learning: Learning,
    optimiser: "optax.GradientTransformation",
    x: Data | Iterable[tuple[Data, Data]],
    y: Data | None = None,
    *,
    epochs: int,
    batch_size: int = 32,
    key: Key[Array, "..."],
    validation: tuple[Data, Data] | None = None,
    callbacks: Iterable[Callback] = (),
    checkpoint: FilePath | None = None,
    may_differ: Iterable[MayDiffer] = (),
    memory: object = None,
    progress: bool = True,
) -> tuple[Network, History]:
    """Training of a network on data, epoch after epoch.

    Every epoch goes once through the data in a fresh order, as one compiled scan over batches. The
    last batch is filled up with samples that do not count, so that one program serves all batches.
    Samples in which the dynamics leave the finite numbers teach nothing; their share is the score
    `lost`, and a warning says so.

    Ctrl-C, or a checkpoint that cannot be written any more, ends the training with a warning, and
    what was learnt until then is returned.

    **Arguments:**

    - `network`: the network to start from.
    - `learning`: a way to teach, such as `dx.DynamicalLearning(rules)`: with another one in its
      place, the same network learns by another teacher.
    - `optimiser`: a transformation of optax, such as `optax.sgd(0.1)`.
    - `x`, `y`: arrays `(n, *shape)` for the only input and output, or mappings from nodes to such.
      Or `x` alone: an iterable of batches `(x, y)`, gone through anew every epoch; every size of
      batch is compiled once.
    - `epochs`: the number of epochs in all, those before a resumption included.
    - `batch_size`: the number of samples that an update averages over; for arrays.
    - `key`: one key, for the order of samples and the noise of the dynamics.
    - `validation`: `(x, y)` to evaluate after every epoch.
    - `callbacks`: functions `(network, history)` called after every epoch; one that returns True
      ends the training.
    - `checkpoint`: the path of a file that is written after every epoch. If it is there already,
      training goes on from it, and ends with the very bits it would have ended with, had it never
      stopped. It must be of the same run: of the same network, learning, optimiser, arrays,
      `batch_size` and `key`. Batches of an iterable are not compared.
    - `may_differ`: facts in which the run of the checkpoint may differ from this one, some of
      `"learning"`, `"optimiser"`, `"start"`, `"frozen"`, `"data"`, `"validation"`, `"batch_size"`
      and `"key"`.
    - `memory`: the memory of the optimiser to start with, such as one that was carried over from
      another topology; by default that of `optimiser.init`.
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
    # arguments first, all of them: nothing is traced, written or trained before they are right
    check_learning(network, learning)
    topology = network.topology
    rules: Rules = {}
    if isinstance(learning, LocalLearning):
        rules = check_rules(network, learning.rules)
    # a way to teach of the user's own may name anything
    kinds = checks.names("trained", learning.trained)
    trained = check_trained(network, dict.fromkeys(kinds), "trained")
    if not trained:
        raise ValueError(
            "`learning` trains no edge kind, and nothing would learn; give a rule to at least one"
        )
    check_optimiser(optimiser)
    callbacks = as_callbacks(callbacks)
    progress = checks.flag("progress", progress)
    epochs = checks.count("epochs", epochs)
    batch_size = checks.count("batch_size", batch_size, 1)
    key = one_key(key)
    differing = check_may_differ(may_differ)
    if y is None and is_batches(x):
        data = Batches(topology, rules, x)
        # every batch is one update, whatever its size
        size = None
    else:
        data = Dataset.of(topology, x, y, rules)
        # few data are one small batch, and not a large one that is mostly filled up
        size = min(batch_size, len(data))
    held_out = None
    if validation is not None:
        # without the rules: nothing is learnt from these targets, so they may hold zeros
        inputs, targets = pair("validation", validation, "a pair")
        held_out = Dataset.of(topology, inputs, targets)
    path = None
    if checkpoint is not None:
        path = as_path("checkpoint", checkpoint)
        # a path that cannot be written is better found now than after the first epoch
        check_writable("checkpoint", path)

    # what is trained, and what an optimiser never sees
    params, frozen = partition(network, trained)
    # optax takes any pytree, though its types do not say so
    fresh = optimiser.init(params)  # pyright: ignore[reportArgumentType]
    memory = fresh if memory is None else _check_memory(memory, fresh)
    run = Run(frozen, learning, optimiser, data, held_out, size, key)
    start = Progress(params, memory, History())
    end = _train(run, start, epochs, callbacks, path, differing, progress)
    return run.network(end), end.history


def _train(
    run: Run,
    now: Progress,
    epochs: int,
    callbacks: Sequence[Callback],
    path: Path | None,
    may_differ: tuple[str, ...],
    show: bool,
) -> Progress:
    """The progress after the last epoch, or after the one in which the training was ended."""
    # imported here, so that `import darnax` stays quick
    from tqdm.auto import tqdm

    checkpoint = None
    # whatever was learnt in whole epochs is kept, also where tracing or a callback is interrupted
    try:
        if path is not None:
            checkpoint = Checkpoint(path, may_differ, run, now)
            now = checkpoint.resume()
        if now.ended:
            # the callbacks that ended the run may have been left out by now
            now = _asked(run, now, callbacks)
        # `epochs` counts those before a resumption as well; there may be none left
        done = len(now.history)
        left = range(done, epochs)
        stops = early_stops(callbacks)
        with tqdm(left, initial=done, total=epochs, disable=not show, unit="epoch") as bar:
            for _ in bar:
                if now.ended:
                    break
                now = run.epoch(now, stops)
                stops = []  # all epochs have the same scores: once is enough
                bar.set_postfix(_accuracies(now.history))
                _warn_of_lost(now.history)
                now = _asked(run, now, callbacks)
                # saved after the callbacks were asked, since whether they ended the run is saved
                if checkpoint is not None:
                    checkpoint.save(now)
    except (KeyboardInterrupt, NotSaved) as stop:
        # Ctrl-C has no text, a failed save tells of the disk
        reason = f": {stop}" if str(stop) else ""
        done = len(now.history)
        reached = f"after epoch {done}" if done else "given"
        warnings.warn(
            f"training was interrupted{reason}; the network is as it was {reached}",
            # past `fit` and its wrapper, to the line that called `fit`
            stacklevel=4,
        )
    return now


def _asked(run: Run, now: Progress, callbacks: Sequence[Callback]) -> Progress:
    """The same progress, ended if any callback says so."""
    return now._replace(ended=ask(callbacks, run.network(now), now.history))


def _accuracies(history: History) -> dict[str, float]:
    """The accuracies of the last epoch, by name: of training, and of validation if there is one."""
    row = history[-1]
    return {name: row[name] for name in row if name.endswith("accuracy")}


def _warn_of_lost(history: History):
    """Warn of samples that were lost in the last epoch."""
    lost = history[-1]["lost"]
    if lost > 0:
        warnings.warn(
            f"epoch {len(history)}: {lost:.2%} of the samples are not finite, in the data or after "
            "relaxing; they taught nothing",
            # as in `_train`, from one function deeper
            stacklevel=5,
        )


def _check_memory(memory: object, fresh: object) -> object:
    """`memory`, which is as the optimiser makes it for what is trained here."""
    wanted, came = _forms(fresh), _forms(memory)
    wrong: list[str] = []
    for name in {**wanted, **came}:
        if wanted.get(name) != came.get(name):
            there, here = came.get(name, "missing"), wanted.get(name, "not there")
            wrong.append(f"{name or 'it'} is {there}, and to the optimiser {here}")
    if wrong or jax.tree.structure(memory) != jax.tree.structure(fresh):
        differences = f": {_text.listing(wrong)}" if wrong else ""
        raise ValueError(
            "`memory` is not that of this optimiser for what the rules train in this network"
            f"{differences}; start from optimiser.init(params), and carry over into it"
        )
    return memory


def _forms(tree: object) -> dict[str, str]:
    """Type and shape of every leaf, by its path."""
    forms: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        form = type_name(leaf)
        if is_array(leaf):
            form += str(shape(leaf))
        forms[jax.tree_util.keystr(path)] = form
    return forms


def check_optimiser(optimiser: object):
    """Raise `TypeError` for what is no gradient transformation of optax."""
    # by its methods and not by its class: any object with these two will do
    parts = [callable(getattr(optimiser, name, None)) for name in ("init", "update")]
    # a class has them as well, but they cannot be called without an instance
    if inspect.isclass(optimiser) or not all(parts):
        advice = "call it with its rate" if callable(optimiser) else "give one made by optax"
        checks.refuse(
            "optimiser", "a transformation of optax such as optax.sgd(0.1)", optimiser, advice
        )
