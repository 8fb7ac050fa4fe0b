"""Results as tables of short text, for a terminal and for Markdown."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from zoo.core.short import short
from zoo.core.text import plain_text
from zoo.statistics.paired import few_seeds


def format_summary(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns a summary whose numbers are short text."""
    table = pd.DataFrame(
        {
            "problem": summary.problem,
            "rank": ["" if pd.isna(rank) else str(rank) for rank in summary["rank"]],
            "strategy": summary.strategy,
            "metric": summary.metric,
            "score": ["failed" if np.isnan(score) else short_number(score) for score in summary.score],
            "95 % interval": [
                "" if np.isnan(low) else f"{short_number(low)} to {short_number(high)}"
                for low, high in zip(summary.low, summary.high, strict=True)
            ],
        }
    )
    for column, digits in (("steps", ",.0f"), ("seconds", ".2f"), ("compile_seconds", ".1f")):
        values = summary[column] if column in summary else np.full(len(summary), np.nan)
        table[column.replace("_", " ")] = ["" if np.isnan(x) else format(x, digits) for x in values]
    if "tuned" in summary:
        table.insert(list(table.columns).index("steps"), "tuned", summary.tuned)
    return table


def format_tuning(tuned: Sequence[tuple[str, str, Mapping[str, Any]]]) -> pd.DataFrame:
    """Returns what was chosen for each pair that was tuned, and what the search cost, as short text.

    Args:
        tuned: Strategy, problem, and `Pair.info["tuning"]` of each pair.
    """
    rows = []
    for strategy, problem, facts in tuned:
        best = ", ".join(
            f"{name}={short_number(value) if isinstance(value, float) else short(value)}"
            for name, value in facts["best"].items()
        )
        rows.append(
            {
                "strategy": strategy,
                "problem": problem,
                "best": best,
                "tried": f"{facts['num_settings']} x {facts['num_seeds']} seeds",
                "certainty": f"{100 * facts['certainty']:.0f} %",
                "steps": f"{facts['steps']:,}",
                "seconds": f"{facts['seconds']:.2f}",
                "compile seconds": f"{facts['compile_seconds']:.1f}",
            }
        )
    return pd.DataFrame(rows)


def describe_overshoot(summary: pd.DataFrame) -> str | None:
    """Returns a sentence about the generations that were dropped at the end of a budget.

    Returns `None` if no generation was dropped.
    """
    if "overshoot" not in summary:  # all pairs failed
        return None
    dropped = [x for x in summary.overshoot if x > 0]
    if not dropped:
        return None
    runs = "1 pair" if len(dropped) == 1 else f"{len(dropped)} pairs"
    return (
        f"Budget: the last generation of {runs} did not fit and was dropped. Its steps "
        f"({min(dropped):,.0f} to {max(dropped):,.0f}) are not counted."
    )


def describe_few_seeds(summary: pd.DataFrame) -> str | None:
    """Returns a sentence if there are too few seeds for any difference between two strategies to be significant."""
    if "num_seeds" not in summary:  # all pairs failed
        return None
    sizes = summary.groupby("problem").num_seeds.agg(["size", "count"]).query("count > 0")["size"]
    num_comparisons = int((sizes * (sizes - 1) // 2).sum())
    return few_seeds(int(summary.num_seeds.max()), num_comparisons) if num_comparisons else None


def format_ert(ert: pd.DataFrame) -> list[pd.DataFrame]:
    """Returns expected running times as short text: a column for each target, a frame for each set of targets.

    Args:
        ert: What `Results.ert` returns. If there are many targets, about six of them are shown: the hardest, and others
            at equal distances.
    """
    rows: dict[tuple[float, ...], list[dict[str, str]]] = {}
    for _, group in ert.groupby(["problem", "strategy"], sort=False):
        shown = group.iloc[:: -max(1, -(-(len(group) - 1) // 5))][::-1]
        row = {name: shown[name].iloc[0] for name in ("problem", "strategy")}
        for target, time, successes, seeds in zip(
            shown.target, shown.ert, shown.num_successes, shown.num_seeds, strict=True
        ):
            row[short_number(target)] = (f"{time:,.0f}" if np.isfinite(time) else "never") + f" ({successes}/{seeds})"
        rows.setdefault(tuple(shown.target), []).append(row)
    return [pd.DataFrame(each) for each in rows.values()]


def format_comparison(comparison: Any) -> pd.DataFrame:
    """Returns the table of a `zoo.Comparison` as short text, a row per problem and pair of strategies."""
    table = comparison.table
    name = {"holm": "p (Holm)", "fdr": "p (FDR)", None: "p"}[comparison.facts["correction"]]
    versus = [f"{one} - {other}" for one, other in zip(table.strategy, table.against, strict=True)]
    columns = {"problem": table.problem, "strategy": versus}
    columns["difference"] = ["none" if np.isnan(x) else f"{x:.3g}" for x in table.difference]
    for column, low, high in (
        ("95 % interval", table.low, table.high),
        ("95 % of P", table.improvement_low, table.improvement_high),
    ):
        bounds = zip(low, high, strict=True)
        columns[column] = ["" if np.isnan(low) else f"{low:.3g} to {high:.3g}" for low, high in bounds]
    frame = pd.DataFrame(columns)
    frame.insert(4, "P(better)", [f"{x:.2f}" for x in table.improvement])
    frame[name] = [f"{x:.2g}" for x in table.corrected]
    frame["better"] = list(table.winner)
    return frame


def format_ranks(comparison: Any) -> pd.DataFrame:
    """Returns the mean ranks and normalised scores of a `zoo.Comparison` as short text, a row per strategy."""
    ranks, scores = comparison.ranks, comparison.aggregate
    bounds = zip(scores.low, scores.high, strict=True)
    return pd.DataFrame(
        {
            "strategy": ranks.strategy,
            "mean rank": ranks.mean_rank.map("{:.2f}".format),
            "groups": ranks.groups,
            "normalised score": scores.score.map("{:.3f}".format),
            "95 % interval": [f"{low:.3f} to {high:.3f}" for low, high in bounds],
        }
    )


def describe_ranks(comparison: Any) -> str:
    """Returns a sentence about which mean ranks of a `zoo.Comparison` differ significantly."""
    num_problems = comparison.facts["num_problems"]
    if not num_problems:
        return "No problem has runs of all strategies, so there are no ranks over problems."
    problems = "1 problem" if num_problems == 1 else f"{num_problems} problems"
    friedman = comparison.friedman_p_value
    tested = "" if np.isnan(friedman) else f" Friedman test: p = {friedman:.2g}."
    return (
        f"Ranks and normalised scores over {problems}.{tested} Mean ranks that share a letter differ by less than "
        f"{comparison.critical_difference:.2f}, the critical difference at 5 % (Nemenyi)."
    )


def markdown_text(value: object) -> str:
    """Returns text on one line, escaped for Markdown and HTML: labels and errors may contain any characters."""
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", plain_text(value))
    return html.escape(text, quote=False)


def markdown_table(frame: pd.DataFrame) -> str:
    """Returns a frame as a Markdown table."""
    rows = [[markdown_text(cell) for cell in row] for row in (frame.columns, *frame.itertuples(index=False))]
    return markdown_lines(rows[0], ["---"] * len(rows[0]), rows[1:])


def markdown_lines(columns: Sequence[str], marks: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table of escaped texts. The marks say how its columns are aligned, such as `---:`."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, marks, *rows))


def short_number(x: float) -> str:
    """Returns a number with four digits."""
    return f"{x:.4g}"
