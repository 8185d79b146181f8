"""Programs are told apart by what they compute, and compiled once for all that compute the same."""

import os
import subprocess
import sys
import textwrap

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import compilations

from darnax.learning.program import Shared, fingerprint

X = jnp.arange(3.0)


def scaled(factor):
    return lambda x: factor * x


def shifted(array):
    return lambda x: jax.nn.relu(x) + jnp.asarray(array)


def nested(array):
    """A constant in a program inside a loop inside a program."""
    inner = jax.jit(lambda x: x * array)
    return jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda i, x: inner(x), x))


def branched(array):
    return lambda x: jax.lax.cond(x.sum() > 0, lambda x: x + array, lambda x: x, x)


def keyed(seed):
    key = jax.random.key(seed)
    return lambda x: x + jax.random.normal(key, x.shape)


def descended(rate):
    optimiser = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(rate))
    return lambda x: optimiser.update(x, optimiser.init(x), x)[0]


# pairs of a maker and arguments that make functions which differ, the first two by as little as may
# be
MAKERS = {
    "factor": (scaled, (0.1, float(np.nextafter(np.float32(0.1), 1)), 2.0)),
    "sign of zero": (scaled, (0.0, -0.0)),
    "array": (shifted, (np.float32([1, 2, 3]), np.float32([1, 2, np.nextafter(np.float32(3), 4)]))),
    "device array": (shifted, (X, X + 1)),
    "nested": (nested, (np.float32([1, 2, 3]), np.float32([1, 2, 4]))),
    "nested device array": (nested, (X, -X)),
    "branch": (branched, (np.float32([1, 2, 3]), np.float32([3, 2, 1]))),
    "key": (keyed, (0, 1)),
    "optimiser": (descended, (0.1, 0.2)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_computes_the_same_is_one_program(name):
    make, arguments = MAKERS[name]
    call = Shared(lambda f, x: f(x))
    for argument in arguments:
        first = call(make(argument), X)
        np.testing.assert_allclose(first, make(argument)(X), rtol=1e-5)
        assert compilations(lambda argument=argument: call(make(argument), X)) == 0
        np.testing.assert_array_equal(call(make(argument), X), first)
    prints = [fingerprint(make(argument), X) for argument in arguments]
    assert len(set(prints)) == len(arguments)
    assert prints == [fingerprint(make(argument), X) for argument in arguments]


def test_it_depends_on_shapes_and_dtypes_and_not_on_values():
    same = fingerprint(scaled(2.0), X)
    assert (
        fingerprint(scaled(2.0), X + 1)
        == same
        == fingerprint(scaled(2.0), jax.ShapeDtypeStruct((3,), jnp.float32))
    )
    assert fingerprint(scaled(2.0), X[:2]) != same
    assert fingerprint(scaled(2.0), X.astype(jnp.bfloat16)) != same


class Back:
    """Something to be called that does not show what it holds."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return np.asarray(x) * np.float32(self.factor)

    def __repr__(self):
        return "Back"


@pytest.mark.parametrize(
    "make", [Back, lambda factor: lambda x: np.asarray(x) * np.float32(factor)]
)
def test_functions_of_python_are_never_taken_for_one_another(make):
    """A program that calls back holds a function, which another one of the same name must not stand
    for."""

    def calls(factor):
        return lambda x: jax.pure_callback(make(factor), jax.ShapeDtypeStruct((3,), jnp.float32), x)

    call = Shared(lambda f, x: f(x))
    np.testing.assert_array_equal(call(calls(2), X), 2 * X)
    np.testing.assert_array_equal(call(calls(3), X), 3 * X)


def test_results_keep_their_structure():
    call = Shared(
        lambda tree, flag: {"a": tree["x"] if flag else -tree["x"], "b": (tree["n"], None)}
    )
    tree = {"x": X, "n": np.ones(2, np.int32)}
    got = call(tree, False)
    assert jax.tree.structure(got) == jax.tree.structure({"a": X, "b": (tree["n"], None)})
    np.testing.assert_array_equal(got["a"], -X)
    np.testing.assert_array_equal(call(tree, True)["a"], X)


def test_nothing_is_traced_again_for_equal_arguments():
    traced = []

    def function(x, name):
        traced.append(name)
        return x

    call = Shared(function)
    for _ in range(3):
        call(X, "one")
    assert traced == ["one"]
    call(X, "two")
    call(X[:2], "two")
    assert traced == ["one", "two", "two"]


SCRIPT = """
    import darnax as dx, jax, numpy as np, optax, sys
    t = dx.Topology(dx.topologies.sequential([4, 5, 3]))
    kinds = ("forward", "backward", "recurrent")
    network = dx.Network(t, dict.fromkeys(kinds, dx.dense()), dx.relu, key=jax.random.key(0))
    learning = dx.DynamicalLearning({"forward": dx.delta(dx.tanh)}, normalise=lambda batch, fan_in: batch * 2.0)
    x, y = np.ones((6, 4), np.float32), np.ones((6, 3), np.float32)
    optimiser = optax.adam(optax.cosine_decay_schedule(0.1, 10))
    trained, history = dx.fit(
        network, learning, optimiser, x, y, epochs=int(sys.argv[2]), key=jax.random.key(0), checkpoint=sys.argv[1],
        progress=False
    )
    print(len(history), trained[0, 1].weight.sum())
"""


def test_a_run_goes_on_in_another_process(tmp_path):
    """Digests do not depend on where objects lie in memory, nor on how Python hashes text."""

    def run(name, epochs, seed):
        script = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / name), str(epochs)]
        done = subprocess.run(
            script, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("stopped", 1, seed="1")
    assert run("stopped", 3, seed="2") == run("whole", 3, seed="3")


def test_rules_with_arrays_are_arguments():
    class Rule(eqx.Module):
        factor: jax.Array

        def __call__(self, x):
            return self.factor * x

    assert fingerprint(lambda f, x: f(x), Rule(X), X) == fingerprint(
        lambda f, x: f(x), Rule(X + 1), X
    )
    call = Shared(lambda f, x: f(x))
    call(Rule(X), X)
    assert compilations(lambda: call(Rule(2 * X), X)) == 0
