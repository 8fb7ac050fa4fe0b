"""Searches for good settings of a strategy on a problem, and reports the choice on seeds that played no part in it."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count
from zoo.core.keys import as_key
from zoo.core.problem import Problem
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.files import as_folder
from zoo.loop.identity import identify
from zoo.loop.lock import FolderLock
from zoo.loop.progress import Compiling, progress_bar, say
from zoo.loop.provenance import describe_key, describe_settings, make_metadata
from zoo.registry import ProblemLike, StrategyLike, given_problem, given_strategy, label_of
from zoo.statistics.aggregates import interquartile_mean
from zoo.tuning.blocks import Group, Run, cut_into_blocks, group_strategies, max_block_size, run_block
from zoo.tuning.folder import BlockFolder
from zoo.tuning.result import RUN_COLUMNS, Sweep, with_values
from zoo.tuning.space import as_space, draw_settings

TUNING = 2**31 - 1
"""What the keys of tuning seeds are folded in with, so that none is a seed of `benchmark` or of the test."""


@jax.transfer_guard("allow")
@checks_arguments
def sweep(
    strategy: StrategyLike,
    problem: ProblemLike,
    space: Mapping[str, Any] | None = None,
    *,
    num_settings: int = 32,
    num_seeds: int = 3,
    num_test_seeds: int = 10,
    num_generations: int | None = None,
    num_steps: int | None = None,
    sampler: str = "sobol",
    halving: int | None = None,
    key: int | jax.Array = 0,
    out: str | pathlib.Path | None = None,
    fresh: bool = False,
    accept_versions: bool = False,
    progress: bool = True,
) -> Sweep:
    """Runs many settings of a strategy on a problem, and chooses the best.

    All settings that are numbers run in one compiled program, in blocks that fit into memory. Each combination of the
    others, such as an optimizer or a population size, is a program of its own. The choice is made by the interquartile
    mean of the final headline score over the tuning seeds. The score of the winner on these seeds is too good, because
    it was chosen for it. `Sweep.test` therefore has its score on test seeds, which played no part in the choice.

    Args:
        strategy: An id, or a dictionary of an id and settings that all runs have.
        problem: An id, a dictionary of an id and settings, or a problem.
        space: Distributions (`zoo.space`) or lists of values, by setting; `"base.sigma"` is a setting of a wrapper's
            base. Settings that are neither here nor in `strategy` are those that the problem suggests.
        num_settings: How many settings are tried.
        num_seeds: Tuning seeds per setting. Seed i is the same key for every setting.
        num_test_seeds: Seeds on which the winner is reported. They are those of `zoo.benchmark` with the same `key`.
        num_generations: Budget of a run in generations.
        num_steps: Budget of a run in problem steps. Without either budget, it is what the problem suggests.
        sampler: `"sobol"` (evenly spread points), `"random"`, or `"grid"` (all combinations of lists, and as many
            points per range as `num_settings` has room for).
        halving: Two shorter rounds come first, of 1/halving**2 and 1/halving of the budget (successive halving). Each
            of them keeps the best 1/halving of the settings, which start over in the next round. With `None`, every
            setting gets the whole budget.
        key: JAX random key, or a seed. The same key gives the same numbers.
        out: A folder that each block of runs (up to 16 on a CPU) is saved to as soon as it is finished, and the sweep
            at the end. The same call goes on with the blocks that are there. A folder with another sweep is refused.
        fresh: Whether to compute all blocks, also those that are in `out`, and to replace another sweep there.
        accept_versions: Whether to use blocks that other versions of the zoo or of JAX computed.
        progress: Whether to show progress bars.

    Returns:
        A `Sweep`: the winner, its score on test seeds, all settings and runs, figures. `zoo.Sweep.load(out)` reads it.

    Raises:
        ValueError: If the space is empty, a value in it is invalid for the strategy, a number is invalid, no setting
            has a score, or the folder cannot be written or holds another sweep.
        TypeError: If a setting is unknown, or the space is not a mapping of distributions or lists.

    >>> import zoo
    >>> found = zoo.sweep(
    ...     "snes", "blackbox/sphere", {"sigma": zoo.space.log_uniform(0.01, 10)},
    ...     num_settings=4, num_seeds=2, num_test_seeds=2, num_generations=20, progress=False,
    ... )
    >>> list(found.best)
    ['sigma']
    """
    distributions = as_space(space)
    num_settings, num_seeds = as_count(num_settings, "num_settings"), as_count(num_seeds, "num_seeds")
    num_test_seeds = as_count(num_test_seeds, "num_test_seeds")
    halving = None if halving is None else as_count(halving, "halving", at_least=2)
    labels = {"strategy": label_of(strategy), "problem": label_of(problem)}
    key, problem = as_key(key), given_problem(problem)
    budget = _scored_at_end(Budget.make(problem, num_generations, num_steps, None))
    if halving is not None and budget.limits[-1] < halving**2:
        raise ValueError(
            f"halving={halving} needs a budget of at least {halving**2} {budget.unit}, since the first round has "
            f"1/{halving**2} of it; got {budget.limits[-1]}."
        )
    folder = None if out is None else as_folder(out, "sweep(out=...)").absolute()
    settings = draw_settings(distributions, num_settings, sampler, seed=_seed_of(key))
    strategies = [_make_named(strategy, values, problem) for values in settings]
    metadata = make_metadata(num_seeds=num_seeds, key=describe_key(key))
    metadata |= {
        **labels,
        "spec": None if isinstance(strategy, Strategy) else strategy,
        "headline": problem.headline,
        "maximize": problem.maximize,
        "budget": {budget.unit: budget.limits[-1]},
        "sampler": sampler,
        "halving": halving,
        "num_test_seeds": num_test_seeds,
        "space": {name: repr(each) for name, each in distributions.items()},
    }
    facts = {
        "budget": f"{budget.limits[-1]} {budget.unit}",
        "key": describe_key(key),
        "settings": [describe_settings(each) for each in strategies],
    }
    identity = identify(strategies[0], problem, **facts)
    with contextlib.ExitStack() as stack:
        blocks = None
        if folder is not None:
            lock = stack.enter_context(FolderLock(folder, "sweep(out=...)"))
            lock.check_writable()
            blocks = BlockFolder(folder, identity, fresh=fresh, accept_versions=accept_versions)
        search = _Search(problem, group_strategies(strategies), key, blocks, show=progress)
        runs = search.tune(budget, num_seeds, halving)
        ranking = Sweep(settings, runs, pd.DataFrame(columns=list(RUN_COLUMNS)), metadata).ranking
        if not ranking:
            errors = [error for error in runs["error"] if error]
            raise ValueError(f"No setting of the sweep has a score: {errors[0] if errors else 'all are NaN.'}")
        test = search.test(budget, ranking, num_test_seeds)
        found = Sweep(settings, runs, test, metadata)
        if blocks is not None and folder is not None:
            for line in blocks.lines():
                say(line, show=progress)
            found.save_into(folder)
    return found


class _Search:
    """The runs of a sweep, block by block."""

    def __init__(
        self, problem: Problem, groups: list[Group], key: jax.Array, blocks: BlockFolder | None, *, show: bool
    ):
        self._problem, self._groups, self._key, self._blocks, self._show = problem, groups, key, blocks, show
        self._sizes = [0] * len(groups)  # of the blocks of each group, which are those of one program

    def tune(self, budget: Budget, num_seeds: int, halving: int | None) -> pd.DataFrame:
        """Returns the runs of all settings on the tuning seeds, those of shorter budgets among them."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(self._key, TUNING), np.arange(num_seeds))
        left = sorted(number for group in self._groups for number in group.settings)
        frames = []
        for share in (1,) if halving is None else (halving**2, halving, 1):
            part = budget
            if share > 1:
                part = Budget(budget.unit, (budget.limits[-1] // share,), (True,))
            frame = self._run(left, keys, part, "tuning", parts=share)
            frames.append(frame)
            if share > 1 and halving is not None:
                middle = frame.groupby("setting").score.agg(lambda scores: interquartile_mean(scores.to_numpy()))
                scores = middle * (-1 if self._problem.maximize else 1)  # NaN, the last, if a seed failed
                keep = max(1, -(-len(left) // halving))
                left = sorted(scores.sort_values(na_position="last", kind="stable").index[:keep].tolist())
        return pd.concat(frames, ignore_index=True)

    def test(self, budget: Budget, ranking: Sequence[int], num_seeds: int) -> pd.DataFrame:
        """Returns the runs on test seeds: of the best setting, and of the next ones that its block has room for."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self._key, np.arange(num_seeds))
        (index,) = (i for i, group in enumerate(self._groups) if ranking[0] in group.settings)
        room = max(1, self._sizes[index] // num_seeds)  # in a block, which takes as long if it is not full
        chosen = [number for number in ranking if number in self._groups[index].settings][:room]
        return self._run(chosen, keys, budget, "test", parts=1)

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
        with progress_bar(f"{what} runs" if self._show else None, total, status=Compiling(), is_count=True) as show:
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


def _scored_at_end(budget: Budget) -> Budget:
    """Returns a budget with the same pauses, for the progress bar, and one score."""
    num = len(budget.limits)
    return dataclasses.replace(budget, is_scored=tuple(number == num - 1 for number in range(num)))


def _make_named(strategy: Any, values: Mapping[str, Any], problem: Problem) -> Strategy:
    """Returns the strategy with the values of one setting of the sweep; an error says which values these are."""
    try:
        return _make(strategy, values, problem)
    except ValueError as error:
        raise ValueError(f"The space has values that are not valid, {dict(values)}: {error}") from error


def _make(strategy: Any, values: Mapping[str, Any], problem: Problem) -> Strategy:
    """Returns the strategy with the values of one setting of the sweep."""
    if isinstance(strategy, Strategy):
        made = strategy
        for name, value in values.items():
            made = _replaced(made, name.split("."), value)
    else:
        made = given_strategy(with_values(strategy, values), {}, "sweep", problem)
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    return made.for_solution(solution)


def _replaced(strategy: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    if not hasattr(strategy, name):
        raise TypeError(f"{type(strategy).__name__} has no setting {name!r}, which the space sweeps.")
    return strategy.replace(**{name: _replaced(getattr(strategy, name), rest, value) if rest else value})


def _seed_of(key: jax.Array) -> int:
    """Returns a seed for draws on the host that depends on the key alone."""
    data = np.asarray(jax.random.key_data(key), np.uint32)
    return int(np.random.SeedSequence(data.ravel().tolist()).generate_state(1)[0])
