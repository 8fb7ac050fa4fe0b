"""One strategy on one problem, all seeds: the task to compute it, and what came of it, in memory and in a folder.

The folder has `pair.json` (settings, times, error), `curve.csv`, `solution/` (final means and statistics of all seeds)
and, where the problem has targets, `runtimes.csv`. It is written at once or not at all.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import traceback
from typing import Any

import jax
import pandas as pd
from jax.sharding import Mesh

from zoo.benchmarking.runtimes import RUNTIME_COLUMNS, check_targets, record_runtimes
from zoo.core.problem import Problem
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.checkpoint import load_tree, save_tree
from zoo.loop.drive import Options, Outcome, drive
from zoo.loop.files import replaced_folder
from zoo.loop.identity import Identity, identify

CURVE_COLUMNS = ("strategy", "problem", "seed", "generation", "steps", "seconds", "metric", "value")


@dataclasses.dataclass(frozen=True)
class Pair:
    """One strategy on one problem, all seeds.

    Attributes:
        strategy: The strategy's label.
        problem: The problem's label.
        info: JSON-able facts: `identity`, `date`, `key`, `strategy_settings`, `problem_settings`, `headline`,
            `maximize`, `num_dims`, `seconds`, `compile_seconds`, `num_steps`, `num_seeds`, and `error` (`None`, or what
            went wrong).
        curve: Frame with the columns `CURVE_COLUMNS`.
        solution: `mean` and `statistics` with a leading axis of seeds; `None` for a failed pair.
        runtimes: Frame with the columns `RUNTIME_COLUMNS`; empty where the problem has no targets.
    """

    strategy: str
    problem: str
    info: dict[str, Any]
    curve: pd.DataFrame
    solution: Any = None
    runtimes: pd.DataFrame = dataclasses.field(default_factory=lambda: pd.DataFrame(columns=list(RUNTIME_COLUMNS)))

    def save(self, folder: pathlib.Path) -> None:
        """Writes the pair into the folder of a benchmark."""
        with replaced_folder(pair_folder(folder, self.strategy, self.problem)) as new:
            # The labels are in pair.json; in a CSV file "1" or "nan" would not stay what it is.
            self.curve.drop(columns=["strategy", "problem"]).to_csv(new / "curve.csv", index=False)
            if len(self.runtimes):
                self.runtimes.drop(columns=["strategy", "problem"]).to_csv(new / "runtimes.csv", index=False)
            if self.solution is not None:
                save_tree(new / "solution", self.solution)
            info = {"strategy": self.strategy, "problem": self.problem, **self.info}
            (new / "pair.json").write_text(json.dumps(info, indent=1))

    @classmethod
    def load(cls, folder: pathlib.Path) -> "Pair":
        """Reads what `save` wrote, from the pair's own folder."""
        info = json.loads((folder / "pair.json").read_text())
        strategy, problem = info.pop("strategy"), info.pop("problem")
        curve = pd.read_csv(
            folder / "curve.csv",
            float_precision="round_trip",
            dtype={"metric": str},
            keep_default_na=False,
            na_values={"value": [""]},
        )
        pair = cls(strategy, problem, info, _labelled(curve, strategy, problem))
        if (folder / "solution").is_dir():
            pair = dataclasses.replace(pair, solution=load_tree(folder / "solution"))
        if (folder / "runtimes.csv").is_file():
            runtimes = pd.read_csv(folder / "runtimes.csv", float_precision="round_trip", dtype={"steps": float})
            pair = dataclasses.replace(pair, runtimes=_labelled(runtimes, strategy, problem))
        return pair


@dataclasses.dataclass(frozen=True, eq=False)
class PairTask:
    """A pair to compute, and all that it takes: an executor may send it to another process."""

    strategy_label: str
    problem_label: str
    strategy: Strategy
    problem: Problem
    keys: jax.Array  # [num_seeds]
    budget: Budget
    info: dict[str, Any]
    mesh: Mesh | None = None

    @property
    def num_leaves(self) -> int:
        """Leaves of the strategy and the problem."""
        return len(jax.tree.leaves((self.strategy, self.problem)))

    def compute(self, progress: str | None = None) -> Pair:
        """Returns the finished pair, or the failed one; `progress` is the title of a progress bar."""
        try:
            info = {**self.info, "identity": self.identify().facts()}
            options = Options(budget=self.budget, progress=progress, mesh=self.mesh)
            outcome = drive(self.strategy, self.problem, self.keys, options)
            return _pair(self.strategy_label, self.problem_label, self.problem, info, outcome)
        except Exception as error:
            return self.failed(error)

    def identify(self) -> Identity:
        """Returns what tells it from other pairs; it is found out where the pair is computed, by its versions."""
        facts = {name: self.info[name] for name in ("num_steps", "num_scores", "num_seeds", "key")}
        return identify(self.strategy, self.problem, **facts, targets=check_targets(self.problem))

    def failed(self, error: Exception) -> Pair:
        """Returns the pair as one that failed."""
        return failed_pair(self.strategy_label, self.problem_label, error, self.info)


def pair_folder(folder: pathlib.Path, strategy: str, problem: str) -> pathlib.Path:
    """Returns where a pair of a benchmark is saved."""
    return folder / "pairs" / f"{file_name(problem)}__{file_name(strategy)}"


def file_name(label: str) -> str:
    """Returns a label as a file name; two labels never share one."""
    name = re.sub(r"[^A-Za-z0-9_-]+|__+|^_|_$", "-", label)
    return name if name == label else f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def _pair(strategy: str, label: str, problem: Problem, info: dict[str, Any], outcome: Outcome) -> Pair:
    frames = []
    for seed, scores in enumerate(outcome.scores):
        clock = {name: scores[name] for name in ("generation", "steps", "seconds")}
        for metric in outcome.metrics:
            labels = {"strategy": strategy, "problem": label, "seed": seed}
            frames.append(pd.DataFrame({**labels, **clock, "metric": metric, "value": scores[metric]}))
    curve = pd.concat(frames, ignore_index=True).reindex(columns=list(CURVE_COLUMNS))
    times = {"seconds": outcome.seconds, "compile_seconds": outcome.compile_seconds, "error": None}
    statistics = getattr(outcome.carry.problem_state, "statistics", ())
    solution = jax.device_get({"mean": outcome.mean, "statistics": statistics})
    runtimes = record_runtimes(strategy, label, problem, outcome)
    return Pair(strategy, label, {**info, **times}, curve, solution, runtimes)


def failed_pair(strategy: str, problem: str, error: Exception, info: dict[str, Any]) -> Pair:
    """Returns the pair of a strategy and a problem that could not be run."""
    failure = {
        "identity": None,
        "strategy_settings": None,
        **info,
        "seconds": 0.0,
        "compile_seconds": 0.0,
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    return Pair(strategy, problem, failure, pd.DataFrame(columns=list(CURVE_COLUMNS)))


def _labelled(frame: pd.DataFrame, strategy: str, problem: str) -> pd.DataFrame:
    frame.insert(0, "strategy", pd.Series([strategy] * len(frame), dtype=str))
    frame.insert(1, "problem", pd.Series([problem] * len(frame), dtype=str))
    return frame
