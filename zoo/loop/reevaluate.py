"""Evaluates solutions again, because the lowest noisy fitness of a search belongs to the luckiest member."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.problem import Problem
from zoo.core.solution import Solution
from zoo.loop.programs import Program


class Reevaluation(NamedTuple):
    """A solution that was evaluated again.

    Attributes:
        solution: The solution.
        fitness: Mean fitness of the solution.
        standard_error: Standard error of the mean fitness; 0 where fitness is not noisy. NaN if the solution was
            evaluated once, or if a value was NaN or infinite.
        name: Name of the solution, such as `"mean"`.
    """

    solution: Solution
    fitness: float
    standard_error: float
    name: str


def reevaluate(
    problem: Problem, problem_state: Any, candidates: Mapping[str, Solution], key: jax.Array, number: int
) -> list[Reevaluation]:
    """Evaluates each solution `number` times, with the same random numbers for all. Returns the best first.

    Args:
        problem: The problem.
        problem_state: State of the problem. Only its statistics are used.
        candidates: Solutions by name.
        key: JAX random key.
        number: Evaluations of each solution. If the problem is unrolled, these are whole episodes.
    """
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *candidates.values())
    fitness = np.asarray(_fitness(problem, problem_state, stacked, key, number=number), np.float64)
    fitness = np.where(np.isnan(fitness), np.inf, fitness)
    errors = [np.std(x, ddof=1) / np.sqrt(number) if number > 1 and np.isfinite(x).all() else np.nan for x in fitness]
    rows = zip(candidates.items(), fitness.mean(axis=1), errors, strict=True)
    found = [Reevaluation(solution, float(mean), float(error), name) for (name, solution), mean, error in rows]
    return sorted(found, key=lambda each: each.fitness)


@functools.partial(Program, repeats=False, static_argnames="number")
def _fitness(problem: Problem, problem_state: Any, solutions: Any, key: jax.Array, *, number: int) -> jax.Array:
    """Returns the fitness of stacked solutions, `[num_solutions, number]`."""
    problem = problem.with_statistics(problem_state.statistics)
    keys = jax.random.split(key, number)
    return jax.lax.map(lambda solution: jax.vmap(lambda k: problem.fitness(k, solution))(keys), solutions)
