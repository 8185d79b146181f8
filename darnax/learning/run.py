"""What a training run is made of, and the file from which it goes on.

A checkpoint belongs to a run: to its network, rules, optimiser, data and random numbers. Going on
with others gives numbers that no run from the start ever gives, and nobody would notice. So a
checkpoint keeps facts about all of these. Functions cannot be compared, but what they compute can:
facts about them are digests of traced programs.
"""

from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from darnax import _text, checks, files
from darnax.learning.data import Data
from darnax.learning.history import History
from darnax.learning.program import fingerprint
from darnax.learning.teaching import Learning
from darnax.network.network import Network
from darnax.topologies.topology import Topology

TRACED = {
    "learning": "the rules, the phases, or the functions of the network",
    "optimiser": "the optimiser or its rates",
    "start": "the couplings and biases that it started from",
    "frozen": "the parameters that no rule trains",
}
"""Facts that are digests, and of what; a message cannot show more of them."""
MAY_DIFFER = (*TRACED, "data", "validation", "batch_size", "key")
"""Facts that a user may let differ."""


class Progress(NamedTuple):
    """How far a run is: after the last whole epoch, so that all of these belong together."""

    params: Network
    memory: Any
    history: History
    ended: bool = False


class Checkpoint:
    """The file of a run.

    **Arguments:**

    - `path`: where it is.
    - `facts`: those of the run, from `facts_of`.
    - `may_differ`: names of facts that need not be those of the file.
    """

    def __init__(self, path: Path, facts: dict[str, Any], may_differ: tuple[str, ...]):
        self.path, self.facts, self.may_differ = path, facts, may_differ

    def resume(self, start: Progress) -> Progress:
        """The progress that the file holds; `start` if there is none yet.

        Raises `ValueError` saying how the file's run differs from this one.
        """
        if not self.path.exists():
            return start
        saved = files.read(self.path)
        there = saved.facts
        self._check(there, files.digest(start.params))
        params, memory = saved.into((start.params, start.memory))
        return Progress(params, memory, History(there["history"]), there["ended"])

    def save(self, now: Progress):
        """Write where the run is."""
        progress = {
            "history": now.history.rows,
            "ended": now.ended,
            "reached": files.digest(now.params),
        }
        files.save_arrays(self.path, (now.params, now.memory), self.facts | progress)

    def _check(self, there: dict[str, Any], start: str):
        """The facts of the file are those of this run, but for those that may differ."""
        wrong = [name for name, fact in self.facts["run"].items() if there["run"].get(name) != fact]
        wrong = [name for name in wrong if name not in self.may_differ]
        if "start" in wrong and there["reached"] == start:
            # whoever hands in what the run has come to wants to go on with it; it is still the run
            # that it was
            wrong.remove("start")
            self.facts["run"]["start"] = there["run"]["start"]
        if not wrong:
            return
        allowed = [name for name in wrong if name in MAY_DIFFER]
        advice = "give another path, or the same run"
        if allowed == wrong:
            advice += f", or say that it is meant: may_differ={allowed}"
        words = [self._difference(name, there) for name in wrong]
        raise ValueError(
            f"`checkpoint` {str(self.path)!r} is of another run: {'; '.join(words)}; {advice}"
        )

    def _difference(self, name: str, there: dict[str, Any]) -> str:
        """How a fact differs, in words."""
        before, now = there["run"].get(name), self.facts["run"][name]
        if name not in TRACED:
            return f"{name} ({before} there, {now} here)"
        words = f"{name} ({TRACED[name]})"
        if name == "learning" and there["rules"] != self.facts["rules"]:
            words = f"{name} (the rules {there['rules']} there, {self.facts['rules']} here)"
        if name in ("learning", "optimiser") and there["versions"] != self.facts["versions"]:
            versions = f"{there['versions']} there, {self.facts['versions']} here"
            words += f", or other releases, which trace the same functions otherwise: {versions}"
        return words


class Run(NamedTuple):
    """All that decides the numbers of a run; `data` is None for an iterable of batches."""

    network: Network
    learning: Learning
    optimiser: Any
    data: Data | None
    validation: Data | None
    batch_size: int
    key: Any


def facts_of(run: Run, start: Progress, frozen: Network) -> dict[str, Any]:
    """What a checkpoint keeps of a run, in the words of JSON."""
    topology = run.network.topology
    example = _example(topology, run.data)
    lesson = fingerprint(_lesson, start.params, frozen, run.learning, example, run.key)
    steps = fingerprint(run.optimiser.update, start.params, start.memory, start.params)
    # some optimisers keep their rates in their memory; zeros, since it may hold the parameters as
    # well
    rates = run.optimiser.init(jax.tree.map(jnp.zeros_like, start.params))
    decisive = {
        "nodes": len(topology.nodes),
        "edges": len(topology.columns.senders),
        "arrays": {name: list(spec.shape) for name, spec in topology.arrays.items()},
        "edge kinds": list(topology.edge_kinds),
        "digest of the topology": topology.digest.hex(),
        "batch_size": run.batch_size,
        "key": np.asarray(jax.random.key_data(run.key)).tolist(),
        "data": "an iterable of batches" if run.data is None else _told(run.data),
        "validation": None if run.validation is None else _told(run.validation),
        # arrays are not part of a traced program: it takes them as arguments
        "learning": lesson + files.digest(run.learning),
        "optimiser": steps + files.digest((run.optimiser, rates)),
        "start": files.digest(start.params),
        "frozen": files.digest((frozen.couplings, frozen.activations, frozen.biases)),
    }
    rules = {kind: checks.came(rule) for kind, rule in run.learning.rules.items()}
    return {"run": decisive, "rules": rules, "versions": _versions()}


def check_may_differ(may_differ: Any) -> tuple[str, ...]:
    """The names of facts."""
    names = checks.names("may_differ", may_differ)
    unknown = [name for name in names if name not in MAY_DIFFER]
    if unknown:
        raise ValueError(
            f"`may_differ` names {_text.names(unknown)}, which is no fact of a run that can; there "
            f"are {_text.names(MAY_DIFFER)}"
        )
    return names


def _lesson(params: Network, rest: Network, learning: Learning, data: Data, key: Any) -> Any:
    """What one batch teaches."""
    everyone = jnp.ones(len(data), bool)
    return learning.updates(eqx.combine(params, rest), data.x, data.y, everyone, key)


def _example(topology: Topology, data: Data | None) -> Data:
    """Two samples such as those of a run: what is done to a sample does not depend on how many
    there are.
    """
    if data is not None:
        return data.at(np.array([0, 0]))
    zeros = [
        {
            node: np.zeros(
                (2, *topology.shape(node)), topology.node_class(topology.index(node)).dtype
            )
            for node in nodes
        }
        for nodes in (topology.inputs or topology.nodes[:1], topology.outputs)
    ]
    return Data.of(topology, *zeros)


def _told(data: Data) -> str:
    return (
        f"{len(data)} samples for {_text.names(data.nodes[0] + data.nodes[1])}, digest "
        f"{files.digest(data)}"
    )


def _versions() -> dict[str, str | None]:
    """The releases that decide how a function is traced."""
    versions: dict[str, str | None] = {}
    for package in ("darnax", "jax", "equinox", "optax"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # optax need not be there
            versions[package] = None
    return versions
