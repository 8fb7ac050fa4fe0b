"""Compares strategies on problems with one call."""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from zoo.benchmarking.pair import Pair, PairTask, failed_pair, folder_name
from zoo.benchmarking.results import Results
from zoo.benchmarking.runtimes import check_targets
from zoo.benchmarking.tuned import make_tuning, place_of
from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count, shown
from zoo.core.keys import as_key
from zoo.core.problem import Problem
from zoo.core.sharding import check_mesh, from_first_process, is_first_process
from zoo.core.solution import num_dims
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.call import describe_given
from zoo.loop.compiled import MAX_PROGRAMS
from zoo.loop.files import DamagedError, as_folder, named_once
from zoo.loop.lock import FolderLock
from zoo.loop.once import once_per_object
from zoo.loop.progress import say
from zoo.loop.provenance import describe_key, describe_settings, make_metadata
from zoo.registry import ProblemLike, StrategyLike, given_problem, given_strategy, label_of
from zoo.tuning.given import given_names

Settings = Mapping[str, Any]
Executor = Callable[[Mapping[int, PairTask], bool], Generator[tuple[int, Pair]]]
"""Computes numbered pairs, with or without progress bars. Yields each with its number as soon as it is finished."""

_EXECUTORS = ("local", "ray")


class _Task(NamedTuple):
    """A pair that was asked for. `problem` is an error if the problem could not be made."""

    strategy_label: str
    problem_label: str
    strategy: Any
    problem: Any
    budget: Any = None
    given: Collection[str] = ()  # names of the settings that the user gave for the strategy
    call: Any = None  # the ids and settings by which strategy and problem were made


@jax.transfer_guard("allow")
@checks_arguments
def benchmark(
    strategies: Iterable[StrategyLike] | Mapping[str, StrategyLike],
    problems: Iterable[ProblemLike] | Mapping[str, ProblemLike],
    *,
    num_seeds: int = 5,
    num_steps: int | Mapping[str, int] | None = None,
    key: int | jax.Array = 0,
    strategy_settings: Mapping[str | tuple[str, str], Settings] | None = None,
    problem_settings: Mapping[str, Settings] | None = None,
    tune: int | None = None,
    tune_seeds: int = 3,
    num_scores: int | None = None,
    out: str | pathlib.Path | None = None,
    executor: str = "local",
    ray_options: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    fresh: bool = False,
    accept_versions: bool = False,
    progress: bool = True,
) -> Results:
    """Runs every strategy on every problem, all seeds of a pair in one compiled program.

    Args:
        strategies: Ids, dictionaries of an id and settings such as `{"id": "cma_es", "sigma": 0.5}`, or strategies. Or
            a mapping from labels to them, for example to compare one strategy with different settings.
        problems: Ids, dictionaries of an id and settings, or problems; or a mapping from labels to them.
        num_seeds: Seeds per pair. It takes about ten to tell strategies apart (`Results.compare`). Seed i has the same
            key for every strategy, and so the same initial solution and the same held-out data.
        num_steps: Budget in problem steps per seed, so that methods with different costs compare fairly; or a mapping
            from the problem's label to a budget. Defaults to what each problem suggests.
        key: JAX random key, or a seed. The same key gives the same numbers.
        strategy_settings: Settings by strategy label, or by (strategy label, problem label), which take precedence.
            They apply to strategies that are given by id. Settings left open are filled in from the problem's
            suggestions.
        problem_settings: Settings by problem label, for problems that are given by id.
        tune: How many settings are tried of each strategy on each problem before it is run: its defaults, and others
            from the search space that it declares (`Strategy.search_space`; `zoo.describe` shows it), without the
            settings that you give for it. It is fewer if that space has fewer values; a strategy with no settings left
            is run as it is. Each is run with the whole budget on `tune_seeds` seeds, which no pair has,
            and the best one is run on the benchmark's seeds. With `None`, strategies are run as they are.
        tune_seeds: Tuning seeds per setting.
        num_scores: Points of a learning curve, in addition to the initial solution. Defaults to 20; for a problem that
            the host computes and that has no targets, to the last point only.
        out: Folder to which each pair is saved as soon as it is finished. A pair that is already there is not computed
            again if it has the same settings, data, key, code, precision, and versions of the zoo and of JAX. One line
            says how many pairs are reused, and what differs in the others. Without progress bars the line goes to the
            logger "zoo". A damaged pair is computed again, and a warning names it. Only one process at a time may use
            the folder. The tuning of a pair is saved in `tuning/`, block by block (with the executor "ray", it is not),
            and `zoo.Sweep.load` reads it there.
        executor: `"local"` computes one pair after the other, in this process. `"ray"` computes pairs in parallel, each
            in a Ray task: on the cluster that this process is connected to or that the environment variable
            `RAY_ADDRESS` names, where the zoo must be installed; otherwise on the cores of this machine. A pair whose
            worker dies is tried again up to two times. Both executors compute the same numbers, except for rounding on
            another kind of device. Functions and classes that a script defines are sent to the workers. Equinox modules
            cannot be sent; define them in a module that the workers can import.
        ray_options: Options of the Ray tasks, as in `ray.remote`. Defaults to one core, no GPU and `max_retries` 2. For
            one GPU per pair, pass `{"num_gpus": 1}`.
        mesh: Devices to split each population over, for the local executor; see `zoo.run`. If several processes share
            the mesh, all of them make this call and get the results, and only the first one reads and writes `out`.
        fresh: Whether to compute all pairs, also those that are in `out`.
        accept_versions: Whether to reuse pairs that other versions of the zoo or of JAX computed, or that come from
            code that cannot be compared.
        progress: Whether to show progress bars.

    Returns:
        `Results`. A pair that fails is recorded with its error, and the other pairs are computed all the same.

    Raises:
        ValueError: If an id or executor is unknown, a label is used twice, a number is invalid, a mesh is given with
            the executor "ray" or with `tune`, or the folder cannot be written or is in use.
        TypeError: If a setting is unknown, or a label is not text.
        ModuleNotFoundError: If the executor is "ray" and Ray is not installed.

    >>> import zoo
    >>> results = zoo.benchmark(
    ...     ["cma_es", "random_search"], ["blackbox/sphere"], num_seeds=2, num_steps=2_000, progress=False
    ... )
    >>> results.summary().strategy.tolist()
    ['cma_es', 'random_search']
    """
    num_seeds, key = as_count(num_seeds, "num_seeds"), as_key(key)
    # Absolute, since a problem may change the working directory.
    folder = None if out is None else as_folder(out, "benchmark(out=...)").absolute()
    mesh = None if mesh is None else check_mesh(mesh)
    tune = None if tune is None else as_count(tune, "tune", at_least=2)
    tune_seeds = as_count(tune_seeds, "tune_seeds")
    if tune is not None and mesh is not None:
        raise ValueError(
            "benchmark(tune=...) runs several settings at once, and mesh=... splits the population of one. Tune "
            "without a mesh, and give the settings that it found to a benchmark with a mesh."
        )
    compute = _make_executor(executor, ray_options, mesh)
    metadata = make_metadata(num_seeds=num_seeds, key=describe_key(key))
    tasks = _tasks(
        strategies,
        problems,
        {} if strategy_settings is None else strategy_settings,
        {} if problem_settings is None else problem_settings,
        num_steps,
        num_scores,
    )

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, np.arange(num_seeds))
    pairs: dict[int, Pair] = {}  # by number, since an executor may finish them in any order
    missing: dict[int, PairTask] = {}

    def results() -> Results:
        return Results([pairs[number] for number in sorted(pairs)], metadata)

    for number, task in enumerate(tasks):
        labels = task.strategy_label, task.problem_label
        strategy, problem, budget = task.strategy, task.problem, task.budget
        if isinstance(problem, Exception):
            facts = {"headline": "score", "maximize": False}
            pairs[number] = failed_pair(*labels, problem, facts)
            continue
        info = {"call": task.call, **_info(strategy, problem, budget, num_seeds, metadata)}
        tuning = None if tune is None else make_tuning(strategy, task.given, tune, tune_seeds, key)
        if tuning is not None and folder is not None and executor == "local":
            name = folder_name(*labels)
            place = place_of(folder, name, fresh=fresh, accept_versions=accept_versions)
            tuning = dataclasses.replace(tuning, place=place)
        missing[number] = PairTask(*labels, strategy, problem, keys, budget, info, mesh, tuning)
    with contextlib.ExitStack() as stack:
        written = None
        if folder is not None:
            lock = stack.enter_context(FolderLock(folder, "benchmark(out=...)", mesh))
            there, other = {}, []
            if not fresh:
                there, other = from_first_process(mesh, functools.partial(_finished, folder, missing, accept_versions))
            for line in _reuse_lines(folder, there, other):
                say(line, show=progress and is_first_process(mesh))
            missing = {number: task for number, task in missing.items() if number not in there}
            if missing:
                lock.check_writable()
            if lock.is_writable and is_first_process(mesh):
                written = folder
                for pair in pairs.values():
                    pair.save(folder)
            pairs |= there
        if written is not None and pairs:
            results().save_metadata(written)
        if missing:
            with contextlib.closing(compute(missing, progress)) as finished:
                for number, pair in finished:
                    pairs[number] = pair
                    if written is not None:
                        pair.save(written)
                        results().save_metadata(written)
    return results()


def _make_executor(executor: str, ray_options: Mapping[str, Any] | None, mesh: Mesh | None) -> Executor:
    if executor not in _EXECUTORS:
        raise ValueError(f"benchmark(executor=...) must be one of {', '.join(_EXECUTORS)}, got {executor!r}.")
    if executor == "ray":
        if mesh is not None:
            raise ValueError(
                "benchmark(mesh=...) splits populations over the devices of this process, but executor='ray' computes "
                "pairs in other processes. Use executor='local' with a mesh, or leave the mesh out."
            )
        from zoo.benchmarking.ray_executor import RayExecutor

        return RayExecutor(ray_options or {}, max_calls=MAX_PROGRAMS)
    if ray_options is not None:
        raise ValueError(f"ray_options={ray_options!r} need benchmark(executor='ray'), got executor={executor!r}.")
    return _compute_locally


def _compute_locally(tasks: Mapping[int, PairTask], progress: bool) -> Generator[tuple[int, Pair]]:
    for count, (number, task) in enumerate(tasks.items(), 1):
        title = f"{task.strategy_label} on {task.problem_label} ({count}/{len(tasks)})"
        yield number, task.compute(title if progress else None)


def _tasks(
    strategies: Any,
    problems: Any,
    strategy_settings: Mapping[Any, Settings],
    problem_settings: Mapping[str, Settings],
    num_steps: int | Mapping[str, int] | None,
    num_scores: int | None,
) -> list[_Task]:
    """Makes all strategies and problems before anything runs, so that a mistake is found at once."""
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
            settings = problem_settings.get(problem_label, {})
            problem = given_problem(_checked(spec, Problem, "problem", problem_label, settings), settings)
            check_targets(problem)
        except OSError as error:  # a missing data file
            problem = error
        for strategy_label, spec in strategies.items():
            if isinstance(problem, Exception):
                tasks.append(_Task(strategy_label, problem_label, None, problem))
                continue
            settings = {
                **strategy_settings.get(strategy_label, {}),
                **strategy_settings.get((strategy_label, problem_label), {}),
            }
            spec = _checked(spec, Strategy, "strategy", strategy_label, settings)
            strategy = given_strategy(spec, settings, "benchmark", problem)
            start = jax.eval_shape(problem.initial_solution, jax.random.key(0))
            total = num_steps.get(problem_label) if isinstance(num_steps, Mapping) else num_steps
            needs_scores = problem.runtime_targets is not None
            budget = Budget.make(problem, None, total, num_scores, needs_scores=needs_scores)
            given = given_names(spec) | given_names({"id": "", **settings})
            call = describe_given(strategy, problem)
            strategy = strategy.for_solution(start)
            tasks.append(_Task(strategy_label, problem_label, strategy, problem, budget, given, call))
    return tasks


def _labelled(items: Any, base: type, kind: str) -> dict[str, Any]:
    if isinstance(items, (str, base)) or (isinstance(items, Mapping) and isinstance(items.get("id"), str)):
        items = [items]
    if isinstance(items, Mapping):
        labelled = dict(items)
        for label in labelled:
            if not isinstance(label, str) or not label:
                raise TypeError(f"The label of a {kind} must be a non-empty text, got {label!r}.")
    elif isinstance(items, Iterable):
        labelled = {}
        for item in items:
            label = label_of(item)
            if label in labelled:
                raise ValueError(
                    f"Two {kind} entries have the label {label!r}. Pass a mapping from different labels to them."
                )
            labelled[label] = item
    else:
        raise TypeError(
            f"benchmark expects a list of {kind} ids, or a mapping from labels to them, got {shown(items)}."
        )
    if not labelled:
        raise ValueError(f"benchmark needs at least one {kind}.")
    return labelled


def _check_labels(argument: str, given: Mapping[Any, Any], known: Iterable[Any]) -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} must be a mapping from labels, got {shown(given)}.")
    known = list(known)
    for label in given:
        if label not in known:
            raise ValueError(f"{argument} has an entry for {label!r}, which is not in this benchmark. Labels: {known}.")


def _checked(spec: Any, base: type, kind: str, label: str, settings: Settings) -> Any:
    """Returns the strategy or the problem of a label.

    Raises:
        TypeError: If it is already made, and is of the other kind or is given together with settings.
    """
    if not isinstance(spec, (Strategy, Problem)):
        return spec
    if not isinstance(spec, base):
        raise TypeError(f"Expected a {kind} or its id for {label!r}, got {type(spec).__name__}.")
    if settings:
        raise TypeError(
            f"Settings are given for the {kind} {label!r}, which is already made. Give its id instead, or apply the "
            "settings by replace(...)."
        )
    return spec


def _finished(
    folder: pathlib.Path, tasks: Mapping[int, PairTask], accept_versions: bool
) -> tuple[dict[int, Pair], list[str]]:
    """Returns the saved pairs that can be reused, by number, and a text for each other pair that says what differs.

    Failed pairs are not reused. One warning names the damaged pairs.
    """
    pairs, other, damaged = {}, [], []
    for number, task in tasks.items():
        try:
            pair = Pair.load(folder, task.strategy_label, task.problem_label)
        except FileNotFoundError:
            continue
        except DamagedError as error:
            damaged.append(error)
            continue
        if pair.info["error"]:
            continue
        differences = task.identify().differences(pair.info.get("identity"), accept_versions=accept_versions)
        if differences:
            other.append("; ".join(differences))
        else:
            pairs[number] = pair
    if damaged:
        warnings.warn(f"Computed again: {named_once(damaged)}", stacklevel=2)
    return pairs, other


def _reuse_lines(folder: pathlib.Path, pairs: Mapping[int, Pair], other: Sequence[str]) -> list[str]:
    """Returns a line about the pairs that are reused, and a line for each difference of the others."""
    lines = []
    if pairs:
        dates = sorted({str(pair.info.get("date"))[:10] for pair in pairs.values()})
        computed = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        lines = [f"{_count(len(pairs))} reused from {folder}/, computed {computed}"]
    for difference, count in collections.Counter(other).items():
        lines.append(f"{_count(count)} in {folder}/ computed again, because of a difference: {difference}")
    return lines


def _count(number: int) -> str:
    return f"{number} pair{'' if number == 1 else 's'}"


def _info(
    strategy: Strategy, problem: Problem, budget: Budget, num_seeds: int, metadata: dict[str, Any]
) -> dict[str, Any]:
    facts = {"num_steps": budget.limits[-1], "num_scores": sum(budget.is_scored), "num_seeds": num_seeds}
    start = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    return {
        "date": metadata["date"],
        "key": metadata["key"],
        "strategy_settings": describe_settings(strategy),
        "problem_settings": once_per_object(problem, "settings", lambda: describe_settings(problem)),
        **facts,
        "num_dims": num_dims(start),
        "headline": problem.headline,
        "maximize": problem.maximize,
        "tuning": None,
    }
