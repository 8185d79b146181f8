"""Bad input to everything about learning: refused where it comes in, with what holds, what came and
what to do.

Every row is a call, the error that it raises, and words of its message. Calls of `fit` have a
callback that fails, so that what is refused only after an epoch is found out.
"""

import gzip
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as pyplot
import networkx as nx
import numpy as np
import optax
import pytest

import darnax as dx
from darnax.learning import Learning, load_idx, load_npz, squared_error
from darnax.learning.loader import PARTS, read_idx

KEY = jax.random.key(0)
NAN, INF = float("nan"), float("inf")


def chain(inputs=("x",), outputs=("y",), activation=dx.sign):
    g = nx.DiGraph()
    g.add_node("x", shape=4)
    g.add_node("h", shape=5, kind="hidden")
    g.add_node("y", shape=3, kind="output")
    g.add_edge("x", "h", kind="in")
    g.add_edge("h", "y", kind="out")
    g.add_edge("y", "h", kind="back")
    topology = dx.Topology(g, inputs=list(inputs), outputs=list(outputs))
    couplings = {"in": dx.dense(), "out": dx.dense(), "back": dx.dense()}
    return dx.Network(topology, couplings, activation, biases={"output": dx.bias()}, key=KEY)


NETWORK = chain()
SILENT = chain(outputs=())
STATE = dx.GraphState(NETWORK.topology).init(np.ones((6, 4), np.float32))
OTHER = dx.GraphState(dx.Topology(dx.topologies.sequential([2, 2]))).init(
    np.ones((6, 2), np.float32)
)
X, Y = np.ones((6, 4), np.float32), np.ones((6, 3), np.float32)
RULES = {"in": dx.perceptron(0.5)}


def nudged(shape):
    target = np.ones(shape, np.float32)
    return dx.step(NETWORK, STATE, drive={"y": dx.nudge("y", target, 0.1)})


def relays():
    """Copies and their reverse edges, which have nothing that could learn."""
    graph = nx.DiGraph([("x", "y")])
    nx.set_node_attributes(graph, 3, "shape")
    graph.add_edge("y", "x", kind="back")
    topology = dx.Topology(graph, inputs=["x"], outputs=["y"])
    return dx.Network(
        topology, {"edge": dx.relay(), "back": dx.transpose("edge")}, dx.sign, key=KEY
    )


LEARNING = dx.DynamicalLearning(RULES)
FREE, CLAMPED = dx.Phase("free"), dx.Phase("clamped", clamp=["y"])


NUDGED = dx.Phase("nudged", nudge=0.1)


TARGETS, EVERYONE = {"y": jnp.asarray(Y)}, jnp.ones(6, bool)


def smooth(loss=squared_error, kinds=("in",), y=TARGETS, samples=EVERYONE):
    """The updates of a network that has derivatives."""
    learning = dx.BackpropLearning(kinds, FREE, loss)
    return learning.updates(chain(activation=dx.tanh), X, y, samples)


class Idle(Learning):
    """A way to teach that does not say what it trains."""

    def check(self, topology):
        pass

    def infer(self, network, x, key=None):
        raise NotImplementedError

    def updates(self, network, x, y, samples, key=None):
        raise NotImplementedError


class Naming(Idle):
    """One that says it in a form of its own."""

    trained: object


def never(network, history):
    raise AssertionError("an epoch has run")


def fit(**given):
    base = {
        "network": NETWORK,
        "learning": LEARNING,
        "optimiser": optax.sgd(0.1),
        "x": X,
        "y": Y,
        "epochs": 1,
        "key": KEY,
    }
    return dx.fit(**base | {"callbacks": [never], "progress": False} | given)


def evaluate(**given):
    return dx.evaluate(**{"network": NETWORK, "learning": LEARNING, "x": X, "y": Y} | given)


def predict(**given):
    return dx.predict(**{"network": NETWORK, "learning": LEARNING, "x": X} | given)


def updates(rules=None, **given):
    return dx.local_updates(
        **{"network": NETWORK, "state": STATE, "rules": RULES if rules is None else rules} | given
    )


def returning(value):
    return lambda field, state: value


class Unhashable:
    __hash__ = None

    def __call__(self, field, state):
        return -state


class Rule:
    def __call__(self, field, state):
        return -state


def history(*rows):
    return dx.History(rows)


BOTH = (TypeError, ValueError)
COUNT = "an int of at least 1"
LEARN = "`learning` is a way to teach such as dx.DynamicalLearning(rules)"
OPTIMISER = "`optimiser` is a transformation of optax such as optax.sgd(0.1)"
PAIR = "(x, y)"
CALLBACKS = "`callbacks` is a list of functions (network, history)"

ROWS = [
    # fit
    ("fit network None", lambda: fit(network=None), TypeError, "`network` is a darnax.Network|None|dx.Network("),
    ("fit network topology", lambda: fit(network=NETWORK.topology), TypeError, "`network` is a darnax.Network"),
    ("fit network class", lambda: fit(network=dx.Network), TypeError, "`network`|the class"),
    ("fit learning None", lambda: fit(learning=None), TypeError, LEARN + "|None|give one"),
    ("fit learning rules", lambda: fit(learning=RULES), TypeError, LEARN),
    ("fit learning rule", lambda: fit(learning=dx.hebbian()), TypeError, LEARN),
    ("fit learning class", lambda: fit(learning=dx.DynamicalLearning), TypeError, LEARN + "|make one of it"),
    ("fit learning factory", lambda: fit(learning=dx.hebbian), TypeError, "`learning` is dx.hebbian itself|dx.hebbian(...)"),
    ("fit learning empty", lambda: fit(learning=dx.DynamicalLearning({})), ValueError, "`learning` trains no edge kind|give a rule"),
    ("fit learning kinds", lambda: fit(learning=dx.DynamicalLearning({"up": dx.oja()})), ValueError, "`rules` names 'up'|the kinds are 'back', 'in'"),
    ("fit learning number kind", lambda: fit(learning=dx.DynamicalLearning({3: dx.oja()})), ValueError, "`rules` names 3|the kinds are"),
    ("fit learning relays", lambda: fit(network=relays(), learning=dx.DynamicalLearning({"edge": dx.oja()}), x=Y, y=Y), ValueError, "`rules` names 'edge', whose couplings have nothing to train"),
    ("fit optimiser number", lambda: fit(optimiser=0.1), TypeError, OPTIMISER + "|0.1|made by optax"),
    ("fit optimiser None", lambda: fit(optimiser=None), TypeError, OPTIMISER + "|None"),
    ("fit optimiser text", lambda: fit(optimiser="sgd"), TypeError, OPTIMISER + "|'sgd'"),
    ("fit optimiser uncalled", lambda: fit(optimiser=optax.sgd), TypeError, OPTIMISER + "|the function sgd|call it with its rate"),
    ("fit optimiser class", lambda: fit(optimiser=optax.GradientTransformation), TypeError, OPTIMISER + "|the class"),
    ("fit optimiser schedule", lambda: fit(optimiser=optax.constant_schedule(0.1)), TypeError, OPTIMISER),
    ("fit x None", lambda: fit(x=None), TypeError, "`x` is missing|give an array `(n, *(4,))`"),
    ("fit x and y None", lambda: fit(x=None, y=None), TypeError, "`x` is missing"),
    ("fit y None", lambda: fit(y=None), TypeError, "`y` is missing|give an array `(n, *(3,))`|`x` alone, as an iterable of batches"),
    ("fit x text", lambda: fit(x="images"), TypeError, "`x` for node 'x' is an array of numbers|'images'"),
    ("fit x text alone", lambda: fit(x="images", y=None), TypeError, "`x` for node 'x' is an array of numbers"),
    ("fit x objects", lambda: fit(x=np.array([{}] * 6)), TypeError, "`x` for node 'x' is an array of numbers"),
    ("fit x strings", lambda: fit(x=X.astype(str)), TypeError, "`x` for node 'x' is an array of numbers"),
    ("fit x ragged", lambda: fit(x=[[1.0], [1.0, 2.0]]), ValueError, "`x` for node 'x' is not an array"),
    ("fit x rank", lambda: fit(x=X[0]), ValueError, "`x` for node 'x' has shape (n, *(4,))|(4,)"),
    ("fit x units", lambda: fit(x=X[:, :2]), ValueError, "`x` for node 'x' has shape (n, *(4,))|(6, 2)"),
    ("fit x flat", lambda: fit(x=X[:, 0]), ValueError, "`x` for node 'x' has shape (n, *(4,))|(6,)"),
    ("fit x number", lambda: fit(x=3.0), ValueError, "`x` for node 'x' has shape (n, *(4,))|()"),
    ("fit x complex", lambda: fit(x=X.astype(complex)), TypeError, "`x` for node 'x' has dtype float32|complex"),
    ("fit x node", lambda: fit(x={"image": X}), ValueError, "`x` names 'image'"),
    ("fit x empty mapping", lambda: fit(x={}), ValueError, "`x` is empty|give an array"),
    ("fit x empty", lambda: fit(x=X[:0], y=Y[:0]), ValueError, "the data are empty"),
    ("fit x traced", lambda: jax.jit(lambda x: fit(x=x))(X), TypeError, "`x` for node 'x' is traced|call them outside"),
    ("fit x no batches", lambda: fit(x=[], y=None), ValueError, "`x` gave no batches in epoch 1"),
    ("fit x not pairs", lambda: fit(x=[X, X], y=None), TypeError, "`x` is one array, or an iterable of batches (x, y)|give a tuple of two"),
    ("fit x triples", lambda: fit(x=[(X, Y, Y)], y=None), TypeError, "`x` is one array, or an iterable of batches"),
    ("fit x numbers", lambda: fit(x=[1, 2], y=None), TypeError, "`x` is one array, or an iterable of batches|1"),
    ("fit x batches and y", lambda: fit(x=[(X, Y)]), BOTH, "`x` for node 'x' is"),
    ("fit y labels", lambda: fit(y=np.zeros(6, int)), ValueError, "`y` for node 'y'|dx.one_vs_all(y, 3)"),
    ("fit y text", lambda: fit(y=np.array(["a"] * 6)), TypeError, "`y` for node 'y' is an array of numbers"),
    ("fit y zeros", lambda: fit(y=np.eye(3, dtype=np.float32)[[0, 1, 2] * 2], learning=dx.DynamicalLearning({"out": dx.perceptron()})), ValueError, "`y` for node 'y' holds zeros|2 * y - 1"),
    ("fit y length", lambda: fit(y=Y[:4]), ValueError, "one length|give one label a sample"),
    ("fit y node", lambda: fit(y={"label": Y}), ValueError, "`y` names 'label'"),
    ("fit y without outputs", lambda: fit(network=SILENT), ValueError, "the topology has 0 outputs|`y` as a mapping"),
    ("fit epochs None", lambda: fit(epochs=None), TypeError, "`epochs` is an int of at least 0|None"),
    ("fit epochs float", lambda: fit(epochs=2.0), TypeError, "`epochs` is an int|2.0"),
    ("fit epochs True", lambda: fit(epochs=True), TypeError, "`epochs` is an int|True"),
    ("fit epochs negative", lambda: fit(epochs=-1), ValueError, "`epochs` is an int of at least 0|-1"),
    ("fit epochs text", lambda: fit(epochs="2"), TypeError, "`epochs`|'2'"),
    ("fit batch_size 0", lambda: fit(batch_size=0), ValueError, "`batch_size` is " + COUNT),
    ("fit batch_size None", lambda: fit(batch_size=None), TypeError, "`batch_size` is " + COUNT),
    ("fit batch_size float", lambda: fit(batch_size=0.5), TypeError, "`batch_size` is " + COUNT),
    ("fit key 0", lambda: fit(key=0), TypeError, "`key` is a key, as from jax.random.key(0)"),
    ("fit key None", lambda: fit(key=None), TypeError, "`key` is a key|None"),
    ("fit keys", lambda: fit(key=jax.random.split(KEY, 2)), ValueError, "`key` is one key|give a single one"),
    ("fit key floats", lambda: fit(key=jnp.ones(2)), TypeError, "`key` is a key"),
    ("fit validation x", lambda: fit(validation=X), TypeError, "`validation` is a pair " + PAIR + "|give a tuple of two"),
    ("fit validation two rows", lambda: fit(validation=X[:2]), TypeError, "`validation` is a pair"),
    ("fit validation text", lambda: fit(validation="no"), TypeError, "`validation` is a pair"),
    ("fit validation share", lambda: fit(validation=0.2), TypeError, "`validation` is a pair|0.2"),
    ("fit validation y None", lambda: fit(validation=(X, None)), TypeError, "`y` is missing"),
    ("fit validation labels", lambda: fit(validation=(X, np.zeros(6, int))), ValueError, "dx.one_vs_all"),
    ("fit callbacks None", lambda: fit(callbacks=None), TypeError, CALLBACKS + "|None"),
    ("fit callbacks function", lambda: fit(callbacks=never), TypeError, CALLBACKS + "|write [callback]"),
    ("fit callbacks early", lambda: fit(callbacks=dx.early_stopping("accuracy", 1)), TypeError, CALLBACKS + "|write [callback]"),
    ("fit callbacks factory", lambda: fit(callbacks=[dx.early_stopping]), TypeError, "`callbacks[0]` is dx.early_stopping itself"),
    ("fit callbacks text", lambda: fit(callbacks="accuracy"), TypeError, CALLBACKS),
    ("fit callbacks number", lambda: fit(callbacks=[3]), TypeError, "`callbacks[0]` is a function (network, history)|3"),
    ("fit callbacks class", lambda: fit(callbacks=[Rule]), TypeError, "`callbacks[0]`|make one of it first"),
    ("fit callbacks arity", lambda: fit(callbacks=[lambda network: None]), TypeError, "`callbacks[0]` is a function called as (network, history)|too many"),
    ("fit callback returns 1", lambda: fit(callbacks=[lambda network, history: 1]), TypeError, "`callbacks[0](network, history)` is True or False|1"),
    ("fit callback returns a score", lambda: fit(callbacks=[lambda n, h: h[-1]["accuracy"]]), TypeError, "`callbacks[0](network, history)` is True or False"),
    ("fit callback returns text", lambda: fit(callbacks=[lambda n, h: "stop"]), TypeError, "is True or False|'stop'"),
    ("fit early stopping score", lambda: fit(callbacks=[never, dx.early_stopping("loss", 1)]), ValueError, "`score`|'loss'|'accuracy'|`validation`"),
    ("fit early stopping on batches", lambda: fit(x=[(X, Y)], y=None, callbacks=[never, dx.early_stopping("validation accuracy", 1)]), ValueError, "`score` of early stopping is 'validation accuracy', which no epoch will have|'accuracy'"),
    ("fit checkpoint number", lambda: fit(checkpoint=3), TypeError, "`checkpoint` is the path of a file"),
    ("fit checkpoint True", lambda: fit(checkpoint=True), TypeError, "`checkpoint` is the path of a file"),
    ("fit checkpoint folder", lambda: fit(checkpoint="/"), OSError, "`checkpoint` '/' cannot be written|a folder"),
    ("fit checkpoint empty", lambda: fit(checkpoint=""), OSError, "cannot be written|a folder"),
    ("fit checkpoint missing", lambda: fit(checkpoint="/missing/run"), OSError, "`checkpoint` '/missing/run' cannot be written|No such file"),
    ("fit may_differ text", lambda: fit(may_differ="data"), TypeError, "`may_differ` is a sequence of names|['data']"),
    ("fit may_differ unknown", lambda: fit(may_differ=["rules"]), ValueError, "`may_differ` names 'rules'|'learning', 'optimiser'"),
    ("fit may_differ None", lambda: fit(may_differ=None), TypeError, "`may_differ`|None"),
    ("fit may_differ topology", lambda: fit(may_differ=["digest of the topology"]), ValueError, "`may_differ` names"),
    ("fit progress", lambda: fit(progress="bar"), TypeError, "`progress` is True or False"),
    # evaluate and predict
    ("evaluate network", lambda: evaluate(network=None), TypeError, "`network` is a darnax.Network"),
    ("evaluate learning", lambda: evaluate(learning=RULES), TypeError, LEARN),
    ("evaluate x None", lambda: evaluate(x=None), TypeError, "`x` is missing"),
    ("evaluate y None", lambda: evaluate(y=None), TypeError, "`y` is missing"),
    ("evaluate y labels", lambda: evaluate(y=np.zeros(6, int)), ValueError, "dx.one_vs_all"),
    ("evaluate batches", lambda: evaluate(x=[(X, Y)]), BOTH, "`x` for node 'x'"),
    ("evaluate batch_size", lambda: evaluate(batch_size=0), ValueError, "`batch_size` is " + COUNT),
    ("evaluate batch_size float", lambda: evaluate(batch_size=2.5), TypeError, "`batch_size` is " + COUNT),
    ("evaluate key", lambda: evaluate(key=0), TypeError, "`key` is a key"),
    ("evaluate keys", lambda: evaluate(key=jax.random.split(KEY, 6)), ValueError, "`key` is one key"),
    ("predict network", lambda: predict(network=STATE), TypeError, "`network` is a darnax.Network"),
    ("predict learning", lambda: predict(learning=None), TypeError, LEARN),
    ("predict x None", lambda: predict(x=None), TypeError, "`x` is missing"),
    ("predict x rank", lambda: predict(x=X[0]), ValueError, "`x` for node 'x' has shape (n, *(4,))"),
    ("predict x text", lambda: predict(x=["a"]), TypeError, "`x` for node 'x' is an array of numbers"),
    ("predict batch_size", lambda: predict(batch_size=-1), ValueError, "`batch_size` is " + COUNT),
    ("predict batch_size None", lambda: predict(batch_size=None), TypeError, "`batch_size` is " + COUNT),
    ("predict key", lambda: predict(key="seed"), TypeError, "`key` is a key|'seed'"),
    ("predict without outputs", lambda: predict(network=SILENT), ValueError, "there is no `readout`|outputs=[...]"),
    ("predict all teach", lambda: predict(learning=dx.DynamicalLearning(RULES, [CLAMPED])), ValueError, "`phases` leave nothing for inference"),
    # local updates
    ("updates state", lambda: updates(state=X), TypeError, "`state` is a darnax.GraphState"),
    ("updates state of another", lambda: updates(state=OTHER), ValueError, "`state` belongs to another topology"),
    ("updates rules None", lambda: dx.local_updates(NETWORK, STATE, None), TypeError, "`rules` is a mapping from edge kinds|None|give a dict"),
    ("updates rules list", lambda: updates([dx.hebbian()]), TypeError, "`rules` is a mapping"),
    ("updates rules rule", lambda: updates(dx.hebbian()), TypeError, "`rules` is a mapping"),
    ("updates rules text", lambda: updates("hebbian"), TypeError, "`rules` is a mapping"),
    ("updates rule number", lambda: updates({"in": 0.5}), TypeError, "`rules` 'in' are not rules|dx.perceptron(0.5)"),
    ("updates rule None", lambda: updates({"in": None}), TypeError, "`rules` 'in' are not rules"),
    ("updates rule uncalled", lambda: updates({"in": dx.hebbian}), TypeError, "`rules['in']` is dx.hebbian itself|dx.hebbian(...)"),
    ("updates rule class", lambda: updates({"in": Rule}), TypeError, "`rules['in']`|the class|make one of it first"),
    ("updates rule arity", lambda: updates({"in": lambda field: field}), TypeError, "`rules['in']` is a function called as (field, state)"),
    ("updates rule more", lambda: updates({"in": lambda field, state, rate: field}), TypeError, "`rules['in']`|rate"),
    ("updates rule unhashable", lambda: updates({"in": Unhashable()}), TypeError, "`rules['in']`|hashed|dataclass(frozen=True)"),
    ("updates rule gives None", lambda: updates({"in": returning(None)}), ValueError, "a rule gives a signal|None"),
    ("updates rule gives a number", lambda: updates({"in": returning(1.0)}), ValueError, "a rule gives a signal|(5,)|1.0"),
    ("updates rule gives one", lambda: updates({"in": returning(jnp.ones(1))}), ValueError, "a rule gives a signal of the shape of the field, here (5,)"),
    ("updates kind", lambda: updates({"up": dx.oja()}), ValueError, "`rules` names 'up'"),
    ("updates relays", lambda: updates({"edge": dx.oja()}, network=relays(), state=dx.GraphState(relays().topology)), ValueError, "`rules` names 'edge', whose couplings have nothing to train"),
    ("updates reverse relays", lambda: updates({"back": dx.oja()}, network=relays(), state=dx.GraphState(relays().topology)), ValueError, "`rules` names 'back', whose couplings have nothing to train"),
    ("updates target", lambda: updates(target=X), TypeError, "`target` is a darnax.GraphState"),
    ("updates target of another", lambda: updates(target=OTHER), ValueError, "`target` belongs to another topology"),
    ("updates target batch", lambda: updates(target=dx.GraphState(NETWORK.topology, 2)), ValueError, "`target` has a batch of 2"),
    ("updates silence text", lambda: updates(silence="y"), TypeError, "`silence` is a sequence of names|['y']"),
    ("updates silence None", lambda: updates(silence=None), TypeError, "`silence`|() for none"),
    ("updates silence unknown", lambda: updates(silence=["z"]), ValueError, "`silence` names 'z'"),
    ("updates kinds text", lambda: updates(kinds="in"), TypeError, "`kinds` is a sequence of names"),
    ("updates normalise number", lambda: updates(normalise=3), TypeError, "`normalise` is None, or a function (batch, fan_in)|3"),
    ("updates normalise arity", lambda: updates(normalise=lambda batch: batch), TypeError, "`normalise` is a function called as (batch, fan_in)"),
    ("updates normalise 0", lambda: updates(normalise=lambda batch, fan_in: 0), ValueError, "`normalise(batch, fan_in)` is a finite number above 0|0"),
    ("updates normalise None", lambda: updates(normalise=lambda batch, fan_in: None), TypeError, "`normalise(batch, fan_in)` is a finite number"),
    ("updates normalise NaN", lambda: updates(normalise=lambda batch, fan_in: NAN), ValueError, "`normalise(batch, fan_in)`|nan"),
    ("updates samples numbers", lambda: updates(samples=np.ones(6)), ValueError, "`samples` is a bool mask of shape (6,)|float"),
    ("updates samples length", lambda: updates(samples=np.ones(3, bool)), ValueError, "`samples` is a bool mask of shape (6,)|(3,)"),
    ("updates samples places", lambda: updates(samples=[0, 1]), ValueError, "`samples` is a bool mask"),
    ("updates samples True", lambda: updates(samples=True), ValueError, "`samples` is a bool mask"),
    ("updates samples text", lambda: updates(samples="all"), ValueError, "`samples` is a bool mask"),
    # rules
    ("perceptron NaN", lambda: dx.perceptron(NAN), ValueError, "`margin` is a finite number of at least 0|nan"),
    ("perceptron infinite", lambda: dx.perceptron(INF), ValueError, "`margin`|inf"),
    ("perceptron negative", lambda: dx.perceptron(-0.5), ValueError, "`margin`|-0.5"),
    ("perceptron None", lambda: dx.perceptron(None), TypeError, "`margin`|None"),
    ("perceptron text", lambda: dx.perceptron("0.5"), TypeError, "`margin`|'0.5'"),
    ("perceptron array", lambda: dx.perceptron(np.ones(3)), TypeError, "`margin`|an array"),
    ("perceptron True", lambda: dx.perceptron(True), TypeError, "`margin`|True"),
    ("delta number", lambda: dx.delta(0.5), TypeError, "`activation` is a function of the field|0.5"),
    ("delta None", lambda: dx.delta(None), TypeError, "`activation` is a function"),
    ("delta text", lambda: dx.delta("tanh"), TypeError, "`activation`|'tanh'"),
    ("delta uncalled", lambda: dx.delta(dx.leaky), TypeError, "`activation` is dx.leaky itself"),
    ("delta sign", lambda: dx.delta(dx.sign), ValueError, "`activation`|sign|dx.perceptron"),
    ("delta noisy", lambda: dx.delta(dx.glauber(1.0)), ValueError, "`activation`|glauber needs key"),
    ("delta leaky", lambda: dx.delta(dx.leaky(0.5, dx.tanh)), ValueError, "`activation`|leaky needs state"),
    # ways to teach
    ("dynamical rules None", lambda: dx.DynamicalLearning(None), TypeError, "`rules` is a mapping from edge kinds"),
    ("dynamical rules list", lambda: dx.DynamicalLearning([dx.hebbian()]), TypeError, "`rules` is a mapping"),
    ("dynamical rules rule", lambda: dx.DynamicalLearning(dx.hebbian()), TypeError, "`rules` is a mapping"),
    ("dynamical rule uncalled", lambda: dx.DynamicalLearning({"in": dx.oja}), TypeError, "`rules['in']` is dx.oja itself"),
    ("dynamical rule number", lambda: dx.DynamicalLearning({"in": 1}), TypeError, "`rules` 'in' are not rules"),
    ("dynamical phases phase", lambda: dx.DynamicalLearning(RULES, FREE), TypeError, "`phases` is a sequence of dx.Phase|write [phase]"),
    ("dynamical phases empty", lambda: dx.DynamicalLearning(RULES, []), ValueError, "`phases`|at least one|None for the usual three"),
    ("dynamical phases text", lambda: dx.DynamicalLearning(RULES, "free"), TypeError, "`phases` is a sequence"),
    ("dynamical phases names", lambda: dx.DynamicalLearning(RULES, ["free"]), TypeError, "`phases[0]` is a dx.Phase|'free'"),
    ("dynamical phases class", lambda: dx.DynamicalLearning(RULES, [dx.Phase]), TypeError, "`phases[0]` is a dx.Phase|the class"),
    ("dynamical phases number", lambda: dx.DynamicalLearning(RULES, 3), TypeError, "`phases` is a sequence|3"),
    ("dynamical from_inference", lambda: dx.DynamicalLearning(RULES, from_inference=1), TypeError, "`from_inference` is True or False"),
    ("dynamical normalise", lambda: dx.DynamicalLearning(RULES, normalise=2.0), TypeError, "`normalise` is None, or a function"),
    ("dynamical clamp", lambda: fit(learning=dx.DynamicalLearning(RULES, [dx.Phase("p", clamp=["z"])])), ValueError, "`clamp of phase 'p'` names 'z'"),
    ("dynamical silence", lambda: fit(learning=dx.DynamicalLearning(RULES, [dx.Phase("p", silence=["z"])])), ValueError, "`silence of phase 'p'` names 'z'"),
    ("dynamical kinds", lambda: fit(learning=dx.DynamicalLearning(RULES, [dx.Phase("p", kinds=["z", 3])])), ValueError, "phase 'p': `kinds` names 'z', 3"),
    ("contrastive rules", lambda: dx.ContrastiveLearning(None, FREE, CLAMPED), TypeError, "`rules` is a mapping"),
    ("contrastive free None", lambda: dx.ContrastiveLearning(RULES, None, CLAMPED), TypeError, "`free` is a dx.Phase"),
    ("contrastive taught text", lambda: dx.ContrastiveLearning(RULES, FREE, "clamped"), TypeError, "`taught` is a dx.Phase"),
    ("contrastive taught list", lambda: dx.ContrastiveLearning(RULES, FREE, [CLAMPED]), TypeError, "`taught` is a dx.Phase"),
    ("contrastive not taught", lambda: dx.ContrastiveLearning(RULES, FREE, FREE), ValueError, "`taught` is a phase that is given targets|clamp=[...] or nudge"),
    ("contrastive nudged twice", lambda: dx.ContrastiveLearning(RULES, dx.Phase("n", nudge=0.1), CLAMPED), ValueError, "`free` is a phase without targets"),
    ("contrastive clamped twice", lambda: fit(learning=dx.ContrastiveLearning(RULES, CLAMPED, CLAMPED)), ValueError, "`free` is a phase without targets"),
    ("contrastive symmetric", lambda: dx.ContrastiveLearning(RULES, FREE, NUDGED, symmetric="yes"), TypeError, "`symmetric` is True or False|'yes'"),
    ("contrastive symmetric clamped", lambda: dx.ContrastiveLearning(RULES, FREE, CLAMPED, symmetric=True), ValueError, "`taught` is a phase that nudges|no other side|nudge=..."),
    ("backprop trained None", lambda: dx.BackpropLearning(None, FREE), TypeError, "`trained` is a sequence of names|None"),
    ("backprop trained text", lambda: dx.BackpropLearning("in", FREE), TypeError, "`trained` is a sequence of names|['in']"),
    ("backprop trained lists", lambda: dx.BackpropLearning([["in"]], FREE), TypeError, "`trained` is a sequence of names|tuples"),
    ("backprop trained empty", lambda: dx.BackpropLearning([], FREE), ValueError, "`trained` is a sequence of edge kinds, at least one"),
    ("backprop trained kind", lambda: fit(learning=dx.BackpropLearning(["in", "up"], FREE)), ValueError, "`trained` names 'up'|the kinds are 'back', 'in'"),
    ("backprop trained relays", lambda: fit(network=relays(), learning=dx.BackpropLearning(["edge"], FREE), x=Y, y=Y), ValueError, "`trained` names 'edge', whose couplings have nothing to train"),
    ("backprop free None", lambda: dx.BackpropLearning(["in"], None), TypeError, "`free` is a dx.Phase"),
    ("backprop free text", lambda: dx.BackpropLearning(["in"], "free"), TypeError, "`free` is a dx.Phase|'free'"),
    ("backprop free nudged", lambda: dx.BackpropLearning(["in"], NUDGED), ValueError, "`free` is a phase without targets|nudge"),
    ("backprop free clamped", lambda: fit(learning=dx.BackpropLearning(["in"], CLAMPED)), ValueError, "`free` is a phase without targets"),
    ("backprop free passes", lambda: dx.BackpropLearning(["in"], dx.Phase("p", settle=False)), ValueError, "`free` is a phase that settles|settle=False"),
    ("backprop free unknown", lambda: fit(learning=dx.BackpropLearning(["in"], dx.Phase("p", silence=["z"]))), ValueError, "`silence of phase 'p'` names 'z'"),
    ("backprop loss None", lambda: dx.BackpropLearning(["in"], FREE, None), TypeError, "`loss` is a function (state, targets) -> (B,)|None"),
    ("backprop loss arity", lambda: dx.BackpropLearning(["in"], FREE, lambda state: 0.0), TypeError, "`loss` is a function called as (state, targets)"),
    ("backprop loss of ours", lambda: dx.BackpropLearning(["in"], FREE, dx.hebbian), TypeError, "`loss` is dx.hebbian itself"),
    ("backprop loss number", lambda: smooth(lambda state, y: 1.0), ValueError, "`loss(state, targets)` is one real number a sample, of shape (6,)|1.0"),
    ("backprop loss mean", lambda: smooth(lambda state, y: state["y"].mean()), ValueError, "`loss(state, targets)`|sum over units, and not over samples"),
    ("backprop loss units", lambda: smooth(lambda state, y: state["y"]), ValueError, "`loss(state, targets)`|[6,3]"),
    ("backprop loss whole", lambda: smooth(lambda state, y: state["y"].argmax(1)), ValueError, "`loss(state, targets)`|int32"),
    ("backprop no targets", lambda: smooth(y={}), ValueError, "`targets` are empty|a loss of the state alone"),
    ("backprop targets unit", lambda: smooth(y={"y": jnp.ones((6, 1))}), ValueError, "`target` of dx.nudge for node 'y' has shape (3,) or (6, 3)"),
    ("backprop targets shared", lambda: smooth(y={"y": jnp.ones(3)}), ValueError, "`y` for node 'y' is one target a sample, (6, ...), but got (3,)"),
    ("backprop targets ragged", lambda: smooth(y={"y": [[0], [0, 1]]}), ValueError, "`y` for node 'y' is not an array"),
    ("backprop samples numbers", lambda: smooth(samples=jnp.ones(6)), ValueError, "`samples` is a bool mask of shape (6,)|float"),
    ("backprop samples length", lambda: smooth(samples=jnp.ones(1, bool)), ValueError, "`samples` is a bool mask of shape (6,)|(1,)"),
    ("backprop updates kind", lambda: smooth(kinds=["up"]), ValueError, "`trained` names 'up'|the kinds are 'back', 'in'"),
    ("learning trained None", lambda: fit(learning=Naming(None)), TypeError, "`trained` is a sequence of names|None"),
    ("learning trained text", lambda: fit(learning=Naming("in")), TypeError, "`trained` is a sequence of names|['in']"),
    ("learning trained missing", lambda: Idle(), TypeError, "Idle|'trained'"),
    ("backprop signs", lambda: fit(learning=dx.BackpropLearning(["in"], FREE)), TypeError, "nodes of kind 'hidden' (sign), 'output' (sign) have no derivative|dx.tanh|dx.DynamicalLearning"),
    ("contrastive normalise", lambda: dx.ContrastiveLearning(RULES, FREE, CLAMPED, normalise="root"), TypeError, "`normalise`"),
    # phases
    ("phase name", lambda: dx.Phase(None), TypeError, "`name` is the name of a phase|None"),
    ("phase name number", lambda: dx.Phase(3), TypeError, "`name`|3"),
    ("phase steps 0", lambda: dx.Phase("p", steps=0), ValueError, "`steps of phase 'p'` is " + COUNT),
    ("phase steps negative", lambda: dx.Phase("p", steps=-1, settle=False), ValueError, "`steps of phase 'p'` is an int of at least 0"),
    ("phase steps float", lambda: dx.Phase("p", steps=1.5), TypeError, "`steps of phase 'p'`|1.5"),
    ("phase steps None", lambda: dx.Phase("p", steps=None), TypeError, "`steps of phase 'p'`|None"),
    ("phase settle", lambda: dx.Phase("p", settle="yes"), TypeError, "`settle of phase 'p'` is True or False"),
    ("phase clamp text", lambda: dx.Phase("p", clamp="y"), TypeError, "`clamp of phase 'p'`|['y']"),
    ("phase clamp None", lambda: dx.Phase("p", clamp=None), TypeError, "`clamp of phase 'p'`|() for none"),
    ("phase clamp masks", lambda: dx.Phase("p", clamp={"y": [True]}), TypeError, "`clamp of phase 'p'`|masks|dx.relax"),
    ("phase clamp lists", lambda: dx.Phase("p", clamp=[["y"]]), TypeError, "`clamp of phase 'p'`|tuples"),
    ("phase silence text", lambda: dx.Phase("p", silence="y"), TypeError, "`silence of phase 'p'`|['y']"),
    ("phase silence number", lambda: dx.Phase("p", silence=3), TypeError, "`silence of phase 'p'`|[3]"),
    ("phase kinds text", lambda: dx.Phase("p", kinds="in"), TypeError, "`kinds of phase 'p'`|['in']"),
    ("phase nudge NaN", lambda: dx.Phase("p", nudge=NAN), ValueError, "`nudge of phase 'p'` is a finite number"),
    ("phase nudge None", lambda: dx.Phase("p", nudge=None), TypeError, "`nudge of phase 'p'`"),
    ("phase nudge mapping", lambda: dx.Phase("p", nudge={"y": 0.1}), TypeError, "`nudge of phase 'p'`"),
    ("phase tol negative", lambda: dx.Phase("p", tol=-1.0), ValueError, "`tol of phase 'p'` is a finite number of at least 0"),
    ("phase tol None", lambda: dx.Phase("p", tol=None), TypeError, "`tol of phase 'p'`"),
    ("phase schedule None", lambda: dx.Phase("p", schedule=None), TypeError, "`schedule of phase 'p'` is a schedule such as dx.synchronous()"),
    ("phase schedule uncalled", lambda: dx.Phase("p", schedule=dx.synchronous), TypeError, "`schedule of phase 'p'` is dx.synchronous itself"),
    ("phase schedule text", lambda: dx.Phase("p", schedule="synchronous"), TypeError, "`schedule of phase 'p'`|'synchronous'"),
    ("nudge strength NaN", lambda: dx.nudge("y", Y, NAN), ValueError, "`strength` is a finite number"),
    ("nudge strength None", lambda: dx.nudge("y", Y, None), TypeError, "`strength`"),
    ("nudge strength array", lambda: dx.nudge("y", Y, np.ones(3)), TypeError, "`strength`"),
    ("nudge target None", lambda: dx.nudge("y", None, 0.1), TypeError, "`target` is an array of numbers|None"),
    *[
        (f"nudge target {shape}", lambda shape=shape: nudged(shape), ValueError, "`target` of dx.nudge for node 'y'|reshape it")
        for shape in [(6, 1), (6, 5), (1, 3), (3, 6), ()]
    ],
    ("nudge target complex", lambda: dx.nudge("y", Y * 1j, 0.1), TypeError, "`target` is an array of numbers|complex64"),
    ("nudge energy", lambda: dx.nudge("y", np.ones((6, 1)), 0.1).energy(STATE), ValueError, "`target` of dx.nudge for node 'y'|reshape it"),
    ("nudge target text", lambda: dx.nudge("y", "y", 0.1), TypeError, "`target` is an array of numbers"),
    ("nudge node", lambda: dx.nudge(["y"], Y, 0.1), TypeError, "`node` is the name of a node"),
    # targets, stopping, history
    ("one_vs_all text", lambda: dx.one_vs_all(np.array(["a", "b"]), 2), TypeError, "`labels` are whole numbers from 0 to 1|text|np.unique"),
    ("one_vs_all None", lambda: dx.one_vs_all(None, 2), TypeError, "`labels` are whole numbers"),
    ("one_vs_all floats", lambda: dx.one_vs_all([0.5, NAN], 2), ValueError, "`labels` are whole numbers|float64"),
    ("one_vs_all bools", lambda: dx.one_vs_all([True, False], 2), TypeError, "`labels` are whole numbers|bool"),
    ("one_vs_all rank", lambda: dx.one_vs_all(np.eye(2, dtype=int), 2), ValueError, "`labels`|one a sample|(2, 2)"),
    ("one_vs_all large", lambda: dx.one_vs_all([0, 2], 2), ValueError, "`labels`|from 0 to 2"),
    ("one_vs_all negative", lambda: dx.one_vs_all([-1], 2), ValueError, "`labels`|from -1"),
    ("one_vs_all ragged", lambda: dx.one_vs_all([[0], [0, 1]], 2), ValueError, "`labels`"),
    ("one_vs_all traced", lambda: jax.jit(lambda y: dx.one_vs_all(y, 2))(np.zeros(3, int)), TypeError, "`labels`|traced"),
    ("one_vs_all classes None", lambda: dx.one_vs_all([0], None), TypeError, "`classes` is " + COUNT),
    ("one_vs_all classes 0", lambda: dx.one_vs_all([0], 0), ValueError, "`classes` is " + COUNT),
    ("one_vs_all classes float", lambda: dx.one_vs_all([0], 2.0), TypeError, "`classes` is " + COUNT),
    ("early_stopping score", lambda: dx.early_stopping(None, 3), TypeError, "`score` is the name of a score"),
    ("early_stopping swapped", lambda: dx.early_stopping(3, "accuracy"), TypeError, "`score` is the name of a score|3"),
    ("early_stopping patience 0", lambda: dx.early_stopping("accuracy", 0), ValueError, "`patience` is " + COUNT),
    ("early_stopping patience negative", lambda: dx.early_stopping("accuracy", -2), ValueError, "`patience`|-2"),
    ("early_stopping patience None", lambda: dx.early_stopping("accuracy", None), TypeError, "`patience` is " + COUNT),
    ("early_stopping larger", lambda: dx.early_stopping("accuracy", 3, "max"), TypeError, "`larger` is True or False"),
    ("early_stopping by hand", lambda: dx.early_stopping("loss", 3)(NETWORK, history({"accuracy": 1.0})), KeyError, "no epoch has 'loss'|'accuracy'"),
    ("history rows None", lambda: dx.History(None), TypeError, "`rows` is a list of mappings"),
    ("history rows mapping", lambda: dx.History({"accuracy": [1.0]}), TypeError, "`rows` is a list of mappings"),
    ("history rows numbers", lambda: dx.History([1.0]), TypeError, "`rows` is a mapping from names of scores"),
    ("history rows text", lambda: history({"accuracy": "high"}), TypeError, "`rows`|'high'"),
    ("history column", lambda: history({"accuracy": 1.0})["loss"], KeyError, "no epoch has 'loss'"),
    ("history row", lambda: history({"accuracy": 1.0})[5], IndexError, "there is no epoch 5: the history has 1"),
    ("history key", lambda: history({"accuracy": 1.0})[1.5], TypeError, "`key` is the name of a score, or the number of an epoch"),
    ("history plot empty", lambda: history().plot(), ValueError, "the history is empty"),
    ("history plot axes", lambda: history({"accuracy": 1.0}).plot(axes=3), TypeError, "`axes` is one matplotlib axes"),
    ("history plot few axes", lambda: history({"a": 1.0, "b": 1.0}).plot(axes=pyplot.figure().subplots()), ValueError, "`axes` are 1|2 scores"),
    # files of images
    ("load_idx None", lambda: load_idx(None), TypeError, "`folder` is the path of a file"),
    ("load_idx missing", lambda: load_idx("/missing"), FileNotFoundError, "`folder` '/missing' lacks|nothing is downloaded"),
    ("load_npz None", lambda: load_npz(None), TypeError, "`path` is the path of a file"),
    ("load_npz missing", lambda: load_npz("/missing.npz"), FileNotFoundError, "`path` '/missing.npz' is not there"),
    ("load_npz folder", lambda: load_npz("/"), ValueError, "`path` '/' is not an .npz"),
    ("read_idx folder", lambda: read_idx("/"), ValueError, "'/' cannot be read as an IDX file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_refused_with_words(call, error, words):
    pyplot.switch_backend("Agg")
    with pytest.raises(error) as raised:
        call()
    pyplot.close("all")
    for word in words.split("|"):
        assert word in str(raised.value)


def test_the_table_is_long_and_its_rows_differ():
    assert len({row[0] for row in ROWS}) == len(ROWS) > 200


def test_files_of_images_that_do_not_belong_together(tmp_path: Path):
    np.savez(
        tmp_path / "pair.npz",
        x_train=np.ones((3, 2)),
        y_train=np.ones(2),
        x_test=np.ones(1),
        y_test=np.ones(1),
    )
    with pytest.raises(
        ValueError,
        match=r"holds one label an image, but there are images \(3, 2\) with labels \(2,\)",
    ):
        load_npz(tmp_path / "pair.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(
        ValueError, match=r"is not an .npz of plain arrays: it holds one array without a name"
    ):
        load_npz(tmp_path / "one.npy")
    for data in (
        b"text",
        gzip.compress(b"\0" * 100)[:-9],
        gzip.compress(b"\0" * 100)[:30] + b"xxxx",
    ):
        (tmp_path / (PARTS[0] + ".gz")).write_bytes(data)
        with pytest.raises(ValueError, match=r"cannot be read as an IDX file"):
            read_idx(tmp_path / (PARTS[0] + ".gz"))


def test_a_rule_without_a_signature_is_called_as_it_is():
    """Functions that are built in show none; they are taken at their word."""
    updates({"in": jnp.multiply})


def test_nodes_with_names_of_two_types():
    """Names that have no order among them are inputs and outputs like others."""
    g = nx.DiGraph()
    for node in (0, "b", ("c", 1), 2):
        g.add_node(node, shape=2)
    g.add_edges_from([(0, ("c", 1)), ("b", 2)])
    topology = dx.Topology(g, inputs=[0, "b"], outputs=[("c", 1), 2])
    network = dx.Network(topology, {"edge": dx.dense()}, dx.identity, key=KEY)
    x = {0: np.ones((4, 2)), "b": np.ones((4, 2))}
    y = {("c", 1): np.ones((4, 2)), 2: np.ones((4, 2))}
    learning = dx.DynamicalLearning({"edge": dx.perceptron(0.5)})
    trained, _ = dx.fit(
        network,
        learning,
        optax.sgd(0.1),
        x,
        y,
        epochs=1,
        key=KEY,
        progress=False,
        validation=(x, y),
    )
    answers = dx.predict(trained, learning, x)
    assert list(answers) == [("c", 1), 2]
    assert all(answer.shape == (4, 2) for answer in answers.values())
    assert eqx.is_array(answers[2])


def test_without_outputs_targets_may_be_left_out():
    fit(network=SILENT, y=None, callbacks=())
