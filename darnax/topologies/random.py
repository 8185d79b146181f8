"""Random graphs of units."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from darnax import checks
from darnax._lazy import Lazy
from darnax.topologies.tables import parse_number, parse_shape

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")


def random(
    n: Any,
    *,
    degree: Any = None,
    probability: Any = None,
    symmetric: Any = False,
    size: Any = (),
    seed: Any = 0,
) -> "nx.DiGraph":
    """Units that hear others chosen at random.

    Nodes are the numbers 0 to n-1, of kind `unit`; edges are `lateral`, none from a unit to itself.
    Give one of `degree` and `probability`:

    - `degree`: every unit hears exactly so many others, `n * degree` edges; symmetric, it is a
      random regular graph.
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
    n, size, rng = parse_number("n", n), parse_shape(size, "size"), checks.seed("seed", seed)
    symmetric = checks.flag("symmetric", symmetric)
    if (degree is None) == (probability is None):
        came = f"{checks.came(degree)} and {checks.came(probability)}"
        raise ValueError(f"give one of `degree` and `probability`, but got {came}")
    if probability is not None:
        share = checks.probability("probability", probability)
        return _drawn(
            nx.fast_gnp_random_graph(n, share, seed=_seed(rng), directed=not symmetric), size
        )
    degree = checks.count("degree", degree, 0, n - 1)
    if symmetric:
        if n * degree % 2:
            raise ValueError(
                f"`degree` {degree} for {n} units needs {n * degree} ends of undirected edges, an "
                "odd number; make one of them even"
            )
        links = nx.random_regular_graph(degree, n, seed=_seed(rng)).edges
        return annotated(range(n), both_ways(links), size)
    receivers = np.repeat(np.arange(n), degree)
    others = [
        rng.choice(n - 1, degree, replace=False, shuffle=False) for _ in range(n if degree else 0)
    ]
    senders = np.concatenate([np.zeros(0, np.int64), *others])
    senders += senders >= receivers  # numbers count the others, and skip the unit itself
    return annotated(range(n), zip(senders.tolist(), receivers.tolist(), strict=True), size)


def small_world(
    n: Any, neighbours: Any, rewire: Any, *, size: Any = (), seed: Any = 0
) -> "nx.DiGraph":
    """A ring whose links are rewired at random: clustered like a lattice, short paths like a random
    graph.

    Nodes are the numbers 0 to n-1, of kind `unit`; edges are `lateral`, `n * neighbours` of them,
    every one with its reverse. It is `networkx.watts_strogatz_graph`, drawn in both directions.
    Source: D. J. Watts and S. H. Strogatz, Nature 393, 440 (1998).

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
    n, size = parse_number("n", n), parse_shape(size, "size")
    neighbours = checks.count("neighbours", neighbours, 0, n - 1)
    if neighbours % 2:
        raise ValueError(
            f"`neighbours` is even, half on either side, but got {neighbours}; give one more or "
            "less"
        )
    share = checks.probability("rewire", rewire)
    return _drawn(
        nx.watts_strogatz_graph(n, neighbours, share, seed=_seed(checks.seed("seed", seed))), size
    )


def scale_free(n: Any, links: Any, *, size: Any = (), seed: Any = 0) -> "nx.DiGraph":
    """A graph with hubs: units come one after another, and link to those that have many links
    already.

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
    n, size = parse_number("n", n, 2), parse_shape(size, "size")
    links = checks.count("links", links, 1, n - 1)
    return _drawn(nx.barabasi_albert_graph(n, links, seed=_seed(checks.seed("seed", seed))), size)


def annotated(units: Iterable[Any], edges: Iterable[tuple], size: tuple[int, ...]) -> "nx.DiGraph":
    """Units of one shape, and lateral edges between them."""
    graph = nx.DiGraph(node_kinds=("unit",), edge_kinds=("lateral",))
    graph.add_nodes_from(units, shape=size, kind="unit")
    graph.add_edges_from(edges, kind="lateral")
    return graph


def both_ways(links: Iterable[tuple]) -> Iterator[tuple]:
    """Undirected links as two edges each."""
    return chain.from_iterable(((u, v), (v, u)) for u, v in links)


def _drawn(wiring: "nx.Graph", size: tuple[int, ...]) -> "nx.DiGraph":
    """What networkx made, as units and lateral edges."""
    return annotated(
        wiring, wiring.edges if wiring.is_directed() else both_ways(wiring.edges), size
    )


def _seed(rng: np.random.Generator) -> int:
    """A seed for networkx."""
    return int(rng.integers(2**32))
