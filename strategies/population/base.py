"""What strategies share that keep a population of members and the fitness of each.

`init` evaluates nothing. The first `ask` returns the initial population: the initial solution, and Gaussian samples
around it. The first `tell` takes its fitness. Until then the state holds copies of the initial solution with fitness
+inf. While no member has had a fitness below +inf, every `ask` draws an initial population.
"""

import abc
import math
from typing import Any

import jax
import jax.numpy as jnp

from zoo.core import (
    Population,
    Solution,
    State,
    Strategy,
    Surrogate,
    clip_std,
    distributions,
    normal_like,
    number,
    spread_over,
)
from zoo.core.promotion import common_dtype
from zoo.strategies.batching import any_in_batch


class PopulationStrategy(Strategy):
    """Base of strategies whose search distribution is their members.

    A subclass has a state with `members`, `[population_size, ...]`, and `fitness`, `[population_size]`. It implements
    `_next_population` for the generations after the first.

    Attributes:
        sigma: Standard deviation of the initial population around the initial solution, which is its first member; in
            the units of the solution, above 0. One number, or a pytree in the structure of the solution (numbers,
            lists, or arrays that broadcast to its leaves).
    """

    sigma: Any = number(default=0.3, above=0, per_parameter=True, search=distributions.times(0.1, 10))

    def std(self, state: State) -> Solution:
        """Returns the standard deviation of the members per parameter; before the first `tell`, `sigma`."""
        is_first = nothing_evaluated(state.fitness)
        return jax.tree.map(
            lambda x, s: jnp.where(is_first, s, clip_std(jnp.std(x, axis=0))),
            state.members,
            self._spread(jax.tree.map(lambda x: x[0], state.members)),
        )

    def _ask(self, key: jax.Array, state: State, surrogate: Surrogate | None) -> tuple[Population, State]:
        is_first = nothing_evaluated(state.fitness)
        center = jax.tree.map(lambda x: x[0], state.members)

        def initial(following: Population) -> Population:
            return jax.tree.map(
                lambda new, old: jnp.where(is_first, new, old), self._initial_population(key, center, state), following
            )

        # Batched seeds are in their first generation together. The noise is drawn in no other generation.
        following = self._next_population(key, state)
        return jax.lax.cond(any_in_batch(is_first), initial, lambda following: following, following), state

    def _initial_population(self, key: jax.Array, center: Solution, state: State) -> Population:
        noise = normal_like(key, center, num_samples=state.fitness.shape[0])
        return jax.tree.map(lambda c, s, z: c[None] + s[None] * z.at[0].set(0), center, self._spread(center), noise)

    def _spread(self, solution: Solution) -> Solution:
        return spread_over(self.sigma, solution, f"{type(self).__name__}.sigma")

    @abc.abstractmethod
    def _next_population(self, key: jax.Array, state: State) -> Population:
        """Returns the population to evaluate, each leaf `[population_size, ...]`."""


def nothing_evaluated(fitness: jax.Array) -> jax.Array:
    """Returns whether no member has had a fitness below +inf yet."""
    return jnp.all(fitness == jnp.inf)


def unevaluated(solution: Solution, size: int) -> jax.Array:
    """Returns fitness +inf, `[size]`, in the precision in which states keep fitness."""
    return jnp.full(size, jnp.inf, common_dtype(*jax.tree.leaves(solution), jnp.float32))


def copies(solution: Solution, size: int) -> Population:
    """Returns a population of copies of a solution, as stacked arrays."""
    return jax.tree.map(lambda x: jnp.array(jnp.broadcast_to(x, (size, *x.shape))), solution)


def where_members(mask: jax.Array, one: Population, other: Population) -> Population:
    """Returns members of one population where the mask, `[population_size]`, is true, and of the other elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), one, other)


def parameter_numbers(population: Population) -> Any:
    """Returns the number of each parameter, from 0 to d - 1, each leaf `[1, *leaf.shape]`."""
    leaves, structure = jax.tree.flatten(population)
    numbers, first = [], 0
    for leaf in leaves:
        shape = leaf.shape[1:]
        numbers.append(first + jnp.arange(math.prod(shape)).reshape(1, *shape))
        first += math.prod(shape)
    return jax.tree.unflatten(structure, numbers)
