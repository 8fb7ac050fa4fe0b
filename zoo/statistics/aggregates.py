"""Statistics of scores over seeds.

Reference: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
arXiv 2108.13264.
"""

from typing import Any

import numpy as np
import scipy.stats

NUM_RESAMPLES = 2000
"""Resamples of a bootstrap interval."""
_FEWEST_FOR_BOOTSTRAP = 10  # with 3 and 5 seeds, a percentile interval that says 95 % covers 75 % and 90 %
# Half the width of a 95 % interval of the interquartile mean of n normal scores, in their standard deviations. Up to
# three scores it is Student's interval, since nothing is cut off. The others are from six million samples each.
_HALF_WIDTHS = {2: 8.985, 3: 2.484, 4: 1.637, 5: 1.277, 6: 1.078, 7: 0.947, 8: 0.883, 9: 0.807}


def interquartile_mean(scores: np.ndarray, axis: int = 0) -> Any:
    """Returns the mean of the middle half of the scores: a quarter, rounded down, is cut off at each end."""
    return scipy.stats.trim_mean(scores, 0.25, axis=axis)


def confidence_interval(scores: np.ndarray) -> tuple[Any, Any]:
    """Returns the 95 % confidence interval of the interquartile mean over the first axis.

    From ten seeds on, it is the percentile bootstrap interval. With fewer seeds that interval is too narrow, and this
    one is a multiple of the standard deviation to each side, like Student's. The multiple is right for normal scores.
    Skewed and heavy-tailed scores are covered in 92 to 99 % of cases (`tests/statistics/test_aggregates.py`).

    Args:
        scores: Scores, `[num_seeds, ...]`.

    Returns:
        The lower and the upper bound, `[...]`. They are NaN where there are fewer than two seeds, or where a score is
        not finite.
    """
    scores = np.asarray(scores, float)
    is_known = np.isfinite(scores).all(axis=0) & (len(scores) > 1)
    # Where there is no interval, nothing that is not finite is computed, and NaN of the place is added at the end.
    values = np.where(is_known, scores, 0.0)
    missing = np.where(is_known, 0.0, np.nan)
    if len(values) < _FEWEST_FOR_BOOTSTRAP:
        half = _HALF_WIDTHS[len(values)] * values.std(axis=0, ddof=1) if len(values) > 1 else 0.0
        middle = interquartile_mean(values) if len(values) else 0.0
        return middle - half + missing, middle + half + missing
    seeds = np.random.default_rng(0).integers(0, len(values), (NUM_RESAMPLES, len(values)))
    low, high = np.quantile(interquartile_mean(values[seeds], axis=1), [0.025, 0.975], axis=0)
    return low + missing, high + missing


def middle_of_finite(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many scores are not finite, and the interquartile mean of the others, over the first axis.

    The mean is NaN where no score is finite.

    Args:
        scores: Scores, `[num_seeds, ...]`.
    """
    scores = np.asarray(scores, float)
    is_finite = np.isfinite(scores)
    ordered = np.sort(np.where(is_finite, scores, np.inf), axis=0)
    sums = np.cumsum(np.where(np.isfinite(ordered), ordered, 0.0), axis=0)
    sums = np.concatenate([np.zeros((1, *sums.shape[1:])), sums])
    count = is_finite.sum(axis=0)
    cut = count // 4
    total = np.take_along_axis(sums, (count - cut)[None], 0)[0] - np.take_along_axis(sums, cut[None], 0)[0]
    middle = np.full(count.shape, np.nan)
    np.divide(total, count - 2 * cut, out=middle, where=count > 0)
    return len(scores) - count, middle
