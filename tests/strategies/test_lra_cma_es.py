"""LRA-CMA-ES against its authors' implementation."""

import cmaes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.the_loop import is_finite
from zoo.strategies.distribution.base import default_parameters
from zoo.strategies.distribution.cma_es import CMAES
from zoo.strategies.distribution.lra_cma_es import LRACMAES


def rastrigin(x):
    return 10 * x.shape[-1] + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x), axis=-1)


@pytest.mark.parametrize("size", [6, 9])
def test_generations_against_cmaes(size, x64, monkeypatch):
    """In 40 generations on the same samples, mean, Sigma = sigma^2 C, paths and learning rates agree with cmaes."""
    d = 3
    strategy = LRACMAES(population_size=size, sigma=1.3)
    state = strategy.init(jax.random.key(0), np.linspace(-2, 3, d))
    peer = cmaes.CMA(np.linspace(-2, 3, d), 1.3, population_size=size, lr_adapt=True)
    # cmaes uses settings of older versions of the tutorial, counts generations from one, and adds 1e-8 to norms.
    p = default_parameters(d, size)
    peer._c1, peer._cmu, peer._weights, peer._chi_n, peer._g = p.c_1, p.c_mu, p.weights, p.expected_norm, -1
    monkeypatch.setattr("cmaes._cma._EPS", 0.0)
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    for k in jax.random.split(jax.random.key(1), 40):
        population, state = ask(k, state)
        fitness = rastrigin(population)
        peer.tell([(np.asarray(x), float(f)) for x, f in zip(population, fitness, strict=True)])
        state = tell(state, population, fitness)
        cma = state.cma
        np.testing.assert_allclose(cma.mean, peer.mean, rtol=1e-8)
        np.testing.assert_allclose(cma.sigma, peer._sigma, rtol=1e-8)
        np.testing.assert_allclose(cma.covariance, peer._C, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose((cma.basis * cma.scales[None] ** 2) @ cma.basis.T, peer._C, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(cma.path_sigma, peer._p_sigma, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(cma.path_c, peer._pc, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(state.mean_rate.rate, peer._eta_mean, rtol=1e-8)
        np.testing.assert_allclose(state.covariance_rate.rate, peer._eta_Sigma, rtol=1e-8)
        np.testing.assert_allclose(state.covariance_rate.average.ravel(), peer._ESigma[:, 0], rtol=1e-7, atol=1e-9)
    assert state.mean_rate.rate < 0.9  # both learning rates have adapted
    assert state.covariance_rate.rate < 0.9
    np.testing.assert_allclose(strategy.std(state), peer._sigma * np.sqrt(np.diag(peer._C)), rtol=1e-8)


def test_first_generation_without_adaptation_is_cma_es(x64):
    key = jax.random.key(0)
    plain, adaptive = CMAES(population_size=6), LRACMAES(population_size=6, gamma=0)
    states = [strategy.init(key, np.ones(4)) for strategy in (plain, adaptive)]
    population, _ = plain.ask(key, states[0])
    assert np.array_equal(adaptive.ask(key, states[1])[0], population)
    told, lra = (s.tell(state, population, np.arange(6.0)) for s, state in zip((plain, adaptive), states, strict=True))
    np.testing.assert_allclose(lra.cma.mean, told.mean, rtol=1e-12)
    covariance = told.sigma**2 * told.covariance
    np.testing.assert_allclose(lra.cma.sigma**2 * lra.cma.covariance, covariance, rtol=1e-10, atol=1e-12)
    assert lra.mean_rate.rate == lra.covariance_rate.rate == 1


def test_learning_rates_follow_the_signal(key):
    """The learning rates end an order of magnitude lower on pure noise than on a slope."""
    strategy = LRACMAES(population_size=8)

    @jax.jit
    @jax.vmap
    def train(signal):
        def body(state, k):
            population, state = strategy.ask(k, state)
            fitness = signal * population[:, 0] + (1 - signal) * jax.random.normal(jax.random.fold_in(k, 1), (8,))
            return strategy.tell(state, population, fitness), None

        state, _ = jax.lax.scan(body, strategy.init(key, jnp.ones(5)), jax.random.split(key, 150))
        return state

    state = train(jnp.array([0.0, 1.0]))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state))
    noise, slope = state.mean_rate.rate
    assert noise < 0.2
    assert slope > 5 * noise


def test_a_search_that_takes_no_steps_any_more_stays_finite():
    """The state stays finite if the averages are hardly above zero, so that their products are zero."""
    strategy = LRACMAES(population_size=6)
    state = strategy.init(jax.random.key(0), np.zeros(3, np.float32))
    members, fitness = np.zeros((6, 3), np.float32), np.zeros(6, np.float32)

    tell = jax.jit(strategy.tell)
    for square in np.logspace(-37.9, -20, 50, dtype=np.float32):
        rate = state.mean_rate._replace(square=square, rate=np.float32(0.01))
        assert is_finite(tell(state._replace(mean_rate=rate), members, fitness))
