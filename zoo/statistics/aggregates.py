"""Statistics of scores over seeds.

Reference: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
arXiv 2108.13264.
"""

import warnings
from typing import Any

import numpy as np
import scipy.stats


def interquartile_mean(scores: np.ndarray, axis: int = 0) -> Any:
    """Returns the mean of the middle half of the scores: a quarter, rounded down, is cut off at each end."""
    return scipy.stats.trim_mean(scores, 0.25, axis=axis)


def confidence_interval(scores: np.ndarray) -> tuple[Any, Any]:
    """Returns the 95 % percentile bootstrap interval of the interquartile mean over the first axis.

    With fewer than two seeds, or with scores that are not finite, both bounds are NaN.
    """
    if len(scores) < 2 or not np.isfinite(scores).all():
        return np.full(scores.shape[1:], np.nan), np.full(scores.shape[1:], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)  # all seeds equal: an interval of width 0
        interval = scipy.stats.bootstrap(
            (scores,),
            interquartile_mean,
            axis=0,
            vectorized=True,
            n_resamples=2000,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return interval.low, interval.high
