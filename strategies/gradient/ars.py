"""ARS: augmented random search, finite differences along the best of the random directions.

Members are drawn around the mean in antithetic pairs. The directions are ranked by the better member of each pair, and
only the top directions enter the step. The step is their sum, each times the difference of fitness within its pair,
divided by the standard deviation of the fitness of the members that enter.

Reference: Mania, Guy, Recht 2018, "Simple random search provides a competitive approach to reinforcement learning",
arXiv 1803.07055, Algorithm 2. Its V1 and V2 differ only in the normalisation of observations, which is the problem's
here (`normalize_observations` of `rl/*`). With fewer top directions than all, they are V1-t and V2-t.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.core import State, distributions, number, static
from zoo.strategies.gradient.base import GradientStrategy
from zoo.strategies.shaping import Shaping


class ARS(GradientStrategy):
    """Augmented random search: the top directions by the better of each pair, steps over the spread of their fitness.

    The step is not a gradient of the fitness. Over the b top directions it is divided by the standard deviation of
    their 2 b fitness values, and not by the length of a perturbation.

    Attributes:
        num_top_directions: How many of the population_size / 2 directions enter the step, at least 1. Defaults to all.
        shaping: Fitness shaping as in `open_es`, by default `"none"`. Shaped fitness is what is ranked and scaled.

    References:
        Mania, Guy, Recht 2018, arXiv 1803.07055, Algorithm 2.
    """

    learning_rate: float = number(default=0.02, at_least=0, search=distributions.times(0.03, 30))
    optimizer: Any = static(default=optax.sgd)
    num_top_directions: int | None = static(default=None, at_least=1)
    shaping: str | Shaping = static(default="none")

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        if self.population_size is not None:
            self._num_top(self.population_size // 2)

    def weights(self, state: State, fitness: jax.Array) -> jax.Array:
        """Returns (f_k+ - f_k-) / (2 b sigma_R) for the members of the top directions, and zero for the others."""
        fitness = self.shape(fitness)
        # The step does not depend on the scale of the fitness. Scaled by the largest value, squares cannot overflow.
        largest = jnp.max(jnp.abs(fitness))
        plus, minus = jnp.split(fitness / jnp.where(largest > 0, largest, 1), 2)
        num_top = self._num_top(len(plus))
        top = jnp.argsort(jnp.minimum(plus, minus))[:num_top]
        spread = jnp.std(jnp.concatenate([plus[top], minus[top]]))
        half = (plus[top] - minus[top]) / (2 * num_top * jnp.where(spread > 0, spread, 1))
        half = jnp.zeros_like(plus).at[top].set(half, unique_indices=True)
        return jnp.concatenate([half, -half])

    def _num_top(self, num_directions: int) -> int:
        if self.num_top_directions is not None and self.num_top_directions > num_directions:
            raise ValueError(
                f"ARS.num_top_directions must be at most population_size / 2 = {num_directions}, the number of "
                f"directions, got {self.num_top_directions}. Use fewer, or a larger population."
            )
        return self.num_top_directions or num_directions
