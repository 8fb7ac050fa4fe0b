"""Tests the Lorenz system against a loop by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.problems.unrolled.examples import LORENZ, fitness_of, jit, make_small, score_of, windows_of


def lorenz(log_a, log_r, start=(1.2, 1.3, 1.6), num_steps=2000, dt=0.005, a=10.0, r=28.0, b=8 / 3):
    """Returns the loss of each step."""

    def move(position, a, r):
        x, y, z = position
        return x + dt * a * (y - x), y + dt * ((r - z) * x - y), z + dt * (x * y - b * z)

    model = truth = tuple(map(float, start))
    losses = []
    for _ in range(num_steps):
        model, truth = move(model, np.exp(log_a), np.exp(log_r)), move(truth, a, r)
        losses.append((model[2] - truth[2]) ** 2)
    return np.array(losses)


def test_lorenz_is_a_loop_by_hand_in_double_precision(x64):
    """An episode at the initial parameters equals the loop, window by window. Chaos magnifies errors 10 000 times."""
    problem = zoo.make_problem(LORENZ)
    solution = problem.initial_solution(jax.random.key(0))
    assert solution == {"log_a": 3.116, "log_r": 3.7}
    solutions = jax.tree.map(lambda x: jnp.full((20, 1), x), solution)
    evaluations, states = windows_of(problem, jax.random.key(0), solutions, num_windows=20)
    expected = lorenz(3.116, 3.7).reshape(20, 100)
    np.testing.assert_allclose(evaluations.fitness[:, 0], expected.mean(axis=1), rtol=1e-8)
    np.testing.assert_allclose(jnp.mean(evaluations.fitness), 353.3, atol=0.01)  # not smoothed
    np.testing.assert_array_equal(evaluations.done[:, 0], np.arange(20) == 19)
    np.testing.assert_array_equal(evaluations.steps, 100)
    # The episode is reset at its end.
    np.testing.assert_allclose(states.inner.model[-1], [[1.2, 1.3, 1.6]], rtol=1e-15)
    np.testing.assert_allclose(states.inner.truth[-1], [[1.2, 1.3, 1.6]], rtol=1e-15)


@pytest.mark.parametrize(
    "setting",
    [{}, {"dt": 0.01}, {"a": 8.0}, {"r": 20.0}, {"b": 2.0}, {"start": (-1.0, 0.5, 3.0)}],
)
def test_every_constant_of_lorenz_is_a_setting(setting, key):
    problem = zoo.make_problem(LORENZ, horizon=60, window=30, **setting)
    solution = {"log_a": jnp.asarray(2.0), "log_r": jnp.asarray(3.5)}
    expected = lorenz(2.0, 3.5, num_steps=60, **setting)
    np.testing.assert_allclose(fitness_of(problem, key, solution), expected.mean(), rtol=1e-4)
    if setting:
        assert abs(expected.mean() / lorenz(2.0, 3.5, num_steps=60).mean() - 1) > 0.05


def test_where_the_search_of_lorenz_starts_is_a_setting(key):
    problem = zoo.make_problem(LORENZ, initial_log_a=1.0, initial_log_r=2)
    assert problem.initial_solution(key) == {"log_a": 1.0, "log_r": 2.0}


def test_a_setting_can_be_swept_with_vmap(key):
    problem = make_small(LORENZ)
    solution = {"log_a": jnp.asarray(2.0), "log_r": jnp.asarray(3.5)}
    values = jnp.array([20.0, 28.0, 35.0])
    swept = jit(jax.vmap(lambda r: problem.replace(r=r).fitness(key, solution)))(values)
    expected = [lorenz(2.0, 3.5, num_steps=6, r=float(r)).mean() for r in values]
    np.testing.assert_allclose(swept, expected, rtol=1e-3)


def test_smoothed_loss_of_lorenz(key):
    """The smoothed loss has its minimum beside the true parameters, at which the loss itself is zero."""
    num = 2000
    problem = zoo.make_problem(LORENZ)
    thetas = jnp.array([[3.116, 3.7], [np.log(10), np.log(28)], [2.38, 3.285]])
    noise = 0.04 * jax.random.normal(key, (num, 2))
    points = jnp.concatenate([thetas[:, None] + noise[None], thetas[:, None]], axis=1)
    # Compiled with optimisation, because this program runs for a while.
    losses = jax.jit(jax.vmap(jax.vmap(lambda x: problem.fitness(key, {"log_a": x[0], "log_r": x[1]}))))(points)
    smoothed, exact = np.asarray(losses[:, :num], np.float64), losses[:, num]
    errors = smoothed.std(axis=1) / np.sqrt(num)
    assert np.all(errors < [1.2, 0.6, 0.5])
    np.testing.assert_array_less(np.abs(smoothed.mean(axis=1) - [326.1, 56.1, 49.8]), 4 * errors + 0.5)
    np.testing.assert_allclose(exact[1], 0, atol=1e-3)
    np.testing.assert_allclose(exact[0], 353.3, rtol=5e-3)  # in single precision


def test_lorenz_starts_at_one_point_unless_there_is_noise(key):
    num = 4000
    resets = jit(lambda problem: jax.vmap(problem.reset)(jax.random.split(key, num)))
    for noise in (0.0, 0.5):
        settings = {"start_noise": noise} if noise else {}
        inner = resets(zoo.make_problem(LORENZ, **settings))
        np.testing.assert_array_equal(inner.model, inner.truth)
        starts = np.asarray(inner.model, np.float64)
        np.testing.assert_allclose(starts.mean(axis=0), [1.2, 1.3, 1.6], atol=5 * noise / np.sqrt(num) + 1e-6)
        np.testing.assert_allclose(starts.std(axis=0), noise, atol=5 * noise / np.sqrt(2 * num) + 1e-6)
        np.testing.assert_allclose(np.corrcoef(starts.T) if noise else np.eye(3), np.eye(3), atol=0.08)


def lorenz_many(log_a, log_r, starts, num_steps):
    """Returns the mean loss from each of the starts, `[3, num]`."""
    model, truth, total = starts, starts, 0
    for _ in range(num_steps):
        moved = []
        for (x, y, z), a, r in ((model, np.exp(log_a), np.exp(log_r)), (truth, 10, 28)):
            moved.append(np.stack([a * (y - x), (r - z) * x - y, x * y - 8 / 3 * z]))
        model, truth = model + 0.005 * moved[0], truth + 0.005 * moved[1]
        total = total + (model[2] - truth[2]) ** 2
    return total / num_steps


def test_score_of_lorenz_is_from_held_out_starts(key):
    """The held-out starts have unit noise, for any noise of the training episodes."""
    problem = zoo.make_problem(LORENZ, horizon=40, window=20, num_score_episodes=512)
    solution = {"log_a": jnp.asarray(2.0), "log_r": jnp.asarray(3.5)}
    rng = np.random.default_rng(0)
    means = []
    for noise in (1.0, 0.0, 3.0):
        starts = np.array([[1.2, 1.3, 1.6]]).T + noise * rng.standard_normal((3, 4000))
        losses = lorenz_many(2.0, 3.5, starts, 40)
        score = score_of(problem if noise == 1 else problem.replace(score_start_noise=noise), key, solution)
        assert set(score) == {"objective"}
        error = losses.std() * np.sqrt(1 / 512 + 1 / 4000)
        assert abs(score["objective"] - losses.mean()) < 4 * error + 1e-4 * losses.mean()
        means.append((losses.mean(), error))
    assert abs(means[0][0] - means[2][0]) > 8 * means[2][1]  # the noise makes a clear difference
    assert score_of(problem.replace(start_noise=3.0), key, solution) == score_of(problem, key, solution)
