"""Runs one strategy on one problem: `run`, and `minimize` for a plain function."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from zoo.core.keys import as_key
from zoo.core.problem import Problem, from_function
from zoo.core.solution import Solution, num_dims
from zoo.core.strategy import Strategy
from zoo.loop.budget import Budget
from zoo.loop.drive import drive
from zoo.loop.progress import Progress
from zoo.loop.result import RunResult
from zoo.registry import make_strategy, resolve


def run(
    strategy: str | Strategy,
    problem: str | Problem,
    key: int | jax.Array = 0,
    *,
    num_generations: int | None = None,
    num_steps: int | None = None,
    num_scores: int = 20,
    target: float | None = None,
    solution: Solution | None = None,
    callback: Callable[[Progress], bool | None] | None = None,
    checkpoint: str | pathlib.Path | None = None,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> RunResult:
    """Runs a strategy on a problem.

    Args:
        strategy: A strategy or its id. Given an id, settings the problem suggests are used.
        problem: A problem or its id.
        key: JAX random key, or a seed.
        num_generations: Budget in generations.
        num_steps: Budget in problem steps; the run stops after the first generation that reaches it. Default, if no
            budget is given: `problem.suggested_num_steps`.
        num_scores: How often the held-out score is computed (and progress, target, callback and checkpoint seen to),
            evenly over the budget; the initial solution is scored besides.
        target: Stop when the headline score is at least as good as this.
        solution: Initial solution; default: `problem.initial_solution`.
        callback: Called after each scoring with a `Progress`; a true return value stops the run.
        checkpoint: A folder. Progress is saved there after each scoring, and a run that finds its own checkpoint
            there resumes from it: the result is bit-identical to that of an uninterrupted run.
        progress: Whether to show a progress bar.
        mesh: Devices to split populations over, `zoo.population_mesh()`; the population size must be a multiple of
            their number. Results are those of one device, but for rounding. Default: one device. Where several
            processes share it (`jax.distributed`), all of them make this call and get the result; a callback must
            return the same in all; the first alone writes and reads the checkpoint, and shows progress.

    Returns:
        A `RunResult`.

    Raises:
        ValueError: If a budget is invalid, the checkpoint is another run's, or the population cannot be divided.
        TypeError: If the strategy does not fit the problem.

    >>> import zoo
    >>> result = zoo.run("cma_es", "blackbox/sphere", key=0, num_generations=200)
    >>> result.best_fitness < 1e-6
    True
    """
    strategy, problem = resolve(strategy, problem)
    outcome = drive(
        strategy,
        problem,
        as_key(key),
        budget=Budget.make(problem, num_generations, num_steps, num_scores),
        target=target,
        solution=solution,
        callback=callback,
        checkpoint=checkpoint,
        progress="run" if progress else None,
        mesh=mesh,
    )
    scores = outcome.scores[0]
    return RunResult(
        strategy=strategy,
        problem=problem,
        mean=outcome.mean,
        best_solution=outcome.carry.best_solution,
        best_fitness=float(outcome.carry.best_fitness),
        state=outcome.carry.state,
        problem_state=outcome.carry.problem_state,
        metrics={name: float(scores[name][-1]) for name in outcome.metrics},
        history=outcome.histories[0],
        scores=scores,
        seconds=outcome.seconds,
        compile_seconds=outcome.compile_seconds,
        stopped_by=outcome.stopped_by,
    )


def minimize(
    fn: Callable[..., Any],
    solution: Solution,
    strategy: str | Strategy = "cma_es",
    *,
    key: int | jax.Array = 0,
    num_steps: int | None = None,
    num_generations: int | None = None,
    data: tuple[Any, ...] = (),
    takes_key: bool = False,
    **options: Any,
) -> RunResult:
    """Minimises a plain function of one solution.

    Args:
        fn: `fn(solution, *data)` returns the scalar to minimise and is traceable by JAX.
        solution: Initial solution, a pytree of floating-point arrays.
        strategy: A strategy or its id.
        key: JAX random key, or a seed.
        num_steps: Budget in evaluations; default 1 000 per parameter, at least 10 000 and at most 1 000 000.
        num_generations: Budget in generations, instead.
        data: Arrays handed to `fn` as arguments.
        takes_key: Whether `fn` takes a random key first.
        **options: Those of `run`: `target` (stop when fn(mean) is at most this), `num_scores`, `callback`,
            `checkpoint`, `progress`, `mesh`. All others are settings of the strategy, such as `sigma`, if it is given
            by id.

    Returns:
        A `RunResult`; `best_solution` and `mean` are in the structure of `solution`.

    Raises:
        TypeError: If settings come with a strategy that is already made, or a setting is unknown.

    >>> import jax.numpy as jnp, zoo
    >>> result = zoo.minimize(lambda x: jnp.sum((x - 3.0) ** 2), jnp.zeros(4), sigma=1.0)
    >>> [round(float(x), 3) for x in result.mean]
    [3.0, 3.0, 3.0, 3.0]
    """
    problem = from_function(fn, solution, data=data, takes_key=takes_key)
    settings = {name: options.pop(name) for name in tuple(options) if name not in _OPTIONS}
    if isinstance(strategy, str):
        strategy = make_strategy(strategy, problem=problem, **settings)
    elif settings:
        raise TypeError(
            f"minimize got a strategy that is already made and settings {sorted(settings)} for it; use "
            "strategy.replace(...) instead, or give the strategy's id."
        )
    if num_steps is None and num_generations is None:
        num_steps = min(max(1_000 * num_dims(problem.initial_solution(jax.random.key(0))), 10_000), 1_000_000)
    return run(strategy, problem, key, num_steps=num_steps, num_generations=num_generations, **options)


_OPTIONS = ("num_scores", "target", "callback", "checkpoint", "progress", "mesh")
"""What `minimize` hands on to `run`."""
