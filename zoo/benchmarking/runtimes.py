"""Records runtimes: the problem steps that runs take to reach a problem's targets."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from zoo.statistics.runtimes import RUNTIME_COLUMNS

if TYPE_CHECKING:
    from zoo.core.problem import Problem
    from zoo.loop.drive import Outcome


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
