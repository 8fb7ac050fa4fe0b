"""Ranks on a problem and over problems: by hand, and an example and tables of Demšar 2006."""

import numpy as np
import pytest
import scipy.stats

from zoo.statistics.ranks import cliques, critical_difference, friedman_test, mean_ranks, shared_ranks


def test_ranks_are_shared_by_intervals_that_overlap():
    middle = np.array([1.0, 2.0, 3.0, 6.0])
    # The second overlaps with both neighbours, the third is behind the first, and the last is behind all others.
    assert shared_ranks(middle, middle - 0.8, middle + 0.8).tolist() == [1, 1, 2, 4]
    assert shared_ranks(middle, middle - 9, middle + 9).tolist() == [1, 1, 1, 1]
    assert shared_ranks(middle, middle, middle).tolist() == [1, 2, 3, 4]


def test_ranks_without_an_interval():
    none = np.full(3, np.nan)
    assert shared_ranks(np.array([1.0, 2.0, 3.0]), none, none).tolist() == [1, 1, 1]
    assert shared_ranks(np.array([np.nan, 2.0, np.inf]), none, none).tolist() == [2, 1, 2]


def test_mean_ranks_by_hand():
    costs = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 1.0], [np.inf, 0.0, np.inf]])
    np.testing.assert_allclose(mean_ranks(costs), [(1 + 2.5 + 2.5) / 3, (2 + 2.5 + 1) / 3, (3 + 1 + 2.5) / 3])


def test_friedman_against_scipy():
    costs = np.random.default_rng(0).normal([0, 0.5, 1.0], size=(6, 3))
    assert friedman_test(costs) == pytest.approx(scipy.stats.friedmanchisquare(*costs.T).pvalue)
    costs[0, 0] = np.inf  # the last rank
    finite = np.where(np.isfinite(costs), costs, 99.0)
    assert friedman_test(costs) == pytest.approx(scipy.stats.friedmanchisquare(*finite.T).pvalue)
    assert friedman_test(np.zeros((4, 3))) == 1.0
    assert np.isnan(friedman_test(costs[:, :2]))
    assert np.isnan(friedman_test(costs[:1]))


@pytest.mark.parametrize(("num_strategies", "quantile"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_difference_against_the_table_of_demsar(num_strategies, quantile):
    expected = quantile * np.sqrt(num_strategies * (num_strategies + 1) / (6 * 14))
    assert critical_difference(num_strategies, 14) == pytest.approx(expected, rel=1e-3)


def test_cliques_by_hand():
    ranks = np.array([3.0, 1.0, 4.2, 2.0, 5.0])
    assert cliques(ranks, 1.5) == [[1, 3], [3, 0], [0, 2], [2, 4]]
    assert cliques(ranks, 2.1) == [[1, 3, 0], [3, 0], [0, 2, 4]][::2]
    assert cliques(ranks, 0.5) == []
    assert cliques(ranks, 9.0) == [[1, 3, 0, 2, 4]]
    assert cliques(np.array([1.0, 2.0]), 1.0) == []  # a difference as large as the critical one is significant
