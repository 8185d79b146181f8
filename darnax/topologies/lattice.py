"""Sites on a grid, each of which sends to the sites at fixed offsets."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxDiGraph
from darnax.topologies.names import Name, is_integer
from darnax.topologies.random import lateral_graph
from darnax.topologies.tables import MOST_CELLS, Shape, parse_shape

BOOL = (bool, np.bool_)


@checks.by_hand
def lattice(
    shape: Shape,
    periodic: bool | Sequence[bool] = True,
    neighbours: int | Sequence[int] | Sequence[Sequence[int]] = 1,
    size: Shape = (),
) -> NxDiGraph:
    """A grid of sites, each of which sends to its neighbours.

    Nodes are the positions `(i, j, ...)`, numbers on one axis, of kind `unit`; there are as many as
    `shape` has cells. Edges are `lateral`, both ways between neighbours: on a periodic lattice that
    is large enough as many from every site as there are neighbours, `2 d` for the nearest on `d`
    axes. With open ends it is `networkx.grid_graph`, drawn in both directions; periodic it is a
    ring or a torus.

    **Arguments:**

    - `shape`: the number of sites along each axis, an int or a tuple.
    - `periodic`: whether the ends of an axis meet; one answer, or one for each axis.
    - `neighbours`: a distance, the number of steps along the axes that reach a neighbour (1: the
      nearest four on two axes); or the offsets themselves, `[(0, 1), (1, 0)]` for edges to the
      right and down alone.
    - `size`: the shape of every node; `()` is a scalar unit.

    Raises `ValueError` where an offset leads back to where it starts, as on a periodic axis of size
    1.

    !!! example

        ```python
        graph = dx.topologies.lattice((16, 16))
        couplings = {"lateral": dx.scale(1.0, fixed=True)}
        network = dx.Network(dx.Topology(graph), couplings, dx.glauber(2.3), key=jax.random.key(0))
        ```
    """
    sizes = parse_shape(shape)
    unit = parse_shape(size, "size")
    if not sizes:
        raise ValueError("`shape` is () and has no axis; give at least one, as in (16, 16)")
    closed = _periodic(periodic, len(sizes))
    offsets = _offsets(neighbours, sizes)
    senders, receivers = _ends(sizes, closed, offsets)
    names: Sequence[Name] = list(product(*map(range, sizes)))
    # Sites on one axis are numbers as in networkx.cycle_graph, not tuples of one.
    if len(sizes) == 1:
        names = range(sizes[0])
    edges: list[tuple[Name, Name]] = []
    for u, v in zip(senders.tolist(), receivers.tolist(), strict=True):
        edges.append((names[u], names[v]))
    return lateral_graph(names, edges, unit)


def _ends(
    sizes: tuple[int, ...],
    periodic: tuple[bool, ...],
    offsets: Sequence[tuple[int, ...]],
) -> tuple[np.ndarray, np.ndarray]:
    """The senders and receivers of all edges, as numbers of sites in the order of the lattice."""
    # Sites are the columns of an array of coordinates, so that a step of all of them is one sum.
    sites = np.indices(sizes).reshape(len(sizes), -1)
    number = np.arange(sites.shape[1]).reshape(sizes)
    extent = np.asarray(sizes)[:, None]
    wraps = np.asarray(periodic)[:, None]
    senders: list[np.ndarray] = []
    receivers: list[np.ndarray] = []
    home: list[tuple[int, ...]] = []
    for offset in offsets:
        target = sites + np.asarray(offset)[:, None]
        target = np.where(wraps, target % extent, target)
        # An offset leads all sites home, or none.
        if (target == sites).all():
            home.append(offset)
            continue
        # With open ends, steps off the lattice are no edges.
        inside = (target >= 0) & (target < extent)
        inside = inside.all(axis=0)
        senders.append(np.flatnonzero(inside))
        receivers.append(number[tuple(target[:, inside])])
    if home:
        raise ValueError(
            f"`neighbours` at {_text.names(home)} of a lattice of `shape` {sizes}, `periodic` "
            f"{periodic}, are the site itself; make the axis longer or its ends open"
        )
    return np.concatenate(senders), np.concatenate(receivers)


def _periodic(periodic: object, axes: int) -> tuple[bool, ...]:
    """Whether the ends of each axis meet."""
    if isinstance(periodic, BOOL):
        return (bool(periodic),) * axes
    holds = f"True or False, or a tuple of {axes} of them, one for each axis"
    answers = checks.entries("periodic", periodic, holds, "give such")
    good = all(isinstance(answer, BOOL) for answer in answers)
    if len(answers) != axes or not good:
        checks.refuse("periodic", holds, periodic, "give such", ValueError)
    return tuple(map(bool, answers))


def _offsets(neighbours: object, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Steps to the neighbours, each once."""
    axes = len(shape)
    # A distance; floats and text are refused as one.
    if isinstance(neighbours, (int, float, np.integer, str)):
        reach = checks.count("neighbours", neighbours, 1, max(*shape, 2) - 1)
        return _within(reach, axes)
    holds = f"a distance of at least 1, or a list of offsets of {axes} ints"
    advice = f"give offsets such as [{(1,) + (0,) * (axes - 1)}]"
    listed = neighbours
    if isinstance(neighbours, np.ndarray):
        listed = neighbours.tolist()
    offsets: list[tuple[int, ...]] = []
    wrong: list[object] = []
    for given in checks.entries("neighbours", listed, holds, advice):
        # On one axis an offset may be a number.
        step = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if len(step) == axes and all(map(_is_step, step)):
            offsets.append(tuple(map(int, step)))
        else:
            wrong.append(step)
    if wrong or not offsets:
        came = f"{_text.listing(map(checks.came, wrong))} among them" if wrong else "none"
        raise ValueError(f"`neighbours` is {holds}, but got {came}; {advice}")
    # The same edge twice would need keys to tell them apart.
    return list(dict.fromkeys(offsets))


def _within(reach: int, axes: int) -> list[tuple[int, ...]]:
    """All steps of length 1 to `reach`, where a length is counted along the axes."""
    offsets: list[tuple[int, ...]] = []
    for step in product(range(-reach, reach + 1), repeat=axes):
        length = sum(map(abs, step))
        if 0 < length <= reach:
            offsets.append(step)
    return offsets


def _is_step(part: object) -> bool:
    # No axis is longer, and numbers of more than 64 bits would make arrays of objects.
    return is_integer(part) and abs(int(part)) <= MOST_CELLS
