"""Learning curves over seeds."""

import numpy as np
import pandas as pd

from zoo.statistics.aggregates import confidence_interval, interquartile_mean


def mean_curve(
    curve: pd.DataFrame, metric: str, column: str, *, num_points: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns a common grid in `column`, and the interquartile mean over seeds and its interval on this grid.

    Args:
        curve: The scores of a pair: a row per seed, scoring and metric.
        metric: Name of the metric.
        column: `"steps"` or `"seconds"`.
        num_points: The number of points of the grid.
    """
    rows = curve[curve.metric == metric]
    seeds = [group for _, group in rows.groupby("seed")]
    grid = np.linspace(0, max(group[column].max() for group in seeds), num_points)
    values = np.stack([np.interp(grid, group[column], group.value) for group in seeds])
    low, high = confidence_interval(values)
    return grid, interquartile_mean(values), low, high
