"""Bad input to couplings, activations, schedules, networks and dynamics: every argument against
every sort of value.

What is wrong is refused where it is given, by an error that names the argument, says what came and
what to do. A row names the values that are right; all others must be refused.
What no such value shows, two things that do not fit each other, stands one by one under SLIPS.
"""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from helpers import CASES
from jax.experimental.sparse import BCOO

import darnax as dx

KEY = jax.random.key(0)
VALUES = {
    "None": lambda: None,
    "str": lambda: "x",
    "int": lambda: 3,
    "negative": lambda: -1,
    "zero": lambda: 0,
    "float": lambda: 1.5,
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "bool": lambda: True,
    "list": lambda: [1, 2],
    "tuple": lambda: ("a",),
    "set": lambda: {1},
    "dict": lambda: {"a": 1},
    "array": lambda: np.ones(3),
    "masked": lambda: np.ma.masked_array([1.0, 2.0], [0, 1]),
    "generator": lambda: (i for i in range(3)),
    "class": lambda: dict,
    "object": object,
    "function": lambda: lambda *_, **__: 1,
    "large": lambda: 10**12,
}
NUMBERS = {"int", "negative", "zero", "float", "large"}
COUNTS = {"int", "large"}
FUNCTIONS = {"class", "function"}

TOPOLOGY = dx.Topology(dx.topologies.sequential([3, 4, 2]))
COUPLINGS = {kind: dx.dense(gain=0.3) for kind in ("forward", "backward", "recurrent")}
NETWORK = dx.Network(TOPOLOGY, COUPLINGS, dx.tanh, key=KEY)
STATE = dx.GraphState(TOPOLOGY).init(jnp.ones((2, 3)))
BOTH_WAYS = {
    "forward": dx.dense(),
    "backward": dx.transpose("forward"),
    "recurrent": dx.dense(symmetric=True),
}
MUTUAL = dx.Network(TOPOLOGY, BOTH_WAYS, dx.tanh, key=KEY)


def network(**given):
    given = {
        "topology": TOPOLOGY,
        "couplings": COUPLINGS,
        "activations": dx.tanh,
        "key": KEY,
    } | given
    return dx.Network(
        given.pop("topology"), given.pop("couplings"), given.pop("activations"), **given
    )


def scheduled(make):
    return lambda value: dx.step(NETWORK, STATE, schedule=make(value))


def called(function, argument):
    return lambda value: function(NETWORK, STATE, **{argument: value})


CALLS = {
    # a call, the word that its errors hold, and the values that are right
    "dense gain": (dx.dense, "`gain`", NUMBERS),
    "dense self_coupling": (lambda v: dx.dense(1.0, v), "`self_coupling`", NUMBERS | {"None"}),
    "dense factor": (lambda v: dx.dense(factor=v), "`factor`", {"None", "str"}),
    "dense symmetric": (lambda v: dx.dense(symmetric=v), "`symmetric`", {"bool"}),
    "transpose kind": (dx.transpose, "`kind`", {"str"}),
    "transpose in a network": (
        lambda v: network(couplings=COUPLINGS | {"backward": dx.transpose(v)}),
        "`kind`|`couplings",
        set(),
    ),
    "scale strength": (dx.scale, "`strength`", NUMBERS),
    "scale weight": (lambda v: dx.scale(weight=v), "`weight`", {"None", "str"}),
    "scale fixed": (lambda v: dx.scale(fixed=v), "`fixed`", {"bool"}),
    "conv kernel": (dx.conv, "`kernel`", COUNTS | {"list"}),
    "conv stride": (lambda v: dx.conv(3, v), "`stride`", COUNTS | {"list"}),
    "conv padding": (lambda v: dx.conv(3, padding=v), "`padding`", COUNTS | {"zero"}),
    "conv gain": (lambda v: dx.conv(3, gain=v), "`gain`", NUMBERS),
    "conv self_coupling": (
        lambda v: dx.conv(3, self_coupling=v),
        "`self_coupling`",
        NUMBERS | {"None"},
    ),
    "conv symmetric": (lambda v: dx.conv(3, symmetric=v), "`symmetric`", {"bool"}),
    "conv_transpose kernel": (dx.conv_transpose, "`kernel`", COUNTS | {"list"}),
    "conv_transpose padding": (
        lambda v: dx.conv_transpose(3, padding=v),
        "`padding`",
        COUNTS | {"zero"},
    ),
    "pool window": (dx.pool, "`window`", COUNTS | {"list"}),
    "pool stride": (lambda v: dx.pool(2, v), "`stride`", COUNTS | {"list", "None"}),
    "pool reduce": (lambda v: dx.pool(2, reduce=v), "`reduce`", FUNCTIONS),
    "upsample factor": (dx.upsample, "`factor`", COUNTS | {"list"}),
    "elementwise potential": (
        lambda v: dx.elementwise(jnp.tanh, v),
        "`potential`",
        FUNCTIONS | {"None"},
    ),
    "sparse graph": (dx.sparse, "`graph`", set()),
    "sparse gain": (lambda v: dx.sparse(nx.path_graph(3), v), "`gain`", NUMBERS | {"None"}),
    "sparse self_coupling": (
        lambda v: dx.sparse(nx.path_graph(3), self_coupling=v),
        "`self_coupling`",
        NUMBERS | {"None"},
    ),
    "sparse symmetric": (
        lambda v: dx.sparse(nx.path_graph(3), symmetric=v),
        "`symmetric`",
        {"bool"},
    ),
    "graph_conv net": (lambda v: dx.graph_conv(v, nx.path_graph(3)), "`net`", FUNCTIONS),
    "graph_conv graph": (lambda v: dx.graph_conv(lambda graphs: graphs, v), "`graph`", set()),
    "edge_mlp hidden": (dx.edge_mlp, "`hidden`", COUNTS),
    "edge_mlp activation": (lambda v: dx.edge_mlp(3, v), "`activation`", FUNCTIONS),
    "predictions couplings": (dx.predictions, "`couplings`", {"dict"}),
    "after fn": (lambda v: dx.after(v, dx.dense()), "`fn`", FUNCTIONS),
    "after coupling": (lambda v: dx.after(dx.tanh, v), "`coupling`", FUNCTIONS),
    "edge_mlp gain": (lambda v: dx.edge_mlp(3, gain=v), "`gain`", NUMBERS),
    "bias init": (dx.bias, "`init`", NUMBERS | FUNCTIONS),
    "leaky rate": (lambda v: dx.leaky(v, dx.tanh), "`rate`", set()),
    "leaky fn": (lambda v: dx.leaky(0.5, v), "`fn`", FUNCTIONS),
    "glauber temperature": (
        dx.glauber,
        "`temperature`",
        NUMBERS - {"negative"} | {"array", "list"},
    ),
    "elementwise fn": (dx.elementwise, "`fn`", FUNCTIONS),
    "asynchronous fraction": (dx.asynchronous, "`fraction`", set()),
    "node_by_node order": (
        scheduled(dx.node_by_node),
        "`schedule`|`order`",
        {"None", "list", "generator"},
    ),
    "unit_by_unit order": (
        scheduled(dx.unit_by_unit),
        "`schedule`|`order`",
        {"None", "list", "generator"},
    ),
    "groups members": (scheduled(dx.groups), "`schedule`|`members", set()),
    "one of groups": (
        scheduled(lambda v: dx.groups([v])),
        "`schedule`|`members",
        {"list", "generator"},
    ),
    "coloured colours": (scheduled(dx.coloured), "`schedule`|`colours`", {"None"}),
    "one of colours": (
        scheduled(lambda v: dx.coloured({1: v, 2: 1})),
        "`schedule`|`colours",
        COUNTS | {"zero"},
    ),
    "Network topology": (lambda v: network(topology=v), "`topology`", set()),
    "Network couplings": (lambda v: network(couplings=v), "`couplings`", set()),
    "one of couplings": (
        lambda v: network(couplings=COUPLINGS | {"forward": v}),
        r"`couplings\['forward'\]`",
        set(),
    ),
    "Network activations": (lambda v: network(activations=v), "`activations", set()),
    "one of activations": (
        lambda v: network(activations={"hidden": v, "output": dx.tanh}),
        r"`activations\['hidden'\]`",
        set(),
    ),
    "Network biases": (lambda v: network(biases=v), "`biases`", {"None"}),
    "one of biases": (lambda v: network(biases={"hidden": v}), r"`biases\['hidden'\]`", set()),
    "Network key": (lambda v: network(key=v), "`key`", set()),
    "an edge": (lambda v: NETWORK[v], "`key`", set()),
    "an end of an edge": (lambda v: NETWORK[v, 1], "there is no node", {"zero", "negative"}),
    "replace_val key": (lambda v: NETWORK.replace_val(v, NETWORK[0, 1]), "`key`", set()),
    "replace_val module": (lambda v: NETWORK.replace_val((0, 1), v), "`module`", set()),
    "messages state": (NETWORK.messages, "`state`", set()),
    "local_field state": (NETWORK.local_field, "`state`", set()),
    "partition network": (lambda v: dx.partition(v, {}), "`network`", set()),
    "partition rules": (lambda v: dx.partition(NETWORK, v), "`rules`", set()),
    "relax max_steps": (called(dx.relax, "max_steps"), "`max_steps`", {"int"}),
    "relax tol": (called(dx.relax, "tol"), "`tol`", NUMBERS - {"negative"}),
    "relax adjoint": (called(dx.relax, "adjoint"), "`adjoint`", set()),
    "rollout steps": (lambda v: dx.rollout(NETWORK, STATE, v), "`steps`", {"int", "zero"}),
    "rollout observe": (
        lambda v: dx.rollout(NETWORK, STATE, 2, observe=v),
        "`observe`",
        FUNCTIONS | {"None"},
    ),
    "a mask": (lambda v: dx.step(NETWORK, STATE, clamp={1: v}), "`clamp`", {"bool"}),
    "a drive": (lambda v: dx.step(NETWORK, STATE, drive={1: v}), "`drive`", {"class"}),
}
for argument in ("clamp", "silence", "kinds", "drive"):
    CALLS[f"energy {argument}"] = (
        lambda v, argument=argument: dx.energy(MUTUAL, STATE, **{argument: v}),
        f"`{argument}`",
        {"None"} if argument in ("kinds", "drive") else {"list", "generator", "set"},
    )
CALLS["energy network"] = (lambda v: dx.energy(v, STATE), "`network`", set())
CALLS["energy state"] = (lambda v: dx.energy(MUTUAL, v), "`state`", set())
SIGNS = network(activations=dx.sign)
CALLS |= {
    "spectrum k": (lambda v: dx.spectrum(NETWORK, STATE, v), "`k`", {"int"}),
    "lyapunov steps": (lambda v: dx.lyapunov(NETWORK, STATE, v), "`steps`", {"int"}),
    "lyapunov k": (lambda v: dx.lyapunov(NETWORK, STATE, 2, v), "`k`", {"int"}),
    "lyapunov transient": (
        lambda v: dx.lyapunov(NETWORK, STATE, 2, transient=v),
        "`transient`",
        {"int", "zero"},
    ),
    "fixed_points starts": (lambda v: dx.fixed_points(NETWORK, v), "`starts`", set()),
    "fixed_points newton": (called(dx.fixed_points, "newton"), "`newton`", {"bool"}),
    "fixed_points apart": (called(dx.fixed_points, "apart"), "`apart`", NUMBERS - {"negative"}),
    "fixed_points tol": (called(dx.fixed_points, "tol"), "`tol`", NUMBERS - {"negative"}),
    "overlaps state": (lambda v: dx.overlaps(v, {1: jnp.ones((1, 4))}), "`state`", set()),
    "overlaps patterns": (lambda v: dx.overlaps(STATE, v), "`patterns`", set()),
    "overlaps of a node": (lambda v: dx.overlaps(STATE, {1: v}), "`patterns` for node 1", set()),
}
NOISY = network(activations=dx.glauber(1.0))


def energy(state):
    return -state[2].sum(1)


def tempered(**given):
    given = {"temperatures": [1.0, 2.0], "rounds": 2, "energy": energy, "key": KEY} | given
    return dx.temper(NOISY, given.pop("state", STATE), **given)


def swapped(**given):
    given = {"energy": [1.0, 2.0], "temperatures": [1.0, 2.0], "key": KEY} | given
    return dx.exchange(STATE, **given)


CALLS |= {
    "at_temperature network": (lambda v: dx.at_temperature(v, 1.0), "`network`", set()),
    "at_temperature temperature": (
        lambda v: dx.at_temperature(NOISY, v), "`temperature`", NUMBERS - {"negative"} | {"array", "list"}),
    "anneal network": (lambda v: dx.anneal(v, STATE, [1.0], key=KEY), "`network`", set()),
    "anneal state": (lambda v: dx.anneal(NOISY, v, [1.0], key=KEY), "`state`", set()),
    "anneal temperatures": (lambda v: dx.anneal(NOISY, STATE, v, key=KEY), "`temperatures`", {"array", "list"}),
    "anneal key": (lambda v: dx.anneal(NOISY, STATE, [1.0], key=v), "`key`", set()),
    "anneal observe": (
        lambda v: dx.anneal(NOISY, STATE, [1.0], key=KEY, observe=v), "`observe`", FUNCTIONS | {"None"}),
    "temper state": (lambda v: tempered(state=v), "`state`", set()),
    "temper temperatures": (lambda v: tempered(temperatures=v), "`temperatures`|`activations", {"list"}),
    "temper rounds": (lambda v: tempered(rounds=v), "`rounds`", {"int"}),
    "temper passes": (lambda v: tempered(passes=v), "`passes`", {"int"}),
    "temper energy": (lambda v: tempered(energy=v), "`energy`", {"None"}),
    "temper observe": (lambda v: tempered(observe=v), "`observe`", FUNCTIONS | {"None"}),
    "temper key": (lambda v: tempered(key=v), "`key`", set()),
    "exchange state": (lambda v: dx.exchange(v, [1.0], [1.0], KEY), "`state`", set()),
    "exchange energy": (lambda v: swapped(energy=v), "`energy`", {"list"}),
    "exchange temperatures": (lambda v: swapped(temperatures=v), "`temperatures`", {"list"}),
    "exchange key": (lambda v: swapped(key=v), "`key`", set()),
    "exchange odd": (lambda v: swapped(odd=v), "`odd`", {"bool"}),
}  # fmt: skip
for function in (dx.spectrum, dx.stable, dx.fixed_points):
    name = function.__name__
    CALLS |= {
        f"{name} network": (lambda v, f=function: f(v, STATE), "`network`", set()),
        f"{name} schedule": (called(function, "schedule"), "`schedule`", set()),
        f"{name} clamp": (called(function, "clamp"), "`clamp`", {"list", "generator", "set"}),
        f"{name} silence": (called(function, "silence"), "`silence`", {"list", "generator", "set"}),
        f"{name} kinds": (called(function, "kinds"), "`kinds`", {"None"}),
        f"{name} drive": (called(function, "drive"), "`drive`", {"None"}),
    }
for function in (dx.step, dx.relax):
    name, several = function.__name__, {"list", "generator", "set"}
    CALLS |= {
        f"{name} network": (lambda v, f=function: f(v, STATE), "`network`", set()),
        f"{name} state": (lambda v, f=function: f(NETWORK, v), "`state`", set()),
        f"{name} schedule": (called(function, "schedule"), "`schedule`", set()),
        f"{name} clamp": (called(function, "clamp"), "`clamp`", several),
        f"{name} silence": (called(function, "silence"), "`silence`", several),
        f"{name} kinds": (called(function, "kinds"), "`kinds`", {"None"}),
        f"{name} drive": (called(function, "drive"), "`drive`", {"None"}),
        f"{name} key": (called(function, "key"), "`key`", {"None"}),
    }


@pytest.mark.parametrize("row", CALLS)
def test_every_argument_refuses_every_wrong_value(row):
    call, words, right = CALLS[row]
    for value, make in VALUES.items():
        if value in right:
            continue
        try:
            call(make())
        except (TypeError, ValueError, KeyError) as error:
            said = str(error)
        else:
            pytest.fail(f"{value} was taken without a word")
        assert re.search(words, said), f"{value}: {said}"
        assert ";" in said or "the nodes are" in said, f"{value}: no next move"
        assert len(said) < 600


def test_right_values_are_taken():
    """The rows above are about values: those that they call right make what is wanted."""
    for row, (call, _, right) in CALLS.items():
        if row.split()[0] in (
            "step",
            "relax",
            "rollout",
            "spectrum",
            "stable",
            "lyapunov",
            "fixed_points",
            "anneal",
            "temper",
            "node_by_node",
            "unit_by_unit",
            "one",
            "coloured",
            "a",
        ):
            continue  # tested where their meaning is
        for value in right:
            call(VALUES[value]())


def edges(first=None, second=None, **node):
    """Nodes a, b and c, of shape 3 unless told, and edges from a to b and from a to c."""
    graph = nx.DiGraph()
    graph.add_nodes_from("abc", **({"shape": 3} | node))
    graph.add_edge("a", "b", **(first or {}))
    graph.add_edge("a", "c", **(second or {}))
    return graph


def with_shape(graph, node, shape):
    graph.nodes[node]["shape"] = shape
    return graph


def drawn(graph, couplings=None, activations=dx.tanh):
    couplings = {"edge": dx.dense()} if couplings is None else couplings
    return dx.Network(dx.Topology(graph), couplings, activations, key=KEY)


def between(coupling, sender, receiver):
    graph = edges()
    nx.set_node_attributes(graph, {"a": sender, "b": receiver, "c": receiver}, "shape")
    return drawn(graph, {"edge": coupling})


def turned(kind="back", owner="edge", edges=(("b", "a"),), **others):
    """A network of edges from a to b and c, and of reverse edges."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("abc", shape=2)
    graph.add_edges_from([("a", "b"), ("a", "c")], kind="edge")
    for u, v, *key in edges:
        graph.add_edge(u, v, *key, kind=kind)
        if "again" in others:
            graph.add_edge(u, v, kind="again")
    couplings = {"edge": dx.dense(), kind: dx.transpose(owner)} | others
    return drawn(graph, couplings)


def within(coupling, shape, activation=dx.tanh):
    """A node that sends to itself."""
    graph = nx.DiGraph()
    graph.add_node("units", shape=shape)
    graph.add_edge("units", "units")
    return drawn(graph, {"edge": coupling}, activation)


def uneven():
    """Two edges one way, and one the other."""
    graph = nx.MultiDiGraph([("a", "b"), ("a", "b"), ("b", "a")])
    nx.set_node_attributes(graph, 2, "shape")
    return graph


def energy_of(network, **given):
    return dx.energy(network, dx.GraphState(network.topology), **given)


class Pulled:
    def __call__(self, state):
        return state["units"]

    def energy(self, state):
        return state["units"]


ONE_WAY = nx.DiGraph([(0, 1), (1, 0), (1, 2)])


def stepped(network=NETWORK, **given):
    return dx.step(network, dx.GraphState(network.topology).init(jnp.ones((2, 3))), **given)


def rested(network, **given):
    return dx.step(network, dx.GraphState(network.topology), **given)


class Loose(dx.Schedule):
    __hash__ = None

    def visits(self, topology, movable):
        return None


SLIPS = {
    # networks
    "a kind of edges without a coupling": (
        lambda: network(couplings={"forward": dx.dense()}), "`couplings` lacks 'backward', 'recurrent'; give each"),
    "a coupling of no edge": (
        lambda: network(couplings=COUPLINGS | {"come": dx.dense()}), "`couplings` names 'come', which nothing has; .*'forward'"),
    "a kind of nodes without an activation": (
        lambda: network(activations={"hidden": dx.sign}), "`activations` lacks 'output'"),
    "an activation of no node": (
        lambda: network(activations={"hidden": dx.sign, "output": dx.sign, "none": dx.sign}), "`activations` names 'none', which nothing has"),
    "a bias of no node": (lambda: network(biases={"more": dx.bias()}), "`biases` names 'more'"),
    "an activation that changes the shape": (
        lambda: network(activations=lambda field: field[:1]), "an activation keeps the shape"),
    "a relay between shapes": (
        lambda: network(couplings=COUPLINGS | {"forward": dx.relay()}),
        r"`couplings\['forward'\]` on edge \(0, 1\), \(3,\) -> \(4,\), cannot be made: `relay` keeps"),
    "a scale between shapes": (lambda: between(dx.scale(weight="w"), 3, 4), "`scale` keeps the shape"),
    "a coupling with oneself between two": (
        lambda: between(dx.dense(self_coupling=1.0), 3, 3), r"\('a', 'b'\).*`self_coupling` is for self-loops"),
    "symmetric between two": (
        lambda: between(dx.dense(symmetric=True), 3, 3), r"\('a', 'b'\).*`symmetric` is for self-loops.*dx.transpose"),
    "a symmetric convolution between two": (
        lambda: between(dx.conv(3, symmetric=True), (3, 1), (3, 1)), "`symmetric` is for self-loops"),
    "symmetric wiring between two": (
        lambda: between(dx.sparse(nx.path_graph(3), symmetric=True), 3, 3), "`symmetric` is for self-loops"),
    "a symmetric kernel without a centre": (
        lambda: within(dx.conv(2, symmetric=True), (4, 1)), r"an odd `kernel`, .* but got kernel \(2,\), stride \(1,\)"),
    "a self-coupling of a kernel beside its centre": (
        lambda: within(dx.conv(3, self_coupling=0.0, padding=((0, 2),)), (4, 1)), r"'SAME', but got .*\(0, 2\)"),
    "a symmetric wiring one way": (
        lambda: dx.sparse(ONE_WAY, symmetric=True), r"wired one way, as \(1, 2\); add"),
    "a symmetric wiring that is not square": (
        lambda: dx.sparse(scipy.sparse.coo_array(np.ones((2, 3))), symmetric=True), r"one way, as \(2, 0\), \(2, 1\)"),
    "a symmetric wiring of uneven weights": (
        lambda: dx.sparse(scipy.sparse.coo_array([[0.0, 1.0], [2.0, 0.0]]), symmetric=True), r"differ between units \([01], [01]\)"),
    "a self-coupling beside a diagonal": (
        lambda: dx.sparse(scipy.sparse.coo_array(np.eye(3)), self_coupling=0.0), "wires units 0, 1, 2 to themselves; drop"),
    "a transpose of no kind": (
        lambda: turned(owner="none"), r"`couplings\['back'\]` is the transpose of 'none', which `couplings` lacks; .*'back', 'edge'"),
    "a transpose of itself": (lambda: turned(owner="back"), r"`couplings\['back'\]` is the transpose of 'back', of itself"),
    "transposes in a circle": (
        lambda: turned(edge=dx.transpose("back")), r"`couplings\['(edge|back)'\]` .* which is a transpose itself"),
    "couplings of errors": (
        lambda: dx.predictions({"up": dx.relay(), "up back": dx.relay(), "error": dx.relay(), "error back": dx.relay()}),
        r"`couplings` names 'up back', 'error', 'error back', but .* is fixed, .*; name the kinds"),
    "a function of a state with parameters": (
        lambda: dx.after(eqx.nn.Linear(3, 3, key=jax.random.key(0)), dx.dense()),
        r"`fn` has no parameters, but linear holds arrays; make them part of `coupling`"),
    "a function of a state that is random": (
        lambda: dx.after(dx.glauber(1.0), dx.dense()), r"`fn` is a function of the state alone, but glauber needs key; give"),
    "units with memory in a coupling": (
        lambda: dx.after(dx.leaky(0.5, dx.tanh), dx.dense()), r"`fn` .* leaky needs state; give a function such as dx.tanh"),
    "a reverse edge of no edge": (
        lambda: turned(edges=[("b", "a"), ("c", "b"), ("b", "c")]),
        r"no edge of kind 'edge' goes the other way of \('b', 'c'\), \('c', 'b'\); draw"),
    "a reverse edge of two": (
        lambda: turned(edges=[("c", "a", 0), ("b", "a", 0), ("b", "a", 1)]),
        r"not clear which one belongs to \('b', 'a', 1\); give each edge the key"),
    "a module of a reverse edge": (
        lambda: turned().replace_val(("b", "a"), turned()["a", "b"]), r"has no parameters of its own: .* of \('a', 'b'\)"),
    "a transpose of what has no derivative": (
        lambda: turned(edge=lambda s, r, key=None: lambda x: jax.lax.while_loop(lambda x: x[0] < 0, lambda x: x + 1, x)),
        r"`couplings\['back'\]` on edge \('b', 'a'\), .*Reverse-mode"),
    "an energy of edges one way": (
        lambda: dx.energy(NETWORK, STATE), r"no energy in this call: edges \(1, 2\), .* are heard one way .*dx.transpose"),
    "an energy of a loop that is not symmetric": (
        lambda: energy_of(within(dx.dense(), 3)), r"edges \('units', 'units'\) are heard .*`symmetric`"),
    "an energy of a pair of which one edge is silent": (
        lambda: energy_of(turned(edges=[("b", "a"), ("c", "a")]), silence=["b"]), r"edges \('a', 'b'\) are heard one way"),
    "an energy of a pair of which one kind is silent": (
        lambda: energy_of(turned(), kinds=["back"], drive={"b": np.ones(2)}), r"edges \('b', 'a'\) are heard one way"),
    "an energy of two reverse edges": (
        lambda: energy_of(turned(edges=[("b", "a"), ("c", "a")], again=dx.transpose("edge"))), "are heard one way"),
    "an energy of strengths that may differ both ways": (
        lambda: energy_of(drawn(dx.topologies.lattice(4), {"lateral": dx.scale()})), r"edges .*\(0, 1\), .* are heard one way"),
    "an energy of more edges one way than the other": (
        lambda: energy_of(drawn(uneven(), {"edge": dx.relay()})),
        "are heard one way"),
    "an energy of what depends on its receiver": (
        lambda: energy_of(turned(edge=dx.edge_mlp(3), edges=[("b", "a"), ("c", "a")])),
        r"what edges \('a', 'b'\), \('a', 'c'\) say depends on their receiver"),
    "a potential that sums over units": (
        lambda: energy_of(within(dx.relay(), 3, activation=dx.elementwise(jnp.tanh, potential=lambda s: jnp.sum(s**2)))),
        r"`potential` of nodes of kind 'node' gives one number for each unit.*do not sum"),
    "an energy of units without a potential": (
        lambda: energy_of(within(dx.relay(), 3, activation=jnp.arctan)), r"kinds 'node' \(arctan\) have no potential; give one, as dx.element"),
    "an energy of a drive of the state": (
        lambda: energy_of(within(dx.relay(), 3), drive={"units": lambda state: state["units"]}), "`drive` of nodes 'units' .*dx.nudge"),
    "an energy with another shape": (
        lambda: energy_of(within(dx.relay(), 3), drive={"units": Pulled()}), r"one number a sample, \(1,\), but gave \(1, 3\)"),
    "an energy without a state": (lambda: dx.energy(NETWORK, None), "`state` is a darnax.GraphState"),
    "an energy of another network": (lambda: dx.energy(within(dx.relay(), 3), STATE), "`state` belongs to another topology"),
    "an energy of unknown nodes": (lambda: energy_of(within(dx.relay(), 3), clamp=["none"]), "`clamp` .*'none'"),
    "a coupling that gives another shape": (
        lambda: between(lambda s, r, key: eqx.nn.Linear(3, 5, key=key), 3, 4), r"\('a', 'b'\): the receiver takes .*\(4,\), but .*\(?5"),
    "a coupling that takes another shape": (
        lambda: between(lambda s, r, key: eqx.nn.Linear(2, 4, key=key), 3, 4),
        r"edge \('a', 'b'\), .*cannot take a sender of shape \(3,\)"),
    "a coupling that cannot be called": (lambda: between(lambda s, r, key: 3, 3, 4), "cannot be called"),
    "a convolution without channels": (
        lambda: between(dx.conv(3), 3, 4), r"`conv` joins nodes of shape \(\*space, channels\)"),
    "a transposed convolution without channels": (
        lambda: between(dx.conv_transpose(3), 8, (8, 8, 1)), r"`conv_transpose` joins nodes of shape \(\*space, channels\)"),
    "a transposed convolution of another size": (
        lambda: between(dx.conv_transpose(3, 2), (5, 5, 3), (8, 8, 1)),
        r"undoes a convolution of \(8, 8, 1\), which makes \(4, 4, 3\).*\(5, 5, 3\)"),
    "a pool without channels": (lambda: between(dx.pool(2), 16, 4), r"`pool` joins nodes of shape \(\*space, channels\)"),
    "a pool larger than the image": (
        lambda: between(dx.pool(3), (2, 4, 1), (1, 1, 1)), r"`window` \(3, 3\) is larger than the image \(2, 4, 1\)"),
    "a pool that leaves cells out": (
        lambda: between(dx.pool(2), (5, 4, 1), (2, 2, 1)), r"`window` \(2, 2\) .*leaves out cells .* of an image \(5, 4, 1\)"),
    "an upsample without channels": (
        lambda: between(dx.upsample(2), 4, (2, 2, 1)), r"`upsample` joins nodes of shape \(\*space, channels\)"),
    "a wiring of another size": (
        lambda: between(dx.sparse(scipy.sparse.coo_array(np.ones((4, 5)))), 4, 4), "`graph` wires 5 units to 4, but the sender has 4"),
    "a wiring of complex numbers": (
        lambda: dx.sparse(scipy.sparse.coo_array(np.eye(4) * 1j)), "`graph` has weights that are not finite real"),
    "a wiring of blocks": (
        lambda: dx.sparse(BCOO.fromdense(jnp.eye(4), n_dense=1)), "a BCOO with two sparse axes, but got BCOO"),
    "a graph that is not square": (
        lambda: dx.graph_conv(len, scipy.sparse.coo_array(np.ones((2, 3)))), r"shape \(2, 3\).*square"),
    "a number that an edge lacks": (
        lambda: drawn(edges({"weight": 1.0}), {"edge": dx.scale(weight="weight")}), r"'weight' is missing on \('a', 'c'\)"),
    "a factor that an edge lacks": (
        lambda: drawn(edges({"weight": 1.0}), {"edge": dx.dense(factor="weight")}), r"'weight' is missing on \('a', 'c'\)"),
    "a number that every edge lacks": (
        lambda: drawn(edges({"weight": 1.0}), {"edge": dx.scale(weight="mass")}), "no edge has a number 'mass' .*weight"),
    "numbers that differ in a tie": (
        lambda: drawn(edges({"weight": 1.0, "tie": "t"}, {"weight": 2.0, "tie": "t"}), {"edge": dx.scale(weight="weight")}),
        r"one number for all tied edges, but differs on \('a', 'c'\)"),
    "a tie of several shapes": (
        lambda: drawn(with_shape(edges({"tie": "t"}, {"tie": "t"}), "c", 2)),
        r"tie 't' of kind 'edge' joins edges whose parameters have different shapes: .*\('a', '[bc]'\)"),
    "a tie of several kinds": (
        lambda: drawn(edges({"tie": "t"}, {"tie": "t", "kind": "come"}), {"edge": dx.dense(), "come": dx.dense()}),
        r"tie 't' joins edges of several kinds: \('a', '[bc]'\) of kind"),
    "complex nodes": (lambda: drawn(edges(dtype="complex64")), "nodes 'a', 'b', 'c' are complex"),
    "an edge of several": (
        lambda: CASES["parallel"].network()["a", "b"], r"\('a', 'b'\) is ambiguous: .*'x', 'y'"),
    "an edge of another key": (
        lambda: CASES["parallel"].network()["a", "b", "z"], "there is no edge .*keys 'x', 'y'"),
    "a module of another shape": (
        lambda: NETWORK.replace_val((0, 1), NETWORK[1, 2]), r"is a Dense of float32\(4, 3\), but got Dense of float32\(2, 4\)"),
    "one edge of a tie": (
        lambda: CASES["tied"].network().replace_val(("a", "b"), CASES["tied"].network()["t"]), r"is tied: name the tie, replace_val\('t'"),
    # what is not called
    "dense not called": (
        lambda: network(couplings=COUPLINGS | {"forward": dx.dense}),
        r"call it, as in dx\.dense\(\.\.\.\)",
    ),
    "relay not called": (
        lambda: network(couplings=COUPLINGS | {"forward": dx.relay}),
        r"dx\.relay\(",
    ),
    "leaky not called": (lambda: network(activations=dx.leaky), r"dx\.leaky\("),
    "glauber not called": (
        lambda: network(activations={"hidden": dx.glauber, "output": dx.tanh}),
        r"dx\.glauber\(",
    ),
    "bias not called": (lambda: network(biases={"hidden": dx.bias}), r"dx\.bias\("),
    "schedule not called": (
        lambda: dx.step(NETWORK, STATE, schedule=dx.synchronous),
        r"dx\.synchronous\(",
    ),
    "adjoint not called": (
        lambda: dx.relax(NETWORK, STATE, adjoint=dx.implicit),
        r"dx\.implicit\(",
    ),
    # words of other functions
    "steps of relax": (lambda: dx.relax(NETWORK, STATE, steps=5), "`max_steps`"),
    "tolerance of relax": (lambda: dx.relax(NETWORK, STATE, tolerance=1e-3), "`tol`"),
    "max_steps of rollout": (lambda: dx.rollout(NETWORK, STATE, max_steps=3), "`steps`"),
    "steps of step": (lambda: dx.step(NETWORK, STATE, steps=3), "dx.rollout"),
    # dynamics
    "unknown nodes in a clamp": (
        lambda: stepped(clamp=["nobody"]), "`clamp` names 'nobody', which the topology does not have; its nodes are 0, 1, 2"),
    "unknown nodes in masks": (lambda: stepped(clamp={7: True}), "`clamp` names 7"),
    "a clamp as text": (lambda: stepped(clamp="h"), r"`clamp` is a sequence of names, but got 'h'; write \['h'\]"),
    "a mask of another shape": (
        lambda: stepped(clamp={1: np.ones(3, bool)}), r"`clamp` for node 1 is a mask of shape \(4,\) or \(2, 4\), but got \(3,\)"),
    "unknown nodes in silence": (lambda: stepped(silence=[9, 1]), "`silence` names 9, which"),
    "unknown kinds": (
        lambda: stepped(kinds=["sideways"]), "`kinds` names 'sideways', which no edge has; the edge kinds are 'backward'"),
    "unknown nodes in a drive": (lambda: stepped(drive={9: np.ones(4)}), "`drive` names 9"),
    "a function that drives by another shape": (
        lambda: stepped(drive={1: lambda state: jnp.ones(5)}), "`drive` for node 1"),
    "a drive on a held node": (
        lambda: dx.step(NETWORK, STATE, drive={0: jnp.ones(3)}),
        "`drive` would move nodes 0.*held",
    ),
    "a mask of numbers": (
        lambda: dx.step(NETWORK, STATE, clamp={1: jnp.ones(4)}),
        "`clamp` takes masks of bool",
    ),
    "a complex drive": (lambda: dx.step(NETWORK, STATE, drive={1: np.ones(4) * 1j}), "is real"),
    "a drive of another shape": (
        lambda: dx.step(NETWORK, STATE, drive={1: jnp.ones(5)}),
        r"shape \(4,\) or \(2, 4\)",
    ),
    "a drive that is infinite in float32": (
        lambda: dx.step(NETWORK, STATE, drive={1: np.full(4, 1e39)}),
        "infinite as float32",
    ),
    "keys for another number of samples": (
        lambda: stepped(schedule=dx.asynchronous(0.5), key=jax.random.split(KEY, 3)),
        r"one for each of the 2 samples, but got keys of shape \(3,\)"),
    "a schedule that draws without a key": (
        lambda: stepped(schedule=dx.asynchronous(0.5)), "`key` is missing: `asynchronous`"),
    "random units without a key": (lambda: stepped(NOISY), "`key` is missing: nodes of kind .* are random"),
    "random units that should rest": (
        lambda: dx.relax(NOISY, STATE, key=KEY), r"nodes of kind .* are random \(glauber\) and never rest; use rollout"),
    "a state of another topology": (
        lambda: dx.step(NETWORK, dx.GraphState(dx.Topology(edges()))), "`state` belongs to another topology"),
    # analysis
    "more eigenvalues than free cells": (
        lambda: dx.spectrum(NETWORK, STATE, 5, clamp={1: np.array([[True] * 2 + [False] * 2, [False] * 4])}),
        "`k` is at most the number of cells that are free to move, 4 in sample 0, but got 5; ask for fewer"),
    "eigenvalues where nothing moves": (
        lambda: dx.spectrum(NETWORK, STATE, kinds=[]), "free to move, 0 in sample 0"),
    "a spectrum of units that jump": (
        lambda: dx.spectrum(SIGNS, STATE), r"kind 'hidden' have no derivative \(sign\), and a Jacobian.*dx.lyapunov"),
    "a spectrum of random units": (lambda: dx.spectrum(NOISY, STATE), r"random \(glauber\), so that a pass is no map"),
    "a spectrum of a random schedule": (
        lambda: dx.spectrum(NETWORK, STATE, schedule=dx.asynchronous(0.5)), "`asynchronous` visits .* no map"),
    "a spectrum inside of a program": (
        lambda: jax.jit(lambda state: dx.spectrum(NETWORK, state))(STATE), "`dx.spectrum` looks at numbers.*call it outside"),
    "the stability of random units": (lambda: dx.stable(NOISY, STATE), r"random \(glauber\)"),
    "the stability of smooth units that take random turns": (
        lambda: dx.stable(NETWORK, STATE, schedule=dx.asynchronous(0.5)), "`asynchronous` visits"),
    "stability inside of a program": (
        lambda: jax.jit(lambda state: dx.stable(NETWORK, state))(STATE), "`dx.stable` looks at numbers"),
    "fixed points of random units": (lambda: dx.fixed_points(NOISY, STATE, key=KEY), "never rest; use rollout"),
    "fixed points inside of a program": (
        lambda: jax.jit(lambda state: dx.fixed_points(NETWORK, state).counts)(STATE), "`dx.fixed_points` looks at numbers"),
    "Newton's method for units that jump": (
        lambda: dx.fixed_points(SIGNS, STATE, newton=True), "kind 'hidden' have no derivative .*Newton's method needs one"),
    "Newton's method without a tolerance": (
        lambda: dx.fixed_points(NETWORK, STATE, newton=True, tol=0), "`tol` is a finite number above 0"),
    "tolerance of fixed_points": (lambda: dx.fixed_points(NETWORK, STATE, tolerance=1e-3), "`tol`"),
    "more exponents than free cells": (
        lambda: dx.lyapunov(NETWORK, STATE, 2, 7), "`k` is at most the number of cells that are free to move, 6 in"),
    "several exponents of sign units": (
        lambda: dx.lyapunov(SIGNS, STATE, 2, 2, key=KEY), "`k` is 1 for units of two states, but got 2"),
    "flips without a key": (lambda: dx.lyapunov(SIGNS, STATE, 2), "`key` is missing: which unit is flipped is drawn"),
    "exponents of both": (
        lambda: dx.lyapunov(network(activations={"hidden": dx.sign, "output": dx.tanh}), STATE, 2, key=KEY),
        "kinds 'output' are smooth and nodes of kinds 'hidden' are not.*`clamp`"),
    "exponents of slow units that jump": (
        lambda: dx.lyapunov(network(activations=dx.leaky(0.5, dx.sign)), STATE, 2, key=KEY),
        "kinds 'hidden', 'output' have no derivative and more than two states"),
    "max_steps of lyapunov": (lambda: dx.lyapunov(NETWORK, STATE, max_steps=3), "`steps`"),
    "steps of spectrum": (lambda: dx.spectrum(NETWORK, STATE, n=3), "`k`"),
    "patterns of unknown nodes": (lambda: dx.overlaps(STATE, {9: jnp.ones((1, 4))}), "`patterns` names 9"),
    "patterns of another shape": (
        lambda: dx.overlaps(STATE, {1: jnp.ones((2, 5))}), r"`patterns` for node 1 has shape \(B, 4\)"),
    "patterns of several numbers": (
        lambda: dx.overlaps(STATE, {1: jnp.ones((2, 4)), 2: jnp.ones((3, 2))}), "`patterns` for node 2 .*a batch of 3"),
    "no patterns": (lambda: dx.overlaps(STATE, {}), "`patterns` is empty"),
    "patterns of another topology": (
        lambda: dx.overlaps(STATE, dx.GraphState(dx.Topology(edges()))), "`patterns` belong to another topology"),
    # sampling
    "temperatures for another number of samples": (
        lambda: dx.rollout(dx.at_temperature(NOISY, [1.0, 2.0, 3.0]), STATE, 2, key=KEY),
        r"`activations\['hidden'\]` \(glauber\) holds numbers for 3 samples, but the state has a batch of 2.*at_temperature"),
    "a negative temperature among others": (lambda: dx.at_temperature(NOISY, [1.0, -2.0]), "`temperature` .*but got -2.0"),
    "a matrix of temperatures": (lambda: dx.glauber(np.ones((2, 2))), r"`temperature` is a number of at least 0, or an array \(B,\)"),
    "a temperature of smooth units": (lambda: dx.at_temperature(NETWORK, 1.0), "no units with a temperature, but tanh"),
    "a course for another number of samples": (
        lambda: dx.anneal(NOISY, STATE, np.ones((4, 3)), key=KEY), "holds numbers for 3 samples"),
    "a course below zero": (lambda: dx.anneal(NOISY, STATE, [1.0, -0.5], key=KEY), "`temperatures` .* got -0.5"),
    "a course by another word": (lambda: dx.anneal(NOISY, STATE, steps=3, key=KEY), "`temperatures`"),
    "a ladder of another length": (
        lambda: tempered(temperatures=[1.0, 2.0, 3.0]), "holds numbers for 3 samples, but the state has a batch of 2"),
    "a ladder down to zero": (lambda: tempered(temperatures=[0.0, 1.0]), "`temperatures` is a number above 0"),
    "one temperature for a ladder": (lambda: tempered(temperatures=1.0), "`temperatures` is an array of temperatures"),
    "several keys for a ladder": (lambda: tempered(key=jax.random.split(KEY, 2)), "`key` is one key"),
    "an energy of another shape": (
        lambda: tempered(energy=lambda state: state[2]), r"`energy` is one real number for each of the 2 samples.*float32\[2, ?2\]"),
    "masks that differ along a ladder": (
        lambda: tempered(clamp={1: np.eye(4, dtype=bool)[:2]}), "`clamp` holds other cells in each sample at nodes 1"),
    "targets that differ along a ladder": (
        lambda: tempered(drive={1: dx.nudge(1, np.arange(8.0).reshape(2, 4), 0.1)}), "`drive` differs by sample at nodes 1"),
    "a drive that differs along a ladder": (
        lambda: tempered(drive={1: np.ones((2, 4))}), "`drive` differs by sample at nodes 1"),
    "inputs that differ along a ladder": (
        lambda: tempered(state=STATE.replace_val(0, np.eye(3)[:2])), "`state` has other values in each sample at nodes 0"),
    "held values that differ along a ladder": (
        lambda: tempered(state=STATE.replace_val(1, np.eye(4)[:2]), clamp={1: np.array([True, False, False, False])}),
        "`state` has other values in each sample at nodes 1"),
    "exchange of others": (lambda: swapped(temperatures=[1.0, 2.0, 3.0]), "one for each of the 2 samples"),
    # schedules
    "text among groups": (lambda: dx.groups(["ab", "c"]), r"`members\[0\]` is a sequence of names"),
    "groups that leave nodes out": (
        lambda: stepped(schedule=dx.groups([[1]])), "`schedule` leaves out nodes 2"),
    "groups that repeat nodes": (
        lambda: stepped(schedule=dx.groups([[1, 2], [1]])), "`schedule` repeats nodes 1; name each once"),
    "groups of unknown nodes": (lambda: stepped(schedule=dx.groups([[1, 2, 9]])), "`schedule` names 9"),
    "an order that leaves nodes out": (
        lambda: stepped(schedule=dx.node_by_node([1])), "`schedule` leaves out nodes 2"),
    "an order that repeats nodes": (
        lambda: stepped(schedule=dx.unit_by_unit([2, 1, 1])), "`schedule` repeats nodes 1"),
    "one colour for neighbours": (
        lambda: stepped(schedule=dx.coloured(dict.fromkeys(range(3), 0))), r"gives both ends of edges \(1, 2\).* one colour"),
    "colours that leave nodes out": (
        lambda: stepped(schedule=dx.coloured({1: 0})), "`schedule` leaves out nodes 2"),
    "visits that leave nodes out": (
        lambda: stepped(schedule=lambda topology, movable: [[1]]), "`schedule` leaves out nodes 2"),
    "visits of unknown positions": (
        lambda: stepped(schedule=lambda topology, movable: [[1, 2, 9]]), "`schedule` is visits to positions from 0 to 2"),
    "visits of floats": (
        lambda: stepped(schedule=lambda topology, movable: [[1.5]]), "`schedule` is visits to positions"),
    "visits as a number": (
        lambda: stepped(schedule=lambda topology, movable: 7), "`schedule` is a schedule of visits"),
    "numbers as visits": (
        lambda: stepped(schedule=lambda topology, movable: [7]), "`schedule` is a list of visits, each a list of positions"),
    "groups that split a block": (
        lambda: rested(CASES["views"].network(), schedule=lambda topology, movable: [[i] for i in np.flatnonzero(movable)]),
        "`schedule` splits a block: nodes .* overlap"),
    "a schedule that cannot be hashed": (
        lambda: stepped(schedule=Loose()), "`schedule` is equal by content and hashable"),
    # numbers and factories
    "a fraction of 0": (lambda: dx.asynchronous(0), "`fraction` is a finite number above 0 and of at most 1"),
    "a rate above 1": (
        lambda: dx.leaky(1.5, dx.tanh), "`rate` is a finite number above 0 and of at most 1, but got 1.5"),
    "a gain that is infinite in float32": (lambda: dx.dense(1e39), "`gain` is a finite number"),
    "a gain that no float holds": (lambda: dx.dense(10**400), "`gain` is a finite number"),
    "a fraction that no float holds": (
        lambda: dx.asynchronous(10**400),
        "`fraction` is a finite number",
    ),
    "a kernel as an array without axes": (
        lambda: dx.conv(np.array(3)),
        "`kernel` is one positive int",
    ),
    "a leak of a leak without a state": (
        lambda: dx.leaky(0.1, dx.leaky(0.2, dx.tanh))(jnp.ones(3)),
        "`state` is missing",
    ),
    "a factory called without a key": (
        lambda: dx.dense()((3,), (4,)),
        "`key` is missing: this coupling draws",
    ),
    "a matrix that no memory holds": (
        lambda: dx.dense()((500, 500), (500_000, 50), KEY),
        "GiB",
    ),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_get_the_fix(slip):
    call, words = SLIPS[slip]
    with pytest.raises((TypeError, ValueError, KeyError), match=words):
        call()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "coupling",
    [dx.scale(weight="weight"), dx.scale(weight="weight", fixed=True), dx.dense(factor="weight")],
)
def test_numbers_on_edges_that_are_not_finite_are_refused_where_they_are_read(value, coupling):
    graph = nx.DiGraph([("a", "b", {"weight": 1.0}), ("b", "a", {"weight": value})])
    nx.set_node_attributes(graph, 2, "shape")
    with pytest.raises(
        ValueError, match=r"'weight' is not finite on \('b', 'a'\); give a finite number"
    ):
        dx.Network(dx.Topology(graph), {"edge": coupling}, dx.identity, key=KEY)


def test_numbers_on_edges_that_no_coupling_reads_are_spoken_about():
    graph = nx.DiGraph([("a", "b", {"delay": 3}), ("b", "a", {"delay": 1, "weight": 0.5})])
    nx.set_node_attributes(graph, 2, "shape")
    topology = dx.Topology(graph)
    with pytest.warns(UserWarning, match="is read by no coupling") as said:
        dx.Network(topology, {"edge": dx.relay()}, dx.identity, key=KEY)
    words = [str(warning.message) for warning in said]
    assert any(
        "edge attribute 'delay' on ('a', 'b') is read by no coupling" in word for word in words
    )  # 1 says nothing
    assert any(
        "edge attribute 'weight' on ('b', 'a') is read by no coupling" in word for word in words
    )


def test_numbers_that_a_factory_of_the_user_reads_are_read():
    graph = nx.DiGraph([("a", "b", {"delay": 3})])
    nx.set_node_attributes(graph, 2, "shape")

    def factory(sender, receiver, *, edges):
        delay = edges["delay"]
        return dx.scale(2.0)(sender, receiver) if delay is not None else None

    dx.Network(dx.Topology(graph), {"edge": factory}, dx.identity, key=KEY)
