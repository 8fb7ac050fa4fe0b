"""Compares strategies on problems with one call."""

import pathlib
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

import zoo
from zoo.describe import describe_settings, describe_value, fingerprint
from zoo.drive import Budget, Outcome, as_key, drive
from zoo.problem import Problem
from zoo.registry import make_problem, make_strategy
from zoo.results import CURVE_COLUMNS, Pair, Results, make_metadata, pair_folder
from zoo.runtimes import check_targets, record_runtimes
from zoo.segments import forget_programs
from zoo.strategy import Strategy, num_dims

Settings = Mapping[str, Any]

_FORGET_EVERY = 30  # pairs, after which compiled programs are dropped: some may serve several pairs


def benchmark(
    strategies: Iterable[str | Strategy] | Mapping[str, str | Strategy],
    problems: Iterable[str | Problem] | Mapping[str, str | Problem],
    *,
    num_seeds: int = 5,
    num_steps: int | Mapping[str, int] | None = None,
    key: int | jax.Array = 0,
    strategy_settings: Mapping[str | tuple[str, str], Settings] | None = None,
    problem_settings: Mapping[str, Settings] | None = None,
    num_scores: int = 20,
    out: str | pathlib.Path | None = None,
    progress: bool = True,
) -> Results:
    """Runs every strategy on every problem, all seeds of a pair in one compiled program.

    Args:
        strategies: Ids or strategies; or a mapping from labels to them, to have one strategy twice.
        problems: Ids or problems; or a mapping from labels to them.
        num_seeds: Seeds per pair. Seed i is the same key, and with it the same initial solution and the same held-out
            data, for every strategy.
        num_steps: Budget in problem steps per seed, so that methods with different costs compare fairly; or a mapping
            from the problem's label. Default: what each problem suggests.
        key: JAX random key, or a seed. The same key gives the same numbers.
        strategy_settings: Settings by strategy label, or by (strategy label, problem label), which take precedence.
            They apply to strategies given by id. What stays open is filled in from the problem's suggestions.
        problem_settings: Settings by problem label, for problems given by id.
        num_scores: Points of a learning curve, besides the initial solution.
        out: Folder that each pair is saved to as soon as it is finished. Pairs already there, with the same settings,
            are not computed again.
        progress: Whether to show progress bars.

    Returns:
        `Results`. A pair that fails is recorded with its error; it does not lose the others.

    Raises:
        ValueError: If an id is unknown, a label is used twice, a number is invalid.
        TypeError: If a setting is unknown.

    >>> import zoo
    >>> results = zoo.benchmark(
    ...     ["cma_es", "random_search"], ["blackbox/sphere"], num_seeds=2, num_steps=2_000, progress=False
    ... )
    >>> results.summary().strategy.tolist()
    ['cma_es', 'random_search']
    """
    if isinstance(num_seeds, bool) or not isinstance(num_seeds, (int, np.integer)) or num_seeds < 1:
        raise ValueError(f"num_seeds must be a positive whole number, got {num_seeds!r}.")
    num_seeds, key = int(num_seeds), as_key(key)
    folder = None if out is None else pathlib.Path(out)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"benchmark(out=...) needs a folder, but {folder} is a file.")
    metadata = make_metadata(num_seeds=num_seeds, key=describe_value(key))
    tasks = _tasks(strategies, problems, strategy_settings or {}, problem_settings or {}, num_steps, num_scores)

    pairs, num_computed = [], 0
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, np.arange(num_seeds))
    for number, (strategy_label, problem_label, strategy, problem, budget) in enumerate(tasks, 1):
        if isinstance(problem, Exception):
            pair = _failed(strategy_label, problem_label, problem, {"headline": "score", "maximize": False})
            if folder is not None:
                pair.save(folder)
        else:
            info = _info(strategy, problem, budget, num_seeds, metadata)
            pair = None if folder is None else _finished(folder, strategy_label, problem_label, info)
            if pair is None:
                title = f"{strategy_label} on {problem_label} ({number}/{len(tasks)})" if progress else None
                try:
                    outcome = drive(strategy, problem, keys, budget=budget, progress=title)
                    pair = _pair(strategy_label, problem_label, problem, info, outcome)
                except Exception as error:
                    pair = _failed(strategy_label, problem_label, error, info)
                if folder is not None:
                    pair.save(folder)
                num_computed += 1
                if num_computed % _FORGET_EVERY == 0:
                    forget_programs()
        pairs.append(pair)
        if folder is not None:
            Results(pairs, metadata).save_metadata(folder)
    return Results(pairs, metadata)


def _tasks(
    strategies: Any,
    problems: Any,
    strategy_settings: Mapping[Any, Settings],
    problem_settings: Mapping[str, Settings],
    num_steps: int | Mapping[str, int] | None,
    num_scores: int,
) -> list[tuple[str, str, Any, Any, Any]]:
    """Makes all strategies and problems before anything runs, so that a mistake shows at once."""
    strategies = _labelled(strategies, Strategy, "strategy")
    problems = _labelled(problems, Problem, "problem")
    labels = {*strategies, *((s, p) for s in strategies for p in problems)}
    _check_labels("strategy_settings", strategy_settings, labels)
    _check_labels("problem_settings", problem_settings, problems)
    if isinstance(num_steps, Mapping):
        _check_labels("num_steps", num_steps, problems)
    tasks = []
    for problem_label, spec in problems.items():
        try:
            problem = _make(spec, "problem", problem_label, problem_settings.get(problem_label, {}), make_problem)
            check_targets(problem)
        except OSError as error:  # a missing data file
            problem = error
        for strategy_label, spec in strategies.items():
            if isinstance(problem, Exception):
                tasks.append((strategy_label, problem_label, None, problem, None))
                continue
            settings = {
                **strategy_settings.get(strategy_label, {}),
                **strategy_settings.get((strategy_label, problem_label), {}),
            }
            strategy = _make(spec, "strategy", strategy_label, settings, make_strategy, problem=problem)
            start = jax.eval_shape(problem.initial_solution, jax.random.key(0))
            total = num_steps.get(problem_label) if isinstance(num_steps, Mapping) else num_steps
            budget = Budget.make(problem, None, total, num_scores)
            tasks.append((strategy_label, problem_label, strategy.for_solution(start), problem, budget))
    return tasks


def _labelled(items: Any, base: type, kind: str) -> dict[str, Any]:
    if isinstance(items, (str, base)):
        items = [items]
    if isinstance(items, Mapping):
        labelled = dict(items)
    else:
        labelled = {}
        for item in items:
            label = item if isinstance(item, str) else type(item).__name__
            if label in labelled:
                raise ValueError(
                    f"Two {kind} entries have the label {label!r}; pass a mapping from labels of your own to tell them "
                    "apart."
                )
            labelled[label] = item
    if not labelled:
        raise ValueError(f"benchmark needs at least one {kind}.")
    return labelled


def _check_labels(argument: str, given: Mapping[Any, Any], known: Iterable[Any]) -> None:
    known = list(known)
    for label in given:
        if label not in known:
            raise ValueError(f"{argument} has an entry for {label!r}, which is not in this benchmark; labels: {known}.")


def _make(spec: Any, kind: str, label: str, settings: Settings, make: Any, **context: Any) -> Any:
    base = Strategy if kind == "strategy" else Problem
    if not isinstance(spec, (Strategy, Problem)):
        return make(spec, **context, **settings)
    if not isinstance(spec, base):
        raise TypeError(f"Expected a {kind} or its id for {label!r}, got {type(spec).__name__}.")
    if settings:
        raise TypeError(
            f"Settings are given for the {kind} {label!r}, which is already made; give its id, or apply them yourself "
            "with replace(...)."
        )
    return spec


def _info(
    strategy: Strategy, problem: Problem, budget: Budget, num_seeds: int, metadata: dict[str, Any]
) -> dict[str, Any]:
    facts = {
        "strategy_settings": describe_settings(strategy),
        "problem_settings": describe_settings(problem),
        "num_steps": budget.limits[-1],
        "num_scores": len(budget.limits),
        "num_seeds": num_seeds,
    }
    identity = {**facts, "key": metadata["key"], "version": zoo.__version__}
    targets = check_targets(problem)
    if targets is not None:  # without them, a pair is what it was before there were any
        identity["targets"] = targets
    start = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    return {
        "fingerprint": fingerprint(identity),
        **facts,
        "num_dims": num_dims(start),
        "headline": problem.headline,
        "maximize": problem.maximize,
    }


def _finished(folder: pathlib.Path, strategy: str, problem: str, info: dict[str, Any]) -> Pair | None:
    """Returns the saved pair if it is the same one and did not fail."""
    path = pair_folder(folder, strategy, problem)
    if not (path / "pair.json").is_file():
        return None
    pair = Pair.load(path)
    same = pair.info["fingerprint"] == info["fingerprint"] and not pair.info["error"]
    return pair if same else None


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
    solution = {"mean": outcome.mean, "statistics": statistics}
    runtimes = record_runtimes(strategy, label, problem, outcome)
    return Pair(strategy, label, {**info, **times}, curve, solution, runtimes)


def _failed(strategy: str, problem: str, error: Exception, info: dict[str, Any]) -> Pair:
    failure = {
        "fingerprint": None,
        "strategy_settings": None,
        **info,
        "seconds": 0.0,
        "compile_seconds": 0.0,
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    return Pair(strategy, problem, failure, pd.DataFrame(columns=list(CURVE_COLUMNS)))
