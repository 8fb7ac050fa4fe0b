"""Fitness shaping against scipy, and on values that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.strategies import shaping

FITNESS = st.lists(st.sampled_from([-2.0, 0.0, 0.5, 0.5, 7.0, np.inf, -np.inf]), min_size=2, max_size=12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(FITNESS)
def test_ranks_average_over_ties(fitness):
    expected = scipy.stats.rankdata(fitness) - 1
    np.testing.assert_array_equal(shaping.ranks(jnp.array(fitness)), expected)


def test_ranks_of_a_large_population_agree_with_pairwise_ones(monkeypatch):
    fitness = jax.random.randint(jax.random.key(0), (600,), 0, 100).astype(jnp.float32).at[3].set(jnp.nan)
    sorted_way = shaping.ranks(fitness)
    monkeypatch.setattr(shaping, "_MAX_PAIRWISE", 1000)
    np.testing.assert_array_equal(sorted_way, shaping.ranks(fitness))
    np.testing.assert_array_equal(sorted_way, scipy.stats.rankdata(np.nan_to_num(fitness, nan=np.inf)) - 1)


def test_centered_ranks():
    np.testing.assert_allclose(shaping.centered_ranks(jnp.array([5.0, jnp.nan, -1.0])), [0.0, 0.5, -0.5])
    np.testing.assert_allclose(shaping.centered_ranks(jnp.array([1.0])), [-0.5])


def test_standardized():
    shaped = shaping.standardized(jnp.array([1.0, 2.0, 3.0, jnp.nan]))
    np.testing.assert_allclose(shaped, (np.array([1, 2, 3, 3]) - 2.25) / np.std([1, 2, 3, 3]), rtol=1e-6)
    np.testing.assert_array_equal(shaping.standardized(jnp.ones(4)), np.zeros(4))


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e19, 1e30, 8e37])
def test_standardized_over_the_whole_range_of_floats(scale):
    fitness = np.array([1.0, 2.0, 0.5, 4.0]) * scale
    expected = (fitness - fitness.mean()) / fitness.std()
    np.testing.assert_allclose(shaping.standardized(jnp.array(fitness, jnp.float32)), expected, rtol=1e-5)
    close = np.float32(1e9) + np.array([0, 64, 0], np.float32)  # rounding of the mean would move these
    np.testing.assert_allclose(shaping.standardized(close), np.array([-1, 2, -1]) / np.sqrt(2), rtol=1e-6)


def test_unshaped_fitness_can_be_squared():
    shaped = shaping.unshaped(jnp.array([1e30, -3.0, 1e18, np.nan, -1e25, 2.0], jnp.float32))
    np.testing.assert_allclose(shaped, np.array([1e18, -3, 1e18, 1e18, -3, 2], np.float32))
    large = jnp.array([1e30, 2e30, jnp.inf], jnp.float32)  # the scale of the problem
    np.testing.assert_array_equal(shaping.unshaped(large), np.array([1e30, 2e30, 2e30], np.float32))


@pytest.mark.parametrize("value", [0.1, 0.7, -1e-30, 3e30])
@pytest.mark.parametrize("size", [3, 10, 50])
def test_equal_fitness_is_standardized_to_zero(value, size):
    """Equal fitness is standardized to zero, also if rounding makes its mean another number."""
    np.testing.assert_array_equal(shaping.standardized(jnp.full(size, value)), np.zeros(size))


@pytest.mark.parametrize(
    ("fitness", "expected"),
    [
        ([1.0, np.nan, 3.0], [1.0, 3.0, 3.0]),
        ([1.0, np.inf, -np.inf], [1.0, 1.0, 1.0]),
        ([-np.inf, 2.0, 5.0], [2.0, 2.0, 5.0]),
        ([np.nan, np.inf], [0.0, 0.0]),
    ],
)
def test_finite(fitness, expected):
    np.testing.assert_array_equal(shaping.finite(jnp.array(fitness)), expected)


def test_a_function_is_used_as_it_is():
    assert shaping.get_shaping(shaping.ranks) is shaping.ranks
