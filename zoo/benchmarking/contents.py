"""What a report of a benchmark says: the summary, the curves that figures draw, and a comparison of the strategies."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from zoo.benchmarking.comparison import compare_pairs
from zoo.benchmarking.pair import Pair
from zoo.reports.contents import Contents, PairFacts, Table, mean_ranks
from zoo.reports.tables import describe_ranks, format_comparison, format_ranks
from zoo.statistics.curves import mean_curve
from zoo.statistics.runtimes import expected_running_time

_POINTS = 50  # of a curve in an HTML report, which may have a thousand curves
_MOST_ROWS = 200  # rows of a table in which each strategy is compared with each


def make_contents(
    pairs: Sequence[Pair],
    metadata: Mapping[str, Any],
    summary: pd.DataFrame,
    runtimes: pd.DataFrame,
    failures: pd.DataFrame,
) -> Contents:
    """Returns the contents of a report of `Results`. The arguments are its attributes, and its summary."""
    return Contents(
        metadata=metadata,
        pairs=[PairFacts(pair.strategy, pair.problem, pair.info) for pair in pairs],
        summary=summary,
        curves=_mean_curves(pairs),
        runtimes=runtimes,
        num_dims={pair.problem: pair.info["num_dims"] for pair in pairs if len(pair.runtimes)},
        ert=expected_running_time(runtimes) if len(runtimes) else None,
        failures=failures,
        comparison=_compare(pairs, summary),
    )


def _compare(pairs: Sequence[Pair], summary: pd.DataFrame) -> list[Table]:
    """Returns the tables of a comparison, of many strategies with the best one. There are none without two."""
    sizes = pd.Series([pair.problem for pair in pairs]).value_counts()
    num_tests = int((sizes * (sizes - 1) // 2).sum())
    best = str(mean_ranks(summary).index[0]) if num_tests > _MOST_ROWS else None
    try:
        # The best one is found from the same scores, so that p values are corrected for the comparisons of all.
        comparison = compare_pairs(pairs, best, "holm", "wilcoxon", None, None, None if best is None else num_tests)
    except ValueError:
        return []
    frame = format_comparison(comparison).rename(columns={"strategy": "strategies"})
    note = "Differences of paired seeds with 95 % intervals, and exact tests."
    if best is not None:
        note += f" Each strategy is compared with {best} (best mean rank), and p values are corrected for all pairs."
    tables = [Table("Differences", note, frame)]
    if comparison.facts["num_problems"] > 1:
        tables.append(Table("Ranks of interquartile means", describe_ranks(comparison), format_ranks(comparison)))
    return tables


def _mean_curves(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Returns the interquartile means over seeds that `Results.plot` draws; see `Contents.curves`."""
    columns = ["problem", "strategy", "axis", "x", "score", "low", "high"]
    frames = []
    for pair in pairs:
        for axis in ("steps", "seconds") if not pair.info["error"] else ():
            curve = mean_curve(pair.curve, pair.info["headline"], axis, num_points=_POINTS)
            labels = {"problem": pair.problem, "strategy": pair.strategy, "axis": axis}
            frames.append(pd.DataFrame({**labels, **dict(zip(columns[3:], curve, strict=True))}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
