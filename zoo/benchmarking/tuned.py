"""Tunes the strategy of a pair before it is run, with as many settings for every strategy of a benchmark.

A strategy whose settings are all given is not tuned, and a space of few values has no more settings than these.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax

from zoo.core.distributions import Distribution
from zoo.core.problem import Problem
from zoo.core.search_space import declared_space, resolve, with_values
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.provenance import describe_value
from zoo.tuning.folder import Place
from zoo.tuning.result import Sweep
from zoo.tuning.search import Plan, make_facts, run_settings, scored_at_end, seed_of
from zoo.tuning.space import draw_with_default


@dataclasses.dataclass(frozen=True, eq=False)
class Tuning:
    """How the strategy of a pair is tuned.

    Attributes:
        space: The distributions of the settings that are tuned.
        num_settings: How many settings are tried. The first one is that of the strategy as it is.
        num_seeds: Tuning seeds per setting.
        key: The key of the benchmark.
        place: Where the runs are saved. With `None`, they are not.
    """

    space: dict[str, Distribution]
    num_settings: int
    num_seeds: int
    key: jax.Array
    place: Place | None = None

    def facts(self) -> dict[str, Any]:
        """Returns what is part of the identity of a tuned pair."""
        space = describe_value(self.space)  # all digits, and the bounds of spreads
        return {"tuning": f"{self.num_settings} settings x {self.num_seeds} seeds", "tuned": space}


def make_tuning(
    strategy: Strategy, given: Collection[str], num_settings: int, num_seeds: int, key: jax.Array
) -> Tuning | None:
    """Returns how a strategy is tuned. Returns `None` if it has no settings to tune beside those that are given.

    Args:
        strategy: The strategy, with open settings filled in.
        given: Names of the settings that the user gave for it.
        num_settings: How many settings are tried.
        num_seeds: Tuning seeds per setting.
        key: The key of the benchmark.
    """
    space = resolve(declared_space(strategy, given), strategy)
    return Tuning(space, num_settings, num_seeds, key) if space else None


def tune(
    tuning: Tuning, strategy: Strategy, problem: Problem, budget: Budget, labels: Mapping[str, str], title: str | None
) -> tuple[Strategy, dict[str, Any]]:
    """Returns the strategy with the best of the settings that were tried, and facts about the search.

    Args:
        tuning: How it is tuned.
        strategy: The strategy, with open settings filled in.
        problem: The problem.
        budget: The budget of each run.
        labels: The labels of the strategy and the problem.
        title: The title of the pair for progress bars. With `None`, there are none.

    Raises:
        ValueError: If no setting has a score.
    """
    seed = seed_of(tuning.key)
    settings = draw_with_default(tuning.space, strategy, tuning.num_settings, "sobol", seed)
    strategies = [with_values(strategy, each) for each in settings]
    plan = Plan(scored_at_end(budget), tuning.key, tuning.num_seeds)
    metadata = make_facts(tuning.key, labels, None, "sobol", tuning.space)
    title = None if title is None else f"{title}: "
    found = run_settings(strategies, settings, problem, plan, metadata, tuning.place, title)
    return strategies[found.ranking[0]], _facts(found)


def place_of(folder: pathlib.Path, pair: str, *, fresh: bool, accept_versions: bool) -> Place:
    """Returns the place in the folder of a benchmark where the tuning of a pair is saved."""
    return Place(folder, ("tuning", pair), fresh, accept_versions, replaces=True)


def _facts(found: Sweep) -> dict[str, Any]:
    runs = found.runs
    return {
        "num_settings": len(found.settings),
        "num_seeds": found.metadata["num_seeds"],
        "best": {name: describe_value(value) for name, value in found.best.items()},
        "steps": int(runs.steps.sum()),
        "seconds": float(runs.seconds.sum()),
        "compile_seconds": float(runs.compile_seconds.sum()),
        "certainty": found.certainty,
    }
