"""Training on data: it learns, and it resumes bit for bit or says why it does not."""

import copy
import json
import os
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as pyplot
import networkx as nx
import numpy as np
import optax
import pytest
from helpers import compilations

import darnax as dx
from darnax.learning.scores import agreement

KEY = jax.random.key(3)
CLASSES, N = 3, 50


def small(hidden=12, activation=dx.sign):
    """An image, hidden units that hear themselves and the label, and the label."""
    g = nx.DiGraph()
    g.add_node("image", shape=(3, 3, 1))
    g.add_node("hidden", shape=hidden, kind="hidden")
    g.add_node("label", shape=CLASSES, kind="output")
    g.add_edge("image", "hidden", kind="forward")
    g.add_edge("hidden", "hidden", kind="recurrent")
    g.add_edge("hidden", "label", kind="readout")
    g.add_edge("label", "hidden", kind="feedback")
    couplings = {
        "forward": dx.dense(),
        "recurrent": dx.dense(gain=0.3, self_coupling=1.0),
        "readout": dx.dense(gain=0.0),
        "feedback": dx.dense(gain=2.0),
    }
    topology = dx.Topology(g, inputs=["image"], outputs=["label"])
    activations = {"hidden": activation, "output": dx.identity}
    return dx.Network(topology, couplings, activations, key=jax.random.key(0))


def blobs(n=N, seed=0):
    """Noisy prototypes of three classes."""
    prototypes = np.random.default_rng(7).normal(size=(CLASSES, 3, 3, 1))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    return (prototypes[labels] + 0.4 * rng.normal(size=(n, 3, 3, 1))).astype(np.float32), labels


X, LABELS = blobs()
Y = dx.one_vs_all(LABELS, CLASSES)
RULES = {"readout": dx.perceptron(1.0), "forward": dx.perceptron(0.5)}
LEARNING = dx.DynamicalLearning(RULES)
SGD = optax.sgd(0.1, momentum=0.5)  # one object, so that runs share their program


def fit(network=None, **arguments):
    given = {
        "learning": LEARNING,
        "optimiser": SGD,
        "x": X,
        "y": Y,
        "epochs": 3,
        "batch_size": 16,
        "key": KEY,
    }
    return dx.fit(
        small() if network is None else network, **{**given, "progress": False} | arguments
    )


def equal(a, b):
    assert jax.tree.structure(eqx.filter(a, eqx.is_array)) == jax.tree.structure(
        eqx.filter(b, eqx.is_array)
    )
    for one, two in zip(
        jax.tree.leaves(eqx.filter(a, eqx.is_inexact_array)),
        jax.tree.leaves(eqx.filter(b, eqx.is_inexact_array)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_it_learns_what_has_rules_and_nothing_else():
    before = small()
    trained, history = fit(
        epochs=8, validation=(blobs(seed=1)[0], dx.one_vs_all(blobs(seed=1)[1], CLASSES))
    )
    # of three classes; how far beyond chance depends on the key, and on the last bits of the fields
    assert history["validation accuracy"][-1] > 0.65
    assert len(history) == 8
    assert (history["settled"] == 1).all()
    assert (history["lost"] == 0).all()
    assert (history["overlap"] <= 1).all()
    assert (history["overlap"] > 0.3).all()
    for kind, same in {
        ("image", "hidden"): False,
        ("hidden", "label"): False,
        ("hidden", "hidden"): True,
    }.items():
        assert np.array_equal(trained[kind].weight, before[kind].weight) == same
    assert trained["hidden", "hidden"].self_coupling.value == 1.0


def test_an_epoch_is_the_updates_of_its_batches():
    """By hand, batch by batch: the short last one averages over what is there."""
    network = small()
    trained, _ = fit(epochs=1, optimiser=optax.sgd(0.1))
    order = np.asarray(jax.random.permutation(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), N))
    params, rest = dx.partition(network, RULES)

    @jax.jit
    def lesson(params, x, y):
        net = eqx.combine(params, rest)
        state = dx.GraphState(net.topology).init(x)
        state = dx.step(net, state, silence=["label"])
        state = dx.relax(net, state.replace_val("label", y), clamp=["label"]).state
        state = dx.relax(net, state, silence=["label"]).state
        target = state.replace_val("label", y)
        updates = dx.local_updates(net, state, RULES, target=target, silence=["label"])
        return jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)

    for start in range(0, N, 16):
        here = order[start : start + 16]
        params = lesson(params, X[here], Y[here])
    for ours, expected in zip(
        jax.tree.leaves(dx.partition(trained, RULES)[0]), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_inference_leaves_out_the_phases_that_teach():
    network = small()
    state = dx.step(network, dx.GraphState(network.topology).init(X), silence=["label"])
    expected = dx.relax(network, state, silence=["label"]).state
    np.testing.assert_array_equal(LEARNING.infer(network, X).state["hidden"], expected["hidden"])
    np.testing.assert_array_equal(
        dx.predict(network, LEARNING, X, batch_size=16), expected["label"]
    )


PHASES = {
    "free": dx.Phase("free", silence=["label"], schedule=dx.node_by_node()),
    "cut": dx.Phase("cut", steps=1, silence=["label"]),
    "passes": dx.Phase("passes", steps=2, settle=False, silence=["label"]),
    "taught": dx.Phase("taught", clamp=["label"]),
    "released": dx.Phase("released", silence=["label"], clamp=["hidden"]),
}


@pytest.mark.parametrize(
    "order",
    [
        "free taught free",
        "cut taught free",
        "cut taught cut",
        "taught cut free",
        "cut passes released free taught",
    ],
)
@pytest.mark.parametrize("from_inference", [False, True])
def test_inference_makes_every_phase_that_needs_no_target(order, from_inference):
    """One after another, whatever the one before was told about settling, and whether it did."""
    phases = [PHASES[name] for name in order.split()]
    network = small(activation=dx.tanh)
    state = dx.GraphState(network.topology).init(X)
    for phase in phases:
        if phase.name != "taught":
            state = phase.run(network, state, {}).state
    learning = dx.DynamicalLearning(RULES, phases, from_inference=from_inference)
    np.testing.assert_allclose(
        learning.infer(network, X).state["hidden"], state["hidden"], atol=1e-6
    )
    np.testing.assert_allclose(dx.predict(network, learning, X), state["label"], atol=1e-6)
    if from_inference:
        _, answer, _ = learning.updates(network, X, {"label": Y}, jnp.ones(N, bool))
        np.testing.assert_allclose(answer.state["hidden"], state["hidden"], atol=1e-6)


def test_what_inference_has_in_common_with_teaching_has_the_same_noise():
    random = dx.asynchronous(0.3)
    phases = [
        dx.Phase("first", steps=3, settle=False, silence=["label"], schedule=random),
        dx.Phase("taught", steps=3, settle=False, clamp=["label"], schedule=random),
        dx.Phase("last", steps=3, settle=False, silence=["label"], schedule=random),
    ]
    network, learning = small(), dx.DynamicalLearning(RULES, phases, from_inference=True)
    _, answer, _ = learning.updates(network, X, {"label": Y}, jnp.ones(N, bool), KEY)
    np.testing.assert_array_equal(
        answer.state["hidden"], learning.infer(network, X, KEY).state["hidden"]
    )


def test_inference_is_run_anew_where_teaching_was_told_more():
    """A phase that holds a hidden node holds it at its target when taught, and where it is when
    not."""
    phases = [
        dx.Phase("held", clamp=["hidden"], silence=["label"]),
        dx.Phase("taught", clamp=["label"]),
        dx.Phase("free", silence=["label"]),
    ]
    network = small(activation=dx.tanh)
    learning = dx.DynamicalLearning(RULES, phases, from_inference=True)
    targets = {"label": Y, "hidden": jnp.ones((N, 12))}
    _, answer, _ = learning.updates(network, X, targets, jnp.ones(N, bool))
    expected = learning.infer(network, X).state
    np.testing.assert_allclose(answer.state["hidden"], expected["hidden"], atol=1e-6)


def test_phases_that_change_nothing_add_no_steps():
    network, free = small(), PHASES["free"]
    once = dx.DynamicalLearning(RULES, [free]).infer(network, X)
    thrice = dx.DynamicalLearning(RULES, [free, PHASES["taught"], free, PHASES["released"]]).infer(
        network, X
    )
    np.testing.assert_array_equal(once.steps, thrice.steps)
    two = dx.DynamicalLearning(RULES, [PHASES["passes"], free]).infer(network, X)
    start = PHASES["passes"].run(network, dx.GraphState(network.topology).init(X), {}).state
    np.testing.assert_array_equal(two.steps, 2 + free.run(network, start, {}).steps)


def test_evaluate_is_the_mean_over_all_samples():
    network, _ = fit()
    answers = dx.predict(network, LEARNING, X)
    scores = dx.evaluate(network, LEARNING, X, Y, batch_size=7)
    np.testing.assert_allclose(scores["accuracy"], (answers.argmax(1) == LABELS).mean(), rtol=1e-6)
    assert set(scores) == {"settled", "steps", "accuracy", "lost"}


@pytest.mark.parametrize("begins", [False, True], ids=["inference apart", "inference on the way"])
def test_learning_from_inference(begins):
    """Senders and fields are those of inference, the target that of the phases."""
    phases = [
        dx.Phase("free", silence=["label"]),
        dx.Phase("clamped", clamp=["label"]),
        dx.Phase("released", silence=["label"]),
    ]
    by_two = {"from_inference": True, "normalise": lambda batch, fan_in: 2.0}
    learning = dx.DynamicalLearning(RULES, phases if begins else None, **by_two)
    network = small()
    everyone = jnp.ones(N, bool)
    updates, answer, _ = learning.updates(network, X, {"label": Y}, everyone)
    np.testing.assert_array_equal(
        answer.state["hidden"], learning.infer(network, X).state["hidden"]
    )
    state = dx.GraphState(network.topology).init(X)
    if begins:
        state = dx.relax(network, state, silence=["label"]).state
        np.testing.assert_array_equal(answer.state["hidden"], state["hidden"])
    else:
        state = dx.step(network, state, silence=["label"])
    clamped = dx.relax(network, state.replace_val("label", Y), clamp=["label"]).state
    freed = dx.relax(network, clamped, silence=["label"]).state
    expected = dx.local_updates(
        network,
        answer.state,
        RULES,
        target=freed.replace_val("label", Y),
        silence=["label"],
        normalise=lambda batch, fan_in: 2.0,
    )
    for ours, theirs in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


# iterables


def test_batches_of_an_iterable_are_each_one_update():
    batches = [(X[i : i + 10], Y[i : i + 10]) for i in range(0, N, 10)]
    trained, history = fit(x=batches, y=None, epochs=4)
    assert history["accuracy"][-1] > history["accuracy"][0]
    again, _ = fit(x=iter_again(batches), y=None, epochs=4)
    equal(trained, again)
    with pytest.raises(
        ValueError, match=r"`x` gave no batches in epoch 2; give an iterable that starts anew"
    ):
        fit(x=(batch for batch in batches), y=None, epochs=2)


class iter_again:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_one_program_for_all_batches_and_epochs():
    fit(epochs=1)
    assert compilations(lambda: fit(epochs=3)[1]["accuracy"]) == 0


def test_what_was_made_anew_compiles_nothing():
    def run(rate=0.1):
        learning = dx.DynamicalLearning(dict(RULES), normalise=lambda batch, fan_in: batch + 1.0)
        optimiser = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(rate))
        network, history = fit(learning=learning, optimiser=optimiser, epochs=2, validation=(X, Y))
        return dx.predict(network, learning, X), history["validation accuracy"]

    run()
    assert compilations(run) == 0
    assert compilations(lambda: run(0.2)) == 1  # the rate is a part of the program


def test_rates_in_the_memory_of_an_optimiser_compile_nothing():
    kept = optax.inject_hyperparams(optax.sgd)
    fit(optimiser=kept(0.1), epochs=1)
    assert compilations(lambda: fit(optimiser=kept(0.3), epochs=1)[1]["accuracy"]) == 0


# stopping and resuming


@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_is_never_stopped(tmp_path, stop):
    whole, history = fit(epochs=4)
    path = tmp_path / "run.safetensors"
    fit(epochs=stop, checkpoint=path)
    resumed, rows = fit(epochs=4, checkpoint=path)
    equal(whole, resumed)
    assert rows.rows == history.rows
    finished, _ = fit(epochs=4, checkpoint=path)
    equal(whole, finished)


def test_interrupted_in_the_middle_of_an_epoch(tmp_path):
    """What comes back is the last whole epoch, and so is the checkpoint."""
    batches = [(X[i : i + 25], Y[i : i + 25]) for i in (0, 25)]
    path, calls = tmp_path / "run", [0]

    class Fails(iter_again):
        def __iter__(self):
            for batch in self.batches:
                calls[0] += 1
                if calls[0] == 4:
                    raise KeyboardInterrupt
                yield batch

    whole, _ = fit(x=batches, y=None, epochs=3)
    with pytest.warns(
        UserWarning, match=r"training was interrupted; the network is as it was after epoch 1"
    ):
        part, history = fit(x=Fails(batches), y=None, epochs=3, checkpoint=path)
    assert len(history) == 1
    equal(part, fit(x=batches, y=None, epochs=1)[0])
    resumed, _ = fit(x=batches, y=None, epochs=3, checkpoint=path)
    equal(whole, resumed)


def interrupted_at(epoch):
    def stop(network, history):
        if len(history) == epoch:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("with_file", [False, True])
def test_an_interruption_gives_back_what_was_learnt(tmp_path, with_file):
    checkpoint = tmp_path / "run" if with_file else None
    with pytest.warns(UserWarning, match=r"interrupted; .* after epoch 2"):
        network, history = fit(epochs=5, callbacks=[interrupted_at(2)], checkpoint=checkpoint)
    assert len(history) == 2
    equal(network, fit(epochs=2)[0])
    if with_file:  # its last save was an epoch before; what was handed back may be handed in again
        equal(fit(epochs=4, checkpoint=checkpoint)[0], fit(epochs=4)[0])


def test_interrupted_before_anything_was_learnt(tmp_path):
    class Never:
        def __iter__(self):
            raise KeyboardInterrupt

    def never(field, state):
        raise KeyboardInterrupt

    network = small()
    while_tracing = {
        "learning": dx.DynamicalLearning({"readout": never}),
        "checkpoint": tmp_path / "run",
    }
    for arguments in ({"x": Never(), "y": None}, while_tracing):
        with pytest.warns(UserWarning, match=r"interrupted; the network is as it was given"):
            same, history = fit(network, **arguments)
        equal(network, same)
        assert history.rows == []


def test_other_errors_are_not_hidden():
    def fail(network, history):
        raise OSError("of the user's own")

    with pytest.raises(OSError, match="of the user's own"):
        fit(callbacks=[fail])


def test_a_disk_that_is_full_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "run"
    fit(epochs=1, checkpoint=path)
    good = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.warns(
            UserWarning,
            match=r"interrupted: .*run' cannot be written: No space left.* after epoch 2",
        ):
            network, history = fit(epochs=4, checkpoint=path)
    assert len(history) == 2
    equal(network, fit(epochs=2)[0])
    assert path.read_bytes() == good
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    equal(fit(epochs=3, checkpoint=path)[0], fit(epochs=3)[0])


def test_a_path_that_cannot_be_written_is_found_before_training(tmp_path):
    """Even before anything is traced: callbacks would be called after the first epoch."""

    def fail(network, history):
        raise AssertionError("it trained")

    (tmp_path / "kept").write_text("text")
    (tmp_path / "kept").chmod(0o444)
    for path, reason in {
        "missing/run": "No such file",
        ".": "it is a folder",
        "kept": "may not be written",
    }.items():
        with pytest.raises(
            OSError, match=f"`checkpoint` '.*cannot be written: {reason}|`checkpoint` '.*{reason}"
        ):
            fit(callbacks=[fail], checkpoint=tmp_path / path)


# the same run or another


class Scaled(eqx.Module):
    """A rule with an array, which no traced program shows."""

    factor: jax.Array

    def __call__(self, field, state):
        return -self.factor * state


def by_root(batch, fan_in):
    return (batch * fan_in) ** 0.5


def turned(kind):
    """The network with a leaf of one kind changed a little."""
    network = small()
    return eqx.tree_at(
        lambda n: jax.tree.leaves(n.couplings[kind])[0],
        network,
        replace_fn=lambda w: w + 1e-6,
    )


TAUGHT = [dx.Phase("clamped", clamp=["label"]), dx.Phase("free", silence=["label"])]
CHANGES = {
    "margin": (
        {"learning": dx.DynamicalLearning(RULES | {"readout": dx.perceptron(1.5)})},
        "learning",
    ),
    "rule": ({"learning": dx.DynamicalLearning(RULES | {"readout": dx.hebbian()})}, "learning"),
    "phases": ({"learning": dx.DynamicalLearning(RULES, TAUGHT)}, "learning"),
    "where": ({"learning": dx.DynamicalLearning(RULES, from_inference=True)}, "learning"),
    "normalise": ({"learning": dx.DynamicalLearning(RULES, normalise=by_root)}, "learning"),
    "activation": ({"network": small(activation=dx.tanh)}, "learning"),
    "rate": ({"optimiser": optax.sgd(0.1000001, momentum=0.5)}, "optimiser"),
    "momentum": ({"optimiser": optax.sgd(0.1, momentum=0.25)}, "optimiser"),
    "nesterov": ({"optimiser": optax.sgd(0.1, momentum=0.5, nesterov=True)}, "optimiser"),
    "rate in memory": ({"optimiser": optax.inject_hyperparams(optax.sgd)(0.1)}, "optimiser"),
    "decay": ({"optimiser": optax.chain(optax.add_decayed_weights(1e-3), SGD)}, "optimiser"),
    "weights": ({"network": turned("forward")}, "start"),
    "feedback": ({"network": turned("feedback")}, "frozen"),
    "images": ({"x": X + np.float32(1e-6)}, "data"),
    "order": ({"x": X[::-1].copy(), "y": Y[::-1]}, "data"),
    "labels": ({"y": -Y}, "data"),
    "fewer": ({"x": X[:-1], "y": Y[:-1]}, "data"),
    "iterable": ({"x": [(X, Y)], "y": None}, "data"),
    "batches": ({"batch_size": 8}, "batch_size"),
    "key": ({"key": jax.random.key(4)}, "key"),
    "validation": ({"validation": (X, Y)}, "validation"),
}


@pytest.fixture(scope="module")
def checkpoint_of_a_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    fit(epochs=1, checkpoint=path)
    return path.read_bytes()


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_goes_on_only_as_what_it_was(tmp_path, checkpoint_of_a_run, change):
    arguments, fact = CHANGES[change]
    path = tmp_path / "run"
    path.write_bytes(checkpoint_of_a_run)
    with pytest.raises(
        ValueError,
        match=rf"`checkpoint` '.*run' is of another run: .*{fact} \(.*may_differ=\[.*'{fact}'",
    ):
        fit(**arguments, epochs=1, checkpoint=path)
    assert path.read_bytes() == checkpoint_of_a_run


def test_rates_that_an_optimiser_keeps_in_its_memory_are_facts(tmp_path):
    path, kept = tmp_path / "run", optax.inject_hyperparams(optax.sgd)
    fit(optimiser=kept(0.1), epochs=1, checkpoint=path)
    network, _ = fit(optimiser=kept(0.1), epochs=2, checkpoint=path)
    fit(network, optimiser=kept(0.1), epochs=2, checkpoint=path)
    with pytest.raises(ValueError, match=r"another run: optimiser \(the optimiser or its rates\)"):
        fit(optimiser=kept(0.2), epochs=2, checkpoint=path)


def test_the_error_says_which_rules(tmp_path, checkpoint_of_a_run):
    path = tmp_path / "run"
    path.write_bytes(checkpoint_of_a_run)
    with pytest.raises(
        ValueError,
        match=r"the rules .*Perceptron\(margin=1.0\).* there, .*Perceptron\(margin=1.5\).* here",
    ):
        fit(**CHANGES["margin"][0], checkpoint=path)


@pytest.mark.parametrize(
    "change", ["margin", "rate", "weights", "feedback", "images", "batches", "key", "validation"]
)
def test_what_is_said_to_differ_may_differ_and_nothing_else(tmp_path, checkpoint_of_a_run, change):
    arguments, fact = CHANGES[change]
    path = tmp_path / "run"
    path.write_bytes(checkpoint_of_a_run)
    with pytest.raises(ValueError, match=r"is of another run"):
        fit(
            **arguments,
            epochs=2,
            checkpoint=path,
            may_differ=sorted({"learning", "optimiser", "data"} - {fact}),
        )
    _, history = fit(**arguments, epochs=2, checkpoint=path, may_differ=[fact])
    assert len(history) == 2
    assert (
        fit(**arguments, epochs=2, checkpoint=path)[1].rows == history.rows
    )  # the file is of this run now


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_arrays_in_rules_are_facts(tmp_path, factor):
    path = tmp_path / "run"
    fit(
        learning=dx.DynamicalLearning({"readout": Scaled(jnp.asarray(1.0))}),
        epochs=1,
        checkpoint=path,
    )
    again = {
        "learning": dx.DynamicalLearning({"readout": Scaled(jnp.asarray(factor))}),
        "checkpoint": path,
    }
    if factor == 1.0:
        assert len(fit(**again)[1]) == 3
    else:
        with pytest.raises(ValueError, match=r"another run: learning"):
            fit(**again)


def test_what_was_made_anew_is_the_same_run(tmp_path):
    """Functions are compared by what they compute; a network that was handed back may be handed
    in."""
    path = tmp_path / "run"

    def run(network, epochs):
        return fit(
            network,
            learning=dx.DynamicalLearning(dict(RULES), normalise=lambda batch, fan_in: batch * 1.5),
            optimiser=optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.5)),
            epochs=epochs,
            checkpoint=path,
        )

    first, _ = run(small(), 1)
    second, history = run(first, 2)
    assert len(history) == 2
    equal(second, run(small(), 2)[0])
    with pytest.raises(ValueError, match=r"another run: start \(the couplings and biases"):
        run(first, 3)


def grown(hidden=12, more=5):
    """The network of `small`, with hidden units more."""
    g = small(hidden).topology.to_networkx()
    g.add_node("more", shape=more, kind="hidden")
    g.add_edge("image", "more", kind="forward")
    g.add_edge("more", "label", kind="readout")
    couplings = {kind: dx.dense() for kind in small().topology.edge_kinds}
    activations = {"hidden": dx.sign, "output": dx.identity}
    return dx.Network(dx.Topology(g), couplings, activations, key=jax.random.key(5))


def test_a_network_that_grew_goes_on_with_what_it_knows(tmp_path):
    """Weights, and the momentum of each, come from a checkpoint and go on as they were."""
    path = tmp_path / "run"
    trained, _ = fit(epochs=2, checkpoint=path)
    network = grown()
    params, rest = dx.partition(network, RULES)
    like = {"network": params, "memory": SGD.init(params), "history": dx.History()}
    saved, report = dx.load(path, like=like, strict=False)
    assert set(report.new) == {
        f"{part}.couplings['{kind}']"
        for part in ("['network']", "['memory'][0].trace")
        for kind in ("forward", "readout")
    }
    assert not report.dropped
    network = eqx.combine(saved["network"], rest)
    for edge in (("image", "hidden"), ("hidden", "label")):
        np.testing.assert_array_equal(network[edge].weight, trained[edge].weight)
        assert np.abs(saved["memory"][0].trace[edge].weight).max() > 0
    assert not saved["memory"][0].trace["image", "more"].weight.any()
    with_memory, history = fit(
        network, epochs=1, memory=saved["memory"], checkpoint=tmp_path / "on"
    )
    assert len(history) == 1
    without, _ = fit(network, epochs=1)
    assert not np.array_equal(
        with_memory["image", "hidden"].weight, without["image", "hidden"].weight
    )
    equal(fit(network, epochs=1, memory=SGD.init(params))[0], without)
    # with another memory it is another run
    equal(
        fit(network, epochs=1, memory=saved["memory"], checkpoint=tmp_path / "on")[0], with_memory
    )
    with pytest.raises(ValueError, match=r"another run: start \(.*or the memory of the optimiser"):
        fit(network, epochs=2, checkpoint=tmp_path / "on")


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (3, r"it is .*, and to the optimiser not there"),
        (lambda params: optax.sgd(0.1).init(params), r"readout.*weight is missing, and to the optimiser float32\(1, 3, 12\)"),
        (lambda params: SGD.init(dx.partition(small(13), RULES)[0]), r"weight is float32\(1, 3, 13\), and to the optimiser float32\(1, 3, 12\)"),
        (lambda params: tuple(SGD.init(params))[:1], "start from optimiser.init"),
    ],
    ids=["number", "another optimiser", "another network", "another structure"],
)  # fmt: skip
def test_a_memory_of_something_else_is_refused(memory, words):
    params, _ = dx.partition(small(), RULES)
    memory = memory(params) if callable(memory) else memory
    with pytest.raises(ValueError, match=f"`memory` is not that of this optimiser.*{words}"):
        fit(memory=memory)


def test_other_releases_are_told_from_other_functions(tmp_path, monkeypatch):
    path = tmp_path / "run"
    fit(epochs=1, checkpoint=path)
    monkeypatch.setattr("darnax.learning.checkpoint._versions", lambda: {"jax": "99.9"})
    assert len(fit(epochs=2, checkpoint=path)[1]) == 2  # it traces the same, so it is the same
    fit(epochs=3, checkpoint=path)
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match=r"optimiser .*or other releases.*'99.9'.* there, .*'jax'.* here"
    ):
        fit(optimiser=optax.sgd(0.2, momentum=0.5), checkpoint=path)


def test_checkpoints_of_other_networks_and_files_of_others_are_refused(tmp_path):
    path = tmp_path / "run"
    fit(epochs=1, checkpoint=path)
    with pytest.raises(
        ValueError,
        match=r"is of another run: arrays \(.*12.*there, .*13.*here\); digest of the topology",
    ):
        fit(small(hidden=13), checkpoint=path)
    with pytest.raises(ValueError, match=r"does not fit: .*is (missing|left over)"):
        fit(optimiser=optax.sgd(0.1), checkpoint=path, may_differ=["optimiser"])
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"`path` '.*run' is not a whole file of darnax"):
        fit(checkpoint=path)


def test_a_file_that_is_no_checkpoint_is_not_overwritten(tmp_path):
    path = tmp_path / "network"
    for facts in (None, {"made": "by hand"}):
        dx.save(path, small(), facts)
        before = path.read_bytes()
        with pytest.raises(
            ValueError, match=r"`checkpoint` '.*network' is a file of darnax, but not of a run"
        ):
            fit(checkpoint=path)
        assert path.read_bytes() == before


def test_a_run_that_callbacks_ended_goes_on_without_them(tmp_path):
    path = tmp_path / "run"
    ends = [lambda network, history: len(history) == 2]
    assert len(fit(epochs=4, callbacks=ends, checkpoint=path)[1]) == 2
    assert len(fit(epochs=4, callbacks=ends, checkpoint=path)[1]) == 2
    network, history = fit(epochs=4, checkpoint=path)
    assert len(history) == 4
    equal(network, fit(epochs=4)[0])


def test_callbacks_see_every_epoch_and_may_end_it(tmp_path):
    seen = []
    path = tmp_path / "run"

    def look(network, history):
        seen.append((float(network["image", "hidden"].weight.sum()), len(history)))
        return len(history) == 2

    stopped, history = fit(epochs=5, callbacks=[look], checkpoint=path)
    assert [epochs for _, epochs in seen] == [1, 2]
    assert len(history) == 2
    equal(stopped, fit(epochs=2)[0])
    equal(fit(epochs=5, callbacks=[look], checkpoint=path)[0], stopped)


def test_early_stopping_waits_for_what_is_better():
    stop = dx.early_stopping("loss", patience=2, larger=False)
    rows = [{"loss": value} for value in (3.0, 2.0, 2.5, 1.9, 2.0, 1.95)]
    ended = [stop(small(), dx.History(rows[: i + 1])) for i in range(len(rows))]
    assert ended == [False, False, False, False, False, True]
    assert (
        stop
        == dx.early_stopping("loss", 2, larger=False)
        == pickle.loads(pickle.dumps(stop))
        == copy.deepcopy(stop)
    )
    assert stop != dx.early_stopping("loss", 3, larger=False)
    lost = [{"loss": np.nan}] * 3
    assert [stop(small(), dx.History(lost[: i + 1])) for i in range(3)] == [False, False, True]


@pytest.mark.parametrize("batches", [False, True])
def test_scores_of_validation_are_there_where_it_is(batches):
    data = {"x": [(X, Y)], "y": None} if batches else {}
    assert (
        len(
            fit(
                **data,
                epochs=1,
                validation=(X, Y),
                callbacks=[dx.early_stopping("validation accuracy", 2)],
            )[1]
        )
        == 1
    )


@pytest.mark.parametrize(
    "answer", [True, np.True_, jnp.asarray(True), False, None, np.False_], ids=repr
)
def test_callbacks_answer_with_any_true_or_false(answer):
    ended = (
        len(
            fit(
                epochs=2, callbacks=[lambda network, history: answer, lambda network, history: None]
            )[1]
        )
        == 1
    )
    assert ended == bool(answer)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dx.Phase("p", steps=3, clamp=["a"], nudge=0.5, schedule=dx.node_by_node()),
        lambda: dx.DynamicalLearning(dict(RULES), TAUGHT, from_inference=True, normalise=by_root),
        lambda: dx.ContrastiveLearning(
            {"forward": dx.hebbian()}, dx.Phase("free"), dx.Phase("nudged", nudge=0.1)
        ),
        lambda: dx.BackpropLearning(["forward"], dx.Phase("free", tol=1e-6)),
        *(
            lambda rule=rule: rule()
            for rule in (dx.hebbian, dx.anti_hebbian, dx.oja, dx.covariance, dx.bcm, dx.perceptron)
        ),
        lambda: dx.delta(),
    ],
    ids=[
        "phase",
        "dynamical",
        "contrastive",
        "backprop",
        "hebbian",
        "anti",
        "oja",
        "covariance",
        "bcm",
        "perceptron",
        "delta",
    ],
)
def test_what_teaches_is_equal_when_made_anew_copied_or_pickled(make):
    for other in (make(), copy.deepcopy(make()), pickle.loads(pickle.dumps(make()))):
        assert other == make()
        assert jax.tree.structure(other) == jax.tree.structure(make())


# what is not finite


def test_a_nan_image_changes_no_weight_and_is_reported():
    bad = X.copy()
    bad[7] = np.nan
    with pytest.warns(UserWarning, match=r"epoch 1: 2\.00% of the samples are not finite"):
        trained, history = fit(x=bad, epochs=1, batch_size=N)
    np.testing.assert_allclose(history["lost"], [1 / N], rtol=1e-6)
    without = np.delete(np.arange(N), 7)
    expected, _ = fit(x=X[without], y=Y[without], epochs=1, batch_size=N)
    for ours, theirs in zip(
        jax.tree.leaves(dx.partition(trained, RULES)[0]),
        jax.tree.leaves(dx.partition(expected, RULES)[0]),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert dx.evaluate(trained, LEARNING, bad, Y)["lost"] == pytest.approx(1 / N)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (4, 2, 2)], ids=str)
def test_what_is_not_finite_agrees_with_nothing(bad, shape):
    answer = np.ones(shape, np.float32)
    answer[..., 0] = 2
    target = answer.copy()
    compare = jax.jit(agreement)
    np.testing.assert_array_equal(compare(answer, target), [1, 1, 1, 1])
    answer[1, ..., -1], target[2, ..., 0] = bad, bad
    np.testing.assert_array_equal(compare(answer, target), [1, 0, 0, 1])


def test_answers_may_be_whole_numbers():
    g = nx.DiGraph()
    g.add_node("x", shape=4, dtype="int8")
    g.add_node("y", shape=3, dtype="int8")
    g.add_edge("x", "y")
    topology = dx.Topology(g, inputs=["x"], outputs=["y"])
    network = dx.Network(topology, {"edge": dx.dense()}, dx.sign, key=KEY)
    x = np.random.default_rng(0).choice(np.int8([-1, 1]), (20, 4))
    learning = dx.DynamicalLearning({"edge": dx.perceptron(0.5)})
    trained, _ = fit(network, learning=learning, x=x, y=x[:, :3], epochs=5)
    answers = dx.predict(trained, learning, x)
    assert answers.dtype == jnp.int8
    right = (answers.argmax(1) == x[:, :3].argmax(1)).mean()
    np.testing.assert_allclose(
        dx.evaluate(trained, learning, x, x[:, :3])["accuracy"], right, rtol=1e-6
    )


def test_a_lost_sample_is_never_accurate():
    """Whatever its output is: here it keeps the zeros of the beginning, whose largest unit is that
    of class 0."""
    bad = X.copy()
    bad[LABELS == 0] = np.inf
    network = fit(epochs=1)[0]
    scores = dx.evaluate(network, LEARNING, bad, Y)
    np.testing.assert_allclose(scores["lost"], (LABELS == 0).mean(), rtol=1e-6)
    good = LABELS != 0
    right = dx.evaluate(network, LEARNING, X[good], Y[good])["accuracy"] * good.mean()
    np.testing.assert_allclose(scores["accuracy"], right, rtol=1e-5)
    with pytest.warns(UserWarning, match="are not finite"):
        _, history = fit(network, x=bad, epochs=1, validation=(bad, Y))
    assert (history["accuracy"] + history["lost"] <= 1 + 1e-6).all()
    assert (history["validation accuracy"] + history["validation lost"] <= 1 + 1e-6).all()
    with pytest.warns(
        UserWarning, match=rf"{(~good).sum()} of 50 samples are not finite.*samples "
    ):
        dx.predict(network, LEARNING, bad)


# two phases


def smooth(n=3):
    """Symmetric couplings of tanh units, an input and an output."""
    g = nx.DiGraph()
    g.add_node("x", shape=2)
    g.add_node("h", shape=n, kind="unit")
    g.add_node("y", shape=2, kind="unit")
    g.add_edge("x", "h", kind="in")
    g.add_edge("h", "h", kind="in")
    g.add_edge("h", "y", kind="up")
    g.add_edge("y", "h", kind="down")
    topology = dx.Topology(g, inputs=["x"], outputs=["y"])
    kinds = {"in": dx.dense(gain=0.5), "up": dx.dense(gain=0.7), "down": dx.dense()}
    network = dx.Network(topology, kinds, dx.tanh, key=jax.random.key(1))
    symmetric = np.asarray(network["h", "h"].weight)
    symmetric = (symmetric + symmetric.T) / 2
    for edge, weight in {("h", "h"): symmetric, ("y", "h"): network["h", "y"].weight.T}.items():
        network = network.replace_val(edge, eqx.tree_at(lambda c: c.weight, network[edge], weight))
    return network


def test_equilibrium_propagation_goes_to_the_gradient():
    network = smooth()
    rng = np.random.default_rng(0)
    x, y = jax.device_put(tuple(rng.normal(size=(2, 4, 2)).astype(np.float32)))
    y = 0.5 * y
    rules = {"in": dx.hebbian(), "up": dx.hebbian(), "down": dx.hebbian()}
    params, rest = dx.partition(network, rules)

    def cost(params):
        net = eqx.combine(params, rest)
        state = dx.relax(net, dx.GraphState(net.topology).init(x), tol=1e-6, max_steps=300).state
        return 0.5 * ((state["y"] - y) ** 2).sum() / len(x)

    gradient = jax.tree.map(np.asarray, jax.jit(jax.grad(cost))(params))
    true = {
        "x": gradient["x", "h"].weight,
        # a weight that both directions share has the sum of their gradients
        "y": gradient["h", "y"].weight + gradient["y", "h"].weight.T,
        "h": gradient["h", "h"].weight + gradient["h", "h"].weight.T,
    }
    errors = []
    for beta in (0.05, 0.0125):
        taught = dx.Phase("nudged", steps=300, nudge=beta)
        learning = dx.ContrastiveLearning(rules, dx.Phase("free", steps=300), taught)
        lesson = jax.jit(lambda *given, learning=learning: learning.updates(*given)[0])
        updates = lesson(network, x, {"y": y}, jnp.ones(len(x), bool))
        updates = jax.tree.map(np.asarray, updates)
        ours = {
            "x": updates["x", "h"].weight,
            "y": updates["h", "y"].weight,
            "h": updates["h", "h"].weight,
        }
        errors.append(max(float(abs(ours[k] - true[k]).max() / abs(true[k]).max()) for k in true))
        np.testing.assert_allclose(updates["y", "h"].weight, updates["h", "y"].weight.T, atol=1e-4)
    assert errors[1] < 0.05
    assert errors[1] < 0.35 * errors[0]


def test_contrastive_hebbian_learning_is_the_difference_of_the_phases():
    network = smooth()
    rng = np.random.default_rng(0)
    x, y = jax.device_put(tuple(rng.normal(size=(2, 4, 2)).astype(np.float32)))
    rules = {"in": dx.hebbian(), "up": dx.hebbian()}
    learning = dx.ContrastiveLearning(rules, dx.Phase("free"), dx.Phase("clamped", clamp=("y",)))
    updates, answer, scores = learning.updates(network, x, {"y": y}, jnp.ones(4, bool))
    free = dx.relax(network, dx.GraphState(network.topology).init(x)).state
    clamped = dx.relax(network, free.replace_val("y", y), clamp=["y"]).state
    free, clamped = ({node: np.asarray(state[node]) for node in state} for state in (free, clamped))
    for u, v in (("x", "h"), ("h", "h"), ("h", "y")):
        expected = (free[v].T @ free[u] - clamped[v].T @ clamped[u]) / 4
        np.testing.assert_allclose(updates[u, v].weight, expected, atol=1e-5)
    np.testing.assert_array_equal(answer.state["y"], free["y"])
    cosine = (
        (free["h"] * clamped["h"]).sum(1)
        / np.linalg.norm(free["h"], axis=1)
        / np.linalg.norm(clamped["h"], axis=1)
    )
    np.testing.assert_allclose(scores["overlap"], cosine, atol=1e-5)


def test_phases_take_lists_of_names():
    assert dx.Phase("p", clamp=["label"]) == dx.Phase("p", clamp=("label",))


def test_one_vs_all():
    np.testing.assert_array_equal(dx.one_vs_all([2, 0], 3), [[-1, -1, 1], [1, -1, -1]])


# history and files


def test_history_columns_rows_and_plot():
    pyplot.switch_backend("Agg")
    history = dx.History(
        [
            {"accuracy": 0.5, "steps": 3.0},
            {"accuracy": 0.75, "steps": 2.0, "validation accuracy": 0.7},
        ]
    )
    np.testing.assert_array_equal(history["accuracy"], [0.5, 0.75])
    assert np.isnan(history["validation accuracy"][0])
    assert history[-1]["steps"] == 2.0
    assert json.loads(history.to_json()) == history.rows
    figure = history.plot()
    assert [ax.get_title() for ax in figure.axes] == ["accuracy", "steps"]
    assert [len(ax.lines) for ax in figure.axes] == [2, 1]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [0.5, 0.75])
    pyplot.close(figure)


def test_the_memory_of_a_lesson_does_not_grow_with_its_passes():
    def temporary(steps, settle):
        phases = [
            dx.Phase("clamped", steps=steps, settle=settle, clamp=["label"]),
            dx.Phase("free", steps=steps, settle=settle, silence=["label"]),
        ]
        learning = dx.DynamicalLearning(RULES, phases)
        lesson = eqx.filter_jit(
            lambda network, x, y: learning.updates(network, x, {"label": y}, jnp.ones(N, bool))[0]
        )
        return (
            lesson.lower(small(), jnp.asarray(X), Y)
            .compile()
            .compiled.memory_analysis()
            .temp_size_in_bytes
        )

    for settle in (True, False):
        assert temporary(5, settle) == temporary(500, settle) > 0
