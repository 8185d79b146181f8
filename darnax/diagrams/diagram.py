"""What a diagram of a topology shows: every node, or, where those are too many, every kind."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from darnax.topologies.names import Name
from darnax.topologies.roles import role_places
from darnax.topologies.topology import Topology

MOST = 60
"""The most nodes that a diagram shows one by one."""

FEW = 12
"""The most nodes whose shapes are all written out, and the most edges with a word each."""

LONGEST = 24
"""The most letters of a name."""


class Spot(NamedTuple):
    """A circle of a diagram: a node, or all nodes that agree in kind and roles.

    **Fields:**

    - `name`: of the node, or the kind and its roles.
    - `lines`: what is written, line by line.
    - `cells`: the number of cells of all its nodes.
    """

    name: Name
    lines: tuple[str, ...]
    cells: int
    kind: str
    roles: tuple[str, ...]


class Link(NamedTuple):
    """An arrow of a diagram, between positions of spots.

    **Fields:**

    - `both`: whether it stands for the edge back as well.
    """

    sender: int
    receiver: int
    kind: str
    text: str
    both: bool = False


class Shared(NamedTuple):
    """Two spots, or one, whose views share cells of an array."""

    one: int
    other: int


@dataclass(frozen=True, eq=False)
class Diagram:
    """The spots, the links and the overlaps of a topology.

    **Fields:**

    - `by_kind`: whether a spot is a kind of nodes and not a node.
    - `wordy`: whether each link has its own word, and not only the colour of its kind.
    """

    spots: tuple[Spot, ...]
    links: tuple[Link, ...]
    shared: tuple[Shared, ...]
    by_kind: bool
    wordy: bool

    def ends(self) -> list[tuple[int, int]]:
        """The ends of all links between two spots."""
        pairs = [(link.sender, link.receiver) for link in self.links]
        return [pair for pair in pairs if pair[0] != pair[1]]


def diagram(
    topology: Topology,
    most: int = MOST,
    words: Mapping[tuple[Name, ...], object] | bool | None = None,
) -> Diagram:
    """The diagram of a topology: by node up to `most` nodes, by kind above.

    `words` says what is written on edges: True for their kinds, False for nothing, a mapping for
    words of the user; None writes the kinds where there are few edges.
    """
    by_kind = len(topology) > most
    spot_of, spots = _kinds(topology) if by_kind else _nodes(topology)
    own = words if isinstance(words, Mapping) else {}
    links = _bundles(topology, spot_of) if by_kind else _edges(topology, own)
    if words is None:
        words = len(links) <= FEW
    return Diagram(
        spots=tuple(spots),
        links=tuple(links),
        shared=_shared(topology, spot_of),
        by_kind=by_kind,
        wordy=bool(words),
    )


# nodes


def _nodes(topology: Topology) -> tuple[np.ndarray, list[Spot]]:
    """A spot for every node."""
    roles = role_places(topology.columns)
    shapes = {topology.node_class(node).shape for node in range(len(topology))}
    # Sixty times the same shape tells no more than once.
    with_shape = shapes != {()} and (len(shapes) > 1 or len(topology) <= FEW)
    spots: list[Spot] = []
    for node, name in enumerate(topology.nodes):
        node_class = topology.node_class(node)
        lines = [written(name)]
        if with_shape:
            lines.append(_of_shape(node_class.shape))
        cells = math.prod(node_class.shape)
        role = tuple(roles.get(node, ()))
        spots.append(Spot(name, tuple(lines), cells, node_class.kind, role))
    return np.arange(len(topology)), spots


def _kinds(topology: Topology) -> tuple[np.ndarray, list[Spot]]:
    """A spot for all nodes that agree in kind and roles, and the spot of every node."""
    # Whole columns and no loop over nodes: there may be millions.
    columns = topology.columns
    role_table: dict[tuple[str, ...], int] = {(): 0}
    role_of = np.zeros(len(topology), np.int64)
    for node, roles in role_places(columns).items():
        role_of[node] = role_table.setdefault(tuple(roles), len(role_table))
    # Class and role as one number: NumPy finds rows that differ far more slowly.
    pair = columns.node_class * len(role_table) + role_of
    found, pair_of, counts = np.unique(pair, return_inverse=True, return_counts=True)
    role_names = list(role_table)
    members: dict[tuple[str, tuple[str, ...]], list[tuple[tuple[int, ...], int]]] = {}
    spot_of_pair: list[int] = []
    for code, count in zip(found.tolist(), counts.tolist(), strict=True):
        class_, role = divmod(code, len(role_table))
        # Classes of nodes that differ in shape, dtype or array alone are one kind.
        node_class = columns.node_classes[class_]
        key = node_class.kind, role_names[role]
        members.setdefault(key, []).append((node_class.shape, count))
        spot_of_pair.append(list(members).index(key))
    spots = [_kind(kind, roles, parts) for (kind, roles), parts in members.items()]
    return np.asarray(spot_of_pair)[pair_of], spots


def _kind(kind: str, roles: tuple[str, ...], parts: list[tuple[tuple[int, ...], int]]) -> Spot:
    """The spot of a kind, of so many nodes of each shape."""
    shapes = list(dict.fromkeys(shape for shape, _ in parts))
    count = sum(count for _, count in parts)
    cells = sum(math.prod(shape) * count for shape, count in parts)
    size = _of_shape(shapes[0]) if len(shapes) == 1 else f"{len(shapes)} shapes"
    number = f"{count:,} nodes" if count > 1 else "1 node"
    return Spot((kind, *roles), (written(kind), number, size), cells, kind, roles)


def written(name: object, most: int = LONGEST) -> str:
    """A name as it is written in a picture: in one line, and not longer than `most`."""
    # Names with line breaks or no letters at all are shown as Python would write them.
    text = name if isinstance(name, str) and name.isprintable() and name.strip() else repr(name)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _of_shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if shape else "one unit"


# edges


def _edges(topology: Topology, words: Mapping[tuple[Name, ...], object]) -> list[Link]:
    """A link for every edge; edges of one kind there and back are one link."""
    columns = topology.columns
    kinds = [kind for kind, _ in columns.edge_classes]
    links: list[Link] = []
    for edge, pair in enumerate(zip(columns.senders, columns.receivers, strict=True)):
        kind = kinds[columns.edge_class[edge]]
        text = str(words.get(topology.edge(edge), kind if not words else ""))
        # No word for an edge is no word, and no name.
        links.append(Link(int(pair[0]), int(pair[1]), kind, written(text) if text else ""))
    return _merged(links)


def _bundles(topology: Topology, spot_of: np.ndarray) -> list[Link]:
    """A link for all edges of one kind between the nodes of two spots."""
    columns = topology.columns
    classes = len(columns.edge_classes)
    spots = int(spot_of.max(initial=0)) + 1
    # Both ends and the class as one number, as above.
    ends = spot_of[columns.senders] * spots + spot_of[columns.receivers]
    found, counts = np.unique(ends * classes + columns.edge_class, return_counts=True)
    totals: Counter[tuple[int, int, str]] = Counter()
    for code, count in zip(found.tolist(), counts.tolist(), strict=True):
        pair, edge_class = divmod(code, classes)
        sender, receiver = divmod(pair, spots)
        # Classes of edges that differ in their tie alone are one kind.
        kind = columns.edge_classes[edge_class][0]
        totals[sender, receiver, kind] += count
    links: list[Link] = []
    for (sender, receiver, kind), count in totals.items():
        links.append(Link(sender, receiver, kind, f"{written(kind)} ×{count:,}"))
    return _merged(links)


def _merged(links: list[Link]) -> list[Link]:
    """The links with pairs that differ in direction alone as one arrow with two heads."""
    merged: list[Link] = []
    open_links: dict[Link, int] = {}
    for link in links:
        back = link._replace(sender=link.receiver, receiver=link.sender)
        if link.sender != link.receiver and back in open_links:
            # Taken away, because of parallel edges each has a way back of its own.
            place = open_links.pop(back)
            merged[place] = merged[place]._replace(both=True)
        else:
            open_links[link] = len(merged)
            merged.append(link)
    return merged


# overlaps


def _shared(topology: Topology, spot_of: np.ndarray) -> tuple[Shared, ...]:
    """The pairs of spots with views that share a cell, and the spots whose own views do."""
    layout = topology.layout
    found: dict[Shared, None] = {}
    for block in layout.overlaps:
        # All views of a block lie on one array, and each names a cell once: a cell that is owned
        # twice is shared.
        cells = [layout.cells(node).ravel() for node in block]
        owner = np.repeat(spot_of[block], [len(own) for own in cells])
        rows = np.concatenate(cells)
        owners: dict[int, list[int]] = {}
        for row, spot in zip(rows.tolist(), owner.tolist(), strict=True):
            owners.setdefault(row, []).append(spot)
        for spots in owners.values():
            found |= dict.fromkeys(_pairs(spots))
    return tuple(found)


def _pairs(spots: list[int]) -> list[Shared]:
    """All pairs of the owners of one cell; a spot that owns it twice is a pair with itself."""
    counts = sorted(Counter(spots).items())
    pairs: list[Shared] = []
    for i, (one, times) in enumerate(counts):
        if times > 1:
            pairs.append(Shared(one, one))
        for other, _ in counts[i + 1 :]:
            pairs.append(Shared(one, other))
    return pairs
