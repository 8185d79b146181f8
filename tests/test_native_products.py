"""Products with matrices that follow what changed, in C++ and in plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import needs_library

from darnax.kernels.native_products import (
    EdgeMatrices,
    corrected_products,
    resummed_products,
)

# senders and receivers of every edge, rows at both ends
GRAPHS = {
    "one edge": ([0], [0], 1, 1),
    "no edges": ([], [], 2, 3),
    "a row each": ([1, 0, 2], [0, 1, 2], 3, 3),
    "rows without edges": ([2, 0], [1, 4], 3, 6),
    "several to a row": ([0, 1, 1, 2, 0], [0, 0, 1, 1, 1], 3, 2),
}
# below, at and above the samples that C++ takes at once
BATCHES = [1, 15, 16, 17, 40]
UNITS = [(1, 1), (3, 5), (40, 70), (9, 200)]


def made(name, inputs, outputs, tied=False, dtype=np.float32):
    """Edges, their matrices in NumPy, and the senders and receivers."""
    senders, receivers, sending, receiving = GRAPHS[name]
    rng = np.random.default_rng(0)
    w = rng.normal(size=(1 if tied else len(senders), outputs, inputs)).astype(dtype)
    starts = np.searchsorted(receivers, np.arange(receiving + 1))
    edges = EdgeMatrices(
        starts=jnp.asarray(starts, jnp.int32),
        senders=jnp.asarray(senders, jnp.int32),
        by_input=jnp.asarray(np.swapaxes(w, 1, 2)),
        by_output=jnp.asarray(w),
    )
    return edges, np.broadcast_to(w, (len(senders), outputs, inputs)), sending, receiving


def states(sending, inputs, batch, share, dtype=np.float32):
    """States before and after a share of them changed."""
    rng = np.random.default_rng(1)
    before = rng.choice([-1, 1], (sending, inputs, batch)).astype(dtype)
    return before, np.where(rng.random(before.shape) < share, -before, before)


def by_loop(name, w, x):
    """The sums in NumPy, in float64."""
    senders, receivers, _, receiving = GRAPHS[name]
    field = np.zeros((receiving, w.shape[1], x.shape[-1]))
    for e in range(len(senders)):
        field[receivers[e]] += w[e].astype(float) @ x[senders[e]].astype(float)
    return field


correct = jax.jit(corrected_products)
resum = jax.jit(resummed_products)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.6])
@pytest.mark.parametrize("name", GRAPHS)
def test_corrected_fields_are_those_of_the_new_states(way, name, share):
    # in plain JAX every size is the same to us
    every = name == "several to a row" and way == "library"
    for inputs, outputs in UNITS if every else [(3, 5)]:
        for batch in BATCHES if every else [4]:
            edges, w, sending, _ = made(name, inputs, outputs)
            before, after = states(sending, inputs, batch, share)
            field = by_loop(name, w, before).astype(np.float32)
            found, changed, too_much = correct(edges, field, before, after, np.float32(0.99))
            np.testing.assert_allclose(found, by_loop(name, w, after), atol=1e-4)
            np.testing.assert_array_equal(changed, (before != after).sum((0, 1)))
            assert not too_much


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("name", GRAPHS)
def test_single_sums_are_exact(way, name, share):
    every = name == "several to a row" and way == "library"
    for inputs, outputs in UNITS if every else [(3, 5)]:
        for batch in BATCHES if every else [4]:
            edges, w, sending, receiving = made(name, inputs, outputs)
            x, _ = states(sending, inputs, batch, 0)
            rng = np.random.default_rng(2)
            field = rng.normal(size=(receiving, outputs, batch)).astype(np.float32)
            cells = rng.random(field.shape) < share
            found, too_much = resum(edges, field, x, cells, np.float32(2))
            expected = np.where(cells, by_loop(name, w, x), field).astype(np.float32)
            if way == "library":
                # float64 holds the sums of so few float32 without rounding
                np.testing.assert_array_equal(found, expected)
            np.testing.assert_allclose(found, expected, atol=1e-4)
            assert not too_much


def test_one_matrix_for_all_edges(way):
    edges, w, sending, _ = made("several to a row", 3, 5, tied=True)
    before, after = states(sending, 3, 4, 0.3)
    field = by_loop("several to a row", w, before).astype(np.float32)
    expected = by_loop("several to a row", w, after)
    np.testing.assert_allclose(correct(edges, field, before, after, 1.0)[0], expected, atol=1e-5)
    cells = np.ones(field.shape, bool)
    np.testing.assert_allclose(resum(edges, field, after, cells, 1.0)[0], expected, atol=1e-5)


def test_where_there_is_too_much_to_do_nothing_is_done(way):
    edges, w, sending, _ = made("several to a row", 3, 5)
    before, after = states(sending, 3, 4, 0.5)
    field = by_loop("several to a row", w, before).astype(np.float32)
    share = (before != after).mean()
    for above in (True, False):
        limit = np.float32(share - 0.01 if above else share + 0.01)
        found, changed, too_much = correct(edges, field, before, after, limit)
        assert too_much == above
        np.testing.assert_array_equal(changed, (before != after).sum((0, 1)))
        assert np.array_equal(found, field) == above
    # less than no share at all is asked for where nothing may be kept
    assert correct(edges, field, before, before, -1.0)[2]
    cells = np.random.default_rng(0).random(field.shape) < 0.5
    for above in (True, False):
        limit = np.float32(cells.mean() - 0.01 if above else cells.mean() + 0.01)
        found, too_much = resum(edges, field, after, cells, limit)
        assert too_much == above
        assert np.array_equal(found, field) == above


def test_float64_keeps_its_digits(way):
    with jax.enable_x64(True):
        edges, w, sending, _ = made("several to a row", 40, 5, dtype=np.float64)
        before, after = states(sending, 40, 17, 0.1, np.float64)
        field, expected = (by_loop("several to a row", w, x) for x in (before, after))
        share = jnp.asarray(1, jnp.float32)
        found = correct(edges, field, before, after, share)[0]
        np.testing.assert_allclose(found, expected, atol=1e-12)
        cells = np.ones(field.shape, bool)
        found = resum(edges, field, after, cells, share)[0]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_is_not_finite_reaches_its_own_sample_alone(way):
    edges, w, sending, _ = made("a row each", 3, 5)
    before, after = states(sending, 3, 20, 0.1)
    after[0, 1, 7] = np.nan
    after[1, 2, 18] = np.inf
    field = by_loop("a row each", w, before).astype(np.float32)
    found = np.asarray(correct(edges, field, before, after, 1.0)[0])
    expected = by_loop("a row each", w, after)
    if way == "library":
        np.testing.assert_allclose(found, expected, atol=1e-4)
    finite = np.delete(found, [7, 18], axis=2)
    np.testing.assert_allclose(finite, np.delete(expected, [7, 18], axis=2), atol=1e-4)
    cells = np.ones(field.shape, bool)
    if way == "library":
        np.testing.assert_allclose(resum(edges, field, after, cells, 1.0)[0], expected, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("matrices", [False, True])
def test_under_vmap(way, axis, matrices):
    stack = [made("several to a row", 3, 5)[0] for _ in range(3)]
    if matrices:
        for i, edges in enumerate(stack):
            scaled = [(i + 1) * edges.by_input, (i + 1) * edges.by_output]
            stack[i] = EdgeMatrices(edges.starts, edges.senders, *scaled)
    pairs = [states(3, 3, 4, share) for share in (0.0, 0.1, 0.9)]
    before, after = (jnp.stack(side, axis=axis) for side in zip(*pairs, strict=True))
    rng = np.random.default_rng(0)
    field = jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32)
    cells = jnp.asarray(rng.random((3, 2, 5, 4)) < 0.3)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stack) if matrices else stack[0]
    of_edges = 0 if matrices else None

    def both(edges, before, after, cells):
        corrections = corrected_products(edges, field, before, after, jnp.float32(0.5))
        return corrections, resummed_products(edges, field, after, cells, jnp.float32(0.5))

    found = jax.jit(jax.vmap(both, (of_edges, axis, axis, 0)))(together, before, after, cells)
    for i, (edges, pair) in enumerate(zip(stack, pairs, strict=True)):
        alone = jax.jit(both)(edges, *map(jnp.asarray, pair), cells[i])
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(one[i], other, rtol=1e-6, atol=1e-6)
    # of the three, one alone had too much to do
    np.testing.assert_array_equal(found[0][2], [False, False, True])


def test_what_is_corrected_stays_as_it_was_for_others(way):
    edges, w, sending, _ = made("one edge", 3, 5)
    before, after = map(jnp.asarray, states(sending, 3, 4, 0.5))
    field = jnp.asarray(by_loop("one edge", w, before), jnp.float32)
    kept = np.array(field)

    @jax.jit
    def both(field):
        return corrected_products(edges, field, before, after, jnp.float32(1))[0], field + 0

    _, same = both(field)
    np.testing.assert_array_equal(field, kept)
    np.testing.assert_array_equal(same, kept)


# calls that no function of ours makes


def whole_call():
    """The operands of a good call of both, by name; the last row of the field has edges."""
    return {
        "starts": np.asarray([[0, 1, 3]], np.int32),
        "senders": np.asarray([[0, 2, 1]], np.int32),
        "w": np.ones((1, 3, 4, 5), np.float32),
        "share": np.asarray([1], np.float32),
        "x": np.ones((1, 3, 4, 6), np.float32),
        "y": np.ones((1, 2, 5, 6), np.float32),
    }


def call(name, given):
    """One of both with raw operands; all cells are asked for, and all states change."""
    given = dict(given)
    field = given.pop("field", given["y"])
    x, y = given.pop("x"), given.pop("y")
    stack = given.pop("results", y.shape[0])
    if name == "darnax_correct_products":
        others = x, given.pop("after", -x)
        results = [((stack, y.shape[-1]), np.int32), ((stack,), bool), (y.shape, y.dtype)]
    else:
        given["w"] = np.swapaxes(given["w"], -1, -2)
        given.pop("after", None)
        cells = given.pop("cells", np.ones(y.shape, bool))
        others = x, cells
        results = [((stack,), bool), (y.shape, y.dtype)]
    operands = *(given[k] for k in ("starts", "senders", "w", "share")), *others, field
    shapes = [jax.ShapeDtypeStruct(*result) for result in results]
    return jax.block_until_ready(jax.jit(jax.ffi.ffi_call(name, shapes))(*operands))


BAD = {
    "starts that fall": {"starts": np.asarray([[0, 5, 3]], np.int32)},
    "starts below zero": {"starts": np.asarray([[0, -1, 3]], np.int32)},
    "starts that begin late": {"starts": np.asarray([[1, 1, 3]], np.int32)},
    "starts that end early": {"starts": np.asarray([[0, 1, 2]], np.int32)},
    "starts of more rows": {"starts": np.asarray([[0, 1, 2, 3]], np.int32)},
    "starts of another dtype": {"starts": np.asarray([[0, 1, 3]], np.int16)},
    "starts without an axis": {"starts": np.asarray([0, 1, 3], np.int32)},
    "a sender that is not there": {"senders": np.asarray([[0, 3, 1]], np.int32)},
    "a sender below zero": {"senders": np.asarray([[0, -1, 1]], np.int32)},
    "senders of 16 bits": {"senders": np.asarray([[0, 2, 1]], np.uint16)},
    "senders without an axis": {"senders": np.asarray([0, 2, 1], np.int32)},
    "more senders": {"senders": np.asarray([[0, 2, 1, 1]], np.int32)},
    "fewer matrices": {"w": np.ones((1, 2, 4, 5), np.float32)},
    "matrices of fewer inputs": {"w": np.ones((1, 3, 3, 5), np.float32)},
    "matrices of fewer outputs": {"w": np.ones((1, 3, 4, 4), np.float32)},
    "matrices without an axis": {"w": np.ones((3, 4, 5), np.float32)},
    "matrices of another dtype": {"w": np.ones((1, 3, 4, 5), np.int32)},
    "matrices of a stack": {"w": np.ones((2, 3, 4, 5), np.float32)},
    "a share of another dtype": {"share": np.asarray([1], np.int32)},
    "a share without an axis": {"share": np.float32(1)},
    "two shares": {"share": np.ones(2, np.float32)},
    "states of another dtype": {"x": np.ones((1, 3, 4, 6), np.int32)},
    "states of fewer samples": {"x": np.ones((1, 3, 4, 5), np.float32)},
    "states without an axis": {"x": np.ones((3, 4, 6), np.float32)},
    "states of more inputs": {"x": np.ones((1, 3, 5, 6), np.float32)},
    "fields of another dtype": {"y": np.ones((1, 2, 5, 6), np.int32)},
    "fields without an axis": {"y": np.ones((2, 5, 6), np.float32)},
    "a field of more rows": {"field": np.ones((1, 3, 5, 6), np.float32)},
    "a field of fewer samples": {"field": np.ones((1, 2, 5, 4), np.float32)},
    "one field for two": {
        "x": np.ones((2, 3, 4, 6), np.float32),
        "y": np.ones((2, 2, 5, 6), np.float32),
        "field": np.ones((1, 2, 5, 6), np.float32),
    },
    "results for two": {"results": 2},
}
BAD_CORRECTIONS = BAD | {
    "other states after": {"after": np.ones((1, 2, 4, 6), np.float32)},
    "fewer samples after": {"after": np.ones((1, 3, 4, 5), np.float32)},
    "another dtype after": {"after": np.ones((1, 3, 4, 6), np.int32)},
}
BAD_CELLS = BAD | {
    "cells of more rows": {"cells": np.ones((1, 3, 5, 6), bool)},
    "cells of fewer samples": {"cells": np.ones((1, 2, 5, 4), bool)},
    "cells of another dtype": {"cells": np.ones((1, 2, 5, 6), np.int8)},
    "cells without an axis": {"cells": np.ones((2, 5, 6), bool)},
}


@needs_library
@pytest.mark.parametrize("name", BAD_CORRECTIONS)
def test_bad_corrections_are_refused(name):
    with pytest.raises(jax.errors.JaxRuntimeError, match="darnax:"):
        call("darnax_correct_products", whole_call() | BAD_CORRECTIONS[name])


@needs_library
@pytest.mark.parametrize("name", BAD_CELLS)
def test_bad_sums_of_single_cells_are_refused(name):
    with pytest.raises(jax.errors.JaxRuntimeError, match="darnax:"):
        call("darnax_resum_products", whole_call() | BAD_CELLS[name])


@needs_library
@pytest.mark.parametrize("name", ["darnax_correct_products", "darnax_resum_products"])
def test_good_calls_are_not_refused(name):
    *_, field = call(name, whole_call())
    # one edge of four inputs that go from 1 to -1, and two; or their plain sums
    expected = {"darnax_correct_products": [-7, -15], "darnax_resum_products": [4, 8]}[name]
    np.testing.assert_array_equal(field[0, :, 0, 0], expected)
