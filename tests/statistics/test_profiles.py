"""Normalised scores, their aggregate and their profiles: by hand and by scipy's bootstrap."""

import numpy as np
import pytest
import scipy.stats

from zoo.statistics.profiles import aggregate, normalize, performance_profile


def test_normalised_scores():
    costs = np.array([[1.0, 3.0], [5.0, np.inf]])
    assert normalize(costs).tolist() == [[1.0, 0.5], [0.0, 0.0]]
    assert normalize(costs, worst=3.0, best=1.0).tolist() == [[1.0, 0.0], [-1.0, -1.0]]
    assert normalize(-costs[0], worst=0.0, best=-2.0).tolist() == [0.5, 1.5]
    assert normalize(np.array([2.0, 2.0, np.inf])).tolist() == [1.0, 1.0, 0.0]
    assert normalize(np.array([np.inf, np.inf])).tolist() == [0.0, 0.0]


def test_aggregate_of_all_runs():
    """The interquartile mean is over runs and problems together, not a mean of means."""
    scores = [np.array([0.0, 0.1, 0.9, 1.0]), np.array([0.2, 0.3, 0.4, 0.5])]
    middle, low, high = aggregate(scores)
    assert middle == pytest.approx(np.mean([0.2, 0.3, 0.4, 0.5]))
    assert low < middle < high


def test_interval_of_the_aggregate_against_scipy():
    """With one problem a stratified bootstrap is a plain one."""
    scores = np.random.default_rng(0).uniform(size=15)
    options = {"n_resamples": 20_000, "method": "percentile", "rng": np.random.default_rng(1)}
    expected = scipy.stats.bootstrap((scores,), lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis), **options)
    np.testing.assert_allclose(aggregate([scores])[1:], expected.confidence_interval, atol=0.02)
    assert expected.confidence_interval.high - expected.confidence_interval.low > 0.2


def test_resamples_stay_within_problems():
    """Between problems scores differ, within problems they do not: no resample differs from another."""
    scores = [np.full(4, 0.1), np.full(4, 0.5), np.full(4, 0.9)]
    assert aggregate(scores) == pytest.approx((0.5, 0.5, 0.5))
    fraction, low, high = performance_profile(scores, np.array([0.3]))
    assert fraction == low == high == pytest.approx(2 / 3)


def test_profile_by_hand():
    scores = [np.array([0.0, 0.5]), np.array([0.5, 1.0])]
    fraction, low, high = performance_profile(scores, np.array([-1.0, 0.0, 0.4, 0.5, 1.0]))
    assert fraction.tolist() == [1.0, 0.75, 0.75, 0.25, 0.0]
    assert (low <= fraction).all()
    assert (fraction <= high).all()
    assert (low[[0, -1]] == high[[0, -1]]).all()
