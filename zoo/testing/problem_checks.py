"""What every problem promises. Each check is one promise: its docstring says which."""

from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import Groups, UnrolledProblem, group_keys, take_member
from zoo.registry import make_strategy
from zoo.testing.loop import generation, start
from zoo.testing.problem_case import GROUPS, SIZE, ProblemCase
from zoo.testing.promise import (
    Check,
    add_to,
    refuses,
    require,
    require_equal,
    require_finite,
    require_signature,
    run_checks,
)

_MAX_CONSTANT = 2**20  # bytes of an array that is compiled into the program

PROBLEM_CHECKS: list[Check] = []
"""The promises of every problem, in the order in which they are checked."""
_promise = add_to(PROBLEM_CHECKS)


@_promise
def has_initial_solutions(case: ProblemCase) -> None:
    """`initial_solution` returns a finite pytree of floating-point arrays: for each key the same, of one structure."""
    solution, again = (case.initial_solution(case.problem, case.key) for _ in range(2))
    other = case.initial_solution(case.problem, jax.random.key(1))
    require(jax.tree.leaves(solution), "The initial solution has no leaves.")
    for path, x in jax.tree_util.tree_leaves_with_path(solution):
        require(jnp.issubdtype(x.dtype, jnp.floating), f"The initial solution is {x.dtype} at {_name(path)}.")
    require_finite(solution, "The initial solution")
    require_equal(again, solution, "With the same key, the initial solution")
    require_signature(other, solution, "With another key, the initial solution")


@_promise
def has_one_fitness(case: ProblemCase) -> None:
    """`fitness` returns one real number, which the key and the solution determine and which is finite at the start."""
    fitness, again = (case.fitness(case.problem, case.key, case.solution) for _ in range(2))
    require(np.shape(fitness) == (), f"The fitness of one solution has the shape {np.shape(fitness)}, expected ().")
    is_real = any(jnp.issubdtype(fitness.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
    require(is_real, f"The fitness is {fitness.dtype}, expected real numbers.")
    require(np.isfinite(fitness), f"The fitness of the initial solution is {fitness}.")
    require(np.array_equal(fitness, again), f"With the same key, the fitness is {fitness} and then {again}.")


@_promise
def evaluates_populations(case: ProblemCase) -> None:
    """`evaluate` returns one fitness per member, counts its steps, and leaves the structure of the state unchanged."""
    evaluation, state = case.evaluation
    for name in ("fitness", "done"):
        shape = getattr(evaluation, name).shape
        require(shape == (SIZE,), f"evaluate returns {name} of shape {shape} for {SIZE} members.")
    require(jnp.issubdtype(evaluation.fitness.dtype, jnp.floating), f"The fitness is {evaluation.fitness.dtype}.")
    require(evaluation.done.dtype == bool, f"done is {evaluation.done.dtype}, expected booleans.")
    require_finite(evaluation.fitness, "The fitness of members near the initial solution")
    require_signature(state, case.state, "The problem's state after an evaluation")
    steps, expected = int(evaluation.steps), case.problem.generation_steps(SIZE)
    require(steps >= 1, f"An evaluation spends {steps} problem steps, expected at least one.")
    if expected is not None and not isinstance(case.problem, UnrolledProblem):
        require(steps == expected, f"An evaluation spends {steps} steps, and generation_steps({SIZE}) is {expected}.")
    aux = case.problem.init_aux(case.solution)
    got = {name: x.shape[1:] for name, x in evaluation.aux.items()}
    shapes = {name: x.shape for name, x in aux.items()}
    require(got == shapes, f"evaluate returns aux of the shapes {got}, and init_aux says {shapes}.")


@_promise
def shares_randomness_in_groups(case: ProblemCase) -> None:
    """Equal members of a group have equal fitness: they see the same data, start and noise."""
    fitness = case.evaluation[0].fitness
    require_equal(fitness[2:], fitness[:2], "The fitness of the second members of two groups")


@_promise
def evaluates_members_by_fitness(case: ProblemCase) -> None:
    """The fitness of a member is `fitness` under the key of its group."""
    if isinstance(case.problem, UnrolledProblem) or jax.tree.leaves(case.problem.init_statistics()):
        return
    keys = group_keys(case.key, 2)
    for i in range(SIZE):
        member = take_member(case.population, i)
        expected = case.fitness(case.problem, keys[GROUPS.ids[i]], member)
        got = case.evaluation[0].fitness[i]
        is_close = np.allclose(got, expected, rtol=1e-3, atol=1e-5)
        require(is_close, f"evaluate says that member {i} has fitness {got}, and fitness says {expected}.")


@_promise
def evaluates_in_batches(case: ProblemCase) -> None:
    """`member_batch_size` bounds memory and changes nothing else."""
    problem = case.problem.replace(member_batch_size=2)
    got, _ = case.evaluate(problem, case.key, case.population, case.state)
    is_close = np.allclose(got.fitness, case.evaluation[0].fitness, rtol=1e-3, atol=1e-5)
    require(is_close, f"In batches of two the fitness is {got.fitness}, else {case.evaluation[0].fitness}.")


@_promise
def has_scores_by_name(case: ProblemCase) -> None:
    """`score` returns scalars by name, the headline metric among them; the key and the solution determine them."""
    scores, again = (case.score(case.problem, case.key, case.solution, case.state) for _ in range(2))
    for name, value in scores.items():
        require(np.shape(value) == (), f"The score {name!r} has the shape {np.shape(value)}, expected ().")
    require(np.isfinite(scores[case.problem.headline]), f"The headline score is {scores[case.problem.headline]}.")
    require_equal(again, scores, "With the same key, the scores")


@_promise
def has_useful_gradients(case: ProblemCase) -> None:
    """A problem that says it is differentiable has a surrogate gradient that is finite and not zero everywhere."""

    def gradient(problem: Any, solution: Any, state: Any) -> Any:
        surrogate = problem.surrogate_gradient(case.key, state)
        return None if surrogate is None else surrogate(solution)

    if not case.problem.differentiable and case.problem.surrogate_gradient(case.key, case.state) is None:
        return
    found = jax.jit(gradient)(case.problem, take_member(case.population, 0), case.state)
    require(found is not None, "differentiable is true, and surrogate_gradient returns None.")
    require_signature(found, case.solution, "The surrogate gradient")
    require_finite(found, "The surrogate gradient")
    is_zero = not any(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(found))
    require(not is_zero, "The surrogate gradient is zero. Set `differentiable` to False where autodiff is useless.")


@_promise
def makes_useful_suggestions(case: ProblemCase) -> None:
    """`suggestions`, `suggested_num_steps`, `headline` and `runtime_targets` are what a run can use."""
    problem = case.problem
    require(isinstance(problem.suggestions, Mapping), f"suggestions is {problem.suggestions!r}, expected a mapping.")
    for id in ("open_es", "snes", *(id for id, value in problem.suggestions.items() if isinstance(value, Mapping))):
        make_strategy(id, problem=problem)
    steps = problem.suggested_num_steps
    require(isinstance(steps, int) and steps >= 1, f"suggested_num_steps is {steps!r}, expected a positive int.")
    require(isinstance(problem.headline, str), f"headline is {problem.headline!r}, expected the name of a score.")
    require(isinstance(problem.maximize, bool), f"maximize is {problem.maximize!r}, expected a bool.")
    for target in problem.runtime_targets or ():
        require(np.isfinite(float(target)), f"runtime_targets has {target!r}, expected finite numbers.")


@_promise
def runs_with_strategies(case: ProblemCase) -> None:
    """A strategy runs on it in the loop that never changes, and the problem made again runs in the same program."""
    for id in ["nres" if isinstance(case.problem, UnrolledProblem) else "snes"]:
        strategy = make_strategy(id, problem=case.problem, population_size=SIZE)
        num_traces = 0

        def train(strategy: Any, problem: Any, loop: Any, keys: Any) -> Any:
            nonlocal num_traces
            num_traces += 1
            return jax.lax.scan(lambda carry, k: generation(strategy, problem, carry, k), loop, keys)

        loop = jax.jit(start)(strategy, case.problem, case.key, case.solution)
        program, keys = jax.jit(train), jax.random.split(case.key, 3)
        end, fitness = program(strategy, case.problem, loop, keys)
        require_signature(end, loop, f"With {id}, what the loop carries after three generations")
        require_finite(fitness, f"With {id}, the fitness of three generations")
        program(strategy, case.make(), end, keys)
        require(
            num_traces == 1,
            "A problem made again compiles the loop again. Settings that are no arrays must be hashable and compare "
            "equal: functions of a module rather than lambdas that are made anew, and arrays as zoo.leaf().",
        )


@_promise
def maps_over_seeds(case: ProblemCase) -> None:
    """`jax.vmap` over seeds works, which is how several seeds of a benchmark share one program."""
    strategy = make_strategy("open_es", problem=case.problem, population_size=SIZE)

    def train(key: jax.Array) -> Any:
        loop = start(strategy, case.problem, key)
        return generation(strategy, case.problem, loop, key)[1]

    shape = jax.eval_shape(jax.vmap(train), jax.random.split(case.key, 3)).shape
    require(shape == (3, SIZE), f"Mapped over three seeds, the fitness has the shape {shape}, expected {(3, SIZE)}.")


@_promise
def ends_its_episodes(case: ProblemCase) -> None:
    """An episode ends after `horizon` steps: `done` is true for its last window, and only then."""
    problem = case.problem
    if not isinstance(problem, UnrolledProblem) or problem.horizon is None:
        return
    num_windows = -(-problem.horizon // (problem.window or problem.horizon))
    groups = Groups.of(SIZE)  # one group begins at the beginning of its episode
    state = jax.jit(lambda problem, solution: problem.init(case.key, groups, solution))(problem, case.solution)
    for window in range(min(num_windows, 64)):
        evaluation, state = case.evaluate(problem, jax.random.fold_in(case.key, window), case.population, state)
        is_last = window == num_windows - 1
        done = np.asarray(evaluation.done)
        require(np.all(done == is_last), f"After window {window + 1} of {num_windows}, done is {done}.")


@_promise
def has_no_large_constants(case: ProblemCase) -> None:
    """No large array is compiled into the program as a constant: data are fields declared by `zoo.leaf()`."""
    traced = jax.make_jaxpr(lambda problem, population, state: problem.evaluate(case.key, population, state))
    constants = traced(case.problem, case.population, case.state).consts
    for x in constants:
        size = np.size(x) * np.dtype(getattr(x, "dtype", float)).itemsize if not _is_key(x) else 0
        require(
            size <= _MAX_CONSTANT,
            f"evaluate closes over an array of shape {np.shape(x)} ({size:,} bytes). Declare it as zoo.leaf(), or pass "
            "it to zoo.from_function as `data`.",
        )


@_promise
def goes_to_other_processes(case: ProblemCase) -> None:
    """The problem survives pickling (by cloudpickle) with its settings, and its `repr` is at most 15 lines long."""
    again = cloudpickle.loads(cloudpickle.dumps(case.problem))
    require_equal(jax.tree.leaves(again), jax.tree.leaves(case.problem), "After pickling, the arrays of the problem")
    lines = repr(case.problem).count("\n") + 1
    require(lines <= 15, f"The repr of the problem is {lines} lines long.")


@_promise
def refuses_other_sizes(case: ProblemCase) -> None:
    """`evaluate` refuses a population of another size than its groups have."""
    population = jax.tree.map(lambda x: x[:3], case.population)
    with refuses(ValueError, words="3", what="A population of three for groups of four"):
        jax.eval_shape(case.problem.evaluate, case.key, population, case.state)


@_promise
def leaks_no_tracers(case: ProblemCase) -> None:
    """Nothing that is traced is kept outside of the function that is traced (`jax_check_tracer_leaks`)."""
    with jax.checking_leaks():
        jax.eval_shape(case.problem.evaluate, case.key, case.population, case.state)
        jax.eval_shape(case.problem.evaluate_score, case.key, case.solution, case.state)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path) or "its only leaf"


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def check_problem(factory: Any, *, skip: Sequence[str] = (), strict: bool = True) -> None:
    """Checks that a problem keeps the promises of its interface (`PROBLEM_CHECKS`), one after the other.

    It takes a few seconds for a small problem, most of them for compiling. Make the problem small: a short horizon,
    few data, a narrow network.

    Args:
        factory: A problem, its class, its id, or a function without arguments that returns it.
        skip: Names of checks that are left out.
        strict: Whether the checks run in JAX's strict modes (`strict_modes`). Switch it off for a problem that calls a
            library which promotes ranks or dtypes.

    Raises:
        BrokenPromiseError: At the first promise that does not hold, with the promise and what was found.
        TypeError: If `factory` does not make a problem.
        ValueError: If `skip` names a check that does not exist.

    >>> import jax.numpy as jnp, zoo, zoo.testing
    >>> zoo.testing.check_problem(zoo.from_function(lambda x: jnp.sum(x**2), jnp.ones(2)))
    """
    run_checks(PROBLEM_CHECKS, ProblemCase(factory), skip=skip, strict=strict)
