"""Tests of paired seeds against scipy's tests, and by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats

from zoo.statistics.paired import (
    correct,
    few_seeds,
    paired_differences,
    probability_of_improvement,
    sign_flip_test,
)


@pytest.mark.parametrize("num_seeds", [1, 2, 5, 9, 40])
def test_signed_ranks_against_scipy(num_seeds):
    rng = np.random.default_rng(num_seeds)
    for _ in range(10):
        differences = rng.normal(0.5, size=num_seeds)
        expected = scipy.stats.wilcoxon(differences, method="exact").pvalue
        total, p_value = sign_flip_test(differences)
        assert p_value == pytest.approx(expected)
        ranks = scipy.stats.rankdata(np.abs(differences))
        assert total == ranks[differences > 0].sum() - ranks[differences < 0].sum()


def test_signed_ranks_with_ties_against_scipy():
    """With ties, scipy's exact distribution is not exact, but its permutation test is."""
    method = scipy.stats.PermutationMethod(n_resamples=np.inf)
    rng = np.random.default_rng(0)
    for _ in range(10):
        differences = rng.integers(-3, 5, 8).astype(float)
        expected = scipy.stats.wilcoxon(differences[differences != 0], method=method).pvalue
        assert sign_flip_test(differences)[1] == pytest.approx(expected)


def test_sums_of_differences_against_scipy():
    rng = np.random.default_rng(0)
    for num_seeds in (2, 5, 8):
        differences = rng.normal(0.5, size=num_seeds)
        expected = scipy.stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        assert sign_flip_test(differences, "permutation")[1] == pytest.approx(expected)


@pytest.mark.parametrize("test", ["wilcoxon", "permutation"])
def test_many_seeds_against_all_flips(test):
    """The p value is close to that of the normal limit."""
    differences = np.random.default_rng(0).normal(0.3, size=40)
    total, p_value = sign_flip_test(differences, test)
    sizes = scipy.stats.rankdata(np.abs(differences)) if test == "wilcoxon" else differences
    expected = 2 * scipy.stats.norm.sf(abs(total) / np.sqrt(np.sum(sizes**2)))
    assert 0.005 < expected < 0.2
    assert p_value == pytest.approx(expected, abs=0.01)


def test_size_of_the_test():
    """Where nothing differs, at most 5 % of the p values are at most 0.05, also with ties."""
    rng = np.random.default_rng(0)
    differences = rng.integers(-4, 5, (2000, 7)).astype(float)
    found = [sign_flip_test(each)[1] <= 0.05 for each in differences]
    assert 0.01 < np.mean(found) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_infinite_costs():
    one, other = np.array([1.0, 2.0, np.inf, np.inf, 5.0]), np.array([2.0, np.inf, np.inf, 3.0, 7.0])
    differences = paired_differences(one, other)
    assert differences.tolist() == [-1.0, -np.inf, 0.0, np.inf, -2.0]
    # Without the zero, the ranks of their sizes are 1, 3.5, 3.5, 2.
    total, p_value = sign_flip_test(differences)
    assert total == -3.0
    sums = [abs(np.dot(signs, [1, 3.5, 3.5, 2])) for signs in itertools.product([1, -1], repeat=4)]
    assert p_value == np.mean(np.array(sums) >= 3)
    assert sign_flip_test(differences, "permutation") == sign_flip_test(np.clip(differences, -2, 2), "permutation")
    assert sign_flip_test(np.full(5, np.inf), "permutation") == (5.0, 2 / 32)
    assert sign_flip_test(np.zeros(5)) == (0.0, 1.0)


def test_holm_by_hand():
    p_values = np.array([0.01, 0.04, 0.03, 0.005])
    # Sorted: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not be below the one before.
    np.testing.assert_allclose(correct(p_values, "holm"), [0.03, 0.06, 0.06, 0.02])
    assert correct(np.array([0.5, 0.9]), "holm").tolist() == [1.0, 1.0]
    np.testing.assert_allclose(correct(p_values, "fdr"), scipy.stats.false_discovery_control(p_values))
    assert correct(p_values, None).tolist() == p_values.tolist()
    # Of six tests, two of which have larger p values: 6 x 0.005, 5 x 0.01, 4 x 0.03, 3 x 0.04.
    np.testing.assert_allclose(correct(p_values, "holm", num_tests=6), [0.05, 0.12, 0.12, 0.03])


def test_probability_of_improvement_by_hand():
    """Of the six pairs, the first wins three and ties in one."""
    middle, low, high = probability_of_improvement(np.array([1.0, 2.0, 5.0]), np.array([2.0, 4.0]))
    assert middle == pytest.approx(3.5 / 6)
    assert 0 < low < middle < high < 1


def test_interval_of_the_probability_of_improvement_without_overlap():
    """If all runs are better, the lower bound p solves (1 - p)^2 = z^2 var(p), by Hanley's and McNeil's variance."""
    one, other = np.arange(5.0), np.arange(5.0) + 10
    middle, low, high = probability_of_improvement(one, other)
    assert (middle, high) == (1.0, 1.0)
    variance = low * (1 - low) * (1 + 4 * (1 - low) / (2 - low) + 4 * low / (1 + low)) / 25
    assert (1 - low) ** 2 == pytest.approx(scipy.stats.norm.ppf(0.975) ** 2 * variance)
    assert 0.5 < low < 0.7
    assert probability_of_improvement(other, one) == pytest.approx((0.0, 0.0, 1 - low))


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("num_seeds", [5, 15])
def test_coverage_of_the_probability_of_improvement(num_seeds, shift):
    truth = scipy.stats.norm.cdf(shift / np.sqrt(2))
    rng = np.random.default_rng(0)
    intervals = [
        probability_of_improvement(rng.normal(size=num_seeds), rng.normal(shift, size=num_seeds)) for _ in range(600)
    ]
    coverage = np.mean([low <= truth <= high for _, low, high in intervals])
    assert coverage > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize("num_comparisons", [1, 6, 3003])
def test_how_many_seeds_are_needed(num_comparisons):
    """With as many seeds as the sentence says, a comparison can be significant, and with one less it cannot."""
    sentence = few_seeds(3, num_comparisons)
    assert sentence is not None
    needed = int(sentence.removesuffix(" seeds.").split()[-1])
    for num_seeds, is_enough in ((needed, True), (needed - 1, False)):
        _, smallest = sign_flip_test(np.ones(num_seeds))
        p_values = np.array([smallest] + [1.0] * (num_comparisons - 1))
        assert (correct(p_values, "holm").min() <= 0.05) == is_enough
        assert (few_seeds(num_seeds, num_comparisons) is None) == is_enough


def test_random_flips_are_not_enough_for_many_comparisons():
    """Of 50 000 flips, none may be as far from zero, and the p value is 1 / 50 001 at least."""
    sentence = few_seeds(20, 3003, "permutation")
    assert sentence is not None
    assert sentence.endswith("It takes test='wilcoxon' and at least 17 seeds.")
