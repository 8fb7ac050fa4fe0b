"""Results as tables of short text, for a terminal and for Markdown."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from zoo.core.short import short
from zoo.loop.text import plain_text


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


def markdown_text(value: object) -> str:
    """Returns text on one line, escaped for Markdown and HTML: labels and errors may contain any characters."""
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", plain_text(value))
    return html.escape(text, quote=False)


def markdown_table(frame: pd.DataFrame) -> str:
    """Returns a frame as a Markdown table."""

    def row(cells: Any) -> str:
        return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"

    return "\n".join(
        [
            row(frame.columns),
            row("---" for _ in frame.columns),
            *(row(cells) for cells in frame.itertuples(index=False)),
        ]
    )


def short_number(x: float) -> str:
    """Returns a number with four digits."""
    return f"{x:.4g}"
