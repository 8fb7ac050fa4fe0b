"""Comparisons of the strategies of a benchmark: tests between two of them, and ranks and scores over problems."""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from zoo.benchmarking.pair import Pair
from zoo.core.checks import as_scalar, shown
from zoo.statistics.aggregates import confidence_interval, interquartile_mean
from zoo.statistics.paired import (
    LEVEL,
    Correction,
    Test,
    correct,
    few_seeds,
    paired_differences,
    probability_of_improvement,
    sign_flip_test,
)
from zoo.statistics.profiles import aggregate, normalize, performance_profile
from zoo.statistics.ranks import cliques, critical_difference, friedman_test, mean_ranks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUM_VALUES = 101  # points of a performance profile


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """What `Results.compare` returns.

    Attributes:
        table: A row per problem and pair of strategies: `problem`, `strategy`, `against`, `difference` (interquartile
            mean, over seeds, of the score of `strategy` minus that of `against`), `low` and `high` (its 95 % interval),
            `improvement` (probability that a run of `strategy` is better than a run of `against`), `improvement_low`
            and `improvement_high` (its 95 % interval), `p_value`, `corrected` (the p value after the correction for all
            rows), `winner` (the strategy that is better if `corrected` is at most 0.05, else empty) and `num_seeds`.
        ranks: A row per strategy, best first: `strategy`, `mean_rank` over problems, and `groups`, letters. Strategies
            that share a letter do not differ significantly by the Nemenyi test.
        aggregate: A row per strategy, in the same order: `strategy`, `score` (interquartile mean of the normalised
            scores of all runs on all problems), `low` and `high` (its stratified bootstrap 95 % interval).
        critical_difference: The difference from which on two mean ranks differ significantly.
        friedman_p_value: The p value of the Friedman test: whether mean ranks differ at all. NaN without three
            strategies and two problems.
        facts: `test`, `correction`, `baseline`, `num_problems` (those that ranks and scores are over), `num_seeds`, and
            `maximize` by problem.
        warning: A sentence if there are too few seeds for any row to be significant, else `None`.
        scores: Normalised scores, `[num_seeds]`, for each problem, by strategy.
    """

    table: pd.DataFrame
    ranks: pd.DataFrame
    aggregate: pd.DataFrame
    critical_difference: float
    friedman_p_value: float
    facts: dict[str, Any]
    warning: str | None
    scores: dict[str, list[np.ndarray]]

    def __repr__(self) -> str:
        facts = self.facts
        correction = "no correction" if facts["correction"] is None else f"correction {facts['correction']}"
        count = f"{len(self.ranks)} strategies on {len(facts['maximize'])} problems, {facts['num_seeds']} seeds"
        whom = "each with each" if facts["baseline"] is None else f"all with {facts['baseline']}"
        lines = [
            f"<Comparison: {count}",
            f"{whom}; test {facts['test']}, {correction} of {len(self.table)} p values",
        ]
        lines += [self.warning] if self.warning else []
        for problem, rows in self.table.groupby("problem", sort=False):
            beaten: dict[str, list[str]] = {}
            for strategy, against, winner in zip(rows.strategy, rows.against, rows.winner, strict=True):
                if winner:
                    beaten.setdefault(winner, []).append(against if winner == strategy else strategy)
            found = "; ".join(f"{winner} beats {', '.join(losers)}" for winner, losers in beaten.items())
            lines.append(f"{problem}: {found or 'no significant difference'}")
        ranks = zip(self.ranks.strategy, self.ranks.mean_rank, strict=True)
        lines.append(f"mean ranks: {', '.join(f'{strategy} {rank:.2f}' for strategy, rank in ranks)}")
        wrapped = [textwrap.fill(line, 77, subsequent_indent="    ", break_long_words=False) for line in lines]
        return "\n  ".join(wrapped) + ">"

    def profiles(self, at: Sequence[float] | None = None) -> pd.DataFrame:
        """Returns performance profiles: the fraction of all runs whose normalised score is above each value.

        Args:
            at: The values. Default to 101 values from the smallest score to the largest one.

        Returns:
            A row per strategy and value: `strategy`, `score` (the value), `fraction`, and `low` and `high`, its
            pointwise stratified bootstrap 95 % band.
        """
        values = np.concatenate([runs for each in self.scores.values() for runs in each])
        ends = (min(values.min(), 0.0), max(values.max(), 1.0))
        points = np.linspace(*ends, _NUM_VALUES) if at is None else np.asarray(at, float)
        frames = []
        for strategy in self.ranks.strategy:
            fraction, low, high = performance_profile(self.scores[strategy], points)
            columns = {"score": points, "fraction": fraction, "low": low, "high": high}
            frames.append(pd.DataFrame({"strategy": strategy, **columns}))
        return pd.concat(frames, ignore_index=True)

    def plot(self) -> "Figure":
        """Draws mean ranks with the critical difference, performance profiles, and differences with their intervals.

        Returns:
            A matplotlib figure (`figure.savefig("comparison.png")`).
        """
        from zoo.figures.comparison import plot_comparison

        return plot_comparison(
            self.table,
            self.ranks,
            self.critical_difference,
            self.profiles(),
            self.scores,
            self.facts["maximize"],
        )


def compare_pairs(
    pairs: Sequence[Pair],
    baseline: str | None,
    correction: Correction | None,
    test: Test,
    problem: str | None,
    reference: Mapping[str, tuple[float, float]] | None,
    num_tests: int | None = None,
) -> Comparison:
    """Compares strategies; see `Results.compare`.

    `num_tests` is how many comparisons p values are corrected for, if the baseline was picked by its scores.
    """
    _check_choice("test", test, ("wilcoxon", "permutation"))
    _check_choice("correction", correction, (None, "holm", "fdr"))
    problems = list(dict.fromkeys(pair.problem for pair in pairs))
    _check_choice("problem", problem, (None, *problems))
    _check_choice("baseline", baseline, (None, *dict.fromkeys(pair.strategy for pair in pairs)))
    pairs = [pair for pair in pairs if problem in (None, pair.problem)]
    if not (reference is None or isinstance(reference, Mapping)):
        raise TypeError(f"compare: reference must be a dictionary of two scores by problem, got {shown(reference)}.")
    for name in reference or ():
        _check_choice("the problem in reference", name, problems)
    limits = {name: _limits(name, each) for name, each in (reference or {}).items()}
    costs = {name: frame for name in problems if len(frame := _costs([p for p in pairs if p.problem == name]))}
    maximize = {pair.problem: bool(pair.info["maximize"]) for pair in pairs if pair.problem in costs}
    rows = [row for name, frame in costs.items() for row in _rows(frame, name, baseline, test, maximize[name])]
    if not rows:
        raise ValueError(
            "compare expects a problem on which two strategies were run and one of them has not failed"
            f"{'' if baseline is None else f', one of them the baseline {baseline!r}'}."
        )
    table = pd.DataFrame(rows)
    corrected = correct(table.p_value.to_numpy(), correction, num_tests)
    table.insert(list(table.columns).index("p_value") + 1, "corrected", corrected)
    table["winner"] = table.winner.where(table.corrected <= LEVEL, "")
    # Ranks and scores over problems need all strategies on each problem.
    strategies = list(dict.fromkeys(pair.strategy for pair in pairs))
    complete = {name: frame for name, frame in costs.items() if {*frame.columns} == {*strategies}}
    scores: dict[str, list[np.ndarray]] = {strategy: [] for strategy in strategies}
    for name, frame in complete.items():
        ends = [(-1 if maximize[name] else 1) * x for x in limits[name]] if name in limits else (None, None)
        normalized = normalize(frame.to_numpy(), *ends)
        for strategy, column in zip(frame.columns, normalized.T, strict=True):
            scores[strategy].append(column)
    num_seeds = int(table.num_seeds.max())
    facts = {"test": test, "correction": correction, "baseline": baseline, "num_problems": len(complete)}
    facts |= {"num_seeds": num_seeds, "maximize": maximize}
    warning = few_seeds(num_seeds, len(table) if correction == "holm" else 1, test)
    return Comparison(table, *_over_problems(complete, scores), facts, warning, scores)


def _check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise (ValueError if isinstance(value, str) else TypeError)(
            f"compare: {name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}."
        )


def _limits(name: str, limits: Any) -> tuple[float, float]:
    if not isinstance(limits, (tuple, list)) or len(limits) != 2:
        raise TypeError(
            f"compare: reference of {name!r} must be two scores, the one that becomes 0 and the one that becomes 1, "
            f"got {shown(limits)}."
        )
    worst, best = (as_scalar(each, f"compare: reference of {name!r}") for each in limits)
    if worst == best:
        raise ValueError(f"compare: reference of {name!r} must be two different scores, got {worst:g} twice.")
    return worst, best


def _costs(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Returns the costs of the runs on a problem, a row per seed and a column per strategy.

    A cost is the final headline score with the sign for which lower is better. It is infinite for a NaN, and for all
    seeds of a failed pair. There are no rows if all pairs failed.

    Raises:
        ValueError: If strategies have no seed in common.
    """
    found = {}
    for pair in pairs:
        if not pair.info["error"]:
            found[pair.strategy] = pair.final_scores(pair.info["headline"]) * (-1 if pair.info["maximize"] else 1)
    if not found:
        return pd.DataFrame()
    costs = pd.concat(found, axis=1, join="inner").sort_index()
    if not len(costs):
        raise ValueError(
            f"compare expects strategies with the same seeds. On {pairs[0].problem} they have none in common."
        )
    return costs.reindex(columns=[pair.strategy for pair in pairs]).fillna(np.inf)


def _rows(costs: pd.DataFrame, problem: str, baseline: str | None, test: Test, maximize: bool) -> list[dict[str, Any]]:
    """Returns the rows of `Comparison.table` for one problem. `winner` is the better one, significant or not."""
    values, names = costs.to_numpy(), list(costs.columns)
    with np.errstate(invalid="ignore"):  # the mean of infinite costs of both signs
        middle = np.nan_to_num(interquartile_mean(values), nan=np.inf, posinf=np.inf, neginf=-np.inf)
    order = [int(index) for index in np.argsort(middle, kind="stable")]
    pairs = list(itertools.combinations(order, 2))
    if baseline is not None:
        pairs = [(one, names.index(baseline)) for one in order if baseline in names and names[one] != baseline]
    if not pairs:
        return []
    rows = []
    for one, other in pairs:
        differences = paired_differences(values[:, one], values[:, other])
        total, p_value = sign_flip_test(differences, test)
        improvement = probability_of_improvement(values[:, one], values[:, other])
        with np.errstate(invalid="ignore"):  # differences that are infinite in both directions
            gains = differences * (-1 if maximize else 1)
            row = {"problem": problem, "strategy": names[one], "against": names[other]}
            row["difference"] = float(interquartile_mean(gains))
        row |= dict(zip(("low", "high"), map(float, confidence_interval(gains)), strict=True))
        row |= dict(zip(("improvement", "improvement_low", "improvement_high"), improvement, strict=True))
        row |= {"p_value": p_value, "winner": names[one] if total < 0 else names[other], "num_seeds": len(values)}
        rows.append(row)
    return rows


def _over_problems(
    complete: Mapping[str, pd.DataFrame], scores: Mapping[str, list[np.ndarray]]
) -> tuple[pd.DataFrame, pd.DataFrame, float, float]:
    """Returns `ranks`, `aggregate`, `critical_difference` and `friedman_p_value` of a comparison."""
    strategies = list(scores)
    if not complete:
        names = pd.DataFrame({"strategy": strategies})
        ranks = names.assign(mean_rank=math.nan, groups="")
        return ranks, names.assign(score=math.nan, low=math.nan, high=math.nan), math.nan, math.nan
    with np.errstate(invalid="ignore"):
        middles = np.stack([interquartile_mean(frame[strategies].to_numpy()) for frame in complete.values()])
    costs = np.nan_to_num(middles, nan=np.inf, posinf=np.inf, neginf=-np.inf)
    ranks, difference = mean_ranks(costs), critical_difference(len(strategies), len(costs))
    letters = [""] * len(strategies)
    for number, members in enumerate(cliques(ranks, difference)):
        for member in members:
            letters[member] += chr(ord("a") + number % 26)
    frame = pd.DataFrame({"strategy": strategies, "mean_rank": ranks, "groups": letters})
    frame = frame.sort_values("mean_rank", kind="stable", ignore_index=True)
    rows = [dict(zip(("score", "low", "high"), aggregate(scores[each]), strict=True)) for each in frame.strategy]
    return frame, pd.DataFrame({"strategy": frame.strategy, **pd.DataFrame(rows)}), difference, friedman_test(costs)
