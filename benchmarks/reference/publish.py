"""Writes the page of the reference table from the folders that `run.py` wrote: README.md, report.html and figures.

Run: python -m benchmarks.reference.publish [--folder results/reference]
"""

import argparse
import pathlib
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

import zoo
from benchmarks.reference.plan import NUM_SEEDS, NUM_SETTINGS, NUM_TUNING_SEEDS, TASKS
from benchmarks.reference.run import FOLDER, folder_of
from zoo.reports.tables import markdown_table
from zoo.statistics.paired import LEVEL, correct, paired_differences, sign_flip_test

PAGE = pathlib.Path(__file__).parent
INTRODUCTION = f"""# The reference table

Which strategy for what? Every strategy runs on the problems that it is for ([plan.py](plan.py) says which, and why),
once with its defaults and the problem's suggestions, and once tuned: {NUM_SETTINGS} settings of its declared search
space, the default among them, each with {NUM_TUNING_SEEDS} tuning seeds and the whole budget. Only continuous settings
are tuned. All scores below are those of {NUM_SEEDS} seeds that played no part in the choice.

```sh
.venv/bin/python -m benchmarks.reference.run --processes 2   # hours; may be interrupted
.venv/bin/python -m benchmarks.reference.publish
```

[report.html](report.html) has the same tuned results with curves, comparisons, settings and the cost of tuning. In the
tables below a cell has the interquartile mean over seeds and its 95 % interval. Scores in bold share the first rank:
no other interval lies wholly on their better side.
"""


def load(folder: pathlib.Path, kind: str) -> dict[str, zoo.Results]:
    """Returns the results of the tasks that are finished, by label."""
    found = {}
    for label in TASKS:
        place = folder_of(folder, label, kind)
        if (place / "benchmark.json").exists():
            found[label] = zoo.Results.load(place)
    return found


def merge(results: Mapping[str, zoo.Results]) -> zoo.Results:
    """Returns the results of several tasks as those of one benchmark."""
    pairs = [pair for each in results.values() for pair in each.pairs]
    return zoo.Results(pairs, next(iter(results.values())).metadata)


def winners(results: Mapping[str, zoo.Results]) -> pd.DataFrame:
    """Returns, for each task, the strategies that share the first rank, and the score of the best one."""
    rows = []
    for label, each in results.items():
        summary = each.summary()
        first = summary[summary["rank"] == 1]
        best = summary.iloc[0]
        rows.append(
            {
                "task": label,
                "family": TASKS[label].family,
                "steps": f"{TASKS[label].num_steps:,}",
                "best score": f"{best.score:.4g} ({best.low:.4g} to {best.high:.4g})",
                "first, best score first": ", ".join(first.strategy),
                "of": len(summary),
            }
        )
    return pd.DataFrame(rows)


def default_against_tuned(default: Mapping[str, zoo.Results], tuned: Mapping[str, zoo.Results]) -> pd.DataFrame:
    """Returns, for each strategy, on how many tasks tuning helped or harmed significantly (Holm over all of them)."""
    rows = []
    for label in tuned.keys() & default.keys():
        for pair in tuned[label].pairs:
            other = default[label].pair(pair.strategy, pair.problem)
            if pair.info["error"] or other.info["error"]:
                continue
            sign = -1 if pair.info["maximize"] else 1
            after, before = (
                np.nan_to_num(sign * each.final_scores(pair.info["headline"]).to_numpy(), nan=np.inf, posinf=np.inf)
                for each in (pair, other)
            )
            total, p_value = sign_flip_test(paired_differences(after, before))
            is_default = pair.info["strategy_settings"] == other.info["strategy_settings"]
            rows.append({"strategy": pair.strategy, "gain": total < 0, "p": p_value, "kept": is_default})
    frame = pd.DataFrame(rows)
    frame["is_sure"] = correct(frame.p.to_numpy(), "holm") <= LEVEL
    table = frame.groupby("strategy", sort=False).apply(
        lambda group: pd.Series(
            {
                "tasks": len(group),
                "default kept": int(group.kept.sum()),
                "better, significantly": int((group.gain & group.is_sure).sum()),
                "worse, significantly": int((~group.gain & group.is_sure).sum()),
            }
        ),
        include_groups=False,
    )
    return table.reset_index().sort_values(["better, significantly", "tasks"], ascending=[False, False])


def costs(results: Mapping[str, zoo.Results]) -> pd.DataFrame:
    """Returns what each task cost: seconds of tuning, of the runs, and of compilation, summed over strategies."""
    rows = []
    for label, each in results.items():
        infos = [pair.info for pair in each.pairs if not pair.info["error"]]
        tuning = [info["tuning"] for info in infos if info.get("tuning")]
        rows.append(
            {
                "task": label,
                "tuning, s": f"{sum(facts['seconds'] for facts in tuning):,.0f}",
                "runs, s": f"{sum(info['seconds'] for info in infos):,.0f}",
                "compilation, s": f"{sum(each['compile_seconds'] for each in (*infos, *tuning)):,.0f}",
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER)
    folder = parser.parse_args().folder
    default, tuned = load(folder, "default"), load(folder, "tuned")
    if not tuned:
        raise SystemExit(f"There is no finished task in {folder}/. Run python -m benchmarks.reference.run first.")
    merged = merge(tuned)
    lines = [INTRODUCTION, "## Who wins where\n", markdown_table(winners(tuned)), ""]
    for family in dict.fromkeys(TASKS[label].family for label in tuned):
        part = merge({label: each for label, each in tuned.items() if TASKS[label].family == family})
        lines += [f"## {family.capitalize()}\n", str(part.table("markdown")), ""]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of too few seeds for so many comparisons: the page says it
            comparison = part.compare(baseline=str(part.summary().strategy.iloc[0]))
        picture = f"figures/{family.replace(' ', '_')}.png"
        (PAGE / picture).parent.mkdir(exist_ok=True)
        part.plot().savefig(PAGE / picture, dpi=110)
        lines += [f"![learning curves of the family: {family}]({picture})", ""]
        if comparison.facts["num_problems"] > 1:
            ranks = comparison.ranks.merge(comparison.aggregate, on="strategy").round(2)
            lines += [markdown_table(ranks), ""]
    lines += ["## Default against tuned\n", markdown_table(default_against_tuned(default, tuned)), ""]
    lines += ["## What it cost\n", markdown_table(costs(tuned)), ""]
    (PAGE / "README.md").write_text("\n".join(lines))
    print(merged.report(PAGE / "report.html"))


if __name__ == "__main__":
    main()
