"""Particle swarm optimisation: members fly towards the best place they have seen and the best one of all.

Each member is a particle with a position and a velocity. In every generation it keeps a part of its velocity, and is
accelerated by random amounts towards its own best position and towards the best position of the swarm.

Reference: Kennedy & Eberhart 1995, "Particle Swarm Optimization", doi:10.1109/ICNN.1995.488968; inertia weight: Shi &
Eberhart 1998, doi:10.1109/ICEC.1998.699146; constriction: Clerc & Kennedy 2002, doi:10.1109/4235.985692. The update is
(3) and (4) of Bratton & Kennedy 2007, doi:10.1109/SIS.2007.368035, with inertia chi and coefficients chi phi / 2.

Velocities start at zero. A velocity is measured from where the particle really went, so that a particle that a bound
stopped has lost its speed.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Population, Solution, distributions, number, take_member, uniform_like
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

    members: Population  # [population_size, ...] positions of the particles
    velocities: Population  # [population_size, ...]
    best_members: Population  # [population_size, ...] the best position that each particle has seen
    fitness: jax.Array  # [population_size] of best_members, +inf before they are evaluated


class PSO(PopulationStrategy):
    """Particle swarm with a global best; recommends the best member seen.

    The defaults are Clerc and Kennedy's constriction: with phi = 4.1, inertia chi and both coefficients chi phi / 2. A
    particle keeps the fitness of its best position. Where fitness is noisy, a lucky one stays.

    Attributes:
        inertia: Fraction of its velocity that a particle keeps, at least 0.
        cognitive: Largest acceleration towards the particle's own best position, as a multiple of the distance, at
            least 0.
        social: Largest acceleration towards the best position of all, as a multiple of the distance, at least 0.

    References:
        Clerc & Kennedy 2002, IEEE Trans. Evolutionary Computation 6:58-73.
    """

    inertia: float = number(default=_CHI, at_least=0, search=distributions.uniform(0.4, 0.9))
    cognitive: float = number(default=_CHI * _PHI / 2, at_least=0, search=distributions.uniform(0.5, 2.5))
    social: float = number(default=_CHI * _PHI / 2, at_least=0, search=distributions.uniform(0.5, 2.5))

    def mean(self, state: PSOState) -> Solution:
        """Returns the best member seen; the initial solution before the first `tell`."""
        return take_member(state.best_members, jnp.argmin(state.fitness))

    def _default_population_size(self, num_dims: int) -> int:
        """Returns 50, between the 20 and 100 that Bratton & Kennedy 2007 find equally good."""
        return 50

    def _init(self, key: jax.Array, solution: Solution) -> PSOState:
        size = self._num_members(solution)
        velocities = jax.tree.map(jnp.zeros_like, copies(solution, size))  # zero is best (Engelbrecht 2012)
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
            return jnp.where(jnp.isfinite(moved), moved, x)  # unstable settings make the swarm explode

        draws = uniform_like(key_own, state.members), uniform_like(key_all, state.members)
        return jax.tree.map(fly, state.members, state.velocities, state.best_members, *draws)

    def _tell(self, state: PSOState, population: Population, evaluation: Evaluation) -> PSOState:
        fitness = evaluation.fitness.astype(state.fitness.dtype)
        is_first = nothing_evaluated(state.fitness)
        better = (fitness < state.fitness) | is_first
        # Velocities follow the positions that were evaluated. A member that was repaired at a bound loses the speed
        # that was cut off.
        velocities = jax.tree.map(lambda new, old: jnp.where(is_first, 0, new - old), population, state.members)
        return PSOState(
            population,
            velocities,
            where_members(better, population, state.best_members),
            jnp.where(better, fitness, state.fitness),
        )
