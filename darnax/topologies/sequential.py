"""A chain of layers."""

from collections.abc import Sequence

import numpy as np

from darnax import _text, checks
from darnax.topologies.lazy_networkx import NxDiGraph, nx
from darnax.topologies.names import Finder
from darnax.topologies.tables import Problems, Shape, parse_shape


@checks.by_hand
def sequential(
    sizes: Sequence[Shape],
    recurrent: bool = True,
    backward: bool = True,
    skip: Sequence[tuple[int, int]] = (),
) -> NxDiGraph:
    """A graph of `L = len(sizes)` layers in a chain.

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
        # the same weights both ways
        couplings = {"forward": dx.dense(), "backward": dx.transpose("forward")}
        ```
    """
    shapes = parse_sizes(sizes)
    if len(shapes) < 2:
        raise ValueError(
            f"`sizes` names at least two layers, an input and an output, but got {sizes!r}; add one"
        )
    kinds = ["forward"]
    if checks.flag("recurrent", recurrent):
        kinds.append("recurrent")
    if checks.flag("backward", backward):
        kinds.append("backward")
    skips = _pairs(skip, len(shapes))
    if skips:
        kinds.append("skip")
    # A builder's kinds count as known even where a short chain has no such edge, so that one dict
    # of couplings serves chains of any length.
    graph = nx.DiGraph(
        node_kinds=("input", "hidden", "output"),
        edge_kinds=tuple(kinds),
    )
    for i, shape in enumerate(shapes):
        graph.add_node(i, shape=shape, kind="hidden")
    last = len(shapes) - 1
    graph.nodes[0].update(kind="input", role="input")
    graph.nodes[last].update(kind="output", role="output")
    for i in range(last):
        graph.add_edge(i, i + 1, kind="forward")
        # The input keeps its state, so nothing is sent to it.
        if i == 0:
            continue
        if recurrent:
            graph.add_edge(i, i, kind="recurrent")
        if backward:
            graph.add_edge(i + 1, i, kind="backward")
    graph.add_edges_from(skips, kind="skip")
    return graph


def _pairs(skip: object, layers: int) -> list[tuple[int, int]]:
    """The pairs of layers that skip edges join."""
    # Layers are found as the nodes of the topology will be, negative ones from the end.
    find = Finder(range(layers))
    pairs: list[tuple[int, int]] = []
    wrong: list[object] = []
    given = skip.tolist() if isinstance(skip, np.ndarray) else skip
    advice = "give such, as in [(0, 2)]"
    for pair in checks.entries("skip", given, "a list of pairs of layers", advice):
        i = j = None
        if isinstance(pair, (tuple, list)) and len(pair) == 2:
            i, j = map(find, pair)
        # Neighbours, and a layer with itself, may have an edge already, and a DiGraph holds one.
        if i is None or j is None or abs(i - j) < 2:
            wrong.append(pair)
        else:
            pairs.append((i, j))
    if wrong:
        raise ValueError(
            f"`skip` joins pairs of the layers 0 to {layers - 1} that are at least two apart, but "
            f"names {_text.listing(map(checks.came, wrong))}; give others, for neighbours have "
            "edges `forward` and `backward`"
        )
    return pairs


@checks.by_hand
def parse_sizes(
    sizes: Sequence[Shape],
    argument: str = "sizes",
    holds: str = "a list of one shape a layer",
) -> list[tuple[int, ...]]:
    """The shapes of the layers; the error lists every size that is no shape."""
    problems = Problems(f"`{argument}` at layer")
    shapes: list[tuple[int, ...]] = []
    given = checks.entries(argument, sizes, holds, "give such, as in [64, (8, 8, 1)]")
    for i, size in enumerate(given):
        try:
            shapes.append(parse_shape(size))
        except ValueError as error:
            problems.add(str(error), i)
    problems.check()
    return shapes
