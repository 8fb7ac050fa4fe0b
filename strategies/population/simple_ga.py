"""A simple genetic algorithm: truncation selection, Gaussian mutation, elites.

The best members of a generation become parents. Each child is a copy of a random parent plus Gaussian noise. Optionally
some of its parameters come from a second parent. The elites, the very best members, pass on unchanged.

Reference: Such et al. 2017, "Deep Neuroevolution: Genetic Algorithms Are a Competitive Alternative for Training Deep
Neural Networks for Reinforcement Learning", arXiv 1712.06567, Algorithm 1. The paper has one elite, no crossover and a
constant sigma (`sigma_decay=1`). Here sigma decays by default, because a constant one comes no closer to an optimum
than its own size.
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
    spread_over,
    static,
    uniform_like,
)
from zoo.core.promotion import times
from zoo.strategies.population.base import copies


class SimpleGAState(NamedTuple):
    """State of `SimpleGA`."""

    parents: Population  # [num_parents, ...] the best of the last generation, best first
    generation: jax.Array  # []


class SimpleGA(Strategy):
    """Genetic algorithm: children of the best members, mutated; the very best pass on unchanged.

    Elites are evaluated again together with their children, so that a lucky one does not stay for ever where fitness is
    noisy.

    Attributes:
        sigma: Initial standard deviation of the mutation, in the units of the solution, above 0: one number, or a
            pytree in the structure of the solution (numbers, lists, or arrays that broadcast to its leaves).
        sigma_decay: Factor that multiplies sigma after each generation, above 0, at most 1. With 1, sigma is constant,
            and the search comes no closer to an optimum than about sigma.
        sigma_floor: The smallest sigma that the decay leads to, as a fraction of `sigma` between 0 and 1.
        num_parents: Number of members that have children, at least 1. Defaults to a fifth of the population.
        num_elites: Number of the best members that pass on unchanged, at most `num_parents`. They count towards
            `population_size`. With 0, the best member can be lost.
        crossover_rate: Probability that an entry of a child comes from a second parent, between 0 and 1. With `None`,
            there is no second parent.

    References:
        Such et al. 2017, arXiv 1712.06567.
    """

    sigma: Any = number(default=0.1, above=0, per_parameter=True, search=distributions.times(0.1, 10))
    sigma_decay: float = number(default=0.99, above=0, at_most=1, search=distributions.uniform(0.9, 1))
    sigma_floor: float = number(default=0.01, at_least=0, at_most=1)
    num_parents: int | None = static(default=None, at_least=1)
    num_elites: int = static(default=1, at_least=0)
    crossover_rate: float | None = number(default=None, at_least=0, at_most=1)

    def mean(self, state: SimpleGAState) -> Solution:
        """Returns the best member of the last generation: with an elite, and without noise, the best one seen."""
        return jax.tree.map(lambda x: x[0], state.parents)

    def std(self, state: SimpleGAState) -> Solution:
        """Returns the standard deviation of the children per parameter, from their parents and the mutation."""
        return jax.tree.map(
            lambda x, s: clip_std(jnp.sqrt(jnp.var(x, axis=0) + jnp.square(s))), state.parents, self._sigma(state)
        )

    def _default_population_size(self, num_dims: int) -> int:
        """Returns 50: by default ten of them become parents."""
        return 50

    def _init(self, key: jax.Array, solution: Solution) -> SimpleGAState:
        size = self._num_members(solution)
        num_parents = self.num_parents or max(1, self.num_elites, size // 5)
        if not self.num_elites <= num_parents <= size or self.num_elites == size:
            raise ValueError(
                "SimpleGA needs num_elites <= num_parents <= population_size, and at least one child, got "
                f"num_elites={self.num_elites}, num_parents={num_parents}, population_size={size}."
            )
        return SimpleGAState(copies(solution, num_parents), jnp.zeros((), jnp.int32))

    def _ask(
        self, key: jax.Array, state: SimpleGAState, surrogate: Surrogate | None
    ) -> tuple[Population, SimpleGAState]:
        key_parents, key_crossover, key_mutation = jax.random.split(key, 3)
        mean = self.mean(state)
        num_parents = jax.tree.leaves(state.parents)[0].shape[0]
        num_children = self._num_members(mean) - self.num_elites
        first, second = jax.random.randint(key_parents, (2, num_children), 0, num_parents)
        children = jax.tree.map(lambda x: x[first], state.parents)
        if self.crossover_rate is not None:
            children = jax.tree.map(
                lambda child, x, uniform: jnp.where(uniform < self.crossover_rate, x[second], child),
                children,
                state.parents,
                uniform_like(key_crossover, children),
            )
        noise = normal_like(key_mutation, mean, num_samples=num_children)
        population = jax.tree.map(
            lambda x, child, s, z: jnp.concatenate([x[: self.num_elites], child + s[None] * z]),
            state.parents,
            children,
            self._sigma(state),
            noise,
        )
        return population, state

    def _tell(self, state: SimpleGAState, population: Population, evaluation: Evaluation) -> SimpleGAState:
        fitness = evaluation.fitness
        num_parents = jax.tree.leaves(state.parents)[0].shape[0]
        # Stable, so that the elite goes first among equals.
        best = jnp.argsort(fitness, stable=True)[:num_parents]
        return SimpleGAState(jax.tree.map(lambda x: x[best], population), state.generation + 1)

    def _sigma(self, state: SimpleGAState) -> Solution:
        """Returns the standard deviation of the mutation per parameter."""
        decayed = jnp.asarray(self.sigma_decay, jnp.float32) ** state.generation.astype(jnp.float32)
        factor = jnp.maximum(decayed, self.sigma_floor)
        mean = self.mean(state)
        spread = spread_over(self.sigma, in_single(mean), f"{type(self).__name__}.sigma")
        return jax.tree.map(lambda s, m: clip_std(times(factor, s).astype(m.dtype)), spread, mean)
