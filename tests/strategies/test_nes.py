"""Exponential natural evolution strategy against a NumPy transcription of its paper's algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import zoo
from zoo.strategies.distribution.snes import SNES
from zoo.strategies.distribution.xnes import XNES, XNESState


def reference_generation(mean, root, x, fitness, eta_mean, eta_sigma, eta_shape):
    """Glasmachers et al. 2010, Algorithm 1, for the covariance A A^T, with A = sigma B in one matrix."""
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
    state = strategy.init(jax.random.key(0), solution)
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    for k in jax.random.split(jax.random.key(0), 6):
        population, state = ask(k, state)
        x = np.column_stack([population["a"], population["b"]])
        fitness = (x - 0.3) ** 2 @ np.array([1, 10, 100, 0.1]) + x[:, 0] * x[:, 2]
        state = tell(state, population, fitness)
        mean, root = reference_generation(mean, root, x, fitness, *eta.values())
        np.testing.assert_allclose(np.append(state.mean["a"], state.mean["b"]), mean, rtol=1e-10)
        np.testing.assert_allclose(state.sigma * state.shape, root, rtol=1e-9, atol=1e-12)
        std = strategy.std(state)
        np.testing.assert_allclose(np.append(std["a"], std["b"]), np.sqrt(np.diag(root @ root.T)), rtol=1e-10)
        np.testing.assert_allclose(strategy.condition_number(state), np.linalg.cond(root @ root.T), rtol=1e-8)
    assert np.abs(state.shape - np.diag(np.diag(state.shape))).max() > 0.01  # it has rotated


def test_members_that_bounds_moved_have_no_negative_utility_for_the_shape(x64):
    """Against the sum of eq. G_M written out; the mean takes all of them, and with none moved nothing changes."""
    d, size = 3, 6
    strategy = XNES(population_size=size, sigma=1.0)
    state = strategy.init(jax.random.key(0), np.zeros(d))
    population, _ = strategy.ask(jax.random.key(1), state)
    fitness = jnp.arange(1.0, size + 1)
    evaluation = zoo.Evaluation(fitness, jnp.ones(size, bool), jnp.asarray(size))
    plain = strategy.tell(state, population, evaluation)
    none = strategy.tell(state, population, evaluation._replace(moved=jnp.zeros(size, bool)))
    moved = np.array([True, False, False, False, False, True])
    told = strategy.tell(state, population, evaluation._replace(moved=jnp.asarray(moved)))
    np.testing.assert_allclose(none.shape, plain.shape, rtol=1e-12)
    np.testing.assert_allclose(told.mean, plain.mean, rtol=1e-12)

    raw = np.maximum(0, np.log(size / 2 + 1) - np.log(np.arange(1, size + 1)))
    u = raw / raw.sum() - 1 / size
    u[5] = 0  # the first was moved, too, but its utility is positive
    s = np.asarray(population)
    g_m = sum(ui * (np.outer(si, si) - np.eye(d)) for ui, si in zip(u, s, strict=True))
    eta = (9 + 3 * np.log(d)) / (5 * d**1.5)
    root = scipy.linalg.expm(eta / 2 * g_m)
    np.testing.assert_allclose(told.sigma * told.shape, root, rtol=1e-9, atol=1e-12)


def test_samples_have_the_covariance_of_the_state(key):
    """Every entry of the sample covariance of 20 000 within 6 of its standard errors, of an unsymmetric root."""
    shape = jnp.array([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.4, 2.0]])
    state = XNESState(jnp.ones(3), jnp.asarray(0.5), shape)
    population, _ = XNES(population_size=20_000).ask(key, state)
    target = 0.25 * np.asarray(shape @ shape.T)
    error = np.sqrt((target**2 + np.outer(np.diag(target), np.diag(target))) / 20_000)
    assert np.all(np.abs(np.cov(population.T) - target) < 6 * error)


def test_in_one_dimension_it_is_snes(key):
    settings = {"population_size": 6, "sigma": 0.5, "std_learning_rate": 0.4, "mean_learning_rate": 0.8}
    strategies = XNES(**settings), SNES(**settings)
    states = [strategy.init(key, 1.0) for strategy in strategies]
    for k in jax.random.split(key, 4):
        population, _ = strategies[1].ask(k, states[1])
        fitness = jnp.square(population)
        states = [strategy.tell(state, population, fitness) for strategy, state in zip(strategies, states, strict=True)]
        np.testing.assert_allclose(states[0].mean, states[1].mean, rtol=1e-6)
        np.testing.assert_allclose(strategies[0].std(states[0]), states[1].std, rtol=1e-5)


@pytest.mark.parametrize("name", ["ellipsoid", "linear"])
def test_float32(name, key):
    """A rotated ellipsoid of condition 1e6 to 1e-8; and a slope, down which everything grows, without end."""
    d = 6
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0], jnp.float32)
    curvature = 10 ** (6 * jnp.arange(d) / (d - 1))
    functions = {"ellipsoid": lambda x: jnp.sum(curvature * (rotation @ x) ** 2), "linear": jnp.sum}
    strategy = XNES(sigma=0.5)

    @jax.jit
    def train(state, keys):
        def body(state, k):
            population, state = strategy.ask(k, state)
            fitness = jax.vmap(functions[name])(population)
            return strategy.tell(state, population, fitness), jnp.min(fitness)

        return jax.lax.scan(body, state, keys)

    state, best = train(strategy.init(key, jnp.ones(d)), jax.random.split(key, 450))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in state)
    if name == "ellipsoid":
        assert best.min() < 1e-8
        assert 1e5 < strategy.condition_number(state) < 1e7


@pytest.mark.parametrize("shape", [np.ones((2, 2)), [[1, 0], [0, 1e-30]], [[3e4, 4e4], [-4e-4, 3e-4]]])
def test_shape_that_is_singular_to_rounding_is_kept(shape, key):
    """To recover the samples through a matrix of condition 1e8, in single precision, is to recover rounding."""
    strategy = XNES(population_size=4, shape_learning_rate=1e6)
    state = strategy.init(key, jnp.zeros(2))._replace(shape=jnp.asarray(shape, jnp.float32))
    population = jax.random.normal(key, (4, 2))
    told = jax.jit(strategy.tell)(state, population, population[:, 0])
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in told)
    np.testing.assert_array_equal(told.shape, state.shape)
    assert told.sigma == state.sigma
    assert not np.array_equal(told.mean, state.mean)
