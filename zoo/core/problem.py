"""The interface of a problem. An author writes functions of *one* solution, and the library does the rest.

`Problem` is for a plain fitness. `UnrolledProblem` (in `unrolled.py`) is for a loss that is spread over the steps of an
inner episode. In both, the members of a group share keys, initial inner states and resets.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from zoo.core.arguments import checks_arguments
from zoo.core.checks import shown
from zoo.core.evaluation import Aux, Evaluation, Groups, zeros_of_aux
from zoo.core.grouping import check_groups, number_groups
from zoo.core.members import evaluate_members, gradient_at_members, score_solution
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
"""Errors that JAX raises if a function needs the values of a traced array."""
Statistics = Any
"""Values that a problem accumulates over all members of a run, such as observation statistics. `()` if none."""


class ProblemState(NamedTuple):
    """State of a problem without inner episodes.

    Attributes:
        groups: `[population_size]` group of each member, numbered 0 to num_groups - 1.
        members: `[num_groups]` one member of each group.
        statistics: See `Problem.init_statistics`.
        sensitivity: The rule that estimates gradients, or `None` if the groups named none.
    """

    groups: jax.Array
    members: jax.Array
    statistics: Statistics
    sensitivity: Sensitivity | None


class Problem(PytreeDataclass, abc.ABC):
    """A problem given by the fitness of one solution.

    A subclass declares its settings as fields (`zoo.leaf` for arrays such as datasets, `zoo.number` for continuous
    settings, `zoo.static` for the rest). It implements `initial_solution` and `fitness`, and `score` if held-out
    metrics differ from the fitness.

    Attributes:
        member_batch_size: Evaluates at most this many members at a time, to bound memory. Default: all at once.
    """

    member_batch_size: int | None = static(default=None, at_least=1)

    headline: ClassVar[str] = "fitness"
    """The entry of `score` to compare methods by."""
    maximize: ClassVar[bool] = False
    """Whether a larger headline score is better. (The fitness itself is always minimised.)"""

    @abc.abstractmethod
    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the solution that a search starts from: a pytree of floating-point arrays."""

    @abc.abstractmethod
    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the scalar to minimise. The members of a group share `key`."""

    def fitness_and_aux(self, key: jax.Array, solution: Solution) -> tuple[jax.Array, Aux]:
        """Returns the fitness, and further arrays by name, such as constraint violations. By default there are none.

        To report some, override it in addition to `fitness`. They are in `Evaluation.aux` and in a run's `RunResult`.
        """
        return self.fitness(key, solution), {}

    def init_aux(self, solution: Solution) -> Aux:
        """Returns zeros in the shapes of the further arrays of one member."""
        if type(self).fitness_and_aux is Problem.fitness_and_aux:  # there are none, which spares tracing the fitness
            return {}
        problem = self.with_statistics(self.init_statistics())
        return zeros_of_aux(lambda: problem.fitness_and_aux(jax.random.key(0), solution)[1])

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns held-out metrics of a solution as scalars by name. One of them is the `headline`."""
        return {"fitness": self.fitness(key, solution)}

    def gradient(self, key: jax.Array, solution: Solution) -> Solution:
        """Returns a surrogate gradient of the fitness. By default this is the gradient of `fitness` by autodiff."""
        return jax.grad(lambda x: self.fitness(key, x))(solution)

    @property
    def differentiable(self) -> bool:
        """Whether autodiff gives a useful surrogate gradient. Override it if not."""
        return True

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """Strategy settings by name, such as `sigma` (per parameter), for those that the user does not give.

        A mapping under a strategy's id is for that strategy only.
        """
        return {}

    @property
    def is_expensive(self) -> bool:
        """Whether evaluations take most of a run's time. If so, a run is scored only at its end by default."""
        return False

    @property
    def suggested_num_steps(self) -> int:
        """A budget that suits this problem, in problem steps."""
        return 100_000

    @property
    def runtime_targets(self) -> Sequence[float] | None:
        """Headline scores for which a benchmark records the steps needed to reach them. `None` if there are none."""
        return None

    @property
    def fitness_is_score(self) -> bool:
        """Whether the fitness of a member equals its headline score, without noise and held-out data.

        If so, a run reaches a target as soon as a member does. Otherwise the score of its mean must reach the target.
        """
        return False

    def generation_steps(self, population_size: int) -> int | None:
        """Returns the number of problem steps to evaluate a population, or `None` if only the evaluation tells.

        A run with a budget in steps does not begin a generation that exceeds the budget. With `None`, it drops a
        generation that exceeded the budget and ends with the one before.
        """
        return population_size if type(self).evaluate is Problem.evaluate else None

    def init_statistics(self) -> Statistics:
        """Returns the initial statistics: a pytree of arrays that the run accumulates over all members."""
        return ()

    def with_statistics(self, statistics: Statistics) -> Self:
        """Returns a problem that uses the given statistics in its functions of one solution."""
        del statistics
        return self

    def init(self, key: jax.Array, groups: Groups, solution: Solution) -> Any:
        """Returns the initial problem state.

        Args:
            key: JAX random key.
            groups: `Strategy.groups`.
            solution: The initial solution.

        Raises:
            TypeError: If the ids of the groups are traced or not integers, or the strategy asks through its groups for
                derivatives that the problem does not have.
        """
        del key, solution
        check_groups(groups, differentiable=self.differentiable)
        return ProblemState(*number_groups(groups), self.init_statistics(), groups.sensitivity)

    def surrogate_gradient(self, key: jax.Array, state: Any) -> Surrogate | None:
        """Returns a function from a solution to a surrogate gradient, or `None` if the problem has none.

        It uses the same data as `evaluate` with the same key. It costs nothing unless it is called.
        """
        has_gradient = self.differentiable or type(self).gradient is not Problem.gradient
        return gradient_at_members(self, key, state) if has_gradient else None

    def evaluate(self, key: jax.Array, population: Any, state: Any) -> tuple[Evaluation, Any]:
        """Returns the `Evaluation` of a population, and the new problem state.

        Args:
            key: JAX random key.
            population: As returned by `Strategy.ask`.
            state: The problem's state.

        Raises:
            ValueError: If the population does not fit the groups of the state, or `fitness` does not return a scalar.
        """
        return evaluate_members(self, key, population, state)

    def evaluate_score(self, key: jax.Array, solution: Solution, state: Any) -> dict[str, jax.Array]:
        """Returns the held-out metrics of a solution with the run's statistics.

        Raises:
            ValueError: If the headline metric is missing.
        """
        return score_solution(self, key, solution, state)

    def _map_members(self, fn: Callable[..., Any], keys: jax.Array, population: Any, groups: jax.Array) -> Any:
        """Applies `fn(key, solution)` to every member with the key of its group."""
        if len(keys) == 1:  # all members use the same data, which is drawn once
            return map_members(lambda x: fn(keys[0], x), population, batch_size=self.member_batch_size)
        return map_members(lambda x, k: fn(k, x), population, keys[groups], batch_size=self.member_batch_size)


class FunctionProblem(Problem):
    """A problem made from a plain function of one solution; see `from_function`.

    Attributes:
        fn: `fn(solution, *data)`, or `fn(key, solution, *data)` if `takes_key`.
        solution: The initial solution, unless `init_fn` is given.
        init_fn: `init_fn(key)` returns a random initial solution.
        data: Arrays that `fn` takes as arguments, so that they are not compiled into the program as constants.
        takes_key: Whether `fn` is random.
        has_aux: Whether `fn` returns a pair: the fitness, and a dictionary of further arrays by name.
    """

    fn: Callable[..., Any] = static()
    solution: Solution = leaf(default=None)
    init_fn: Callable[[jax.Array], Solution] | None = static(default=None)
    data: tuple[Any, ...] = leaf(default=())
    takes_key: bool = static(default=False)
    has_aux: bool = static(default=False)

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the solution that the problem was made with, or draws one with its `init_fn`."""
        return self.solution if self.init_fn is None else self.init_fn(key)

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the fitness that the function returns."""
        return self.fitness_and_aux(key, solution)[0]

    def fitness_and_aux(self, key: jax.Array, solution: Solution) -> tuple[jax.Array, Aux]:
        """Calls the function. Returns its fitness, and its further arrays if it has any."""
        arguments = (key, solution) if self.takes_key else (solution,)
        try:
            result = self.fn(*arguments, *self.data)
        except _WANTS_VALUES as error:
            name = getattr(self.fn, "__name__", "The function")
            raise TypeError(
                f"{name} cannot be traced by JAX: it hands its argument to NumPy, or branches on its values. Write it "
                "with jax.numpy (and jnp.where). Or run it unchanged in Python, by zoo.run(strategy, "
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
        """Returns zeros in the shapes of the further arrays of one member."""
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
    """Makes a problem from a plain function.

    Args:
        fn: `fn(solution, *data)` returns the scalar to minimise; `fn(key, solution, *data)` if `takes_key`.
        solution: The initial solution, a pytree of floating-point arrays, such as a module with parameters. Or a
            function from a key to a solution, so that each seed of a benchmark starts from another solution.
        data: Arguments of `fn`. Pass large arrays here. In the function's closure they would be compiled in as
            constants.
        takes_key: Whether the function is random. The members of a group get the same key.
        has_aux: Whether `fn` returns a pair: the scalar, and a dictionary of further arrays by name, such as constraint
            violations. A run keeps them (`RunResult.aux`).
        member_batch_size: Evaluates at most this many members at a time.

    Raises:
        TypeError: If `fn` is not callable, if the solution has leaves that are not floating-point arrays, or if
            `solution` could be either a solution or a function.
        ValueError: If the solution has no entries, or is not finite.

    >>> import jax.numpy as jnp, zoo
    >>> problem = zoo.from_function(lambda x: jnp.sum((x - 1.0) ** 2), jnp.zeros(3))
    """
    if not callable(fn):
        raise TypeError(f"from_function expects a function of one solution, got {type(fn).__name__}.")
    if not isinstance(data, (tuple, list)):  # an array would be split into its rows
        raise TypeError(f"data must be a tuple of what the function takes, data=(x,), got {shown(data)}.")
    return FunctionProblem(
        fn=fn,
        data=tuple(data),
        takes_key=takes_key,
        has_aux=has_aux,
        member_batch_size=member_batch_size,
        **start_or_initialiser(solution),
    )
