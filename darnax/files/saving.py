"""Saving pytrees to files, loading them, and carrying their numbers over to others.

**What a file says.** Every leaf is one array of the file under its path in the tree, so that other
programs find it. Its texts tell to which piece and stack a leaf belongs (see `pieces`), which array
has the positions of the edges or nodes that its rows are of, and the topologies that have their
names: JSON for each, whose long columns are arrays of the file as well. Rows are named like this,
and not counted, because their order inside of a leaf is the library's to choose.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args, overload

import jax.numpy as jnp
import numpy as np

from darnax import _text, checks
from darnax.files import leaves
from darnax.files.carrying import Carryover, Outcome, Renamed, plan
from darnax.files.container import MALFORMED, Container, opened, write
from darnax.files.pieces import Leaf, Piece, Stack, Things, Tree
from darnax.files.writing import FilePath, as_path
from darnax.topologies import serial
from darnax.topologies.names import Name
from darnax.topologies.tables import Columns

T = TypeVar("T")
"""Any pytree."""


@checks.by_hand
def save(path: FilePath, tree: object, facts: object = None):
    """Save a pytree in one file: networks, states, solutions, histories, the memory of optimisers.

    Saved are arrays, numbers, texts, and objects that have `to_json` and `from_json`, such as a
    `History`. Of a network these are its couplings, biases and activations, and its topology with
    them: what follows from a topology is made anew. Functions and classes are not saved. They are
    those of the tree that the file is loaded into, and nothing in a file is ever run.

    The file is one of safetensors, with a digest over every byte. It is written beside its path and
    then takes its place at once: an interrupted save leaves the old one as it was. A file that is
    replaced keeps its mode, and a symbolic link stays one. Parts that killed writers left behind
    are removed.

    **Arguments:**

    - `path`: of the file, in a folder that exists.
    - `tree`: any pytree, such as a network or a dict of several things.
    - `facts`: any value that JSON can express; `dx.files.load_facts` gives it as JSON has it,
      tuples as lists and the keys of dicts as text.

    Raises `OSError` that names the path if it cannot be written; an old file is then as it was.
    Raises `TypeError` for facts that JSON cannot express, and for leaves that are traced or hold no
    numbers.

    !!! example

        ```python
        path = tempfile.mkdtemp() + "/run.safetensors"
        dx.save(path, {"network": network, "memory": memory, "epoch": 3})
        saved = dx.load(path, like={"network": network, "memory": memory, "epoch": 0})
        saved["epoch"]  # 3
        ```
    """
    path = as_path("path", path)
    said = leaves.as_json("facts", facts)
    book = _Book()
    pieces = [book.of_piece(piece) for piece in Tree("tree", tree).pieces.values()]
    texts = {
        "facts": said,
        "topologies": json.dumps(list(book.topologies.values())),
        "tree": json.dumps(pieces),
    }
    write(path, book.arrays, texts)


@overload
def load(path: FilePath, like: T, *, renamed: Renamed | None = None) -> T: ...
@overload
def load(
    path: FilePath, like: T, *, strict: Literal[True], renamed: Renamed | None = None
) -> T: ...
@overload
def load(
    path: FilePath, like: T, *, strict: Literal[False], renamed: Renamed | None = None
) -> tuple[T, Carryover]: ...
@checks.by_hand
def load(
    path: FilePath, like: T, *, strict: bool = True, renamed: Renamed | None = None
) -> T | tuple[T, Carryover]:
    """The pytree `like` with the numbers from a file that `save` wrote.

    Numbers go by name: those of an edge to the edge of the same kind, ends and key, those of a node
    to the node of the same name, and other leaves to the same path in the tree. The order of
    drawing does not matter. With `strict=False` the topology may be another one, as after growth
    or pruning: what is there on both sides is carried over, and the rest of `like` stays as it is.

    **Arguments:**

    - `path`: of the file.
    - `like`: a pytree of what was saved: the networks and states whose numbers are replaced.
      Functions, topologies and devices are those of `like`.
    - `strict`: whether every number of the file must have its place in `like`, and every number
      of `like` be in the file.
    - `renamed`: the new names of nodes that had others in the file, `{"old": "new"}`.

    **Returns:** the tree; with `strict=False` the tree and a `Carryover`, which says what was
    carried over, what is new and what was dropped.

    Raises `OSError` for a file that cannot be read, and `ValueError` for one that is damaged or no
    file of darnax. With `strict`, another `ValueError` lists all that is missing, left over, or of
    another shape or type, before any array is taken over.

    !!! example

        ```python
        path = tempfile.mkdtemp() + "/network.safetensors"
        dx.save(path, network)
        graph.add_node("more", shape=50, kind="hidden")
        graph.add_edge("cortex", "more", kind="forward")
        topology = dx.Topology(graph, inputs=["eye"], outputs=["label"])
        couplings = {"forward": dx.dense(), "recurrent": dx.dense(self_coupling=1.0)}
        grown = dx.Network(topology, couplings, dx.sign, key=key)
        grown, carryover = dx.load(path, like=grown, strict=False)
        carryover.new  # {".couplings['forward']": (("cortex", "more"),)}
        ```
    """
    strict = checks.flag("strict", strict)
    with opened(path) as container:
        tree, carryover = Saved(container).into(like, strict=strict, renamed=renamed)
    return tree if strict else (tree, carryover)


@checks.by_hand
def carry(old: object, into: T, *, renamed: Renamed | None = None) -> tuple[T, Carryover]:
    """The pytree `into` with the numbers of `old`, by name, as `load` with `strict=False`.

    This is how a network that has learnt gets another topology: make a network on the new one, and
    carry over what it knows, together with the memory of its optimiser.

    **Arguments:**

    - `old`: the pytree that the numbers come from.
    - `into`: the pytree that they are for.
    - `renamed`: the new names of nodes that have others in `old`, `{"old": "new"}`.

    **Returns:** the tree and a `Carryover`, which says what was carried over, what is new and what
    was dropped.

    !!! example

        ```python
        graph.remove_node("spins")
        pruned = dx.Topology(graph, inputs=["eye"], outputs=["label"])
        couplings = {"forward": dx.dense(), "recurrent": dx.dense(self_coupling=1.0)}
        fresh = dx.Network(pruned, couplings, dx.sign, key=key)
        smaller, carryover = dx.carry(network, into=fresh)
        print(carryover)
        ```
    """
    tree = Tree("into", into)
    planned = plan(tree.pieces, Tree("old", old).pieces, renamed)
    planned.carry_out(tree)
    return tree.tree(), planned.carryover.without_numbers()


@checks.by_hand
def load_facts(path: FilePath) -> Any:
    """The facts in a file that `save` wrote; errors as for `load`."""
    with opened(path) as container:
        return Saved(container).facts


# writing


class _Book:
    """What is written: arrays by name, and what the texts say of them.

    **Fields:**

    - `topologies`: by digest, what is said of each, and `columns`, the names of its arrays.
    """

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}
        self.topologies: dict[str, dict[str, object]] = {}
        self._rows: dict[bytes, str] = {}

    def of_piece(self, piece: Piece) -> dict[str, object]:
        """What is said of a piece, whose arrays are kept."""
        stacks: list[object] = []
        for key, stack in piece.stacks.items():
            rows = None if stack.rows is None else self._name_of_rows(stack.rows)
            said = {inside: self._of_leaf(leaf) for inside, leaf in stack.leaves.items()}
            stacks.append({"name": key, "rows": rows, "leaves": said})
        digest = None
        if piece.wiring is not None:
            digest = piece.wiring.digest
            self._keep_topology(digest, piece.wiring.columns)
        return {
            "name": piece.name,
            "of": piece.of,
            "shape": piece.shape,
            "topology": digest,
            "stacks": stacks,
        }

    def _of_leaf(self, leaf: Leaf) -> dict[str, object]:
        said: dict[str, object] = {
            "name": leaf.name,
            "dtype": leaf.dtype,
            "shape": leaf.shape,
            "axis": leaf.axis,
        }
        value = leaf.read()
        if isinstance(value, np.ndarray):
            self.arrays[leaf.name] = leaves.bits(value)
        else:
            said["value"] = value
        return said

    def _name_of_rows(self, rows: np.ndarray) -> str:
        """The array of some positions, of which many leaves have the same."""
        data = rows.astype(np.int32)
        name = self._rows.setdefault(data.tobytes(), f"rows {len(self._rows)}")
        self.arrays[name] = data
        return name

    def _keep_topology(self, digest: str, columns: Columns):
        if digest in self.topologies:
            return
        head, long = serial.to_parts(columns)
        names: list[str] = []
        for i, column in enumerate(long):
            names.append(f"topology {len(self.topologies)} column {i}")
            self.arrays[names[-1]] = column
        self.topologies[digest] = {"head": head, "columns": names}


# reading


def _by_digest(said: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a file says of its topologies, by digest."""
    return {topology["head"]["digest"]: topology for topology in said}


class _SavedWiring(NamedTuple):
    """The wiring of a piece in a file, whose columns are read when they are asked for."""

    digest: str
    read: Callable[[str], Columns]

    @property
    def columns(self) -> Columns:
        return self.read(self.digest)


class Saved:
    """The contents of an open file.

    Raises `ValueError` if the file says of itself what no save has written.
    """

    def __init__(self, container: Container):
        self._container = container
        self._known: dict[str, Columns] = {}
        try:
            self.facts: Any = json.loads(container.texts["facts"])
            self._topologies = _by_digest(json.loads(container.texts["topologies"]))
            self._said: list[dict[str, Any]] = json.loads(container.texts["tree"])
        except MALFORMED as error:
            raise container.malformed(error) from None

    @checks.by_hand
    def into(
        self, like: T, *, strict: bool = True, renamed: Renamed | None = None
    ) -> tuple[T, Carryover]:
        """The pytree `like` with the numbers of the file, and what became of them; see `load`."""
        tree = Tree("like", like)
        try:
            pieces = self._pieces()
            planned = plan(tree.pieces, pieces, renamed)
            wrong: list[str] = []
            # to name what does not fit reads the file as well
            if strict:
                for outcome in planned.carryover.outcomes:
                    wrong.extend(_misfits(outcome))
        except _Malformed as error:
            raise self._container.malformed(error) from None
        if wrong:
            raise ValueError(
                f"`path` {str(self._container.path)!r} does not fit: {_text.listing(wrong)}; load "
                "it into what was saved, or carry over what fits with strict=False"
            )
        # only now, when it is known that they fit, are arrays read
        try:
            planned.carry_out(tree)
            carryover = planned.carryover.without_numbers()
        except (_Malformed, *MALFORMED) as error:
            raise self._container.malformed(error) from None
        return tree.tree(), carryover

    def _pieces(self) -> dict[str, Piece]:
        """The pieces by name, all checked; none of their arrays is read but positions of rows."""
        try:
            return {said["name"]: self._piece(said) for said in self._said}
        except MALFORMED as error:
            raise _Malformed(error) from error

    def _piece(self, said: dict[str, Any]) -> Piece:
        of, shape, digest = said["of"], tuple(said["shape"]), said["topology"]
        _require(of in (None, *get_args(Things)), f"rows of {of!r}")
        _require((digest is None) == (of in (None, "cells")), "rows without names")
        wiring = None
        if digest is not None:
            # edges and nodes are counted by their columns, which are not read for that
            long = self._topologies[digest]["columns"]
            count = self._container.entries[long[1 if of == "edges" else 0]].shape
            _require(shape == count, "another number of rows than its topology")
            wiring = _SavedWiring(digest, self._columns)
        stacks: dict[str, Stack] = {}
        for stack in said["stacks"]:
            rows = None if of is None else self._rows(stack["rows"], math.prod(shape))
            found = {inside: self._leaf(leaf, rows) for inside, leaf in stack["leaves"].items()}
            stacks[stack["name"]] = Stack(rows, found)
        return Piece(said["name"], of, shape, wiring, stacks)

    def _rows(self, name: str, count: int) -> np.ndarray:
        """The positions of rows, each once and all of them there."""
        _require(self._container.entries[name].dtype == np.int32, "rows that are no positions")
        rows = self._container.array(name)
        inside = (rows >= 0) & (rows < count)
        _require(rows.ndim == 1 and inside.all(), "rows that are not there")
        # sorted, since `np.unique` takes ten times as long
        _require((np.diff(np.sort(rows)) > 0).all(), "rows that come twice")
        return rows.astype(np.int64)

    def _leaf(self, said: dict[str, Any], rows: np.ndarray | None) -> Leaf:
        """A leaf, whose form is that of the array that the file has for it."""
        name, dtype, shape, axis = said["name"], said["dtype"], tuple(said["shape"]), said["axis"]
        _require((rows is None) == (axis is None), "an axis without rows")
        if rows is not None:
            _require(axis in range(len(shape)) and shape[axis] == len(rows), "other rows")
        if "value" in said:
            _require(shape == () and rows is None, "a value with a shape")
            return Leaf(name, dtype, shape, axis, lambda: said["value"])
        entry = self._container.entries[name]
        kind = np.dtype(np.uint32) if dtype.startswith("key<") else jnp.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        _require(entry.stop - entry.start == size, "another size than its array")

        def read() -> np.ndarray:
            return leaves.from_bits(self._container.array(name), kind, shape)

        return Leaf(name, dtype, shape, axis, read)

    def _columns(self, digest: str) -> Columns:
        """The columns of a topology, checked as a drawing is."""
        if digest not in self._known:
            said = self._topologies[digest]
            try:
                long = [self._container.array(name) for name in said["columns"]]
                self._known[digest] = serial.from_parts(said["head"], long)
            except MALFORMED as error:
                raise _Malformed(error) from error
        return self._known[digest]


class _Malformed(Exception):
    """What a file says is nothing that `save` writes; the cause tells what."""


def _require(condition: Any, what: str):
    if not condition:
        raise ValueError(f"it has {what}")


# words


def _misfits(outcome: Outcome) -> list[str]:
    """What is new and what was dropped, in words for the error of a strict load."""
    here, there = outcome.here, outcome.there
    new, dropped = outcome.names("new"), outcome.names("dropped")
    if here is None or there is None:
        # only one side has the piece, which may have no rows to miss
        if there is not None:
            return _words(there, dropped, "left over")
        return [] if here is None else _words(here, new, "missing")
    if here.of is None:
        return _other_forms(here, there)
    # what has one name on both sides has other leaves
    changed = _among(new, dropped)
    return [
        *_words(here, _not_among(new, changed), "missing"),
        *_words(here, _not_among(dropped, changed), "left over"),
        *_words(here, changed, "of another shape or type there"),
    ]


def _among(names: Sequence[Name], others: Sequence[Name]) -> list[Name]:
    found = set(others)
    return [name for name in names if name in found]


def _not_among(names: Sequence[Name], others: Sequence[Name]) -> list[Name]:
    found = set(others)
    return [name for name in names if name not in found]


def _words(piece: Piece, names: Sequence[Name], state: str) -> list[str]:
    """One sentence for all that is amiss with a piece in one way; none where nothing is."""
    part = piece.name or "the tree itself"
    if piece.of is None:
        return [f"{part} is {state}"]
    if not names:
        return []
    things, verb = (piece.of, "are") if len(names) > 1 else (piece.of.removesuffix("s"), "is")
    return [f"{things} {_text.names(names)} of {part} {verb} {state}"]


def _other_forms(here: Piece, there: Piece) -> list[str]:
    """How leaves without rows differ."""
    ours, theirs = _forms(here), _forms(there)
    words: list[str] = []
    for name in {**ours, **theirs}:
        if name not in theirs:
            words += [f"{name} is missing"]
        elif name not in ours:
            words.append(f"{name} is left over")
        elif ours[name] != theirs[name]:
            words.append(f"{name} is {theirs[name]} in the file and {ours[name]} here")
    return words


def _forms(piece: Piece) -> dict[str, str]:
    """Type and shape of every leaf of a piece by name."""
    forms: dict[str, str] = {}
    for stack in piece.stacks.values():
        for inside, leaf in stack.leaves.items():
            # blocks of ties are numbered anew in every topology, and their pieces are not
            name = leaf.name if not inside else f"{piece.name}{inside}"
            forms[name] = f"{leaf.dtype}{leaf.shape}"
    return forms
