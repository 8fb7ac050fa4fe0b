"""Results as tables of short text, for a terminal and for Markdown."""

from typing import Any

import numpy as np
import pandas as pd


def format_summary(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns a summary with its numbers as short text."""
    table = pd.DataFrame(
        {
            "problem": summary.problem,
            "rank": summary["rank"].astype(str),
            "strategy": summary.strategy,
            "metric": summary.metric,
            "score": ["failed" if np.isnan(score) else _short(score) for score in summary.score],
            "95 % interval": [
                "" if np.isnan(low) else f"{_short(low)} to {_short(high)}"
                for low, high in zip(summary.low, summary.high, strict=True)
            ],
        }
    )
    for column, digits in (("steps", ",.0f"), ("seconds", ".2f"), ("compile_seconds", ".1f")):
        values = summary[column] if column in summary else np.full(len(summary), np.nan)
        table[column.replace("_", " ")] = ["" if np.isnan(x) else format(x, digits) for x in values]
    return table


def format_ert(ert: pd.DataFrame) -> list[pd.DataFrame]:
    """Returns expected running times as short text, a column per target and a table per set of targets.

    Args:
        ert: As `Results.ert` returns it. Of many targets about six are shown, evenly spaced, with the hardest.
    """
    rows: dict[tuple[float, ...], list[dict[str, str]]] = {}
    for _, group in ert.groupby(["problem", "strategy"], sort=False):
        shown = group.iloc[:: -max(1, -(-(len(group) - 1) // 5))][::-1]
        row = {name: shown[name].iloc[0] for name in ("problem", "strategy")}
        for target, time, successes, seeds in zip(
            shown.target, shown.ert, shown.num_successes, shown.num_seeds, strict=True
        ):
            row[_short(target)] = (f"{time:,.0f}" if np.isfinite(time) else "never") + f" ({successes}/{seeds})"
        rows.setdefault(tuple(shown.target), []).append(row)
    return [pd.DataFrame(each) for each in rows.values()]


def markdown_table(frame: pd.DataFrame) -> str:
    """Returns a frame as a Markdown table."""

    def row(cells: Any) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join(
        [
            row(frame.columns),
            row("---" for _ in frame.columns),
            *(row(cells) for cells in frame.itertuples(index=False)),
        ]
    )


def _short(x: float) -> str:
    return f"{x:.4g}"
