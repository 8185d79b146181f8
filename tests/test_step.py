"""One pass equals the plain loop of the helpers, whatever the network, the schedule and the arguments."""

import numpy as np
import pytest
from helpers import CASES, Loop, assert_state, loop_order, random_state

import darnax as dx
from darnax.dynamics.call import _frame

BATCH = 3


SCHEDULES = ["synchronous", "node_by_node", "node_by_node in order", "unit_by_unit", "groups", "coloured"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_loop(case, schedule):
    network = CASES[case].network()
    state = random_state(network.topology, BATCH)
    ours, visits, units = loop_order(network, schedule)
    loop = Loop(network, state)
    for _ in range(2):
        state = dx.step(network, state, schedule=ours)
        loop.sweep(visits, units)
        assert_state(state, loop, exact=case not in ("mixed", "parts"))


def arguments(network, rng):
    """A mask, a silent node, a driven node, kinds: all at once, on any topology."""
    topology = network.topology
    nodes = list(topology.nodes)
    able = [n for n in nodes if topology.kind(n) in network.activations]
    pick = nodes[rng.integers(len(nodes))]
    driven = able[rng.integers(len(able))]
    clamp = {
        pick: rng.random((BATCH, *topology.shape(pick))) < 0.5,
        nodes[-1]: rng.random(topology.shape(nodes[-1])) < 0.5,
    }
    clamp |= {node: False for node in topology.inputs[:1] if node not in clamp}
    kinds = list(topology.edge_kinds)[: max(1, len(topology.edge_kinds) - 1)] or None
    drive = {driven: (rng.integers(-64, 64, (BATCH, *topology.shape(driven))) / 64).astype(np.float32)}
    return {"clamp": clamp, "silence": [nodes[rng.integers(len(nodes))]], "kinds": kinds, "drive": drive}


@pytest.mark.parametrize("schedule", ["synchronous", "node_by_node", "unit_by_unit"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_loop_with_every_argument(case, schedule):
    network = CASES[case].network()
    state = random_state(network.topology, BATCH)
    rng = np.random.default_rng(7)
    given = arguments(network, rng)
    given["clamp"] = {
        n: m for n, m in given["clamp"].items() if m is not False or network.topology.kind(n) in network.activations
    }
    ours, visits, units = loop_order(network, schedule)
    loop = Loop(network, state, **given)
    state = dx.step(network, state, schedule=ours, **given)
    loop.sweep(visits, units)
    assert_state(state, loop, exact=case not in ("mixed", "parts"))


@pytest.mark.parametrize("schedule", ["node_by_node", "unit_by_unit", "groups"])
@pytest.mark.parametrize("case", ["hub", "views", "scalars", "parts"])
def test_visits_of_many_sizes_share_a_few_programs(case, schedule, monkeypatch):
    """Rounded-up sizes, whose surplus is masked, change nothing."""
    monkeypatch.setattr("darnax.dynamics.sweep.MAX_BRANCHES", 1)
    original = CASES[case]
    network = type(original)(original.graph, original.activations, original.biases, original.couplings).network()
    state = random_state(network.topology, BATCH, seed=3)
    ours, visits, units = loop_order(network, schedule)
    _frame.cache_clear()
    after = dx.step(network, state, schedule=ours)
    _frame.cache_clear()
    assert_state(after, Loop(network, state).sweep(visits, units), exact=case != "parts")
