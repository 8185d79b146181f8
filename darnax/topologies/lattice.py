"""Sites on a grid."""

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from darnax import _text, checks
from darnax._lazy import Lazy
from darnax.topologies.random import annotated
from darnax.topologies.tables import MOST_CELLS, parse_shape

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")


def lattice(shape: Any, periodic: Any = True, neighbours: Any = 1, size: Any = ()) -> "nx.DiGraph":
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
    shape, size = parse_shape(shape), parse_shape(size, "size")
    if not shape:
        raise ValueError("`shape` is () and has no axis; give at least one, as in (16, 16)")
    closed = _periodic(periodic, len(shape))
    offsets = _offsets(neighbours, shape)
    home = [
        offset
        for offset in offsets
        if all(
            step % sites == 0 if ring else step == 0
            for step, sites, ring in zip(offset, shape, closed, strict=True)
        )
    ]
    if home:
        raise ValueError(
            f"`neighbours` at {_text.names(home)} of a lattice of `shape` {shape}, `periodic` "
            f"{closed}, are the site itself; make the axis longer or its ends open"
        )
    flat = len(shape) == 1
    sites = list(range(shape[0])) if flat else list(product(*map(range, shape)))
    ends = []
    at = np.indices(shape).reshape(len(shape), -1)
    for offset in offsets:
        to = at + np.asarray(offset)[:, None]
        inside = np.ones(to.shape[1], bool)
        for axis, (count, ring) in enumerate(zip(shape, closed, strict=True)):
            if ring:
                to[axis] %= count
            else:
                inside &= (to[axis] >= 0) & (to[axis] < count)
        ends.append((np.flatnonzero(inside), np.ravel_multi_index(tuple(to[:, inside]), shape)))
    senders, receivers = (np.concatenate(column).tolist() for column in zip(*ends, strict=True))
    return annotated(
        sites, ((sites[u], sites[v]) for u, v in zip(senders, receivers, strict=True)), size
    )


def _periodic(periodic: Any, axes: int) -> tuple[bool, ...]:
    holds, advice = f"True or False, or a tuple of {axes} of them, one for each axis", "give such"
    single = isinstance(periodic, (bool, np.bool_))
    answers = [periodic] * axes if single else checks.entries("periodic", periodic, holds, advice)
    if len(answers) != axes or not all(isinstance(answer, (bool, np.bool_)) for answer in answers):
        checks.refuse("periodic", holds, periodic, advice, ValueError)
    return tuple(map(bool, answers))


def _offsets(neighbours: Any, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Steps to the neighbours, each once."""
    axes = len(shape)
    if isinstance(neighbours, (int, float, np.integer, str)):
        reach = checks.count("neighbours", neighbours, 1, max(*shape, 2) - 1)
        steps = product(range(-reach, reach + 1), repeat=axes)
        return [step for step in steps if 0 < sum(map(abs, step)) <= reach]
    holds = f"a distance of at least 1, or a list of offsets of {axes} ints"
    advice = f"give offsets such as [{(1,) + (0,) * (axes - 1)}]"
    neighbours = neighbours.tolist() if isinstance(neighbours, np.ndarray) else neighbours
    given = checks.entries("neighbours", neighbours, holds, advice)
    offsets = [tuple(step) if isinstance(step, (tuple, list)) else (step,) for step in given]
    wrong = [step for step in offsets if len(step) != axes or not all(map(_is_step, step))]
    if wrong or not offsets:
        came = f"{_text.listing(map(checks.came, wrong))} among them" if wrong else "none"
        raise ValueError(f"`neighbours` is {holds}, but got {came}; {advice}")
    return list(dict.fromkeys(tuple(map(int, step)) for step in offsets))


def _is_step(part: Any) -> bool:
    return (
        isinstance(part, (int, np.integer))
        and not isinstance(part, bool)
        and abs(int(part)) <= MOST_CELLS
    )
