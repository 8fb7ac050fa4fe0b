"""Runs one strategy on one problem: `run`, and `minimize` for a plain function."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count, as_scalar, shown
from zoo.core.keys import as_key
from zoo.core.problem import Problem, from_function
from zoo.core.solution import Solution, check_start, num_dims
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.call import describe_call, save_call
from zoo.loop.callbacks import Callback, Callbacks
from zoo.loop.converged import Converged
from zoo.loop.drive import Options, Outcome, drive
from zoo.loop.files import as_file, as_folder
from zoo.loop.progress import Progress
from zoo.loop.provenance import describe_settings, make_metadata
from zoo.loop.result import RunResult
from zoo.registry import ProblemLike, StrategyLike, given_strategy, resolve


@jax.transfer_guard("allow")
@checks_arguments
def run(
    strategy: StrategyLike | None = None,
    problem: ProblemLike | None = None,
    key: int | jax.Array | None = None,
    *,
    start: RunResult | None = None,
    num_generations: int | None = None,
    num_steps: int | None = None,
    num_scores: int | None = None,
    target: float | None = None,
    stop: Converged | None = None,
    solution: Solution | None = None,
    callback: Callback | Callable[[Progress], Any] | list[Any] | tuple[Any, ...] | None = None,
    callback_every: int | None = None,
    log: str | pathlib.Path | None = None,
    checkpoint: str | pathlib.Path | None = None,
    accept_versions: bool = False,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> RunResult:
    """Runs a strategy on a problem.

    Args:
        strategy: A strategy, its id, or a dictionary of its id and settings such as `{"id": "cma_es", "sigma": 0.5}`.
            If it is not an instance, the problem's suggestions fill in the other settings.
        problem: A problem, its id, or a dictionary of its id and settings.
        key: JAX random key, or a seed. Defaults to 0.
        start: The result of an earlier run. This run continues it, bit for bit as if the earlier run had had this
            budget. The budget counts from the beginning of the earlier run. The earlier scores are kept, also the one
            at the end of the earlier run. Strategy, problem and key default to those of the result. Only numbers in
            them may change, such as a learning rate.
        num_generations: Budget in generations.
        num_steps: Budget in problem steps. The run ends with the last generation that the budget has room for. If only
            the evaluation tells how many steps a generation takes, the generation that exceeds the budget is dropped;
            see `RunResult.overshoot`. If no budget is given, this defaults to `problem.suggested_num_steps`.
        num_scores: How often the held-out score is computed, evenly over the budget. At the same points the target is
            checked, the callback is called, and progress and the checkpoint are updated. The initial solution is scored
            too. Scores do not count toward the budget. Defaults to 20. If the host computes the problem, the default is
            one score, at the end (unless there is a target), and callback, progress and checkpoint still come 20 times.
        target: Stops when the headline score is at least as good as this.
        stop: Stops when the search has converged by these criteria, such as `zoo.Converged()`. They are checked in
            every 100th generation, or in every generation if the host computes the problem. With `None`, convergence
            does not end the run.
        solution: Initial solution, in the structure and the shapes of the problem's solutions. Defaults to
            `problem.initial_solution`.
        callback: Called with a `Progress` at each of the `num_scores` points. A true return value stops the run. It may
            also be an object like a `zoo.Callback`, whose methods are called at the start and at the end too, or a list
            of callbacks.
        callback_every: Generations between two calls of the callback, counted from the beginning of the run. The last
            call comes at the end. The numbers stay the same, but each call costs time, because the compiled loop waits
            for it. With `None`, the calls come at the `num_scores` points.
        log: A CSV file that gets one row per generation while the run runs: clock, fitness, and scores where there are
            some (see `zoo.loop.log_file`). Rows are appended at the `num_scores` points, and where the callback is
            called. It costs no scores. A run that goes on, from its checkpoint or from `start`, continues the file. A
            file of another run is an error.
        checkpoint: A folder for checkpoints. Progress is saved there at each of the `num_scores` points. A run that
            finds its own checkpoint there resumes from it, and the result is bit-identical to an uninterrupted run. If
            the newest checkpoint is damaged, the run resumes from the one before. A checkpoint of another run (other
            settings, data, key, code, precision or versions) is an error. So is a budget smaller than what the
            checkpoint has done. One process at a time may use the folder.
        accept_versions: Whether to resume from a checkpoint of another version of the zoo or of JAX, or of code that
            cannot be compared.
        progress: Whether to show a progress bar.
        mesh: Devices to split populations over, `zoo.population_mesh()`. The population size must be a multiple of the
            number of devices. Results equal those of one device, except for rounding. Defaults to one device. If
            several processes share the mesh (`jax.distributed`), all of them make this call and get the result. A
            callback must return the same value in all of them. Only the first process writes and reads the checkpoint,
            and shows progress.

    Returns:
        A `RunResult`.

    Raises:
        ValueError: If a budget is invalid, spent, or smaller than what the checkpoint has done; if the checkpoint
            or the log belongs to another run, or cannot be written, or is in use; if the population cannot be divided
            over the devices; if the solution or the result to start from does not fit; if the solution is not finite;
            or if several keys are given.
        TypeError: If the strategy does not fit the problem, either is missing, or the key is not a key.

    >>> import zoo
    >>> result = zoo.run("cma_es", "blackbox/sphere", key=0, num_generations=200)
    >>> result.best_fitness < 1e-6
    True
    """
    given = (strategy, problem)
    if start is not None:
        strategy, problem, key = _as_in(start, strategy, problem, key, solution, checkpoint)
    if strategy is None or problem is None:
        raise TypeError("run needs a strategy and a problem, or start=..., the result of a run to go on from.")
    key = as_key(0 if key is None else key)
    target = None if target is None else as_scalar(target, "target", finite=False)
    checkpoint = None if checkpoint is None else as_folder(checkpoint, "checkpoint")
    log = None if log is None else as_file(log, "log")
    callbacks = Callbacks.of(callback)
    callback_every = None if callback_every is None else as_count(callback_every, "callback_every")
    numbers = {"num_generations": num_generations, "num_steps": num_steps, "num_scores": num_scores}
    call = describe_call(strategy, problem, key, solution=solution, **numbers, target=target, stop=stop)
    if start is not None:
        call |= _call_of_start(start, *given)
    strategy, problem = resolve(strategy, problem)
    _check_stop(stop, strategy)
    if solution is not None:
        solution = check_start(solution, like=jax.eval_shape(problem.initial_solution, key))
    budget = Budget.make(problem, num_generations, num_steps, num_scores, needs_scores=target is not None)
    before = None if start is None else start.progress()
    if before is not None:
        budget.check_left(before[1], problem.generation_steps(strategy.population_size or 0))
    options = Options(
        budget=budget,
        target=target,
        stop=stop,
        solution=solution,
        start=before,
        callback=callbacks if any(map(callable, callbacks.each)) else None,
        callback_every=callback_every,
        ready=lambda generation: callbacks.start(lambda: _facts(strategy, problem, call, generation)),
        log=log,
        began=None if checkpoint is None else functools.partial(save_call, checkpoint, call),
        checkpoint=checkpoint,
        accept_versions=accept_versions,
        progress="run" if progress else None,
        mesh=mesh,
    )
    with callbacks.told_of_errors():
        outcome = drive(strategy, problem, key, options)
        result = _result(strategy, problem, key, outcome, call)
    callbacks.end(result)
    return result


def _result(strategy: Strategy, problem: Problem, key: jax.Array, outcome: Outcome, call: dict[str, Any]) -> RunResult:
    scores = outcome.scores[0]
    return RunResult(
        strategy=strategy,
        problem=problem,
        key=key,
        mean=outcome.mean,
        best_solution=outcome.carry.best_solution,
        best_fitness=float(outcome.carry.best_fitness),
        best_aux=outcome.carry.best_aux,
        aux=outcome.carry.aux,
        state=outcome.carry.state,
        problem_state=outcome.carry.problem_state,
        metrics={name: float(scores[name][-1]) for name in outcome.metrics},
        history=outcome.histories[0],
        scores=scores,
        seconds=outcome.seconds,
        compile_seconds=outcome.compile_seconds,
        overshoot=int(outcome.overshoot[0]),
        stopped_by=outcome.stopped_by[0],
        call=call,
    )


def _facts(strategy: Strategy, problem: Problem, call: dict[str, Any], generation: int) -> dict[str, Any]:
    """Returns JSON-able facts about a run, for callbacks."""
    settings = {"strategy": describe_settings(strategy), "problem": describe_settings(problem)}
    return {**settings, "key": call["key"], "budget": call["budget"], "generation": generation, **make_metadata()}


def _check_stop(stop: Any, strategy: Strategy) -> None:
    if stop is None:
        return
    if not isinstance(stop, Converged):
        raise TypeError(f"run expects stop to be zoo.Converged(...), got {type(stop).__name__}.")
    if strategy.restarts:
        raise ValueError(
            f"{type(strategy).__name__} starts over when it has converged, so stop=Converged(...) cannot end it. Leave "
            "stop out, and give a budget or a target."
        )


def _as_in(
    start: RunResult, strategy: Any, problem: Any, key: Any, solution: Any, checkpoint: Any
) -> tuple[Any, Any, Any]:
    """Returns strategy, problem and key, with those of the result as defaults."""
    if not isinstance(start, RunResult):
        raise TypeError(f"run expects start to be the result of a run, got {type(start).__name__}.")
    for name, value in (("solution", solution), ("checkpoint", checkpoint)):
        if value is not None:
            raise ValueError(f"run goes on from {name} or from start: give only one of them.")
    return (
        start.strategy if strategy is None else strategy,
        start.problem if problem is None else problem,
        start.key if key is None else key,
    )


def _call_of_start(start: RunResult, strategy: Any, problem: Any) -> dict[str, Any]:
    """Returns the parts of a call that it shares with the call of the result that it continues."""
    other = {"missing": "was changed on the way"}
    return {
        "strategy": start.call["strategy"] if strategy is None else other,
        "problem": start.call["problem"] if problem is None else other,
        "has_solution": start.call["has_solution"],
    }


@jax.transfer_guard("allow")
@checks_arguments
def minimize(
    fn: Callable[..., Any],
    solution: Solution,
    strategy: StrategyLike | None = None,
    *,
    key: int | jax.Array = 0,
    num_steps: int | None = None,
    num_generations: int | None = None,
    data: tuple[Any, ...] = (),
    takes_key: bool = False,
    has_aux: bool = False,
    **options: Any,
) -> RunResult:
    """Minimises a plain function of one solution.

    Args:
        fn: `fn(solution, *data)` returns the scalar to minimise. JAX must be able to trace it.
        solution: Initial solution, a pytree of floating-point arrays.
        strategy: A strategy, its id, or a dictionary of its id and settings. Defaults to `cma_es` for up to 200
            parameters and to `sep_cma_es` for more. `sep_cma_es` scales each parameter by itself. Its memory and time
            grow with the number of parameters, not with its square and its cube.
        key: JAX random key, or a seed.
        num_steps: Budget in evaluations. Defaults to 1 000 per parameter, at least 10 000 and at most 1 000 000.
        num_generations: Budget in generations, instead of `num_steps`.
        data: Arrays that are passed to `fn` as arguments.
        takes_key: Whether `fn` takes a random key as its first argument.
        has_aux: Whether `fn` returns a pair: the scalar, and a dictionary of other facts about the solution.
        **options: Options of `run`: `target` (stops when fn(mean) is at most this), `stop`, `num_scores`, `callback`,
            `callback_every`, `log`, `checkpoint`, `accept_versions`, `progress`, `mesh`. All other options are settings
            of the strategy, such as `sigma`, if it is given by id.

    Returns:
        A `RunResult`. Its `best_solution` and `mean` are in the structure of `solution`.

    Raises:
        TypeError: If settings come with a strategy that is already made, a setting is unknown, or `fn` is a problem.

    >>> import jax.numpy as jnp, zoo
    >>> result = zoo.minimize(lambda x: jnp.sum((x - 3.0) ** 2), jnp.zeros(4), sigma=1.0)
    >>> [round(float(x), 3) for x in result.mean]
    [3.0, 3.0, 3.0, 3.0]
    """
    if isinstance(fn, (Problem, str, Mapping)):
        raise TypeError(
            "minimize takes a function of one solution, got "
            f"{'a problem' if isinstance(fn, Problem) else shown(fn)}. To run a strategy on a problem, call "
            "zoo.run(strategy, problem)."
        )
    problem = from_function(fn, solution, data=data, takes_key=takes_key, has_aux=has_aux)
    settings = {name: options.pop(name) for name in tuple(options) if name not in _OPTIONS}
    dims = num_dims(jax.eval_shape(problem.initial_solution, jax.random.key(0)))
    if strategy is None:
        strategy = "cma_es" if dims <= _MAX_DIMS_OF_CMA_ES else "sep_cma_es"
    strategy = given_strategy(strategy, settings, "minimize", problem)
    if num_steps is None and num_generations is None:
        num_steps = min(max(1_000 * dims, 10_000), 1_000_000)
    return run(strategy, problem, key, num_steps=num_steps, num_generations=num_generations, **options)


# Time per evaluation of Rosenbrock's function, measured on a busy core, at 100 and 300 parameters: 1.5 ms and 9 ms with
# cma_es, 4 and 12 microseconds with sep_cma_es. With the default budget, cma_es takes minutes and most of an hour, and
# sep_cma_es takes seconds.
_MAX_DIMS_OF_CMA_ES = 200

_OPTIONS = ("num_scores", "target", "stop", "callback", "callback_every", "log", "checkpoint")
_OPTIONS += ("accept_versions", "progress", "mesh")
"""The options that `minimize` passes to `run`."""
