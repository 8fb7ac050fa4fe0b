"""Tests the accuracy pipeline: the vote against plain Python, and the estimators against exact gradients."""

import itertools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.problems.networks import FunctionNetwork
from zoo.problems.supervised.accuracy_pipeline import SHIFTS, AccuracyPipeline, Estimator, error_of, vote
from zoo.problems.supervised.classification import Classification

ESTIMATORS = get_args(Estimator)


def pipeline(**settings):
    return AccuracyPipeline(**{"hidden": (4,), "batch_size": 6, "num_samples": 8, **settings})


@jax.jit
def vote_and_errors(logits):
    votes = vote(logits)
    return votes, jnp.stack([error_of(votes, label) for label in range(4)])


@pytest.mark.parametrize("seed", range(5))
def test_vote_against_plain_python(seed):
    logits = np.random.default_rng(seed).normal(size=(5, 4))
    counts = [sum(int(np.argmax(row)) == c for row in logits) for c in range(4)]
    winner = counts.index(max(counts))  # ties go to the lowest class
    votes, errors = vote_and_errors(np.float32(logits))
    assert votes.tolist() == [float(c == winner) for c in range(4)]
    assert errors.tolist() == [float(c != winner) for c in range(4)]


def test_fitness_and_score_against_a_loop(key):
    problem = pipeline()
    solution = jax.jit(problem.initial_solution)(key)
    task = jax.tree.map(np.asarray, problem.task)
    apply = jax.jit(task.network.apply)

    def predict(image):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        views = np.stack([padded[1 + i : 9 + i, 1 + j : 9 + j] for i, j in SHIFTS])
        classes = np.argmax(apply(solution, views), axis=1)
        return np.argmax(np.bincount(classes, minlength=10))

    rows = np.asarray(jax.random.randint(key, (6,), 0, 1437))
    wrong = [predict(task.train_inputs[i]) != int(task.train_labels[i]) for i in rows]
    np.testing.assert_allclose(jax.jit(problem.fitness)(key, solution), np.mean(wrong), rtol=1e-6)
    small = problem.replace(task=task.replace(test_inputs=task.test_inputs[:20], test_labels=task.test_labels[:20]))
    right = [predict(task.test_inputs[i]) == int(task.test_labels[i]) for i in range(20)]
    np.testing.assert_allclose(jax.jit(small.score)(key, solution)["test_accuracy"], np.mean(right), rtol=1e-6)


def two_classes(estimator, **settings):
    """Returns a problem with one one-pixel image. Its views have five parameters and their negatives as logits."""

    def apply(params, inputs):
        z = params["z"][: len(inputs)]
        return jnp.stack([z, -z], axis=1)

    network = FunctionNetwork(lambda key, inputs: {"z": jnp.zeros(5)}, apply)
    image, label = jnp.ones((1, 1, 1, 1)), jnp.zeros(1, jnp.int32)
    task = Classification(network=network, train_inputs=image, train_labels=label, test_inputs=image, test_labels=label)
    return AccuracyPipeline(task=task, batch_size=1, estimator=estimator, **settings)


def expected_error(z, is_right):
    """Returns the probability that at most two of five independent views are right."""
    p = is_right(z)
    right = np.array([views for views in itertools.product((False, True), repeat=5) if sum(views) <= 2])
    return jnp.sum(jnp.prod(jnp.where(right, p, 1 - p), axis=1))


@pytest.mark.parametrize("estimator", ["smooth", "perturbations", "score_function"])
def test_estimators_are_unbiased(estimator):
    """Estimates match the exact gradient of the error with Gaussian noise on the logits, or with sampled classes."""
    z = np.array([0.5, -0.4, 0.1, 0.3, -0.2], np.float32)
    problem = two_classes(estimator, smoothing=0.7, num_samples=20)
    gradients = jax.jit(jax.vmap(lambda k: problem.gradient(k, {"z": z})["z"]))(
        jax.random.split(jax.random.key(1), 4000)
    )
    if estimator == "score_function":
        error_at = lambda z: expected_error(z, lambda z: jax.nn.sigmoid(2 * z))  # noqa: E731
    else:  # z + s e1 > -z + s e2, where e1 - e2 has variance 2
        is_right = lambda z: jax.scipy.stats.norm.cdf(2 * z / (0.7 * np.sqrt(2)))  # noqa: E731
        # The ten logits z and -z have mean zero, so one_scale divides them by their root mean square.
        error_at = lambda z: expected_error(z / (jnp.sqrt(jnp.mean(z**2)) + 1e-6), is_right)  # noqa: E731
    expected = jax.jit(jax.grad(error_at))(z)
    error = np.mean(gradients, axis=0) - expected
    assert np.all(np.abs(error) < 5 * np.std(gradients, axis=0) / np.sqrt(4000))
    assert np.all(np.std(gradients, axis=0) / np.sqrt(4000) < 0.2 * np.abs(expected))


def test_straight_through_is_the_softmax_gradient():
    z = np.array([0.5, -0.4, 0.1, 0.3, -0.2], np.float32)
    gradient = jax.jit(two_classes("straight_through").gradient)(jax.random.key(0), {"z": z})["z"]
    expected = jax.jit(jax.grad(lambda z: -jnp.sum(jax.nn.softmax(jnp.stack([z, -z], axis=1))[:, 0])))(z)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if e != "perturbations"])  # too noisy for a test
def test_trains(estimator):
    problem = pipeline(hidden=(16,), batch_size=64, num_samples=16, estimator=estimator)
    strategy = zoo.make_strategy("tbptt", population_size=1, learning_rate=0.01)
    assert zoo.run(strategy, problem, num_generations=120, num_scores=1).score > 0.35


def test_gradient_sees_the_data_of_the_fitness(key):
    """The gradient uses the minibatch of `fitness`: it equals the cross-entropy gradient on the same rows."""
    problem = pipeline(estimator="cross_entropy")
    solution = jax.jit(problem.initial_solution)(key)
    logits, labels = jax.jit(problem._minibatch)(key, solution)
    wrong = np.argmax(jax.jit(jax.vmap(vote))(logits), axis=1) != labels
    np.testing.assert_allclose(jax.jit(problem.fitness)(key, solution), np.mean(wrong), rtol=1e-6)


def test_made_by_id_on_another_task(idx_folder):
    task = zoo.make_problem("supervised/mnist", data_dir=idx_folder, hidden=(3,))
    problem = zoo.make_problem("supervised/accuracy_pipeline", task=task, batch_size=4)
    result = zoo.run("open_es", problem, num_generations=1, num_scores=1)
    assert set(result.metrics) == {"test_accuracy", "plain_accuracy"}


def test_wrong_settings():
    with pytest.raises(ValueError, match="estimator must be one of 'smooth', 'straight_through'"):
        pipeline(estimator="reinforce")
    with pytest.raises(ValueError, match="smoothing must be greater than 0"):
        pipeline(smoothing=0)
    flat = zoo.make_problem("supervised/digits", hidden=(2,))
    flat = flat.replace(train_inputs=flat.train_inputs.reshape(-1, 64))
    with pytest.raises(
        ValueError, match=r"must have images \[n, height, width, channels\] as inputs, got shape \(1437, 64\)"
    ):
        pipeline(task=flat)
