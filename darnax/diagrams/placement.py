"""Places of the spots of a diagram in the plane, in inches.

A network with inputs is drawn in layers, from left to right. Its cycles have no layers: edges that
run backwards are found first, such that few do, and left aside. A graph whose edges run both ways
has no direction to show, and is drawn by the distances in it.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from darnax import _text, checks
from darnax.diagrams.diagram import FEW, Diagram, Spot
from darnax.topologies.lazy_networkx import nx
from darnax.topologies.names import Name

Places: TypeAlias = np.ndarray
"""Coordinates `(n, 2)`, x to the right and y upwards."""

# Any: the names of nodes, which a mapping is invariant in.
Place: TypeAlias = Mapping[Any, Sequence[float]] | Callable[..., Mapping[Any, Sequence[float]]]
"""Where nodes stand: by name, or a function from a networkx graph to that, as its layouts are."""

ACROSS, DOWN = 1.75, 1.2
"""Distances between layers, and in a layer."""

SHORT = 7
"""The most letters that fit into a circle."""

TALLEST = 12
"""The most spots in a layer."""


@checks.by_hand
def placed(diagram: Diagram, place: Place | None = None) -> tuple[Places, float]:
    """The places of all spots, one inch or so apart, and how many units of `place` an inch is."""
    if place is not None:
        names = [spot.name for spot in diagram.spots]
        pairs = [(link.sender, link.receiver) for link in diagram.links]
        return _scaled(given_places(names, pairs, place))
    links = [*diagram.ends(), *diagram.shared]
    components = _components(len(diagram.spots), links)
    parts = [_component(diagram, component) for component in components]
    return _stacked(parts, components), 1.0


@checks.by_hand
def given_places(
    names: Sequence[Name],
    pairs: Iterable[tuple[int, int]],
    place: Place,
) -> Places:
    """The places that a user gives to named nodes, `pairs` of which are joined."""
    if callable(place):
        checks.called("place", place)
        graph = nx.DiGraph()
        graph.add_nodes_from(names)
        graph.add_edges_from((names[one], names[other]) for one, other in pairs)
        place = place(graph)
    holds = "a mapping from nodes to (x, y), or a function from a networkx graph to one"
    if not isinstance(place, Mapping):
        checks.refuse("place", holds, place, "give one, such as networkx.circular_layout")
    missing = [name for name in names if name not in place]
    if missing:
        raise ValueError(
            f"`place` lacks {_text.names(missing)}; give every node of the picture a place"
        )
    return np.asarray([_point(name, place[name]) for name in names])


def by_distance(n: int, pairs: Sequence[tuple[int, int]]) -> Places:
    """Places whose distances are those of a graph of n vertices, as well as the plane allows."""
    components = _components(n, pairs)
    parts: list[Places] = []
    for component in components:
        place = {vertex: i for i, vertex in enumerate(component)}
        parts.append(_by_distance(len(component), _inside(pairs, place)))
    return _stacked(parts, components)


def _point(name: object, value: object) -> tuple[float, float]:
    """A point of the plane."""
    array = np.asarray(value)
    if array.shape != (2,) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        checks.refuse(f"place[{name!r}]", "two finite numbers, x and y", value, "give such")
    return float(array[0]), float(array[1])


def _scaled(places: Places) -> tuple[Places, float]:
    """The places with neighbours one inch apart, and the old distance of neighbours."""
    gaps = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    np.fill_diagonal(gaps, np.inf)
    nearest = gaps.min(axis=1)
    nearest = nearest[np.isfinite(nearest) & (nearest > 0)]
    unit = float(np.median(nearest)) if len(nearest) else 1.0
    return places / unit, unit


# parts that nothing joins


def _components(n: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The spots of every part that no pair joins to another, in order."""
    joined: dict[int, set[int]] = {spot: set() for spot in range(n)}
    for one, other in pairs:
        joined[one].add(other)
        joined[other].add(one)
    seen: set[int] = set()
    components: list[list[int]] = []
    for spot in joined:
        if spot not in seen:
            component = _reached(spot, joined)
            seen |= component
            components.append(sorted(component))
    return components


def _reached(start: int, joined: Mapping[int, Iterable[int]]) -> set[int]:
    reached = {start}
    waiting = [start]
    while waiting:
        for spot in joined[waiting.pop()]:
            if spot not in reached:
                reached.add(spot)
                waiting.append(spot)
    return reached


def _stacked(parts: Sequence[Places], components: Sequence[Sequence[int]]) -> Places:
    """All parts below each other, those of one spot side by side in the last row."""
    places = np.zeros((sum(map(len, components)), 2))
    alone = [component[0] for component in components if len(component) == 1]
    top = 0.0
    width = ACROSS * len(alone)
    for part, component in zip(parts, components, strict=True):
        if len(component) > 1:
            low, high = part.min(axis=0), part.max(axis=0)
            places[component] = part - [low[0], high[1] - top]
            top -= high[1] - low[1] + DOWN
            width = max(width, high[0] - low[0])
    # A long row would make the whole picture small.
    columns = max(1, int(width // ACROSS), int(np.sqrt(len(alone))))
    for i, spot in enumerate(alone):
        places[spot] = [ACROSS * (i % columns), top - DOWN * (i // columns)]
    return places


def _component(diagram: Diagram, spots: Sequence[int]) -> Places:
    """The places of one part of a diagram."""
    place = {spot: i for i, spot in enumerate(spots)}
    pairs = _inside(diagram.ends(), place)
    inputs = [place[spot] for spot in spots if "input" in diagram.spots[spot].roles]
    if inputs or len(spots) <= FEW or not _mutual(diagram, place):
        levels = _levels(len(spots), pairs, inputs)
        if np.bincount(levels).max() <= TALLEST:
            return _layered(levels, pairs)
    # Views that share cells stand near each other.
    near = pairs + _inside(diagram.shared, place)
    boxes = np.asarray([_room(diagram.spots[spot]) for spot in spots])
    return _apart(_by_distance(len(spots), near), boxes)


def _inside(pairs: Iterable[tuple[int, int]], place: Mapping[int, int]) -> list[tuple[int, int]]:
    """The pairs of two members of a part, by their places in it."""
    return [(place[one], place[other]) for one, other in pairs if one in place and one != other]


def _mutual(diagram: Diagram, place: Container[int]) -> bool:
    """Whether most links of a part have a way back: they say nothing about a direction."""
    links = [link for link in diagram.links if link.sender in place]
    ends = {(link.sender, link.receiver) for link in links if link.sender != link.receiver}
    mutual = 0
    for link in links:
        if link.both or (link.receiver, link.sender) in ends:
            mutual += 1
    return mutual >= len(links) / 2


def _by_distance(n: int, pairs: Iterable[tuple[int, int]]) -> Places:
    """Places whose distances are those of the graph, as well as the plane allows."""
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(pairs)
    # Kamada and Kawai, Inf. Process. Lett. 31, 7 (1989). It needs all distances of the graph.
    found = nx.kamada_kawai_layout(graph)
    places = np.asarray([found[spot] for spot in range(n)])
    # A picture is wider than tall.
    low, high = places.min(axis=0), places.max(axis=0)
    if high[1] - low[1] > high[0] - low[0]:
        places = places[:, ::-1]
    return _scaled(places)[0]


def _room(spot: Spot) -> tuple[float, float]:
    """The width and the height that a spot takes with what is written on it."""
    widest = max(map(len, spot.lines))
    if widest <= SHORT:
        return 0.75, 0.75
    return 0.08 * widest, 0.75 + 0.16 * len(spot.lines)


def _apart(places: Places, boxes: np.ndarray) -> Places:
    """The places with spots pushed apart until their boxes, of width and height, do not meet."""
    places = places.copy()
    room = (boxes[:, None] + boxes) / 2
    for _ in range(100):
        away = places[:, None] - places
        lacking = room - abs(away)
        # A box always meets itself.
        meet = (lacking > 1e-6).all(axis=2) & ~np.eye(len(places), dtype=bool)
        if not meet.any():
            break
        # Half of what lacks for each of two, along the axis on which that is least.
        axis = lacking.argmin(axis=2)
        for along in (0, 1):
            push = np.where(meet & (axis == along), lacking[..., along] / 2, 0)
            places[:, along] += 0.6 * (push * np.where(away[..., along] < 0, -1, 1)).sum(axis=1)
    return places


# layers


def _levels(
    n: int,
    pairs: Sequence[tuple[int, int]],
    inputs: Sequence[int],
) -> np.ndarray:
    """The layer of every spot: the length of the longest way to it that never runs backwards."""
    # Inputs are held: what they hear does not move them.
    pairs = [pair for pair in pairs if pair[1] not in inputs]
    rank = _ranks(n, pairs, inputs)
    levels = np.zeros(n, np.int64)
    forward = [pair for pair in pairs if rank[pair[0]] < rank[pair[1]]]
    # By the rank of the sender, so that the layer of a sender is known before it is used.
    for sender, receiver in sorted(forward, key=lambda pair: rank[pair[0]]):
        levels[receiver] = max(levels[receiver], levels[sender] + 1)
    return levels


def _ranks(
    n: int,
    pairs: Sequence[tuple[int, int]],
    inputs: Sequence[int],
) -> np.ndarray:
    """An order in which few edges run backwards.

    It is that of Eades, Lin and Smyth, Inf. Process. Lett. 47, 319 (1993): what hears nobody comes
    first, what nobody hears last, and else the one that sends most and hears least; of several the
    one nearest to an input.
    """
    sends, hears = _neighbours(n, pairs)
    distance = _distances(sends, inputs)
    left = set(range(n))
    first: list[int] = []
    last: list[int] = []
    while left:
        # By spot, what it hears and what it sends among those that are left.
        links = {spot: (len(hears[spot] & left), len(sends[spot] & left)) for spot in left}
        spot, ends = _next(links, distance)
        (last if ends else first).append(spot)
        left.remove(spot)
    rank = np.zeros(n, np.int64)
    rank[first + last[::-1]] = np.arange(n)
    return rank


def _next(links: Mapping[int, tuple[int, int]], distance: Sequence[int]) -> tuple[int, bool]:
    """The spot that is taken next, and whether it comes last and not first."""
    sources = [spot for spot in links if links[spot][0] == 0]
    sinks = [spot for spot in links if links[spot][1] == 0]
    if sinks and not sources:
        return max(sinks), True
    order: dict[int, tuple[int, int, int]] = {}
    for spot in sources or links:
        hears, sends = links[spot]
        order[spot] = hears - sends, distance[spot], spot
    return min(order, key=order.__getitem__), False


def _neighbours(
    n: int,
    pairs: Iterable[tuple[int, int]],
) -> tuple[list[set[int]], list[set[int]]]:
    """For every spot those that it sends to, and those that it hears."""
    sends: list[set[int]] = [set() for _ in range(n)]
    hears: list[set[int]] = [set() for _ in range(n)]
    for sender, receiver in pairs:
        sends[sender].add(receiver)
        hears[receiver].add(sender)
    return sends, hears


def _distances(sends: Sequence[Iterable[int]], inputs: Sequence[int]) -> list[int]:
    """How many edges every spot is away from the inputs, or from the first spot without any."""
    distance = [len(sends)] * len(sends)
    waiting = list(inputs) or [0]
    for spot in waiting:
        distance[spot] = 0
    # The list grows while it is read: near spots are reached before far ones.
    for spot in waiting:
        for other in sends[spot]:
            if distance[other] == len(sends):
                distance[other] = distance[spot] + 1
                waiting.append(other)
    return distance


def _layered(levels: np.ndarray, pairs: Sequence[tuple[int, int]]) -> Places:
    """Layer beside layer, each in an order in which few edges cross."""
    n = len(levels)
    linked = np.zeros((n, n))
    for sender, receiver in pairs:
        linked[sender, receiver] = linked[receiver, sender] = 1
    height = np.zeros(n)
    # The heights of those that a spot is linked to say where it belongs; a few rounds settle.
    for _ in range(8):
        wanted = linked @ height / np.maximum(linked.sum(axis=1), 1)
        for level in range(levels.max() + 1):
            members = np.flatnonzero(levels == level)
            order = members[np.argsort(wanted[members], kind="stable")]
            middle = (len(order) - 1) / 2
            height[order] = np.arange(len(order)) - middle
    # The first of those that are alike stands above.
    return np.stack([ACROSS * levels, -DOWN * height], axis=1)
