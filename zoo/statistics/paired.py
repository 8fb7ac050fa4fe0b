"""Tests between two strategies whose seeds are paired: seed i has the same key in both.

Scores are costs here: lower is better, and a run that failed has the cost infinity.

References: Wilcoxon 1945, doi 10.2307/3001968 (signed ranks); Agarwal et al. 2021, arXiv 2108.13264 (probability of
improvement); Newcombe 2006, doi 10.1002/sim.2324 (its interval, method 5); Holm 1979, jstor 4615733; Benjamini,
Hochberg 1995, doi 10.1111/j.2517-6161.1995.tb02031.x.
"""

import functools
import math
from typing import Literal

import numpy as np
import scipy.optimize
import scipy.stats

Test = Literal["wilcoxon", "permutation"]
Correction = Literal["holm", "fdr"]
LEVEL = 0.05
"""Significance level."""
_MOST_FOR_ALL_FLIPS = 16  # differences; with more, a sample of the sign flips is tried
_NUM_FLIPS = 50_000


def paired_differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns `one - other`, `[num_seeds]`. Where both are the same infinity, the difference is zero: they tie."""
    is_tie = one == other
    return np.where(is_tie, 0.0, one) - np.where(is_tie, 0.0, other)


def sign_flip_test(differences: np.ndarray, test: Test = "wilcoxon") -> tuple[float, float]:
    """Returns the sum of the differences, or of their signed ranks, and its two-sided p value.

    The hypothesis is that each difference is as likely to have the opposite sign. The p value is the share of all flips
    of the signs whose sum is at least as far from zero. It is exact for `"wilcoxon"`, also with ties, and for
    `"permutation"` of up to 16 differences that are not zero. With more of them, 50 000 random flips are tried, and the
    differences themselves count as one more.

    Args:
        differences: Differences, `[num_seeds]`, without NaN.
        test: What is summed. `"wilcoxon"` sums ranks: the absolute differences that are not zero are ranked, equal ones
            share their mean rank, and infinite ones come last. `"permutation"` sums the differences themselves. An
            infinite one counts as much as the largest finite one.
    """
    kept = differences[differences != 0]
    sizes, signs = np.abs(kept), np.sign(kept)
    if not len(sizes):
        return 0.0, 1.0
    if test == "wilcoxon":
        ranks = scipy.stats.rankdata(sizes)
        total = float(signs @ ranks)
        return total, _tail_of_ranks(np.sort(2 * ranks).astype(int), round(2 * abs(total)))
    sizes = np.where(np.isfinite(sizes), sizes, sizes[np.isfinite(sizes)].max(initial=0))
    sizes = sizes if sizes.any() else np.ones_like(sizes)  # all are infinite
    total = float(signs @ sizes)
    observed = abs(total) - 1e-9 * sizes.sum()  # sums that are equal but for rounding count as equal
    if len(sizes) <= _MOST_FOR_ALL_FLIPS:
        # A flip and its opposite are equally far from zero, so that the first sign need not be flipped.
        flips = _all_flips(len(sizes) - 1)
        return total, float(np.mean(np.abs(sizes[0] + flips @ sizes[1:]) >= observed))
    rng = np.random.default_rng(0)
    sums = sum(size * rng.choice([-1, 1], _NUM_FLIPS) for size in sizes)
    return total, float((1 + np.sum(np.abs(sums) >= observed)) / (1 + _NUM_FLIPS))


def _tail_of_ranks(doubled: np.ndarray, observed: int) -> float:
    """Returns the share of all flips of the signs of ranks whose sum is at least `observed` from zero.

    The distribution of the sum of the positive ranks is built up rank by rank. Ranks are doubled, since those that are
    shared may be halves; so is `observed`.
    """
    total = int(doubled.sum())
    share = np.zeros(total + 1)
    share[0] = 1.0
    for rank in doubled:
        share[rank:] = 0.5 * (share[rank:] + share[: total + 1 - rank])
        share[:rank] *= 0.5
    sums = np.abs(2 * np.arange(total + 1) - total)
    return float(min(1.0, share[sums >= observed].sum()))


def _smallest_p_value(num_seeds: int, test: Test) -> float:
    """Returns the smallest p value that `sign_flip_test` can return: two of all flips of the signs."""
    if test == "permutation" and num_seeds > _MOST_FOR_ALL_FLIPS:
        return 1 / (1 + _NUM_FLIPS)
    return min(1.0, 2.0 ** (1 - num_seeds))


def few_seeds(num_seeds: int, num_comparisons: int, test: Test = "wilcoxon") -> str | None:
    """Returns a sentence if no comparison can be significant with so few seeds, else `None`.

    Args:
        num_seeds: Seeds of each strategy.
        num_comparisons: Comparisons for which Holm's correction is made.
        test: The test.
    """
    smallest = _smallest_p_value(num_seeds, test)
    if smallest * num_comparisons <= LEVEL:
        return None
    seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
    corrected = min(1.0, smallest * num_comparisons)
    needed = math.ceil(math.log2(2 * num_comparisons / LEVEL))
    remedy = f"It takes at least {needed} seeds."
    if test == "permutation" and needed > _MOST_FOR_ALL_FLIPS:
        remedy = f"It takes test='wilcoxon' and at least {needed} seeds."
    after = f", and {corrected:.3g} after the correction for {num_comparisons} comparisons"
    return (
        f"With {seeds} no difference between two strategies can be significant: the smallest possible p value is "
        f"{smallest:.3g}{after if num_comparisons > 1 else ''}. {remedy}"
    )


def correct(p_values: np.ndarray, correction: Correction | None, num_tests: int | None = None) -> np.ndarray:
    """Returns p values corrected for their number.

    `"holm"` bounds the probability of any false difference. `"fdr"` bounds the expected share of false ones among the
    differences found (Benjamini and Hochberg).

    Args:
        p_values: P values.
        correction: The correction. With `None`, there is none.
        num_tests: How many tests the p values were picked from. Those of the other tests count as 1, for which the
            result is an upper bound. Defaults to the number of p values.
    """
    if correction is None or not len(p_values):
        return p_values
    if num_tests is not None:
        return correct(np.append(p_values, np.ones(num_tests - len(p_values))), correction)[: len(p_values)]
    if correction == "fdr":
        return scipy.stats.false_discovery_control(p_values)
    order = np.argsort(p_values, kind="stable")
    multiplied = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(multiplied), 1)
    return corrected


def probability_of_improvement(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Returns the probability that a run of `one` is better than a run of `other`, and its 95 % confidence interval.

    All pairs of runs are compared, and ties count half. The interval is Newcombe's, which does not shrink to a point if
    all runs of one are better. It takes runs as independent, so that it is rather too wide if they are correlated.

    Args:
        one: Costs, `[num_seeds]`.
        other: Costs, `[num_other_seeds]`.
    """
    wins = np.mean((one[:, None] < other) + 0.5 * (one[:, None] == other))
    excess = (len(one) + len(other)) / 2 - 1
    z = scipy.stats.norm.ppf(1 - LEVEL / 2)

    def distance(p: float) -> float:
        variance = p * (1 - p) * (1 + excess * ((1 - p) / (2 - p) + p / (1 + p))) / (len(one) * len(other))
        return (wins - p) ** 2 - z**2 * variance

    # At 0 and 1 the variance is zero, which is not the end of the interval.
    low = 0.0 if wins == 0 else scipy.optimize.root_scalar(distance, bracket=(0, min(wins, 1 - 1e-9))).root
    high = 1.0 if wins == 1 else scipy.optimize.root_scalar(distance, bracket=(max(wins, 1e-9), 1)).root
    return float(wins), float(low), float(high)


@functools.cache
def _all_flips(size: int) -> np.ndarray:
    """Returns all vectors of signs, `[2^size, size]`."""
    return 1 - 2 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
