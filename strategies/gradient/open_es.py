"""OpenAI-ES: a Monte-Carlo estimate of the gradient of the Gaussian-smoothed fitness.

Reference: Salimans, Ho, Chen, Sidor, Sutskever 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement
Learning", arXiv 1703.03864, Algorithm 1; antithetic pairs and centred ranks as in its section 2.1. Semi-updates:
Lenc, Elsen, Schaul, Simonyan 2019, "Non-Differentiable Supervised Learning with Evolution Strategies and Hybrid
Methods", arXiv 1906.03139.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.core import Evaluation, Groups, Population, Solution, Surrogate, repeat_groups, static
from zoo.strategies.gradient.base import GradientStrategy


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
        num_workers: Workers that the population is divided among, for semi-updates: each sees data of its own and
            shapes the fitness of its own members only, and their partial gradients are averaged. Member i belongs to
            worker i modulo num_workers.

    References:
        Salimans et al. 2017, arXiv 1703.03864; Lenc et al. 2019, arXiv 1906.03139 (semi-updates).
    """

    antithetic: bool = static(default=True)
    num_workers: int = static(default=1, at_least=1)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        if self.antithetic:
            self._check_pairs(", or antithetic=False")
        size = self.population_size
        if self.num_workers == 1 or size is None:
            return
        share = self.num_workers * (2 if self.antithetic else 1)
        if size % share or size < 2 * self.num_workers:
            raise ValueError(
                f"OpenES divides the population among {self.num_workers} workers, of two members or more"
                f"{' in antithetic pairs' if self.antithetic else ''}: population_size must be a multiple of {share} "
                f"and at least {2 * self.num_workers}, got {size}."
            )

    @property
    def groups(self) -> np.ndarray | Groups:
        """Each worker's members, which are compared; antithetic pairs only if they are merely subtracted."""
        if self.num_workers > 1:
            return repeat_groups(self._fixed_size, self._fixed_size // self.num_workers)
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
        if self.antithetic:
            weights = self._antithetic_weights(evaluation.fitness)
        else:
            weights = self._per_worker(_subtract_mean, self._shape(evaluation.fitness))
        return self._weighted_estimate(state, population, weights)

    def _shape(self, fitness: jax.Array) -> jax.Array:
        return self._per_worker(super()._shape, fitness)

    def _per_worker(self, fn: Callable[[jax.Array], jax.Array], values: jax.Array) -> jax.Array:
        """Applies a function of the values of one worker's members to those of each worker."""
        if self.num_workers == 1:
            return fn(values)
        return jax.vmap(fn, in_axes=1, out_axes=1)(values.reshape(-1, self.num_workers)).reshape(-1)

    def _init(self, key: jax.Array, solution: Solution) -> OpenESState:
        return OpenESState(solution, self._transformation.init(solution), jnp.zeros((), jnp.int32))

    def _ask(self, key: jax.Array, state: OpenESState, surrogate: Surrogate | None) -> tuple[Population, OpenESState]:
        signs = (1, -1) if self.antithetic else (1,)
        num_samples = self._num_members(state.mean) // len(signs)
        noise = self._perturbation.draw(key, state.mean, num_samples)
        return self._perturbation.perturb(state.mean, self.sigma_at(state), noise, signs), state


def _subtract_mean(weights: jax.Array) -> jax.Array:
    """The mean as baseline; it contains the member itself, hence n - 1."""
    size = weights.shape[0]
    return (weights - jnp.mean(weights)) * (size / max(size - 1, 1))
