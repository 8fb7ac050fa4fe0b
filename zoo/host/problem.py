"""Problems whose fitness is computed by Python code (NumPy, a simulator), in this process or in worker processes."""

import abc
import functools
import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.arguments import checks_arguments
from zoo.core.evaluation import Evaluation, total_steps
from zoo.core.fitness import on_host
from zoo.core.grouping import check_population_size, group_keys
from zoo.core.population import materialize
from zoo.core.problem import Problem
from zoo.core.settings import leaf, static
from zoo.core.solution import Solution, start_or_initialiser
from zoo.host.callback import from_numpy
from zoo.host.interrupts import check_interrupt
from zoo.host.processes import ProcessPool
from zoo.host.worker import Answer, Task, evaluate


class HostFunction(NamedTuple):
    """A function of NumPy arrays, and how to call it.

    Attributes:
        fn: `fn(solution)`, or `fn(seed, solution)` if `takes_seed`.
        batched: Whether it takes several stacked members.
        takes_seed: Whether its first argument is a seed.
        returns_steps: Whether it returns a number of steps in addition to fitness.
    """

    fn: Callable[..., Any]
    batched: bool = False
    takes_seed: bool = False
    returns_steps: bool = False

    @property
    def name(self) -> str:
        """The name of the function, for messages."""
        return getattr(self.fn, "__name__", type(self.fn).__name__)


class HostProblem(Problem):
    """A problem whose fitness a Python function on the host computes. A subclass implements `host_function`.

    A member whose call raises, kills its process, takes too long or does not return a number gets fitness NaN and one
    step. Other members are not affected. The first failure causes a warning. If no call has ever succeeded and all
    members of a population fail, there is an error, because that almost always means a bug in the function.

    Attributes:
        num_processes: Worker processes that share the work. They start when first needed, stay alive, and see no
            accelerator. With `None` or 0, this process calls the function.
        timeout: Seconds that one call of the function may take. Then its worker process is killed and replaced.
    """

    num_processes: int | None = static(default=None, at_least=0)
    timeout: float | None = static(default=None)

    def __post_init__(self) -> None:
        """Checks the timeout."""
        super().__post_init__()
        if self.timeout is None:
            return
        is_number = isinstance(self.timeout, (int, float)) and not isinstance(self.timeout, bool)
        if not is_number or not 0 < self.timeout < threading.TIMEOUT_MAX:
            raise ValueError(
                f"{type(self).__name__}.timeout must be a positive number of seconds, got {self.timeout!r}."
            )
        if not self._num_workers:
            raise ValueError(
                f"{type(self).__name__}.timeout={self.timeout:g} needs worker processes, because only those can be "
                "killed while they evaluate. Pass num_processes=1 or more."
            )

    @property
    @abc.abstractmethod
    def host_function(self) -> HostFunction:
        """The function that evaluates members."""

    @property
    def differentiable(self) -> bool:
        """False, because host functions have no derivative."""
        return False

    @property
    def is_expensive(self) -> bool:
        """True, because the host evaluates one member after another."""
        return True

    def generation_steps(self, population_size: int) -> int | None:
        """Returns one step for each member, or `None` if the function itself returns its steps."""
        own = type(self).evaluate is HostProblem.evaluate and not self.host_function.returns_steps
        return population_size if own else None

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the fitness that the function returns."""
        return self.evaluate_on_host(key, solution)[0]

    def evaluate_on_host(
        self, key: jax.Array, solution: Solution, *, in_population: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Returns fitness and steps of one solution. Under `vmap`, evaluates all solutions in one batch.

        Args:
            key: JAX random key. The seed is made from it.
            solution: The solution.
            in_population: Whether the solution is a member of a population. Then there is an error if all members fail.
        """
        function = self.host_function
        evaluator = _evaluator(function, self._num_workers, self.timeout)

        def run(solutions: Any, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return evaluator(solutions, seeds, in_population=in_population)

        run.__name__ = function.name  # for messages
        result = jax.ShapeDtypeStruct((), jnp.result_type(float)), jax.ShapeDtypeStruct((), np.int32)
        seed = jax.random.bits(key, dtype=jnp.uint32) if function.takes_seed else jnp.uint32(0)
        return from_numpy(run, result=result, vectorized=True)(solution, seed)

    def evaluate(self, key: jax.Array, population: Any, state: Any) -> tuple[Evaluation, Any]:
        """Evaluates a population; see `Problem.evaluate`."""
        if self.member_batch_size is None:
            population = materialize(population)
        size = check_population_size(self, population, state.groups)
        evaluate_one = functools.partial(self.with_statistics(state.statistics).evaluate_on_host, in_population=True)
        fitness, steps = self._map_members(
            evaluate_one, group_keys(key, state.members.shape[0]), population, state.groups
        )
        return Evaluation(fitness, jnp.ones(size, bool), total_steps(steps)), state

    @property
    def _num_workers(self) -> int:
        return self.num_processes or 0


class PythonProblem(HostProblem):
    """A problem made from a plain Python function of one solution; see `from_python`.

    Attributes:
        fn: The function.
        solution: The initial solution, unless `init_fn` is given.
        init_fn: `init_fn(key)` returns a random initial solution.
        batched: Whether `fn` takes several stacked members.
        takes_seed: Whether the first argument of `fn` is a seed.
        returns_steps: Whether `fn` returns a number of steps in addition to fitness.
    """

    fn: Callable[..., Any] = static()
    solution: Solution = leaf(default=None)
    init_fn: Callable[[jax.Array], Solution] | None = static(default=None)
    batched: bool = static(default=False)
    takes_seed: bool = static(default=False)
    returns_steps: bool = static(default=False)

    @property
    def host_function(self) -> HostFunction:
        """The function, and how to call it."""
        return HostFunction(self.fn, self.batched, self.takes_seed, self.returns_steps)

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the given initial solution, or draws one with `init_fn`."""
        return self.solution if self.init_fn is None else self.init_fn(key)


@jax.transfer_guard("allow")
@checks_arguments
def from_python(
    fn: Callable[..., Any],
    solution: Solution | Callable[[jax.Array], Solution],
    *,
    batched: bool = False,
    takes_seed: bool = False,
    returns_steps: bool = False,
    num_processes: int | None = None,
    timeout: float | None = None,
    member_batch_size: int | None = None,
) -> PythonProblem:
    """Makes a problem from a Python function that JAX cannot trace: NumPy, a simulator, a call into other software.

    It runs wherever other problems run. A whole population is evaluated in one batch; in a benchmark, the populations
    of all seeds are. A member whose call raises, kills its process, takes longer than `timeout` or does not return a
    number gets fitness NaN, which ranks last.

    Args:
        fn: `fn(solution)` returns the number to minimise. With `takes_seed` it is `fn(seed, solution)`. The solution is
            given as NumPy arrays in the structure of the initial solution.
        solution: The initial solution, a pytree of floating-point arrays, such as a module with parameters. Or a
            function from a key to a solution, so that each seed of a benchmark starts from another solution.
        batched: Whether `fn` takes several members at once, as arrays stacked along a leading axis `[k, ...]` (and
            seeds `[k]`), and returns `[k]`. Each process gets an equal part of the population. If a call fails, its
            members are evaluated one by one.
        takes_seed: Whether `fn` is random. If so, it gets a whole number from 0 to 2^32 - 1, which is the same for all
            members of a group (common random numbers) and another one in each generation.
        returns_steps: Whether `fn` returns `(fitness, num_steps)`. Budgets count these problem steps. Otherwise each
            member counts as one step.
        num_processes: Worker processes that share the work. cloudpickle sends them the function, which may be a lambda
            or a closure. They start when first needed and serve all problems that are equal. With `None` or 0, this
            process calls `fn`.
        timeout: Seconds per call of `fn`. It needs worker processes.
        member_batch_size: Evaluates at most this many members at a time.

    Raises:
        TypeError: If `fn` is not callable or cannot be hashed, if the solution has leaves that are not floating-point
            arrays, or if `solution` could be either a solution or a function.
        ValueError: If there is a timeout without worker processes, or the solution has no entries or is not finite.

    >>> import numpy as np, zoo
    >>> problem = zoo.from_python(lambda x: np.sum((x - 1.0) ** 2), np.zeros(3))
    >>> zoo.run("cma_es", problem, num_generations=100).score < 1e-3
    True
    """
    if not callable(fn):
        raise TypeError(f"from_python expects a function of one solution, got {type(fn).__name__}.")
    try:
        hash(fn)
    except TypeError:
        raise TypeError(
            "from_python needs a function that can be hashed, to tell problems apart, got an unhashable "
            f"{type(fn).__name__}. Pass a plain function, or give the class a __hash__."
        ) from None
    return PythonProblem(
        fn=fn,
        batched=batched,
        takes_seed=takes_seed,
        returns_steps=returns_steps,
        num_processes=num_processes,
        timeout=timeout,
        member_batch_size=member_batch_size,
        **start_or_initialiser(solution),
    )


class _Evaluator:
    """Evaluates batches of members with a host function, and remembers whether any evaluation has succeeded."""

    def __init__(self, function: HostFunction, num_processes: int, timeout: float | None):
        self._function = function
        self._num_processes = num_processes
        self._timeout = timeout
        self._num_chunks = max(num_processes, 1)
        self._pool = ProcessPool(function.fn, num_processes) if num_processes else None
        self._succeeded = self._warned = False

    def __reduce__(self) -> Any:
        return _Evaluator, (self._function, self._num_processes, self._timeout)  # without processes and history

    def __call__(self, solutions: Any, seeds: np.ndarray, *, in_population: bool) -> tuple[np.ndarray, np.ndarray]:
        """Returns fitness and steps, `[num_members]` each, of solutions stacked along a leading axis."""
        size = len(seeds)
        # All chunks but the last have one size, for functions that compile for each shape.
        length = -(-size // self._num_chunks) if self._function.batched else 1
        chunks = [slice(start, min(start + length, size)) for start in range(0, size, length)]
        answers = [[answer] for answer in self._map(solutions, seeds, chunks)]
        if length > 1:  # finds the members that made a chunk fail
            failed = [i for i, (answer,) in enumerate(answers) if answer.error is not None]
            members = [slice(k, k + 1) for i in failed for k in range(chunks[i].start, chunks[i].stop)]
            alone = iter(self._map(solutions, seeds, members))
            for i in failed:
                answers[i] = list(itertools.islice(alone, chunks[i].stop - chunks[i].start))
        flat = list(itertools.chain.from_iterable(answers))
        fitness = np.concatenate([answer.fitness for answer in flat])
        errors = [answer.error for answer in flat if answer.error is not None]
        self._report(int(np.isnan(fitness).sum()), size, errors, in_population)
        fitness = on_host(fitness, repr(self._function.name), jnp.result_type(float))
        return fitness, np.concatenate([answer.steps for answer in flat])

    def _map(self, solutions: Any, seeds: np.ndarray, parts: Sequence[slice]) -> list[Answer]:
        tasks = [self._task(solutions, seeds, part) for part in parts]
        if self._pool is None:
            return [self._evaluate(task) for task in tasks]
        return self._pool.map(tasks, self._timeout)

    def _evaluate(self, task: Task) -> Answer:
        check_interrupt()
        return evaluate(self._function.fn, task)

    def _task(self, solutions: Any, seeds: np.ndarray, part: slice) -> Task:
        batched, takes_seed, returns_steps = self._function[1:]
        index = part if batched else (part.start, ...)  # the ellipsis keeps a scalar an array
        solution = jax.tree.map(lambda x: x[index], solutions)
        seed = seeds[part].astype(np.int64) if batched else int(seeds[part.start])
        arguments = (seed, solution) if takes_seed else (solution,)
        return Task(arguments, part.stop - part.start if batched else None, returns_steps)

    def _report(self, num_failed: int, size: int, errors: Sequence[str], in_population: bool) -> None:
        first = errors[0] if errors else "It returned NaN."
        if num_failed == size and in_population and not self._succeeded:
            lines = first.splitlines()  # the user's error is the last line of a traceback
            what = lines[-1] if lines[0].startswith("Traceback") else " ".join(dict.fromkeys((lines[0], lines[-1])))
            error = ValueError(
                f"{what} - this is the first error of {self._function.name!r}: all {size} evaluations in the first "
                "generation failed, so it probably has a bug."
            )
            if errors:
                error.add_note(f"The first error:\n{first}")
            raise error
        self._succeeded |= num_failed < size
        if num_failed and not self._warned:
            self._warned = True
            warnings.warn(
                f"{num_failed} of {size} evaluations of {self._function.name!r} failed; their fitness is NaN, which "
                f"ranks last. Further failures are not reported. The first error:\n{first}",
                RuntimeWarning,
                stacklevel=2,
            )


@functools.lru_cache(maxsize=64)
def _evaluator(function: HostFunction, num_processes: int, timeout: float | None) -> _Evaluator:
    return _Evaluator(function, num_processes, timeout)
