"""Random graphs of units.

Most are drawn by networkx, whose generators are well known, and then annotated.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from darnax import checks
from darnax.topologies.lazy_networkx import NxDiGraph, NxGraph, nx
from darnax.topologies.names import Name
from darnax.topologies.tables import Shape, parse_number, parse_shape


@checks.by_hand
def random(
    n: int,
    *,
    degree: int | None = None,
    probability: float | None = None,
    symmetric: bool = False,
    size: Shape = (),
    seed: int | np.random.Generator = 0,
) -> NxDiGraph:
    """Units that receive from others chosen at random.

    Nodes are the numbers 0 to n-1, of kind `unit`; edges are `lateral`, none from a unit to itself.
    Give one of `degree` and `probability`:

    - `degree`: every unit receives from exactly so many others, `n * degree` edges; symmetric, it
      is a random regular graph.
    - `probability`: every edge is there with this probability, `n (n - 1) * probability` of them on
      average (Gilbert's random graph; Ann. Math. Stat. 30, 1141, 1959).

    **Arguments:**

    - `n`: the number of units.
    - `symmetric`: whether every edge has its reverse; else each direction is drawn for itself.
    - `size`: the shape of every node; `()` is a scalar unit.
    - `seed`: an int, or a `numpy.random.Generator`.

    Raises `ValueError` for fewer than one unit, a probability outside [0, 1] or a degree that n
    units cannot have.

    !!! example

        ```python
        graph = dx.topologies.random(100, degree=8)
        graph.number_of_edges()  # 800
        ```
    """
    n = parse_number("n", n)
    unit = parse_shape(size, "size")
    rng = checks.seed("seed", seed)
    symmetric = checks.flag("symmetric", symmetric)
    if (degree is None) == (probability is None):
        came = f"{checks.came(degree)} and {checks.came(probability)}"
        raise ValueError(f"give one of `degree` and `probability`, but got {came}")
    if probability is not None:
        share = checks.probability("probability", probability)
        drawn = nx.fast_gnp_random_graph(n, share, seed=_seed(rng), directed=not symmetric)
        return lateral_graph(range(n), _directed(drawn), unit)
    degree = checks.count("degree", degree, 0, n - 1)
    if not symmetric:
        return lateral_graph(range(n), _of_degree(n, degree, rng), unit)
    # Every link has two ends.
    if n * degree % 2:
        raise ValueError(
            f"`degree` {degree} for {n} units needs {n * degree} ends of undirected edges, an "
            "odd number; make one of them even"
        )
    drawn = nx.random_regular_graph(degree, n, seed=_seed(rng))
    return lateral_graph(range(n), _directed(drawn), unit)


def _of_degree(
    n: int,
    degree: int,
    rng: np.random.Generator,
) -> Iterable[tuple[int, int]]:
    """Edges to each of n units from `degree` others, chosen at random."""
    if not degree:
        return []
    others: list[np.ndarray] = []
    for _ in range(n):
        others.append(rng.choice(n - 1, degree, replace=False, shuffle=False))
    senders = np.concatenate(others)
    receivers = np.repeat(np.arange(n), degree)
    # The draw numbers the others from 0 to n-2: those from the unit itself on move up by one.
    senders += senders >= receivers
    return zip(senders.tolist(), receivers.tolist(), strict=True)


@checks.by_hand
def small_world(
    n: int,
    neighbours: int,
    rewire: float,
    *,
    size: Shape = (),
    seed: int | np.random.Generator = 0,
) -> NxDiGraph:
    """A ring whose links are rewired at random.

    It is clustered like a lattice, and has short paths like a random graph. Nodes are the numbers 0
    to n-1, of kind `unit`; edges are `lateral`, `n * neighbours` of them, every one with its
    reverse. It is `networkx.watts_strogatz_graph`, drawn in both directions. Source: D. J. Watts
    and S. H. Strogatz, Nature 393, 440 (1998).

    **Arguments:**

    - `n`: the number of units.
    - `neighbours`: how many nearest units on the ring each is linked to, an even number.
    - `rewire`: the probability that a link gets a new end.
    - `size`: the shape of every node; `()` is a scalar unit.
    - `seed`: an int, or a `numpy.random.Generator`.

    Raises `ValueError` for an odd or too large number of neighbours, or a probability outside [0,
    1].

    !!! example

        ```python
        graph = dx.topologies.small_world(100, neighbours=4, rewire=0.1)
        graph.number_of_edges()  # 400
        ```
    """
    n = parse_number("n", n)
    unit = parse_shape(size, "size")
    neighbours = checks.count("neighbours", neighbours, 0, n - 1)
    # networkx would round an odd number down.
    if neighbours % 2:
        raise ValueError(
            f"`neighbours` is even, half on either side, but got {neighbours}; give one more or "
            "less"
        )
    share = checks.probability("rewire", rewire)
    rng = checks.seed("seed", seed)
    drawn = nx.watts_strogatz_graph(n, neighbours, share, seed=_seed(rng))
    return lateral_graph(drawn, _directed(drawn), unit)


@checks.by_hand
def scale_free(
    n: int,
    links: int,
    *,
    size: Shape = (),
    seed: int | np.random.Generator = 0,
) -> NxDiGraph:
    """A graph with hubs: new units link to those that have many links already.

    Nodes are the numbers 0 to n-1, of kind `unit`; edges are `lateral`, `2 links (n - links)` of
    them, every one with its reverse. It is `networkx.barabasi_albert_graph`, drawn in both
    directions. Source: A.-L. Barabási and R. Albert, Science 286, 509 (1999).

    **Arguments:**

    - `n`: the number of units.
    - `links`: how many links a new unit brings.
    - `size`: the shape of every node; `()` is a scalar unit.
    - `seed`: an int, or a `numpy.random.Generator`.

    Raises `ValueError` unless `1 <= links < n`.

    !!! example

        ```python
        graph = dx.topologies.scale_free(100, links=2)
        graph.number_of_edges()  # 392
        ```
    """
    n = parse_number("n", n, 2)
    unit = parse_shape(size, "size")
    links = checks.count("links", links, 1, n - 1)
    rng = checks.seed("seed", seed)
    drawn = nx.barabasi_albert_graph(n, links, seed=_seed(rng))
    return lateral_graph(drawn, _directed(drawn), unit)


def lateral_graph(
    units: Iterable[Name],
    edges: Iterable[tuple[Name, Name]],
    size: tuple[int, ...],
) -> NxDiGraph:
    """Units of one shape, and lateral edges between them."""
    graph = nx.DiGraph(node_kinds=("unit",), edge_kinds=("lateral",))
    graph.add_nodes_from(units, shape=size, kind="unit")
    graph.add_edges_from(edges, kind="lateral")
    return graph


def _directed(graph: NxGraph) -> Iterator[tuple[Name, Name]]:
    """The edges of a graph, undirected ones both ways."""
    both_ways = not graph.is_directed()
    for u, v in graph.edges:
        yield u, v
        if both_ways:
            yield v, u


def _seed(rng: np.random.Generator) -> int:
    """A seed for networkx, drawn from the generator: one that is used twice gives two graphs."""
    return int(rng.integers(2**32))
