"""The interface of a strategy: `init`, `ask`, `tell`, `mean`, `std`, `groups`.

The public methods check and convert their arguments. A strategy implements the methods with an underscore.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.distributions import Given
from zoo.core.evaluation import Evaluation, Groups, checked_evaluation
from zoo.core.keys import as_key
from zoo.core.masks import Mask
from zoo.core.memory import num_bytes, say_bytes, total_memory
from zoo.core.population import Population, population_size, take_member
from zoo.core.settings import PytreeDataclass, leaf, searches_of, static
from zoo.core.solution import Solution, check_start, num_dims
from zoo.core.space import Space
from zoo.core.surrogate import Surrogate, checked_surrogate
from zoo.core.vectors import squared_ratio

_MATRICES = 16  # no strategy keeps that many matrices of the size of a covariance
_BYTES_OF_MEMBER = 64  # in addition to its entries: fitness, rank, weight, group

State = Any
"""The state of a strategy between calls: a `NamedTuple` of arrays."""


class Strategy(PytreeDataclass, abc.ABC):
    """An evolution strategy. Its settings are the fields of a frozen pytree dataclass; all that changes is in a state.

    A subclass declares its settings as fields (`zoo.number` for settings that may be swept, `zoo.static` for settings
    that shape the compiled program) and implements `_init`, `_ask`, `_tell`, `mean` and `std`. No method is jitted
    inside. All of them can be jitted, vmapped and scanned.

    Attributes:
        population_size: Members per generation. With `None`, uses the strategy's own default for the number of
            dimensions; `for_solution` fills it in.
        space: The entries of the solution that are searched; `for_mask` sets it.
    """

    population_size: int | None = static(default=None, at_least=1)
    space: Space = leaf(default=Space(), internal=True)

    def init(self, key: jax.Array, solution: Solution) -> State:
        """Returns the initial state, centred on a solution.

        Args:
            key: JAX random key.
            solution: The initial solution, a pytree of floating-point arrays of any shapes.

        Raises:
            TypeError: If a leaf of the solution is not a floating-point array, or `key` is not a random key.
            ValueError: If the solution has no leaves or no entries or is not finite, if a setting does not fit it, if
                `key` is an array of keys, or if the search needs more memory than there is.
        """
        self.check_shapes()
        solution = check_start(solution)
        self._check_memory(key, solution)
        # Copies, so that a loop may donate its state without destroying the caller's arrays.
        key = as_key(key, takes_seeds=False)
        return self._sized(solution)._init(key, jax.tree.map(jnp.copy, solution))

    def ask(self, key: jax.Array, state: State, surrogate: Surrogate | None = None) -> tuple[Population, State]:
        """Draws the next population.

        Args:
            key: JAX random key.
            state: The strategy's state.
            surrogate: Maps a solution to a surrogate gradient (`Problem.surrogate_gradient`), or `None`.

        Returns:
            The population, each leaf `[population_size, *leaf.shape]`, and the new state.

        Raises:
            TypeError: If the strategy needs a surrogate gradient and there is none, or `key` is not a random key.
            ValueError: If `key` is an array of keys.
        """
        name = type(self).__name__ if self.takes_surrogate(state) else None
        strategy = self if self.population_size else self._sized(jax.eval_shape(self.mean, state))
        return strategy._ask(as_key(key, takes_seeds=False), state, checked_surrogate(surrogate, needed_by=name))

    def takes_surrogate(self, state: State) -> bool:
        """Returns whether `ask` needs a surrogate gradient."""
        del state
        return False

    def tell(self, state: State, population: Population, evaluation: Evaluation | jax.Array | np.ndarray) -> State:
        """Updates the state with the evaluated population.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: An `Evaluation`, or the bare fitness `[population_size]` (lower is better, NaN is worst).

        Raises:
            ValueError: If the fitness does not have one entry per member, if the strategy needs exactly the members
                that it asked for and their number differs (see `needs_all_members`), or if there are too few members
                to compare.
            TypeError: If the fitness is not an array of numbers.
        """
        name = type(self).__name__
        evaluation = checked_evaluation(evaluation, population, name)
        strategy = self
        if not self.population_size:
            strategy = self._sized(jax.eval_shape(lambda members: take_member(members, 0), population))
        told, asked = population_size(population), strategy.population_size or 0
        if told != asked and self.needs_all_members:
            raise ValueError(
                f"{name}.tell expects the {asked} members that it asked for, got {told}: {self.needs_all_members}."
            )
        if told < min(asked, 2):
            raise ValueError(f"{name}.tell expects at least 2 members, to compare them; got {told}.")
        return strategy._tell(state, population, evaluation)

    @property
    def follows_population(self) -> bool:
        """Whether `tell` uses the members that it is given, and not the noise that `ask` drew.

        Only then may a wrapper change members before they are evaluated, as `bounded` does.
        """
        return True

    @property
    def needs_all_members(self) -> str | None:
        """The reason why `tell` needs exactly the members that `ask` returned, as words for an error.

        With `None`, `tell` takes any number of members from two on, and the user's own members among them. Those should
        be marked in `Evaluation.repaired`.
        """
        return "its update is made for that number"

    @property
    def subtracts_pairs(self) -> bool:
        """Whether it learns only from the fitness differences within antithetic pairs, mean + x and mean - x."""
        return False

    @property
    def cannot_restart(self) -> str | None:
        """The reason why a wrapper must not restart it or ask a generation in blocks. With `None`, a wrapper may."""
        return None

    @property
    def restarts(self) -> bool:
        """Whether it restarts by itself, so that a run must not end because the search has converged."""
        return False

    @property
    def groups(self) -> Groups:
        """Which members share data, initial inner state and reset, and what they require of problems with episodes.

        The default is one group, because a strategy that ranks its members must compare them on the same data.

        Raises:
            ValueError: If the population size is not set.
        """
        return Groups.of(self._fixed_size)

    @abc.abstractmethod
    def mean(self, state: State) -> Solution:
        """Returns the recommended solution, in the user's own structure."""

    @abc.abstractmethod
    def std(self, state: State) -> Solution:
        """Returns the standard deviation of the search distribution per parameter, in the solution's structure."""

    def map_mean(self, state: State, fn: Callable[[Solution], Solution]) -> State:
        """Returns the state with `fn` applied to the mean of the search distribution.

        By default this changes the field `mean` of the state, if there is one. A strategy that keeps members has none.
        """
        return state._replace(mean=fn(state.mean)) if "mean" in getattr(state, "_fields", ()) else state

    def condition_number(self, state: State) -> jax.Array:
        """Returns the condition number of the search distribution's covariance, by default of its diagonal only."""
        return squared_ratio(self.std(state))

    @classmethod
    def with_suggestions(
        cls, settings: Mapping[str, Any], suggestions: Mapping[str, Any], solution: Solution
    ) -> dict[str, Any]:
        """Returns the settings, completed by the problem's suggestions for settings that this strategy has.

        Args:
            settings: The settings that the user gave. They have precedence.
            suggestions: The problem's suggestions, for strategies whose `sigma` is per parameter.
            solution: A solution of the problem. Only its shapes are used.
        """
        names = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
        return {**{name: value for name, value in suggestions.items() if name in names}, **settings}

    def search_space(self) -> dict[str, Given]:
        """Returns the values to try of each setting that is worth tuning, by its name.

        By default these are the settings whose fields declare a `search`, except those that are `None` or have a
        schedule. All of them are leaves, so that one compiled program tunes the strategy. A strategy without such
        settings returns an empty dictionary. `zoo.benchmark(tune=...)` and `zoo.sweep` without a space use it.
        """
        return {
            name: search
            for name, search in searches_of(self).items()
            if getattr(self, name) is not None and getattr(self, f"{name}_schedule", None) is None
        }

    def for_solution(self, solution: Solution) -> Self:
        """Returns the strategy with settings that depend on the number of dimensions filled in."""
        return self.replace(population_size=self._num_members(solution))

    def for_mask(self, mask: Mask) -> Self:
        """Returns a strategy that searches only the entries that a mask keeps. The others are zero in every member.

        Args:
            mask: Booleans in the structure and the shapes of the solution; may be traced.
        """
        return self.replace(space=Space(mask=mask))

    def _check_memory(self, key: jax.Array, solution: Solution) -> None:
        """Raises a `ValueError` if the state and a population need more memory than there is."""
        dims, size, total = num_dims(solution), self._num_members(solution), total_memory()
        if total is None or 8 * max(_MATRICES * dims**2, size * dims) <= total:  # a bound, which spares tracing
            return
        state = population = 0
        if size * _BYTES_OF_MEMBER > total:
            population = size * _BYTES_OF_MEMBER
        else:
            state_shapes = jax.eval_shape(self._init, key, solution)
            state = num_bytes(state_shapes)
            if state <= total:
                population = num_bytes(jax.eval_shape(lambda k, s: self.ask(k, s, lambda x: x)[0], key, state_shapes))
        if state + population <= total:
            return
        what, remedy = f"population_size={size:,} takes {say_bytes(population)} or more", "Choose a smaller one."
        if state > population:
            what = f"the state of a search in {dims:,} dimensions takes {say_bytes(state)}"
            remedy = "Choose a strategy whose state grows more slowly with the dimension, such as sep_cma_es or snes."
            if state < dims * _BYTES_OF_MEMBER:
                remedy = "Search in fewer."
        raise ValueError(f"{type(self).__name__}: {what}, and there are {say_bytes(total)} of memory. {remedy}")

    @property
    def _fixed_size(self) -> int:
        if self.population_size is None:
            raise ValueError(
                f"{type(self).__name__}.population_size is not set, so its groups are not known yet. Pass "
                "population_size=..., or call strategy.for_solution(solution) for its default at that dimension."
            )
        return self.population_size

    def _sized(self, solution: Solution) -> Self:
        """Returns the strategy with a population size. So `_init`, `_ask` and `_tell` never see `None`."""
        return self if self.population_size else self.for_solution(solution)

    def _num_members(self, solution: Solution) -> int:
        return self.population_size or self._default_population_size(num_dims(solution))

    def _default_population_size(self, num_dims: int) -> int:
        """Returns the default population size of CMA-ES for `num_dims` dimensions (Hansen 2016, eq. 48)."""
        return 4 + int(3 * np.log(num_dims))

    @abc.abstractmethod
    def _init(self, key: jax.Array, solution: Solution) -> State: ...

    @abc.abstractmethod
    def _ask(self, key: jax.Array, state: State, surrogate: Surrogate | None) -> tuple[Population, State]: ...

    @abc.abstractmethod
    def _tell(self, state: State, population: Population, evaluation: Evaluation) -> State: ...
