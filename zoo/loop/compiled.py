"""The compiled part of a run: start, advance by a segment of generations, score.

Each generation's key is derived from its number, so the numbers do not depend on how a run is cut into segments,
interrupted or resumed. Strategy and problem are arguments (pytrees), so an equal program is compiled once per process.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core.population import take_member
from zoo.core.problem import Problem
from zoo.core.sharding import keep_replicated
from zoo.core.strategy import Solution, Strategy, check_solution


class Carry(NamedTuple):
    """What a run carries from generation to generation; with a leading axis of seeds in a batched run."""

    state: Any
    problem_state: Any
    best_solution: Solution
    best_fitness: jax.Array  # []
    generation: jax.Array  # []
    steps: jax.Array  # [] since the segment began


class Record(NamedTuple):
    """What is recorded of each generation: `[length]`, or `[num_seeds, length]`."""

    best_fitness: jax.Array
    mean_fitness: jax.Array
    steps: jax.Array


class RunKeys(NamedTuple):
    """The keys that a run derives from its own."""

    solution: jax.Array
    strategy: jax.Array
    problem: jax.Array
    generations: jax.Array
    score: jax.Array


def run_keys(key: jax.Array) -> RunKeys:
    """Returns the keys that a run derives from its own; `score` is that of the held-out data."""
    return RunKeys(*jax.random.split(key, 5))


@functools.partial(jax.jit, static_argnames="batched")
def start(strategy: Strategy, problem: Problem, keys: jax.Array, solution: Solution | None, *, batched: bool) -> Carry:
    """Returns the initial carry of one run (`keys` is a key) or of several (an array of keys)."""

    def start_one(run_key: jax.Array) -> Carry:
        key = run_keys(run_key)
        initial = check_solution(problem.initial_solution(key.solution) if solution is None else solution)
        state = strategy.init(key.strategy, initial)
        problem_state = problem.init(key.problem, strategy.groups, initial)

        def first_fitness() -> jax.Array:
            surrogate = _surrogate(strategy, problem, key.problem, problem_state)
            population, _ = strategy.ask(key.strategy, state, surrogate)
            return problem.evaluate(key.problem, population, problem_state)[0].fitness

        zero = jnp.zeros((), jnp.int32)
        best_fitness = jnp.asarray(jnp.inf, jax.eval_shape(first_fitness).dtype)
        return Carry(state, problem_state, strategy.mean(state), best_fitness, zero, zero)

    return jax.vmap(start_one)(keys) if batched else start_one(keys)


@functools.partial(jax.jit, static_argnames=("length", "batched"), donate_argnames="carry")
def advance(
    strategy: Strategy,
    problem: Problem,
    carry: Carry,
    keys: jax.Array,
    generation_limit: jax.Array,
    step_limit: jax.Array,
    *,
    length: int,
    batched: bool,
) -> tuple[Carry, Record]:
    """Runs up to `length` generations, while a run is below both limits.

    Args:
        strategy: The strategy.
        problem: The problem.
        carry: The carry; its memory is reused.
        keys: The run's key, or the runs' keys.
        generation_limit: Generation to stop at, per run.
        step_limit: Problem steps to stop at, counted from this call, per run.
        length: Most generations per call.
        batched: Whether there are several runs.

    Returns:
        The carry and the record; entries past a run's last generation are meaningless.
    """

    def is_active(carry: Carry) -> jax.Array:
        return (carry.generation < generation_limit) & (carry.steps < step_limit)

    def one_generation(carry: Carry, key: jax.Array) -> tuple[Carry, Record]:
        return generation(strategy, problem, carry, run_keys(key).generations)

    def body(loop: tuple[jax.Array, Carry, Record]) -> tuple[jax.Array, Carry, Record]:
        i, carry, record = loop
        new_carry, row = (jax.vmap(one_generation) if batched else one_generation)(carry, keys)
        if batched:  # runs that are done wait for the others
            active = is_active(carry)
            new_carry = jax.vmap(lambda a, new, old: jax.tree.map(lambda n, o: jnp.where(a, n, o), new, old))(
                active, new_carry, carry
            )
        record = jax.tree.map(lambda buffer, x: buffer.at[..., i].set(x), record, row)
        return i + 1, new_carry, record

    carry = carry._replace(steps=jnp.zeros_like(carry.steps))
    fitness = jnp.zeros((*carry.steps.shape, length), carry.best_fitness.dtype)
    record = Record(fitness, fitness, jnp.zeros(fitness.shape, jnp.int32))
    _, carry, record = jax.lax.while_loop(
        lambda loop: (loop[0] < length) & jnp.any(is_active(loop[1])),
        body,
        (jnp.zeros((), jnp.int32), carry, record),
    )
    return carry, keep_replicated(record)


def generation(strategy: Strategy, problem: Problem, carry: Carry, key: jax.Array) -> tuple[Carry, Record]:
    """The loop that never changes, one generation of it, and the bookkeeping of the best member."""
    key_ask, key_evaluate = jax.random.split(jax.random.fold_in(key, carry.generation))
    surrogate = _surrogate(strategy, problem, key_evaluate, carry.problem_state)
    population, state = strategy.ask(key_ask, carry.state, surrogate)
    evaluation, problem_state = problem.evaluate(key_evaluate, population, carry.problem_state)
    state = keep_replicated(strategy.tell(state, population, evaluation))

    fitness = keep_replicated(jnp.where(jnp.isnan(evaluation.fitness), jnp.inf, evaluation.fitness))
    index = jnp.argmin(fitness)
    better = fitness[index] < carry.best_fitness
    best_solution = jax.tree.map(
        lambda new, old: jnp.where(better, new, old), take_member(population, index), carry.best_solution
    )
    is_finite = jnp.isfinite(fitness)
    mean_fitness = jnp.sum(jnp.where(is_finite, fitness, 0)) / jnp.sum(is_finite)
    steps = jnp.asarray(evaluation.steps, jnp.int32)
    carry = Carry(
        state=state,
        problem_state=problem_state,
        best_solution=best_solution,
        best_fitness=jnp.minimum(fitness[index], carry.best_fitness),
        generation=carry.generation + 1,
        steps=carry.steps + steps,
    )
    return carry, Record(fitness[index], mean_fitness, steps)


@functools.partial(jax.jit, static_argnames="batched")
def score(
    strategy: Strategy, problem: Problem, carry: Carry, keys: jax.Array, *, batched: bool
) -> dict[str, jax.Array]:
    """Scores the recommended solution on held-out data, the same at every call of a run."""

    def score_one(carry: Carry, key: jax.Array) -> dict[str, jax.Array]:
        return problem.evaluate_score(run_keys(key).score, strategy.mean(carry.state), carry.problem_state)

    return (jax.vmap(score_one) if batched else score_one)(carry, keys)


def forget_programs() -> None:
    """Drops the compiled loops of all strategies and problems: thousands of them exhaust a process's memory maps."""
    programs: tuple[Any, ...] = (start, advance, score)  # whose type hints know no cache
    for program in programs:
        program.clear_cache()


def _surrogate(strategy: Strategy, problem: Problem, key: jax.Array, problem_state: Any) -> Any:
    # Not asked for unless used, so that a problem is free to raise when it has none to give.
    return problem.surrogate_gradient(key, problem_state) if strategy.takes_surrogate else None
