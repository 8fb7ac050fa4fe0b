"""The Markdown report of a benchmark."""

import json
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from zoo.benchmarking.results import Results


def write_report(results: "Results", path: pathlib.Path) -> pathlib.Path:
    """Writes a report; see `Results.report`."""
    from zoo.benchmarking.results import file_name

    if path.suffix != ".md":
        path = path / "report.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = results.metadata
    key = metadata["key"]["sha256"] if isinstance(metadata["key"], dict) else metadata["key"]
    summary = results.summary()
    lines = [
        "# Benchmark",
        "",
        f"{metadata['date']}; {metadata['num_seeds']} seeds; key {key}; "
        f"{metadata['device']['count']} x {metadata['device']['kind']}; "
        + ", ".join(f"{name} {version}" for name, version in metadata["versions"].items() if version)
        + (f"; commit {metadata['git_commit']}" if metadata.get("git_commit") else "")
        + ".",
        "",
        "Score: interquartile mean over seeds of the final held-out score, with its bootstrap 95 % confidence "
        "interval. Seconds: all seeds together, compilation and scoring apart.",
    ]
    for problem in summary.problem.unique():
        rows = summary.query("problem == @problem")
        picture = f"curves_{file_name(problem)}.png"
        results.plot(problem).savefig(path.parent / picture, dpi=120)
        lines += ["", f"## {problem}", "", markdown_table(format_summary(rows).drop(columns="problem")), ""]
        lines += [f"![learning curves on {problem}]({picture})"]
    ranks = pd.DataFrame(summary.groupby("strategy", as_index=False)["rank"].mean()).sort_values("rank")
    table = pd.DataFrame({"strategy": ranks.strategy, "mean rank": ranks["rank"].map("{:.2f}".format)})
    lines += ["", "## Mean rank over problems", "", markdown_table(table)]
    if len(results.runtimes):
        lines += [
            "",
            "## Runtimes",
            "",
            "Expected running time to a target: problem steps spent by all seeds until they reached it or ended, over "
            "the number of seeds that did, which is in brackets.",
        ]
        for table in format_ert(results.ert()):
            lines += ["", markdown_table(table)]
        for name, figure in (("runtime_ecdf", results.plot_ecdf()), ("data_profile", results.plot_data_profile())):
            figure.savefig(path.parent / f"{name}.png", dpi=120)
            lines += ["", f"![{name.replace('_', ' ')}]({name}.png)"]
    if len(results.failures):
        lines += ["", "## Failed", "", markdown_table(results.failures)]
    lines += ["", "## Settings", ""]
    for pair in results.pairs:
        settings = pair.info["strategy_settings"]
        lines.append(f"- {pair.strategy} on {pair.problem}: `{json.dumps(settings)}`")
    path.write_text("\n".join(lines) + "\n")
    return path


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
