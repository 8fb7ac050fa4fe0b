"""One strategy on one problem, with all seeds: the task that computes it, and its results, in memory and in a folder.

The folder has `pair.json` (settings, times, error, checksums of the other files), `curve.csv`, `solution.npz` (final
means and statistics of all seeds) and, if the problem has targets, `runtimes.csv`. It is always replaced as a whole.
"""

import dataclasses
import functools
import pathlib
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from jax.sharding import Mesh

from zoo.benchmarking.runtimes import check_targets, record_runtimes
from zoo.benchmarking.tuned import Tuning, tune
from zoo.core.problem import Problem
from zoo.core.strategy import Strategy
from zoo.core.text import file_name
from zoo.loop.archive import archive, load_archive
from zoo.loop.budget import Budget
from zoo.loop.csv_file import csv_of, read_csv
from zoo.loop.drive import Options, Outcome, drive
from zoo.loop.files import (
    Write,
    below,
    checked,
    damage_of,
    make_below,
    opened,
    read_parts,
    write_parts,
)
from zoo.loop.identity import Identity, identify
from zoo.loop.load import Load
from zoo.loop.provenance import describe_settings
from zoo.statistics.runtimes import RUNTIME_COLUMNS

CURVE_COLUMNS = ("strategy", "problem", "seed", "generation", "steps", "seconds", "metric", "value")


@dataclasses.dataclass(frozen=True)
class Pair:
    """The results of one strategy on one problem, with all seeds.

    Attributes:
        strategy: The strategy's label.
        problem: The problem's label.
        info: JSON-able facts: `identity`, `date`, `key`, `call` (the ids and settings that were given),
            `strategy_settings`, `problem_settings`, `headline`, `maximize`, `num_dims`, `seconds`, `compile_seconds`,
            `overshoot` (mean over seeds), `num_steps`, `num_seeds`, `load` (how busy other work kept the machine, see
            `zoo.loop.load`; `None` for a failed pair), `error` (the error message of a failed pair, else `None`), and
            `tuning`: `None` if the strategy was run as it is, else `num_settings` that were tried, `num_seeds` of each,
            the `best` values, all `steps`, `seconds` and `compile_seconds` that this took, and `certainty` (see
            `Sweep.certainty`).
        curve: A frame with the columns `CURVE_COLUMNS`.
        solution: `mean` and `statistics`, with a leading axis of seeds. A failed pair has `None`.
        runtimes: A frame with the columns `RUNTIME_COLUMNS`. It is empty if the problem has no targets.
    """

    strategy: str
    problem: str
    info: dict[str, Any]
    curve: pd.DataFrame
    solution: Any = None
    runtimes: pd.DataFrame = dataclasses.field(default_factory=lambda: pd.DataFrame(columns=list(RUNTIME_COLUMNS)))

    def final_scores(self, metric: str) -> pd.Series:
        """Returns the final score of each seed, by the number of the seed."""
        rows = self.curve[self.curve.metric == metric].groupby("seed", sort=False).tail(1)
        return rows.set_index("seed").value.sort_index()

    def save(self, folder: pathlib.Path) -> None:
        """Writes the pair into the folder of a benchmark."""
        # The labels are in pair.json. A CSV file would turn labels such as "1" or "nan" into numbers.
        parts = {
            "curve.csv": _csv(self.curve),
            "runtimes.csv": _csv(self.runtimes) if len(self.runtimes) else None,
            "solution.npz": None if self.solution is None else archive(self.solution),
        }
        info = {"strategy": self.strategy, "problem": self.problem, **self.info}
        place = make_below(folder, "pairs", folder_name(self.strategy, self.problem))
        write_parts(place, "pair.json", info, parts)

    @classmethod
    def load(cls, folder: pathlib.Path, strategy: str, problem: str) -> "Pair":
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: If the benchmark in this folder has no such pair.
            DamagedError: If a file of the pair is corrupt or missing.
        """
        place = below(folder, "pairs", folder_name(strategy, problem))
        return read_parts(place, "pair.json", functools.partial(_read_pair, place, strategy, problem))


@dataclasses.dataclass(frozen=True, eq=False)
class PairTask:
    """A pair to compute, with everything that is needed for it. An executor may send it to another process."""

    strategy_label: str
    problem_label: str
    strategy: Strategy
    problem: Problem
    keys: jax.Array  # [num_seeds]
    budget: Budget
    info: dict[str, Any]
    mesh: Mesh | None = None
    tuning: Tuning | None = None

    @property
    def num_leaves(self) -> int:
        """The number of leaves of the strategy and the problem."""
        return len(jax.tree.leaves((self.strategy, self.problem)))

    def compute(self, progress: str | None = None) -> Pair:
        """Computes the pair, and returns it also if it failed. `progress` is the title of a progress bar."""
        try:
            info = {**self.info, "identity": self.identify().facts()}
            strategy = self.strategy
            if self.tuning is not None:
                labels = {"strategy": self.strategy_label, "problem": self.problem_label}
                strategy, found = tune(self.tuning, strategy, self.problem, self.budget, labels, progress)
                info |= {"tuning": found, "strategy_settings": describe_settings(strategy)}
            options = Options(budget=self.budget, progress=progress, mesh=self.mesh)
            load = Load()
            outcome = drive(strategy, self.problem, self.keys, options)
            info["load"] = load.measure()
            return _pair(self.strategy_label, self.problem_label, self.problem, info, outcome)
        except Exception as error:
            return self.failed(error)

    def identify(self) -> Identity:
        """Returns the identity of the pair: what decides whether a saved pair is this one.

        It is computed in the process that computes the pair, since it has the versions of that process.
        """
        facts = {name: self.info[name] for name in ("num_steps", "num_scores", "num_seeds", "key")}
        if self.tuning is not None:
            facts |= self.tuning.facts()
        return identify(self.strategy, self.problem, **facts, targets=check_targets(self.problem))

    def failed(self, error: Exception) -> Pair:
        """Returns the pair as one that failed."""
        return failed_pair(self.strategy_label, self.problem_label, error, self.info)


def folder_name(strategy: str, problem: str) -> str:
    """Returns the name of the folder in which a pair is saved."""
    return f"{file_name(problem)}__{file_name(strategy)}"


def _pair(strategy: str, label: str, problem: Problem, info: dict[str, Any], outcome: Outcome) -> Pair:
    frames = []
    for seed, scores in enumerate(outcome.scores):
        clock = {name: scores[name] for name in ("generation", "steps", "seconds")}
        for metric in outcome.metrics:
            labels = {"strategy": strategy, "problem": label, "seed": seed}
            frames.append(pd.DataFrame({**labels, **clock, "metric": metric, "value": scores[metric]}))
    curve = pd.concat(frames, ignore_index=True).reindex(columns=list(CURVE_COLUMNS))
    times = {"seconds": outcome.seconds, "compile_seconds": outcome.compile_seconds, "error": None}
    times["overshoot"] = float(outcome.overshoot.mean())
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
        "load": None,
        "seconds": 0.0,
        "compile_seconds": 0.0,
        "overshoot": 0.0,
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    return Pair(strategy, problem, failure, pd.DataFrame(columns=list(CURVE_COLUMNS)))


def _csv(frame: pd.DataFrame) -> Write:
    return csv_of(frame.drop(columns=["strategy", "problem"]))


def _read_pair(
    folder: pathlib.Path, strategy: str, problem: str, info: dict[str, Any], digests: Mapping[str, str]
) -> Pair:
    """Reads the files of a pair after its `pair.json`, and checks that they are complete."""
    with damage_of(folder / "pair.json"):
        if [info.pop("strategy"), info.pop("problem")] != [strategy, problem]:
            raise ValueError("it belongs to another pair")
        headline, _, error = checked(info, headline=str, maximize=bool, error=(str, types.NoneType))
        checked(info, identity=(dict, types.NoneType), seconds=float, compile_seconds=float, overshoot=float)
        num_seeds = checked(info, num_seeds=int)[0] if error is None else 0
    with opened(folder / "curve.csv", digests.get("curve.csv", "")) as file:
        kinds = {"seed": int, "generation": int, "steps": int, "metric": str}
        curve = read_csv(file, lambda column: kinds.get(column, float))
        _check_seeds(curve.seed[curve.metric == headline], num_seeds)
        curve = _labelled(curve, strategy, problem, CURVE_COLUMNS)
    pair = Pair(strategy, problem, info, curve)
    if "solution.npz" in digests:
        solution, _ = load_archive(folder / "solution.npz", digests["solution.npz"])
        with damage_of(folder / "solution.npz"):
            if {*solution} != {"mean", "statistics"} or any(len(x) != num_seeds for x in jax.tree.leaves(solution)):
                raise ValueError(f"it does not have {num_seeds} seeds")
        pair = dataclasses.replace(pair, solution=solution)
    if "runtimes.csv" in digests:
        with opened(folder / "runtimes.csv", digests["runtimes.csv"]) as file:
            runtimes = read_csv(file, lambda column: int if column in ("seed", "budget") else float)
            _check_seeds(runtimes.seed, num_seeds)
            if checked(info, num_dims=int)[0] < 1 or not np.isfinite(runtimes.target).all():
                raise ValueError("it has no targets, or no dimensions")
            pair = dataclasses.replace(pair, runtimes=_labelled(runtimes, strategy, problem, RUNTIME_COLUMNS))
    return pair


def _check_seeds(seeds: Any, num_seeds: int) -> None:
    # No range is made, as a damaged file may have a `num_seeds` that is too large for the memory.
    if seeds.nunique() != num_seeds or not seeds.between(0, num_seeds - 1).all():
        raise ValueError(f"it does not have the rows of {num_seeds} seeds")


def _labelled(frame: pd.DataFrame, strategy: str, problem: str, columns: Sequence[str]) -> pd.DataFrame:
    if ["strategy", "problem", *frame.columns] != list(columns):
        raise ValueError(f"its columns are {', '.join(map(str, frame.columns))}")
    frame.insert(0, "strategy", pd.Series([strategy] * len(frame), dtype=str))
    frame.insert(1, "problem", pd.Series([problem] * len(frame), dtype=str))
    return frame
