"""Bias and variance of online, truncated and whole-episode strategies, against NumPy."""

import functools

import jax
import numpy as np
import pytest

from tests.strategies.online_examples import (
    CENTER,
    NEVER,
    SIGMA,
    STRATEGIES,
    THETA,
    Line,
    assert_unbiased,
    compile_quickly,  # noqa: F401 - a fixture, of all tests here
    differentiate,
    mean_and_error,
    mean_window_losses,
    sample_estimates,
    smoothed_gradient,
    target,
    window_losses,
)

BLOCKS = {"nres": [0, 0, 0], "es_single": [0, 0, 0], "full_es": [0, 0, 0], "gpes": [0, 0, 1], "pes": [0, 1, 2]}


def sample(id, problem, num_thousands):
    """Returns estimates at a fixed mean, `[1000 * num_thousands, 3 windows, 3 dims]`, after an episode of burn-in.

    After the burn-in every worker was reset once, so ages and sums are as in a long run.
    """
    strategy = STRATEGIES[id](3).replace(learning_rate=0.0)
    keys = jax.random.split(jax.random.key(0), (num_thousands // 5, 5000))
    return np.concatenate([sample_estimates(strategy, problem, k) for k in keys]).astype(float)


# Bias


def truncated_target(problem, sigma=SIGMA):
    """Returns the smoothed gradient with respect to the window's own solution alone, averaged over the windows."""

    def fitness(window, thetas):
        others = np.broadcast_to(THETA, thetas[0].shape)
        return mean_window_losses(problem, [thetas[0] if w == window else others for w in range(3)])[window]

    return sum(smoothed_gradient(functools.partial(fitness, window), 1, sigma) for window in range(3)) / 3


@functools.cache
def sampled_target(problem, blocks, num_samples=200_000):
    """Returns `target` for any loss, computed from pairs of whole episodes: the mean and its standard error.

    The third value is the fraction of pairs whose partners terminate in different steps.
    """
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((max(blocks) + 1, num_samples, 3))
    x = CENTER + rng.choice([1, -1], (num_samples, 1)) * problem.spread
    length = rng.choice([problem.short, NEVER], num_samples)
    pairs = [window_losses(problem, [THETA + s * SIGMA * noise[b] for b in blocks], x, length) for s in (1, -1)]
    samples = (np.mean(pairs[0][0], 0) - np.mean(pairs[1][0], 0))[:, None] / 2 * noise.sum(0) / SIGMA
    return *mean_and_error(samples), np.mean(pairs[0][1] != pairs[1][1])


@pytest.mark.parametrize("id", BLOCKS)
def test_estimate_is_unbiased_on_a_quadratic(id):
    """On a quadratic, all estimate the plain gradient without bias. The window does not divide the horizon."""
    problem = Line(noise=10.0)
    gradient = target(problem, BLOCKS[id])
    np.testing.assert_allclose(gradient, target(problem, [0, 0, 0], sigma=0.0), rtol=1e-6)
    assert_unbiased(sample(id, problem, 5), gradient, np.linalg.norm(gradient) / 4)


@pytest.mark.parametrize(("id", "num_thousands"), [("nres", 10), ("full_es", 5), ("pes", 10), ("gpes", 30)])
def test_estimate_is_unbiased_on_a_cubic(id, num_thousands):
    """On a cubic, each target depends on the blocks. The test can tell it from the plain gradient and other targets."""
    problem = Line(quadratic=0.5, cubic=1.0)
    expected = target(problem, BLOCKS[id])
    others = [target(problem, [0, 0, 0], sigma=0.0), target(problem, BLOCKS["pes" if id == "nres" else "nres"])]
    distances = [np.linalg.norm(other - expected) for other in others]
    assert_unbiased(sample(id, problem, num_thousands), expected, min(d for d in distances if d > 1e-6))


@pytest.mark.parametrize("id", ["nres", "pes"])
def test_estimate_is_unbiased_if_the_window_divides_the_horizon(id):
    problem = Line(horizon=6, window=2, noise=10.0, terminates=False)
    expected = target(problem, BLOCKS[id])
    assert_unbiased(sample(id, problem, 5), expected, np.linalg.norm(expected) / 4)


@pytest.mark.parametrize("id", ["nres", "pes"])
def test_estimate_is_unbiased_if_episodes_differ_in_length(id):
    """Estimates stay unbiased if half of the episodes end in their second window."""
    problem = Line(short=4.0)
    expected = target(problem, BLOCKS[id])
    assert_unbiased(sample(id, problem, 10), expected, np.linalg.norm(expected - target(Line(), BLOCKS[id])) / 2)


@pytest.mark.parametrize("id", ["nres", "pes", "full_es"])
def test_estimate_is_unbiased_if_partners_terminate_at_different_times(id):
    """The estimate agrees with pairs of whole episodes, computed in NumPy."""
    problem = Line(limit=1.4, noise=0.1)
    expected, error, different = sampled_target(problem, tuple(BLOCKS[id]))
    assert different > 0.3
    assert_unbiased(sample(id, problem, 10), expected, np.linalg.norm(expected) / 4, error)


@pytest.mark.parametrize("id", ["tes", "tbptt"])
def test_truncation_is_biased(id):
    """Truncated strategies estimate the gradient with respect to the window's own solution, which is biased."""
    problem = Line(quadratic=0.5, cubic=1.0)
    sigma = SIGMA if id == "tes" else 0.0
    expected, unbiased = truncated_target(problem, sigma), target(problem, [0, 0, 0], sigma)
    bias = np.linalg.norm(expected - unbiased)
    assert bias > 0.3 * np.linalg.norm(unbiased)
    assert_unbiased(sample(id, problem, 5), expected, bias / 4)


# Variance


def fitness_gradients(problem, blocks):
    """Returns the gradient of each window's fitness, linear in theta, with respect to each block so far."""
    num_blocks = max(blocks) + 1

    def gradient(window, block):
        def fitness(theta):
            thetas = [theta if b == block else THETA for b in blocks]
            return mean_window_losses(problem, thetas)[window]

        return differentiate(fitness, THETA.astype(float))

    return [[gradient(w, b) for b in range(num_blocks) if b <= blocks[w]] for w in range(3)]


@pytest.mark.parametrize("id", BLOCKS)
def test_variance_on_a_linear_loss(id):
    """A pair in a window with block gradients u_1 to u_m has E|g|^2 = m d sum |u_b|^2 + 2 |sum u_b|^2.

    The test compares the variance of the average over three pairs. nres, pes and gpes have one pair in each window,
    es_single has all three in the same window (Li et al. 2023, theorem 2). A whole episode has variance (d + 1) |g|^2.
    """
    problem = Line(linear=1.0, quadratic=0.0, noise=1.0)
    gradients = fitness_gradients(problem, BLOCKS[id])
    sums = np.array([np.sum(u, axis=0) for u in gradients])
    mean = sums.mean(0)
    np.testing.assert_allclose(mean, target(problem, BLOCKS[id]), rtol=1e-6)
    seconds = [3 * len(u) * np.sum(np.square(u)) + 2 * np.sum(np.sum(u, axis=0) ** 2) for u in gradients]
    expected = (np.mean(seconds) - np.mean(np.sum(sums**2, axis=1))) / 3
    if id == "es_single":
        expected += np.mean(np.sum((sums - mean) ** 2, axis=1))
    if id == "full_es":
        expected = (3 + 1) * np.sum(mean**2) / 3
    variance, error = mean_and_error(np.sum((sample(id, problem, 10) - mean) ** 2, axis=2).mean(1))
    assert np.abs(variance - expected) < 5 * error
    assert 5 * error < 0.2 * expected
