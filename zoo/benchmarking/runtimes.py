"""Runtimes: the problem steps that runs take to reach a problem's targets, and statistics of them.

References: Hansen, Auger, Brockhoff, Tušar, Tušar 2016, "COCO: Performance Assessment", arXiv 1605.03560 (runtime to a
target, expected running time, distributions); Moré, Wild 2009, "Benchmarking Derivative-Free Optimization Algorithms",
doi 10.1137/080724083 (data profiles).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from zoo.core.problem import Problem
    from zoo.loop.drive import Outcome

RUNTIME_COLUMNS = ("strategy", "problem", "seed", "target", "steps", "budget")


def check_targets(problem: "Problem") -> tuple[float, ...] | None:
    """Returns a problem's targets, the easiest first, or `None` if it has no targets.

    Raises:
        ValueError: If the targets are not finite numbers, or the sequence is empty.
    """
    if problem.runtime_targets is None:
        return None
    try:
        targets = np.asarray(problem.runtime_targets, float)
    except (TypeError, ValueError):
        targets = np.asarray(np.nan)
    if targets.ndim != 1 or not len(targets) or not np.isfinite(targets).all():
        raise ValueError(
            f"The targets of {type(problem).__name__} must be a sequence of finite numbers, such as (1.0, 1e-4, 1e-8), "
            f"or None; got {problem.runtime_targets!r}."
        )
    return tuple(sorted(set(targets.tolist()), reverse=not problem.maximize))


def record_runtimes(strategy: str, problem_label: str, problem: "Problem", outcome: "Outcome") -> pd.DataFrame:
    """Returns the steps at which each seed of a run first reached each of the problem's targets.

    If a member's fitness is its score (`Problem.fitness_is_score`), this is the end of the first generation with a
    member as good as the target. Otherwise it is the first scoring at which the mean was as good as the target.

    Args:
        strategy: The strategy's label.
        problem_label: The problem's label.
        problem: The problem.
        outcome: What `drive` returned for several seeds.

    Returns:
        A frame with the columns `RUNTIME_COLUMNS`. It has no rows if the problem has no targets.
    """
    targets = check_targets(problem)
    if targets is None:
        return pd.DataFrame(columns=list(RUNTIME_COLUMNS))
    frames = []
    for seed, (history, scores) in enumerate(zip(outcome.histories, outcome.scores, strict=True)):
        if problem.fitness_is_score:
            values, steps = history["best_fitness"], history["steps"]
        else:
            values, steps = scores[problem.headline], scores["steps"]
        # Compare in the precision of the fitness: an accuracy of 0.95 in float32 is below 0.95 in float64.
        values, goals = (
            np.asarray(x).astype(outcome.carry.best_fitness.dtype).astype(float) for x in (values, targets)
        )
        spent = int(steps[-1]) if len(steps) else 0  # where the budget had no room for a generation
        reached = _steps_to_targets(values, steps, goals, maximize=problem.maximize)
        labels = {"strategy": strategy, "problem": problem_label, "seed": seed}
        frames.append(pd.DataFrame({**labels, "target": targets, "steps": reached, "budget": spent}))
    return pd.concat(frames, ignore_index=True)


def _steps_to_targets(
    values: np.ndarray, steps: np.ndarray, targets: np.ndarray, *, maximize: bool = False
) -> np.ndarray:
    """Returns the steps at which the best value so far first reached each target, or NaN if it never did.

    Args:
        values: `[n]` values in the order in which they were found. NaN is ignored.
        steps: `[n]` steps that were spent when each value was found.
        targets: `[num_targets]`.
        maximize: Whether a value reaches a target that it is at or above, rather than at or below.
    """
    gains = values if maximize else -values
    best = np.maximum.accumulate(np.where(np.isnan(gains), -np.inf, gains))
    first = np.searchsorted(best, targets if maximize else -targets, side="left")
    return np.append(np.asarray(steps, float), np.nan)[first]


def select_targets(runtimes: pd.DataFrame, targets: Iterable[float] | None) -> pd.DataFrame:
    """Returns the rows of the given targets, to a relative tolerance of 1e-6. With `None`, returns all rows.

    Raises:
        ValueError: If a target was not recorded for any problem.
    """
    if targets is None:
        return runtimes
    recorded = runtimes.target.to_numpy(float)
    chosen = np.zeros(len(runtimes), bool)
    for target in targets:
        rows = np.isclose(recorded, target, rtol=1e-6, atol=0)
        if not rows.any():
            known = ", ".join(f"{each:.4g}" for each in runtimes.target.unique())
            raise ValueError(f"No runtime to the target {target!r} was recorded. The recorded targets are {known}.")
        chosen |= rows
    return runtimes.loc[chosen]


def hardest_targets(runtimes: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of each problem's hardest target."""
    hardest = runtimes.groupby("problem", sort=False).target.transform("last")
    return runtimes.loc[runtimes.target == hardest]


def expected_running_time(runtimes: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per problem, strategy and target: `ert`, `num_successes`, `num_seeds`.

    The expected running time (ERT) is the number of steps that all seeds spent until they reached the target or ended,
    divided by the number of seeds that reached it (Hansen et al. 2016, section 5.2). It is infinite if no seed did.
    """
    spent = runtimes.steps.fillna(runtimes.budget)
    table = (
        runtimes.assign(spent=spent, reached=runtimes.steps.notna())
        .groupby(["problem", "strategy", "target"], sort=False)
        .agg(spent=("spent", "sum"), num_successes=("reached", "sum"), num_seeds=("reached", "size"))
        .reset_index()
    )
    ert = np.full(len(table), np.inf)
    np.divide(table.spent, table.num_successes, out=ert, where=table.num_successes.to_numpy() > 0)
    table.insert(3, "ert", ert)
    return table.drop(columns="spent")


def solved_fraction(runtimes: pd.DataFrame, strategy: str, unit: pd.Series) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the empirical distribution of a strategy's runtimes over all (problem, target, seed) triples.

    A triple for which the strategy has no runtime, because a pair failed or is missing, counts as not reached.

    Args:
        runtimes: The runtimes of all strategies.
        strategy: The strategy's label.
        unit: Problem steps per unit of time, by the problem's label: its dimension, or one simplex gradient.

    Returns:
        Sorted times, the fraction reached by each time, and the time at which the shortest run ended.
    """
    total = len(runtimes[["problem", "seed", "target"]].drop_duplicates())
    rows = runtimes[runtimes.strategy == strategy]
    per_unit = rows.problem.map(unit)
    times = np.sort((rows.steps / per_unit).dropna().to_numpy(float))
    return times, np.arange(1, len(times) + 1) / total, float((rows.budget / per_unit).min())
