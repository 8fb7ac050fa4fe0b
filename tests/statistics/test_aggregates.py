"""Interquartile means and their confidence intervals: values by hand, scipy's bootstrap, and coverage by simulation."""

import numpy as np
import pytest
import scipy.stats

from zoo.statistics.aggregates import confidence_interval, interquartile_mean, middle_of_finite
from zoo.statistics.curves import band_of


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 4.0], 2.5),
        ([1.0, 2.0, 6.0], 3.0),
        ([100.0, 2.0, 1.0, 3.0], 2.5),
        ([100.0, 2.0, 4.0, 3.0, -100.0], 3.0),
        ([0, 1, 2, 3, 4, 5, 60, 700], 3.5),
    ],
)
def test_interquartile_mean(scores, expected):
    assert interquartile_mean(np.array(scores, float)) == pytest.approx(expected)


def test_interquartile_mean_over_an_axis():
    scores = np.array([[0, 1, 2, 90.0], [10, 20, 30, 40.0]])
    assert interquartile_mean(scores, axis=1).tolist() == [1.5, 25.0]
    assert interquartile_mean(scores.T).tolist() == [1.5, 25.0]


def test_interquartile_mean_with_nan():
    assert np.isnan(interquartile_mean(np.array([np.nan, 0, 1, 2, 3.0])))


def test_confidence_interval_of_curves():
    curves = np.random.default_rng(3).normal(size=(6, 4))
    low, high = confidence_interval(curves)
    assert low.shape == high.shape == (4,)
    assert ((low < interquartile_mean(curves)) & (interquartile_mean(curves) < high)).all()


@pytest.mark.parametrize("scores", [[1.0], [1.0, np.nan, 2.0], [1.0, np.inf]])
def test_no_confidence_interval(scores):
    assert np.isnan(confidence_interval(np.array(scores))).all()
    low, high = confidence_interval(np.array(scores)[:, None].repeat(2, axis=1))
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, True]


def test_confidence_interval_of_one_curve_point_that_is_not_finite():
    curves = np.random.default_rng(3).normal(size=(10, 4))
    expected = confidence_interval(curves)
    curves[2, 1] = np.inf
    for bound, before in zip(confidence_interval(curves), expected, strict=True):
        assert np.isnan(bound[1])
        np.testing.assert_array_equal(np.delete(bound, 1), np.delete(before, 1))


@pytest.mark.parametrize("num_seeds", [3, 12])
def test_the_band_of_a_curve_ends_where_seeds_end(num_seeds):
    values = np.random.default_rng(0).normal(size=(num_seeds, 4))
    low, high = confidence_interval(values)
    expected = np.maximum(low, values.min(axis=0)), np.minimum(high, values.max(axis=0))
    np.testing.assert_array_equal(band_of(values), expected)
    assert (low < expected[0]).any() == (num_seeds < 10)  # a bootstrap interval ends within the seeds anyway


@pytest.mark.parametrize("num_seeds", [2, 3, 12])
def test_confidence_interval_of_equal_seeds(num_seeds):
    assert confidence_interval(np.full(num_seeds, 3.0)) == (3.0, 3.0)


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_confidence_interval_of_few_seeds_is_students(num_seeds):
    """Up to three scores the interquartile mean is the mean."""
    scores = np.random.default_rng(0).normal(size=(num_seeds, 5))
    error = scipy.stats.sem(scores)
    expected = scipy.stats.t.interval(0.95, num_seeds - 1, scores.mean(axis=0), error)
    np.testing.assert_allclose(confidence_interval(scores), expected, atol=1e-3)


def test_confidence_interval_against_the_bootstrap_of_scipy():
    scores = np.random.default_rng(3).normal(size=(12, 3))
    options = {"n_resamples": 2000, "method": "percentile", "rng": np.random.default_rng(0)}
    expected = scipy.stats.bootstrap((scores,), interquartile_mean, **options).confidence_interval
    np.testing.assert_allclose(confidence_interval(scores), expected, rtol=1e-12)


def test_middle_of_finite():
    scores = np.random.default_rng(0).normal(size=(9, 40))
    scores[np.random.default_rng(1).random(scores.shape) < 0.4] = np.nan
    scores[0, :20], scores[1, :20], scores[:, 3] = np.inf, -np.inf, np.nan
    failed, middle = middle_of_finite(scores)
    for column, num_failed, mean in zip(scores.T, failed, middle, strict=True):
        finite = column[np.isfinite(column)]
        assert num_failed == 9 - len(finite)
        np.testing.assert_allclose(mean, interquartile_mean(finite) if len(finite) else np.nan, rtol=1e-12)


# Interquartile means of the distributions. That of the lognormal distribution is from 50 million samples.
DRAWS = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "lognormal": (lambda rng, shape: np.exp(rng.normal(size=shape)), 1.0746),
    "heavy tails": (lambda rng, shape: rng.standard_t(2, shape), 0.0),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("num_seeds", [3, 4, 5, 6, 7, 8, 9, 10, 20])
def test_coverage(num_seeds, name):
    """Of 95 % intervals, 92 to 99 % contain the truth. Percentile intervals of 3 and 5 seeds do in 75 % and 90 %."""
    draw, truth = DRAWS[name]
    num_samples = 4000 if num_seeds < 10 else 600  # a bootstrap takes longer
    sigma = np.sqrt(0.05 * 0.95 / num_samples)
    low, high = confidence_interval(draw(np.random.default_rng(0), (num_seeds, num_samples)))
    coverage = np.mean((low <= truth) & (truth <= high))
    if name == "normal" and num_seeds < 10:
        assert abs(coverage - 0.95) < 4 * sigma
    else:
        assert 0.925 - 4 * sigma < coverage < 0.99
