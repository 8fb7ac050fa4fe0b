"""Tests influence balancing against a loop by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.problems.unrolled.examples import INFLUENCE, fitness_of, jit, score_of, windows_of


def influence(thetas, size=23, num_positive=10, decay=0.5):
    """Returns the first entry of the state after each step."""
    matrix = decay * (np.eye(size) + np.eye(size, k=1))
    direction = np.array([1.0] * num_positive + [-1.0] * (size - num_positive))
    state, first = np.ones(size), []
    for theta in thetas:
        state = matrix @ state + theta * direction
        first.append(state[0])
    return np.array(first)


def loss_of(first, target=1.0):
    return (first - target) ** 2 / 2


def test_influence_balancing_with_windows_of_one_step_is_a_loop_by_hand(key):
    """Equals a loop by hand if the solution changes in every step. The state continues and is never reset."""
    problem = zoo.make_problem(INFLUENCE)
    assert problem.initial_solution(key) == 0.5
    thetas = np.random.default_rng(0).normal(0, 0.5, (60, 2)).astype(np.float32)
    evaluations, states = windows_of(problem, key, jnp.asarray(thetas), num_windows=60)
    for member in range(2):
        expected = loss_of(influence(thetas[:, member]))
        np.testing.assert_allclose(evaluations.fitness[:, member], expected, rtol=1e-4, atol=1e-5)
    assert not evaluations.done.any()
    np.testing.assert_array_equal(evaluations.steps, 2)
    np.testing.assert_array_equal(states.time[:, 0], np.arange(1, 61))


@pytest.mark.parametrize("window", [1, 100])
def test_the_loss_of_influence_balancing_is_at_the_end_of_each_window(window, key):
    problem = zoo.make_problem(INFLUENCE, window=window)

    @jit
    def losses(inner):
        def step(inner, _):
            inner, loss, terminated = problem.step(key, jnp.asarray(0.3), inner)
            return inner, (loss, terminated)

        return jax.lax.scan(step, inner, None, length=250)[1]

    loss, terminated = losses(problem.reset(key))
    time = np.arange(1, 251)
    expected = np.where(time % window == 0, loss_of(influence([0.3] * 250)), 0)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(loss) == 250 // window
    assert not terminated.any()


def test_windows_of_influence_balancing_of_a_hundred_steps_go_on_from_each_other(key):
    problem = zoo.make_problem(INFLUENCE, window=100)
    thetas = jnp.array([[0.5], [-0.2], [0.1]])
    evaluations, _ = windows_of(problem, key, thetas, num_windows=3)
    expected = loss_of(influence(np.repeat(np.float32(thetas[:, 0]), 100)))[99::100]
    np.testing.assert_allclose(evaluations.fitness[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert not evaluations.done.any()


def test_a_horizon_for_influence_balancing(key):
    """With a horizon of 25 the state is reset to ones after 25 steps, and the last window is cut."""
    problem = zoo.make_problem(INFLUENCE, window=10, horizon=25)
    evaluations, states = windows_of(problem, key, jnp.full((4, 1), 0.3), num_windows=4)
    np.testing.assert_array_equal(evaluations.done[:, 0], [False, False, True, False])
    np.testing.assert_array_equal(states.time[:, 0], [10, 20, 0, 10])
    np.testing.assert_array_equal(evaluations.steps, [10, 10, 5, 10])
    np.testing.assert_array_equal(states.inner.state[2, 0], np.ones(23))
    at_ends = loss_of(influence([0.3] * 25))[[9, 19, 24, 9]]
    np.testing.assert_allclose(evaluations.fitness[:, 0] / evaluations.fitness[0, 0], at_ends / at_ends[0], rtol=1e-4)


def test_score_of_influence_balancing_is_the_loss_after_many_steps(key):
    """The score is the loss after 500 steps by default. At the optimum, theta = -1/6, s_0 = -6 theta is 1."""
    problem = zoo.make_problem(INFLUENCE)
    for theta in (0.5, -1 / 6, 0.0):
        score = score_of(problem, key, jnp.asarray(theta))
        np.testing.assert_allclose(score["objective"], loss_of(influence([theta] * 500)[-1]), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(score["objective"], (-6 * theta - 1) ** 2 / 2, rtol=1e-4, atol=1e-9)
    few = score_of(problem.replace(num_score_steps=7), key, jnp.asarray(0.5))["objective"]
    np.testing.assert_allclose(few, loss_of(influence([0.5] * 7)[-1]), rtol=1e-5)
    assert abs(few - score_of(problem, key, jnp.asarray(0.5))["objective"]) > 1


@pytest.mark.parametrize("setting", [{"size": 12}, {"num_positive": 15}, {"decay": 0.4}, {"target": -2.0}])
def test_every_constant_of_influence_balancing_is_a_setting(setting, key):
    names = {"num_dims" if name == "size" else name: value for name, value in setting.items()}
    problem = zoo.make_problem(INFLUENCE, num_score_steps=30, **names)
    target = setting.pop("target", 1.0)
    expected = loss_of(influence([0.3] * 30, **setting)[-1], target)
    np.testing.assert_allclose(fitness_of(problem, key, jnp.asarray(0.3)), expected, rtol=1e-4)
    assert abs(expected - loss_of(influence([0.3] * 30)[-1])) > 0.05
    assert zoo.make_problem(INFLUENCE, initial_theta=-1).initial_solution(key) == -1.0
