"""Runs settings on tuning seeds, chooses one, and runs the choice on test seeds, block by block."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from zoo.core.distributions import Distribution, is_logarithmic
from zoo.core.problem import Problem
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.identity import Identity, identify
from zoo.loop.load import Load
from zoo.loop.progress import Compiling, progress_bar, say
from zoo.loop.provenance import describe_key, describe_settings, make_metadata
from zoo.statistics.aggregates import middle_of_finite
from zoo.tuning.blocks import Group, Run, cut_into_blocks, group_strategies, max_block_size, run_block
from zoo.tuning.folder import BlockFolder, Place
from zoo.tuning.result import RUN_COLUMNS, Sweep

TUNING = 2**31 - 1
"""What the keys of tuning seeds are folded in with, so that none is a seed of `benchmark` or of the test."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the settings of a sweep are run.

    Attributes:
        budget: The budget of each run, which is scored at its end.
        key: The random key.
        num_seeds: Tuning seeds per setting.
        num_test_seeds: Test seeds. With 0, there is no test.
        halving: As in `zoo.sweep`.
    """

    budget: Budget
    key: jax.Array
    num_seeds: int
    num_test_seeds: int = 0
    halving: int | None = None


def run_settings(
    strategies: Sequence[Strategy],
    settings: Sequence[Mapping[str, Any]],
    problem: Problem,
    plan: Plan,
    metadata: Mapping[str, Any],
    place: Place | None,
    title: str | None,
) -> Sweep:
    """Runs settings, and returns what was found.

    Args:
        strategies: The strategy with each of the settings.
        settings: The values of each setting.
        problem: The problem.
        plan: How they are run.
        metadata: Facts about the sweep.
        place: Where it is saved. With `None`, it is not.
        title: The beginning of the titles of progress bars. With `None`, there are none.

    Raises:
        ValueError: If no setting has a score, or the place holds another sweep and does not replace it.
    """
    budget = plan.budget
    facts = {
        **metadata,
        "num_seeds": plan.num_seeds,
        "num_test_seeds": plan.num_test_seeds,
        "halving": plan.halving,
        "headline": problem.headline,
        "maximize": problem.maximize,
        "budget": {budget.unit: budget.limits[-1]},
    }
    blocks, groups = None, group_strategies(strategies)
    if place is not None:
        identity = _identify(groups, strategies, problem, plan)
        facts["identity"] = identity.facts()
        blocks = BlockFolder(place, identity)
        blocks.check()
    search = _Search(problem, groups, plan, blocks, title)
    values = [dict(each) for each in settings]
    load = Load()
    runs = search.tune()
    found = Sweep(values, runs, pd.DataFrame(columns=list(RUN_COLUMNS)), facts)
    if not found.ranking:
        errors = [error for error in runs["error"] if error]
        raise ValueError(f"No setting of the sweep has a score: {errors[0] if errors else 'all are NaN.'}")
    if plan.num_test_seeds:
        found = Sweep(values, runs, search.test(found.ranking), facts)
    facts["load"] = load.measure()
    if blocks is not None and place is not None:
        for line in blocks.lines():
            say(line, show=title is not None)
        found.save_into(place.make())
    return found


def make_facts(
    key: jax.Array, labels: Mapping[str, str], spec: Any, sampler: str, space: Mapping[str, Distribution | None]
) -> dict[str, Any]:
    """Returns what `Sweep.metadata` has of a sweep, besides what `run_settings` adds.

    Args:
        key: The random key.
        labels: The labels of the strategy and the problem.
        spec: The strategy as a dictionary of its id and settings. With `None`, it is not known.
        sampler: How the settings were drawn.
        space: The distributions of the settings. With `None`, the values of a setting are given.
    """
    return {
        **make_metadata(key=describe_key(key)),
        **labels,
        "spec": spec,
        "sampler": sampler,
        "space": {name: "given" if each is None else repr(each) for name, each in space.items()},
        "log": [name for name, each in space.items() if each is not None and is_logarithmic(each)],
    }


def _identify(groups: Sequence[Group], strategies: Sequence[Strategy], problem: Problem, plan: Plan) -> Identity:
    """Returns the identity of a sweep. It has the code of every group, since each is a program of its own."""
    budget = plan.budget
    others = [identify(group.strategies[0], problem) for group in groups[1:]]
    identity = identify(
        strategies[0],
        problem,
        budget=f"{budget.limits[-1]} {budget.unit}",
        key=describe_key(plan.key),
        settings=[describe_settings(strategy) for strategy in strategies],
        other_programs=[other.what for other in others],
    )
    unseen = dict.fromkeys(text for each in (identity, *others) for text in each.unseen)
    return dataclasses.replace(identity, unseen=list(unseen))


class _Search:
    """The runs of a sweep, block by block."""

    def __init__(
        self, problem: Problem, groups: list[Group], plan: Plan, blocks: BlockFolder | None, title: str | None
    ):
        self._problem, self._groups, self._plan, self._blocks, self._title = problem, groups, plan, blocks, title
        self._sizes = [0] * len(groups)  # of the blocks of each group, which are those of one program

    def tune(self) -> pd.DataFrame:
        """Returns the runs of all settings on the tuning seeds, those of shorter budgets among them."""
        budget, halving = self._plan.budget, self._plan.halving
        keys = _fold_in(jax.random.fold_in(self._plan.key, TUNING), self._plan.num_seeds)
        left = sorted(number for group in self._groups for number in group.settings)
        frames = []
        for share in (1,) if halving is None else (halving**2, halving, 1):
            part = budget
            if share > 1:
                part = Budget(budget.unit, (budget.limits[-1] // share,), (True,))
            frame = self._run(left, keys, part, "tuning", parts=share)
            frames.append(frame)
            if share > 1 and halving is not None:
                left = _best(frame, max(1, -(-len(left) // halving)), maximize=self._problem.maximize)
        return pd.concat(frames, ignore_index=True)

    def test(self, ranking: Sequence[int]) -> pd.DataFrame:
        """Returns the runs on test seeds: of the best setting, and of the next ones that its block has room for."""
        num_seeds = self._plan.num_test_seeds
        keys = _fold_in(self._plan.key, num_seeds)
        (index,) = (i for i, group in enumerate(self._groups) if ranking[0] in group.settings)
        room = max(1, self._sizes[index] // num_seeds)  # in a block, which takes as long if it is not full
        chosen = [number for number in ranking if number in self._groups[index].settings][:room]
        return self._run(chosen, keys, self._plan.budget, "test", parts=1)

    def _run(self, settings: Sequence[int], keys: jax.Array, budget: Budget, what: str, *, parts: int) -> pd.DataFrame:
        tasks, frames, done = [], [], 0
        for number, group in enumerate(self._groups):
            runs = [Run(i, seed) for i in settings if i in group.settings for seed in range(len(keys))]
            if not runs:
                continue
            if 2 * len(runs) < self._sizes[number]:
                self._sizes[number] = 0  # another program costs less than blocks that are mostly empty
            size = self._sizes[number] or max_block_size(group.strategies[0], self._problem)
            blocks = cut_into_blocks(runs, size, is_fixed=self._sizes[number] > 0)
            self._sizes[number] = len(blocks[0])
            tasks += [(f"{what}-{parts}-{number}-{count}", group, block) for count, block in enumerate(blocks)]
        total = sum(len(block) for _, _, block in tasks)
        title = None if self._title is None else f"{self._title}{what} runs"
        with progress_bar(title, total, status=Compiling(), is_count=True) as show:
            best = "the first runs"
            for name, group, block in tasks:

                def report(share: float, before: int = done, size: int = len(block), best: str = best) -> None:
                    show(before + int(share * size), best)

                frames.append(self._block(name, group, block, keys, budget, report))
                done += len(block)
                scores = pd.concat(frames).score
                best = f"best {scores.max() if self._problem.maximize else scores.min():.4g}"
                show(done, best)
        found: Any = pd.concat(frames, ignore_index=True).drop_duplicates(["setting", "seed"])
        return found.sort_values(["setting", "seed"], ignore_index=True)

    def _block(
        self,
        name: str,
        group: Group,
        runs: Sequence[Run],
        keys: jax.Array,
        budget: Budget,
        report: Callable[[float], None],
    ) -> pd.DataFrame:
        frame = pd.DataFrame({"setting": [run.setting for run in runs], "seed": [run.seed for run in runs]})
        if self._blocks is not None and (saved := self._blocks.load(name, frame)) is not None:
            return saved
        seeds = keys[frame.seed.to_numpy()]
        try:
            found = run_block(group, self._problem, runs, seeds, budget, report)
            error = ""
        except ValueError as failure:  # such as a budget that has no room for a generation of this size
            found, error = {"score": np.nan, "steps": 0, "seconds": 0.0, "compile_seconds": 0.0}, str(failure)
        frame = frame.assign(**found, budget=budget.limits[-1], error=error).reindex(columns=list(RUN_COLUMNS))
        if self._blocks is not None:
            self._blocks.save(name, frame)
        return frame


def _fold_in(key: jax.Array, num: int) -> jax.Array:
    """Returns the keys of that many seeds."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(num))


def _best(runs: pd.DataFrame, count: int, *, maximize: bool) -> list[int]:
    """Returns the numbers of the best settings: those with the fewest seeds without a finite score come first."""
    scores = runs.pivot(index="seed", columns="setting", values="score")
    failed, middle = middle_of_finite(scores.to_numpy())
    order = np.lexsort((middle * (-1 if maximize else 1), failed))
    return sorted(int(number) for number in scores.columns[order[:count]])


def scored_at_end(budget: Budget) -> Budget:
    """Returns a budget with the same pauses, for the progress bar, and one score."""
    num = len(budget.limits)
    return dataclasses.replace(budget, is_scored=tuple(number == num - 1 for number in range(num)))


def seed_of(key: jax.Array) -> int:
    """Returns a seed for draws on the host that depends on the key alone."""
    data = np.asarray(jax.random.key_data(key), np.uint32)
    return int(np.random.SeedSequence(data.ravel().tolist()).generate_state(1)[0])
