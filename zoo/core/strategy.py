"""The interface of a strategy: `init`, `ask`, `tell`, `mean`, `std`, `groups`.

The public methods check what comes in and put it in one form; a strategy implements the underscored ones.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.population import map_members, materialize, population_size
from zoo.core.promotion import promoted
from zoo.core.settings import PytreeDataclass, static

Solution = Any
"""A pytree of floating-point arrays, in the user's own structure."""
Population = Any
"""The solutions of one generation; see `zoo.core.population`."""
State = Any
"""What a strategy carries between calls: a `NamedTuple` of arrays."""
Surrogate = Callable[[Solution], Solution]
"""Maps a solution to a surrogate gradient of the same structure; a `SurrogateGradient` can do more."""


@dataclasses.dataclass(frozen=True)
class SurrogateGradient:
    """A surrogate gradient as a problem gives it: a function of one solution, or of each member of a population.

    Attributes:
        gradient: From a solution to its gradient, averaged over the data of all groups.
        members: From a population to the gradient of each member, `[population_size, ...]`, on the data that `evaluate`
            evaluates it on.
    """

    gradient: Surrogate
    members: Callable[[Population], Any]

    def __call__(self, solution: Solution) -> Solution:
        """Returns the gradient at a solution, averaged over the data of all groups."""
        return self.gradient(solution)


def gradient_of_members(surrogate: Surrogate, population: Population) -> Any:
    """Returns the surrogate gradient of each member, `[population_size, ...]`, each on its own data if it has any."""
    if isinstance(surrogate, SurrogateGradient):
        return surrogate.members(population)
    return map_members(surrogate, population)


class Evaluation(NamedTuple):
    """What evaluating a population returns.

    Attributes:
        fitness: `[population_size]`, lower is better. NaN counts as the worst.
        done: `[population_size]` booleans, true where the member's inner episode ended and was reset; always true for
            a problem without inner state.
        steps: Scalar: how many problem steps this evaluation spent.
        moved: `[population_size]` booleans, true where a wrapper moved the member after it was drawn, as bounds do, so
            that it is no sample of the search distribution; `None`: none was.
    """

    fitness: jax.Array
    done: jax.Array
    steps: jax.Array
    moved: jax.Array | None = None


class Groups(NamedTuple):
    """Which members belong together, and what they ask of a problem with inner episodes; see `Strategy.groups`.

    Attributes:
        ids: `[population_size]` integers: members with the same id see the same data, inner start and reset.
        parents: `[population_size]` integers: the member from whose inner state each member starts its next window, one
            of its own group. `None`: its own.
        whole_episodes: Whether an evaluation must unroll whole episodes, however long the problem's window is.
    """

    ids: np.ndarray | jax.Array
    parents: np.ndarray | None = None
    whole_episodes: bool = False


class Strategy(PytreeDataclass, abc.ABC):
    """An evolution strategy: settings in a frozen pytree dataclass, everything that changes in a state.

    A subclass declares its settings as fields (`zoo.number` for what may be swept, `zoo.static` for what shapes the
    program) and implements `_init`, `_ask`, `_tell`, `mean` and `std`. Nothing is jitted inside; all of it can be
    jitted, vmapped and scanned.

    Attributes:
        population_size: Members per generation. `None` means the strategy's own default for the number of dimensions;
            `for_solution` fills it in.
    """

    population_size: int | None = static(default=None, at_least=1)

    takes_surrogate: ClassVar[bool] = False
    """Whether `ask` uses the surrogate gradient; if it does, the loop's `surrogate` must not be `None`."""

    def init(self, key: jax.Array, solution: Solution) -> State:
        """Returns the initial state, centred on a solution.

        Args:
            key: JAX random key.
            solution: The initial solution, a pytree of floating-point arrays of any shapes.

        Raises:
            TypeError: If a leaf of the solution is not a floating-point array.
            ValueError: If the solution has no leaves or no entries.
        """
        # Copied, so that a loop may donate its state without taking the caller's arrays with it.
        return self._init(key, jax.tree.map(jnp.copy, check_solution(solution)))

    def ask(self, key: jax.Array, state: State, surrogate: Surrogate | None = None) -> tuple[Population, State]:
        """Draws the next population.

        Args:
            key: JAX random key.
            state: The strategy's state.
            surrogate: Maps a solution to a surrogate gradient (`Problem.surrogate_gradient`), or `None`.

        Returns:
            The population, each leaf `[population_size, *leaf.shape]`, and the new state.

        Raises:
            TypeError: If the strategy needs a surrogate gradient and there is none.
        """
        if surrogate is not None:
            surrogate = _checked_surrogate(surrogate)
        elif self._needs_surrogate(state):
            raise TypeError(
                f"{type(self).__name__} needs a surrogate gradient, and this problem has none. Give the problem a "
                "`gradient` method (or `differentiable = True` where autodiff of `fitness` will do), or choose a "
                "strategy that needs none, such as open_es."
            )
        return self._ask(key, state, surrogate)

    def _needs_surrogate(self, state: State) -> bool:
        """Whether `ask` cannot do without a surrogate gradient."""
        return self.takes_surrogate

    def tell(self, state: State, population: Population, evaluation: Evaluation | jax.Array | np.ndarray) -> State:
        """Updates the state with the evaluated population.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: An `Evaluation`, or the bare fitness `[population_size]` (lower is better, NaN is worst).

        Raises:
            ValueError: If the fitness does not have one entry per member.
            TypeError: If the fitness is not an array of numbers.
        """
        return self._tell(state, population, self._check_evaluation(population, evaluation))

    @property
    def remembers_noise(self) -> bool:
        """Whether `tell` uses the noise that `ask` drew rather than the members it is given.

        A wrapper may then not move members, as bounds do.
        """
        return False

    @property
    def groups(self) -> np.ndarray | Groups:
        """Group of each member, `[population_size]` integers: a group shares data, inner start and reset.

        The default is one group, which is what a strategy that ranks its members needs. A strategy that asks more of a
        problem with inner episodes returns `Groups`; `Problem.init` takes either.

        Raises:
            ValueError: If the population size is still open.
        """
        return np.zeros(self._fixed_size, np.int32)

    @abc.abstractmethod
    def mean(self, state: State) -> Solution:
        """Returns the recommended solution, in the user's own structure."""

    @abc.abstractmethod
    def std(self, state: State) -> Solution:
        """Returns the standard deviation of the search distribution per parameter, in the solution's structure."""

    def condition_number(self, state: State) -> jax.Array:
        """Returns the condition number of the search distribution's covariance; by default that of its diagonal."""
        stds = promoted(*map(jnp.ravel, jax.tree.leaves(self.std(state))))
        largest = jnp.max(jnp.stack([jnp.max(s) for s in stds]))
        smallest = jnp.min(jnp.stack([jnp.min(jnp.where(s > 0, s, largest)) for s in stds]))  # what is searched at all
        return jnp.where(largest > 0, jnp.square(largest / jnp.where(smallest > 0, smallest, 1)), 1)

    @classmethod
    def with_suggestions(
        cls, settings: Mapping[str, Any], suggestions: Mapping[str, Any], solution: Solution
    ) -> dict[str, Any]:
        """Returns settings, completed by those of a problem's suggestions that this strategy has.

        Args:
            settings: The settings given.
            suggestions: The problem's, for strategies whose `sigma` is per parameter.
            solution: A solution of the problem, of which only shapes are used.
        """
        names = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
        return {**{name: value for name, value in suggestions.items() if name in names}, **settings}

    def for_solution(self, solution: Solution) -> Self:
        """Returns the strategy with settings that depend on the number of dimensions filled in."""
        return self.replace(population_size=self._num_members(solution))

    def for_mask(self, mask: Any) -> Self:
        """Returns the strategy as it searches some entries of the solution, the others being zero in every member.

        Args:
            mask: Booleans in the structure and the shapes of the solution; may be traced.
        """
        del mask
        return self  # unless learning rates depend on the number of dimensions

    @property
    def _fixed_size(self) -> int:
        if self.population_size is None:
            raise ValueError(
                f"{type(self).__name__}.population_size is open, so its groups are not known yet. Pass "
                "population_size=..., or call strategy.for_solution(solution) for its default at that dimension."
            )
        return self.population_size

    def _num_members(self, solution: Solution) -> int:
        return self.population_size or self._default_population_size(num_dims(solution))

    def _default_population_size(self, num_dims: int) -> int:
        """Population size for `num_dims` dimensions: that of CMA-ES (Hansen 2016, eq. 48)."""
        return 4 + int(3 * np.log(num_dims))

    @abc.abstractmethod
    def _init(self, key: jax.Array, solution: Solution) -> State: ...

    @abc.abstractmethod
    def _ask(self, key: jax.Array, state: State, surrogate: Surrogate | None) -> tuple[Population, State]: ...

    @abc.abstractmethod
    def _tell(self, state: State, population: Population, evaluation: Evaluation) -> State: ...

    def _check_evaluation(self, population: Population, evaluation: Any) -> Evaluation:
        size = population_size(population)
        if not isinstance(evaluation, Evaluation):  # bare fitness: all done, one step a member
            evaluation = Evaluation(evaluation, jnp.ones(size, bool), jnp.asarray(size, jnp.int32))
        fitness = evaluation.fitness
        if not hasattr(fitness, "shape"):
            try:
                fitness = np.asarray(fitness, float)
            except (TypeError, ValueError):
                raise TypeError(
                    f"{type(self).__name__}.tell expects an Evaluation or an array of fitness values, got "
                    f"{type(fitness).__name__}."
                ) from None
        if fitness.shape != (size,):
            raise ValueError(
                f"{type(self).__name__}.tell expects fitness of shape ({size},), one value per member of the "
                f"population, got {fitness.shape}."
            )
        if evaluation.done.shape != (size,):
            raise ValueError(
                f"{type(self).__name__}.tell expects evaluation.done of shape ({size},), got {evaluation.done.shape}."
            )
        fitness = jnp.asarray(fitness)
        if not jnp.issubdtype(fitness.dtype, jnp.floating):
            fitness = fitness.astype(float)
        return evaluation._replace(fitness=jnp.where(jnp.isnan(fitness), jnp.inf, fitness))  # NaN counts as the worst


def _checked_surrogate(surrogate: Surrogate) -> SurrogateGradient:
    """Returns the surrogate with gradients in the dtypes of the solution, or an error if they do not fit it."""

    def fit(gradient: Any, solution: Any) -> Any:
        shapes = [[jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (gradient, solution)]
        if jax.tree.structure(gradient) != jax.tree.structure(solution) or shapes[0] != shapes[1]:
            raise ValueError(
                "A surrogate gradient must have the structure and the shapes of the solution, "
                f"{jax.tree.structure(solution)} with {shapes[1]}, got {jax.tree.structure(gradient)} with {shapes[0]}."
            )
        return jax.tree.map(lambda g, x: jnp.asarray(g, x.dtype), gradient, solution)

    return SurrogateGradient(
        lambda solution: fit(surrogate(solution), solution),
        lambda population: fit(gradient_of_members(surrogate, population), jax.eval_shape(materialize, population)),
    )


def repeat_groups(size: int, group_size: int) -> np.ndarray:
    """Returns group ids 0 to n - 1, repeated: member i, i + n, i + 2 n, ... are a group of `group_size`."""
    return np.tile(np.arange(size // group_size, dtype=np.int32), group_size)


def check_solution(solution: Solution) -> Solution:
    """Returns the solution as JAX arrays of fixed dtype, or says what is wrong with it.

    Raises:
        TypeError: If a leaf is not a floating-point array.
        ValueError: If there is nothing to optimise.
    """
    leaves = jax.tree_util.tree_leaves_with_path(solution)
    if not leaves:
        raise ValueError("The solution is an empty pytree: there is nothing to optimise. Expected arrays of floats.")
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and isinstance(leaf, float):
            continue
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            name = jax.tree_util.keystr(path) or "the solution"
            raise TypeError(
                f"Solutions are pytrees of floating-point arrays, but {name} is "
                f"{type(leaf).__name__ if dtype is None else dtype}. Convert it (x.astype(float)), or keep what is "
                "not optimised out of the solution."
            )
    if num_dims(solution) == 0:
        raise ValueError(f"The solution has no entries: its arrays have shapes {[x.shape for _, x in leaves]}.")
    # An explicit dtype drops the weak type of Python floats, which would otherwise change under a scan.
    return jax.tree.map(lambda x: jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.result_type(x))), solution)


def num_dims(solution: Solution) -> int:
    """Returns the number of parameters of a solution."""
    return sum(int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(solution))
