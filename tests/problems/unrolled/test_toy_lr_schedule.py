"""Tests the toy learning-rate schedule against a loop by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from tests.problems.unrolled.examples import TOY, fitness_of, jit, score_of, windows_of


def toy(log_rates, x=(1.0, 1.0), num_steps=100, total=100):
    """Returns the value of the inner function after each step of gradient descent."""
    x0, x1 = x
    losses = []
    for t in range(num_steps):
        rate = np.exp(log_rates[0]) * (total - t) / total + np.exp(log_rates[1]) * t / total
        bump = np.exp(-5 * x0**2)
        slope0 = x0 / np.sqrt(x0**2 + 5) - 10 * x0 * bump * np.sin(x1) ** 2
        slope1 = 2 * np.sin(x1) * np.cos(x1) * bump + 0.25 * np.sign(x1 - 100)
        x0, x1 = x0 - rate * slope0, x1 - rate * slope1
        losses.append(
            np.sqrt(x0**2 + 5) - np.sqrt(5) + np.sin(x1) ** 2 * np.exp(-5 * x0**2) + 0.25 * abs(x1 - 100),
        )
    return np.array(losses)


def test_toy_schedule_is_a_loop_by_hand_in_double_precision(x64):
    """Equals a loop by hand for the initial schedule and for ones that rise, fall, or zigzag about the kink at 100.

    At rates above one the ripples make the descent chaotic.
    """
    key = jax.random.key(0)
    problem = zoo.make_problem(TOY)
    np.testing.assert_array_equal(problem.initial_solution(key), [-4.0, -4.0])
    for log_rates, x in (([-4, -4], (1, 1)), ([-0.5, -3], (1, 1)), ([-3, -0.5], (1, 1)), ([-0.5, -0.7], (0.5, 95))):
        expected = toy(log_rates, tuple(map(float, x))).sum()
        started = problem.replace(start=tuple(map(float, x)))
        np.testing.assert_allclose(fitness_of(started, key, jnp.array(log_rates, float)), expected, rtol=1e-8)
    np.testing.assert_allclose(toy([-4.0, -4.0]).sum(), 2487.77, atol=0.01)


def test_windows_of_the_toy_schedule_sum_to_its_objective(key):
    """Ten windows of one group, and one window of each of ten groups at all phases, average to the objective."""
    problem = zoo.make_problem(TOY)
    theta = jnp.array([0.5, -2.0])
    expected = toy([0.5, -2.0])
    evaluations, _ = windows_of(problem, key, jnp.tile(theta, (10, 1, 1)), num_windows=10)
    # The fitness of a window estimates the whole objective, so it is ten times the window's share.
    np.testing.assert_allclose(evaluations.fitness[:, 0], 10 * expected.reshape(10, 10).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(np.mean(evaluations.fitness), expected.sum(), rtol=1e-4)
    assert list(evaluations.done[:, 0]) == [False] * 9 + [True]

    @jit
    def evaluate():
        state = problem.init(key, zoo.Groups(np.arange(10)), theta)
        return problem.evaluate(key, jnp.tile(theta, (10, 1)), state)

    evaluation, _ = evaluate()
    np.testing.assert_allclose(np.mean(evaluation.fitness), expected.sum(), rtol=1e-4)
    assert evaluation.done.sum() == 1


def test_every_constant_of_the_toy_schedule_is_a_setting(key):
    theta = jnp.array([0.5, -2.0])
    problem = zoo.make_problem(TOY, start=(-0.5, 3.0), horizon=40)
    expected = toy([0.5, -2.0], x=(-0.5, 3.0), num_steps=40, total=40).sum()
    np.testing.assert_allclose(fitness_of(problem, key, theta), expected, rtol=1e-4)
    mean = zoo.make_problem(TOY, start=(-0.5, 3.0), horizon=40, objective="mean")
    np.testing.assert_allclose(fitness_of(mean, key, theta), expected / 40, rtol=1e-4)
    moved = zoo.make_problem(TOY, initial_log_rates=(-1.0, 2))
    np.testing.assert_array_equal(moved.initial_solution(key), [-1.0, 2.0])
    np.testing.assert_allclose(score_of(problem, key, theta)["objective"], expected, rtol=1e-4)
