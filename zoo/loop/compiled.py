"""The compiled part of a run: start, advance by a segment of generations, score.

The key of a generation is derived from its index. So the results do not depend on how a run is cut into segments,
interrupted or resumed. Strategy and problem are arguments (pytrees), so an equal program is compiled once per process.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core.evaluation import Aux, Evaluation
from zoo.core.population import Population, repeat_solution, take_member
from zoo.core.problem import Problem
from zoo.core.sharding import keep_replicated
from zoo.core.solution import Solution, check_solution
from zoo.core.strategy import State, Strategy
from zoo.core.vectors import norm
from zoo.loop.programs import Program

SEGMENT = 1024
"""Most generations per call of `advance`. All budgets share it, because another program may round differently."""


class Carry(NamedTuple):
    """The state of a run between two generations. In a batched run all arrays have a leading axis of seeds."""

    state: Any
    problem_state: Any
    best_solution: Solution
    best_fitness: jax.Array  # []
    best_aux: Aux  # of the best solution
    aux: Aux  # of the latest population, [population_size, ...] each
    generation: jax.Array  # []
    steps: jax.Array  # [] problem steps in this segment
    overshoot: jax.Array  # [] problem steps of the generation that this segment dropped; 0 if it dropped none


class Limits(NamedTuple):
    """Where `advance` stops. Each field is an array with one number per run.

    Attributes:
        generation: The generation to stop at.
        steps: Stop after the generation that reaches this number of problem steps, counted from the start of the call.
        most_steps: Drop the generation that exceeds this number of problem steps, and stop before it.
    """

    generation: Any
    steps: Any
    most_steps: Any


class Record(NamedTuple):
    """The record of each generation in a segment: arrays `[SEGMENT]`, or `[num_seeds, SEGMENT]`."""

    best_fitness: jax.Array
    mean_fitness: jax.Array  # of the members whose fitness is finite
    std_fitness: jax.Array  # the standard deviation of the same members
    worst_fitness: jax.Array  # infinite where a member failed
    steps: jax.Array
    failed: jax.Array  # the share of members whose fitness is not finite
    aux: Aux  # means over the members of the values that are numbers


class Mark(NamedTuple):
    """The mean and the generation of a run at its latest score."""

    mean: Solution
    generation: jax.Array  # []


class Diagnosis(NamedTuple):
    """The state of a search in numbers. Each field has one number per run."""

    sigma: jax.Array
    step_norm: jax.Array
    condition_number: jax.Array


MAX_PROGRAMS = 30
"""Number of compiled loops from which on all are dropped. A loop may serve several runs."""


Batch = bool | tuple[bool, ...]
"""Whether there are several runs; or, for each leaf of the strategy, whether each run has its own (a leading axis)."""


def each_run(fn: Callable[..., Any], strategy: Strategy, batched: Batch) -> Callable[..., Any]:
    """Returns `fn(strategy, *arguments)` as a function of the arguments: of one run, or of all runs at once.

    Args:
        fn: A function of a strategy and of what belongs to one run.
        strategy: The strategy, or one whose leaves differ between the runs.
        batched: Which of these it is.
    """
    if not batched:
        return functools.partial(fn, strategy)
    leaves, structure = jax.tree.flatten(strategy)
    axes = [0 if differs else None for differs in batched] if isinstance(batched, tuple) else [None] * len(leaves)

    def call(leaves: list[Any], *arguments: Any) -> Any:
        return fn(jax.tree.unflatten(structure, leaves), *arguments)

    return lambda *arguments: jax.vmap(call, in_axes=(axes, *[0] * len(arguments)))(leaves, *arguments)


class RunKeys(NamedTuple):
    """The keys that a run derives from its own key. In a batched run they have a leading axis of seeds."""

    solution: jax.Array
    strategy: jax.Array
    problem: jax.Array
    generations: jax.Array
    score: jax.Array


def run_keys(key: jax.Array) -> RunKeys:
    """Returns the keys that a run derives from its own key. `score` is the key of the held-out data."""
    return RunKeys(*jax.random.split(key, 5))


@functools.partial(Program, repeats=False, static_argnames="batched")
def start(
    strategy: Strategy, problem: Problem, keys: jax.Array, solution: Solution | None, *, batched: Batch
) -> tuple[RunKeys, Carry]:
    """Returns the keys and the initial carry of one run (`keys` is a key) or of several runs (an array of keys)."""

    def start_one(strategy: Strategy, run_key: jax.Array) -> tuple[RunKeys, Carry]:
        key = run_keys(run_key)
        initial = check_solution(problem.initial_solution(key.solution) if solution is None else solution)
        state = strategy.init(key.strategy, initial)
        problem_state = problem.init(key.problem, strategy.groups, initial)
        zero = jnp.zeros((), jnp.int32)
        best_fitness = jnp.asarray(jnp.inf, float)
        aux = problem.init_aux(initial)
        members = repeat_solution(aux, len(strategy.groups.ids))
        return key, Carry(state, problem_state, strategy.mean(state), best_fitness, aux, members, zero, zero, zero)

    return each_run(start_one, strategy, batched)(keys)


@functools.partial(Program, repeats=True, static_argnames="batched", donate_argnames="carry")
def advance(
    strategy: Strategy,
    problem: Problem,
    carry: Carry,
    key: jax.Array,
    limits: Limits,
    *,
    batched: Batch,
) -> tuple[Carry, Record]:
    """Runs up to `SEGMENT` generations, as long as any run is within its limits.

    Args:
        strategy: The strategy.
        problem: The problem.
        carry: The carry. Its memory is reused.
        key: The `generations` of the `RunKeys`.
        limits: Where each run stops.
        batched: Whether there are several runs, and how the strategy differs between them.

    Returns:
        The carry and the record. Entries after the last generation of a run are meaningless.
    """
    known_steps = problem.generation_steps(len(strategy.groups.ids))

    def is_active(carry: Carry) -> jax.Array:
        below = (carry.generation < limits.generation) & (carry.steps < limits.steps)
        has_room = carry.overshoot == 0 if known_steps is None else carry.steps + known_steps <= limits.most_steps
        return below & has_room

    def keys_of_segment(key: jax.Array, generation: jax.Array) -> jax.Array:
        return jax.vmap(generation_keys, in_axes=(None, 0))(key, generation + jnp.arange(SEGMENT, dtype=jnp.int32))

    def one_generation(strategy: Strategy, carry: Carry, keys: jax.Array) -> tuple[Carry, Record]:
        return generation(strategy, problem, carry, keys)

    def keep_where(condition: jax.Array, new: Carry, old: Carry) -> Carry:
        def keep(condition: jax.Array, new: Carry, old: Carry) -> Carry:
            return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)

        return (jax.vmap(keep) if batched else keep)(condition, new, old)

    def body(loop: tuple[jax.Array, Carry, Record]) -> tuple[jax.Array, Carry, Record]:
        i, carry, record = loop
        new_carry, row = each_run(one_generation, strategy, batched)(carry, keys[..., i, :])
        if batched:  # finished runs wait for the others
            new_carry = keep_where(is_active(carry), new_carry, carry)
        if known_steps is None:
            fits = new_carry.steps <= limits.most_steps
            dropped = carry._replace(overshoot=jnp.where(fits, 0, new_carry.steps - carry.steps))
            new_carry = keep_where(fits, new_carry, dropped)
        record = jax.tree.map(
            lambda buffer, x: jax.lax.dynamic_update_index_in_dim(buffer, x[..., None], i, -1), record, row
        )
        return i + 1, new_carry, record

    # All keys are drawn at once, before the loop. A run that has stopped does not go on in this call, so the index of
    # an iteration gives its generation.
    keys = (jax.vmap(keys_of_segment) if batched else keys_of_segment)(key, carry.generation)
    carry = carry._replace(steps=jnp.zeros_like(carry.steps), overshoot=jnp.zeros_like(carry.overshoot))
    fitness = jnp.zeros((*carry.steps.shape, SEGMENT), carry.best_fitness.dtype)
    aux = {name: fitness for name, x in carry.aux.items() if x.ndim == carry.steps.ndim + 1}
    record = Record(fitness, fitness, fitness, fitness, jnp.zeros(fitness.shape, jnp.int32), fitness, aux)
    _, carry, record = jax.lax.while_loop(
        lambda loop: (loop[0] < SEGMENT) & jnp.any(is_active(loop[1])),
        body,
        (jnp.zeros((), jnp.int32), carry, record),
    )
    return carry, keep_replicated(record)


def generation_keys(key: jax.Array, generation: jax.Array | int) -> jax.Array:
    """Returns the two keys of a generation, to ask and to evaluate. `key` is `RunKeys.generations`."""
    return jax.random.split(jax.random.fold_in(key, generation))


def ask_and_evaluate(
    strategy: Strategy,
    problem: Problem,
    keys: jax.Array | tuple[jax.Array, jax.Array],
    state: State,
    problem_state: Any,
) -> tuple[Population, Evaluation, State, Any]:
    """Asks for a population and evaluates it. `keys` are the two keys of the generation, to ask and to evaluate.

    Returns:
        The population, its evaluation, and the new states of the strategy and of the problem.
    """
    key_ask, key_evaluate = keys
    # The problem is only asked if the strategy uses the gradient, because a problem without one may raise.
    takes_surrogate = strategy.takes_surrogate(state)
    surrogate = problem.surrogate_gradient(key_evaluate, problem_state) if takes_surrogate else None
    population, state = strategy.ask(key_ask, state, surrogate)
    evaluation, problem_state = problem.evaluate(key_evaluate, population, problem_state)
    return population, evaluation, state, problem_state


def generation(strategy: Strategy, problem: Problem, carry: Carry, keys: jax.Array) -> tuple[Carry, Record]:
    """Runs one generation (ask, evaluate, tell), and keeps the best member."""
    asked = ask_and_evaluate(strategy, problem, keys, carry.state, carry.problem_state)
    population, evaluation, state, problem_state = asked
    state = keep_replicated(strategy.tell(state, population, evaluation))

    fitness = jnp.asarray(evaluation.fitness, carry.best_fitness.dtype)
    fitness = keep_replicated(jnp.where(jnp.isnan(fitness), jnp.inf, fitness))
    index = jnp.argmin(fitness)
    better = fitness[index] < carry.best_fitness
    best_solution, best_aux = jax.tree.map(
        lambda new, old: jnp.where(better, new, old),
        (take_member(population, index), take_member(evaluation.aux, index)),
        (carry.best_solution, carry.best_aux),
    )
    is_finite = jnp.isfinite(fitness)
    num_finite = jnp.sum(is_finite).astype(fitness.dtype)
    mean_fitness = jnp.sum(jnp.where(is_finite, fitness, 0)) / num_finite
    # Behind a barrier, so that the compiler adds up the mean in the same order as it would without this.
    std_fitness = _std(*jax.lax.optimization_barrier((fitness, mean_fitness)))
    aux = {n: jnp.mean(x.astype(fitness.dtype)) for n, x in evaluation.aux.items() if x.ndim == 1}
    steps = jnp.asarray(evaluation.steps, jnp.int32)
    carry = Carry(
        state=state,
        problem_state=problem_state,
        best_solution=best_solution,
        best_fitness=jnp.minimum(fitness[index], carry.best_fitness),
        best_aux=best_aux,
        aux=evaluation.aux,
        generation=carry.generation + 1,
        steps=carry.steps + steps,
        overshoot=carry.overshoot,
    )
    failed = (len(fitness) - num_finite) / len(fitness)
    return carry, Record(fitness[index], mean_fitness, std_fitness, jnp.max(fitness), steps, failed, aux)


def _std(fitness: jax.Array, mean: jax.Array) -> jax.Array:
    """Returns the standard deviation of the fitness values that are finite, whose mean is `mean`."""
    is_finite = jnp.isfinite(fitness)
    deviations = jnp.where(is_finite, jnp.where(is_finite, fitness, 0) - mean, 0)
    return norm(deviations) / jnp.sqrt(jnp.sum(is_finite).astype(fitness.dtype))


@functools.partial(Program, repeats=False, static_argnames="batched")
def score(
    strategy: Strategy, problem: Problem, carry: Carry, key: jax.Array, before: Mark, *, batched: Batch
) -> tuple[dict[str, jax.Array], Diagnosis, Mark]:
    """Scores the recommended solution on held-out data, and computes the diagnosis of the search.

    Args:
        strategy: The strategy.
        problem: The problem.
        carry: The carry.
        key: `RunKeys.score`, which is the same for all scores of a run.
        before: The mark of the previous score.
        batched: Whether there are several runs.

    Returns:
        The score, the diagnosis, and the mark of this score.
    """

    def score_one(
        strategy: Strategy, carry: Carry, key: jax.Array, before: Mark
    ) -> tuple[dict[str, jax.Array], Diagnosis, Mark]:
        # A copy, because `advance` reuses the memory of the carry.
        mark = jax.tree.map(jnp.copy, Mark(strategy.mean(carry.state), carry.generation))
        metrics = problem.evaluate_score(key, mark.mean, carry.problem_state)
        moved = norm(jax.tree.map(jnp.subtract, mark.mean, before.mean))
        num_generations = jnp.maximum(mark.generation - before.generation, 1).astype(moved.dtype)
        std = strategy.std(carry.state)
        sigma = norm(std) / jnp.sqrt(jnp.maximum(_count(std), 1).astype(moved.dtype))
        diagnosis = Diagnosis(sigma, moved / num_generations, strategy.condition_number(carry.state))
        return metrics, diagnosis, mark

    return each_run(score_one, strategy, batched)(carry, key, before)


@functools.partial(Program, repeats=True, static_argnames="batched")
def spread(strategy: Strategy, state: State, *, batched: Batch = False) -> tuple[jax.Array, jax.Array]:
    """Returns the largest standard deviation of the search, and the condition number of its covariance."""

    def spread_one(strategy: Strategy, state: State) -> tuple[jax.Array, jax.Array]:
        stds = jax.tree.leaves(strategy.std(state))
        return jnp.max(jnp.stack([jnp.max(s).astype(float) for s in stds])), strategy.condition_number(state)

    return each_run(spread_one, strategy, batched)(state)


def forget_programs() -> None:
    """Drops the compiled loops of earlier runs if there are `MAX_PROGRAMS` of them.

    Each loop takes megabytes, and every call of `minimize` with a new function compiles its own loop. Thousands of
    loops exhaust the memory maps of a process. All loops are dropped, and later runs compile theirs again.
    """
    if max(program.num_programs for program in _PROGRAMS) >= MAX_PROGRAMS:
        for program in _PROGRAMS:
            program.forget()


_PROGRAMS = (start, advance, score, spread)


def _count(std: Solution) -> jax.Array:
    """Returns the number of parameters that are searched, whose standard deviation is not zero."""
    return jnp.sum(jnp.stack([jnp.sum(x > 0) for x in jax.tree.leaves(std)]))
