"""(1+1)-ES against a NumPy transcription, and the theory of its convergence on the sphere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.strategies.distribution.one_plus_one_es import OnePlusOneES


@pytest.mark.parametrize("size", [1, 4])
def test_generations_against_numpy(size, x64):
    """Updates equal NumPy: the parent first, then sigma *= exp((success rate - 1 / 5) / sqrt(d + 1)), ties succeed."""
    strategy = OnePlusOneES(population_size=size, sigma=0.5)
    parent, parent_fitness, sigma = np.array([1.0, -2.0, 0.5]), np.inf, 0.5
    state = strategy.init(jax.random.key(0), parent)
    for generation, k in enumerate(jax.random.split(jax.random.key(0), 12)):
        population, state = strategy.ask(k, state)
        x = np.asarray(population)
        fitness = np.round(np.sum(x**2, axis=1), 1)  # with ties
        fitness[0] = np.nan if generation == 5 else fitness[0]
        members = list(zip(fitness, x, strict=True))
        if generation == 0:
            assert np.array_equal(x[0], parent)
            parent_fitness = members.pop(0)[0]
        successes = [value <= parent_fitness for value, _ in members]
        if members:
            sigma *= np.exp((np.mean(successes) - 0.2) / np.sqrt(3 + 1))
        for value, member in members:
            if value < parent_fitness or (value == parent_fitness and generation > 0 and size == 1):
                parent, parent_fitness = member, value
        state = strategy.tell(state, population, fitness)
        np.testing.assert_allclose(state.sigma, sigma, rtol=1e-12)
        np.testing.assert_allclose(state.fitness, parent_fitness)
        if size == 1:
            np.testing.assert_array_equal(strategy.mean(state), parent)


def test_rate_of_convergence_on_the_sphere(key):
    """On the sphere, the rate is near 0.2 / d per evaluation, the best for a (1+1)-ES (Rechenberg 1973).

    Adapting the step size costs a part of this rate.
    """
    d, evaluations = 10, 1000
    strategy = OnePlusOneES(sigma=0.3)

    @jax.jit
    @jax.vmap
    def train(key):
        def body(state, k):
            population, state = strategy.ask(k, state)
            return strategy.tell(state, population, jnp.sum(population**2, axis=1)), None

        return jax.lax.scan(body, strategy.init(key, jnp.ones(d)), jax.random.split(key, evaluations))[0].fitness

    rates = -np.log(np.asarray(train(jax.random.split(key, 20))) / d) / 2 * d / evaluations
    assert 0.14 < rates.mean() < 0.22


def test_plateau_and_infeasible_start(key):
    """If no member is better than the parent, or none is feasible, the parent moves and the steps grow."""
    strategy = OnePlusOneES(population_size=2, sigma=0.3)
    for value in (1.0, np.inf, np.nan):
        state = strategy.init(key, jnp.zeros(3))
        for k in jax.random.split(key, 3):
            population, state = strategy.ask(k, state)
            state = strategy.tell(state, population, np.full(2, value))
        assert state.sigma > 0.5
        assert np.any(state.parent != 0)
