"""Random search: Gaussian samples around the initial solution; the best one is kept. The baseline to beat.

The search distribution never changes: every generation is drawn around the initial solution with the same sigma.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Strategy,
    Surrogate,
    distributions,
    normal_like,
    number,
    spread_over,
    take_member,
)
from zoo.core.promotion import common_dtype


class RandomSearchState(NamedTuple):
    """State of `RandomSearch`."""

    center: Solution
    best_solution: Solution
    best_fitness: jax.Array  # []


class RandomSearch(Strategy):
    """Random search around the initial solution; recommends the best member seen.

    Attributes:
        sigma: Standard deviation of the samples, in the units of the solution, above 0: one number, or a pytree in the
            structure of the solution (numbers, lists, or arrays that broadcast to its leaves).
    """

    sigma: Any = number(default=1.0, above=0, per_parameter=True, search=distributions.times(0.1, 10))

    @property
    def needs_all_members(self) -> None:
        """`None`: it only keeps the best member."""

    def mean(self, state: RandomSearchState) -> Solution:
        """Returns the best member seen; the initial solution before the first `tell`."""
        return state.best_solution

    def std(self, state: RandomSearchState) -> Solution:
        """Returns sigma, for every parameter."""
        return spread_over(self.sigma, state.center, f"{type(self).__name__}.sigma")

    def _init(self, key: jax.Array, solution: Solution) -> RandomSearchState:
        dtype = common_dtype(*jax.tree.leaves(solution), jnp.float32)
        return RandomSearchState(solution, jax.tree.map(jnp.copy, solution), jnp.asarray(jnp.inf, dtype))

    def _ask(
        self, key: jax.Array, state: RandomSearchState, surrogate: Surrogate | None
    ) -> tuple[Population, RandomSearchState]:
        noise = normal_like(key, state.center, num_samples=self._num_members(state.center))
        return jax.tree.map(lambda c, s, z: c[None] + s[None] * z, state.center, self.std(state), noise), state

    def _tell(self, state: RandomSearchState, population: Population, evaluation: Evaluation) -> RandomSearchState:
        fitness = evaluation.fitness
        index = jnp.argmin(fitness)
        better = fitness[index] < state.best_fitness
        best_solution = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), take_member(population, index), state.best_solution
        )
        best_fitness = jnp.where(better, fitness[index], state.best_fitness).astype(state.best_fitness.dtype)
        return RandomSearchState(state.center, best_solution, best_fitness)
