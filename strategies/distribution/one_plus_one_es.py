"""(1+1)-ES: one parent, replaced by an offspring that is no worse; the step size follows the one-fifth success rule.

Each generation samples offspring around the parent. The step size grows if more than one fifth of them are as good as
the parent, and shrinks if fewer are.

Reference: Rechenberg 1973; Kern et al. 2004, "Learning Probability Distributions in Continuous Evolutionary Algorithms
- A Comparative Review", Natural Computing 3, doi 10.1023/B:NACO.0000023416.59689.4e; damping as in Hansen, Arnold,
Auger 2015, "Evolution Strategies", section 3.1. With more than one offspring it is a (1+lambda)-ES.
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
    clip_std,
    distributions,
    in_single,
    normal_like,
    number,
    static,
    step_size_and_units,
    take_member,
)
from zoo.core.promotion import common_dtype

TARGET_SUCCESS_RATE = 1 / 5


class OnePlusOneESState(NamedTuple):
    """State of `OnePlusOneES`."""

    parent: Solution
    fitness: jax.Array  # [] of the parent; +inf before it has been evaluated
    sigma: jax.Array  # []
    generation: jax.Array  # []
    units: Solution | None = None  # unit of each parameter, in which it is searched; None: all are one


class OnePlusOneES(Strategy):
    """(1+1)-ES; with a larger population a (1+lambda)-ES, where the offspring give the success rate.

    The first member of the first generation is the initial solution, so that the parent has a fitness to beat. The
    parent is not evaluated again. On noisy fitness a lucky parent stays.

    Attributes:
        population_size: Number of offspring per generation, at least 1.
        sigma: Initial step size, in the units of the solution, above 0: one number, or a pytree in the structure of the
            solution (numbers, lists, or arrays that broadcast to its leaves).

    References:
        Kern et al. 2004, doi 10.1023/B:NACO.0000023416.59689.4e.
    """

    population_size: int | None = static(default=1, at_least=1)
    sigma: Any = number(default=0.3, above=0, per_parameter=True, search=distributions.times(0.1, 10))

    def mean(self, state: OnePlusOneESState) -> Solution:
        """Returns the parent: the best member so far."""
        return state.parent

    def std(self, state: OnePlusOneESState) -> Solution:
        """Returns sigma times the units, for every parameter."""
        if state.units is None:
            return jax.tree.map(lambda x: jnp.full_like(x, state.sigma), state.parent)
        return jax.tree.map(lambda x, u: (state.sigma.astype(u.dtype) * u).astype(x.dtype), state.parent, state.units)

    def _init(self, key: jax.Array, solution: Solution) -> OnePlusOneESState:
        dtype = common_dtype(*jax.tree.leaves(solution), jnp.float32)
        sigma, units = step_size_and_units(self.sigma, in_single(solution), self.space, "OnePlusOneES.sigma")
        return OnePlusOneESState(
            parent=solution,
            fitness=jnp.asarray(jnp.inf, dtype),
            sigma=jnp.asarray(sigma, dtype),
            generation=jnp.zeros((), jnp.int32),
            units=units,
        )

    def _ask(
        self, key: jax.Array, state: OnePlusOneESState, surrogate: Surrogate | None
    ) -> tuple[Population, OnePlusOneESState]:
        size = self._num_members(state.parent)
        noise = normal_like(key, state.parent, num_samples=size)
        if state.units is not None:
            noise = jax.tree.map(lambda z, u: z.astype(u.dtype) * u[None], noise, state.units)
        sigma = jnp.where(_is_offspring(state, size), state.sigma, 0)

        def mutate(x: jax.Array, z: jax.Array) -> jax.Array:
            steps = sigma.reshape(-1, *[1] * x.ndim).astype(z.dtype) * z
            return (x.astype(z.dtype)[None] + steps).astype(x.dtype)

        return jax.tree.map(mutate, state.parent, noise), state

    def _tell(self, state: OnePlusOneESState, population: Population, evaluation: Evaluation) -> OnePlusOneESState:
        fitness = evaluation.fitness.astype(state.fitness.dtype)
        is_offspring = _is_offspring(state, fitness.shape[0])
        parent_fitness = jnp.where(is_offspring[0], state.fitness, fitness[0])
        # Members as good as the parent count as successes. Where all are equal, the search then moves, in growing
        # steps.
        is_success = (fitness <= parent_fitness) & is_offspring
        success_rate = (jnp.sum(is_success) / jnp.maximum(jnp.sum(is_offspring), 1)).astype(state.sigma.dtype)
        damping = jnp.sqrt(self.space.num_dims(state.parent) + 1)
        exponent = jnp.where(jnp.any(is_offspring), (success_rate - TARGET_SUCCESS_RATE) / damping, 0)

        best = jnp.argmin(fitness)
        replaces = (fitness[best] <= parent_fitness) | ~is_offspring[0]
        return OnePlusOneESState(
            parent=jax.tree.map(
                lambda new, old: jnp.where(replaces, new, old), take_member(population, best), state.parent
            ),
            fitness=jnp.where(replaces, fitness[best], state.fitness),
            sigma=clip_std(state.sigma * jnp.exp(exponent).astype(state.sigma.dtype)),
            generation=state.generation + 1,
            units=state.units,
        )


def _is_offspring(state: OnePlusOneESState, size: int) -> jax.Array:
    """Returns which members are offspring, `[size]`: all but the first one of the first generation, the parent."""
    return (jnp.arange(size) > 0) | (state.generation > 0)
