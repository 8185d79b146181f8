"""Saving by name: every kind of tree comes back bit for bit, in another process too, and goes over
to other topologies; what a hostile file says is refused."""

import enum
import gc
import json
import os
import subprocess
import sys
import textwrap
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from helpers import CASES
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

import darnax as dx
from darnax.files.container import BLANK, SEAL, blake2b
from darnax.files.pieces import Tree
from darnax.testing import random_state
from darnax.topologies import serial
from darnax.topologies.read_networkx import read_graph

KEY = jax.random.key(0)


def other(tree):
    """The tree with other numbers in every piece, and everything else as it is."""
    pieces = Tree("tree", tree)
    for piece in pieces.pieces.values():
        for stack in piece.stacks.values():
            for leaf in stack.leaves.values():
                value = leaf.read()
                changed = ~value if value.dtype == bool else value + np.ones((), value.dtype)
                pieces.put(leaf.name, np.asarray(changed))
    return pieces.tree()


def same(a, b):
    """Equal in structure, types and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(one) is type(two)
        if eqx.is_array(one):
            assert one.dtype == two.dtype
            if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
                one, two = jax.random.key_data(one), jax.random.key_data(two)
            assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
        else:
            assert one == two


cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cases
def test_networks_and_states_come_back(tmp_path, case):
    network = case.network()
    tree = {"network": network, "state": random_state(network.topology, 3)}
    dx.save(tmp_path / "file", tree)
    changed = other(tree)
    if jax.tree.leaves(network.couplings):
        with pytest.raises(AssertionError):
            same(changed, tree)
    same(dx.load(tmp_path / "file", like=changed), tree)


def teaching(network, rules=("forward",)):
    """A network, the memory of its optimiser, a solution, a history and a key, as one tree."""
    params, _ = dx.partition(network, dict.fromkeys(rules, dx.hebbian()))
    rates = dict.fromkeys(network.topology.edge_kinds, optax.adam(0.1)) | {"hidden": optax.sgd(0.1)}
    optimiser = optax.multi_transform(rates, params.labels())
    memory = optimiser.init(params)
    _, memory = optimiser.update(jax.tree.map(jnp.ones_like, params), memory, params)
    state = random_state(network.topology, 2)
    return {
        "network": network,
        "memory": memory,
        "solution": dx.relax(network, state, max_steps=3),
        "history": dx.History([{"accuracy": 0.5}, {"accuracy": float("nan"), "loss": np.inf}]),
        "key": KEY,
        "epoch": 3,
        "rate": 0.1,
        "complex": 1 + 2j,
        "name": "a run",
        "done": True,
        "numpy": np.float64(0.1),
        "wide": np.asarray([0.1, 1e300]),
    }


CHAIN = dx.Topology(dx.topologies.sequential([3, 4, 2]))


def chain(key=KEY):
    couplings = {
        "forward": dx.dense(),
        "backward": dx.dense(),
        "recurrent": dx.dense(self_coupling=0.5),
    }
    return dx.Network(
        CHAIN, couplings, dx.leaky(0.5, dx.tanh), biases={"hidden": dx.bias(0.5)}, key=key
    )


def test_whole_runs_come_back(tmp_path):
    with jax.numpy_dtype_promotion("standard"):
        tree = teaching(chain())
        like = teaching(chain(key=jax.random.key(1)))
    like |= {
        "history": dx.History(),
        "key": jax.random.key(7),
        "epoch": 0,
        "rate": 1.0,
        "complex": 0j,
    }
    like |= {"name": "", "done": False, "numpy": np.float64(0), "wide": np.zeros(2)}
    dx.save(tmp_path / "file", tree, {"why": "a test"})
    back = dx.load(tmp_path / "file", like=like)
    assert back["history"].rows[0] == {"accuracy": 0.5}
    np.testing.assert_array_equal(back["history"]["accuracy"], tree["history"]["accuracy"])
    tree.pop("history"), back.pop("history")
    same(back, tree)
    assert back["wide"].flags.writeable
    assert dx.files.load_facts(tmp_path / "file") == {"why": "a test"}


def test_what_has_no_network_comes_back(tmp_path):
    class Colour(enum.StrEnum):
        RED = "red"
        BLUE = "blue"

    topology = CHAIN
    state = dx.SequentialState([2, 3]).init(jnp.ones((2, 2)))
    tree = [state, Colour.RED, topology.to_json(), eqx.nn.MLP(2, 2, 3, 1, key=KEY)]
    dx.save(tmp_path / "file", tree)
    like = [other(state), Colour.BLUE, "", eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(1))]
    back = dx.load(tmp_path / "file", like=like)
    assert back[1] is Colour.RED
    same(back[:3], tree[:3])
    same(*(eqx.filter(mlp, eqx.is_array) for mlp in (back[3], tree[3])))
    dx.save(tmp_path / "file", 3)
    assert dx.load(tmp_path / "file", like=0) == 3


def test_ensembles_and_stacks_come_back(tmp_path):
    networks = eqx.filter_vmap(lambda key: chain(key=key))(jax.random.split(KEY, 5))
    states = jax.tree.map(
        lambda leaf: jnp.stack([leaf, 2 * leaf]), random_state(networks.topology, 3)
    )
    dx.save(tmp_path / "file", (networks, states))
    same(dx.load(tmp_path / "file", like=other((networks, states))), (networks, states))


def test_numbers_come_back_on_the_devices_of_like(tmp_path):
    first, second = jax.devices()[:2]
    dx.save(tmp_path / "file", jax.device_put(jnp.arange(3.0), first))
    back = dx.load(tmp_path / "file", like=jax.device_put(jnp.zeros(3), second))
    assert back.devices() == {second}


LOADED = """
    import sys
    sys.path.insert(0, "tests")
    import jax, numpy as np
    import darnax as dx
    from darnax.testing import random_state
    from helpers import CASES

    for name in sys.argv[2:]:
        network = CASES[name].network()
        like = {"network": network, "state": dx.GraphState(network.topology, 3)}
        back = dx.load(f"{sys.argv[1]}/{name}", like=jax.tree.map(lambda x: 0 * x if x.dtype.kind == "f" else x, like))
        print(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(back)).hex())
"""


def test_another_process_loads_the_same_bits(tmp_path):
    names = ["views", "tied", "both ends"]
    expected = []
    for name in names:
        network = CASES[name].network()
        tree = {"network": network, "state": random_state(network.topology, 3)}
        dx.save(tmp_path / name, tree)
        expected.append(
            b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)).hex()
        )
    script = [sys.executable, "-c", textwrap.dedent(LOADED), str(tmp_path), *names]
    run = subprocess.run(
        script, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    )
    assert run.stdout.split() == expected


# other topologies


def drawn(edges, nodes="abcd", shapes=(), multi=False, ties=()):
    graph = nx.MultiDiGraph() if multi else nx.DiGraph()
    for node in nodes:
        graph.add_node(node, shape=dict(shapes).get(node, 3))
    for edge in edges:
        kind = "loop" if edge[0] == edge[1] else "edge"
        tie = {"tie": "t"} if edge in ties else {}
        graph.add_edge(*edge, kind=kind, **tie)
    return graph


def made(graph, seed, **kinds):
    topology = dx.Topology(graph)
    couplings = {"edge": dx.dense(), "loop": dx.dense(self_coupling=0.5)} | kinds
    couplings = {kind: couplings[kind] for kind in topology.edge_kinds}
    init = jax.nn.initializers.normal()
    return dx.Network(
        topology, couplings, dx.tanh, biases={"node": dx.bias(init)}, key=jax.random.key(seed)
    )


def weights(network):
    return {edge: np.asarray(network[edge].weight) for edge in network.topology.edges}


def memory_of(optimiser, network):
    return optimiser.init(dx.partition(network, dict.fromkeys(network.topology.edge_kinds, 0))[0])


def biases(network):
    found = {}
    for array, bias in network.biases["node"].items():
        position = list(network.topology.arrays).index(array)
        members = network.topology.layout.members[position]
        found |= dict(
            zip([network.topology.nodes[i] for i in members], np.asarray(bias), strict=True)
        )
    return found


OLD = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "c"), ("a", "d")]

CHANGES = {
    "the same": (drawn(OLD), {}),
    "another order": (drawn(OLD[::-1], nodes="dbca"), {}),
    "nodes and edges more": (drawn([*OLD, ("e", "a"), ("d", "e"), ("e", "e"), ("d", "c")], nodes="eabcd"), {}),
    "nodes and edges less": (drawn([("c", "c"), ("c", "a")], nodes="ca"), {}),
    "another shape": (drawn(OLD, shapes={"a": 5}), {}),
    "parallel": (drawn([*OLD, ("a", "b")], multi=True), {}),
    "renamed": (
        nx.relabel_nodes(drawn([*OLD, ("b", "d")]), {"a": "b", "b": "a", "c": ("z", 1)}),
        {"a": "b", "b": "a", "c": ("z", 1)},
    ),
    "none in common": (drawn([("x", "y")], nodes="xy"), {}),
}  # fmt: skip


@pytest.mark.parametrize("way", ["carry", "load"])
@pytest.mark.parametrize(("graph", "renamed"), CHANGES.values(), ids=CHANGES)
def test_what_has_a_name_keeps_its_numbers(tmp_path, graph, renamed, way):
    """Weights, biases, the memory of an optimiser and buffers, by a plain loop over names."""
    old, fresh = made(drawn(OLD), 0), made(graph, 1)
    optimiser = optax.adam(0.1)
    tree, into = [
        {"n": net, "m": memory_of(optimiser, net), "s": random_state(net.topology, 2, seed)}
        for seed, net in enumerate((old, fresh))
    ]
    # the memory of an optimiser holds networks, here of ones and of zeros
    tree["m"] = other(tree["m"])
    if way == "load":
        dx.save(tmp_path / "file", tree)
        back, report = dx.load(tmp_path / "file", like=into, strict=False, renamed=renamed)
    else:
        back, report = dx.carry(tree, into=into, renamed=renamed)

    def name(edge):
        u, v, *key = edge
        return renamed.get(u, u), renamed.get(v, v), *(key or [0])

    moved = {name(edge): edge for edge in old.topology.edges}
    carried, new = set(), set()
    for edge in fresh.topology.edges:
        before = moved.get((*edge, 0)[:3])
        fits = before is not None and all(
            old.topology.shape(one) == fresh.topology.shape(two)
            for one, two in zip(before[:2], edge[:2], strict=True)
        )
        (carried if fits else new).add(edge)
        expected = old[before].weight if fits else fresh[edge].weight
        np.testing.assert_array_equal(back["n"][edge].weight, expected)
        number = 1.0 if fits else 0.0
        np.testing.assert_array_equal(back["m"][0].mu[edge].weight, np.full_like(expected, number))
    before = {renamed.get(node, node): (node, value) for node, value in biases(old).items()}
    for node, value in biases(back["n"]).items():
        _, expected = before.get(node, (None, None))
        fits = expected is not None and expected.shape == value.shape
        np.testing.assert_array_equal(value, expected if fits else biases(fresh)[node])
        source = tree["s"][before[node][0]] if fits else into["s"][node]
        np.testing.assert_array_equal(back["s"][node], source)

    def told(what):
        return {
            edge for kind in ("edge", "loop") for edge in what.get(f"['n'].couplings['{kind}']", ())
        }

    assert told(report.carried) == carried
    assert told(report.new) == new
    gone = {
        edge
        for edge in old.topology.edges
        if (*name(edge), 0)[:3] not in {(*e, 0)[:3] for e in carried}
    }
    assert told(report.dropped) == gone
    # what was carried is a network like any other
    dx.step(back["n"], back["s"])


def test_ties_go_over_as_one(tmp_path):
    ties = [("a", "b"), ("b", "c")]
    old = made(drawn(OLD, ties=ties), 0)
    fresh = made(drawn([*OLD, ("d", "a")], ties=[*ties, ("d", "a")]), 1)
    loose = made(drawn(OLD), 2)
    dx.save(tmp_path / "file", old)
    back, report = dx.load(tmp_path / "file", like=fresh, strict=False)
    np.testing.assert_array_equal(back["t"].weight, old["t"].weight)
    np.testing.assert_array_equal(back["c", "a"].weight, old["c", "a"].weight)
    assert report.new == {}
    back, report = dx.load(tmp_path / "file", like=loose, strict=False)
    np.testing.assert_array_equal(back["a", "b"].weight, loose["a", "b"].weight)
    assert report.new == {".couplings['edge']": (("a", "b"), ("b", "c"))}
    assert report.dropped == {".couplings['edge'] tied as 't'": ()}


def test_numbers_that_tied_edges_have_each_for_itself_go_by_edge():
    def network(edges, seed):
        graph = nx.DiGraph()
        graph.add_nodes_from("abc", shape=2)
        for i, (u, v) in enumerate(edges):
            graph.add_edge(u, v, tie="t", strength=float(10 * seed + i))
        return dx.Network(
            dx.Topology(graph), {"edge": dx.dense(factor="strength")}, dx.tanh, key=KEY
        )

    old = network([("a", "b"), ("b", "c")], 1)
    fresh = network([("b", "c"), ("c", "a"), ("a", "b")], 2)
    back, report = dx.carry(old, into=fresh)
    strengths = {edge: float(back[edge].factor.value) for edge in back.topology.edges}
    assert strengths == {("a", "b"): 10.0, ("b", "c"): 11.0, ("c", "a"): 21.0}
    assert report.new == {".couplings['edge'] tied as 't', edge by edge": (("c", "a"),)}


def test_cells_of_shared_arrays_go_over():
    def network(indices, seed, size=6):
        graph = nx.DiGraph(arrays={"line": size})
        for name, index in indices.items():
            graph.add_node(name, array="line", index=index, kind="view")
        graph.add_edge(*list(indices)[:2])
        init = jax.nn.initializers.normal()
        biases = {"view": dx.bias(init)}
        return dx.Network(
            dx.Topology(graph),
            {"edge": dx.dense()},
            dx.tanh,
            biases=biases,
            key=jax.random.key(seed),
        )

    old = network({"a": slice(0, 3), "b": slice(1, 4)}, 0)
    fresh = network({"a": slice(0, 3), "b": slice(3, 6)}, 1)
    back, report = dx.carry(old, into=fresh)
    expected = np.asarray(fresh.biases["view"]["line"]).copy()
    expected[:4] = old.biases["view"]["line"][:4]
    np.testing.assert_array_equal(back.biases["view"]["line"], expected)
    assert report.new[".biases['view']['line']"] == ((4,), (5,))
    fewer = network({"a": slice(0, 2), "b": slice(1, 3)}, 1)
    back, report = dx.carry(old, into=fewer)
    np.testing.assert_array_equal(back.biases["view"]["line"][3:], [0, 0, 0])
    assert report.dropped[".biases['view']['line']"] == ((3,),)
    longer = network({"a": slice(0, 3), "b": slice(1, 4)}, 1, size=7)
    same(dx.carry(old, into=longer)[0].biases, longer.biases)


def test_ensembles_go_over_edge_by_edge():
    keys = jax.random.split(KEY, 5)
    topologies = [
        dx.Topology(drawn(edges)) for edges in (OLD[:3], [("b", "c"), ("d", "a"), ("a", "b")])
    ]
    old, fresh = [
        eqx.filter_vmap(lambda key, of=of: dx.Network(of, {"edge": dx.dense()}, dx.tanh, key=key))(
            keys
        )
        for of in topologies
    ]
    back, _ = dx.carry(old, into=fresh)
    for i in range(5):
        one, before, mine = [
            jax.tree.map(lambda leaf, i=i: leaf[i], net) for net in (back, old, fresh)
        ]
        np.testing.assert_array_equal(one["a", "b"].weight, before["a", "b"].weight)
        np.testing.assert_array_equal(one["b", "c"].weight, before["b", "c"].weight)
        np.testing.assert_array_equal(one["d", "a"].weight, mine["d", "a"].weight)


def test_a_carryover_is_a_table():
    old, fresh = made(drawn(OLD), 0), made(drawn([*OLD, ("d", "a")], shapes={"b": 4}), 1)
    _, report = dx.carry(
        {"net": old, "steps": 3, "old": 1}, into={"net": fresh, "steps": 0, "new": 2}
    )
    words = str(report).splitlines()
    assert words[0].split() == ["part", "carried", "over", "new", "dropped"]
    assert (
        "['net'].couplings['edge']  2 edges       edges ('a', 'b'), ('b', 'c'), ('d', 'a')  edges ('a', 'b'), ('b', 'c')"
        in words
    )
    assert "['net'].couplings['loop']  1 edge" in words
    assert [line.split() for line in words if "steps" in line or "old" in line or "new']" in line] == [
        ["['new']", "yes"], ["['steps']", "yes"], ["['old']", "yes"],
    ]  # fmt: skip
    assert repr(report) == "Carryover(7 carried, 5 new, 4 dropped)"


def test_a_carryover_outlives_the_file_and_the_trees(tmp_path):
    """Names of what was dropped are in the file alone, which is closed and may be gone."""
    tree = {"net": made(drawn(OLD), 0), "state": random_state(CHAIN, 2), "steps": 3}
    dx.save(tmp_path / "file", tree)
    _, report = dx.load(tmp_path / "file", like={"steps": 0}, strict=False)
    (tmp_path / "file").unlink()
    assert report.dropped["['net'].couplings['loop']"] == (("c", "c"),)
    assert report.dropped["['state'].arrays"] == (0, 1, 2)
    assert "edge ('c', 'c')" in str(report)
    _, report = dx.carry(tree, into={"steps": 0})
    leaf = weakref.ref(tree["net"].couplings["loop"][0].weight)
    del tree
    gc.collect()
    assert leaf() is None
    assert report.dropped["['state'].arrays"] == (0, 1, 2)


# refusals


def test_what_does_not_fit_is_listed_by_name(tmp_path):
    path = tmp_path / "file"
    dx.save(path, {"net": made(drawn(OLD), 0), "epoch": 3})
    fresh = made(drawn([*OLD[1:], ("d", "a")], shapes={"d": 4}), 1)
    with pytest.raises(ValueError, match="does not fit") as raised:
        dx.load(path, like={"net": fresh, "epoch": 2.0, "more": 1})
    for words in (
        f"`path` {str(path)!r} does not fit: ",
        "edge ('d', 'a') of ['net'].couplings['edge'] is missing",
        "edge ('a', 'b') of ['net'].couplings['edge'] is left over",
        "edge ('a', 'd') of ['net'].couplings['edge'] is of another shape or type there",
        "node 'd' of ['net'].biases['node'] is of another shape or type there",
        "['epoch'] is int() in the file and float() here",
        "['more'] is missing",
        "; load it into what was saved, or carry over what fits with strict=False",
    ):
        assert words in str(raised.value)
    dx.save(path, (jax.random.key(0), np.zeros(3)))
    with pytest.raises(
        ValueError, match=r"\[0\] is key<threefry2x32>\(2,\) in the file and key<rbg>\(4,\) here"
    ):
        dx.load(path, like=(jax.random.key(0, impl="rbg"), np.zeros(3)))
    with pytest.raises(
        ValueError, match=r"\[1\] is float64\(3,\) in the file and float32\(3,\) here"
    ):
        dx.load(path, like=(KEY, jnp.zeros(3)))


REFUSED = {
    "traced": (lambda path: jax.jit(lambda x: dx.save(path, {"x": x}))(1.0), TypeError, r"leaf \['x'\] of `tree` is a traced value.*outside of jit"),
    "traced like": (lambda path: jax.jit(lambda x: dx.load(path, x))(1.0), TypeError, r"leaf itself of `like` is a traced value"),
    "promised": (lambda path: dx.load(path, jax.eval_shape(lambda: jnp.zeros(3))), TypeError, r"is ShapeDtypeStruct.*give arrays"),
    "objects": (lambda path: dx.save(path, [np.asarray([None])]), TypeError, r"leaf \[0\] of `tree` is an array of object; give numbers"),
    "texts": (lambda path: dx.save(path, np.asarray(["a"])), TypeError, r"is an array of <U1; give numbers"),
    "strict": (lambda path: dx.load(path, 3, strict=1), TypeError, r"`strict` is True or False, but got 1"),
    "renamed": (lambda path: dx.load(path, 3, renamed=["a"]), TypeError, r"`renamed` is a mapping"),
    "unknown": (lambda path: dx.carry(made(drawn(OLD), 0), made(drawn(OLD), 0), renamed={"x": "a"}), ValueError, r"`renamed` names 'x', which no topology has before"),
    "unknown now": (lambda path: dx.carry(made(drawn(OLD), 0), made(drawn(OLD), 0), renamed={"a": "y"}), ValueError, r"`renamed` names 'y', which no topology has now"),
    "two into one": (lambda path: dx.carry(made(drawn(OLD), 0), made(drawn(OLD), 0), renamed={"a": "b"}), ValueError, r"`renamed` makes one node of several: 'b'"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_slips_are_named(tmp_path, call, error, words):
    dx.save(tmp_path / "file", 3)
    with pytest.raises(error, match=words):
        call(tmp_path / "file")


# hostile files


def sealed(data: bytes) -> bytes:
    """The bytes of a file with another seal, one that is right."""
    found = SEAL.search(data)
    blank = data[: found.start(1)] + BLANK + data[found.end(1) :]
    seal = blake2b(blank, digest_size=32).hexdigest().encode()
    return data[: found.start(1)] + seal + data[found.end(1) :]


def rewritten(data: bytes, change) -> bytes:
    """A file whose arrays and texts were changed by `change`, and which was sealed anew."""
    size = int.from_bytes(data[:8], "little")
    texts = json.loads(data[8 : 8 + size])["__metadata__"]
    arrays, said = (
        load_safetensors(data),
        {name: json.loads(texts[name]) for name in ("tree", "topologies", "facts")},
    )
    change(arrays, said)
    texts |= {name: json.dumps(value) for name, value in said.items()} | {"seal": BLANK.decode()}
    return sealed(save_safetensors(arrays, texts))


def piece(said, of):
    return next(piece for piece in said["tree"] if piece["of"] == of)


def _set(where, name, value):
    where[name] = value


HOSTILE = {
    "facts": lambda arrays, said: said.pop("facts") or said["tree"].append(3),
    "no pieces": lambda arrays, said: _set(said, "tree", {"a": 1}),
    "deep": lambda arrays, said: said["tree"].append(json.loads("[" * 900 + "]" * 900)),
    "rows of what": lambda arrays, said: _set(piece(said, "edges"), "of", "os.system"),
    "no topology": lambda arrays, said: _set(piece(said, "edges"), "topology", "ff"),
    "huge": lambda arrays, said: _set(piece(said, "nodes"), "shape", [2**60]),
    "rows outside": lambda arrays, said: _set(arrays, "rows 0", arrays["rows 0"] + 5),
    "rows twice": lambda arrays, said: _set(arrays, "rows 0", 0 * arrays["rows 0"]),
    "rows of floats": lambda arrays, said: _set(arrays, "rows 0", arrays["rows 0"].astype(np.float32)),
    "leaf too large": lambda arrays, said: _set(piece(said, "edges")["stacks"][0]["leaves"][".weight"], "shape", [4, 2**40, 3]),
    "leaf of objects": lambda arrays, said: _set(piece(said, "edges")["stacks"][0]["leaves"][".weight"], "dtype", "object"),
    "leaf of nothing": lambda arrays, said: _set(piece(said, "edges")["stacks"][0]["leaves"][".weight"], "name", "nothing"),
    "axis": lambda arrays, said: _set(piece(said, "edges")["stacks"][0]["leaves"][".weight"], "axis", 7),
    "another value": lambda arrays, said: _set(said["tree"][0]["stacks"][0]["leaves"][""], "value", "three"),
    "a value with a shape": lambda arrays, said: _set(said["tree"][0]["stacks"][0]["leaves"][""], "shape", [2]),
    "a column less": lambda arrays, said: said["topologies"][0]["columns"].pop(),
    "another column": lambda arrays, said: _set(arrays, "topology 0 column 1", arrays["topology 0 column 1"] + 1),
    "another digest": lambda arrays, said: _set(said["topologies"][0]["head"], "names", ["a", "b", "c", "x"]),
}  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_no_save_has_written_is_refused(tmp_path, change):
    path = tmp_path / "file"
    dx.save(path, (3, made(drawn(OLD), 0)))
    path.write_bytes(rewritten(path.read_bytes(), change))
    refusal = r"`path` '.*file' has a right seal, but no save of darnax wrote it"
    with pytest.raises(ValueError, match=refusal):
        dx.load(path, like=(0, made(drawn([*OLD, ("d", "a")]), 1)), strict=False)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", ["another column", "another digest"])
def test_what_no_save_has_written_is_refused_where_nothing_is_wanted_of_it(tmp_path, name, strict):
    path = tmp_path / "file"
    dx.save(path, (3, made(drawn(OLD), 0)))
    path.write_bytes(rewritten(path.read_bytes(), HOSTILE[name]))
    with pytest.raises(ValueError, match="no save of darnax wrote it"):
        dx.load(path, like={}, strict=strict)


def test_more_text_than_a_header_holds_is_said(tmp_path):
    with pytest.raises(OSError, match=r"`path` '.*file' cannot be written: .*facts and topologies"):
        dx.save(tmp_path / "file", 3, facts="x" * 100_000_001)
    assert not list(tmp_path.iterdir())


def header(entries, arrays=b"") -> bytes:
    texts = {
        "format": "darnax 3",
        "seal": BLANK.decode(),
        "facts": "null",
        "topologies": "[]",
        "tree": "[]",
    }
    head = json.dumps({"__metadata__": texts} | entries, separators=(",", ":")).encode()
    return sealed(len(head).to_bytes(8, "little") + head + arrays)


def entry(shape, start, stop, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


PROMISES = {
    "more than there is": {"a": entry([2**50], 0, 2**50)},
    "less than there is": {"a": entry([1], 0, 1)},
    "one place for all": {str(i): entry([4], 0, 4) for i in range(9)},
    "a gap": {"a": entry([1], 0, 1), "b": entry([1], 3, 4)},
    "another size": {"a": entry([2**40, 2**40], 0, 4)},
    "below zero": {"a": entry([-4, -1], 0, 4)},
    "backwards": {"a": entry([4], 4, 0)},
    "fractions": {"a": entry([4.0], 0, 4)},
    "flags": {"a": entry([True, 4], 0, 4)},
    "no type": {"a": entry([4], 0, 4, "PICKLE")},
    "no entry": {"a": [4, 0, 4]},
}


@pytest.mark.parametrize("entries", PROMISES.values(), ids=PROMISES)
def test_promises_of_a_header_are_checked_before_memory_is_taken(tmp_path, entries):
    path = tmp_path / "file"
    path.write_bytes(header(entries, b"1234"))
    with pytest.raises(ValueError, match=r"has a right seal, but its header promises other arrays"):
        dx.load(path, like={})
    path.write_bytes(header({"a": entry([4], 0, 4)}, b"1234"))
    assert dx.load(path, like={}) == {}


def test_a_header_without_end_is_not_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match=r"is not a whole file of darnax"):
        dx.load(path, like={})


def test_nothing_is_read_that_does_not_fit(tmp_path, monkeypatch):
    """The arrays of a file are larger than the tree: they are refused by their shapes alone."""
    path = tmp_path / "file"
    dx.save(path, {"a": np.zeros(10**6), "b": 1.0})

    def read(*_):
        raise AssertionError("an array was read")

    monkeypatch.setattr("darnax.files.container.Container.array", read)
    with pytest.raises(
        ValueError, match=r"\['a'\] is float64\(1000000,\) in the file and float64\(3,\) here"
    ):
        dx.load(path, like={"a": np.zeros(3), "b": 0.0})
    back, _ = dx.load(path, like={"a": np.zeros(3), "b": 0.0}, strict=False)
    assert back["b"] == 1.0


def test_a_topology_of_a_hostile_file_takes_no_memory(tmp_path):
    """A shared array of 2**31 cells is a number in the header, and is never laid out."""
    graph = nx.DiGraph(arrays={"vast": 2**31 - 1})
    graph.add_node("all", array="vast", index=slice(0, 1), dtype="int8")
    graph.add_node("a", shape=3)
    graph.add_edge("a", "a", kind="loop")
    columns = read_graph(graph, inputs=None, outputs=None, held=None, arrays=None)
    head, long = serial.to_parts(columns)
    small = nx.DiGraph()
    small.add_node("a", shape=3)
    small.add_edge("a", "a", kind="loop")
    path = tmp_path / "file"
    old = made(small, 0)
    dx.save(path, eqx.tree_at(lambda net: net.biases, old, {}))

    def change(arrays, said):
        digest = head["digest"]
        said["topologies"] = [{"head": head, "columns": [f"c{i}" for i in range(len(long))]}]
        for i, column in enumerate(long):
            arrays[f"c{i}"] = column
        for piece in said["tree"]:
            piece["topology"] = digest if piece["of"] else None

    path.write_bytes(rewritten(path.read_bytes(), change))
    back, _ = dx.load(
        path, like=eqx.tree_at(lambda net: net.biases, made(small, 1), {}), strict=False
    )
    np.testing.assert_array_equal(back["a", "a"].weight, old["a", "a"].weight)


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"`path` '.*pipe' cannot be read: it is no plain file"):
        dx.load(tmp_path / "pipe", like={})
