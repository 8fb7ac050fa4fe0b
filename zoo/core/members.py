"""Evaluates members by a problem's functions of one solution, each member with the key of its group."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.core.evaluation import Aux, Evaluation, checked_aux
from zoo.core.fitness import as_fitness
from zoo.core.grouping import check_population_size, group_keys
from zoo.core.sensitivity import gradient_of_step
from zoo.core.solution import Solution, check_solution
from zoo.core.surrogate import SurrogateGradient


def evaluate_members(problem: Any, key: jax.Array, population: Any, state: Any) -> tuple[Evaluation, Any]:
    """Evaluates every member of a population by `fitness_and_aux`; see `Problem.evaluate`."""
    size = check_population_size(problem, population, state.groups)
    current = problem.with_statistics(state.statistics)
    keys = group_keys(key, state.members.shape[0])

    def evaluate_one(key: jax.Array, solution: Solution) -> tuple[jax.Array, Aux, Solution | None]:
        if state.sensitivity is None:
            return *current.fitness_and_aux(key, solution), None
        return gradient_of_step(state.sensitivity, key, current.fitness_and_aux, solution)

    fitness, aux, gradient = current._map_members(evaluate_one, keys, population, state.groups)
    if getattr(fitness, "shape", None) != (size,):
        raise ValueError(
            f"{type(problem).__name__}.fitness must return a scalar, got "
            f"{jax.tree.map(lambda f: f.shape[1:], fitness)} for one solution."
        )
    fitness, aux = as_fitness(fitness, f"{type(problem).__name__}.evaluate"), checked_aux(aux)
    return Evaluation(fitness, jnp.ones(size, bool), jnp.asarray(size, jnp.int32), None, aux, gradient), state


def gradient_at_members(problem: Any, key: jax.Array, state: Any) -> SurrogateGradient:
    """Returns the surrogate gradient of a problem on the data that `evaluate_members` uses with the same key."""
    current = problem.with_statistics(state.statistics)
    num_groups = state.members.shape[0]

    def gradient(solution: Solution) -> Solution:
        keys = group_keys(key, num_groups)
        gradients = jax.vmap(current.gradient, in_axes=(0, None))(keys, check_solution(solution))
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)

    def members(population: Any) -> Any:
        return current._map_members(current.gradient, group_keys(key, num_groups), population, state.groups)

    return SurrogateGradient(gradient, members)


def score_solution(problem: Any, key: jax.Array, solution: Solution, state: Any) -> dict[str, jax.Array]:
    """Returns the held-out metrics of a solution; see `Problem.evaluate_score`."""
    metrics = problem.with_statistics(state.statistics).score(key, solution)
    if problem.headline not in metrics:
        name = type(problem).__name__
        raise ValueError(f"{name}.score must return its headline metric {problem.headline!r}, got {sorted(metrics)}.")
    return metrics
