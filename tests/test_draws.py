"""Initial weights: normal numbers that are the same bits everywhere, and independent of each
other."""

from statistics import NormalDist

import jax
import numpy as np
import pytest

from darnax.couplings.draws import Draws, check_size, derived, keys_of, normal_from_bits, threefry

KEY = jax.random.key(0)
FLOAT = np.dtype("float32")


def words(count):
    return derived(KEY, np.stack([np.arange(count), np.zeros(count)], axis=-1).astype(np.uint32))


def test_threefry_has_the_bits_of_its_paper():
    """The known answers of the reference implementation for Threefry-2x32 in 20 rounds."""
    known = {
        (0, 0, 0, 0): (0x6B200159, 0x99BA4EFE),
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF): (0x1CB996FC, 0xBB002BE7),
        (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3): (0xC4923A9C, 0x483DF7A0),
    }
    for given, expected in known.items():
        key, counter = (
            [np.asarray([word], np.uint32) for word in pair] for pair in (given[:2], given[2:])
        )
        assert tuple(int(word[0]) for word in threefry(tuple(key), tuple(counter))) == expected


def test_numbers_are_normal():
    drawn = np.sort(Draws(words(4), (4,), FLOAT).normal((50_000,), 1.0).ravel())
    expected = np.asarray([NormalDist().inv_cdf(p) for p in (np.arange(1, 200) / 200)])
    found = drawn[(len(drawn) * np.arange(1, 200)) // 200]
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert abs(drawn.mean()) < 0.01
    np.testing.assert_allclose(drawn.std(), 1, atol=0.01)
    np.testing.assert_allclose((drawn**4).mean(), 3, atol=0.1)


def test_every_word_of_bits_is_a_number_and_larger_tails_are_smaller_numbers():
    bits = np.concatenate(
        [np.arange(70), 2 ** np.arange(1, 31) - 1, 2 ** np.arange(1, 31), [2**31 - 1]]
    ).astype(np.uint32)
    numbers = normal_from_bits(np.sort(bits), np)
    assert (np.diff(numbers) <= 0).all()
    assert (normal_from_bits(np.sort(bits) | np.uint32(2**31), np) == -numbers).all()
    assert 6 < numbers[0] / 2**27 < 6.5
    assert abs(numbers[-1]) < 2**27 / 100


def test_edges_streams_and_places_are_independent():
    draws = Draws(words(3), (3,), FLOAT)
    rows = [*draws.normal((5000,), 1.0), *draws.normal((5000,), 1.0, stream=1)]
    correlation = np.corrcoef([*rows, np.roll(rows[0], 1), np.roll(rows[0], 2)])
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.06


def test_what_is_drawn_does_not_depend_on_how_many_are_drawn_at_once():
    many = Draws(words(5), (5,), FLOAT).normal((7, 3), 0.5)
    one = Draws(words(5)[2:3], (), FLOAT).normal((7, 3), 0.5)
    np.testing.assert_array_equal(many[2], one)
    np.testing.assert_array_equal(
        many[2].ravel()[:10], Draws(words(5)[2:3], (), FLOAT).normal((10,), 0.5)
    )


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_of_every_generator_serve(impl):
    key = jax.random.key(3, impl=impl)
    found = derived(key, np.asarray([[1, 2], [3, 4]], np.uint32))
    assert found.shape == (2, 2)
    assert len(np.unique(found)) == 4
    made = keys_of(found, key)
    assert made.shape == (2,)
    assert jax.random.key_impl(made) == jax.random.key_impl(key)


def test_arrays_that_no_memory_holds_are_refused_before_they_are_asked_for():
    with pytest.raises(
        ValueError, match=r"shape \(1, 10000000, 10000000\) need 372,529 GiB.*couple fewer units"
    ):
        check_size((1, 10**7, 10**7), FLOAT)
    check_size((1, 10, 10), FLOAT)
