"""The loop that never changes, in which all checks run strategies and problems."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Problem, Solution, Strategy, map_members, population_size


class Loop(NamedTuple):
    """What the loop carries: the state of the strategy, and the state of the problem."""

    state: Any
    problem_state: Any


def start(strategy: Strategy, problem: Problem, key: jax.Array, solution: Solution | None = None) -> Loop:
    """Returns the carry of the loop before its first generation; without a solution, from the problem's own."""
    key_solution, key_init, key_problem = jax.random.split(key, 3)
    solution = problem.initial_solution(key_solution) if solution is None else solution
    state = strategy.init(key_init, solution)
    return Loop(state, problem.init(key_problem, strategy.groups, solution))


def generation(strategy: Strategy, problem: Problem, loop: Loop, key: jax.Array) -> tuple[Loop, jax.Array]:
    """Runs one generation; returns the new carry and the fitness of its members, `[population_size]`."""
    key_ask, key_evaluate = jax.random.split(key)
    surrogate = problem.surrogate_gradient(key_evaluate, loop.problem_state)
    population, state = strategy.ask(key_ask, loop.state, surrogate)
    evaluation, problem_state = problem.evaluate(key_evaluate, population, loop.problem_state)
    state = strategy.tell(state, population, evaluation)
    return Loop(state, problem_state), evaluation.fitness


def told(strategy: Strategy, population: Any, fitness: jax.Array, fn: Any) -> Any:
    """Returns what is told of a population: its fitness, and gradients of a function if the strategy asks for them."""
    if strategy.groups.sensitivity is None:
        return fitness
    size = population_size(population)
    return Evaluation.of(jnp.asarray(fitness), size)._replace(gradient=map_members(jax.grad(fn), population))


def with_settings(strategy: Any, **settings: Any) -> Any:
    """Returns the strategy with the settings that it has changed; a wrapper passes them on to its base."""
    if hasattr(strategy, "base"):
        return strategy.replace(base=with_settings(strategy.base, **settings))
    return strategy.replace(**{name: value for name, value in settings.items() if hasattr(strategy, name)})
