"""Learning curves over seeds."""

import numpy as np
import pandas as pd

from zoo.statistics.aggregates import confidence_interval, interquartile_mean


def curve_on_grid(rows: pd.DataFrame, column: str, num_points: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Returns a common grid in `column`, `[num_points]`, and the values of all seeds on it, `[num_seeds, num_points]`.

    Args:
        rows: The scores of a pair by one metric: a row per seed and scoring.
        column: `"steps"` or `"seconds"`.
        num_points: The number of points of the grid.
    """
    seeds = [group for _, group in rows.groupby("seed")]
    grid = np.linspace(0, max(group[column].max() for group in seeds), num_points)
    return grid, np.stack([np.interp(grid, group[column], group.value) for group in seeds])


def mean_curve(
    curve: pd.DataFrame, metric: str, column: str, *, num_points: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the grid of `curve_on_grid`, and the interquartile mean over seeds and its interval on it.

    Args:
        curve: The scores of a pair: a row per seed, scoring and metric.
        metric: Name of the metric.
        column: `"steps"` or `"seconds"`.
        num_points: The number of points of the grid.
    """
    grid, values = curve_on_grid(curve.loc[curve.metric == metric], column, num_points)
    return grid, interquartile_mean(values), *band_of(values)


def band_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the band of a curve: the 95 % interval of the interquartile mean, as far as the seeds reach.

    With fewer than ten seeds the interval often ends beyond all seeds, also below zero where scores cannot be. A figure
    that showed all of it would show little else.

    Args:
        values: Scores, `[num_seeds, num_points]`.
    """
    low, high = confidence_interval(values)
    return np.maximum(low, values.min(axis=0)), np.minimum(high, values.max(axis=0))
