"""The Markdown report of a benchmark."""

import functools
import json
import pathlib
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from zoo.core.text import file_name
from zoo.loop.files import write_file, write_text
from zoo.reports.contents import Contents, describe_seconds, mean_ranks
from zoo.reports.tables import (
    describe_few_seeds,
    describe_overshoot,
    format_ert,
    format_summary,
    format_tuning,
    markdown_table,
    markdown_text,
)


def write_report(path: pathlib.Path, contents: Contents, figures: Mapping[str, Figure]) -> pathlib.Path:
    """Writes a report and its figures; see `Results.report`.

    Args:
        path: A folder, or the `.md` file to write.
        contents: What the report says.
        figures: Figures by file name: `curves_<problem>` for each problem and, with runtimes, `runtime_ecdf` and
            `data_profile`.

    Returns:
        The path of the Markdown file.
    """
    metadata, summary = contents.metadata, contents.summary
    if path.suffix != ".md":
        path = path / "report.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_file(path.parent / f"{name}.png", functools.partial(figure.savefig, format="png", dpi=120))
    lines = [
        "# Benchmark",
        "",
        markdown_text(
            f"{metadata['date']}; {metadata['num_seeds']} seeds; key {metadata['key']}; "
            f"{metadata['device']['count']} x {metadata['device']['kind']}; "
            + ", ".join(f"{name} {version}" for name, version in metadata["versions"].items() if version)
            + (f"; XLA_FLAGS {metadata['xla_flags']}" if metadata.get("xla_flags") else "")
            + (f"; commit {metadata['git_commit']}" if metadata.get("git_commit") else "")
            + "."
        ),
        "",
        "Score: interquartile mean over seeds of the final held-out score, with its 95 % confidence interval. "
        "Rank: 1 plus the number of strategies whose interval lies wholly on the better side, so that strategies whose "
        f"intervals overlap may share a rank. {describe_seconds(pair.info for pair in contents.pairs)}",
    ]
    for sentence in (describe_overshoot(summary), describe_few_seeds(summary)):
        if sentence:
            lines += ["", sentence]
    for problem in summary.problem.unique():
        rows = summary.query("problem == @problem")
        picture = f"curves_{file_name(problem)}.png"
        lines += [
            "",
            f"## {markdown_text(problem)}",
            "",
            markdown_table(format_summary(rows).drop(columns="problem")),
            "",
        ]
        lines += [f"![learning curves on {markdown_text(problem)}]({picture})"]
    ranks = mean_ranks(summary)
    table = pd.DataFrame({"strategy": ranks.index, "mean rank": [f"{rank:.2f}" for rank in ranks]})
    lines += ["", "## Mean rank over problems", "", "A failed pair ranks last.", "", markdown_table(table)]
    for table in contents.comparison:
        lines += ["", f"## {table.title}", "", markdown_text(table.note), "", markdown_table(table.frame)]
    if contents.ert is not None:
        lines += [
            "",
            "## Runtimes",
            "",
            "Expected running time to a target: the problem steps that all seeds spent until they reached it or ended, "
            "divided by the number of seeds that reached it. That number is in brackets.",
        ]
        for table in format_ert(contents.ert):
            lines += ["", markdown_table(table)]
        for name in ("runtime_ecdf", "data_profile"):
            lines += ["", f"![{name.replace('_', ' ')}]({name}.png)"]
    if contents.tuned:
        lines += [
            "",
            "## Tuning",
            "",
            "Settings were chosen on tuning seeds, with the budget of the benchmark, before the runs above. The "
            "defaults were among them. Certainty: how often the same setting is chosen when the seeds are drawn again.",
            "",
            markdown_table(format_tuning(contents.tuned)),
        ]
    if len(contents.failures):
        lines += ["", "## Failed", "", markdown_table(contents.failures)]
    lines += ["", "## Settings", ""]
    for strategy, problem, info in contents.pairs:
        text = json.dumps(info.get("strategy_settings"))
        for mark in "`<":  # these would end the code, or begin a tag
            text = text.replace(mark, f"\\u{ord(mark):04x}")
        lines.append(f"- {markdown_text(strategy)} on {markdown_text(problem)}: `{text}`")
    write_text(path, "\n".join(lines) + "\n")
    return path
