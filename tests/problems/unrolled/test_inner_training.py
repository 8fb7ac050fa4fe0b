"""Tests what all problems of inner training share: held-out data, episode seeds, scores, tasks and settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.problems.unrolled.examples import LEARNED, LORENZ, MLP, NOISY, jit, score_of


def test_what_is_held_out_is_the_rest_of_the_training_data():
    whole = zoo.make_problem("supervised/digits")
    for fraction, num_held_out in ((None, 287), (0.5, 718), (0.01, 14)):
        settings = {} if fraction is None else {"held_out": fraction}
        problem = zoo.make_problem(LEARNED, **settings)
        sizes = [task.train_inputs.shape[0] for task in (problem.task, problem.outer_task)]
        assert sizes == [1437 - num_held_out, num_held_out]
        for name in ("train_inputs", "train_labels"):
            parts = [getattr(task, name) for task in (problem.task, problem.outer_task)]
            np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name))
        # Only the score uses the test data.
        np.testing.assert_array_equal(problem.task.test_inputs, whole.test_inputs)
        assert problem.outer_task.batch_size == problem.task.batch_size == 128
    for id, settings in ((LEARNED, {"held_out": 0}), (MLP, {})):
        problem = zoo.make_problem(id, **settings)
        assert problem.outer_task is None
        assert problem.task.train_inputs.shape[0] == 1437


@pytest.mark.parametrize("seed", [0, None])
def test_episodes_are_the_same_under_a_seed_and_else_the_groups_own(seed, key):
    """With a seed all episodes are equal. Without one, each group has its own episodes, equal for partners."""
    problem = zoo.make_problem(MLP, task=NOISY, horizon=2, window=2, seed=seed)

    @jit
    def play(key):
        solution = jnp.array([-2.0, 0.0])
        key_init, key_evaluate = jax.random.split(key)
        state = problem.init(key_init, zoo.Groups(np.array([0, 1, 0, 1])), solution)
        evaluation, after = problem.evaluate(key_evaluate, jnp.tile(solution, (4, 1)), state)
        return state.inner, evaluation.fitness, after.inner

    before, fitness, after = play(key)
    others = play(jax.random.key(1))
    starts = []
    for inner in (before, after, others[0], others[2]):
        rows = np.concatenate([inner.params, inner.data_seed[:, None], inner.time[:, None]], axis=1)
        np.testing.assert_array_equal(rows[:2], rows[2:])
        starts += [tuple(row) for row in rows[:2]]
    assert len(set(starts)) == (8 if seed is None else 1)
    np.testing.assert_array_equal(fitness[:2], fitness[2:])
    assert (seed is None) == bool(fitness[0] != fitness[1])
    if seed is not None:
        other = problem.replace(seed=seed + 1).reset(key)
        assert other.data_seed != before.data_seed[0]
        assert np.all(other.params != before.params[0])


def test_score_of_inner_training_is_the_accuracy_of_fresh_models_at_the_end(key):
    """The score is the mean objective of fresh training runs, and the mean test accuracy of their final models."""
    problem = zoo.make_problem(MLP, hidden=(8,), batch_size=32, horizon=60, window=20, num_score_episodes=3)
    theta = jnp.array([np.log(0.1), 0.0])
    score = score_of(problem, key, theta)
    assert set(score) == {"objective", "final_test_accuracy", "final_test_loss"}

    @jit
    def train(key):
        end = problem.replace(seed=None).rollout(key, theta)
        return end.loss / 60, problem.task.score(key, end.inner.params), end.inner.data_seed

    losses, finals, data_seeds = zip(*[train(k) for k in jax.random.split(key, 3)], strict=True)
    assert len(set(map(int, data_seeds))) == 3
    np.testing.assert_allclose(score["objective"], np.mean(losses), rtol=1e-5)
    for name in ("test_accuracy", "test_loss"):
        np.testing.assert_allclose(score[f"final_{name}"], np.mean([final[name] for final in finals]), rtol=1e-5)
    assert 0.6 < score["final_test_accuracy"] < 1
    assert score["final_test_loss"] < score["objective"] < np.log(10)


def test_score_of_inner_training_does_not_depend_on_the_seed_of_the_episodes(key):
    """The score depends only on its own key, and the final scores do not depend on the objective."""
    problem = zoo.make_problem(MLP, task=NOISY, horizon=50, window=10)
    theta = jnp.array([np.log(0.05), -10.0])
    score = score_of(problem, key, theta)
    assert set(score) == {"objective", "final_fitness"}
    assert score_of(problem, jax.random.key(1), theta)["objective"] != score["objective"]
    changed = score_of(problem.replace(seed=5, objective="sum"), key, theta)
    np.testing.assert_allclose(changed["objective"], 50 * score["objective"], rtol=1e-5)
    np.testing.assert_allclose(changed["final_fitness"], score["final_fitness"], rtol=1e-5)
    assert problem.differentiable


def test_a_task_without_a_gradient_gives_no_surrogate(key):
    error = zoo.make_problem("supervised/digits", hidden=(2,), loss="error")
    entropy = zoo.make_problem("supervised/digits", hidden=(2,))
    for task, outer_task, expected in ((entropy, None, True), (error, None, False), (entropy, error, False)):
        problem = zoo.make_problem(MLP, task=task, outer_task=outer_task, horizon=2, window=2)
        assert problem.differentiable == expected
        state = jax.eval_shape(lambda p=problem: p.init(key, zoo.Groups.of(2), p.initial_solution(key)))
        assert (problem.surrogate_gradient(key, state) is not None) == expected


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"task": "supervised/digit"},
            ValueError,
            r"Unknown problem 'supervised/digit'. Did you mean 'supervised/",
        ),
        (
            {"task": MLP},
            TypeError,
            r"task must be a problem or the id of a supervised problem, got 'unrolled/mlp_.*as instances",
        ),
        ({"held_out": 1.0}, ValueError, r"fraction that leaves data for both problems, got 1.0"),
        ({"held_out": 1e-5}, ValueError, r"fraction that leaves data for both problems, got 1e-05"),
        ({"held_out": -0.1}, ValueError, r"LearnedOptimizer.held_out must be at least 0, got -0.1"),
        ({"held_out": "half"}, TypeError, r"LearnedOptimizer.held_out must be a number, got 'half'"),
        ({"activation": "cube"}, ValueError, r"activation must be one of relu, tanh, gelu, silu, got 'cube'"),
        ({"hidden": (0,)}, ValueError, r"LearnedOptimizer.hidden must be at least 1, got 0"),
        ({"batch_size": 0}, ValueError, r"LearnedOptimizer.batch_size must be at least 1, got 0"),
        ({"step_size": 0}, ValueError, r"LearnedOptimizer.step_size must be greater than 0, got 0"),
        ({"num_score_episodes": 0}, ValueError, r"LearnedOptimizer.num_score_episodes must be at least 1, got 0"),
    ],
)
def test_invalid_settings_of_inner_training(settings, error, message):
    with pytest.raises(error, match=message):
        zoo.make_problem(LEARNED, **settings)


@pytest.mark.parametrize("id", ["blackbox/sphere", "rl/CartPole-v1", LORENZ])
def test_a_task_by_id_must_be_supervised(id):
    with pytest.raises(TypeError, match=id):
        zoo.make_problem(MLP, task=id)
