"""The laws of topologies.

A drawing has no order that means anything, and a topology lays its nodes out in arrays as it likes.
What comes out under a name must not depend on either.
"""

import pickle
from typing import Any

import numpy as np

from darnax import checks
from darnax._arrays import any_rank
from darnax.activations import identity
from darnax.dynamics.schedules import ScheduleLike, node_by_node, synchronous
from darnax.dynamics.step import step
from darnax.network.activations import Activations
from darnax.network.network import Network
from darnax.network.parameters import Factories
from darnax.states.graph import GraphState
from darnax.testing.awkward import redrawn
from darnax.testing.laws import Law, first_sample, other_companions
from darnax.testing.networks import random_state, small_network
from darnax.testing.reference import Reference
from darnax.topologies.lazy_networkx import NxGraph
from darnax.topologies.topology import Topology

BATCH = 3

MOST = 2000
"""The most edges: the plain loop calls every coupling by itself."""


@any_rank
@checks.by_hand
def check_topology(
    graph: "NxGraph | Topology",
    couplings: Factories | None = None,
    activations: Activations = identity,
) -> Topology:
    """Run the laws of topologies on a graph that you drew, or on what a builder of yours gives.

    - *there and back again*: networkx, JSON and pickle give an equal topology.
    - *the order of drawing is nothing*: drawn the other way round, nodes and edges have the same
      names, shapes and hashes, and a pass gives the same under each name.
    - *a pass is the plain loop*, synchronous and node by node, with every message computed by
      itself.
    - *a sample does not hear its companions*.
    - *held cells stay*.

    **Arguments:**

    - `graph`: an annotated networkx graph, or a `Topology`, of up to 2000 edges.
    - `couplings`: by edge kind; `dx.dense()` for kinds that are not named.
    - `activations`: as a network takes them.

    Returns the topology, for checks of your own. Raises `LawBroken` with the law, and the errors of
    `Topology` for a graph that is none.

    !!! example

        ```python
        from darnax.testing import check_topology

        topology = check_topology(dx.topologies.lattice((3, 3)))
        len(topology)  # 9
        ```
    """
    topology = graph if isinstance(graph, Topology) else Topology(graph)
    if len(topology.edges) > MOST:
        raise ValueError(
            f"`graph` has {len(topology.edges)} edges, and the plain loop takes up to {MOST}; "
            "build a smaller one of its kind"
        )
    _check_ways_back(topology)
    network = small_network(topology, couplings, activations)
    state = random_state(topology, BATCH)
    for name, schedule in {"synchronous": synchronous(), "node by node": node_by_node()}.items():
        _check_pass(name, schedule, network, state)
    other = Topology(redrawn(topology.to_networkx()), **_roles(topology))
    _check_order(topology, other)
    _check_passes_of_both(network, small_network(other, couplings, activations), state)
    return topology


GRAPH = "yours"
"""The name of the graph in errors."""


def _roles(topology: Topology) -> dict[str, Any]:
    """Inputs and outputs in their order, which is theirs whatever the order of drawing."""
    return {"inputs": topology.inputs, "outputs": topology.outputs}


def _check_ways_back(topology: Topology) -> None:
    law = Law("there and back again", GRAPH)
    ways = {
        "to_networkx": Topology(topology.to_networkx()),
        "to_json": Topology.from_json(topology.to_json()),
        "pickle": pickle.loads(pickle.dumps(topology)),
    }
    for way, again in ways.items():
        law.holds(again == topology, f"{way} gives another topology, {again!r}")


def _check_order(topology: Topology, other: Topology) -> None:
    law = Law("the order of drawing is nothing", GRAPH)
    for what, ours, theirs in (
        ("hashes of nodes", _hashes_of_nodes(other), _hashes_of_nodes(topology)),
        ("hashes of edges", _hashes_of_edges(other), _hashes_of_edges(topology)),
    ):
        law.holds(ours == theirs, f"{what} differ: {set(ours.items()) ^ set(theirs.items())}")


def _hashes_of_nodes(topology: Topology) -> dict[Any, int]:
    return dict(zip(topology.nodes, topology.node_hashes.tolist(), strict=True))


def _hashes_of_edges(topology: Topology) -> dict[Any, int]:
    return dict(zip(topology.edges, topology.edge_hashes.tolist(), strict=True))


def _check_pass(
    name: str,
    schedule: ScheduleLike,
    network: Network,
    state: GraphState,
) -> None:
    after = step(network, state, schedule=schedule)
    law = Law(f"a pass is the plain loop ({name})", GRAPH)
    law.states(after.arrays, Reference(network, state).step(schedule).arrays)
    law = Law("a sample does not hear its companions", GRAPH)
    others = step(network, other_companions(state), schedule=schedule)
    law.states(first_sample(others).arrays, first_sample(after).arrays)
    law = Law("held cells stay", GRAPH)
    for node in network.topology.held:
        law.equal(f"{node!r}", after[node], state[node])


def _check_passes_of_both(network: Network, other: Network, state: GraphState) -> None:
    """The same pass on both drawings, node by node under its name."""
    law = Law("the order of drawing is nothing", GRAPH)
    again = GraphState(other.topology, BATCH)
    # Node after node, since views may overlap: what they share is the same in all of them.
    for node in network.topology.nodes:
        again = again.replace_val(node, np.asarray(state[node]))
    law.states(step(other, again), step(network, state))
