"""SNES against a NumPy transcription of its paper's algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.strategies.distribution.snes import SNES
from zoo.strategies.shaping import _average_over_ties, utilities


def test_one_generation_against_numpy(key):
    """One update equals Wierstra et al. 2014, Algorithm 6, in float64 on the same samples."""
    mean, size = np.array([1.0, -2.0, 0.5]), 6
    strategy = SNES(population_size=size, sigma=0.4, mean_learning_rate=0.9, std_learning_rate=0.3)
    state = strategy.init(key, mean.astype(np.float32))
    for fitness in ([3, 1, 2, 0, 5, 4], [0, 1, 2, 3, 4, 5]):
        population, state = strategy.ask(jax.random.fold_in(key, fitness[0]), state)
        old_mean, old_std = np.asarray(state.mean, np.float64), np.asarray(state.std, np.float64)
        samples = (np.asarray(population, np.float64) - old_mean) / old_std
        raw = np.maximum(0, np.log(size / 2 + 1) - np.log(np.arange(1, size + 1)))
        table = raw / raw.sum() - 1 / size
        utility = table[fitness]  # these fitness values are their own ranks
        state = strategy.tell(state, population, np.array(fitness, np.float32))
        np.testing.assert_allclose(state.mean, old_mean + 0.9 * old_std * (utility @ samples), rtol=1e-5)
        np.testing.assert_allclose(state.std, old_std * np.exp(0.15 * (utility @ (samples**2 - 1))), rtol=1e-5)


def test_default_std_learning_rate(key):
    d = 12
    explicit = SNES(population_size=6, std_learning_rate=(3 + np.log(d)) / (5 * np.sqrt(d)))
    states = []
    for strategy in (SNES(population_size=6), explicit):
        state = strategy.init(key, {"a": np.zeros(5), "b": np.zeros(7)})
        population, _ = strategy.ask(key, state)
        states.append(strategy.tell(state, population, np.arange(6.0)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *states)


def test_utilities_sum_to_zero_and_ties_share():
    for fitness in ([4.0, 1.0, 3.0, 2.0, 0.0], [1.0, 1.0, 0.0, 2.0, 2.0], [1.0] * 5, [np.nan, np.nan, 1.0, 0.0, 2.0]):
        utility = utilities(jnp.array(fitness))
        assert abs(float(utility.sum())) < 1e-6
    shared = utilities(jnp.array([1.0, 1.0, 0.0, 2.0]))
    assert shared[0] == shared[1]
    assert shared[2] > shared[0] > shared[3]
    np.testing.assert_allclose(utilities(jnp.ones(4)), np.zeros(4), atol=1e-7)


def test_average_over_ties():
    table = jnp.array([10.0, 4.0, 2.0, 1.0])
    np.testing.assert_allclose(_average_over_ties(table, jnp.array([0.5, 0.1, 0.5, 9.0])), [3.0, 10.0, 3.0, 1.0])


def test_std_adapts_to_each_parameter(key):
    """On an ellipsoid, the standard deviations become different, as the curvatures are."""
    curvature = jnp.array([1.0, 100.0])
    strategy = SNES(population_size=20, sigma=1.0)

    @jax.jit
    def train(state, keys):
        def body(state, k):
            population, state = strategy.ask(k, state)
            return strategy.tell(state, population, jnp.sum(curvature[None] * population**2, axis=1)), None

        return jax.lax.scan(body, state, keys)[0]

    state = train(strategy.init(key, jnp.ones(2)), jax.random.split(key, 60))
    assert 3 < float(state.std[0] / state.std[1]) < 30


@pytest.mark.parametrize("id", ["snes", "xnes"])
def test_the_mean_stays_where_members_do_not_differ(id, key):
    """The mean does not move in directions without spread. Utilities sum to zero only up to rounding.

    Times a mean far from zero, the rest would be a step.
    """
    strategy = zoo.make_strategy(id, population_size=6, sigma=np.array([1.0, 1e-12], np.float32))

    @jax.jit
    def train(state, keys):
        def body(state, k):
            population, state = strategy.ask(k, state)
            return strategy.tell(state, population, population[:, 0] ** 2), None

        return jax.lax.scan(body, state, keys)[0]

    state = train(strategy.init(key, jnp.array([1.0, 3.0])), jax.random.split(key, 50))
    assert state.mean[1] == 3
    assert abs(state.mean[0]) < 1


def test_errors():
    with pytest.raises(ValueError, match="std_learning_rate must be at least 0"):
        SNES(std_learning_rate=-1)
    with pytest.raises(ValueError, match=r"SNES\.population_size must be at least 2"):
        SNES(population_size=1)  # it would learn nothing
