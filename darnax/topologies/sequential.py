"""A chain of layers."""

from typing import Any

import networkx as nx

from darnax.topologies.columns import Problems, parse_shape


def sequential(sizes: Any, recurrent: bool = True, backward: bool = True) -> nx.DiGraph:
    """A chain of `L = len(sizes)` layers, drawn for `Topology`.

    Nodes are the numbers 0 to L-1: kind `input` first, `output` last, `hidden` between. Edges are `forward`
    from i to i+1 (L-1 of them), `backward` from i+1 to i for i at least 1 (L-2), and `recurrent` from every
    hidden node to itself (L-2). The first node is the input and the last the output.

    **Arguments:**

    - `sizes`: the shape of every layer, an int or a tuple; at least two.
    - `recurrent`, `backward`: whether to draw the edges of this kind.

    Raises `ValueError` for fewer than two layers or a size that is not a shape.

    !!! example

        ```python
        graph = dx.topologies.sequential([64, 256, 10])
        graph.add_edge(0, 2, kind="skip")
        topology = dx.Topology(graph)
        ```
    """
    shapes = parse_sizes(sizes)
    if len(shapes) < 2:
        raise ValueError(f"`sizes` names at least two layers, an input and an output, but got {sizes!r}; add one")
    last = len(shapes) - 1
    graph = nx.DiGraph(
        inputs=[0],
        outputs=[last],
        node_kinds=("input", "hidden", "output"),
        edge_kinds=("forward", *["recurrent"] * recurrent, *["backward"] * backward),
    )
    for i, shape in enumerate(shapes):
        graph.add_node(i, shape=shape, kind="input" if i == 0 else "output" if i == last else "hidden")
    for i in range(last):
        graph.add_edge(i, i + 1, kind="forward")
        if i >= 1 and recurrent:
            graph.add_edge(i, i, kind="recurrent")
        if i >= 1 and backward:
            graph.add_edge(i + 1, i, kind="backward")
    return graph


def parse_sizes(sizes: Any) -> list[tuple[int, ...]]:
    """The shapes of the layers; the error lists every one that is none."""
    try:
        sizes = list(sizes)
    except TypeError:
        raise TypeError(f"`sizes` is a list of one shape a layer, as in [64, (8, 8, 1)], but got {sizes!r}") from None
    problems, shapes = Problems("`sizes` at layer"), []
    for i, size in enumerate(sizes):
        try:
            shapes.append(parse_shape(size))
        except ValueError as error:
            problems.add(str(error), i)
    problems.check()
    return shapes
