"""Strategies of hypothesis: topologies with all that a drawing can say, and states on them.

hypothesis shrinks what fails: the graph that a test reports is about the smallest that breaks it.
"""

from typing import TYPE_CHECKING, Any

import networkx as nx

from darnax import checks
from darnax.states.graph import GraphState
from darnax.testing.awkward import mark
from darnax.testing.networks import random_state
from darnax.topologies.lazy_networkx import NxDiGraph
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

SHAPES: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (1, 2), (2, 2))
LINE, IMAGE = 7, (3, 4)
"""The shared arrays that views are of."""


def graphs(most: int = 5) -> "SearchStrategy[NxDiGraph]":
    """Annotated graphs of up to `most` nodes.

    Nodes of several shapes and kinds, views of two shared arrays (slices of any step and any cells,
    which often overlap), self-loops, ties, parallel edges, numbers on edges, inputs, outputs, held
    nodes.
    """
    most = checks.count("most", most, 1)
    return _strategies().composite(_graph)(most)


def topologies(most: int = 5) -> "SearchStrategy[Topology]":
    """Topologies of up to `most` nodes; see `graphs`.

    !!! example

        ```python
        import hypothesis
        from darnax.testing import small_network, states, topologies


        @hypothesis.settings(max_examples=3, deadline=None)
        @hypothesis.given(topologies(), hypothesis.strategies.data())
        def test_inputs_stay(topology, data):
            state = data.draw(states(topology))
            after = dx.step(small_network(topology), state)
            for node in topology.inputs:
                assert (after[node] == state[node]).all()


        test_inputs_stay()
        ```
    """
    return graphs(most).map(Topology)


def states(topology: Topology, batch: int = 3) -> "SearchStrategy[GraphState]":
    """States of ±1 on a topology."""
    seeds = _strategies().integers(0, 2**16)
    return seeds.map(lambda seed: random_state(topology, batch, seed))


def _strategies() -> Any:
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ImportError(
            f"the strategies of darnax.testing need hypothesis, and {error}; install it, as in "
            "pip install 'darnax[testing]'"
        ) from error
    return strategies


def _graph(draw: "DrawFn", most: int) -> NxDiGraph:
    """One graph, from the choices that hypothesis makes."""
    st = _strategies()
    multi = draw(st.booleans())
    graph: NxDiGraph = nx.MultiDiGraph() if multi else nx.DiGraph()
    graph.graph["arrays"] = {"line": LINE, "image": IMAGE}
    stacked = draw(st.integers(1, most))
    for i in range(stacked):
        kind = draw(st.sampled_from("ab"))
        graph.add_node(i, shape=draw(st.sampled_from(SHAPES)), kind=kind)
    for i in range(draw(st.integers(0, most - stacked))):
        array, index = draw(_views())
        graph.add_node(("view", i), array=array, index=index, kind="a")
    _add_edges(draw, graph, 2 * most)
    # Views may overlap, and inputs that do are refused.
    roles = [draw(st.sets(st.sampled_from(range(stacked)))) for _ in range(3)]
    inputs, outputs, held = map(sorted, roles)
    return mark(graph, inputs=inputs, outputs=outputs, held=held)


def _add_edges(draw: "DrawFn", graph: NxDiGraph, most: int) -> None:
    st = _strategies()
    nodes = st.sampled_from(list(graph))
    shapes = {node: Topology(graph).shape(node) for node in graph}
    for number in range(draw(st.integers(0, most))):
        u, v = draw(nodes), draw(nodes)
        attributes: dict[str, Any] = {"kind": "loop" if u == v else "edge"}
        # Tied edges have one coupling, and that has one pair of shapes.
        if u != v and draw(st.booleans()):
            attributes["tie"] = f"{shapes[u]} to {shapes[v]}"
        if graph.is_multigraph():
            attributes["key"] = number
        graph.add_edge(u, v, **attributes)


def _views() -> "SearchStrategy[tuple[str, Any]]":
    """A shared array, and an index of some of its cells."""
    st = _strategies()
    first, step = st.integers(0, 2), st.integers(1, 2)
    slices = st.builds(lambda first, step: slice(first, first + 2 * step, step), first, step)
    lists = st.lists(st.integers(0, LINE - 1), min_size=2, max_size=2, unique=True)
    rows = st.integers(0, IMAGE[0] - 2)
    boxes = st.builds(lambda i, j: (slice(i, i + 2), slice(j, j + 2)), rows, st.integers(0, 2))
    on_line = st.tuples(st.just("line"), slices | lists)
    return on_line | st.tuples(st.just("image"), boxes)
