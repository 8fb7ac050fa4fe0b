"""Runs one strategy on one problem: `run`, and `minimize` for a plain function."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_scalar, shown
from zoo.core.keys import as_key
from zoo.core.problem import Problem, from_function
from zoo.core.solution import Solution, check_start, num_dims
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.call import describe_call, save_call
from zoo.loop.converged import Converged
from zoo.loop.drive import Options, drive
from zoo.loop.files import as_folder
from zoo.loop.progress import Progress
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
    callback: Callable[[Progress], bool | None] | None = None,
    checkpoint: str | pathlib.Path | None = None,
    accept_versions: bool = False,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> RunResult:
    """Runs a strategy on a problem.

    Args:
        strategy: A strategy, its id, or a dictionary of its id and settings such as `{"id": "cma_es", "sigma": 0.5}`.
            Given an id, settings the problem suggests are used.
        problem: A problem, its id, or a dictionary of its id and settings.
        key: JAX random key, or a seed; default 0.
        start: The result of a run, which this one goes on from, bit for bit as if that one had had this budget. The
            budget counts from the beginning. Only the score at the end of that run stays among the scores. Strategy,
            problem and key are by default those of the result. What may be another in them are numbers, such as a
            learning rate.
        num_generations: Budget in generations.
        num_steps: Budget in problem steps. The run ends with the last generation that the budget has room for. Where
            only its evaluation tells how many steps a generation takes, the one that takes too many is dropped; see
            `RunResult.overshoot`. Default, if no budget is given: `problem.suggested_num_steps`.
        num_scores: How often the held-out score is computed (and progress, target, callback and checkpoint seen to),
            evenly over the budget. The initial solution is scored besides. Scores are no part of the budget. Default:
            20 times. A problem that the host computes is looked at as often, and scored at the end only, unless there
            is a target.
        target: Stop when the headline score is at least as good as this.
        stop: Stop when the search has converged, `zoo.Converged()`. That is looked at in every 100th generation; in
            every one, if the host computes the problem.
        solution: Initial solution, in the structure and the shapes of the problem's; default:
            `problem.initial_solution`.
        callback: Called after each scoring with a `Progress`; a true return value stops the run.
        checkpoint: A folder. Progress is saved there after each scoring, and a run that finds its own checkpoint
            there resumes from it: the result is bit-identical to that of an uninterrupted run. Of a damaged one, the
            one before it. The checkpoint of another run is an error: one with other settings, data, key or code,
            precision or versions. One process at a time may use the folder.
        accept_versions: Whether to resume from a checkpoint of another version of the zoo or of JAX, or of code that
            cannot be compared.
        progress: Whether to show a progress bar.
        mesh: Devices to split populations over, `zoo.population_mesh()`; the population size must be a multiple of
            their number. Results are those of one device, but for rounding. Default: one device. Where several
            processes share it (`jax.distributed`), all of them make this call and get the result; a callback must
            return the same in all; the first alone writes and reads the checkpoint, and shows progress.

    Returns:
        A `RunResult`.

    Raises:
        ValueError: If a budget is invalid or spent, the checkpoint is another run's, its folder cannot be written or is
            in use, the population cannot be divided, the solution or the result to start from does not fit, the
            solution is not finite, or there is not one key but several.
        TypeError: If the strategy does not fit the problem, there is none, or the key is none.

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
        callback=callback,
        began=None if checkpoint is None else functools.partial(save_call, checkpoint, call),
        checkpoint=checkpoint,
        accept_versions=accept_versions,
        progress="run" if progress else None,
        mesh=mesh,
    )
    outcome = drive(strategy, problem, key, options)
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
    """Returns strategy, problem and key, by default those of a result."""
    if not isinstance(start, RunResult):
        raise TypeError(f"run expects start to be the result of a run, got {type(start).__name__}.")
    for name, value in (("solution", solution), ("checkpoint", checkpoint)):
        if value is not None:
            raise ValueError(f"run goes on from {name} or from start: give one of them.")
    return (
        start.strategy if strategy is None else strategy,
        start.problem if problem is None else problem,
        start.key if key is None else key,
    )


def _call_of_start(start: RunResult, strategy: Any, problem: Any) -> dict[str, Any]:
    """Returns what a call has in common with that of the result that it goes on from."""
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
        fn: `fn(solution, *data)` returns the scalar to minimise and is traceable by JAX.
        solution: Initial solution, a pytree of floating-point arrays.
        strategy: A strategy, its id, or a dictionary of its id and settings. Default: `cma_es` for up to 200
            parameters; for more `sep_cma_es`, which scales each of them by itself, in memory and time that grow with
            their number, not with its square and cube.
        key: JAX random key, or a seed.
        num_steps: Budget in evaluations; default 1 000 per parameter, at least 10 000 and at most 1 000 000.
        num_generations: Budget in generations, instead.
        data: Arrays handed to `fn` as arguments.
        takes_key: Whether `fn` takes a random key first.
        has_aux: Whether `fn` returns a pair, the scalar and a dictionary of what else there is to say of the solution.
        **options: Those of `run`: `target` (stop when fn(mean) is at most this), `stop`, `num_scores`, `callback`,
            `checkpoint`, `accept_versions`, `progress`, `mesh`. All others are settings of the strategy, such as
            `sigma`, if it is given by id.

    Returns:
        A `RunResult`; `best_solution` and `mean` are in the structure of `solution`.

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


# An evaluation of Rosenbrock's function, measured on a busy core: by cma_es 1.5 ms at 100 parameters and 9 ms at 300,
# by sep_cma_es 4 and 12 microseconds. With the default budget that is minutes and most of an hour, and seconds.
_MAX_DIMS_OF_CMA_ES = 200

_OPTIONS = ("num_scores", "target", "stop", "callback", "checkpoint", "accept_versions", "progress", "mesh")
"""What `minimize` hands on to `run`."""
