"""OpenAI-ES against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.the_loop import ask, init, tell
from zoo.core.noise import normal_like
from zoo.core.promotion import promotion_of_others
from zoo.strategies.gradient.open_es import OpenES
from zoo.testing.loop import start

CURVATURE = np.diag(np.arange(1, 5, dtype=np.float32)) + np.float32(0.3)
POINT = np.array([1.0, -2.0, 0.5, 3.0], np.float32)


def cubic(x):
    """Returns x^T A x / 2 + sum x^3, whose smoothed gradient is A x + 3 x^2 + 3 sigma^2."""
    return 0.5 * x @ CURVATURE @ x + jnp.sum(x**3)


@pytest.mark.parametrize("antithetic", [True, False])
def test_estimate_without_shaping_is_unbiased(antithetic, key):
    """The mean of 40 000 estimates equals the gradient of the smoothed function (5 sigma)."""
    sigma = 0.7
    strategy = OpenES(population_size=8, sigma=sigma, shaping="none", antithetic=antithetic)
    state = init(strategy, key, POINT)

    @jax.jit
    @jax.vmap
    def estimate(k):
        population, _ = strategy.ask(k, state)
        evaluation = zoo.Evaluation(jax.vmap(cubic)(population), jnp.ones(8, bool), jnp.asarray(8))
        return strategy.estimate(state, population, evaluation)

    samples = np.asarray(estimate(jax.random.split(key, 40_000)), np.float64)
    expected = CURVATURE @ POINT + 3 * POINT**2 + 3 * sigma**2
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - expected) < 5 * error)
    assert np.all(5 * error < 3 * sigma**2)  # the test can tell the smoothed gradient from the plain one


def test_estimate_on_a_quadratic_is_exact_in_the_span_of_the_pairs(key):
    """Antithetic differences of a quadratic are exact, so the estimate is sum_p (g . eps_p) eps_p / P."""
    strategy = OpenES(population_size=6, sigma=0.2, shaping="none")
    state = init(strategy, key, POINT)
    population, _ = jax.device_get(ask(strategy, key, state))
    noise = (population[:3] - population[3:]) / (2 * 0.2)
    fitness = jax.jit(jax.vmap(lambda x: 0.5 * x @ CURVATURE @ x))(population)
    evaluation = zoo.Evaluation(fitness, np.ones(6, bool), jnp.asarray(6))
    estimate = jax.jit(strategy.estimate)(state, population, evaluation)
    np.testing.assert_allclose(estimate, (noise @ (CURVATURE @ POINT)) @ noise / 3, rtol=2e-4)


def test_members_are_antithetic(key):
    strategy = OpenES(population_size=6, sigma=0.2)
    population, _ = jax.device_get(ask(strategy, key, init(strategy, key, {"x": POINT, "y": 1.0})))
    for mean, leaf in ((POINT, population["x"]), (1.0, population["y"])):
        np.testing.assert_allclose(leaf[:3] + leaf[3:], 2 * np.broadcast_to(mean, leaf[:3].shape), rtol=1e-6)
        assert not np.allclose(leaf[0], leaf[1])


def test_centred_ranks_by_hand(key):
    """Fitness [3, 1, 1, 0] has ranks [3, 1.5, 1.5, 0], and weights [.5, 0, 0, -.5]."""
    strategy = OpenES(population_size=4, sigma=0.5, optimizer=optax.sgd, learning_rate=1.0)
    state = init(strategy, key, POINT)
    population, _ = jax.device_get(ask(strategy, key, state))
    told = tell(strategy, state, population, np.array([3.0, 1.0, 1.0, 0.0], np.float32))
    gradient = (0.5 * (population[0] - POINT) - 0.5 * (population[3] - POINT)) / (4 * 0.5**2)
    np.testing.assert_allclose(told.mean, POINT - gradient, rtol=1e-5)


def test_equal_fitness_moves_nothing(key):
    strategy = OpenES(population_size=8, optimizer=optax.sgd)
    state = init(strategy, key, POINT)
    population, _ = jax.device_get(ask(strategy, key, state))
    assert np.array_equal(tell(strategy, state, population, np.ones(8)).mean, POINT)


def test_sigma_schedule_is_right_in_every_generation(key):
    strategy = OpenES(population_size=2, sigma=0.5, sigma_schedule=optax.exponential_decay(1.0, 1, 0.5))
    state = init(strategy, key, POINT)
    std = jax.jit(strategy.std)
    # The same key in each generation gives the same noise, scaled.
    noise = np.asarray(jax.jit(lambda k: normal_like(k, POINT, num_samples=1)[0])(key))
    for generation in range(4):
        sigma = 0.5 * 0.5**generation
        np.testing.assert_allclose(std(state), np.full(4, sigma), rtol=1e-6)
        population, state = ask(strategy, key, state)
        np.testing.assert_allclose(np.asarray(population)[0] - state.descent.mean, sigma * noise, atol=1e-6)
        state = tell(strategy, state, population, np.array([0.0, 1.0]))


def clipped_adam(learning_rate):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))


@pytest.mark.parametrize("optimizer", [optax.adam, optax.sgd, clipped_adam, "rmsprop"])
def test_update_is_the_optimizers(optimizer, key):
    strategy = OpenES(population_size=8, learning_rate=0.1, optimizer=optimizer)
    transformation = (getattr(optax, optimizer) if isinstance(optimizer, str) else optimizer)(0.1)
    state = init(strategy, key, POINT)
    mean, optimizer_state = POINT, transformation.init(jnp.asarray(POINT))

    @jax.jit
    def generation(k, state, mean, optimizer_state):
        population, state = strategy.ask(k, state)
        fitness = jax.vmap(cubic)(population)
        evaluation = zoo.Evaluation(fitness, jnp.ones(8, bool), jnp.asarray(8))
        gradient = strategy.estimate(state, population, evaluation)
        with promotion_of_others():
            updates, optimizer_state = transformation.update(gradient, optimizer_state, mean)
        return strategy.tell(state, population, evaluation), optax.apply_updates(mean, updates), optimizer_state

    for k in jax.random.split(key, 3):
        state, mean, optimizer_state = generation(k, state, mean, optimizer_state)
        np.testing.assert_allclose(state.descent.mean, mean, rtol=1e-6)


def test_groups():
    assert OpenES(population_size=6).groups.ids.tolist() == [0] * 6
    assert OpenES(population_size=6, shaping="none").groups.ids.tolist() == [0, 1, 2, 0, 1, 2]
    assert OpenES(population_size=6, shaping="none", antithetic=False).groups.ids.tolist() == [0] * 6


def test_pairs_share_noise_of_the_problem(key):
    """With one group per pair, noise that depends on the key alone cancels in every pair's difference."""
    strategy = OpenES(population_size=8, sigma=0.1, shaping="none", optimizer=optax.sgd)
    noisy = zoo.from_function(lambda key, x: jnp.sum(x) + 100 * jax.random.normal(key), POINT, takes_key=True)
    clean = zoo.from_function(jnp.sum, POINT)

    def estimate(problem):
        loop = start(strategy, problem, key)
        population, state = strategy.ask(key, loop.state)
        evaluation, _ = problem.evaluate(key, population, loop.problem_state)
        return strategy.estimate(state, population, evaluation)

    np.testing.assert_allclose(*(jax.jit(lambda p=problem: estimate(p))() for problem in (noisy, clean)), atol=2e-3)


def test_errors():
    with pytest.raises(ValueError, match="antithetic pairs, so population_size must be even, got 7"):
        OpenES(population_size=7)
    assert OpenES(population_size=7, antithetic=False).population_size == 7
    with pytest.raises(TypeError, match=r"optax.adam \(not optax.adam\(1e-3\)"):
        OpenES(optimizer=optax.adam(1e-3))
    with pytest.raises(ValueError, match="'adan_' is not the name of an optax optimizer"):
        OpenES(optimizer="adan_")
    with pytest.raises(ValueError, match="shaping must be one of centered_ranks"):
        OpenES(shaping="ranks")


def test_equal_settings_are_one_program(key):
    """A new strategy, or another learning rate or sigma, does not compile again."""
    traces = []

    @jax.jit
    def first(strategy, key, state):
        traces.append(1)
        return strategy.ask(key, state)[0]

    state = init(OpenES(), key, POINT)
    for settings in ({}, {}, {"learning_rate": 0.5}, {"sigma": 1}, {"sigma": np.float32(2)}):
        first(OpenES(**settings), key, state)
    assert len(traces) <= 2  # NumPy's float32 is not weakly typed, so it may have a program of its own
