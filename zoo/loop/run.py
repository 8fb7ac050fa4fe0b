"""Runs one strategy on one problem: `run`, and `minimize` for a plain function."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from zoo.core.problem import Problem, from_function
from zoo.core.strategy import Solution, Strategy, num_dims
from zoo.loop.drive import Budget, Progress, as_key, drive
from zoo.registry import make_problem, make_strategy

if TYPE_CHECKING:
    import pathlib

    import pandas as pd


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The outcome of `run`.

    Attributes:
        strategy: The strategy that ran, open settings filled in.
        problem: The problem it ran on.
        mean: The recommended solution, in the structure of the initial one.
        best_solution: The member with the lowest fitness seen. Where fitness is noisy it may owe that to luck.
        best_fitness: Its fitness.
        state: Final state of the strategy.
        problem_state: Final state of the problem, with the statistics it gathered.
        metrics: The final score of `mean`, by name.
        history: Arrays by name, one entry per generation: `steps` (cumulative), `best_fitness` and `mean_fitness` of
            the generation.
        scores: Arrays by name, one entry per scoring: `generation`, `steps`, `seconds`, and the metrics.
        seconds: Time spent in the compiled loop; compilation and scoring apart.
        compile_seconds: Time spent compiling (close to zero when a program was already there).
        stopped_by: `"budget"`, `"target"` or `"callback"`.
    """

    strategy: Strategy
    problem: Problem
    mean: Solution
    best_solution: Solution
    best_fitness: float
    state: Any
    problem_state: Any
    metrics: dict[str, float]
    history: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    seconds: float
    compile_seconds: float
    stopped_by: str

    @property
    def score(self) -> float:
        """The final headline score."""
        return self.metrics[self.problem.headline]

    @property
    def num_generations(self) -> int:
        """Generations done."""
        return len(self.history["steps"])

    @property
    def num_steps(self) -> int:
        """Problem steps spent."""
        return int(self.history["steps"][-1]) if len(self.history["steps"]) else 0

    def curve(self) -> "pd.DataFrame":
        """Returns the score curve as a data frame."""
        import pandas as pd

        return pd.DataFrame(self.scores)

    def save(self, folder: "str | pathlib.Path") -> None:
        """Saves solutions, statistics, curves and settings to a folder; `zoo.load_run` reads them back."""
        from zoo.benchmarking.results import save_run

        save_run(self, folder)


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
    checkpoint: "str | pathlib.Path | None" = None,
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
    target: float | None = None,
    data: tuple[Any, ...] = (),
    takes_key: bool = False,
    num_scores: int = 20,
    callback: Callable[[Progress], bool | None] | None = None,
    checkpoint: "str | pathlib.Path | None" = None,
    progress: bool = False,
    mesh: Mesh | None = None,
    **settings: Any,
) -> RunResult:
    """Minimises a plain function of one solution.

    Args:
        fn: `fn(solution, *data)` returns the scalar to minimise and is traceable by JAX.
        solution: Initial solution, a pytree of floating-point arrays.
        strategy: A strategy or its id.
        key: JAX random key, or a seed.
        num_steps: Budget in evaluations; default 1 000 per parameter, at least 10 000 and at most 1 000 000.
        num_generations: Budget in generations, instead.
        target: Stop when fn(mean) is at most this.
        data: Arrays handed to `fn` as arguments.
        takes_key: Whether `fn` takes a random key first.
        num_scores: See `run`.
        callback: See `run`.
        checkpoint: See `run`.
        progress: See `run`.
        mesh: See `run`.
        **settings: Settings of the strategy, if given by id, such as `sigma`.

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
    if isinstance(strategy, str):
        strategy = make_strategy(strategy, problem=problem, **settings)
    elif settings:
        raise TypeError(
            f"minimize got a strategy that is already made and settings {sorted(settings)} for it; use "
            "strategy.replace(...) instead, or give the strategy's id."
        )
    if num_steps is None and num_generations is None:
        num_steps = min(max(1_000 * num_dims(problem.initial_solution(jax.random.key(0))), 10_000), 1_000_000)
    return run(
        strategy,
        problem,
        key,
        num_generations=num_generations,
        num_steps=num_steps,
        num_scores=num_scores,
        target=target,
        callback=callback,
        checkpoint=checkpoint,
        progress=progress,
        mesh=mesh,
    )


def resolve(strategy: str | Strategy, problem: str | Problem) -> tuple[Strategy, Problem]:
    """Returns strategy and problem as instances, ids made and open settings filled in."""
    if not isinstance(problem, Problem):
        problem = make_problem(problem)
    if isinstance(strategy, Strategy):
        start = jax.eval_shape(problem.initial_solution, jax.random.key(0))
        return strategy.for_solution(start), problem
    return make_strategy(strategy, problem=problem), problem
