"""The interface of a problem: an author writes functions of *one* solution, the library does the rest.

`Problem` is for a plain fitness; `UnrolledProblem` (in `unrolled.py`) for a loss that is spread over the steps of an
inner episode. Both share keys, inner starts and resets among the members of a group.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from zoo.core.arguments import checks_arguments
from zoo.core.checks import shown
from zoo.core.evaluation import Aux, Evaluation, Groups, checked_aux
from zoo.core.grouping import check_groups, number_groups
from zoo.core.members import evaluate_members, gradient_at_members
from zoo.core.population import map_members
from zoo.core.sensitivity import Sensitivity
from zoo.core.settings import PytreeDataclass, leaf, static
from zoo.core.solution import Solution, start_or_initialiser
from zoo.core.surrogate import Surrogate

_WANTS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where a function wants the numbers of what is traced."""
Statistics = Any
"""What a problem accumulates over all members of a run, such as observation statistics; `()` if nothing."""


class ProblemState(NamedTuple):
    """State of a problem without inner episodes.

    Attributes:
        groups: `[population_size]` group of each member, numbered 0 to num_groups - 1.
        members: `[num_groups]` one member of each group.
        statistics: See `Problem.init_statistics`.
        sensitivity: How derivatives are followed, if the groups asked for it.
    """

    groups: jax.Array
    members: jax.Array
    statistics: Statistics
    sensitivity: Sensitivity | None


class Problem(PytreeDataclass, abc.ABC):
    """A problem given by the fitness of one solution.

    A subclass declares its settings as fields (`zoo.leaf` for arrays such as datasets, `zoo.number` for continuous
    settings, `zoo.static` for the rest) and implements `initial_solution` and `fitness`, and `score` if held-out
    metrics differ from the fitness.

    Attributes:
        member_batch_size: Evaluate at most this many members at a time, to bound memory. Default: all at once.
    """

    member_batch_size: int | None = static(default=None, at_least=1)

    headline: ClassVar[str] = "fitness"
    """Which entry of `score` is the one to compare methods by."""
    maximize: ClassVar[bool] = False
    """Whether a larger headline score is better. (Fitness itself is always minimised.)"""

    @abc.abstractmethod
    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns where a search starts: a pytree of floating-point arrays."""

    @abc.abstractmethod
    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the scalar to minimise; `key` is shared by the members of a group."""

    def fitness_and_aux(self, key: jax.Array, solution: Solution) -> tuple[jax.Array, Aux]:
        """Returns the fitness, and what else there is to say of a solution: arrays by name, such as constraints.

        Override it, beside `fitness`, to say something. Strategies do not use it unless they ask for it
        (`Evaluation.aux`); a run keeps it, see `RunResult`.
        """
        return self.fitness(key, solution), {}

    def init_aux(self, solution: Solution) -> Aux:
        """Returns zeros in the shapes of what there is to say of one member."""
        if type(self).fitness_and_aux is Problem.fitness_and_aux:  # nothing, and no need to trace the fitness
            return {}
        problem = self.with_statistics(self.init_statistics())
        aux = jax.eval_shape(lambda: checked_aux(problem.fitness_and_aux(jax.random.key(0), solution)[1]))
        return {name: jnp.zeros(x.shape, x.dtype) for name, x in aux.items()}

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns held-out metrics of a solution, scalars by name; one of them is the `headline`."""
        return {"fitness": self.fitness(key, solution)}

    def gradient(self, key: jax.Array, solution: Solution) -> Solution:
        """Returns a surrogate gradient of the fitness; by default autodiff of `fitness`."""
        return jax.grad(lambda x: self.fitness(key, x))(solution)

    @property
    def differentiable(self) -> bool:
        """Whether autodiff gives a useful surrogate gradient; override where it does not."""
        return True

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """Sensible strategy settings for this problem, used for those the user leaves open.

        By name, such as `sigma` (per parameter) and `learning_rate`; a mapping under a strategy's id is for that one.
        """
        return {}

    @property
    def is_expensive(self) -> bool:
        """Whether an evaluation takes longer than anything else that a run does.

        Then a run is scored at its end only, unless it is told how often.
        """
        return False

    @property
    def suggested_num_steps(self) -> int:
        """A sensible budget, in problem steps."""
        return 100_000

    @property
    def runtime_targets(self) -> Sequence[float] | None:
        """Headline scores to time runs by: a benchmark records the steps that it takes to reach each. `None`: none."""
        return None

    @property
    def fitness_is_score(self) -> bool:
        """Whether the fitness of a member is its headline score, free of noise and of held-out data.

        Then a run has reached a target when a member has; otherwise when the score of its mean has.
        """
        return False

    def generation_steps(self, population_size: int) -> int | None:
        """Returns how many problem steps it takes to evaluate a population.

        A run in steps does not begin a generation that its budget has no room for. `None` means that only the
        evaluation tells. Then a generation that took too many is dropped, and the run ends before it.
        """
        return population_size if type(self).evaluate is Problem.evaluate else None

    def init_statistics(self) -> Statistics:
        """Returns the initial statistics, a pytree of arrays that the run accumulates over all members."""
        return ()

    def with_statistics(self, statistics: Statistics) -> Self:
        """Returns the problem using the given statistics in its functions of one solution."""
        del statistics
        return self

    def init(self, key: jax.Array, groups: Groups, solution: Solution) -> Any:
        """Returns the initial problem state.

        Args:
            key: JAX random key.
            groups: `Strategy.groups`.
            solution: The initial solution.

        Raises:
            TypeError: If the groups are not concrete integers, or ask for derivatives that the problem has not.
        """
        del key, solution
        check_groups(groups, differentiable=self.differentiable)
        return ProblemState(*number_groups(groups), self.init_statistics(), groups.sensitivity)

    def surrogate_gradient(self, key: jax.Array, state: Any) -> Surrogate | None:
        """Returns a function from a solution to a surrogate gradient, or `None` if there is none.

        It sees the same data as `evaluate` with the same key, and costs nothing unless it is called.
        """
        has_gradient = self.differentiable or type(self).gradient is not Problem.gradient
        return gradient_at_members(self, key, state) if has_gradient else None

    def evaluate(self, key: jax.Array, population: Any, state: Any) -> tuple[Evaluation, Any]:
        """Evaluates a population.

        Args:
            key: JAX random key.
            population: As returned by `Strategy.ask`.
            state: The problem's state.

        Returns:
            The `Evaluation` and the new problem state.

        Raises:
            ValueError: If the population does not fit the groups the state was made for, or `fitness` does not
                return a scalar.
        """
        return evaluate_members(self, key, population, state)

    def evaluate_score(self, key: jax.Array, solution: Solution, state: Any) -> dict[str, jax.Array]:
        """Returns the held-out metrics of a solution under the run's statistics.

        Raises:
            ValueError: If the headline metric is missing.
        """
        metrics = self.with_statistics(state.statistics).score(key, solution)
        if self.headline not in metrics:
            raise ValueError(
                f"{type(self).__name__}.score must return its headline metric {self.headline!r}, got {sorted(metrics)}."
            )
        return metrics

    def _map_members(self, fn: Callable[..., Any], keys: jax.Array, population: Any, groups: jax.Array) -> Any:
        """Applies `fn(key, solution)` to every member with the key of its group."""
        if len(keys) == 1:  # all members see the same data: draw it once
            return map_members(lambda x: fn(keys[0], x), population, batch_size=self.member_batch_size)
        return map_members(lambda x, k: fn(k, x), population, keys[groups], batch_size=self.member_batch_size)


class FunctionProblem(Problem):
    """A plain function of one solution; see `from_function`.

    Attributes:
        fn: `fn(solution, *data)`, or `fn(key, solution, *data)` if `takes_key`.
        solution: The initial solution, unless `init_fn` is given.
        init_fn: `init_fn(key)` returns a random initial solution.
        data: Arrays that `fn` takes as arguments; as such they are not compiled into the program as constants.
        takes_key: Whether `fn` is random.
        has_aux: Whether `fn` returns a pair, the fitness and a dictionary of what else there is to say.
    """

    fn: Callable[..., Any] = static()
    solution: Solution = leaf(default=None)
    init_fn: Callable[[jax.Array], Solution] | None = static(default=None)
    data: tuple[Any, ...] = leaf(default=())
    takes_key: bool = static(default=False)
    has_aux: bool = static(default=False)

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the given initial solution, or draws one with `init_fn`."""
        return self.solution if self.init_fn is None else self.init_fn(key)

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Calls the function."""
        return self.fitness_and_aux(key, solution)[0]

    def fitness_and_aux(self, key: jax.Array, solution: Solution) -> tuple[jax.Array, Aux]:
        """Calls the function."""
        arguments = (key, solution) if self.takes_key else (solution,)
        try:
            result = self.fn(*arguments, *self.data)
        except _WANTS_VALUES as error:
            name = getattr(self.fn, "__name__", "The function")
            raise TypeError(
                f"{name} cannot be traced by JAX: it hands its argument to NumPy, or branches on its values. Write it "
                "with jax.numpy (and jnp.where); or have it called as it is, by zoo.run(strategy, "
                "zoo.from_python(fn, solution)) or zoo.Optimizer."
            ) from error
        if not self.has_aux:
            return jnp.asarray(result), {}
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"With has_aux=True the function must return a pair, the fitness and a dictionary of arrays by name, "
                f"got {type(result).__name__}."
            )
        return jnp.asarray(result[0]), result[1]

    def init_aux(self, solution: Solution) -> Aux:
        """Returns zeros in the shapes of what the function says of one member."""
        return super().init_aux(solution) if self.has_aux else {}


@jax.transfer_guard("allow")
@checks_arguments
def from_function(
    fn: Callable[..., Any],
    solution: Solution | Callable[[jax.Array], Solution],
    *,
    data: tuple[Any, ...] = (),
    takes_key: bool = False,
    has_aux: bool = False,
    member_batch_size: int | None = None,
) -> FunctionProblem:
    """Makes a problem of a plain function.

    Args:
        fn: `fn(solution, *data)` returns the scalar to minimise; `fn(key, solution, *data)` if `takes_key`.
        solution: The initial solution, a pytree of floating-point arrays, such as a module with parameters; or a
            function from a key to one, so that each seed of a benchmark starts elsewhere.
        data: Large arrays belong here rather than in the function's closure, where they would be compiled in as
            constants.
        takes_key: Whether the function is random. The members of a group get the same key.
        has_aux: Whether `fn` returns a pair: the scalar, and a dictionary of arrays by name that say more of the
            solution, such as how far it violates a constraint. A run keeps them (`RunResult.aux`).
        member_batch_size: Evaluate at most this many members at a time.

    Raises:
        TypeError: If `fn` is not callable, the solution has leaves that are not floating-point arrays, or it cannot be
            told from a function.
        ValueError: If the solution has no entries, or is not finite.

    >>> import jax.numpy as jnp, zoo
    >>> problem = zoo.from_function(lambda x: jnp.sum((x - 1.0) ** 2), jnp.zeros(3))
    """
    if not callable(fn):
        raise TypeError(f"from_function expects a function of one solution, got {type(fn).__name__}.")
    if not isinstance(data, (tuple, list)):  # an array would be taken apart into its rows
        raise TypeError(f"data must be a tuple of what the function takes, data=(x,), got {shown(data)}.")
    return FunctionProblem(
        fn=fn,
        data=tuple(data),
        takes_key=takes_key,
        has_aux=has_aux,
        member_batch_size=member_batch_size,
        **start_or_initialiser(solution),
    )
