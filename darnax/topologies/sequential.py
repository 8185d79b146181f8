"""A chain of layers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from darnax import _text, checks
from darnax._lazy import Lazy
from darnax.topologies.names import Finder
from darnax.topologies.tables import Problems, parse_shape

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")


def sequential(
    sizes: Any, recurrent: Any = True, backward: Any = True, skip: Any = ()
) -> "nx.DiGraph":
    """A chain of `L = len(sizes)` layers, drawn for `Topology`.

    Nodes are the numbers 0 to L-1: kind `input` first, `output` last, `hidden` between. Edges are
    `forward` from i to i+1 (L-1 of them), `backward` from i+1 to i for i at least 1 (L-2),
    `recurrent` from every hidden node to itself (L-2), and `skip` where you ask for it. The first
    node is the input and the last the output.

    **Arguments:**

    - `sizes`: the shape of every layer, an int or a tuple; at least two.
    - `recurrent`, `backward`: whether to draw the edges of this kind.
    - `skip`: pairs `(i, j)` of layers that are not neighbours, for an edge of kind `skip` from i to
      j; negative ones count from the end.

    Raises `ValueError` for fewer than two layers, a size that is not a shape, or a skip that is no
    pair of layers at least two apart.

    !!! example

        ```python
        graph = dx.topologies.sequential([64, 256, 256, 10], skip=[(0, 2), (1, 3)])
        graph.add_edge(3, 1, kind="feedback")
        topology = dx.Topology(graph)
        ```
    """
    shapes = parse_sizes(sizes)
    if len(shapes) < 2:
        raise ValueError(
            f"`sizes` names at least two layers, an input and an output, but got {sizes!r}; add one"
        )
    recurrent, backward = checks.flag("recurrent", recurrent), checks.flag("backward", backward)
    last, skip = len(shapes) - 1, _pairs(skip, len(shapes))
    graph = nx.DiGraph(
        node_kinds=("input", "hidden", "output"),
        edge_kinds=(
            "forward",
            *["recurrent"] * recurrent,
            *["backward"] * backward,
            *["skip"] * bool(skip),
        ),
    )
    for i, shape in enumerate(shapes):
        end = {0: "input", last: "output"}.get(i)
        graph.add_node(i, shape=shape, kind=end or "hidden", **({"role": end} if end else {}))
    for i in range(last):
        graph.add_edge(i, i + 1, kind="forward")
        if i >= 1 and recurrent:
            graph.add_edge(i, i, kind="recurrent")
        if i >= 1 and backward:
            graph.add_edge(i + 1, i, kind="backward")
    graph.add_edges_from(skip, kind="skip")
    return graph


def _pairs(skip: Any, layers: int) -> list[tuple[int, int]]:
    """Layers that a skip edge joins."""
    find, pairs, wrong = Finder(range(layers)), [], []
    given = skip.tolist() if isinstance(skip, np.ndarray) else skip
    for pair in checks.entries(
        "skip", given, "a list of pairs of layers", "give such, as in [(0, 2)]"
    ):
        ends = [find(end) for end in pair] if isinstance(pair, (tuple, list)) else []
        known = [end for end in ends if end is not None]
        if len(ends) == len(known) == 2 and abs(known[0] - known[1]) > 1:
            pairs.append((known[0], known[1]))
        else:
            wrong.append(pair)
    if wrong:
        raise ValueError(
            f"`skip` joins pairs of the layers 0 to {layers - 1} that are at least two apart, but "
            f"names {_text.listing(map(checks.came, wrong))}; give others, for neighbours have "
            "edges `forward` and `backward`"
        )
    return pairs


def parse_sizes(sizes: Any) -> list[tuple[int, ...]]:
    """The shapes of the layers; the error lists every one that is none."""
    problems, shapes = Problems("`sizes` at layer"), []
    advice = "give such, as in [64, (8, 8, 1)]"
    for i, size in enumerate(checks.entries("sizes", sizes, "a list of one shape a layer", advice)):
        try:
            shapes.append(parse_shape(size))
        except ValueError as error:
            problems.add(str(error), i)
    problems.check()
    return shapes
