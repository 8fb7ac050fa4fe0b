"""Ranks of strategies, on one problem and over several.

Reference: Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (mean ranks, Friedman
and Nemenyi tests, critical difference).
"""

import numpy as np
import scipy.stats


def shared_ranks(costs: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns ranks that are shared where nothing separates two strategies.

    The rank is 1 plus the number of strategies that are better for sure. A strategy is better for sure if its interval
    lies wholly below the other's, or if its cost is finite and the other's is not.

    Args:
        costs: Costs, `[num_strategies]`: lower is better.
        low: Lower bounds of their intervals. NaN if there is no interval, which then overlaps with all others.
        high: Upper bounds.
    """
    is_better = (high[:, None] < low) | (np.isfinite(costs)[:, None] & ~np.isfinite(costs))
    return 1 + is_better.sum(axis=0)


def mean_ranks(costs: np.ndarray) -> np.ndarray:
    """Returns the mean rank over problems of each strategy. Equal costs share their mean rank; infinite ones are last.

    Args:
        costs: Costs, `[num_problems, num_strategies]`.
    """
    return scipy.stats.rankdata(costs, axis=1).mean(axis=0)


def friedman_test(costs: np.ndarray) -> float:
    """Returns the p value of the Friedman test: whether the mean ranks of the strategies differ by more than chance.

    It is NaN for fewer than three strategies or two problems, for which there is no test.

    Args:
        costs: Costs, `[num_problems, num_strategies]`.
    """
    if costs.shape[1] < 3 or len(costs) < 2:
        return float("nan")
    ranks = scipy.stats.rankdata(costs, axis=1)
    if (ranks == ranks[:, :1]).all():
        return 1.0  # all strategies tie on every problem
    return float(scipy.stats.friedmanchisquare(*ranks.T).pvalue)


def critical_difference(num_strategies: int, num_problems: int, level: float = 0.05) -> float:
    """Returns the difference of two mean ranks from which on they differ significantly, by the Nemenyi test."""
    if num_strategies < 2:
        return float("nan")
    quantile = scipy.stats.studentized_range.ppf(1 - level, num_strategies, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(num_strategies * (num_strategies + 1) / (6 * num_problems)))


def cliques(ranks: np.ndarray, difference: float) -> list[list[int]]:
    """Returns the largest groups of two or more strategies whose mean ranks differ by less than a critical difference.

    Args:
        ranks: Mean ranks, `[num_strategies]`.
        difference: The critical difference.

    Returns:
        Groups of indices into `ranks`, best first.
    """
    order = np.argsort(ranks, kind="stable")
    ordered, found, last = ranks[order], [], 0
    for first in range(len(ordered)):
        end = int(np.searchsorted(ordered, ordered[first] + difference, side="left"))
        if end - first > 1 and end > last:
            found.append([int(index) for index in order[first:end]])
            last = end
    return found
