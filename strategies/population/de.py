"""Differential evolution: members move along differences of other members, and only improvements are kept.

For each member a mutant is made: one member plus a scaled difference of two others. The trial takes each parameter from
the mutant with a given probability, and from the member otherwise. It replaces the member if its fitness is no worse.

Reference: Storn & Price 1997, "Differential Evolution - A Simple and Efficient Heuristic for Global Optimization over
Continuous Spaces", doi:10.1023/A:1008202821328. Mutation (2) (and section 4 for its variants), binomial crossover (4)
and (5), selection as in section 2. DE/current-to-best/1: Storn 1996, doi:10.1109/NAFIPS.1996.534789.

The text of the paper asks for an improvement. Here equal fitness is accepted too, as in its authors' code, so that the
search can cross plateaus.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    distributions,
    num_dims,
    number,
    static,
    take_member,
    uniform_like,
)
from zoo.strategies.population.base import (
    PopulationStrategy,
    copies,
    parameter_numbers,
    unevaluated,
    where_members,
)

_NUM_PARTNERS = {"rand": 3, "best": 2, "current_to_best": 2}
"""Number of distinct members, other than itself, that the mutation of a member draws."""


class DEState(NamedTuple):
    """State of `DE`."""

    members: Population  # [population_size, ...]
    fitness: jax.Array  # [population_size] of the members, +inf before they are evaluated


class DE(PopulationStrategy):
    """Differential evolution, synchronous, with binomial crossover; recommends the best member seen.

    A member keeps the fitness it was accepted with. Where fitness is noisy, a lucky one stays.

    Attributes:
        differential_weight: F, the scale of the differences, above 0.
        crossover_rate: CR, the probability that a parameter is taken from the mutant, between 0 and 1.
        mutation: `"rand"` (DE/rand/1), `"best"` (DE/best/1, greedier) or `"current_to_best"` (DE/current-to-best/1).

    References:
        Storn & Price 1997, J. Global Optimization 11:341-359.
    """

    differential_weight: float = number(default=0.8, above=0, search=distributions.uniform(0.4, 1))
    crossover_rate: float = number(default=0.9, at_least=0, at_most=1, search=distributions.uniform(0, 1))
    mutation: Literal["rand", "best", "current_to_best"] = static(default="rand")

    def __post_init__(self) -> None:
        """Checks the size of the population."""
        super().__post_init__()
        if self.population_size is not None and self.population_size <= _NUM_PARTNERS[self.mutation]:
            raise ValueError(
                f"DE.population_size must be at least {_NUM_PARTNERS[self.mutation] + 1} for mutation="
                f"{self.mutation!r}, which combines that number of members, got {self.population_size}."
            )

    def mean(self, state: DEState) -> Solution:
        """Returns the best member seen; the initial solution before the first `tell`."""
        return take_member(state.members, jnp.argmin(state.fitness))

    def _default_population_size(self, num_dims: int) -> int:
        """Returns ten members per dimension (Storn & Price 1997, section 4), at most 100."""
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
            # On a plateau every trial is accepted. Members drift apart, in the end beyond what can be represented.
            return jnp.where(crossed & jnp.isfinite(mutant), mutant, x)  # (4)

        return jax.tree.map(trial, state.members, uniform_like(key_crossover, state.members), numbers)

    def _tell(self, state: DEState, population: Population, evaluation: Evaluation) -> DEState:
        fitness = evaluation.fitness.astype(state.fitness.dtype)
        # The paper's text asks for an improvement. Equal fitness is accepted as in its authors' code, to cross
        # plateaus.
        accepted = fitness <= state.fitness
        return DEState(where_members(accepted, population, state.members), jnp.where(accepted, fitness, state.fitness))


def _distinct_partners(key: jax.Array, size: int, count: int) -> jax.Array:
    """Returns for each member `count` different others, uniformly drawn, `[count, size]`.

    Each partner is drawn as a number among the members left, and then skips the indices that are taken, from the lowest
    to the highest. This saves a permutation of the whole population for each member.
    """
    taken = jnp.arange(size)[None]
    for i, k in enumerate(jax.random.split(key, count)):
        index = jax.random.randint(k, (size,), 0, size - 1 - i)
        for lower in jnp.sort(taken, axis=0):
            index = jnp.where(index >= lower, index + 1, index)
        taken = jnp.concatenate([taken, index[None]])
    return taken[1:]
