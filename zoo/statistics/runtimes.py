"""Statistics of runtimes: the problem steps that runs take to reach a problem's targets.

References: Hansen, Auger, Brockhoff, Tušar, Tušar 2016, "COCO: Performance Assessment", arXiv 1605.03560 (runtime to a
target, expected running time, distributions); Moré, Wild 2009, "Benchmarking Derivative-Free Optimization Algorithms",
doi 10.1137/080724083 (data profiles).
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

RUNTIME_COLUMNS = ("strategy", "problem", "seed", "target", "steps", "budget")


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


def solved_curves(
    runtimes: pd.DataFrame, unit: pd.Series
) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[float, float]]]:
    """Returns, for each strategy, the fraction of all (problem, target, seed) triples that it reached over time.

    Args:
        runtimes: The runtimes of all strategies.
        unit: Problem steps per unit of time, by the problem's label: its dimension, or one simplex gradient.

    Returns:
        Times and fractions, for a curve of steps on a logarithmic axis, and the point where the shortest run ended. All
        curves begin at the time of the first step of a run and end at the time of the last one.
    """
    per_unit = runtimes.problem.map(unit)
    first_step, last = float((1 / per_unit).min()), float((runtimes.budget / per_unit).max())
    curves = {}
    for strategy in runtimes.strategy.unique():
        times, fractions, budget = _solved_fraction(runtimes, strategy, unit)
        x = np.concatenate([[first_step], np.maximum(times, first_step), [last]])
        y = np.concatenate([[0], fractions, fractions[-1:] if len(fractions) else [0]])
        num_reached = np.searchsorted(times, budget, side="right")
        at_budget = num_reached / len(times) * fractions[-1] if len(times) else 0
        curves[strategy] = x, y, (budget, float(at_budget))
    return curves


def _solved_fraction(runtimes: pd.DataFrame, strategy: str, unit: pd.Series) -> tuple[np.ndarray, np.ndarray, float]:
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
