"""Particle swarm optimisation: members fly towards the best place they have seen and the best one of all.

Reference: Kennedy & Eberhart 1995, "Particle Swarm Optimization", doi:10.1109/ICNN.1995.488968; inertia weight: Shi &
Eberhart 1998, doi:10.1109/ICEC.1998.699146; constriction: Clerc & Kennedy 2002, doi:10.1109/4235.985692. The update is
(3) and (4) of Bratton & Kennedy 2007, doi:10.1109/SIS.2007.368035, with inertia chi and coefficients chi phi / 2.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Population, Solution, number, take_member, uniform_like
from zoo.strategies.population.base import (
    PopulationStrategy,
    copies,
    nothing_evaluated,
    unevaluated,
    where_members,
)

_PHI = 4.1
_CHI = 2 / (_PHI - 2 + math.sqrt(_PHI**2 - 4 * _PHI))  # Clerc & Kennedy 2002, type 1": 0.72984


class PSOState(NamedTuple):
    """State of `PSO`."""

    members: Population  # [population_size, ...] where the particles are
    velocities: Population  # [population_size, ...]
    best_members: Population  # [population_size, ...] the best place that each particle has seen
    fitness: jax.Array  # [population_size] of best_members, +inf before they are evaluated


class PSO(PopulationStrategy):
    """Particle swarm with a global best; recommends the best member seen.

    The defaults are Clerc and Kennedy's constriction: with phi = 4.1, inertia chi and both coefficients chi phi / 2.
    A particle keeps the fitness of its best place: where fitness is noisy, a lucky one stays.

    Attributes:
        sigma: Standard deviation of the initial population around the initial solution, which is its first member: one
            number, or one for each parameter, in the structure of the solution, of numbers and arrays that broadcast to
            its leaves.
        inertia: How much of its velocity a particle keeps.
        cognitive: Acceleration towards the particle's own best place.
        social: Acceleration towards the best place of all.

    References:
        Clerc & Kennedy 2002, IEEE Trans. Evolutionary Computation 6:58-73.
    """

    inertia: float = number(default=_CHI, at_least=0)
    cognitive: float = number(default=_CHI * _PHI / 2, at_least=0)
    social: float = number(default=_CHI * _PHI / 2, at_least=0)

    def mean(self, state: PSOState) -> Solution:
        """Returns the best member seen (the initial solution before the first)."""
        return take_member(state.best_members, jnp.argmin(state.fitness))

    def _default_population_size(self, num_dims: int) -> int:
        """50 particles, between the 20 and 100 that Bratton & Kennedy 2007 find equally good."""
        return 50

    def _init(self, key: jax.Array, solution: Solution) -> PSOState:
        size = self._num_members(solution)
        velocities = jax.tree.map(jnp.zeros_like, copies(solution, size))  # Engelbrecht 2012: zero is best
        return PSOState(copies(solution, size), velocities, copies(solution, size), unevaluated(solution, size))

    def _next_population(self, key: jax.Array, state: PSOState) -> Population:
        key_own, key_all = jax.random.split(key)
        best = jnp.argmin(state.fitness)

        def fly(x: jax.Array, v: jax.Array, own: jax.Array, r_own: jax.Array, r_all: jax.Array) -> jax.Array:
            inertia, cognitive, social = (
                jnp.asarray(setting, x.dtype) for setting in (self.inertia, self.cognitive, self.social)
            )
            velocity = inertia * v + cognitive * r_own * (own - x) + social * r_all * (own[best][None] - x)  # (3)
            moved = x + velocity  # (4)
            return jnp.where(jnp.isfinite(moved), moved, x)  # settings beyond the stable ones make the swarm explode

        draws = uniform_like(key_own, state.members), uniform_like(key_all, state.members)
        return jax.tree.map(fly, state.members, state.velocities, state.best_members, *draws)

    def _tell(self, state: PSOState, population: Population, evaluation: Evaluation) -> PSOState:
        fitness = evaluation.fitness.astype(state.fitness.dtype)
        is_first = nothing_evaluated(state.fitness)
        better = (fitness < state.fitness) | is_first
        # What the particle did, not what it wanted: a repaired member, as at a bound, loses what speed was cut off.
        velocities = jax.tree.map(lambda new, old: jnp.where(is_first, 0, new - old), population, state.members)
        return PSOState(
            population,
            velocities,
            where_members(better, population, state.best_members),
            jnp.where(better, fitness, state.fitness),
        )
