"""One pass equals the plain loop of the helpers, whatever the network, the schedule and the
arguments."""

import jax
import networkx as nx
import numpy as np
import pytest
from helpers import CASES, Case, assert_state, loop_order
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import darnax as dx
from darnax.testing import Reference, graphs, random_state

BATCH = 3


SCHEDULES = [
    "synchronous",
    "node_by_node",
    "node_by_node in order",
    "unit_by_unit",
    "groups",
    "coloured",
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_loop(case, schedule):
    network = CASES[case].network()
    state = random_state(network.topology, BATCH)
    ours, visits, units = loop_order(network, schedule)
    loop = Reference(network, state)
    for _ in range(2):
        state = dx.step(network, state, schedule=ours)
        loop.sweep(visits, units)
        assert_state(state, loop, exact=case not in ("mixed", "parts", "both ways"))


def arguments(network, rng):
    """A mask, a silent node, a driven node, kinds: all at once, on any topology."""
    topology = network.topology
    nodes = list(topology.nodes)
    pick = nodes[rng.integers(len(nodes))]
    clamp = {
        pick: rng.random((BATCH, *topology.shape(pick))) < 0.5,
        nodes[-1]: rng.random(topology.shape(nodes[-1])) < 0.5,
    }
    clamp |= {node: False for node in topology.inputs[:1] if node not in clamp}
    whole = dict.fromkeys(topology.held, True) | clamp
    free = [node for node in nodes if np.ndim(whole.get(node, False)) or not whole.get(node, False)]
    able = [n for n in free if topology.kind(n) in network.activations]
    driven = able[rng.integers(len(able))] if able else None
    kinds = list(topology.edge_kinds)[: max(1, len(topology.edge_kinds) - 1)] or None
    drive = {}
    if driven is not None:
        drive[driven] = (rng.integers(-64, 64, (BATCH, *topology.shape(driven))) / 64).astype(
            np.float32
        )
    return {
        "clamp": clamp,
        "silence": [nodes[rng.integers(len(nodes))]],
        "kinds": kinds,
        "drive": drive,
    }


@pytest.mark.parametrize("schedule", ["synchronous", "node_by_node", "unit_by_unit"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_loop_with_every_argument(case, schedule):
    network = CASES[case].network()
    state = random_state(network.topology, BATCH)
    rng = np.random.default_rng(7)
    given = arguments(network, rng)
    given["clamp"] = {
        n: m
        for n, m in given["clamp"].items()
        if m is not False or network.topology.kind(n) in network.activations
    }
    ours, visits, units = loop_order(network, schedule)
    loop = Reference(network, state, **given)
    state = dx.step(network, state, schedule=ours, **given)
    loop.sweep(visits, units)
    assert_state(state, loop, exact=case not in ("mixed", "parts", "both ways"))


@pytest.mark.parametrize("schedule", ["node_by_node", "unit_by_unit", "groups"])
@pytest.mark.parametrize("case", ["hub", "views", "any cells", "scalars", "parts"])
def test_visits_of_many_sizes_share_a_few_programs(case, schedule, monkeypatch):
    """Rounded-up sizes, whose surplus is masked, change nothing."""
    monkeypatch.setattr("darnax.dynamics.order.MOST_SIZES", 1)
    original = CASES[case]
    network = type(original)(
        original.graph, original.activations, original.biases, original.couplings
    ).network()
    state = random_state(network.topology, BATCH, seed=3)
    ours, visits, units = loop_order(network, schedule)
    network.topology.memory.clear()
    after = dx.step(network, state, schedule=ours)
    network.topology.memory.clear()
    assert_state(after, Reference(network, state).sweep(visits, units), exact=case != "parts")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    graphs(),
    st.integers(0, 10**6),
    st.sampled_from(["synchronous", "node_by_node", "unit_by_unit"]),
)
def test_random_networks_equal_the_loop(graph, seed, schedule):
    rng = np.random.default_rng(seed)
    case = Case(
        lambda: graph, biases={"a": dx.bias(0.25)} if "a" in dx.Topology(graph).node_kinds else None
    )
    network = case.network()
    state = random_state(network.topology, BATCH, seed)
    given_arguments = arguments(network, rng)
    ours, visits, units = loop_order(network, schedule)
    after = dx.step(network, state, schedule=ours, **given_arguments)
    assert_state(after, Reference(network, state, **given_arguments).sweep(visits, units))


@pytest.mark.parametrize("clamp", [(), (30, 32)], ids=["few hear", "few are free"])
@pytest.mark.parametrize("schedule", ["synchronous", "node_by_node", "unit_by_unit", "groups"])
def test_a_few_rows_of_a_large_array(schedule, clamp):
    """Passes then work on a range of rows, and messages from and to all others are cut off."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(40), shape=2)
    graph.add_edges_from([(0, 30), (39, 31), (30, 31), (31, 33), (33, 32), (32, 30), (31, 31)])
    if clamp:
        graph.add_edges_from((i, i + 1) for i in range(29))
        clamp = (*clamp, *range(30))
    network = dx.Network(dx.Topology(graph), {"edge": dx.dense()}, dx.sign, key=jax.random.key(0))
    state = random_state(network.topology, 3)
    order, visits, units = loop_order(network, schedule)
    loop = Reference(network, state, clamp=clamp).sweep(visits, units)
    assert_state(dx.step(network, state, schedule=order, clamp=clamp), loop)
