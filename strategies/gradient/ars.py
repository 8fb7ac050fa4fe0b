"""ARS: augmented random search, finite differences along the best of the random directions.

Reference: Mania, Guy, Recht 2018, "Simple random search provides a competitive approach to reinforcement learning",
arXiv 1803.07055, Algorithm 2. V1 and V2 differ in the normalisation of observations alone, which is the problem's
(`normalize_observations` of `rl/*`); fewer top directions than all make them V1-t and V2-t.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import Evaluation, Population, Solution, Surrogate, number, static, weighted_sum
from zoo.strategies.gradient.base import GradientStrategy, OptimizerFactory
from zoo.strategies.shaping import Shaping


class ARSState(NamedTuple):
    """State of `ARS`."""

    mean: Solution
    optimizer_state: optax.OptState
    generation: jax.Array  # []


class ARS(GradientStrategy):
    """Augmented random search: the top directions by the better of each pair, steps over the spread of their fitness.

    Attributes:
        num_top_directions: How many of the population_size / 2 directions enter the step; default all.
        shaping: As in `GradientStrategy`, but off by default; what it returns is what is ranked and scaled.

    References:
        Mania, Guy, Recht 2018, arXiv 1803.07055, Algorithm 2.
    """

    learning_rate: float = number(default=0.02, at_least=0)
    optimizer: OptimizerFactory | str = static(default=optax.sgd)
    num_top_directions: int | None = static(default=None, at_least=1)
    shaping: str | Shaping = static(default="none")

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        self._check_pairs()
        if self.population_size is not None:
            self._num_top(self.population_size)

    def estimate(self, state: ARSState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the step that is handed to the optimizer, sum_k (f_k+ - f_k-) z_k / (b sigma_R).

        It is not a gradient of the fitness: over the b top directions z_k it is divided by sigma_R, the standard
        deviation of their 2 b fitness values, and not by the length of a perturbation.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        fitness = self._shape(evaluation.fitness)
        # The step does not depend on the scale of the fitness, and squares of this one cannot overflow.
        largest = jnp.max(jnp.abs(fitness))
        fitness = fitness / jnp.where(largest > 0, largest, 1)
        num_pairs = fitness.shape[0] // 2
        plus, minus = fitness[:num_pairs], fitness[num_pairs:]
        num_top = self._num_top(fitness.shape[0])
        top = jnp.argsort(jnp.minimum(plus, minus))[:num_top]
        spread = jnp.std(jnp.concatenate([plus[top], minus[top]]))
        weights = (plus[top] - minus[top]) / (num_top * jnp.where(spread > 0, spread, 1))
        half = jnp.zeros_like(plus).at[top].set(weights, unique_indices=True)
        # z_k = (x_k+ - x_k-) / (2 sigma).
        return weighted_sum(jnp.concatenate([half, -half]) / (2 * self.sigma_at(state)), population, like=state.mean)

    def _init(self, key: jax.Array, solution: Solution) -> ARSState:
        return ARSState(solution, self._transformation.init(solution), jnp.zeros((), jnp.int32))

    def _ask(self, key: jax.Array, state: ARSState, surrogate: Surrogate | None) -> tuple[Population, ARSState]:
        noise = self._perturbation.draw(key, state.mean, self._num_members(state.mean) // 2)
        return self._perturbation.perturb(state.mean, self.sigma_at(state), noise), state

    def _num_top(self, population_size: int) -> int:
        num_directions = population_size // 2
        if self.num_top_directions is not None and self.num_top_directions > num_directions:
            raise ValueError(
                f"ARS.num_top_directions must be at most population_size / 2 = {num_directions}, the number of "
                f"directions, got {self.num_top_directions}. Use fewer, or a larger population."
            )
        return self.num_top_directions or num_directions
