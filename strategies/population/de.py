"""Differential evolution: members move along differences of other members, and only improvements are kept.

Reference: Storn & Price 1997, "Differential Evolution - A Simple and Efficient Heuristic for Global Optimization over
Continuous Spaces", doi:10.1023/A:1008202821328. Mutation (2) (and section 4 for its variants), binomial crossover (4)
and (5), selection as in section 2. DE/current-to-best/1: Storn 1996, doi:10.1109/NAFIPS.1996.534789.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Population, Solution, num_dims, number, static, take_member, uniform_like
from zoo.strategies.population.base import (
    PopulationStrategy,
    copies,
    parameter_numbers,
    unevaluated,
    where_members,
)

_NUM_PARTNERS = {"rand": 3, "best": 2, "current_to_best": 2}
"""Distinct members that the mutation of a member draws, itself excluded."""


class DEState(NamedTuple):
    """State of `DE`."""

    members: Population  # [population_size, ...]
    fitness: jax.Array  # [population_size] of the members, +inf before they are evaluated


class DE(PopulationStrategy):
    """Differential evolution, synchronous, with binomial crossover; recommends the best member seen.

    A member keeps the fitness it was accepted with: where fitness is noisy, a lucky one stays.

    Attributes:
        sigma: Standard deviation of the initial population around the initial solution, which is its first member: one
            number, or one for each parameter, in the structure of the solution, of numbers and arrays that broadcast to
            its leaves.
        differential_weight: F, the scale of the differences.
        crossover_rate: CR, the probability that a parameter is taken from the mutant.
        mutation: `"rand"` (DE/rand/1), `"best"` (DE/best/1, greedier) or `"current_to_best"` (DE/current-to-best/1).

    References:
        Storn & Price 1997, J. Global Optimization 11:341-359.
    """

    differential_weight: float = number(default=0.8, above=0)
    crossover_rate: float = number(default=0.9, at_least=0, at_most=1)
    mutation: Literal["rand", "best", "current_to_best"] = static(default="rand")

    def __post_init__(self) -> None:
        """Checks the size of the population."""
        super().__post_init__()
        if self.population_size is not None and self.population_size <= _NUM_PARTNERS[self.mutation]:
            raise ValueError(
                f"DE.population_size must be at least {_NUM_PARTNERS[self.mutation] + 1} for mutation="
                f"{self.mutation!r}, which combines that many different members, got {self.population_size}."
            )

    def mean(self, state: DEState) -> Solution:
        """Returns the best member seen (the initial solution before the first)."""
        return take_member(state.members, jnp.argmin(state.fitness))

    def _default_population_size(self, num_dims: int) -> int:
        """Ten members per dimension (Storn & Price 1997, section 4), at most 100."""
        return min(10 * num_dims, 100)

    def _init(self, key: jax.Array, solution: Solution) -> DEState:
        size = self._num_members(solution)
        return DEState(copies(solution, size), unevaluated(solution, size))

    def _next_population(self, key: jax.Array, state: DEState) -> Population:
        key_partners, key_crossover, key_forced = jax.random.split(key, 3)
        size = state.fitness.shape[0]
        partners = _distinct_partners(key_partners, size, _NUM_PARTNERS[self.mutation])
        best = jnp.argmin(state.fitness)
        numbers = parameter_numbers(state.members)
        # At least one parameter comes from the mutant (5).
        forced = jax.random.randint(key_forced, (size,), 0, num_dims(numbers))

        def trial(x: jax.Array, uniform: jax.Array, number: jax.Array) -> jax.Array:
            scale = jnp.asarray(self.differential_weight, x.dtype)
            *base, plus, minus = (x[i] for i in partners)
            mutant = scale * (plus - minus) + (base[0] if base else x[best][None])  # (2)
            if self.mutation == "current_to_best":
                mutant = x + scale * (x[best][None] - x) + scale * (plus - minus)
            crossed = (uniform < self.crossover_rate) | (number == forced.reshape(-1, *[1] * (x.ndim - 1)))
            # On a plateau everything is accepted: the members drift apart, in the end beyond what is representable.
            return jnp.where(crossed & jnp.isfinite(mutant), mutant, x)  # (4)

        return jax.tree.map(trial, state.members, uniform_like(key_crossover, state.members), numbers)

    def _tell(self, state: DEState, population: Population, evaluation: Evaluation) -> DEState:
        fitness = evaluation.fitness.astype(state.fitness.dtype)
        # The paper's text wants an improvement; equals are accepted as in its authors' code, to cross plateaus.
        accepted = fitness <= state.fitness
        return DEState(where_members(accepted, population, state.members), jnp.where(accepted, fitness, state.fitness))


def _distinct_partners(key: jax.Array, size: int, count: int) -> jax.Array:
    """Returns for each member `count` different others, uniformly drawn, `[count, size]`.

    Each is drawn among those left, and then steps over the indices taken, from the lowest to the highest: no
    permutation of the whole population per member.
    """
    taken = jnp.arange(size)[None]
    for i, k in enumerate(jax.random.split(key, count)):
        index = jax.random.randint(k, (size,), 0, size - 1 - i)
        for lower in jnp.sort(taken, axis=0):
            index = jnp.where(index >= lower, index + 1, index)
        taken = jnp.concatenate([taken, index[None]])
    return taken[1:]
