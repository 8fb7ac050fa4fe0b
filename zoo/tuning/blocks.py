"""Runs settings x seeds of a sweep in few compiled programs: one for all settings of equal static values.

The runs of such a group are cut into blocks of equal size, so that one program serves all of them. Settings that are
leaves of the strategy differ between the runs of a block.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from zoo.core.memory import num_bytes, total_memory
from zoo.core.problem import Problem
from zoo.core.strategy import Strategy
from zoo.loop import compiled
from zoo.loop.budget import Budget
from zoo.loop.drive import Options, drive

_MAX_RUNS = 16  # of a block on a CPU, where more at once are no faster and take longer to compile
_MAX_POPULATIONS = 6 * 2**20  # bytes of the populations of a block on a CPU: larger ones do not stay in its cache
_SHARE = 8  # a block takes at most this part of the memory


@dataclasses.dataclass(frozen=True)
class Group:
    """Settings whose strategies have equal static values, so that one program runs them all.

    Attributes:
        settings: Numbers of the settings.
        strategies: Their strategies.
    """

    settings: tuple[int, ...]
    strategies: tuple[Strategy, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """One setting with one seed."""

    setting: int
    seed: int


def group_strategies(strategies: Sequence[Strategy]) -> list[Group]:
    """Returns the groups of strategies that share a program, in the order of their first settings."""
    groups: dict[Any, list[int]] = {}
    for number, strategy in enumerate(strategies):
        leaves, structure = jax.tree.flatten(strategy)
        groups.setdefault((structure, tuple(np.shape(x) for x in leaves)), []).append(number)
    return [Group(tuple(numbers), tuple(strategies[n] for n in numbers)) for numbers in groups.values()]


def cut_into_blocks(runs: Sequence[Run], size: int, *, is_fixed: bool) -> list[list[Run]]:
    """Returns the runs in blocks of equal size. The last block repeats its last run if need be.

    Args:
        runs: The runs.
        size: The size of a block: the largest one, or exactly this one.
        is_fixed: Whether it is exactly this one.
    """
    if not is_fixed:
        size = math.ceil(len(runs) / math.ceil(len(runs) / size))
    blocks = [list(runs[k : k + size]) for k in range(0, len(runs), size)]
    blocks[-1] += [blocks[-1][-1]] * (size - len(blocks[-1]))
    return blocks


def max_block_size(strategy: Strategy, problem: Problem) -> int:
    """Returns the largest number of runs in a block: as many as are faster at once than one after the other.

    It is 1 if the evaluation takes longer than all else, so that each run is saved as soon as it is finished. On a CPU
    it is also 1 if only an evaluation tells how many steps it takes, as in episodes that end early. Otherwise all runs
    would wait for the longest episode of any.
    """
    if problem.is_expensive:
        return 1
    size = len(strategy.groups.ids)
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and problem.generation_steps(size) is None:
        return 1
    key = jax.random.key(0)
    _, carry = jax.eval_shape(lambda: compiled.start.fn(strategy, problem, key, None, batched=False))
    population = num_bytes(carry.best_solution) * size
    memory = total_memory()
    fits = math.inf if memory is None else memory // _SHARE // (num_bytes(carry) + 3 * population)
    most = min(_MAX_RUNS, _MAX_POPULATIONS // population) if on_cpu else 64 * _MAX_RUNS
    return int(max(1, min(most, fits)))


def run_block(
    group: Group,
    problem: Problem,
    runs: Sequence[Run],
    keys: jax.Array,
    budget: Budget,
    report: Callable[[float], None],
) -> dict[str, Any]:
    """Runs a block in one program.

    Args:
        group: The group whose settings the runs have.
        problem: The problem.
        runs: The runs.
        keys: `[num_runs]` keys, one for each run.
        budget: The budget of each run.
        report: Called now and then with the share of the budget that is done.

    Returns:
        By name: the final headline `score` and the `steps` of each run, `[num_runs]`, and each run's share of the
        `seconds` and the `compile_seconds` of the block.
    """
    strategies = [group.strategies[group.settings.index(run.setting)] for run in runs]
    if len(runs) == 1:  # the program of a single run, which compiles sooner
        keys, (strategy,), differs = keys[0], strategies, None
    else:
        strategy, differs = _stack(strategies)
    with warnings.catch_warnings():
        # Some settings of a sweep are bad on purpose, and the sweep says which have no score.
        warnings.simplefilter("ignore", RuntimeWarning)
        outcome = drive(strategy, problem, keys, Options(budget=budget, report=report), differs)
    return {
        "score": np.array([scores[problem.headline][-1] for scores in outcome.scores], float),
        "steps": np.array([scores["steps"][-1] for scores in outcome.scores], np.int64),
        "seconds": outcome.seconds / len(runs),
        "compile_seconds": outcome.compile_seconds / len(runs),
    }


def _stack(strategies: Sequence[Strategy]) -> tuple[Strategy, tuple[bool, ...]]:
    """Returns one strategy with an axis of runs on the leaves that differ, and which leaves these are."""
    structure = jax.tree.structure(strategies[0])
    columns = list(zip(*map(jax.tree.leaves, strategies), strict=True))
    # All leaves that are numbers, whether or not they differ here: all blocks of a group then have one program.
    differs = tuple(np.ndim(column[0]) == 0 or not _all_equal(column) for column in columns)
    leaves = [np.stack(column) if has_axis else column[0] for column, has_axis in zip(columns, differs, strict=True)]
    return jax.tree.unflatten(structure, leaves), differs


def _all_equal(values: Sequence[Any]) -> bool:
    return all(np.array_equal(values[0], value) for value in values[1:])
