"""Exponential natural evolution strategy (xNES) against a NumPy transcription of its paper's algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import zoo
from tests.the_loop import ask, init, is_finite, tell
from zoo.strategies.distribution.snes import SNES
from zoo.strategies.distribution.xnes import XNES, XNESState


def reference_generation(mean, root, x, fitness, eta_mean, eta_sigma, eta_shape):
    """Computes Glasmachers et al. 2010, Algorithm 1, for the covariance A A^T, with A = sigma B in one matrix."""
    d, size = len(mean), len(x)
    s = [np.linalg.inv(root) @ (xi - mean) for xi in x[np.argsort(fitness)]]
    raw = [max(0, np.log(size / 2 + 1) - np.log(i)) for i in range(1, size + 1)]
    u = [r / sum(raw) - 1 / size for r in raw]
    g_delta = sum(ui * si for ui, si in zip(u, s, strict=True))
    g_m = sum(ui * (np.outer(si, si) - np.eye(d)) for ui, si in zip(u, s, strict=True))
    g_sigma = np.trace(g_m) / d
    g_b = g_m - g_sigma * np.eye(d)
    new_root = root @ scipy.linalg.expm(eta_shape / 2 * g_b) * np.exp(eta_sigma / 2 * g_sigma)
    return mean + eta_mean * root @ g_delta, new_root


@pytest.mark.parametrize("rates", [{}, {"mean_learning_rate": 0.9, "std_learning_rate": 0.3, "shape_learning_rate": 2}])
def test_generations_against_numpy(rates, x64):
    d, size = 4, 7
    default = (9 + 3 * np.log(d)) / (5 * d**1.5)
    eta = {"mean_learning_rate": 1.0, "std_learning_rate": default, "shape_learning_rate": default, **rates}
    strategy = XNES(population_size=size, sigma=0.7, **rates)
    solution = {"a": np.linspace(-1, 1, 3), "b": 0.5}
    mean, root = np.array([-1, 0, 1, 0.5]), 0.7 * np.eye(d)
    state = init(strategy, jax.random.key(0), solution)
    measure = jax.jit(lambda state: (strategy.std(state), strategy.condition_number(state)))
    for k in jax.random.split(jax.random.key(0), 6):
        population, state = ask(strategy, k, state)
        x = np.column_stack([population["a"], population["b"]])
        fitness = (x - 0.3) ** 2 @ np.array([1, 10, 100, 0.1]) + x[:, 0] * x[:, 2]
        state = jax.device_get(tell(strategy, state, population, fitness))
        mean, root = reference_generation(mean, root, x, fitness, *eta.values())
        np.testing.assert_allclose(np.append(state.mean["a"], state.mean["b"]), mean, rtol=1e-10)
        np.testing.assert_allclose(state.sigma * state.shape, root, rtol=1e-9, atol=1e-12)
        std, condition_number = measure(state)
        np.testing.assert_allclose(np.append(std["a"], std["b"]), np.sqrt(np.diag(root @ root.T)), rtol=1e-10)
        np.testing.assert_allclose(condition_number, np.linalg.cond(root @ root.T), rtol=1e-8)
    assert np.abs(state.shape - np.diag(np.diag(state.shape))).max() > 0.01  # it has rotated


def test_members_that_bounds_moved_have_no_negative_utility_for_the_shape(x64):
    """Repaired members get no negative utility in eq. G_M. The mean uses all members, and no repair changes nothing."""
    d, size = 3, 6
    strategy = XNES(population_size=size, sigma=1.0)
    state = init(strategy, jax.random.key(0), np.zeros(d))
    population, _ = ask(strategy, jax.random.key(1), state)
    evaluation = zoo.Evaluation(np.arange(1.0, size + 1), np.ones(size, bool), jnp.asarray(size))
    moved = np.array([True, False, False, False, False, True])
    plain, none, told = (
        jax.device_get(tell(strategy, state, population, evaluation._replace(repaired=which)))
        for which in (None, np.zeros(size, bool), moved)
    )
    np.testing.assert_allclose(none.shape, plain.shape, rtol=1e-12)
    np.testing.assert_allclose(told.mean, plain.mean, rtol=1e-12)

    raw = np.maximum(0, np.log(size / 2 + 1) - np.log(np.arange(1, size + 1)))
    u = raw / raw.sum() - 1 / size
    u[5] = 0  # the first member was moved as well, but its utility is positive
    s = np.asarray(population)
    g_m = sum(ui * (np.outer(si, si) - np.eye(d)) for ui, si in zip(u, s, strict=True))
    eta = (9 + 3 * np.log(d)) / (5 * d**1.5)
    root = scipy.linalg.expm(eta / 2 * g_m)
    np.testing.assert_allclose(told.sigma * told.shape, root, rtol=1e-9, atol=1e-12)


def test_samples_have_the_covariance_of_the_state(key):
    """For an unsymmetric root, every entry of the covariance of 20 000 samples is within 6 standard errors."""
    shape = np.array([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.4, 2.0]], np.float32)
    state = XNESState(np.ones(3, np.float32), np.float32(0.5), shape)
    population, _ = ask(XNES(population_size=20_000), key, state)
    target = 0.25 * shape @ shape.T
    error = np.sqrt((target**2 + np.outer(np.diag(target), np.diag(target))) / 20_000)
    assert np.all(np.abs(np.cov(population.T) - target) < 6 * error)


def test_in_one_dimension_it_is_snes(key):
    settings = {"population_size": 6, "sigma": 0.5, "std_learning_rate": 0.4, "mean_learning_rate": 0.8}
    strategies = XNES(**settings), SNES(**settings)
    states, std = [init(strategy, key, 1.0) for strategy in strategies], jax.jit(strategies[0].std)
    for k in jax.random.split(key, 4):
        population, _ = ask(strategies[1], k, states[1])
        fitness = np.square(np.asarray(population))
        states = [
            tell(strategy, state, population, fitness) for strategy, state in zip(strategies, states, strict=True)
        ]
        np.testing.assert_allclose(states[0].mean, states[1].mean, rtol=1e-6)
        np.testing.assert_allclose(std(states[0]), states[1].std, rtol=1e-5)


@pytest.mark.parametrize("name", ["ellipsoid", "linear"])
def test_float32(name, key):
    """Float32 reaches 1e-8 on a rotated ellipsoid of condition 1e6, and stays finite on a slope without end."""
    d = 6
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    curvature = 10 ** (6 * np.arange(d) / (d - 1))
    functions = {"ellipsoid": lambda x: jnp.sum(curvature * (rotation @ x) ** 2), "linear": jnp.sum}
    strategy = XNES(sigma=0.5)

    @jax.jit
    def train(keys):
        def body(state, k):
            population, state = strategy.ask(k, state)
            fitness = jax.vmap(functions[name])(population)
            return strategy.tell(state, population, fitness), jnp.min(fitness)

        state, best = jax.lax.scan(body, strategy.init(key, jnp.ones(d)), keys)
        return state, best, strategy.condition_number(state)

    state, best, condition_number = jax.device_get(train(jax.random.split(key, 450)))
    assert is_finite(state)
    if name == "ellipsoid":
        assert best.min() < 1e-8
        assert 1e5 < condition_number < 1e7


@pytest.mark.parametrize("shape", [np.ones((2, 2)), [[1, 0], [0, 1e-30]], [[3e4, 4e4], [-4e-4, 3e-4]]])
def test_shape_that_is_singular_to_rounding_is_kept(shape, key):
    """A numerically singular shape is not updated, because recovering samples through it gives only rounding."""
    strategy = XNES(population_size=4, shape_learning_rate=1e6)
    state = init(strategy, key, np.zeros(2))._replace(shape=np.asarray(shape, np.float32))
    population = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    told = tell(strategy, state, population, population[:, 0])
    assert is_finite(told)
    np.testing.assert_array_equal(told.shape, state.shape)
    np.testing.assert_array_equal(told.sigma, state.sigma)
    assert not np.array_equal(told.mean, state.mean)
