"""OpenAI-ES: a Monte-Carlo estimate of the gradient of the Gaussian-smoothed fitness.

Reference: Salimans, Ho, Chen, Sidor, Sutskever 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement
Learning", arXiv 1703.03864, Algorithm 1; antithetic pairs and centred ranks as in its section 2.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from strategies.gradient.base import GradientStrategy
from strategies.noise import antithetic_pairs, normal_like, weighted_sum
from zoo import static
from zoo.strategy import Evaluation, Groups, Population, Solution, Surrogate, repeat_groups


class OpenESState(NamedTuple):
    """State of `OpenES`."""

    mean: Solution
    optimizer_state: optax.OptState
    generation: jax.Array  # []


class OpenES(GradientStrategy):
    """OpenAI-ES: antithetic Gaussian perturbations, centred ranks, any optax optimizer.

    With `shaping="none"` the estimate is unbiased for the gradient of E[f(mean + sigma * eps)], eps ~ N(0, I).

    Attributes:
        antithetic: Whether members come in pairs mean ± sigma * eps (members i and i + population_size / 2).

    References:
        Salimans et al. 2017, arXiv 1703.03864.
    """

    antithetic: bool = static(default=True)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        if self.antithetic:
            self._check_pairs(", or antithetic=False")

    @property
    def groups(self) -> np.ndarray | Groups:
        """One group if members are compared with each other; antithetic pairs only if they are merely subtracted."""
        if self.antithetic and self.shaping == "none":
            return repeat_groups(self._fixed_size, 2)
        return super().groups

    def estimate(self, state: OpenESState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate, sum_i w_i (x_i - mean) / (population_size * sigma^2).

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        size = evaluation.fitness.shape[0]
        if self.antithetic:
            weights = self._antithetic_weights(evaluation.fitness)
        else:
            weights = self._shape(evaluation.fitness)
            # The mean as baseline; it contains the member itself, hence n - 1.
            weights = (weights - jnp.mean(weights)) * (size / (size - 1))
        # The weights sum to zero, so the mean drops out of sum_i w_i (x_i - mean).
        scale = 1 / (size * self.sigma_at(state) ** 2)
        return weighted_sum(weights * scale, population)

    def _init(self, key: jax.Array, solution: Solution) -> OpenESState:
        return OpenESState(solution, self._transformation.init(solution), jnp.zeros((), jnp.int32))

    def _ask(self, key: jax.Array, state: OpenESState, surrogate: Surrogate | None) -> tuple[Population, OpenESState]:
        sigma = self.sigma_at(state)
        size = self._num_members(state.mean)
        if self.antithetic:
            noise = normal_like(key, state.mean, num_samples=size // 2)
            return antithetic_pairs(state.mean, sigma, noise), state
        noise = normal_like(key, state.mean, num_samples=size)
        return jax.tree.map(lambda m, z: m + sigma.astype(m.dtype) * z, state.mean, noise), state
