"""The first minute: nothing is compiled to build a network, and XLA has nothing to complain of."""

import cProfile
import logging
import pstats
import subprocess
import sys

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import darnax as dx


def test_building_a_network_compiles_nothing(caplog):
    """Whatever the shapes are: layers of many widths, images, pools, weighted and tied edges,
    biases."""
    g = dx.topologies.sequential(list(range(20, 50)))
    g.add_node("image", shape=(6, 6, 3), kind="hidden")
    g.add_node("small", shape=(3, 3, 2), kind="hidden")
    g.add_edge("image", "small", kind="conv")
    g.add_edge("small", "image", kind="back")
    g.add_edge("image", "image", kind="both", tie="one")
    g.add_edge("small", "small", kind="wire")
    couplings = {kind: dx.dense(gain=0.5) for kind in ("forward", "backward")}
    couplings |= {
        "recurrent": dx.dense(self_coupling=1.0),
        "conv": dx.conv(3, 2),
        "back": dx.conv_transpose(3, 2),
    }
    couplings |= {"both": dx.edge_mlp(3), "wire": dx.sparse(nx.cycle_graph(18), gain=1.0)}
    topology, key = dx.Topology(g), jax.random.key(0)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        network = dx.Network(topology, couplings, dx.tanh, biases={"hidden": dx.bias(0.1)}, key=key)
    assert not [record for record in caplog.records if "Finished XLA compilation" in record.message]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(network))


def looks_at_couplings(layers):
    """How often the leaves of a coupling are looked at while so many layers become a network."""
    topology = dx.Topology(dx.topologies.sequential(list(range(2, layers + 2))))
    couplings = {kind: dx.dense() for kind in topology.edge_kinds}
    profile = cProfile.Profile()
    profile.runcall(dx.Network, topology, couplings, dx.tanh, key=jax.random.key(0))
    return sum(
        calls
        for (file, _, name), (calls, *_) in pstats.Stats(profile).stats.items()
        if name == "flatten" and "Dense" in file
    )


def test_building_takes_linear_time():
    few, many = looks_at_couplings(10), looks_at_couplings(20)
    assert few > 0
    assert many < 2.5 * few


def test_reading_and_writing_compile_once_for_all_nodes(caplog):
    topology = dx.Topology.from_edges(np.arange(50), (np.arange(50) + 1) % 50, shape=3)
    state = dx.GraphState(topology, 2)
    state.replace_val(0, jnp.ones((2, 3)))[0]
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for node in topology.nodes:
            state = state.replace_val(node, jnp.ones((2, 3)))
            assert (state[node] == 1).all()
    compiled = [
        record.message for record in caplog.records if "Finished XLA compilation" in record.message
    ]
    assert len(compiled) <= 2  # the comparison of the test itself


def test_xla_has_no_constants_to_fold():
    """A state made in the same program is zeros, and what it hears may be constant: XLA must not
    work that out."""
    code = """
import darnax as dx, jax, jax.numpy as jnp, networkx as nx
g = nx.DiGraph()
g.add_node("image", shape=(28, 28, 1))
g.add_node("map", shape=(28, 28, 32), kind="h")
g.add_node("deep", shape=256, kind="h")
g.add_edge("image", "map", kind="conv")
g.add_edge("map", "map", kind="lateral")
g.add_edge("map", "deep", kind="full")
t = dx.Topology(g, inputs=["image"])
n = dx.Network(t, {"conv": dx.conv(3), "lateral": dx.conv(3), "full": dx.dense()}, dx.sign, key=jax.random.key(0))
start = lambda: dx.GraphState(t).init(jnp.ones((64, 28, 28, 1)))
rules = {"conv": dx.hebbian()}
for program in (
    lambda: dx.relax(n, start()).settled,
    lambda: dx.step(n, start()).arrays,
    lambda: dx.rollout(n, start(), 3, schedule=dx.node_by_node())[0].arrays,
    lambda: jax.tree.leaves(dx.local_updates(n, start(), rules)),
):
    jax.jit(program).lower().compile()
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "onstant folding" not in run.stderr
    assert run.stdout == ""


def test_warnings_of_learning_point_at_the_line_that_called():
    code = """
import warnings
import darnax as dx, jax, numpy as np, optax
t = dx.Topology(dx.topologies.sequential([2, 3]))
n = dx.Network(t, dict.fromkeys(("forward", "backward", "recurrent"), dx.dense()), dx.tanh, key=jax.random.key(0))
learning = dx.DynamicalLearning({"forward": dx.perceptron()})
x, y = np.full((4, 2), np.nan, np.float32), np.ones((4, 3), np.float32)
def stop(network, history):
    raise KeyboardInterrupt
with warnings.catch_warnings(record=True) as caught:
    dx.fit(n, learning, optax.sgd(0.1), x, y, epochs=1, callbacks=[stop], key=jax.random.key(0), progress=False)
    dx.predict(n, learning, x)
print([(warning.filename, warning.lineno) for warning in caught])
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == str([("<string>", 11), ("<string>", 11), ("<string>", 12)])
