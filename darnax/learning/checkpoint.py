"""Checkpoints: the file from which a training run goes on, bit for bit as if it had never stopped.

After every epoch the file holds the progress of the run: the trained parameters, the memory of the
optimiser, and the history. Random numbers need not be kept: those of an epoch follow from the key
of the run and the number of the epoch.

The same bits come out only if everything else is the same as well: the network, the rules, the
optimiser, the data. Going on with others gives numbers that no run from the start ever gives, and
they would look like any others. So the file also holds facts about all of these, and a run with
other facts is refused. Functions cannot be compared, but what they compute can: facts about them
are digests of traced programs (see `darnax.learning.program`). Arrays are arguments of programs and
no part of them, so their bits are digested too.
"""

from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from darnax import _text, checks
from darnax.files.container import opened
from darnax.files.leaves import digest, plain
from darnax.files.saving import Saved, save
from darnax.learning.program import fingerprint
from darnax.learning.run import Progress, Run, lesson
from darnax.learning.teaching import LocalLearning

MayDiffer: TypeAlias = Literal[
    "learning",
    "optimiser",
    "start",
    "frozen",
    "data",
    "validation",
    "batch_size",
    "key",
]
"""A fact of a run that a user may let differ."""

# facts of the topology are not among them: the arrays of another one need not fit the network
MAY_DIFFER = get_args(MayDiffer)

DIGESTS = {
    "learning": "the rules, the phases, the loss, or the functions of the network",
    "optimiser": "the optimiser or its rates",
    "start": "the couplings and biases that it started from, or the memory of the optimiser",
    "frozen": "the parameters that no rule trains",
}
"""Facts that are digests, and what of; a message cannot show more of them."""

Facts: TypeAlias = dict[str, Any]
"""Facts by name, in values that JSON has: numbers, text, lists and dicts of these."""


# no `OSError`: one of a callback, or of an iterable of data, must not pass for a failed save
class NotSaved(Exception):
    """A checkpoint that could be written before, and cannot be any more."""


class Checkpoint:
    """The file of a run.

    **Arguments:**

    - `path`: of the file.
    - `may_differ`: names of facts that need not be those of the file.
    - `run`, `start`: a run and the progress that it starts from.
    """

    def __init__(
        self,
        path: Path,
        may_differ: tuple[str, ...],
        run: Run,
        start: Progress,
    ):
        self.path = path
        self.may_differ = may_differ
        self.start = start
        self.facts = _facts(run, start)

    def resume(self) -> Progress:
        """The progress that the file holds; that of the start if there is no file yet.

        Raises `ValueError` saying how the file's run differs from this one.
        """
        if not self.path.exists():
            return self.start
        with opened(self.path) as container:
            saved = Saved(container)
            if not isinstance(saved.facts, dict) or "reached" not in saved.facts:
                # whatever it is, it must not be overwritten
                raise ValueError(
                    f"`checkpoint` {str(self.path)!r} is a file of darnax, but not of a run; give "
                    "another path"
                )
            self._check(saved.facts)
            now, _ = saved.into(_tree(self.start))
        return Progress(now["network"], now["memory"], now["history"], saved.facts["ended"])

    def save(self, now: Progress):
        """Write where the run is; `NotSaved` if that is not possible any more."""
        # arrays and facts go into one file, which is replaced at once: they never disagree
        facts = self.facts | {
            "ended": now.ended,
            "reached": digest(now.params),
        }
        try:
            save(self.path, _tree(now), facts)
        except OSError as error:
            raise NotSaved(error) from error

    def _check(self, there: Facts):
        """Raise `ValueError` for facts that differ between the file and this run, and may not."""
        here = self.facts["run"]
        if there["reached"] == here["start"]:
            # a network that came out of the run was handed in to go on with it, as where a cell of
            # a notebook is run twice: it is still the run that started elsewhere
            here["start"] = there["run"]["start"]
        wrong: list[str] = []
        for name, value in here.items():
            if there["run"].get(name) != value and name not in self.may_differ:
                wrong.append(name)
        if not wrong:
            return
        advice = "give another path, or the same run"
        if set(wrong) <= set(MAY_DIFFER):
            advice += f", or say that it is meant: may_differ={wrong}"
        differences = "; ".join([self._difference(name, there) for name in wrong])
        raise ValueError(
            f"`checkpoint` {str(self.path)!r} is of another run: {differences}; {advice}"
        )

    def _difference(self, name: str, there: Facts) -> str:
        """The difference of a fact between the file and this run, in words."""
        here = self.facts
        if name not in DIGESTS:
            return f"{name} ({there['run'].get(name)} there, {here['run'][name]} here)"
        words = f"{name} ({DIGESTS[name]})"
        # the same rules in words may still be other functions: a lambda is called just that
        if name == "learning" and there["rules"] != here["rules"]:
            words = f"{name} (the rules {there['rules']} there, {here['rules']} here)"
        if name in ("learning", "optimiser") and there["versions"] != here["versions"]:
            words += (
                ", or other releases, which trace the same functions otherwise: "
                f"{there['versions']} there, {here['versions']} here"
            )
        return words


def _tree(progress: Progress) -> dict[str, Any]:
    """What a checkpoint has of a progress, under the names that `dx.load` finds it by."""
    return {
        "network": progress.params,
        "memory": progress.memory,
        "history": progress.history,
    }


def check_may_differ(may_differ: object) -> tuple[str, ...]:
    """The names of facts; `ValueError` for others."""
    names = checks.names("may_differ", may_differ)
    unknown = [name for name in names if name not in MAY_DIFFER]
    if unknown:
        raise ValueError(
            f"`may_differ` names {_text.names(unknown)}, which is no fact of a run that can; there "
            f"are {_text.names(MAY_DIFFER)}"
        )
    return names


def _facts(run: Run, start: Progress) -> Facts:
    """The facts that a checkpoint keeps of a run."""
    frozen = run.frozen
    topology = frozen.topology
    # the size of a batch is a fact of its own: the digest of a lesson must not depend on it
    example = run.data.example()
    everyone = jnp.ones(len(example), bool)
    network = run.network(start)
    taught = fingerprint(lesson, network, run.learning, example, everyone, run.key)
    steps = fingerprint(run.optimiser.update, start.params, start.memory, start.params)
    # some optimisers keep their rates in their memory; it may hold the parameters as well, which
    # are a fact of their own: here they are zeros
    zeros = jax.tree.map(jnp.zeros_like, start.params)
    rates = run.optimiser.init(zeros)
    validation = None if run.validation is None else run.validation.described()
    decisive = {
        # the digest decides; the others say in words how a topology differs. Lists and not tuples:
        # they are compared with what JSON gives back
        "nodes": len(topology.nodes),
        "edges": len(topology.columns.senders),
        "arrays": {name: list(spec.shape) for name, spec in topology.arrays.items()},
        "edge kinds": list(topology.edge_kinds),
        "digest of the topology": topology.digest.hex(),
        "batch_size": run.batch_size,
        "key": plain(run.key).tolist(),
        "data": run.data.described(),
        "validation": validation,
        "learning": taught + digest(run.learning),
        "optimiser": steps + digest((run.optimiser, rates)),
        "start": digest(_begun(run, start)),
        "frozen": digest((frozen.couplings, frozen.activations, frozen.biases)),
    }
    # these two are not compared: they only help to say why digests differ
    return {"run": decisive, "rules": _rules_in_words(run), "versions": _versions()}


def _rules_in_words(run: Run) -> dict[str, str]:
    """What a run teaches every edge kind by: its local rule, or the class of its learning."""
    teacher = type(run.learning).__name__
    words = dict.fromkeys(run.learning.trained, teacher)
    if isinstance(run.learning, LocalLearning):
        for kind, rule in run.learning.rules.items():
            words[kind] = checks.came(rule)
    return words


def _begun(run: Run, start: Progress) -> object:
    """What a run started from: the weights, and a memory that is not just that of the optimiser."""
    fresh = run.optimiser.init(start.params)  # pyright: ignore[reportArgumentType]
    if digest(fresh) == digest(start.memory):
        return start.params
    return start.params, start.memory


def _versions() -> dict[str, str | None]:
    """The releases that decide how a function is traced."""
    versions: dict[str, str | None] = {}
    for package in ("darnax", "jax", "equinox", "optax"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # optax need not be there
            versions[package] = None
    return versions
