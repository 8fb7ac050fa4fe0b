"""Separable natural evolution strategy: a Gaussian with one standard deviation per parameter.

Members are ranked and get utilities. Mean and log standard deviations take a step along the natural gradient of the
expected utility. It costs O(d), and does not learn how parameters interact.

Reference: Schaul, Glasmachers, Schmidhuber 2011, "High Dimensions and Heavy Tails for Natural Evolution Strategies";
Wierstra et al. 2014, JMLR 15, "Natural Evolution Strategies", Algorithm 6 and Table 1 (utilities, learning rates).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Surrogate,
    clip_std,
    distributions,
    in_single,
    normal_like,
    number,
    spread_over,
    weighted_sum,
)
from zoo.core.promotion import times
from zoo.strategies.distribution import scalars
from zoo.strategies.distribution.base import DistributionStrategy, moved, perturbed, pull_in, squared_norms
from zoo.strategies.shaping import utilities


class SNESState(NamedTuple):
    """State of `SNES`."""

    mean: Solution
    std: Solution  # standard deviation per parameter, in the structure of the solution


class SNES(DistributionStrategy):
    """Separable NES: steps of the natural gradient in the mean and in the log standard deviations.

    Attributes:
        mean_learning_rate: Learning rate of the mean, in units of the natural gradient, at least 0.
        std_learning_rate: Learning rate of the log standard deviations, at least 0. Defaults to (3 + ln d) / (5
            sqrt(d)).

    References:
        Wierstra et al. 2014, JMLR 15:949-980, Algorithm 6.
    """

    sigma: Any = number(default=0.1, above=0, per_parameter=True, search=distributions.times(0.1, 10))
    mean_learning_rate: float = number(default=1.0, at_least=0, search=distributions.times(0.1, 2))
    std_learning_rate: float | None = number(default=None, at_least=0)

    def std(self, state: SNESState) -> Solution:
        """Returns the standard deviations of the search distribution."""
        return jax.tree.map(lambda s, m: s.astype(m.dtype), state.std, state.mean)

    def _init(self, key: jax.Array, solution: Solution) -> SNESState:
        return SNESState(solution, spread_over(self.sigma, in_single(solution), f"{type(self).__name__}.sigma"))

    def _ask(self, key: jax.Array, state: SNESState, surrogate: Surrogate | None) -> tuple[Population, SNESState]:
        noise = normal_like(key, state.std, num_samples=self._num_members(state.mean))
        return jax.tree.map(perturbed, state.mean, state.std, noise), state

    def _tell(self, state: SNESState, population: Population, evaluation: Evaluation) -> SNESState:
        std_learning_rate, d = self.std_learning_rate, self.space.num_dims(state.mean)
        if std_learning_rate is None:
            std_learning_rate = (3 + scalars.log(d)) / (5 * scalars.sqrt(d))
        utility = utilities(evaluation.fitness)
        deviations = jax.tree.map(lambda x, m: x - m[None], in_single(population), in_single(state.mean))
        if evaluation.repaired is not None:
            deviations = pull_in(deviations, evaluation.repaired, squared_norms(deviations, state.std), d)
        # std * (gradient of the mean). Not a sum over the members: the utilities sum to zero only up to rounding, and
        # the mean may be far from zero.
        step = weighted_sum(utility * self.mean_learning_rate, deviations)

        # sum_i u_i (z_i^2 - 1), where the 1 drops out. As a product, because XLA's CPU backend is some twenty times
        # slower at a sum over the leading axis.
        squares = jax.tree.map(lambda y, s: jnp.square(y * (1 / s)[None]), deviations, state.std)
        gradient = weighted_sum(utility, squares)

        def new_std(std: jax.Array, gradient: jax.Array) -> jax.Array:
            return clip_std(std * jnp.exp(times(0.5 * std_learning_rate, gradient)).astype(std.dtype))

        return SNESState(
            mean=jax.tree.map(moved, state.mean, step),
            std=jax.tree.map(new_std, state.std, gradient),
        )
