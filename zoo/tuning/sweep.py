"""Searches for good settings of a strategy on a problem, and reports the choice on seeds that played no part in it."""

import contextlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count
from zoo.core.distributions import Distribution, Factor
from zoo.core.keys import as_key
from zoo.core.problem import Problem
from zoo.core.search_space import declared_space, resolve, with_values
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.files import as_folder
from zoo.loop.lock import FolderLock
from zoo.registry import ProblemLike, StrategyLike, complete_settings, given_problem, given_strategy, label_of
from zoo.tuning.folder import Place
from zoo.tuning.given import given_names
from zoo.tuning.result import Sweep, spec_with_values
from zoo.tuning.search import Plan, make_facts, run_settings, scored_at_end, seed_of
from zoo.tuning.space import (
    as_settings,
    as_space,
    check_sampler,
    draw_settings,
    draw_with_default,
)


@jax.transfer_guard("allow")
@checks_arguments
def sweep(
    strategy: StrategyLike,
    problem: ProblemLike,
    space: Mapping[str, Any] | None = None,
    *,
    settings: Sequence[Mapping[str, Any]] | None = None,
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
            base. Settings that are neither here nor in `strategy` are those that the problem suggests. With `None`, it
            is the strategy's own (`Strategy.search_space`), without the settings that are given in `strategy`; the
            first setting that is tried is then the one that a run without a sweep has.
        settings: Settings to try, instead of a space: a list of dictionaries of values, for example those that another
            library asks for. All of them are run, whatever `num_settings` and `sampler` are.
        num_settings: How many settings are drawn from the space.
        num_seeds: Tuning seeds per setting. Seed i is the same key for every setting.
        num_test_seeds: Seeds on which the winner is reported. They are those of `zoo.benchmark` with the same `key`.
            With 0, it is not tested.
        num_generations: Budget of a run in generations.
        num_steps: Budget of a run in problem steps. Without either budget, it is what the problem suggests.
        sampler: `"sobol"` (evenly spread points), `"random"`, or `"grid"` (all combinations of lists, and as many
            points per range as `num_settings` has room for).
        halving: Two shorter rounds come first, of 1/halving**2 and 1/halving of the budget (successive halving). Each
            of them keeps the best 1/halving of the settings, which start over in the next round. With `None`, every
            setting gets the whole budget.
        key: JAX random key, or a seed. The same key gives the same numbers.
        out: A folder that each block of runs (up to 16 on a CPU) is saved to as soon as it is finished, and the sweep
            at the end. The same call goes on with the blocks that are there. A folder with another sweep is refused
            before anything is computed.
        fresh: Whether to compute all blocks, also those that are in `out`, and to replace another sweep there.
        accept_versions: Whether to use blocks that other versions of the zoo or of JAX computed.
        progress: Whether to show progress bars.

    Returns:
        A `Sweep`: the winner, its score on test seeds, all settings and runs, figures. `zoo.Sweep.load(out)` reads it.

    Raises:
        ValueError: If the space is empty, a value in it is invalid for the strategy, a setting is swept and given as
            well, a number is invalid, no setting has a score, or the folder cannot be written or holds another sweep.
        TypeError: If a setting is unknown, or the space is not a mapping of distributions or lists.

    >>> import zoo
    >>> found = zoo.sweep(
    ...     "snes", "blackbox/sphere", {"sigma": zoo.space.log_uniform(0.01, 10)},
    ...     num_settings=4, num_seeds=2, num_test_seeds=2, num_generations=20, progress=False,
    ... )
    >>> list(found.best)
    ['sigma']
    """
    num_settings, num_seeds = as_count(num_settings, "num_settings"), as_count(num_seeds, "num_seeds")
    num_test_seeds = as_count(num_test_seeds, "num_test_seeds", at_least=0)
    halving = None if halving is None else as_count(halving, "halving", at_least=2)
    check_sampler(sampler)
    labels = {"strategy": label_of(strategy), "problem": label_of(problem)}
    key, problem = as_key(key), given_problem(problem)
    budget = scored_at_end(Budget.make(problem, num_generations, num_steps, None))
    if halving is not None and budget.limits[-1] < halving**2:
        raise ValueError(
            f"halving={halving} needs a budget of at least {halving**2} {budget.unit}, since the first round has "
            f"1/{halving**2} of it; got {budget.limits[-1]}."
        )
    folder = None if out is None else as_folder(out, "sweep(out=...)").absolute()
    if settings is None:
        values, distributions = _drawn(strategy, problem, space, num_settings, sampler, seed_of(key))
    else:
        values, distributions, sampler = as_settings(settings), {}, "given"
        if space is not None:
            raise ValueError("Both a space and settings are given. Give one of them.")
        _check_not_given(strategy, values[0])
    strategy = _with_bases(strategy, values[0], problem)
    strategies = [_make_named(strategy, each, problem) for each in values]
    spec = None if isinstance(strategy, Strategy) else strategy
    metadata = make_facts(key, labels, spec, sampler, {name: distributions.get(name) for name in values[0]})
    plan = Plan(budget, key, num_seeds, num_test_seeds, halving)
    with contextlib.ExitStack() as stack:
        place = None
        if folder is not None:
            lock = stack.enter_context(FolderLock(folder, "sweep(out=...)"))
            lock.check_writable()
            place = Place(folder, fresh=fresh, accept_versions=accept_versions)
        return run_settings(strategies, values, problem, plan, metadata, place, "" if progress else None)


def _drawn(
    strategy: StrategyLike, problem: Problem, space: Mapping[str, Any] | None, num: int, sampler: str, seed: int
) -> tuple[list[dict[str, Any]], dict[str, Distribution]]:
    """Returns the settings that are drawn from a space, and the space; with `None`, that of the strategy."""
    if space is not None:
        distributions = as_space(space)
        _check_not_given(strategy, distributions)
        # A strategy whose required settings are swept cannot be made without a search.
        is_relative = any(isinstance(each, Factor) for each in distributions.values())
        found = resolve(distributions, _default(strategy, problem) if is_relative else None)
        return draw_settings(found, num, sampler, seed), found
    default = _default(strategy, problem)
    found = resolve(declared_space(default, given_names(strategy)), default)
    if not found:
        raise ValueError(
            f"{label_of(strategy)} declares no settings to tune, besides those that are given. Give a space, such as "
            '{"sigma": zoo.space.log_uniform(1e-3, 1)}.'
        )
    return draw_with_default(found, default, num, sampler, seed), found


def _default(strategy: StrategyLike, problem: Problem) -> Strategy:
    """Returns the strategy as it is on a problem without a search."""
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    return given_strategy(strategy, {}, "sweep", problem).for_solution(solution)


def _check_not_given(strategy: StrategyLike, names: Iterable[str]) -> None:
    """Raises a `ValueError` if a setting is given for a strategy as well as swept."""
    if isinstance(strategy, Strategy):
        return
    for name in names:
        if name in given_names(strategy):
            raise ValueError(f"{name} is given for the strategy, and is a setting of the sweep as well. Leave one out.")


def _with_bases(strategy: Any, names: Iterable[str], problem: Problem) -> Any:
    """Returns a strategy, given by its id or as a dictionary, with the bases whose settings are swept spelled out."""
    if isinstance(strategy, Strategy) or not any("." in name for name in names):
        return strategy
    made: dict[str, Any] = {"id": strategy} if isinstance(strategy, str) else dict(strategy)
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    completed = complete_settings(
        made["id"], {k: v for k, v in made.items() if k != "id"}, problem.suggestions, solution
    )
    return _spelled_out(made, completed, [name.split(".")[:-1] for name in names])


def _spelled_out(made: Mapping[str, Any], completed: Mapping[str, Any], paths: Iterable[list[str]]) -> dict[str, Any]:
    found = dict(made)
    for name, *rest in filter(None, paths):
        inner = found.get(name, completed.get(name))
        if isinstance(inner, str):
            inner = {"id": inner}
        if isinstance(inner, Mapping) and isinstance(completed.get(name), Mapping):
            found[name] = _spelled_out(inner, completed[name], [rest])
    return found


def _make_named(strategy: Any, values: Mapping[str, Any], problem: Problem) -> Strategy:
    """Returns the strategy with the values of one setting of the sweep; an error says which values these are."""
    try:
        return _make(strategy, values, problem)
    except ValueError as error:
        raise ValueError(f"The space has values that are not valid, {dict(values)}: {error}") from error


def _make(strategy: Any, values: Mapping[str, Any], problem: Problem) -> Strategy:
    """Returns the strategy with the values of one setting of the sweep."""
    if isinstance(strategy, Strategy):
        made = with_values(strategy, values)
    else:
        made = given_strategy(spec_with_values(strategy, values), {}, "sweep", problem)
    solution = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    return made.for_solution(solution)
