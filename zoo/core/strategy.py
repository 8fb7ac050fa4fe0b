"""The interface of a strategy: `init`, `ask`, `tell`, `mean`, `std`, `groups`.

The public methods check what comes in and put it in one form; a strategy implements the underscored ones.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.evaluation import Evaluation, Groups, checked_evaluation
from zoo.core.keys import as_key
from zoo.core.masks import Mask
from zoo.core.memory import num_bytes, say_bytes, total_memory
from zoo.core.population import Population, population_size, take_member
from zoo.core.settings import PytreeDataclass, leaf, static
from zoo.core.solution import Solution, check_start, num_dims
from zoo.core.space import Space
from zoo.core.surrogate import Surrogate, checked_surrogate
from zoo.core.vectors import squared_ratio

_MATRICES = 16  # of the size of a covariance: no strategy keeps as many
_BYTES_OF_MEMBER = 64  # besides its entries: fitness, rank, weight, group

State = Any
"""What a strategy carries between calls: a `NamedTuple` of arrays."""


class Strategy(PytreeDataclass, abc.ABC):
    """An evolution strategy: settings in a frozen pytree dataclass, everything that changes in a state.

    A subclass declares its settings as fields (`zoo.number` for what may be swept, `zoo.static` for what shapes the
    program) and implements `_init`, `_ask`, `_tell`, `mean` and `std`. Nothing is jitted inside; all of it can be
    jitted, vmapped and scanned.

    Attributes:
        population_size: Members per generation. `None` means the strategy's own default for the number of dimensions;
            `for_solution` fills it in.
        space: What is searched of the solution; `for_mask` sets it.
    """

    population_size: int | None = static(default=None, at_least=1)
    space: Space = leaf(default=Space(), internal=True)

    def init(self, key: jax.Array, solution: Solution) -> State:
        """Returns the initial state, centred on a solution.

        Args:
            key: JAX random key.
            solution: The initial solution, a pytree of floating-point arrays of any shapes.

        Raises:
            TypeError: If a leaf of the solution is not a floating-point array, or the key is none.
            ValueError: If the solution has no leaves or no entries, or is not finite; a setting does not fit it; there
                are several keys; or there is not the memory for the search.
        """
        self.check_shapes()
        solution = check_start(solution)
        self._check_memory(key, solution)
        # Copied, so that a loop may donate its state without taking the caller's arrays with it.
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
            TypeError: If the strategy needs a surrogate gradient and there is none, or the key is none.
            ValueError: If there are several keys.
        """
        name = type(self).__name__ if self.takes_surrogate(state) else None
        strategy = self if self.population_size else self._sized(jax.eval_shape(self.mean, state))
        return strategy._ask(as_key(key, takes_seeds=False), state, checked_surrogate(surrogate, needed_by=name))

    def takes_surrogate(self, state: State) -> bool:
        """Returns whether `ask` takes a surrogate gradient, and cannot do without."""
        del state
        return False

    def tell(self, state: State, population: Population, evaluation: Evaluation | jax.Array | np.ndarray) -> State:
        """Updates the state with the evaluated population.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: An `Evaluation`, or the bare fitness `[population_size]` (lower is better, NaN is worst).

        Raises:
            ValueError: If the fitness does not have one entry per member, or there are more or fewer members than were
                asked and the strategy cannot do with that; see `needs_all_members`.
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
        """Whether `tell` goes by the members that it is given, and not by the noise that `ask` drew.

        Only then may a wrapper change members before they are evaluated, as bounds do.
        """
        return True

    @property
    def needs_all_members(self) -> str | None:
        """Why `tell` needs the members that were asked, no more and no fewer.

        `None`: it takes any number of them, two at least, and members of one's own among them. Those should be marked
        in `Evaluation.repaired`.
        """
        return "its update is made for that number"

    @property
    def subtracts_pairs(self) -> bool:
        """Whether all that it learns is how fitness differs within antithetic pairs, mean + x and mean - x."""
        return False

    @property
    def cannot_restart(self) -> str | None:
        """Why a wrapper must not start it over, nor ask a generation in blocks; `None`: it may."""
        return None

    @property
    def restarts(self) -> bool:
        """Whether it starts over by itself, so that a search that has converged is not at its end."""
        return False

    @property
    def groups(self) -> Groups:
        """Which members share data, inner start and reset, and what they ask of a problem with inner episodes.

        The default is one group, which is what a strategy that ranks its members needs.

        Raises:
            ValueError: If the population size is still open.
        """
        return Groups.of(self._fixed_size)

    @abc.abstractmethod
    def mean(self, state: State) -> Solution:
        """Returns the recommended solution, in the user's own structure."""

    @abc.abstractmethod
    def std(self, state: State) -> Solution:
        """Returns the standard deviation of the search distribution per parameter, in the solution's structure."""

    def map_mean(self, state: State, fn: Callable[[Solution], Solution]) -> State:
        """Returns the state with the mean of the search distribution changed by a function of a solution.

        By default the field `mean` of the state, if it has one: a strategy that keeps members has no mean to change.
        """
        return state._replace(mean=fn(state.mean)) if "mean" in getattr(state, "_fields", ()) else state

    def condition_number(self, state: State) -> jax.Array:
        """Returns the condition number of the search distribution's covariance; by default that of its diagonal."""
        return squared_ratio(self.std(state))

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

    def for_mask(self, mask: Mask) -> Self:
        """Returns the strategy as it searches some entries of the solution, the others being zero in every member.

        Args:
            mask: Booleans in the structure and the shapes of the solution; may be traced.
        """
        return self.replace(space=Space(mask=mask))

    def _check_memory(self, key: jax.Array, solution: Solution) -> None:
        """Raises a `ValueError` if the state and a population take more memory than there is."""
        dims, size, total = num_dims(solution), self._num_members(solution), total_memory()
        if total is None or 8 * max(_MATRICES * dims**2, size * dims) <= total:  # without a look at the state
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
                f"{type(self).__name__}.population_size is open, so its groups are not known yet. Pass "
                "population_size=..., or call strategy.for_solution(solution) for its default at that dimension."
            )
        return self.population_size

    def _sized(self, solution: Solution) -> Self:
        """Returns the strategy with a population size, so that `_init`, `_ask` and `_tell` find a number there."""
        return self if self.population_size else self.for_solution(solution)

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
