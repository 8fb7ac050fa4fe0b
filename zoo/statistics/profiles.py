"""Statistics over problems: normalised scores, their interquartile mean, and performance profiles.

Reference: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
arXiv 2108.13264.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

from zoo.statistics.aggregates import NUM_RESAMPLES


def normalize(costs: np.ndarray, worst: float | None = None, best: float | None = None) -> np.ndarray:
    """Returns the scores of one problem on a scale on which `worst` is 0 and `best` is 1.

    Costs that are not finite become 0, or the smallest score if that is below 0. If `worst` equals `best`, finite costs
    become 1.

    Args:
        costs: Costs of any shape: lower is better.
        worst: With `None`, it is the largest finite cost.
        best: With `None`, it is the smallest finite cost.
    """
    is_finite = np.isfinite(costs)
    finite = costs[is_finite]
    if not len(finite):
        return np.zeros(costs.shape)
    zero = float(finite.max() if worst is None else worst)
    one = float(finite.min() if best is None else best)
    scores = np.ones(costs.shape) if zero == one else (zero - np.where(is_finite, costs, zero)) / (zero - one)
    return np.where(is_finite, scores, scores[is_finite].min(initial=0.0))


def aggregate(scores: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Returns the interquartile mean of all runs on all problems, with its stratified bootstrap 95 % interval.

    A resample draws runs within each problem.

    Args:
        scores: Normalised scores of one strategy: for each problem an array `[num_seeds]`.
    """
    (middle,), (low,), (high,) = _stratified(scores, lambda runs: scipy.stats.trim_mean(runs, 0.25, axis=1)[:, None])
    return float(middle), float(low), float(high)


def performance_profile(scores: Sequence[np.ndarray], at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the fraction of runs with a score above each value, with pointwise stratified bootstrap 95 % bands.

    Args:
        scores: Normalised scores of one strategy: for each problem an array `[num_seeds]`.
        at: Values, `[num_values]`.
    """
    return _stratified(scores, lambda runs: np.stack([np.mean(runs > value, axis=1) for value in at], axis=1))


def _stratified(
    scores: Sequence[np.ndarray], statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a statistic of `[num_resamples, num_runs]` of all runs, and its percentile interval over resamples."""
    rng = np.random.default_rng(0)
    drawn = [runs[rng.integers(0, len(runs), (NUM_RESAMPLES, len(runs)))] for runs in scores]
    low, high = np.quantile(statistic(np.concatenate(drawn, axis=1)), [0.025, 0.975], axis=0)
    return statistic(np.concatenate(scores)[None])[0], low, high
