"""What notebooks show: well-formed HTML in which a name stays a name."""

import xml.etree.ElementTree as ET

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from helpers import CASES

import darnax as dx
from darnax.testing import random_state

EVIL = "<script>alert('&')</script>"
VOID = "{http://www.w3.org/2000/svg}"


def parsed(shown):
    """The tree of a fragment, which is read as XML: every tag is closed and every sign escaped."""
    return ET.fromstring(shown._repr_html_())


def words(shown):
    return " ".join(text.strip() for text in parsed(shown).itertext() if text.strip())


def tags(shown):
    return {element.tag.removeprefix(VOID) for element in parsed(shown).iter()}


def cells(shown):
    """The rows of all tables, as lists of words."""
    return [[cell.text or "" for cell in row] for row in parsed(shown).iter("tr")]


@pytest.mark.parametrize("name", CASES)
def test_everything_is_shown_on_every_graph(name):
    network = CASES[name].network()
    state = random_state(network.topology, 2)
    solution = dx.relax(network, state, max_steps=5) if name in ("chain", "views") else None
    for shown in filter(None, (network.topology, network, state, solution)):
        assert {"div", "table"} <= tags(shown)
    assert "svg" in tags(network.topology)
    assert "svg" in tags(network)
    # The tables are those of the summaries.
    for shown in (network.topology, network):
        summary = shown.summary()
        for row in cells(shown):
            for word in " ".join(row).split():
                assert word in summary
    svg = words(network.topology)
    for node in network.topology.nodes:
        assert str(node)[:23] in svg


def evil():
    graph = nx.DiGraph()
    graph.add_node(EVIL, shape=2, kind=EVIL)
    graph.add_node("a\x00b\ud800", shape=3, kind='" onload="x')
    graph.add_node("é & ü", shape=(), kind="]]>")
    graph.add_edge(EVIL, "a\x00b\ud800", kind=EVIL, tie="</table>")
    graph.add_edge("é & ü", "é & ü", kind="x\x1by")
    return dx.Topology(graph)


def test_markup_in_names_stays_text():
    topology = evil()
    couplings = dict.fromkeys(topology.edge_kinds, dx.dense())
    network = dx.Network(topology, couplings, dx.tanh, key=jax.random.key(0))
    state = dx.GraphState(topology, 2)
    history = dx.History([{EVIL: 1.0, "a": np.nan}])
    for shown in (topology, network, state, dx.relax(network, state), history):
        assert not tags(shown) & {"script", "b onload"}
        assert EVIL in words(shown)
        assert all(set(element.attrib) <= ATTRIBUTES for element in parsed(shown).iter())


ATTRIBUTES = {
    "style", "colspan", "role", "viewBox", "width", "height", "rx", "fill", "d", "stroke", "stroke-width", "points",
    "stroke-linecap", "stroke-dasharray", "opacity", "cx", "cy", "r", "x", "y", "font-size", "font-family", "font-weight",
    "text-anchor", "dominant-baseline", "stroke-linejoin", "paint-order",
}  # fmt: skip


def test_a_state_tells_the_range_of_its_values():
    topology = CASES["mixed"].network().topology
    state = random_state(topology, 2).replace_val("x", np.float32([[1, 2, 3], [4, 5, 9]]))
    (row,) = [row for row in cells(state) if row[0] == "in(3,)"]
    assert row == ["in(3,)", "float32", "(1, 3, 2)", "'x'", "1", "4", "9"]
    lost = state.replace_val("x", np.float32([[1, np.nan, 3], [np.inf, 5, 9]]))
    (row,) = [row for row in cells(lost) if row[0] == "in(3,)"]
    assert row[4:] == ["2 not finite", "", ""]
    whole = random_state(CASES["int8"].network().topology, 3)
    assert {row[1] for row in cells(whole)} == {"dtype", "int8", "float32"}


def test_a_solution_counts_its_samples():
    state = random_state(CASES["chain"].network().topology, 4)
    solution = dx.Solution(
        state,
        jnp.array([True, True, False, False]),
        jnp.array([3, 5, 9, 4]),
        jnp.array([0.0, 1e-6, 0.5, jnp.nan]),
        jnp.array([1, 1, 2, 0]),
    )
    assert "2 of 4 settled, 1 in cycles, 1 not finite" in words(solution)
    rows = cells(solution)
    assert rows[1] == ["settled", "2", "4.0 (3 to 5)", "1", "1e-06"]
    assert rows[2] == ["cycle", "1", "9.0 (9 to 9)", "2", "0.5"]
    assert rows[3][:4] == ["lost", "1", "4.0 (4 to 4)", "0"]
    assert {"details", "summary"} <= tags(solution)


def test_a_history_shows_its_last_epochs():
    history = dx.History([{"accuracy": i / 40} for i in range(40)] + [{"steps": 2.5}])
    rows = cells(history)
    assert rows[0] == ["epoch", "accuracy", "steps"]
    assert rows[-1] == ["41", "", "2.5"]
    assert rows[-2] == ["40", "0.975", ""]
    assert len(rows) == 13
    assert "the last 12 of 41 epochs" in words(history)
    assert words(dx.History()) == "History: 0 epochs epoch"


def test_trees_of_the_same_classes_are_shown_as_well():
    """Parameters, stacks, shapes, what is traced and what is gone: nothing may raise in a notebook."""
    network = CASES["chain"].network()
    params, rest = dx.partition(network, {"forward": dx.hebbian()})
    stack = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), network)
    shapes = jax.eval_shape(lambda tree: tree, network)
    for shown in (params, rest, stack, shapes):
        assert "svg" in tags(shown)
    assert any("forward" in row[0] for row in cells(params))
    state = random_state(network.topology, 2)
    solution = dx.relax(network, state, max_steps=3)
    others = [lambda tree: np.stack([tree, tree]), lambda tree: None, lambda tree: "text"]
    for change in others:
        assert "table" in tags(jax.tree.map(change, state))
    assert "table" in tags(jax.eval_shape(lambda tree: tree, solution))
    seen = []

    @eqx.filter_jit
    def traced(solution):
        seen.extend([words(solution), words(solution.state)])
        return solution

    traced(solution)
    assert "hidden(4,)" in seen[0]
    assert "hidden(4,)" in seen[1]
    gone = random_state(network.topology, 2)
    for array in gone.arrays.values():
        array.delete()
    assert "deleted" in words(gone)


def test_large_topologies_are_shown_by_kinds():
    n = 100_000
    ring = dx.Topology.from_edges(np.arange(n), (np.arange(n) + 1) % n, inputs=[0])
    assert len(ring._repr_html_()) < 10_000
    assert "99,999 nodes" in words(ring)
    assert "edge ×99,998" in words(ring)


def test_treescope_shows_networks_and_states():
    import treescope

    network = CASES["mixed"].network()
    state = random_state(network.topology, 2)
    for tree in (network, state, dx.relax(network, state, max_steps=2)):
        shown = treescope.render_to_text(tree)
        assert type(tree).__name__ in shown
        assert "<html" in treescope.render_to_html(tree) or "<script" in treescope.render_to_html(
            tree
        )
